"""A page goes to its file."""

from __future__ import annotations

from pathlib import Path

from hpcsweep.errors import FolderError
from hpcsweep.store.files import write_atomic


def write_page(target: Path, html: str, *, hint: str = "") -> None:
    """Write the page whole, or leave what was there; folders above it are made.

    Args:
        target: The file.
        html: A lone surrogate in it becomes `?`.
        hint: Ends the message of an error.

    Raises:
        FolderError: It cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, html.encode(errors="replace"))
    except OSError as error:
        raise FolderError(f"{target}: cannot be written: {error.strerror}{hint}") from error
