"""Compaction: what has ended goes from many small files into parts, a bit at a time, beside the ticks.

See `store.parts` for what a part is and why no kill loses anything. The driver decides what goes into
one and commits it; another process does the work.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Final

from hpcsweep.core.compaction import CompactionState
from hpcsweep.core.events import (
    AnyEvent,
    CheckpointsDropped,
    CheckpointsRemoved,
    FilesCompacted,
    RunFinished,
    RunId,
)
from hpcsweep.core.retention import Retention
from hpcsweep.core.state import SweepState
from hpcsweep.driver.compactor import Compactor
from hpcsweep.store.compaction.parts import (
    CleanUpPart,
    CompactableRun,
    CompactionResult,
    CompactionTask,
    RemoveCheckpoints,
    WritePart,
    WriteTables,
    pending_cleanup,
)
from hpcsweep.store.compaction.tables import read_tables
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout

#: So many parts of reports are left alone; more are merged into one.
MERGE_ABOVE: Final = 16
#: Whoever stays only for a moment leaves checkpoints of fewer trials than that to others.
REMOVE_AT: Final = 8
#: Trials whose checkpoints are removed at a time.
REMOVE_MOST: Final = 100
#: How often the driver gives a sign of life while it waits.
_BEAT_S: Final = 1.0
_log = logging.getLogger(__name__)


class CompactionManager:
    """Has one order at a time carried out.

    Args:
        state: Of the sweep; kept up to date by the driver.
        packing: Kept up to date by the driver.
        retention: Kept up to date by the driver; None: all checkpoints stay.
        layout: The results folder.
        journal: Open.
        commit: Makes events true.
        compactor: Does the work.
        at: As soon as about so many raw files are ready, a part is made of them; at the end of the
            sweep of whatever is.
    """

    def __init__(
        self,
        state: SweepState,
        packing: CompactionState,
        retention: Retention | None,
        *,
        layout: Layout,
        journal: Journal,
        commit: Callable[[Sequence[AnyEvent]], None],
        compactor: Compactor,
        at: int,
    ) -> None:
        self._state = state
        self._packing = packing
        self._retention = retention
        self._layout = layout
        self._journal = journal
        self._commit = commit
        self._compactor = compactor
        self._at = at
        self._numbers = itertools.count(1)
        self._order: CompactionTask | None = None
        #: Parts whose raw files are still to be removed; None before this session has looked.
        self._uncleared: list[str] | None = None
        #: Ready runs that were left out of the last part.
        self._late: set[RunId] = set()
        #: Trials whose checkpoints could not be removed in this session.
        self._stuck: set[int] = set()
        self._tabled = False
        self._failed = False

    def step(self, *, wait_s: float = 0.0, remove_at: int = 1) -> bool:
        """Take in what was done, and order what is due; whether anything is under way.

        Args:
            wait_s: How long to wait for what is under way.
            remove_at: Checkpoints are removed once so many trials need theirs no more, and at the end.

        Raises:
            SupersededError: A newer driver took over.
        """
        if self._order is not None:
            answer = self._compactor.answer(wait_s)
            if answer is None:
                return True
            self._answered(self._order, answer)
        self._order = None if self._failed else self._due(remove_at)
        if self._order is not None:
            self._compactor.begin(self._order)
        return self._order is not None

    def finish(self) -> None:
        """Step until nothing is due any more.

        Raises:
            SupersededError: A newer driver took over.
        """
        while self.step(wait_s=_BEAT_S, remove_at=REMOVE_AT):
            self._journal.heartbeat()
        self._compactor.close()

    def _answered(self, order: CompactionTask, answer: CompactionResult) -> None:
        if answer.error:  # nothing depends on it: the files stay as they are
            self._failed = True
            self._compactor.close()
            _log.warning("%s: finished parts are not compacted: %s", self._layout.root, answer.error)
        elif isinstance(order, WritePart):
            self._late = {candidate.run for candidate in order.runs}.difference(answer.runs)
            if answer.runs or order.batches or order.replaces:
                self._commit([FilesCompacted(order.part, answer.runs, order.batches, order.replaces)])
                # A driver that came between the last look at the journal and the commit has not read
                # it: for that one the raw files are all there is.
                self._journal.check()
                self._left_to_clear().append(order.part)
        elif isinstance(order, RemoveCheckpoints):
            left = set(order.trials).difference(answer.trials)
            if left:
                self._stuck |= left
                _log.warning(
                    "%s: checkpoints of %d trials cannot be removed: %s",
                    self._layout.trials,
                    len(left),
                    ", ".join(map(str, sorted(left)[:10])),
                )
            if answer.trials:
                self._commit(
                    [CheckpointsRemoved(answer.trials, answer.had, files=answer.files, bytes=answer.bytes)]
                )

    def _left_to_clear(self) -> list[str]:
        if self._uncleared is None:
            told = self._packing.told
            self._uncleared = [part for part in pending_cleanup(self._layout) if part in told]
            if self._uncleared:
                self._journal.acquire()  # only who holds the journal knows what is told for good
        return self._uncleared

    def _due(self, remove_at: int) -> CompactionTask | None:
        left = self._left_to_clear()
        if left:
            return CleanUpPart(left.pop(0))
        ended = self._state.ended is not None
        ready = self._packing.files - len(self._late)
        if not ended and ready >= self._at:  # seldom: removals, which may be due at every step, can wait
            return self._part(merge=len(self._packing.parts) >= MERGE_ABOVE)
        removal = self._removal(1 if ended else remove_at)
        if removal is not None:
            return removal
        if ended and (ready >= 1 or len(self._packing.parts) > 1):
            return self._part(merge=True)
        if ended and not self._tabled:
            self._tabled = True
            return None if read_tables(self._layout) else WriteTables()
        return None

    def _removal(self, least: int) -> RemoveCheckpoints | None:
        """First what an earlier session dropped and may not have removed, then what is dropped now.

        The journal tells of it before anything is removed: whoever goes on with the sweep knows that
        these checkpoints may be gone, or half gone.
        """
        due = [trial for trial in self._state.dropping if trial not in self._stuck]
        if not due and self._retention is not None and len(self._retention.removable) >= least:
            due = list(itertools.islice(self._retention.removable, REMOVE_MOST))
            self._commit([CheckpointsDropped(tuple(due))])
            self._journal.check()  # a newer driver may need them, and has not read this
        elif due:
            self._journal.acquire()
        return RemoveCheckpoints(tuple(due[:REMOVE_MOST])) if due else None

    def _part(self, *, merge: bool) -> WritePart:
        """All that is ready."""
        self._journal.acquire()
        packing = self._packing
        return WritePart(
            f"{self._journal.number:06d}-{next(self._numbers)}",
            tuple(_candidate(packing.ready[run]) for run in sorted(packing.ready)),
            tuple(packing.batches),
            tuple(packing.parts) if merge else (),
            tuple(packing.told),
        )


def _candidate(ending: RunFinished) -> CompactableRun:
    valued_at = None
    if ending.value is not None and ending.started is not None:
        valued_at = ending.started + ending.seconds
    return CompactableRun(ending.trial, ending.rung, ending.attempt, ending.restart, valued_at)
