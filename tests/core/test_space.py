"""The search space: domains, conditions, constraints, the unit cube, sampling and the grid."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.random import default_rng

from hpcsweep.core.configurations import grid_points
from hpcsweep.core.domains import MAX_INT
from hpcsweep.core.expressions import Expression
from hpcsweep.core.space import Choice, Constant, Domain, Float, Int, InvalidDomain, Ordinal, Parameter, Space
from hpcsweep.core.text import format_value, json_key
from hpcsweep.errors import SpecError
from tests.effort import examples

MODERATE = examples(80, 800)


def space_of(*constraints: str, **domains: Domain | tuple[Domain, dict[str, tuple[Any, ...]]]) -> Space:
    parameters = [
        Parameter(name, *domain) if isinstance(domain, tuple) else Parameter(name, domain)
        for name, domain in domains.items()
    ]
    return Space(tuple(parameters), tuple(map(Expression, constraints)))


DIGITS = space_of(
    lr=Float(1e-4, 1.0, log=True),
    batch_size=Int(16, 256, log=True),
    optimizer=Choice(("sgd", "adam")),
    momentum=(Float(0.0, 0.99), {"optimizer": ("sgd",)}),
)
CHAIN = space_of(
    "depth != 3 or width < 4",
    "lr <= 0.3",
    deepest=(Choice((None, {"a": 1})), {"depth": (3, 4)}),
    depth=(Int(1, 4), {"kind": ("net",)}),
    kind=Choice(("tree", "net")),
    width=Int(1, 9, step=2),
    lr=Float(0.1, 0.5, step=0.1),
    epochs=(Constant(7), {"kind": ("net",)}),
    rank=Ordinal((1, True, [1, 2], "a")),
)
FINITE = space_of(
    a=Int(0, 2),
    b=(Choice((True, False)), {"a": (1, 2)}),
    c=(Ordinal((1, 2, 3)), {"b": (True,)}),
    d=Float(0.0, 0.5, step=0.25),
    e=Constant([1]),
)


# --------------------------------------------------------------------------- domains


@pytest.mark.parametrize(
    ("make", "problems"),
    [
        (lambda: Float(0, 1, log=True), [("low", "must be > 0 on a log scale, got 0")]),
        (lambda: Int(0, 9, log=True), [("low", "must be > 0 on a log scale, got 0")]),
        (lambda: Float(2, 1), [("low", "must be < high (1), got 2")]),
        (lambda: Int(3, 3), [("low", "must be < high (3), got 3; one value is a constant")]),
        (lambda: Float(0, math.inf), [("high", "must be a finite number, got inf")]),
        (lambda: Float(0, True), [("high", "must be a finite number, got true")]),
        (
            lambda: Float(-1e308, 1e308),
            [("high", "must be less than 1.8e308 above low (-1e+308), got 1e+308")],
        ),
        (lambda: Float(0, 1, step=0), [("step", "must be a number > 0, got 0")]),
        (lambda: Float(0, 1, step=2), [("step", "must be at most high - low (1), got 2")]),
        (lambda: Float(0, 1, step=1e-9), [("step", "must leave at most 10000000 values, got 1e-09")]),
        (
            lambda: Float(-1, -2, log=True, step=0.1),
            [
                ("low", "must be > 0 on a log scale, got -1"),
                ("low", "must be < high (-2), got -1"),
                ("step", "cannot go with log: give one of the two"),
            ],
        ),
        (lambda: Int(1.5, 3), [("low", "must be an integer, got 1.5")]),  # type: ignore[arg-type]
        (lambda: Int(0, 2**41), [("high", "must be within -2**40 .. 2**40, got 2199023255552")]),
        (lambda: Choice(()), [("values", "must have at least one value, got an empty list")]),
        (lambda: Choice("abc"), [("values", "must be a list, got 'abc'")]),  # type: ignore[arg-type]
        (lambda: Ordinal((1, 1.0)), [("values", "must be distinct, got 1.0 twice")]),
        (lambda: Choice((math.nan,)), [("values", "must be finite (JSON has no nan), got nan")]),
        (
            lambda: Constant({1: 2}),
            [("value", "must have text keys only, got {1: 2}")],
        ),
        (
            lambda: Constant([b"x"]),
            [("value", "must be a number, text, true, false, null, list or mapping, got b'x'")],
        ),
    ],
)
def test_an_invalid_domain_reports_all_its_problems(make: Any, problems: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidDomain) as caught:
        make()
    assert list(caught.value.problems) == problems


def test_true_and_one_are_different_values() -> None:
    assert Choice((1, True, "1", None, False, 0)).size == 6
    assert json_key(1) == json_key(1.0) != json_key(True)
    assert json_key({"a": [1], "b": 2}) == json_key({"b": 2.0, "a": (1,)})


def test_step_is_exact_in_decimal() -> None:
    assert Float(0.1, 0.7, step=0.1).points(None) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert Float(0.0, 1.0, step=0.3).points(None) == [0.0, 0.3, 0.6, 0.9]
    assert Float(0.0, 0.3, step=0.1).size == 4


def test_values_shown_in_messages_look_like_yaml() -> None:
    assert format_value([None, True, "a", 1e-4, {"b": False}]) == "[null, true, 'a', 0.0001, {b: false}]"
    assert format_value("x" * 300) == f"'{'x' * 195} ..."


finite = st.floats(-1e6, 1e6)


@st.composite
def floats(draw: st.DrawFn) -> Float:
    log = draw(st.booleans())
    low, high = sorted((draw(st.floats(1e-12, 1e12)), draw(st.floats(1e-12, 1e12))))
    if not log:
        low, high = sorted((draw(finite), draw(finite)))
    assume(low < high)
    if not log and draw(st.booleans()):
        step = draw(st.floats(min_value=(high - low) / 1000, max_value=high - low))
        assume(step > 0)
        return Float(low, high, step=step)
    return Float(low, high, log=log)


@st.composite
def ints(draw: st.DrawFn) -> Int:
    log = draw(st.booleans())
    bound = st.integers(1 if log else -MAX_INT, MAX_INT) | st.integers(1, 20)
    low, high = sorted((draw(bound), draw(bound)))
    assume(low < high)
    step = None if log else draw(st.none() | st.integers(1, min(high - low, MAX_INT)))
    return Int(low, high, log=log, step=step)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
listed = st.lists(json_values, min_size=1, max_size=6, unique_by=json_key).map(tuple)
domains = st.one_of(floats(), ints(), listed.map(Choice), listed.map(Ordinal))
units = st.lists(st.floats(-0.5, 1.5) | st.just(0.0) | st.just(1.0), min_size=1, max_size=30)


@MODERATE
@given(domain=domains, positions=units)
def test_value_at_any_position_is_in_the_domain_and_json_able(
    domain: Float | Int | Ordinal | Choice, positions: list[float]
) -> None:
    for value in domain.from_unit(np.array(positions)):
        assert domain.problem(value) is None
        assert json_key(json.loads(json.dumps(value))) == json_key(value)
        match domain:
            case Float():
                assert type(value) is float
                assert domain.low <= value <= domain.high
            case Int():
                assert type(value) is int
            case _:
                assert any(value is listed for listed in domain.values)


@MODERATE
@given(domain=domains, positions=units)
def test_discrete_values_come_back_exactly_from_the_unit_interval(
    domain: Float | Int | Ordinal | Choice, positions: list[float]
) -> None:
    values = domain.from_unit(np.array(positions))
    unit = domain.to_unit(values)
    again = domain.from_unit(unit)
    assert ((unit >= 0) & (unit <= 1)).all()
    if isinstance(domain, Float) and domain.size is None:
        scale = math.log(domain.high / domain.low) if domain.log else domain.high - domain.low
        for old, new in zip(values, again, strict=True):
            error = abs(math.log(old / new)) if domain.log else abs(old - new)
            assert error <= 1e-13 * scale + 1e-13 * (abs(math.log(old)) if domain.log else abs(old))
    else:
        assert list(map(json_key, again)) == list(map(json_key, values))


@MODERATE
@given(domain=ints())
def test_both_ends_of_an_int_come_back_exactly(domain: Int) -> None:
    last = domain.low + (domain.size - 1) * (domain.step or 1)
    values = [domain.low, domain.low + (domain.step or 1), last]
    assert domain.from_unit(domain.to_unit(values)) == values


@MODERATE
@given(domain=floats())
def test_ends_of_the_unit_interval_are_the_ends_of_a_float(domain: Float) -> None:
    low, high = domain.from_unit(np.array([0.0, 1.0]))
    assert low == domain.low
    if domain.size is None:
        assert high == domain.high
    else:
        assert domain.step is not None
        assert domain.high - domain.step * (1 + 1e-9) <= high <= domain.high


@MODERATE
@given(domain=domains, count=st.integers(1, 50))
def test_points_are_distinct_members_and_no_more_than_asked_for(
    domain: Float | Int | Ordinal | Choice, count: int
) -> None:
    points = domain.points(count)
    assert all(domain.problem(point) is None for point in points)
    assert len({json_key(point) for point in points}) == len(points)
    if isinstance(domain, Float | Int):
        assert 1 <= len(points) <= count
        assert list(points) == sorted(points)
        if count > 1:
            assert points[0] == domain.low


def test_each_int_is_as_likely_as_its_share_of_the_scale() -> None:
    draws = np.array(Int(1, 4).from_unit(default_rng(0).random(40_000)))
    assert np.allclose(np.bincount(draws)[1:] / len(draws), 0.25, atol=0.01)
    draws = np.array(Int(1, 4, log=True).from_unit(default_rng(0).random(40_000)))
    edges = np.log([0.5, 1.5, 2.5, 3.5, 4.5])
    assert np.allclose(
        np.bincount(draws)[1:] / len(draws), np.diff(edges) / (edges[-1] - edges[0]), atol=0.01
    )


# --------------------------------------------------------------------------- spaces


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: Space((Parameter("a", Int(0, 1)), Parameter("a", Int(0, 1)))),
            "parameters must have distinct names, got 'a' twice",
        ),
        (lambda: space_of(a=(Int(0, 1), {"b": (1,)})), "a.when: must name another parameter, got 'b'"),
        (lambda: space_of(a=(Int(0, 1), {"a": (1,)})), "a.when: must name another parameter, got 'a'"),
        (
            lambda: space_of(a=(Int(0, 1), {"b": (1,)}), b=(Int(0, 1), {"a": (1,)})),
            "conditions must not go round in a circle, got one among a, b",
        ),
        (lambda: space_of("b > 1", a=Int(0, 1)), "constraint 'b > 1': 'b' is no parameter"),
    ],
)
def test_an_inconsistent_space_is_refused(make: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        make()


@MODERATE
@given(seed=st.integers(0, 2**32), n=st.integers(0, 40), space=st.sampled_from([DIGITS, CHAIN, FINITE]))
def test_samples_are_valid_and_come_back_from_the_unit_cube(seed: int, n: int, space: Space) -> None:
    configs = space.sample(n, default_rng(seed))
    assert len(configs) == n
    assert [problem for config in configs for problem in space.check(config)] == []
    unit = space.to_unit(configs)
    assert unit.shape == (n, len(space.columns))
    for row, config in zip(unit, configs, strict=True):
        for position, parameter in zip(row, space.columns, strict=True):
            assert np.isnan(position) == (parameter.name not in config)
    again = space.from_unit(unit)
    for config, other in zip(configs, again, strict=True):
        assert list(config) == list(other)
        for name, value in config.items():
            assert other[name] == (pytest.approx(value, rel=1e-12) if name in ("lr", "momentum") else value)


def test_same_generator_state_gives_the_same_samples() -> None:
    assert CHAIN.sample(20, default_rng([1, 2])) == CHAIN.sample(20, default_rng([1, 2]))
    assert DIGITS.sample(20, default_rng([1, 2])) != DIGITS.sample(20, default_rng([1, 3]))


def test_columns_of_inactive_parameters_are_ignored() -> None:
    unit = np.array([[0.5, 0.5, 0.9, 0.1], [0.5, 0.5, 0.9, np.nan]])
    first, second = DIGITS.from_unit(unit)
    assert first == second
    assert list(first) == ["lr", "batch_size", "optimizer"]


def test_unit_cube_clips_to_the_domain() -> None:
    low, high = DIGITS.from_unit(np.array([[-3.0, -3.0, -3.0, -3.0], [9.0, 9.0, 0.2, 9.0]]))
    assert low == {"lr": 1e-4, "batch_size": 16, "optimizer": "sgd", "momentum": 0.0}
    assert high == {"lr": 1.0, "batch_size": 256, "optimizer": "sgd", "momentum": 0.99}


def test_space_of_constants_has_one_configuration_and_no_column() -> None:
    space = space_of(a=Constant(1))
    assert space.size == 1
    assert space.sample(2, default_rng(0)) == [{"a": 1}, {"a": 1}]
    assert space.to_unit([{"a": 1}]).shape == (1, 0)


def test_impossible_constraint_is_an_error_that_names_it() -> None:
    space = space_of("lr > 2", lr=Float(0, 1))
    with pytest.raises(SpecError) as caught:
        space.sample(1, default_rng(0))
    assert str(caught.value).startswith("constraints: must leave at least 1 in 10000 random draws, got 0 of ")
    assert str(caught.value).endswith("most fail 'lr > 2': narrow the domains to what fits")


def test_rare_configurations_are_still_found() -> None:
    space = space_of("lr < 0.001", lr=Float(0, 1))
    configs = space.sample(50, default_rng(0))
    assert len(configs) == 50
    assert all(config["lr"] < 0.001 for config in configs)


def test_size_counts_distinct_configurations_with_conditions() -> None:
    assert DIGITS.size is None
    # kind=tree, or kind=net with depth 1, 2 (no deepest) or 3, 4 (two of it each)
    assert CHAIN.size == (1 + 2 + 2 * 2) * 5 * 5 * 4
    # a=0; a=1 or 2 with b False, or b True and three c
    assert FINITE.size == (1 + 2 * (1 + 3)) * 3
    assert space_of(a=Int(0, MAX_INT), b=Int(1, 10), c=(Int(1, 5), {"a": (7,)})).size == (MAX_INT + 5) * 10
    many = {f"p{i}": Choice((0, 1)) for i in range(60)}
    assert space_of(**many, **{f"c{i}": (Int(1, 3), {f"p{i}": (1,)}) for i in range(60)}).size == 4**60


@pytest.mark.parametrize("space", [FINITE, Space(CHAIN.parameters)])
def test_grid_of_a_finite_space_is_each_configuration_once(space: Space) -> None:
    configs = list(space.grid())
    assert len(configs) == len({json_key(config) for config in configs}) == space.size
    assert [problem for config in configs for problem in space.check(config)] == []


def test_four_by_four_by_three_by_three_lists_give_144_in_the_order_of_the_spec() -> None:
    lists: dict[str, tuple[Any, ...]] = {
        "lr": (0.1, 0.01, 0.001, 0.0001),
        "width": (8, 16, 32, 64),
        "dropout": (None, 0.1, 0.5),
        "act": ("relu", "gelu", None),
    }
    space = space_of(**{name: Choice(values) for name, values in lists.items()})
    expected = [dict(zip(lists, row, strict=True)) for row in itertools.product(*lists.values())]
    assert list(space.grid()) == expected
    assert space.size == len(expected) == 144


def test_grid_leaves_out_what_breaks_a_constraint() -> None:
    everything = list(Space(CHAIN.parameters).grid())
    assert list(CHAIN.grid()) == [config for config in everything if CHAIN.check(config) == []]
    assert 0 < len(list(CHAIN.grid())) < len(everything)


def test_grid_spaces_points_evenly_on_the_scale_of_the_domain() -> None:
    space = space_of(lr=Float(1e-4, 1.0, log=True), x=Float(0, 1), n=Int(1, 100, log=True), m=Int(0, 3))
    assert [list(grid_points(space, 5)[name]) for name in space.names] == [
        pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        [0.0, 0.25, 0.5, 0.75, 1.0],
        [1, 3, 10, 32, 100],
        [0, 1, 2, 3],
    ]
    assert len(list(space.grid({"lr": 2, "x": 1, "n": 3}))) == 2 * 1 * 3 * 4


@pytest.mark.parametrize(
    ("num_points", "problem"),
    [
        (None, "lr: is a float without step, needs a number of points"),
        ({"lr": 3}, "momentum: is a float without step, needs a number of points"),
        (0, "lr: must be at least 1 point, got 0"),
        ({"lr": 3, "momentun": 3}, "momentun: unknown parameter; did you mean 'momentum'?"),
        ({"lr": 3, "momentum": 2, "optimizer": 1}, "optimizer: its values are listed, all of them are taken"),
    ],
)
def test_a_wrong_number_of_grid_points_is_reported(num_points: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        DIGITS.grid(num_points)


def test_check_reports_every_problem() -> None:
    space = space_of(
        "batch_size * accum <= 512",
        lr=Float(1e-4, 1.0, log=True),
        batch_size=Int(16, 256, step=16),
        accum=Int(1, 8),
        optimizer=Choice(("sgd", "adam")),
        momentum=(Float(0.0, 0.99), {"optimizer": ("sgd",)}),
        depth=(Int(1, 3), {"optimizer": ("sgd", None)}),
        seed=Constant(3),
    )
    good = {"lr": 1, "batch_size": 32, "accum": 2, "optimizer": "adam", "seed": 3}
    assert space.check(good) == []
    assert space.check({**good, "optimizer": "adamw", "momentum": 0.5, "lr": True, "seed": 4}) == [
        "lr: must be a number, got true",
        "optimizer: must be one of ['sgd', 'adam'], got 'adamw'",
        "seed: must be 3, got 4",
    ]
    assert space.check({"batch_size": 240, "accum": 8, "optimizer": "adam", "momentum": 0, "lrr": 1}) == [
        "lrr: unknown parameter; did you mean 'lr'?",
        "lr: missing",
        "momentum: must be absent, it is active only when optimizer is 'sgd'",
        "seed: missing",
        "breaks the constraint 'batch_size * accum <= 512'",
    ]
    assert space.check({**good, "batch_size": 17, "lr": 2, "accum": 1.0, "depth": 1}) == [
        "lr: must be between 0.0001 and 1.0, got 2",
        "batch_size: must be 16 plus a multiple of 16, got 17",
        "accum: must be an integer, got 1.0",
        "depth: must be absent, it is active only when optimizer is 'sgd' or null",
    ]


def test_a_constraint_that_cannot_be_computed_is_reported() -> None:
    space = space_of("rate < 0.5", rate=Choice((None, 0.1)))
    problem = "'rate < 0.5' cannot be computed for rate=None: "
    problem += "'<' not supported between instances of 'NoneType' and 'float'"
    with pytest.raises(SpecError, match=f"^constraints: {re.escape(problem)}$"):
        space.sample(20, default_rng(0))
    assert space.check({"rate": None}) == [f"constraint {problem}"]


def test_canonicalise_gives_the_domains_own_values_in_order() -> None:
    space = space_of(
        x=Float(0, 1, step=0.1),
        lr=Float(0, 1),
        mode=Choice((1.5, [1, 2])),
        seed=Constant(3),
        extra=(Constant(1), {"mode": (1.5,)}),
    )
    config = space.canonicalise({"mode": (1, 2), "lr": 1, "x": 0.1 + 0.2})
    assert config == {"x": 0.3, "lr": 1.0, "mode": [1, 2], "seed": 3}
    assert list(config) == ["x", "lr", "mode", "seed"]
    assert type(config["lr"]) is float
    assert space.canonicalise({"lr": 7, "what": 1}) == {"lr": 7, "what": 1, "seed": 3}
