"""A whole site in memory and in virtual time: what a sweep would take, without running it.

The driver is the real one, and so is the results folder: tasks leave the same small files as the
worker does. Only the training is a stand-in. The site itself is gone with its process: whoever
carries on with its results folder finds the tasks vanished, and their runs are repeated.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hpcsweep.cluster.simulated_clock import VirtualClock
from hpcsweep.cluster.simulated_draws import Draws, Reply
from hpcsweep.cluster.simulated_nodes import Failures, Nodes, Usage
from hpcsweep.cluster.simulated_options import SimulatedOptions
from hpcsweep.cluster.simulated_queue import PENDING, Array, Queue
from hpcsweep.cluster.simulated_task import Shared, Task
from hpcsweep.cluster.simulated_training import Curve, Trainings, UnitSeconds
from hpcsweep.core.protocols import Batch, Limits, LiveBatch, Phase, TaskId, TaskShape, TaskState
from hpcsweep.errors import SubmitRefused, SubmitUncertain
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.manifest import Header, ManifestTask

#: When a simulation begins, unless it carries on.
EPOCH_S = 1_000_000_000.0

_header_decoder = msgspec.json.Decoder(Header)
_task_decoder = msgspec.json.Decoder(ManifestTask)


class SimulatedCluster:
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
        settle_s: See `core.protocols.Cluster`, as `grace_s` and `poll_s`.

    Attributes:
        slots: Tasks of the sweep that can run at a time.
        reports: Whether metrics are written while a run goes on; only watching schedulers need them.
        usage: How many tasks ran when.
        ends: How often tasks were interrupted, and by what.
    """

    def __init__(
        self,
        options: SimulatedOptions,
        *,
        shape: TaskShape,
        curve: Curve,
        unit_seconds: UnitSeconds,
        seed: int = 0,
        start: float = EPOCH_S,
        reached: Mapping[int, int] | None = None,
        reports: bool = False,
        settle_s: float = 150.0,
        grace_s: float = 60.0,
        poll_s: tuple[float, float] = (5.0, 60.0),
    ) -> None:
        self.settle_s, self.grace_s, self.poll_s = settle_s, grace_s, poll_s
        self.reports = reports
        self.clock = VirtualClock(start, longest_s=poll_s[1])
        self.usage = Usage(start)
        self.ends: Counter[Phase] = Counter()
        self._options = options
        self.slots = options.nodes * options.places(shape)
        self._draws = Draws(options, seed=seed, grace_s=grace_s)
        self._trainings = Trainings(
            options, curve=curve, unit_seconds=unit_seconds, draws=self._draws, reached=reached or {}
        )
        self._nodes = Nodes(options.nodes, gpus=options.gpus, slots=options.places(TaskShape()))
        self._failures = [Failures(self._draws.node_failures(i), start) for i in range(options.nodes)]
        self._running = [TaskState(Phase.RUNNING, node=name) for name in self._nodes.names]
        self._on_node: list[dict[tuple[int, int], tuple[Array, Task]]] = [{} for _ in range(options.nodes)]
        self._arrays: dict[str, Array] = {}
        self._lost: set[str] = set()
        self._numbers = itertools.count(1)
        self._queue = Queue()

    # ------------------------------------------------------------------ the driver's questions

    def limits(self) -> Limits:
        return Limits(array_tasks=self._options.array_tasks, slots=self.slots)

    def submit(self, batch: Batch) -> str:
        """Queue the array; it may start at this very moment."""
        self._refuse(batch)
        number = next(self._numbers)
        reply = self._draws.reply(number)
        if reply is not Reply.NEVER_SENT:
            self._accept(number, batch)
        if reply is not Reply.GIVEN:
            # As sbatch: the script is there before the cluster is asked.
            BatchLayout(batch.folder).script.write_text("#!/bin/sh\n")
            now = self.clock.time()
            self.clock.wake(now)
            self.clock.wake(now + self.settle_s)
            raise SubmitUncertain(f"{batch.name}: the site did not answer")
        return str(number)

    def find(self, name: str) -> str | None:
        array = self._arrays.get(name)
        return array.shared.job if array else None

    def poll(self, live: Sequence[LiveBatch]) -> Mapping[TaskId, TaskState]:
        """Every open task but those that vanished. Arrays that nobody follows any more are forgotten."""
        self._forget({batch.name for batch in live})
        shown: dict[TaskId, TaskState] = {}
        for batch in live:
            array = self._arrays.get(batch.name)
            if array is None:
                if batch.name not in self._lost:  # submitted by a process that is gone
                    self._lost.add(batch.name)
                    self.clock.wake(self.clock.time() + self.grace_s)
                continue
            array.followed = True
            for task in batch.open_tasks:
                state = array.states[task]
                if state is not None:
                    shown[TaskId(batch.name, task)] = state
            for task in [task for task in array.shared.untold if task not in array.tasks]:
                array.shared.untold.discard(task)
                self.clock.wake(self.clock.time() + self.grace_s)  # so long the driver waits for it
        return shown

    def throttle(self, batch: LiveBatch, tasks: int) -> None:
        array = self._arrays.get(batch.name)
        if array is not None:
            array.throttle = tasks
            self._queue.offer(array)
            self._start_ready()

    def cancel(self, batch: LiveBatch, tasks: Sequence[int]) -> None:
        """Running tasks leave their checkpoints and end at once; waiting ones never start."""
        array = self._arrays.get(batch.name)
        if array is None:
            return
        for task in [array.tasks[index] for index in tasks if index in array.tasks]:
            if task.node is not None:
                task.interrupt()
            self._end(array, task, Phase.CANCELLED)
        self.clock.wake(self.clock.time())
        self._start_ready()

    def _refuse(self, batch: Batch) -> None:
        options = self._options
        if options.places(batch.shape) == 0:
            raise SubmitRefused(f"{batch.name}: no node has {batch.shape.gpus} GPUs, only {options.gpus}")
        if options.array_tasks is not None and batch.tasks > options.array_tasks:
            raise SubmitRefused(
                f"{batch.name}: {batch.tasks} tasks are more than array_tasks {options.array_tasks}"
            )
        if options.max_jobs is not None and self.clock.unfinished + batch.tasks > options.max_jobs:
            raise SubmitRefused(
                f"{batch.name}: {batch.tasks} tasks beside {self.clock.unfinished} are more than "
                f"max_jobs {options.max_jobs}"
            )

    def _accept(self, number: int, batch: Batch) -> None:
        files = BatchLayout(batch.folder)
        make_dirs(files.results)
        header, *lines = files.manifest.read_bytes().splitlines()
        shared = Shared(
            clock=self.clock,
            draws=self._draws,
            trainings=self._trainings,
            header=_header_decoder.decode(header),
            files=files,
            job=str(number),
            reports=self.reports,
            untold=set(),
        )
        array = self._arrays[batch.name] = Array(number, batch, shared)
        for index, line in enumerate(lines):
            runs = _task_decoder.decode(line).runs
            array.tasks[index] = Task(shared, index, runs, functools.partial(self._completed, array))
        self.clock.unfinished += len(lines)
        self._wait(array, array.tasks.values())

    def _forget(self, live: set[str]) -> None:
        if len(self._arrays) > len(live):
            for name, array in list(self._arrays.items()):
                if array.followed and not array.tasks and name not in live:
                    del self._arrays[name]

    # ------------------------------------------------------------------ the queue

    def _wait(self, array: Array, tasks: Iterable[Task]) -> None:
        """Let them wait for as long as each has to."""
        waits: dict[float, list[Task]] = {}
        for task in tasks:
            waits.setdefault(self._draws.wait(task.runs[0], task.restart), []).append(task)
        for wait_s, group in waits.items():
            self.clock.at(self.clock.time() + wait_s, functools.partial(self._waited, array, group))

    def _waited(self, array: Array, tasks: Sequence[Task]) -> bool:
        self._queue.add(array, tasks)
        self._start_ready()
        return False

    def _start_ready(self) -> None:
        """Start the first in the queue, again and again until one finds no room."""
        while (first := self._queue.first()) is not None:
            array, task = first
            node = self._nodes.take(array.shape)
            if node is None:
                return
            self._queue.take()
            self._start(array, task, node)

    # ------------------------------------------------------------------ a task's life

    def _start(self, array: Array, task: Task, node: int) -> None:
        now = self.clock.time()
        self.usage.began(now)
        if task.restart == 0 and any(run.rung == run.attempt == 0 for run in task.runs):
            self.usage.last_first = now
        self._on_node[node][array.number, task.index] = array, task
        array.states[task.index] = self._running[node]
        task.start(node, self._nodes.names[node])
        preempted_s = self._draws.preempted_after(task.runs[0], task.restart)
        limit_s = math.inf if array.shape.time_s is None else float(array.shape.time_s)
        phase = Phase.PREEMPTED if preempted_s < limit_s else Phase.TIMEOUT
        if min(preempted_s, limit_s) < math.inf:
            interrupt = functools.partial(self._interrupt, array, task, task.restart, phase)
            self.clock.at(now + min(preempted_s, limit_s), interrupt)
        failure = self._failures[node].expect(now)
        if failure is not None:
            self.clock.at(failure, functools.partial(self._fail_node, node))

    def _interrupt(self, array: Array, task: Task, restart: int, phase: Phase) -> bool:
        if task.node is None or task.restart != restart:
            return False  # it ended before
        self.ends[phase] += 1
        task.interrupt()
        if phase is Phase.PREEMPTED and self._options.requeue:
            self._free(array, task)
            task.restart += 1
            array.states[task.index] = PENDING
            self._wait(array, [task])
        else:
            self._end(array, task, phase)
        self._start_ready()
        return True

    def _fail_node(self, node: int) -> bool:
        victims = list(self._on_node[node].values())
        self._failures[node].happened()
        for array, task in victims:
            self.ends[Phase.NODE_FAIL] += 1
            task.vanish()
            self._end(array, task, None)
        self._start_ready()
        return bool(victims)

    def _completed(self, array: Array, task: Task) -> None:
        self._end(array, task, Phase.COMPLETED)
        self._start_ready()

    def _end(self, array: Array, task: Task, phase: Phase | None) -> None:
        """It has left the site for good; None: without a trace."""
        node = "" if task.node is None else self._nodes.names[task.node]
        if task.node is not None:
            self._free(array, task)
        array.states[task.index] = None if phase is None else TaskState(phase, node=node)
        del array.tasks[task.index]
        self.clock.unfinished -= 1

    def _free(self, array: Array, task: Task) -> None:
        """It runs no more: its place is for the next one."""
        assert task.node is not None
        self._nodes.give_back(task.node, array.shape)
        del self._on_node[task.node][array.number, task.index]
        task.node = None
        self._queue.leave(array)
        self.usage.left(self.clock.time())
