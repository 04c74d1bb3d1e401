"""Pools of the cluster: what each holds, and what each has cost, as the journal tells."""

from __future__ import annotations

from typing import Any

from hpcsweep.core.batches import BatchState
from hpcsweep.core.state import SweepState


def pool_records(state: SweepState) -> list[dict[str, Any]]:
    """The pools that had tasks, as `status --json` has them.

    `gpus` are those of tasks that keep them and have begun, `submitted_gpus` those of all tasks that wait or
    run; `skipped` is why it gets no tasks for a while, else None, and `since` when that began.
    """
    live = [batch for batch in state.live.values() if batch.pool]
    names = dict.fromkeys([*state.pool_gpu_s, *(batch.pool for batch in live), *state.skipped_pools])
    records = []
    for name in sorted(names):
        mine = [batch for batch in live if batch.pool == name]
        skipped = state.skipped_pools.get(name)
        records.append(
            {
                "name": name,
                "gpus": sum(map(_begun_gpus, mine)),
                "submitted_gpus": sum(batch.open_tasks * batch.task_gpus for batch in mine),
                "gpu_hours": round(state.pool_gpu_s.get(name, 0.0) / 3600, 6),
                "skipped": skipped.reason if skipped else None,
                "since": skipped.at if skipped else None,
            }
        )
    return records


def _begun_gpus(batch: BatchState) -> int:
    return sum(batch.gpus_of(task) for task, start in batch.starts.items() if start.left is None)
