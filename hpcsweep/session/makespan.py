"""How long a sweep takes if all its runs go well: its scheduler, played without a cluster."""

from __future__ import annotations

import dataclasses
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from hpcsweep.core.events import (
    Config,
    Outcome,
    RunFinished,
    RunReported,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.protocols import Clone, Decision, Promote, Scheduler, Start, Stop, fewest
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.spec import SweepSpec

#: A sweep of more runs is not played to its end.
MOST_RUNS: Final = 100_000

#: Orders of values that are tried where the time depends on it.
_PLAYS: Final = 5
#: ... unless they have so many runs together.
_ENOUGH_RUNS: Final = 2000
#: Reports of a run at most, where the scheduler needs some.
_REPORTS: Final = 30

#: Seconds of a run, by the resource of the rung below it, else 0, and its own.
RunSeconds = Callable[[int, int], float]


class Makespan(NamedTuple):
    """How a sweep goes.

    Attributes:
        seconds: From the first run to the last.
        busy_s: Of all runs.
        parallel: Most runs at a time.
    """

    seconds: float
    busy_s: float
    parallel: int


def makespan(spec: SweepSpec, run_seconds: RunSeconds, *, places: int | None) -> Makespan | None:
    """How long the sweep takes with so many runs at a time; None if it does not end, or has too many runs.

    No run fails, waits in the queue or is stopped by a rule (but by the scheduler itself). Values are random
    and keep their order over the rungs; where the time depends on that, it is the median of several orders.

    Args:
        spec: Of the sweep.
        run_seconds: What a run takes, by the step at which the rung below ended and that which it reaches.
        places: Runs at a time at most; None: any number.
    """
    if is_open_ended(spec):
        return None
    most = fewest(spec.budget.trials, spec.space.size)
    played: list[Makespan] = []
    runs = 0
    while len(played) < _PLAYS:
        scheduler = make_scheduler(dataclasses.replace(spec, stop=()))
        sweep = _Played(scheduler, spec, run_seconds, places=places, most=most, seed=len(played))
        found = sweep.play()
        if found is None:
            return None
        played.append(found)
        runs += sweep.started
        depends = scheduler.needs_reports or scheduler.plan(spec.budget.trials).estimated
        if not depends or runs > _ENOUGH_RUNS:
            break
    return sorted(played)[len(played) // 2]


def is_open_ended(spec: SweepSpec) -> bool:
    """Whether only a budget of time or GPU-hours ends it."""
    plan = make_scheduler(spec).plan(spec.budget.trials)
    return plan.starts is None and bool(plan.open_ended) and spec.space.size is None


class _Run(NamedTuple):
    """A run of a configuration, or of one of its repeats."""

    config: int
    rung: int
    start: int
    resource: int


def _reported(start: int, resource: int) -> list[int]:
    """Steps before the last one at which a run reports: all of them, or those that are close enough."""
    if resource - start <= _REPORTS:
        return list(range(start + 1, resource))
    spread = (resource / max(1, start)) ** (1 / _REPORTS)
    steps = {round(max(1, start) * spread**index) for index in range(1, _REPORTS)}
    return sorted(step for step in steps if start < step < resource)


class _Played:
    """A sweep in virtual time; each configuration has a value of its own, the same at every rung."""

    def __init__(
        self,
        scheduler: Scheduler,
        spec: SweepSpec,
        run_seconds: RunSeconds,
        *,
        places: int | None,
        most: int | None,
        seed: int,
    ) -> None:
        self._scheduler = scheduler
        self._seconds = run_seconds
        self._places = places
        self._most = most
        self._repeats = spec.repeats
        self._objectives = spec.objectives
        self._chance = random.Random(seed)
        self._values: list[float] = []
        self._reached: list[int] = []
        self._newest: list[_Run] = []  # by configuration
        self._unended: dict[_Run, int] = {}  # by run: repeats that go on
        self._ends: dict[_Run, list[float]] = {}  # by run: when the repeats end that have started
        self._waiting: deque[_Run] = deque()
        #: Time, a number for ties, and what happens then: a run's end (no step), or a report.
        self._coming: list[tuple[float, int, _Run, int | None]] = []
        self._happened = self._running = self._parallel = 0
        #: Runs so far.
        self.started = 0
        self._now = self._busy = 0.0

    def play(self) -> Makespan | None:
        """To the end; None where there is none."""
        while self.started <= MOST_RUNS:
            self._decide()
            if not self._coming:
                return Makespan(self._now, self._busy, self._parallel) if self._scheduler.done else None
            self._advance()
        return None

    def _decide(self) -> None:
        # Who is stopped makes room for others.
        while decisions := self._scheduler.decide(self._wanted):
            for decision in decisions:
                if isinstance(decision, Start) and len(self._values) == self._most:
                    self._scheduler.apply(TrialsExhausted("there are no more configurations", "budget"))
                    break  # starts come last
                self._carry_out(decision)
        while self._waiting and (self._places is None or self._running < self._places):
            run = self._waiting.popleft()
            if run in self._unended:  # it was not stopped
                self._start(run)

    @property
    def _wanted(self) -> int:
        """Configurations that there is room for."""
        if self._places is None:
            return MOST_RUNS
        return -(-max(0, self._places - self._running - len(self._waiting)) // self._repeats)

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Start(bracket, resource):
                self._create(bracket, resource, {}, start=0)
            case Clone(bracket, resource, parent, start, config):
                self._create(bracket, resource, config, start=start, parent=parent)
            case Promote(trial, rung, resource):
                self._scheduler.apply(TrialPromoted(trial, rung, resource))
                self._newest[trial] = _Run(trial, rung, self._reached[trial], resource)
                self._submit(self._newest[trial])
            case Stop(trial, reason):
                self._scheduler.apply(TrialStopped(trial, reason))
                self._end_early(trial)

    def _create(
        self, bracket: int, resource: int, config: Config, *, start: int, parent: int | None = None
    ) -> None:
        trial = len(self._values)
        self._values.append(self._chance.random())
        self._reached.append(start)
        origin = "searcher" if parent is None else "clone"
        self._scheduler.apply(
            TrialCreated(trial, config, bracket, resource, parent=parent, start=start, origin=origin)
        )
        run = _Run(trial, 0, start, resource)
        self._newest.append(run)
        self._submit(run)

    def _submit(self, run: _Run) -> None:
        self._unended[run] = self._repeats
        self._ends[run] = []
        self._waiting.extend([run] * self._repeats)

    def _start(self, run: _Run) -> None:
        seconds = self._seconds(run.start, run.resource)
        self._running += 1
        self.started += 1
        self._parallel = max(self._parallel, self._running)
        if self._scheduler.needs_reports:
            for step in _reported(run.start, run.resource):
                self._schedule(self._now + self._seconds(run.start, step), run, step)
        self._schedule(self._now + seconds, run, None)
        self._ends[run].append(self._now + seconds)
        self._busy += seconds

    def _schedule(self, at: float, run: _Run, step: int | None) -> None:
        self._happened += 1
        heapq.heappush(self._coming, (at, self._happened, run, step))

    def _advance(self) -> None:
        """Go to the next moment at which something happens, and let all of it happen."""
        now = self._coming[0][0]
        while self._coming and self._coming[0][0] == now:
            _, _, run, step = heapq.heappop(self._coming)
            if run not in self._unended:  # it was stopped
                continue
            self._now = now
            if step is not None:
                value, values = self._measured(run.config)
                several = (values,) if values else ()
                self._scheduler.apply(RunReported(run.config, run.rung, ((step, value),), several))
                continue
            self._running -= 1
            self._unended[run] -= 1
            if not self._unended[run]:
                self._finish(run, Outcome.COMPLETED, run.resource)

    def _end_early(self, trial: int) -> None:
        run = self._newest[trial]
        ends = [at for at in self._ends[run] if at > self._now]
        self._busy -= sum(at - self._now for at in ends)
        self._running -= len(ends)
        self._finish(run, Outcome.STOPPED, self._reached[trial])

    def _finish(self, run: _Run, outcome: Outcome, step: int) -> None:
        del self._unended[run], self._ends[run]
        self._reached[run.config] = step
        value, values = self._measured(run.config)
        self._scheduler.apply(
            RunFinished(run.config, run.rung, outcome, value=value, step=step, values=values)
        )

    def _measured(self, config: int) -> tuple[float, tuple[float, ...]]:
        value = self._values[config]
        return value, (value,) * len(self._objectives) if self._objectives.several else ()
