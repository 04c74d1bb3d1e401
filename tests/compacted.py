"""Compaction by hand, and what is in batch folders wherever it is by now."""

from __future__ import annotations

import zipfile
from pathlib import Path

from hpcsweep.core.events import FilesCompacted
from hpcsweep.store.compaction import CleanUpPart, CompactableRun, WritePart, WriteTables
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.compaction.worker import run_compaction_task
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout


def batch_files(root: Path) -> dict[str, bytes]:
    """Every file of every batch of a results folder, as `<batch>/<path>`."""
    layout = Layout(root)
    found: dict[str, bytes] = {}
    for event in read_journal(layout).events:
        if isinstance(event, FilesCompacted) and event.batches:
            with zipfile.ZipFile(layout.batches_part(event.part)) as archive:
                found |= {name: archive.read(name) for name in archive.namelist()}
    raw = (path for path in layout.batches.rglob("*") if path.is_file())
    return found | {str(path.relative_to(layout.batches)): path.read_bytes() for path in raw}


def compact(root: Path, *, most: int | None = None, tables: bool = False) -> None:
    """Compact as a driver does.

    Args:
        root: The results folder.
        most: At most so many of the runs that are ready, and none of the batches; None: all there is.
        tables: Write the tables as well.
    """
    layout = Layout(root)
    journal = Journal.open(layout)
    journal.acquire()
    packing = CompactionState.replay(journal.events)
    runs = tuple(CompactableRun(*run, 0, 0) for run in sorted(packing.ready)[:most])
    batches, older = ((), ()) if most is not None else (tuple(packing.batches), tuple(packing.parts))
    order = WritePart(f"{journal.number:06d}-1", runs, batches, older, tuple(packing.recorded))
    answer = run_compaction_task(layout, order, now=0.0)
    assert not answer.error
    journal.commit([FilesCompacted(order.part, answer.runs, order.batches, order.replaces)])
    run_compaction_task(layout, CleanUpPart(order.part), now=0.0)
    if tables:
        run_compaction_task(layout, WriteTables(), now=0.0)
    journal.release()
