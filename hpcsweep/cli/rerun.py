"""`best --rerun`: the command that trains a configuration again, or its start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import typer

from hpcsweep.cli.exit_codes import NO_VALUE, errors_exit
from hpcsweep.core.events import RunFinished
from hpcsweep.rerun import RerunPlan, arguments, plan_rerun, shell_command
from hpcsweep.store.provenance import current_record
from hpcsweep.views.folder import ResultsFolder, changes, read_provenance
from hpcsweep.views.format import number


def rerun(path: Path, *, trial: int | None, output: Path | None, start: bool) -> None:
    """Print the command on standard output and notes on standard error; or run it."""
    with errors_exit():
        plan = plan_rerun(ResultsFolder(path), trial)
        if plan is None:
            typer.echo(f"hpcsweep: {path}: no run has given a value yet", err=True)
            raise typer.Exit(NO_VALUE)
        for note in _notes(plan):
            typer.echo(f"# {note}", err=True)
        name = f"rerun-{plan.spec.name}-{plan.run.trial}"
        folder = (output or Path(name)).absolute()
        if start:
            argv = arguments(plan, folder)
            os.execv(argv[0], argv)
        typer.echo(shell_command(plan, folder, os.environ))


def _notes(plan: RerunPlan) -> list[str]:
    """What the user should know before the rerun."""
    run = plan.run
    value = "gave no value" if plan.value is None else f"{plan.program.metric} {number(plan.value)}"
    lines = [f"trial {run.trial}: {value} at {run.resource}"]
    if plan.trial.parent is not None:
        parent = f"it continued a checkpoint of trial {plan.trial.parent}"
        lines.append(f"{parent}: from scratch the value may differ")
    if run.trial in plan.folder.state.without_checkpoint:
        lines.append("its checkpoint in the sweep was removed: this makes a new one")
    if plan.program.snapshot is not None:
        lines.append(f"uses the sweep's snapshot of the code: {plan.program.snapshot.code}")
    differences = _differences(plan)
    if differences:
        lines.append(f"changed since it was trained: {'; '.join(differences)}")
    if plan.spec.cluster.setup:
        lines.append(f"the sweep's jobs first ran: {'; '.join(plan.spec.cluster.setup)}")
    return lines


def _differences(plan: RerunPlan) -> list[str]:
    """What has changed since it was trained, as far as that is recorded."""
    records = read_provenance(plan.folder.layout)
    if not records:
        return []
    then = _record_at(records, _started(plan))
    spec = plan.spec
    now, _ = current_record(
        plan.program, spec.resolved(), cluster=then["cluster"], python=spec.cluster.python, first=False
    )
    return changes(then, msgspec.to_builtins(now))


def _started(plan: RerunPlan) -> float | None:
    """When its newest run began; None if unknown."""
    run = (plan.run.trial, plan.run.rung)
    for event in reversed(plan.folder.events):
        if isinstance(event, RunFinished) and (event.trial, event.rung) == run:
            return event.started
    return None


def _record_at(records: list[dict[str, Any]], at: float | None) -> dict[str, Any]:
    """The newest record before that time, else the oldest: clocks of nodes differ."""
    before = [record for record in records if at is None or record["at"] <= at]
    return (before or records[:1])[-1]
