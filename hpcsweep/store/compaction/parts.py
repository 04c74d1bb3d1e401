"""Parts: what was in many small files of a sweep, in a few large ones.

    compacted/
      metrics-000003-1.parquet   what the part's runs have reported
      batches-000003-1.zip       the folders of the part's batches, whole
      taken-000003-1.json        which raw files are in them; there until those are removed
      tables.json ...            see `Tables`

A part is written first, all of it durable; then the journal tells of it (`FilesCompacted`); only then the
raw files go. Before the journal tells of it a part is garbage, after that the raw files are; so a kill
at any point loses nothing. The first number of a part's name is that of its driver's segment: whoever
holds the journal knows which parts nobody can tell of any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.core.events import RunId
from hpcsweep.errors import FolderError, NewerFormatError
from hpcsweep.store.files import atomic_file, open_regular, read_bytes, write_atomic
from hpcsweep.store.journal.segments import Position, ends_at
from hpcsweep.store.layout import Layout
from hpcsweep.store.versions import decode, version_field

_NAME = re.compile(r"\.?(?:metrics|batches|taken)-((\d+)-\d+)\.(?:parquet|zip|json)(?:\.[0-9a-f]+\.tmp)?\Z")

# --------------------------------------------------------------------------- what is asked for


class CompactableRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run that may go into a part.

    Attributes:
        attempt: The one that ended it; `restart` as well.
        valued_at: When it ended with a value, so that a file of its reports should be there; None
            where there need be none.
    """

    trial: int
    rung: int
    attempt: int
    restart: int
    valued_at: float | None = None

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)


class WritePart(msgspec.Struct, frozen=True, tag="write"):
    """Write a part, durable, and remove what nobody will ever tell of.

    Attributes:
        runs: In order of trial and rung.
        replaces: Parts whose reports go into this one as well.
        told: Every part that the journal tells of.
    """

    part: str
    runs: tuple[CompactableRun, ...] = ()
    batches: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


class CleanUpPart(msgspec.Struct, frozen=True, tag="clear"):
    """Remove the raw files that are in the part; the journal tells of it."""

    part: str


class WriteTables(msgspec.Struct, frozen=True, tag="tables"):
    """Write the tables of a sweep that has ended."""


class RemoveCheckpoints(msgspec.Struct, frozen=True, tag="checkpoints"):
    """Remove all checkpoints of these trials; the journal tells of it."""

    trials: tuple[int, ...]


CompactionTask = WritePart | CleanUpPart | WriteTables | RemoveCheckpoints


class CompactionResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of an order.

    Attributes:
        runs: Those that are in the part; the files of the others may not be visible yet.
        trials: Those of whose checkpoints nothing is left; `had`: those of them that had files.
        files: How many files of checkpoints were removed; `bytes`: their size together.
        error: Why it could not be carried out; nothing of it counts then.
    """

    runs: tuple[RunId, ...] = ()
    trials: tuple[int, ...] = ()
    had: tuple[int, ...] = ()
    files: int = 0
    bytes: int = 0
    error: str = ""


# --------------------------------------------------------------------------- what is in a part


class PartIndex(msgspec.Struct, frozen=True):
    """Raw files that are in a part, as they were when they were read.

    Attributes:
        trials: By trial, its metrics files with their sizes in bytes.
        batches: By batch, the files in its folder with their sizes in bytes.
        replaces: Parts whose reports are in this one.
    """

    trials: dict[int, dict[str, int]]
    batches: dict[str, dict[str, int]]
    replaces: tuple[str, ...] = ()
    version: int = version_field()


_index_decoder = msgspec.json.Decoder(PartIndex)


def write_index(layout: Layout, part: str, taken: PartIndex) -> None:
    """Note which raw files are in the part."""
    write_atomic(layout.index_part(part), msgspec.json.encode(taken))


def write_batches(layout: Layout, part: str, batches: Collection[str]) -> dict[str, dict[str, int]]:
    """Write the folders of these batches into the part's archive; what is in it, with sizes in bytes."""
    found: dict[str, dict[str, int]] = {}
    private = any(_is_private(layout.batch(batch).script) for batch in batches)
    mode = 0o600 if private else 0o644
    with atomic_file(layout.batches_part(part), mode=mode) as file, zipfile.ZipFile(file, "w") as archive:
        for batch in batches:
            folder = layout.batch(batch).root
            # A folder with something that cannot be archived is not cleared: see `_clear_batch`.
            found[batch] = {}
            for name, size in sorted(_files(folder).items()):
                if size >= 0:
                    with contextlib.suppress(_Unreadable):
                        found[batch][name] = _add(archive, folder / name, f"{batch}/{name}")
    return found


def _is_private(script: Path) -> bool:
    """Whether the script is for its owner alone: then it holds a secret."""
    try:
        return not os.stat(script).st_mode & 0o077
    except OSError:
        return False


class _Unreadable(Exception):
    """A file that is not archived: its folder stays as it is."""


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> int:
    try:
        source = open(open_regular(path), "rb")  # noqa: SIM115 -- an error of the archive is another one
    except OSError as error:
        raise _Unreadable from error
    with source:
        info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return source.tell()


def read_archived(layout: Layout, part: str, name: str) -> bytes | None:
    """A file of a batch folder, `<batch>/<path>`, from the part's archive; None if it is not there."""
    path = layout.batches_part(part)
    try:
        with open(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            return archive.read(name)
    except KeyError:
        return None
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise FolderError(
            f"{path}: cannot be read: {error}; restore it from a backup or snapshot of the filesystem"
        ) from error


# --------------------------------------------------------------------------- what is not needed any more


def pending_cleanup(layout: Layout) -> list[str]:
    """Parts whose raw files may still be there, oldest first, told of or not; one readdir."""
    return sorted(part for name, part, _ in _listed(layout) if name == layout.index_part(part).name)


def listed(layout: Layout) -> set[str]:
    """Parts of which something is there, told of or not; one readdir."""
    return {part for _, part, _ in _listed(layout)}


def remove_orphans(layout: Layout, *, told: Collection[str], upto: int) -> None:
    """Remove parts of which nobody will ever tell.

    Args:
        layout: The results folder.
        told: Every part that the journal tells of.
        upto: The segment of the driver that asks: what a newer one has written is left alone.
    """
    for name, part, segment in _listed(layout):
        if segment <= upto and (part not in told or name.startswith(".")):
            with contextlib.suppress(OSError):  # a folder of that name is none of ours
                (layout.compacted / name).unlink()


def segment_of(part: str) -> int:
    """The number of the segment of the driver that named the part."""
    return int(part.partition("-")[0])


def clear(layout: Layout, part: str) -> None:
    """Remove the raw files that are in the part. Safe to do again, and beside somebody else who does.

    A file or a folder that is not as it was when it was taken stays: what came later is nowhere else.
    """
    path = layout.index_part(part)
    try:
        taken = decode(read_bytes(path), _index_decoder, path)
    except FileNotFoundError:
        return
    left = [batch for batch, files in taken.batches.items() if not _clear_batch(layout, batch, files)]
    for trial, files in taken.trials.items():
        _clear_trial(layout, trial, files)
    for old in taken.replaces:
        with contextlib.suppress(FileNotFoundError):
            layout.reports_part(old).unlink()
    if not left:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _clear_batch(layout: Layout, batch: str, files: dict[str, int]) -> bool:
    """Whether nothing is left to be tried again: a file may be in use on another node."""
    folder = layout.batch(batch).root
    hidden = folder.with_name(f".gone-{batch}")
    if _files(folder) == files:
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
    return not hidden.exists()


def _clear_trial(layout: Layout, trial: int, files: dict[str, int]) -> None:
    root = layout.trial(trial).root
    for name, size in files.items():
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(root / name).st_size == size:
                os.unlink(root / name)
    for folder in (layout.trial(trial).checkpoints, root):
        with contextlib.suppress(OSError):  # it is not empty
            os.rmdir(folder)


def _files(folder: Path) -> dict[str, int]:
    """Files below the folder with their sizes; -1 for what cannot be archived.

    That is no regular file, a folder that cannot be read, or a name that is not UTF-8.
    """
    found: dict[str, int] = {}
    unread: list[OSError] = []
    for root, _, names in os.walk(folder, onerror=unread.append):
        for name in names:
            path = Path(root, name)
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue
            ours = stat.S_ISREG(info.st_mode) and _is_utf8(str(path))
            found[str(path.relative_to(folder))] = info.st_size if ours else -1
    return found | {os.fsdecode(error.filename): -1 for error in unread if error.errno != errno.ENOENT}


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(layout: Layout) -> list[tuple[str, str, int]]:
    """Files of parts, temporary ones included: name, part, segment."""
    try:
        names = os.listdir(layout.compacted)
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = ((name, _NAME.match(name)) for name in names)
    return [(name, match[1], int(match[2])) for name, match in matches if match]


_TABLE_NAME = re.compile(r"(?:trials|runs)-\d+-\d+\.parquet\Z")
_TEMPORARY_TABLE = re.compile(r"\.(?:trials|runs|tables)\b.*\.tmp\Z")


class Tables(msgspec.Struct, frozen=True):
    """What the tables were made of.

    Attributes:
        at: Where the journal ended, and the checksum of the line that ended there.
        name: Of the sweep; `identity` as well.
        best: Its best configuration, as `best` prints it.
        parts: Those that hold its reports.
        raw: Runs whose reports are in none of them.
        simulated: Whether nothing was trained.
    """

    at: Position
    checksum: str
    name: str
    identity: dict[str, Any]
    best: dict[str, Any] | None
    parts: tuple[str, ...]
    raw: tuple[RunId, ...]
    version: int = version_field()
    simulated: bool = False

    def path(self, layout: Layout, table: str) -> Path:
        """Where a table is: `trials` or `runs`."""
        return layout.compacted / f"{table}-{self.at.segment:06d}-{self.at.offset}.parquet"


_tables_decoder = msgspec.json.Decoder(Tables)


def write_tables(layout: Layout, tables: Tables) -> None:
    """Have these tables, which are there already, count from now on; others are removed."""
    _remove_matching(
        layout, _TEMPORARY_TABLE
    )  # of who was killed; first, for once the tables count nobody looks again
    write_atomic(layout.tables, msgspec.json.encode(tables))
    _remove_matching(
        layout, _TABLE_NAME, keep={tables.path(layout, table).name for table in ("trials", "runs")}
    )


def _remove_matching(layout: Layout, pattern: re.Pattern[str], *, keep: Collection[str] = ()) -> None:
    for name in os.listdir(layout.compacted):
        if pattern.match(name) and name not in keep:
            (layout.compacted / name).unlink(missing_ok=True)


def read_tables(layout: Layout) -> Tables | None:
    """The tables, if the journal still ends where it did; None if not, or if none can be read."""
    try:
        tables = decode(read_bytes(layout.tables), _tables_decoder, layout.tables)
    except (OSError, msgspec.MsgspecError, NewerFormatError):  # the journal has it all
        return None
    return tables if ends_at(layout, tables.at, checksum=tables.checksum) else None
