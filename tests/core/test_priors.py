"""Priors: what is read and refused, how they are drawn from, and how their weight fades."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from hpcsweep.core.domains import Choice, Domain, Float, Int, InvalidDomain, Ordinal
from hpcsweep.core.priors import (
    Normal,
    Priors,
    Weights,
    describe_prior,
    draw_probability,
    exponent,
    prior_to_yaml,
    read_prior,
)
from hpcsweep.core.space import Parameter, Space

LR = Float(1e-5, 1.0, log=True)
MOMENTUM = Float(0.0, 0.99)
OPTIMIZER = Choice(("sgd", "adam", None))
WIDTH = Ordinal((16, 32, 64, 128))
EXAMPLES: list[tuple[Any, Any]] = [
    (LR, Normal(3e-4, 0.5)),
    (MOMENTUM, Normal(0.99, 0.05)),
    (Float(0.0, 1.0, step=0.1), Normal(0.33, 0.2)),
    (Int(1, 8), Normal(4.5, 1.0)),
    (Int(2, 20, step=3), Normal(5, 3.0)),
    (Int(16, 1024, log=True), Normal(100, 0.3)),
    (WIDTH, Normal(64, 1.0)),
    (WIDTH, Weights((1.0, 2.0, 4.0, 1.0))),
    (OPTIMIZER, Weights((1.0, 3.0, 0.5))),
]


@pytest.mark.parametrize(("domain", "prior"), EXAMPLES)
def test_prior_comes_back_from_what_is_written(domain: Any, prior: Any) -> None:
    assert read_prior(prior_to_yaml(prior), domain) == prior


class _Even:
    """Uniform draws that are spread evenly."""

    def random(self, shape: tuple[int, int]) -> Any:
        return ((np.arange(shape[0]) + 0.5) / shape[0])[:, None] * np.ones(shape)


@pytest.mark.parametrize(("domain", "prior"), EXAMPLES)
def test_draws_have_the_density_that_is_claimed(domain: Any, prior: Any) -> None:
    priors = Priors([(prior, domain)])
    drawn = priors.draw(40_000, _Even())[:, 0]  # type: ignore[arg-type]
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    bins = domain.size if isinstance(prior, Weights) else 20
    at = (np.arange(100 * bins) + 0.5) / (100 * bins)
    expected = np.exp(priors.log_density(at[:, None])).reshape(bins, 100).mean(axis=1)
    counted = np.histogram(drawn, bins=bins, range=(0, 1))[0] / len(drawn) * bins
    np.testing.assert_allclose(counted, expected, atol=0.02 * max(1.0, expected.max()))


def test_sigma_is_powers_of_ten_on_a_log_scale_and_the_own_unit_elsewhere() -> None:
    rng = default_rng(0)
    space = Space(
        (
            Parameter("lr", LR, prior=Normal(1e-3, 0.5)),
            Parameter("dropout", Float(-10.0, 10.0), prior=Normal(0.0, 0.5)),
            Parameter("layers", Int(0, 100), prior=Normal(50, 4.0)),
            Parameter("width", Int(1, 10**6, log=True), prior=Normal(1000, 0.5)),
        )
    )
    drawn = space.from_unit(space.priors.draw(4000, rng))
    assert np.std([np.log10(config["lr"]) for config in drawn]) == pytest.approx(0.5, rel=0.05)
    assert np.std([config["dropout"] for config in drawn]) == pytest.approx(0.5, rel=0.05)
    assert np.mean([config["layers"] for config in drawn]) == pytest.approx(50, abs=0.3)
    assert np.std([config["layers"] for config in drawn]) == pytest.approx(4.0, rel=0.05)
    assert np.std([np.log10(config["width"]) for config in drawn]) == pytest.approx(0.5, rel=0.05)


def test_inactive_parameter_believes_nothing() -> None:
    priors = Priors([(None, MOMENTUM), (Normal(0.9, 0.01), MOMENTUM)])
    assert priors.log_density(np.array([[0.3, np.nan], [np.nan, np.nan]])).tolist() == [0.0, 0.0]
    assert priors.log_density(np.array([[0.3, 0.9 / 0.99]]))[0] > 3


def test_value_left_out_of_a_mapping_weighs_one_and_keys_may_be_texts() -> None:
    assert read_prior({"adam": 5}, OPTIMIZER) == Weights((1.0, 5.0, 1.0))
    assert read_prior({"64": 5, 16: 2}, WIDTH) == Weights((2.0, 1.0, 5.0, 1.0))


@pytest.mark.parametrize(
    ("domain", "raw", "problems"),
    [
        (LR, {"center": 2, "sigma": 0.5}, [("prior.center", "must be between 1e-05 and 1.0, got 2")]),
        (LR, {"center": 1e-3, "sigma": 0}, [("prior.sigma", "must be a number > 0, got 0")]),
        (
            Int(1, 8),
            {"center": "x", "sigma": -1},
            [
                ("prior.center", "must be a number, got 'x'"),
                ("prior.sigma", "must be a number > 0, got -1"),
            ],
        ),
        (LR, 3e-4, [("prior", "must be {center: VALUE, sigma: WIDTH}, got 0.0003")]),
        (LR, {"center": 1e-3}, [("prior", "must be {center: VALUE, sigma: WIDTH}, got {center: 0.001}")]),
        (
            WIDTH,
            {"center": 17, "sigma": 1},
            [("prior.center", "must be one of [16, 32, 64, 128], got 17")],
        ),
        (
            OPTIMIZER,
            {"rmsprop": 2},
            [("prior.rmsprop", "must be one of ['sgd', 'adam', null], got 'rmsprop'")],
        ),
        (OPTIMIZER, {"adam": 0}, [("prior", "weight of 'adam': must be > 0, got 0")]),
        (
            OPTIMIZER,
            [1, 2],
            [("prior", "must map values to weights, or list a weight for each value (3), got [1, 2]")],
        ),
    ],
)
def test_prior_that_makes_no_sense_is_refused(domain: Any, raw: Any, problems: Any) -> None:
    with pytest.raises(InvalidDomain) as caught:
        read_prior(raw, domain)
    assert list(caught.value.problems) == problems


@pytest.mark.parametrize(
    ("prior", "domain", "words"),
    [
        (Normal(3e-4, 0.5), LR, "around 0.0003, within a factor of 3.16"),
        (Normal(0.9, 0.05), MOMENTUM, "around 0.9, 0.05 up or down"),
        (Normal(64, 1.0), WIDTH, "around 64, 1 places up or down"),
        (Weights((1.0, 3.0, 1.0)), OPTIMIZER, "'adam' 60%, 'sgd' 20%, null 20%"),
    ],
)
def test_prior_is_described(prior: Any, domain: Domain, words: str) -> None:
    assert describe_prior(prior, domain) == words


def test_weight_of_a_prior_fades_with_what_is_known() -> None:
    assert [draw_probability(known) for known in (0, 20, 180)] == [1.0, 0.5, 0.1]
    assert [exponent(results) for results in (0, 20, 200, 2000)] == [1.0, 1.0, 0.1, 0.01]


@pytest.mark.parametrize(
    ("worse", "power"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 1.0),  # the farther from the center
        ([7, 6, 5, 4, 3, 2, 1, 0], 0.0),
        ([3, 0, 7, 1, 6, 2, 5, 4], 0.46),
        ([4, 5, 1, 6, 2, 7, 0, 3], 0.0),
    ],
)
def test_power_of_a_prior_depends_on_how_results_agree_with_it(worse: list[float], power: float) -> None:
    priors = Priors([(Normal(0.0, 0.5), Float(0.0, 1.0))])
    units, resources = np.linspace(0.0, 1.0, 8)[:, None], np.ones(8, dtype=np.int64)
    values = np.array(worse, dtype=float)
    assert priors.exponent(units, values, resources) == pytest.approx(power, abs=0.02)
    values[values == 7] = math.nan  # a failure is the worst of all
    assert priors.exponent(units, values, resources) == pytest.approx(power, abs=0.02)
    assert priors.exponent(units[:4], -units[:4, 0], resources[:4]) == 1.0  # too few to tell
    rare = np.where(np.arange(16) < 8, 1, 3)[:15]  # most are at resource 1
    both = np.concatenate([values, -values[:7]])
    assert priors.exponent(np.concatenate([units, units[:7]]), both, rare) == pytest.approx(power, abs=0.02)


def test_a_prior_to_which_all_results_are_alike_has_no_power() -> None:
    priors = Priors([(Weights((1.0, 5.0)), Choice(("sgd", "adam")))])
    assert priors.exponent(np.full((6, 1), 0.75), np.arange(6.0), np.ones(6, dtype=np.int64)) == 0.0


def test_sample_without_priors_draws_as_ever() -> None:
    plain = Space((Parameter("lr", LR), Parameter("optimizer", OPTIMIZER)))
    assert plain.sample(5, default_rng(1), known=3) == plain.sample(5, default_rng(1))
