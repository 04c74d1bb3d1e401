"""What every scheduler of the table must hold, under any order of results and any slots."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
from hpcsweep.core.protocols import Clone, Decision, Promote, Scheduler, Start, Stop
from hpcsweep.core.space import Choice, Float, Int, Parameter, Space
from hpcsweep.core.state import SweepState
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.schedulers.stopping_rules import Median, Plateau, WithStoppingRules
from tests.effort import examples

SPACE = Space(
    (
        Parameter("lr", Float(1e-4, 1e-1, log=True)),
        Parameter("layers", Int(1, 3)),
        Parameter("optimizer", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 0.99), {"optimizer": ("sgd",)}),
    )
)
CONFIGS: list[Config] = SPACE.sample(20, default_rng(0))


class Case(NamedTuple):
    """A scheduler of the table with small options."""

    scheduler: str
    options: dict[str, Any]
    with_rules: bool = False


#: A new entry of the table belongs here too.
CASES = {
    "fifo": Case("fifo", {"max_resource": 4, "trials": 11}),
    "halving": Case("halving", {"min_resource": 2, "max_resource": 10, "eta": 2, "rounds": 2}),
    "hyperband": Case("hyperband", {"max_resource": 9, "eta": 3}),
    "asha": Case("asha", {"max_resource": 10, "eta": 2, "trials": 20}),
    "asha, endless, with brackets": Case("asha", {"max_resource": 9, "brackets": 3}),
    "asha, stopping": Case("asha", {"max_resource": 9, "brackets": 2, "trials": 11, "stopping": True}),
    "pbt": Case("pbt", {"population": 5, "interval": 2, "max_resource": 7, "space": SPACE, "seed": 0}),
}
CASES |= {
    f"{name}, with rules": CASES[name]._replace(with_rules=True)
    for name in ("fifo", "hyperband", "asha", "asha, stopping", "pbt")
}
#: Schedulers without an end are told that no trial may start any more when they have so many.
MOST_TRIALS = 40
#: Far more turns than a sweep with these options can have.
TURNS = 3000
#: After so many nothing is tried again, so that a sweep of failures comes to its end.
RETRYING_TURNS = 60

Factory = Callable[[], Scheduler]


def factory(name: str) -> Factory:
    case = CASES[name]
    module, _, class_name = SCHEDULERS[case.scheduler].partition(":")
    make = getattr(import_module(module), class_name)
    if not case.with_rules:
        return lambda: make(**case.options)
    return lambda: WithStoppingRules(make(**case.options), rules=[Median(min_trials=2), Plateau(patience=2)])


each_scheduler = pytest.mark.parametrize("name", CASES)


def test_options_are_given_for_exactly_the_table() -> None:
    assert {case.scheduler for case in CASES.values()} == set(SCHEDULERS)


class Sweep:
    """A sweep under a scheduler, with every invariant checked at every turn."""

    def __init__(self, make: Factory) -> None:
        self.make = make
        self.scheduler = make()
        self.events: list[AnyEvent] = []
        #: For each trial the resources of its runs, and where it started.
        self.resources: list[list[int]] = []
        self.starts: list[int] = []
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
        self.starts.append(start)
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
            self.happen(RunReported(run.trial, run.rung, reports))

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
        self.happen(RunFinished(run.trial, run.rung, outcome, value=value, step=step))

    def retry_some(self, chance: random.Random) -> None:
        """Some of the runs that failed, each the last one of its trial, are tried again."""
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


@st.composite
def chances(draw: st.DrawFn) -> tuple[random.Random, float, int, int | None]:
    """Source of order, share of failures, most slots, and when no trial may start any more."""
    return (
        draw(st.randoms(use_true_random=True)),
        draw(st.sampled_from([0.0, 0.2, 0.7, 1.0])),
        draw(st.integers(1, 30)),
        draw(st.none() | st.integers(0, 30)),
    )


def play(
    sweep: Sweep,
    chance: random.Random,
    failures: float,
    most_slots: int,
    end: int | None,
    *,
    retries: float = 0.0,
) -> None:
    """Any order of reports, results, failures and slots until the scheduler is done and nothing runs.

    Failed runs are tried again in a share `retries` of the first turns.
    """
    most_trials = MOST_TRIALS if end is None else end
    for turn in range(TURNS):
        if turn < RETRYING_TURNS and chance.random() < retries:
            sweep.retry_some(chance)
        if sweep.scheduler.done and not sweep.running:
            return
        if len(sweep.resources) >= most_trials and not sweep.exhausted:
            sweep.exhausted = True
            sweep.happen(TrialsExhausted("the space is exhausted", "space"))
        decisions = sweep.decide(chance.randint(0, most_slots))
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
            failed = chance.random() < failures
            sweep.finish(run, None if failed else chance.choice([0.0, 1.0, chance.random()]), chance)
    raise AssertionError(f"not done after {TURNS} turns")


@each_scheduler
@examples(150, 3000)
@given(chances=chances())
def test_every_sweep_ends_and_every_decision_on_the_way_may_be_made(
    name: str, chances: tuple[random.Random, float, int, int | None]
) -> None:
    sweep = Sweep(factory(name))
    play(sweep, *chances)
    assert sweep.decide(1000) == []
    assert len(sweep.outcomes) == sum(len(rungs) for rungs in sweep.resources)


@each_scheduler
@examples(60, 1000)
@given(chances=chances(), slots=st.integers(1, 40))
def test_replaying_the_events_gives_the_same_decisions_at_every_point(
    name: str, chances: tuple[random.Random, float, int, int | None], slots: int
) -> None:
    sweep = Sweep(factory(name))
    play(sweep, *chances)
    assert_replayable(sweep, slots)


@each_scheduler
@examples(60, 1000)
@given(chances=chances(), retries=st.sampled_from([0.05, 0.3]), slots=st.integers(1, 40))
def test_failed_runs_may_be_tried_again_at_any_moment_and_what_they_give_counts_for_the_best(
    name: str,
    chances: tuple[random.Random, float, int, int | None],
    retries: float,
    slots: int,
) -> None:
    sweep = Sweep(factory(name))
    play(sweep, *chances, retries=retries)
    sweep.retry_some(chances[0])  # its brackets are closed, and it had ended
    play(sweep, *chances)
    assert sweep.decide(1000) == []
    assert len(sweep.outcomes) == sum(len(rungs) for rungs in sweep.resources)
    state = SweepState.replay([SweepStarted("cafe01", "s", 0.0, {}), *sweep.events])
    newest = [trial.last_completed for trial in state.trials]
    values = [run.value for run in newest if run is not None and run.value is not None]
    assert (state.best.value if state.best else None) == min(values, default=None)
    assert_replayable(sweep, slots)


def assert_replayable(sweep: Sweep, slots: int) -> None:
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


@each_scheduler
@examples(40, 500)
@given(chances=chances())
def test_a_scheduler_that_is_done_stays_done_until_the_sweep_is_carried_on(
    name: str, chances: tuple[random.Random, float, int, int | None]
) -> None:
    sweep = Sweep(factory(name))
    play(sweep, *chances)
    scheduler = sweep.replayed()
    scheduler.apply(TrialsExhausted("budget.trials 3 is reached", "budget"))
    assert scheduler.done
    assert scheduler.decide(5) == []
    scheduler.apply(SweepResumed(0.0))
    assert scheduler.done or scheduler.decide(1) != []
