"""The front of a sweep with several objectives, and its hypervolume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hpcsweep.core import pareto
from hpcsweep.core.models import Best
from hpcsweep.core.state import SweepState
from hpcsweep.views.configurations import valued_configurations


def front_rows(state: SweepState) -> list[dict[str, Any]]:
    """The configurations that none dominates, the best in the first objective first.

    Trial, values by metric, the resource that they are of, and the configuration; `violation`, how far beyond
    the bounds, where no configuration keeps them.
    """
    return [_row(state, best) for best in state.front]


def _row(state: SweepState, best: Best) -> dict[str, Any]:
    objectives = state.objectives
    values = dict(zip(objectives.metrics, best.values or (best.value,), strict=True))
    row = {"trial": best.trial, "values": values, "resource": best.resource, "config": best.config}
    violation = objectives.violation(tuple(values.values()))
    return row | ({"violation": violation} if violation else {})


def hypervolume(state: SweepState) -> dict[str, Any] | None:
    """Of the front that keeps the bounds, and by metric the reference point that it is measured from.

    None while no run has given values. The reference point moves while the sweep goes on, see
    `pareto.reference_point`.
    """
    objectives = state.objectives
    keys = [objectives.key(best.value, best.values) for best in valued_configurations(state)]
    if not keys or not objectives.several:
        return None
    rows = np.array(keys, dtype=float)
    values, violations = rows[:, 1:], rows[:, 0]
    limits = [each.at_least if each.mode == "max" else each.at_most for each in objectives]
    bounds = [None if at is None else each.sign * at for each, at in zip(objectives, limits, strict=True)]
    reference = pareto.reference_point(values, violations, bounds=bounds)
    point = objectives.point((0.0, *reference.tolist()))
    return {
        "value": pareto.hypervolume(values[violations <= 0], reference),
        "reference": dict(zip(objectives.metrics, point, strict=True)),
    }


def front_summary(state: SweepState) -> dict[str, Any]:
    """What `status --json` has of it; nothing with one objective."""
    if not state.objectives.several:
        return {}
    return {"front": front_rows(state), "hypervolume": hypervolume(state)}


def front_lines(state: SweepState) -> Iterator[str]:
    """One line for each configuration of the front."""
    from hpcsweep.views.format import config_text, number

    for row in front_rows(state):
        values = ", ".join(f"{metric} {number(value)}" for metric, value in row["values"].items())
        beyond = " (beyond its bounds)" if "violation" in row else ""
        yield f"trial {row['trial']}: {values} at {row['resource']}{beyond}: {config_text(row['config'])}"


def hypervolume_text(found: Mapping[str, Any]) -> str:
    """Such as `0.31 up to error 2.1, latency 1.2`."""
    from hpcsweep.views.format import number

    point = ", ".join(f"{metric} {number(value)}" for metric, value in found["reference"].items())
    return f"{number(found['value'])} up to {point}"
