"""Random fault schedules: a small sweep of any kind, a site where anything goes wrong, a driver that dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from numpy.random import Generator, default_rng

from hpcsweep.spec import SweepSpec
from tests.simulation.specs import spec_of


class Schedule(msgspec.Struct, frozen=True):
    """What is run, and what goes wrong.

    Attributes:
        seed: All that is random follows from it.
        overrides: Of the small spec.
        kills: How often the driver dies; `gap`: after so many commits and calls on average.
        flaky: Share of the steps whose training code fails the first time.
        stop: At which tick somebody asks to stop; the sweep is launched again then. None: never.
        retry: Whether somebody asks to try failed runs again, once, when the sweep has ended.
        faults: How often file operations of the driver fail; `fault_gap`: after so many on average.
        compact_at: After so many raw files what has ended is compacted; None: never.
    """

    seed: int
    overrides: tuple[str, ...]
    kills: int
    gap: int
    flaky: float
    stop: int | None
    retry: bool
    compact_at: int | None
    faults: int
    fault_gap: int

    def spec(self, folder: Path) -> SweepSpec:
        """The sweep and its site."""
        return spec_of(folder, *self.overrides)


def schedule_of(seed: int) -> Schedule:
    """The schedule of this seed."""
    rng = default_rng([seed, 4])
    chance = _Chance(rng)
    kind = chance.one_of(_fifo, _median, _halving, _hyperband, _hyperband, _asha, _asha_stopping, _pbt)
    searcher = chance.one_of("random", "random", "random", "sobol", "tpe")
    overrides = [
        f"searcher={{name: {searcher}, seed: {seed}}}",
        *kind(chance),
        f"cluster.poll={chance.one_of(1, 5, 20)}",
        f"cluster.grace={chance.one_of(5, 30)}",
        f"cluster.settle={chance.one_of(10, 60)}",
        f"retries.training={chance.one_of(0, 0, 1, 2)}",
        f"cluster.simulated={msgspec.json.encode(_site(chance)).decode()}",
    ]
    reuse, lanes = _reuse(_Chance(default_rng([seed, 12]))), 1
    overrides += reuse
    if chance(0.25) and "cluster.reuse=true" in reuse:
        lanes = 2
        overrides.append("cluster.concurrent=2")
    if chance(0.15):
        overrides += ["resources.gpus=0", "cluster.max_gpus=null", f"cluster.max_tasks={chance.one_of(1, 3)}"]
    else:
        overrides.append(f"cluster.max_gpus={lanes * chance.one_of(1, 3, 4, 8)}")
    if chance(0.15) and kind in (_fifo, _halving, _hyperband, _asha):
        overrides.append("repeats=2")
    overrides += _objectives(_Chance(default_rng([seed, 14])))
    overrides += _quota(_Chance(default_rng([seed, 13])), wide=kind is _pbt or "repeats=2" in overrides)
    if chance(0.3):
        overrides += [f"resources.time={chance.one_of('1m', '2m', '5m')}", "cluster.signal=10"]
        if chance(0.7):
            overrides.append(f"budget.gpu_hours={chance.one_of(0.05, 0.2, 0.5)}")
    if chance(0.05):
        overrides.append(f"budget.time={chance.one_of('2m', '10m')}")
    return Schedule(
        seed,
        tuple(overrides),
        kills=int(rng.integers(0, 9)),
        gap=chance.one_of(4, 15, 50),
        flaky=chance.one_of(0.0, 0.0, 0.1),
        stop=int(rng.integers(1, 30)) if chance(0.08) else None,
        retry=chance(0.3),
        compact_at=(None, 5, None, 20)[seed % 4],
        **_file_faults(_Chance(default_rng([seed, 8]))),
    )


def _reuse(chance: _Chance) -> list[str]:
    """Drawn apart from the rest as well; in half of the schedules tasks keep their GPUs."""
    if chance(0.5):
        return ["cluster.reuse=false"]
    options = ["cluster.reuse=true", f"cluster.idle={chance.one_of(5, 20, 120)}"]
    if chance(0.5):
        options.append(f"cluster.task_time={chance.one_of('2m', '3m', '10m')}")
    return options


def _objectives(chance: _Chance) -> list[str]:
    """Drawn apart, too: in a fifth of the schedules there are two, the second with a bound."""
    return ["objective=[{metric: loss}, {metric: x, mode: max, at_least: 0.2}]"] if chance(0.2) else []


def _quota(chance: _Chance, *, wide: bool) -> list[str]:
    """Drawn apart, too: a third of the schedules has no room for all checkpoints, but for those it needs."""
    if not chance(0.33):
        return []
    quota = chance.one_of(26, 40) if wide else chance.one_of(12, 14, 20)
    return ["cluster.simulated.checkpoint_size=1M", f"store.checkpoint_quota={quota}M"]


def _file_faults(chance: _Chance) -> dict[str, int]:
    """Drawn apart from the rest, which stays what it was; half of the schedules have none."""
    return {"faults": chance.one_of(0, 0, 2, 8), "fault_gap": chance.one_of(10, 60, 400)}


class _Chance:
    """Draws for schedules."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng

    def __call__(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def one_of(self, *these: Any) -> Any:
        return these[int(self._rng.integers(len(these)))]

    def between(self, low: float, high: float) -> float:
        return round(float(self._rng.uniform(low, high)), 2)


def _fifo(chance: _Chance) -> list[str]:
    return ["scheduler={name: fifo, max_resource: 4}", _trials(chance, 1, 12)]


def _median(chance: _Chance) -> list[str]:
    return ["scheduler={name: fifo, max_resource: 6}", "stop=[median]", _trials(chance, 4, 12)]


def _halving(chance: _Chance) -> list[str]:
    trials = [_trials(chance, 2, 8)] if chance(0.2) else []
    return [
        f"scheduler={{name: halving, max_resource: {chance.one_of(4, 8)}, rounds: {chance.one_of(1, 2)}}}",
        *trials,
    ]


def _hyperband(chance: _Chance) -> list[str]:
    trials = [_trials(chance, 3, 16)] if chance(0.2) else []
    shape = chance.one_of("max_resource: 9", "max_resource: 4, eta: 2", "max_resource: 8, eta: 2")
    return [f"scheduler={{name: hyperband, {shape}}}", *trials]


def _asha(chance: _Chance) -> list[str]:
    brackets = chance.one_of(1, 2)
    return [
        f"scheduler={{name: asha, max_resource: 9, brackets: {brackets}}}",
        _trials(chance, 1, 16),
    ]


def _asha_stopping(chance: _Chance) -> list[str]:
    return ["scheduler={name: asha, max_resource: 9, stopping: true}", _trials(chance, 1, 16)]


def _pbt(chance: _Chance) -> list[str]:
    return [f"scheduler={{name: pbt, population: {chance.one_of(4, 6)}, interval: 2, max_resource: 6}}"]


def _trials(chance: _Chance, low: int, high: int) -> str:
    return f"budget.trials={round(chance.between(low, high))}"


def _site(chance: _Chance) -> dict[str, Any]:
    """Each fault in some schedules, none in some."""
    site: dict[str, Any] = {
        "nodes": chance.one_of(1, 2, 4),
        "gpus": chance.one_of(2, 4),
        "seconds_per_unit": chance.one_of(10, 10, 30),
        "startup": chance.one_of(0, 0, 3),
    }
    faults: dict[str, Any] = {
        "wait": [[0, 0], [1, chance.one_of(5, 100)]],
        "spread": 3,
        "checkpoint_every": chance.one_of(2, 3),
        "preemptions": chance.between(5, 60),
        "requeue": False,
        "failures": chance.between(0.05, 0.5),
        "node_failures": chance.between(2, 30),
        "time_limit": chance.one_of("1m", "4m"),
        "array_tasks": chance.one_of(1, 2, 5),
        "max_jobs": chance.one_of(1, 4, 10),
        "outages": chance.between(5, 40),
        "lost_replies": chance.between(0.1, 0.6),
        "late_results": chance.between(0.1, 0.6),
        "forgets": chance.one_of(0, 10, 100),
    }
    share = chance.one_of(0.0, 0.15, 0.3, 0.6)
    site |= {key: value for key, value in faults.items() if chance(share)}
    if "max_jobs" in site:
        site["tells_max_jobs"] = chance(0.5)
    if "outages" in site:
        site["outage"] = chance.one_of(10, 60, 200)
    return site
