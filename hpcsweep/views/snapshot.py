"""Data behind the live view, without rendering: a results folder that is polled again and again.

A poll reads what was added to the journal, lists the folders of live batches, and reads the ends of
the metrics files of a few running runs; nothing of what has ended. Files may vanish meanwhile.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, TaskId, TaskState
from hpcsweep.core.models import Best, Run
from hpcsweep.errors import ClusterUnavailable, FolderError, JournalError
from hpcsweep.store.journal.segments import LastSegment
from hpcsweep.store.journal.tail import JournalTail
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId
from hpcsweep.views.folder import missing_folder
from hpcsweep.views.health import Liveness
from hpcsweep.views.progress import SweepProgress
from hpcsweep.views.tasks import Activity, LiveTask, live_tasks, newest_report

#: What the queue shows of these batches, by one query; raises ClusterUnavailable.
Queue = Callable[[Sequence[BatchState]], Mapping[TaskId, TaskState]]


class RunningRun(NamedTuple):
    """A run under way, with the step of its newest report and each objective; None or empty where unknown."""

    run: Run
    step: int | None
    values: Mapping[str, float]
    node: str
    seconds: float | None  # since its task began, or was given it


class StatusSnapshot(NamedTuple):
    """A sweep at one moment.

    Attributes:
        pending: Number of tasks in the queue by reason, in the queue's words; empty where unknown.
        tasks: Those that keep their GPUs.
        ended: Number of runs that no driver knows to have ended, by the queue; empty where there is a result.
        leaders: The best configurations, `SweepState.best` first; with a front, the first of that.
    """

    at: float
    progress: SweepProgress
    driver: ProcessId | None
    running: tuple[Run, ...]  # those of high rungs first
    shown: tuple[RunningRun, ...]  # the first few of them
    pending: Mapping[str, int]
    tasks: Sequence[LiveTask]
    ended: Mapping[str, int]
    problem: str  # why the queue or the folder could not be read this time; empty if it could
    leaders: Sequence[Best] = ()
    liveness: Liveness | None = None  # where the queue had to be asked for that


#: So many of the best configurations are kept.
LEADERS: Final = 5


class StatusPoller:
    """Polls one results folder."""

    def __init__(self, path: Path, queue: Queue) -> None:
        self.layout = Layout(path.resolve())
        self._path = path
        self._queue = queue
        self._journal = JournalTail(self.layout)
        self._progress = SweepProgress()
        self._queued: Mapping[TaskId, TaskState] = {}
        self._leaders: list[Best] = []

    @property
    def tail(self) -> LastSegment | None:
        """The end of the journal, as far as it was read."""
        return self._journal.tail

    def poll(self, *, now: float, shown: int) -> StatusSnapshot:
        """The sweep now.

        Raises:
            FolderError: It is not a results folder, or cannot be read the first time.
            JournalError: Its journal is damaged.
        """
        problem = self._read_journal()
        live = list(self._progress.state.live.values())
        queued = [batch for batch in live if batch.job]
        try:
            self._queued = self._queue(queued) if queued else {}
        except ClusterUnavailable as error:  # no information is no change
            problem = problem or str(error)
        reused = live_tasks(self._progress.state, now=now, shown=self._queued)
        tasks = _LiveTasks(self._progress, self.layout, self._queued)
        tasks.add_reused(reused)
        for batch in live:
            if not batch.reuse:
                tasks.add(batch)
        running = sorted(tasks.running, key=lambda run: (-run.resource, run.trial))
        at_work = {run.id: task for task in reused for run in task.runs}
        return StatusSnapshot(
            at=now,
            progress=self._progress,
            driver=self._journal.driver,
            running=tuple(running),
            shown=tuple(self._newest_report(run, at_work.get(run.id), now) for run in running[:shown]),
            pending=tasks.pending,
            tasks=reused,
            ended=tasks.ended,
            problem=problem,
            leaders=self._leaders,
        )

    def _read_journal(self) -> str:
        """Read what is new in the journal; why that was not possible this time, else empty."""
        try:
            update = self._journal.poll()
        except JournalError:
            raise
        except FolderError as error:
            if self._journal.empty:
                raise
            return str(error)
        if self._journal.empty:
            raise missing_folder(self._path)
        if update.anew:
            self._progress = SweepProgress()
        for event in update.events:
            self._progress.apply(event)
        if update.anew or update.events:
            self._leaders = self._progress.state.leaders(LEADERS)
        return ""

    def _newest_report(self, run: Run, at_work: LiveTask | None, now: float) -> RunningRun:
        task = self._queued.get(TaskId(run.batch, run.task))
        metrics = self._progress.state.objectives.metrics
        step, values = newest_report(self.layout.trial(run.trial), run.rung, metrics) or (None, {})
        if at_work is not None:
            return RunningRun(run, step, values, at_work.node, max(0.0, now - at_work.since))
        return RunningRun(run, step, values, task.node if task else "", task.seconds if task else None)


class _LiveTasks:
    """The runs of live batches, sorted by what the queue shows of their tasks, or by their files."""

    def __init__(self, progress: SweepProgress, layout: Layout, queued: Mapping[TaskId, TaskState]) -> None:
        self._progress = progress
        self._layout = layout
        self._queued = queued
        self.running: list[Run] = []
        self.pending: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def add(self, batch: BatchState) -> None:
        """Sort the runs of a batch that have no ending yet; each task has its own."""
        files = self._layout.batch(batch.name)
        begun = {numbers[0] for numbers in _leading_numbers(files.logs) if numbers}
        # Task, restart and index in its task of each run that has a result.
        results = {numbers for numbers in _leading_numbers(files.results) if len(numbers) == 3}
        waiting: dict[int, str] = {}
        for run_id in batch.unfinished:
            run = self._progress.state.run(run_id)
            runs = batch.tasks[run.task]
            has_result = (run.task, _restart(run), runs.index(run_id)) in results
            match self._queued.get(TaskId(batch.name, run.task)):
                case None if has_result:
                    self.ended[""] += 1
                case None if run.task not in begun:
                    waiting[run.task] = "" if batch.job else "being submitted"
                # The result may be of an earlier start, whose end the driver has not noticed yet; with
                # several runs in a task it is more likely of this one.
                case TaskState(phase=Phase.RUNNING) if has_result and len(runs) > 1:
                    self.ended[""] += 1
                case None | TaskState(phase=Phase.RUNNING):
                    self.running.append(run)
                case state if state.phase.active:
                    waiting[run.task] = state.reason
                case state:
                    self.ended["" if has_result else state.phase.value] += 1
        self.pending.update(waiting.values())

    def add_reused(self, tasks: Iterable[LiveTask]) -> None:
        """Of tasks that keep their GPUs: the runs that they are at, and those that have not begun."""
        for task in tasks:
            self.running += task.runs
            if task.activity is Activity.PENDING:
                self.pending[task.reason] += 1


def _restart(run: Run) -> int:
    """How often the cluster has requeued the task of the run's newest attempt, as far as is known."""
    attempt, restart = run.last_counted
    return restart + 1 if attempt == run.submissions - 1 else 0


def _leading_numbers(folder: Path) -> list[tuple[int, ...]]:
    """The numbers with which the names of the folder's files begin."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    parts = (name.split(".")[:-1] for name in names)
    return [tuple(int(part) for part in each if part.isdecimal()) for each in parts]
