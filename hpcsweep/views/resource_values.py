"""The values of a sweep at one resource: what can be compared with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import Config
from hpcsweep.views.configurations import first_trials

if TYPE_CHECKING:
    from hpcsweep.views.results import Results

#: Fewer values than that tell nothing.
LEAST: Final = 20
#: Values of a resource count if at least this share of all configurations has one.
_ENOUGH: Final = 0.25
#: So many resources may be chosen from.
MOST: Final = 6


class Values(NamedTuple):
    """Configurations with a value at one resource, by first trial, and how many have one at any."""

    resource: int
    trials: NDArray[np.int64]
    configs: list[Config]
    values: Floats
    configurations: int


def values_of(results: Results, objective: int = 0, resource: int | None = None) -> Values:
    """Values of one objective at one resource, by default at the highest that many reached.

    Values at different resources cannot be compared, and those that reached the highest are few and
    were chosen for being good: so it is the highest at which a quarter of all configurations has a
    value, and at least `LEAST`; without one, the resource with the most values. Failed runs have none.
    """
    values_at = _values_by_resource(results, objective)
    total = len(set().union(*values_at.values()))
    if resource is None:
        counts = {at: len(values) for at, values in values_at.items()}
        enough = [at for at, count in counts.items() if count >= max(LEAST, _ENOUGH * total)]
        resource = max(enough) if enough else max(counts, key=lambda at: counts[at], default=0)
    values = values_at.get(resource, {})
    configs = [results.folder.state.trials[trial].config for trial in values]
    trials = np.array(list(values), dtype=np.int64)
    return Values(resource, trials, configs, np.array(list(values.values()), dtype=float), total)


def compared_resources(results: Results, objective: int = 0) -> dict[int, int]:
    """Resources at which values can be looked at, the highest first, and how many values each has.

    Those with at least `LEAST` values, at most `MOST`: the highest, the lowest, the one of `values_of`.
    """
    counts = {at: len(values) for at, values in _values_by_resource(results, objective).items()}
    found = sorted((at for at, count in counts.items() if count >= LEAST), reverse=True)
    if len(found) > MOST:
        kept = {found[at] for at in np.linspace(0, len(found) - 1, MOST - 1).round().astype(int)}
        found = [at for at in found if at in kept | {values_of(results, objective).resource}]
    return {at: counts[at] for at in found}


def _values_by_resource(results: Results, objective: int) -> dict[int, dict[int, float]]:
    """By resource, then by first trial."""
    state = results.folder.state
    values_at: dict[int, dict[int, float]] = {}
    for first in first_trials(state):
        for run in state.trials[first].runs:
            value = state.objective_value(first, run.rung, objective)
            if value is not None and np.isfinite(value):
                values_at.setdefault(run.achieved_resource, {})[first] = value
    return values_at
