"""Learning curves that are power laws, for trying out sweeps before anything is trained.

`curve` is a stand-in objective for `hpcsweep simulate`, `train` a toy trainer for `hpcsweep launch`
that reports the same values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from hpcsweep import Trial


def curve(config: Mapping[str, Any], step: int, seed: int) -> float:
    """Validation error after `step` epochs: `floor + rise * step ** -speed`, with a little noise.

    A high learning rate learns quickly and ends at a higher floor, a low one the other way round: what
    leads early need not win. One that is much too high diverges.
    """
    lr, width, dropout = float(config["lr"]), int(config["width"]), float(config["dropout"])
    adam = config["optimizer"] == "adam"
    best = -3.0 if adam else -1.0 - 2.0 * (float(config["momentum"]) - 0.5)
    off = math.log10(lr) - best  # decades from the best learning rate
    if off > 1.5:
        return math.nan
    floor = 0.02 + 0.015 * (off - 0.1) ** 2 + 0.02 * (dropout - 0.25) ** 2 + 0.6 / width
    speed = max(0.05, (0.9 if adam else 0.75) + 0.25 * off - 0.05 * math.log2(width / 64))
    noise = 0.002 * Random(f"{seed} {step}").gauss(0.0, 1.0)
    return max(0.0, floor + 0.9 * math.pow(step, -speed) + noise / math.sqrt(step))


def train(trial: Trial) -> None:
    """Report the curve of the epochs that are left; a checkpoint of it needs no content."""
    for step in trial.steps():
        trial.report(step, val_error=curve(trial.config, step, trial.seed))
    with trial.checkpoint(trial.resource):
        pass
