"""What the search benchmarks search: functions with known minima, and learning curves.

Formulas of the classical functions: D. Bingham and S. Surjanovic, Virtual Library of Simulation
Experiments, sfu.ca/~ssurjano/optimization.html. Ackley, Rastrigin and Levy have domains that are not
centred at their minimum, so that a search that begins in the middle gains nothing by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.space import Choice, Float, Int, Ordinal, Parameter, Space

Floats = NDArray[np.float64]


class Problem(NamedTuple):
    """A function to be minimised.

    Attributes:
        value: The true value of a configuration.
        minimum: The least true value in the space.
        noise: Standard deviation of the normal noise on each observation.
        smooth: Numbers only, no noise, and no deep local minima everywhere: what a Gaussian process is
            made for.
    """

    name: str
    space: Space
    value: Callable[[Config], float]
    minimum: float
    noise: float = 0.0
    smooth: bool = False


# --------------------------------------------------------------------------- numbers only


def branin(x: Floats) -> float:
    """Branin (Dixon and Szegoe 1978) on [-5, 10] x [0, 15]; minimum 0.397887 at (pi, 2.275) and two more."""
    bowl = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return float(bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10)


_ALPHA: Final = np.array([1.0, 1.2, 3.0, 3.2])
_A3: Final = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
_P3: Final = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
_A6: Final = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_P6: Final = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(x: Floats, fidelity: float = 1.0) -> float:
    """Hartmann in 3 or 6 dimensions on the unit cube; minimum -3.86278 or -3.32237.

    Below fidelity 1 each alpha is smaller by 0.1 (1 - fidelity), as in Kandasamy et al. 2017
    (Multi-fidelity Bayesian optimisation with continuous approximations, A.1).
    """
    a, p = (_A3, _P3) if len(x) == 3 else (_A6, _P6)
    peaks = np.exp(-(a * (x - p) ** 2).sum(axis=1))
    return -float((_ALPHA - 0.1 * (1 - fidelity)) @ peaks)


def rosenbrock(x: Floats) -> float:
    """Rosenbrock; minimum 0 at (1, ..., 1)."""
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def ackley(x: Floats) -> float:
    """Ackley with a = 20, b = 0.2, c = 2 pi; minimum 0 at the origin."""
    near = -20 * math.exp(-0.2 * math.sqrt(float((x**2).mean())))
    return near - math.exp(float(np.cos(2 * math.pi * x).mean())) + 20 + math.e


def rastrigin(x: Floats) -> float:
    """Rastrigin; minimum 0 at the origin."""
    return float((x**2 - 10 * np.cos(2 * math.pi * x) + 10).sum())


def levy(x: Floats) -> float:
    """Levy; minimum 0 at (1, ..., 1)."""
    w = 1 + (x - 1) / 4
    middle = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + middle.sum() + last)


# --------------------------------------------------------------------------- as in training


def mixed(config: Config) -> float:
    """Numbers on both scales, ordered and unordered lists; minimum 0.

    There are valleys across the axes: the best learning rate grows with the batch size and differs
    by optimizer, and width makes up for layers.
    """
    batch, width = math.log2(config["batch_size"]) - 6, math.log2(config["width"]) - 8
    best_lr = {"adam": -3.0, "sgd": -1.0, "rmsprop": -3.5}[config["optimizer"]] + 0.25 * batch
    loss = {"adam": 0.0, "sgd": 0.05, "rmsprop": 0.2}[config["optimizer"]]
    loss += {"gelu": 0.0, "relu": 0.1, "tanh": 0.3, "sigmoid": 0.8}[config["activation"]]
    loss += 0.5 * (math.log10(config["lr"]) - best_lr) ** 2
    loss += 0.1 * (math.log10(config["weight_decay"]) + 4) ** 2
    loss += 2 * (config["dropout"] - 0.3) ** 2 + 0.05 * batch**2
    return float(loss + 0.1 * (width + config["layers"] - 4) ** 2 + 0.05 * (config["layers"] - 4) ** 2)


_MIXED: Final = Space(
    (
        Parameter("lr", Float(1e-5, 1.0, log=True)),
        Parameter("weight_decay", Float(1e-6, 1e-1, log=True)),
        Parameter("width", Int(16, 1024, log=True)),
        Parameter("layers", Int(1, 8)),
        Parameter("dropout", Float(0.0, 0.8, step=0.05)),
        Parameter("batch_size", Ordinal((16, 32, 64, 128, 256, 512))),
        Parameter("optimizer", Choice(("sgd", "rmsprop", "adam"))),
        Parameter("activation", Choice(("relu", "tanh", "gelu", "sigmoid"))),
    )
)


def conditional(config: Config) -> float:
    """Each optimizer and each schedule has parameters of its own; minimum 0 with sgd and cosine."""
    loss = 0.02 * (config["layers"] - 3) ** 2
    if config["optimizer"] == "sgd":
        loss += 0.5 * (math.log10(config["lr"]) + 1) ** 2 + 4 * (config["momentum"] - 0.9) ** 2
    else:
        loss += 0.1 + 0.5 * (math.log10(config["lr"]) + 3) ** 2 + 20 * (config["beta"] - 0.95) ** 2
    if config["schedule"] == "cosine":
        return float(loss + 0.003 * (config["warmup"] - 5) ** 2)
    if config["schedule"] == "step":
        return float(loss + 0.1 + 2 * (config["decay"] - 0.3) ** 2 + 0.01 * (config["drops"] - 3) ** 2)
    return float(loss + 0.4)


_CONDITIONAL: Final = Space(
    (
        Parameter("lr", Float(1e-5, 1.0, log=True)),
        Parameter("layers", Int(1, 8)),
        Parameter("optimizer", Choice(("adam", "sgd"))),
        Parameter("momentum", Float(0.0, 0.99), {"optimizer": ("sgd",)}),
        Parameter("beta", Float(0.8, 0.999), {"optimizer": ("adam",)}),
        Parameter("schedule", Choice(("constant", "step", "cosine"))),
        Parameter("decay", Float(0.05, 0.95), {"schedule": ("step",)}),
        Parameter("drops", Int(1, 6), {"schedule": ("step",)}),
        Parameter("warmup", Int(0, 20), {"schedule": ("cosine",)}),
    )
)


def _box(*bounds: tuple[float, float]) -> Space:
    return Space(tuple(Parameter(f"x{i}", Float(low, high)) for i, (low, high) in enumerate(bounds)))


def on_unit_box(function: Callable[[Floats], float]) -> Callable[[Config], float]:
    return lambda config: function(np.array(list(config.values())))


_UNIT6: Final = _box(*[(0, 1)] * 6)

#: The ten functions.
PROBLEMS: Final = {
    problem.name: problem
    for problem in (
        Problem("branin", _box((-5, 10), (0, 15)), on_unit_box(branin), 0.39788735772973816, smooth=True),
        Problem("hartmann3", _box(*[(0, 1)] * 3), on_unit_box(hartmann), -3.862779787332663, smooth=True),
        Problem("hartmann6", _UNIT6, on_unit_box(hartmann), -3.3223680114155147, smooth=True),
        Problem("rosenbrock", _box(*[(-5, 10)] * 4), on_unit_box(rosenbrock), 0.0, smooth=True),
        Problem("ackley", _box(*[(-15, 30)] * 5), on_unit_box(ackley), 0.0),
        Problem("rastrigin", _box(*[(-2.56, 5.12)] * 4), on_unit_box(rastrigin), 0.0),
        Problem("levy", _box(*[(-10, 5)] * 4), on_unit_box(levy), 0.0, smooth=True),
        Problem("mixed", _MIXED, mixed, 0.0),
        Problem("conditional", _CONDITIONAL, conditional, 0.0),
        Problem("noisy", _UNIT6, on_unit_box(hartmann), -3.3223680114155147, noise=0.3),
    )
}


# --------------------------------------------------------------------------- many fidelities


class Curves(NamedTuple):
    """Training that can be cut short: the value falls with the resource.

    Attributes:
        values: Of configurations at a resource, `(n,)`.
        unit_times: Seconds for each unit of resource, by configuration, `(n,)`.
    """

    name: str
    space: Space
    max_resource: int
    values: Callable[[Sequence[Config], int], Floats]
    unit_times: Callable[[Sequence[Config]], Floats]


_CURVES: Final = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("weight_decay", Float(1e-6, 1e-1, log=True)),
        Parameter("width", Int(32, 2048, log=True)),
        Parameter("dropout", Float(0.0, 0.8)),
        Parameter("batch_size", Ordinal((16, 32, 64, 128, 256))),
        Parameter("augment", Choice(("none", "flip", "crop", "mix"))),
    )
)


def power_law(seed: int, *, max_resource: int = 81, crossing: bool = False) -> Curves:
    """Learning curves a + b r^-c (Domhan, Springenberg and Hutter 2015, pow3) of one drawn task.

    Each of a, b and c is a function of the configuration. The end a is a bowl around the best
    configuration; a high learning rate learns fast (large c) and ends worse, and b has a bowl of its
    own: so early ranks tell something of the last ones, but not all. A unit of resource takes four
    times as long at the greatest width as at the smallest. With `crossing` what ends best begins worst: b
    falls as a grows, and ranks are reversed at resource 1.
    """
    rng = default_rng([seed, 1])
    best, early = 0.2 + 0.6 * rng.random((2, 5))
    weights = 0.5 + rng.random(5)
    of_choice = rng.permutation([0.0, 0.03, 0.08, 0.15])

    def parts(configs: Sequence[Config]) -> tuple[Floats, Floats, Floats]:
        unit = _CURVES.to_unit(configs)
        numbers, choice = unit[:, :5], (unit[:, 5] * 4).astype(int)
        a = 0.05 + 0.25 * ((numbers - best) ** 2 * weights).sum(axis=1) + of_choice[choice]
        b = 0.6 + 0.6 * ((numbers - early) ** 2).sum(axis=1)
        if crossing:
            b = np.maximum(0.1, 1.5 - 2 * a)
        return a, b, 0.4 + 0.5 * unit[:, 0]

    def values(configs: Sequence[Config], resource: int) -> Floats:
        a, b, c = parts(configs)
        curve: Floats = a + b * resource**-c
        return curve

    def unit_times(configs: Sequence[Config]) -> Floats:
        times: Floats = 0.5 * 4 ** _CURVES.to_unit(configs)[:, 2]
        return times

    return Curves(f"power-law-{seed}", _CURVES, max_resource, values, unit_times)


def hartmann_curves(*, max_resource: int = 81, dimensions: int = 6, lower: float | None = None) -> Curves:
    """Hartmann 3 or 6 whose fidelity is the share of the resource; one second for each unit.

    With `lower`, below the full fidelity only the highest peak is lower, by so much in place of 0.1 for each:
    low rungs promote what lies on the other peaks.
    """
    a, p = (_A3, _P3) if dimensions == 3 else (_A6, _P6)
    fall = np.full(4, 0.1) if lower is None else np.array([0.0, 0.0, 0.0, lower])

    def values(configs: Sequence[Config], resource: int) -> Floats:
        points = np.array([list(config.values()) for config in configs])
        peaks = np.exp(-(a * (points[:, None] - p) ** 2).sum(axis=2))
        found: Floats = -(peaks @ (_ALPHA - fall * (1 - resource / max_resource)))
        return found

    name = f"hartmann{dimensions}-{'fidelity' if lower is None else lower}"
    space = _box(*[(0, 1)] * dimensions)
    return Curves(name, space, max_resource, values, lambda configs: np.ones(len(configs)))
