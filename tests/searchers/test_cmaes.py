"""CMA-ES: what it is told, what it draws, and that rebuilding it costs little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space
from hpcsweep.searchers.evolution import CMAES

SQUARE = Space((Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0))))
NAN = float("nan")


def history(space: Space, configs: list[Config], values: list[float | None]) -> History:
    return History(space, configs=configs, values=values, resources=[9] * len(configs))


def minimised(one: CMAES, space: Space, value: Any, *, trials: int, batch: int = 1) -> History:
    """The history of a whole sweep."""
    known = History(space)
    while known.proposed < trials:
        for config in one.ask(batch, known, default_rng([0, known.proposed])):
            known.observe(known.add(config), value(config), 1)
    return known


def drawn(known: History, count: int = 60) -> list[Config]:
    """Draws from the present distribution, one by one: so they make no generation larger."""
    one = CMAES()
    return [config for i in range(count) for config in one.ask(1, known, default_rng([9, i]))]


def column(configs: list[Config], name: str) -> Any:
    return np.array([config[name] for config in configs])


@pytest.mark.parametrize("batch", [1, 30])
def test_the_distribution_closes_in_on_the_minimum(batch: int) -> None:
    known = minimised(
        CMAES(), SQUARE, lambda c: (c["x"] - 0.8) ** 2 + 9 * (c["y"] - c["x"]) ** 2, trials=300, batch=batch
    )
    last = np.array([list(config.values()) for config in known.configs[-30:]])
    assert np.abs(last - 0.8).max() < 0.05


def test_first_draws_are_around_the_middle() -> None:
    configs = CMAES(sigma=0.1).ask(200, History(SQUARE), default_rng(0))
    assert abs(column(configs, "x").mean() - 0.5) < 0.03
    assert abs(column(configs, "x").std() - 0.1) < 0.03


def test_values_count_by_their_order_alone() -> None:
    configs = SQUARE.sample(24, default_rng(0))
    values: list[float | None] = [config["x"] for config in configs]
    stretched: list[float | None] = [1e30 * config["x"] ** 9 for config in configs]
    first = CMAES().ask(5, history(SQUARE, configs, values), default_rng(0))
    assert first == CMAES().ask(5, history(SQUARE, configs, stretched), default_rng(0))


def test_failures_come_last() -> None:
    configs = SQUARE.sample(40, default_rng(0))
    failed: list[float | None] = [NAN if c["x"] > 0.5 else c["x"] for c in configs]
    worst: list[float | None] = [1e9 + i if c["x"] > 0.5 else c["x"] for i, c in enumerate(configs)]
    after = drawn(history(SQUARE, configs, failed))
    assert column(after, "x").mean() < 0.4
    assert after == drawn(history(SQUARE, configs, worst))


def test_within_a_generation_whoever_was_trained_further_comes_first() -> None:
    configs = SQUARE.sample(40, default_rng(0))
    far = [9 if config["x"] > 0.7 else 1 for config in configs]
    known = History(SQUARE, configs=configs, values=[float(r) for r in far], resources=far)
    assert column(drawn(known), "x").mean() > 0.6


def test_a_generation_is_as_large_as_what_is_out_at_the_same_time() -> None:
    configs = SQUARE.sample(32, default_rng(0))
    known = history(SQUARE, configs, [config["x"] for config in configs])

    def first(n: int, known: History) -> Config:
        return CMAES(population=8).ask(n, known, default_rng(0))[0]

    assert first(64, known) == first(64, History(SQUARE))  # 32 results are half a generation
    assert first(63, known) != first(63, History(SQUARE))
    for config in SQUARE.sample(63, default_rng(1)):  # pending ones count
        known.add(config)
    assert first(1, known) == first(1, History(SQUARE))


def test_one_dimension_is_searched() -> None:
    space = Space((Parameter("x", Float(-1.0, 1.0)), Parameter("c", Constant("k"))))
    known = minimised(CMAES(), space, lambda c: abs(c["x"] + 0.7), trials=150)
    assert np.abs(column(known.configs[-20:], "x") + 0.7).max() < 0.02


def test_whole_numbers_never_freeze() -> None:
    space = Space(
        (Parameter("x", Float(0.0, 1.0)), Parameter("k", Int(1, 9)), Parameter("o", Ordinal(("a", "b", "c"))))
    )
    known = minimised(
        CMAES(), space, lambda c: (c["x"] - 0.3) ** 2 + abs(c["k"] - 4) + (c["o"] != "b"), trials=400
    )
    last = column(known.configs[-100:], "k")
    assert np.median(last) == 4
    assert {3, 4, 5} <= set(last.tolist()) <= {2, 3, 4, 5, 6}


def test_log_whole_numbers_are_searched() -> None:
    space = Space((Parameter("k", Int(1, 1000, log=True)), Parameter("x", Float(0.0, 1.0))))
    known = minimised(CMAES(), space, lambda c: abs(np.log(c["k"] / 30)) + c["x"], trials=300)
    assert 20 <= np.median(column(known.configs[-50:], "k")) <= 45


def test_choices_move_to_the_better_values_and_keep_the_others_possible() -> None:
    space = Space((Parameter("x", Float(0.0, 1.0)), Parameter("c", Choice(("a", "b", "c")))))
    known = minimised(CMAES(), space, lambda c: (c["x"] - 0.5) ** 2 + (c["c"] != "b"), trials=200)
    last = list(column(drawn(known, 300), "c"))
    assert last.count("b") > 200
    assert set(last) == {"a", "b", "c"}


def test_inactive_parameters_carry_no_evidence() -> None:
    space = Space(
        (
            Parameter("c", Choice(("a", "b"))),
            Parameter("x", Float(0.0, 1.0)),
            Parameter("y", Float(0.0, 1.0), {"c": ("a",)}),
        )
    )
    known = minimised(CMAES(), space, lambda c: (c["x"] - 0.2) ** 2 + (c["c"] == "a"), trials=300)
    y = column([c for c in drawn(known, 900) if "y" in c], "y")
    assert y.std() > 10 * column(drawn(known), "x").std()  # as wide as the distribution is at all


def test_a_plateau_is_left_for_another_place() -> None:
    known = minimised(CMAES(), SQUARE, lambda c: 1.0, trials=60)
    means = [column(drawn(history_until(known, count)), "x").mean() for count in (0, 6, 18)]
    assert abs(means[0] - 0.5) < 0.05
    assert min(abs(means[1] - means[0]), abs(means[2] - means[1])) > 0.05


def history_until(known: History, count: int) -> History:
    return history(known.space, known.configs[:count], list(known.values[:count]))


def test_converged_runs_are_restarted() -> None:
    known = minimised(CMAES(), SQUARE, lambda c: (c["x"] - 0.5) ** 2 + (c["y"] - 0.5) ** 2, trials=600)
    spread = [column(known.configs[i : i + 30], "x").std() for i in range(0, 570, 30)]
    narrowest = int(np.argmin(spread))
    assert spread[narrowest] < 1e-4
    assert max(spread[narrowest:]) > 0.05


def test_a_far_result_does_not_throw_the_distribution_away() -> None:
    def value(config: Config) -> float:
        return float((config["x"] - 0.5) ** 2 + (config["y"] - 0.5) ** 2)

    known = minimised(CMAES(), SQUARE, value, trials=120)
    for _ in range(3):
        known.observe(known.add({"x": 0.999, "y": 0.001}), -1.0, 1)
    for config in CMAES().ask(9, known, default_rng(7)):
        known.observe(known.add(config), value(config), 1)
    assert np.abs(column(drawn(known), "x") - 0.5).max() < 0.1


def test_constraints_are_kept_by_drawing_again() -> None:
    space = Space(SQUARE.parameters, (Expression("x + y < 0.8"),))
    configs = CMAES().ask(40, History(space), default_rng(0))
    assert len(configs) == 40
    assert all(space.satisfies_constraints(config) for config in configs)
    assert column(configs, "x").std() < 0.25  # a uniform draw in the triangle has other tails


def test_a_growing_history_is_told_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    import cmaes

    told = []

    class Counting(cmaes.CMA):  # type: ignore[misc]
        def tell(self, solutions: Any) -> None:
            told.append(len(solutions))
            super().tell(solutions)

    monkeypatch.setattr(cmaes, "CMA", Counting)
    one = CMAES(population=5)
    minimised(one, SQUARE, lambda c: c["x"], trials=101)
    assert told == [5] * 20


def test_what_it_was_asked_before_makes_no_difference() -> None:
    configs = SQUARE.sample(60, default_rng(0))
    values: list[float | None] = [config["y"] for config in configs]
    expected = CMAES().ask(3, history(SQUARE, configs, values), default_rng(0))
    used = CMAES()
    for count in (20, 60, 40):
        used.ask(3, history(SQUARE, configs[:count], [1.0 + v for v in values[:count] if v]), default_rng(1))
    assert used.ask(3, history(SQUARE, configs, values), default_rng(0)) == expected


def test_says_what_it_cannot_search(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space((Parameter("c", Choice(("a", "b"))), Parameter("k", Constant(1))))
    assert CMAES().problems(space) == [
        "searcher.name: 'cmaes' needs a float, int or ordinal parameter, got none; use 'tpe'"
    ]
    assert CMAES().problems(SQUARE) == []
    monkeypatch.setattr("hpcsweep.searchers.evolution.find_spec", lambda name: None)
    assert CMAES().problems(SQUARE) == [
        "searcher.name: 'cmaes' needs cmaes, which is not installed; pip install 'hpcsweep[cmaes]'"
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"population": 3}, "population: must be at least 4, got 3"),
        ({"sigma": 0.0}, "sigma: must be > 0 and <= 1, got 0.0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        CMAES(**options)
