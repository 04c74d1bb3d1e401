"""A simulated site: its nodes, its queue, and how tasks start and end there."""

from __future__ import annotations

import functools
import heapq
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.cluster.simulated.clock import VirtualClock
from hpcsweep.cluster.simulated.faults import FaultSampler
from hpcsweep.cluster.simulated.nodes import Failures, Nodes, Usage
from hpcsweep.cluster.simulated.reused_task import ReusedTask
from hpcsweep.cluster.simulated.task import ArrayContext, Task, TrainingModel
from hpcsweep.core.cluster_protocol import Batch, Phase, TaskResources, TaskState
from hpcsweep.store.batch import Header, ManifestTask
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout

_header_decoder = msgspec.json.Decoder(Header)
_task_decoder = msgspec.json.Decoder(ManifestTask)


class Site:
    """Runs arrays, whoever looks.

    Attributes:
        arrays: Those that the site knows of, by name.
        usage: How many tasks ran when.
        ends: How often tasks were interrupted, and by what.
        nodes: Their names.
    """

    def __init__(
        self,
        options: SimulatedOptions,
        *,
        clock: VirtualClock,
        faults: FaultSampler,
        trainings: TrainingModel,
        by_gpu: bool = False,
    ) -> None:
        start = clock.time()
        self.arrays: dict[str, Array] = {}
        self.usage = Usage(start)
        self.ends: Counter[Phase] = Counter()
        self._options = options
        self._clock = clock
        self._faults = faults
        self._trainings = trainings
        self._by_gpu = by_gpu
        self._nodes = Nodes(options.nodes, gpus=options.gpus, slots=options.places(TaskResources()))
        self.nodes = tuple(self._nodes.names)
        self._failures = [Failures(faults.node_failures(i), start) for i in range(options.nodes)]
        self._on_node: list[dict[tuple[int, int], tuple[Array, Task]]] = [{} for _ in range(options.nodes)]
        self._nodes_of: dict[tuple[int, int], tuple[int, ...]] = {}
        self._queue = Queue()

    # ------------------------------------------------------------------ what a controller is told

    def accept(self, number: int, batch: Batch, *, reports: bool) -> None:
        """Queue the array as job `number`; it may start at this very moment."""
        files = BatchLayout(batch.folder)
        if not files.manifest.exists():  # abandoned, and compacted by now: its tasks leave at once
            return
        make_dirs(files.results)
        header, *lines = files.manifest.read_bytes().splitlines()
        shared = ArrayContext(
            clock=self._clock,
            faults=self._faults,
            trainings=self._trainings,
            header=_header_decoder.decode(header),
            files=files,
            job=str(number),
            reports=reports,
            unreported=set(),
        )
        array = self.arrays[batch.name] = Array(number, batch, shared)
        for index, line in enumerate(lines):
            runs, ended = _task_decoder.decode(line).runs, functools.partial(self._completed, array)
            reuse = shared.header.reuse
            array.tasks[index] = (
                Task(shared, index, list(runs), ended)
                if reuse is None
                else ReusedTask(shared, index, ended, reuse=reuse, hand_over_s=self._options.hand_over)
            )
        self._clock.unfinished += len(lines)
        self._wait(array, array.tasks.values())

    def hand_over(self) -> None:
        """Let tasks that wait for a run look for one: the driver has just been at work."""
        for array in self.arrays.values():
            waiting = [task for task in array.tasks.values() if isinstance(task, ReusedTask) and task.waits]
            if waiting:
                names = (
                    frozenset(os.listdir(array.shared.files.assignments))
                    if array.shared.files.assignments.exists()
                    else frozenset()
                )
                for task in waiting:
                    task.look(names)

    def throttle(self, array: Array, tasks: int) -> None:
        """At most so many of its tasks at a time from now on."""
        array.throttle = tasks
        self._queue.offer(array)
        self._start_ready()

    def cancel(self, array: Array, indices: Sequence[int]) -> None:
        """Running tasks leave their checkpoints and end at once; waiting ones never start."""
        for task in [array.tasks[index] for index in indices if index in array.tasks]:
            if task.node is not None:
                task.interrupt()
            self._end(array, task, Phase.CANCELLED)
        self._clock.wake(self._clock.time())
        self._start_ready()

    # ------------------------------------------------------------------ the queue

    def _wait(self, array: Array, tasks: Iterable[Task]) -> None:
        """Let them wait for as long as each has to."""
        waits: dict[float, list[Task]] = {}
        limit_s = array.shape.time_s or self._options.time_limit or math.inf
        for task in tasks:
            wait_s = self._faults.wait(task.draws, task.restart, limit_s=limit_s)
            waits.setdefault(wait_s, []).append(task)
        for wait_s, group in waits.items():
            self._clock.at(self._clock.time() + wait_s, functools.partial(self._waited, array, group))

    def _waited(self, array: Array, tasks: Sequence[Task]) -> bool:
        self._queue.add(array, tasks)
        self._start_ready()
        return False

    def _start_ready(self) -> None:
        """Start the first in the queue, again and again until one finds no room."""
        while (first := self._queue.first()) is not None:
            array, task = first
            nodes = self._nodes.allocate(array.shape, array.exclude)
            if not nodes:
                return
            self._queue.take()
            self._start(array, task, nodes)

    # ------------------------------------------------------------------ a task's life

    def _start(self, array: Array, task: Task, nodes: tuple[int, ...]) -> None:
        now, node = self._clock.time(), nodes[0]
        self.usage.began(now, self._units(array))
        if task.restart == 0 and any(run.rung == run.attempt == 0 for run in task.runs):
            self.usage.last_first = now
        self._nodes_of[array.number, task.index] = nodes
        for each in nodes:
            self._on_node[each][array.number, task.index] = array, task
        array.states[task.index] = TaskState(Phase.RUNNING, node=self.nodes[node])
        limit_s = array.shape.time_s or self._options.time_limit or math.inf
        task.start(node, self.nodes[node], ends=now + limit_s)
        preempted_s = self._faults.preempted_after(task.draws, task.restart)
        phase = Phase.PREEMPTED if preempted_s < limit_s else Phase.TIMEOUT
        if min(preempted_s, limit_s) < math.inf:
            interrupt = functools.partial(self._interrupt, array, task, task.restart, phase)
            self._clock.at(now + min(preempted_s, limit_s), interrupt)
        for each in nodes:
            failure = self._failures[each].expect(now)
            if failure is not None:
                self._clock.at(failure, functools.partial(self._fail_node, each))

    def _interrupt(self, array: Array, task: Task, restart: int, phase: Phase) -> bool:
        if task.node is None or task.restart != restart:
            return False  # it ended before
        self.ends[phase] += 1
        task.interrupt()
        if phase is Phase.PREEMPTED and self._options.requeue and array.requeue:
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
            self._end(array, task, Phase.NODE_FAIL)
        self._start_ready()
        return bool(victims)

    def _completed(self, array: Array, task: Task) -> None:
        self._end(array, task, Phase.COMPLETED)
        self._start_ready()

    def _end(self, array: Array, task: Task, phase: Phase) -> None:
        """It has left the site for good."""
        node, seconds = "", 0.0
        if task.node is not None:
            node, seconds = self.nodes[task.node], self._clock.time() - task.began
            self._free(array, task)
        array.states[task.index] = TaskState(phase, node=node, seconds=seconds)
        del array.tasks[task.index]
        self._clock.unfinished -= 1
        if self._options.forgets is not None:
            forget = functools.partial(self._forget, array, task.index)
            self._clock.at(self._clock.time() + self._options.forgets, forget)

    def _forget(self, array: Array, index: int) -> bool:
        array.states[index] = None
        if not any(array.states):
            self.arrays.pop(array.name, None)
        return False

    def _free(self, array: Array, task: Task) -> None:
        """It runs no more: its place is for the next one."""
        assert task.node is not None
        nodes = self._nodes_of.pop((array.number, task.index))
        self._nodes.release(nodes, array.shape)
        for node in nodes:
            del self._on_node[node][array.number, task.index]
        task.node = None
        self._queue.leave(array)
        self.usage.left(self._clock.time(), self._units(array))

    def _units(self, array: Array) -> int:
        """What one of its tasks counts in the usage."""
        return max(1, array.shape.total_gpus) if self._by_gpu else 1


PENDING = TaskState(Phase.PENDING, "Resources")


class Array:
    """One array on the site.

    Attributes:
        tasks: Those that wait or run, by index.
        states: Of every task as the site shows it; None for one that it has forgotten.
        exclude: Nodes that its tasks stay away from.
        requeue: Whether its tasks may be run again by the site itself.
        eligible: Heap of tasks whose wait is over, held back by the throttle.
        offered: Tasks that may start or run now: at most as many as the throttle allows.
        followed: Whether a driver has asked about it.
    """

    def __init__(self, number: int, batch: Batch, shared: ArrayContext) -> None:
        self.number = number
        self.name = batch.name
        self.shape = batch.shape
        self.exclude = frozenset(batch.exclude)
        self.requeue = batch.requeue
        self.throttle = batch.throttle
        self.shared = shared
        self.tasks: dict[int, Task] = {}
        self.states: list[TaskState | None] = [PENDING] * batch.tasks
        self.eligible: list[int] = []
        self.offered = 0
        self.running = 0
        self.followed = False


class Queue:
    """Who starts next: the lowest index of the oldest array that its throttle lets through."""

    def __init__(self) -> None:
        self._ready: list[tuple[int, int, Array]] = []

    def add(self, array: Array, tasks: Iterable[Task]) -> None:
        """Their wait is over."""
        for task in tasks:
            heapq.heappush(array.eligible, task.index)
        self.offer(array)

    def offer(self, array: Array) -> None:
        """Let through what the array's throttle allows now."""
        while array.eligible and array.offered < array.throttle:
            heapq.heappush(self._ready, (array.number, heapq.heappop(array.eligible), array))
            array.offered += 1

    def first(self) -> tuple[Array, Task] | None:
        """The next one to start; it stays in the queue until it is taken."""
        while self._ready:
            _, index, array = self._ready[0]
            task = array.tasks.get(index)
            if task is not None and array.running < array.throttle:
                return array, task
            heapq.heappop(self._ready)
            array.offered -= 1
            if task is None:  # cancelled while it waited
                self.offer(array)
            else:  # the throttle was lowered meanwhile
                heapq.heappush(array.eligible, index)
        return None

    def take(self) -> None:
        """The first one starts."""
        _, _, array = heapq.heappop(self._ready)
        array.running += 1

    def leave(self, array: Array) -> None:
        """One of its tasks runs no more."""
        array.running -= 1
        array.offered -= 1
        self.offer(array)
