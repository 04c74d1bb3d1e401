"""The Gaussian process: values made fit for it, its kernel, and its hyperparameters."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from hpcsweep.core.history import Floats, Ints

#: Values further from the median than this, in median absolute deviations, count as so far.
FURTHEST: Final = 1000.0
#: Range of the power transform's parameter; 1 leaves the values as they are.
POWERS: Final = (-2.0, 4.0)
#: Mean and standard deviation of the logarithm of the noise variance, before any value was seen: nearly
#: none, but it may be as large as the signal.
NOISE_PRIOR: Final = (-6.0, 2.0)
NOISES: Final = (1e-6, 10.0)
#: Mean and standard deviation of the logarithm of a lengthscale in one dimension.
LENGTHSCALE_PRIOR: Final = (math.sqrt(2), math.sqrt(3))
LENGTHSCALES: Final = (0.01, 1e4)
#: Steps of L-BFGS-B for the hyperparameters.
MOST_STEPS: Final = 75
#: Of more observations than this, so many are fitted first; all of them follow for a few steps from there.
FEW: Final = 160
LAST_STEPS: Final = 8
#: Added to the kernel's diagonal, of variance 1.
JITTER: Final = 1e-8


class Model(NamedTuple):
    """A Gaussian process of variance 1 with a Matern-5/2 kernel.

    Attributes:
        lengthscales: Of each feature, `(f,)`.
        noise: Variance of an observation's noise.
        mean: Far from all observations.
    """

    lengthscales: Floats
    noise: float
    mean: float

    def kernel(self, a: Floats, b: Floats) -> Floats:
        """Covariances `(n, m)` of points `(n, f)` and `(m, f)`."""
        s = scaled_distances(a / self.lengthscales, b / self.lengthscales)
        return matern(s, np.exp(-s))


def scaled_distances(a: Floats, b: Floats) -> Floats:
    """The root of 5 times the distances `(n, m)` of points `(n, f)` and `(m, f)`."""
    squared = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * (a @ b.T)
    np.maximum(squared, 0, out=squared)
    squared *= 5
    distances: Floats = np.sqrt(squared, out=squared)
    return distances


def matern(s: Floats, decay: Floats) -> Floats:
    """The Matern-5/2 kernel at `scaled_distances`, `decay` is exp(-s) (Rasmussen and Williams 2006, 4.17)."""
    kernel: Floats = (1 + s + s * s / 3) * decay
    return kernel


def align_resources(values: Floats, resources: Ints, trials: Ints) -> Floats:
    """Values `(n,)` as if all were seen at the largest resource, but for what is a configuration's own.

    All values of a resource are moved by the median change of those trials that were also seen at the
    next larger resource that any of them reached. Only pairs count, since those that are trained further
    are the better ones; values without any such pair stay as they are relative to the next resource.
    """
    moved = values.copy()
    levels = np.unique(resources)[::-1]
    shifts = dict.fromkeys(levels.tolist(), 0.0)
    for position, level in enumerate(levels.tolist()):
        here = (resources == level) & np.isfinite(values)
        for above in levels[:position][::-1].tolist():
            there = (resources == above) & np.isfinite(values)
            _, lower, upper = np.intersect1d(trials[here], trials[there], return_indices=True)
            if len(lower):
                shifts[level] = shifts[above] + float(np.median(values[there][upper] - values[here][lower]))
                break
        else:
            shifts[level] = shifts[levels[max(position - 1, 0)]]
        moved[here] += shifts[level]
    return moved


def transform_values(values: Floats) -> Floats:
    """Values `(n,)` of mean 0 and variance 1, close to normally distributed, in the same order.

    By the power transform of Yeo and Johnson 2000 with the parameter of greatest likelihood: objectives
    often have a long tail of bad values, next to which all good ones would look the same. A failure (NaN)
    is as bad as the worst value.
    """
    from scipy.optimize import minimize_scalar

    known = np.isfinite(values)
    found = values[known]
    found = found / max(np.abs(found).max(initial=0), 1e-300)
    if len(found) == 0 or np.ptp(found) == 0:
        raise ValueError("there are no two different values")
    away = found - np.median(found)
    spread = np.median(np.abs(away)) or away.std()
    away = np.clip(away / spread, -FURTHEST, FURTHEST)
    logs = np.sign(away) @ np.log1p(np.abs(away))

    def loss(power: float) -> float:
        """Minus the logarithm of the likelihood (Yeo and Johnson 2000, 3.1)."""
        return float(0.5 * len(away) * np.log(_power(away, power).var()) - (power - 1) * logs)

    powered = _power(away, minimize_scalar(loss, bounds=POWERS, method="bounded").x)
    result = np.full(len(values), powered.max())
    result[known] = powered
    normal: Floats = (result - result.mean()) / result.std()
    return normal


def _power(values: Floats, power: float) -> Floats:
    """The transform of Yeo and Johnson, as in `scipy.stats`, which takes half a second to import."""
    from scipy.special import boxcox1p

    found: Floats = np.sign(values) * boxcox1p(np.abs(values), np.where(values < 0, 2 - power, power))
    return found


def fit_model(points: Floats, values: Floats) -> Model:
    """The model of points `(n, f)` and values `(n,)` with the most probable hyperparameters.

    The prior of the lengthscales grows with the square root of the number of features (Hvarfner et
    al. 2024, Vanilla Bayesian optimization performs great in high dimensions). Of many observations
    some are fitted first, from where all of them need few steps. Where the fit fails for numerical
    reasons, the model is a wide one with some noise.
    """
    features = points.shape[1]
    logs = np.log([*[0.5 * math.sqrt(features)] * features, 0.1])
    if len(points) > FEW:
        rows = np.linspace(0, len(points) - 1, FEW).astype(int)
        logs = _most_probable(points[rows], values[rows], logs, MOST_STEPS)
        logs = _most_probable(points, values, logs, LAST_STEPS)
    else:
        logs = _most_probable(points, values, logs, MOST_STEPS)
    likelihood = Likelihood(points, values)
    likelihood(logs)
    return Model(np.exp(logs[:-1]), math.exp(logs[-1]), likelihood.mean)


def _most_probable(points: Floats, values: Floats, logs: Floats, steps: int) -> Floats:
    """Logarithms of lengthscales and noise, `(f + 1,)`, after so many steps of L-BFGS-B from `logs`."""
    from scipy.optimize import minimize

    bounds = [tuple(np.log(LENGTHSCALES))] * (len(logs) - 1) + [tuple(np.log(NOISES))]
    found = minimize(
        Likelihood(points, values),
        logs,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": steps},
    )
    best: Floats = found.x
    return best if np.isfinite(best).all() and np.isfinite(found.fun) else logs


class Likelihood:
    """Minus the logarithm of the posterior of hyperparameters, for each observation, with its gradient.

    Rasmussen and Williams 2006, 5.8 and 5.9; the mean is the one of generalised least squares, 2.42.

    Args:
        points: Observed ones, `(n, f)`.
        values: Theirs, `(n,)`.

    Attributes:
        mean: Of the hyperparameters that it was called with last.
    """

    def __init__(self, points: Floats, values: Floats) -> None:
        self._points, self._values = points, values
        location, spread = LENGTHSCALE_PRIOR
        features = points.shape[1]
        self._locations = np.array([*[location + 0.5 * math.log(features)] * features, NOISE_PRIOR[0]])
        self._spreads = np.array([*[spread] * features, NOISE_PRIOR[1]])
        self.mean = 0.0

    def __call__(self, logs: Floats) -> tuple[float, Floats]:
        """At logarithms of lengthscales and noise, `(f + 1,)`: the value and its gradient."""
        from scipy.linalg.lapack import dpotrf, dpotri

        n = len(self._points)
        scaled = self._points / np.exp(logs[:-1])
        s = scaled_distances(scaled, scaled)
        decay = np.exp(-s)
        covariance = matern(s, decay)
        noise = math.exp(logs[-1])
        covariance.flat[:: n + 1] = 1 + noise + JITTER
        root, failed = dpotrf(covariance.T, lower=1, overwrite_a=1)  # symmetric: the transpose costs no copy
        if failed:
            return 1e10, np.zeros(len(logs))
        determinant = 2 * float(np.log(root.diagonal()).sum())
        inverse, _ = dpotri(root, lower=1, overwrite_c=1)
        inverse = np.tril(inverse)
        inverse += np.tril(inverse, -1).T
        sums = inverse.sum(axis=1)
        self.mean = float(sums @ self._values / sums.sum())
        residuals = self._values - self.mean
        weights = inverse @ residuals
        likelihood = -0.5 * (float(residuals @ weights) + determinant + n * math.log(2 * math.pi))
        outer = np.multiply.outer(weights, weights)
        outer -= inverse
        gradient = np.empty(len(logs))
        gradient[-1] = 0.5 * noise * outer.trace()
        # d kernel / d log lengthscale = 5 / 3 (1 + s) exp(-s) times the squared distance in that feature.
        s += 1
        s *= decay
        s *= outer
        products = np.einsum("ij,ij->j", scaled, s @ scaled)
        gradient[:-1] = 5 / 3 * (s.sum(axis=1) @ (scaled * scaled) - products)
        away = (logs - self._locations) / self._spreads
        prior = -float((logs + 0.5 * away * away).sum())
        return -(likelihood + prior) / n, -(gradient - 1 - away / self._spreads) / n
