"""The commands of a command line, and what the files of a program say, read and not run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.spec import SweepSpec
from hpcsweep.worker.template import Placeholder, parse_template

#: What ends one command of a shell line and begins another.
_OPERATORS: Final = frozenset({"&&", "||", ";", "|", "&", ";;", "(", ")", "{", "}"})
#: Programs whose first argument that is no option is a script.
_INTERPRETERS: Final = re.compile(
    r"(?:python|pypy)[0-9.]*|(?:ba|da|k|z)?sh|Rscript|julia|perl|ruby|node|lua|octave|torchrun|deepspeed"
)
_LAUNCHERS: Final = ("torchrun", "deepspeed")
_WRAPPERS: Final = (
    "env",
    "srun",
    "mpirun",
    "mpiexec",
    "nice",
    "time",
    "timeout",
    "nohup",
    "conda",
    "uv",
    "poetry",
)
#: Options after which no script follows, or after a value of theirs.
_NO_SCRIPT: Final = ("-m", "-c", "--module", "-W", "-X", "-e", "-E", "-o")
_SHELLS: Final = re.compile(r"(?:ba|da|k|z)?sh")
#: Words of a shell before a command.
_KEYWORDS: Final = re.compile(
    r"exec|if|then|else|elif|fi|while|until|do|done|!|time|[A-Za-z_]\w*=.*", re.DOTALL
)
#: Commands of scripts that know nothing of parameters.
_HARMLESS: Final = re.compile(
    r"for|\[|\[\[|test|cd|echo|printf|export|unset|mkdir|rm|cp|mv|ln|ls|touch|sleep|date|hostname|module|ml|true|"
    r"false|exit|trap|ulimit|wait|pwd|nvidia-smi|set|shift|tee|cat|grep|head|tail"
)
_MENTIONS: Final = re.compile(rb"hpcsweep|HPCSWEEP_")
_SCRIPT_NAME: Final = re.compile(rb"[\w./-]+\.(?:py|sh|bash|R|jl|pl)\b")
_IMPORT: Final = re.compile(rb"^\s*(?:from\s+(\.*[\w.]*)\s+import|import\s+([\w., ]+))", re.MULTILINE)
#: Files that are read at most, and bytes of each.
_MOST_FILES: Final = 200
_MOST_BYTES: Final = 4 << 20


class ShellCommand(NamedTuple):
    """One command of a line: its words, None for those with placeholders."""

    words: list[str | None]

    @property
    def _names(self) -> list[str]:
        return [os.path.basename(word or "") for word in self.words]

    @property
    def interpreter(self) -> str | None:
        """The name of the interpreter that the command starts, perhaps by another program such as srun."""
        found = next((name for name in self._names if _INTERPRETERS.fullmatch(name)), None)
        return found if found == self._names[0] or self._names[0] in _WRAPPERS else None

    @property
    def script(self) -> str | None:
        """The script that an interpreter is given; None where that is unknown."""
        if self.interpreter is None:
            return None
        for word in self.words[self._names.index(self.interpreter) + 1 :]:
            if word is None or word in _NO_SCRIPT:
                return None
            if not word.startswith("-"):
                return word
            if self.interpreter in _LAUNCHERS and "=" not in word:  # its value may follow
                return None
        return None

    @property
    def module(self) -> str | None:
        """What `-m` names."""
        pairs = zip(self.words, self.words[1:], strict=False)
        return next((after for word, after in pairs if word in ("-m", "--module")), None)


def commands_of(spec: SweepSpec) -> Iterator[ShellCommand]:
    """The commands of the line; those behind a `cd` are not known."""
    train = spec.train
    assert train.command is not None
    if not train.shell:
        parsed = parse_template(train.command, shell=False, parameters=spec.space.names)
        python = Placeholder("python")
        yield ShellCommand(
            [
                sys.executable if word == (python,) else "".join(map(str, word)) if _is_text(word) else None
                for word in parsed.words
            ]
        )
        return
    parsed = parse_template(train.command, shell=True, parameters=spec.space.names)
    text = "".join(
        part if isinstance(part, str) else sys.executable if part == Placeholder("python") else "\0"
        for part in parsed.words[0]
    )
    for words in _shell_words(text):
        if words[0] == "cd":
            return
        yield ShellCommand([None if "\0" in each else each for each in words])


def _shell_words(text: str) -> Iterator[list[str]]:
    """The words of each command; a quote that is not closed ends them, as it is the shell's matter."""
    lexer = shlex.shlex(text.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    with contextlib.suppress(ValueError):
        for word in [*lexer, ";"]:
            if word not in _OPERATORS:
                words.append(word)
                continue
            if words:
                yield words
            words = []


def _is_text(word: Sequence[object]) -> bool:
    return all(isinstance(part, str) for part in word)


def uses_hpcsweep(spec: SweepSpec, commands: Sequence[ShellCommand]) -> bool | None:
    """Whether the program may ask hpcsweep itself for what the command does not give; None: unknown."""
    assert spec.train.command is not None
    if _MENTIONS.search(spec.train.command.encode()):
        return True
    workdir = Path(spec.train.workdir or ".")
    waiting: list[Path] = []
    readable = [_is_readable(command, workdir) for command in commands]
    known = None not in readable and any(readable)
    for command in commands:
        for word in command.words:
            if word is not None and word and (workdir / word).is_file():
                waiting.append(workdir / word)
        module = command.module
        if module is not None:
            files = _module_files(module, [workdir, workdir / "src"])
            waiting += files
            known = known and bool(files)
    read: set[Path] = set()
    while waiting and len(read) < _MOST_FILES:
        path = Path(os.path.realpath(waiting.pop()))
        if path in read:
            continue
        read.add(path)
        data = _content(path)
        if _MENTIONS.search(data):
            return True
        waiting += _references(path, data, workdir)
    return False if known else None


def _references(path: Path, data: bytes, workdir: Path) -> Iterator[Path]:
    """Files beside the script, or in the working directory, that it imports or names."""
    folders = list(dict.fromkeys([path.parent, workdir]))
    if b"\0" in data:
        return
    for match in _SCRIPT_NAME.finditer(data):
        yield from (
            folder / os.fsdecode(match[0]) for folder in folders if (folder / os.fsdecode(match[0])).is_file()
        )
    for match in _IMPORT.finditer(data) if path.suffix == ".py" else ():
        for name in (match[1] or match[2]).decode(errors="replace").split(","):
            yield from _module_files(name.split()[0].lstrip(".") if name.split() else "", folders)


def _module_files(module: str, folders: Sequence[Path]) -> list[Path]:
    parts = [part for part in module.split(".") if part]
    if not parts:
        return []
    found = []
    for folder in folders:
        for size in range(1, len(parts) + 1):
            base = folder.joinpath(*parts[:size])
            names = [base.with_suffix(".py"), base / "__init__.py", base / "__main__.py"]
            found += [name for name in names if name.is_file()]
    return found


def _is_readable(command: ShellCommand, workdir: Path) -> bool | None:
    """Whether its code is in files that were found; None where it may start anything, as a shell does.

    False of an installed program, which may be a part of a shell line (`tee`) or the program itself (`make`).
    """
    if command.interpreter is not None:
        if not _SHELLS.fullmatch(command.interpreter):
            return True
        script = command.script
        return None if script is None else _starts_only_scripts(workdir / script, workdir)
    program = command.words[0]
    if program is None or os.path.sep not in program:
        return False
    first = _content(workdir / program, at_most=256).split(b"\n", 1)[0]
    if not first.startswith(b"#!") or b"python" in first:
        return True
    is_shell = _SHELLS.fullmatch(os.path.basename(first.split()[-1].decode(errors="replace")))
    return _starts_only_scripts(workdir / program, workdir) if is_shell else None


def _starts_only_scripts(path: Path, workdir: Path) -> bool | None:
    """True of a shell script that starts scripts that can be read and nothing else of interest; else None."""
    text = _content(path).decode(errors="replace")
    started = 0
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if "<<" in lines or "$(" in lines or "`" in lines:
        return None
    for words in _shell_words(lines):
        while words and _KEYWORDS.fullmatch(words[0]):
            words = words[1:]
        if not words or _HARMLESS.fullmatch(words[0]):
            continue
        command = ShellCommand(list(words))
        script = command.script
        shell = command.interpreter is not None and _SHELLS.fullmatch(command.interpreter)
        if script is None or "$" in script or shell or not (workdir / script).is_file():
            return None
        started += 1
    return True if started else None


def _content(path: Path, *, at_most: int = _MOST_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(at_most)
    except OSError:
        return b""
