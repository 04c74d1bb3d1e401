"""Plays the driver by harness: decisions become events, endings and reports are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcsweep.core.events import (
    Config,
    Outcome,
    RunFinished,
    RunReported,
    RunRetried,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.protocols import Clone, Decision, Promote, Scheduler, Start, Stop

EXHAUSTED = TrialsExhausted("the search space is exhausted", "space")


class Harness:
    """Makes decisions true and tells how runs went.

    Args:
        scheduler: What is played with.
        configs: Of the first trials, empty ones after those.
    """

    def __init__(self, scheduler: Scheduler, *, configs: Sequence[Config] = ()) -> None:
        self.scheduler = scheduler
        self.configs = list(configs)
        self.trials = 0

    def take(self, slots: int, *, at_most: int | None = None) -> list[Decision]:
        """Decide and make the first `at_most` decisions true."""
        decisions = self.scheduler.decide(slots)[:at_most]
        for decision in decisions:
            match decision:
                case Start(bracket, resource):
                    config = self.configs[self.trials] if self.trials < len(self.configs) else {}
                    self.scheduler.apply(TrialCreated(self.trials, config, bracket, resource))
                    self.trials += 1
                case Promote(trial, rung, resource):
                    self.scheduler.apply(TrialPromoted(trial, rung, resource))
                case Clone(bracket, resource, parent, start, config):
                    self.scheduler.apply(
                        TrialCreated(
                            self.trials,
                            config,
                            bracket,
                            resource,
                            parent=parent,
                            start=start,
                            origin="clone",
                        )
                    )
                    self.trials += 1
                case Stop(trial, reason):
                    self.scheduler.apply(TrialStopped(trial, reason))
        return decisions

    def finish(self, rung: int, values: Mapping[int, float | None]) -> None:
        """These runs have completed; without a value they have failed."""
        for trial, value in values.items():
            outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
            self.scheduler.apply(RunFinished(trial, rung, outcome, value=value))

    def retry(self, rung: int, *trials: int) -> None:
        """These runs, which failed, are tried again."""
        for trial in trials:
            self.scheduler.apply(RunRetried(trial, rung))

    def stop(self, trial: int, rung: int, value: float | None) -> None:
        """The run was stopped before its end."""
        self.scheduler.apply(RunFinished(trial, rung, Outcome.STOPPED, value=value))

    def report(self, trial: int, reports: Mapping[int, float], *, rung: int = 0) -> None:
        """The run has reported these values, by step."""
        self.scheduler.apply(RunReported(trial, rung, tuple(reports.items())))
