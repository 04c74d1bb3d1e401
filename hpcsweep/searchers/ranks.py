"""What searchers for one value see in the place of several objectives: ranks, or scalarisations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.random import Generator

from hpcsweep.core import pareto
from hpcsweep.core.domains import Floats
from hpcsweep.core.history import History, Ints

#: So many of the first places are given with care.
MOST: Final = 25


def ranks(history: History) -> Floats:
    """A number for each observation that orders those of a resource, `(m,)`: the better the smaller.

    With one objective its values. With several the place by non-dominated sorting, among the results at the
    same resource, and within a front by the hypervolume that each adds (Ozaki et al. 2020, MOTPE); NaN for a
    failure.
    """
    if not history.objectives.several:
        return history.values
    points, violations, resources = history.points, history.violations, history.resources
    places = np.full(len(points), np.nan)
    for resource in np.unique(resources):
        rows = np.flatnonzero((resources == resource) & ~np.isnan(points[:, 0]))
        if len(rows):
            places[rows[_order(points[rows], violations[rows])]] = np.arange(len(rows))
    return places


def _order(points: Floats, violations: Floats) -> Ints:
    """Indices of points `(n, k)`, best first: front by front, the first `MOST` by hypervolume."""
    reference = pareto.reference_point(points, violations)
    order: list[int] = []
    for front in pareto.fronts(points, violations):
        left = MOST - len(order)
        if left > 0:
            front = front[pareto.by_hypervolume(points[front], reference, most=left)]
        order += front.tolist()
    return np.array(order, dtype=np.int64)


def scalarisations(history: History, count: int, rng: Generator) -> Iterator[Floats]:
    """One value for each observation, to be minimised, `(m,)`, for each of `count` random trade-offs.

    The augmented Tchebycheff norm (Knowles 2006, ParEGO) of objectives that are scaled to the range of the
    front. What is beyond a bound is worse than all that is not, by how far; NaN for a failure.
    """
    points, violations = history.points, history.violations
    valued = ~np.isnan(points[:, 0])
    of, beyond = points[valued], violations[valued]
    front = of[pareto.front(of, beyond)]
    low, high = front.min(axis=0), front.max(axis=0)
    # Where the front has but one value, by the range of what is no outlier.
    high = np.where(high > low, high, pareto.reference_point(of, beyond))
    scaled = (points - low) / np.maximum(high - low, 1e-300)
    for weights in pareto.trade_off_weights(count, points.shape[1], rng):
        values = pareto.tchebycheff(scaled, weights)
        feasible = valued & (violations <= 0)
        worst = values[feasible].max() if feasible.any() else 0.0
        yield np.where(violations > 0, worst + violations, values)
