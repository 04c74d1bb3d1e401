"""The Gaussian process: values made fit for it, its hyperparameters, its kernel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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

    Raises:
        ValueError: There are no two different values.
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
