"""ASHA against tables worked by harness: who goes on, at the moment of each result."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.events import SweepResumed, TrialCreated
from hpcsweep.core.protocols import BracketPlan, Promote, Start, Stop
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.asha_brackets import Rung
from tests.schedulers.scheduler_harness import EXHAUSTED, Harness

# --------------------------------------------------------------------------- promotion

#: eta 3, rungs 1, 3, 9. After each ending: the runs that have ended at rung 0, the best third of
#: them, and so the decision.
ONE_AFTER_ANOTHER = [
    # trial, rung, value      n  best third
    ((0, 0, 0.9), Start(0, 1)),  # 1  -
    ((1, 0, 0.5), Start(0, 1)),  # 2  -
    ((2, 0, 0.7), Promote(1, 1, 3)),  # 3  1
    ((3, 0, 0.1), Promote(3, 1, 3)),  # 4  3
    ((4, 0, 0.6), Start(0, 1)),  # 5  3 was promoted, and still is the best third
    ((5, 0, 0.8), Start(0, 1)),  # 6  3 and 1 were promoted
    ((6, 0, 0.2), Promote(6, 1, 3)),  # 7  3 and 6
    ((1, 1, 0.4), Start(0, 1)),  # at rung 1: 1 has ended, no third yet
    ((6, 1, 0.15), Start(0, 1)),  # 2
    ((3, 1, 0.3), Promote(6, 2, 9)),  # 3, of which 6 is the best
    ((6, 2, 0.1), Start(0, 1)),  # nobody goes beyond the last rung
]


def test_the_top_third_of_all_that_ended_go_on_and_promoted_ones_stay_in_the_count() -> None:
    harness = Harness(ASHA(max_resource=9))
    harness.take(7)
    decisions = []
    for (trial, rung, value), _ in ONE_AFTER_ANOTHER:
        harness.finish(rung, {trial: value})
        decisions += harness.take(1)
    assert decisions == [decision for _, decision in ONE_AFTER_ANOTHER]


def test_after_a_promotion_the_next_best_trial_is_not_promoted_in_its_place() -> None:
    harness = Harness(ASHA(max_resource=9))
    harness.take(3)
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3})
    assert harness.take(1) == [Promote(0, 1, 3)]
    assert harness.take(3) == [Start(0, 1)] * 3


def test_promotions_come_from_the_most_advanced_rung_first_then_best_first_then_starts() -> None:
    harness = Harness(ASHA(max_resource=4, eta=2))
    harness.take(8)
    harness.finish(0, {trial: float(trial) for trial in range(8)})
    harness.take(2)
    harness.finish(1, {0: 5.0, 1: 4.0})
    promotions = [Promote(1, 2, 4), Promote(2, 1, 2), Promote(3, 1, 2)]
    assert harness.scheduler.decide(1) == promotions[:1]
    assert harness.scheduler.decide(2) == promotions[:2]
    assert harness.scheduler.decide(5) == [*promotions, Start(0, 1), Start(0, 1)]
    assert harness.take(5, at_most=1) == promotions[:1]
    assert harness.scheduler.decide(2) == promotions[1:]


def test_maximising_promotes_the_largest_value_and_ties_go_to_the_older_trial() -> None:
    harness = Harness(ASHA(max_resource=9, minimise=False))
    harness.take(3)
    harness.finish(0, {2: 0.7, 1: 0.7, 0: 0.5})
    assert harness.take(1) == [Promote(1, 1, 3)]


@pytest.mark.parametrize(
    ("values", "promoted"),
    [
        ({0: None, 1: 0.5, 2: 0.7}, [1]),
        ({0: None, 1: None, 2: 0.7}, [2]),
        ({0: None, 1: None, 2: None}, []),
        ({0: None, 1: None, 2: None, 3: None, 4: 0.5, 5: None}, [4]),
    ],
)
def test_a_failed_run_counts_as_the_worst_and_is_never_promoted(
    values: dict[int, float | None], promoted: list[int]
) -> None:
    harness = Harness(ASHA(max_resource=9, trials=len(values)))
    harness.take(len(values))
    harness.finish(0, values)
    assert harness.take(9) == [Promote(trial, 1, 3) for trial in promoted]


def test_a_stopped_run_is_not_promoted_however_good_its_value_is() -> None:
    harness = Harness(ASHA(max_resource=9, trials=3))
    harness.take(3)
    harness.stop(0, 0, 0.0)
    harness.finish(0, {1: 0.7, 2: 0.5})
    assert harness.take(9) == [Promote(2, 1, 3)]


class Counted:
    """A rung as its definition has it, sorted anew for each question."""

    def __init__(self, eta: int) -> None:
        self.eta = eta
        self.ended = 0
        self.values: dict[int, float] = {}
        self.promoted: set[int] = set()

    def promotable(self, limit: int) -> list[int]:
        ranked = sorted(self.values, key=lambda trial: (self.values[trial], trial))
        top = ranked[: self.ended // self.eta]
        return [trial for trial in top if trial not in self.promoted][:limit]


@given(
    eta=st.integers(2, 4),
    results=st.lists(st.tuples(st.none() | st.integers(0, 9), st.integers(0, 3)), max_size=60),
)
def test_candidates_are_the_top_of_the_count_whatever_came_in_which_order(
    eta: int, results: list[tuple[int | None, int]]
) -> None:
    rung, counted = Rung(eta, several=False), Counted(eta)
    for trial, (value, promotions) in enumerate(results):
        rung.end(trial, value)
        counted.ended += 1
        if value is not None:
            counted.values[trial] = value
        assert rung.promotable(2) == counted.promotable(2)
        assert rung.promotable(1000) == counted.promotable(1000)
        for promoted in counted.promotable(promotions):
            rung.promote(promoted)
            counted.promoted.add(promoted)


# --------------------------------------------------------------------------- rungs and brackets


@pytest.mark.parametrize(
    ("options", "rungs"),
    [
        ({"max_resource": 243}, ((1, 3, 9, 27, 81, 243),)),
        ({"min_resource": 2, "max_resource": 10, "eta": 2}, ((2, 4, 8, 10),)),
        ({"min_resource": 2, "max_resource": 10, "eta": 2, "brackets": 2}, ((2, 4, 8, 10), (4, 8, 10))),
        ({"min_resource": 4, "max_resource": 4}, ((4,),)),
        ({"max_resource": 9, "brackets": 3}, ((1, 3, 9), (3, 9), (9,))),
    ],
)
def test_rungs_are_powers_of_eta_and_the_largest_resource_and_brackets_begin_higher(
    options: dict[str, int], rungs: tuple[tuple[int, ...], ...]
) -> None:
    assert ASHA(**options).rungs == rungs  # type: ignore[arg-type]


def test_trials_are_spread_over_brackets_as_hyperband_does() -> None:
    harness = Harness(ASHA(max_resource=81, brackets=5))
    assert Counter(harness.take(143)) == {
        Start(0, 1): 81,
        Start(1, 3): 34,
        Start(2, 9): 15,
        Start(3, 27): 8,
        Start(4, 81): 5,
    }


def test_each_trial_goes_to_the_bracket_furthest_below_its_share() -> None:
    harness = Harness(ASHA(max_resource=81, brackets=5))
    order = [decision for _ in range(10) for decision in harness.take(1)]
    brackets = [decision.bracket for decision in order if isinstance(decision, Start)]
    # (2 started + 1) / weight with the weights 81, 34, 15, 8, 5, smallest first.
    assert brackets == [0, 1, 0, 0, 2, 0, 1, 0, 3, 0]


def test_starts_of_one_bracket_are_handed_out_together() -> None:
    starts = [Start(0, 1)] * 6 + [Start(1, 3)] * 2 + [Start(2, 9)] + [Start(3, 27)]
    assert ASHA(max_resource=81, brackets=5).decide(10) == starts


def test_brackets_are_compared_each_by_itself() -> None:
    harness = Harness(ASHA(max_resource=9, brackets=2))
    # Weights 9 and 5: trials 0 to 2 in bracket 0, 3 and 4 in bracket 1.
    assert harness.take(5) == [Start(0, 1)] * 3 + [Start(1, 3)] * 2
    harness.finish(0, {0: 0.3, 1: 0.2, 3: 0.0, 4: 0.1})
    assert not any(isinstance(decision, Promote) for decision in harness.scheduler.decide(5))
    harness.finish(0, {2: 0.5})
    assert harness.scheduler.decide(1) == [Promote(1, 1, 3)]


def test_of_two_brackets_the_promotion_to_more_resource_goes_first() -> None:
    harness = Harness(ASHA(max_resource=9, brackets=2, trials=10))
    harness.take(10)
    harness.finish(0, {trial: float(trial) for trial in range(10)})
    # 6 and 4 trials: the best two of bracket 0 go to 3, the best one of bracket 1 to 9.
    assert harness.scheduler.decide(9) == [Promote(6, 1, 9), Promote(0, 1, 3), Promote(1, 1, 3)]


# --------------------------------------------------------------------------- the end


def test_it_is_done_when_no_trial_may_start_and_no_run_can_bring_a_promotion() -> None:
    harness = Harness(ASHA(max_resource=3, trials=4))
    assert harness.take(9) == [Start(0, 1)] * 4
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3})
    assert harness.take(9) == [Promote(0, 1, 3)]
    assert not harness.scheduler.done
    harness.finish(0, {3: 0.0})  # the top 1 of 4 now
    assert not harness.scheduler.done
    assert harness.take(9) == [Promote(3, 1, 3)]
    assert harness.scheduler.done, "what goes on is at the last rung"
    harness.finish(1, {0: 0.1, 3: 0.0})
    assert harness.scheduler.done
    assert harness.take(9) == []


def test_an_exhausted_space_ends_starts_but_not_promotions_until_it_is_resumed() -> None:
    harness = Harness(ASHA(max_resource=3))
    harness.take(3)
    harness.scheduler.apply(EXHAUSTED)
    assert not harness.scheduler.done
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3})
    assert harness.take(9) == [Promote(0, 1, 3)]
    assert harness.scheduler.done
    harness.scheduler.apply(SweepResumed(0.0))
    assert not harness.scheduler.done
    assert harness.take(2) == [Start(0, 1)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_resource": 9, "min_resource": 10}, r"min_resource: must be <= max_resource \(9\), got 10"),
        ({"max_resource": 9, "min_resource": 0}, "min_resource: must be at least 1, got 0"),
        ({"max_resource": 9, "eta": 1}, "eta: must be at least 2, got 1"),
        ({"max_resource": 9, "brackets": 4}, "brackets: must be at most 3, the number of rungs, got 4"),
        ({"max_resource": 9, "brackets": 0}, "brackets: must be at least 1, got 0"),
    ],
)
def test_an_invalid_option_is_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ASHA(**options)  # type: ignore[arg-type]


# --------------------------------------------------------------------------- stopping

#: eta 3, the milestone of step 1: rank of each value among those so far, of n, and max(1, n // 3).
AT_THE_FIRST_MILESTONE = [
    # trial, value, goes on      rank of n, best
    (0, 0.9, True),  # 1 of 1, 1
    (1, 0.5, True),  # 1 of 2, 1
    (2, 0.7, False),  # 2 of 3, 1
    (3, 0.6, False),  # 2 of 4, 1
    (4, 0.5, False),  # 2 of 5, 1: on a tie the older one is before it
    (5, 0.4, True),  # 1 of 6, 2
    (6, 0.45, True),  # 2 of 7, 2
    (7, 0.46, False),  # 3 of 8, 2
    (8, 0.46, False),  # 4 of 9, 3
    (9, 0.41, True),  # 2 of 10, 3
]


def stopping(**options: int | bool) -> Harness:
    scheduler = ASHA(**{"max_resource": 9, "stopping": True, **options})  # type: ignore[arg-type]
    harness = Harness(scheduler)
    harness.take(10)
    return harness


def stopped(harness: Harness) -> list[int]:
    return [decision.trial for decision in harness.scheduler.decide(0) if isinstance(decision, Stop)]


def test_stopping_lets_a_run_go_on_unless_it_is_outside_the_top_third_at_a_milestone() -> None:
    harness = stopping()
    assert harness.scheduler.needs_reports
    goes_on = []
    for trial, value, _ in AT_THE_FIRST_MILESTONE:
        harness.report(trial, {1: value})
        goes_on.append(trial not in stopped(harness))
    assert goes_on == [expected for *_, expected in AT_THE_FIRST_MILESTONE]


def test_a_stop_says_rung_value_and_rank_and_is_decided_without_slots_until_it_is_in_force() -> None:
    harness = stopping(trials=10)
    harness.report(0, {1: 0.5})
    harness.report(1, {1: 0.75})
    stop = Stop(
        1,
        "asha: at the rung of resource 1 its value 0.75 is number 2 of 2, and the best 1 of them go on",
    )
    assert harness.scheduler.decide(0) == harness.scheduler.decide(5) == [stop]
    assert harness.take(0) == [stop]
    assert harness.scheduler.decide(0) == []
    harness.report(1, {2: 0.9, 3: 0.9})
    assert harness.scheduler.decide(0) == []


def test_stops_come_before_starts() -> None:
    harness = stopping()
    harness.report(0, {1: 0.5})
    harness.report(1, {1: 0.75})
    first, *rest = harness.scheduler.decide(2)
    assert isinstance(first, Stop)
    assert rest == [Start(0, 9)] * 2


def test_a_run_that_ends_before_its_stop_needs_none() -> None:
    harness = stopping()
    harness.report(0, {1: 0.5})
    harness.report(1, {1: 0.75})
    harness.finish(0, {1: 0.75})
    assert harness.scheduler.decide(0) == []


def test_a_milestone_counts_the_first_report_at_or_after_it_and_only_that() -> None:
    harness = stopping()
    harness.report(0, {2: 0.5})  # the value of milestone 1
    harness.report(1, {1: 0.4, 2: 0.6})  # better at milestone 1, what follows is of no milestone
    assert stopped(harness) == []
    harness.report(2, {2: 0.45})
    assert stopped(harness) == [2]


def test_a_report_that_passes_several_milestones_counts_for_the_last_of_them() -> None:
    harness = stopping()
    harness.report(0, {4: 0.1})  # milestone 3, and not milestone 1
    harness.report(1, {1: 0.9})
    assert stopped(harness) == []
    harness.report(1, {3: 0.8})
    assert stopped(harness) == [1]


def test_nothing_is_stopped_at_the_end_of_its_run() -> None:
    harness = stopping()
    harness.report(0, {1: 0.1, 3: 0.1})
    harness.report(1, {9: 0.9})
    assert stopped(harness) == []


def test_a_run_that_failed_counts_as_the_worst_at_the_milestone_that_it_did_not_reach() -> None:
    harness = stopping()
    harness.report(0, {1: 0.5})
    harness.finish(0, dict.fromkeys(range(2, 6)))
    harness.report(1, {1: 0.6})  # 2 of 6, and the best 2 go on
    assert stopped(harness) == []
    harness.report(6, {1: 0.7})  # 3 of 7
    assert stopped(harness) == [6]


def test_stopping_when_maximising_stops_the_small_values() -> None:
    harness = stopping(minimise=False)
    harness.report(0, {1: 0.5})
    harness.report(1, {1: 0.75})
    harness.report(2, {1: 0.25})
    assert stopped(harness) == [2]


def test_milestones_of_a_bracket_begin_at_its_rung_and_count_its_own_trials() -> None:
    scheduler = ASHA(max_resource=9, brackets=2, stopping=True)
    harness = Harness(scheduler)
    for trial, bracket in enumerate((0, 1, 1)):
        scheduler.apply(TrialCreated(trial, {}, bracket, 9))
    harness.report(0, {1: 0.0, 3: 0.0})
    harness.report(1, {1: 0.5, 3: 0.5})
    harness.report(2, {1: 0.7})
    assert stopped(harness) == []
    harness.report(2, {3: 0.7})
    assert stopped(harness) == [2]


def test_stopping_is_done_when_its_last_run_has_ended() -> None:
    harness = Harness(ASHA(max_resource=9, stopping=True, trials=2))
    assert harness.take(5) == [Start(0, 9)] * 2
    harness.finish(0, {0: 0.1})
    assert not harness.scheduler.done
    harness.finish(0, {1: 0.1})
    assert harness.scheduler.done


def test_the_plan_has_sizes_where_the_number_of_trials_is_known_and_estimates_where_results_decide() -> None:
    assert ASHA(max_resource=9, stopping=True, trials=5).plan().brackets == (BracketPlan((9,), (5,)),)
    assert ASHA(max_resource=9, stopping=True).plan().brackets == ()
    rungs = (1, 3, 9)
    open_ended = ASHA(max_resource=9).plan()
    assert (open_ended.brackets, open_ended.starts) == ((BracketPlan(rungs),), None)
    assert open_ended.open_ended == "asha goes on for ever in this space"
    known = ASHA(max_resource=9, trials=9).plan()
    assert (known.brackets, known.estimated) == ((BracketPlan(rungs, (9, 3, 1)),), True)
    assert (known.starts, known.max_runs, known.open_ended) == (9, 9 + 7 + 5, "")
    assert ASHA(max_resource=9, trials=9).plan(5).starts == 5
    two = ASHA(max_resource=9, brackets=2, trials=9).plan()
    assert (two.brackets, two.max_runs) == ((BracketPlan((1, 3, 9)), BracketPlan((3, 9))), None)
