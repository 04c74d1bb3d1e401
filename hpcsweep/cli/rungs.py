"""Counts of runs by bracket and rung, kept up to date event by event."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, RunRetried, TrialCreated, TrialPromoted


class RungCount:
    """One rung of one bracket."""

    def __init__(self, resource: int) -> None:
        self.resource = resource
        self.runs = 0
        self.completed = 0
        self.failed = 0


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
                if event.outcome is Outcome.COMPLETED:
                    count.completed += 1
                else:
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

    def brackets(self) -> dict[int, list[RungCount]]:
        """The rungs of each bracket, lowest first."""
        return {bracket: self._rungs[bracket] for bracket in sorted(self._rungs)}

    def current(self, *, newest: int = 0) -> dict[int, list[RungCount]]:
        """The same for brackets with runs under way and for so many of the newest ones.

        Costs no more in a long sweep than in a short one.
        """
        brackets = {*self._under_way, *islice(reversed(self._rungs), newest)}
        return {bracket: self._rungs[bracket] for bracket in sorted(brackets)}


def rung_text(count: RungCount) -> str:
    """For example `27x3` when all are done, `20/27x3` while some are not."""
    ended = count.completed + count.failed
    done = str(count.runs) if ended == count.runs else f"{ended}/{count.runs}"
    failed = f" ({count.failed} failed)" if count.failed else ""
    return f"{done}x{count.resource}{failed}"
