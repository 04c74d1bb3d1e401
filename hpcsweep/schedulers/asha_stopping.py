"""The stopping kind of ASHA: a run goes on past a rung unless it is outside the top 1/eta there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from hpcsweep.core.events import (
    AnyEvent,
    Outcome,
    RunFinished,
    RunReported,
    RunRetried,
    TrialCreated,
    TrialStopped,
)
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.protocols import Promote, Stop


class StoppingBracket:
    """Trials of one run each to the last resource; the rungs below are milestones on its way.

    The value of a milestone is that of the first report at or after it; a report that passes
    several counts for the last of them, as it says nothing fair of those before. With n values at
    the milestone so far, its own included, the trial goes on if it is among the best
    max(1, floor(n / eta)), ties to the older trial. A run that fails counts as the worst value of
    the milestone that it did not reach, until it is tried again.
    """

    def __init__(self, resources: tuple[int, ...], *, eta: int, minimise: bool) -> None:
        self.first = resources[-1]
        self._milestones = resources[:-1]
        self._eta = eta
        self._sign = 1 if minimise else -1
        self._ranked: list[list[tuple[float, int]]] = [[] for _ in self._milestones]
        self._failed: list[set[int]] = [set() for _ in self._milestones]
        #: The next milestone of each trial that runs.
        self._next: dict[int, int] = {}
        self._stops: dict[int, Stop] = {}
        #: None is ever promoted: a trial is dropped as soon as it is trained to its end.
        self.dropped: list[int] = []
        self.trained: list[int] = []
        self._completed: list[int] = []

    def limit(self, trials: int) -> None:
        """Nothing depends on how many trials there are."""

    def begin_anew(self) -> None:
        """However many trials start, those that are trained to their end go no further."""
        self.dropped = list(self._completed)

    def extend(self, resources: tuple[int, ...]) -> None:
        """Nothing: its trials are runs to the resource that they began with."""

    @property
    def open(self) -> bool:
        """Whether anything goes on that may be stopped."""
        return bool(self._next)

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._next[event.trial] = 0
            case RunReported() if event.trial in self._next:
                for step, value in event.reports:
                    self._report(event.trial, step, value)
            case TrialStopped():
                self._leave(event.trial)
            case RunFinished():
                if event.outcome is Outcome.COMPLETED:
                    self._completed.append(event.trial)
                    self.dropped.append(event.trial)
                milestone = self._next.get(event.trial, len(self._milestones))
                failed = not FACTS[event.outcome].ended_well
                if failed and event.trial not in self._stops and milestone < len(self._milestones):
                    self._failed[milestone].add(event.trial)
                self._leave(event.trial)
            case RunRetried():
                for milestone, trials in enumerate(self._failed):
                    if event.trial in trials:
                        trials.remove(event.trial)
                        self._next[event.trial] = milestone
            case _:
                pass

    def promotions(self, limit: int) -> list[Promote]:
        return []

    def stops(self) -> list[Stop]:
        return list(self._stops.values())

    def _leave(self, trial: int) -> None:
        self._next.pop(trial, None)
        self._stops.pop(trial, None)

    def _report(self, trial: int, step: int, value: float) -> None:
        milestone = bisect_right(self._milestones, step) - 1
        if trial in self._stops or milestone < self._next[trial] or step >= self.first:
            return
        self._next[trial] = milestone + 1
        ranked = self._ranked[milestone]
        entry = (self._sign * value, trial)
        rank = bisect_left(ranked, entry) + 1
        insort(ranked, entry)
        count = len(ranked) + len(self._failed[milestone])
        best = max(1, count // self._eta)
        if rank > best:
            self._stops[trial] = Stop(
                trial,
                f"asha: at the rung of resource {self._milestones[milestone]} its value {value:.6g} is "
                f"number {rank} of {count}, and the best {best} of them go on",
            )
