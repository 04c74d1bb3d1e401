"""Why a script cannot be run: Windows line ends, an interpreter that is not there, no permission."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hpcsweep.core.quoting import shell_quote

_SHELLS: Final = re.compile(r"(?:ba|da|k|z)?sh")
#: What shells and env say of a script whose lines end with a carriage return.
_CR_WORDS: Final = re.compile(r"\^M\b|\\r\b|\$'[^']*\\r'")
_HEAD: Final = 4096


def unrunnable_reason(argv: Sequence[str], *, workdir: str, environ: Mapping[str, str]) -> str:
    """What is wrong with the program that could not be started; empty if nothing is found.

    Args:
        argv: That was started.
        workdir: Where.
        environ: With which environment.
    """
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
    """The script of a failed command whose lines end as on Windows, in words; empty if none is found.

    Args:
        argv: The command.
        words: What was printed last.
        workdir: Where it ran.
    """
    for script in _scripts(argv):
        path = os.path.join(workdir, script)
        head = _head(path)
        if b"\0" not in head and head.split(b"\n", 1)[0].endswith(b"\r"):
            return _windows(script)
    if _CR_WORDS.search(words):
        return "a script with Windows line ends (CRLF)? `sed -i 's/\\r$//' SCRIPT` mends it"
    return ""


def _windows(script: str) -> str:
    return (
        f"{script}: has Windows line ends (CRLF), which Linux takes for part of each line; "
        f"`sed -i 's/\\r$//' {shell_quote(script)}` mends it"
    )


def _scripts(argv: Sequence[str]) -> Iterator[str]:
    """What the command runs itself or by a shell; Python and others read Windows line ends as well."""
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
