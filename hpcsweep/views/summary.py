"""One of several sweeps that are compared: its best value as it went, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    RunFinished,
    SweepEnded,
    SweepResumed,
    SweepStarted,
)
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.views.results import Results

Axis: TypeAlias = Literal["cost", "time"]


class Course(NamedTuple):
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


class Sweep(NamedTuple):
    """One results folder.

    Attributes:
        state: `running`, or how it ended.
        best: As of `Results`. `error`: standard error of its value where that is a mean of repeats.
        cost: All GPU-hours, or run-hours where no GPU is used; `time`: hours, as in `Course`.
        settings: What it shares with sweeps that repeat it: everything but the seed.
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
    course: Course
    settings: bytes

    @property
    def label(self) -> str:
        return str(self.path)


def entrant(results: Results, *, gpus: bool) -> Sweep:
    """What is compared of a folder; its cost in GPU-hours or in run-hours."""
    state, identity = results.folder.state, results.identity
    course, hours = _course(results.folder.reading.events, gpus=gpus)
    searcher = dict(identity.get("searcher", {}))
    name, picked = str(searcher.get("name", "?")), state.started.resolved_searcher if state.started else ""
    return Sweep(
        path=results.path,
        name=results.name,
        searcher=f"{name} ({picked})" if picked else name,
        scheduler=str(identity.get("scheduler", {}).get("name", "?")),
        seed=searcher.pop("seed", None),
        state=results.folder.sweep_state,
        trials=len(state.trials),
        best=results.best,
        error=_error(state),
        cost=(state.spent_gpu_s if gpus else state.spent_s) / 3600,
        time=hours,
        course=course,
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


def _error(state: SweepState) -> float | None:
    """Standard error of the best value, by its repeats."""
    best = state.best
    if best is None or best.repeats < 2:
        return None
    trials = state.trials[best.trial : best.trial + best.repeats]
    values = [value for trial in trials if (value := trial.runs[best.rung].value) is not None]
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def _course(events: Sequence[AnyEvent], *, gpus: bool) -> tuple[Course, float]:
    """The best value over time and cost, and the hours to the last event."""
    state = SweepState()
    now = begin = paused = 0.0
    steps: list[tuple[float, float, float]] = []
    for event in events:
        state.apply(event)
        match event:
            case SweepStarted():
                now = begin = event.at
            case SweepResumed():
                paused += max(0.0, event.at - now)
                now = max(now, event.at)
            case BatchPlanned() | BatchSubmitted() | SweepEnded():
                now = max(now, event.at)
            case RunFinished(started=float(started)):
                now = max(now, started + event.seconds)
            case _:
                pass
        best = state.best
        if best is not None and (not steps or steps[-1][2] != best.value):
            cost = state.spent_gpu_s if gpus else state.spent_s
            steps.append(((now - begin - paused) / 3600, cost / 3600, best.value))
    time, cost_h, value = np.array(steps, dtype=float).reshape(-1, 3).T
    return Course(time, cost_h, value), (now - begin - paused) / 3600
