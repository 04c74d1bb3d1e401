"""Submits runs of different shapes: each goes into an array of its like, in order, within all caps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import TaskResources
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
from hpcsweep.driver.shapes import Room, RunShapes, UnknownNeeds, array_key
from hpcsweep.driver.submission import Submission


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
    it. An array holds runs that start together, so that none holds back another shape.
    """

    def __init__(self, shapes: RunShapes, throttle: GpuThrottle, *parts: Any) -> None:
        super().__init__(*parts)
        self.shapes = shapes
        self.gpu_throttle = throttle

    def run(self) -> None:
        try:
            self._run()
        except UnknownNeeds as error:
            self.pause(error)

    def pause(self, error: UnknownNeeds) -> None:
        """Pause the sweep until somebody has changed the spec."""
        reason = f"{error}: fix the spec, then launch again"
        self.committer.commit([PauseRequested(self.sweep.now, reason)])

    def _run(self) -> None:
        self.committer.do(self.throttle.rethrottle())
        due = self._due()
        while self.decide(0 if due.blocked or self.exhausted else self.places(due.room)):
            due = self._due()
        due, exhausted = self._due(), self.exhausted
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
        events: list[AnyEvent] = self.planner.decide(slots, new=self.quota.room)
        events += self.submitter.stopped_while_waiting(events)
        self.before_decisions(events)
        self.committer.commit(events)
        self.after_decisions(events)
        return any(isinstance(event, TrialCreated | TrialPromoted) for event in events)

    @property
    def exhausted(self) -> bool:
        """Whether a budget is used up, for the run whose turn it is."""
        queue = self.submitter.queue()
        needs = self.shapes.of(queue[0]) if queue else self.sweep.settings.smallest
        task = self.shapes.task([needs]) if queue else needs
        cost = self.budget.run_gpu_s(self.gpu_throttle.held_gpus(task), needs.time_s, new=True)
        self.budget.next_gpu_s = cost
        return (
            exhausted_budget(self.sweep.state, self.sweep.settings, self.budget, now=self.sweep.now)
            is not None
        )

    def places(self, room: Room) -> int:
        """How many runs more may be decided, whatever they will need: none waits for long."""
        largest = self.gpu_throttle.held_gpus(self.sweep.settings.shape)
        smallest = self.gpu_throttle.held_gpus(self.sweep.settings.smallest)
        return room.count(largest) or min(1, room.count(smallest))

    def check_fits(self, run: RunId, task: TaskResources) -> int:
        """GPUs that a task for this run will hold.

        Raises:
            UnknownNeeds: They are more than the sweep may have.
        """
        gpus, most = self.gpu_throttle.held_gpus(task), self.gpu_throttle.caps.gpus
        if gpus > most:
            raise UnknownNeeds(
                f"a task for {run} holds {gpus} GPUs, and cluster.max_gpus is {most:g} (raise it, or change "
                "resources.gpus)"
            )
        return gpus

    def _due(self) -> Due:
        room = self.gpu_throttle.room
        runs: list[tuple[RunId, TaskResources]] = []
        left = self.budget.unreserved_gpu_s(self.sweep.state, self._reserved_gpu_s)
        for run in self.submitter.queue():
            needs = self.shapes.of(run)
            gpus = self.check_fits(run, needs)
            left -= self.budget.run_gpu_s(gpus, needs.time_s) if math.isfinite(left) else 0.0
            if not room.count(gpus) or left < 0:
                return Due(runs, True, room)
            room = room.less(gpus)
            runs.append((run, needs))
        return Due(runs, False, room)

    def _reserved_gpu_s(self, batch: BatchState) -> float:
        time_s = batch.time_s or self.budget.time_s
        open_tasks, unbooked_gpu_s = self.monitor.open_tasks(batch), self.monitor.unbooked_gpu_s(batch)
        return open_tasks * batch.task_gpus * time_s + unbooked_gpu_s

    def _plan_arrays(self, runs: Sequence[tuple[RunId, TaskResources]]) -> list[BatchPlanned]:
        groups: dict[tuple[int, ...], list[tuple[RunId, TaskResources]]] = {}
        for run, needs in runs:
            groups.setdefault(array_key(needs), []).append((run, needs))
        self.sweep.journal.acquire()  # from now on its number is this driver's alone
        planned: list[BatchPlanned] = []
        for group in groups.values():
            shape = self.shapes.task([needs for _, needs in group])
            planned += self.submitter.plan_array(
                [(run,) for run, _ in group],
                shape,
                gpus=self.gpu_throttle.held_gpus(shape),
                segment=self.sweep.journal.number,
                limits=self.observer.limits,
                now=self.sweep.now,
            )
        return planned
