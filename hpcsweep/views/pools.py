"""Pools of the cluster: what each holds, and what each has cost, as the journal tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcsweep.core.batches import BatchState
from hpcsweep.core.state import SweepState


def pool_records(state: SweepState, cluster: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pools that had tasks, as `status --json` has them; `cluster` is that section of the spec.

    `gpus` are those of tasks that keep them and have begun, `submitted_gpus` those of all tasks that wait or
    run; `budget_gpu_hours` is the cap of `gpu_hours`; `skipped` is why it gets no tasks, else None, and
    `since` when that began.
    """
    caps = _caps(cluster)
    live = [batch for batch in state.live.values() if batch.pool]
    passed_over = state.skipped_pools | state.spent_pools
    names = dict.fromkeys([*state.pool_gpu_s, *(batch.pool for batch in live), *passed_over])
    records = []
    for name in sorted(names):
        mine = [batch for batch in live if batch.pool == name]
        skipped = passed_over.get(name)
        records.append(
            {
                "name": name,
                "gpus": sum(map(_begun_gpus, mine)),
                "submitted_gpus": sum(batch.open_tasks * batch.task_gpus for batch in mine),
                "gpu_hours": round(state.pool_gpu_s.get(name, 0.0) / 3600, 6),
                "budget_gpu_hours": caps.get(name),
                "skipped": skipped.reason if skipped else None,
                "since": skipped.at if skipped else None,
            }
        )
    return records


def _caps(cluster: Mapping[str, Any]) -> dict[str, float]:
    """`gpu_hours` of the pools that have a cap, as far as they can be read."""
    pools = cluster.get("pools")
    given = [pool for pool in pools if isinstance(pool, dict)] if isinstance(pools, list) else []
    return {
        str(pool.get("name") or pool.get("partition") or ""): float(hours)
        for pool in given
        if isinstance(hours := pool.get("gpu_hours"), int | float)
    }


def _begun_gpus(batch: BatchState) -> int:
    return sum(batch.gpus_of(task) for task, start in batch.starts.items() if start.left is None)
