"""The argument list of a run.

A command template is split into arguments first and the values are put in afterwards, so a value with
spaces, quotes, `$` or newlines arrives unchanged. With `shell: true` the template is a shell line and each
value is quoted: placeholders then stand outside quotation marks.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep.core.text import shell_quote
from hpcsweep.errors import TrainerError
from hpcsweep.store.batch import Program
from hpcsweep.store.run_file import RunFile

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
_SHELLS: Final = re.compile(r"(?:ba|da|k|z)?sh")
#: Messages of shells and env about a script with carriage returns.
_CR_WORDS: Final = re.compile(r"\^M\b|\\r\b|\$'[^']*\\r'")
_HEAD: Final = 4096


def arguments(template: str, values: Mapping[str, Any], *, known: Collection[str] = ()) -> list[str]:
    """The arguments of a command such as `python train.py --lr {lr}`; `{{` and `}}` are plain braces.

    Values are never split and never seen by a shell. Placeholders in `known` are empty without a value.

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
    """The arguments of a run's process: the command, or the entrypoint of the function.

    `ending` is where the entrypoint writes how the function failed; `python` also replaces `{python}`.

    Raises:
        TrainerError: The command is wrong.
    """
    if program.command is None:
        child = [python, "-P", "-m", "hpcsweep.worker.entrypoint", program.function or "", str(ending)]
        return child + ([program.snapshot.root, program.snapshot.code] if program.snapshot else [])
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
    """Check a template before anything runs.

    Raises:
        TrainerError: It cannot be split, or has an unknown placeholder.
    """
    build = shell_line if shell else arguments
    build(template, {}, known=[*parameters, *PLACEHOLDERS])


def as_text(value: Any) -> str:
    """A value as text for arguments and the environment.

    Strings unchanged, numbers so that they read back exactly, `true` and `false`, lists and mappings as
    JSON, empty for an absent value.
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


def unrunnable_reason(argv: Sequence[str], *, workdir: str, environ: Mapping[str, str]) -> str:
    """Why the program could not be started; empty if unknown."""
    path = _found(argv[0], workdir=workdir, environ=environ)
    if path is None:
        return ""
    first = _head(path).split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return ""
    if first.endswith(b"\r"):
        return _windows(argv[0])
    interpreter = first[2:].split()[:1]
    if interpreter and not os.path.exists(interpreter[0]):
        return f"{argv[0]}: its first line asks for {os.fsdecode(interpreter[0])}, which is not there"
    return ""


def line_ending_problem(argv: Sequence[str], words: str, *, workdir: str) -> str:
    """A script of the failed command with Windows line endings, as a message; empty if none is found."""
    for script in _scripts(argv):
        path = os.path.join(workdir, script)
        head = _head(path)
        if b"\0" not in head and head.split(b"\n", 1)[0].endswith(b"\r"):
            return _windows(script)
    if _CR_WORDS.search(words):
        return "a script with Windows line ends (CRLF)? `sed -i 's/\\r$//' SCRIPT` fixes it"
    return ""


def _windows(script: str) -> str:
    return (
        f"{script}: has Windows line ends (CRLF), which Linux takes for part of each line; "
        f"`sed -i 's/\\r$//' {shell_quote(script)}` fixes it"
    )


def _scripts(argv: Sequence[str]) -> Iterator[str]:
    """Scripts that a shell runs; Python and others accept Windows line endings."""
    if len(argv) == 3 and argv[1] == "-c" and _SHELLS.fullmatch(os.path.basename(argv[0])):
        try:
            argv = shlex.split(argv[2])
        except ValueError:
            argv = argv[2].split()
    for index, word in enumerate(argv):
        before = os.path.basename(argv[index - 1]) if index else ""
        if os.path.sep in word or _SHELLS.fullmatch(before) or word.endswith((".sh", ".bash")):
            yield word


def _found(program: str, *, workdir: str, environ: Mapping[str, str]) -> str | None:
    if os.path.sep in program:
        path = os.path.join(workdir, program)
        return path if os.path.isfile(path) else None
    return shutil.which(program, path=environ.get("PATH"))


def _head(path: str) -> bytes:
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""
