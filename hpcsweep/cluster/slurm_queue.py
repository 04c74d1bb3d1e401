"""What Slurm shows of our arrays: one squeue for everything, one sacct for what vanished from it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Final

from hpcsweep.cluster import slurm_programs as programs
from hpcsweep.cluster.states import cancelled_by, hindrance_of, phase_of
from hpcsweep.core.protocols import LiveBatch, Phase, TaskId, TaskState
from hpcsweep.errors import ClusterUnavailable

_log = logging.getLogger(__name__)

#: The database is asked for so long back at most: job ids are used again after years.
SACCT_SINCE: Final = "now-90days"
SACCT_S: Final = 30.0
#: Not more often than that, whatever is missing.
SACCT_EVERY_S: Final = 30.0
#: After a failure: there may be no database at all, or it may be down for a while.
MUTE_S: Final = 600.0
#: A count of the user's jobs that is older says nothing of now.
COUNTED_S: Final = 30.0


class SlurmQueue:
    """Asks squeue and sacct. What it remembers only spares questions: a new one answers the same."""

    def __init__(self) -> None:
        self._next_sacct = 0.0
        self._mute_until = 0.0
        self._counted = (0, -COUNTED_S)
        self._ended: dict[TaskId, TaskState] = {}
        self._unknown_words: set[str] = set()

    @property
    def queued(self) -> int | None:
        """The user's tasks and jobs that waited or ran just now; None where nobody has looked of late."""
        count, at = self._counted
        return count if time.monotonic() - at < COUNTED_S else None

    def find(self, name: str) -> str | None:
        """Job id of the array with this name, from squeue, else from the database if there is one.

        Where two bear the name, the one that is still active.

        Raises:
            ClusterUnavailable: squeue failed, so nothing is known.
        """
        rows = [row for row in self._squeue(f"--name={name}") if row.name == name and row.task >= 0]
        accepted = [row for row in rows if not row.never_accepted]
        accepted.sort(key=lambda row: phase_of(row.state).active, reverse=True)
        for row in accepted or self._sacct(f"--name={name}"):
            if row.name == name:
                return row.array
        return None

    def poll(self, live: Sequence[LiveBatch]) -> Mapping[TaskId, TaskState] | None:
        """Every task of these batches that Slurm shows; None: squeue failed, nothing is known.

        A task that is open and not shown any more is looked up in the database, if there is one,
        for how it ended. Only squeue can say that a task is active: a database may go on calling
        a task running whose end it missed.
        """
        try:
            rows = self._squeue()
        except ClusterUnavailable as error:
            _log.warning("nothing known: %s", error)
            return None
        self._counted = (sum(phase_of(row.state).active for row in rows), time.monotonic())
        batches = {batch.name: batch for batch in live}
        best: dict[TaskId, tuple[tuple[bool, bool, int], TaskState]] = {}
        for row in rows:
            # By name, which is unique for ever; a job id alone may be somebody else's after a
            # controller that lost its state has counted from 1 again.
            batch = batches.get(row.name)
            if batch is None or row.task < 0:
                continue
            task, state = TaskId(row.name, row.task), self._state(row)
            # After a requeue a task may show twice.
            rank = (state.phase.active, row.array == batch.job, row.job)
            if task not in best or rank > best[task][0]:
                best[task] = (rank, state)
        shown = {task: state for task, (_, state) in best.items()}
        return shown | self._endings(live, shown=shown)

    def _endings(
        self, live: Sequence[LiveBatch], *, shown: Mapping[TaskId, TaskState]
    ) -> dict[TaskId, TaskState]:
        """How open tasks ended that squeue shows no more; at most one sacct, never an active state.

        Also of those that were cancelled: squeue does not say by whom.
        """
        jobs = {batch.name: batch.job for batch in live}
        open_tasks = (TaskId(batch.name, task) for batch in live for task in batch.open_tasks)
        gone = {task for task in open_tasks if task not in shown or shown[task].phase is Phase.CANCELLED}
        self._ended = {task: state for task, state in self._ended.items() if task in gone}
        asked = sorted({jobs[task.batch] for task in gone - self._ended.keys()})
        if asked and time.monotonic() >= self._next_sacct:
            self._next_sacct = time.monotonic() + SACCT_EVERY_S
            for row in self._sacct(f"--jobs={','.join(asked)}"):
                task, state = TaskId(row.name, row.task), self._state(row)
                # It may lag, and tell of an earlier start.
                lags = task in shown and state.phase is not Phase.CANCELLED
                if task in gone and not state.phase.active and not lags:
                    self._ended[task] = state
        return dict(self._ended)

    def _state(self, row: programs.Row) -> TaskState:
        phase = phase_of(row.state)
        if phase is not Phase.UNKNOWN:
            return TaskState(
                phase=phase,
                reason=row.reason,
                node=row.node,
                seconds=row.seconds,
                hindrance=hindrance_of(row.reason) if phase is Phase.PENDING else None,
                foreign=cancelled_by(row.state) not in (None, os.getuid()),
            )
        if row.state not in self._unknown_words:
            self._unknown_words.add(row.state)
            _log.warning("%s task %d: Slurm's state %r is new to us", row.name, row.task, row.state)
        return TaskState(phase=phase, reason=f"{row.state} {row.reason}".strip(), node=row.node)

    def _squeue(self, *more: str) -> list[programs.Row]:
        # --me filters on the server; --name alone would fetch everybody's jobs.
        argv = ["squeue", "--me", "--states=all", "-r", "-h", "-o", programs.SQUEUE_FORMAT, *more]
        return list(programs.squeue_rows(programs.ask(argv, timeout_s=programs.QUERY_S)))

    def _sacct(self, which: str) -> list[programs.Row]:
        """What the database knows; once it has failed it is left in peace for a while."""
        if time.monotonic() < self._mute_until:
            return []
        argv = ["sacct", "-X", "-n", "-P", f"--delimiter={programs.SEPARATOR}", f"--starttime={SACCT_SINCE}"]
        argv += [f"--format={programs.SACCT_FORMAT}", which]
        try:
            return list(programs.sacct_rows(programs.ask(argv, timeout_s=SACCT_S)))
        except ClusterUnavailable as error:
            self._mute_until = time.monotonic() + MUTE_S
            _log.info("going on without Slurm's accounting: %s", error)
            return []
