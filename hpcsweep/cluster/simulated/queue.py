"""The queue of a simulated site: arrays in the order of their submission, each held to its throttle."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from hpcsweep.cluster.simulated.task import ArrayContext, Task
from hpcsweep.core.cluster_protocol import Batch, Phase, TaskState

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
