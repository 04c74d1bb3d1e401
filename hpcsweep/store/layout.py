"""A results folder: its paths, the format versions of its files, and files in it that are skipped.

It is shared with colleagues, editors and backup programs. What they leave there stops nothing: it is skipped,
and `launch` and `status` name it with the reason.

Each JSON file has a `version`; one without it (hpcsweep 0.1) is version 1. Raise a version when a field
changes its meaning; new fields get defaults, so that older files stay readable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from hpcsweep.errors import NewerFormatError
from hpcsweep.store.files import file_kind, retry_once

#: Trials in one folder at most: Lustre is slow in folders with tens of thousands of entries.
SHARD = 1000


class Layout:
    """Paths below one results folder. Makes nothing, reads nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_batch(cls, batch_folder: Path) -> Layout:
        """The layout of a worker, which is given only its batch folder."""
        return cls(batch_folder.parent.parent)

    @property
    def spec(self) -> Path:
        return self.root / "sweep.yaml"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def batches(self) -> Path:
        return self.root / "batches"

    @cached_property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def tick_script(self) -> Path:
        """The script of tick jobs (detached sweeps); rewritten before each."""
        return self.root / "tick.sbatch"

    @property
    def tick_log(self) -> Path:
        """Output of ticks outside of `launch`."""
        return self.root / "ticks.log"

    @property
    def last_poll(self) -> Path:
        """Empty; was written when a tick last asked the cluster (detached sweeps)."""
        return self.root / "ticks.polled"

    @property
    def code(self) -> Path:
        """The snapshot of the training code (`train.snapshot`)."""
        return self.root / "code"

    @property
    def provenance(self) -> Path:
        """One record for each launch that differs from the one before."""
        return self.root / "provenance"

    @property
    def compacted(self) -> Path:
        """Parts: the content of many small files in a few large ones."""
        return self.root / "compacted"

    def reports_part(self, part: str) -> Path:
        """Metrics of the part's runs."""
        return self.compacted / f"metrics-{part}.parquet"

    def batches_part(self, part: str) -> Path:
        """The part's batch folders."""
        return self.compacted / f"batches-{part}.zip"

    def index_part(self, part: str) -> Path:
        """Which raw files are in the part; exists until they are removed."""
        return self.compacted / f"taken-{part}.json"

    @property
    def tables(self) -> Path:
        """What the tables of a finished sweep were made of; see `compaction.Tables`."""
        return self.compacted / "tables.json"

    def batch(self, name: str) -> BatchLayout:
        return BatchLayout(self.batches / name)

    def trial(self, trial: int) -> TrialLayout:
        return TrialLayout(Path(f"{self.trials}/{trial // SHARD:04d}/{trial}"))


class BatchLayout:
    """Paths of one batch."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def manifest(self) -> Path:
        """What each task is to do; written before submission."""
        return self.root / "manifest.jsonl"

    @property
    def script(self) -> Path:
        return self.root / "script.sbatch"

    @property
    def abandoned_marker(self) -> Path:
        """Exists once the batch is abandoned: a task that starts all the same leaves."""
        return self.root / "void"

    def stop(self, trial: int, rung: int) -> Path:
        """Exists once this run is to stop; see `batch.request_stop`."""
        return self.root / f"stop-{trial}-{rung}"

    @cached_property
    def results(self) -> Path:
        return self.root / "results"

    def result(self, task: int, restart: int, n: int) -> Path:
        """Result of the task's `n`-th run in its `restart`-th start."""
        return self.results / f"{task}.{restart}.{n}.json"

    @cached_property
    def tasks(self) -> Path:
        """What tasks that keep their GPUs tell the driver; see `store.assignments`."""
        return self.root / "tasks"

    @cached_property
    def assignments(self) -> Path:
        """Runs that the driver hands to such tasks."""
        return self.root / "assignments"

    def assignment(self, task: int, restart: int, number: int) -> Path:
        """The `number`-th run that is handed to the `restart`-th start of the task."""
        return self.assignments / f"{task}.{restart}.{number}.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, task: int, n: int | None = None) -> Path:
        """Output of the task; of its `n`-th run if it has several."""
        return self.logs / (f"{task}.log" if n is None else f"{task}.{n}.log")

    def assigned_log(self, task: int, restart: int, number: int) -> Path:
        """Output of an assigned run."""
        return self.logs / f"{task}.{restart}.{number}.log"

    @property
    def claims(self) -> Path:
        """Which process runs which task, on the local cluster."""
        return self.root / "claims"


def rank_log(log: Path, rank: int) -> Path:
    """The log of a process of a run, beside that of the run, which is rank 0's."""
    return log.with_name(f"{log.stem}.rank-{rank}.log") if rank else log


class TrialLayout:
    """Paths of one trial."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def metrics(self, rung: int, attempt: int, restart: int) -> Path:
        """Reports of one attempt, one JSON object per line. One writer."""
        return self.root / f"metrics-{rung}.{attempt}.{restart}.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        """A program's own folder, which stays for all runs of the trial."""
        return self.root / "output"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step}"


T = TypeVar("T")


class _Versioned(msgspec.Struct):
    version: int = 1


_version_decoder = msgspec.json.Decoder(_Versioned)


def version_field(version: int = 1) -> Any:
    """A struct's `version`: always written, even where defaults are omitted."""
    return msgspec.field(default_factory=lambda: version)


def decode(data: bytes, decoder: msgspec.json.Decoder[T], path: Path | str) -> T:
    """Decode a file that has a version; `path` is for messages. NewerFormatError comes before damage."""
    check_version(_version_decoder.decode(data).version, path)
    return decoder.decode(data)


def check_version(version: int, path: Path | str, *, newest: int = 1) -> None:
    """Raise NewerFormatError for a version above `newest`."""
    if version > newest:
        raise NewerFormatError(
            f"{path}: written by a newer hpcsweep (format version {version}, this one reads up to {newest}): "
            "upgrade hpcsweep here"
        )


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
