"""Which candidates of `tpe` make a batch: those chosen first push the others away."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import numpy as np

from hpcsweep.searchers.tpe_density import Columns, Floats, normal_cdf

#: Probability that the kernel of a configuration just proposed gives a choice any value, its own
#: included. Small: with 0.2 the next ones kept away from its neighbours in other branches too.
MISMATCH: Final = 0.05


class LocalPenalisation:
    """Kernels of candidates, all with the same bandwidths, for those just proposed.

    Cells count by their middles: this is about not proposing the same again, in a loop that must be
    quick. Choices become corners of a simplex, so that one squared distance says all.

    Args:
        columns: Of the space.
        unit: Positions of the candidates `(n, d)`, NaN where inactive.
        widths: Bandwidths `(d,)`.
    """

    def __init__(self, columns: Columns, unit: Floats, widths: Floats) -> None:
        active = ~np.isnan(unit)
        coordinates, owners, constants = [], [], np.zeros_like(unit)
        for column, values in enumerate(columns.choices):
            at = np.where(active[:, column], unit[:, column], 0.5)
            if values:
                same = values * (1 - MISMATCH) + MISMATCH
                constants[:, column] = math.log(same)
                corner = math.sqrt(math.log(same / MISMATCH))
                cell = np.floor(at * values)
                coordinates += [np.where(cell == value, corner, 0.0) for value in range(values)]
                owners += [column] * values
            else:
                width = widths[column]
                inside = normal_cdf((1 - at) / width) - normal_cdf(-at / width)
                constants[:, column] = -np.log(width * inside) - 0.5 * math.log(2 * math.pi)
                coordinates.append(at / width)
                owners.append(column)
        self._active = active.astype(float)
        self._owners = self._active[:, owners]
        self._coordinates = np.stack(coordinates, axis=1)
        self._constants = np.where(active, constants, 0.0)

    def log_kernels(self, centre: int, start: int) -> Floats:
        """Logarithm of the kernel around candidate `centre` at the candidates from `start` on."""
        squares = (self._coordinates[start:] - self._coordinates[centre]) ** 2
        distances = (squares * self._owners[start:]) @ self._owners[centre]
        logs: Floats = self._active[start:] @ self._constants[centre] - 0.5 * distances
        return logs


def chosen_of(n: int, log_good: Floats, log_bad: Floats, repulsion: LocalPenalisation) -> list[int]:
    """The candidate with the largest l / g of each of `n` shares; those chosen before count as bad."""
    log_bad = log_bad.copy()
    ends = np.arange(n + 1) * len(log_good) // n
    chosen: list[int] = []
    for start, end in pairwise(ends.tolist()):
        if start == end:
            continue
        best = start + int(np.argmax(log_good[start:end] - log_bad[start:end]))
        chosen.append(best)
        log_bad[end:] = np.logaddexp(log_bad[end:], repulsion.log_kernels(best, end))
    return chosen
