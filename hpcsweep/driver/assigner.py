"""Hands runs to tasks that keep their GPUs, submits such tasks, and has those leave that are too many."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from hpcsweep.core.cluster_protocol import Phase, TaskId
from hpcsweep.core.events import RunId, RunsAssigned
from hpcsweep.core.models import BatchState, StartedTask
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import Assign, Effect, EffectResult, Leave
from hpcsweep.driver.failures import excluded
from hpcsweep.driver.lifecycle import exhausted_budget
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.submitter import Submission
from hpcsweep.store.assignments import Assignment, StartId
from hpcsweep.store.batch import ManifestRun

#: Runs that take less are handed over one ahead.
SHORT_S: Final = 30.0
#: How many of the newest ends of each batch tell that.
RECENT: Final = 16


class OpenTask(NamedTuple):
    """A task that takes runs.

    Attributes:
        assigned: How many have been given to it and have not ended.
        lanes: How many it does at a time.
        large_enough: Whether it has the resources of a run.
    """

    id: TaskId
    start: StartedTask
    assigned: int
    lanes: int
    large_enough: bool


class Assigner:
    """Decides which task does what next, by what the monitor has seen last. Pure.

    `manifest_run` gives what a worker is to know of a run.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        settings: DriverConfig,
        monitor: JobMonitor,
        manifest_run: Callable[[RunId], ManifestRun],
    ) -> None:
        self._state = state
        self._settings = settings
        self._monitor = monitor
        self._manifest_run = manifest_run
        #: Starts that this session told to leave.
        self._leaving: set[tuple[TaskId, int]] = set()

    def free_tasks(self, *, now: float, leaves: bool = False) -> list[OpenTask]:
        """Tasks that could be given a run, once for each; those that would begin it at once come first.

        Where the driver `leaves`, nobody hands anything over for a while: each task is given one run ahead,
        those included that have not begun.
        """
        nodes = set(excluded(self._state, now=now))
        tasks = [task for task in self._open_tasks() if self._is_usable(task, nodes, now)]
        tasks += self._tasks_to_come() if leaves else []
        ahead = int(leaves or self._runs_are_short)
        most = max((task.lanes for task in tasks), default=0) + ahead
        return [
            task for depth in range(most) for task in tasks if task.assigned <= depth < task.lanes + ahead
        ]

    @property
    def _runs_are_short(self) -> bool:
        """Whether runs end so soon that a task is to have the next one already."""
        endings = (end for batch in self._state.live.values() for end in batch.endings[-RECENT:])
        ended = [end.seconds for end in endings if end.seconds]
        return bool(ended) and statistics.median(ended) < SHORT_S

    def _is_usable(self, task: OpenTask, bad_nodes: set[str], now: float) -> bool:
        """Whether a run fits into it and would end before the task's time does, as far as limits tell."""
        ends, run_s = task.start.ends, self._settings.run.time_s
        in_time = ends is None or now + (run_s or 0.0) <= ends
        return task.large_enough and in_time and task.start.node not in bad_nodes

    def _open_tasks(self) -> Iterator[OpenTask]:
        for batch in self._state.live.values():
            if not batch.reuse or batch.job is None:
                continue
            large_enough = batch.fits(self._settings.run)
            for index, start in batch.starts.items():
                task = TaskId(batch.name, index)
                if (
                    start.left is None
                    and self._monitor.is_open(batch, index)
                    and not self._is_pending(batch, index)
                    and (task, start.restart) not in self._leaving
                ):
                    yield OpenTask(task, start, len(batch.tasks[index]), batch.lanes, large_enough)

    def _tasks_to_come(self) -> Iterator[OpenTask]:
        """Tasks that are submitted and have never begun."""
        for batch in self._state.live.values():
            if batch.reuse and batch.job is not None and batch.fits(self._settings.run):
                for index in range(len(batch.tasks)):
                    if index not in batch.starts and self._monitor.is_open(batch, index):
                        first = StartedTask(0, 0.0, 0.0, None, "")
                        yield OpenTask(
                            TaskId(batch.name, index), first, len(batch.tasks[index]), batch.lanes, True
                        )

    def note(self, effect: Effect, result: EffectResult) -> None:
        if isinstance(effect, Leave) and result.error is None:
            self._leaving.add((TaskId(effect.batch, effect.start.task), effect.start.restart))

    def assign(self, runs: Sequence[RunId], tasks: Sequence[OpenTask], *, now: float) -> list[RunsAssigned]:
        """One event for each of these tasks that is given runs, first come first served."""
        given: dict[TaskId, tuple[OpenTask, list[RunId]]] = {}
        for run, task in zip(runs, tasks, strict=False):
            given.setdefault(task.id, (task, []))[1].append(run)
        return [
            RunsAssigned(
                id_.batch,
                now,
                id_.task,
                tuple(mine),
                task.start.restart,
                self._state.live[id_.batch].given.get((id_.task, task.start.restart), 0),
            )
            for id_, (task, mine) in given.items()
        ]

    def hand_over(self, event: RunsAssigned) -> list[Assign]:
        """The files of an assignment that is in the journal."""
        start = StartId(event.task, event.restart)
        return [
            Assign(event.batch, start, number, self._assignment(run))
            for number, run in enumerate(event.runs, start=event.number)
        ]

    def all_assigned(self) -> list[Assign]:
        """The files of all assignments whose runs have not ended: the last session may have written none."""
        return [
            Assign(batch.name, StartId(given.task, given.restart), given.number, self._assignment(run))
            for batch in self._state.live.values()
            for run, given in batch.assigned.items()
            if not self._state.trials[run.trial].stopped  # its worker is told to end it
        ]

    def _assignment(self, run: RunId) -> Assignment:
        return Assignment(self._manifest_run(run), self._settings.run.time_s)

    def to_leave(self, *, wanted: bool, now: float) -> list[Leave]:
        """Idle tasks that nothing is left for (not `wanted`), that nothing fits into or whose node is bad."""
        nodes = set(excluded(self._state, now=now))
        return [
            Leave(task.id.batch, StartId(task.id.task, task.start.restart))
            for task in self._open_tasks()
            if task.assigned == 0 and not (wanted and self._is_usable(task, nodes, now))
        ]

    @property
    def unstarted(self) -> int:
        """Tasks that are submitted and do not take runs yet."""
        return sum(
            task not in batch.starts or self._is_pending(batch, task)
            for batch in self._state.live.values()
            if batch.reuse and batch.fits(self._settings.run)
            for task in range(len(batch.tasks))
            if self._monitor.is_open(batch, task)
        )

    def _is_pending(self, batch: BatchState, task: int) -> bool:
        """Whether the last poll showed a task waiting, and it has told of no start since."""
        state = self._monitor.states.get(TaskId(batch.name, task))
        told_since = task in batch.starts and batch.starts[task].began >= self._monitor.polled_at
        return state is not None and state.phase is Phase.PENDING and not told_since


class ReusingSubmission(Submission):
    """Gives runs to the tasks that are there, and submits as many tasks as could be busy."""

    def __init__(self, assigner: Assigner, *parts: Any) -> None:
        super().__init__(*parts)
        self.assigner = assigner
        self._first = True

    def run(self) -> None:
        self.hand_over()
        self._submit_tasks()
        if self.leaves:
            self.hand_over()

    def hand_over(self) -> None:
        """Give runs to tasks that are free, and tell those to leave that nothing is left for."""
        now, state = self.sweep.now, self.sweep.state
        if self._first:  # the session before may have been killed between commit and file
            self._first = False
            self.committer.execute_all(self.assigner.all_assigned())
        self.budget.task_gpus = self.throttle.task_gpus
        affordable = self._affordable_runs
        free = self.assigner.free_tasks(now=now, leaves=self.leaves)
        free = free if affordable is None else free[:affordable]
        events = self.planner.decide(max(0, len(free) - len(state.waiting)))
        events += self.submitter.stopped_while_waiting(events)
        assigned = self.assigner.assign(self.submitter.queue(events), free, now=now)
        self.before_decisions(events)
        self.committer.commit([*events, *assigned])
        for event in assigned:
            self.committer.execute_all(self.assigner.hand_over(event))
        self.after_decisions(events)
        wanted = affordable != 0 and not (self.planner.done and not state.waiting)
        self.committer.execute_all(self.assigner.to_leave(wanted=wanted, now=now))

    def dismiss(self) -> None:
        self.committer.execute_all(self.assigner.to_leave(wanted=False, now=self.sweep.now))

    def _submit_tasks(self) -> None:
        """Submit as many tasks more as could be busy.

        Raises:
            SubmitRefused: The cluster refused a batch, with this message.
        """
        coming, room = self.assigner.unstarted, self.throttle.free
        waiting = len(self.submitter.queue())
        lanes = self.sweep.settings.shape.lanes
        most = (coming + max(0, room)) * lanes
        runs = waiting + self.planner.count(max(0, most - waiting))
        tasks = min(room, -(-runs // lanes) - coming)
        if tasks <= 0 or not self.fits_max_gpus():
            return
        tasks = self.allowed(tasks, self._affordable_tasks)
        while tasks > 0:
            self.sweep.journal.acquire()
            planned = self.submitter.plan_tasks(
                tasks,
                segment=self.sweep.journal.number,
                limits=self.observer.limits,
                now=self.sweep.now,
            )
            self.committer.commit(planned)
            refused = self.submit(planned)
            if refused:
                self.backoff.refused(refused, open_tasks=self.throttle.open_tasks, now=self.sweep.now)
            tasks = refused // 2

    @property
    def _affordable_runs(self) -> int | None:
        """How many runs the budgets allow to be given to tasks now; None: any number."""
        runs = self.budget.runs_left(self.sweep.state, reserved_gpu_s=self._reserved)
        exhausted = exhausted_budget(self.sweep.state, self.sweep.settings, self.budget, now=self.sweep.now)
        return runs if exhausted is None else 0

    @property
    def _affordable_tasks(self) -> int | None:
        """How many tasks more the budgets allow, each with a run; None: any number."""
        exhausted = exhausted_budget(self.sweep.state, self.sweep.settings, self.budget, now=self.sweep.now)
        coming = self.assigner.unstarted
        tasks = self.budget.reused_tasks_left(self.sweep.state, reserved_gpu_s=self._reserved, coming=coming)
        return tasks if exhausted is None else 0

    def _reserved(self, batch: BatchState) -> float:
        return self.monitor.reserved_gpu_s(
            batch, now=self.sweep.now, run_s=self.budget.run_s, idle_s=self.budget.idle_s
        )
