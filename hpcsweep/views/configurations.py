"""Configurations of a sweep, the repeats of each taken together: values, means, failures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import Config
from hpcsweep.core.models import Best, Run
from hpcsweep.core.outcomes import FACTS, Fault
from hpcsweep.core.state import SweepState


class FailedConfigurations(NamedTuple):
    """Configurations that failed and have no value: first trial, failed run and values of each `(n,)`."""

    trials: NDArray[np.int64]
    runs: Sequence[Run]
    configs: Sequence[Config]

    def take(self, indices: NDArray[Any]) -> FailedConfigurations:
        """Only those, in this order."""
        runs, configs = ([column[index] for index in indices] for column in (self.runs, self.configs))
        return FailedConfigurations(self.trials[indices], runs, configs)


class Configurations(NamedTuple):
    """Configurations with a value of one objective, best first.

    Attributes:
        trials: The first trial of each `(n,)`.
        values: At `resources`, the mean of the repeats; from `low` to `high`, all `(n,)`.
        failed: Those that have no value because they failed.
    """

    trials: NDArray[np.int64]
    values: Floats
    resources: NDArray[np.int64]
    configs: Sequence[Config]
    low: Floats
    high: Floats
    failed: FailedConfigurations

    def take(self, indices: NDArray[Any]) -> Configurations:
        """Only those, in this order; `failed` stays."""
        configs = [self.configs[index] for index in indices]
        columns = (self.trials, self.values, self.resources, self.low, self.high)
        trials, values, resources, low, high = (column[indices] for column in columns)
        return Configurations(trials, values, resources, configs, low, high, self.failed)


def configurations(state: SweepState, resource: int | None = None, objective: int = 0) -> Configurations:
    """All configurations, those with a value and those that failed.

    Args:
        state: Of the sweep.
        resource: At which values are taken; None: the newest of each, then the first is `SweepState.best`
            where there is one objective.
        objective: Whose values these are.
    """
    newest = valued_configurations(state)
    valued = newest if resource is None else _valued_at(state, resource)
    ranges = [repeat_values(state, best.trial, best.rung, objective) for best in valued]
    values = np.array([best.values[objective] if objective else best.value for best in valued], dtype=float)
    resources = np.array([best.resource for best in valued], dtype=np.int64)
    order = np.lexsort((-resources, state.objectives[objective].sign * values))
    return Configurations(
        np.array([best.trial for best in valued], dtype=np.int64)[order],
        values[order],
        resources[order],
        [valued[index].config for index in order],
        np.array([min(values) for values in ranges], dtype=float)[order],
        np.array([max(values) for values in ranges], dtype=float)[order],
        failed_configurations(state, excluding={best.trial for best in newest}),
    )


def first_trials(state: SweepState) -> range:
    """The first trial of each configuration."""
    return range(0, len(state.trials), state.repeats)


def valued_configurations(state: SweepState) -> list[Best]:
    """Each configuration by its newest value, those without one left out, in trial order."""
    return [best for first in first_trials(state) if (best := state.newest(first)) is not None]


def _valued_at(state: SweepState, resource: int) -> list[Best]:
    """Each configuration with a value at this resource, in trial order."""
    return [
        Best(
            first,
            run.rung,
            value,
            resource,
            state.trials[first].config,
            state.repeats,
            state.values_of(first, run.rung),
        )
        for first in first_trials(state)
        for run in state.trials[first].runs
        if run.achieved_resource == resource and (value := state.value_of(first, run.rung)) is not None
    ]


def repeat_values(state: SweepState, first: int, rung: int, objective: int = 0) -> list[float]:
    """The values that a mean of `SweepState.objective_value` is of."""
    repeats = state.trials[first : first + state.repeats]
    runs = [trial.runs[rung] for trial in repeats if rung < len(trial.runs)]
    return [run.values[objective] if objective else run.value for run in runs if run.value is not None]


def standard_error(state: SweepState) -> float | None:
    """Of the best value, over its repeats; None for a single one."""
    best = state.best
    values = [] if best is None else repeat_values(state, best.trial, best.rung)
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def failed_configurations(state: SweepState, *, excluding: set[int]) -> FailedConfigurations:
    """Configurations that failed by their own fault, except those with a first trial in `excluding`."""
    failed = [
        (first, run)
        for first in first_trials(state)
        if first not in excluding and (run := _failed_run(state, first)) is not None
    ]
    trials = np.array([first for first, _ in failed], dtype=np.int64)
    configs = [state.trials[first].config for first, _ in failed]
    return FailedConfigurations(trials, [run for _, run in failed], configs)


def _failed_run(state: SweepState, first: int) -> Run | None:
    runs = (trial.runs[-1] for trial in state.trials[first : first + state.repeats])
    return next(
        (run for run in runs if run.outcome and FACTS[run.outcome].fault is Fault.CONFIGURATION), None
    )
