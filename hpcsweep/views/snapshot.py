"""A results folder that is looked at again and again: what a live view shows, and nothing of its looks.

A look reads what was added to the journal, lists the folders of live batches, and reads the ends of
the metrics files of a few running runs. It touches nothing of what has ended. All of that may vanish
while it looks: what is not there any more tells nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.core.models import BatchState, Run
from hpcsweep.core.protocols import Phase, TaskId, TaskState
from hpcsweep.errors import ClusterUnavailable, FolderError, JournalError
from hpcsweep.store.files import open_regular
from hpcsweep.store.journal.segments import LastSegment
from hpcsweep.store.journal.tail import JournalTail
from hpcsweep.store.layout import BatchLayout, Layout, TrialLayout
from hpcsweep.store.metrics import Report, metrics_files, parse_reports
from hpcsweep.store.process_id import ProcessId
from hpcsweep.store.skipped import Skipped
from hpcsweep.views.liveness import Liveness
from hpcsweep.views.progress import Course

#: Bytes of a metrics file in which its newest report is looked for.
_END: Final = 1 << 14

#: What the queue shows of these batches, all in one question; raises ClusterUnavailable.
Queue = Callable[[Sequence[BatchState]], Mapping[TaskId, TaskState]]


class Running(NamedTuple):
    """A run that goes on.

    Attributes:
        step: Of its newest report, and the objective's value there; None while there is none.
        node: Empty where unknown; `seconds`: since its task began, None where unknown.
    """

    run: Run
    step: int | None
    value: float | None
    node: str
    seconds: float | None


class StatusSnapshot(NamedTuple):
    """What there is to see at one moment.

    Attributes:
        at: Unix time.
        driver: Who drives the sweep.
        running: The runs that go on, those of high rungs first; a few of them are in `shown`, with
            their newest reports.
        pending: Tasks that wait in the queue, by why, in the queue's words; empty where unknown.
        ended: Runs that have ended, and that no driver has taken in yet, by how, in a word; empty
            where a result tells.
        unknown: Why the queue, or the folder, could not be asked this time; empty if it could.
        liveness: Whether anybody drives the sweep, where the queue had to be asked for that.
    """

    at: float
    course: Course
    driver: ProcessId | None
    running: tuple[Run, ...]
    shown: tuple[Running, ...]
    pending: Mapping[str, int]
    ended: Mapping[str, int]
    unknown: str
    liveness: Liveness | None = None


class Watch:
    """Looks at one results folder.

    Args:
        path: The folder.
        queue: Asks the queue; called once a look at most, and only while there are batches in it.
    """

    def __init__(self, path: Path, queue: Queue) -> None:
        self.layout = Layout(path.resolve())
        self._path = path
        self._queue = queue
        self._follower = JournalTail(self.layout)
        self._course = Course()
        self._queued: Mapping[TaskId, TaskState] = {}

    @property
    def tail(self) -> LastSegment | None:
        """The end of the journal, as far as it was read."""
        return self._follower.tail

    def look(self, *, now: float, shown: int) -> StatusSnapshot:
        """What there is to see now.

        Args:
            now: Unix time.
            shown: So many of the running runs are shown with their newest reports.

        Raises:
            FolderError: It is not a results folder, or cannot be read the first time.
            JournalError: Its journal is damaged.
        """
        unknown = self._read_on()
        live = list(self._course.state.live.values())
        asked = [batch for batch in live if batch.job]
        try:
            self._queued = self._queue(asked) if asked else {}
        except ClusterUnavailable as error:  # no information is no change
            unknown = unknown or str(error)
        tasks = _Tasks(self._course, self.layout, self._queued)
        for batch in live:
            tasks.add(batch)
        running = sorted(tasks.running, key=lambda run: (-run.resource, run.trial))
        return StatusSnapshot(
            at=now,
            course=self._course,
            driver=self._follower.driver,
            running=tuple(running),
            shown=tuple(self._running(run) for run in running[:shown]),
            pending=tasks.pending,
            ended=tasks.ended,
            unknown=unknown,
        )

    def _read_on(self) -> str:
        """Take in what is new in the journal; why that was not possible this time, if it was not."""
        try:
            news = self._follower.poll()
        except JournalError:
            raise
        except FolderError as error:
            if self._follower.empty:
                raise
            return str(error)
        if self._follower.empty:
            what = "is not a results folder" if self._path.is_dir() else "does not exist"
            raise FolderError(
                f"{self._path}: {what}: expected a folder that `launch` made, with journal/ in it"
            )
        if news.anew:
            self._course = Course()
        for event in news.events:
            self._course.apply(event)
        return ""

    def _running(self, run: Run) -> Running:
        task = self._queued.get(TaskId(run.batch, run.task))
        started = self._course.state.started
        metric = started.identity.get("objective", {}).get("metric", "") if started else ""
        step, value = newest_report(self.layout.trial(run.trial), run.rung, metric) or (None, None)
        return Running(run, step, value, task.node if task else "", task.seconds if task else None)


class _Tasks:
    """The runs of live batches, told apart by what the queue shows of their tasks, or by their files."""

    def __init__(self, course: Course, layout: Layout, queued: Mapping[TaskId, TaskState]) -> None:
        self._course = course
        self._layout = layout
        self._queued = queued
        self.running: list[Run] = []
        self.pending: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def add(self, batch: BatchState) -> None:
        """Sort the runs of a batch that have no ending yet."""
        files = self._layout.batch(batch.name)
        begun, told = _begun(files), _told(files)
        waiting: dict[int, str] = {}
        for run_id in batch.unfinished:
            run = self._course.state.run(run_id)
            runs = batch.tasks[run.task]
            has_result = (run.task, _restart(run), runs.index(run_id)) in told
            match self._queued.get(TaskId(batch.name, run.task)):
                case None if has_result:
                    self.ended[""] += 1
                case None if run.task not in begun:
                    waiting[run.task] = "" if batch.job else "being submitted"
                # A result may be of an earlier start, of whose end the driver does not know yet; with
                # several runs in a task it is rather of this one.
                case TaskState(phase=Phase.RUNNING) if has_result and len(runs) > 1:
                    self.ended[""] += 1
                case None | TaskState(phase=Phase.RUNNING):
                    self.running.append(run)
                case state if state.phase.active:
                    waiting[run.task] = state.reason
                case state:
                    self.ended["" if has_result else state.phase.value] += 1
        self.pending.update(waiting.values())


def _restart(run: Run) -> int:
    """How often the cluster has put back the task of the run's newest attempt, as far as is known."""
    attempt, restart = run.last_counted
    return restart + 1 if attempt == run.attempts - 1 else 0


def _begun(batch: BatchLayout) -> set[int]:
    """The tasks that have a log."""
    return {numbers[0] for numbers in _numbers(batch.logs) if numbers}


def _told(batch: BatchLayout) -> set[tuple[int, ...]]:
    """Task, restart and place in its task of each run that has a result."""
    return {numbers for numbers in _numbers(batch.results) if len(numbers) == 3}


def _numbers(folder: Path) -> list[tuple[int, ...]]:
    """The numbers with which the names of the folder's files begin."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = []
    for name in names:
        *parts, _ = name.split(".")
        found.append(tuple(int(part) for part in parts if part.isdecimal()))
    return found


def newest_report(trial: TrialLayout, rung: int, metric: str) -> tuple[int, float | None] | None:
    """Step and value of the newest report that a trial's run at a rung made; None if it made none.

    Where the last ones lack the metric, the step is theirs and the value that of the one before.
    """
    newest: int | None = None
    for file in reversed([file for file in metrics_files(trial, Skipped()) if file.rung == rung]):
        for report in reversed(_last_reports(file.path)):
            newest = report.step if newest is None else newest
            if metric in report.metrics:
                return newest, report.metrics[metric]
    return None if newest is None else (newest, None)


def _last_reports(path: Path) -> list[Report]:
    """The last whole lines of a metrics file, in order; none where it is gone."""
    try:
        with open(open_regular(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            return list(parse_reports(file.read()))
    except OSError:
        return []
