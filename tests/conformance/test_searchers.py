"""What every searcher in the table must do, whatever it does between `ask` and its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.protocols import Searcher
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space, json_key
from hpcsweep.searchers import SEARCHERS, make_searcher, searcher_class, searcher_names
from tests.effort import examples

#: Options that make the searcher go through more than 81 configurations of the infinite space.
OPTIONS: dict[str, dict[str, Any]] = {"grid": {"num_points": 12}}

INFINITE = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("batch_size", Int(16, 256, log=True)),
        Parameter("optimizer", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 0.99), {"optimizer": ("sgd",)}),
        Parameter("epochs", Constant(3)),
    ),
    (Expression("lr < 0.5 or batch_size > 20"), Expression("momentum > 0.1 or lr < 0.1")),
)
FINITE = Space(
    (
        Parameter("width", Int(1, 4)),
        Parameter("act", Choice((None, "relu", [1, 2]))),
        Parameter("slope", Ordinal((1, 2, 3)), {"act": ("relu",)}),
        Parameter("x", Float(0.0, 1.0, step=0.5)),
    ),
    (Expression("width < 4 or x > 0"),),
)
ALL_OF_FINITE = {json_key(config) for config in FINITE.grid()}
CLEAN = examples(25, 250)


@pytest.fixture(params=sorted(SEARCHERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def searcher(name: str, *, seed: int = 0) -> Searcher:
    return make_searcher(name, seed=seed, options=OPTIONS.get(name, {}))


def history(space: Space, configs: list[Config], values: list[float | None] | None = None) -> History:
    values = [None] * len(configs) if values is None else values
    resources = [0 if value is None else 9 for value in values]
    return History(space, configs=configs, values=values, resources=resources)


def sweep(one: Searcher, space: Space, *, asks: list[int], seed: int = 0) -> list[Config]:
    """All proposals of a sweep that asks so many at a time, with a result for every second one."""
    configs: list[Config] = []
    for n in asks:
        values: list[float | None] = [float(i) if i % 2 else None for i in range(len(configs))]
        batch = one.ask(n, history(space, configs, values), default_rng([seed, len(configs)]))
        assert len(batch) <= n
        configs += batch
    return configs


@pytest.mark.parametrize("space", [INFINITE, FINITE])
def test_same_history_and_seed_give_the_same_answer(name: str, space: Space) -> None:
    first = sweep(searcher(name), space, asks=[7, 1, 5])
    assert first == sweep(searcher(name), space, asks=[7, 1, 5])
    used = searcher(name)  # what it was asked before must not matter
    sweep(used, FINITE, asks=[9, 9])
    sweep(used, INFINITE, asks=[9, 9], seed=3)
    assert first == sweep(used, space, asks=[7, 1, 5])


def test_another_process_gives_the_same_answer(name: str) -> None:
    code = (
        "import sys, json; sys.path[:] = json.loads(sys.argv[1])\n"
        "from tests.conformance.test_searchers import *\n"
        "found = [sweep(searcher(sys.argv[2]), space, asks=[7, 1, 5]) for space in (INFINITE, FINITE)]\n"
        "print(json.dumps(found))"
    )
    here = json.dumps([str(path) for path in sys.path] + ["."])
    done = subprocess.run(
        [sys.executable, "-c", code, here, name],
        capture_output=True,
        text=True,
        check=True,
        cwd=__file__.rsplit("/tests/", 1)[0],
        env={"PYTHONHASHSEED": "123"},
    )
    ours = [sweep(searcher(name), space, asks=[7, 1, 5]) for space in (INFINITE, FINITE)]
    assert json.loads(done.stdout) == json.loads(json.dumps(ours))


@CLEAN
@given(
    name=st.sampled_from(sorted(SEARCHERS)),
    seed=st.integers(0, 2**32),
    asks=st.lists(st.integers(0, 30), max_size=4),
    space=st.sampled_from([INFINITE, FINITE]),
)
def test_proposals_are_valid_whatever_is_asked(name: str, seed: int, asks: list[int], space: Space) -> None:
    configs = sweep(searcher(name, seed=seed), space, asks=asks, seed=seed)
    assert [problem for config in configs for problem in space.check(config)] == []
    for config in configs:
        assert json.loads(json.dumps(config)) == config
        assert list(config) == [parameter for parameter in space.names if parameter in config]


@CLEAN
@given(
    name=st.sampled_from(sorted(SEARCHERS)),
    values=st.lists(st.none() | st.just(float("nan")) | st.floats(-3, 3) | st.just(1.0), max_size=12),
)
def test_any_history_is_taken(name: str, values: list[float | None]) -> None:
    configs = FINITE.sample(len(values), default_rng(0))
    seen = {json_key(config) for config in configs}
    batch = searcher(name).ask(5, history(FINITE, configs, values), default_rng(0))
    assert len(batch) == 5
    assert not seen & {json_key(config) for config in batch}
    configs = INFINITE.sample(len(values), default_rng(0))
    assert len(searcher(name).ask(5, history(INFINITE, configs, values), default_rng(0))) == 5


@pytest.mark.parametrize("values", [[float("nan")] * 5, [1.0] * 5, [None] * 5, [1.0]])
def test_history_of_failures_or_of_one_value_is_taken(name: str, values: list[float | None]) -> None:
    configs = INFINITE.sample(len(values), default_rng(0))
    assert len(searcher(name).ask(3, history(INFINITE, configs, values), default_rng(0))) == 3


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_finite_space_is_gone_through_once_and_then_ends(name: str, at_a_time: int) -> None:
    one = searcher(name)
    configs = sweep(one, FINITE, asks=[at_a_time] * (len(ALL_OF_FINITE) // at_a_time + 1))
    assert len(configs) == len(ALL_OF_FINITE)
    assert {json_key(config) for config in configs} == ALL_OF_FINITE
    assert one.ask(3, history(FINITE, configs), default_rng(9)) == []


def test_enqueued_configurations_are_not_proposed_again(name: str) -> None:
    enqueued = FINITE.sample(1, default_rng(77))
    batch = searcher(name).ask(1000, history(FINITE, enqueued), default_rng(0))
    keys = [json_key(config) for config in batch]
    assert len(keys) == len(set(keys))
    assert set(keys) == ALL_OF_FINITE - {json_key(enqueued[0])}


def test_nothing_in_the_space_fits_ends_at_once(name: str) -> None:
    space = Space(FINITE.parameters, (Expression("width > 9"),))
    one: Any = searcher(name)
    assert one.ask(3, history(space, []), default_rng(0)) == []
    (problem,) = one.problems(space)
    assert problem.startswith("constraints: must leave something of the ")


def test_batch_of_81_is_distinct_on_an_infinite_space(name: str) -> None:
    space = Space(INFINITE.parameters[:2])
    batch = searcher(name).ask(81, history(space, []), default_rng(0))
    assert len({json_key(config) for config in batch}) == 81


#: Name -> a space in which some of the configurations are few.
FEW = {
    "finite branches": Space(
        (
            Parameter("model", Choice(("nearest", "lda", "svm"))),
            Parameter("C", Float(1e-3, 1e3, log=True), {"model": ("svm",)}),
            Parameter("k", Int(1, 3), {"model": ("nearest",)}),
        )
    ),
    "chain of conditions": Space(
        (
            Parameter("depth", Int(1, 6)),
            Parameter("kind", Choice(("a", "b", "c")), {"depth": (2, 3)}),
            Parameter("x", Float(0.0, 1.0, step=0.25), {"kind": ("a", "b")}),
            Parameter("y", Float(0.0, 1.0), {"x": (0.5,), "kind": ("b",)}),
        )
    ),
    "improbable infinite branch": Space(
        (
            Parameter("n", Int(0, 20)),
            Parameter("m", Ordinal((1, 2, 4)), {"n": (0, 1)}),
            Parameter("lr", Float(0.1, 1.0), {"n": (0,), "m": (4,)}),
        )
    ),
    "infinite branch that the constraints exclude": Space(
        (
            Parameter("n", Int(1, 7)),
            Parameter("seed", Constant(3)),
            Parameter("model", Choice(("a", "b", "c"))),
            Parameter("lr", Float(0.1, 1.0), {"model": ("c",)}),
        ),
        (Expression("model != 'c'"),),
    ),
    "one parameter of two values": Space((Parameter("n", Int(4, 5)), Parameter("seed", Constant(3)))),
    "quantised": Space(
        (
            Parameter("dropout", Float(0.0, 0.3, step=0.1)),
            Parameter("layers", Int(1, 3, log=True)),
            Parameter("act", Choice((None, True, 1, "1"))),
        )
    ),
}
#: How many configurations there are, None where infinitely many.
COUNTS = {
    "finite branches": None,
    "chain of conditions": None,
    "improbable infinite branch": None,
    "infinite branch that the constraints exclude": 14,
    "one parameter of two values": 2,
    "quantised": 4 * 3 * 4,
}


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "running"])
@pytest.mark.parametrize("few", FEW)
def test_nothing_is_proposed_twice_as_long_as_there_is_something_else(
    name: str, few: str, ended: bool
) -> None:
    space, count = FEW[few], COUNTS[few]
    if name == "grid":
        count = sum(1 for _ in space.grid(12))
    one, known = searcher(name), History(space)
    for n in (1, 8, 16, 3, 16, 16, 1):
        left = n if count is None else min(n, count - known.proposed)
        batch = one.ask(n, known, default_rng([0, known.proposed]))
        assert len(batch) == left
        assert [problem for config in batch for problem in space.check(config)] == []
        for config in batch:
            index = known.add(config)
            if ended:  # the finite branches are the better ones
                known.observe(index, float(len(config)) + index % 5, 1)
    assert len(set(map(json_key, known.configs))) == known.proposed == min(61, count or 61)


def test_asking_for_nothing_gives_nothing(name: str) -> None:
    assert searcher(name).ask(0, history(INFINITE, []), default_rng(0)) == []
    assert searcher(name).ask(0, history(FINITE, []), default_rng(0)) == []


def test_proposals_may_be_changed_without_harm(name: str) -> None:
    one = searcher(name)
    first = one.ask(5, history(FINITE, []), default_rng(0))
    kept = [dict(config) for config in first]
    for config in first:
        config.clear()
    assert one.ask(5, history(FINITE, []), default_rng(0)) == kept


def test_searchers_that_do_not_learn_say_so() -> None:
    assert {name for name in SEARCHERS if not searcher_class(name).adaptive} >= {"random", "grid"}


def test_unknown_searcher_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="tpee"):
        searcher_class("tpee")
    assert searcher_names()[: len(SEARCHERS)] == list(SEARCHERS)


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
    first = searcher("random").ask(3, history(INFINITE, []), default_rng(1))
    assert first != searcher("random").ask(3, history(INFINITE, []), default_rng(2))
    others = INFINITE.sample(3, default_rng(3))
    assert first == searcher("random").ask(3, history(INFINITE, others), default_rng(1))
    again = searcher("random").ask(3, history(INFINITE, first), default_rng(1))
    assert not set(map(json_key, first)) & set(map(json_key, again))


def test_random_finds_the_last_configurations_of_a_large_space() -> None:
    space = Space((Parameter("a", Int(0, 299)), Parameter("b", Int(0, 99))))
    configs = list(space.grid())[:-3]
    batch = searcher("random").ask(10, history(space, configs), default_rng(0))
    assert sorted(config["b"] for config in batch) == [97, 98, 99]


def test_random_does_not_enumerate_a_space_that_is_too_large() -> None:
    space = Space(tuple(Parameter(f"p{i}", Choice((0, 1, 2))) for i in range(40)))
    batch = searcher("random").ask(500, history(space, []), default_rng(0))
    assert len({json_key(config) for config in batch}) == 500


def test_grid_goes_in_order_and_carries_on_where_the_history_ends() -> None:
    expected = list(FINITE.grid())
    assert sweep(searcher("grid"), FINITE, asks=[4, 1, 50, 50]) == expected
    assert searcher("grid").ask(3, history(FINITE, expected[:5]), default_rng(0)) == expected[5:8]


def test_shuffled_grid_is_a_permutation_that_the_seed_decides() -> None:
    def shuffled(seed: int) -> list[Config]:
        one = make_searcher("grid", seed=seed, options={"shuffle": True})
        return sweep(one, FINITE, asks=[5, 50, 50])

    assert shuffled(1) == shuffled(1) != shuffled(2)
    assert {json_key(config) for config in shuffled(1)} == ALL_OF_FINITE
    assert shuffled(1) != list(FINITE.grid())


def test_grid_says_why_a_space_has_none() -> None:
    grid: Any = make_searcher("grid", seed=0, options={})
    problem = "searcher.num_points: lr: is a float without step, needs a number of points"
    assert grid.problems(INFINITE) == [problem]
    assert grid.problems(FINITE) == []
