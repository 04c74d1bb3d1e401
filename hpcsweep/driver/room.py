"""The GPUs and tasks that a sweep may take, in all and of each pool of its cluster. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

#: More than any sweep has.
_MANY = 10**9


class PoolRoom(NamedTuple):
    """What tasks may take of one pool beside those that are there; negative where there is too much.

    Attributes:
        most_gpus: Of it for all tasks together.
        open: Whether new tasks are submitted to it, as long as another one can take them.
        preemptible: It gets short runs first.
        gpu_s: GPU-seconds that new tasks may cost there; what tasks give back when they end is not in it.
        least_s: Seconds for which one of them counts at least.
    """

    name: str
    tasks: float = math.inf
    gpus: float = math.inf
    most_gpus: float = math.inf
    open: bool = True
    preemptible: bool = False
    gpu_s: float = math.inf
    least_s: float = 0.0

    def pays(self, gpus: int, gpu_s: float | None = None) -> bool:
        """Whether it can pay for a task of so many GPUs that costs so much; None: the least."""
        return self.gpu_s >= (gpus * self.least_s if gpu_s is None else gpu_s)

    def count(self, gpus: int, gpu_s: float | None = None) -> int:
        """How many tasks of so many GPUs fit that cost so much each; None: the least."""
        most = _count(self.tasks, self.gpus, gpus)
        cost = gpus * self.least_s if gpu_s is None else gpu_s
        return most if math.isinf(self.gpu_s) or not cost else max(0, min(most, int(self.gpu_s // cost)))

    def less(self, gpus: int, tasks: int, gpu_s: float | None = None) -> PoolRoom:
        """What is left beside so many tasks more."""
        cost = gpus * self.least_s if gpu_s is None else gpu_s
        left = self.gpu_s - max(0, tasks) * cost
        return self._replace(tasks=self.tasks - tasks, gpus=self.gpus - tasks * gpus, gpu_s=left)


class Room(NamedTuple):
    """What tasks may take beside those that are there; negative where there is too much.

    A task of a pool takes room of that pool too. One of a pool that is not known, or of none, takes only
    that of the sweep.

    Attributes:
        pools: In the order in which they get tasks; empty where the cluster has none.
    """

    tasks: float
    gpus: float
    pools: tuple[PoolRoom, ...] = ()

    def paid(self, gpu_s: Mapping[str, float], *, least_s: float) -> Room:
        """The same where new tasks may cost so much in each pool, and count for so long at least."""
        pools = (each._replace(gpu_s=max(0.0, gpu_s[each.name]), least_s=least_s) for each in self.pools)
        return self._replace(pools=tuple(pools))

    def usable(self, gpus: int, gpu_s: float | None = None) -> list[PoolRoom]:
        """The pools that get tasks of so many GPUs: the open ones, or all if no open one is so large.

        One that cannot pay `gpu_s` for a task counts as too small.
        """
        large = [pool for pool in self.pools if pool.most_gpus >= gpus and pool.pays(gpus, gpu_s)]
        return [pool for pool in large if pool.open] or large

    def count(self, gpus: int, pool: str | None = None, *, gpu_s: float | None = None) -> int:
        """How many tasks of so many GPUs fit, into this pool or (None) where new ones go.

        Each may cost so many GPU-seconds; None: the least of any.
        """
        most = _count(self.tasks, self.gpus, gpus)
        if not self.pools:
            return most
        if pool is not None:
            found = [each for each in self.pools if each.name == pool]
            return min([most, *(each.count(gpus, gpu_s) for each in found)])
        return min(most, sum(each.count(gpus, gpu_s) for each in self.usable(gpus, gpu_s)))

    def less(self, gpus: int, tasks: int = 1, pool: str | None = None, *, gpu_s: float | None = None) -> Room:
        """What is left beside so many tasks more of so many GPUs, in this pool or (None) as they come."""
        taken: dict[str, int] = {}
        if pool is not None:
            taken[pool] = tasks
        elif self.pools:
            left = tasks
            for each in self.usable(gpus, gpu_s):
                taken[each.name] = min(left, each.count(gpus, gpu_s))
                left -= taken[each.name]
        pools = self.pools
        if any(taken.values()) and pools:
            pools = tuple(
                each.less(gpus, count, gpu_s) if (count := taken.get(each.name, 0)) else each
                for each in pools
            )
        return Room(self.tasks - tasks, self.gpus - tasks * gpus, pools)

    @property
    def missing(self) -> bool:
        """Whether there is too much."""
        return self.tasks < 0 or self.gpus < 0 or any(each.tasks < 0 or each.gpus < 0 for each in self.pools)

    @property
    def most_gpus(self) -> float:
        """Of a single task, beside nothing else."""
        return min([self.gpus, *([max(pool.most_gpus for pool in self.pools)] if self.pools else [])])

    def over(self, gpus: int, pool: str = "") -> int:
        """How many tasks of so many GPUs in this pool are too many."""
        lacks = [0.0, -self.tasks, -self.gpus / gpus if gpus else 0.0]
        for each in self.pools:
            if each.name == pool:
                lacks += [-each.tasks, -each.gpus / gpus if gpus else 0.0]
        return math.ceil(max(lacks))

    def fits(self, wanted: Iterable[tuple[int, int]]) -> bool:
        """Whether all of these can be there: GPUs of a task, and how many of it."""
        room = self
        for gpus, tasks in wanted:
            if tasks > room.count(gpus):
                return False
            room = room.less(gpus, tasks)
        return not room.missing

    def assign(self, tasks: Sequence[tuple[int, float]], gpu_s: Sequence[float] = ()) -> list[str | None]:
        """The pool of each task, given its GPUs and how long its run is; None where there is no room for it.

        Pools are filled in their order, with the tasks in theirs; preemptible ones with the shortest first.
        Empty names where there are no pools. `gpu_s` is what each task may cost, where pools have caps.
        """
        found: list[str | None] = [None] * len(tasks)
        room = self
        for pool in self.pools or (PoolRoom(""),):
            order = [index for index, name in enumerate(found) if name is None]
            if pool.preemptible:
                order.sort(key=lambda index: tasks[index][1])
            for index in order:
                gpus, cost = tasks[index][0], gpu_s[index] if gpu_s else None
                usable = not self.pools or pool.name in {each.name for each in self.usable(gpus, cost)}
                if usable and room.count(gpus, pool.name, gpu_s=cost):
                    found[index], room = pool.name, room.less(gpus, pool=pool.name, gpu_s=cost)
        return found


def _count(tasks: float, gpus: float, each: int) -> int:
    """How many tasks of so many GPUs each fit."""
    found = min(tasks, gpus // each if each else math.inf)
    return max(0, int(found)) if found < math.inf else _MANY
