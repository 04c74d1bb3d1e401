"""Small specs for simulations."""

from __future__ import annotations

from pathlib import Path

from hpcsweep.cluster.simulated.task import Curve
from hpcsweep.core.events import Config
from hpcsweep.spec import SweepSpec, load_spec

SPEC = """\
name: lr
train: {function: "trainer.py:train"}
objective: {metric: loss}
space:
  x: {type: float, low: 0.0, high: 1.0}
searcher: random
scheduler: {name: hyperband, max_resource: 9}
resources: {gpus: 1}
cluster:
  max_gpus: 4
  reuse: false
  poll: 1
  grace: 5
  settle: 20
  simulated: {gpus: 4, seconds_per_unit: 10}
"""


def write_spec(folder: Path) -> Path:
    """The file, for overrides."""
    path = folder / "lr.yaml"
    path.write_text(SPEC)
    return path


def spec_of(folder: Path, *overrides: str) -> SweepSpec:
    return load_spec(write_spec(folder), overrides)


def falling(config: Config, step: int, seed: int) -> float:
    return float((config["x"] - 0.3) ** 2 + 1 / step)


def both(config: Config, step: int, seed: int) -> tuple[float, float]:
    """The same beside a second objective, to be maximised."""
    return falling(config, step, seed), float(config["x"])


def curve_of(spec: SweepSpec) -> Curve:
    """The curve with as many values as the sweep has objectives."""
    return both if spec.objectives.several else falling
