"""The Gaussian process: its fit, samples of its posterior, and noisy expected improvement over them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.history import Floats, Ints

if TYPE_CHECKING:
    from torch import Generator, Tensor


#: Values further from the median than this, in median absolute deviations, count as so far.
FURTHEST: Final = 1000.0
#: Range of the power transform's parameter; 1 leaves the values as they are.
POWERS: Final = (-2.0, 4.0)
#: Mean and standard deviation of the logarithm of the noise variance, before any value was seen: nearly
#: none, but it may be as large as the signal.
NOISE_PRIOR: Final = (-6.0, 2.0)
LEAST_NOISE: Final = 1e-6
#: Mean and standard deviation of the logarithm of a lengthscale in one dimension.
LENGTHSCALE_PRIOR: Final = (math.sqrt(2), math.sqrt(3))
LEAST_LENGTHSCALE: Final = 0.01
#: Steps of L-BFGS for the hyperparameters.
MOST_STEPS: Final = 75


class Model(NamedTuple):
    """A Gaussian process of variance 1 with a Matern-5/2 kernel.

    Attributes:
        lengthscales: Of each feature, `(f,)`.
        noise: Variance of an observation's noise.
        mean: Far from all observations.
    """

    lengthscales: Tensor
    noise: float
    mean: float

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Covariances `(n, m)` of points `(n, f)` and `(m, f)`."""
        a, b = a / self.lengthscales, b / self.lengthscales
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
        r = (5 * squared.clamp_min(1e-20)).sqrt()
        return (1 + r + r * r / 3) * (-r).exp()


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
    from scipy.stats import yeojohnson, yeojohnson_llf

    known = np.isfinite(values)
    found = values[known]
    found = found / max(np.abs(found).max(initial=0), 1e-300)
    if len(found) == 0 or np.ptp(found) == 0:
        raise ValueError("there are no two different values")
    away = found - np.median(found)
    spread = np.median(np.abs(away)) or away.std()
    away = np.clip(away / spread, -FURTHEST, FURTHEST)
    best = minimize_scalar(lambda power: -yeojohnson_llf(power, away), bounds=POWERS, method="bounded")
    powered = yeojohnson(away, best.x)
    result = np.full(len(values), powered.max())
    result[known] = powered
    normal: Floats = (result - result.mean()) / result.std()
    return normal


def fit_model(points: Tensor, values: Tensor) -> Model:
    """The model of points `(n, f)` and values `(n,)` with the most probable hyperparameters.

    The prior of the lengthscales grows with the square root of the number of features (Hvarfner et
    al. 2024, Vanilla Bayesian optimization performs great in high dimensions). Where the fit fails for
    numerical reasons, the model is a wide one with some noise.
    """
    import torch
    from botorch.exceptions.errors import BotorchError, ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.kernels import MaternKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from gpytorch.priors import LogNormalPrior

    def above(least: float, start: float) -> GreaterThan:
        """In the logarithm: with BoTorch's own bounds L-BFGS stops far from the optimum."""
        return GreaterThan(least, transform=torch.exp, inv_transform=torch.log, initial_value=start)

    root = math.sqrt(points.shape[1])
    location, scale = LENGTHSCALE_PRIOR
    likelihood = GaussianLikelihood(
        noise_prior=LogNormalPrior(*NOISE_PRIOR), noise_constraint=above(LEAST_NOISE, 0.1)
    )
    kernel = MaternKernel(
        nu=2.5,
        ard_num_dims=points.shape[1],
        lengthscale_prior=LogNormalPrior(location + math.log(root), scale),
        lengthscale_constraint=above(LEAST_LENGTHSCALE, 0.5 * root),
    )
    try:
        gp = SingleTaskGP(
            points, values[:, None], likelihood=likelihood, covar_module=kernel, outcome_transform=None
        )
        options = {"options": {"maxiter": MOST_STEPS}}
        fit_gpytorch_mll(ExactMarginalLogLikelihood(gp.likelihood, gp), optimizer_kwargs=options)
        model = Model(
            kernel.lengthscale.detach().reshape(-1), likelihood.noise.item(), gp.mean_module.constant.item()
        )
    except (BotorchError, ModelFittingError, RuntimeError, ValueError):
        return _default_model(points)
    numbers = [*model.lengthscales.tolist(), model.noise, model.mean]
    return model if all(map(math.isfinite, numbers)) else _default_model(points)


def _default_model(points: Tensor) -> Model:
    features = points.shape[1]
    return Model(points.new_full((features,), 0.5 * math.sqrt(features)), noise=0.01, mean=0.0)


#: How many samples stand for what is not known: the true values at noisy and at pending points.
SAMPLES: Final = 32
#: Added to the kernel's diagonal, of variance 1.
JITTER: Final = 1e-8


class PosteriorSamples:
    """Functions drawn from the Gaussian process, given what was observed; each is known at the same points.

    The improvement of a further point is its expected improvement over the best of these points, on
    average over the functions. So noisy values (Letham et al. 2019, Constrained Bayesian optimization with
    noisy experiments, section 4) and pending points (Snoek et al. 2012, Practical Bayesian optimization,
    section 3.2) are integrated out, and a point that was added is pending from then on. All of it is one
    triangular matrix, to which an added point is one more row.

    Args:
        model: The Gaussian process.
        points: Observed ones, `(n, f)`.
        values: Theirs, `(n,)`.
        others: Points without a value, `(p, f)`, pending ones for example.
        counts: Which of all these an improvement is over, `(n + p,)`.
        generator: Of the draws.
    """

    def __init__(
        self,
        model: Model,
        points: Tensor,
        values: Tensor,
        *,
        others: Tensor,
        counts: Tensor,
        generator: Generator,
    ) -> None:
        import torch

        self.model, self._generator = model, generator
        self._points = torch.cat([points, others])
        n = len(points)
        covariance = model.kernel(self._points, self._points)
        self._root = _root(covariance, JITTER)
        # Matheron's rule: a draw of the prior, corrected by what it is off at the observations.
        prior = self._root @ self._normal(len(self._points))
        error = (values - model.mean)[:, None] - prior[:n] - math.sqrt(model.noise) * self._normal(n)
        observed = _root(covariance[:n, :n], model.noise + JITTER)
        drawn = prior + covariance[:, :n] @ torch.cholesky_solve(error, observed)
        self._white = torch.linalg.solve_triangular(self._root, drawn, upper=False)
        self._best = drawn[counts].min(dim=0).values
        #: Indices of the points that count, the one of lowest mean first.
        self.order: NDArray[np.int64] = drawn[counts].mean(dim=1).argsort(stable=True).numpy()

    def _normal(self, rows: int) -> Tensor:
        import torch

        return torch.randn(rows, SAMPLES, generator=self._generator, dtype=torch.double)

    def whitened(self, points: Tensor) -> Tensor:
        """Covariances with the known points as `(b, m)`, so that known points are independent."""
        import torch

        covariance = self.model.kernel(self._points, points)
        whitened: Tensor = torch.linalg.solve_triangular(self._root, covariance, upper=False)
        return whitened

    def moments(self, whitened: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of each function `(m, s)` and their common variance `(m,)`."""
        variance = 1 - (whitened * whitened).sum(dim=0)
        means: Tensor = whitened.T @ self._white
        return means, variance.clamp_min(JITTER)

    def improvement(self, means: Tensor, variance: Tensor) -> Tensor:
        """Logarithm of the expected improvement, `(m,)`, however small it is."""
        deviation = variance.sqrt()[:, None]
        logarithms = deviation.log() + log_improvement((self._best - means) / deviation)
        return logarithms.logsumexp(dim=1) - math.log(SAMPLES)

    def at(self, points: Tensor) -> Tensor:
        """`improvement` at points `(m, f)`."""
        return self.improvement(*self.moments(self.whitened(points)))

    def add(self, point: Tensor) -> tuple[Tensor, float, Tensor]:
        """Draw each function at one more point, `(f,)`.

        Gives the new row for `whitened` of other points: its covariances `(b,)` with the known ones, its
        deviation and the draws `(s,)` that the means change by.
        """
        import torch

        row = self.whitened(point[None])
        means, variance = self.moments(row)
        deviation = float(variance.sqrt())
        draws = self._normal(1)
        b = len(self._points)
        root = torch.zeros(b + 1, b + 1, dtype=torch.double)
        root[:b, :b], root[b, :b], root[b, b] = self._root, row[:, 0], deviation
        self._root = root
        self._points = torch.cat([self._points, point[None]])
        self._white = torch.cat([self._white, draws])
        self._best = torch.minimum(self._best, means[0] + deviation * draws[0])
        return row[:, 0], deviation, draws[0]


class Candidates:
    """Points whose improvement is kept up to date while points are added to the samples.

    Args:
        samples: What the improvement is over.
        points: The candidates, `(m, f)`.
    """

    def __init__(self, samples: PosteriorSamples, points: Tensor) -> None:
        self._samples, self._points = samples, points
        self._whitened = samples.whitened(points)
        self._means, self._variance = samples.moments(self._whitened)

    def improvement(self) -> Floats:
        """Logarithm of the expected improvement of each, `(m,)`."""
        found: Floats = self._samples.improvement(self._means, self._variance).numpy()
        return found

    def add(self, point: Tensor) -> None:
        """Add a point to the samples, `(f,)`: one row, whatever is known already."""
        import torch

        covariance = self._samples.model.kernel(point[None], self._points)[0]
        row, deviation, draws = self._samples.add(point)
        new = (covariance - row @ self._whitened) / deviation
        self._whitened = torch.cat([self._whitened, new[None]])
        self._means = self._means + new[:, None] * draws
        self._variance = (self._variance - new * new).clamp_min(JITTER)


def optimise_candidates(
    samples: PosteriorSamples, starts: Tensor, *, free: NDArray[np.bool_], steps: int
) -> Tensor:
    """Points `(m, f)` of locally greatest improvement, by L-BFGS-B from `starts`.

    Args:
        samples: What the improvement is over.
        starts: The beginnings, `(m, f)`.
        free: Which features may be moved, within 0 and 1, `(m, f)`.
        steps: At most so many.
    """
    import torch
    from scipy.optimize import minimize

    mask = torch.from_numpy(free)
    if not free.any():  # all in branches without a continuous parameter
        return starts

    def loss(x: Floats) -> tuple[float, Floats]:
        moved = torch.from_numpy(x).requires_grad_()
        total = -samples.at(starts.masked_scatter(mask, moved)).sum()
        (gradient,) = torch.autograd.grad(total, moved)
        return total.item(), gradient.numpy()

    start = starts[mask].numpy()
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(start), options={"maxiter": steps}
    )
    return starts.masked_scatter(mask, torch.from_numpy(found.x))


def log_improvement(u: Tensor) -> Tensor:
    """log(phi(u) + u Phi(u)): expected improvement of a standard normal over -u, for any u.

    Far below 0 by the scaled complementary error function, and by its asymptote 1 / u^2 beyond that
    (Ament et al. 2023, Unexpected improvements to expected improvement, section 4 and A.1).
    """
    import torch

    half_log = 0.5 * math.log(2 * math.pi)
    near = u.clamp_min(-1.0)
    density = (-0.5 * near * near - half_log).exp()
    above = (density + near * 0.5 * torch.erfc(-near / math.sqrt(2))).log()
    far = u.clamp(-1e4, -1.0)
    ratio = 1 + far * math.sqrt(math.pi / 2) * torch.special.erfcx(-far / math.sqrt(2))
    very_far = u.clamp_max(-1e3)
    tail = torch.where(u < -1e3, -2 * (-very_far).log(), ratio.clamp_min(1e-12).log())
    return torch.where(u > -1, above, -0.5 * u * u - half_log + tail)


def _root(covariance: Tensor, diagonal: float) -> Tensor:
    """Cholesky factor with `diagonal` added, and more of it where that is not enough."""
    from linear_operator.utils.cholesky import psd_safe_cholesky

    raised = covariance.clone()
    raised.diagonal().add_(diagonal)
    root: Tensor = psd_safe_cholesky(raised, jitter=JITTER, max_tries=6)
    return root
