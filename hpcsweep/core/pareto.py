"""Several objectives at a time: who dominates whom, ranks, and the hypervolume of a front. Pure numpy.

Values are arrays `(n, k)`, all to be minimised and finite. `violations` `(n,)` says how far each point is
beyond its bounds, 0 for a feasible one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

#: Weight of the sum beside the largest objective (Knowles 2006, equation 2).
RHO: Final = 0.05
#: How far directions of trade-offs are from the edges at least, in standard deviations.
OFF_EDGE: Final = 0.15


def nondominated(values: Floats) -> Mask:
    """Which points no other one dominates, `(n,)`; equal points do not dominate each other."""
    if not len(values):
        return np.zeros(0, dtype=bool)
    rows, inverse = np.unique(values, axis=0, return_inverse=True)
    mask: Mask = _nondominated_rows(rows)[inverse.reshape(-1)]
    return mask


def _nondominated_rows(rows: Floats) -> Mask:
    """The same of distinct points in lexicographic order."""
    best = np.zeros(len(rows), dtype=bool)
    if rows.shape[1] == 1:
        best[0] = True
    elif rows.shape[1] == 2:
        lowest = np.minimum.accumulate(rows[:, 1])
        best[0], best[1:] = True, rows[1:, 1] < lowest[:-1]
    else:
        left = np.arange(len(rows))
        while len(left):  # the first one that is left is dominated by none
            best[left[0]] = True
            left = left[(rows[left] < rows[left[0]]).any(axis=1)]
    return best


def fronts(values: Floats, violations: Floats | None = None) -> Iterator[Ints]:
    """The points by constrained domination (Deb et al. 2002, VI): indices of one front after another.

    A feasible point is better than any that is not, and of those the one with the smaller total violation.
    """
    of = np.zeros(len(values)) if violations is None else violations
    feasible = np.flatnonzero(of <= 0)
    if len(feasible):
        rows, inverse = np.unique(values[feasible], axis=0, return_inverse=True)  # sorted once for all fronts
        inverse, left = inverse.reshape(-1), np.arange(len(rows))
        while len(left):
            best = _nondominated_rows(rows[left])
            here = np.zeros(len(rows), dtype=bool)
            here[left[best]] = True
            yield feasible[here[inverse]]
            left = left[~best]
    infeasible = np.flatnonzero(of > 0)
    for violation in np.unique(of[infeasible]):
        yield infeasible[of[infeasible] == violation]


def front(values: Floats, violations: Floats | None = None) -> Ints:
    """Indices of the points that are best by constrained domination."""
    return next(fronts(values, violations), np.zeros(0, dtype=np.int64))


def dominators(values: Floats, violations: Floats, value: Floats, violation: float) -> Mask:
    """Which points dominate this one, by constrained domination, `(n,)`."""
    if violation > 0:
        mask: Mask = violations < violation
    else:
        no_worse, better = (values <= value).all(axis=1), (values < value).any(axis=1)
        mask = (violations <= 0) & no_worse & better
    return mask


def dominated(values: Floats, violations: Floats, value: Floats, violation: float) -> Mask:
    """Which points this one dominates, by constrained domination, `(n,)`."""
    if violation > 0:
        mask: Mask = violations > violation
    else:
        no_better, worse = (values >= value).all(axis=1), (values > value).any(axis=1)
        mask = (violations > 0) | (no_better & worse)
    return mask


def unit(values: Floats) -> Floats:
    """The values between 0, the best one of each objective, and 1, the worst; 0 where all are equal."""
    if not len(values):
        return values
    low, high = values.min(axis=0), values.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    scaled: Floats = (values - low) / span
    return scaled


def crowding_distance(values: Floats) -> Floats:
    """How far the neighbours of each point of a front are apart, `(n,)` (Deb et al. 2002, III.B)."""
    count, objectives = values.shape
    distance = np.zeros(count)
    scaled = unit(values)
    for objective in range(objectives):
        order = np.argsort(scaled[:, objective], kind="stable")
        along = scaled[order, objective]
        if along[-1] > along[0]:
            distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += along[2:] - along[:-2]
    return distance


def by_crowding(values: Floats) -> Ints:
    """The points of a front, those in the emptiest regions first."""
    return np.argsort(-crowding_distance(values), kind="stable")


def epsilon_net(values: Floats) -> Ints:
    """The points of a front in an order whose every beginning is spread over it.

    As in MO-ASHA (Schmucker et al. 2021), on values that are scaled to the front's range.
    The first is the one nearest to the ideal point, then each one is the farthest from those before.
    """
    scaled = unit(values)
    order = np.empty(len(values), dtype=np.int64)
    apart = np.full(len(values), np.inf)
    following = int(np.argmin((scaled**2).sum(axis=1))) if len(values) else 0
    for place in range(len(values)):
        order[place] = following
        apart = np.minimum(apart, ((scaled - scaled[following]) ** 2).sum(axis=1))
        apart[following] = -1.0
        following = int(np.argmax(apart))
    return order


def ranked(
    values: Floats,
    violations: Floats | None = None,
    *,
    count: int | None = None,
    within: Callable[[Floats], Ints] = epsilon_net,
) -> Ints:
    """Indices of the `count` best points (None: all), best first: front by front, in each `within` says."""
    wanted = len(values) if count is None else min(count, len(values))
    order: list[int] = []
    for each in fronts(values, violations):
        if len(order) >= wanted:
            break
        order += each[within(values[each])].tolist()
    return np.array(order[:wanted], dtype=np.int64)


# ---------------------------------------------------------------------- hypervolume


def hypervolume(values: Floats, reference: Floats) -> float:
    """The volume that the points dominate up to the reference point; 0 where none is better than that.

    Exact: a sweep with two and three objectives, exclusive volumes with more (While et al. 2012, WFG), whose
    time grows exponentially with the number of objectives.
    """
    inside = values[(values < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    points = np.unique(inside[nondominated(inside)], axis=0)
    match points.shape[1]:
        case 1:
            return float(reference[0] - points[0, 0])
        case 2:
            return _area(points, reference)
        case 3:
            return _volume(points, reference)
        case _:
            return _exclusive_sum(points, reference)


def _area(points: Floats, reference: Floats) -> float:
    """Of a front in the order of the first objective."""
    heights = np.concatenate([reference[1:], points[:-1, 1]]) - points[:, 1]
    return float(((reference[0] - points[:, 0]) * heights).sum())


def _volume(points: Floats, reference: Floats) -> float:
    """Slice by slice along the last objective; the front of each slice grows by one point."""
    points = points[np.argsort(points[:, 2], kind="stable")]
    ends = np.append(points[1:, 2], reference[2])
    total, flat, area = 0.0, points[:0, :2], 0.0
    for point, end in zip(points, ends, strict=True):
        new = point[:2]
        if not (flat <= new).all(axis=1).any():
            flat = flat[~(flat >= new).all(axis=1)]
            at = int(np.searchsorted(flat[:, 0], new[0]))
            flat = np.insert(flat, at, new, axis=0)
            area = _area(flat, reference[:2])
        total += area * float(end - point[2])
    return total


def _exclusive_sum(points: Floats, reference: Floats) -> float:
    """The sum of what each point adds to those after it; the worst in the last objective first."""
    points = points[np.argsort(-points[:, -1], kind="stable")]
    total = 0.0
    for index, point in enumerate(points):
        limited = np.maximum(points[index + 1 :], point)
        total += float(np.prod(reference - point)) - hypervolume(limited, reference)
    return total


def contributions(values: Floats, reference: Floats) -> Floats:
    """What of the hypervolume of a front is lost without each point, `(n,)`."""
    count = len(values)
    lost = np.zeros(count)
    if values.shape[1] == 2:
        order = np.lexsort((values[:, 1], values[:, 0]))
        points = np.minimum(values[order], reference)
        right = np.append(points[1:, 0], reference[0])
        above = np.insert(points[:-1, 1], 0, reference[1])
        lost[order] = np.maximum(right - points[:, 0], 0.0) * np.maximum(above - points[:, 1], 0.0)
        return lost
    for index, point in enumerate(values):
        if (point < reference).all():
            others = np.maximum(np.delete(values, index, axis=0), point)
            lost[index] = float(np.prod(reference - point)) - hypervolume(others, reference)
    return lost


def by_hypervolume(values: Floats, reference: Floats, *, most: int) -> Ints:
    """The points of a front, each of the first `most` the one that adds most hypervolume to those before.

    The greedy choice of Ozaki et al. 2020 (MOTPE). What a point adds only shrinks as others are chosen, so
    that most of them need not be looked at again (Minoux 1978). Those beyond `most` come last.
    """
    clipped = np.minimum(values, reference)
    gains = np.prod(reference - clipped, axis=1)  # of each alone; upper bounds later
    fresh = np.zeros(len(values), dtype=np.int64)
    order: list[int] = []
    while len(order) < min(most, len(values)):
        best = int(np.argmax(gains))
        if fresh[best] == len(order) or gains[best] <= 0:
            order.append(best)
            gains[best] = -1.0
        else:
            shared = hypervolume(np.maximum(clipped[order], clipped[best]), reference)
            gains[best] = float(np.prod(reference - clipped[best])) - shared
            fresh[best] = len(order)
    rest = np.setdiff1d(np.arange(len(values)), order)
    return np.concatenate([np.array(order, dtype=np.int64), rest])


def reference_point(
    values: Floats, violations: Floats | None = None, *, bounds: Sequence[float | None] = ()
) -> Floats:
    """A point to measure the hypervolume of these from, `(k,)`.

    A bound where there is one (as minimised, None without). Else a tenth beyond the worst value, where
    values above the third quartile by more than three times the distance between the quartiles do not count
    unless they are on the front.
    """
    of = np.zeros(len(values)) if violations is None else violations
    feasible = values[of <= 0] if (of <= 0).any() else values
    low, high = feasible.min(axis=0), feasible.max(axis=0)
    first, third = np.quantile(feasible, [0.25, 0.75], axis=0)
    nadir = feasible[nondominated(feasible)].max(axis=0)
    worst = np.maximum(np.minimum(high, third + 3 * (third - first)), nadir)
    point: Floats = worst + 0.1 * np.where(worst > low, worst - low, np.maximum(np.abs(worst), 1e-12))
    for at, bound in enumerate(bounds):
        if bound is not None:
            point[at] = bound
    return point


# ---------------------------------------------------------------------- scalarisation


def trade_off_weights(count: int, objectives: int, rng: Generator) -> Floats:
    """Weights of `tchebycheff` that sum to 1, for trade-offs all over a front, `(count, objectives)`.

    With weights w a scalarisation is least where the objectives are in proportion to 1 / w. Weights drawn
    evenly (Knowles 2006) would look for the edges of a front of three objectives most of the time, so there
    the directions are drawn evenly, and a little away from the edges.
    """
    if objectives <= 2:
        even: Floats = rng.dirichlet(np.ones(objectives), size=count)
        return even
    directions = np.abs(rng.standard_normal((count, objectives))) + OFF_EDGE
    weights: Floats = 1 / directions
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def tchebycheff(values: Floats, weights: Floats) -> Floats:
    """The augmented Tchebycheff scalarisation of values between 0 and 1, `(n,)` (Knowles 2006, ParEGO)."""
    weighted = values * weights
    scalars: Floats = weighted.max(axis=1) + RHO * weighted.sum(axis=1)
    return scalars
