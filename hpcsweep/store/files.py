"""Durable writes and safe reads on shared filesystems, and files that are skipped.

A results folder is shared with colleagues, editors and backup programs. What they leave there stops nothing:
it is skipped, and `launch` and `status` name it with the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from hpcsweep.core.text import is_secret
from hpcsweep.errors import FolderError, FolderUnavailable

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
    """Open a regular file for reading; never blocks on a pipe or device."""
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
    """Open a regular file for appending; a new one gets the permissions of `open_new`."""
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
    """A file to write into; once the block ends it is at `path`, durable. If it raises, nothing changes."""
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
    return path.with_name(f".{path.name[:_KEPT_OF_NAME]}.{os.urandom(8).hex()}.tmp")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path`, complete and durable, or leave what was there. `mode` as in `open_new`."""

    def write() -> None:
        with atomic_file(path, mode=mode) as file:
            write_all(file.fileno(), data)

    retry_once(write)


def rename(source: Path, target: Path) -> None:
    """Rename; an error (NFS retransmission) after which the target exists and the source does not is none."""
    try:
        os.rename(source, target)
    except OSError:
        if source.exists() or not target.exists():
            raise


def read_bytes(path: Path | str, *, at_most: int | None = None) -> bytes:
    """The content of a regular file of `at_most` bytes, read again once if the handle went stale."""
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
    path = folder / f".time.{os.urandom(8).hex()}.tmp"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            return os.fstat(fd).st_mtime
        finally:
            os.close(fd)
            path.unlink()
    except OSError:
        return time.time()


#: Standard output as `--output` names it.
STDOUT: Final = Path("-")
#: A folder of descriptors of this process, by its real path.
_DESCRIPTORS: Final = re.compile(r"/proc/([0-9]+)(?:/task/[0-9]+)?/fd")
#: How many links are followed at most, as in the kernel.
_MOST_LINKS: Final = 40


def is_stdout(target: Path) -> bool:
    """Whether the target is standard output, so that nothing else should be printed there."""
    return target == STDOUT or _descriptor(target) == 1


def write_output(target: Path, data: bytes, *, hint: str = "") -> None:
    """Write the data; a regular file whole or not at all, keeping its permissions.

    Raises:
        FolderError: It is a folder, or cannot be written; `hint` ends the message.
        BrokenPipeError: Nobody reads the pipe any more.
    """
    try:
        _write_output(target, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FolderError(f"{target}: cannot be written: {error.strerror or error}{hint}") from error


def _write_output(target: Path, data: bytes) -> None:
    fd = 1 if target == STDOUT else _descriptor(target)
    if fd is not None:
        _write_into_descriptor(fd, data)
        return
    real = Path(os.path.realpath(target))
    try:
        info = os.stat(target)
    except FileNotFoundError:
        _replace(real, data, None)
        return
    if stat.S_ISDIR(info.st_mode):
        raise OSError(errno.EISDIR, "is a folder: give the name of a file", str(target))
    # Another name of the same file would keep the old content, if this one were replaced.
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
        _write_into(target, data, truncate=stat.S_ISREG(info.st_mode))
        return
    try:
        _replace(real, data, info)
    except PermissionError:  # the folder is not ours to write, while the file may be
        _write_into(real, data, truncate=True)


def _replace(path: Path, data: bytes, before: os.stat_result | None) -> None:
    """Put a new file there, with owner and permissions of the previous one."""
    with atomic_file(path) as file:
        fd = file.fileno()
        if before is not None:
            info = os.fstat(fd)
            if (info.st_uid, info.st_gid) != (before.st_uid, before.st_gid):
                os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, stat.S_IMODE(before.st_mode))
        write_all(fd, data)


def _write_into(path: Path, data: bytes, *, truncate: bool) -> None:
    """Write into the existing file; opening a pipe waits for its reader."""
    fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | (os.O_TRUNC if truncate else 0))
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def _write_into_descriptor(fd: int, data: bytes) -> None:
    """Write at the descriptor's position: opened again it would start at the beginning of its file."""
    if fd in (1, 2):
        stream = sys.stdout if fd == 1 else sys.stderr
        stream.flush()
        binary = getattr(stream, "buffer", None)
        if binary is not None:
            binary.write(data)
            binary.flush()
            return
    write_all(fd, data)


def _descriptor(path: Path) -> int | None:
    """The descriptor of this process that the path names, directly or through links."""
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        match = _DESCRIPTORS.fullmatch(folder)
        if match and int(match[1]) == os.getpid() and path.name.isdecimal():
            return int(path.name)
        try:
            path = Path(folder, os.readlink(Path(folder, path.name)))
        except OSError:
            return None
    return None
