"""What to do next: the scheduler's decisions, with the searcher's configurations, as events."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from hpcsweep.core.arrays import np
from hpcsweep.core.events import (
    AnyEvent,
    Config,
    Outcome,
    ParametersSuggested,
    RunFinished,
    RunRetried,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
    WarmStartLoaded,
)
from hpcsweep.core.history import History
from hpcsweep.core.models import Run, RunStatus, Trial, mean_value, mean_values
from hpcsweep.core.protocols import Clone, Decision, Promote, Scheduler, Searcher, Start, Stop
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import added_parameters, with_added
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import WriteSpec

#: Runs decided at a time, at most: a site may have a million slots.
MOST_DECISIONS: Final = 10_000


class Planner:
    """Asks scheduler and searcher. Its events are decisions only once they are committed."""

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
        self._space = space
        self._objectives = settings.program.measured
        self._sign = 1 if settings.minimise else -1
        self._history = History(space, objectives=self._objectives)
        #: Configurations that what their runs suggested has changed.
        self._amended: dict[int, Config] = {}
        #: Runs that the last decision did not start for want of room.
        self.kept_back = 0

    def apply(self, event: AnyEvent) -> None:
        """Tell scheduler and searcher what happened; the state has it already."""
        translated = self._repeats.translate(event)
        if translated is None:
            return
        self._scheduler.apply(translated)
        match translated:
            case TrialCreated(config=config):
                self._history.add(config)
            case RunFinished(trial=trial, rung=rung, outcome=outcome, value=value, step=step, values=values):
                stopped = outcome is Outcome.STOPPED and value is not None
                run = self._state.trials[trial * self._repeats.count].runs[rung]
                resource = step if stopped else run.resource
                self._history.observe(trial, self._minimised(value), resource, key=self._key(value, values))
            case ParametersSuggested(trial=trial):
                self._amended[trial] = self._state.trials[trial * self._repeats.count].config
            case WarmStartLoaded():
                self._add_prior(translated)
            case _:
                pass

    @property
    def space(self) -> Space:
        """The space as it has grown."""
        return self._history.space

    def grow(self) -> list[WriteSpec]:
        """Take in what runs have suggested since the last call, and write the spec if the space has grown."""
        growth, amended, before = self._settings.growth, self._amended, self._history.space
        if not amended or growth is None:
            return []
        added = added_parameters(self._state.started)
        self._searcher = growth.new_searcher()
        self._history.rebase(with_added(self._space, added), amended)
        self._amended = {}
        return [] if self._history.space == before else [WriteSpec(growth.spec(added), growth.mode)]

    def _minimised(self, value: float | None) -> float:
        """The value as the searcher has it; NaN without one."""
        return math.nan if value is None else self._sign * value

    def _key(self, value: float | None, values: Sequence[float]) -> tuple[float, ...] | None:
        """Several objectives as the searcher has them."""
        key = self._objectives.key(value, values)
        return key if isinstance(key, tuple) else None

    def _add_prior(self, event: WarmStartLoaded) -> None:
        for index, (config, observations) in enumerate(event.results):
            several = event.values[index] if event.values else ()
            keys = [
                self._key(value, several[at] if several else ()) for at, (_, value) in enumerate(observations)
            ]
            minimised = [(resource, self._minimised(value)) for resource, value in observations]
            self._history.add_prior(config, minimised, keys=keys)

    def decide(self, slots: int, *, new: int | None = None) -> list[AnyEvent]:
        """The scheduler's decisions as events, with configurations for the trials to start.

        No more `new` trials are started than that (None: any number), but for those that start together.
        """
        events: list[AnyEvent] = []
        starts: list[Start] = []
        created = self._history.proposed
        # More of them follow in the next tick: what is decided at a time is in memory at a time.
        for decision in self._decisions(min(slots, MOST_DECISIONS), new=new):
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
                trials, stop = self._propose(start, len(list(group)), enqueued)
                events += trials
                if stop is not None:
                    events.append(stop)
                    break
        finally:  # what is proposed counts when its event is applied
            self._history.drop(self._history.proposed - created)
        return events

    def _decisions(self, slots: int, *, new: int | None) -> list[Decision]:
        """The scheduler's; `kept_back` is how many trials more it would start."""
        places = -(-slots // self._repeats.count)
        decisions = self._scheduler.decide(places)
        self.kept_back = 0
        starts = sum(isinstance(decision, Start) for decision in decisions)
        if new is None or starts * self._repeats.count <= new:
            return decisions
        others = [decision for decision in decisions if not isinstance(decision, Start)]
        fewer = min(places, len(others) + -(-new // self._repeats.count))
        chosen: list[Decision] = self._scheduler.decide(fewer) if new else []
        chosen = [decision for decision in chosen if isinstance(decision, Start)]
        self.kept_back = self._repeats.count * max(0, starts - len(chosen))
        return [*others, *chosen]

    @property
    def done(self) -> bool:
        """Whether nothing will be started any more."""
        return self._scheduler.done

    def count(self, slots: int, *, new: int | None = None) -> int:
        """How many runs `decide` would start or promote in so many slots, as far as that is known before."""
        decisions = self._decisions(min(slots, MOST_DECISIONS), new=new)
        starts = sum(isinstance(decision, Start) for decision in decisions)
        others = sum(isinstance(decision, Promote | Clone) for decision in decisions)
        if self._settings.max_trials is not None:
            starts = min(starts, max(0, self._settings.max_trials - self._state.configurations))
        space = self._history.space
        if space.size is not None and self._searcher.is_exhaustible(space):
            left = space.size - self._history.proposed + len(self._state.enqueued)
            # That nothing is left is known once a task was free and the searcher asked.
            starts = min(starts, max(left, 0 if self._state.live else 1))
        runs = starts * self._repeats.count
        return (runs if new is None else min(runs, new)) + others * self._repeats.count

    def _clone(self, decision: Clone) -> TrialCreated:
        # The scheduler does not know what was added: a clone has what its parent has.
        added = {parameter.name for parameter in self._history.space.parameters if parameter.added}
        parent = self._state.trials[decision.parent].config
        config = {name: value for name, value in parent.items() if name in added} | decision.config
        config = self._history.space.in_order(config) if added else decision.config
        trial = self._history.add(config)
        return TrialCreated(
            trial,
            config,
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
            rng = np.random.default_rng([self._settings.seed, self._history.proposed])
            configs = self._searcher.ask(missing, self._history, rng)
            for config in configs:
                new += self._repeats.created(config, start, index=self._history.add(config))
            missing -= len(configs)
        if missing:
            reason = f"the search space is exhausted after {self._history.proposed} configurations"
            return new, TrialsExhausted(reason, "space")
        if count < wanted:
            return new, TrialsExhausted(f"budget.trials {most} is reached", "budget")
        return new, None


class RepeatAdapter:
    """Translates between trials and configurations, which scheduler and searcher number like trials.

    Configuration `c` has the trials `c * count` to `c * count + count - 1`. Its run at a rung has ended when
    all of theirs have; its value is the mean of theirs.
    """

    def __init__(self, state: SweepState) -> None:
        self._state = state

    @property
    def count(self) -> int:
        """Trials of each configuration."""
        return self._state.repeats

    def translate(self, event: AnyEvent) -> AnyEvent | None:
        """The event as scheduler and searcher see it, None if they do not; the state has it already."""
        if self.count == 1:
            return event
        match event:
            case TrialCreated() | TrialPromoted() | TrialStopped():
                first = event.trial % self.count == 0
                return msgspec.structs.replace(event, trial=event.trial // self.count) if first else None
            case ParametersSuggested():
                return msgspec.structs.replace(event, trial=event.trial // self.count)
            case RunFinished():
                return self._finished(event)
            case RunRetried():
                return self._retried(event)
            case _:
                return event

    def _runs(self, trial: int, rung: int) -> list[Run]:
        return [repeat.runs[rung] for repeat in self._trials(trial // self.count)]

    def _retried(self, event: RunRetried) -> RunRetried | None:
        # The configuration had ended only if all of its repeats had; the others still have.
        if sum(not run.status.ended for run in self._runs(event.trial, event.rung)) > 1:
            return None
        return msgspec.structs.replace(event, trial=event.trial // self.count)

    def _finished(self, event: RunFinished) -> RunFinished | None:
        runs = self._runs(event.trial, event.rung)
        if not all(run.status.ended for run in runs):
            return None
        value, values = mean_value(runs), mean_values(runs)
        outcome = Outcome.COMPLETED
        if value is None:
            outcome = next(run.outcome for run in runs if run.value is None and run.outcome is not None)
        elif any(run.status is RunStatus.STOPPED for run in runs):
            outcome = Outcome.STOPPED
        trial = event.trial // self.count
        return msgspec.structs.replace(event, trial=trial, outcome=outcome, value=value, values=values)

    def created(
        self, config: Config, start: Start, *, index: int, origin: str = "searcher"
    ) -> list[TrialCreated]:
        """The trials of configuration number `index`."""
        return [
            TrialCreated(trial, config, start.bracket, start.resource, origin=origin, repeat=repeat)
            for repeat, trial in enumerate(range(index * self.count, (index + 1) * self.count))
        ]

    def promoted(self, decision: Promote) -> list[TrialPromoted]:
        trials = self._trials(decision.trial)
        return [TrialPromoted(trial.trial, decision.rung, decision.resource) for trial in trials]

    def stopped(self, decision: Stop) -> list[TrialStopped]:
        """The end of those of its trials that have not ended."""
        running = [trial for trial in self._trials(decision.trial) if not trial.runs[-1].status.ended]
        return [TrialStopped(trial.trial, decision.reason) for trial in running]

    def _trials(self, configuration: int) -> list[Trial]:
        first = configuration * self.count
        return self._state.trials[first : first + self.count]
