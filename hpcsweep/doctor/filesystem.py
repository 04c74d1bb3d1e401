"""The filesystem of the results: whether it does what a journal and its files need."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcsweep.errors import Finding, failure, good, warning
from hpcsweep.store.files import fsync_dir, rename, write_all

#: Seen by every node that mounts them.
SHARED: Final = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "wekafs", "panfs", "afs", "9p")
#: Where node-local scratch is, whatever its filesystem.
LOCAL_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run")
SLOW_S: Final = 1.0
LOW_GIB, LEAST_GIB = 5.0, 0.1
LOW_FILES, LEAST_FILES = 50_000, 1_000
ELSEWHERE: Final = "give another folder with --results"


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def filesystem_findings(folder: Path, *, nodes: bool) -> Iterator[Finding]:
    """Findings about the filesystem of this existing folder; leaves nothing behind.

    Args:
        folder: Where results go.
        nodes: Whether other machines have to see it.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".hpcsweep-doctor-", dir=folder))
    except OSError as error:
        yield failure("results", f"{folder} cannot be written: {error.strerror}", ELSEWHERE)
        return
    try:
        yield good("results", f"{folder} can be written")
        yield type_finding(folder, nodes=nodes)
        yield _space_finding(folder)
        yield from _operation_findings(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def type_finding(folder: Path, *, nodes: bool) -> Finding:
    kind = filesystem_type(folder)
    if not nodes:
        return good("filesystem", kind)
    if kind.startswith(SHARED):
        return good("filesystem", f"{kind}, a network filesystem")
    resolved = folder.resolve()
    local = next((top for top in LOCAL_FOLDERS if resolved.is_relative_to(top)), None)
    what = f"{kind}, below {local}" if local else f"{kind}, a local filesystem"
    return warning("filesystem", f"{what}: compute nodes may not see it", f"make sure, or {ELSEWHERE}")


def filesystem_type(folder: Path) -> str:
    """Its type as the kernel names it, `unknown` where that cannot be read."""
    path, found = folder.resolve(), ("", "unknown")
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found[1]
    for line in lines:
        fields, _, rest = line.partition(" - ")
        # Blanks in a mount point are written as \040; a later mount hides an earlier one.
        point = fields.split()[4].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, rest.split()[0])
    return found[1]


def _space_finding(folder: Path) -> Finding:
    """Of the filesystem as a whole: quotas do not show here but in what writing says."""
    stat = os.statvfs(folder)
    gib, files = stat.f_bavail * stat.f_frsize / 2**30, stat.f_favail
    counted = stat.f_files > 0  # some filesystems have no fixed number of inodes
    message = f"{gib:.1f} GiB free" + (f", {files} files" if counted else "")
    if gib < LEAST_GIB or (counted and files < LEAST_FILES):
        return failure("space", message, f"free some, or {ELSEWHERE}")
    if gib < LOW_GIB or (counted and files < LOW_FILES):
        return warning(
            "space", message, "checkpoints may fill that: lower train.keep_checkpoints, or free some"
        )
    return good("space", f"{message} (your own quota may be less)")


def _operation_findings(scratch: Path) -> Iterator[Finding]:
    """What every journal and every result relies on, tried."""
    done = []
    for what, action in (
        ("rename over a file", _rename_over),
        ("exclusive create", _create_exclusively),
        ("fsync", _fsync),
    ):
        began = time.monotonic()
        try:
            problem = action(scratch)
        except OSError as error:
            problem = error.strerror or str(error)
        seconds = time.monotonic() - began
        if problem:
            yield failure("files", f"{what} does not work here: {problem}", ELSEWHERE)
        elif seconds > SLOW_S:
            yield warning(
                "files",
                f"{what} took {seconds:.1f} s",
                f"every event of a sweep waits so long; {ELSEWHERE}",
            )
        else:
            done.append(what)
    if done:
        yield good("files", f"{', '.join(done)}: as they must be")


def _rename_over(scratch: Path) -> str:
    old, new = scratch / "renamed", scratch / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    rename(new, old)
    if old.read_bytes() != b"new" or new.exists():
        return "the old file is still there"
    return ""


def _create_exclusively(scratch: Path) -> str:
    path = scratch / "exclusive"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    os.close(os.open(path, flags, 0o644))
    try:
        os.close(os.open(path, flags, 0o644))
    except OSError as error:
        return "" if error.errno == errno.EEXIST else error.strerror or str(error)
    return "a second one succeeds too"


def _fsync(scratch: Path) -> str:
    fd = os.open(scratch / "synced", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        write_all(fd, b"x" * 4096)
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_dir(scratch)
    return ""
