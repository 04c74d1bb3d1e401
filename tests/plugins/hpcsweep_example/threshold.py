"""A scheduler: whoever beats a threshold at the first rung is trained in full."""

from __future__ import annotations

from hpcsweep.core.events import (
    AnyEvent,
    Outcome,
    RunFinished,
    RunRetried,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.protocols import (
    BracketPlan,
    Decision,
    Positive,
    Promote,
    Scheduler,
    SchedulerPlan,
    Start,
    fewest,
)


class Threshold(Scheduler):
    """Promotes a trial whose first value is better than a threshold.

    Args:
        max_resource: What the best are trained up to, in epochs or steps.
        threshold: The value to beat.
        trials: How many trials, None until the space or the budget is exhausted.
        minimise: Whether small values are good.
    """

    needs_reports = False
    clones = False
    promotes_any_time = True

    def __init__(
        self,
        *,
        max_resource: Positive,
        threshold: float = 0.5,
        trials: int | None = None,
        minimise: bool = True,
    ) -> None:
        if max_resource < 2:
            raise ValueError(f"max_resource: must be at least 2, got {max_resource}")
        self._max_resource = max_resource
        self._threshold = threshold
        self._trials = trials
        self._minimise = minimise
        self._started = 0
        self._exhausted = False
        self._first_rung: set[int] = set()  # running there
        self._promotable: dict[int, None] = {}

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        """Two rungs; how many reach the second one depends on the results."""
        starts = fewest(trials, self._trials)
        return SchedulerPlan(
            (BracketPlan((1, self._max_resource)),),
            starts=starts,
            estimated=True,
            open_ended="threshold goes on for ever in this space" if starts is None else "",
            notes=(f"whoever beats {self._threshold:g} is trained up to {self._max_resource}",),
        )

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._started += 1
                self._first_rung.add(event.trial)
            case RunRetried(rung=0):
                self._first_rung.add(event.trial)
            case TrialPromoted() | TrialStopped():
                self._promotable.pop(event.trial, None)
            case RunFinished(rung=0):
                self._first_rung.discard(event.trial)
                if event.outcome is Outcome.COMPLETED and self._is_good(event.value):
                    self._promotable[event.trial] = None
            case TrialsExhausted():
                self._exhausted = True
            case SweepResumed():
                self._exhausted = False
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        slots = max(0, slots)
        promotions = [Promote(trial, 1, self._max_resource) for trial in list(self._promotable)[:slots]]
        return [*promotions, *[Start(0, 1)] * self._left(slots - len(promotions))]

    @property
    def done(self) -> bool:
        return not self._promotable and not self._first_rung and not self._left(1)

    def _is_good(self, value: float | None) -> bool:
        return value is not None and (value < self._threshold) == self._minimise

    def _left(self, limit: int) -> int:
        if self._exhausted:
            return 0
        return limit if self._trials is None else max(0, min(limit, self._trials - self._started))
