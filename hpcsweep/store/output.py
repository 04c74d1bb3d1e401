"""Writes `--output`: a regular file is replaced as a whole, everything else is written into.

A link stays a link: what it names is written. A pipe, a device or a descriptor (`/dev/stdout`, `/dev/fd/3`)
is written into. `-` is standard output.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from pathlib import Path
from typing import Final

from hpcsweep.errors import FolderError
from hpcsweep.store.files import open_new, rename, temporary_name, write_all

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
        _write(target, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FolderError(f"{target}: cannot be written: {error.strerror or error}{hint}") from error


def _write(target: Path, data: bytes) -> None:
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
    temporary = temporary_name(path)
    fd = open_new(temporary)
    try:
        try:
            if before is not None:
                info = os.fstat(fd)
                if (info.st_uid, info.st_gid) != (before.st_uid, before.st_gid):
                    os.fchown(fd, before.st_uid, before.st_gid)
                os.fchmod(fd, stat.S_IMODE(before.st_mode))
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
