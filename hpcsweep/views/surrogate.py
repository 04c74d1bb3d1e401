"""A model of the objective over the whole space, made of what a sweep has seen.

A smooth additive part (Legendre polynomials of each parameter, ridge regression) and, for what that
leaves over (steps, parameters that work together), extremely randomised trees (Geurts et al. 2006);
both are bagged (Breiman 1996), so that each replicate tells how sure the model is.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from hpcsweep.core.domains import Choice, Floats
from hpcsweep.core.space import Space

REPLICATES: Final = 24
#: Positions in the space at which the model is evaluated; a power of two, for Sobol' points.
POINTS: Final = 8192
#: At most so many columns of polynomials in all, and of so high a degree.
_COLUMNS: Final = 160
_DEGREE: Final = 8
#: Ridge penalties for each trial, of which leave-one-out chooses.
_PENALTIES: Final = np.logspace(-8, 1, 19)


class Fitted(NamedTuple):
    """The bagged model at positions that are spread evenly over the space.

    Attributes:
        unit: The positions `(m, d)`, NaN where inactive.
        replicates: Prediction of each replicate `(b, m)`.
        held_out: Prediction for each trial `(n,)` by the replicates that have not seen it.
    """

    unit: Floats
    replicates: Floats
    held_out: Floats


def spread(space: Space) -> Floats:
    """Positions `(m, d)` of valid configurations, evenly over the space; NaN where inactive."""
    if space.constraints:
        return space.to_unit(space.sample(POINTS, np.random.default_rng(0)))
    from scipy.stats import qmc

    cube = qmc.Sobol(len(space.columns), seed=0).random(POINTS)
    return space.to_unit(space.from_unit(cube))


def fit(space: Space, unit: Floats, values: Floats, at: Floats) -> Fitted:
    """The model of `values` `(n,)` at `unit` `(n, d)`, evaluated at `at` `(m, d)`.

    What it predicts stays within the range of the values.
    """
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import RidgeCV
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    count = len(values)
    smooth, smooth_at = _smooth(space, unit), _smooth(space, at)
    plain, plain_at = numbers(space, unit), numbers(space, at)
    replicates = np.empty((REPLICATES, len(at)))
    total, times = np.zeros(count), np.zeros(count)
    with threadpool_limits(1):  # more threads take thrice as long over arrays as small as these
        for replicate in range(REPLICATES):
            rows = rng.integers(0, count, count)
            out = np.setdiff1d(np.arange(count), rows)
            ridge = RidgeCV(_PENALTIES * count).fit(smooth[rows], values[rows])
            trees = ExtraTreesRegressor(8, min_samples_leaf=3, random_state=replicate)
            trees.fit(plain[rows], values[rows] - ridge.predict(smooth[rows]))
            replicates[replicate] = ridge.predict(smooth_at) + trees.predict(plain_at)
            if len(out):
                total[out] += ridge.predict(smooth[out]) + trees.predict(plain[out])
                times[out] += 1
    # With 24 replicates one trial in 60,000 is in all of them: the mean stands for it.
    held_out = np.where(times > 0, total / np.maximum(times, 1), values.mean())
    low, high = values.min(), values.max()
    return Fitted(at, np.clip(replicates, low, high), np.clip(held_out, low, high))


def numbers(space: Space, unit: Floats) -> Floats:
    """Columns for what compares or measures distances; one for each value of a choice."""
    columns: list[NDArray[np.generic]] = []
    for column, parameter in zip(unit.T, space.columns, strict=True):
        active = ~np.isnan(column)
        if isinstance(parameter.domain, Choice):
            columns += _indicators(column, parameter.domain.size)
        else:
            columns.append(np.where(active, column, -0.5))
    return np.column_stack(columns).astype(float)


def _smooth(space: Space, unit: Floats) -> Floats:
    """Columns of the additive part; those that vary more quickly are scaled down, so shrunk more.

    All columns of a parameter are 0 where it is inactive; a column of its own tells where that is.
    """
    degree = max(2, min(_DEGREE, _COLUMNS // len(space.columns)))
    columns: list[NDArray[np.generic]] = [np.zeros(len(unit))]  # there may be nothing to choose from
    for column, parameter in zip(unit.T, space.columns, strict=True):
        active = ~np.isnan(column)
        size = parameter.domain.size
        if parameter.when:
            columns.append(active)
        if isinstance(parameter.domain, Choice):
            assert size is not None
            columns += [active * (own - 1 / size) * size**0.5 for own in _indicators(column, size)]
        else:
            highest = degree if size is None else min(degree, size - 1)
            series = legendre.legvander(2 * np.nan_to_num(column) - 1, highest)
            columns += [active * series[:, k] * np.sqrt(2 * k + 1) / k for k in range(1, highest + 1)]
    return np.column_stack(columns).astype(float)


def _indicators(column: Floats, size: int) -> list[NDArray[np.bool_]]:
    """Where each value of a choice is taken; nowhere where it is inactive."""
    cell = np.floor(np.nan_to_num(column, nan=-1) * size)
    return [cell == value for value in range(size)]
