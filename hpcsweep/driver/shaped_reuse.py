"""Tasks of different shapes that keep their GPUs: hands runs over to them, and submits those that miss."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import RunId
from hpcsweep.driver.allocation import Allocation, Purse
from hpcsweep.driver.assigner import Assigner
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import Leave
from hpcsweep.driver.gpu_throttle import GpuThrottle
from hpcsweep.driver.job_control import ThrottleManager
from hpcsweep.driver.reusing_submission import ReusingSubmission
from hpcsweep.driver.room import Room
from hpcsweep.driver.shaped_assigner import ShapedAssigner
from hpcsweep.driver.shaped_submission import ShapedSubmission
from hpcsweep.driver.shapes import RunShapes, UnknownNeeds, array_key
from hpcsweep.driver.submission import Submission
from hpcsweep.store.assignments import StartId

#: So many waiting runs are looked at each time: those behind them wait for longer anyway.
CONSIDERED: Final = 2000


class ShapedReuse(ShapedSubmission):
    """As `ReusingSubmission`, where runs need different resources."""

    def __init__(self, assigner: ShapedAssigner, *parts: Any) -> None:
        super().__init__(*parts)
        self.assigner = assigner
        self._first = True
        #: Of each pool what may be spent on new tasks, beside the runs that are given or claimed.
        self._left: dict[str, float] = {}

    def hand_over(self) -> None:
        try:
            self.begin()
            self._settle(more=False)
        except UnknownNeeds as error:
            self.pause(error)

    def dismiss(self) -> None:
        self.committer.execute_all(self.cancellations.pending_to_cancel(self.assigner.useless(wanted=False)))
        self.committer.execute_all(self.assigner.to_leave(wanted=False, now=self.sweep.now))

    def _run(self) -> None:
        self.skip_pools()
        self.committer.do(self.throttle.rethrottle())
        self._leave_surplus()
        allocation = self._settle(more=True)
        if allocation.complete and not self.exhausted:
            free = allocation.idle + len(allocation.wanted)
            self.note_quota(free + self.places(self._room_beside(allocation)))
        self._submit_wanted(allocation)
        if self.leaves:
            self._settle(more=False)

    def _settle(self, *, more: bool) -> Allocation:
        """Give runs to tasks, with `more` have as many decided as new tasks could take."""
        if self._first:  # the session before may have been killed between commit and file
            self._first = False
            self.committer.execute_all(self.assigner.all_assigned())
        exhausted = self.exhausted
        while True:
            allocation = self._allocate(exhausted=exhausted)
            assigned = self.assigner.assigned_events(allocation.assigned, now=self.sweep.now)
            self.committer.commit(assigned)
            for event in assigned:
                self.committer.execute_all(self.assigner.hand_over(event))
            slots = allocation.idle if allocation.complete else 0
            if more and allocation.complete and not exhausted:
                slots = max(slots, self.places(self._room_beside(allocation)))
            if not self.decide(0 if exhausted else slots):
                break
        self.committer.execute_all(self.cancellations.pending_to_cancel(allocation.cancel))
        self.committer.execute_all(allocation.leave)
        self.shapes.forget(self.submitter.queue())
        return allocation

    def _allocate(self, *, exhausted: bool) -> Allocation:
        state, now = self.sweep.state, self.sweep.now
        waiting = [] if exhausted else self.queue()
        queue = waiting[:CONSIDERED]
        largest = max(queue, key=lambda run: self.shapes.of(run).total_gpus, default=None)
        if largest is not None:
            task = self.shapes.task([self.shapes.of(largest)])
            self.check_fits(largest, task, self.gpu_throttle.caps)
        self._left = self.budget.pools.unreserved_gpu_s(state, self.reserved_gpu_s)
        room = self.paid(self._left)
        left = self.budget.unreserved_gpu_s(state, self.reserved_gpu_s)
        allocation = self.assigner.allocate(
            queue,
            room=room,
            held_gpus=self.gpu_throttle.held_gpus,
            purse=Purse(left, self._left, self._run_gpu_s),
            done=exhausted or self.planner.done,
            leaves=self.leaves,
            now=now,
        )
        return allocation if len(queue) == len(waiting) else allocation._replace(complete=False)

    def _run_gpu_s(self, gpus: int, needs: TaskResources, new: bool) -> float:
        return self.budget.run_gpu_s(gpus, needs.time_s, new=new)

    def _room_beside(self, allocation: Allocation) -> Room:
        """The room beside tasks that are wanted."""
        room = self.paid(self._left)
        for _, needs, _ in allocation.wanted:
            gpus = self.gpu_throttle.held_gpus(self.shapes.task([needs]))
            room = room.less(gpus, gpu_s=self._run_gpu_s(gpus, needs, True))
        return room

    def _submit_wanted(self, allocation: Allocation) -> None:
        """Submit the tasks that are missing, as far as there is room for them now."""
        lanes = self.sweep.settings.shape.lanes
        groups: dict[tuple[int, ...], list[tuple[RunId, TaskResources, int]]] = {}
        for each in allocation.wanted:
            groups.setdefault(array_key(each[1]), []).append(each)
        #: Of each task that is missing: its shape, how long the longest of its first runs takes, and what
        #: they may cost.
        tasks: list[tuple[TaskResources, float, float]] = []
        for group in groups.values():
            shape = self.shapes.task([needs for _, needs, _ in group], turns=group[0][2])
            gpus = self.gpu_throttle.held_gpus(shape)
            lengths = [self.shapes.length(run, needs) for run, needs, _ in group]
            costs = [
                self._run_gpu_s(gpus, needs, index % lanes == 0) for index, (_, needs, _) in enumerate(group)
            ]
            for first in range(0, len(group), lanes):
                its = slice(first, first + lanes)
                tasks.append((shape, max(lengths[its]), sum(costs[its])))
        pools = self.paid(self._left).assign(
            [(self.gpu_throttle.held_gpus(shape), length) for shape, length, _ in tasks],
            [cost for _, _, cost in tasks],
        )
        fitting = [
            msgspec.structs.replace(shape, pool=pool)
            for (shape, _, _), pool in zip(tasks, pools, strict=True)
            if pool is not None
        ]
        allowed = self.allowed(len(tasks), None) if tasks else 0
        for shape, count in Counter(fitting[:allowed]).items():
            planned = self.plan_array([()] * count, shape, reuse=True)
            self.committer.commit(planned)
            if refused := self.submit(planned):
                self.backoff.refused(refused, open_tasks=self.throttle.open_tasks, now=self.sweep.now)
                return

    def _leave_surplus(self) -> None:
        """Have tasks leave at once that hold GPUs beyond the caps, idle ones first."""
        room = self.gpu_throttle.held_beyond
        for gpus, pool in self.assigner.leaving_gpus():
            room = room.less(gpus, -1, pool)
        if not room.missing:
            return
        leaving: list[Leave] = []
        for each in sorted(self.assigner.tasks(), key=lambda each: each.task.assigned):
            if not room.missing:
                break
            gpus, pool = each.batch.task_gpus, each.batch.pool
            if each.begun and room.over(gpus, pool):
                start = StartId(each.task.id.task, each.task.start.restart)
                leaving.append(Leave(each.task.id.batch, start, at_once=True))
                room = room.less(gpus, -1, pool)
        self.committer.execute_all(leaving)

    def reserved_gpu_s(self, batch: BatchState) -> float:
        if not batch.reuse:
            return super().reserved_gpu_s(batch)
        return self.monitor.reserved_gpu_s(
            batch, now=self.sweep.now, run_s=self.budget.run_s, idle_s=self.budget.idle_s
        )


def make_submission(
    assigner: Assigner,
    throttle: ThrottleManager,
    shapes: RunShapes,
    settings: DriverConfig,
    parts: tuple[Any, ...],
) -> Submission:
    """What submits runs: by whether tasks keep their GPUs, and whether runs need different resources."""
    if isinstance(throttle, GpuThrottle):
        if settings.reuse and isinstance(assigner, ShapedAssigner):
            return ShapedReuse(assigner, shapes, throttle, *parts)
        return ShapedSubmission(shapes, throttle, *parts)
    return ReusingSubmission(assigner, *parts) if settings.reuse else Submission(*parts)
