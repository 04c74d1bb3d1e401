"""`report` and `compare`: one or several results folders as an HTML page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from hpcsweep.cli.terminal import NO_VALUE, errors_exit, json_text, print_table
from hpcsweep.errors import SpecError
from hpcsweep.html.comparison import comparison_page, pair_text, verdict
from hpcsweep.html.page import page, write_page
from hpcsweep.html.pareto import Mode
from hpcsweep.store.files import is_stdout
from hpcsweep.views.comparison import CONFIDENCE, Comparison, Estimate, SweepSummary
from hpcsweep.views.comparison import compare as compare_folders
from hpcsweep.views.format import config_text, number
from hpcsweep.views.results import Results, load, skipped_lines


def report(path: Path, *, output: Path | None, metrics: Sequence[str], every: float | None = None) -> None:
    """Write the page and print where it is; with `every` again and again, until the sweep has ended."""
    with errors_exit():
        target = output or path / "report.html"
        if every is not None and is_stdout(target):
            raise SpecError("--watch: needs a file, got --output -")
        results = _write(path, target, metrics, every=every, hint=not output)
        if not is_stdout(target):
            typer.echo(target)
        while every is not None and results.folder.state.ended is None:
            pause(every)
            results = _write(path, target, metrics, every=every, hint=not output)
        if every is not None:
            typer.echo(f"the sweep has ended ({results.folder.progress.status}): written for the last time")


def pause(seconds: float) -> None:
    """Ctrl-C ends the watching, and is no error."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _write(path: Path, target: Path, metrics: Sequence[str], *, every: float | None, hint: bool) -> Results:
    results = load(path)
    html = page(results, modes=_modes(metrics, results), at=time.time(), every=every or 0.0)
    for line in skipped_lines(results):
        typer.echo(line, err=True)
    write_page(target, html, hint="; --output FILE puts it elsewhere" if hint else "")
    return results


def _modes(metrics: Sequence[str], results: Results) -> dict[str, Mode]:
    """`NAME=min` and `NAME=max` of metrics that were reported."""
    modes: dict[str, Mode] = {}
    for given in metrics:
        name, _, mode = given.rpartition("=")
        if not name or mode not in ("min", "max"):
            raise SpecError(f"--metric {given}: expected NAME=min or NAME=max")
        known = [str(metric) for metric in results.metrics if metric not in ("trial", "rung", "step")]
        if name not in known:
            raise SpecError(
                f"--metric {given}: no run reported it; reported are: {', '.join(known) or 'none'}"
            )
        modes[name] = "min" if mode == "min" else "max"
    return modes


def compare(folders: Sequence[Path], *, output: Path | None, json: bool) -> None:
    """Print the comparison, and write the page: to `compared.html` unless --output or --json is given."""
    with errors_exit():
        comparison = compare_folders(folders)
        if output is not None and is_stdout(output) and json:
            raise SpecError("--output: standard output gets the JSON; give a file for the page")
        target = output or (None if json else Path("compared.html"))
        if target is not None:
            write_page(target, comparison_page(comparison), hint="; --output FILE puts it elsewhere")
        if json:
            typer.echo(_json(comparison, target))
        elif target is None or not is_stdout(target):
            _print(comparison)
            typer.echo(f"page: {target}")
        if all(sweep.best is None for sweep in comparison.sweeps):
            raise typer.Exit(NO_VALUE)


def _print(comparison: Comparison) -> None:
    head = ["", "folder", "searcher", "scheduler", "seed", "state", "trials"]
    lines = [[*head, f"best {comparison.metric}", "at", comparison.unit, "hours"]]
    lines += [[group.label, *_cells(sweep)] for group in comparison.groups for sweep in group.sweeps]
    print_table(lines)
    typer.echo()
    for sweep in comparison.sweeps:
        if sweep.best:
            typer.echo(f"{sweep.label}: trial {sweep.best['trial']}: {config_text(sweep.best['config'])}")
    if comparison.budgets:
        typer.echo(f"\nbest {comparison.metric} so far at equal {comparison.unit}")
        budgets = [f"{hours:.3g}" for hours in comparison.budgets]
        rows = [[g.label, str(len(g.sweeps)), *map(_mean, g.values)] for g in comparison.groups]
        print_table([["", "repeats", *budgets], *rows])
    for pair in comparison.pairs:
        interval = "" if pair.low is None else f" ({pair.low:.4g} to {pair.high:.4g})"
        result = verdict(pair, minimise=comparison.minimise)
        typer.echo(f"{pair_text(pair)}: {pair.difference:+.4g}{interval}: {result}")
    if any(len(group.sweeps) > 1 for group in comparison.groups):
        typer.echo(f"repeats differ only in the seed: their mean, with its {CONFIDENCE:.0%} interval")
    for note in comparison.notes:
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


def _json(comparison: Comparison, target: Path | None) -> str:
    document: dict[str, Any] = {
        "metric": comparison.metric,
        "mode": "min" if comparison.minimise else "max",
        "unit": comparison.unit,
        "budgets": comparison.budgets,
        "sweeps": [
            _sweep_json(sweep) | {"group": group.label}
            for group in comparison.groups
            for sweep in group.sweeps
        ],
        "groups": [
            {
                "name": group.label,
                "repeats": len(group.sweeps),
                "values": [None if value is None else value._asdict() for value in group.values],
            }
            for group in comparison.groups
        ],
        "pairs": [
            pair._asdict() | {"better": pair.better(minimise=comparison.minimise)}
            for pair in comparison.pairs
        ],
        "confidence": CONFIDENCE,
        "notes": comparison.notes,
        "page": None if target is None else str(target),
    }
    return json_text(document)


def _sweep_json(sweep: SweepSummary) -> dict[str, Any]:
    """A sweep as JSON has it, its curve as rows of time, cost and value."""
    fields = sweep._asdict()
    curve = fields.pop("curve")
    del fields["settings"]
    values = [list(step) for step in zip(*(column.tolist() for column in curve), strict=True)]
    return fields | {"path": str(sweep.path), "values": values}
