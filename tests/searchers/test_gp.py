"""The Gaussian process: its parts against closed forms, and what it proposes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space
from hpcsweep.core.text import json_key
from hpcsweep.searchers.gp import GP, MOST_ROWS
from hpcsweep.searchers.gp_model import (
    FEW,
    Likelihood,
    Model,
    align_resources,
    fit_model,
    transform_values,
)
from hpcsweep.searchers.gp_pool import Features, neighbours
from hpcsweep.searchers.gp_samples import (
    ROOM,
    SAMPLES,
    Candidates,
    PosteriorSamples,
    log_improvement,
    optimise_candidates,
    triangular_product,
)

Floats = NDArray[np.float64]

NAN = float("nan")
SQUARE = Space((Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0))))
LINE = Space((Parameter("x", Float(0.0, 1.0)),))
MIXED = Space(
    (
        Parameter("x", Float(0.0, 1.0)),
        Parameter("kind", Choice(("a", "b", "c"))),
        Parameter("k", Int(1, 4)),
        Parameter("z", Float(0.0, 1.0), {"kind": ("a",)}),
    )
)


def rows(*numbers: Any) -> Floats:
    return np.array(numbers, dtype=float)


def evaluated(space: Space, configs: list[Config], value: Callable[[Config], float | None]) -> History:
    return History(space, configs=configs, values=[value(c) for c in configs], resources=[9] * len(configs))


def swept(space: Space, value: Callable[[Config], float], *, trials: int, batch: int = 1) -> History:
    known = History(space)
    one = GP()
    while known.proposed < trials:
        for config in one.ask(batch, known, default_rng([0, known.proposed])):
            known.observe(known.add(config), value(config), 1)
    return known


# --------------------------------------------------------------------------- the formulas


def test_improvement_of_a_normal_variable_is_what_integration_gives() -> None:
    from scipy.integrate import quad
    from scipy.stats import norm

    for u in (-5.0, -1.5, -1.0, -0.5, 0.0, 2.0):
        expected, _ = quad(lambda x, u=u: (u - x) * norm.pdf(x), -np.inf, u)
        assert log_improvement(rows(u)).item() == pytest.approx(math.log(expected), rel=1e-6)


def test_improvement_falls_smoothly_however_small_it_is() -> None:
    u = rows(-1e6, -1001.0, -999.0, -90.0, -30.0, -1.01, -0.99, 3.0)
    found = log_improvement(u)
    assert found[0] == pytest.approx(-0.5e12, rel=1e-9)
    assert (np.diff(found) > 0).all()
    slopes = (log_improvement(u + 1e-4) - found) / 1e-4
    assert (np.diff(slopes) < 0).all()


def test_scaled_values_keep_their_order_and_failures_are_worst() -> None:
    values = np.array([3.0, NAN, 1e6, 1.0, 2.0, 40.0])
    found = transform_values(values)
    assert list(np.argsort(found[[3, 4, 0, 5, 2]])) == [0, 1, 2, 3, 4]
    assert found[1] == found[2] == found.max()
    assert (found.mean(), found.std()) == pytest.approx((0, 1))


def test_a_long_tail_of_bad_values_does_not_hide_the_differences_of_good_ones() -> None:
    good = np.linspace(0, 1, 30)
    found = transform_values(np.concatenate([good, 10.0 ** np.arange(2, 12)]))
    assert np.ptp(found[:30]) > 1
    assert np.ptp(((np.concatenate([good, 10.0 ** np.arange(2, 12)])) / 1e11)[:30]) < 1e-10


@pytest.mark.parametrize("values", [[0.0, 0, 0, 0, 1e-300], [1e308, -1e308, 0, 1], [5, 5, 5, 7, NAN]])
def test_extreme_values_are_scaled(values: list[float]) -> None:
    found = transform_values(np.array(values))
    assert np.isfinite(found).all()
    assert found.std() == pytest.approx(1)


def test_power_transform_is_that_of_scipy() -> None:
    from scipy.stats import yeojohnson

    values = default_rng(0).standard_normal(40) ** 3
    away = values - np.median(values)
    expected, _ = yeojohnson(away / np.median(np.abs(away)))
    expected = (expected - expected.mean()) / expected.std()
    assert transform_values(values) == pytest.approx(expected, abs=1e-3)


def test_values_without_a_difference_cannot_be_scaled() -> None:
    for values in ([1.0, 1.0], [NAN, NAN], [2.0]):
        with pytest.raises(ValueError, match="no two different values"):
            transform_values(np.array(values))


# --------------------------------------------------------------------------- the model


def test_kernel_is_matern_five_halves() -> None:
    model = Model(rows(0.5, 2.0), noise=0.1, mean=0.0)
    r = math.sqrt(5 * ((0.3 / 0.5) ** 2 + (0.4 / 2) ** 2))
    found = model.kernel(rows([0.1, 0.0]), rows([0.4, 0.4], [0.1, 0.0]))
    assert found == pytest.approx(rows([(1 + r + r * r / 3) * math.exp(-r), 1.0]))


def test_likelihood_is_that_of_a_normal_distribution_and_its_gradient_is_the_slope() -> None:
    from scipy.stats import lognorm, multivariate_normal

    rng = default_rng(0)
    points, values = rng.random((20, 3)), rng.standard_normal(20)
    logs = np.log([0.3, 0.8, 2.0, 0.05])
    likelihood = Likelihood(points, values)
    found, gradient = likelihood(logs)
    covariance = Model(np.exp(logs[:-1]), 0.05, 0).kernel(points, points) + 0.05 * np.eye(20)
    log_density = multivariate_normal(np.full(20, likelihood.mean), covariance).logpdf(values)
    scale = math.exp(math.sqrt(2)) * math.sqrt(3)
    log_density += lognorm(math.sqrt(3), scale=scale).logpdf(np.exp(logs[:-1])).sum()
    log_density += lognorm(2, scale=math.exp(-6)).logpdf(0.05)
    constant = 3 * math.log(math.sqrt(6 * math.pi)) + math.log(2 * math.sqrt(2 * math.pi))
    assert -20 * found == pytest.approx(log_density + constant, rel=1e-6)
    steps = 1e-5 * np.eye(4)
    slopes = [(likelihood(logs + step)[0] - likelihood(logs - step)[0]) / 2e-5 for step in steps]
    assert gradient == pytest.approx(np.array(slopes), rel=1e-5)


def test_fit_finds_what_matters_and_how_much_noise_there_is() -> None:
    rng = default_rng(0)
    points = rng.random((60, 2))
    smooth = np.sin(6 * points[:, 0])
    clear = fit_model(points, transform_values(smooth))
    assert clear.lengthscales[1] > 4 * clear.lengthscales[0]
    assert clear.noise < 1e-3
    noisy = fit_model(points, transform_values(smooth + 0.5 * rng.standard_normal(60)))
    assert 0.1 < noisy.noise < 0.6


def test_fit_of_many_is_as_good_as_one_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = default_rng(0)
    points = rng.random((FEW + 60, 4))
    values = transform_values(((points - 0.4) ** 2).sum(axis=1) + 0.05 * rng.standard_normal(len(points)))
    likelihood = Likelihood(points, values)

    def badness() -> float:
        model = fit_model(points, values)
        return likelihood(np.log([*model.lengthscales, model.noise]))[0]

    in_two = badness()
    monkeypatch.setattr("hpcsweep.searchers.gp_model.FEW", len(points))
    assert in_two < badness() + 0.01


def test_a_failing_fit_leaves_a_model_to_go_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Likelihood, "__call__", lambda self, logs: (1e10, np.zeros(len(logs))))
    known = evaluated(SQUARE, SQUARE.sample(40, default_rng(0)), lambda c: (c["x"] - 0.3) ** 2 + c["y"])
    batch = GP().ask(4, known, default_rng(0))
    assert len(batch) == 4
    assert all(abs(config["x"] - 0.3) < 0.25 and config["y"] < 0.2 for config in batch)


def test_features_put_all_values_of_a_choice_at_the_same_distance() -> None:
    features = Features(MIXED, fidelity=False)
    found = features.of(MIXED.to_unit([{"x": 0.5, "kind": kind, "k": 2} for kind in "bc"]))
    other = features.of(MIXED.to_unit([{"x": 0.5, "kind": "a", "k": 2, "z": 0.5}]))[0]
    assert np.linalg.norm(found[0] - found[1]) == pytest.approx(1)
    assert np.linalg.norm(found[0] - other) == pytest.approx(1)  # the inactive z adds nothing
    assert features.smooth == [0, 3]
    assert sorted(features.rough) == [1, 2]


def test_fidelity_is_the_last_feature() -> None:
    features = Features(LINE, fidelity=True)
    unit = np.array([[0.2], [0.4]])
    assert features.of(unit).tolist() == [[0.2, 1], [0.4, 1]]
    assert features.of(unit, fidelity=np.array([0.0, 0.5])).tolist() == [[0.2, 0], [0.4, 0.5]]


def test_neighbours_change_something_and_stay_inside() -> None:
    units = MIXED.to_unit(MIXED.sample(200, default_rng(0)))
    near = neighbours(units, Features(MIXED, fidelity=False), default_rng(1))
    assert ((near >= 0) & (near <= 1)).all()
    assert ((near != units).any(axis=1)).all()
    assert 0.2 < (near != units)[:, :3].mean() < 0.9


# --------------------------------------------------------------------------- the batch


class Observed(NamedTuple):
    model: Model
    points: Floats
    values: Floats


@cache
def observed() -> Observed:
    """A model and three values."""
    model = Model(rows(0.3), noise=1e-6, mean=0.2)
    return Observed(model, rows([0.1], [0.5], [0.8]), rows(0.6, -1.0, 0.3))


def samples(*, others: Any = (), counts: Any = None) -> PosteriorSamples:
    more = rows(*others).reshape(-1, 1)
    counted = np.array([True] * (3 + len(more)) if counts is None else counts)
    return PosteriorSamples(*observed(), others=more, counts=counted, rng=default_rng(0))


def posterior(at: Floats, *, noise: float) -> tuple[Floats, Floats]:
    """Textbook mean and variance (Rasmussen and Williams 2006, 2.25 and 2.26)."""
    model, points, values = observed()
    inner = model.kernel(points, points) + noise * np.eye(3)
    cross = model.kernel(at, points)
    mean = model.mean + cross @ np.linalg.solve(inner, values - model.mean)
    return mean, 1 - (cross * np.linalg.solve(inner, cross.T).T).sum(1)


def test_without_noise_the_improvement_is_the_closed_form() -> None:
    from scipy.stats import norm

    at = rows([0.0], [0.3], [0.45], [0.65], [1.0])
    mean, variance = posterior(at, noise=1e-6)
    deviation = np.sqrt(variance)
    u = (-1.0 - mean) / deviation
    expected = np.log(deviation * (norm.pdf(u) + u * norm.cdf(u)))
    model, points, values = observed()
    one = PosteriorSamples(
        model._replace(noise=1e-9), points, values,
        others=points[:0], counts=np.ones(3, dtype=bool), rng=default_rng(0),
    )  # fmt: skip
    assert one.at(at) == pytest.approx(expected, abs=0.02)


def test_samples_have_the_mean_and_variance_of_the_posterior() -> None:
    model, points, values = observed()
    noisy = model._replace(noise=0.2)
    at = rows([0.3], [0.5], [0.9])
    means = []
    for seed in range(100):
        one = PosteriorSamples(
            noisy, points, values,
            others=at, counts=np.ones(6, dtype=bool), rng=default_rng(seed),
        )  # fmt: skip
        covariances = one.covariances(at)
        means.append(one.moments(covariances, one.whitened(covariances))[0])
    drawn = np.concatenate(means, axis=1)
    mean, variance = posterior(at, noise=0.2)
    assert drawn.shape == (3, 100 * SAMPLES)
    # the functions are draws with the model's mean taken off
    assert drawn.mean(axis=1) + noisy.mean == pytest.approx(mean, abs=0.05)
    assert drawn.var(axis=1) == pytest.approx(variance, abs=0.05)


def test_an_added_point_is_worth_nothing_any_more() -> None:
    one = samples()
    at = rows([0.6], [0.62], [0.95])
    before = one.at(at)
    one.add(at[0])
    after = one.at(at)
    assert after[0] < before[0] - 3
    assert after[1] < before[1] - 1
    assert after[2] == pytest.approx(before[2], abs=1)


def test_candidates_follow_what_is_added() -> None:
    one = samples(others=[[0.33]])
    points = rows([0.2], [0.4], [0.62], [0.95])
    candidates = Candidates(one, points)
    for x in np.linspace(0.05, 0.61, ROOM + 8):  # more than there is room for at first
        candidates.add(rows(x))
    assert candidates.improvement() == pytest.approx(one.at(points), rel=1e-4)


def test_candidates_that_join_are_judged_like_the_others() -> None:
    one = samples(others=[[0.33]])
    candidates = Candidates(one, rows([0.2], [0.4]))
    candidates.add(rows(0.3))
    candidates.extend(rows([0.62], [0.95]))
    candidates.add(rows(0.9))
    assert candidates.improvement() == pytest.approx(one.at(rows([0.2], [0.4], [0.62], [0.95])), rel=1e-4)


@pytest.mark.parametrize("size", [0, 1, 3, 30])
@pytest.mark.parametrize("columns", [1, 7])
def test_triangular_product_is_the_product(size: int, columns: int) -> None:
    rng = default_rng(0)
    lower, x = np.tril(rng.random((size, size))), rng.random((size, columns))
    assert triangular_product(lower, x) == pytest.approx(lower @ x)
    assert triangular_product(lower, x, transposed=True) == pytest.approx(lower.T @ x)


def test_points_that_do_not_count_are_no_incumbents() -> None:
    counted = samples().at(rows([0.7])).item()
    assert samples(counts=[True, False, True]).at(rows([0.7])).item() > counted + 1


def test_slopes_are_those_of_the_improvement() -> None:
    model = Model(rows(0.3, 0.5), noise=1e-2, mean=0.0)
    points = rows([0.1, 0.2], [0.5, 0.6], [0.8, 0.1])
    one = PosteriorSamples(
        model, points, observed().values,
        others=points[:0], counts=np.ones(3, dtype=bool), rng=default_rng(0),
    )  # fmt: skip
    one.add(rows(0.3, 0.3))
    at = rows([0.4, 0.5], [0.99, 0.7], [0.31, 0.3])
    found, gradients = one.slopes(at)
    assert found == pytest.approx(one.at(at))
    for step, column in zip(1e-6 * np.eye(2), gradients.T, strict=True):
        assert column == pytest.approx((one.at(at + step) - one.at(at - step)) / 2e-6, rel=1e-4)


def test_climbing_ends_higher_and_moves_only_what_is_free() -> None:
    model = Model(rows(0.3, 0.5), noise=1e-6, mean=0.0)
    points = rows([0.1, 0.2], [0.5, 0.6], [0.8, 0.1])
    one = PosteriorSamples(
        model, points, observed().values,
        others=points[:0], counts=np.ones(3, dtype=bool), rng=default_rng(0),
    )  # fmt: skip
    starts = rows([0.4, 0.5], [0.99, 0.7])
    ends = optimise_candidates(one, starts, free=np.array([[True, False], [True, True]]), steps=50)
    assert ends[0, 1] == starts[0, 1]
    assert (one.at(ends) >= one.at(starts)).all()
    assert ((ends >= 0) & (ends <= 1)).all()


# --------------------------------------------------------------------------- the searcher


def test_the_first_ones_are_one_sequence_however_they_are_asked_for() -> None:
    together = GP(seed=3).ask(8, History(SQUARE), default_rng(0))
    known = History(SQUARE)
    for n in (1, 5, 2):
        for config in GP(seed=3).ask(n, known, default_rng([1, n])):
            known.add(config)
    assert known.configs == together
    cells = {(int(config["x"] * 2), int(config["y"] * 2)) for config in together[:4]}
    assert len(cells) == 4  # a net: one in each quarter
    assert together != GP(seed=4).ask(8, History(SQUARE), default_rng(0))


def test_a_smooth_function_is_minimised_in_few_trials() -> None:
    known = swept(SQUARE, lambda c: (c["x"] - 0.72) ** 2 + 3 * (c["y"] - 0.18) ** 2, trials=20)
    assert known.values.min() < 1e-4


def test_choices_and_conditions_are_searched() -> None:
    def value(config: Config) -> float:
        if config["kind"] == "a":
            return float(abs(config["x"] - 0.3) + (config["z"] - 0.8) ** 2 + 0.1 * (config["k"] - 3) ** 2)
        return float(0.5 + config["x"])

    known = swept(MIXED, value, trials=48, batch=6)
    assert known.values.min() < 0.05
    last = known.configs[-6:]
    assert [problem for config in last for problem in MIXED.check(config)] == []


def test_pending_configurations_are_not_proposed_again() -> None:
    known = evaluated(LINE, list(LINE.grid(4)), lambda c: math.sin(7 * c["x"]))
    (best,) = GP().ask(1, known, default_rng(0))
    known.add(best)
    (other,) = GP().ask(1, known, default_rng(0))
    assert abs(best["x"] - other["x"]) > 0.01


def test_a_batch_is_spread_over_what_is_promising() -> None:
    known = evaluated(SQUARE, SQUARE.sample(12, default_rng(0)), lambda c: (c["x"] - 0.5) ** 2)
    batch = GP().ask(12, known, default_rng(0))
    points = SQUARE.to_unit(batch)
    gaps = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(12)
    assert gaps.min() > 3e-4
    assert np.ptp(points[:, 1]) > 0.5


def test_a_region_of_failures_is_left() -> None:
    def value(config: Config) -> float:
        return NAN if config["x"] > 0.6 else -float(config["x"])

    known = evaluated(SQUARE, SQUARE.sample(40, default_rng(0)), value)
    batch = GP().ask(6, known, default_rng(0))
    assert np.mean([config["x"] <= 0.65 for config in batch]) >= 0.5


def test_results_at_lower_resources_tell_of_the_largest() -> None:
    """At resource 1 values are higher by 5 everywhere, and lowest at the same place."""
    configs = SQUARE.sample(45, default_rng(0))
    known = History(SQUARE)
    for index, config in enumerate(configs):
        known.add(config)
        true = (config["x"] - 0.7) ** 2 + (config["y"] - 0.2) ** 2
        known.observe(index, true + 5, 1)
        if index % 9 == 0:
            known.observe(index, true, 27)
    batch = GP().ask(3, known, default_rng(0))
    assert all(abs(config["x"] - 0.7) < 0.2 and abs(config["y"] - 0.2) < 0.2 for config in batch)


def test_rounded_parameters_are_judged_after_rounding() -> None:
    space = Space(
        (Parameter("x", Float(0.0, 1.0)), Parameter("n", Int(1, 40)), Parameter("o", Ordinal((1, 2))))
    )
    known = swept(space, lambda c: (c["x"] - 0.4) ** 2 + ((c["n"] - 17) / 20) ** 2 + c["o"], trials=25)
    best = known.configs[int(known.values.argmin())]
    assert (best["n"], best["o"]) == (17, 1)


def test_a_small_finite_space_is_looked_at_whole() -> None:
    space = Space((Parameter("a", Int(0, 9)), Parameter("b", Choice(tuple("pqrstu")))))
    configs = [config for config in space.grid() if config != {"a": 3, "b": "r"}]
    known = evaluated(space, configs, lambda c: abs(c["a"] - 3) + (c["b"] != "r"))
    assert GP().ask(5, known, default_rng(0)) == [{"a": 3, "b": "r"}]


def test_constraints_are_kept_where_the_improvement_is_greatest() -> None:
    space = Space(SQUARE.parameters, (Expression("x + y >= 1"),))
    known = evaluated(space, space.sample(20, default_rng(0)), lambda c: c["x"] + c["y"])
    batch = GP().ask(5, known, default_rng(0))
    assert all(1 <= config["x"] + config["y"] < 1.2 for config in batch[:3])
    assert all(space.satisfies_constraints(config) for config in batch)


def test_values_of_lower_resources_are_moved_by_what_pairs_saw_change() -> None:
    #            trial 0, 1 and 2 at 1, two of them at 3, one at 9; trial 3 was stopped at 2
    trials = np.array([0, 1, 2, 0, 1, 0, 3])
    resources = np.array([1, 1, 1, 3, 3, 9, 2])
    values = np.array([10.0, 12, 50, 7, 8, 5, 30])
    assert align_resources(values, resources, trials).tolist() == [4.5, 6.5, 44.5, 5, 6, 5, 28]


def test_a_long_history_is_thinned() -> None:
    configs = LINE.sample(MOST_ROWS + 300, default_rng(0))
    known = evaluated(LINE, configs, lambda c: NAN if c["x"] > 0.9 else c["x"])
    from hpcsweep.searchers.gp import _rows

    kept = _rows(known.values)
    assert len(kept) == MOST_ROWS
    assert (np.diff(kept) > 0).all()
    assert set(np.argsort(known.values)[: MOST_ROWS // 3]) <= set(kept.tolist())
    assert set(range(len(configs) - MOST_ROWS // 3, len(configs))) <= set(kept.tolist())
    assert kept[0] <= 1
    assert np.diff(kept).max() < 20  # no stretch of time is left out


def test_a_batch_beyond_the_pool_is_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcsweep.searchers.gp_pool.RANDOM", 10)
    monkeypatch.setattr("hpcsweep.searchers.gp_pool.JOINING", 10)
    known = evaluated(MIXED, MIXED.sample(10, default_rng(0)), lambda c: c["x"])
    batch = GP().ask(100, known, default_rng(0))
    assert len({json_key(config) for config in batch}) == 100


def test_threads_make_no_difference() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    known = evaluated(SQUARE, SQUARE.sample(90, default_rng(0)), lambda c: c["x"] ** 2 + c["y"])
    with threadpool_limits(2):
        before = threadpool_info()
        first = GP().ask(3, known, default_rng(0))
        assert threadpool_info() == before
    with threadpool_limits(1):
        assert first == GP().ask(3, known, default_rng(0))


def test_other_values_than_those_of_the_history_may_be_minimised() -> None:
    known = evaluated(SQUARE, SQUARE.sample(30, default_rng(0)), lambda c: (c["x"] - 0.2) ** 2 + c["y"])
    other = np.array([(config["x"] - 0.8) ** 2 + config["y"] for config in known.configs])
    (config,) = GP().propose(1, known, default_rng(0), values=other)
    assert abs(config["x"] - 0.8) < 0.15


def test_constants_alone_leave_one_configuration() -> None:
    space = Space((Parameter("c", Constant(1)),))
    assert GP().ask(3, History(space), default_rng(0)) == [{"c": 1}]


def test_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match="startup: must be at least 2, got 1"):
        GP(startup=1)
