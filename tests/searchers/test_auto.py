"""`auto`: what it picks where, what it says of it, and that it stays with it."""

from __future__ import annotations

from typing import Any

import pytest
from numpy.random import Generator, default_rng

import hpcsweep.searchers
from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Constant, Float, Int, Parameter, Space
from hpcsweep.searchers.auto import MOST_CONFIGS, MOST_DIMENSIONS, Auto

FLOATS = Space((Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0))))
FINITE = Space(
    (Parameter("a", Int(1, 5)), Parameter("b", Choice(("u", "v", "w", "x"))), Parameter("c", Constant(1)))
)
MANY = Space(tuple(Parameter(f"x{i}", Float(0.0, 1.0)) for i in range(MOST_DIMENSIONS + 1)))


class Fake:
    """A searcher that names itself in what it proposes."""

    adaptive = True

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        return [{"by": self.name}] * n

    def problems(self, space: Space) -> list[str]:
        return [f"searcher.name: {self.name!r} needs what is not here"]

    def is_exhaustible(self, space: Space) -> bool:
        return False


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gp` and `tpe` are stand-ins."""
    real = hpcsweep.searchers.make_searcher

    def make(name: str, *, seed: int, options: dict[str, Any], trials: int | None) -> Any:
        return Fake(name) if name in ("gp", "tpe") else real(name, seed=seed, options=options, trials=trials)

    monkeypatch.setattr(hpcsweep.searchers, "make_searcher", make)


def asked(one: Auto, history: History) -> Any:
    (config,) = one.ask(1, history, default_rng(0))
    return config["by"]


GP = "gp", "at most 50 dimensions; switches to tpe at 1000 configurations"


@pytest.mark.parametrize(
    ("space", "trials", "expected"),
    [
        (FLOATS, None, GP),
        (FLOATS, 30, GP),
        (FINITE, 20, ("random", "20 trials go through all 20 configurations")),
        (FINITE, 99, ("random", "99 trials go through all 20 configurations")),
        (FINITE, 19, GP),
        (FINITE, None, GP),
        (MANY, 30, ("tpe", "51 dimensions are too many for a Gaussian process")),
    ],
)
def test_picks_by_space_and_budget(space: Space, trials: int | None, expected: tuple[str, str]) -> None:
    assert Auto(trials=trials).resolve(space) == expected


def test_goes_over_to_tpe_as_a_function_of_the_history() -> None:
    one = Auto()
    few, many = History(FLOATS), History(FLOATS)
    for index, config in enumerate(FLOATS.sample(MOST_CONFIGS, default_rng(0))):
        for known in (few, many) if index else (many,):
            known.add(config)
            if index > 50:
                known.observe(known.proposed - 1, 1.0, 1)
    assert asked(one, few) == "gp"
    assert asked(one, many) == "tpe"
    assert asked(one, few) == "gp"
    few.add_prior({"x": 0.5, "y": 0.5}, [(1, 2.0), (3, 1.0)])  # an earlier sweep's costs as much
    assert asked(one, few) == "tpe"


def test_stays_with_what_was_picked_when_the_sweep_began() -> None:
    assert Auto(resolved="gp").resolve(FLOATS) == ("gp", "as when the sweep began")
    assert asked(Auto(resolved="gp"), History(FLOATS)) == "gp"
    assert Auto(resolved="tpe", trials=99).resolve(FINITE) == ("tpe", "as when the sweep began")


def test_says_what_its_pick_lacks() -> None:
    assert Auto(resolved="gp").problems(FLOATS) == [
        "searcher.name: 'auto' is 'gp' here, as when the sweep began: 'gp' needs what is not here"
    ]


def test_learns_where_its_pick_does() -> None:
    one = Auto(trials=20)
    assert one.adaptive  # nothing is chosen yet
    one.resolve(FINITE)
    assert not one.adaptive
    one.resolve(FLOATS)
    assert one.adaptive
    assert not Auto(resolved="random").adaptive


def test_ends_where_its_pick_ends() -> None:
    assert Auto(trials=20).is_exhaustible(FINITE)
    assert not Auto().is_exhaustible(FLOATS)


def test_random_goes_through_a_finite_space() -> None:
    one = Auto(trials=20)
    configs = one.ask(25, History(FINITE), default_rng(0))
    assert len(configs) == 20
    assert one.problems(FINITE) == []
