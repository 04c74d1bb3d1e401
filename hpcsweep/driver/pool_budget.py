"""`gpu_hours` of the pools of a cluster: what each has left, and which get no more tasks. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Pool
from hpcsweep.core.events import PoolSkipped
from hpcsweep.core.state import SweepState

#: With this key the message begins that those of all pools are used up.
POOL_HOURS: Final = "cluster.pools[].gpu_hours"


class NextTask(NamedTuple):
    """A task that may be submitted next.

    Attributes:
        gpu_s: GPU-seconds that it may take.
    """

    gpus: int
    gpu_s: float


class PoolBudget:
    """`cluster.pools[].gpu_hours` as hard caps: tasks count as for `budget.gpu_hours`."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._caps = {pool.name: math.inf if pool.max_gpu_s is None else pool.max_gpu_s for pool in pools}
        #: GPUs of the largest task that each pool can have.
        self.most_gpus: Mapping[str, float] = {
            pool.name: math.inf if pool.max_gpus is None else pool.max_gpus for pool in pools
        }
        #: Those that may come next: runs that wait, and what may be decided; never empty.
        self.next_tasks: Sequence[NextTask] = ()

    @property
    def paths(self) -> list[str]:
        """Key paths of the pools that have a cap."""
        return [f"cluster.pools[{index}]" for index, name in enumerate(self._caps) if self.caps(name)]

    @property
    def capped(self) -> bool:
        """Whether a pool has a cap."""
        return any(map(self.caps, self._caps))

    def caps(self, pool: str) -> bool:
        """Whether this pool has a cap."""
        return self._caps.get(pool, math.inf) < math.inf

    @property
    def least_s(self) -> float:
        """Seconds for which a task that comes next counts at least."""
        return min((task.gpu_s / task.gpus for task in self.next_tasks if task.gpus), default=0.0)

    def unspent_gpu_s(self, state: SweepState) -> dict[str, float]:
        """What is left to each pool once nothing runs there; inf without a cap."""
        return {name: max(0.0, cap - state.pool_gpu_s.get(name, 0.0)) for name, cap in self._caps.items()}

    def unreserved_gpu_s(
        self, state: SweepState, reserved_gpu_s: Callable[[BatchState], float]
    ) -> dict[str, float]:
        """What is left to each pool beside what is spent, and what live batches may take there."""
        left = self.unspent_gpu_s(state)
        for batch in state.live.values():
            if self.caps(batch.pool):
                left[batch.pool] -= reserved_gpu_s(batch)
        return left

    def pays(self, state: SweepState, task: NextTask) -> bool:
        """Whether a pool that is large enough can pay for the task, at the latest once nothing runs there."""
        unspent = self.unspent_gpu_s(state)
        return not unspent or any(
            left >= task.gpu_s and self.most_gpus.get(name, math.inf) >= task.gpus
            for name, left in unspent.items()
        )

    def events(self, state: SweepState, *, now: float) -> list[PoolSkipped]:
        """Pools that get no tasks from now on as they cannot pay for any, or do again."""
        spent = self._spent(state)
        return [
            *(
                PoolSkipped(name, now, reason, spent=True)
                for name, reason in spent.items()
                if name not in state.spent_pools
            ),
            *(PoolSkipped(name, now, spent=True) for name in state.spent_pools if name not in spent),
        ]

    def _spent(self, state: SweepState) -> dict[str, str]:
        """Why pools can pay for none of the next tasks, by pool."""
        found = {}
        for name, left in self.unspent_gpu_s(state).items():
            costs = [task.gpu_s for task in self.next_tasks if task.gpus <= self.most_gpus[name]]
            if self.caps(name) and costs and left < min(costs):
                found[name] = (
                    f"its gpu_hours are used up: {self._use(state, name)} are spent, and one more task may "
                    f"take {min(costs) / 3600:.4g}"
                )
        return found

    def exhausted(self, state: SweepState) -> str | None:
        """Message if no pool can pay for a further task once the submitted ones have ended; else None."""
        if not self.capped or any(self.pays(state, task) for task in self.next_tasks):
            return None
        use = ", ".join(f"{self._use(state, name)} in {name}" for name in self._caps if self.caps(name))
        large = " that is large enough" if len(self._caps) > 1 else ""
        least = min(task.gpu_s for task in self.next_tasks) / 3600
        return (
            f"{POOL_HOURS} are used up: {use} are spent, and no pool{large} can pay for one more task, "
            f"which may take {least:.4g}"
        )

    def _use(self, state: SweepState, pool: str) -> str:
        """For example `9.5 of 10`."""
        return f"{state.pool_gpu_s.get(pool, 0.0) / 3600:.4g} of {self._caps[pool] / 3600:g}"
