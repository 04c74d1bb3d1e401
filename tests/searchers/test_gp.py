"""The Gaussian process: its parts against closed forms, and what it proposes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space
from hpcsweep.core.text import json_key
from hpcsweep.searchers.gp import GP, MOST_ROWS, Features, neighbours
from hpcsweep.searchers.gp_model import (
    SAMPLES,
    Candidates,
    Model,
    PosteriorSamples,
    align_resources,
    fit_model,
    log_improvement,
    optimise_candidates,
    transform_values,
)
from tests.lazy import LazyModule

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")

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


@pytest.fixture(scope="module", autouse=True)
def _botorch_is_imported() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies use what torch has deprecated
        import botorch.fit  # noqa: F401


def tensor(rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.double)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


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
        assert log_improvement(tensor([u])).item() == pytest.approx(math.log(expected), rel=1e-6)


def test_improvement_falls_smoothly_however_small_it_is() -> None:
    u = tensor([-1e6, -1001.0, -999.0, -90.0, -30.0, -1.01, -0.99, 3.0]).requires_grad_()
    found = log_improvement(u)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert u.grad is not None
    slopes = u.grad.numpy()
    assert found[0].item() == pytest.approx(-0.5e12, rel=1e-9)
    assert (np.diff(found.detach().numpy()) > 0).all()
    assert (np.diff(slopes) < 0).all()
    assert slopes[0] == pytest.approx(1e6)


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


def test_values_without_a_difference_cannot_be_scaled() -> None:
    for values in ([1.0, 1.0], [NAN, NAN], [2.0]):
        with pytest.raises(ValueError, match="no two different values"):
            transform_values(np.array(values))


# --------------------------------------------------------------------------- the model


def test_kernel_is_matern_five_halves() -> None:
    model = Model(tensor([0.5, 2.0]), noise=0.1, mean=0.0)
    r = math.sqrt(5 * ((0.3 / 0.5) ** 2 + (0.4 / 2) ** 2))
    found = model.kernel(tensor([[0.1, 0.0]]), tensor([[0.4, 0.4], [0.1, 0.0]]))
    assert found.numpy() == pytest.approx(np.array([[(1 + r + r * r / 3) * math.exp(-r), 1.0]]))


def test_fit_finds_what_matters_and_how_much_noise_there_is() -> None:
    rng = default_rng(0)
    points = rng.random((60, 2))
    smooth = np.sin(6 * points[:, 0])
    clear = fit_model(tensor(points), tensor(transform_values(smooth)))
    assert clear.lengthscales[1] > 4 * clear.lengthscales[0]
    assert clear.noise < 1e-3
    noisy = fit_model(tensor(points), tensor(transform_values(smooth + 0.5 * rng.standard_normal(60))))
    assert 0.1 < noisy.noise < 0.6


def test_a_failing_fit_leaves_a_model_to_go_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise RuntimeError("not positive definite")

    import botorch.fit

    monkeypatch.setattr(botorch.fit, "fit_gpytorch_mll", fails)
    known = evaluated(SQUARE, SQUARE.sample(40, default_rng(0)), lambda c: (c["x"] - 0.3) ** 2 + c["y"])
    batch = GP().ask(4, known, default_rng(0))
    assert len(batch) == 4
    assert all(abs(config["x"] - 0.3) < 0.25 and config["y"] < 0.2 for config in batch)


def test_features_put_all_values_of_a_choice_at_the_same_distance() -> None:
    features = Features(MIXED, fidelity=False)
    rows = features.of(MIXED.to_unit([{"x": 0.5, "kind": kind, "k": 2} for kind in "bc"]))
    other = features.of(MIXED.to_unit([{"x": 0.5, "kind": "a", "k": 2, "z": 0.5}]))[0]
    assert np.linalg.norm(rows[0] - rows[1]) == pytest.approx(1)
    assert np.linalg.norm(rows[0] - other) == pytest.approx(1)  # the inactive z adds nothing
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
    points: torch.Tensor
    values: torch.Tensor


@cache
def observed() -> Observed:
    """A model and three values."""
    model = Model(tensor([0.3]), noise=1e-6, mean=0.2)
    return Observed(model, tensor([[0.1], [0.5], [0.8]]), tensor([0.6, -1.0, 0.3]))


def samples(*, others: Any = (), counts: Any = None) -> PosteriorSamples:
    more = tensor(others).reshape(-1, 1)
    counted = [True] * (3 + len(more)) if counts is None else counts
    return PosteriorSamples(*observed(), others=more, counts=torch.tensor(counted), generator=generator())


def posterior(at: torch.Tensor, *, noise: float) -> tuple[Floats, Floats]:
    """Textbook mean and variance (Rasmussen and Williams 2006, 2.25 and 2.26)."""
    model, points, values = observed()
    inner = model.kernel(points, points) + noise * torch.eye(3, dtype=torch.double)
    cross = model.kernel(at, points)
    mean = model.mean + cross @ torch.linalg.solve(inner, values - model.mean)
    return mean.numpy(), (1 - (cross * torch.linalg.solve(inner, cross.T).T).sum(1)).numpy()


def test_without_noise_the_improvement_is_the_closed_form() -> None:
    from scipy.stats import norm

    at = tensor([[0.0], [0.3], [0.45], [0.65], [1.0]])
    mean, variance = posterior(at, noise=1e-6)
    deviation = np.sqrt(variance)
    u = (-1.0 - mean) / deviation
    expected = np.log(deviation * (norm.pdf(u) + u * norm.cdf(u)))
    model, points, values = observed()
    one = PosteriorSamples(
        model._replace(noise=1e-9), points, values,
        others=points[:0], counts=torch.ones(3, dtype=torch.bool), generator=generator(),
    )  # fmt: skip
    assert one.at(at).numpy() == pytest.approx(expected, abs=0.02)


def test_samples_have_the_mean_and_variance_of_the_posterior() -> None:
    model, points, values = observed()
    noisy = model._replace(noise=0.2)
    at = tensor([[0.3], [0.5], [0.9]])
    means = []
    for seed in range(100):
        one = PosteriorSamples(
            noisy, points, values,
            others=at, counts=torch.ones(6, dtype=torch.bool), generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        means.append(one.moments(one.whitened(at))[0])
    drawn = torch.cat(means, dim=1).numpy()
    mean, variance = posterior(at, noise=0.2)
    assert drawn.shape == (3, 100 * SAMPLES)
    # the functions are draws with the model's mean taken off
    assert drawn.mean(axis=1) + noisy.mean == pytest.approx(mean, abs=0.05)
    assert drawn.var(axis=1) == pytest.approx(variance, abs=0.05)


def test_an_added_point_is_worth_nothing_any_more() -> None:
    one = samples()
    at = tensor([[0.6], [0.62], [0.95]])
    before = one.at(at).numpy()
    one.add(at[0])
    after = one.at(at).numpy()
    assert after[0] < before[0] - 3
    assert after[1] < before[1] - 1
    assert after[2] == pytest.approx(before[2], abs=1)


def test_candidates_follow_what_is_added() -> None:
    one = samples(others=[[0.33]])
    points = tensor([[0.2], [0.4], [0.62], [0.95]])
    candidates = Candidates(one, points)
    for point in ([0.6], [0.25], [0.61]):
        candidates.add(tensor(point))
        assert candidates.improvement() == pytest.approx(one.at(points).numpy(), rel=1e-6)


def test_points_that_do_not_count_are_no_incumbents() -> None:
    counted = samples().at(tensor([[0.7]])).item()
    assert samples(counts=[True, False, True]).at(tensor([[0.7]])).item() > counted + 1


def test_climbing_ends_higher_and_moves_only_what_is_free() -> None:
    model = Model(tensor([0.3, 0.5]), noise=1e-6, mean=0.0)
    points = tensor([[0.1, 0.2], [0.5, 0.6], [0.8, 0.1]])
    one = PosteriorSamples(
        model, points, observed().values,
        others=points[:0], counts=torch.ones(3, dtype=torch.bool), generator=generator(),
    )  # fmt: skip
    starts = tensor([[0.4, 0.5], [0.99, 0.7]])
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
    assert gaps.min() > 1e-3
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

    rows = _rows(known)
    assert len(rows) == MOST_ROWS
    assert (np.diff(rows) > 0).all()
    assert set(np.argsort(known.values)[: MOST_ROWS // 2]) <= set(rows.tolist())
    assert rows[-1] == len(configs) - 1


def test_a_batch_beyond_the_pool_is_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcsweep.searchers.gp.RANDOM", 10)
    monkeypatch.setattr("hpcsweep.searchers.gp.JOINING", 10)
    known = evaluated(MIXED, MIXED.sample(10, default_rng(0)), lambda c: c["x"])
    batch = GP().ask(100, known, default_rng(0))
    assert len({json_key(config) for config in batch}) == 100


def test_nothing_global_is_changed_and_threads_make_no_difference() -> None:
    known = evaluated(SQUARE, SQUARE.sample(30, default_rng(0)), lambda c: c["x"] ** 2 + c["y"])
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    try:
        torch.set_num_threads(2)
        first = GP().ask(3, known, default_rng(0))
        assert torch.get_num_threads() == 2
        torch.manual_seed(99)
        torch.set_num_threads(1)
        assert first == GP().ask(3, known, default_rng(0))
        torch.random.set_rng_state(state)
        GP().ask(3, known, default_rng(1))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)


def test_constants_alone_leave_one_configuration() -> None:
    space = Space((Parameter("c", Constant(1)),))
    assert GP().ask(3, History(space), default_rng(0)) == [{"c": 1}]


def test_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GP().problems(SQUARE) == []
    monkeypatch.setattr("hpcsweep.searchers.gp.find_spec", lambda name: None)
    assert GP().problems(SQUARE) == [
        "searcher.name: 'gp' needs BoTorch, which is not installed; pip install 'hpcsweep[gp]'"
    ]


def test_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match="startup: must be at least 2, got 1"):
        GP(startup=1)
