"""Who of the tasks that keep their GPUs is given which run, and who leaves. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from hpcsweep.core.batches import BatchState, StartedTask
from hpcsweep.core.cluster_protocol import Phase, TaskId
from hpcsweep.core.events import RunId, RunsAssigned
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import Assign, Effect, EffectResult, Leave
from hpcsweep.driver.failures import excluded
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.shapes import RunShapes
from hpcsweep.store.assignments import Assignment, StartId
from hpcsweep.store.batch import ManifestRun

#: Runs that take less are handed over one ahead.
SHORT_S: Final = 30.0
#: How many of the newest ends of each batch tell that.
RECENT: Final = 16
#: A run may take so many times as long as the longest of the newest.
MARGIN: Final = 1.5


class OpenTask(NamedTuple):
    """A task that takes runs.

    Attributes:
        assigned: How many have been given to it and have not ended. `given`: to this start in all.
        lanes: How many it does at a time.
        large_enough: Whether it has the resources of a run.
    """

    id: TaskId
    start: StartedTask
    assigned: int
    given: int
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
        shapes: RunShapes | None = None,
    ) -> None:
        self._state = state
        self._settings = settings
        self._monitor = monitor
        self._manifest_run = manifest_run
        self._shapes = shapes
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
        recent_s = self._recent_s
        ahead = int(leaves or (bool(recent_s) and statistics.median(recent_s) < SHORT_S))
        most = max((task.lanes for task in tasks), default=0) + ahead
        return [
            task for depth in range(most) for task in tasks if task.assigned <= depth < task.lanes + ahead
        ]

    def _is_usable(self, task: OpenTask, bad_nodes: set[str], now: float) -> bool:
        """Whether a run fits into it and would end before the task's time does, as far as that is known.

        Its first run is given to it in any case: no task offers more time, and checkpoints carry it on.
        """
        in_time = task.given == 0 or task.start.ends is None or now + self.expected_run_s <= task.start.ends
        return task.large_enough and in_time and task.start.node not in bad_nodes

    def _open_tasks(self) -> Iterator[OpenTask]:
        for batch in self._state.live.values():
            if not batch.reuse or batch.job is None:
                continue
            large_enough = batch.fits(self._settings.run)
            for index, start in batch.starts.items():
                if (
                    start.left is None
                    and self._monitor.is_open(batch, index)
                    and not self._is_pending(batch, index)
                    and not self._is_leaving(batch, index)
                ):
                    task = TaskId(batch.name, index)
                    given = batch.given.get((index, start.restart), 0)
                    yield OpenTask(task, start, len(batch.tasks[index]), given, batch.lanes, large_enough)

    def _tasks_to_come(self) -> Iterator[OpenTask]:
        """Tasks that the throttle lets through and that have never begun."""
        for batch in self._suitable():
            first = StartedTask(0, 0.0, 0.0, None, "")
            for index in self._coming(batch):
                if index not in batch.starts and batch.job is not None:
                    id_ = TaskId(batch.name, index)
                    yield OpenTask(id_, first, len(batch.tasks[index]), 0, batch.lanes, True)

    def _suitable(self) -> Iterator[BatchState]:
        """Live batches whose tasks are given runs as they are now."""
        return (
            batch for batch in self._state.live.values() if batch.reuse and batch.fits(self._settings.run)
        )

    def _waiting(self, batch: BatchState) -> list[int]:
        """Its tasks that do not take runs yet."""
        return [
            task
            for task in range(len(batch.tasks))
            if self._monitor.is_open(batch, task)
            and (task not in batch.starts or self._is_pending(batch, task))
        ]

    def _coming(self, batch: BatchState) -> list[int]:
        """Those of them that the throttle lets through; the others take the place of tasks that end."""
        waiting = self._waiting(batch)
        begun = self._monitor.open_tasks(batch) - len(waiting)
        return waiting[: max(0, batch.throttle - begun)]

    def note(self, effect: Effect, result: EffectResult) -> None:
        if isinstance(effect, Leave) and result.error is None:
            self._leaving.add((TaskId(effect.batch, effect.start.task), effect.start.restart))

    def assign(
        self, runs: Sequence[RunId], tasks: Sequence[OpenTask], *, now: float, time_s: int = 0
    ) -> list[RunsAssigned]:
        """One event for each of these tasks that is given runs, first come first served; see its `time_s`."""
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
                time_s,
            )
            for id_, (task, mine) in given.items()
        ]

    def hand_over(self, event: RunsAssigned) -> list[Assign]:
        """The files of an assignment that is in the journal."""
        start = StartId(event.task, event.restart)
        return [
            Assign(event.batch, start, number, self._assignment(run, event.time_s))
            for number, run in enumerate(event.runs, start=event.number)
        ]

    def all_assigned(self) -> list[Assign]:
        """The files of all assignments whose runs have not ended: the last session may have written none."""
        return [
            Assign(batch.name, StartId(task, restart), number, self._assignment(run, time_s))
            for batch in self._state.live.values()
            for run, (task, restart, number, _, time_s) in batch.assigned.items()
            if not self._state.trials[run.trial].stopped  # its worker is told to end it
        ]

    def _assignment(self, run: RunId, time_s: int) -> Assignment:
        return Assignment(self._manifest_run(run), time_s or self._settings.run.time_s)

    def to_leave(self, *, wanted: bool, now: float, surplus: int = 0) -> list[Leave]:
        """Idle tasks that nothing is left for (not `wanted`), that nothing fits into or whose node is bad.

        So many tasks hold GPUs beyond the cap as `surplus` says: that many leave at once, idle ones first.
        """
        nodes = set(excluded(self._state, now=now))
        tasks = sorted(self._open_tasks(), key=lambda task: task.assigned)
        surplus -= self._leaving_tasks if surplus else 0
        return [
            Leave(task.id.batch, StartId(task.id.task, task.start.restart), at_once=n < surplus)
            for n, task in enumerate(tasks)
            if n < surplus or (task.assigned == 0 and not (wanted and self._is_usable(task, nodes, now)))
        ]

    def useless(self, *, wanted: bool) -> list[TaskId]:
        """Tasks without a run that have not begun, and would find nothing to do."""
        return [
            TaskId(batch.name, task)
            for batch in self._state.live.values()
            if batch.reuse and not (wanted and batch.fits(self._settings.run))
            for task in self._waiting(batch)
            if not batch.tasks[task]
        ]

    @property
    def _leaving_tasks(self) -> int:
        """Tasks that hold GPUs and have left, or were told to."""
        return sum(
            self._monitor.holds(batch, task) and (start.left is not None or self._is_leaving(batch, task))
            for batch in self._state.live.values()
            for task, start in batch.starts.items()
            if self._monitor.is_open(batch, task)
        )

    def _is_leaving(self, batch: BatchState, task: int) -> bool:
        return (TaskId(batch.name, task), batch.restart_of(task)) in self._leaving

    @property
    def coming(self) -> int:
        """Tasks that are submitted and will take runs once they have begun."""
        return sum(len(self._coming(batch)) for batch in self._suitable())

    @property
    def spares(self) -> int:
        """Tasks that wait to take the place of those that end."""
        return sum(len(self._waiting(batch)) for batch in self._suitable()) - self.coming

    @property
    def busy(self) -> int:
        """Runs that tasks have been given and that have not ended."""
        return sum(len(batch.assigned) for batch in self._state.live.values())

    def time_left_s(self, *, now: float) -> float:
        """Seconds that tasks which take runs still have, over their lanes, as far as they have a limit."""
        ends = ((task.start.ends, task.lanes) for task in self._open_tasks())
        return sum(max(0.0, end - now) * lanes for end, lanes in ends if end is not None)

    @property
    def longest_run_s(self) -> float | None:
        """How long the longest of the newest runs took; None if none has ended."""
        return max(self._recent_s, default=None)

    @property
    def _recent_s(self) -> list[float]:
        endings = (end for batch in self._state.live.values() for end in batch.endings[-RECENT:])
        return [end.seconds for end in endings if end.seconds]

    @property
    def expected_run_s(self) -> float:
        """What the next run may take: well more than the longest of the newest, at most its limit."""
        limit_s = self._settings.run.time_s
        if (longest_s := self.longest_run_s) is None:
            return limit_s or 0.0
        return min(MARGIN * longest_s, math.inf if limit_s is None else limit_s)

    def _is_pending(self, batch: BatchState, task: int) -> bool:
        """Whether the last poll showed a task waiting, and it has told of no start since."""
        told_since = task in batch.starts and batch.starts[task].began >= self._monitor.polled_at
        state = self._monitor.states.get(TaskId(batch.name, task))
        return state is not None and state.phase is Phase.PENDING and not told_since
