"""What Slurm shows of our arrays: one squeue for everything, one sacct for what vanished from it.

Sites rename jobs, and wrappers of squeue cut what they show. One key that does not fit is therefore no
proof that a job is not ours. Where the id fits, only a contradiction says that Slurm has given it again.
"""

from __future__ import annotations

import enum
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.cluster.processes import ProcessResult
from hpcsweep.cluster.slurm import programs
from hpcsweep.cluster.slurm.rows import (
    SACCT_FORMAT,
    SEPARATOR,
    SQUEUE_FORMAT,
    SQUEUE_SHORT_FORMAT,
    Row,
    block_kind_of,
    cancelled_by,
    gpus_of_tres,
    phase_of,
    sacct_rows,
    scontrol_rows,
    squeue_rows,
)
from hpcsweep.core.cluster_protocol import Phase, QueuedJob, SubmittedBatch, TaskId, TaskState
from hpcsweep.errors import ClusterUnavailable

_log = logging.getLogger(__name__)

#: The database is asked for so long back at most: job ids are used again after years.
SACCT_SINCE: Final = "now-90days"
SACCT_S: Final = 30.0
#: Not more often than that for tasks that are not shown any more.
SACCT_EVERY_S: Final = 30.0
#: After a failure: there may be no database at all, or it may be down for a while.
MUTE_S: Final = 600.0
#: The controller is asked for jobs that squeue does not show: how long that may take, not more often than
#: that for a job, and for so many at a time.
SHOW_S: Final = 10.0
SHOW_EVERY_S: Final = 30.0
SHOW_JOBS: Final = 20
#: A count of the user's jobs that is older says nothing of now.
COUNTED_S: Final = 30.0


class SlurmQueue:
    """Asks squeue and sacct. What it remembers only spares questions: a new one answers the same.

    Args:
        workdir: Where scripts start, where that is not each batch's own folder.
        node_gpus: GPUs of the node that a task holds whole; None where it does not, or that is not known.
    """

    def __init__(
        self,
        workdir: str | None = None,
        *,
        node_gpus: Callable[[SubmittedBatch, Row], int | None] = lambda batch, row: None,
    ) -> None:
        self._workdir = workdir
        self._node_gpus = node_gpus
        #: By batch: the job ids and names under which the last poll showed it.
        self.shown: dict[str, dict[str, str]] = {}
        #: Ids that the last poll showed for jobs that are none of our batches.
        self._foreign: set[str] = set()
        self._next_sacct = self._mute_until = 0.0
        self._counted = (0, -COUNTED_S)
        self._ended: dict[TaskId, TaskState] = {}
        #: Those that squeue shows as cancelled: sacct was asked by whom.
        self._cancelled: set[TaskId] = set()
        self._no_show_until = 0.0
        #: By job that squeue did not show: when the controller is asked again, and what it says.
        self._asked: dict[str, tuple[float, list[Row]]] = {}
        self._unknown_words: set[str] = set()
        self._jobs: dict[str, str] | None = None
        #: Why the last poll gave no information; empty if it did.
        self.poll_error = ""

    @property
    def queued_tasks(self) -> int | None:
        """The user's tasks and jobs that waited or ran just now; None where nobody has looked of late."""
        count, at = self._counted
        return count if time.monotonic() - at < COUNTED_S else None

    @property
    def known_jobs(self) -> Mapping[str, str] | None:
        """Ids and names of the user's jobs that waited or ran at the last poll; None: it told nothing."""
        return self._jobs

    def note(self, job: str, name: str) -> None:
        """This job was submitted since."""
        if self._jobs is not None:
            self._jobs[job] = name

    def find(self, batch: Identity) -> str | None:
        """Job id of the array of this batch, from squeue, else from the database if there is one.

        Where there are two, the one that is still active.
        """
        rows = [row for row in self._squeue() if row.array and row.task >= 0 and batch.owns(row)]
        accepted = [row for row in rows if not row.never_accepted]
        if accepted:
            return max(accepted, key=lambda row: phase_of(row.state).active).array
        # By name it is cheap to ask for all that there ever was; another name has only what is recent.
        recent = [f"--starttime={_slurm_time(batch.since)}"] if batch.since else []
        for words in ([f"--name={batch.name}"], recent):
            for row in self._sacct(*words) if words else []:
                if batch.owns(row):
                    return row.array
        return None

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        """Every task of these batches that Slurm shows; None: squeue failed, nothing is known.

        A task that is open and not shown any more is looked up in the database, if there is one,
        for how it ended, else the controller is asked for its job: a site's squeue may answer from a
        cache. A database cannot say that a task is active: it may have missed its end.
        """
        try:
            rows = self._squeue()
        except ClusterUnavailable as error:
            _log.warning("nothing known: %s", error)
            self._jobs, self.poll_error = None, str(error)
            return None
        self.poll_error = ""
        # A job that is no array is the array's job id of itself, which lines that were cut show first.
        self._jobs = {row.array or str(row.job): row.name for row in rows if phase_of(row.state).active}
        self._counted = (sum(phase_of(row.state).active for row in rows), time.monotonic())
        batches = {batch.name: batch for batch in live}
        known = [self.identity(batch) for batch in live]
        best: dict[TaskId, tuple[tuple[bool, bool, int], TaskState]] = {}
        without_index: dict[str, TaskState] = {}
        self.shown, self._foreign = {}, set()
        for row in rows:
            name = owner(row, known)
            if name is None or row.task >= batches[name].tasks:
                self._foreign.add(row.array)
                continue
            ours = row.array == batches[name].job
            if row.task < 0:
                if ours and phase_of(row.state).active:
                    without_index[name] = TaskState(
                        Phase.UNKNOWN, reason=f"{row.state} {row.reason}, index not shown by squeue"
                    )
                continue
            if row.array:
                self.shown.setdefault(name, {})[row.array] = row.name
            task, state = TaskId(name, row.task), self._state(row, batches[name])
            # After a requeue a task may show twice.
            rank = (state.phase.active, ours, row.job)
            if task not in best or rank > best[task][0]:
                best[task] = (rank, state)
        shown = {task: state for task, (_, state) in best.items()}
        # Of a job whose index is not shown, any task may be the one that lives.
        for name, state in without_index.items():
            for index in batches[name].open_tasks:
                shown.setdefault(TaskId(name, index), state)
        shown |= self._endings(live, shown=shown)
        return shown | self._unshown(live, shown=shown)

    def identity(self, batch: SubmittedBatch) -> Identity:
        """By what the batch is known."""
        return Identity(batch.name, batch.job, batch.folder, since=batch.planned_at, workdir=self._workdir)

    def jobs_of(self, batch: SubmittedBatch) -> list[str]:
        """Ids of its array: that which sbatch gave, and others under which squeue showed it last.

        One that Slurm has given to another job since then is none of them.
        """
        shown = self.shown.get(batch.name, {})
        own = [batch.job] if batch.job in shown or batch.job not in self._foreign else []
        return list(dict.fromkeys([*own, *shown]))

    def _endings(
        self, live: Sequence[SubmittedBatch], *, shown: Mapping[TaskId, TaskState]
    ) -> dict[TaskId, TaskState]:
        """How open tasks ended that squeue shows no more; at most one sacct, never an active state.

        Also of those that were cancelled: squeue does not say by whom, so that is asked at once.
        """
        batches = {batch.name: batch for batch in live}
        open_tasks = (TaskId(batch.name, task) for batch in live for task in batch.open_tasks)
        gone = {task for task in open_tasks if task not in shown or shown[task].phase is Phase.CANCELLED}
        self._ended = {task: state for task, state in self._ended.items() if task in gone}
        asked = sorted({batches[task.batch].job for task in gone - self._ended.keys()})
        before, self._cancelled = self._cancelled, gone & shown.keys()
        if asked and (time.monotonic() >= self._next_sacct or self._cancelled - before):
            self._next_sacct = time.monotonic() + SACCT_EVERY_S
            known = [self.identity(batch) for batch in live]
            for row in self._sacct(f"--jobs={','.join(asked)}"):
                if (name := owner(row, known)) is None:
                    continue
                task, state = TaskId(name, row.task), self._state(row, batches[name])
                # It may lag, and tell of an earlier start.
                lags = task in shown and state.phase is not Phase.CANCELLED
                if task in gone and not state.phase.active and not lags:
                    self._ended[task] = state
        return dict(self._ended)

    def _unshown(
        self, live: Sequence[SubmittedBatch], *, shown: Mapping[TaskId, TaskState]
    ) -> dict[TaskId, TaskState]:
        """Open tasks that squeue does not show and that the controller calls active all the same."""
        found: dict[TaskId, TaskState] = {}
        missing = {
            batch.job: batch
            for batch in live
            if batch.job and any(TaskId(batch.name, task) not in shown for task in batch.open_tasks)
        }
        now = time.monotonic()
        self._asked = {job: asked for job, asked in self._asked.items() if job in missing}
        due = [job for job in missing if job not in self._asked or now >= self._asked[job][0]]
        for job in due[:SHOW_JOBS]:
            self._asked[job] = now + SHOW_EVERY_S, self._show(job)
        for job, (_, rows) in self._asked.items():
            batch = missing[job]
            identity = self.identity(batch)
            for row in rows:
                task = TaskId(batch.name, row.task)
                if row.task in batch.open_tasks and task not in shown and identity.owns(row):
                    found[task] = self._state(row, batch)
        return found

    def _show(self, job: str) -> list[Row]:
        """The active tasks of this job, as the controller knows them; none where it does not answer."""
        if time.monotonic() < self._no_show_until:
            return []
        try:
            answer = programs.run(["scontrol", "-o", "show", "job", job], timeout_s=SHOW_S)
        except ClusterUnavailable as error:
            answer = ProcessResult(1, "", str(error))
        if answer.code != 0 and not programs.only_ended(answer):
            self._no_show_until = time.monotonic() + MUTE_S
            _log.info("going on by squeue alone: %s", answer.message)
        return [row for row in scontrol_rows(answer.out) if phase_of(row.state).active]

    def _state(self, row: Row, batch: SubmittedBatch) -> TaskState:
        phase = phase_of(row.state)
        # Of a job that is ending Slurm lists those of its nodes that are not free yet: none that failed.
        partial = batch.shape.nodes > 1 and row.state in ("COMPLETING", "CG")
        node = "" if partial else row.node
        if phase is not Phase.UNKNOWN:
            return TaskState(
                phase=phase,
                reason=row.reason,
                node=node,
                seconds=row.seconds,
                block=block_kind_of(row.reason) if phase is Phase.PENDING else None,
                foreign=cancelled_by(row.state) not in (None, os.getuid()),
                gpus=self._gpus(batch, row) if phase is not Phase.PENDING else None,
            )
        if row.state not in self._unknown_words:
            self._unknown_words.add(row.state)
            _log.warning("%s task %d: Slurm's state %r is new to us", batch.name, row.task, row.state)
        return TaskState(phase=phase, reason=f"{row.state} {row.reason}".strip(), node=row.node)

    def _gpus(self, batch: SubmittedBatch, row: Row) -> int | None:
        """GPUs that the task was given, None where Slurm does not say."""
        reported = [gpus_of_tres(row.tres), self._node_gpus(batch, row)]
        return max((count for count in reported if count is not None), default=None)

    def find_jobs(self, folder: Path, *, names: Sequence[str], known: Sequence[str]) -> list[str]:
        """Ids of the user's active jobs: these ids, these names, or a start below the folder."""
        active = [row for row in self._squeue() if row.array and phase_of(row.state).active]
        found = [
            row.array
            for row in active
            if row.array in known or Path(row.folder).is_relative_to(folder) or has_name(row, names)
        ]
        return list(dict.fromkeys(found))

    def jobs(self, user: str, *, timeout_s: float) -> list[QueuedJob]:
        """What waits or runs of this user; of an array its own id."""
        rows = self._squeue(f"--user={user}", timeout_s=timeout_s)
        return [
            QueuedJob(row.array or str(row.job), row.name, row.state, row.reason, row.begins, row.folder)
            for row in rows
        ]

    @staticmethod
    def _squeue(*which: str, timeout_s: float | None = None) -> list[Row]:
        # --me filters on the server. Without -h: the header shows that an answer without rows is one.
        argv = ["squeue", *(which or ("--me", "--states=all", "-r"))]
        timeout_s = programs.QUERY_S if timeout_s is None else timeout_s
        answer = programs.run([*argv, "-O", SQUEUE_FORMAT], timeout_s=timeout_s)
        if answer.code != 0 and re.search("format|option|usage", answer.err, re.IGNORECASE):
            short = [*argv, "-o", SQUEUE_SHORT_FORMAT]
            return squeue_rows(programs.check_output(short, timeout_s=timeout_s))
        if answer.code != 0:
            raise ClusterUnavailable(f"squeue: {answer.message}")
        return squeue_rows(answer.out)

    def _sacct(self, *which: str) -> list[Row]:
        """What the database knows; once it has failed it is left in peace for a while."""
        if time.monotonic() < self._mute_until:
            return []
        argv = ["sacct", "-X", "-n", "-P", f"--delimiter={SEPARATOR}", f"--starttime={SACCT_SINCE}"]
        argv += [f"--user={os.getuid()}", f"--format={SACCT_FORMAT}", *which]
        try:
            return list(sacct_rows(programs.check_output(argv, timeout_s=SACCT_S)))
        except ClusterUnavailable as error:
            self._mute_until = time.monotonic() + MUTE_S
            _log.info("going on without Slurm's accounting: %s", error)
            return []


def _slurm_time(at: float) -> str:
    """A time a little before, by the clock of this host: clocks differ."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at - CLOCKS_S))


#: A job that was submitted longer than this before its batch was planned is another one. Clocks differ.
CLOCKS_S: Final = 3600.0


class Identity(msgspec.Struct, frozen=True):
    """By what a batch is known.

    Attributes:
        name: As it was submitted.
        job: Id that sbatch gave, empty while unknown.
        folder: The batch's own, whose last part is its name; empty where unknown.
        since: It was submitted no earlier; Unix time, 0 where unknown.
        workdir: Where its script starts, where that is not its own folder.
    """

    name: str
    job: str
    folder: Path
    since: float = 0.0
    workdir: str | None = None

    def owns(self, row: Row) -> bool:
        """Whether the row is of this batch."""
        if row.name == self.name or _contains(row.comment, self.name):
            return True
        folder = self._folder_fits(row)
        if folder is _Match.YES:
            return True
        name = self._name_fits(row)
        if name is _Match.YES and folder is not _Match.NO:
            return True
        if not self.job or row.array != self.job:
            return False
        other_user = row.user is not None and row.user != os.getuid()
        older = row.submitted is not None and row.submitted < self.since - CLOCKS_S
        return name is not _Match.NO or not (folder is _Match.NO or other_user or older)

    def _name_fits(self, row: Row) -> _Match:
        if _contains(row.name, self.name):
            return _Match.YES
        ours, shown = _normalised(self.name), _normalised(row.name)
        return _Match.UNKNOWN if ours.startswith(shown) else _Match.NO  # cut, or not shown at all

    def _folder_fits(self, row: Row) -> _Match:
        if self.name in Path(row.folder).parts:
            return _Match.YES
        if not self.workdir and self.folder == Path():  # not known here
            return _Match.UNKNOWN
        # A shared folder proves nothing, nor one that was cut.
        return _Match.UNKNOWN if (self.workdir or str(self.folder)).startswith(row.folder) else _Match.NO


class _Match(enum.Enum):
    YES = enum.auto()
    NO = enum.auto()
    UNKNOWN = enum.auto()


def owner(row: Row, batches: Sequence[Identity]) -> str | None:
    """Name of the batch that the row is of, None if it is of none; the exact name goes first, then the id."""
    # Where nothing was changed this is all that a large queue costs.
    exact = next((batch for batch in batches if batch.name == row.name), None)
    if exact is not None:
        return exact.name
    owners = [batch for batch in batches if batch.owns(row)]
    return max(owners, key=lambda batch: row.array == batch.job).name if owners else None


def has_name(row: Row, names: Iterable[str]) -> bool:
    """Whether the row's name or comment holds one of these names, which are long enough to be unique."""
    return any(_contains(text, name) for name in names for text in (row.name, row.comment))


def _normalised(name: str) -> str:
    """The name as a site may have rewritten it: case and punctuation do not count."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _contains(text: str, name: str) -> bool:
    """Whether the text holds the name, whatever stands around it; `s-1` is not in `s-11`."""
    return bool(re.search(rf"{re.escape(_normalised(name))}(?!\d)", _normalised(text)))
