"""A trial's checkpoints: each is complete or absent, no matter when a process is killed.

A checkpoint is a folder `step-<n>` with the training code's files and our `.hpcsweep.json`, which lists them
with their sizes. It is made in a hidden folder: files and folders are synced, the list is renamed into place
last, then the folder is renamed. Readers trust only a folder whose files all have the listed sizes.

    checkpoints/
      step-9/                 complete; or damaged from outside: then the previous one is used
      step-9.old/             for a moment, while step 9 is replaced
      .new-27.0-1-0.4711/     being written, or left by a dead attempt
      .work-0-1-0/            the working folder that a program finds in HPCSWEEP_CHECKPOINT_DIR
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from hpcsweep.errors import CheckpointError
from hpcsweep.store.files import fsync_dir, make_dirs, read_bytes, rename, retry_once, write_atomic
from hpcsweep.store.layout import Layout, TrialLayout, decode, version_field

#: Hidden and our own, so that it meets no file of the training code, and a copy of a checkpoint
#: that training code makes the start of its next one is not mistaken for a complete one.
MANIFEST = ".hpcsweep.json"

#: Checkpoints that are being removed, beside the folder that they were in.
_TRASH = ".gone-checkpoints-"
_FOLDER = re.compile(r"step-(\d+)(\.old)?\Z")


class Manifest(msgspec.Struct, frozen=True):
    """Files of a complete checkpoint: relative path -> size in bytes."""

    step: int
    files: dict[str, int]
    version: int = version_field()


_decoder = msgspec.json.Decoder(Manifest)


class Checkpoint(msgspec.Struct, frozen=True):
    """A complete checkpoint: training up to and including `step` is in `path`."""

    step: int
    path: Path


def newest(trial: TrialLayout, *, at_most: int | None = None) -> Checkpoint | None:
    """The newest complete checkpoint with step <= `at_most`, or None. Damaged ones are skipped."""
    for step, path in _folders(trial):
        if (at_most is None or step <= at_most) and is_complete(path, step):
            return Checkpoint(step, path)
    return None


def newest_of_line(
    trial: TrialLayout, parent: TrialLayout | None, *, at_most: int, parent_step: int
) -> Checkpoint | None:
    """The newest one of the trial, or else that of the trial that it was cloned from at `parent_step`."""
    own = newest(trial, at_most=at_most)
    if own is None and parent is not None:
        return newest(parent, at_most=min(at_most, parent_step))
    return own


def is_complete(path: Path, step: int) -> bool:
    """Whether the list is there, is of this step, and every file has its size; or NewerFormatError."""
    try:
        manifest = decode(read_bytes(path / MANIFEST), _decoder, path / MANIFEST)
        return manifest.step == step and all(
            os.lstat(path / name).st_size == size for name, size in manifest.files.items()
        )
    except (OSError, msgspec.MsgspecError):
        return False


@contextlib.contextmanager
def new_checkpoint(trial: TrialLayout, step: int, *, owner: str) -> Iterator[Path]:
    """Give an empty folder; when the block ends it is the checkpoint of `step`, complete and durable.

    If the block raises, nothing of it stays. A complete checkpoint of the same step is used until the new one
    replaces it. `owner` names the attempt, so that two attempts never write into one folder.
    """
    folder = trial.checkpoints / f".new-{step}.{owner}.{os.getpid()}"
    make_dirs(trial.checkpoints)
    remove(folder)
    os.mkdir(folder)
    try:
        yield folder
        commit(trial, step, folder)
    except BaseException:
        remove(folder)
        raise


def commit(trial: TrialLayout, step: int, folder: Path) -> Checkpoint:
    """Make `folder`, in the trial's checkpoints folder, the durable checkpoint of `step`; it is moved there.

    Its files must be closed.

    Raises:
        CheckpointError: A file of it disappeared.
    """
    try:
        files = _sync_tree(folder)
        write_atomic(folder / MANIFEST, msgspec.json.encode(Manifest(step, files)))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: the checkpoint of step {step} cannot be completed, "
            f"{error.filename} went away while it was written"
        ) from error
    target = trial.checkpoint(step)
    aside = target.with_name(f"{target.name}.old")
    if is_complete(target, step):
        # At each moment between the renames one of the two names is a complete checkpoint.
        remove(aside)
        rename(target, aside)
    else:
        remove(target)
    rename(folder, target)
    fsync_dir(trial.checkpoints)
    remove(aside)
    return Checkpoint(step, target)


def prune(trial: TrialLayout, *, keep: int, steps: Collection[int] = ()) -> None:
    """Remove all but the `keep` (at least one) newest complete checkpoints, and damaged ones.

    For each of `steps` the newest checkpoint up to it stays too. Checkpoints being written are left alone.
    """
    kept: set[int] = set()
    wanted = set(steps)
    for step, path in _folders(trial):
        asked_for = {other for other in wanted if step <= other}
        if (len(kept) < max(keep, 1) or asked_for) and step not in kept and is_complete(path, step):
            kept.add(step)
            wanted -= asked_for
        elif kept:
            remove(path)


def remove_leftovers(trial: TrialLayout) -> None:
    """Remove unfinished checkpoints of earlier attempts. Only for the attempt that runs the trial now."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(trial.checkpoints):
            if name.startswith("."):
                remove(trial.checkpoints / name)


def remove(folder: Path) -> None:
    """Remove the folder if it exists; no reader ever sees half a `step-<n>`.

    What cannot be removed (a file that another node has open on NFS) stays hidden, for `remove_leftovers`.
    """
    if not folder.name.startswith("."):
        hidden = folder.with_name(f".gone-{folder.name}.{os.getpid()}")
        shutil.rmtree(hidden, ignore_errors=True)
        try:
            os.rename(folder, hidden)
        except FileNotFoundError:
            return
        folder = hidden
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:  # a file or a link in its place
        with contextlib.suppress(OSError):
            folder.unlink()


class DiskUsage(NamedTuple):
    """Number and size in bytes of regular files."""

    files: int
    bytes: int


def disk_usage(*folders: Path) -> DiskUsage:
    """Disk usage of everything in the folders; zero if they do not exist."""
    files = size = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    info = os.lstat(os.path.join(root, name))
                    if stat.S_ISREG(info.st_mode):
                        files, size = files + 1, size + info.st_size
    return DiskUsage(files, size)


def disk_usage_by_trial(layout: Layout) -> dict[int, DiskUsage]:
    """Disk usage of checkpoints and output folders by trial, those being removed included.

    Walks all trials.
    """
    found: dict[int, DiskUsage] = {}
    for shard in _subfolders(layout.trials):
        for folder in _subfolders(shard):
            if folder.name.isdecimal():
                trial = TrialLayout(folder)
                total = disk_usage(trial.checkpoints, trial.output, *_trash(trial))
                if total.files:
                    found[int(folder.name)] = total
    return dict(sorted(found.items()))


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def hide_all(trial: TrialLayout) -> None:
    """Make all checkpoints and the output of the trial absent, unless these are links.

    `remove_all` deletes them.
    """
    for folder in (trial.checkpoints, trial.output):
        if folder.is_symlink():
            continue
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, trial.root / f"{_TRASH}{os.urandom(4).hex()}")


def remove_all(trial: TrialLayout) -> tuple[DiskUsage, bool]:
    """Remove all checkpoints and the output of the trial; what was removed, and whether nothing is left.

    Idempotent.
    """
    hide_all(trial)
    trash = _trash(trial)
    removed = disk_usage(*trash)
    for folder in trash:
        shutil.rmtree(folder, ignore_errors=True)
    gone = not _trash(trial)
    with contextlib.suppress(OSError):  # its reports are there
        os.rmdir(trial.root)
    return removed, gone


def _trash(trial: TrialLayout) -> list[Path]:
    try:
        names = os.listdir(trial.root)
    except OSError:
        return []
    return [trial.root / name for name in names if name.startswith(_TRASH)]


def _folders(trial: TrialLayout) -> list[tuple[int, Path]]:
    """Checkpoint folders, complete or not, newest step first; `.old` after its successor."""
    try:
        names = retry_once(lambda: os.listdir(trial.checkpoints))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        match = _FOLDER.match(name)
        if match:
            found.append((int(match[1]), not match[2], trial.checkpoints / name))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _sync_tree(folder: Path) -> dict[str, int]:
    """Sync every file and folder below; give each file's relative path and size."""
    files: dict[str, int] = {}
    for root, _, names in os.walk(folder, topdown=False, onerror=_raise):
        for name in names:
            path = Path(root, name)
            if path.parent == folder and _is_ours(name):
                continue
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode):
                _sync_file(path)
            elif not stat.S_ISLNK(info.st_mode):
                continue  # a socket or a pipe holds nothing that could be kept
            files[str(path.relative_to(folder))] = info.st_size
        fsync_dir(Path(root))
    return files


def _is_ours(name: str) -> bool:
    return name == MANIFEST or (name.startswith(f".{MANIFEST}.") and name.endswith(".tmp"))


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        retry_once(lambda: os.fsync(fd))
    finally:
        os.close(fd)


def _raise(error: OSError) -> None:
    raise error
