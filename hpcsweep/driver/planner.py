"""What to do next: the scheduler's decisions, with the searcher's configurations, as events."""

from __future__ import annotations

import itertools
from typing import Final, assert_never

from numpy.random import default_rng

from hpcsweep.core.events import (
    AnyEvent,
    Config,
    Outcome,
    RunFinished,
    TrialCreated,
    TrialsExhausted,
    WarmStartLoaded,
)
from hpcsweep.core.history import History
from hpcsweep.core.protocols import Clone, Promote, Scheduler, Searcher, Start, Stop
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.repeats import RepeatAdapter

#: Runs that are decided at a time at most, about; a site may have room for a million.
MOST_DECISIONS: Final = 10_000


class Planner:
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
        settings: DriverConfig,
    ) -> None:
        self._state = state
        self._scheduler = scheduler
        self._searcher = searcher
        self._settings = settings
        self._repeats = RepeatAdapter(state)
        self._history = History(space)
        self._sign = 1 if settings.minimise else -1

    def apply(self, event: AnyEvent) -> None:
        """Take in what happened; the state has it already."""
        told = self._repeats.told(event)
        if told is None:
            return
        self._scheduler.apply(told)
        match told:
            case TrialCreated():
                self._history.add(told.config)
            case RunFinished():
                value = float("nan") if told.value is None else self._sign * told.value
                stopped = told.outcome is Outcome.STOPPED and told.value is not None
                run = self._state.trials[told.trial * self._repeats.count].runs[told.rung]
                self._history.observe(told.trial, value, told.step if stopped else run.resource)
            case WarmStartLoaded():
                for config, results in told.results:
                    self._history.add_prior(
                        config, [(at, float("nan") if v is None else self._sign * v) for at, v in results]
                    )
            case _:
                pass

    def decide(self, slots: int) -> list[AnyEvent]:
        """The scheduler's decisions as events, with configurations for the trials to start."""
        events: list[AnyEvent] = []
        starts: list[Start] = []
        created = self._history.proposed
        # More of them follow in the next tick: what is decided at a time is in memory at a time.
        slots = min(slots, MOST_DECISIONS)
        for decision in self._scheduler.decide(-(-slots // self._repeats.count)):
            match decision:
                case Promote():
                    events += self._repeats.promoted(decision)
                case Stop():
                    events += self._repeats.stopped(decision)
                case Clone():
                    events.append(self._clone(decision))
                case Start():
                    starts.append(decision)
                case _:
                    assert_never(decision)
        enqueued = list(self._state.enqueued)
        try:
            # One ask for each bracket, or each piece of a large one, whatever starts with it: so the
            # configurations do not depend on how many happened to find free slots in this tick.
            for start, group in itertools.groupby(starts):
                new, stop = self._propose(start, len(list(group)), enqueued)
                events += new
                if stop is not None:
                    events.append(stop)
                    break
        finally:  # what is proposed counts when its event is applied
            self._history.drop(self._history.proposed - created)
        return events

    def _clone(self, decision: Clone) -> TrialCreated:
        trial = self._history.add(decision.config)
        return TrialCreated(
            trial,
            decision.config,
            decision.bracket,
            decision.resource,
            parent=decision.parent,
            start=decision.start,
            origin="clone",
        )

    def _propose(
        self, start: Start, wanted: int, enqueued: list[Config]
    ) -> tuple[list[TrialCreated], TrialsExhausted | None]:
        """New trials for one bracket, enqueued ones first, and why there are fewer than wanted if so."""
        most = self._settings.max_trials
        first = self._history.proposed
        chosen = self._state.configurations + first - len(self._state.trials) // self._repeats.count
        left = None if most is None else max(0, most - chosen)
        count = wanted if left is None else min(wanted, left)
        new: list[TrialCreated] = []
        while enqueued and self._history.proposed < first + count:
            config = enqueued.pop(0)
            new += self._repeats.created(config, start, index=self._history.add(config), origin="enqueued")
        missing = first + count - self._history.proposed
        if missing:
            rng = default_rng([self._settings.seed, self._history.proposed])
            configs = self._searcher.ask(missing, self._history, rng)
            for config in configs:
                new += self._repeats.created(config, start, index=self._history.add(config))
            missing -= len(configs)
        if missing:
            total = self._history.proposed
            return new, TrialsExhausted(
                f"the search space is exhausted after {total} configurations", "space"
            )
        if count < wanted:
            return new, TrialsExhausted(f"budget.trials {most} is reached", "budget")
        return new, None
