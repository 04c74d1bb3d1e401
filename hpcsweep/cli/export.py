"""`export`: the sweep in files for other programs."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from hpcsweep.cli.terminal import errors_exit
from hpcsweep.core.text import plural, shell_quote, suggest_name
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.exports import EXPORTS, Export
from hpcsweep.exports.tables import FORMATS, TABLES, encoded, table
from hpcsweep.store.files import STDOUT, is_stdout, write_output
from hpcsweep.views.folder import SIMULATION
from hpcsweep.views.results import load, skipped_lines

if TYPE_CHECKING:
    from hpcsweep.views.results import Results

ALL: Final = "all"
_HINT: Final = ": give another place with --output"


def export(path: Path, *, format_: str, name: str | None, output: Path | None) -> None:
    """Write what was asked for."""
    with errors_exit():
        _check(format_, name, output)
        results = load(path)
        if format_ in EXPORTS:
            _whole(results, EXPORTS[format_], output)
        elif name == ALL:
            assert output is not None
            _make(output)
            for each in TABLES:
                _write(output / f"{each}.{format_}", encoded(table(results, each), format_))
        else:
            _write(output or STDOUT, encoded(table(results, name or TABLES[0]), format_))
        if results.simulated:
            typer.echo(f"simulated {SIMULATION}", err=True)
        for line in skipped_lines(results):
            typer.echo(line, err=True)


def _check(format_: str, name: str | None, output: Path | None) -> None:
    formats = (*FORMATS, *EXPORTS)
    whole = EXPORTS.get(format_)
    if format_ not in formats:
        raise SpecError(f"--format {format_}: {suggest_name(format_, formats, kind='format')}")
    if output == STDOUT and (name == ALL or (whole and whole.is_folder)):
        raise SpecError("--output -: standard output takes one file, this writes several; give a folder")
    if whole is not None:
        if name is not None:
            raise SpecError(
                f"--table {name}: goes with {', '.join(FORMATS)}; {format_} takes the whole sweep"
            )
        if whole.needs and find_spec(whole.needs) is None:
            need = f"needs {whole.needs}, which is not installed; pip install 'hpcsweep[{whole.needs}]'"
            raise SpecError(f"--format {format_}: {need}")
        return
    if name is not None and name not in (*TABLES, ALL):
        raise SpecError(f"--table {name}: {suggest_name(name, (*TABLES, ALL), kind='table')}")
    if name == ALL and output is None:
        raise SpecError("--output: needed for --table all: the folder for the files")
    if format_ == "parquet" and output is None:
        raise SpecError("--output: needed for parquet, which is no text")
    if name != ALL and output is not None and output.is_dir():
        raise SpecError(f"--output {output}: is a folder; give a file, or --table all for every table there")


def _whole(results: Results, export_: Export, output: Path | None) -> None:
    target = results.path / export_.target if output is None else output
    module, _, function = export_.writer.partition(":")
    try:
        count = getattr(import_module(module), function)(results, target)
    except OSError as error:
        raise _unwritable(target, error) from error
    if is_stdout(target):
        return
    them = "it" if count == 1 else "them"
    typer.echo(
        f"{plural(count, 'trial')} in {target}; look at {them}: {export_.opener} {shell_quote(str(target))}"
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _write(file: Path, data: bytes) -> None:
    write_output(file, data, hint=_HINT)


def _unwritable(path: Path, error: OSError) -> FolderError:
    return FolderError(f"{path}: cannot be written: {error.strerror or error}{_HINT}")
