"""Functions that no searcher was tuned on: rotated and shifted at random, anew for each seed, in [-5, 5]^d.

Formulas of BBOB (Hansen, Finck, Ros and Auger 2009, Real-parameter black-box optimization benchmarking:
noiseless functions definitions), without its small irregularities T_osz, T_asy and the boundary penalty.
The minimum is 0. The last five are multimodal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.problems import Floats, Problem, on_unit_box
from hpcsweep.core.space import Float, Parameter, Space

Value = Callable[[Floats], float]
DIMENSIONS: Final = (5, 10)
#: Of those in `WIDE`.
MANY_DIMENSIONS: Final = 30


def _rotation(d: int, rng: Generator) -> Floats:
    """A random orthogonal matrix, uniformly distributed."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    rotation: Floats = q * np.sign(np.diagonal(r))
    return rotation


def _stretch(d: int, alpha: float) -> Floats:
    """Lambda^alpha: a diagonal whose largest entry is sqrt(alpha) times the least."""
    return np.array(alpha ** (0.5 * np.arange(d) / (d - 1)))


def _shift(d: int, rng: Generator) -> Floats:
    return rng.uniform(-4, 4, d)


def ellipsoid(d: int, rng: Generator) -> Value:
    """f10: axes of very different scales, condition 10^6."""
    rotation, optimum, scales = _rotation(d, rng), _shift(d, rng), _stretch(d, 1e12)
    return lambda x: float(scales @ (rotation @ (x - optimum)) ** 2)


def rosenbrock(d: int, rng: Generator) -> Value:
    """f9: a bent valley."""
    rotation, scale = _rotation(d, rng), max(1.0, math.sqrt(d) / 8)

    def value(x: Floats) -> float:
        z = scale * rotation @ x + 0.5
        return float((100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2).sum())

    return value


def rastrigin(d: int, rng: Generator) -> Value:
    """f15: some 10^d local minima in a bowl."""
    outer, inner, optimum = _rotation(d, rng), _rotation(d, rng), _shift(d, rng)
    turned = outer @ np.diag(_stretch(d, 10)) @ inner

    def value(x: Floats) -> float:
        z = turned @ (x - optimum)
        return float(10 * (d - np.cos(2 * math.pi * z).sum()) + z @ z)

    return value


def weierstrass(d: int, rng: Generator) -> Value:
    """f16: rugged at all scales, with many global minima."""
    outer, inner, optimum = _rotation(d, rng), _rotation(d, rng), _shift(d, rng)
    turned = outer @ np.diag(_stretch(d, 0.01)) @ inner
    halves, thirds = 0.5 ** np.arange(12), 3.0 ** np.arange(12)
    least = float(halves @ np.cos(math.pi * thirds))

    def value(x: Floats) -> float:
        z = turned @ (x - optimum)
        mean = float((np.cos(2 * math.pi * np.multiply.outer(z + 0.5, thirds)) @ halves).mean())
        return 10 * max(0.0, mean - least) ** 3

    return value


def schaffers(d: int, rng: Generator) -> Value:
    """f17: the frequency of the waves grows towards the minimum."""
    rotation, optimum = _rotation(d, rng), _shift(d, rng)
    turned = np.diag(_stretch(d, 10)) @ rotation

    def value(x: Floats) -> float:
        z = turned @ (x - optimum)
        root = np.sqrt(np.hypot(z[:-1], z[1:]))
        return float((root * (1 + np.sin(50 * root**0.4) ** 2)).mean() ** 2)

    return value


def griewank_rosenbrock(d: int, rng: Generator) -> Value:
    """f19: a bent valley with waves."""
    rotation, scale = _rotation(d, rng), max(1.0, math.sqrt(d) / 8)

    def value(x: Floats) -> float:
        z = scale * rotation @ x + 0.5
        s = 100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2
        return float(10 * (s / 4000 - np.cos(s)).mean() + 10)

    return value


def gallagher(d: int, rng: Generator) -> Value:
    """f22: 21 peaks of random places, heights and shapes."""
    rotation, count = _rotation(d, rng), 21
    places = rng.uniform(-4.9, 4.9, (count, d))
    places[0] *= 0.8
    heights = np.array([10, *np.linspace(1.1, 9.1, count - 1)])
    alphas = np.array([1000.0**2, *1000.0 ** (2 * rng.permutation(count - 1) / (count - 2))])
    shapes = np.array([rng.permutation(_stretch(d, alpha)) / alpha**0.25 for alpha in alphas])
    centres = places @ rotation.T

    def value(x: Floats) -> float:
        distances = (shapes * (rotation @ x - centres) ** 2).sum(axis=1)
        return float((10 - (heights * np.exp(-distances / (2 * d))).max()) ** 2)

    return value


def _problem(function: Callable[[int, Generator], Value], d: int, seed: int) -> Problem:
    space = Space(tuple(Parameter(f"x{i}", Float(-5.0, 5.0)) for i in range(d)))
    value = function(d, default_rng([seed, d]))
    return Problem(f"{function.__name__}-{d}", space, on_unit_box(value), 0.0)


#: Name -> the function that a seed gives.
HELD_OUT: Final[dict[str, Callable[[int], Problem]]] = {
    f"{function.__name__}-{d}": partial(_problem, function, d)
    for d in DIMENSIONS
    for function in (
        ellipsoid, rosenbrock, rastrigin, weierstrass, schaffers, griewank_rosenbrock, gallagher,
    )
}  # fmt: skip

#: The same in more dimensions, for searches of several hundred evaluations.
WIDE: Final[dict[str, Callable[[int], Problem]]] = {
    f"{function.__name__}-{MANY_DIMENSIONS}": partial(_problem, function, MANY_DIMENSIONS)
    for function in (ellipsoid, rosenbrock, rastrigin, weierstrass, gallagher)
}
