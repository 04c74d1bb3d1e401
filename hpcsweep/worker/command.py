"""A program, such as a command with placeholders -> the argument list of one run.

The template is split into arguments first and the values are put in afterwards, so a value with
spaces, quotes, `$` or newlines arrives as it is. With `shell: true` the template is a shell line
and each value is quoted: placeholders then stand outside quotation marks.
"""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep.errors import TrainerError
from hpcsweep.store.manifest import Program
from hpcsweep.trial import RunFile

#: Placeholders besides the parameters; a parameter of the same name comes first.
#: `python` is the interpreter that runs hpcsweep.
PLACEHOLDERS: Final = (
    "trial",
    "rung",
    "resource",
    "start",
    "resume_from",
    "checkpoint_dir",
    "seed",
    "python",
)

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def arguments(template: str, values: Mapping[str, Any], *, known: Collection[str] = ()) -> list[str]:
    """The arguments of the command; values are never split and never seen by a shell.

    Args:
        template: For example `python train.py --lr {lr}`; `{{` and `}}` are plain braces.
        values: By placeholder; see `as_text`.
        known: More names that may stand in the template; without a value they are empty.

    Raises:
        TrainerError: The template cannot be split, or has an unknown placeholder.
    """
    try:
        tokens = shlex.split(template)
    except ValueError as error:
        raise TrainerError(f"train.command: cannot be split into arguments: {error}") from error
    if not tokens:
        raise TrainerError("train.command: is empty")
    return [_fill(token, values, known, as_text) for token in tokens]


def shell_line(template: str, values: Mapping[str, Any], *, known: Collection[str] = ()) -> str:
    """The line for a shell, each value quoted.

    Raises:
        TrainerError: The template has an unknown placeholder.
    """
    return _fill(template, values, known, lambda value: shlex.quote(as_text(value)))


def program_arguments(program: Program, file: RunFile, *, ending: Path, python: str) -> list[str]:
    """What is started for a run: the command, or the child process of the function.

    Args:
        program: Of the sweep.
        file: What the run is to do.
        ending: Where the child tells how the function ended.
        python: The interpreter of the function, and what `{python}` stands for.

    Raises:
        TrainerError: The command is wrong.
    """
    if program.command is None:
        child = [python, "-P", "-m", "hpcsweep.worker.entrypoint", program.function or "", str(ending)]
        return child + ([program.copied.root, program.copied.code] if program.copied else [])
    values = {
        "trial": file.trial,
        "rung": file.rung,
        "resource": file.resource,
        "start": file.start,
        "resume_from": file.resume_from,
        "checkpoint_dir": file.checkpoint_dir,
        "seed": file.seed,
        "python": python,
        **dict.fromkeys(program.parameters),
        **file.config,
    }
    if program.shell:
        return [shutil.which("bash") or "/bin/sh", "-c", shell_line(program.command, values)]
    return arguments(program.command, values)


def check_template(template: str, *, shell: bool, parameters: Collection[str]) -> None:
    """Find what is wrong with a template before anything runs.

    Raises:
        TrainerError: It cannot be split, or has an unknown placeholder.
    """
    build = shell_line if shell else arguments
    build(template, {}, known=[*parameters, *PLACEHOLDERS])


def as_text(value: Any) -> str:
    """A value as training code sees it in arguments and in the environment.

    Strings as they are, numbers so that they read back exactly, `true` and `false`, lists and
    mappings as JSON, nothing at all for an absent value.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case _:
            return msgspec.json.encode(value).decode()


def _fill(text: str, values: Mapping[str, Any], known: Collection[str], render: Callable[[Any], str]) -> str:
    def replace(match: re.Match[str]) -> str:
        part, name = match[0], match[1]
        if part in ("{{", "}}"):
            return part[0]
        if name is None:
            raise TrainerError(
                f"train.command: a single {part!r} in {text!r}; write {part * 2!r} for a plain one"
            )
        if name in values:
            return render(values[name])
        if name in known:
            return render(None)
        near = difflib.get_close_matches(name, [*values, *known], n=1)
        hint = f"did you mean {{{near[0]}}}?" if near else "write {{ and }} for plain braces"
        raise TrainerError(f"train.command: unknown placeholder {{{name}}}; {hint}")

    return _PART.sub(replace, text)
