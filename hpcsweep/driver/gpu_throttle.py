"""Counts the GPUs and tasks that arrays of different shapes may take. Pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.driver.effects import Step
from hpcsweep.driver.job_control import MOST_TASKS, ThrottleManager
from hpcsweep.driver.pools import pool_rooms
from hpcsweep.driver.room import PoolRoom, Room
from hpcsweep.errors import ClusterUnavailable


class ShapedUsage(NamedTuple):
    """One live array.

    Attributes:
        open: Tasks that may still run. `throttle`: how many of them at a time.
        running: That may run at this moment.
        gpus: That each of them holds.
        pool: Of the cluster, empty for none.
    """

    open: int
    throttle: int
    running: int
    gpus: int
    pool: str = ""


def room_beside(cap: Room, usages: Iterable[ShapedUsage]) -> Room:
    """What is left of the cap beside what arrays may have running."""
    for usage in usages:
        cap = cap.less(usage.gpus, usage.running, usage.pool)
    return cap


def fit_throttles(cap: Room, usages: list[ShapedUsage]) -> list[int]:
    """New throttles that keep to the cap: cut from the newest arrays, or raised oldest first.

    None is cut below 1, which would mean no limit.
    """
    room = room_beside(cap, usages)
    throttles = [usage.throttle for usage in usages]
    if room.missing:
        for index in reversed(range(len(usages))):
            usage = usages[index]
            cut = max(0, min(room.over(usage.gpus, usage.pool), usage.running - 1))
            room = room.less(usage.gpus, -cut, usage.pool)
            throttles[index] = usage.running - cut if cut else usage.throttle
        return throttles
    for index, usage in enumerate(usages):
        more = max(0, min(room.count(usage.gpus, usage.pool), usage.open - usage.running))
        room = room.less(usage.gpus, more, usage.pool)
        throttles[index] = max(usage.throttle, usage.running + more)
    return throttles


class GpuThrottle(ThrottleManager):
    """Keeps arrays of different shapes below `max_gpus` and `max_tasks` at every instant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: GPUs that a task of a shape will hold as the cluster says.
        self._expected: dict[TaskResources, int] = {}
        #: Of batches whose throttle was lowered: what it was, and when the cluster had been asked last.
        self._lowered: dict[str, tuple[int, float]] = {}

    def held_gpus(self, task: TaskResources) -> int:
        """GPUs that a task like this holds at most, as far as is known."""
        if task not in self._expected:
            assert self._cluster is not None
            with contextlib.suppress(ClusterUnavailable):
                self._expected[task] = self._cluster.allocation_of(task).gpus
        asked = task.total_gpus
        return max(asked, self._expected.get(task, 0), self._state.held_gpus.get(asked, 0))

    def _pool_task_gpus(self, pool: str) -> int | None:
        assert self._cluster is not None
        try:
            return self._cluster.pool_task_gpus(pool, nodes=self._settings.shape.nodes)
        except ClusterUnavailable:
            return None

    @property
    def caps(self) -> Room:
        """What all tasks may take together."""
        tasks = [each for each in (self._settings.max_tasks, self.cluster_slots) if each is not None]
        gpus = [each for each in (self._settings.max_gpus, self.cluster_gpus) if each is not None]
        pools: tuple[PoolRoom, ...] = ()
        if self._cluster is not None and self._cluster.pools:
            pools = pool_rooms(self._cluster.pools, self._state, task_gpus=self._pool_task_gpus)
        return Room(min(tasks, default=MOST_TASKS), min(gpus, default=math.inf), pools)

    @property
    def room(self) -> Room:
        """What new tasks may take, with what the task holds that this driver runs in."""
        return self._room(host=False)

    def _room(self, *, host: bool) -> Room:
        return room_beside(self.caps, self._shaped_usages(host=host))

    @property
    def held_beyond(self) -> Room:
        """What is left of the caps beside the tasks that hold something."""
        room = self.caps
        for batch in self._state.live.values():
            room = room.less(batch.task_gpus, self._monitor.held_tasks(batch), batch.pool)
        return room

    @property
    def dependency(self) -> str:
        if self._host is None or not self._host.batch or not self._room(host=True).missing:
            return ""
        return self._host.job

    def rethrottle(self, wanted: int | None = None) -> Step:
        usages = self._shaped_usages()
        throttles = fit_throttles(self.caps, usages)
        for batch, usage, throttle in zip(self._state.live.values(), usages, throttles, strict=True):
            if batch.job is not None and throttle < usage.throttle:
                self._lowered[batch.name] = usage.running, self._monitor.polled_at
        return self._set_throttles(throttles)

    def _shaped_usages(self, *, host: bool = True) -> list[ShapedUsage]:
        return [self._usage(batch, host=host) for batch in self._state.live.values()]

    def _usage(self, batch: BatchState, *, host: bool) -> ShapedUsage:
        less = int(not host and self._is_host(batch))
        open_ = self._monitor.open_tasks(batch) - less
        running = max(self._monitor.held_tasks(batch) - less, min(open_, batch.throttle))
        before, at = self._lowered.get(batch.name, (0, -math.inf))
        if self._monitor.polled_at <= at:  # one more may have begun before it was lowered
            running = max(running, min(open_, before))
        return ShapedUsage(open_, batch.throttle, running, batch.task_gpus, batch.pool)
