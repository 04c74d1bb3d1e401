"""Several trainings of each configuration: what scheduler and searcher see of them. Pure."""

from __future__ import annotations

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    Config,
    Outcome,
    RunFinished,
    RunRetried,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.models import Run, RunStatus, mean_value
from hpcsweep.core.protocols import Promote, Start, Stop
from hpcsweep.core.state import SweepState


class RepeatAdapter:
    """Translates between trials and configurations, each of which has `count` trials in a row.

    Scheduler and searcher number configurations as if they were trials: configuration `c` has the
    trials `c * count` to `c * count + count - 1`. Its run at a rung has ended when all of its
    trials have; its value is the mean of theirs.
    """

    def __init__(self, state: SweepState) -> None:
        self._state = state

    @property
    def count(self) -> int:
        """Trials of each configuration."""
        return self._state.repeats

    def told(self, event: AnyEvent) -> AnyEvent | None:
        """What scheduler and searcher are told of an event that the state has taken in already."""
        if self.count == 1:
            return event
        match event:
            case TrialCreated() | TrialPromoted() | TrialStopped():
                first = event.trial % self.count == 0
                return msgspec.structs.replace(event, trial=event.trial // self.count) if first else None
            case RunFinished():
                return self._finished(event)
            case RunRetried():
                return self._retried(event)
            case _:
                return event

    def _runs(self, trial: int, rung: int) -> list[Run]:
        first = trial - trial % self.count
        return [repeat.runs[rung] for repeat in self._state.trials[first : first + self.count]]

    def _retried(self, event: RunRetried) -> RunRetried | None:
        # It had been told as ended only if all of its repeats had, the others still have.
        if sum(not run.status.ended for run in self._runs(event.trial, event.rung)) > 1:
            return None
        return msgspec.structs.replace(event, trial=event.trial // self.count)

    def _finished(self, event: RunFinished) -> RunFinished | None:
        runs = self._runs(event.trial, event.rung)
        if not all(run.status.ended for run in runs):
            return None
        value = mean_value(runs)
        outcome = Outcome.COMPLETED
        if value is None:
            outcome = next(run.outcome for run in runs if run.value is None and run.outcome is not None)
        elif any(run.status is RunStatus.STOPPED for run in runs):
            outcome = Outcome.STOPPED
        return msgspec.structs.replace(event, trial=event.trial // self.count, outcome=outcome, value=value)

    def created(
        self, config: Config, start: Start, *, index: int, origin: str = "searcher"
    ) -> list[TrialCreated]:
        """The trials of configuration number `index`."""
        return [
            TrialCreated(
                index * self.count + repeat,
                config,
                start.bracket,
                start.resource,
                origin=origin,
                repeat=repeat,
            )
            for repeat in range(self.count)
        ]

    def promoted(self, decision: Promote) -> list[TrialPromoted]:
        """A promotion of all its trials."""
        first = decision.trial * self.count
        return [
            TrialPromoted(trial, decision.rung, decision.resource)
            for trial in range(first, first + self.count)
        ]

    def stopped(self, decision: Stop) -> list[TrialStopped]:
        """The end of those of its trials that go on."""
        first = decision.trial * self.count
        return [
            TrialStopped(trial.trial, decision.reason)
            for trial in self._state.trials[first : first + self.count]
            if not trial.runs[-1].status.ended
        ]
