"""Counts of runs by bracket and rung, kept up to date event by event."""

from __future__ import annotations

from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, TrialCreated, TrialPromoted


class RungCount:
    """One rung of one bracket."""

    def __init__(self, resource: int) -> None:
        self.resource = resource
        self.runs = 0
        self.completed = 0
        self.failed = 0


class RungCounts:
    """A fold over events; rungs in the order in which they began."""

    def __init__(self) -> None:
        self.rungs: dict[tuple[int, int], RungCount] = {}
        self._brackets: list[int] = []

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._brackets.append(event.bracket)
                self._at(event.bracket, 0, event.resource).runs += 1
            case TrialPromoted():
                self._at(self._brackets[event.trial], event.rung, event.resource).runs += 1
            case RunFinished():
                count = self.rungs[self._brackets[event.trial], event.rung]
                if event.outcome is Outcome.COMPLETED:
                    count.completed += 1
                else:
                    count.failed += 1
            case _:
                pass

    def _at(self, bracket: int, rung: int, resource: int) -> RungCount:
        return self.rungs.setdefault((bracket, rung), RungCount(resource))

    def brackets(self) -> dict[int, list[RungCount]]:
        """The rungs of each bracket, lowest first."""
        found: dict[int, list[RungCount]] = {}
        for (bracket, _), count in sorted(self.rungs.items()):
            found.setdefault(bracket, []).append(count)
        return found


def rung_text(count: RungCount) -> str:
    """For example `27x3` when all are done, `20/27x3` while some are not."""
    ended = count.completed + count.failed
    done = str(count.runs) if ended == count.runs else f"{ended}/{count.runs}"
    failed = f" ({count.failed} failed)" if count.failed else ""
    return f"{done}x{count.resource}{failed}"
