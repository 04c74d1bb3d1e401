"""`compare`: several results folders in one table and on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from hpcsweep.cli.exit_codes import NO_VALUE, errors_exit
from hpcsweep.cli.sanitize import json_text
from hpcsweep.errors import SpecError
from hpcsweep.html.comparison import comparison_page, pair_text, verdict
from hpcsweep.html.page import write_page
from hpcsweep.store.files import is_stdout
from hpcsweep.views.comparison import CONFIDENCE, Comparison, Estimate, SweepSummary
from hpcsweep.views.comparison import compare as compare_folders
from hpcsweep.views.format import config_text, number


def compare(folders: Sequence[Path], *, output: Path | None, json: bool) -> None:
    """Print the comparison, and write the page: to `compared.html` unless --output or --json is given.

    Raises:
        typer.Exit: Code 1 if no sweep has a value, 2 if the request is wrong.
    """
    with errors_exit():
        found = compare_folders(folders)
        if output is not None and is_stdout(output) and json:
            raise SpecError("--output: standard output gets the JSON; give a file for the page")
        target = output or (None if json else Path("compared.html"))
        if target is not None:
            write_page(target, comparison_page(found), hint="; --output FILE puts it elsewhere")
        if json:
            typer.echo(_json(found, target))
        elif target is None or not is_stdout(target):
            _print(found)
            typer.echo(f"page: {target}")
        if all(sweep.best is None for sweep in found.sweeps):
            raise typer.Exit(NO_VALUE)


def _print(found: Comparison) -> None:
    head = ["", "folder", "searcher", "scheduler", "seed", "state", "trials"]
    lines = [[*head, f"best {found.metric}", "at", found.unit, "hours"]]
    lines += [[group.label, *_cells(sweep)] for group in found.groups for sweep in group.sweeps]
    _table(lines)
    typer.echo()
    for sweep in found.sweeps:
        if sweep.best:
            typer.echo(f"{sweep.label}: trial {sweep.best['trial']}: {config_text(sweep.best['config'])}")
    if found.budgets:
        typer.echo(f"\nbest {found.metric} so far at equal {found.unit}")
        budgets = [f"{hours:.3g}" for hours in found.budgets]
        rows = [[g.label, str(len(g.sweeps)), *map(_mean, g.values)] for g in found.groups]
        _table([["", "repeats", *budgets], *rows])
    for pair in found.pairs:
        interval = "" if pair.low is None else f" ({pair.low:.4g} to {pair.high:.4g})"
        words = verdict(pair, minimise=found.minimise)
        typer.echo(f"{pair_text(pair)}: {pair.difference:+.4g}{interval}: {words}")
    if any(len(group.sweeps) > 1 for group in found.groups):
        typer.echo(f"repeats differ only in the seed: their mean, with its {CONFIDENCE:.0%} interval")
    for note in found.notes:
        typer.echo(f"note: {note}")


def _mean(estimate: Estimate | None) -> str:
    if estimate is None:
        return "none yet"
    margin = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.2g}"
    return f"{estimate.mean:.4g}{margin}"


def _cells(sweep: SweepSummary) -> list[str]:
    value = "none yet" if sweep.best is None else number(sweep.best["value"])
    if sweep.error is not None:
        value += f" ± {sweep.error:.2g}"
    about = [sweep.label, sweep.searcher, sweep.scheduler, "" if sweep.seed is None else str(sweep.seed)]
    at = "" if sweep.best is None else str(sweep.best["resource"])
    return [*about, sweep.state, str(sweep.trials), value, at, f"{sweep.cost:.4g}", f"{sweep.time:.3g}"]


def _table(lines: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *others in lines:
        cells = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        typer.echo("  ".join([name.ljust(widths[0]), *cells]).rstrip())


def _json(found: Comparison, page: Path | None) -> str:
    document: dict[str, Any] = {
        "metric": found.metric,
        "mode": "min" if found.minimise else "max",
        "unit": found.unit,
        "budgets": found.budgets,
        "sweeps": [
            _sweep_json(sweep) | {"group": group.label} for group in found.groups for sweep in group.sweeps
        ],
        "groups": [
            {
                "name": group.label,
                "repeats": len(group.sweeps),
                "values": [None if value is None else value._asdict() for value in group.values],
            }
            for group in found.groups
        ],
        "pairs": [pair._asdict() | {"better": pair.better(minimise=found.minimise)} for pair in found.pairs],
        "confidence": CONFIDENCE,
        "notes": found.notes,
        "page": None if page is None else str(page),
    }
    return json_text(document)


def _sweep_json(sweep: SweepSummary) -> dict[str, Any]:
    """A sweep as JSON has it, its curve as rows of time, cost and value."""
    fields = sweep._asdict()
    curve = fields.pop("curve")
    del fields["settings"]
    values = [list(step) for step in zip(*(column.tolist() for column in curve), strict=True)]
    return fields | {"path": str(sweep.path), "values": values}
