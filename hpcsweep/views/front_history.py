"""The hypervolume of a sweep's front over time, all of it measured from one reference point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np

from hpcsweep.core import pareto
from hpcsweep.core.domains import Floats
from hpcsweep.core.objectives import Objectives, dominates
from hpcsweep.views.format import duration, number
from hpcsweep.views.progress import SweepProgress, ValuesChange

#: The reference point is that of so many configurations, the first ones that keep the bounds.
SETTLED: Final = 20
#: At most so many changes of the front are measured, an even spread of them and the newest.
MOST_STEPS: Final = 300


class Reference(NamedTuple):
    """A point that the hypervolume is measured up to.

    Attributes:
        point: As minimised, `(k,)`.
        of: Configurations within bounds that it is chosen by where there is no bound; 0: those beyond.
        own: Whether the spec gives it.
    """

    point: Floats
    of: int
    own: bool = False


class HypervolumeStep(NamedTuple):
    """From `at` on the front had this hypervolume; what the sweep had spent by then."""

    at: float
    active_s: float  # as in `SweepProgress`
    spent_s: float
    spent_gpu_s: float
    trial: int  # whose values changed it, the first one of its configuration
    size: int  # configurations on the front
    value: float


class FrontHistory(NamedTuple):
    """How the front that keeps the bounds grew; no steps while there is none."""

    objectives: Objectives
    reference: Reference
    steps: tuple[HypervolumeStep, ...]

    @property
    def value(self) -> float:
        """The hypervolume now."""
        return self.steps[-1].value if self.steps else 0.0

    @property
    def point(self) -> dict[str, float]:
        """The reference point by metric."""
        return point_by_metric(self.objectives, self.reference)

    @property
    def settled(self) -> bool:
        """Whether the reference point stays where it is for the rest of the sweep."""
        return (
            self.reference.own
            or self.reference.of >= SETTLED
            or all(_bound(each) is not None for each in self.objectives)
        )


def point_by_metric(objectives: Objectives, reference: Reference) -> dict[str, float]:
    """The reference point as values of the metrics."""
    point = objectives.point((0.0, *reference.point.tolist()))
    return dict(zip(objectives.metrics, point, strict=True))


def _bound(objective: Any) -> float | None:
    """On the worse side."""
    bound: float | None = objective.at_least if objective.mode == "max" else objective.at_most
    return bound


def first_keys(objectives: Objectives, changes: Sequence[ValuesChange]) -> list[tuple[float, ...]]:
    """The first values of the configurations by which a reference point is chosen.

    Of the first ones that keep the bounds; while there are fewer of these, also of others.
    """
    feasible: dict[int, tuple[float, ...]] = {}
    others: dict[int, tuple[float, ...]] = {}
    for change in changes:
        if len(feasible) == SETTLED:
            break
        if change.values and change.trial not in feasible:
            key = _key(objectives, change)
            (others if key[0] > 0 else feasible).setdefault(change.trial, key)
    return list((feasible or others).values())[:SETTLED]


def reference_of(objectives: Objectives, keys: Sequence[tuple[float, ...]]) -> Reference:
    """That of the spec; else, of configurations with these keys, see `pareto.reference_point`.

    A bound where there is one, else a tenth beyond the worst value.
    """
    if objectives.reference is not None:
        return Reference(np.array(objectives.reference), 0, own=True)
    rows = np.array(keys, dtype=float)
    limits = [(each.sign, _bound(each)) for each in objectives]
    bounds = [None if bound is None else sign * bound for sign, bound in limits]
    feasible = int((rows[:, 0] <= 0).sum())
    return Reference(pareto.reference_point(rows[:, 1:], rows[:, 0], bounds=bounds), feasible)


_KNOWN: WeakKeyDictionary[SweepProgress, tuple[int, FrontHistory | None]] = WeakKeyDictionary()


def front_history(progress: SweepProgress) -> FrontHistory | None:
    """Of the sweep so far; None with one objective, and while no configuration has values."""
    count = len(progress.values_changes)
    known = _KNOWN.get(progress)
    if known is None or known[0] != count:
        objectives = progress.state.objectives
        keys = first_keys(objectives, progress.values_changes)
        changes = progress.values_changes
        found = measured(objectives, changes, reference_of(objectives, keys)) if keys else None
        known = _KNOWN[progress] = (count, found)
    return known[1]


def measured(objectives: Objectives, changes: Sequence[ValuesChange], reference: Reference) -> FrontHistory:
    """The history of the front that changes of values make, measured from this point."""
    fronts = _front_changes(objectives, changes)
    if len(fronts) > MOST_STEPS:
        kept = np.unique(np.linspace(0, len(fronts) - 1, MOST_STEPS).round().astype(int))
        fronts = [fronts[index] for index in kept.tolist()]
    steps: list[HypervolumeStep] = []
    for change, front in fronts:
        value = pareto.hypervolume(np.array(front, dtype=float)[:, 1:], reference.point) if front else 0.0
        shown = (change.at, change.active_s, change.spent_s, change.spent_gpu_s, change.trial)
        steps.append(HypervolumeStep(*shown, len(front), value))
    return FrontHistory(objectives, reference, tuple(steps))


def _key(objectives: Objectives, change: ValuesChange) -> tuple[float, ...]:
    return cast("tuple[float, ...]", objectives.key(change.values[0], change.values))


def _front_changes(
    objectives: Objectives, changes: Sequence[ValuesChange]
) -> list[tuple[ValuesChange, list[tuple[float, ...]]]]:
    """The changes that changed the front that keeps the bounds, each with the keys of that."""
    newest: dict[int, tuple[float, ...]] = {}
    front: dict[int, tuple[float, ...]] = {}
    found = []
    for change in changes:
        was = front.get(change.trial)
        newest.pop(change.trial, None)
        if change.values:
            key = _key(objectives, change)
            if key[0] <= 0:
                newest[change.trial] = key
        if was is not None:
            front = _front(newest)
        elif change.trial in newest:
            key = newest[change.trial]
            if any(dominates(other, key) for other in front.values()):
                continue
            front = {trial: other for trial, other in front.items() if not dominates(key, other)}
            front[change.trial] = key
        else:
            continue
        found.append((change, list(front.values())))
    return found


def _front(keys: Mapping[int, tuple[float, ...]]) -> dict[int, tuple[float, ...]]:
    if not keys:
        return {}
    trials = list(keys)
    best = pareto.nondominated(np.array([keys[trial] for trial in trials], dtype=float)[:, 1:])
    return {trials[index]: keys[trials[index]] for index in np.flatnonzero(best).tolist()}


# ---------------------------------------------------------------------- in words


def hypervolume_record(history: FrontHistory | None) -> dict[str, Any] | None:
    """What `status --json` has of it: times in seconds since the start, without pauses."""
    if history is None:
        return None
    return {
        "value": history.value,
        "reference": history.point,
        "reference_settled": history.settled,
        "history": [
            {
                "seconds": step.active_s,
                "run_hours": round(step.spent_s / 3600, 6),
                "gpu_hours": round(step.spent_gpu_s / 3600, 6),
                "trial": step.trial,
                "front": step.size,
                "value": step.value,
            }
            for step in history.steps
        ],
    }


def hypervolume_text(history: FrontHistory, *, active_s: float) -> str:
    """Such as `0.31, half of it after 2 min, last changed after 8 min of 10 min`."""
    if not history.steps or not history.value:
        return f"0 {point_text(history)}"
    half = next(step for step in history.steps if step.value >= history.value / 2)
    last = duration(history.steps[-1].active_s)
    return (
        f"{number(history.value)} {point_text(history)}; half of it after {duration(half.active_s)}, "
        f"last changed after {last} of {duration(active_s)}"
    )


def point_text(history: FrontHistory) -> str:
    """The reference point: `up to error 2.1, latency 50`."""
    point = ", ".join(f"{metric} {number(value)}" for metric, value in history.point.items())
    return f"up to {point}"


def reference_text(history: FrontHistory) -> str:
    """How the reference point is chosen."""
    if history.reference.own:
        return "the reference point of the sweep file"
    bounded = [each.metric for each in history.objectives if _bound(each) is not None]
    free = [metric for metric in history.objectives.metrics if metric not in bounded]
    parts = [f"the bound of {' and '.join(bounded)}"] if bounded else []
    if free:
        within = " within bounds" if history.objectives.bounded else ""
        what = f"of the first {SETTLED} configurations{within}"
        if not history.settled:
            what = f"so far, until there are {SETTLED} configurations{within}"
        parts.append(f"for {' and '.join(free)} a tenth beyond the worst {what}, outliers left out")
    return "; ".join(parts)
