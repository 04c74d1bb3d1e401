"""Sobol: one sequence however it is asked for, even coverage, and what it passes over."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Constant, Float, Int, Parameter, Space
from hpcsweep.core.text import json_key
from hpcsweep.errors import SpecError
from hpcsweep.searchers.sequences import Sobol

SQUARE = Space((Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0))))
BRANCHES = Space(
    (
        Parameter("kind", Choice(("a", "b"))),
        Parameter("x", Float(0.0, 1.0), {"kind": ("a",)}),
        Parameter("n", Int(1, 3), {"kind": ("b",)}),
    )
)
FINITE = Space((Parameter("a", Int(1, 6)), Parameter("b", Choice((True, False)))))


def sweep(searcher: Sobol, space: Space, asks: list[int]) -> list[Config]:
    known = History(space)
    for n in asks:
        for config in searcher.ask(n, known, default_rng(known.proposed)):
            known.add(config)
    return known.configs


@pytest.mark.parametrize("space", [SQUARE, BRANCHES])
def test_sequence_is_the_same_one_at_a_time_and_at_once(space: Space) -> None:
    whole = sweep(Sobol(seed=3), space, [81])
    assert whole == sweep(Sobol(seed=3), space, [1] * 81) == sweep(Sobol(seed=3), space, [20, 7, 54])
    assert whole != sweep(Sobol(seed=4), space, [81])
    # A searcher that has no memory of the sweep goes on where the history ends.
    assert Sobol(seed=3).ask(11, History(space, configs=whole[:70]), default_rng(9)) == whole[70:]


def test_points_are_balanced_and_scrambled() -> None:
    unit = SQUARE.to_unit(sweep(Sobol(seed=1), SQUARE, [64]))
    for column in unit.T:
        assert np.bincount((column * 64).astype(int), minlength=64).tolist() == [1] * 64
    boxes = (unit * 8).astype(int) @ [8, 1]
    assert np.bincount(boxes, minlength=64).tolist() == [1] * 64
    assert unit.min() > 0  # the unscrambled sequence begins at the origin


def test_points_that_break_a_constraint_are_passed_over() -> None:
    half = Space(SQUARE.parameters, (Expression("x < y"),))
    every = sweep(Sobol(), SQUARE, [200])
    fitting = [config for config in every if config["x"] < config["y"]]
    assert sweep(Sobol(), half, [5] * (len(fitting) // 5))[:50] == fitting[:50]


def test_enqueued_configuration_is_passed_over() -> None:
    whole = sweep(Sobol(), SQUARE, [10])
    known = History(SQUARE, configs=[whole[4]])
    assert Sobol().ask(9, known, default_rng(0)) == whole[:4] + whole[5:]


def test_configurations_that_repeat_are_passed_over_where_a_branch_is_finite() -> None:
    configs = sweep(Sobol(), BRANCHES, [30, 30])
    assert len({json_key(config) for config in configs}) == 60
    assert sum(config["kind"] == "b" for config in configs) == 3


@pytest.mark.parametrize("at_a_time", [1, 5, 100])
def test_finite_space_is_gone_through_once(at_a_time: int) -> None:
    configs = sweep(Sobol(), FINITE, [at_a_time] * (13 if at_a_time < 5 else 4))
    assert len(configs) == len({json_key(config) for config in configs}) == 12


def test_space_of_constants_has_one_configuration() -> None:
    space = Space((Parameter("epochs", Constant(3)),))
    assert sweep(Sobol(), space, [2, 2]) == [{"epochs": 3}]


def test_nothing_that_fits_ends_in_words() -> None:
    never = Space(SQUARE.parameters, (Expression("x > 2"),))
    with pytest.raises(SpecError, match="constraints: must leave at least"):
        Sobol().ask(1, History(never), default_rng(0))
    assert Sobol().problems(never)[0].startswith("constraints: ")
    assert (Sobol().is_exhaustible(FINITE), Sobol().is_exhaustible(SQUARE), Sobol.adaptive) == (
        True,
        False,
        False,
    )
