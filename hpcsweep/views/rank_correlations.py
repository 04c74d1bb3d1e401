"""Whether low rungs predict high ones: for status, report and explain."""

from __future__ import annotations

import msgspec

from hpcsweep.core.models import RunStatus
from hpcsweep.core.rank_correlation import RankCorrelation, rank_correlation
from hpcsweep.core.state import SweepState
from hpcsweep.views.brackets import is_population, scheduler_options


def rank_correlations(state: SweepState) -> list[RankCorrelation]:
    """Each resource against the highest one that enough of its trials have reached, the lowest first.

    Empty for a population, where clones take the place of trials.
    """
    values = _values_by_resource(state)
    if len(values) < 2 or is_population(state):
        return []
    resources = sorted(values)
    auto = scheduler_options(state).get("min_resource") == "auto"
    found = []
    for index, resource in enumerate(resources):
        for higher in reversed(resources[index + 1 :]):
            one = rank_correlation((resource, values[resource]), (higher, values[higher]))
            if one is not None:
                found.append(_with_advice(one, auto=auto))
                break
    return found


def _with_advice(found: RankCorrelation, *, auto: bool) -> RankCorrelation:
    if found.predicts is not False:
        return found
    text = "min_resource: auto raises itself" if auto else f"raise min_resource above {found.lower:,}"
    return msgspec.structs.replace(found, advice=text)


def _values_by_resource(state: SweepState) -> dict[int, dict[int, float]]:
    """Of each resource the values of the configurations that completed a run there, by first trial."""
    values: dict[int, dict[int, float]] = {}
    for trial in state.trials:
        if trial.repeat:
            continue
        for run in trial.runs:
            value = state.value_of(trial.trial, run.rung)
            if value is not None and run.status is RunStatus.COMPLETED:
                values.setdefault(run.resource, {})[trial.trial] = value
    return values


def rank_correlation_text(found: RankCorrelation) -> str:
    """For people, for example `resource 3 did not predict resource 81: raise min_resource above 3 (...)`."""
    went_on = f"the {found.trials} of {found.known}" if found.trials < found.known else f"all {found.trials}"
    figures = (
        f"rank correlation {found.rho:.2f}, 90 % interval {found.low:.2f} to {found.high:.2f}, "
        f"of {went_on} trials that have both"
    )
    lower, higher = f"resource {found.lower:,}", f"resource {found.higher:,}"
    if found.predicts is None:
        return f"whether {lower} predicts {higher} is open: {figures}"
    if found.predicts:
        return f"{lower} predicts {higher}: {figures}"
    return f"{lower} did not predict {higher}: {found.advice} ({figures})"
