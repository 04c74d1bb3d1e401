"""Stopping rules on curves made by harness, and how they go with the schedulers that they wrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hpcsweep.core.protocols import BracketPlan, Promote, Scheduler, Start, Stop
from hpcsweep.core.space import Float, Parameter, Space
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.pbt import PBT
from hpcsweep.schedulers.stopping_rules import STOP_RULES, Median, Plateau, StoppingRule, WithStoppingRules
from hpcsweep.schedulers.synchronous import Hyperband
from tests.schedulers.scheduler_harness import EXHAUSTED, Harness


def first_stop(rule: StoppingRule, curve: Sequence[float], *, trial: int = 100) -> int | None:
    """The step, from 1, at which the rule says so first."""
    reasons = [rule.report(trial, step, value) for step, value in enumerate(curve, 1)]
    return next((step for step, reason in enumerate(reasons, 1) if reason is not None), None)


def played(inner: Scheduler, *rules: StoppingRule, slots: int = 10) -> Harness:
    harness = Harness(WithStoppingRules(inner, rules=rules))
    harness.take(slots)
    return harness


def stopped(harness: Harness) -> list[int]:
    return [decision.trial for decision in harness.scheduler.decide(0) if isinstance(decision, Stop)]


# --------------------------------------------------------------------------- median

COMPLETED = [
    # values             running averages
    (0.9, 0.7, 0.5),  # 0.9  0.8  0.7
    (0.8, 0.8, 0.2),  # 0.8  0.8  0.6
    (0.4, 0.6, 0.8),  # 0.4  0.5  0.6
]  #           medians: 0.8  0.8  0.6


def median_of(curves: Sequence[Sequence[float]], **options: Any) -> Median:
    rule = Median(**options)
    for trial, curve in enumerate(curves):
        for step, value in enumerate(curve, 1):
            rule.report(trial, step, value)
    for trial in range(len(curves)):
        rule.complete(trial)
    return rule


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        ((0.85, 0.1, 0.1), 1),
        ((0.8, 0.9, 0.9), 3),  # no worse than the medians of 0.8; its best is worse than 0.6
        ((0.7, 0.7, 0.61), 3),
        ((0.7, 0.7, 0.59), None),
        ((0.5, 0.9, 0.9), None),  # its best so far counts, not its newest value
    ],
)
def test_median_stops_what_is_worse_at_its_best_than_the_median_of_running_averages(
    curve: Sequence[float], step: int | None
) -> None:
    assert first_stop(median_of(COMPLETED, min_trials=3), curve) == step


def test_the_median_of_an_even_number_is_the_mean_of_the_two_in_the_middle() -> None:
    rule = median_of([(0.2,), (0.4,), (0.6,), (0.9,)], min_trials=4)
    assert rule.report(10, 1, 0.5) is None
    assert rule.report(11, 1, 0.51) == (
        "median: at step 1 its best value 0.51 is worse than 0.5, "
        "the median of the averages of 4 completed trials"
    )


def test_median_waits_until_enough_trials_have_completed_that_step() -> None:
    assert first_stop(median_of(COMPLETED, min_trials=4), (9.0, 9.0, 9.0)) is None
    with_a_short_one = median_of([*COMPLETED, (0.5,)], min_trials=4)
    assert first_stop(with_a_short_one, (0.5, 9.0, 9.0)) is None
    assert first_stop(with_a_short_one, (9.0,), trial=101) == 1


def test_median_counts_neither_running_trials_nor_those_that_failed_or_were_stopped() -> None:
    rule = Median(min_trials=1)
    for trial in range(3):
        rule.report(trial, 1, 0.1)
    rule.drop(0)
    assert rule.report(10, 1, 0.9) is None
    rule.complete(1)
    assert rule.report(11, 1, 0.9) is not None


def test_median_before_min_step_and_between_intervals_nothing_stops() -> None:
    flat = [(0.5,) * 8] * 3
    bad = (9.0,) * 8
    assert first_stop(median_of(flat, min_trials=3), bad) == 1
    assert first_stop(median_of(flat, min_trials=3, min_step=4), bad) == 4
    assert first_stop(median_of(flat, min_trials=3, interval=3), bad) == 3
    assert first_stop(median_of(flat, min_trials=3, min_step=4, interval=3), bad) == 6


def test_steps_that_are_not_judged_are_in_the_running_average_all_the_same() -> None:
    rule = median_of([(0.1, 0.5)], min_trials=1, interval=2)  # 0.3 at step 2
    assert first_stop(rule, (0.9, 0.31)) == 2
    assert first_stop(rule, (0.9, 0.3), trial=101) is None


def test_median_when_maximising_stops_the_small_and_names_values_as_they_were_reported() -> None:
    rule = median_of([(0.2,), (0.4,), (0.6,)], min_trials=3, minimise=False)
    assert rule.report(10, 1, 0.5) is None
    assert rule.report(11, 1, 0.3) == (
        "median: at step 1 its best value 0.3 is worse than 0.4, "
        "the median of the averages of 3 completed trials"
    )


def test_a_curve_goes_on_over_the_runs_of_a_promoted_trial() -> None:
    rule = Median(min_trials=1)
    rule.report(0, 1, 1.0)
    rule.complete(0)
    rule.report(0, 2, 0.5)
    rule.complete(0)  # averages 1.0 and 0.75, each once
    assert first_stop(rule, (1.0, 0.76)) == 2
    assert first_stop(rule, (1.0, 0.74), trial=101) is None
    assert first_stop(rule, (1.1,), trial=102) == 1


# --------------------------------------------------------------------------- plateau


@pytest.mark.parametrize(
    ("options", "curve", "step"),
    [
        ({}, (0.9, 0.8, 0.7, 0.6, 0.5), None),
        ({}, (0.9, 0.9, 0.9, 0.9, 0.5), 4),  # three reports that are no better than the first
        ({}, (0.9, 0.5, 0.6, 0.7, 0.4, 0.4, 0.4, 0.4), 8),  # the improvement at step 5 came in time
        ({}, (0.5, 0.9, 0.8, 0.7), 4),  # better than the one before is not better than the best
        ({"min_delta": 0.1}, (0.9, 0.85, 0.82, 0.79, 0.7), None),  # 0.79 is 0.11 below 0.9
        ({"min_delta": 0.125}, (1.0, 0.875, 0.875, 0.875), 4),  # by no more than min_delta
        ({"patience": 1}, (0.9, 0.8, 0.8), 3),
        ({"min_step": 6}, (0.9,) * 8, 6),
        ({"minimise": False}, (0.1, 0.2, 0.2, 0.1, 0.2), 5),
    ],
)
def test_plateau_stops_after_patience_reports_without_an_improvement_by_more_than_min_delta(
    options: dict[str, Any], curve: Sequence[float], step: int | None
) -> None:
    assert first_stop(Plateau(**{"patience": 3, **options}), curve) == step


def test_plateau_names_the_value_and_step_to_beat() -> None:
    rule = Plateau(patience=2, min_delta=0.01, minimise=False)
    assert [rule.report(0, 3, 0.5), rule.report(0, 6, 0.505)] == [None, None]
    assert rule.report(0, 9, 0.4) == (
        "plateau: at step 9 it has not improved by more than 0.01 on the 0.5 of step 3, for 2 reports"
    )


def test_patience_goes_on_over_the_runs_of_a_promoted_trial_and_is_each_trials_own() -> None:
    rule = Plateau(patience=2)
    rule.report(0, 1, 0.5)
    rule.report(0, 2, 0.5)
    rule.complete(0)
    assert rule.report(1, 1, 0.5) is None
    assert rule.report(0, 3, 0.5) is not None


# --------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("median", {"min_trials": 0}, "min_trials: must be at least 1, got 0"),
        ("median", {"min_step": 0}, "min_step: must be at least 1, got 0"),
        ("median", {"interval": -1}, "interval: must be at least 1, got -1"),
        ("plateau", {"patience": 0}, "patience: must be at least 1, got 0"),
        ("plateau", {"min_delta": -0.5}, r"min_delta: must be at least 0, got -0\.5"),
        ("plateau", {"min_delta": float("nan")}, "min_delta: must be at least 0, got nan"),
        ("plateau", {"min_step": 0}, "min_step: must be at least 1, got 0"),
    ],
)
def test_an_invalid_option_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        STOP_RULES[name](**options)


# --------------------------------------------------------------------------- around a scheduler


def test_a_stop_is_given_first_and_again_until_it_is_in_force_then_never() -> None:
    harness = played(Fifo(max_resource=9, trials=6), Plateau(patience=1), slots=4)
    harness.report(2, {1: 0.5, 2: 0.5})
    stop = Stop(
        2, "plateau: at step 2 it has not improved by more than 0 on the 0.5 of step 1, for 1 reports"
    )
    assert harness.scheduler.decide(0) == harness.scheduler.decide(-1) == [stop]
    assert harness.take(9) == [stop, Start(0, 9), Start(0, 9)]
    assert harness.take(9) == []
    harness.report(2, {3: 0.5})
    assert harness.take(9) == []
    assert not harness.scheduler.done, "runs go on that may be stopped"
    harness.stop(2, 0, 0.5)
    harness.finish(0, {0: 0.1, 1: 0.1, 3: 0.1, 4: None, 5: 0.1})
    assert harness.scheduler.done


def test_a_stop_is_not_revoked_by_a_later_report() -> None:
    harness = played(Fifo(max_resource=9, trials=1), Plateau(patience=1))
    harness.report(0, {1: 0.5, 2: 0.5, 3: 0.1})
    assert stopped(harness) == [0]


def test_a_run_that_ends_before_its_stop_needs_none() -> None:
    harness = played(Fifo(max_resource=9, trials=2), Plateau(patience=1))
    harness.report(0, {1: 0.5, 2: 0.5})
    harness.finish(0, {0: 0.5})
    assert stopped(harness) == []


def test_nothing_is_stopped_at_the_last_step_of_its_run() -> None:
    harness = played(Fifo(max_resource=2, trials=1), Plateau(patience=1))
    harness.report(0, {1: 0.5, 2: 0.5})
    assert stopped(harness) == []


def test_the_first_rule_that_stops_gives_the_reason_and_all_see_every_report() -> None:
    harness = played(Fifo(max_resource=9, trials=3), Median(min_trials=1), Plateau(patience=2))
    harness.report(1, dict.fromkeys(range(1, 10), 0.5))
    harness.finish(0, {1: 0.5})
    harness.report(2, {1: 0.9, 2: 0.9, 3: 0.9})
    (stop,) = harness.scheduler.decide(0)
    assert isinstance(stop, Stop)
    assert stop.reason.startswith("median: at step 1 its best value 0.9 is worse than 0.5")


def test_a_stopped_trial_is_not_promoted_however_good_its_value_is() -> None:
    harness = played(Hyperband(max_resource=9), Plateau(patience=1), slots=1)
    for trial in range(8):
        harness.finish(0, {trial: float(trial)})
    harness.stop(8, 0, -1.0)
    assert harness.take(1) == [Promote(trial, 1, 3) for trial in range(3)]


def test_a_promoted_trial_is_judged_again_at_its_next_report() -> None:
    harness = played(Hyperband(max_resource=9), Plateau(patience=1), slots=1)
    for trial in range(9):
        harness.report(trial, {1: float(trial)})
        harness.finish(0, {trial: float(trial)})
    assert harness.take(1) == [Promote(trial, 1, 3) for trial in range(3)]
    harness.report(1, {2: 1.0}, rung=1)
    harness.report(2, {2: 1.5}, rung=1)
    assert stopped(harness) == [1]


def test_a_trial_stopped_by_rule_and_scheduler_is_stopped_once() -> None:
    harness = played(ASHA(max_resource=9, stopping=True), Plateau(patience=1))
    harness.report(0, {1: 0.1})
    harness.report(1, {1: 0.5, 2: 0.5})
    (stop,) = harness.take(0)
    assert isinstance(stop, Stop)
    assert stop.reason.startswith("asha: ")
    assert harness.take(0) == []


FIVE = BracketPlan((4,), (5,))


def test_the_wrapper_passes_on_plan_clones_and_done() -> None:
    space = Space((Parameter("lr", Float(0.1, 1.0)),))
    pbt = WithStoppingRules(PBT(population=4, interval=2, max_resource=4, space=space, seed=0), rules=[])
    fifo = WithStoppingRules(Fifo(max_resource=4, trials=5), rules=[])
    assert (pbt.needs_reports, pbt.clones, pbt.done) == (True, True, False)
    assert (fifo.needs_reports, fifo.clones, fifo.plan().brackets) == (True, False, (FIVE,))
    assert WithStoppingRules(ASHA(max_resource=4), rules=[]).plan() == ASHA(max_resource=4).plan()
    fifo.apply(EXHAUSTED)
    assert fifo.done
