"""The benchmark's functions have the minima that it reckons regrets from."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from benchmarks.problems import (
    PROBLEMS,
    ackley,
    branin,
    hartmann,
    hartmann_curves,
    levy,
    power_law,
    rastrigin,
    rosenbrock,
)

HARTMANN3 = {"x0": 0.1145888812, "x1": 0.5556488954, "x2": 0.8525469842}
HARTMANN6 = {
    "x0": 0.2016895091,
    "x1": 0.1500106935,
    "x2": 0.4768739729,
    "x3": 0.2753324275,
    "x4": 0.3116516172,
    "x5": 0.6573005346,
}
#: Where each function has its minimum.
BEST: dict[str, dict[str, Any]] = {
    "branin": {"x0": math.pi, "x1": 2.275},
    "hartmann3": HARTMANN3,
    "hartmann6": HARTMANN6,
    "rosenbrock": dict.fromkeys(("x0", "x1", "x2", "x3"), 1.0),
    "ackley": dict.fromkeys(("x0", "x1", "x2", "x3", "x4"), 0.0),
    "rastrigin": dict.fromkeys(("x0", "x1", "x2", "x3"), 0.0),
    "levy": dict.fromkeys(("x0", "x1", "x2", "x3"), 1.0),
    "mixed": {
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "width": 256,
        "layers": 4,
        "dropout": 0.3,
        "batch_size": 64,
        "optimizer": "adam",
        "activation": "gelu",
    },
    "conditional": {
        "lr": 0.1,
        "layers": 3,
        "optimizer": "sgd",
        "momentum": 0.9,
        "schedule": "cosine",
        "warmup": 5,
    },
    "noisy": HARTMANN6,
}


def test_there_are_ten_problems() -> None:
    assert len(PROBLEMS) == 10
    assert set(BEST) == set(PROBLEMS)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_minimum_is_where_the_problem_says_and_nothing_is_below(name: str) -> None:
    problem = PROBLEMS[name]
    assert problem.space.check(BEST[name]) == []
    assert problem.value(BEST[name]) == pytest.approx(problem.minimum, abs=1e-8)
    near = np.nan_to_num(problem.space.to_unit([BEST[name]]), nan=0.5)
    rng = default_rng(0)
    around = [near + spread * rng.standard_normal((500, near.shape[1])) for spread in (1e-3, 1e-2, 0.1)]
    configs = [*problem.space.sample(2000, rng), *problem.space.from_unit(np.concatenate(around))]
    assert min(map(problem.value, configs)) >= problem.minimum - 1e-9


def test_functions_have_hand_computed_values() -> None:
    assert branin(np.array([0.0, 0.0])) == pytest.approx(36 + 10 * (1 - 1 / (8 * math.pi)) + 10)
    assert rosenbrock(np.array([0.0, 0.0, 0.0])) == 2.0
    assert rosenbrock(np.array([2.0, 3.0])) == 101.0
    assert rastrigin(np.array([1.0, 2.0])) == pytest.approx(5.0)
    # w = 0.75: sin(0.75 pi) ** 2 = 0.5, and the last term is 0.0625 * (1 + 1)
    assert levy(np.array([0.0])) == pytest.approx(0.625)
    assert ackley(np.array([1.0, 1.0])) == pytest.approx(20 - 20 * math.exp(-0.2))


def test_hartmann_at_a_lower_fidelity_has_peaks_lower_by_a_tenth() -> None:
    centre = np.array([0.3689, 0.117, 0.2673])  # of the first peak; the third is far from it
    lower = hartmann(centre, 0.0) - hartmann(centre)
    assert 0.1 < lower < 0.4
    curves = hartmann_curves(max_resource=4)
    (full,) = curves.values([HARTMANN6], 4)
    (half,) = curves.values([HARTMANN6], 2)
    assert full == pytest.approx(-3.32236801)
    assert full < half < full + 0.05 * 4
    assert curves.unit_times([HARTMANN6] * 3).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("dimensions", "lower", "kept"), [(3, None, 20), (6, None, 20), (6, 2.8, 20), (6, 3.2, 7)]
)
def test_hartmann_curves_fall_to_the_function_and_some_mislead(
    dimensions: int, lower: float | None, kept: int
) -> None:
    curves = hartmann_curves(dimensions=dimensions, lower=lower)
    configs = curves.space.sample(2000, default_rng(0))
    steps = [curves.values(configs, resource) for resource in (1, 3, 27, 81)]
    assert all((later < earlier).all() for earlier, later in pairwise(steps))
    assert steps[-1] == pytest.approx([hartmann(np.array(list(config.values()))) for config in configs])
    first, last = (step.argsort() for step in (steps[0], steps[-1]))
    assert len({*first[:667].tolist()} & {*last[:20].tolist()}) == kept


@pytest.mark.parametrize("seed", range(5))
def test_early_ranks_of_learning_curves_correlate_with_final_ones(seed: int) -> None:
    curves = power_law(seed)
    configs = curves.space.sample(4000, default_rng(1))
    ranks = [curves.values(configs, r).argsort().argsort() for r in (1, 9, 81)]
    first, middle, last = (float(np.corrcoef(rank, ranks[-1])[0, 1]) for rank in ranks)
    assert 0.2 < first < middle < 0.995 < last


def test_learning_curves_fall_with_the_resource_and_the_widest_take_four_times_as_long() -> None:
    curves = power_law(3)
    configs = curves.space.sample(500, default_rng(0))
    steps = [curves.values(configs, r) for r in (1, 2, 27, 81)]
    assert all((later < earlier).all() for earlier, later in pairwise(steps))
    assert (steps[-1] > 0.05).all()
    times = curves.unit_times([{**configs[0], "width": 32}, {**configs[0], "width": 2048}])
    assert times[1] / times[0] == pytest.approx(4.0, rel=0.02)


def test_crossing_curves_end_best_where_they_begin_worst() -> None:
    curves = power_law(1, crossing=True)
    configs = curves.space.sample(2000, default_rng(0))
    steps = [curves.values(configs, resource) for resource in (1, 3, 9, 81)]
    assert all((later <= earlier).all() for earlier, later in pairwise(steps))
    first, _, middle, _ = (np.corrcoef(step.argsort().argsort(), steps[-1])[0, 1] for step in steps)
    assert first < -0.7
    assert middle > 0.7


def test_another_seed_is_another_task() -> None:
    configs = power_law(0).space.sample(50, default_rng(0))
    assert (power_law(0).values(configs, 81) == power_law(0).values(configs, 81)).all()
    assert power_law(0).values(configs, 81).argmin() != power_law(1).values(configs, 81).argmin()
