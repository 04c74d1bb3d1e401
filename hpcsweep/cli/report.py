"""`report`: the results folder as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.errors import SpecError

if TYPE_CHECKING:
    from hpcsweep.html.pareto import Mode
    from hpcsweep.views.results import Results


def report(path: Path, *, output: Path | None, metrics: Sequence[str]) -> None:
    """Write the page and print where it is."""
    from hpcsweep.html.page import page, write_page
    from hpcsweep.store.files import is_stdout
    from hpcsweep.views.results import load, skipped_lines

    with errors_exit():
        results = load(path)
        html = page(results, modes=_modes(metrics, results))
        target = output or path / "report.html"
        for line in skipped_lines(results):
            typer.echo(line, err=True)
        write_page(target, html, hint="" if output else "; --output FILE puts it elsewhere")
        if not is_stdout(target):
            typer.echo(target)


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
