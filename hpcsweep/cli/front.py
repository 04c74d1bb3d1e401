"""`best` of a sweep with several objectives: the front as a table, and its picks."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcsweep.cli.terminal import NO_VALUE, json_text, sanitize
from hpcsweep.core.models import Best
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.errors import SpecError
from hpcsweep.views.folder import best_of
from hpcsweep.views.format import config_text, number
from hpcsweep.views.fronts import (
    Front,
    bound_text,
    by_weights,
    front_of,
    front_rows,
    infeasible_text,
    read_weights,
    values_by_metric,
    values_text,
)


def best(path: Path, state: SweepState, *, json: bool, weights: str | None) -> None:
    """Print the front; with weights the one that it is best by.

    Raises:
        SpecError: The weights are no such.
    """
    chosen = None if weights is None else picked(state, weights)
    front = front_of(state)
    if front is None:
        typer.echo(f"hpcsweep: {path}: no run has given a value yet", err=True)
        raise typer.Exit(NO_VALUE)
    if json:
        found = best_of(state) if chosen is None else _record(state, chosen)
        simulated = {"simulated": True} if state.simulated else {}
        typer.echo(json_text({**(found or {}), "front": front_rows(state), **simulated}))
        return
    if chosen is not None:
        values = values_text(values_by_metric(state, chosen))
        typer.echo(sanitize(f"trial {chosen.trial}: {values} at {chosen.resource}"))
        for name, value in chosen.config.items():
            typer.echo(sanitize(f"  {name}: {value}"))
        return
    for line in (*_table(state, front), *_picks(state, front)):
        typer.echo(sanitize(line))


def picked(state: SweepState, weights: str) -> Best | None:
    """Who is best by these weights; None while no run has given values.

    Raises:
        SpecError: The weights are no such, or the sweep has one objective.
    """
    if not state.objectives.has_front:
        raise SpecError(f"--weights: needs several objectives, and {state.metric} is the only one")
    return by_weights(state, read_weights(weights, state.objectives))


def _record(state: SweepState, chosen: Best) -> dict[str, object]:
    """As `best_of` has the best one."""
    values = values_by_metric(state, chosen)
    found = {"trial": chosen.trial, "value": chosen.value, "resource": chosen.resource}
    return {**found, "config": chosen.config, "values": values}


def _table(state: SweepState, front: Front) -> list[str]:
    """A line for each configuration of the front."""
    head = ["trial", *state.objectives.metrics, "at"]
    rows = [
        [str(best.trial), *map(number, best.values), str(best.resource), config_text(best.config)]
        for best in front.members
    ]
    lines = [[*head, "configuration"], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    return [
        "  ".join([*(cell.rjust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    ]


def _picks(state: SweepState, front: Front) -> list[str]:
    """What is picked from the front, and what is to be known of it."""
    bounds = {each.metric: bound_text(each) for each in state.objectives}
    of = plural(front.configurations, "configuration")
    mean = f", each the mean of {state.repeats} repeats" if state.repeats > 1 else ""
    lines = [f"front: {len(front.members):,} of {of} with values{mean}"]
    if not front.feasible:
        lines[0] = f"no configuration keeps the bounds; nearest to them: {len(front.members):,} of {of}{mean}"
    if state.objectives.has_front:
        lines.append(f"knee, nearest to the best value of each: trial {front.knee.trial}")
        lines += [f"best {metric}: trial {best.trial}" for metric, best in front.extremes.items()]
    if front.infeasible:
        lines.append(f"infeasible: {infeasible_text(front, state.objectives)}")
    elif any(bounds.values()):
        kept = ", ".join(f"{metric} {bound}" for metric, bound in bounds.items() if bound)
        lines.append(f"all keep the bounds: {kept}")
    if state.simulated:
        lines.append("simulated: nothing was trained")
    return lines
