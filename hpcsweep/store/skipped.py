"""Files in a results folder that are not ours, or that cannot be read: passed over, and named.

A results folder is shared with colleagues, editors and backup programs. What they leave there ends
nothing: it is noted with the reason, and `launch` and `status` name it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.store.files import file_kind, retry_once

#: So many are named; of more only the number.
NAMED: Final = 5
#: What is larger is neither a request nor a result.
SMALL_BYTES: Final = 1 << 20


class Skipped:
    """Collects what was passed over, each path once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, path: Path | str, reason: str | Exception) -> None:
        """Note a file or folder with the reason why it is passed over."""
        self._found[str(path)] = reason if isinstance(reason, str) else explain_error(reason)

    def clear(self) -> None:
        """Forget all of it, before everything is looked at again."""
        self._found.clear()

    def lines(self, root: Path) -> list[str]:
        """One line for each file by its path in the results folder; of many only the first few."""
        lines = [
            f"passed over: {display_path(path, root)}: {self._found[path]}" for path in sorted(self._found)
        ]
        more = len(lines) - NAMED
        if more <= 0:
            return lines
        what = "1 more file that is not ours" if more == 1 else f"{more} more files that are not ours"
        return [*lines[:NAMED], f"passed over: {what}"]


def explain_error(error: Exception) -> str:
    """The reason in words why a file cannot be used."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return f"is damaged: {error}" if isinstance(error, msgspec.MsgspecError) else str(error)


def display_path(path: str, root: Path) -> str:
    """The path below `root`; bytes that are not UTF-8 are written as escapes."""
    inside = os.path.relpath(path, root)
    return os.fsencode(path if inside.startswith("..") else inside).decode(errors="backslashreplace")


def regular_files(
    folder: Path,
    pattern: re.Pattern[str],
    passed_over: Skipped | None = None,
    *,
    besides: Container[str] = (),
    strict: bool = False,
) -> Iterator[tuple[str, re.Match[str]]]:
    """Names of the regular files in the folder that match the whole pattern; one readdir.

    Other names are noted, but for hidden ones: those are temporary files, ours and of others. A folder
    that is not there is empty; one that cannot be listed is noted, and empty.

    Args:
        folder: The folder.
        pattern: Of the names of our own files.
        passed_over: Told what is passed over.
        besides: Names that are not wanted, and not looked at.
        strict: A folder that cannot be listed is an error.

    Raises:
        OSError: See `strict`.
    """
    passed_over = Skipped() if passed_over is None else passed_over
    try:
        entries = retry_once(lambda: _entries(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        if strict:
            raise
        passed_over.note(folder, error)
        return
    for entry in entries:
        if entry.name in besides:
            continue
        match = pattern.fullmatch(entry.name)
        if match is None:
            if not entry.name.startswith("."):
                passed_over.note(entry.path, "is not a file of this sweep")
        elif not _is_regular(entry):
            passed_over.note(entry.path, f"is {_kind(entry)}, not a file")
        else:
            yield entry.name, match


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link into a folder that cannot be searched, or one that goes in circles
        return False


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return file_kind(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return "something else"
