"""One of several sweeps that are compared: its best value over time and cost, and what it is a repeat of."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.views.configurations import standard_error
from hpcsweep.views.progress import SweepProgress
from hpcsweep.views.results import Results

Axis: TypeAlias = Literal["cost", "time"]


class BestCurve(NamedTuple):
    """The best value so far, each time that it changed, `(n,)`.

    Attributes:
        time: Hours since the start, pauses between an end and a resumption left out.
        cost: GPU-hours by then, or run-hours where no GPU is used.
    """

    time: Floats
    cost: Floats
    value: Floats

    def at(self, hours: Floats, axis: Axis) -> Floats:
        """The value by then; NaN before the first one."""
        steps = np.searchsorted(self.cost if axis == "cost" else self.time, hours, side="right")
        return np.concatenate([[math.nan], self.value])[steps]


class SweepSummary(NamedTuple):
    """One results folder.

    Attributes:
        state: `running`, or how it ended.
        best: As of `Results`. `error`: standard error of its value where that is a mean of repeats.
        cost: All GPU-hours, or run-hours where no GPU is used; `time`: hours, as in `BestCurve`.
        settings: Equal for sweeps that repeat each other: everything but the seed.
    """

    path: Path
    name: str
    searcher: str
    scheduler: str
    seed: int | None
    state: str
    trials: int
    best: dict[str, Any] | None
    error: float | None
    cost: float
    time: float
    curve: BestCurve
    settings: bytes

    @property
    def label(self) -> str:
        return str(self.path)


def summarise(results: Results, *, gpus: bool) -> SweepSummary:
    """What is compared of a folder; its cost in GPU-hours or in run-hours."""
    progress, identity = results.folder.progress, results.identity
    state = progress.state
    searcher = dict(identity.get("searcher", {}))
    name, picked = str(searcher.get("name", "?")), state.started.resolved_searcher if state.started else ""
    return SweepSummary(
        path=results.path,
        name=results.name,
        searcher=f"{name} ({picked})" if picked else name,
        scheduler=str(identity.get("scheduler", {}).get("name", "?")),
        seed=searcher.pop("seed", None),
        state=progress.status,
        trials=len(state.trials),
        best=results.best,
        error=standard_error(state),
        cost=(state.spent_gpu_s if gpus else state.spent_s) / 3600,
        time=progress.active_s / 3600,
        curve=_best_curve(progress, gpus=gpus),
        settings=msgspec.json.encode(
            [identity | {"searcher": searcher}, picked, _training(results)], order="sorted"
        ),
    )


def _training(results: Results) -> object:
    """What was trained, which is no part of a sweep's identity; None where the spec is not in the folder."""
    try:
        return results.spec.get("train")
    except (FolderError, SpecError):
        return None


def _best_curve(progress: SweepProgress, *, gpus: bool) -> BestCurve:
    changes = progress.best_changes
    # Another trial may have become the best with the same value.
    changes = [*changes[:1], *(new for old, new in pairwise(changes) if new.value != old.value)]
    rows = [(c.active_s / 3600, (c.spent_gpu_s if gpus else c.spent_s) / 3600, c.value) for c in changes]
    time, cost, value = np.array(rows, dtype=float).reshape(-1, 3).T
    return BestCurve(time, cost, value)
