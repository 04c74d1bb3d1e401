"""How a sweep goes: a fold over its events, from which status, watch, page and comparison read. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchPlanned,
    BatchSubmitted,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    SweepExtended,
    SweepResumed,
    SweepStarted,
    TickSubmitted,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.state import SweepState
from hpcsweep.views.run_times import RunTimes

#: So many of the newest failures and interruptions are listed.
NEWEST_SHOWN: Final = 5
#: The throughput is that of the last hour, or of as many hours as it takes to have so many runs.
RECENT_S: Final = 3600.0
RECENT_RUNS: Final = 10
#: The newest ended runs that it is computed from.
_KEPT: Final = 5000


def uses_gpus(state: SweepState) -> bool:
    """Whether what the sweep costs is counted in GPU-hours, else in run-hours."""
    return bool(state.spent_gpu_s or state.gpus)


def run_counts(state: SweepState, *, running: int, unread: int = 0) -> dict[str, int]:
    """Number of runs in each state; `unread` runs have ended and the driver does not know it yet."""
    counts = journal_counts(state)
    pending = counts.pop("submitted") - running - unread
    return {"waiting": counts.pop("waiting"), "pending": pending, "running": running} | counts


def journal_counts(state: SweepState) -> dict[str, int]:
    """Number of runs in each state as far as the journal knows."""
    return {status.value: count for status, count in state.counts.items()}


# ---------------------------------------------------------------------- rungs


class RungCount:
    """Runs at one rung of one bracket: how many there are, have ended, and how."""

    def __init__(self, resource: int) -> None:
        self.resource = resource
        self.runs = 0
        self.completed = 0
        self.failed = 0
        self.stopped = 0

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.stopped

    def add_outcome(self, outcome: Outcome) -> None:
        match outcome:
            case Outcome.COMPLETED:
                self.completed += 1
            case Outcome.STOPPED:
                self.stopped += 1
            case _:
                self.failed += 1


class RungCounts:
    """Counts by bracket and rung, a fold over events; brackets in the order in which they began."""

    def __init__(self) -> None:
        self._rungs: dict[int, list[RungCount]] = {}
        self._bracket_of: list[int] = []
        self._unended: Counter[int] = Counter()  # runs by bracket; none at 0

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._bracket_of.append(event.bracket)
                self._add_run(event.bracket, 0, event.resource)
            case TrialPromoted():
                self._add_run(self._bracket_of[event.trial], event.rung, event.resource)
            case RunFinished():
                bracket = self._bracket_of[event.trial]
                self._rungs[bracket][event.rung].add_outcome(event.outcome)
                self._unended[bracket] -= 1
                if not self._unended[bracket]:
                    del self._unended[bracket]
            case RunRetried():
                bracket = self._bracket_of[event.trial]
                self._rungs[bracket][event.rung].failed -= 1
                self._unended[bracket] += 1
            case _:
                pass

    def _add_run(self, bracket: int, rung: int, resource: int) -> None:
        rungs = self._rungs.setdefault(bracket, [])
        if rung == len(rungs):
            rungs.append(RungCount(resource))
        rungs[rung].runs += 1
        self._unended[bracket] += 1

    def __len__(self) -> int:
        """Number of brackets that have begun."""
        return len(self._rungs)

    def brackets(self) -> dict[int, list[RungCount]]:
        """The rungs of each bracket, lowest first."""
        return {bracket: self._rungs[bracket] for bracket in sorted(self._rungs)}

    def is_under_way(self, bracket: int) -> bool:
        """Whether it has runs that have not ended."""
        return bracket in self._unended

    def current(self, *, newest: int = 0) -> dict[int, list[RungCount]]:
        """Brackets under way and so many of the newest ones, at a cost that does not grow with the sweep."""
        brackets = {*self._unended, *islice(reversed(self._rungs), newest)}
        return {bracket: self._rungs[bracket] for bracket in sorted(brackets)}


# ---------------------------------------------------------------------- the sweep


class EndedRun(NamedTuple):
    """An ending of a run, and what the sweep had spent by then."""

    at: float
    run: RunId
    value: float | None
    step: int
    units: int  # of resource that need not be trained any more
    spent_s: float
    spent_gpu_s: float


class BestChange(NamedTuple):
    """From `at` on, this was the best value; what the sweep had spent by then."""

    at: float
    active_s: float  # as in `SweepProgress`
    trial: int  # the first one of its configuration
    value: float
    spent_s: float
    spent_gpu_s: float


class ValuesChange(NamedTuple):
    """From `at` on, a configuration had these values of several objectives; none any more where empty."""

    at: float
    active_s: float  # as in `SweepProgress`
    trial: int  # the first one of its configuration
    values: tuple[float, ...]
    spent_s: float
    spent_gpu_s: float


class Throughput(NamedTuple):
    """What has ended recently, per second."""

    runs: float
    units: float
    gpu_s: float


class SweepProgress:
    """What is known of a sweep at one moment; an event costs no more in a long sweep than in a short one."""

    def __init__(self) -> None:
        self.state = SweepState()
        self.rungs = RungCounts()
        self.ended: list[EndedRun] = []  # in the order in which the driver learned of them
        self.best_changes: list[BestChange] = []  # in the order of time; none where there is a front
        self.values_changes: list[ValuesChange] = []  # the same of each configuration, where there is one
        self.times = RunTimes()
        self.now = 0.0  # Unix time of the newest event
        self._interruptions: deque[RunInterrupted] = deque(maxlen=NEWEST_SHOWN)
        self._failures: dict[RunId, RunFinished] = {}
        self._newest_answer: BatchAbandoned | BatchSubmitted | None = None
        self._resumed_at = 0.0
        self._ended_before = 0
        self._paused_s = 0.0

    @classmethod
    def replay(cls, events: Iterable[AnyEvent]) -> SweepProgress:
        progress = cls()
        for event in events:
            progress.apply(event)
        return progress

    def apply(self, event: AnyEvent) -> None:
        self.state.apply(event)
        self.rungs.apply(event)
        match event:
            case SweepStarted() | SweepResumed():
                if isinstance(event, SweepResumed):
                    self._paused_s += max(0.0, event.at - self.now)
                self._resumed_at = self.now = max(self.now, event.at)
                self._ended_before = len(self.ended)
                self.times.resume(self.now)
            case BatchPlanned():
                self.times.plan(event)
            case BatchSubmitted() | BatchAbandoned():
                self._newest_answer = event
            case RunFinished():
                self._run_finished(event)
            case RunInterrupted():
                if not FACTS[event.interruption].expected:
                    self._interruptions.append(event)
            case RunRetried():
                self._failures.pop(RunId(event.trial, event.rung), None)
                self._note_values(event.trial, self.now)
            case _:
                pass
        at = getattr(event, "at", None)
        if isinstance(event, TickSubmitted):  # that is when it will tick
            return
        paused = isinstance(event, SweepExtended) and self.state.ended is not None
        if isinstance(at, float) and not paused:
            self.now = max(self.now, at)

    def _run_finished(self, event: RunFinished) -> None:
        at = self.now if event.started is None else event.started + event.seconds
        self.now = max(self.now, at)
        state = self.state
        trial = state.trials[event.trial]
        runs, below = trial.runs, trial.below(event.rung)
        units = runs[event.rung].resource - below
        completed = event.outcome is Outcome.COMPLETED
        self.times.add(
            at, (below, runs[event.rung].resource), event.seconds, completed=completed, batch=event.batch
        )
        self.ended.append(
            EndedRun(at, event.run, event.value, event.step, units, state.spent_s, state.spent_gpu_s)
        )
        self._failures.pop(event.run, None)
        if event.outcome not in (Outcome.COMPLETED, Outcome.STOPPED):
            self._failures[event.run] = event
        if event.value is not None or state.repeats > 1:
            self._note_values(event.trial, at)

    def _note_values(self, trial: int, at: float) -> None:
        """What the configuration of a trial has now."""
        if not self.state.objectives.has_front:
            self._note_best(at)
            return
        changes = self.values_changes
        first = trial - self.state.trials[trial].repeat
        newest = self.state.newest(first)
        at = max(at, changes[-1].at) if changes else at
        active = max(changes[-1].active_s if changes else 0.0, at - self.began - self._paused_s)
        values = newest.values if newest else ()
        changes.append(ValuesChange(at, active, first, values, self.state.spent_s, self.state.spent_gpu_s))

    def _note_best(self, at: float) -> None:
        best, changes = self.state.best, self.best_changes
        if best is None or (changes and (changes[-1].trial, changes[-1].value) == (best.trial, best.value)):
            return
        at = max(at, changes[-1].at) if changes else at
        active = max(changes[-1].active_s if changes else 0.0, at - self.began - self._paused_s)
        spent = self.state.spent_s, self.state.spent_gpu_s
        changes.append(BestChange(at, active, best.trial, best.value, *spent))

    # ------------------------------------------------------------------ questions

    @property
    def status(self) -> str:
        """`running` until the sweep has ended, then `finished`, `stopped`, `failed` or `paused`."""
        return "running" if self.state.ended is None else self.state.ended.outcome.value

    @property
    def began(self) -> float:
        """Unix time."""
        return self.state.started.at if self.state.started else 0.0

    @property
    def active_s(self) -> float:
        """Time since the start, pauses between an end and a resumption left out."""
        return self.now - self.began - self._paused_s

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The last few runs that failed for good and are not tried again, oldest first."""
        return self.newest_failures(NEWEST_SHOWN)

    def newest_failures(self, most: int) -> list[dict[str, Any]]:
        """The same, so many of them at most."""
        newest = [*islice(reversed(self._failures.values()), most)]
        return [failure_record(event) for event in reversed(newest)]

    @property
    def interruptions(self) -> list[dict[str, Any]]:
        """The last few interruptions that may need attention, oldest first."""
        return [interruption_record(event) for event in self._interruptions]

    @property
    def refusal(self) -> str | None:
        """Why the newest batch was refused, if nothing has been submitted since."""
        newest = self._newest_answer
        return newest.reason if isinstance(newest, BatchAbandoned) and not newest.over_limit else None

    def throughput(self, *, now: float) -> Throughput | None:
        """How fast runs end recently; None while unknown."""
        ended = self.ended[max(self._ended_before, len(self.ended) - _KEPT) :]
        if len(ended) < 2:
            return None
        since = self._resumed_at if len(ended) < _KEPT else min(run.at for run in ended)
        window = RECENT_S
        while True:
            begin = max(since, now - window)
            recent = [run for run in ended if run.at >= begin]
            if begin == since or len(recent) >= RECENT_RUNS:
                break
            window *= 2
        seconds = now - begin
        if seconds <= 0 or not recent:
            return None
        spent_before = max((run.spent_gpu_s for run in ended if run.at < begin), default=0.0)
        spent = self.state.spent_gpu_s - spent_before
        return Throughput(len(recent) / seconds, sum(run.units for run in recent) / seconds, spent / seconds)


def interruption_record(event: RunInterrupted) -> dict[str, Any]:
    """An interruption as `status --json` has it."""
    return {"why": event.interruption.value} | _where(event)


def failure_record(event: RunFinished) -> dict[str, Any]:
    """A failure as `status --json` has it."""
    failure = event.failure_kind.value if event.failure_kind else None
    return {"outcome": event.outcome.value, "failure": failure} | _where(event)


def _where(event: RunFinished | RunInterrupted) -> dict[str, Any]:
    return {field: getattr(event, field) for field in ("trial", "rung", "node", "job", "message")}
