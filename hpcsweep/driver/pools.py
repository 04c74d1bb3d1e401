"""Which pools of the cluster are passed over for a while, as their tasks do not start. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, Pool, TaskId
from hpcsweep.core.events import PoolSkipped
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.room import PoolRoom, Room

#: For so long tasks of a pool may wait while none begins there; then other pools get new tasks.
PATIENCE_S: Final = 600.0
#: After so long one that has no tasks is tried again.
RETRY_S: Final = 3600.0


class PoolActivity(NamedTuple):
    """What the tasks of a pool do.

    Attributes:
        waiting: Those that have never begun and that nothing of ours holds back.
        since: When the first of them was submitted; Unix time.
        begun: When one began last, None where none is known to have.
    """

    waiting: list[TaskId]
    since: float
    begun: float | None


def pool_rooms(
    pools: Sequence[Pool], state: SweepState, *, task_gpus: Callable[[str], int | None] = lambda _: None
) -> tuple[PoolRoom, ...]:
    """The room of each pool, with nothing in it; `task_gpus` is what one task can have there at most."""
    return tuple(
        PoolRoom(
            pool.name,
            tasks=math.inf if pool.max_tasks is None else pool.max_tasks,
            gpus=(most := math.inf if pool.max_gpus is None else pool.max_gpus),
            most_gpus=most if (holds := task_gpus(pool.name)) is None else min(most, holds),
            open=pool.name not in state.skipped_pools,
            preemptible=pool.preemptible,
        )
        for pool in pools
    )


def pool_activity(pool: str, state: SweepState, monitor: JobMonitor, *, now: float) -> PoolActivity:
    """What the tasks of this pool do, as the last poll showed them."""
    waiting: list[TaskId] = []
    since, begun = now, 0.0
    for batch in state.live.values():
        if batch.pool != pool:
            continue
        tasks = _waiting_tasks(batch, monitor)
        waiting += [TaskId(batch.name, task) for task in tasks]
        since = min(since, batch.planned_at) if tasks else since
        begun = max([begun, *_begun(batch, monitor, now=now)])
    return PoolActivity(waiting, since, begun or None)


def _waiting_tasks(batch: BatchState, monitor: JobMonitor) -> list[int]:
    if batch.job is None:
        return []
    shown = (monitor.states.get(TaskId(batch.name, task)) for task in range(len(batch.tasks)))
    pending = [
        task
        for task, state in enumerate(shown)
        if state is not None and state.phase is Phase.PENDING and task not in batch.starts
    ]
    return pending[: max(0, batch.throttle - monitor.held_tasks(batch))]


def _begun(batch: BatchState, monitor: JobMonitor, *, now: float) -> Iterator[float]:
    yield from (start.began for start in batch.starts.values())
    for task in range(len(batch.tasks)) if not batch.reuse else ():
        state = monitor.states.get(TaskId(batch.name, task))
        if state is not None and state.phase is not Phase.PENDING and state.seconds is not None:
            yield now - state.seconds


def skip_events(
    pools: Sequence[Pool], state: SweepState, monitor: JobMonitor, *, now: float
) -> list[PoolSkipped]:
    """Pools that get no tasks from now on, or do again."""
    events = []
    for pool in pools if len(pools) > 1 else ():
        found, skipped = pool_activity(pool.name, state, monitor, now=now), state.skipped_pools.get(pool.name)
        if skipped is None:
            waited_s = now - max(found.since, found.begun or 0.0)
            if found.waiting and waited_s >= PATIENCE_S:
                reason = f"{plural(len(found.waiting), 'task')} waited for {int(waited_s / 60)} minutes there"
                events.append(PoolSkipped(pool.name, now, reason))
        elif (found.begun or 0.0) > skipped.at or (not found.waiting and now - skipped.at >= RETRY_S):
            events.append(PoolSkipped(pool.name, now))
    return events


def is_passed_over(batch: BatchState, room: Room) -> bool:
    """Whether tasks like those of the batch would go to another pool now."""
    names = {pool.name for pool in room.usable(batch.task_gpus)}
    skipped = {pool.name for pool in room.pools if not pool.open}
    return batch.pool in skipped - names
