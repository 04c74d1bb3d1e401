"""Who of the tasks of different shapes is given which run, who leaves, and which tasks are missing. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hpcsweep.core.batches import StartedTask
from hpcsweep.core.cluster_protocol import TaskId, TaskResources
from hpcsweep.core.events import RunId, RunsAssigned
from hpcsweep.driver.allocation import Allocating, Allocation, Purse, Working
from hpcsweep.driver.assigner import MARGIN, RECENT, SHORT_S, Assigner, OpenTask
from hpcsweep.driver.effects import Cancel, Effect, EffectResult
from hpcsweep.driver.failures import excluded
from hpcsweep.driver.room import Room
from hpcsweep.driver.shapes import RunShapes, kind_of


class ShapedAssigner(Assigner):
    """As `Assigner`, where runs need different resources: a run is given only to a task of its own kind."""

    _shapes: RunShapes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Tasks that this session cancelled before they began.
        self._cancelled: set[TaskId] = set()

    @property
    def lanes(self) -> int:
        """Runs that a new task does at a time."""
        return self._settings.shape.lanes

    def task_of(self, needs: Sequence[TaskResources]) -> TaskResources:
        """See `RunShapes.task`."""
        return self._shapes.task(needs)

    def length(self, run: RunId, needs: TaskResources) -> float:
        """See `RunShapes.length`."""
        return self._shapes.length(run, needs)

    def leaving_gpus(self) -> Iterator[tuple[int, str]]:
        """Of each task that holds GPUs and is leaving: how many, and its pool."""
        for batch in self._state.live.values():
            for task, start in batch.starts.items():
                leaves = start.left is not None or self._is_leaving(batch, task)
                if leaves and self._monitor.is_open(batch, task) and self._monitor.holds(batch, task):
                    yield batch.task_gpus, batch.pool

    def note(self, effect: Effect, result: EffectResult) -> None:
        super().note(effect, result)
        if isinstance(effect, Cancel) and effect.pending and result.error is None:
            self._cancelled.update(TaskId(effect.batch, task) for task in effect.tasks)

    def tasks(self) -> Iterator[Working]:
        """All tasks that take runs, or will."""
        live = self._state.live
        for task in self._open_tasks():
            yield Working(task, live[task.id.batch])
        for batch in live.values():
            for index in self._coming(batch) if batch.reuse else ():
                id_ = TaskId(batch.name, index)
                if id_ not in self._cancelled:
                    # Of one that is started again, the start that comes.
                    first = StartedTask(batch.restart_of(index) + 1, 0.0, 0.0, None, "")
                    task = OpenTask(id_, first, len(batch.tasks[index]), 0, batch.lanes, True)
                    yield Working(task, batch, begun=False)

    def allocate(
        self,
        queue: Sequence[RunId],
        *,
        room: Room,
        held_gpus: Callable[[TaskResources], int],
        purse: Purse,
        done: bool,
        leaves: bool,
        now: float,
    ) -> Allocation:
        """Who does what next.

        Args:
            queue: The runs that wait, in order.
            room: What new tasks may take, beside all that are there.
            held_gpus: GPUs that a task of a shape will hold.
            purse: What may be spent on the runs; it is.
            done: Nothing else will be decided.
            leaves: Nobody hands anything over for a while: each task is given one run ahead.
            now: Unix time.
        """
        needs = {run: self._shapes.of(run) for run in queue}
        working = [each for each in self.tasks() if now < self._ends(each)]
        room = self._room_to_come(room, working)
        spent = self._state.spent_pools
        return Allocating(
            self, queue, needs, working, room=room, purse=purse, spent=spent, now=now, leaves=leaves
        ).result(held_gpus=held_gpus, done=done)

    def _ends(self, each: Working) -> float:
        ends = each.task.start.ends
        return math.inf if ends is None or each.task.assigned or not each.begun else ends

    def _room_to_come(self, room: Room, working: Iterable[Working]) -> Room:
        """The room with what tasks hold that are leaving."""
        staying = {each.task.id for each in working}
        for batch in self._state.live.values():
            if not batch.reuse:
                continue
            leaving = sum(
                TaskId(batch.name, task) not in staying and self._monitor.is_open(batch, task)
                for task in range(len(batch.tasks))
            )
            behind = max(0, self._monitor.open_tasks(batch) - batch.throttle)  # those hold no room
            room = room.less(batch.task_gpus, -max(0, leaving - behind), batch.pool)
        return room

    def serves(self, each: Working, needs: TaskResources, run: RunId, *, now: float) -> bool:
        """Whether the task has what the run needs, its time included."""
        batch, task = each.batch, each.task
        if each.kind != kind_of(needs) or not batch.fits(needs):
            return False
        # No task has more than `cluster.task_time`: what needs more goes on from its checkpoint in the next.
        most_s = min(needs.time_s or 0, self._settings.task_time_s or math.inf)
        if batch.time_s and batch.time_s < most_s:
            return False
        if not each.begun or task.given == 0 or task.start.ends is None:
            return True
        return now + self.expected_s(run, needs) <= task.start.ends

    def expected_s(self, run: RunId, needs: TaskResources) -> float:
        """What it may take: well more than the longest of the newest of its rung, at most its limit."""
        recent = [
            end.seconds
            for batch in self._state.live.values()
            for end in batch.endings[-RECENT:]
            if end.seconds and end.rung == run.rung
        ]
        limit_s = math.inf if needs.time_s is None else needs.time_s
        if not recent:
            return 0.0 if math.isinf(limit_s) else limit_s
        return min(MARGIN * max(recent), limit_s)

    def bad_nodes(self, *, now: float) -> set[str]:
        return set(excluded(self._state, now=now))

    @property
    def runs_are_short(self) -> bool:
        recent_s = self._recent_s
        return bool(recent_s) and statistics.median(recent_s) < SHORT_S

    def assigned_events(
        self, assigned: Iterable[tuple[OpenTask, RunId, TaskResources]], *, now: float
    ) -> list[RunsAssigned]:
        """An event for each run, which has a time limit of its own."""
        given: dict[TaskId, int] = {}
        events = []
        for task, run, needs in assigned:
            id_, restart = task.id, task.start.restart
            before = self._state.live[id_.batch].given.get((id_.task, restart), 0)
            number = before + given.get(id_, 0)
            given[id_] = given.get(id_, 0) + 1
            events.append(RunsAssigned(id_.batch, now, id_.task, (run,), restart, number, needs.time_s or 0))
        return events
