"""What `plan` shows of the pools of a cluster: their order and caps, and how their scripts differ."""

from __future__ import annotations

import msgspec
import typer

from hpcsweep.core.cluster_protocol import Batch, Pool, TaskResources
from hpcsweep.core.text import plural
from hpcsweep.session.session import Session


def pool_line(pool: Pool) -> str:
    """For example `a100, at most 16 GPUs`."""
    caps = [
        plural(pool.max_gpus, "GPU") if pool.max_gpus is not None else "",
        plural(pool.max_tasks, "task") if pool.max_tasks is not None else "",
    ]
    most = " and ".join(filter(None, caps))
    hours = f", {pool.max_gpu_s / 3600:g} GPU-hours in all" if pool.max_gpu_s is not None else ""
    return pool.name + (f", at most {most}" if most else "") + hours + ", short runs first" * pool.preemptible


def is_capped(session: Session, pool: Pool | None) -> bool:
    """Whether GPU-hours of tasks of this pool (None: of the only one) are capped; as `GpuBudget.caps`."""
    hours = session.spec.budget.gpu_hours, None if pool is None else pool.max_gpu_s
    return session.target.shape.gpus > 0 and hours != (None, None)


def first_is_capped(session: Session) -> bool:
    """As `is_capped`, of the pool as which scripts are shown first."""
    return is_capped(session, next(iter(session.target.cluster.pools), None))


def print_pools(session: Session) -> None:
    """Print the pools in the order in which they get tasks; nothing where there are none."""
    pools = session.target.cluster.pools
    if pools:
        typer.echo(f"pools, in this order: {'; '.join(map(pool_line, pools))}")


def print_pool_scripts(session: Session, shape: TaskResources) -> None:
    """Print for each pool but the first the lines of its scripts that differ from those of the first."""
    cluster = session.target.cluster
    name = f"{session.spec.name}-SWEEP-1-1"
    folder = session.layout.batch(name).root
    first: list[str] = []
    for pool in cluster.pools:
        own = msgspec.structs.replace(shape, pool=pool.name)
        script = cluster.script(Batch(name, folder, 1, 1, own, requeue=not is_capped(session, pool)))
        if script is None:
            return
        lines = script.splitlines()
        if first:
            typer.echo(f"\nin pool {pool.name} in place of those of {cluster.pools[0].name}:")
            for sign, of, other in (("-", first, lines), ("+", lines, first)):
                for line in of:
                    if line not in other:
                        typer.echo(f"{sign} {line}")
        first = first or lines
