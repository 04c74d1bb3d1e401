"""`status`, `best`: they read the results folder alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import typer

from hpcsweep.cli.exit_codes import NO_VALUE, errors_exit
from hpcsweep.cli.format import (
    ENDINGS,
    best_line,
    checkpoints_line,
    clock_lines,
    configuration,
    cost,
    mean_of,
    number,
    place,
    rung_text,
    runs_line,
    troubles,
)
from hpcsweep.cli.liveness import ask_liveness
from hpcsweep.cli.sanitize import json_text, sanitize
from hpcsweep.core.counting import plural
from hpcsweep.core.events import FailureKind, Interruption, SweepOutcome
from hpcsweep.core.quoting import shell_quote
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SpecError
from hpcsweep.views.enqueued import beyond_budget
from hpcsweep.views.folder import Folder, best_of
from hpcsweep.views.liveness import Liveness
from hpcsweep.views.rungs import RungCounts


def status(path: Path, *, json: bool) -> None:
    """Print how the sweep stands."""
    with errors_exit():
        folder = Folder(path)
        now = time.time()
        budget = _budget(folder, "gpu_hours")
        alive = _liveness(folder)
        if alive is not None and alive.driven is False and folder.state.detached is not None:
            folder = Folder(path)  # it may have ended, or a driver begun, since it was read
            alive = _liveness(folder)
        summary = folder.status(now=now) | {"budget_gpu_hours": budget}
        summary["liveness"] = None if alive is None else msgspec.to_builtins(alive)
        if json:
            _print_json(summary)
            return
        state = folder.state
        counts = RungCounts()
        for event in folder.reading.events:
            counts.apply(event)
        _tell(f"{summary['name']}: {summary['state']}" + _because(summary["reason"]))
        if state.simulated:
            _tell("simulated: nothing was trained, and times are virtual")
        if summary["state"] == "running":
            _tell(f"driver: {summary['driver'] or _drives(summary, alive)}")
            for line in alive.lines if alive is not None else ():
                _tell(line)
        for trouble in troubles(state, now=now):
            _tell(trouble)
        for line in (*summary["passed_over"], *clock_lines(summary["clocks"])):
            _tell(line)
        for bracket, rungs in counts.brackets().items():
            _tell(f"bracket {bracket}: " + " > ".join(rung_text(rung) for rung in rungs))
        if summary["enqueued"]:
            _tell(f"enqueued: {_enqueued(summary['enqueued'], state, _budget(folder, 'trials'))}")
        runs = runs_line(summary["runs"], summary["failed_by"])
        _tell(f"{plural(summary['trials'], 'trial')}; {runs}; {cost(state, budget)}")
        _tell(f"best: {best_line(state)}")
        if state.best is not None:
            _tell(f"      {configuration(state.best.config)}")
        checkpoints = checkpoints_line(summary["checkpoints"])
        if checkpoints:
            _tell(f"checkpoints: {checkpoints}")
        if summary["interrupted"]:
            counts_by_kind = (
                f"{n} {ENDINGS[Interruption(why)]}" for why, n in summary["interrupted"].items()
            )
            _tell(f"interruptions: {', '.join(counts_by_kind)}")
        for one in summary["newest_interruptions"]:
            _tell(_attempt_line(ENDINGS[Interruption(one["why"])], one))
        for one in summary["failures"]:
            _tell(_attempt_line(ENDINGS[FailureKind(one["failure"])], one))
        paused = state.ended is not None and state.ended.outcome is SweepOutcome.PAUSED
        if summary["failures"] or paused:
            what = "go on, and try what failed again" if paused else "try what failed again"
            _tell(f"{what}: hpcsweep retry {shell_quote(str(path))}")


def _tell(text: str) -> None:
    """Print a line; what it holds of configurations and logs is not obeyed by a terminal."""
    typer.echo(sanitize(text))


def _liveness(folder: Folder) -> Liveness | None:
    """Who drives the sweep; None once it has ended."""
    state, tail = folder.state, folder.reading.tail
    if state.ended is not None or state.started is None or tail is None:
        return None
    return ask_liveness(folder.layout, state, driver=folder.driver, tail=tail)


def _drives(summary: dict[str, Any], alive: Liveness | None) -> str:
    """Who drives a sweep while no driver is at work."""
    if summary["detached"] is None:
        return "none at work; launch again to carry on"
    if alive is not None and alive.driven is False:
        return "none at work"
    jobs = f", then tick jobs {', '.join(summary['tick_jobs'])}" if summary["tick_jobs"] else ""
    return f"its jobs on {summary['detached']}: tasks as they finish{jobs}"


def _attempt_line(ending: str, one: dict[str, Any]) -> str:
    where = place(one["node"], one["job"])
    return f"{ending}: trial {one['trial']} rung {one['rung']}{where}: {one['message']}"


def _enqueued(count: int, state: SweepState, trials: float | None) -> str:
    """How many configurations wait, and for what."""
    several = count > 1
    what = f"{count} configuration{'s wait for their' if several else ' waits for its'} start"
    why = beyond_budget(count, state, None if trials is None else int(trials))
    if not why and state.ended is not None:
        why = f"launch again to run {'them' if several else 'it'}"
    return f"{what}; {why}" if why else what


def _budget(folder: Folder, key: str) -> float | None:
    """What `budget` in the sweep's file says of this; None if nothing, or it cannot be read."""
    from hpcsweep.spec.yaml_io import read_yaml

    try:
        budget = read_yaml(folder.layout.spec).get("budget")
    except SpecError:
        return None
    found = budget.get(key) if isinstance(budget, dict) else None
    return float(found) if isinstance(found, int | float) else None


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def best(path: Path, *, json: bool) -> None:
    """Print the best trial."""
    with errors_exit():
        state = Folder(path).state
        found = best_of(state)
        if found is None:
            typer.echo(f"hpcsweep: {path}: no run has given a value yet", err=True)
            raise typer.Exit(NO_VALUE)
        if json:
            _print_json(found | ({"simulated": True} if state.simulated else {}))
            return
        value = number(found["value"])
        simulated = " (simulated: nothing was trained)" if state.simulated else ""
        typer.echo(f"trial {found['trial']}: {value} at {found['resource']}{mean_of(found)}{simulated}")
        for name, value in found["config"].items():
            typer.echo(f"  {name}: {value}")


def _print_json(value: object) -> None:
    typer.echo(json_text(value))
