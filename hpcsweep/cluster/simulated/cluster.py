"""A whole site in memory and in virtual time: what a sweep would take, without running it.

The driver is the real one, and so is the results folder: tasks leave the same small files as the
worker does. Only the training is a stand-in. The site itself is gone with its process: whoever
carries on with its results folder finds the tasks vanished, and their runs are repeated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import msgspec

from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.cluster.simulated.clock import VirtualClock
from hpcsweep.cluster.simulated.faults import FaultSampler
from hpcsweep.cluster.simulated.nodes import Outages
from hpcsweep.cluster.simulated.site import Array, Site
from hpcsweep.cluster.simulated.task import Curve, TrainingModel, UnitSeconds
from hpcsweep.core.cluster_protocol import (
    Batch,
    Cluster,
    Limits,
    Phase,
    SubmittedBatch,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.core.models import SIMULATION_BEGINS_S
from hpcsweep.errors import ClusterUnavailable, SubmitLimited, SubmitRefused, SubmitUncertain
from hpcsweep.store.layout import BatchLayout

#: When a simulation begins, unless it carries on.
EPOCH_S = SIMULATION_BEGINS_S


class SimulatedCluster(Cluster):
    """Fulfils `core.protocols.Cluster`; drive it with its own `clock`.

    Tasks start in the order of their arrays and indices, as soon as their wait is over, the
    throttle allows it and a node has room.

    Args:
        options: What the site is like.
        shape: What the sweep's tasks ask for.
        curve: The stand-in objective.
        unit_seconds: Seconds for each unit of resource, by configuration.
        seed: Of everything random here.
        start: Unix seconds at which virtual time begins.
        reached: Newest checkpoint of each trial that was trained before.
        by_gpu: Tasks differ in their GPUs: what is used is counted in GPUs.
        settle_s: See `core.protocols.Cluster`, as `grace_s` and `poll_s`.

    Attributes:
        reports: Whether metrics are written while a run goes on; only watching schedulers need them.
        usage: How many tasks ran when.
        ends: How often tasks were interrupted, and by what.
    """

    start_up_s = 10.0
    spans_nodes = True

    def __init__(
        self,
        options: SimulatedOptions,
        *,
        shape: TaskResources,
        curve: Curve,
        unit_seconds: UnitSeconds,
        seed: int = 0,
        start: float = EPOCH_S,
        reached: Mapping[int, int] | None = None,
        reports: bool = False,
        settle_s: float = 150.0,
        grace_s: float = 60.0,
        poll_s: tuple[float, float] = (5.0, 60.0),
        look_s: float | None = None,
        by_gpu: bool = False,
    ) -> None:
        self.settle_s, self.grace_s, self.poll_s = settle_s, grace_s, poll_s
        self.reports = reports
        self.clock = VirtualClock(start, longest_s=look_s or poll_s[1])
        self._options = options
        self.by_gpu = by_gpu
        places = options.gpus if by_gpu else options.places(shape)
        self._slots = options.nodes // shape.nodes * places
        self._faults = FaultSampler(options, seed=seed, grace_s=grace_s, settle_s=settle_s)
        trainings = TrainingModel(
            options, curve=curve, unit_seconds=unit_seconds, faults=self._faults, reached=reached or {}
        )
        self._site = Site(options, clock=self.clock, faults=self._faults, trainings=trainings, by_gpu=by_gpu)
        self.clock.before_sleep = self._site.hand_over
        self.usage, self.ends = self._site.usage, self._site.ends
        self._outages = Outages(self._faults.outages(), start)
        self._numbers = itertools.count(1)
        self._queued: int | None = None
        self._lost: set[str] = set()

    def limits(self) -> Limits:
        options = self._options
        return Limits(
            array_tasks=options.array_tasks,
            slots=self._slots,
            queued_tasks=options.max_jobs if options.tells_max_jobs else None,
            time_s=options.time_limit,
            nodes=self._site.nodes,
        )

    @property
    def total_gpus(self) -> int | None:
        return self._options.nodes * self._options.gpus if self.by_gpu else None

    @property
    def queued_tasks(self) -> int | None:
        return self._queued

    def submit(self, batch: Batch) -> str:
        """Queue the array; it may start at this very moment."""
        number = next(self._numbers)
        # As sbatch: the script is there before the cluster is asked.
        BatchLayout(batch.folder).script.write_text("#!/bin/sh\n", encoding="utf-8")
        outage = self._is_out()
        arrives_s = self._faults.lost_reply(number, outage=outage)
        if arrives_s is not None:
            self._arrive_later(number, batch, arrives_s)
            now = self.clock.time()
            self.clock.wake(now)
            self.clock.wake(now + self.settle_s)
            raise (ClusterUnavailable if outage else SubmitUncertain)(
                f"{batch.name}: the site did not answer"
            )
        if (refusal := self._refusal(batch)) is not None:
            raise refusal
        self._site.accept(number, batch, reports=self.reports)
        return str(number)

    def find(self, name: str) -> str | None:
        array = self._array(name)
        return array.shared.job if array else None

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        """Every open task that it remembers. Arrays that nobody follows any more are forgotten."""
        if self._is_out():
            return None
        self._queued = self.clock.unfinished
        self._forget({batch.name for batch in live})
        shown: dict[TaskId, TaskState] = {}
        for batch in live:
            array = self._site.arrays.get(batch.name)
            if array is None:
                if batch.name not in self._lost:  # forgotten, or submitted by a process that is gone
                    self._lost.add(batch.name)
                    self.clock.wake(self.clock.time() + self.grace_s)
                continue
            array.followed = True
            for task in batch.open_tasks:
                state = array.states[task]
                if state is not None:
                    shown[TaskId(batch.name, task)] = self._now(array, task, state)
            for task in [task for task in array.shared.unreported if task not in array.tasks]:
                array.shared.unreported.discard(task)
                self.clock.wake(self.clock.time() + self.grace_s)  # so long the driver waits for it
        return shown

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        array = self._array(batch.name)
        if array is not None:
            self._site.throttle(array, tasks)

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Running tasks leave their checkpoints and end at once; waiting ones never start."""
        array = self._array(batch.name)
        if array is not None:
            self._site.cancel(array, tasks)

    # ------------------------------------------------------------------ behind the answers

    def _is_out(self) -> bool:
        """Whether the controller is silent; whoever asked is woken when it answers again."""
        until = self._outages.until(self.clock.time())
        if until is not None:
            self.clock.wake(until)
        return until is not None

    def _array(self, name: str) -> Array | None:
        if self._is_out():
            raise ClusterUnavailable("the controller does not answer")
        return self._site.arrays.get(name)

    def _refusal(self, batch: Batch) -> SubmitRefused | None:
        options, beside = self._options, self.clock.unfinished
        if options.places(batch.shape) == 0:
            return SubmitRefused(f"{batch.name}: no node has {batch.shape.gpus} GPUs, only {options.gpus}")
        if options.nodes < batch.shape.nodes:
            return SubmitRefused(
                f"{batch.name}: a task needs {batch.shape.nodes} nodes, there are {options.nodes}"
            )
        if options.array_tasks is not None and batch.tasks > options.array_tasks:
            return SubmitRefused(
                f"{batch.name}: {batch.tasks} tasks are more than array_tasks {options.array_tasks}"
            )
        if options.max_jobs is not None and beside + batch.tasks > options.max_jobs:
            return SubmitLimited(
                f"{batch.name}: {batch.tasks} tasks beside {beside} are more than max_jobs {options.max_jobs}"
            )
        return None

    def _arrive_later(self, number: int, batch: Batch, seconds: float) -> None:
        """Let the submission arrive so much later, unless it never does or a limit keeps it out."""

        def arrive() -> bool:
            if self._refusal(batch) is None:
                self._site.accept(number, batch, reports=self.reports)
            return True

        if seconds == 0:
            arrive()
        elif seconds < math.inf:
            self.clock.at(self.clock.time() + seconds, arrive)

    def _now(self, array: Array, task: int, state: TaskState) -> TaskState:
        if state.phase is not Phase.RUNNING:
            return state
        return msgspec.structs.replace(state, seconds=self.clock.time() - array.tasks[task].began)

    def _forget(self, live: set[str]) -> None:
        arrays = self._site.arrays
        if len(arrays) > len(live):
            for name, array in list(arrays.items()):
                if array.followed and not array.tasks and name not in live:
                    del arrays[name]
