"""A page goes where it is asked for."""

from __future__ import annotations

from pathlib import Path

from hpcsweep.errors import FolderError
from hpcsweep.store.files import make_dirs
from hpcsweep.store.output import STDOUT, write_output


def write_page(target: Path, html: str, *, hint: str = "") -> None:
    """Write the page; see `write_output`. Folders above a new file are made.

    Args:
        target: The file, or what else `--output` may name.
        html: A lone surrogate in it becomes `?`.
        hint: Ends the message of an error.

    Raises:
        FolderError: It cannot be written.
    """
    if target != STDOUT:
        try:
            make_dirs(target.parent)
        except OSError as error:
            raise FolderError(f"{target}: cannot be written: {error.strerror}{hint}") from error
    write_output(target, html.encode(errors="replace"), hint=hint)
