"""`logs`: what the attempts of a trial printed."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from hpcsweep.cli.exits import errors_exit
from hpcsweep.errors import SpecError
from hpcsweep.report.folder import Folder
from hpcsweep.report.logs import attempt_logs


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
        for each in wanted:
            what = f"trial {trial} rung {each.rung} attempt {each.attempt}"
            typer.echo(f"==> {what}: {each.path} <==")
            _show(each.path, tail)


def _show(path: Path, tail: int | None) -> None:
    """The bytes as they are: what a program prints need not be text."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        typer.echo("nothing was printed yet")
        return
    if tail is not None:
        data = b"".join(data.splitlines(keepends=True)[-tail:])
    sys.stdout.flush()
    sys.stdout.buffer.write(data if data.endswith(b"\n") or not data else data + b"\n")
    sys.stdout.buffer.flush()
