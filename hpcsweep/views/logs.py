"""Where the attempts of a trial were logged, and what: in the folders of their batches or in parts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcsweep.core.events import AnyEvent, BatchAbandoned, BatchPlanned, FilesCompacted
from hpcsweep.errors import SpecError
from hpcsweep.store.compaction import read_archived
from hpcsweep.store.files import read_bytes
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout


class AttemptLog(NamedTuple):
    """One attempt of a run; the cluster's own restarts of its task go on in the same file."""

    rung: int
    attempt: int
    batch: str
    task: int
    path: Path


def attempt_logs(events: Sequence[AnyEvent], layout: Layout, trial: int) -> list[AttemptLog]:
    """The logs of a trial's attempts, in the order in which they were submitted.

    Raises:
        SpecError: There is no such trial, or nothing of it was submitted yet.
    """
    abandoned = {event.batch for event in events if isinstance(event, BatchAbandoned)}
    found: list[AttemptLog] = []
    tried: dict[int, int] = {}
    for event in events:
        if not isinstance(event, BatchPlanned) or event.batch in abandoned:
            continue
        for task, runs in enumerate(event.tasks):
            for n, run in enumerate(runs):
                if run.trial == trial:
                    path = layout.batch(event.batch).log(task, n if len(runs) > 1 else None)
                    found.append(AttemptLog(run.rung, tried.get(run.rung, 0), event.batch, task, path))
                    tried[run.rung] = tried.get(run.rung, 0) + 1
    if not found:
        raise SpecError(
            f"TRIAL: expected one of which a run was submitted, got {trial}; see `hpcsweep status`"
        )
    return found


class LogReader:
    """Reads logs, wherever they are by now."""

    def __init__(self, layout: Layout, events: Sequence[AnyEvent]) -> None:
        self._layout = layout
        self._parts = _parts(events)

    def read(self, log: AttemptLog) -> tuple[Path, bytes | None]:
        """Where the log is and what it says; None if nothing was printed yet."""
        with contextlib.suppress(FileNotFoundError):
            return log.path, read_bytes(log.path)
        if log.batch not in self._parts:  # it may have been compacted just now
            self._parts = _parts(read_journal(self._layout).events)
        part = self._parts.get(log.batch)
        if part is None:
            return log.path, None
        name = log.path.relative_to(self._layout.batches)
        return self._layout.batches_part(part) / name, read_archived(self._layout, part, str(name))


def _parts(events: Sequence[AnyEvent]) -> dict[str, str]:
    """The part of each batch that is in one."""
    return {
        batch: event.part for event in events if isinstance(event, FilesCompacted) for batch in event.batches
    }
