"""`code/`: a copy of the training code as it was when the sweep began, for `train.snapshot: true`.

The driver copies it to a hidden name, synced, and renames it before the sweep starts: a started sweep has
all of it. A file of our own in it names the source.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.errors import FolderError, SpecError
from hpcsweep.store.batch import CodeSnapshot, Program
from hpcsweep.store.files import fsync_dir, make_dirs, read_bytes, rename, write_atomic
from hpcsweep.store.git import GitError, NotARepository, list_code_files, toplevel
from hpcsweep.store.layout import Layout, decode, version_field

#: Larger code is taken for data or checkpoints, a mistake.
MAX_BYTES: Final = 100 * 2**20
MAX_FILES: Final = 10_000
#: Patience with git; longer than in `git.py`, since the list of files is needed.
GIT_S: Final = 60.0
#: How many of the largest files are named.
NAMED: Final = 5

_RECORD: Final = ".hpcsweep.json"
_TOO_MUCH: Final = (
    "leave out with .gitignore what is no code (in a repository, where it is not committed), or set "
    "train.snapshot: false"
)


class SnapshotSource(msgspec.Struct, frozen=True):
    """The folder that was copied, absolute and without links."""

    root: str
    files: int
    size: int
    version: int = version_field()


_source_decoder = msgspec.json.Decoder(SnapshotSource)


class CodeListing(msgspec.Struct, frozen=True):
    """Files to copy, as paths below `root`."""

    root: Path
    files: Sequence[str]
    size: int


def code_folder(program: Program) -> Path:
    """The folder of the function's file, else the working directory."""
    file = training_file(program)
    return Path(program.workdir) if file is None else file.parent


def training_file(program: Program) -> Path | None:
    """The file of `FILE.py:NAME`; None for a module or a command."""
    source = (program.function or "").rpartition(":")[0]
    return Path(source) if source.endswith(".py") else None


# --------------------------------------------------------------------------- what


def list_code(program: Program, results: Path) -> CodeListing:
    """The files that a snapshot consists of.

    In a repository: all files that git tracks, and those that it neither tracks nor ignores. Else:
    everything below the code's folder. Results folders, virtual environments and compiled Python are left
    out.

    Raises:
        SpecError: It is too much, cannot be listed, or the copy would not be what runs.
    """
    folder = Path(os.path.realpath(code_folder(program)))
    try:
        root = toplevel(folder, patience_s=GIT_S)
        names = list_code_files(root, patience_s=GIT_S)
    except NotARepository:
        root, names = folder, [""]
    except GitError as error:
        raise SpecError(
            f"train.snapshot: the code in {folder} cannot be listed: {error}; fix that, or set "
            "train.snapshot: false"
        ) from error
    found = _Found(root, results.resolve())
    for name in names:
        found.add(name)
    sizes = found.sizes
    size = sum(sizes.values())
    if size > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED]
        named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise SpecError(
            f"train.snapshot: {root} has {size / 2**20:.0f} MiB, expected {MAX_BYTES >> 20} at most; the "
            f"largest files: {named}; {_TOO_MUCH}"
        )
    listing = CodeListing(root, list(sizes), size)
    _check_copy_is_run(program, listing)
    return listing


def _check_copy_is_run(program: Program, listing: CodeListing) -> None:
    """Raise SpecError if what would run is not copied."""
    file, workdir = training_file(program), Path(program.workdir)
    if file is not None:
        path = os.path.relpath(os.path.join(os.path.realpath(file.parent), file.name), listing.root)
        if path not in listing.files:
            raise SpecError(
                f"train.snapshot: {file} is not copied: expected a file that git does not ignore; take "
                "it out of .gitignore, or set train.snapshot: false"
            )
    elif program.function is not None:
        top = program.function.partition(":")[0].partition(".")[0]
        if not ((workdir / f"{top}.py").exists() or (workdir / top).is_dir()):
            raise SpecError(
                f"train.snapshot: the code in train.workdir is copied, and {top!r} is not in {workdir}: set "
                "train.workdir to the folder that holds it, or train.snapshot: false"
            )
    for word in split_command(program.command or ""):
        if os.path.isabs(word) and os.path.relpath(os.path.realpath(word), listing.root) in listing.files:
            raise SpecError(
                f"train.command: {word} would be run in place of its copy (train.snapshot: true); write it "
                f"relative to train.workdir, {workdir}"
            )


def split_command(command: str) -> list[str]:
    """The words of a command, or of a shell line as far as possible."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


class _Found:
    """Sizes of the files by their path below `root`."""

    def __init__(self, root: Path, results: Path) -> None:
        self.sizes: dict[str, int] = {}
        self._root = root
        self._results = results
        self._is_left_out = cache(self._look_at)

    def add(self, name: str) -> None:
        """Add a file, or everything in a folder; what is gone or left out is skipped."""
        path = self._root / name
        parents = [self._root / parent for parent in list(Path(name).parents)[:-1]]
        if any(self._is_left_out(parent) for parent in parents):
            return
        try:
            info = path.lstat()
            if stat.S_ISDIR(info.st_mode):
                if path == self._root or not self._is_left_out(path):
                    for entry in sorted(os.listdir(path)):
                        self.add(os.path.join(name, entry))
            elif stat.S_ISREG(info.st_mode) or (stat.S_ISLNK(info.st_mode) and _leads(path)):
                self.sizes[name] = path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            return  # tracked, and removed since
        except OSError as error:
            raise SpecError(
                f"train.snapshot: {path}: cannot be read: {error.strerror}; {_TOO_MUCH}"
            ) from error
        if len(self.sizes) > MAX_FILES:
            raise SpecError(
                f"train.snapshot: {self._root} has more than {MAX_FILES} files, expected code only; "
                f"{_TOO_MUCH}"
            )

    def _look_at(self, folder: Path) -> bool:
        return (
            folder.name in (".git", "__pycache__")
            or folder == self._results
            or (folder / "pyvenv.cfg").exists()
            or (folder / "conda-meta").exists()
            or ((folder / "journal").is_dir() and (folder / "sweep.yaml").exists())
        )


def _leads(link: Path) -> bool:
    """Whether there is a file or folder behind a link."""
    return link.is_file() or link.is_dir()


# --------------------------------------------------------------------------- the copy


def copy_code(listing: CodeListing, layout: Layout, *, owner: int, heartbeat: Callable[[], None]) -> None:
    """Make `code/`, complete and durable; the copy of a sweep that never started is replaced.

    Links within the code stay links. A link that leads out of it is followed if it names a file, and kept
    if it names a folder. The caller holds the journal; no other driver of the folder has the number
    `owner`. `heartbeat` is called regularly.

    Raises:
        SpecError: A file cannot be read.
        OSError: The copy cannot be written.
    """
    for leftover in layout.root.glob(f".{layout.code.name}-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = layout.root / f".{layout.code.name}-{owner}.tmp"
    os.mkdir(temporary)
    copied = frozenset(listing.files)
    folders = {temporary}
    for name in listing.files:
        heartbeat()
        target = temporary / name
        make_dirs(target.parent)
        folders |= {temporary / parent for parent in Path(name).parents}
        _copy(listing.root / name, target, root=listing.root, copied=copied)
    for folder in sorted(folders, reverse=True):
        fsync_dir(folder)
    source = SnapshotSource(str(listing.root), len(listing.files), listing.size)
    write_atomic(temporary / _RECORD, msgspec.json.encode(source))
    shutil.rmtree(layout.code, ignore_errors=True)
    rename(temporary, layout.code)
    fsync_dir(layout.root)


def _copy(path: Path, target: Path, *, root: Path, copied: frozenset[str]) -> None:
    if path.is_symlink():
        real = os.path.realpath(path)
        name = os.path.relpath(real, root)
        if name in copied or any(other.startswith(f"{name}/") for other in copied):
            os.symlink(os.path.relpath(real, os.path.realpath(path.parent)), target)
            return
        if os.path.isdir(real):
            os.symlink(real, target)
            return
    try:
        original = path.open("rb")
    except OSError as error:
        raise SpecError(f"train.snapshot: {path}: cannot be read: {error.strerror}; {_TOO_MUCH}") from error
    with original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy)
        copy.flush()
        mode = os.fstat(original.fileno()).st_mode
        os.fchmod(copy.fileno(), stat.S_IMODE(mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)
        os.fsync(copy.fileno())


# --------------------------------------------------------------------------- its use


def use_snapshot(program: Program, layout: Layout) -> Program:
    """The program as it runs from the snapshot; FolderError or SpecError if it is not in there."""
    record = layout.code / _RECORD
    try:
        source = decode(read_bytes(record), _source_decoder, record)
    except (OSError, msgspec.MsgspecError) as error:
        raise FolderError(
            f"{layout.code}: expected the copy of the training code that the sweep was started with "
            f"(train.snapshot: true), {record.name} in it cannot be read: {error}; bring it back, or start "
            "anew in another folder with --results"
        ) from error
    copied = CodeSnapshot(source.root, os.path.realpath(layout.code), program.workdir)
    workdir = copied.path_in_copy(program.workdir)
    function, file = program.function, training_file(program)
    if file is not None:
        folder = copied.path_in_copy(str(file.parent))
        if folder is None or not os.path.isfile(os.path.join(folder, file.name)):
            raise SpecError(
                f"train.function: {file} is not in the copy of the code that the sweep was started with "
                f"({layout.code}, a copy of {source.root}); take the change back, or start anew in another "
                "folder with --results"
            )
        function = f"{os.path.join(folder, file.name)}:{(function or '').rpartition(':')[2]}"
    if workdir is not None:
        make_dirs(Path(workdir))  # where git knows of no file in it
    return msgspec.structs.replace(
        program, snapshot=copied, function=function, workdir=workdir or program.workdir
    )
