"""Which raw files of a sweep may go into a part, and which parts there are; a fold over events.

A run is ready once it came to its end by itself and none of its attempts can go on anywhere. Runs that
failed or wait stay raw: their next attempt may read what the ones before have reported.
"""

from __future__ import annotations

from collections import Counter

from hpcsweep.core.events import (
    BatchAbandoned,
    BatchClosed,
    BatchPlanned,
    EventFold,
    FilesCompacted,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    RunsAssigned,
)
from hpcsweep.core.outcomes import FACTS


class CompactionState(EventFold):
    """What is raw, what is ready to be compacted, and what is compacted.

    Attributes:
        raw: Runs that were tried and whose reports are in no part: how each came to its end, None
            for one that did not, or not by itself.
        ready: Those of them that may go into a part.
        batches: Batches that have left the cluster, or never reached it, and whose folders are
            raw: about how many files each has.
        parts: Those that hold reports and were not replaced, oldest first.
        recorded: Every part that ever was.
        files: About how many raw files the runs and batches have that are ready.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw: dict[RunId, RunFinished | None] = {}
        self.ready: dict[RunId, RunFinished] = {}
        self.batches: dict[str, int] = {}
        self.parts: dict[str, None] = {}
        self.recorded: set[str] = set()
        self.files = 0
        self._live: dict[str, BatchPlanned] = {}
        #: In how many live batches a run is: in two where a given-up attempt told its end late.
        self._busy: dict[RunId, int] = {}
        #: Runs that a task works on which keeps its GPUs; their batches go on without them.
        self._assigned: set[RunId] = set()
        self._logs: Counter[str] = Counter()

    def _batch_planned(self, event: BatchPlanned) -> None:
        self._live[event.batch] = event
        for task in event.tasks:
            for run in task:
                self._busy[run] = self._busy.get(run, 0) + 1
                self.raw.setdefault(run)

    def _runs_assigned(self, event: RunsAssigned) -> None:
        self._logs[event.batch] += len(event.runs)
        for run in event.runs:
            self._assigned.add(run)
            self._busy[run] = self._busy.get(run, 0) + 1
            self.raw.setdefault(run)

    def _leave(self, run: RunId) -> None:
        left = self._busy.pop(run) - 1
        if left:
            self._busy[run] = left
        else:
            self._look(run)

    def _leave_task(self, run: RunId) -> None:
        if run in self._assigned:
            self._assigned.discard(run)
            self._leave(run)

    def _run_interrupted(self, event: RunInterrupted) -> None:
        if not event.requeued:
            self._leave_task(event.run)

    def _batch_closed(self, event: BatchAbandoned | BatchClosed) -> None:
        batch = self._live.pop(event.batch)
        runs = [run for task in batch.tasks for run in task]
        # The manifest and the script; of each task a log, of each run a result.
        self.batches[event.batch] = 2 + len(batch.tasks) + len(runs) + self._logs.pop(event.batch, 0)
        self.files += self.batches[event.batch]
        for run in runs:
            self._leave(run)

    def _batch_abandoned(self, event: BatchAbandoned) -> None:
        self._batch_closed(event)

    def _run_finished(self, event: RunFinished) -> None:
        run = event.run
        if run in self.raw and FACTS[event.outcome].ended_well:
            self.raw[run] = event
            if run not in self._busy:
                self._look(run)
        self._leave_task(run)

    def _run_retried(self, event: RunRetried) -> None:
        run = RunId(event.trial, event.rung)
        if run in self.raw:
            self.raw[run] = None

    def _look(self, run: RunId) -> None:
        """It may have become ready, for it is in no live batch."""
        ending = self.raw.get(run)
        if ending is not None and run not in self.ready:
            self.ready[run] = ending
            self.files += 1

    def _files_compacted(self, event: FilesCompacted) -> None:
        for run in event.runs:
            del self.raw[run]
            self.files -= self.ready.pop(run, None) is not None
        for batch in event.batches:
            self.files -= self.batches.pop(batch)
        for part in event.replaces:
            del self.parts[part]
        if event.holds_reports:
            self.parts[event.part] = None
        self.recorded.add(event.part)
