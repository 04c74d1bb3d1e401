"""What each of `cluster.pools` means: the keys that hold there, and whose problems are its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcsweep.cluster.slurm.options import OptionValue, resolve
from hpcsweep.cluster.slurm.pools import KEYS, SlurmPool
from hpcsweep.core.cluster_protocol import Pool


def pools_of(pools: Sequence[SlurmPool] | None) -> tuple[Pool, ...]:
    """The same as a driver sees them."""
    return tuple(
        Pool(
            each.shown,
            each.max_gpus,
            each.max_tasks,
            each.preemptible,
            max_gpu_s=None if each.gpu_hours is None else each.gpu_hours * 3600,
        )
        for each in pools or ()
    )


def pool_updates(pool: SlurmPool, options: Mapping[str, OptionValue]) -> dict[str, Any]:
    """What the pool says in place of keys under `cluster`; `options` are the sbatch options there."""
    given = {key: value for key in KEYS if (value := getattr(pool, key)) is not None}
    # sbatch's own options have the last word, so those of the sweep must not hide the pool's keys.
    own = {*given, *(resolve(name, value)[0] for name, value in pool.options.items())}
    kept = {name: value for name, value in options.items() if resolve(name, value)[0] not in own}
    return {**given, "options": {**kept, **pool.options}}


def at_pool(problem: str, index: int, pool: SlurmPool) -> str:
    """The problem with the key path of the pool, where that says it, else with its name."""
    path, colon, rest = problem.partition(": ")
    section, _, key = path.partition(".")
    name = key.partition(".")[0]
    own = key.removeprefix("options.") in pool.options if name == "options" else False
    if section == "cluster" and colon and (own or (name in KEYS and getattr(pool, name) is not None)):
        return f"cluster.pools[{index}].{key}: {rest}"
    return f"{problem} (pool {pool.shown})"


def allows(pool: Pool, gpus: int) -> bool:
    """Whether one task of so many GPUs fits below its cap."""
    return pool.max_gpus is None or gpus <= pool.max_gpus
