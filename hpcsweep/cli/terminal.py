"""Safe terminal output, and exit codes: what configurations and logs contain is shown, never interpreted.

Names, values, error messages and file names may hold escape sequences, and characters that change the
direction of text. Everything that the command line prints goes through `sanitized_output`, so that
callers need not think of it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, cast

import typer
from typer.core import TyperGroup

from hpcsweep.core.text import mask_values, sanitize, sanitize_lines, secret_arguments
from hpcsweep.errors import HeldError, HpcsweepError, SpecError, SupersededError

__all__ = ["SanitizedGroup", "hide", "json_text", "raw", "sanitize", "sanitize_lines", "sanitized_output"]

#: Values that are printed nowhere.
_hidden: list[str] = []


def json_text(value: object) -> str:
    """The value as JSON, with everything that is not printable escaped."""
    import msgspec  # not for --help

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))


def hide(values: Iterable[str]) -> None:
    """Mask these values in everything printed from here on."""
    _hidden.extend(values)


def raw(stream: TextIO) -> TextIO:
    """The unfiltered stream, for the escape sequences of a live view."""
    return stream.stream if isinstance(stream, _SanitizedStream) else stream


@contextlib.contextmanager
def sanitized_output() -> Iterator[None]:
    """Until the block ends, sanitize all text that is printed; bytes stay as they are."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", _SanitizedStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        _hidden.clear()


class _SanitizedStream(io.TextIOBase):
    """A text stream that passes on sanitized text."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(sanitize_lines(mask_values(text, _hidden)))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()

    def __getattribute__(self, name: str) -> Any:
        if name in ("stream", "write", "flush", "close", "writelines", "__class__", "__dict__"):
            return super().__getattribute__(name)
        return getattr(super().__getattribute__("stream"), name)

    def __del__(self) -> None:
        """The wrapped stream stays open."""


class SanitizedGroup(TyperGroup):
    """The verbs; messages about wrong arguments are sanitized, too."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs.get("args")
        with sanitized_output():
            hide(secret_arguments(sys.argv[1:] if given is None else given))
            return super().main(*args, **kwargs)


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *others in lines:
        cells = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        typer.echo("  ".join([name.ljust(widths[0]), *cells]).rstrip())


DONE: Final = 0
NO_VALUE: Final = 1
WRONG: Final = 2
LEFT_RUNNING: Final = 3
INTERRUPTED: Final = 130


@contextlib.contextmanager
def prefix_errors(source: Path | str) -> Iterator[None]:
    """Prefix each problem of a spec with where it comes from."""
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
