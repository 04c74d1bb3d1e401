"""The configurations of a sweep as points: by their newest value, as the sweep's best is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import Config, Outcome
from hpcsweep.core.models import Run
from hpcsweep.core.state import SweepState
from hpcsweep.html.format import ending
from hpcsweep.views.results import Results

#: Endings that are the configuration's own fault.
_OWN_FAULT = frozenset({Outcome.FAILED, Outcome.OUT_OF_MEMORY})


class Failed(NamedTuple):
    """Configurations that failed and have no value.

    Attributes:
        trials: The first trial of each `(n,)`.
        runs: Of each the run that failed.
    """

    trials: NDArray[np.int64]
    runs: Sequence[Run]
    configs: Sequence[Config]

    def at(self, places: NDArray[Any]) -> Failed:
        """Only those, in this order."""
        runs, configs = ([column[place] for place in places] for column in (self.runs, self.configs))
        return Failed(self.trials[places], runs, configs)


class Points(NamedTuple):
    """Configurations with a value, best first: the first one is `SweepState.best`.

    Attributes:
        trials: The first trial of each `(n,)`.
        values: The newest one, the mean where it is trained several times `(n,)`; `resources`: at
            which `(n,)`.
        low: The least of the values that the mean is of `(n,)`; `high`: the largest.
        failed: Those that have no value because they failed.
    """

    trials: NDArray[np.int64]
    values: Floats
    resources: NDArray[np.int64]
    configs: Sequence[Config]
    low: Floats
    high: Floats
    failed: Failed

    def at(self, places: NDArray[Any]) -> Points:
        """Only those, in this order; `failed` stays."""
        configs = [self.configs[place] for place in places]
        columns = (self.trials, self.values, self.resources, self.low, self.high)
        trials, values, resources, low, high = (column[places] for column in columns)
        return Points(trials, values, resources, configs, low, high, self.failed)


def points(results: Results) -> Points:
    """All configurations, those with a value and those that failed."""
    state = results.folder.state
    firsts = range(0, len(state.trials), state.repeats)
    found = [best for first in firsts if (best := state.newest(first)) is not None]
    ends = [repeat_values(state, best.trial, best.rung) for best in found]
    values = np.array([best.value for best in found], dtype=float)
    resources = np.array([best.resource for best in found], dtype=np.int64)
    order = np.lexsort((-resources, values if results.minimise else -values))
    valued = {best.trial for best in found}
    return Points(
        np.array([best.trial for best in found], dtype=np.int64)[order],
        values[order],
        resources[order],
        [found[place].config for place in order],
        np.array([min(values) for values in ends], dtype=float)[order],
        np.array([max(values) for values in ends], dtype=float)[order],
        failed(state, besides=valued),
    )


def repeat_values(state: SweepState, first: int, rung: int) -> list[float]:
    """The values that a mean of `SweepState.value_of` is of."""
    repeats = state.trials[first : first + state.repeats]
    runs = [trial.runs[rung] for trial in repeats if rung < len(trial.runs)]
    return [run.value for run in runs if run.value is not None]


def failed(state: SweepState, *, besides: set[int]) -> Failed:
    """Configurations of which a run failed by their own fault, without those in `besides`."""
    found = [
        (first, run)
        for first in range(0, len(state.trials), state.repeats)
        if first not in besides and (run := _failed_run(state, first)) is not None
    ]
    configs = [state.trials[first].config for first, _ in found]
    return Failed(np.array([first for first, _ in found], dtype=np.int64), [run for _, run in found], configs)


def _failed_run(state: SweepState, first: int) -> Run | None:
    runs = (trial.runs[-1] for trial in state.trials[first : first + state.repeats])
    return next((run for run in runs if run.outcome in _OWN_FAULT), None)


def failed_marks(runs: Sequence[Run]) -> list[list[Any]]:
    """Trial, resource and what was wrong, for the labels of marks."""
    return [[run.trial, run.resource, ending(run.failure_kind.value)] for run in runs if run.failure_kind]


def noun(results: Results) -> str:
    """What a point is: a trial, or a configuration where each has several."""
    return "configuration" if results.folder.state.repeats > 1 else "trial"
