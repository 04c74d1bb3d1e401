"""`python -m hpcsweep.store.compaction.worker FOLDER`: writes parts and tables for a driver.

Each line on standard input is a task (`parts.CompactionTask`), each on standard output its result. A
separate process keeps the driver small and responsive. It ends with its input: a killed driver leaves at
most the present task.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from hpcsweep.bootstrap import use_utf8
from hpcsweep.core.events import RunId
from hpcsweep.core.state import SweepState
from hpcsweep.store import checkpoints
from hpcsweep.store.compaction import (
    PARQUET_VERSION,
    CleanUpPart,
    CompactableRun,
    CompactionResult,
    CompactionTask,
    PartIndex,
    RemoveCheckpoints,
    Tables,
    WritePart,
    WriteTables,
    remove_orphans,
    remove_raw_files,
    segment_of,
    write_batches,
    write_index,
    write_tables,
)
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.files import atomic_file, make_dirs
from hpcsweep.store.journal.segments import checksum_at, read_journal
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.views.folder import best_of
from hpcsweep.views.tables import ReportColumns, concat_tables, raw_files, read_part, runs_table, trials_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

#: How long an existing file may stay invisible on another node.
VISIBLE_S: Final = 120.0
_task_decoder = msgspec.json.Decoder(CompactionTask)


def run_compaction_task(layout: Layout, task: CompactionTask, *, now: float) -> CompactionResult:
    """Run the task; `now` is Unix time."""
    match task:
        case WritePart():
            return CompactionResult(_write_part(layout, task, now=now))
        case CleanUpPart():
            remove_raw_files(layout, task.part)
        case WriteTables():
            _write_tables(layout)
        case RemoveCheckpoints():
            return _remove_checkpoints(layout, task.trials)
    return CompactionResult()


def _remove_checkpoints(layout: Layout, trials: Iterable[int]) -> CompactionResult:
    gone: list[int] = []
    had: list[int] = []
    files = size = 0
    for trial in trials:
        found, all_gone = checkpoints.remove_all(layout.trial(trial))
        files, size = files + found.files, size + found.bytes
        if all_gone:
            gone.append(trial)
            had += [trial] if found.files else []
    return CompactionResult(trials=tuple(gone), had=tuple(had), files=files, bytes=size)


def _write_part(layout: Layout, task: WritePart, *, now: float) -> tuple[RunId, ...]:
    """The runs in the part; nothing is written if it would be empty."""
    make_dirs(layout.compacted)
    remove_orphans(layout, recorded=task.recorded, upto=segment_of(task.part))
    reports = ReportColumns()
    trials: dict[int, dict[str, int]] = {}
    compacted: list[RunId] = []
    for trial, group in groupby(task.runs, key=lambda candidate: candidate.trial):
        for candidate, files in _visible(layout, trial, group, now=now):
            reports.add(candidate.run, files.values())
            trials.setdefault(trial, {}).update((name, len(data)) for name, data in files.items())
            compacted.append(candidate.run)
    if compacted or task.replaces:
        older = [read_part(layout.reports_part(part)) for part in task.replaces]
        _write_parquet(layout.reports_part(task.part), concat_tables([*older, reports.table()]))
    batches = write_batches(layout, task.part, task.batches) if task.batches else {}
    if compacted or task.replaces or batches:
        write_index(layout, task.part, PartIndex(trials, batches, task.replaces))
    return tuple(compacted)


def _visible(
    layout: Layout, trial: int, candidates: Iterable[CompactableRun], *, now: float
) -> Iterator[tuple[CompactableRun, dict[str, bytes]]]:
    """The runs of a trial whose reports are all visible on this node, with their files by name."""
    runs = list(candidates)
    paths = [layout.trial(trial).metrics(run.rung, run.attempt, run.restart) for run in runs]
    for path in paths:
        os.path.exists(path)  # has NFS ask for this very name, and so look again at the folder
    unread = Skipped()
    found = raw_files(layout, trial, unread)
    for run, path in zip(runs, paths, strict=True):
        files = {file.name: file.data for file in found.get(run.rung, ())}
        if unread:  # they stay where they are, for whoever makes them readable
            continue
        if path.name in files or run.valued_at is None or now - run.valued_at > VISIBLE_S:
            yield run, files


def _write_tables(layout: Layout) -> None:
    """Writes nothing if the sweep goes on meanwhile."""
    reading = read_journal(layout)
    state, compaction = SweepState.replay(reading.events), CompactionState.replay(reading.events)
    if state.started is None or state.ended is None or reading.tail is None:
        return
    if state.objectives.several:
        _allow_numpy()  # who is on which front is found with it
    tables = Tables(
        reading.tail.end,
        checksum_at(reading),
        state.started.name,
        state.started.identity,
        best_of(state),
        tuple(compaction.parts),
        tuple(sorted(compaction.raw)),
        simulated=state.simulated,
    )
    make_dirs(layout.compacted)
    _write_parquet(tables.path(layout, "trials"), trials_table(state))
    _write_parquet(tables.path(layout, "runs"), runs_table(state))
    write_tables(layout, tables)


def _write_parquet(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with atomic_file(path) as file:
        pq.write_table(table.replace_schema_metadata({PARQUET_VERSION: b"1"}), file)


def _forbid_numpy() -> None:
    """Where there is numpy, Arrow imports it and pandas: two thirds of what this process would take."""
    sys.modules["numpy"] = None  # type: ignore[assignment]


def _allow_numpy() -> None:
    if sys.modules.get("numpy", sys) is None:
        del sys.modules["numpy"]


def main(arguments: list[str], source: BinaryIO, target: BinaryIO) -> int:
    """Run tasks until the input ends."""
    layout = Layout(Path(arguments[0]))
    for line in source:
        try:
            result = run_compaction_task(layout, _task_decoder.decode(line), now=time.time())
        except Exception as error:
            result = CompactionResult(error=f"{type(error).__name__}: {error}")
        target.write(msgspec.json.encode(result) + b"\n")
        target.flush()
    return 0


if __name__ == "__main__":
    use_utf8()
    _forbid_numpy()
    os.nice(10)
    sys.exit(main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer))
