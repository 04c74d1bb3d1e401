"""Compaction: what has ended goes from many small files into parts, a bit at a time, beside the ticks.

See `store.parts` for what a part is and why no kill loses anything. The driver decides what goes into
one and commits it; another process does the work.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Final

from hpcsweep.core.events import AnyEvent, Compacted, RunFinished, RunId
from hpcsweep.core.packing import Packing
from hpcsweep.core.state import SweepState
from hpcsweep.driver.compactor import Compactor
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.parts import Answer, Candidate, ClearPart, Order, WritePart, WriteTables, uncleared
from hpcsweep.store.tables import read_tables

#: So many parts of reports are left alone; more are merged into one.
MERGE_ABOVE: Final = 16
#: How often the driver gives a sign of life while it waits.
_BEAT_S: Final = 1.0
_log = logging.getLogger(__name__)


class Compacting:
    """Has one order at a time carried out.

    Args:
        state: Of the sweep; kept up to date by the driver.
        packing: Kept up to date by the driver.
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
        packing: Packing,
        *,
        layout: Layout,
        journal: Journal,
        commit: Callable[[Sequence[AnyEvent]], None],
        compactor: Compactor,
        at: int,
    ) -> None:
        self._state = state
        self._packing = packing
        self._layout = layout
        self._journal = journal
        self._commit = commit
        self._compactor = compactor
        self._at = at
        self._numbers = itertools.count(1)
        self._order: Order | None = None
        #: Parts whose raw files are still to be removed; None before this session has looked.
        self._uncleared: list[str] | None = None
        #: Ready runs that were left out of the last part.
        self._late: set[RunId] = set()
        self._tabled = False
        self._failed = False

    def step(self, *, wait_s: float = 0.0) -> bool:
        """Take in what was done, and order what is due; whether anything is under way.

        Raises:
            SupersededError: A newer driver took over.
        """
        if self._order is not None:
            answer = self._compactor.answer(wait_s)
            if answer is None:
                return True
            self._answered(self._order, answer)
        self._order = None if self._failed else self._due()
        if self._order is not None:
            self._compactor.begin(self._order)
        return self._order is not None

    def finish(self) -> None:
        """Step until nothing is due any more.

        Raises:
            SupersededError: A newer driver took over.
        """
        while self.step(wait_s=_BEAT_S):
            self._journal.beat()
        self._compactor.close()

    def _answered(self, order: Order, answer: Answer) -> None:
        if answer.error:  # nothing depends on it: the files stay as they are
            self._failed = True
            self._compactor.close()
            _log.warning("%s: finished parts are not compacted: %s", self._layout.root, answer.error)
        elif isinstance(order, WritePart):
            self._late = {candidate.run for candidate in order.runs}.difference(answer.runs)
            if answer.runs or order.batches or order.replaces:
                self._commit([Compacted(order.part, answer.runs, order.batches, order.replaces)])
                # A driver that came between the last look at the journal and the commit has not read
                # it: for that one the raw files are all there is.
                self._journal.check()
                self._left_to_clear().append(order.part)

    def _left_to_clear(self) -> list[str]:
        if self._uncleared is None:
            told = self._packing.told
            self._uncleared = [part for part in uncleared(self._layout) if part in told]
            if self._uncleared:
                self._journal.acquire()  # only who holds the journal knows what is told for good
        return self._uncleared

    def _due(self) -> Order | None:
        left = self._left_to_clear()
        if left:
            return ClearPart(left.pop(0))
        ended = self._state.ended is not None
        ready = self._packing.files - len(self._late)
        if ready >= (1 if ended else self._at) or (ended and len(self._packing.parts) > 1):
            return self._part(merge=ended or len(self._packing.parts) >= MERGE_ABOVE)
        if ended and not self._tabled:
            self._tabled = True
            return None if read_tables(self._layout) else WriteTables()
        return None

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


def _candidate(ending: RunFinished) -> Candidate:
    valued_at = None
    if ending.value is not None and ending.started is not None:
        valued_at = ending.started + ending.seconds
    return Candidate(ending.trial, ending.rung, ending.attempt, ending.restart, valued_at)
