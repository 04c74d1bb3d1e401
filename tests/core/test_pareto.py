from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.random import default_rng
from optuna._hypervolume import wfg

from hpcsweep.core import pareto
from hpcsweep.core.objectives import dominates
from hpcsweep.core.pareto import Floats


def keys(most: int = 12) -> st.SearchStrategy[Floats]:
    """Violations and values `(n, 1 + k)` of few different numbers, so that there are ties."""
    return st.tuples(st.integers(0, most), st.integers(1, 4)).flatmap(
        lambda shape: arrays(float, (shape[0], 1 + shape[1]), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0]))
    )


@settings(deadline=None)
@given(keys())
def test_fronts_are_those_of_constrained_domination(rows: Floats) -> None:
    left = {index: tuple(row) for index, row in enumerate(rows.tolist())}
    for front in pareto.fronts(rows[:, 1:], rows[:, 0]):
        best = [i for i, row in left.items() if not any(dominates(other, row) for other in left.values())]
        assert sorted(front.tolist()) == best
        for index in best:
            del left[index]
    assert not left


@settings(deadline=None)
@given(keys())
def test_ranks_list_everybody_once_and_nobody_before_one_that_dominates_it(rows: Floats) -> None:
    order = pareto.ranked(rows[:, 1:], rows[:, 0]).tolist()
    assert sorted(order) == list(range(len(rows)))
    ranked = [tuple(rows[index].tolist()) for index in order]
    for place, row in enumerate(ranked):
        assert not any(dominates(later, row) for later in ranked[place:])
    assert pareto.ranked(rows[:, 1:], rows[:, 0], count=3).tolist() == order[:3]


@settings(deadline=None)
@given(keys())
def test_dominators_and_dominated_are_counterparts(rows: Floats) -> None:
    values, violations = rows[:, 1:], rows[:, 0]
    others = [tuple(other) for other in rows.tolist()]
    for index, row in enumerate(others):
        above = pareto.dominators(values, violations, values[index], violations[index])
        below = pareto.dominated(values, violations, values[index], violations[index])
        assert above.tolist() == [dominates(other, row) for other in others]
        assert below.tolist() == [dominates(row, other) for other in others]


def test_crowding_distance_by_hand() -> None:
    front = np.array([[0.0, 10.0], [1.0, 6.0], [2.0, 2.0], [4.0, 0.0]])
    expected = [np.inf, 2 / 4 + 8 / 10, 3 / 4 + 6 / 10, np.inf]
    assert pareto.crowding_distance(front).tolist() == pytest.approx(expected)
    assert pareto.by_crowding(front).tolist() == [0, 3, 2, 1]
    assert pareto.crowding_distance(np.array([[1.0, 1.0]])).tolist() == [0.0]


def test_an_epsilon_net_begins_in_the_middle_and_then_takes_the_farthest() -> None:
    front = np.array([[0.0, 1.0], [0.1, 0.8], [0.3, 0.3], [0.7, 0.15], [1.0, 0.0]])
    assert pareto.epsilon_net(front).tolist() == [2, 0, 4, 3, 1]
    assert pareto.epsilon_net(front[:0]).tolist() == []


def random_points(objectives: int, seed: int, count: int = 40) -> Floats:
    points: Floats = default_rng(seed).random((count, objectives)) ** 2
    return points


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_the_hypervolume_is_that_of_optuna(objectives: int) -> None:
    for seed in range(3):
        points = random_points(objectives, seed, 40 if objectives < 5 else 15)
        reference = np.full(objectives, 0.7)
        inside = points[(points < reference).all(axis=1)]
        theirs = wfg.compute_hypervolume(inside, reference)
        assert pareto.hypervolume(points, reference) == pytest.approx(theirs)


def test_points_beyond_the_reference_point_add_no_hypervolume() -> None:
    points = np.array([[0.5, 0.5], [0.0, 2.0], [1.0, 0.0]])
    assert pareto.hypervolume(points, np.ones(2)) == 0.25
    assert pareto.hypervolume(points[1:], np.ones(2)) == 0.0
    assert pareto.hypervolume(points[:0], np.ones(2)) == 0.0


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_a_contribution_is_what_is_lost_without_the_point(objectives: int) -> None:
    points = random_points(objectives, 1)
    points = points[pareto.nondominated(points)]
    reference = np.full(objectives, 0.8)
    whole = pareto.hypervolume(points, reference)
    lost = [whole - pareto.hypervolume(np.delete(points, at, axis=0), reference) for at in range(len(points))]
    assert pareto.contributions(points, reference) == pytest.approx(np.array(lost), abs=1e-12)


def test_the_reference_point_is_a_bound_or_a_tenth_beyond_what_is_no_outlier() -> None:
    values = np.column_stack([np.arange(12.0), np.append(np.arange(11.0, 0.0, -1), 1e9)])
    assert pareto.reference_point(values)[0] == pytest.approx(12.1)
    assert 11.0 < pareto.reference_point(values)[1] < 40.0
    assert pareto.reference_point(values, bounds=(5.0, None))[0] == 5.0
    infeasible = np.array([*[0.0] * 3, *[1.0] * 9])
    assert pareto.reference_point(values, infeasible).tolist() == pytest.approx([2.2, 11.2])


def test_trade_offs_cover_a_front_and_tchebycheff_takes_the_worst() -> None:
    weights = pareto.trade_off_weights(500, 3, default_rng(0))
    assert weights.sum(axis=1) == pytest.approx(np.ones(500))
    two = pareto.trade_off_weights(4000, 2, default_rng(0))[:, 0]
    assert np.histogram(two, bins=5, range=(0, 1))[0] / 4000 == pytest.approx(np.full(5, 0.2), abs=0.03)
    sphere = np.abs(default_rng(1).standard_normal((500, 3)))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    best = sphere[[pareto.tchebycheff(sphere, each).argmin() for each in weights]]
    octants = np.argsort(best, axis=1) @ [9, 3, 1]  # which is largest, which is next
    assert np.unique(octants, return_counts=True)[1].min() > 500 / 6 / 2
    assert len(np.unique(best, axis=0)) > 150
    values = np.array([[0.0, 1.0], [0.5, 0.5]])
    scalars = pareto.tchebycheff(values, np.array([0.2, 0.8]))
    assert scalars.tolist() == pytest.approx([0.8 + 0.05 * 0.8, 0.4 + 0.05 * 0.5])
