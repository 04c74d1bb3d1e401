"""Counts of runs by bracket and rung, kept up to date event by event. Pure."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, RunRetried, TrialCreated, TrialPromoted
from hpcsweep.core.state import SweepState
from hpcsweep.schedulers import SchedulerTraits, scheduler_traits


def scheduler_options(state: SweepState) -> dict[str, Any]:
    """The scheduler's section of the spec, its name included; empty before the sweep has started."""
    found: dict[str, Any] = state.started.identity.get("scheduler", {}) if state.started else {}
    return found


def traits_of(state: SweepState) -> SchedulerTraits:
    """What the sweep's scheduler says of itself; the defaults where it is not installed here."""
    return scheduler_traits(scheduler_options(state).get("name", ""))


def is_population(state: SweepState) -> bool:
    """Whether each bracket is one member of a population, in which clones replace each other.

    Where the scheduler does not say, it is so if there are clones and every bracket began with one trial.
    """
    if traits_of(state).population:
        return True
    roots = Counter(trial.bracket for trial in state.trials if trial.origin != "clone" and not trial.repeat)
    return max(roots.values(), default=0) == 1 and any(trial.origin == "clone" for trial in state.trials)


class RungCount:
    """One rung of one bracket: how many runs it has, and how many of them have ended and how."""

    def __init__(self, resource: int) -> None:
        self.resource = resource
        self.runs = 0
        self.completed = 0
        self.failed = 0
        self.stopped = 0

    @property
    def ended(self) -> int:
        """Runs that have ended for good."""
        return self.completed + self.failed + self.stopped


class RungCounts:
    """A fold over events; brackets in the order in which they began."""

    def __init__(self) -> None:
        self._rungs: dict[int, list[RungCount]] = {}
        self._brackets: list[int] = []  # of each trial
        self._under_way: Counter[int] = Counter()  # runs without an ending, by bracket; none at 0

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._brackets.append(event.bracket)
                self._begin(event.bracket, 0, event.resource)
            case TrialPromoted():
                self._begin(self._brackets[event.trial], event.rung, event.resource)
            case RunFinished():
                bracket = self._brackets[event.trial]
                count = self._rungs[bracket][event.rung]
                match event.outcome:
                    case Outcome.COMPLETED:
                        count.completed += 1
                    case Outcome.STOPPED:
                        count.stopped += 1
                    case _:
                        count.failed += 1
                self._under_way[bracket] -= 1
                if not self._under_way[bracket]:
                    del self._under_way[bracket]
            case RunRetried():
                bracket = self._brackets[event.trial]
                self._rungs[bracket][event.rung].failed -= 1
                self._under_way[bracket] += 1
            case _:
                pass

    def _begin(self, bracket: int, rung: int, resource: int) -> None:
        rungs = self._rungs.setdefault(bracket, [])
        if rung == len(rungs):
            rungs.append(RungCount(resource))
        rungs[rung].runs += 1
        self._under_way[bracket] += 1

    def __len__(self) -> int:
        """Number of brackets that have begun."""
        return len(self._rungs)

    def brackets(self) -> dict[int, list[RungCount]]:
        """The rungs of each bracket, lowest first."""
        return {bracket: self._rungs[bracket] for bracket in sorted(self._rungs)}

    def under_way(self, bracket: int) -> bool:
        """Whether it has runs without an ending."""
        return bracket in self._under_way

    def current(self, *, newest: int = 0) -> dict[int, list[RungCount]]:
        """The same for brackets with runs under way and for so many of the newest ones.

        Costs no more in a long sweep than in a short one.
        """
        brackets = {*self._under_way, *islice(reversed(self._rungs), newest)}
        return {bracket: self._rungs[bracket] for bracket in sorted(brackets)}
