"""Parts: the content of many small files of a sweep, in a few large ones; and the tables of a finished sweep.

    compacted/
      metrics-000003-1.parquet   reports of the part's runs
      batches-000003-1.zip       folders of the part's batches
      taken-000003-1.json        index: which raw files are in them; exists until those are removed
      tables.json, trials-*.parquet, runs-*.parquet

A part is written first, durable; then the journal records it (`FilesCompacted`); only then are the raw
files removed. Before the journal entry the part is garbage, afterwards the raw files are; so a kill at any
point loses nothing. A part's name begins with the segment of its driver: whoever holds the journal knows
which parts will never be recorded.
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
from typing import Any, Final

import msgspec

from hpcsweep.core.events import RunId
from hpcsweep.errors import FolderError, NewerFormatError
from hpcsweep.store.files import atomic_file, open_regular, read_bytes, write_atomic
from hpcsweep.store.journal.segments import Position, ends_at
from hpcsweep.store.layout import Layout, decode, version_field

_NAME = re.compile(r"\.?(?:metrics|batches|taken)-((\d+)-\d+)\.(?:parquet|zip|json)(?:\.[0-9a-f]+\.tmp)?\Z")

#: Where a Parquet file has its format version: in the metadata of its schema.
PARQUET_VERSION: Final = b"hpcsweep.version"

# --------------------------------------------------------------------------- what is asked for


class CompactableRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run that may go into a part.

    Attributes:
        attempt: The one that ended it; `restart` as well.
        valued_at: When it ended with a value, so that a file of reports must exist; None if none needs to.
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
    """Write a part, durable, and remove orphaned parts.

    Attributes:
        runs: By trial and rung.
        replaces: Parts whose reports are merged into this one.
        recorded: Every part in the journal.
    """

    part: str
    runs: tuple[CompactableRun, ...] = ()
    batches: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()


class CleanUpPart(msgspec.Struct, frozen=True, tag="clear"):
    """Remove the raw files that are in the part; the journal has it."""

    part: str


class WriteTables(msgspec.Struct, frozen=True, tag="tables"):
    """Write the tables of a finished sweep."""


class RemoveCheckpoints(msgspec.Struct, frozen=True, tag="checkpoints"):
    """Remove all checkpoints of these trials; the journal says so."""

    trials: tuple[int, ...]


CompactionTask = WritePart | CleanUpPart | WriteTables | RemoveCheckpoints


class CompactionResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a compaction task.

    Attributes:
        runs: Runs in the part; the files of others may not be visible yet.
        trials: Trials without checkpoints now; `had`: those of them that had some.
        files: Number of removed checkpoint files; `bytes`: their total size.
        error: Why the task failed; nothing else counts then.
    """

    runs: tuple[RunId, ...] = ()
    trials: tuple[int, ...] = ()
    had: tuple[int, ...] = ()
    files: int = 0
    bytes: int = 0
    error: str = ""


# --------------------------------------------------------------------------- what is in a part


class PartIndex(msgspec.Struct, frozen=True):
    """Raw files in a part, as they were when they were read.

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


def write_index(layout: Layout, part: str, index: PartIndex) -> None:
    write_atomic(layout.index_part(part), msgspec.json.encode(index))


def write_batches(layout: Layout, part: str, batches: Collection[str]) -> dict[str, dict[str, int]]:
    """Write the folders of these batches into the part's archive; its files with their sizes in bytes."""
    found: dict[str, dict[str, int]] = {}
    private = any(_is_private(layout.batch(batch).script) for batch in batches)
    mode = 0o600 if private else 0o644
    with atomic_file(layout.batches_part(part), mode=mode) as file, zipfile.ZipFile(file, "w") as archive:
        for batch in batches:
            folder = layout.batch(batch).root
            # A folder with something that cannot be archived is not cleared: see `_remove_batch`.
            found[batch] = {}
            for name, size in sorted(_files(folder).items()):
                if size >= 0:
                    with contextlib.suppress(_Unreadable):
                        found[batch][name] = _add(archive, folder / name, f"{batch}/{name}")
    return found


def _is_private(script: Path) -> bool:
    """Whether only the owner may read the script, because it holds a secret."""
    try:
        return not os.stat(script).st_mode & 0o077
    except OSError:
        return False


class _Unreadable(Exception):
    """A file that cannot be archived: its folder stays."""


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
    """A file `<batch>/<path>` from the part's archive; None if it is not in it."""
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
    """Parts whose raw files may still exist, oldest first; one readdir."""
    return sorted(part for name, part, _ in _listed(layout) if name == layout.index_part(part).name)


def existing_parts(layout: Layout) -> set[str]:
    """All parts of which a file exists, in the journal or not; one readdir."""
    return {part for _, part, _ in _listed(layout)}


def remove_orphans(layout: Layout, *, recorded: Collection[str], upto: int) -> None:
    """Remove parts that are not in the journal (`recorded`), up to the driver's segment `upto`."""
    for name, part, segment in _listed(layout):
        if segment <= upto and (part not in recorded or name.startswith(".")):
            with contextlib.suppress(OSError):  # a folder of that name is none of ours
                (layout.compacted / name).unlink()


def segment_of(part: str) -> int:
    """The segment of the driver that wrote the part."""
    return int(part.partition("-")[0])


def remove_raw_files(layout: Layout, part: str) -> None:
    """Remove the raw files that are in the part. Idempotent, and safe beside another process that does it.

    A file or folder that changed since stays: its content is nowhere else.
    """
    path = layout.index_part(part)
    try:
        index = decode(read_bytes(path), _index_decoder, path)
    except FileNotFoundError:
        return
    left = [batch for batch, files in index.batches.items() if not _remove_batch(layout, batch, files)]
    for trial, files in index.trials.items():
        _remove_trial(layout, trial, files)
    for old in index.replaces:
        with contextlib.suppress(FileNotFoundError):
            layout.reports_part(old).unlink()
    if not left:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _remove_batch(layout: Layout, batch: str, files: dict[str, int]) -> bool:
    """Whether nothing is left: a file may be in use on another node, and is tried again."""
    folder = layout.batch(batch).root
    hidden = folder.with_name(f".gone-{batch}")
    if _files(folder) == files:
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
    return not hidden.exists()


def _remove_trial(layout: Layout, trial: int, files: dict[str, int]) -> None:
    root = layout.trial(trial).root
    for name, size in files.items():
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(root / name).st_size == size:
                os.unlink(root / name)
    for folder in (layout.trial(trial).checkpoints, root):
        with contextlib.suppress(OSError):  # it is not empty
            os.rmdir(folder)


def _files(folder: Path) -> dict[str, int]:
    """Files below the folder with their sizes; -1 for what cannot be archived or read."""
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
    """`tables.json`: what the tables of a finished sweep were made of.

    While the journal still ends at `at`, nobody needs to replay it. The tables have names that are never
    used again.

    Attributes:
        at: Where the journal ended; `checksum` is that of its last line.
        name: Of the sweep; `identity` as well.
        best: Its best configuration, as `best` prints it.
        parts: Those that hold its reports.
        raw: Runs whose reports are in none of them.
        simulated: Nothing was trained.
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
        """The file of table `trials` or `runs`."""
        return layout.compacted / f"{table}-{self.at.segment:06d}-{self.at.offset}.parquet"


_tables_decoder = msgspec.json.Decoder(Tables)


def write_tables(layout: Layout, tables: Tables) -> None:
    """Make the tables, whose files exist already, the valid ones; remove others."""
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
    """The tables if the journal still ends where it did, else None."""
    try:
        tables = decode(read_bytes(layout.tables), _tables_decoder, layout.tables)
    except (OSError, msgspec.MsgspecError, NewerFormatError):  # the journal has it all
        return None
    return tables if ends_at(layout, tables.at, checksum=tables.checksum) else None
