"""Densities on the unit cube for `tpe`: mixtures of product kernels, one for each observation.

As in Bergstra et al. 2011 (section 4) and Falkner et al. 2018 (BOHB); the pieces are compared in
Watanabe 2023 (Tree-structured Parzen estimator: understanding its algorithm components). A column has
one of three kernels:

- continuous: a Gaussian truncated to [0, 1];
- in cells (integers, steps, ordinals): that Gaussian's integral over a cell, spread over the cell;
- choices: Aitchison and Aitken 1976, the centre's value or, with a small probability, any value.

A column where either the centre or the point is inactive (NaN) contributes a factor of 1.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hpcsweep.core.history import Floats, Ints
from hpcsweep.core.space import Choice, Float, Int, Space

Mask = NDArray[np.bool_]

#: Least bandwidth. Cells narrower than a quarter of it are points: the integral changes nothing.
FLOOR: Final = 0.01
NARROW: Final = FLOOR / 4
#: Points that are compared with all kernels at once: what a processor's cache holds.
_CHUNK: Final = 512

_STEPS: Final = 512  # of the table of the normal distribution, per standard deviation
_TAIL: Final = 9


def _cumulated() -> Floats:
    """The normal distribution function on the table's grid, by Simpson's rule."""
    z = np.linspace(-_TAIL, _TAIL, 4 * _TAIL * _STEPS + 1)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    steps = (density[:-2:2] + 4 * density[1:-1:2] + density[2::2]) / (6 * _STEPS)
    return np.concatenate([[0.0], np.cumsum(steps)])


_PHI: Final = _cumulated()
_RISE: Final = np.append(np.diff(_PHI), 0.0)
_GRID: Final = np.linspace(-_TAIL, _TAIL, len(_PHI))


def normal_cdf(z: Floats) -> Floats:
    """The normal distribution function, right to 1e-6; scipy's would cost its import."""
    at = np.clip((z + _TAIL) * _STEPS, 0, len(_PHI) - 1)
    index = at.astype(np.int64)
    cdf: Floats = _PHI[index] + (at - index) * _RISE[index]
    return cdf


class Columns:
    """What kernels need to know of a space.

    Attributes:
        choices: For each column how many values it has if it is a choice, else 0.
    """

    def __init__(self, space: Space) -> None:
        self._domains = [parameter.domain for parameter in space.columns]
        self.choices = [d.size if isinstance(d, Choice) else 0 for d in self._domains]

    def __len__(self) -> int:
        return len(self._domains)

    def cells(self, column: int, unit: Floats) -> tuple[Floats, Floats]:
        """Lower and upper ends `(n,)` of the cells around `unit` `(n,)`; no width if continuous."""
        domain = self._domains[column]
        if isinstance(domain, Int) and domain.log:
            low, high = math.log(domain.low - 0.5), math.log(domain.high + 0.5)
            values = np.clip(np.rint(np.exp(low + unit * (high - low))), domain.low, domain.high)
            return (np.log(values - 0.5) - low) / (high - low), (np.log(values + 0.5) - low) / (high - low)
        size = domain.size
        if isinstance(domain, Float) and size is None:
            return unit, unit
        assert size is not None
        index = np.minimum(np.floor(unit * size), size - 1)
        return index / size, (index + 1) / size


class Points:
    """Points to be compared with kernels, `(n, d)`.

    Attributes:
        unit: Their positions, 0 where inactive.
        active: Where they are active.
        plain: Where the kernel is that of a point: active, no choice and in no wide cell.
        tables: For each column that has other kernels: its number, the lower and upper ends of its
            distinct cells, and for each point which of them it is in, -1 for none.
    """

    def __init__(self, columns: Columns, unit: Floats) -> None:
        self.active: Mask = ~np.isnan(unit)
        self.unit: Floats = np.where(self.active, unit, 0.0)
        self.plain: Mask = self.active.copy()
        self.tables: list[tuple[int, Floats, Floats, Ints]] = []
        for column in range(len(columns)):
            low, high = columns.cells(column, self.unit[:, column])
            wide = (high - low > NARROW) & self.active[:, column]
            if columns.choices[column]:
                wide = self.active[:, column]
            if wide.any():
                self.plain[:, column] &= ~wide
                lows, where, inverse = np.unique(low[wide], return_index=True, return_inverse=True)
                cell = np.full(len(unit), -1, dtype=np.int64)
                cell[wide] = inverse
                self.tables.append((column, lows, high[wide][where], cell))


class ParzenEstimator:
    """A weighted mixture of kernels and a uniform prior.

    Args:
        columns: Of the space.
        centres: Positions `(k, d)`, NaN where inactive.
        weights: Of the kernels `(k,)`; the prior has weight 1.

    Attributes:
        total: The sum of all weights.
    """

    def __init__(self, columns: Columns, centres: Floats, weights: Floats) -> None:
        self._columns = columns
        d = len(columns)
        self._active = np.vstack([~np.isnan(centres), np.zeros((1, d), dtype=bool)])
        self._centres = np.where(self._active, np.vstack([centres, np.zeros((1, d))]), 0.5)
        self._weights = np.append(weights, 1.0)
        self.total = float(self._weights.sum())
        self._weights /= self.total
        self._widths = np.ones((len(centres) + 1, d))
        #: Of a choice: the probability that its value is drawn anew.
        self._redrawn = np.ones(d)
        for column in range(d):
            active = self._active[:, column]
            if values := columns.choices[column]:
                self._redrawn[column] = values / (active.sum() + 1 + values)
            else:
                at = self._centres[active, column]
                self._widths[active, column] = _bandwidths(at, *columns.cells(column, at))
        below = normal_cdf((0 - self._centres) / self._widths)
        above = normal_cdf((1 - self._centres) / self._widths)
        self._inside = (below, above)
        # log kernel = a u^2 + b u + c, in each column
        precision = np.where(self._active, 1 / self._widths**2, 0.0)
        constant = -np.log(self._widths * (above - below)) - 0.5 * math.log(2 * math.pi)
        self._a = -0.5 * precision
        self._b = precision * self._centres
        self._c = np.where(self._active, constant, 0.0) - 0.5 * precision * self._centres**2

    def typical_widths(self) -> Floats:
        """The median bandwidth in each column `(d,)` where active, that of the prior, 1, among them."""
        widths = np.where(self._active, self._widths, np.nan)
        widths[-1] = 1.0
        typical: Floats = np.nanmedian(widths, axis=0)
        return typical

    def log_density(self, points: Points) -> Floats:
        """Logarithm of the density at each point, `(n,)`."""
        tables = [(cell, self._table(column, low, high)) for column, low, high, cell in points.tables]
        found = np.empty(len(points.unit))
        for start in range(0, len(found), _CHUNK):
            rows = slice(start, start + _CHUNK)
            plain, unit = points.plain[rows].astype(float), points.unit[rows]
            logs = (plain * unit**2) @ self._a.T + (plain * unit) @ self._b.T + plain @ self._c.T
            for cell, table in tables:
                logs += table[cell[rows]]
            logs += np.log(self._weights)
            highest = logs.max(axis=1)
            logs -= highest[:, None]
            found[rows] = highest + np.log(np.exp(logs, out=logs).sum(axis=1))
        return found

    def _table(self, column: int, low: Floats, high: Floats) -> Floats:
        """Log kernels by cell, `(cells + 1, k + 1)`; zeros in the last row, for points in no cell."""
        centre, width, active = (table[:, column] for table in (self._centres, self._widths, self._active))
        if values := self._columns.choices[column]:
            redrawn = self._redrawn[column]
            same = (low[:, None] <= centre) & (centre < high[:, None])
            kernel = np.where(same, values * (1 - redrawn) + redrawn, redrawn)
        else:
            below, above = (table[:, column] for table in self._inside)
            mass = normal_cdf((high[:, None] - centre) / width) - normal_cdf((low[:, None] - centre) / width)
            kernel = np.maximum(mass / (above - below), 1e-12) / (high - low)[:, None]
        logs = np.where(active, np.log(kernel), 0.0)
        return np.vstack([logs, np.zeros((1, len(centre)))])

    def log_marginals(self, points: Points) -> Floats:
        """Logarithm of the density of each column alone at each point, `(n, d)`."""
        tables = {column: (cell, self._table(column, low, high)) for column, low, high, cell in points.tables}
        found = np.empty(points.unit.shape)
        for column in range(len(self._columns)):
            for start in range(0, len(found), _CHUNK):
                rows = slice(start, start + _CHUNK)
                plain, unit = points.plain[rows, column, None], points.unit[rows, column, None]
                a, b, c = (factor[:, column] for factor in (self._a, self._b, self._c))
                kernels = np.exp(np.where(plain, (a * unit + b) * unit + c, 0.0))
                if column in tables:
                    cell, table = tables[column]
                    kernels *= np.exp(table)[cell[rows]]
                found[rows, column] = kernels @ self._weights
        logs: Floats = np.log(np.maximum(found, 1e-300))
        return logs

    def sample(self, n: int, rng: Generator) -> Floats:
        """Draw positions `(n, d)`; uniform in columns where the kernel that was drawn is inactive."""
        return self._draw(rng.choice(len(self._weights), size=(n, 1), p=self._weights), rng)

    def sample_marginals(self, n: int, rng: Generator) -> Floats:
        """Draw positions `(n, d)`, in each column from a kernel of its own."""
        size = (n, len(self._columns))
        return self._draw(rng.choice(len(self._weights), size=size, p=self._weights), rng)

    def _draw(self, kernel: Ints, rng: Generator) -> Floats:
        """From these kernels, `(n, d)`, or `(n, 1)` for one in all columns."""
        every = np.arange(len(self._columns))
        uniform = rng.random((len(kernel), len(every)))
        centre, width = self._centres[kernel, every], self._widths[kernel, every]
        below, above = (table[kernel, every] for table in self._inside)
        drawn = centre + width * np.interp(below + uniform * (above - below), _PHI, _GRID)
        for column, values in enumerate(self._columns.choices):
            if values:
                redrawn = self._redrawn[column]
                new = uniform[:, column] < redrawn
                drawn[:, column] = np.where(new, uniform[:, column] / redrawn, centre[:, column])
        drawn = np.where(self._active[kernel, every], drawn, uniform)
        return np.clip(drawn, 0.0, 1.0)


def _bandwidths(at: Floats, low: Floats, high: Floats) -> Floats:
    """The gap to the farther neighbour, `(k,)` (Bergstra et al. 2011); the outermost have one neighbour.

    At least `FLOOR`, half of the cell, and 1 / (2 + k), so that few observations promise little.
    """
    k = len(at)
    if not k:
        return at
    order = np.argsort(at, kind="stable")
    gaps = np.diff(np.concatenate([[0.0], at[order], [1.0]]))
    widths = np.maximum(gaps[:-1], gaps[1:])
    if k > 1:
        widths[0], widths[-1] = gaps[1], gaps[-2]
    found = np.empty(k)
    found[order] = widths
    return np.clip(np.maximum(found, 0.5 * (high - low)), max(FLOOR, 1 / (2 + k)), 1.0)
