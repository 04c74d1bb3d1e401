"""How a sweep goes: a fold over its events that keeps what a live view shows. Pure."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any, Final, NamedTuple

from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchPlanned,
    BatchSubmitted,
    Outcome,
    PauseEnded,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    StopRequested,
    SweepEnded,
    SweepResumed,
    SweepStarted,
)
from hpcsweep.core.state import SweepState
from hpcsweep.views.rungs import RungCounts
from hpcsweep.views.warnings import NEWEST_SHOWN, newest_failures, newest_interruptions

#: The pace is that of the last hour, or of as many hours as it takes to have so many runs.
PACE_S: Final = 3600.0
PACE_RUNS: Final = 10
#: Ended runs that are kept for it.
_KEPT: Final = 5000


class Ended(NamedTuple):
    """A run that has ended.

    Attributes:
        units: Of resource that nobody need train any more; `spent_gpu_s`: of the sweep by then.
    """

    at: float
    units: int
    spent_gpu_s: float


class Pace(NamedTuple):
    """What came to an end of late, by the second."""

    runs: float
    units: float
    gpu_s: float


class Course:
    """What is known of a sweep at a moment; costs no more for an event of a long sweep than of a short one.

    Attributes:
        best: Unix time and value, each time that the best value changed.
        interruptions: The newest of those that somebody may look into, oldest first.
    """

    def __init__(self) -> None:
        self.state = SweepState()
        self.rungs = RungCounts()
        self.best: list[tuple[float, float]] = []
        self.interruptions: deque[dict[str, Any]] = deque(maxlen=NEWEST_SHOWN)
        self._failures: dict[RunId, RunFinished] = {}
        self._answer: BatchAbandoned | BatchSubmitted | None = None
        self._ended: deque[Ended] = deque(maxlen=_KEPT)
        self._since = 0.0
        self._now = 0.0

    def apply(self, event: AnyEvent) -> None:
        """Take one event in."""
        self.state.apply(event)
        self.rungs.apply(event)
        match event:
            case SweepStarted() | SweepResumed():
                self._now = self._since = event.at
                self._ended.clear()
            case BatchPlanned() | PauseRequested() | PauseEnded() | StopRequested() | SweepEnded():
                self._now = event.at
            case BatchSubmitted():
                self._now = event.at
                self._answer = event
            case BatchAbandoned():
                self._answer = event
            case RunFinished():
                self._run_finished(event)
            case RunInterrupted():
                self.interruptions.extend(newest_interruptions([event]))
            case RunRetried():
                self._failures.pop(RunId(event.trial, event.rung), None)
                self._look_at_best(self._now)
            case _:
                pass

    def _run_finished(self, event: RunFinished) -> None:
        at = self._now if event.started is None else event.started + event.seconds
        runs = self.state.trials[event.trial].runs
        below = runs[event.rung - 1].resource if event.rung else 0
        self._ended.append(Ended(at, runs[event.rung].resource - below, self.state.spent_gpu_s))
        self._failures.pop(event.run, None)
        if event.outcome not in (Outcome.COMPLETED, Outcome.STOPPED):
            self._failures[event.run] = event
        if event.value is not None:
            self._look_at_best(at)

    def _look_at_best(self, at: float) -> None:
        best = self.state.best
        if best is not None and (not self.best or self.best[-1][1] != best.value):
            self.best.append((max(at, self.best[-1][0]) if self.best else at, best.value))

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The last few runs that failed for good and are not tried again, oldest first."""
        newest = [*islice(reversed(self._failures.values()), NEWEST_SHOWN)]
        return newest_failures(newest[::-1], self.state)

    def refusal(self) -> str | None:
        """Why the newest batch was refused, if nothing has been submitted since."""
        newest = self._answer
        return newest.reason if isinstance(newest, BatchAbandoned) and not newest.over_limit else None

    def pace(self, *, now: float) -> Pace | None:
        """How quickly it goes of late, None while nothing can be said."""
        if len(self._ended) < 2:
            return None
        since = self._since if len(self._ended) < _KEPT else min(ended.at for ended in self._ended)
        window = PACE_S
        while True:
            begun = max(since, now - window)
            recent = [ended for ended in self._ended if ended.at >= begun]
            if begun == since or len(recent) >= PACE_RUNS:
                break
            window *= 2
        seconds = now - begun
        if seconds <= 0 or not recent:
            return None
        spent_before = max((e.spent_gpu_s for e in self._ended if e.at < begun), default=0.0)
        spent = self.state.spent_gpu_s - spent_before
        return Pace(len(recent) / seconds, sum(e.units for e in recent) / seconds, spent / seconds)
