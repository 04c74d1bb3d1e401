"""What every scheduler of the table must hold, under any order of results and any slots."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcsweep.core.events import (
    AnyEvent,
    NoMoreTrials,
    Outcome,
    RunFinished,
    RunId,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.protocols import Decision, Promote, Scheduler, Start, Stop
from hpcsweep.schedulers import SCHEDULERS

#: Small options for each entry of the table; a new entry belongs here too.
OPTIONS: dict[str, dict[str, Any]] = {
    "fifo": {"max_resource": 4, "trials": 11},
    "halving": {"min_resource": 2, "max_resource": 10, "eta": 2, "rounds": 2},
    "hyperband": {"max_resource": 9, "eta": 3},
}
#: Far more turns than a sweep with these options can have.
TURNS = 3000

Factory = Callable[[], Scheduler]


def factory(name: str) -> Factory:
    if name not in OPTIONS:
        pytest.fail(f"the table names {name!r}: give it options in this test")
    module, _, class_name = SCHEDULERS[name].partition(":")
    return lambda: getattr(import_module(module), class_name)(**OPTIONS[name])


each_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))


def test_options_are_given_for_exactly_the_table() -> None:
    assert set(OPTIONS) == set(SCHEDULERS)


class Sweep:
    """A sweep under a scheduler, with every invariant checked at every turn."""

    def __init__(self, make: Factory) -> None:
        self.make = make
        self.scheduler = make()
        self.events: list[AnyEvent] = []
        self.resources: list[list[int]] = []
        self.running: list[RunId] = []
        self.values: dict[RunId, float | None] = {}
        self.exhausted = False

    def happen(self, event: AnyEvent) -> None:
        self.events.append(event)
        self.scheduler.apply(event)

    def decide(self, slots: int) -> list[Decision]:
        """The decisions, after checking that they may be made and that deciding is pure."""
        before = pickle.dumps(self.scheduler)
        decisions = self.scheduler.decide(slots)
        assert self.scheduler.decide(0) == self.scheduler.decide(-1) == []
        self.scheduler.decide(slots + 3)
        assert self.scheduler.decide(slots) == decisions
        assert pickle.dumps(self.scheduler) == before
        if self.scheduler.done:
            assert decisions == []
        kinds = [isinstance(decision, Start) for decision in decisions]
        assert kinds == sorted(kinds), "promotions come before starts"
        return decisions

    def make_true(self, decision: Decision) -> None:
        match decision:
            case Start(bracket, resource):
                assert not self.exhausted, "nothing starts when no trial may start"
                assert resource > 0
                trial = len(self.resources)
                self.resources.append([resource])
                self.running.append(RunId(trial, 0))
                self.happen(TrialCreated(trial, {}, bracket, resource))
            case Promote(trial, rung, resource):
                known = self.resources[trial]
                assert rung == len(known), "each rung once, without gaps"
                assert self.values.get(RunId(trial, rung - 1)) is not None, "promoted without a value"
                assert resource > known[-1]
                known.append(resource)
                self.running.append(RunId(trial, rung))
                self.happen(TrialPromoted(trial, rung, resource))
            case Stop(trial, reason):
                assert any(run.trial == trial for run in self.running), "only what runs can be stopped"
                self.happen(TrialStopped(trial, reason))

    def finish(self, run: RunId, value: float | None) -> None:
        self.running.remove(run)
        self.values[run] = value
        outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
        self.happen(RunFinished(run.trial, run.rung, outcome, value=value))

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


def play(sweep: Sweep, chance: random.Random, failures: float, most_slots: int, end: int | None) -> None:
    """Any order of results, failures and slots until the scheduler is done and nothing runs."""
    for _ in range(TURNS):
        if sweep.scheduler.done and not sweep.running:
            return
        if end is not None and len(sweep.resources) >= end and not sweep.exhausted:
            sweep.exhausted = True
            sweep.happen(NoMoreTrials("the space is exhausted", "space"))
        decisions = sweep.decide(chance.randint(0, most_slots))
        if not sweep.running and not sweep.scheduler.done:
            decisions = sweep.decide(1)
            assert decisions, "with a free slot and nothing running there is something to do"
        elif chance.random() < 0.2:  # the rest is decided again later
            decisions = decisions[: chance.randint(0, len(decisions))]
        for decision in decisions:
            sweep.make_true(decision)
        for run in chance.sample(sweep.running, chance.randint(0, len(sweep.running))):
            failed = chance.random() < failures
            sweep.finish(run, None if failed else chance.choice([0.0, 1.0, chance.random()]))
    raise AssertionError(f"not done after {TURNS} turns")


@each_scheduler
@settings(max_examples=1500, deadline=None)
@given(chances=chances())
def test_every_sweep_ends_and_every_decision_on_the_way_may_be_made(
    name: str, chances: tuple[random.Random, float, int, int | None]
) -> None:
    sweep = Sweep(factory(name))
    play(sweep, *chances)
    assert sweep.decide(1000) == []
    assert len(sweep.values) == sum(len(rungs) for rungs in sweep.resources)


@each_scheduler
@settings(max_examples=150, deadline=None)
@given(chances=chances(), slots=st.integers(1, 40))
def test_replaying_the_events_gives_the_same_decisions_at_every_point(
    name: str, chances: tuple[random.Random, float, int, int | None], slots: int
) -> None:
    sweep = Sweep(factory(name))
    play(sweep, *chances)
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
@settings(max_examples=100, deadline=None)
@given(chances=chances())
def test_a_scheduler_that_is_done_stays_done_until_the_sweep_is_carried_on(
    name: str, chances: tuple[random.Random, float, int, int | None]
) -> None:
    sweep = Sweep(factory(name))
    play(sweep, *chances)
    scheduler = sweep.replayed()
    scheduler.apply(NoMoreTrials("budget.trials 3 is reached", "budget"))
    assert scheduler.done
    assert scheduler.decide(5) == []
    scheduler.apply(SweepResumed(0.0))
    assert scheduler.done or scheduler.decide(1) != []
