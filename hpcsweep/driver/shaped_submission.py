"""Submits runs of different shapes: each goes into an array of its like, in order, within all caps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from hpcsweep.driver.pool_budget import NextTask
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
        pools, state, now = self.sweep.cluster.pools, self.sweep.state, self.sweep.now
        self.committer.commit(skip_events(pools, state, self.monitor, now=now))
        self.committer.commit(self.budget.pools.events(state, now=now))

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
        smallest = self.sweep.settings.smallest
        if not self.budget.capped:
            return
        self.budget.pools.most_gpus = {pool.name: pool.most_gpus for pool in self.gpu_throttle.caps.pools}
        tasks = [self._next_task(run) for run in self.submitter.queue()[:LOOKED_AT]]
        self._unaffordable = sum(not self._pays(task) for task in tasks)
        more = self._unaffordable < MOST_UNAFFORDABLE and not (self.planner.done or self._nothing_new)
        if not tasks or more:
            gpus = self.gpu_throttle.held_gpus(smallest)
            tasks.append(NextTask(gpus, self.budget.run_gpu_s(gpus, smallest.time_s, new=True)))
        self.budget.next_gpu_s = min(task.gpu_s for task in tasks)
        self.budget.pools.next_tasks = tasks

    def _next_task(self, run: RunId) -> NextTask:
        """A task for this run."""
        needs = self.shapes.of(run)
        gpus = self.gpu_throttle.held_gpus(self.shapes.task([needs]))
        return NextTask(gpus, self.budget.run_gpu_s(gpus, needs.time_s, new=True))

    def _pays(self, task: NextTask) -> bool:
        """Whether the budget can pay for the task, and a pool can, at the latest once nothing runs."""
        state = self.sweep.state
        return task.gpu_s <= self.budget.unspent_gpu_s(state) and self.budget.pools.pays(state, task)

    def queue(self) -> list[RunId]:
        """The runs that wait, in order, without those that the budget cannot pay for any more."""
        queue = self.submitter.queue()
        if not self.budget.capped:
            return queue
        return [run for run in queue if self._pays(self._next_task(run))]

    @property
    def room(self) -> Room:
        """What new tasks may take, and what pools can pay for."""
        return self.paid(self.budget.pools.unreserved_gpu_s(self.sweep.state, self.reserved_gpu_s))

    def paid(self, gpu_s: Mapping[str, float]) -> Room:
        """What new tasks may take where pools have so much left for them."""
        room, pools = self.gpu_throttle.room, self.budget.pools
        return room.paid(gpu_s, least_s=pools.least_s) if pools.capped else room

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
        room, caps = self.room, self.gpu_throttle.caps
        runs: list[tuple[RunId, TaskResources]] = []
        left = self.budget.unreserved_gpu_s(self.sweep.state, self.reserved_gpu_s)
        for run in self.queue():
            needs = self.shapes.of(run)
            gpus = self.check_fits(run, needs, caps)
            cost = self.budget.run_gpu_s(gpus, needs.time_s)
            left -= cost
            if not room.count(gpus, gpu_s=cost) or left < 0:
                return Due(runs, True, room)
            room = room.less(gpus, gpu_s=cost)
            runs.append((run, needs))
        return Due(runs, False, room)

    def reserved_gpu_s(self, batch: BatchState) -> float:
        """GPU-seconds that the tasks of a live batch may take beyond what the journal holds."""
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
        arrays, is_paid = self._arrays(runs, array_key)
        if not is_paid:  # each run counts with its own limit, so no other one may be in its array
            arrays, _ = self._arrays(runs, lambda needs: (*array_key(needs), needs.time_s or 0))
        planned: list[BatchPlanned] = []
        for shape, group in arrays:
            planned += self.plan_array([(run,) for run in group], shape)
        return planned

    def _arrays(
        self,
        runs: Sequence[tuple[RunId, TaskResources]],
        key_of: Callable[[TaskResources], tuple[int, ...]],
    ) -> tuple[list[tuple[TaskResources, list[RunId]]], bool]:
        """The runs in arrays, one for each key and pool, and whether all that are capped can be paid for."""
        groups: dict[tuple[int, ...], list[tuple[RunId, TaskResources]]] = {}
        for run, needs in runs:
            groups.setdefault(key_of(needs), []).append((run, needs))
        shapes = {key: self.shapes.task([needs for _, needs in group]) for key, group in groups.items()}
        gpus = {key: self.gpu_throttle.held_gpus(shape) for key, shape in shapes.items()}
        costs = {key: self.budget.run_gpu_s(gpus[key], shape.time_s) for key, shape in shapes.items()}
        tasks = [(key, run, needs) for key, group in groups.items() for run, needs in group]
        pools = self.room.assign(
            [(gpus[key], self.shapes.length(run, needs)) for key, run, needs in tasks],
            [costs[key] for key, _, _ in tasks],
        )
        arrays: dict[tuple[tuple[int, ...], str], list[RunId]] = {}
        left = self.budget.unreserved_gpu_s(self.sweep.state, self.reserved_gpu_s)
        for (key, run, _), pool in zip(tasks, pools, strict=True):
            if pool is not None:
                arrays.setdefault((key, pool), []).append(run)
                left -= costs[key]
        is_paid = left >= 0 and not (self.budget.pools.capped and None in pools)
        return [
            (msgspec.structs.replace(shapes[key], pool=pool), group) for (key, pool), group in arrays.items()
        ], is_paid

    def plan_array(
        self, tasks: Sequence[tuple[RunId, ...]], shape: TaskResources, *, reuse: bool = False
    ) -> list[BatchPlanned]:
        """Arrays of these tasks, in the pool of their shape."""
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
