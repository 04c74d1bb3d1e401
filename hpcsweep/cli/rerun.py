"""`best --rerun`: the command that trains a configuration again, or its start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import typer

from hpcsweep.cli.exit_codes import NO_VALUE, errors_exit
from hpcsweep.cli.format import number
from hpcsweep.core.events import RunFinished
from hpcsweep.rerun import Rerun, arguments, command_line, rerun_of
from hpcsweep.store.provenance import present
from hpcsweep.views.folder import Folder
from hpcsweep.views.provenance import changes, read_provenance


def rerun(path: Path, *, trial: int | None, output: Path | None, start: bool) -> None:
    """Print the command on standard output and what is to be known of it beside; or run it."""
    with errors_exit():
        found = rerun_of(Folder(path), trial)
        if found is None:
            typer.echo(f"hpcsweep: {path}: no run has given a value yet", err=True)
            raise typer.Exit(NO_VALUE)
        for note in _notes(found):
            typer.echo(f"# {note}", err=True)
        name = f"rerun-{found.spec.name}-{found.run.trial}"
        folder = (output or Path(name)).absolute()
        if start:
            argv = arguments(found, folder)
            os.execv(argv[0], argv)
        typer.echo(command_line(found, folder, os.environ))


def _notes(found: Rerun) -> list[str]:
    """What the user should know before it is trained."""
    run = found.run
    gave = "gave no value" if found.value is None else f"{found.program.metric} {number(found.value)}"
    lines = [f"trial {run.trial}: {gave} at {run.resource}"]
    if found.trial.parent is not None:
        parent = f"it went on from a checkpoint of trial {found.trial.parent}"
        lines.append(f"{parent}: from scratch it may give another value")
    if run.trial in found.folder.state.without_checkpoint:
        lines.append("its checkpoint in the sweep was removed, for it could not go on: this gives a new one")
    if found.program.copied is not None:
        lines.append(f"by the copy of the code that the sweep was started with: {found.program.copied.code}")
    differences = _differences(found)
    if differences:
        lines.append(f"since it was trained this has changed: {'; '.join(differences)}")
    if found.spec.cluster.setup:
        lines.append(f"the sweep's jobs did this first: {'; '.join(found.spec.cluster.setup)}")
    return lines


def _differences(found: Rerun) -> list[str]:
    """What is other than when it was trained, as far as that is recorded."""
    records = read_provenance(found.folder.layout)
    if not records:
        return []
    then = _in_force(records, _started(found))
    spec = found.spec
    now, _ = present(
        found.program, spec.resolved(), cluster=then["cluster"], python=spec.cluster.python, first=False
    )
    return changes(then, msgspec.to_builtins(now))


def _started(found: Rerun) -> float | None:
    """When its newest run began, None if that is not known."""
    run = (found.run.trial, found.run.rung)
    for event in reversed(found.folder.reading.events):
        if isinstance(event, RunFinished) and (event.trial, event.rung) == run:
            return event.started
    return None


def _in_force(records: list[dict[str, Any]], at: float | None) -> dict[str, Any]:
    """The newest record of that time; clocks of nodes differ, so that the oldest serves in any case."""
    before = [record for record in records if at is None or record["at"] <= at]
    return (before or records[:1])[-1]
