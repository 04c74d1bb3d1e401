"""The front of a sweep with several objectives: who is on it, its picks, and who is beyond which bound."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hpcsweep.core import pareto
from hpcsweep.core.domains import Floats
from hpcsweep.core.models import Best
from hpcsweep.core.objectives import Objective, Objectives, dominates
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural, suggest_name
from hpcsweep.errors import SpecError
from hpcsweep.views.configurations import valued_configurations
from hpcsweep.views.format import number


class Front(NamedTuple):
    """The configurations that none dominates, the best in the first objective first.

    Where no configuration keeps the bounds, those that violate them least.

    Attributes:
        knee: The one that is nearest to the best value of each objective, all scaled to the front's range.
        extremes: By metric the one that is best in it; on a tie the one nearer to the best of the others.
        feasible: Whether they keep the bounds.
        configurations: How many have values, and how many of these are `infeasible`.
        beyond: By metric, how many are beyond a bound of it.
    """

    members: tuple[Best, ...]
    knee: Best
    extremes: Mapping[str, Best]
    feasible: bool
    configurations: int
    infeasible: int
    beyond: Mapping[str, int]

    @property
    def picks(self) -> dict[int, list[str]]:
        """Trial -> what it is picked for, such as `knee` and `best error`."""
        found: dict[int, list[str]] = {self.knee.trial: ["knee"]}
        for metric, best in self.extremes.items():
            found.setdefault(best.trial, []).append(f"best {metric}")
        return found


def front_of(state: SweepState) -> Front | None:
    """The front as it is now; None while no configuration has values."""
    objectives, knee = state.objectives, state.best
    if knee is None or not objectives.several:
        return None
    valued = valued_configurations(state)
    beyond: Counter[str] = Counter()
    infeasible = 0
    for best in valued:
        metrics = violated(objectives, best.values)
        beyond.update(list(metrics))
        infeasible += bool(metrics)
    members = state.front
    scaled = pareto.unit(minimised(objectives, members))
    distance = (scaled**2).sum(axis=1)
    extremes = {
        metric: members[int(np.lexsort((distance, scaled[:, index]))[0])]
        for index, metric in enumerate(objectives.metrics)
    }
    feasible = infeasible < len(valued)
    ordered = {metric: beyond[metric] for metric in objectives.metrics if metric in beyond}
    return Front(members, knee, extremes, feasible, len(valued), infeasible, ordered)


def minimised(objectives: Objectives, configurations: tuple[Best, ...]) -> Floats:
    """Their values, all to be minimised, `(n, k)`."""
    signs = np.array([each.sign for each in objectives], dtype=float)
    values = np.array([best.values for best in configurations], dtype=float)
    scaled: Floats = values.reshape(-1, len(objectives)) * signs
    return scaled


def front_numbers(state: SweepState) -> dict[int, int]:
    """First trial -> which front its configuration is on, from 1; one without values is on none.

    Those beyond their bounds come after all others, the one with the smallest violation first.
    """
    valued = valued_configurations(state)
    rows = np.array([state.objectives.key(best.value, best.values) for best in valued], dtype=float)
    rows = rows.reshape(len(valued), 1 + len(state.objectives))
    fronts = pareto.fronts(rows[:, 1:], rows[:, 0])
    return {valued[at].trial: place for place, each in enumerate(fronts, start=1) for at in each.tolist()}


def dominators_of(state: SweepState, best: Best) -> list[Best]:
    """The configurations that dominate this one, in trial order."""
    key = state.objectives.key(best.value, best.values)
    return [
        other
        for other in valued_configurations(state)
        if dominates(state.objectives.key(other.value, other.values), key)
    ]


# ---------------------------------------------------------------------- bounds


def violated(objectives: Objectives, values: tuple[float, ...]) -> dict[str, str]:
    """By metric how these values are beyond its bounds, such as `above 50`."""
    return {
        each.metric: beyond_text(each)
        for each, value in zip(objectives, values, strict=True)
        if each.violation(value) > 0
    }


def bound_text(objective: Objective) -> str:
    """`at most 50`; empty without a bound."""
    least = [] if objective.at_least is None else [f"at least {number(objective.at_least)}"]
    most = [] if objective.at_most is None else [f"at most {number(objective.at_most)}"]
    return ", ".join([*least, *most])


def beyond_text(objective: Objective) -> str:
    """What a value is that is beyond its bounds: `above 50`."""
    least, most = objective.at_least, objective.at_most
    if least is not None and most is not None:
        return f"not in {number(least)} to {number(most)}"
    return f"above {number(most)}" if most is not None else f"below {number(least or 0.0)}"


def infeasible_text(front: Front, objectives: Objectives) -> str:
    """How many configurations are beyond which bounds; empty where none is."""
    if not front.infeasible:
        return ""
    bounds = {each.metric: beyond_text(each) for each in objectives}
    beyond = ", ".join(f"{count:,} with {metric} {bounds[metric]}" for metric, count in front.beyond.items())
    return f"{front.infeasible:,} of {plural(front.configurations, 'configuration')} with values: {beyond}"


# ---------------------------------------------------------------------- picks by weights


def read_weights(text: str, objectives: Objectives) -> dict[str, float]:
    """`error=2,latency=1`: one for each objective.

    Raises:
        SpecError: It is something else.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        metric, equals, given = part.rpartition("=")
        metric = metric if equals else part
        if metric.strip() not in objectives.metrics:
            known = suggest_name(metric.strip(), objectives.metrics, kind="objective")
            raise SpecError(f"--weights {part.strip()}: expected METRIC=WEIGHT; {known}")
        try:
            weight = float(given)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise SpecError(f"--weights {part.strip()}: expected METRIC=WEIGHT with a weight of at least 0")
        found[metric.strip()] = weight
    missing = [metric for metric in objectives.metrics if metric not in found]
    if missing:
        raise SpecError(f"--weights: needs one for each objective; missing: {', '.join(missing)}")
    if not any(found.values()):
        raise SpecError("--weights: one must be more than 0")
    return found


def by_weights(state: SweepState, weights: Mapping[str, float]) -> Best | None:
    """The one of the front that is best by these weights; None while it is empty.

    By the augmented Tchebycheff function of values that are scaled to the front's range (Knowles 2006):
    a sum would never pick what lies in a hollow of the front.
    """
    if not state.front:
        return None
    given = np.array([weights[metric] for metric in state.objectives.metrics])
    scaled = pareto.unit(minimised(state.objectives, state.front))
    return state.front[int(np.argmin(pareto.tchebycheff(scaled, given / given.sum())))]


# ---------------------------------------------------------------------- rows and lines


def values_by_metric(state: SweepState, best: Best) -> dict[str, float]:
    """All values of a configuration."""
    return dict(zip(state.objectives.metrics, best.values or (best.value,), strict=True))


def values_text(values: Mapping[str, float]) -> str:
    """`error 0.1, latency 12`."""
    return ", ".join(f"{metric} {number(value)}" for metric, value in values.items())


def front_rows(state: SweepState) -> list[dict[str, Any]]:
    """The front as JSON has it: trial, values by metric, the resource that they are of, configuration, picks.

    `violation`: how far beyond the bounds, where no configuration keeps them.
    """
    front = front_of(state)
    return [] if front is None else [_row(state, front, best) for best in front.members]


def _row(state: SweepState, front: Front, best: Best) -> dict[str, Any]:
    row = {
        "trial": best.trial,
        "values": values_by_metric(state, best),
        "resource": best.resource,
        "config": best.config,
        "picks": front.picks.get(best.trial, []),
    }
    violation = state.objectives.violation(best.values)
    return row | ({"violation": violation} if violation else {})


def front_summary(state: SweepState) -> dict[str, Any]:
    """What `status --json` has of it beside the hypervolume."""
    front = front_of(state)
    return {
        "front": front_rows(state),
        "picks": None
        if front is None
        else {
            "knee": front.knee.trial,
            "best": {metric: best.trial for metric, best in front.extremes.items()},
        },
        "infeasible": {
            "configurations": front.infeasible if front else 0,
            "with_values": front.configurations if front else 0,
            "beyond": dict(front.beyond) if front else {},
        },
    }


def extremes_text(state: SweepState, front: Front) -> str:
    """`best error 0.1 (trial 3), best latency 12 (trial 4)`."""
    return ", ".join(
        f"best {metric} {number(values_by_metric(state, best)[metric])} (trial {best.trial})"
        for metric, best in front.extremes.items()
    )


def front_lines(state: SweepState) -> Iterator[str]:
    """What `status` says of it below the best: the best of each objective, and who is infeasible."""
    front = front_of(state)
    if front is None:
        return
    if state.objectives.has_front:
        yield f"      {extremes_text(state, front)}"
    if text := infeasible_text(front, state.objectives):
        yield f"infeasible: {text}"
