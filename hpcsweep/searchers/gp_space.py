"""Where configurations lie for the Gaussian process, and which ones are close to each other."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hpcsweep.core.domains import Choice
from hpcsweep.core.space import Space

Floats = NDArray[np.float64]

#: Numbers with at least so many values are treated as continuous while a proposal is refined.
MANY_VALUES: Final = 8


class Features:
    """From the unit cube, `(n, d)` with NaN where inactive, to the inputs of the model, `(n, f)`.

    Numbers keep their position. A choice is one-hot, its values at distance 1 of each other. What is
    inactive sits in the middle, where it makes no difference between two configurations; that it is
    inactive shows in the features of the parameter that it depends on.

    Args:
        space: The search space.
        fidelity: Whether the last feature is the share of the largest resource.
    """

    def __init__(self, space: Space, *, fidelity: bool) -> None:
        domains = [parameter.domain for parameter in space.columns]
        self._fidelity = fidelity
        self._choices = {c: domain.size for c, domain in enumerate(domains) if isinstance(domain, Choice)}
        numbers = [column for column in range(len(domains)) if column not in self._choices]
        #: Columns that can be moved along a gradient. They are the first features, in this order.
        self.smooth = [c for c in numbers if (size := domains[c].size) is None or size >= MANY_VALUES]
        #: The other columns.
        self.rough = [column for column in range(len(domains)) if column not in self.smooth]
        #: Columns without order.
        self.choices = list(self._choices)
        self._numbers = [*self.smooth, *(column for column in numbers if column not in self.smooth)]

    def of(self, unit: Floats, *, fidelity: Floats | None = None) -> Floats:
        """Features `(n, f)` of rows of the unit cube `(n, d)`, at the largest resource by default.

        `fidelity` is the position of each row's resource between the least, 0, and the largest, 1, `(n,)`.
        """
        parts = [np.nan_to_num(unit[:, self._numbers], nan=0.5)]
        for column, size in self._choices.items():
            cells = np.minimum(np.floor(unit[:, column, None] * size), size - 1)
            hot = (cells == np.arange(size)).astype(float)
            hot[np.isnan(unit[:, column])] = 1 / size
            parts.append(hot * np.sqrt(0.5))
        if self._fidelity:
            parts.append(np.ones((len(unit), 1)) if fidelity is None else fidelity[:, None])
        return np.concatenate(parts, axis=1)


def neighbours(unit: Floats, features: Features, rng: Generator) -> Floats:
    """One changed copy of each row of `unit`, `(n, d)`, without NaN.

    Each column changes with a probability that is drawn for each row, one column at least: a number by a
    normal step whose scale is drawn too, a choice to any value. What is inactive is drawn at random, for
    where it becomes active.
    """
    n, d = unit.shape
    fresh = rng.random((n, d))
    changed = rng.random((n, d)) < rng.choice([0.0, 2 / d, 1.0], size=(n, 1))
    changed[np.arange(n), rng.integers(d, size=n)] = True
    scale = 10 ** rng.uniform(-3, -0.5, (n, 1))
    moved = np.clip(unit + scale * rng.standard_normal((n, d)), 0, 1)
    moved[:, features.choices] = fresh[:, features.choices]
    moved = np.where(changed, moved, unit)
    return np.where(np.isnan(moved), fresh, moved)
