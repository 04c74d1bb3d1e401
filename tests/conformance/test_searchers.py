"""Every searcher of the table passes the conformance suite; and what is each one's own."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
from numpy.random import default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.protocols import Searcher
from hpcsweep.core.space import Choice, Int, Parameter, Space
from hpcsweep.core.text import json_key
from hpcsweep.errors import SpecError
from hpcsweep.plugins import plugin_names
from hpcsweep.searchers import ENTRY_POINTS, SEARCHERS, make_searcher, searcher_class
from hpcsweep.testing.searchers import (
    ALL_OF_FINITE,
    FINITE,
    INFINITE,
    SearcherConformance,
    ask_in_turn,
    history_of,
)
from tests.effort import by_effort

#: Options that make the searcher go through more than 81 configurations of the infinite space.
OPTIONS: dict[str, dict[str, Any]] = {"grid": {"num_points": 12}}
#: What `auto` stands for in the suite: with `gp` it proposes what `gp` itself does, slowly.
RESOLVED = {"auto": "tpe"}


class TestSearchers(SearcherConformance):
    sweeps = by_effort(5, 30, ci=10)

    @pytest.fixture(autouse=True, params=sorted(SEARCHERS))
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.name = str(request.param)

    def make_searcher(self, seed: int) -> Searcher:
        options, resolved = OPTIONS.get(self.name, {}), RESOLVED.get(self.name)
        return make_searcher(self.name, seed=seed, options=options, resolved=resolved)

    def count(self, space: Space, count: int | None) -> int | None:
        return sum(1 for _ in space.grid(12)) if self.name == "grid" else count


#: Those that propose for several objectives, and with bounds.
SEVERAL = ("evolution", "gp", "optuna", "tpe")


class TestSearchersOfSeveralObjectives(SearcherConformance):
    sweeps = by_effort(3, 20, ci=6)
    objectives = Objectives([Objective("a"), Objective("b", "max", at_least=1.0)])

    @pytest.fixture(autouse=True, params=SEVERAL)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.name = str(request.param)

    def make_searcher(self, seed: int) -> Searcher:
        return make_searcher(self.name, seed=seed, options={}, objectives=self.objectives)


def test_each_other_searcher_that_learns_is_refused_with_several_objectives() -> None:
    takes = {name for name in SEARCHERS if "objectives" in signature(searcher_class(name)).parameters}
    assert takes == {*SEVERAL, "auto"}


def searcher(name: str) -> Searcher:
    return make_searcher(name, seed=0, options=OPTIONS.get(name, {}))


def test_searchers_that_do_not_learn_say_so() -> None:
    assert {name for name in SEARCHERS if not searcher_class(name).adaptive} >= {"random", "grid"}


@pytest.mark.parametrize("space", [INFINITE, FINITE], ids=["infinite", "finite"])
def test_auto_proposes_exactly_what_the_searcher_that_it_chose_would(space: Space) -> None:
    auto = searcher("auto")
    assert auto.problems(space) == []
    assert ask_in_turn(auto, space, [9, 1, 2]) == ask_in_turn(searcher("gp"), space, [9, 1, 2])


def test_an_unknown_searcher_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="unknown name 'tpee'; did you mean 'tpe'"):
        searcher_class("tpee")
    assert plugin_names(SEARCHERS, ENTRY_POINTS)[: len(SEARCHERS)] == list(SEARCHERS)


# --------------------------------------------------------------------------- each one's own


def test_random_does_not_look_at_the_history_of_an_infinite_space() -> None:
    class Untouchable(History):
        @property
        def X(self) -> Any:  # noqa: N802
            raise AssertionError("looked at the history")

        values = units = pending = X

    known = Untouchable(
        INFINITE, configs=INFINITE.sample(9, default_rng(0)), values=[1.0] * 9, resources=[1] * 9
    )
    assert len(searcher("random").ask(3, known, default_rng(0))) == 3


def test_random_depends_on_the_generator_and_on_what_was_proposed_alone() -> None:
    first = searcher("random").ask(3, history_of(INFINITE, []), default_rng(1))
    assert first != searcher("random").ask(3, history_of(INFINITE, []), default_rng(2))
    others = INFINITE.sample(3, default_rng(3))
    assert first == searcher("random").ask(3, history_of(INFINITE, others), default_rng(1))
    again = searcher("random").ask(3, history_of(INFINITE, first), default_rng(1))
    assert not set(map(json_key, first)) & set(map(json_key, again))


def test_random_finds_the_last_configurations_of_a_large_space() -> None:
    space = Space((Parameter("a", Int(0, 299)), Parameter("b", Int(0, 99))))
    configs = list(space.grid())[:-3]
    batch = searcher("random").ask(10, history_of(space, configs), default_rng(0))
    assert sorted(config["b"] for config in batch) == [97, 98, 99]


def test_random_does_not_enumerate_a_space_that_is_too_large() -> None:
    space = Space(tuple(Parameter(f"p{i}", Choice((0, 1, 2))) for i in range(40)))
    batch = searcher("random").ask(500, history_of(space, []), default_rng(0))
    assert len({json_key(config) for config in batch}) == 500


def test_grid_goes_in_order_and_carries_on_where_the_history_ends() -> None:
    expected = list(FINITE.grid())
    assert ask_in_turn(searcher("grid"), FINITE, [4, 1, 50, 50]) == expected
    assert searcher("grid").ask(3, history_of(FINITE, expected[:5]), default_rng(0)) == expected[5:8]


def test_shuffled_grid_is_a_permutation_that_the_seed_decides() -> None:
    def shuffled(seed: int) -> list[Config]:
        one = make_searcher("grid", seed=seed, options={"shuffle": True})
        return ask_in_turn(one, FINITE, [5, 50, 50])

    assert shuffled(1) == shuffled(1) != shuffled(2)
    assert {json_key(config) for config in shuffled(1)} == ALL_OF_FINITE
    assert shuffled(1) != list(FINITE.grid())


def test_grid_says_why_a_space_has_none() -> None:
    grid: Any = make_searcher("grid", seed=0, options={})
    problem = "searcher.num_points: lr: is a float without step, needs a number of points"
    assert grid.problems(INFINITE) == [problem]
    assert grid.problems(FINITE) == []
