"""Exit codes, and how errors become them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer

from hpcsweep.errors import HeldError, HpcsweepError, SpecError, SupersededError

DONE: Final = 0
NO_VALUE: Final = 1
WRONG: Final = 2
LEFT_RUNNING: Final = 3
INTERRUPTED: Final = 130


@contextlib.contextmanager
def prefix_errors(source: Path) -> Iterator[None]:
    """Prefix each problem of a spec with its file."""
    try:
        yield
    except SpecError as error:
        raise type(error)(*(f"{source}: {problem}" for problem in error.problems)) from error


@contextlib.contextmanager
def errors_exit() -> Iterator[None]:
    """Print an error of hpcsweep or of the operating system and exit with its code.

    Other errors keep their traceback.
    """
    try:
        yield
    except (HeldError, SupersededError) as error:
        typer.echo(f"hpcsweep: {error}", err=True)
        raise typer.Exit(LEFT_RUNNING) from None
    except HpcsweepError as error:
        typer.echo(f"hpcsweep: {error}", err=True)
        raise typer.Exit(WRONG) from None
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more: no complaint about it at exit, either
        raise typer.Exit(DONE) from None
    except OSError as error:
        path = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        typer.echo(f"hpcsweep: {path}{error.strerror or error}", err=True)
        raise typer.Exit(WRONG) from None
