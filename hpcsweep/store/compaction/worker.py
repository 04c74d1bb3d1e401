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
from hpcsweep.store.compaction.parts import (
    CleanUpPart,
    CompactableRun,
    CompactionResult,
    CompactionTask,
    PartIndex,
    RemoveCheckpoints,
    Tables,
    WritePart,
    WriteTables,
    clear,
    remove_orphans,
    segment_of,
    write_batches,
    write_index,
    write_tables,
)
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.files import Skipped, atomic_file, make_dirs
from hpcsweep.store.journal.segments import checksum_at, read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import best_of
from hpcsweep.views.metrics import ReportColumns, concat_tables, raw_files, read_part
from hpcsweep.views.tables import runs_table, trials_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

#: How long a file that is there may stay invisible on another node.
VISIBLE_S: Final = 120.0
_orders = msgspec.json.Decoder(CompactionTask)


def run_compaction_task(layout: Layout, order: CompactionTask, *, now: float) -> CompactionResult:
    """Run the task; `now` is Unix time."""
    match order:
        case WritePart():
            return CompactionResult(_write_part(layout, order, now=now))
        case CleanUpPart():
            clear(layout, order.part)
        case WriteTables():
            _write_tables(layout)
        case RemoveCheckpoints():
            return _remove_checkpoints(layout, order.trials)
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


def _write_part(layout: Layout, order: WritePart, *, now: float) -> tuple[RunId, ...]:
    """The runs in the part; nothing is written if it would be empty."""
    make_dirs(layout.compacted)
    remove_orphans(layout, told=order.told, upto=segment_of(order.part))
    reports = ReportColumns()
    trials: dict[int, dict[str, int]] = {}
    taken: list[RunId] = []
    for trial, group in groupby(order.runs, key=lambda candidate: candidate.trial):
        for candidate, files in _visible(layout, trial, group, now=now):
            reports.add(candidate.run, files.values())
            trials.setdefault(trial, {}).update((name, len(data)) for name, data in files.items())
            taken.append(candidate.run)
    if taken or order.replaces:
        older = [read_part(layout.reports_part(part)) for part in order.replaces]
        _write_parquet(layout.reports_part(order.part), concat_tables([*older, reports.table()]))
    batches = write_batches(layout, order.part, order.batches) if order.batches else {}
    if taken or order.replaces or batches:
        write_index(layout, order.part, PartIndex(trials, batches, order.replaces))
    return tuple(taken)


def _visible(
    layout: Layout, trial: int, candidates: Iterable[CompactableRun], *, now: float
) -> Iterator[tuple[CompactableRun, dict[str, bytes]]]:
    """The runs of a trial whose reports are all visible on this node, with their files by name."""
    wanted = list(candidates)
    paths = [layout.trial(trial).metrics(one.rung, one.attempt, one.restart) for one in wanted]
    for path in paths:
        os.path.exists(path)  # has NFS ask for this very name, and so look again at the folder
    unread = Skipped()
    found = raw_files(layout, trial, unread)
    for one, path in zip(wanted, paths, strict=True):
        files = {file.name: file.data for file in found.get(one.rung, ())}
        if unread:  # they stay where they are, for whoever makes them readable
            continue
        if path.name in files or one.valued_at is None or now - one.valued_at > VISIBLE_S:
            yield one, files


def _write_tables(layout: Layout) -> None:
    """Writes nothing if the sweep goes on meanwhile."""
    reading = read_journal(layout)
    state, packing = SweepState.replay(reading.events), CompactionState.replay(reading.events)
    if state.started is None or state.ended is None or reading.tail is None:
        return
    tables = Tables(
        reading.tail.end,
        checksum_at(reading),
        state.started.name,
        state.started.identity,
        best_of(state),
        tuple(packing.parts),
        tuple(sorted(packing.raw)),
        simulated=state.simulated,
    )
    make_dirs(layout.compacted)
    _write_parquet(tables.path(layout, "trials"), trials_table(state))
    _write_parquet(tables.path(layout, "runs"), runs_table(state))
    write_tables(layout, tables)


def _write_parquet(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with atomic_file(path) as file:
        pq.write_table(table, file)


def main(arguments: list[str], source: BinaryIO, target: BinaryIO) -> int:
    """Run tasks until the input ends."""
    layout = Layout(Path(arguments[0]))
    for line in source:
        try:
            answer = run_compaction_task(layout, _orders.decode(line), now=time.time())
        except Exception as error:
            answer = CompactionResult(error=f"{type(error).__name__}: {error}")
        target.write(msgspec.json.encode(answer) + b"\n")
        target.flush()
    return 0


if __name__ == "__main__":
    use_utf8()
    os.nice(10)
    sys.exit(main(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer))
