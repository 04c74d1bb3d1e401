"""What every scheduler must do, under any order of results and any number of slots, as a pytest base class.

A package with a scheduler of its own runs the suite by a subclass whose name begins with `Test`:

    from hpcsweep.testing.schedulers import SchedulerConformance

    class TestBandit(SchedulerConformance):
        def make_scheduler(self):
            return Bandit(max_resource=9)

Sweeps are played at random, without a cluster: decisions become events, runs report, end, fail and are
retried in any order. A failure names the seed of its sweep.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import pytest
from numpy.random import default_rng

from hpcsweep.core.events import (
    AnyEvent,
    Config,
    Outcome,
    RunFinished,
    RunId,
    RunReported,
    RunRetried,
    SweepResumed,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.objectives import DEFAULT, Objectives, dominates
from hpcsweep.core.protocols import Clone, Decision, Promote, Scheduler, Start, Stop
from hpcsweep.core.space import Choice, Float, Int, Parameter, Space
from hpcsweep.core.state import SweepState

#: The space of the suite, for schedulers that are given one.
SPACE: Final = Space(
    (
        Parameter("lr", Float(1e-4, 1e-1, log=True)),
        Parameter("layers", Int(1, 3)),
        Parameter("optimizer", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 0.99), {"optimizer": ("sgd",)}),
    )
)
CONFIGS: Final[list[Config]] = SPACE.sample(20, default_rng(0))
#: Schedulers without an end hear that no trial may start any more when they have so many.
MAX_TRIALS: Final = 40
#: Far more turns than a sweep with few trials can have.
MAX_TURNS: Final = 3000
#: After so many nothing is retried, so that a sweep of failures comes to its end.
RETRYING_TURNS: Final = 60


class SchedulerConformance:
    """Subclass it and override `make_scheduler`.

    Attributes:
        sweeps: How many sweeps are played; the tests that replay them play fewer.
        objectives: Those of the scheduler.
    """

    sweeps = 50
    objectives = DEFAULT

    def make_scheduler(self) -> Scheduler:
        """A fresh scheduler, always with the same small options."""
        raise NotImplementedError

    def test_every_sweep_ends_and_every_decision_on_the_way_is_allowed(self) -> None:
        for chances in self._chances():
            with chances.named():
                sweep = self._played(chances)
                assert sweep.decide(1000) == []
                assert len(sweep.outcomes) == sum(len(rungs) for rungs in sweep.resources)

    def test_replaying_the_events_gives_the_same_decisions_at_every_point(self) -> None:
        for chances in self._chances(0.4):
            with chances.named():
                assert_replayable(self._played(chances), slots=chances.random.randint(1, 40))

    def test_failed_runs_may_be_retried_at_any_moment_and_their_values_count(self) -> None:
        for chances in self._chances(0.4):
            with chances.named():
                sweep = self._played(chances, retries=chances.random.choice([0.05, 0.3]))
                sweep.retry_some(chances.random)  # its brackets are closed, and it had ended
                play(sweep, chances)
                assert sweep.decide(1000) == []
                assert len(sweep.outcomes) == sum(len(rungs) for rungs in sweep.resources)
                identity = {"objective": [msgspec.to_builtins(each) for each in self.objectives]}
                state = SweepState.replay([SweepStarted("cafe01", "s", 0.0, identity), *sweep.events])
                newest = [trial.last_completed for trial in state.trials]
                keys = {
                    run.trial: self.objectives.key(run.value, run.values)
                    for run in newest
                    if run is not None and run.value is not None
                }
                best = {
                    trial for trial in keys if not any(dominates(key, keys[trial]) for key in keys.values())
                }
                front = {each.trial for each in state.front}
                assert front <= best
                assert len(front) == (len(best) if self.objectives.several else min(1, len(best)))
                assert_replayable(sweep, slots=chances.random.randint(1, 40))

    def test_one_that_is_done_stays_done_until_the_sweep_is_resumed(self) -> None:
        for chances in self._chances(0.27):
            with chances.named():
                scheduler = self._played(chances).replayed()
                scheduler.apply(TrialsExhausted("budget.trials 3 is reached", "budget"))
                assert scheduler.done
                assert scheduler.decide(5) == []
                scheduler.apply(SweepResumed(0.0))
                assert scheduler.done or scheduler.decide(1) != []

    @pytest.mark.parametrize("trials", [None, 1, 7])
    def test_its_plan_agrees_with_itself_and_with_the_number_of_trials(self, trials: int | None) -> None:
        plan = self.make_scheduler().plan(trials)
        for bracket in plan.brackets:
            assert bracket.resources == tuple(sorted(set(bracket.resources))), "each rung is above the last"
            assert len(bracket.sizes) in (0, len(bracket.resources)), "all sizes or none"
            assert bracket.sizes == tuple(sorted(bracket.sizes, reverse=True)), "no rung grows"
        assert plan.starts is None or plan.starts >= 0
        if trials is not None and not plan.population:
            assert plan.starts is not None, "a number of trials bounds it"
            assert plan.starts <= trials, "a number of trials bounds it"
        assert plan.starts is not None or plan.open_ended or plan.iterations is None

    def test_its_plan_is_that_of_what_it_starts(self) -> None:
        scheduler = self.make_scheduler()
        plan = scheduler.plan()
        starts = [decision for decision in scheduler.decide(1) if isinstance(decision, Start)]
        assert starts, "a new sweep starts with trials"
        if plan.brackets:
            firsts = {bracket.resources[0] for bracket in plan.brackets}
            assert {start.resource for start in starts} <= firsts

    def _chances(self, share: float = 1.0) -> Iterator[Chances]:
        return map(Chances, range(round(self.sweeps * share)))

    def _played(self, chances: Chances, *, retries: float = 0.0) -> ScheduledSweep:
        sweep = ScheduledSweep(self.make_scheduler, self.objectives)
        play(sweep, chances, retries=retries)
        return sweep


class Chances:
    """How one sweep goes.

    Attributes:
        random: Source of order.
        failures: Share of runs that fail.
        max_slots: Free slots at a time.
        end: No trial may start any more when there are so many.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.failures = self.random.choice([0.0, 0.2, 0.7, 1.0])
        self.max_slots = self.random.randint(1, 30)
        self.end = self.random.choice([MAX_TRIALS, self.random.randint(0, 30)])

    @contextmanager
    def named(self) -> Iterator[None]:
        """Failures in the block name the seed."""
        try:
            yield
        except AssertionError as error:
            error.add_note(f"in the sweep of seed {self.seed}")
            raise


class ScheduledSweep:
    """A sweep under a scheduler, with every invariant checked at every turn."""

    def __init__(self, make: Callable[[], Scheduler], objectives: Objectives = DEFAULT) -> None:
        self.make = make
        self.objectives = objectives
        self.scheduler = make()
        self.events: list[AnyEvent] = []
        #: For each trial the resources of its runs.
        self.resources: list[list[int]] = []
        self.running: list[RunId] = []
        self.reported: dict[int, int] = {}
        self.stopped: set[int] = set()
        self.outcomes: dict[RunId, Outcome] = {}
        self.exhausted = False
        self.was_done = False

    def happen(self, event: AnyEvent) -> None:
        self.events.append(event)
        self.scheduler.apply(event)

    def decide(self, slots: int) -> list[Decision]:
        """The decisions, after checking that they may be made and that deciding is pure."""
        before = pickle.dumps(self.scheduler)
        decisions = self.scheduler.decide(slots)
        stops = [decision for decision in decisions if isinstance(decision, Stop)]
        assert self.scheduler.decide(0) == self.scheduler.decide(-1) == stops
        self.scheduler.decide(slots + 3)
        assert self.scheduler.decide(slots) == decisions
        assert pickle.dumps(self.scheduler) == before
        assert self.scheduler.done or not self.was_done, "done means that nothing ever comes again"
        self.was_done = self.scheduler.done
        if self.was_done:
            assert decisions == []
        kinds = [isinstance(decision, Start) - isinstance(decision, Stop) for decision in decisions]
        assert kinds == sorted(kinds), "stops come first, promotions and clones before starts"
        return decisions

    def make_true(self, decision: Decision) -> None:
        match decision:
            case Start(bracket, resource):
                assert not self.exhausted, "nothing starts when no trial may start"
                assert resource > 0
                self.create(bracket, resource, CONFIGS[len(self.resources) % len(CONFIGS)])
            case Promote(trial, rung, resource):
                known = self.resources[trial]
                assert rung == len(known), "each rung once, without gaps"
                ending = self.outcomes[RunId(trial, rung - 1)]
                assert ending is Outcome.COMPLETED, "neither failed nor stopped runs are promoted"
                assert resource > known[-1]
                known.append(resource)
                self.running.append(RunId(trial, rung))
                self.happen(TrialPromoted(trial, rung, resource))
            case Clone(bracket, resource, parent, start, config):
                assert self.scheduler.clones
                assert start == self.completed(parent), "the checkpoint of its newest completed run"
                assert all(
                    self.outcomes.get(RunId(parent, rung)) in (None, Outcome.COMPLETED)
                    for rung in range(len(self.resources[parent]))
                ), "neither failed nor stopped trials are cloned"
                assert resource > start
                assert SPACE.check(config) == []
                self.create(bracket, resource, config, parent=parent, start=start)
            case Stop(trial, reason):
                assert self.scheduler.needs_reports
                assert any(run.trial == trial for run in self.running), "only what runs can be stopped"
                assert trial not in self.stopped, "each once"
                assert reason
                self.stopped.add(trial)
                self.happen(TrialStopped(trial, reason))

    def create(
        self, bracket: int, resource: int, config: Config, *, parent: int | None = None, start: int = 0
    ) -> None:
        trial = len(self.resources)
        self.resources.append([resource])
        self.reported[trial] = start
        self.running.append(RunId(trial, 0))
        self.happen(TrialCreated(trial, config, bracket, resource, parent=parent, start=start))

    def completed(self, trial: int) -> int | None:
        """Resource of the newest run of the trial that completed."""
        ends = [
            resource
            for rung, resource in enumerate(self.resources[trial])
            if self.outcomes.get(RunId(trial, rung)) is Outcome.COMPLETED
        ]
        return ends[-1] if ends else None

    def report(self, run: RunId, step: int, chance: random.Random) -> None:
        """The run has reported all of its steps up to this one, or some of them."""
        steps = range(self.reported[run.trial] + 1, step + 1)
        reports = tuple(
            (at, chance.choice([0.0, 1.0, chance.random()])) for at in steps if chance.random() < 0.8
        )
        self.reported[run.trial] = step
        if self.scheduler.needs_reports and reports:
            several = [self.values(value, chance) for _, value in reports]
            values = tuple(several) if self.objectives.several else ()
            self.happen(RunReported(run.trial, run.rung, reports, values))

    def values(self, value: float | None, chance: random.Random) -> tuple[float, ...]:
        """With several objectives the values of all, of which this is the first."""
        if value is None or not self.objectives.several:
            return ()
        return (value, *(chance.choice([0.0, 1.0, chance.random()]) for _ in self.objectives[1:]))

    def finish(self, run: RunId, value: float | None, chance: random.Random) -> None:
        """The run ends; without a value it has failed, or was stopped before its first report."""
        self.running.remove(run)
        outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
        if run.trial in self.stopped and (value is not None or chance.random() < 0.5):
            outcome = Outcome.STOPPED
        if value is not None:
            self.report(run, self.resources[run.trial][run.rung], chance)
        elif outcome is Outcome.FAILED:
            outcome = chance.choice([Outcome.FAILED, Outcome.LOST, Outcome.OUT_OF_MEMORY])
        self.outcomes[run] = outcome
        step = self.reported[run.trial] if outcome is Outcome.STOPPED else 0
        values = self.values(value, chance)
        self.happen(RunFinished(run.trial, run.rung, outcome, value=value, step=step, values=values))

    def retry_some(self, chance: random.Random) -> None:
        """Some of the runs that failed, each the last one of its trial, are retried."""
        failed = [
            run
            for run, outcome in self.outcomes.items()
            if outcome not in (Outcome.COMPLETED, Outcome.STOPPED) and run.trial not in self.stopped
        ]
        for run in chance.sample(failed, chance.randint(0, len(failed))):
            del self.outcomes[run]
            self.running.append(run)
            self.was_done = False
            self.happen(RunRetried(run.trial, run.rung))

    def replayed(self) -> Scheduler:
        scheduler = self.make()
        for event in self.events:
            scheduler.apply(event)
        return scheduler


def play(sweep: ScheduledSweep, chances: Chances, *, retries: float = 0.0) -> None:
    """Any order of reports, results, failures and slots until the scheduler is done and nothing runs.

    Failed runs are retried in a share `retries` of the first turns.
    """
    chance = chances.random
    for turn in range(MAX_TURNS):
        if turn < RETRYING_TURNS and chance.random() < retries:
            sweep.retry_some(chance)
        if sweep.scheduler.done and not sweep.running:
            return
        if len(sweep.resources) >= chances.end and not sweep.exhausted:
            sweep.exhausted = True
            sweep.happen(TrialsExhausted("the space is exhausted", "space"))
        decisions = sweep.decide(chance.randint(0, chances.max_slots))
        if not sweep.running and not sweep.scheduler.done:
            decisions = sweep.decide(1)
            assert decisions, "with a free slot and nothing running there is something to do"
        elif chance.random() < 0.2:  # the rest is decided again later
            decisions = decisions[: chance.randint(0, len(decisions))]
        for decision in decisions:
            sweep.make_true(decision)
        for run in chance.sample(sweep.running, chance.randint(0, len(sweep.running))):
            sweep.report(
                run, chance.randint(sweep.reported[run.trial], sweep.resources[run.trial][-1]), chance
            )
        for run in chance.sample(sweep.running, chance.randint(0, len(sweep.running))):
            failed = chance.random() < chances.failures
            sweep.finish(run, None if failed else chance.choice([0.0, 1.0, chance.random()]), chance)
    raise AssertionError(f"not done after {MAX_TURNS} turns")


def assert_replayable(sweep: ScheduledSweep, slots: int) -> None:
    """At every point a new scheduler that takes in the events decides as the live one does."""
    live, replayed = sweep.make(), sweep.make()
    for position, event in enumerate(sweep.events):
        live.apply(event)
        live.decide(slots)  # asking leaves no trace
        if position % 7 == 0:
            replayed = sweep.make()
            for earlier in sweep.events[: position + 1]:
                replayed.apply(earlier)
        else:
            replayed.apply(event)
        assert (replayed.decide(slots), replayed.done) == (live.decide(slots), live.done)
