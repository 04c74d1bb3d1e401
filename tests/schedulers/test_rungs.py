"""Rung arithmetic against tables worked by harness: the arithmetic is the product."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.protocols import BracketPlan
from hpcsweep.schedulers.rungs import (
    floor_log,
    halving_bracket,
    hyperband_bracket,
    hyperband_brackets,
    top_k,
)


def test_hyperband_81_by_3_is_the_papers_table() -> None:
    ladders = hyperband_brackets(min_resource=1, max_resource=81, eta=3)
    assert ladders == [
        BracketPlan((1, 3, 9, 27, 81), (81, 27, 9, 3, 1)),
        BracketPlan((3, 9, 27, 81), (34, 11, 3, 1)),
        BracketPlan((9, 27, 81), (15, 5, 1)),
        BracketPlan((27, 81), (8, 2)),
        BracketPlan((81,), (5,)),
    ]


def test_hyperband_81_by_3_costs_1581_units_from_checkpoints_and_1902_from_scratch() -> None:
    ladders = hyperband_brackets(min_resource=1, max_resource=81, eta=3)
    assert {
        "configurations": sum(ladder.sizes[0] for ladder in ladders),
        "runs": sum(ladder.runs for ladder in ladders),
        "units": sum(ladder.units for ladder in ladders),
        "units from scratch": sum(ladder.units_from_scratch for ladder in ladders),
    } == {"configurations": 143, "runs": 206, "units": 1581, "units from scratch": 1902}


def test_243_by_3_has_six_rungs_where_float_logarithms_give_five() -> None:
    ladders = hyperband_brackets(min_resource=1, max_resource=243, eta=3)
    assert [len(ladder.resources) for ladder in ladders] == [6, 5, 4, 3, 2, 1]
    assert ladders[0] == BracketPlan((1, 3, 9, 27, 81, 243), (243, 81, 27, 9, 3, 1))


def test_a_largest_resource_that_is_no_power_of_eta_rounds_the_lower_rungs_down() -> None:
    assert hyperband_brackets(min_resource=1, max_resource=100, eta=3) == [
        BracketPlan((1, 3, 11, 33, 100), (81, 27, 9, 3, 1)),
        BracketPlan((3, 11, 33, 100), (34, 11, 3, 1)),
        BracketPlan((11, 33, 100), (15, 5, 1)),
        BracketPlan((33, 100), (8, 2)),
        BracketPlan((100,), (5,)),
    ]


def test_a_smallest_resource_above_one_leaves_brackets_out_and_no_rung_is_below_it() -> None:
    assert hyperband_brackets(min_resource=2, max_resource=54, eta=3) == [
        BracketPlan((2, 6, 18, 54), (27, 9, 3, 1)),
        BracketPlan((6, 18, 54), (12, 4, 1)),
        BracketPlan((18, 54), (6, 2)),
        BracketPlan((54,), (4,)),
    ]


def test_equal_smallest_and_largest_resource_is_one_bracket_of_one_trial() -> None:
    assert hyperband_brackets(min_resource=5, max_resource=5, eta=3) == [BracketPlan((5,), (1,))]


@given(
    min_resource=st.integers(1, 20),
    factor=st.integers(1, 400),
    extra=st.integers(0, 19),
    eta=st.integers(2, 5),
)
def test_hyperband_rungs_rise_shrink_by_eta_and_stay_within_the_bounds(
    min_resource: int, factor: int, extra: int, eta: int
) -> None:
    max_resource = min_resource * factor + extra % min_resource
    ladders = hyperband_brackets(min_resource=min_resource, max_resource=max_resource, eta=eta)
    assert [len(ladder.sizes) for ladder in ladders] == list(range(len(ladders), 0, -1))
    for ladder in ladders:
        assert ladder.resources[0] >= min_resource
        assert ladder.resources[-1] == max_resource
        assert all(low < high for low, high in itertools.pairwise(ladder.resources))
        assert all(above == below // eta for below, above in itertools.pairwise(ladder.sizes))
        assert ladder.sizes[-1] >= 1
    assert hyperband_bracket(0, min_resource=min_resource, max_resource=max_resource, eta=eta) == ladders[-1]


def test_halving_2_to_10_by_2_appends_the_largest_resource_as_d2l_does() -> None:
    ladder = halving_bracket(min_resource=2, max_resource=10, eta=2)
    assert ladder == BracketPlan((2, 4, 8, 10), (8, 4, 2, 1))
    assert (ladder.runs, ladder.units, ladder.units_from_scratch) == (15, 34, 58)


def test_halving_does_not_append_a_largest_resource_that_is_a_rung_already() -> None:
    assert halving_bracket(min_resource=1, max_resource=8, eta=2) == BracketPlan((1, 2, 4, 8), (8, 4, 2, 1))


@pytest.mark.parametrize(
    ("prefact", "sizes"),
    [
        (1.0, (8, 4, 2, 1)),
        (1.5, (12, 6, 3, 1)),
        (2.0, (16, 8, 4, 2)),
        (0.5, (4, 2, 1, 1)),
        (0.3, (2, 1, 1, 1)),
    ],
)
def test_prefact_multiplies_each_rung_and_leaves_at_least_one_trial(
    prefact: float, sizes: tuple[int, ...]
) -> None:
    ladder = halving_bracket(min_resource=2, max_resource=10, eta=2, prefact=prefact)
    assert ladder == BracketPlan((2, 4, 8, 10), sizes)


def test_prefact_is_exact_where_floats_lose_a_trial() -> None:
    assert int(0.29 * 100) == 28
    ladder = halving_bracket(min_resource=1, max_resource=100, eta=10, prefact=0.29)
    assert ladder == BracketPlan((1, 10, 100), (29, 2, 1))


@pytest.mark.parametrize(
    ("started", "sizes"),
    [(9, (9, 3, 1)), (12, (9, 3, 1)), (8, (8, 2, 1)), (4, (4, 1, 1)), (1, (1, 1, 1)), (0, (0, 0, 0))],
)
def test_a_bracket_that_started_fewer_trials_shrinks_all_its_rungs(
    started: int, sizes: tuple[int, ...]
) -> None:
    assert BracketPlan((1, 3, 9), (9, 3, 1)).shrunk(started, eta=3) == BracketPlan((1, 3, 9), sizes)


@given(st.integers(2, 10), st.integers(0, 30))
def test_floor_log_is_exact_at_and_around_every_power(base: int, power: int) -> None:
    assert floor_log(base**power, base) == power
    if power:
        assert floor_log(base**power - 1, base) == power - 1


@pytest.mark.parametrize(
    ("values", "k", "minimise", "best"),
    [
        ({0: 3.0, 1: 1.0, 2: 2.0}, 2, True, [1, 2]),
        ({0: 3.0, 1: 1.0, 2: 2.0}, 2, False, [0, 2]),
        ({2: 1.0, 0: 1.0, 1: 1.0}, 2, True, [0, 1]),
        ({2: 1.0, 0: 1.0, 1: 1.0}, 2, False, [0, 1]),
        ({0: None, 1: 5.0, 2: None}, 3, True, [1]),
        ({0: None, 1: 5.0, 2: None}, 3, False, [1]),
        ({0: None}, 1, True, []),
        ({0: 1.0}, 0, True, []),
        ({}, 4, True, []),
        ({0: float("inf"), 1: 1.0}, 1, True, [1]),
    ],
)
def test_top_k_takes_no_run_without_a_value_and_breaks_ties_by_age(
    values: dict[int, float | None], k: int, minimise: bool, best: list[int]
) -> None:
    assert top_k(values, k, minimise=minimise) == best
