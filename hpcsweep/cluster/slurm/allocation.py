"""What a task will hold of a site, beyond what it asks for: whole nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hpcsweep.cluster.slurm.options import OptionValue
from hpcsweep.cluster.slurm.requests import ResourceRequest, may_be_used, wanted_partitions
from hpcsweep.cluster.slurm.sbatch_options import takes_whole_nodes
from hpcsweep.cluster.slurm.site import Node, SlurmSite
from hpcsweep.core.cluster_protocol import TaskAllocation, TaskResources


def holding(
    site: SlurmSite, request: ResourceRequest, shape: TaskResources, options: Mapping[str, OptionValue]
) -> TaskAllocation:
    """What one task of this shape will hold at most; what it asks for where the nodes are not known.

    Args:
        site: As Slurm describes it.
        request: Where the tasks may run.
        shape: What a task asks for.
        options: Every sbatch option of the batch, those of the template with them.
    """
    option = takes_whole_nodes(options)
    nodes: dict[str, Node] = {}
    reason = ""
    for partition in wanted_partitions(site, request):
        if option:
            why = f"--{option} takes whole nodes"
        elif site.whole_nodes:
            why = "this site gives whole nodes (SelectType=select/linear)"
        elif partition.exclusive:
            why = f"partition {partition.name} gives whole nodes (OverSubscribe=EXCLUSIVE)"
        else:
            continue
        reason = reason or why
        nodes |= {
            n.name: n for n in site.nodes_of(partition.name) if may_be_used(n, request) and _fits(n, shape)
        }
    gpus = max((sum(node.gpus.values()) for node in nodes.values()), default=shape.gpus)
    cpus = max((node.cpus for node in nodes.values()), default=shape.cpus)
    held = TaskAllocation(max(gpus, shape.gpus), max(cpus, shape.cpus), reason)
    return (
        held
        if held != TaskAllocation(shape.gpus, shape.cpus, reason)
        else TaskAllocation(shape.gpus, shape.cpus)
    )


def tick_warning(site: SlurmSite, request: ResourceRequest, options: Mapping[str, OptionValue]) -> str:
    """That the small jobs that tick a detached sweep hold GPUs, and what to do; empty if they hold none.

    Args:
        site: As Slurm describes it.
        request: Where they run.
        options: Every sbatch option of such a job.
    """
    held = holding(site, request, TaskResources(), options)
    if not held.gpus:
        return ""
    others = [
        partition.name
        for partition in site.partitions
        if partition.state == "UP"
        and site.nodes_of(partition.name)
        and not holding(site, ResourceRequest(partitions=(partition.name,)), TaskResources(), {}).gpus
    ]
    # Best where there are no GPUs at all, which others wait for.
    others.sort(key=lambda name: any(node.gpus for node in site.nodes_of(name)))
    other = others[0] if others else "..."
    which = "" if others else ", one that shares its nodes or has no GPUs"
    return (
        f"each small job that ticks the sweep holds {held.gpus} GPUs for some seconds, beyond "
        f"cluster.max_gpus: {held.why}; give such jobs a partition of their own by "
        f"cluster.tick_options: {{partition: {other}}}{which}"
    )


def _fits(node: Node, shape: TaskResources) -> bool:
    return sum(node.gpus.values()) >= shape.gpus and node.cpus >= shape.cpus
