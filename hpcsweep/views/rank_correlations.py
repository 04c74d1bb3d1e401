"""Whether low rungs predict high ones: for status, report and explain."""

from __future__ import annotations

import msgspec

from hpcsweep.core.models import RunStatus
from hpcsweep.core.rank_correlation import RankCorrelation, rank_correlation
from hpcsweep.core.state import SweepState
from hpcsweep.views.brackets import is_population, scheduler_options


def rank_correlations(state: SweepState) -> list[RankCorrelation]:
    """Each resource against the highest one that enough of its trials have reached, the lowest first.

    Of several objectives one after the other. Empty for a population, where clones take the place of trials.
    """
    if is_population(state):
        return []
    return [found for index in range(len(state.objectives)) for found in _of_objective(state, index)]


def _of_objective(state: SweepState, objective: int) -> list[RankCorrelation]:
    values = _values_by_resource(state, objective)
    resources = sorted(values)
    auto = scheduler_options(state).get("min_resource") == "auto"
    found = []
    for index, resource in enumerate(resources):
        for higher in reversed(resources[index + 1 :]):
            one = rank_correlation((resource, values[resource]), (higher, values[higher]))
            if one is not None:
                named = msgspec.structs.replace(one, metric=state.objectives[objective].metric)
                found.append(_with_advice(named, auto=auto))
                break
    return found


def _with_advice(found: RankCorrelation, *, auto: bool) -> RankCorrelation:
    if found.predicts is not False:
        return found
    text = "min_resource: auto raises itself" if auto else f"raise min_resource above {found.lower:,}"
    return msgspec.structs.replace(found, advice=text)


def _values_by_resource(state: SweepState, objective: int) -> dict[int, dict[int, float]]:
    """Of each resource one objective's values of the configurations that completed it, by first trial."""
    values: dict[int, dict[int, float]] = {}
    for trial in state.trials:
        if trial.repeat:
            continue
        for run in trial.runs:
            value = state.objective_value(trial.trial, run.rung, objective)
            if value is not None and run.status is RunStatus.COMPLETED:
                values.setdefault(run.resource, {})[trial.trial] = value
    return values


def rank_correlation_text(found: RankCorrelation, *, several: bool) -> str:
    """For people, for example `resource 3 did not predict resource 81: raise min_resource above 3 (...)`.

    Args:
        found: The correlation.
        several: Whether the sweep has several objectives, so that this one is named.
    """
    went_on = f"the {found.trials} of {found.known}" if found.trials < found.known else f"all {found.trials}"
    figures = (
        f"rank correlation {found.rho:.2f}, 90 % interval {found.low:.2f} to {found.high:.2f}, "
        f"of {went_on} trials that have both"
    )
    lower, higher = f"resource {found.lower:,}", f"resource {found.higher:,}"
    if several:
        higher += f" in {found.metric}"
    if found.predicts is None:
        return f"whether {lower} predicts {higher} is open: {figures}"
    if found.predicts:
        return f"{lower} predicts {higher}: {figures}"
    return f"{lower} did not predict {higher}: {found.advice} ({figures})"
