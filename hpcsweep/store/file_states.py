"""What a program keeps in a folder: whether it changed, and copies of it that are complete.

A copy is made of files that are as they were when the program said that they are complete, and it is kept
only if none of them changed meanwhile and nobody had one open for writing. Programs write their files anew in
place, so copies are no links to them; what did not change since the last copy is linked to that.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec

from hpcsweep.store.checkpoints import MANIFEST

#: Two changes may have the same time where they are nearer than this: ticks of the kernel, or whole seconds.
_TICK_S: Final = 0.02
_COARSE_TICK_S: Final = 1.1
_PIECE: Final = 1 << 26
#: Files that programs keep open and append to; how much of one was copied does not matter.
_LOG: Final = re.compile(r"\.(log|out|err|jsonl)\Z|tfevents", re.IGNORECASE)


class FileState(NamedTuple):
    """If any of it differs, the file has changed."""

    mode: int
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


#: Relative path -> state.
Listing: TypeAlias = dict[str, FileState]


class Source(msgspec.Struct, frozen=True):
    """Where a program keeps what it goes on from.

    Attributes:
        base: A folder.
        pattern: A glob pattern below it for files and folders; everything if it is empty.
    """

    base: Path
    pattern: str = ""

    def listing(self) -> Listing:
        """The files and links there are now; logs always look the same. Files that vanish are left out."""
        found: Listing = {}
        for path in self._paths():
            name = os.path.relpath(path, self.base)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                info = os.lstat(path)
                if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                    continue
                changing = (
                    (0, 0, 0) if _LOG.search(name) else (info.st_size, info.st_mtime_ns, info.st_ctime_ns)
                )
                found[name] = FileState(info.st_mode, info.st_dev, info.st_ino, *changing)
        return dict(sorted(found.items()))

    def _paths(self) -> Iterable[str]:
        if not self.pattern:
            yield from _below(os.fspath(self.base))
            return
        root = os.path.join(glob.escape(os.fspath(self.base)), self.pattern)
        for path in glob.iglob(root, recursive=True):
            if os.path.isdir(path) and not os.path.islink(path):
                yield from _below(path)
            else:
                yield path


def _below(folder: str) -> Iterable[str]:
    for root, folders, names in os.walk(folder):
        yield from (os.path.join(root, name) for name in names if name != MANIFEST)
        yield from (path for name in folders if os.path.islink(path := os.path.join(root, name)))


class Changed(Exception):
    """The files are not, or do not stay, as they were listed."""


#: Exit codes of a process that copies.
COPIED: Final = 0
_CHANGED, _FAILED = 3, 4


def try_copy(
    source: Source,
    listing: Listing,
    target: Path,
    *,
    writers: Collection[int],
    errors: int,
    known: Mapping[str, FileState] | None,
    known_in: Path | None,
) -> int:
    """As `copy`, in a process of its own: gives its exit code, and writes what fails to `errors`."""
    try:
        copy(source, listing, target, writers=writers, known=known, known_in=known_in)
    except Changed:
        return _CHANGED
    except OSError as error:
        os.write(errors, f"{error.strerror or error}"[:500].encode(errors="replace"))
        return _FAILED
    return COPIED


def copy(
    source: Source,
    listing: Listing,
    target: Path,
    *,
    writers: Collection[int] = (),
    known: Mapping[str, FileState] | None = None,
    known_in: Path | None = None,
) -> None:
    """Copy the files as they were listed into a new folder, durably.

    Args:
        source: Where they are.
        listing: How they were.
        target: The folder.
        writers: Processes that may have them open for writing.
        known: Files of which there are copies already.
        known_in: The folder of these.

    Raises:
        Changed: They were no longer so, or did not stay so; or one is being written.
        OSError: They cannot be copied.
    """
    whole_seconds = all(state.mtime_ns % 10**9 == 0 for state in listing.values())
    time.sleep(_COARSE_TICK_S if whole_seconds else _TICK_S)
    _check(source, listing, writers)
    os.mkdir(target)
    folders = {target}
    for name, state in listing.items():
        path, new = source.base / name, target / name
        for folder in reversed(new.relative_to(target).parents[:-1]):
            with contextlib.suppress(FileExistsError):
                os.mkdir(target / folder)
            folders.add(target / folder)
        old = (
            known_in / name
            if known_in is not None and known is not None and known.get(name) == state
            else None
        )
        try:
            if stat.S_ISLNK(state.mode):
                os.symlink(os.readlink(path), new)
            elif old is None or _LOG.search(name) or not _linked(old, new, state.size):
                _copy_file(path, new, state, log=_LOG.search(name) is not None)
        except FileNotFoundError as error:
            raise Changed(str(error)) from error
    for folder in folders:
        _sync(folder)
    _check(source, listing, writers)


def _check(source: Source, listing: Listing, writers: Collection[int]) -> None:
    if source.listing() != listing:
        raise Changed("files changed")
    if written := being_written(listing, writers):
        raise Changed(f"{written} is open for writing")


def being_written(listing: Listing, processes: Collection[int]) -> str:
    """A file, no log, that one of the processes has open for writing; empty if there is none."""
    names = {(state.device, state.inode): name for name, state in listing.items() if not _LOG.search(name)}
    for process in processes:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError, ValueError):
                    info = os.stat(f"/proc/{process}/fd/{number}")
                    name = names.get((info.st_dev, info.st_ino))
                    if name is not None and _writes(process, number):
                        return name
    return ""


def _writes(process: int, number: str) -> bool:
    for line in Path(f"/proc/{process}/fdinfo/{number}").read_text(encoding="ascii").splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _linked(old: Path, new: Path, size: int) -> bool:
    """Link a copy that there is already; False where that cannot be done."""
    try:
        if os.lstat(old).st_size != size:
            return False
        os.link(old, new, follow_symlinks=False)
    except OSError:
        return False
    return True


def _copy_file(path: Path, new: Path, state: FileState, *, log: bool) -> None:
    source = os.open(path, os.O_RDONLY)
    try:
        target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IMODE(state.mode) | stat.S_IWUSR)
        try:
            copied = _copy_bytes(source, target)
            if not log:
                if copied != state.size:
                    raise Changed(f"{path}: changed while it was copied")
                os.utime(target, ns=(state.mtime_ns, state.mtime_ns))
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_bytes(source: int, target: int) -> int:
    """Copy to the end, in the kernel or the file server where these can; the number of bytes."""
    copied = 0
    with contextlib.suppress(OSError):  # not on these filesystems
        while count := os.copy_file_range(source, target, _PIECE):
            copied += count
        if copied:
            return copied
    while data := os.read(source, 1 << 20):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
        copied += len(data)
    return copied


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def split_pattern(pattern: str) -> tuple[str, str]:
    """The folder that a pattern begins with, and what is to be found below it."""
    parts = pattern.split("/")
    plain = next((index for index, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    end = min(plain, len(parts) - 1)
    folder = "/".join(parts[:end])
    return ("/" if pattern.startswith("/") and not folder else folder), "/".join(parts[end:])


def restore(source: Source, checkpoint: Path | None, *, remove: bool) -> None:
    """Make the files what they are in the checkpoint; None: there is none.

    With `remove`, files that are not in it are removed. A file of the same size and time is the same.
    """
    kept = Source(checkpoint).listing() if checkpoint is not None else {}
    now = source.listing()
    for name in now.keys() - kept.keys() if remove else ():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(source.base / name)
    for name, state in kept.items():
        there = now.get(name)
        if there is not None and (there.mode, there.size, there.mtime_ns) == (
            state.mode,
            state.size,
            state.mtime_ns,
        ):
            continue
        assert checkpoint is not None
        path = source.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.hpcsweep")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        if stat.S_ISLNK(state.mode):
            os.symlink(os.readlink(checkpoint / name), new)
        else:
            _copy_file(checkpoint / name, new, state, log=_LOG.search(name) is not None)
        os.replace(new, path)
