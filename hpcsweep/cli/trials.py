"""`trials` and `best -n`: the trials as a table, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from hpcsweep.cli.terminal import NO_VALUE, errors_exit, json_text, sanitize
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.outcomes import FACTS, FailureKind
from hpcsweep.views.format import config_text, duration, hours_text, number
from hpcsweep.views.results import Results, load
from hpcsweep.views.trial_rows import best_rows, select_rows, sort_rows

#: Metrics beside the objective that have a column.
METRICS: Final = 3


def trials(path: Path, *, n: int | None, sort: str | None, where: str | None, json: bool) -> None:
    """Print trials: the first `n` (None: all) of those for which `where` holds."""
    with errors_exit():
        results = load(path)
        rows = results.rows
        found = sort_rows(rows, sort, minimise=results.minimise)
        found = select_rows(found, where) if where else found
        shown = found if n is None else found[:n]
        if json:
            typer.echo(json_text(shown))
            return
        by = "best first" if sort is None else f"by {sort}"
        of = f" of {len(rows):,} trials" if where is None else f" of {len(found):,} trials where {where}"
        _print(results, shown, footer=f"{len(shown):,}{of}, {by}")


def best(path: Path, *, n: int, json: bool) -> None:
    """Print the best `n` configurations."""
    with errors_exit():
        results = load(path)
        rows = best_rows(results.rows, results.folder.state, n)
        if not rows:
            typer.echo(f"hpcsweep: {path}: no run has given a value yet", err=True)
            raise typer.Exit(NO_VALUE)
        if json:
            typer.echo(json_text(rows))
            return
        state = results.folder.state
        mean = f", each the mean of {state.repeats} repeats" if state.repeats > 1 else ""
        _print(results, rows, footer=f"the best {len(rows):,} of {state.configurations:,}{mean}")


def _print(results: Results, rows: Sequence[Mapping[str, Any]], *, footer: str) -> None:
    """A table with a line for each row."""
    objectives = results.objectives
    own = objectives.metrics
    others = list(dict.fromkeys(name for row in rows for name in row["metrics"] if name not in own))
    others = others[:METRICS]
    gpus = any(row["gpu_seconds"] for row in rows)
    front = ["front"] if objectives.has_front else []
    cost = ["GPU-h"] if gpus else []
    head = ["trial", *front, *own, *others, "at", "rung", "status", "time", *cost]
    lines = [[*_cells(row, objectives, others, gpus=gpus), config_text(row["config"])] for row in rows]
    widths = [max(len(line[index]) for line in [head, *lines]) for index in range(len(head))]
    for line in [[*head, "configuration"], *lines] if lines else []:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=False)]
        typer.echo(sanitize("  ".join([*cells, line[-1]])))
    typer.echo(sanitize(f"{footer}; simulated: nothing was trained" if results.simulated else footer))


def _cells(row: Mapping[str, Any], objectives: Objectives, others: Sequence[str], *, gpus: bool) -> list[str]:
    """All but the configuration."""
    metrics = row["metrics"]
    values = row.get("values", {objectives[0].metric: row["value"]})
    status = FACTS[FailureKind(row["failure"])].label if row["failure"] else row["status"]
    if row.get("infeasible"):
        status += ", infeasible"
    return [
        str(row["trial"]),
        *(["-" if row["front"] is None else str(row["front"])] if objectives.has_front else []),
        *(_number(values.get(name)) for name in objectives.metrics),
        *(_number(metrics.get(name)) for name in others),
        "-" if row["resource"] is None else str(row["resource"]),
        "-" if row["rung"] is None else str(row["rung"]),
        status,
        duration(row["seconds"]),
        *([hours_text(row["gpu_seconds"])] if gpus else []),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else number(value)
