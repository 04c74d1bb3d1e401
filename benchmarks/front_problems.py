"""Problems with several objectives: ZDT (Zitzler, Deb and Thiele 2000), DTLZ2 (Deb et al. 2002), and digits.

ZDT has ten parameters here and DTLZ2 six, as many as 200 evaluations can search. The reference point of ZDT
is about the median of random configurations, so that the front and the way to it both count.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from benchmarks.digits_front import RATES, SECOND, TABLE, WIDTHS
from hpcsweep.core.domains import Float, Floats, Ordinal
from hpcsweep.core.events import Config
from hpcsweep.core.space import Parameter, Space


class FrontProblem(NamedTuple):
    """Objectives to be minimised.

    Attributes:
        values: Of a configuration, `(k,)`.
        reference: From where the hypervolume is measured, `(k,)`.
    """

    space: Space
    values: Callable[[Config], tuple[float, ...]]
    reference: tuple[float, ...]


def _cube(dimensions: int) -> Space:
    return Space(tuple(Parameter(f"x{index}", Float(0.0, 1.0)) for index in range(dimensions)))


def _of(config: Config) -> Floats:
    return np.array(list(config.values()), dtype=float)


def zdt1(config: Config) -> tuple[float, float]:
    x = _of(config)
    g = 1 + 9 * float(x[1:].mean())
    return float(x[0]), g * (1 - math.sqrt(x[0] / g))


def zdt2(config: Config) -> tuple[float, float]:
    x = _of(config)
    g = 1 + 9 * float(x[1:].mean())
    return float(x[0]), g * (1 - (x[0] / g) ** 2)


def zdt3(config: Config) -> tuple[float, float]:
    x = _of(config)
    g = 1 + 9 * float(x[1:].mean())
    return float(x[0]), g * (1 - math.sqrt(x[0] / g) - x[0] / g * math.sin(10 * math.pi * x[0]))


def dtlz2(config: Config) -> tuple[float, float, float]:
    x = _of(config)
    g = 1 + float(((x[2:] - 0.5) ** 2).sum())
    first, second = x[:2] * math.pi / 2
    return g * math.cos(first) * math.cos(second), g * math.cos(first) * math.sin(second), g * math.sin(first)


@functools.cache
def _digits() -> dict[tuple[int, int, float], tuple[float, float]]:
    with TABLE.open() as file:
        rows = csv.DictReader(file)
        return {
            (int(row["first"]), int(row["second"]), float(row["rate"])): (
                float(row["error"]),
                float(row["size"]),
            )
            for row in rows
        }


def digits(config: Config) -> tuple[float, float]:
    """Share of errors, and weights in thousands, of a network on scikit-learn's digits."""
    return _digits()[config["first"], config["second"], config["rate"]]


_DIGITS: Final = Space(
    (
        Parameter("first", Ordinal(WIDTHS)),
        Parameter("second", Ordinal(SECOND)),
        Parameter("rate", Ordinal(RATES)),
    )
)
FRONTS: Final = {
    "zdt1": FrontProblem(_cube(10), zdt1, (1.1, 4.0)),
    "zdt2": FrontProblem(_cube(10), zdt2, (1.1, 6.0)),
    "zdt3": FrontProblem(_cube(10), zdt3, (1.1, 4.0)),
    "dtlz2": FrontProblem(_cube(6), dtlz2, (1.1, 1.1, 1.1)),
    "digits": FrontProblem(_DIGITS, digits, (1.0, 20.0)),
}
