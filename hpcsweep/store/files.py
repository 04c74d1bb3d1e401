"""Durable writes and safe reads on shared filesystems, and files that are skipped.

A results folder is shared with colleagues, editors and backup programs. What they leave there stops nothing:
it is skipped, and `launch` and `status` name it with the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec

from hpcsweep.core.text import is_secret
from hpcsweep.errors import FolderUnavailable

T = TypeVar("T")

_PARENT_TRIES = 3
#: How many characters of a file's name its temporary name keeps: it must not grow too long.
_KEPT_OF_NAME: Final = 48
#: Words for files that are not regular.
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link"),
)

#: Prefix of our own lines in the logs of tasks.
OURS = "[hpcsweep]"


def file_mode(environment: Mapping[str, str | None]) -> int:
    """Permissions of a file with these environment variables: 0o600 if one of them looks like a secret."""
    return 0o600 if any(is_secret(name) and value for name, value in environment.items()) else 0o644


def retry_once(action: Callable[[], T]) -> T:
    """Retry after ESTALE or EIO, which NFS gives for stale handles."""
    try:
        return action()
    except OSError as error:
        if error.errno not in (errno.ESTALE, errno.EIO):
            raise
        return action()


@contextlib.contextmanager
def wrap_oserror(folder: Path) -> Iterator[None]:
    """Turn an OSError of a write into `FolderUnavailable`, with what to do."""
    try:
        yield
    except OSError as error:
        raise FolderUnavailable(
            f"{folder}: cannot be written: {error.strerror or error}. Nothing is lost: free space or quota, "
            "then launch again"
        ) from error


def fsync_dir(path: Path) -> None:
    """Make the folder's entries durable: a rename is not, until its folder is synced."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however short single writes are."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def file_kind(mode: int) -> str:
    """What a file of this `st_mode` is if not a regular one, for example `a folder`."""
    return next((name for is_one, name in _KINDS if is_one(mode)), "a device")


def open_regular(path: Path | str) -> int:
    """Open a regular file for reading; never blocks on a pipe or device.

    Raises:
        OSError: It is not a regular file, or cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, f"is {file_kind(mode)}, not a file", str(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_new(path: Path, *, mode: int = 0o644, flags: int = 0) -> int:
    """Create a file for writing, with more `flags` of `os.open`; an existing file or link is an error.

    Whatever the umask is (training code may set any), the owner can read and write it, and so can the group
    if the folder is group-writable and `mode` is not 0o600.

    Raises:
        FileExistsError: Something of that name exists.
        OSError: It cannot be created.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | flags, mode)
    _share(fd, path.parent, private=mode == 0o600)
    return fd


def open_append(path: Path, *, flags: int = os.O_WRONLY) -> int:
    """Open a file for appending; a new one gets the permissions of `open_new`.

    Raises:
        OSError: It is a link or no regular file, or cannot be opened.
    """
    flags |= os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o644)
        _share(fd, path.parent)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise OSError(errno.EINVAL, f"is {file_kind(mode)}, not a file", str(path))
    return fd


def _share(fd: int, folder: Path, *, private: bool = False) -> None:
    """Give a new file or folder the permissions that users of its folder need."""
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    full = 0o7 if stat.S_ISDIR(info.st_mode) else 0o6
    wanted = mode | full << 6
    if not private:
        around = os.stat(folder)
        # A sticky folder, such as /tmp, is everybody's: its group is nobody in particular.
        shared = around.st_mode & stat.S_IWGRP and not around.st_mode & stat.S_ISVTX
        if shared and around.st_gid == info.st_gid:
            wanted |= full << 3
    if wanted != mode:
        # Not fchmod: a folder is opened by its path alone, as the umask may have left it unreadable.
        os.chmod(f"/proc/self/fd/{fd}", wanted)


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A new file to write into; when the block ends it is at `path`, durable.

    If the block raises, nothing changes.
    """
    temporary = temporary_name(path)
    try:
        with open(open_new(temporary, mode=mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)


def temporary_name(path: Path) -> Path:
    """A hidden, unpredictable name beside the file."""
    return path.with_name(f".{path.name[:_KEPT_OF_NAME]}.{secrets.token_hex(8)}.tmp")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path`, complete and durable, or leave what was there. `mode` as in `open_new`.

    Writes a temporary file beside it, syncs, renames, and syncs the folder. A rename that reports an error
    after it has succeeded (NFS retransmission) counts as done.
    """
    temporary = retry_once(lambda: _written_beside(path, data, mode))
    try:
        rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)


def _written_beside(path: Path, data: bytes, mode: int) -> Path:
    """The data in a new file beside the path, durable; its name."""
    temporary = temporary_name(path)
    fd = open_new(temporary, mode=mode)
    try:
        write_all(fd, data)
        os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(fd)
    return temporary


def rename(source: Path, target: Path) -> None:
    """Rename; an error after which the target exists and the source does not counts as success."""
    try:
        os.rename(source, target)
    except OSError:
        if source.exists() or not target.exists():
            raise


def read_bytes(path: Path | str, *, at_most: int | None = None) -> bytes:
    """The content of a regular file, read again once if the handle went stale.

    Raises:
        OSError: It is not a regular file, is larger than `at_most` bytes, or cannot be read.
    """
    return retry_once(lambda: _read(path, at_most))


def _read(path: Path | str, at_most: int | None) -> bytes:
    with open(open_regular(path), "rb", buffering=0) as file:
        if at_most is not None and (size := os.fstat(file.fileno()).st_size) > at_most:
            raise OSError(errno.EFBIG, f"has {size} bytes, more than {at_most}", str(path))
        return file.read()


def make_dirs(path: Path) -> None:
    """Make the folder and its parents, with the permissions of `open_new`; existing ones are fine.

    Tries again when a parent disappears meanwhile: compaction removes empty folders of trials.
    """
    for tries_left in reversed(range(_PARENT_TRIES)):
        try:
            retry_once(lambda: _make(path))
            return
        except FileNotFoundError:
            if not tries_left:
                raise


def _make(path: Path) -> None:
    try:
        os.mkdir(path)
    except FileNotFoundError:
        if path.parent == path:
            raise
        _make(path.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
    except OSError:
        if not os.path.isdir(path):
            raise
        return
    with contextlib.suppress(FileNotFoundError):  # it was removed again
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _share(fd, path.parent)
        finally:
            os.close(fd)


def file_server_time(folder: Path) -> float:
    """Unix time by the clock that stamps the folder's files, the file server's; else by this machine's."""
    path = folder / f".time.{secrets.token_hex(8)}.tmp"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            return os.fstat(fd).st_mtime
        finally:
            os.close(fd)
            path.unlink()
    except OSError:
        return time.time()


#: How many skipped files are named.
NAMED: Final = 5
#: Size limit of requests and results.
SMALL_BYTES: Final = 1 << 20


class Skipped:
    """Files that were skipped, each with its reason."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, path: Path | str, reason: str | Exception) -> None:
        self._found[str(path)] = reason if isinstance(reason, str) else explain_error(reason)

    def clear(self) -> None:
        self._found.clear()

    def lines(self, root: Path) -> list[str]:
        """One line per file, with its path below `root`; of many only the first few."""
        lines = [f"skipped: {display_path(path, root)}: {self._found[path]}" for path in sorted(self._found)]
        more = len(lines) - NAMED
        if more <= 0:
            return lines
        what = "1 more file that is not ours" if more == 1 else f"{more} more files that are not ours"
        return [*lines[:NAMED], f"skipped: {what}"]


def explain_error(error: Exception) -> str:
    """Why a file cannot be used."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return f"is damaged: {error}" if isinstance(error, msgspec.MsgspecError) else str(error)


def display_path(path: str, root: Path) -> str:
    """The path below `root`; bytes that are not UTF-8 are escaped."""
    inside = os.path.relpath(path, root)
    return os.fsencode(path if inside.startswith("..") else inside).decode(errors="backslashreplace")


def regular_files(
    folder: Path,
    pattern: re.Pattern[str],
    skipped: Skipped | None = None,
    *,
    besides: Container[str] = (),
    strict: bool = False,
) -> Iterator[tuple[str, re.Match[str]]]:
    """Names of the regular files that match the whole pattern, without those in `besides`; one readdir.

    Other names are noted in `skipped`, except hidden ones (temporary files). A missing folder is empty; one
    that cannot be listed is noted, or with `strict` raises OSError.
    """
    skipped = Skipped() if skipped is None else skipped
    try:
        entries = retry_once(lambda: _entries(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        if strict:
            raise
        skipped.note(folder, error)
        return
    for entry in entries:
        if entry.name in besides:
            continue
        match = pattern.fullmatch(entry.name)
        if match is None:
            if not entry.name.startswith("."):
                skipped.note(entry.path, "is not a file of this sweep")
        elif not _is_regular(entry):
            skipped.note(entry.path, f"is {_kind(entry)}, not a file")
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
