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
from hpcsweep.schedulers.pbt import MAX_FAILURES_IN_A_ROW, PBT
from hpcsweep.schedulers.stopping_rules import Median, Plateau, StoppingRule, WithStoppingRules
from hpcsweep.schedulers.synchronous import Halving
from tests.schedulers.scheduler_harness import Harness

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
def test_a_run_that_is_retried_before_anybody_went_on_counts_as_if_it_had_never_failed(
    make: Callable[[], Scheduler], found: list[float | None]
) -> None:
    retried, undisturbed = Harness(make()), Harness(make())
    for harness in (retried, undisturbed):
        harness.take(9)
    ended = dict(list(enumerate(found))[: retried.trials])
    failed = [trial for trial, value in ended.items() if value is None]
    again = dict.fromkeys(failed, 0.15)
    retried.finish(0, ended)
    retried.retry(0, *failed)
    undisturbed.finish(0, {trial: value for trial, value in ended.items() if value is not None})
    assert retried.scheduler.done == undisturbed.scheduler.done
    assert retried.scheduler.decide(9) == undisturbed.scheduler.decide(9)
    for harness in (retried, undisturbed):
        harness.finish(0, again)
    assert retried.scheduler.decide(9) == undisturbed.scheduler.decide(9)


def test_a_retried_repeat_removes_the_mean_until_it_ends() -> None:
    for make in (nine, lambda: ASHA(max_resource=9, trials=9)):
        harness = Harness(make())
        harness.take(9)
        harness.finish(0, values(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
        harness.retry(0, 0)
        harness.finish(0, {0: 0.35})
        assert harness.take(3) == [Promote(1, 1, 3), Promote(2, 1, 3), Promote(0, 1, 3)]


# --------------------------------------------------------------------------- synchronous


def test_a_rung_waits_for_a_run_that_is_retried() -> None:
    harness = Harness(nine())
    harness.take(9)
    harness.finish(0, values(0.1, None, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None))
    harness.retry(0, 1)
    assert harness.take(9) == []
    harness.finish(0, {1: 0.2})
    assert harness.take(9) == [Promote(0, 1, 3), Promote(1, 1, 3), Promote(2, 1, 3)]


def test_a_full_rung_does_not_wait_for_retried_runs() -> None:
    harness = Harness(nine())
    harness.take(9)
    harness.finish(0, values(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None))
    harness.take(9)
    harness.retry(0, 8)
    harness.finish(1, {0: 0.1, 1: 0.2, 2: 0.3})
    assert harness.take(9) == [Promote(0, 2, 9)]
    harness.finish(0, {8: 0.0})  # the best of all, too late
    assert harness.take(9) == []
    harness.finish(2, {0: 0.1})
    assert harness.scheduler.done


def test_only_free_places_are_open_to_retried_runs() -> None:
    harness = Harness(nine())
    harness.take(9)
    harness.finish(0, values(0.8, 0.9, None, None, None, None, None, None, None))
    assert harness.take(9) == [Promote(0, 1, 3), Promote(1, 1, 3)]
    harness.retry(0, 2, 3, 4)
    harness.finish(1, {0: 0.8, 1: 0.9})
    assert harness.take(9) == []
    harness.finish(0, {2: 0.3, 3: 0.2, 4: None})
    assert harness.take(9) == [Promote(3, 1, 3)]
    harness.finish(1, {3: 0.1})
    assert harness.take(9) == [Promote(3, 2, 9)]
    harness.finish(2, {3: 0.1})
    assert harness.scheduler.done


def test_a_done_bracket_reopens_if_a_retried_run_has_a_place() -> None:
    harness = Harness(Halving(max_resource=9, eta=3, rounds=2))
    harness.take(9)
    harness.finish(0, dict.fromkeys(range(9), None))
    assert harness.take(9) == [Start(1, 1)] * 9
    harness.finish(0, dict.fromkeys(range(9, 18), 0.5))
    harness.retry(0, *range(9))
    harness.finish(0, dict.fromkeys(range(9), 0.1))
    promoted = [Promote(trial, 1, 3) for trial in (0, 1, 2, 9, 10, 11)]
    assert harness.take(9) == promoted
    harness.finish(1, dict.fromkeys((0, 1, 2), None))
    harness.finish(1, dict.fromkeys((9, 10, 11), 0.5))
    assert harness.take(9) == [Promote(9, 2, 9)]
    harness.finish(2, {9: 0.5})
    assert harness.scheduler.done
    harness.retry(1, 1)
    assert not harness.scheduler.done


def test_a_bracket_that_is_done_with_all_its_places_taken_stays_done() -> None:
    harness = Harness(nine())
    harness.take(9)
    harness.finish(0, values(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None))
    harness.take(9)
    harness.finish(1, {0: 0.1, 1: 0.2, 2: None})
    harness.take(9)
    harness.finish(2, {0: None})
    for rung, trial in ((0, 8), (1, 2), (2, 0)):
        harness.retry(rung, trial)
        assert harness.scheduler.done
        harness.finish(rung, {trial: 0.0})
        assert harness.scheduler.done


# --------------------------------------------------------------------------- asha


def test_a_run_of_asha_that_is_retried_is_out_of_the_count_of_those_that_have_ended() -> None:
    harness = Harness(ASHA(max_resource=9, trials=6))
    harness.take(6)
    harness.finish(0, values(0.1, 0.2, 0.3, None, None, None))
    harness.retry(0, 3)
    assert harness.take(6) == [Promote(0, 1, 3)]  # one of five; two of six could go on
    harness.finish(1, {0: 0.1})
    assert not harness.scheduler.done
    harness.finish(0, {3: 0.15})
    assert harness.take(6) == [Promote(3, 1, 3)]


def test_a_run_of_stopping_asha_that_is_retried_is_judged_on_where_it_was() -> None:
    harness = Harness(ASHA(max_resource=9, trials=3, stopping=True))
    harness.take(3)
    harness.report(0, {1: 0.1})
    harness.report(1, {1: 0.2})
    assert [decision.trial for decision in harness.take(0) if isinstance(decision, Stop)] == [1]
    harness.report(0, {2: 0.1})
    harness.finish(0, {0: None})  # it did not reach the rung of resource 3
    harness.report(2, {1: 0.05, 3: 0.5})
    harness.retry(0, 0)
    harness.report(0, {2: 0.4, 3: 0.6})
    assert harness.take(0) == [
        Stop(
            0,
            "asha: at the rung of resource 3 its value 0.6 is number 2 of 2, and the best 1 of them go on",
        )
    ]


# --------------------------------------------------------------------------- pbt


def test_a_member_that_is_retried_holds_its_place_again() -> None:
    harness = Harness(population())
    harness.take(4)
    harness.finish(0, dict.fromkeys(range(4), None))
    assert harness.scheduler.done
    harness.retry(0, 2)
    assert not harness.scheduler.done
    harness.finish(0, {2: 0.5})
    assert [(d.parent if isinstance(d, Clone) else d) for d in harness.take(4)] == [2, 2, 2, Promote(2, 1, 4)]


def test_a_retried_member_that_fails_counts_as_one_failure() -> None:
    harness = Harness(population())
    harness.take(4)
    harness.finish(0, values(0.1, 0.2, 0.3, None))
    for _ in range(2 * MAX_FAILURES_IN_A_ROW):
        harness.retry(0, 3)
        harness.finish(0, {3: None})
    assert [decision.bracket for decision in harness.take(4) if isinstance(decision, Clone)] == [3]


def test_a_retried_member_whose_place_is_taken_is_ignored() -> None:
    harness, undisturbed = Harness(population()), Harness(population())
    for play in (harness, undisturbed):
        play.take(4)
        play.finish(0, values(0.1, 0.2, 0.3, None))
        play.take(4)  # trial 4 takes the place of trial 3
    harness.retry(0, 3)
    harness.finish(0, {3: 0.0})
    for play in (harness, undisturbed):
        play.finish(1, values(0.1, 0.2, 0.3))
        play.finish(0, {4: 0.4})
    assert harness.scheduler.decide(4) == undisturbed.scheduler.decide(4)


# --------------------------------------------------------------------------- stopping rules


@pytest.mark.parametrize("rule", [Median(min_trials=1), Plateau(patience=3)], ids=["median", "plateau"])
def test_stopping_rules_keep_the_reports_from_before_a_failure(rule: StoppingRule) -> None:
    harness = Harness(WithStoppingRules(Fifo(max_resource=9, trials=2), rules=[rule]))
    harness.take(2)
    harness.report(0, {1: 0.5, 2: 0.3, 3: 0.4})
    harness.finish(0, {0: 0.4})
    harness.report(1, {1: 0.2})
    harness.finish(0, {1: None})
    harness.retry(0, 1)
    assert not harness.scheduler.done
    harness.report(1, {2: 0.9, 3: 0.9})  # the median would stop it by its new reports alone
    assert harness.take(0) == []
    harness.report(1, {4: 0.9})  # and a plateau would not
    assert len(harness.take(0)) == isinstance(rule, Plateau)
