"""The trials of a sweep as points: one for each trial that has a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import Config
from hpcsweep.report.results import Results
from hpcsweep.report.tables import reached


class Points(NamedTuple):
    """Trials with a value, best first.

    Attributes:
        trials: Their numbers `(n,)`.
        values: Of the highest rung that gave one `(n,)`; `resources`: at which `(n,)`.
        total: How many trials the sweep has, those without a value too.
    """

    trials: NDArray[np.int64]
    values: Floats
    resources: NDArray[np.int64]
    configs: Sequence[Config]
    total: int

    def at(self, places: NDArray[Any]) -> Points:
        """Only those, in this order."""
        configs = [self.configs[place] for place in places]
        return Points(self.trials[places], self.values[places], self.resources[places], configs, self.total)


def points(results: Results) -> Points:
    """All trials that have a value."""
    trials = results.folder.state.trials
    found = [(trial, run) for trial in trials if (run := trial.last_completed) is not None]
    values = np.array([run.value for _, run in found], dtype=float)
    resources = np.array([reached(run) for _, run in found], dtype=np.int64)
    order = np.lexsort((-resources, values if results.minimise else -values))
    numbers = np.array([trial.trial for trial, _ in found], dtype=np.int64)
    configs = [found[place][0].config for place in order]
    return Points(numbers[order], values[order], resources[order], configs, len(trials))
