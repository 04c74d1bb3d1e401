"""Fifo: every trial is trained to the full resource, in the order of its creation."""

from __future__ import annotations

from typing import Final

from hpcsweep.core.events import (
    AnyEvent,
    ConfigsEnqueued,
    Outcome,
    ParametersSuggested,
    RunFinished,
    SweepExtended,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
)
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.protocols import BracketPlan, Decision, Positive, Promote, SchedulerPlan, Start, fewest
from hpcsweep.core.space import Space

#: Trials handed out at a time when they need not wait for results.
AHEAD = 1000


class Fifo:
    """Starts trials until there are no more.

    Where the sweep is extended, the trials that have completed go on to
    the new resource, before any that are new. For that alone no checkpoints are kept, as it may be
    those of all trials: whoever has completed is `dropped`.

    Args:
        max_resource: Each trial is trained up to this, in epochs or steps.
        trials: How many, None until the space or the budget is exhausted.
        ahead: Hand out trials far beyond the free slots, as few large arrays; right for a
            searcher that does not learn from results.
        space: The search space.
        minimise: Whether small values are good, which is all the same to it, as are the `objectives`.
    """

    needs_reports = False
    clones = False
    extendable: Final = ("max_resource",)

    def __init__(
        self,
        *,
        max_resource: Positive = 1,
        trials: int | None = None,
        ahead: bool = False,
        space: Space | None = None,
        minimise: bool = True,
        objectives: Objectives | None = None,
    ) -> None:
        self._resource = max_resource
        self._trials = trials
        #: How many different configurations there are, None for infinitely many.
        self._configs = None if space is None else space.size
        self._ahead = ahead
        self._created = 0
        self._enqueued = 0
        self._exhausted = ""  # by what
        #: Trial -> resource of its newest run.
        self._resources: dict[int, int] = {}
        #: Trials that have completed their newest run -> the rung of the next one: those at the
        #: full resource, and those that have yet to go on to it.
        self._completed: dict[int, int] = {}
        self._behind: dict[int, int] = {}
        self.dropped: list[int] = []

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        """One rung of all its trials."""
        trials = fewest(trials, self._trials)
        known = fewest(trials, self._configs)
        return SchedulerPlan(
            () if known is None else (BracketPlan((self._resource,), (known,)),),
            starts=known,
            open_ended="fifo goes on for ever in this space" if trials is None else "",
        )

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._created += 1
                self._enqueued -= event.origin == "enqueued"
                self._resources[event.trial] = event.resource
            case TrialPromoted():
                self._behind.pop(event.trial, None)
                self._resources[event.trial] = event.resource
            case RunFinished(outcome=Outcome.COMPLETED):
                self._complete(event.trial, event.rung)
            case ConfigsEnqueued():
                self._enqueued += len(event.configs)
            case TrialsExhausted():
                self._exhausted = event.cause
            case SweepExtended():
                resource = event.identity.get("scheduler", {}).get("max_resource", self._resource)
                if resource > self._resource:
                    self._resource = resource
                    self._behind |= self._completed
                    self._completed, self.dropped = {}, []
            case SweepResumed() | ParametersSuggested(more_trials=True):
                self._exhausted = ""
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        if slots <= 0:
            return []
        count = max(slots, AHEAD) if self._ahead else slots
        decisions: list[Decision] = [
            Promote(trial, rung, self._resource) for trial, rung in list(self._behind.items())[:count]
        ]
        return [*decisions, *[Start(0, self._resource)] * min(count - len(decisions), self._left(count))]

    @property
    def done(self) -> bool:
        return not self._behind and not self._left(1)

    def _complete(self, trial: int, rung: int) -> None:
        """The trial has completed a run: it waits for the next one, or is at its end."""
        if self._resources[trial] < self._resource:
            self._behind[trial] = rung + 1
        else:
            self._completed[trial] = rung + 1
            self.dropped.append(trial)

    def _left(self, limit: int) -> int:
        """How many trials may still start, at most `limit`."""
        if self._exhausted:  # what was enqueued is tried though the searcher has nothing more to propose
            limit = min(limit, self._enqueued) if self._exhausted == "space" else 0
        return limit if self._trials is None else max(0, min(limit, self._trials - self._created))
