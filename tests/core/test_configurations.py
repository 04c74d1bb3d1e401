"""Configurations that are given in part."""

from __future__ import annotations

import re

import pytest
from numpy.random import default_rng

from hpcsweep.core.configurations import complete_config
from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.space import Choice, Constant, Float, Int, Parameter, Space
from hpcsweep.errors import SpecError

SPACE = Space(
    (
        Parameter("optimizer", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 1.0), {"optimizer": ("sgd",)}),
        Parameter("layers", Int(1, 8)),
        Parameter("epochs", Constant(3)),
    ),
    (Expression("layers < 8"),),
)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "given",
    [{}, {"momentum": 0.5}, {"optimizer": "adam"}, {"layers": 2, "optimizer": "sgd"}, {"epochs": 3}],
)
def test_missing_values_are_drawn_and_given_ones_stay(given: Config, seed: int) -> None:
    config = complete_config(SPACE, given, default_rng(seed))
    assert SPACE.check(config) == []
    assert {name: config[name] for name in given} == given
    assert list(config) == [name for name in SPACE.names if name in config]
    assert config == complete_config(SPACE, given, default_rng(seed))


def test_missing_parameters_differ_from_draw_to_draw() -> None:
    configs = [complete_config(SPACE, {"momentum": 0.5}, default_rng(seed)) for seed in range(50)]
    assert {config["optimizer"] for config in configs} == {"sgd"}
    assert {config["layers"] for config in configs} == set(range(1, 8))


def test_values_become_those_of_the_domain() -> None:
    config = complete_config(SPACE, {"momentum": 1, "optimizer": "sgd"}, default_rng(0))
    assert isinstance(config["momentum"], float)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"optimizer": "adam", "momentum": 0.5},
            "momentum: must be absent, it is active only when optimizer is 'sgd'",
        ),
        ({"momentun": 0.5}, "momentun: unknown parameter; did you mean 'momentum'?"),
        ({"momentum": 2}, "momentum: must be between 0.0 and 1.0, got 2"),
        ({"epochs": 4}, "epochs: must be 3, got 4"),
        ({"layers": 8}, "constraints: must leave something with layers=8, found nothing in 10000 draws"),
    ],
)
def test_wrong_values_are_reported(given: Config, problem: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(problem)}$"):
        complete_config(SPACE, given, default_rng(0))
