"""Submits runs of different shapes: each goes into an array of its like, in order, within all caps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import TaskId, TaskResources
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    PauseRequested,
    RunId,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.driver.gpu_throttle import GpuThrottle
from hpcsweep.driver.lifecycle import exhausted_budget
from hpcsweep.driver.pools import is_passed_over, pool_activity, skip_events
from hpcsweep.driver.room import Room
from hpcsweep.driver.shapes import RunShapes, UnknownNeeds, array_key
from hpcsweep.driver.submission import Submission

#: So many runs may wait that the budget cannot pay for any more; then no new trials are started.
MOST_UNAFFORDABLE: Final = 4
#: Of the runs that wait so many are looked at for the cheapest.
LOOKED_AT: Final = 2000


class Due(NamedTuple):
    """The runs that can start now.

    Attributes:
        runs: With what each needs. `blocked`: whether another one waits for its turn.
        room: What is left beside them.
    """

    runs: list[tuple[RunId, TaskResources]]
    blocked: bool
    room: Room


class ShapedSubmission(Submission):
    """As `Submission`, where runs need different resources.

    Runs start in the order of the queue: one that does not fit below the caps is not passed by those behind
    it. An array holds runs that start together, so that none holds back another shape. Only those are passed
    that cost more than `budget.gpu_hours` has left, whatever ends.
    """

    def __init__(self, shapes: RunShapes, throttle: GpuThrottle, *parts: Any) -> None:
        super().__init__(*parts)
        self.shapes = shapes
        self.gpu_throttle = throttle
        #: Runs that wait and cost too much, at the last look.
        self._unaffordable = 0
        #: The scheduler had nothing more to start in this tick.
        self._nothing_new = False

    def run(self) -> None:
        try:
            self.begin()
            self._run()
        except UnknownNeeds as error:
            self.pause(error)

    def pause(self, error: UnknownNeeds) -> None:
        """Pause the sweep until somebody has changed the spec."""
        reason = f"{error}: fix the spec, then launch again"
        self.committer.commit([PauseRequested(self.sweep.now, reason)])

    def skip_pools(self) -> None:
        """Pass over pools whose tasks do not start, and come back to those where some do."""
        pools = self.sweep.cluster.pools
        self.committer.commit(skip_events(pools, self.sweep.state, self.monitor, now=self.sweep.now))

    def _run(self) -> None:
        self.skip_pools()
        self.committer.do(self.throttle.rethrottle())
        due = self._due()
        while self.decide(0 if due.blocked or self.exhausted else self.places(due.room)):
            due = self._due()
        due, exhausted = self._due(), self.exhausted
        self._cancel_passed_over(due.room)
        self.note_quota(0 if exhausted or due.blocked else len(due.runs) + self.places(due.room))
        taken = [] if exhausted else due.runs[: self.allowed(len(due.runs), None)]
        while taken:
            planned = self._plan_arrays(taken)
            self.committer.commit(planned)
            refused = self.submit(planned)
            if not refused:
                return
            self.backoff.refused(refused, open_tasks=self.throttle.open_tasks, now=self.sweep.now)
            waiting = set(self.submitter.queue())
            taken = [each for each in taken if each[0] in waiting][: refused // 2]

    def decide(self, slots: int) -> bool:
        """Have the scheduler decide for so many runs more; whether any came of it."""
        new = self.quota.room
        if self._unaffordable:
            most = max(0, MOST_UNAFFORDABLE - self._unaffordable)
            new = most if new is None else min(new, most)
        events: list[AnyEvent] = self.planner.decide(slots, new=new)
        events += self.submitter.stopped_while_waiting(events)
        self.before_decisions(events)
        self.committer.commit(events)
        self.after_decisions(events)
        found = any(isinstance(event, TrialCreated | TrialPromoted) for event in events)
        self._nothing_new = slots > 0 and not found
        self._note_costs()
        return found

    def begin(self) -> None:
        """Look at the budget anew, before anything is decided."""
        self._nothing_new = False
        self._note_costs()

    @property
    def exhausted(self) -> bool:
        """Whether a budget is used up, for all runs that wait and those that may be started."""
        state, settings = self.sweep.state, self.sweep.settings
        return exhausted_budget(state, settings, self.budget, now=self.sweep.now) is not None

    def _note_costs(self) -> None:
        """Look at what the runs that wait may cost: the budget goes by the cheapest of what may come next."""
        left, smallest = self.budget.unspent_gpu_s(self.sweep.state), self.sweep.settings.smallest
        if math.isinf(left):
            return
        costs = [self._cost(run) for run in self.submitter.queue()[:LOOKED_AT]]
        self._unaffordable = sum(cost > left for cost in costs)
        more = self._unaffordable < MOST_UNAFFORDABLE and not (self.planner.done or self._nothing_new)
        if not costs or more:
            gpus = self.gpu_throttle.held_gpus(smallest)
            costs.append(self.budget.run_gpu_s(gpus, smallest.time_s, new=True))
        self.budget.next_gpu_s = min(costs)

    def _cost(self, run: RunId) -> float:
        """GPU-seconds of a task for this run."""
        needs = self.shapes.of(run)
        gpus = self.gpu_throttle.held_gpus(self.shapes.task([needs]))
        return self.budget.run_gpu_s(gpus, needs.time_s, new=True)

    def queue(self) -> list[RunId]:
        """The runs that wait, in order, without those that the budget cannot pay for any more."""
        queue, left = self.submitter.queue(), self.budget.unspent_gpu_s(self.sweep.state)
        return queue if math.isinf(left) else [run for run in queue if self._cost(run) <= left]

    def places(self, room: Room) -> int:
        """How many runs more may be decided, whatever they will need: none waits for long."""
        largest = self.gpu_throttle.held_gpus(self.sweep.settings.shape)
        smallest = self.gpu_throttle.held_gpus(self.sweep.settings.smallest)
        return room.count(largest) or min(1, room.count(smallest))

    def check_fits(self, run: RunId, task: TaskResources, caps: Room) -> int:
        """GPUs that a task for this run will hold, where all may take so much together.

        Raises:
            UnknownNeeds: They are more than the sweep may have.
        """
        gpus = self.gpu_throttle.held_gpus(task)
        if gpus > caps.most_gpus:
            whose = "cluster.max_gpus" if gpus > caps.gpus else "the largest max_gpus of cluster.pools"
            raise UnknownNeeds(
                f"a task for {run} holds {gpus} GPUs, and {whose} is {caps.most_gpus:g} (raise it, or change "
                "resources.gpus)"
            )
        return gpus

    def _due(self) -> Due:
        room, caps = self.gpu_throttle.room, self.gpu_throttle.caps
        runs: list[tuple[RunId, TaskResources]] = []
        left = self.budget.unreserved_gpu_s(self.sweep.state, self._reserved_gpu_s)
        for run in self.queue():
            needs = self.shapes.of(run)
            gpus = self.check_fits(run, needs, caps)
            left -= self.budget.run_gpu_s(gpus, needs.time_s) if math.isfinite(left) else 0.0
            if not room.count(gpus) or left < 0:
                return Due(runs, True, room)
            room = room.less(gpus)
            runs.append((run, needs))
        return Due(runs, False, room)

    def _reserved_gpu_s(self, batch: BatchState) -> float:
        return self.budget.array_gpu_s(
            batch,
            open_tasks=self.monitor.open_tasks(batch),
            unbooked_gpu_s=self.monitor.unbooked_gpu_s(batch),
        )

    def _cancel_passed_over(self, room: Room) -> None:
        """Cancel tasks that do not start where others can take their runs: these wait again."""
        cancelled: list[TaskId] = []
        for name in self.sweep.state.skipped_pools:
            waiting = pool_activity(name, self.sweep.state, self.monitor, now=self.sweep.now).waiting
            for task in waiting:
                batch = self.sweep.state.live[task.batch]
                freed = room.less(batch.task_gpus, -1, batch.pool)
                if is_passed_over(batch, room) and freed.count(batch.task_gpus):
                    room = freed.less(batch.task_gpus)
                    cancelled.append(task)
        self.committer.execute_all(self.cancellations.pending_to_cancel(cancelled))

    def _plan_arrays(self, runs: Sequence[tuple[RunId, TaskResources]]) -> list[BatchPlanned]:
        groups: dict[tuple[int, ...], list[tuple[RunId, TaskResources]]] = {}
        for run, needs in runs:
            groups.setdefault(array_key(needs), []).append((run, needs))
        shapes = {key: self.shapes.task([needs for _, needs in group]) for key, group in groups.items()}
        tasks = [(key, run, needs) for key, group in groups.items() for run, needs in group]
        pools = self.gpu_throttle.room.assign(
            [
                (self.gpu_throttle.held_gpus(shapes[key]), self.shapes.length(run, needs))
                for key, run, needs in tasks
            ]
        )
        arrays: dict[tuple[tuple[int, ...], str], list[RunId]] = {}
        for (key, run, _), pool in zip(tasks, pools, strict=True):
            if pool is not None:
                arrays.setdefault((key, pool), []).append(run)
        planned: list[BatchPlanned] = []
        for (key, pool), group in arrays.items():
            planned += self.plan_array([(run,) for run in group], shapes[key], pool=pool)
        return planned

    def plan_array(
        self, tasks: Sequence[tuple[RunId, ...]], shape: TaskResources, *, pool: str, reuse: bool = False
    ) -> list[BatchPlanned]:
        """Arrays of these tasks in this pool."""
        shape = msgspec.structs.replace(shape, pool=pool)
        self.sweep.journal.acquire()  # from now on its number is this driver's alone
        return self.submitter.plan_array(
            tasks,
            shape,
            gpus=self.gpu_throttle.held_gpus(shape),
            segment=self.sweep.journal.number,
            limits=self.observer.limits,
            now=self.sweep.now,
            reuse=reuse,
        )
