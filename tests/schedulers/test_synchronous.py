"""Successive halving and Hyperband, driven by harness: decisions are values, events come in."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hpcsweep.core.events import (
    Outcome,
    RunFinished,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
)
from hpcsweep.core.protocols import Decision, Promote, Start
from hpcsweep.schedulers.synchronous import Halving, Hyperband, SynchronousHalving

EXHAUSTED = TrialsExhausted("the search space is exhausted", "space")


class Harness:
    """Plays the driver: makes decisions true and tells how runs ended."""

    def __init__(self, scheduler: SynchronousHalving) -> None:
        self.scheduler = scheduler
        self.trials = 0

    def take(self, slots: int, *, at_most: int | None = None) -> list[Decision]:
        """Decide and make the first `at_most` decisions true."""
        decisions = self.scheduler.decide(slots)[:at_most]
        for decision in decisions:
            match decision:
                case Start():
                    self.scheduler.apply(TrialCreated(self.trials, {}, decision.bracket, decision.resource))
                    self.trials += 1
                case Promote():
                    self.scheduler.apply(TrialPromoted(decision.trial, decision.rung, decision.resource))
                case _:
                    raise AssertionError(decision)
        return decisions

    def finish(self, rung: int, values: Mapping[int, float | None]) -> None:
        for trial, value in values.items():
            outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
            self.scheduler.apply(RunFinished(trial, rung, outcome, value=value))


def by_number(trials: range) -> dict[int, float | None]:
    """A value for each trial: the older the better when minimised."""
    return {trial: float(trial) for trial in trials}


def test_a_rung_is_handed_out_whole_even_where_it_is_larger_than_the_slots() -> None:
    assert Harness(Hyperband(max_resource=9)).take(1) == [Start(0, 1)] * 9


def test_a_hyperband_from_end_to_end() -> None:
    harness = Harness(Hyperband(max_resource=9))
    log: list[list[Decision]] = [harness.take(1)]
    harness.finish(0, by_number(range(9)))
    log.append(harness.take(1))
    harness.finish(1, by_number(range(3)))
    log.append(harness.take(1))
    harness.finish(2, by_number(range(1)))
    log.append(harness.take(1))
    harness.finish(0, by_number(range(9, 14)))
    log.append(harness.take(1))
    harness.finish(1, by_number(range(9, 10)))
    log.append(harness.take(1))
    assert not harness.scheduler.done
    harness.finish(0, by_number(range(14, 17)))
    assert log == [
        [Start(0, 1)] * 9,
        [Promote(0, 1, 3), Promote(1, 1, 3), Promote(2, 1, 3)],
        [Promote(0, 2, 9)],
        [Start(1, 3)] * 5,
        [Promote(9, 1, 9)],
        [Start(2, 9)] * 3,
    ]
    assert harness.scheduler.done
    assert harness.take(100) == []


def test_maximising_promotes_the_largest_values() -> None:
    harness = Harness(Hyperband(max_resource=9, minimise=False))
    harness.take(1)
    harness.finish(0, by_number(range(9)))
    assert harness.take(1) == [Promote(8, 1, 3), Promote(7, 1, 3), Promote(6, 1, 3)]


def test_nothing_is_promoted_while_one_run_of_the_rung_has_no_ending() -> None:
    harness = Harness(Halving(max_resource=4))
    harness.take(1)
    harness.finish(0, by_number(range(3)))
    assert harness.take(10) == []
    harness.finish(0, {3: -1.0})
    assert harness.take(10) == [Promote(3, 1, 2), Promote(0, 1, 2)]


def test_the_next_bracket_starts_early_only_where_slots_are_left() -> None:
    harness = Harness(Hyperband(max_resource=9))
    assert harness.scheduler.decide(9) == [Start(0, 1)] * 9
    assert harness.scheduler.decide(10) == [Start(0, 1)] * 9 + [Start(1, 3)] * 5
    assert harness.scheduler.decide(14) == [Start(0, 1)] * 9 + [Start(1, 3)] * 5
    assert harness.scheduler.decide(1000) == [Start(0, 1)] * 9 + [Start(1, 3)] * 5 + [Start(2, 9)] * 3
    assert harness.take(4) == [Start(0, 1)] * 9
    assert harness.take(0) == []
    assert harness.take(1) == [Start(1, 3)] * 5  # stragglers in rung 0, one slot free


def test_promotions_of_every_open_bracket_come_before_any_start() -> None:
    harness = Harness(Hyperband(max_resource=9))
    harness.take(10)
    harness.finish(0, by_number(range(14)))
    promotions: list[Decision] = [*(Promote(t, 1, 3) for t in range(3)), Promote(9, 1, 9)]
    assert harness.scheduler.decide(1) == promotions
    assert harness.scheduler.decide(4) == promotions
    assert harness.scheduler.decide(5) == [*promotions, *[Start(2, 9)] * 3]


def test_decisions_are_repeated_until_they_are_applied_and_only_the_rest_after_that() -> None:
    harness = Harness(Hyperband(max_resource=9))
    assert harness.take(1, at_most=4) == [Start(0, 1)] * 4
    assert harness.scheduler.decide(1) == harness.scheduler.decide(1) == [Start(0, 1)] * 5
    assert harness.take(1) == [Start(0, 1)] * 5
    harness.finish(0, by_number(range(9)))
    assert harness.take(1, at_most=1) == [Promote(0, 1, 3)]
    assert harness.scheduler.decide(1) == [Promote(1, 1, 3), Promote(2, 1, 3)]


def test_a_rung_whose_promotions_are_half_made_is_not_compared() -> None:
    harness = Harness(Halving(max_resource=4))
    harness.take(1)
    harness.finish(0, by_number(range(4)))
    harness.take(1, at_most=1)
    harness.finish(1, {0: 0.0})
    assert harness.scheduler.decide(1) == [Promote(1, 1, 2)]


def test_a_failed_run_is_never_promoted_and_the_rung_shrinks() -> None:
    harness = Harness(Hyperband(max_resource=9))
    harness.take(1)
    harness.finish(0, {trial: 1.0 if trial in (4, 7) else None for trial in range(9)})
    assert harness.take(1) == [Promote(4, 1, 3), Promote(7, 1, 3)]
    harness.finish(1, {4: None, 7: 5.0})
    assert harness.take(1) == [Promote(7, 2, 9)]
    harness.finish(2, {7: None})
    assert harness.take(1) == [Start(1, 3)] * 5


def test_a_rung_in_which_every_run_failed_ends_its_bracket() -> None:
    harness = Harness(Halving(max_resource=4, rounds=1))
    harness.take(1)
    harness.finish(0, dict.fromkeys(range(4)))
    assert harness.take(10) == []
    assert harness.scheduler.done


def test_every_run_failing_at_a_higher_rung_ends_its_bracket() -> None:
    harness = Harness(Halving(max_resource=4, rounds=1))
    harness.take(1)
    harness.finish(0, by_number(range(4)))
    harness.take(1)
    harness.finish(1, {0: None, 1: None})
    assert harness.take(10) == []
    assert harness.scheduler.done


def test_an_exhausted_space_shrinks_the_bracket_that_it_cut_short() -> None:
    harness = Harness(Hyperband(max_resource=9))
    harness.take(1, at_most=4)
    harness.finish(0, by_number(range(4)))
    harness.scheduler.apply(EXHAUSTED)
    assert not harness.scheduler.done
    assert harness.take(100) == [Promote(0, 1, 3)]  # 4 trials: rungs of 4, 1 and 1
    harness.finish(1, {0: 0.0})
    assert harness.take(100) == [Promote(0, 2, 9)]
    harness.finish(2, {0: 0.0})
    assert harness.take(100) == []
    assert harness.scheduler.done


def test_an_exhausted_space_ends_a_bracket_whose_last_result_was_in_already() -> None:
    harness = Harness(Hyperband(max_resource=9))
    harness.take(1)
    for rung, size in enumerate((9, 3, 1)):
        harness.finish(rung, by_number(range(size)))
        harness.take(0 if rung == 2 else 1)
    harness.scheduler.apply(EXHAUSTED)
    assert harness.scheduler.done
    assert harness.take(100) == []


def test_a_sweep_that_is_resumed_fills_the_bracket_that_was_cut_then_opens_the_next() -> None:
    harness = Harness(Hyperband(max_resource=9))
    harness.take(1, at_most=1)
    harness.scheduler.apply(EXHAUSTED)
    harness.scheduler.apply(SweepResumed(0.0))
    assert harness.take(1) == [Start(0, 1)] * 8
    assert harness.take(1) == [Start(1, 3)] * 5


@pytest.mark.parametrize("slots", [1, 999, 1000, 1001, 2500])
def test_a_large_rung_starts_in_pieces_that_end_at_the_same_trials_whatever_is_free(slots: int) -> None:
    harness = Harness(Halving(max_resource=4096, eta=2))
    starts: list[Start] = []
    while len(starts) < 4096:
        taken = harness.take(slots)
        assert len(taken) <= slots + 999
        starts += [decision for decision in taken if isinstance(decision, Start)]
    assert starts == [Start(0, 1, trial // 1000) for trial in range(4096)]
    assert harness.take(slots) == []


def test_a_rung_of_millions_costs_no_more_than_a_piece_of_it() -> None:
    scheduler = Hyperband(max_resource=10_000_000)
    assert scheduler.plan().brackets[0].sizes[0] == 4_782_969
    assert scheduler.decide(1) == [Start(0, scheduler.plan().brackets[0].resources[0])] * 1000
    assert not scheduler.done


@pytest.mark.parametrize(
    "scheduler", [Halving(max_resource=2, rounds=None), Hyperband(max_resource=2, eta=2, iterations=None)]
)
def test_without_a_number_of_rounds_bracket_follows_bracket_until_nothing_may_start(
    scheduler: SynchronousHalving,
) -> None:
    harness = Harness(scheduler)
    for index in range(50):
        ladder = scheduler.plan().brackets[index % len(scheduler.plan().brackets)]
        first = harness.trials
        assert harness.take(1) == [Start(index, ladder.resources[0])] * ladder.sizes[0]
        harness.finish(0, dict.fromkeys(range(first, harness.trials)))
        assert not scheduler.done
    scheduler.apply(EXHAUSTED)
    assert scheduler.done
    assert harness.take(100) == []


def test_two_rounds_of_d2l_halving_are_thirty_runs() -> None:
    harness = Harness(Halving(min_resource=2, max_resource=10, eta=2, rounds=2))
    decisions: list[Decision] = []
    while taken := harness.take(1):
        decisions += taken
        for decision in taken:
            match decision:
                case Promote(trial, rung):
                    harness.finish(rung, {trial: float(trial)})
                case _:
                    pass
        if isinstance(taken[0], Start):
            harness.finish(0, by_number(range(harness.trials - len(taken), harness.trials)))
    rounds = [
        [
            *[Start(index, 2)] * 8,
            *[Promote(first + trial, 1, 4) for trial in range(4)],
            *[Promote(first + trial, 2, 8) for trial in range(2)],
            Promote(first, 3, 10),
        ]
        for index, first in enumerate((0, 8))
    ]
    assert len(decisions) == 30
    assert decisions == [*rounds[0], *rounds[1]]
    assert harness.scheduler.done
