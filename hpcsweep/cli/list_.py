"""`list`: all sweeps below a folder, one line each."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from hpcsweep.cli.terminal import DONE, WRONG, errors_exit, json_text, sanitize
from hpcsweep.core.text import plural
from hpcsweep.errors import HpcsweepError
from hpcsweep.views.format import best_text, cost, duration
from hpcsweep.views.overview import SweepOverview, find_sweeps, read_overviews

HEAD: Final = ("folder", "state", "done", "runs", "best", "cost", "updated")


def list_(root: Path, *, json: bool) -> None:
    """Print how each sweep below the folder stands."""
    with errors_exit():
        found = find_sweeps(root)
        overviews: list[SweepOverview] = []
        problems = dict(found.unreadable)
        for each in read_overviews(found):
            if isinstance(each, SweepOverview):
                overviews.append(each)
            else:
                problems[each[0]] = each[1]
        unreadable = {str(path): problem for path, problem in problems.items()}
        if json:
            sweeps = [each.record | {"done": share_done(each)} for each in overviews]
            typer.echo(json_text({"sweeps": sweeps, "unreadable": unreadable}))
        else:
            print_list(root, overviews)
            for name, problem in unreadable.items():
                typer.echo(sanitize(f"hpcsweep: {name}: {problem}"), err=True)
        raise typer.Exit(WRONG if problems else DONE)


def print_list(root: Path, overviews: Sequence[SweepOverview]) -> None:
    """A table with a line for each sweep, the one that changed last first."""
    now = time.time()
    newest = sorted(overviews, key=lambda each: -each.record["updated"])
    lines = [HEAD, *(_line(root, each, now=now) for each in newest)] if newest else []
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))] if lines else []
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        typer.echo(sanitize("  ".join(cells).rstrip()))
    typer.echo(sanitize(f"{plural(len(overviews), 'sweep')} below {root}"))


def _line(root: Path, overview: SweepOverview, *, now: float) -> tuple[str, ...]:
    state, record = overview.progress.state, overview.record
    done = share_done(overview)
    return (
        os.path.relpath(overview.path, root) if overview.path != root else ".",
        record["status"] + (" (simulated)" if state.simulated else ""),
        "" if done is None else f"{done:.0%}",
        f"{record['runs']['completed']:,}",
        best_text(state),
        cost(state),
        f"{duration(max(0.0, now - record['updated']))} ago",
    )


def share_done(overview: SweepOverview) -> float | None:
    """The share of its training that is done; None where that is open-ended, or its spec cannot be read."""
    from hpcsweep.cli.progress import plan_of, remaining_work  # slow to import
    from hpcsweep.spec import load_spec
    from hpcsweep.store.layout import Layout

    progress = overview.progress
    if progress.status == "finished":
        return 1.0
    try:
        work = remaining_work(plan_of(load_spec(Layout(overview.path).spec, stored=True)), progress)
    except (HpcsweepError, OSError, ValueError):
        return None
    if work is None:
        return None
    trained = sum(run.units for run in progress.ended)
    return trained / (trained + work.units) if trained + work.units else None
