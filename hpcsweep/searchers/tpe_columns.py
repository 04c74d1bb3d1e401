"""Proposals of `tpe` that choose each column by itself, for several objectives.

As MOTPE does (Ozaki et al. 2020): the good configurations are spread over a front, where columns agree that
do not tell them apart. Kernels of whole configurations would only look around each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hpcsweep.core.history import Floats
from hpcsweep.searchers.tpe_density import Columns, ParzenEstimator, Points, normal_cdf

#: Probability that the kernel of a value just proposed gives a choice any value, its own included.
MISMATCH = 0.2


class ColumnPicker:
    """In each column the candidate with the largest l / g; values that were picked before count as bad.

    Args:
        columns: Of the space.
        good: The density l.
        bad: The density g.
        candidates: Drawn for each proposal, in each column.
        draw: More candidates, `(n, d)`, without NaN.
        log_factors: What is added to log l / g, `(n, d)`, at candidates.
    """

    def __init__(
        self,
        columns: Columns,
        good: ParzenEstimator,
        bad: ParzenEstimator,
        *,
        candidates: int,
        draw: Callable[[int], Floats],
        log_factors: Callable[[Floats], Floats] | None = None,
    ) -> None:
        self._columns, self._good, self._bad = columns, good, bad
        self._candidates, self._draw, self._log_factors = candidates, draw, log_factors
        self._widths = bad.typical_widths()

    def pick(self, n: int, *, besides: Floats) -> Floats:
        """`n` proposals, `(n, d)`, that keep away from those `besides`, `(k, d)`, NaN where inactive."""
        unit = self._draw(n * self._candidates)
        points = Points(self._columns, unit)
        log_good = self._good.log_marginals(points)
        if self._log_factors is not None:
            log_good += self._log_factors(unit)
        log_bad = self._bad.log_marginals(points) + math.log(self._bad.total)
        shape = (n, self._candidates, len(self._columns))
        unit, log_good, log_bad = unit.reshape(shape), log_good.reshape(shape), log_bad.reshape(shape)
        for centre in besides:
            log_bad = np.logaddexp(log_bad, self._log_kernels(centre, unit))
        chosen = np.empty((n, len(self._columns)))
        for index in range(n):
            best = (log_good[index] - log_bad[index]).argmax(axis=0)
            chosen[index] = unit[index, best, np.arange(len(best))]
            following = slice(index + 1, None)
            kernels = self._log_kernels(chosen[index], unit[following])
            log_bad[following] = np.logaddexp(log_bad[following], kernels)
        return chosen

    def _log_kernels(self, centre: Floats, unit: Floats) -> Floats:
        """Logarithm of the kernel around `centre`, `(d,)`, in each column at `(n, c, d)`; none at NaN."""
        active = ~np.isnan(centre)
        centre = np.where(active, centre, 0.5)
        inside = normal_cdf((1 - centre) / self._widths) - normal_cdf(-centre / self._widths)
        away = (unit - centre) / self._widths
        logs: Floats = -0.5 * away * away - np.log(self._widths * inside) - 0.5 * math.log(2 * math.pi)
        for column, values in enumerate(self._columns.choices):
            if values:
                same = np.floor(unit[..., column] * values) == np.floor(centre[column] * values)
                equal = math.log(values * (1 - MISMATCH) + MISMATCH)
                logs[..., column] = np.where(same, equal, math.log(MISMATCH))
        return np.where(active, logs, -np.inf)
