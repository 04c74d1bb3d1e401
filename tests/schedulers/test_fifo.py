"""Fifo: every trial to the full resource, as many as asked for."""

from __future__ import annotations

import pytest

from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, SweepResumed, TrialCreated, TrialsExhausted
from hpcsweep.core.protocols import BracketPlan, Start
from hpcsweep.schedulers.fifo import AHEAD, Fifo

EXHAUSTED = TrialsExhausted("the search space is exhausted", "space")


def fifo_after(events: list[AnyEvent], **options: object) -> Fifo:
    scheduler = Fifo(**{"max_resource": 4, **options})  # type: ignore[arg-type]
    for event in events:
        scheduler.apply(event)
    return scheduler


def created(count: int) -> list[AnyEvent]:
    return [TrialCreated(trial, {}, 0, 4) for trial in range(count)]


@pytest.mark.parametrize(("slots", "starts"), [(-1, 0), (0, 0), (1, 1), (3, 3), (5, 5), (9, 5)])
def test_as_many_start_as_there_are_slots_and_trials_left(slots: int, starts: int) -> None:
    assert fifo_after([], trials=5).decide(slots) == [Start(0, 4)] * starts


def test_deciding_changes_nothing_until_the_events_are_applied() -> None:
    scheduler = fifo_after([], trials=5)
    assert scheduler.decide(3) == scheduler.decide(3) == [Start(0, 4)] * 3
    for event in created(3):
        scheduler.apply(event)
    assert scheduler.decide(3) == scheduler.decide(3) == [Start(0, 4)] * 2


def test_it_is_done_when_all_trials_are_created_whatever_becomes_of_them() -> None:
    scheduler = fifo_after(created(4), trials=5)
    assert not scheduler.done
    scheduler.apply(TrialCreated(4, {}, 0, 4))
    assert scheduler.done
    scheduler.apply(RunFinished(0, 0, Outcome.FAILED))
    assert scheduler.done
    assert scheduler.decide(10) == []


def test_without_a_number_of_trials_it_goes_on_until_the_space_is_exhausted() -> None:
    scheduler = fifo_after(created(1000))
    assert scheduler.decide(7) == [Start(0, 4)] * 7
    assert not scheduler.done
    scheduler.apply(EXHAUSTED)
    assert scheduler.decide(7) == []
    assert scheduler.done


def test_a_sweep_that_is_resumed_starts_trials_again() -> None:
    scheduler = fifo_after([*created(2), EXHAUSTED, SweepResumed(0.0)], trials=5)
    assert not scheduler.done
    assert scheduler.decide(9) == [Start(0, 4)] * 3


def test_ahead_hands_out_far_more_than_the_slots_but_not_more_than_there_are() -> None:
    assert len(fifo_after([], ahead=True).decide(2)) == AHEAD
    assert len(fifo_after([], ahead=True).decide(3 * AHEAD)) == 3 * AHEAD
    assert len(fifo_after(created(2), ahead=True, trials=9).decide(1)) == 7
    assert fifo_after([], ahead=True).decide(0) == []


def test_its_plan_is_one_rung_at_the_full_resource() -> None:
    assert Fifo(max_resource=4, trials=5).plan().brackets == (BracketPlan((4,), (5,)),)
