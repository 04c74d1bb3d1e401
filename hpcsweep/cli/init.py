"""`init`: write a sweep file for a script that exists."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer

from hpcsweep.cli.terminal import errors_exit
from hpcsweep.core.text import shell_quote
from hpcsweep.errors import SpecError
from hpcsweep.init.command import FILL_IN
from hpcsweep.init.found import Script
from hpcsweep.init.other_languages import language_of
from hpcsweep.init.proposal import Proposal, propose
from hpcsweep.init.reading import candidates, read
from hpcsweep.init.sources import read_text
from hpcsweep.init.writer import write_spec

DEFAULT_NAME: Final = "sweep.yaml"
_MOST_LISTED: Final = 10


def init(script: Path | None, *, output: str | None) -> None:
    """Write the spec, say what was found, what is left to do and what comes next."""
    with errors_exit():
        script = script or _only_candidate(Path.cwd())
        folder = script.parent if script is not None else Path()
        path = None if output == "-" else Path(output) if output else folder / DEFAULT_NAME
        if path is not None and os.path.lexists(path):
            raise SpecError(f"{path}: exists: name another file with --output, or - for the terminal")
        if script is None:
            proposal, name = propose(Script(""), program=f"{{python}} {FILL_IN}.py"), "sweep"
            proposal.todo["command"].append(f"write your script in the place of {FILL_IN}.py")
            text = write_spec(proposal, name=name, script="no script: none here seems to train")
        else:
            found = read(script)
            program, workdir = _program(script, found, path), _workdir(script, found, path)
            proposal = propose(found, program=program, workdir=workdir)
            text = write_spec(
                proposal, name=_name(script), script=f"{script.name}, which was read and not run"
            )
        if path is None:
            typer.echo(text, nl=False)
            return
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
        for line in _summary(proposal, path):
            typer.echo(line)


def _only_candidate(folder: Path) -> Path | None:
    """The one script of this folder that trains; None if there is none.

    Raises:
        SpecError: There are several; lists them.
    """
    found = candidates(folder)
    if not found:
        return None
    if len(found) == 1:
        return Path(found[0].name)
    rest = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    names = "\n".join(f"  hpcsweep init {shell_quote(path.name)}" for path in found[:_MOST_LISTED])
    raise SpecError(f"SCRIPT: several scripts here seem to train{rest}; choose one:\n{names}")


def _program(script: Path, found: Script, path: Path | None) -> str:
    """How the script is started from the folder of the spec."""
    folder = path.parent if path is not None else script.parent
    name = shlex.quote(os.path.relpath(script, folder)).replace("{", "{{").replace("}", "}}")
    if found.own is not None and found.own.function:
        return f"{os.path.relpath(script, folder)}:{found.own.function}"
    if found.module:
        return f"{{python}} -m {found.module}"
    if found.language == "python":
        return f"{{python}} {name}"
    language = language_of(script, read_text(script))
    if language is not None:
        return f"{language.command} {name}"
    return name if os.path.sep in name else f"./{name}"


def _workdir(script: Path, found: Script, path: Path | None) -> str:
    """The folder that a script within a package is started in, from the spec; empty: the spec's own."""
    if not found.module:
        return ""
    folder = path.parent if path is not None else script.parent
    return os.path.relpath(script.resolve().parents[found.module.count(".")], folder.resolve())


def _name(script: Path) -> str:
    """The name of the sweep: that of the script, or of its folder where it is called `train` or the like."""
    stem = script.stem
    if stem in ("train", "main", "run"):
        folder = script.resolve().parent.name
        stem = f"{folder}-{stem}" if re.match(r"[A-Za-z0-9]", folder) else stem
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64]
    return name or "sweep"


def _summary(proposal: Proposal, path: Path) -> Iterator[str]:
    yield f"wrote {path}"
    yield f"  {proposal.key}: {proposal.command.command}"
    if proposal.space:
        names = ", ".join(parameter.argument.name for parameter in proposal.space)
        yield f"  space: {names}"
    if not proposal.todo.get("metrics"):
        yield f"  objective: {proposal.objective}, {proposal.mode}"
        if proposal.costs:
            yield f"  could be objectives, too: {', '.join(proposal.costs)}"
    for key, notes in proposal.todo.items():
        where = key if key == "space" else f"train.{key}"
        yield from (f"to do: {where}: {note}" for note in notes)
    yield f"next: hpcsweep try {shell_quote(str(path))}"
