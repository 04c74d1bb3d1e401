"""Fifo: every trial is trained to the full resource, in the order of its creation."""

from __future__ import annotations

from hpcsweep.core.events import AnyEvent, NoMoreTrials, Outcome, RunFinished, SweepResumed, TrialCreated
from hpcsweep.core.protocols import Decision, Start
from hpcsweep.schedulers.rungs import Ladder

#: Trials handed out at a time when they need not wait for results.
AHEAD = 1000


class Fifo:
    """Starts trials until there are no more.

    Args:
        max_resource: Each trial is trained up to this.
        trials: How many, None until the space or the budget is exhausted.
        ahead: Hand out trials far beyond the free slots, as few large arrays; right for a
            searcher that does not learn from results.
    """

    watches = False
    clones = False

    def __init__(
        self, *, max_resource: int = 1, trials: int | None = None, ahead: bool = False, minimise: bool = True
    ) -> None:
        self.ladders = (Ladder((max_resource,), (trials or 0,)),)
        self._resource = max_resource
        self._trials = trials
        self._ahead = ahead
        self._created = 0
        self._exhausted = False
        self.dropped: list[int] = []
        self.trained: list[int] = []

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._created += 1
            case RunFinished(outcome=Outcome.COMPLETED):
                self.trained.append(event.trial)
            case NoMoreTrials():
                self._exhausted = True
            case SweepResumed():
                self._exhausted = False
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        if slots <= 0 or self._exhausted:
            return []
        count = max(slots, AHEAD) if self._ahead else slots
        if self._trials is not None:
            count = min(count, self._trials - self._created)
        return [Start(0, self._resource)] * max(0, count)

    @property
    def done(self) -> bool:
        return self._exhausted or (self._trials is not None and self._created >= self._trials)
