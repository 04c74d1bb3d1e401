"""What searchers make of priors: they begin there, and leave a wrong one behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
from numpy.random import default_rng

from hpcsweep.core.history import History
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.priors import Normal, Prior, Priors, Weights
from hpcsweep.core.space import Choice, Float, Int, Parameter, Space
from hpcsweep.searchers import make_searcher

USING = ("random", "tpe", "gp", "evolution", "cmaes")


def _space(lr: Prior | None, optimizer: Prior | None, layers: Prior | None = None) -> Space:
    return Space(
        (
            Parameter("lr", Float(1e-5, 1.0, log=True), prior=lr),
            Parameter("optimizer", Choice(("sgd", "adam")), prior=optimizer),
            Parameter("layers", Int(1, 20), {"optimizer": ("adam",)}, prior=layers),
        )
    )


BELIEVED = _space(Normal(1e-4, 0.25), Weights((1.0, 20.0)), Normal(12, 1.0))


def _value(config: dict[str, Any]) -> float:
    """Best at lr 1e-4, adam and 12 layers."""
    other = 1.0 if config["optimizer"] == "sgd" else 0.05 * abs(config["layers"] - 12)
    return abs(math.log10(config["lr"]) + 4) + other


def _search(name: str, space: Space, *, evaluations: int, batch: int = 4) -> list[float]:
    searcher = make_searcher(name, seed=0, options={}, trials=evaluations)
    history = History(space)
    values: list[float] = []
    while len(values) < evaluations:
        configs = searcher.ask(batch, history, default_rng([0, len(values)]))
        assert len({str(config) for config in configs}) == batch
        for config in configs:
            assert space.check(config) == []
            history.observe(history.add(config), _value(config), 1)
            values.append(_value(config))
    return values


@pytest.mark.parametrize("name", USING)
def test_first_configurations_are_near_what_is_believed(name: str) -> None:
    if name == "cmaes":
        pytest.importorskip("cmaes")
    believed, plain = (_search(name, space, evaluations=8) for space in (BELIEVED, _space(None, None)))
    assert sum(believed) < 0.75 * sum(plain)


@pytest.mark.parametrize("name", ["random", "tpe", "gp"])
def test_wrong_prior_is_left_behind(name: str) -> None:
    wrong = _space(Normal(1.0, 0.1), Weights((50.0, 1.0)))
    values = _search(name, wrong, evaluations=120, batch=8)
    assert min(values[:8]) > 2 * min(values)
    assert min(values) < 0.8


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_a_prior_is_judged_by_all_that_is_optimised(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it finds probable has the best first objective, and is beyond a bound."""
    believed = Space((Parameter("x", Float(0.0, 1.0), prior=Normal(0.9, 0.1)),))
    history = History(believed, objectives=Objectives([Objective("loss", at_most=0.5), Objective("size")]))
    for x in default_rng(0).random(40).tolist():
        values = (1 - x, x)
        history.observe(history.add({"x": x}), values[0], 1, key=(max(0.0, x - 0.5), *values))
    powers: list[float] = []
    judge = Priors.exponent

    def exponent(self: Priors, *args: Any) -> float:
        powers.append(judge(self, *args))
        return powers[-1]

    monkeypatch.setattr(Priors, "exponent", exponent)
    make_searcher(name, seed=0, options={}).ask(2, history, default_rng(0))
    assert powers
    assert set(powers) == {0.0}
    assert judge(believed.priors, history.X, history.values, history.resources) > 0


def test_random_draws_from_the_prior_get_fewer() -> None:
    space = _space(Normal(1e-4, 0.05), None)
    searcher = make_searcher("random", seed=0, options={})
    drawn = searcher.ask(500, History(space), default_rng(0))
    near = [abs(math.log10(config["lr"]) + 4) < 0.2 for config in drawn]
    assert sum(near[:5]) == 5
    assert sum(near[-250:]) < 50  # 8 % of the draws are uniform ones that are near as well


def test_proposals_depend_on_the_arguments_alone() -> None:
    first, again = (
        make_searcher("tpe", seed=0, options={}).ask(20, History(BELIEVED), default_rng(5)) for _ in range(2)
    )
    assert first == again


def test_three_of_four_configurations_of_gp_before_its_model_are_spread_evenly() -> None:
    evenly = make_searcher("gp", seed=3, options={}).ask(6, History(_space(None, None, None)), default_rng(0))
    assert make_searcher("gp", seed=3, options={}).ask(8, History(BELIEVED), default_rng(0))[2:] == evenly
    searcher, history = make_searcher("gp", seed=3, options={}), History(BELIEVED)
    for place in range(5):
        (config,) = searcher.ask(1, history, default_rng([0, place]))
        history.add(config)
    assert history.configs[1:4] == evenly[:3]
