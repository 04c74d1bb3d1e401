"""`logs`: what the attempts of a trial printed."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from hpcsweep.cli.exits import errors_exit
from hpcsweep.errors import SpecError
from hpcsweep.report.folder import Folder
from hpcsweep.report.logs import Logs, attempt_logs


def logs(path: Path, trial: int, *, rung: int | None, tail: int | None) -> None:
    """Print the log of each attempt, oldest first, under a line that says which it is.

    Args:
        path: The results folder.
        trial: The trial's number.
        rung: Only attempts at this rung.
        tail: Only so many of the last lines of each.
    """
    with errors_exit():
        folder = Folder(path)
        found = attempt_logs(folder.reading.events, folder.layout, trial)
        wanted = [each for each in found if rung in (None, each.rung)]
        if not wanted:
            there = ", ".join(str(number) for number in sorted({each.rung for each in found}))
            raise SpecError(f"--rung: expected one that was submitted ({there}), got {rung}")
        logs = Logs(folder.layout, folder.reading.events)
        for each in wanted:
            path, data = logs.read(each)
            typer.echo(f"==> trial {trial} rung {each.rung} attempt {each.attempt}: {path} <==")
            _show(data, tail)


def _show(data: bytes | None, tail: int | None) -> None:
    """The bytes as they are: what a program prints need not be text."""
    if data is None:
        typer.echo("nothing was printed yet")
        return
    if tail is not None:
        data = b"".join(data.splitlines(keepends=True)[-tail:])
    sys.stdout.flush()
    sys.stdout.buffer.write(data if data.endswith(b"\n") or not data else data + b"\n")
    sys.stdout.buffer.flush()
