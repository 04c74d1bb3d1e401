"""Durable writes on shared filesystems: a file is complete or absent, never half."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from hpcsweep.errors import FolderError

T = TypeVar("T")

_PARENT_TRIES = 3

#: Begins our own lines in the logs of tasks.
OURS = "[hpcsweep]"


def retry_once(action: Callable[[], T]) -> T:
    """Do it, and once more after ESTALE or EIO: NFS gives them for handles that went stale."""
    try:
        return action()
    except OSError as error:
        if error.errno not in (errno.ESTALE, errno.EIO):
            raise
        return action()


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn a failing write into a FolderError that says what is lost (nothing) and what to do."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{folder}: cannot be written: {error.strerror or error}. Nothing is lost: free space or quota, "
            "then launch again"
        ) from error


def fsync_dir(path: Path) -> None:
    """Make the folder's entries durable (a rename is not, until its folder is synced)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; a short write goes on where it ended."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write into; when the block ends it is at `path`, complete and durable.

    If the block raises, what was there stays.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`, complete and durable, or leave what was there.

    Written to a temporary name beside it, synced, renamed, and the folder synced. A rename that
    reports an error after it has succeeded (NFS retransmission) counts as done.
    """
    temporary = _temporary(path)

    def write() -> None:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)

    try:
        retry_once(write)
        rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename; an error after which the target is there and the source gone was a success."""
    try:
        os.rename(source, target)
    except OSError:
        if source.exists() or not target.exists():
            raise


def read_bytes(path: Path) -> bytes:
    """The whole file, read again once if the handle went stale."""
    return retry_once(path.read_bytes)


def make_dirs(path: Path) -> None:
    """Make the folder and its parents; one that exists is fine.

    A parent may go just when it is needed: compaction removes folders of trials that are empty.
    """
    for tries_left in reversed(range(_PARENT_TRIES)):
        try:
            retry_once(lambda: os.makedirs(path, exist_ok=True))
            return
        except FileNotFoundError:
            if not tries_left:
                raise


def last_line(path: Path) -> str:
    """The last line of the text that is not empty and not ours, shortened; empty if there is none to read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4096))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    theirs = (line.strip() for line in reversed(lines) if not line.startswith(OURS))
    return next((line[:300] for line in theirs if line), "")
