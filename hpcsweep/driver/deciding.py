"""What to do next: the scheduler's decisions, with the searcher's configurations, as events."""

from __future__ import annotations

import itertools
from typing import assert_never

from numpy.random import default_rng

from hpcsweep.core.events import (
    AnyEvent,
    Config,
    NoMoreTrials,
    RunFinished,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.history import History
from hpcsweep.core.protocols import Promote, Scheduler, Searcher, Start, Stop
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.settings import Settings


class Deciding:
    """Asks scheduler and searcher. Its events are decisions only once they are committed.

    Args:
        state: Of the sweep; kept up to date by the driver.
        scheduler: Kept up to date here, by `apply`.
        searcher: Proposes configurations in `space`.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        scheduler: Scheduler,
        searcher: Searcher,
        space: Space,
        settings: Settings,
    ) -> None:
        self._state = state
        self._scheduler = scheduler
        self._searcher = searcher
        self._space = space
        self._settings = settings
        # What the searcher may know, by trial: see History.
        self._configs: list[Config] = []
        self._values: list[float | None] = []
        self._resources: list[int] = []

    def apply(self, event: AnyEvent) -> None:
        """Take in what happened; the state has it already."""
        self._scheduler.apply(event)
        match event:
            case TrialCreated():
                self._remember(event.config)
            case RunFinished(value=None):
                if self._values[event.trial] is None:
                    self._values[event.trial] = float("nan")
            case RunFinished(value=float(value)):
                self._values[event.trial] = value if self._settings.minimise else -value
                self._resources[event.trial] = self._state.run(event.run).resource
            case _:
                pass

    def decide(self, slots: int) -> list[AnyEvent]:
        """The scheduler's decisions as events, with configurations for the trials to start."""
        events: list[AnyEvent] = []
        starts: list[Start] = []
        for decision in self._scheduler.decide(slots):
            match decision:
                case Promote(trial, rung, resource):
                    events.append(TrialPromoted(trial, rung, resource))
                case Stop(trial, reason):
                    events.append(TrialStopped(trial, reason))
                case Start():
                    starts.append(decision)
                case _:
                    assert_never(decision)
        created = len(self._configs)
        try:
            # One ask for each bracket, whatever starts with it: so the configurations do not
            # depend on how many brackets happened to find free slots in this tick.
            for start, group in itertools.groupby(starts):
                new, stop = self._propose(start, len(list(group)))
                events += new
                if stop is not None:
                    events.append(stop)
                    break
        finally:  # what is proposed counts when its event is applied
            del self._configs[created:], self._values[created:], self._resources[created:]
        return events

    def _propose(self, start: Start, wanted: int) -> tuple[list[TrialCreated], NoMoreTrials | None]:
        """New trials for one bracket, and why there are fewer than wanted if so."""
        first = len(self._configs)
        most = self._settings.max_trials
        left = None if most is None else max(0, most - first)
        count = wanted if left is None else min(wanted, left)
        history = History(self._space, configs=self._configs, values=self._values, resources=self._resources)
        rng = default_rng([self._settings.seed, first])
        configs = self._searcher.ask(count, history, rng) if count else []
        for config in configs:
            self._remember(config)
        new = [
            TrialCreated(trial, config, start.bracket, start.resource)
            for trial, config in enumerate(configs, start=first)
        ]
        stop = None
        if len(configs) < count:
            total = first + len(configs)
            stop = NoMoreTrials(f"the search space is exhausted after {total} configurations", "space")
        elif count < wanted:
            stop = NoMoreTrials(f"budget.trials {most} is reached", "budget")
        return new, stop

    def _remember(self, config: Config) -> None:
        self._configs.append(config)
        self._values.append(None)
        self._resources.append(0)
