"""`logs`: what the attempts of a trial printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.cli.sanitize import raw, sanitize_lines
from hpcsweep.errors import SpecError
from hpcsweep.views.folder import LogReader, ResultsFolder, attempt_logs

#: What sets colours and weights, and nothing else.
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")


def logs(path: Path, trial: int, *, rung: int | None, tail: int | None) -> None:
    """Print the log of each attempt, oldest first, under a line that says which it is."""
    with errors_exit():
        folder = ResultsFolder(path)
        found = attempt_logs(folder.events, folder.layout, trial)
        wanted = [each for each in found if rung in (None, each.rung)]
        if not wanted:
            there = ", ".join(str(number) for number in sorted({each.rung for each in found}))
            raise SpecError(f"--rung: expected one that was submitted ({there}), got {rung}")
        logs = LogReader(folder.layout, folder.events)
        for each in wanted:
            try:
                path, data = logs.read(each)
            except OSError as error:
                typer.echo(f"hpcsweep: {each.path}: cannot be read: {error.strerror}", err=True)
                continue
            typer.echo(f"==> trial {trial} rung {each.rung} attempt {each.attempt}: {path} <==")
            _show(data, tail)


def _coloured(text: str) -> str:
    """Neutral but for colours, which end with the text."""
    lines = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")  # a progress bar: each state on its own line
    parts = _COLOUR.split(lines)
    shown = "".join(part if index % 2 else sanitize_lines(part) for index, part in enumerate(parts))
    return shown + ("\x1b[0m" if len(parts) > 1 else "") + ("" if shown.endswith("\n") else "\n")


def _show(data: bytes | None, tail: int | None) -> None:
    """On a terminal as text with its colours, which nothing else may change; elsewhere byte for byte."""
    if data is None:
        typer.echo("nothing was printed yet")
        return
    if tail is not None:
        data = b"".join(data.splitlines(keepends=True)[-tail:])
    if sys.stdout.isatty():
        terminal = raw(sys.stdout)
        terminal.write(_coloured(data.decode(errors="replace")))
        terminal.flush()
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data if data.endswith(b"\n") or not data else data + b"\n")
    sys.stdout.buffer.flush()
