"""How much each parameter matters: its share of the variance of the objective over the whole space.

Functional analysis of variance, as by Hutter, Hoos and Leyton-Brown, "An Efficient Approach for
Assessing Hyperparameter Importance" (ICML 2014), of another model than their forest, which errs ten times
as much over additive functions: a smooth additive part (Legendre polynomials of each parameter, ridge
regression) and, for what that leaves over (steps, interactions), extremely randomised trees (Geurts et al.
2006). Both are bagged (Breiman 1996), so that the replicates show how certain the model is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from hpcsweep.core.domains import Choice, Floats
from hpcsweep.core.space import Parameter, Space
from hpcsweep.views.resource_values import LEAST, Values, values_of

if TYPE_CHECKING:
    from hpcsweep.views.results import Results

#: More values than that are thinned to as many.
MOST: Final = 2000
#: A value is an outlier if it is worse than the median by so many times what that is worse than the
#: best 5 %.
_FENCE: Final = 30.0
#: Slices into which the range of a parameter is cut.
_SLICES: Final = 32
#: Half of the interval in standard deviations of the replicates, and what it is at least: chosen so
#: that nine in ten hold the truth on functions whose shares are known.
_WIDTH: Final = 2.0
_PRECISION: Final = 0.01


class Importance(NamedTuple):
    """One parameter's share of the variance, from 0 to 1, with an interval of about 90 %."""

    name: str
    share: float
    low: float
    high: float


class Analysis(NamedTuple):
    """The shares of all parameters, the most important one first, and what they are of."""

    parameters: tuple[Importance, ...]
    resource: int
    values: int  # one for each configuration with a value at that resource
    configurations: int  # with a value at any resource
    used: int  # values, drawn at random, that went into the model
    clipped: int  # outliers among these, which count as the worst of the others
    explained: float  # R² on values that the model had not seen

    @property
    def interactions(self) -> float:
        """The share that is due to interactions of parameters."""
        return max(0.0, 1.0 - sum(parameter.share for parameter in self.parameters))


_KNOWN: WeakKeyDictionary[Results, dict[tuple[int, int], Analysis | None]] = WeakKeyDictionary()


def importances(results: Results, objective: int = 0) -> tuple[Importance, ...]:
    """The shares of all parameters but constants, the most important first; empty if unknown."""
    known = analysis(results, objective)
    return () if known is None else known.parameters


def analysis(results: Results, objective: int = 0, resource: int | None = None) -> Analysis | None:
    """The shares, computed once; None with fewer than `LEAST` values or if all are the same.

    Args:
        results: Of the sweep.
        objective: Its index.
        resource: At which values are compared; None: the one of `values_of`.
    """
    known = _KNOWN.setdefault(results, {})
    sample = values_of(results, objective, resource)
    key = objective, sample.resource
    if key not in known:
        known[key] = _analysis(results, objective, sample)
    return known[key]


def _analysis(results: Results, objective: int, sample: Values) -> Analysis | None:
    space = results.space
    count = len(sample.values)
    if count < LEAST or not space.columns:
        return None
    rows = np.arange(count)
    if count > MOST:
        rows = np.sort(np.random.default_rng(0).choice(count, MOST, replace=False))
    unit = space.to_unit([sample.configs[row] for row in rows])
    raw = sample.values[rows] * results.objectives[objective].sign
    raw /= np.abs(raw).max() or 1.0  # shares have no scale, and squares of 1e200 are no numbers
    at = spread(space)
    # Those beyond the fence count as much as the worst that is not.
    worst = raw[raw <= _fence(space, unit, raw, at)].max()
    values, clipped = np.minimum(raw, worst), int((raw > worst).sum())
    if values.min() == values.max():
        return None
    values = (values - values.min()) / (values.max() - values.min())
    fitted = fit(space, unit, values, at)
    shares = _shares(space, at, fitted.replicates.mean(axis=0))
    sigma = np.std([_shares(space, at, replicate) for replicate in fitted.replicates], axis=0)
    # What the model misses is noise, or parameters working together: then all shares are smaller.
    seen = min(1.0, float(fitted.held_out.var() / values.var()))
    margin = _WIDTH * sigma + _PRECISION
    lows, highs = np.clip(shares * seen - margin, 0, 1), np.clip(shares + margin, 0, 1)
    parameters = (
        Importance(parameter.name, float(share), float(low), float(high))
        for parameter, share, low, high in zip(space.columns, shares, lows, highs, strict=True)
    )
    return Analysis(
        tuple(sorted(parameters, key=lambda parameter: -parameter.share)),
        resource=sample.resource,
        values=count,
        configurations=sample.configurations,
        used=len(rows),
        clipped=clipped,
        explained=float(1 - np.mean((values - fitted.held_out) ** 2) / values.var()),
    )


def _fence(space: Space, unit: Floats, values: Floats, at: Floats) -> float:
    """Values (to be minimised) beyond this are outliers, such as losses that exploded.

    Quantiles are those over the space, in which each position has the value of its nearest trial: a
    searcher that stays where it is good does not make everything else an outlier.
    """
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(numbers(space, unit)).query(numbers(space, at[:1024]))
    good, middle = np.quantile(values[nearest], (0.05, 0.5))
    return float(middle + _FENCE * (middle - good)) if middle > good else np.inf


def _shares(space: Space, at: Floats, values: Floats) -> Floats:
    """First-order shares `(d,)` of the variance of `values` `(m,)` at evenly spread positions `(m, d)`."""
    total = values.var()
    columns = zip(at.T, space.columns, strict=True)
    variances = [_explained(column, parameter, values) for column, parameter in columns]
    return np.array(variances) / total if total > 0 else np.zeros(len(variances))


def _explained(column: Floats, parameter: Parameter, values: Floats) -> float:
    """Variance of `values` that a parameter explains: that of the means of its slices.

    A conditional parameter explains variance only where it is active: P(active) times the variance of
    E[value | its value, active]. By the law of total variance that adds up with the share of the
    parameter that switches it on, Var(E[value | parent]). What the chance of the draw adds to
    the variance of the means is taken off (Hays' omega squared).
    """
    active = ~np.isnan(column)
    count = int(active.sum())
    slices = max(2, min(_SLICES, count // 64))
    size = parameter.domain.size
    if size is not None and (size <= slices or isinstance(parameter.domain, Choice)):
        slices = size
    slice_of = np.minimum((column[active] * slices).astype(np.int64), slices - 1)
    own = values[active]
    counts = np.bincount(slice_of, minlength=slices)
    used = counts > 0
    if used.sum() < 2:
        return 0.0
    means = np.bincount(slice_of, own, minlength=slices)[used] / counts[used]
    between = float(np.average((means - own.mean()) ** 2, weights=counts[used]))
    within = max(0.0, float(own.var()) - between)
    chance = within * (used.sum() - 1) / max(1, count - used.sum())
    return max(0.0, float(between - chance)) * count / len(values)


REPLICATES: Final = 24
#: Positions in the space at which the model is evaluated; a power of two, for Sobol' points.
POINTS: Final = 8192
#: At most so many columns of polynomials in all, and of so high a degree.
_COLUMNS: Final = 160
_DEGREE: Final = 8
#: Ridge penalties for each trial, of which leave-one-out chooses.
_PENALTIES: Final = np.logspace(-8, 1, 19)


class Fitted(NamedTuple):
    """The bagged model: each replicate at `m` positions, and each trial by those that have not seen it."""

    replicates: Floats  # (b, m)
    held_out: Floats  # (n,)


def spread(space: Space) -> Floats:
    """Positions `(m, d)` of valid configurations, evenly over the space; NaN where inactive."""
    if space.constraints:
        return space.to_unit(space.sample(POINTS, np.random.default_rng(0)))
    from scipy.stats import qmc

    cube = qmc.Sobol(len(space.columns), seed=0).random(POINTS)
    return space.to_unit(space.from_unit(cube))


def fit(space: Space, unit: Floats, values: Floats, at: Floats) -> Fitted:
    """The model of `values` `(n,)` at `unit` `(n, d)`, evaluated at `at` `(m, d)`, within their range."""
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
    return Fitted(np.clip(replicates, low, high), np.clip(held_out, low, high))


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
