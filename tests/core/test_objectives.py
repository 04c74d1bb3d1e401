from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcsweep.core.objectives import DEFAULT, Key, Objective, Objectives, dominates

ERROR, SPEED = Objective("error", at_most=0.5), Objective("speed", "max", at_least=10.0)
BOTH = Objectives([ERROR, SPEED])


def test_the_key_of_a_spec_is_read_as_one_mapping_or_as_a_list() -> None:
    one = {"metric": "loss", "mode": "max", "at": "best"}
    assert Objectives.read(one) == (Objective("loss", "max", "best"),)
    assert Objectives.read([one, {"metric": "size", "at_most": 3}]).metrics == ("loss", "size")
    assert Objectives.read(None) == DEFAULT == Objectives.read({})


def test_values_are_compared_as_numbers_only_with_one_objective_without_bounds() -> None:
    assert Objectives([Objective("loss", "max")]).key(2.0) == -2.0
    assert BOTH.key(0.25, (0.25, 20.0)) == (0.0, 0.25, -20.0)
    assert BOTH.key(1.0, (1.0, 5.0)) == (1.5, 1.0, -5.0)
    assert Objectives([ERROR]).key(0.75, (0.75,)) == (0.5, 0.75)
    assert BOTH.key(None) is None
    assert BOTH.point((0.0, 0.25, -20.0)) == (0.25, 20.0)


def test_a_bound_of_zero_is_violated_in_its_own_units() -> None:
    assert Objective("gap", at_most=0.0).violation(0.25) == 0.25
    assert Objective("gap", at_most=0.0).violation(-1.0) == 0.0
    assert Objective("gap", at_least=-2.0).violation(-3.0) == 0.5


def test_a_violation_sums_over_all_bounds() -> None:
    assert math.isclose(BOTH.violation((1.0, 5.0)), 1.0 + 0.5)


@pytest.mark.parametrize(
    ("one", "other", "better"),
    [
        (1.0, 2.0, True),
        (1.0, 1.0, False),
        (1.0, None, True),
        (None, 1.0, False),
        (None, None, False),
        ((0.0, 1.0, 2.0), (0.0, 1.0, 3.0), True),
        ((0.0, 1.0, 2.0), (0.0, 1.0, 2.0), False),
        ((0.0, 1.0, 2.0), (0.0, 2.0, 1.0), False),
        ((0.0, 9.0, 9.0), (0.1, 1.0, 1.0), True),
        ((0.1, 9.0, 9.0), (0.2, 1.0, 1.0), True),
        ((0.1, 1.0, 1.0), (0.1, 2.0, 2.0), False),
    ],
)
def test_domination(one: Key | None, other: Key | None, better: bool) -> None:
    assert dominates(one, other) is better


VALUES = st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 20.0))


@settings(deadline=None)
@given(VALUES, VALUES, VALUES)
def test_domination_is_a_strict_order(
    a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]
) -> None:
    x, y, z = (BOTH.key(values[0], values) for values in (a, b, c))
    assert not dominates(x, x)
    assert not (dominates(x, y) and dominates(y, x))
    assert dominates(x, z) or not (dominates(x, y) and dominates(y, z))
