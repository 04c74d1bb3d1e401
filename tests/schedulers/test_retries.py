"""A run that failed is tried again: what waits for it, what does not, and what its value counts for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.protocols import Clone, Promote, Scheduler, Start, Stop
from hpcsweep.core.space import Float, Parameter, Space
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.pbt import MEMBERS_IN_A_ROW, PBT
from hpcsweep.schedulers.stopping_rules import Median, Plateau, StoppingRule, WithStoppingRules
from hpcsweep.schedulers.synchronous import Halving
from tests.schedulers.playing import Hand

LR = Space((Parameter("lr", Float(0.1, 1.0)),))


def nine() -> Halving:
    """One bracket, 9x1 > 3x3 > 1x9."""
    return Halving(max_resource=9, eta=3)


def population() -> PBT:
    return PBT(population=4, interval=2, max_resource=6, space=LR, seed=0)


def values(*found: float | None) -> dict[int, float | None]:
    return dict(enumerate(found))


# --------------------------------------------------------------------------- as if it had not failed

each_that_compares_at_the_end = pytest.mark.parametrize(
    "make", [nine, lambda: ASHA(max_resource=9, trials=9), population], ids=["halving", "asha", "pbt"]
)


@each_that_compares_at_the_end
@given(found=st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.3]), min_size=9, max_size=9))
def test_a_run_that_is_tried_again_before_anybody_went_on_counts_as_if_it_had_never_failed(
    make: Callable[[], Scheduler], found: list[float | None]
) -> None:
    retried, undisturbed = Hand(make()), Hand(make())
    for hand in (retried, undisturbed):
        hand.take(9)
    ended = dict(list(enumerate(found))[: retried.trials])
    failed = [trial for trial, value in ended.items() if value is None]
    again = dict.fromkeys(failed, 0.15)
    retried.finish(0, ended)
    retried.retry(0, *failed)
    undisturbed.finish(0, {trial: value for trial, value in ended.items() if value is not None})
    assert retried.scheduler.done == undisturbed.scheduler.done
    assert retried.scheduler.decide(9) == undisturbed.scheduler.decide(9)
    for hand in (retried, undisturbed):
        hand.finish(0, again)
    assert retried.scheduler.decide(9) == undisturbed.scheduler.decide(9)


def test_a_value_that_a_configuration_had_of_its_other_repeats_is_forgotten_until_it_ends_again() -> None:
    for make in (nine, lambda: ASHA(max_resource=9, trials=9)):
        hand = Hand(make())
        hand.take(9)
        hand.finish(0, values(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
        hand.retry(0, 0)
        hand.finish(0, {0: 0.35})
        assert hand.take(3) == [Promote(1, 1, 3), Promote(2, 1, 3), Promote(0, 1, 3)]


# --------------------------------------------------------------------------- synchronous


def test_a_rung_waits_for_a_run_that_is_tried_again() -> None:
    hand = Hand(nine())
    hand.take(9)
    hand.finish(0, values(0.1, None, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None))
    hand.retry(0, 1)
    assert hand.take(9) == []
    hand.finish(0, {1: 0.2})
    assert hand.take(9) == [Promote(0, 1, 3), Promote(1, 1, 3), Promote(2, 1, 3)]


def test_a_rung_whose_places_are_all_taken_waits_for_nobody() -> None:
    hand = Hand(nine())
    hand.take(9)
    hand.finish(0, values(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None))
    hand.take(9)
    hand.retry(0, 8)
    hand.finish(1, {0: 0.1, 1: 0.2, 2: 0.3})
    assert hand.take(9) == [Promote(0, 2, 9)]
    hand.finish(0, {8: 0.0})  # the best of all, too late
    assert hand.take(9) == []
    hand.finish(2, {0: 0.1})
    assert hand.scheduler.done


def test_places_that_nobody_could_take_are_for_those_that_are_tried_again_and_no_more_of_them() -> None:
    hand = Hand(nine())
    hand.take(9)
    hand.finish(0, values(0.8, 0.9, None, None, None, None, None, None, None))
    assert hand.take(9) == [Promote(0, 1, 3), Promote(1, 1, 3)]
    hand.retry(0, 2, 3, 4)
    hand.finish(1, {0: 0.8, 1: 0.9})
    assert hand.take(9) == []
    hand.finish(0, {2: 0.3, 3: 0.2, 4: None})
    assert hand.take(9) == [Promote(3, 1, 3)]
    hand.finish(1, {3: 0.1})
    assert hand.take(9) == [Promote(3, 2, 9)]
    hand.finish(2, {3: 0.1})
    assert hand.scheduler.done


def test_a_bracket_that_was_done_goes_on_if_it_has_places_for_what_is_tried_again() -> None:
    hand = Hand(Halving(max_resource=9, eta=3, rounds=2))
    hand.take(9)
    hand.finish(0, dict.fromkeys(range(9), None))
    assert hand.take(9) == [Start(1, 1)] * 9
    hand.finish(0, dict.fromkeys(range(9, 18), 0.5))
    hand.retry(0, *range(9))
    hand.finish(0, dict.fromkeys(range(9), 0.1))
    promoted = [Promote(trial, 1, 3) for trial in (0, 1, 2, 9, 10, 11)]
    assert hand.take(9) == promoted
    hand.finish(1, dict.fromkeys((0, 1, 2), None))
    hand.finish(1, dict.fromkeys((9, 10, 11), 0.5))
    assert hand.take(9) == [Promote(9, 2, 9)]
    hand.finish(2, {9: 0.5})
    assert hand.scheduler.done
    hand.retry(1, 1)
    assert not hand.scheduler.done


def test_a_bracket_that_is_done_with_all_its_places_taken_stays_done() -> None:
    hand = Hand(nine())
    hand.take(9)
    hand.finish(0, values(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None))
    hand.take(9)
    hand.finish(1, {0: 0.1, 1: 0.2, 2: None})
    hand.take(9)
    hand.finish(2, {0: None})
    for rung, trial in ((0, 8), (1, 2), (2, 0)):
        hand.retry(rung, trial)
        assert hand.scheduler.done
        hand.finish(rung, {trial: 0.0})
        assert hand.scheduler.done


# --------------------------------------------------------------------------- asha


def test_a_run_of_asha_that_is_tried_again_is_out_of_the_count_of_those_that_have_ended() -> None:
    hand = Hand(ASHA(max_resource=9, trials=6))
    hand.take(6)
    hand.finish(0, values(0.1, 0.2, 0.3, None, None, None))
    hand.retry(0, 3)
    assert hand.take(6) == [Promote(0, 1, 3)]  # one of five; two of six could go on
    hand.finish(1, {0: 0.1})
    assert not hand.scheduler.done
    hand.finish(0, {3: 0.15})
    assert hand.take(6) == [Promote(3, 1, 3)]


def test_a_run_of_stopping_asha_that_is_tried_again_is_judged_on_where_it_was() -> None:
    hand = Hand(ASHA(max_resource=9, trials=3, stopping=True))
    hand.take(3)
    hand.report(0, {1: 0.1})
    hand.report(1, {1: 0.2})
    assert [decision.trial for decision in hand.take(0) if isinstance(decision, Stop)] == [1]
    hand.report(0, {2: 0.1})
    hand.finish(0, {0: None})  # it did not reach the rung of resource 3
    hand.report(2, {1: 0.05, 3: 0.5})
    hand.retry(0, 0)
    hand.report(0, {2: 0.4, 3: 0.6})
    assert hand.take(0) == [
        Stop(
            0,
            "asha: at the rung of resource 3 its value 0.6 is number 2 of 2, and the best 1 of them go on",
        )
    ]


# --------------------------------------------------------------------------- pbt


def test_a_member_that_is_tried_again_holds_its_place_again() -> None:
    hand = Hand(population())
    hand.take(4)
    hand.finish(0, dict.fromkeys(range(4), None))
    assert hand.scheduler.done
    hand.retry(0, 2)
    assert not hand.scheduler.done
    hand.finish(0, {2: 0.5})
    assert [(d.parent if isinstance(d, Clone) else d) for d in hand.take(4)] == [2, 2, 2, Promote(2, 1, 4)]


def test_a_member_that_is_tried_again_and_fails_again_loses_the_patience_of_one_member() -> None:
    hand = Hand(population())
    hand.take(4)
    hand.finish(0, values(0.1, 0.2, 0.3, None))
    for _ in range(2 * MEMBERS_IN_A_ROW):
        hand.retry(0, 3)
        hand.finish(0, {3: None})
    assert [decision.bracket for decision in hand.take(4) if isinstance(decision, Clone)] == [3]


def test_a_member_whose_place_has_been_taken_counts_for_nothing() -> None:
    hand, undisturbed = Hand(population()), Hand(population())
    for play in (hand, undisturbed):
        play.take(4)
        play.finish(0, values(0.1, 0.2, 0.3, None))
        play.take(4)  # trial 4 takes the place of trial 3
    hand.retry(0, 3)
    hand.finish(0, {3: 0.0})
    for play in (hand, undisturbed):
        play.finish(1, values(0.1, 0.2, 0.3))
        play.finish(0, {4: 0.4})
    assert hand.scheduler.decide(4) == undisturbed.scheduler.decide(4)


# --------------------------------------------------------------------------- stopping rules


@pytest.mark.parametrize("rule", [Median(min_trials=1), Plateau(patience=3)], ids=["median", "plateau"])
def test_rules_go_on_with_what_a_run_reported_before_it_failed(rule: StoppingRule) -> None:
    hand = Hand(WithStoppingRules(Fifo(max_resource=9, trials=2), rules=[rule]))
    hand.take(2)
    hand.report(0, {1: 0.5, 2: 0.3, 3: 0.4})
    hand.finish(0, {0: 0.4})
    hand.report(1, {1: 0.2})
    hand.finish(0, {1: None})
    hand.retry(0, 1)
    assert not hand.scheduler.done
    hand.report(1, {2: 0.9, 3: 0.9})  # the median would stop it by its new reports alone
    assert hand.take(0) == []
    hand.report(1, {4: 0.9})  # and a plateau would not
    assert len(hand.take(0)) == isinstance(rule, Plateau)
