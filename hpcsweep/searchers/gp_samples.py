"""Samples of a Gaussian process, and noisy expected improvement over them, to which a batch is added."""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hpcsweep.core.history import Floats
from hpcsweep.searchers.gp_model import JITTER, Model, matern, scaled_distances

#: How many samples stand for what is not known: the true values at noisy and at pending points.
SAMPLES: Final = 32
#: Blocks of rows of a triangular matrix of which the zeros beside them are left out.
BLOCKS: Final = 4
#: Columns up to which a product is made one by one: libraries are slow with matrices so narrow.
NARROW: Final = 3
#: Rows that are reserved for added points, and again whenever they are used up.
ROOM: Final = 64


class PosteriorSamples:
    """Functions drawn from the Gaussian process, given what was observed; each is known at the same points.

    The improvement of a further point is its expected improvement over the best of these points, on
    average over the functions. So noisy values (Letham et al. 2019, Constrained Bayesian optimization with
    noisy experiments, section 4) and pending points (Snoek et al. 2012, Practical Bayesian optimization,
    section 3.2) are integrated out, and a point that was added is pending from then on. All of it is the
    inverse of one triangular matrix, to which an added point is one more row.

    Args:
        model: The Gaussian process.
        points: Observed ones, `(n, f)`.
        values: Theirs, `(n,)`.
        others: Points without a value, `(p, f)`, pending ones for example.
        counts: Which of all these an improvement is over, `(n + p,)`.
        rng: Of the draws.
    """

    def __init__(
        self,
        model: Model,
        points: Floats,
        values: Floats,
        *,
        others: Floats,
        counts: NDArray[np.bool_],
        rng: Generator,
    ) -> None:
        from scipy.linalg import cho_solve, solve_triangular

        self.model, self._rng = model, rng
        known = np.concatenate([points, others])
        n, b = len(points), len(known)
        covariance = model.kernel(known, known)
        root = _root(covariance, JITTER)
        # Matheron's rule: a draw of the prior, corrected by what it is off at the observations.
        prior = root @ rng.standard_normal((b, SAMPLES))
        noise = math.sqrt(model.noise) * rng.standard_normal((n, SAMPLES))
        error = (values - model.mean)[:, None] - prior[:n] - noise
        observed = _root(covariance[:n, :n], model.noise + JITTER)
        drawn = prior + covariance[:, :n] @ cho_solve((observed, True), error, check_finite=False)
        inverse = solve_triangular(root, np.eye(b), lower=True, check_finite=False)
        self._count = b
        self._points = np.empty((b + ROOM, points.shape[1]))  # over the lengthscales
        self._points[:b] = known / model.lengthscales
        self._inverse = np.zeros((b + ROOM, b + ROOM))
        self._inverse[:b, :b] = inverse
        self._weights = np.zeros((b + ROOM, SAMPLES))
        self._weights[:b] = inverse.T @ (inverse @ drawn)
        self._best = drawn[counts].min(axis=0)
        #: Indices of the points that count, the one of lowest mean first.
        self.order: NDArray[np.int64] = np.argsort(drawn[counts].mean(axis=1), kind="stable")

    def covariances(self, points: Floats) -> Floats:
        """Of the known points with `(m, f)`, `(b, m)`."""
        s = scaled_distances(self._points[: self._count], points / self.model.lengthscales)
        return matern(s, np.exp(-s))

    def whitened(self, covariances: Floats) -> Floats:
        """`covariances`, `(b, m)`, with the known points made independent."""
        return triangular_product(self._inverse[: self._count, : self._count], covariances)

    def moments(self, covariances: Floats, whitened: Floats) -> tuple[Floats, Floats]:
        """Mean of each function `(m, s)` and their common variance `(m,)`."""
        variance = 1 - np.einsum("ij,ij->j", whitened, whitened)
        return covariances.T @ self._weights[: self._count], np.maximum(variance, JITTER)

    def improvement(self, means: Floats, variance: Floats) -> Floats:
        """Logarithm of the expected improvement, `(m,)`, however small it is."""
        deviation = np.sqrt(variance)[:, None]
        logs = log_improvement((self._best - means) / deviation)
        top = logs.max(axis=1)
        average: Floats = np.log(np.exp(logs - top[:, None]).mean(axis=1)) + top + np.log(deviation[:, 0])
        return average

    def at(self, points: Floats) -> Floats:
        """`improvement` at points `(m, f)`."""
        covariances = self.covariances(points)
        return self.improvement(*self.moments(covariances, self.whitened(covariances)))

    def slopes(self, points: Floats) -> tuple[Floats, Floats]:
        """`improvement` at points `(m, f)`, and its gradient, `(m, f)`."""
        b, lengthscales = self._count, self.model.lengthscales
        scaled = points / lengthscales
        s = scaled_distances(self._points[:b], scaled)
        decay = np.exp(-s)
        covariances = matern(s, decay)
        whitened = self.whitened(covariances)
        means, variance = self.moments(covariances, whitened)
        deviation = np.sqrt(variance)
        u = (self._best - means) / deviation[:, None]
        logs = log_improvement(u)
        top = logs.max(axis=1)
        shares = np.exp(logs - top[:, None])
        total = shares.sum(axis=1)
        found = np.log(total / SAMPLES) + top + np.log(deviation)
        # d log EI / d mean and d deviation, then by the chain rule through the covariances.
        rates = shares / total[:, None] * np.exp(_log_cdf(u) - logs)
        by_deviation = (1 - (rates * u).sum(axis=1)) / deviation
        by_variance = np.where(variance > JITTER, by_deviation / (2 * deviation), 0.0)
        by_covariance = self._weights[:b] @ (-rates / deviation[:, None]).T
        by_covariance -= (
            2 * by_variance * triangular_product(self._inverse[:b, :b], whitened, transposed=True)
        )
        # d kernel / d x = -5 / 3 (1 + s) exp(-s) (x - x') / lengthscale^2.
        by_covariance *= (-5 / 3) * (1 + s) * decay
        gradient = by_covariance.sum(axis=0)[:, None] * scaled - by_covariance.T @ self._points[:b]
        return found, gradient / lengthscales

    def add(self, point: Floats) -> tuple[Floats, float, Floats]:
        """Draw each function at one more point, `(f,)`.

        Gives the new row for `whitened` of other points: its covariances `(b,)` with the known ones, its
        deviation and the draws `(s,)` that the means change by.
        """
        covariances = self.covariances(point[None])
        row = self.whitened(covariances)
        means, variance = self.moments(covariances, row)
        deviation, draws = math.sqrt(variance[0]), self._rng.standard_normal(SAMPLES)
        b = self._count
        if b == len(self._points):
            self._points = np.pad(self._points, ((0, ROOM), (0, 0)))
            self._inverse = np.pad(self._inverse, (0, ROOM))
            self._weights = np.pad(self._weights, ((0, ROOM), (0, 0)))
        last = -(row[:, 0] @ self._inverse[:b, :b]) / deviation
        self._inverse[b, :b], self._inverse[b, b] = last, 1 / deviation
        self._weights[:b] += np.multiply.outer(last, draws)
        self._weights[b] = draws / deviation
        self._points[b] = point / self.model.lengthscales
        self._count = b + 1
        self._best = np.minimum(self._best, means[0] + deviation * draws)
        return row[:, 0], deviation, draws


class Candidates:
    """Points whose improvement is kept up to date while points are added to the samples.

    Args:
        samples: What the improvement is over.
        points: The candidates, `(m, f)`.
    """

    def __init__(self, samples: PosteriorSamples, points: Floats) -> None:
        self._samples, self._points = samples, points
        covariances = samples.covariances(points)
        whitened = samples.whitened(covariances)
        self._means, self._variance = samples.moments(covariances, whitened)
        self._count = len(whitened)
        self._whitened = np.concatenate([whitened, np.empty((ROOM, len(points)))])

    def extend(self, points: Floats) -> None:
        """More candidates, `(m, f)`."""
        joining = Candidates(self._samples, points)
        self._points = np.concatenate([self._points, points])
        self._means = np.concatenate([self._means, joining._means])
        self._variance = np.concatenate([self._variance, joining._variance])
        room = len(self._whitened) - self._count
        self._whitened = np.concatenate(
            [self._whitened, np.pad(joining._whitened[: self._count], ((0, room), (0, 0)))], axis=1
        )

    def improvement(self) -> Floats:
        """Logarithm of the expected improvement of each, `(m,)`."""
        return self._samples.improvement(self._means, self._variance)

    def add(self, point: Floats) -> None:
        """Add a point to the samples, `(f,)`: one row, whatever is known already."""
        covariance = self._samples.model.kernel(point[None], self._points)[0]
        row, deviation, draws = self._samples.add(point)
        b = self._count
        if b == len(self._whitened):
            self._whitened = np.pad(self._whitened, ((0, ROOM), (0, 0)))
        new = (covariance - row @ self._whitened[:b]) / deviation
        self._whitened[b] = new
        self._count = b + 1
        self._means = self._means + np.multiply.outer(new, draws)
        self._variance = np.maximum(self._variance - new * new, JITTER)


def optimise_candidates(
    samples: PosteriorSamples, starts: Floats, *, free: NDArray[np.bool_], steps: int
) -> Floats:
    """Points `(m, f)` of locally greatest improvement, by L-BFGS-B from `starts`.

    Args:
        samples: What the improvement is over.
        starts: The beginnings, `(m, f)`.
        free: Which features may be moved, within 0 and 1, `(m, f)`.
        steps: At most so many.
    """
    from scipy.optimize import minimize

    ends = starts.copy()
    if not free.any():  # all in branches without a continuous parameter
        return ends

    def loss(x: Floats) -> tuple[float, Floats]:
        ends[free] = x
        found, gradient = samples.slopes(ends)
        return -float(found.sum()), -gradient[free]

    start = starts[free]
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(start), options={"maxiter": steps}
    )
    ends[free] = found.x
    return ends


def log_improvement(u: Floats) -> Floats:
    """log(phi(u) + u Phi(u)): expected improvement of a standard normal over -u, for any u.

    Far below 0 by the scaled complementary error function, and by its asymptote 1 / u^2 beyond that
    (Ament et al. 2023, Unexpected improvements to expected improvement, section 4 and A.1).
    """
    from scipy.special import erfcx, ndtr

    half_log = 0.5 * math.log(2 * math.pi)
    found: Floats = np.empty_like(u)
    near, very_far = u > -1, u < -1e3
    far = ~(near | very_far)
    v = u[near]
    found[near] = np.log(np.exp(-0.5 * v * v - half_log) + v * ndtr(v))
    v = u[far]
    ratio = 1 + v * math.sqrt(math.pi / 2) * erfcx(v * -math.sqrt(0.5))
    found[far] = np.log(ratio) - 0.5 * v * v - half_log
    v = u[very_far]
    found[very_far] = -2 * np.log(-v) - 0.5 * v * v - half_log
    return found


def _log_cdf(u: Floats) -> Floats:
    from scipy.special import log_ndtr

    found: Floats = log_ndtr(u)
    return found


def triangular_product(lower: Floats, columns: Floats, *, transposed: bool = False) -> Floats:
    """A lower triangular matrix, or its transpose, `(b, b)` times `columns`, `(b, m)`: `(b, m)`."""
    size, count = columns.shape
    found: Floats = np.empty((size, count))
    ends = [block * size // BLOCKS for block in range(BLOCKS + 1)]
    for start, end in itertools.pairwise(ends):
        within = slice(start, None) if transposed else slice(end)
        rows = lower[within, start:end].T if transposed else lower[start:end, within]
        if count <= NARROW:
            for column in range(count):
                found[start:end, column] = rows @ columns[within, column]
        else:
            np.matmul(rows, columns[within], out=found[start:end])
    return found


def _root(covariance: Floats, diagonal: float) -> Floats:
    """Lower Cholesky factor with `diagonal` added, and more of it where that is not enough."""
    from scipy.linalg import cholesky

    raised, n = covariance.copy(), len(covariance)
    for _ in range(8):
        raised.flat[:: n + 1] = covariance.diagonal() + diagonal
        try:
            root: Floats = cholesky(raised, lower=True, check_finite=False)
            return root
        except np.linalg.LinAlgError:
            diagonal *= 10
    raise np.linalg.LinAlgError("the covariance is not positive definite")
