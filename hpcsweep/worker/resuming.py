"""Whether a program can go on from where its trial stopped, as far as its command and its files show."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Placeholders that tell a program where to go on.
RESUMING: Final = ("resume_from", "start", "epochs_left", "output_dir")
#: So many files are read, and of each so many bytes.
_MOST_FILES: Final = 100
_MOST_BYTES: Final = 1 << 20
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_]\w*)(?=[}?:])")
_IMPORT: Final = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\b|import\s+([\w.]+))", re.MULTILINE)
_WORD: Final = re.compile(r"[^\s'\"=;|&<>()`]+")
_OURS: Final = re.compile("hpcsweep", re.IGNORECASE)


def placeholders(template: str) -> set[str]:
    """Names of the placeholders of a command, those inside of fragments included."""
    return set(_PLACEHOLDER.findall(template.replace("{{", "")))


def keeps_by_name(command: str) -> bool:
    """Whether the command itself names the folder whose content becomes a checkpoint."""
    return "checkpoint_dir" in placeholders(command) or "HPCSWEEP_CHECKPOINT_DIR" in command


def can_resume(command: str, *, workdir: str) -> bool:
    """Whether the program may go on from a checkpoint: by a placeholder, our API or our variables.

    These are looked for in the command, in the files that it names, and in those that they import or name.
    """
    return (
        not placeholders(command).isdisjoint(RESUMING)
        or _OURS.search(command) is not None
        or any(_OURS.search(text) for text in _texts(command, Path(workdir)))
    )


def _texts(command: str, workdir: Path) -> Iterator[str]:
    """The files of a command."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    modules = [after for word, after in itertools.pairwise(words) if word == "-m"]
    waiting = deque(path for word in words for path in (workdir / word, *_found(word, folders=(workdir,))))
    waiting.extend(path for module in modules for path in _modules(module, workdir))
    seen: set[Path] = set()
    while waiting and len(seen) < _MOST_FILES:
        path = waiting.popleft()
        if path in seen or (text := _text(path)) is None:
            continue
        seen.add(path)
        yield text
        if path.suffix == ".py":
            for match in _IMPORT.finditer(text):
                for folder in (path.parent, workdir):
                    waiting.extend(_modules(match[1] or match[2], folder))
        else:
            for word in _WORD.findall(text[:_MOST_BYTES]):
                waiting.extend(_found(word, folders=(workdir, path.parent)))


def _found(word: str, *, folders: tuple[Path, ...]) -> Iterator[Path]:
    """Scripts of this name."""
    if "." in word and "\0" not in word and len(word) < 256:
        yield from (folder / word for folder in folders)


def _modules(name: str, folder: Path) -> Iterator[Path]:
    """The file of a Python module and those of the packages around it."""
    parts = [part for part in name.split(".") if part]
    for end in range(1, len(parts) + 1):
        path = folder.joinpath(*parts[:end])
        yield from (path.with_name(f"{path.name}.py"), path / "__init__.py", path / "__main__.py")


def _text(path: Path) -> str | None:
    """The text of a small file; None where there is none."""
    try:
        if not path.is_file() or os.path.getsize(path) > _MOST_BYTES:
            return None
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    return None if b"\0" in data else data.decode(errors="replace")
