"""What a sweep asks of a site, against its limits: what may be queued, what never runs, what is held."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from hpcsweep.cluster.slurm.options import OptionValue, SlurmOptions, takes_whole_nodes
from hpcsweep.cluster.slurm.site import (
    Association,
    Node,
    Partition,
    Qos,
    SlurmSite,
    hosts_of,
    seconds_of_limit,
)
from hpcsweep.core.cluster_protocol import DefaultLimits, Limits, TaskAllocation, TaskResources

#: Slurm's QOS for jobs of users that have none of their own.
NORMAL: Final = "normal"


class ResourceRequest(msgspec.Struct, frozen=True):
    """What a sweep's batches ask of the site besides their shape.

    Attributes:
        partitions: Any of these will do; empty for the site's default.
        gpu_type: None takes any.
        constraint: Features of its nodes, as Slurm writes them.
        nodelist: Names of nodes that alone may be used, as Slurm writes them; `exclude`: that may not.
        time_s: Time limit where the shape has none; None leaves it to the site.
    """

    partitions: tuple[str, ...] = ()
    account: str | None = None
    qos: str | None = None
    gpu_type: str | None = None
    constraint: str = ""
    nodelist: str = ""
    exclude: str = ""
    time_s: int | None = None


def request_from_options(requested: Mapping[str, object], *, gpu_type: str | None) -> ResourceRequest:
    """What a batch with these sbatch options asks for, the user's own defaults counted."""

    def given(option: str, variable: str) -> str | None:
        return str(requested.get(option) or os.environ.get(variable) or "") or None

    partitions = (given("partition", "SBATCH_PARTITION") or "").split(",")
    return ResourceRequest(
        partitions=tuple(name.strip() for name in partitions if name.strip()),
        account=given("account", "SBATCH_ACCOUNT"),
        qos=given("qos", "SBATCH_QOS"),
        gpu_type=gpu_type,
        constraint=given("constraint", "SBATCH_CONSTRAINT") or "",
        nodelist=given("nodelist", "") or "",
        exclude=given("exclude", "SBATCH_EXCLUDE") or "",
        time_s=seconds_of_limit(os.environ.get("SBATCH_TIMELIMIT", "")),
    )


def without_user_options(shape: TaskResources, options: SlurmOptions) -> TaskResources:
    """The shape less what options of the user's own replace: of that we do not know what it asks for."""
    theirs = {key.lstrip("-").replace("_", "-") for key in options.options}
    return msgspec.structs.replace(
        shape,
        gpus=0 if theirs & {"gres", "gpus", "gpus-per-node", "gpus-per-task"} else shape.gpus,
        cpus=1 if theirs & {"cpus-per-task", "cpus-per-gpu"} else shape.cpus,
        mem_mib=None if theirs & {"mem", "mem-per-cpu", "mem-per-gpu"} else shape.mem_mib,
    )


def wanted_partitions(site: SlurmSite, request: ResourceRequest) -> list[Partition]:
    """Those that the site has of the partitions asked for, or the default one."""
    if request.partitions:
        return [partition for partition in site.partitions if partition.name in request.partitions]
    return [partition for partition in site.partitions if partition.default]


def wanted_nodes(site: SlurmSite, request: ResourceRequest) -> list[Node]:
    """The nodes of those partitions."""
    partitions = wanted_partitions(site, request)
    nodes = {node.name: node for partition in partitions for node in site.nodes_of(partition.name)}
    return list(nodes.values())


def limits_of(site: SlurmSite, request: ResourceRequest) -> Limits:
    """What the driver has to know."""
    partitions = wanted_partitions(site, request)
    submits = [site.max_jobs, *(_submits(site, request, partition) for partition in partitions)]
    times = [_time_s(site, request, partition, TaskResources()) for partition in partitions]
    most = [(each.max_time_s, _wall(site, request, each)[0]) for each in partitions if each.takes_jobs]
    return Limits(
        array_tasks=site.max_array_size,
        queued_tasks=_smallest(submits),
        time_s=None if not times or None in times else max(time for time in times if time is not None),
        most_times_s=tuple(sorted({min(filter(None, each)) for each in most if any(each)})),
        nodes=tuple(node.name for node in wanted_nodes(site, request) if may_be_used(node, request)),
    )


def default_limits(
    site: SlurmSite, request: ResourceRequest, shape: TaskResources, options: Mapping[str, OptionValue]
) -> DefaultLimits:
    """What a task of this shape gets at least that asks for neither time nor memory.

    None where options of the user's own ask for it, which are `options` beside those of the shape.
    """
    partitions = wanted_partitions(site, request)
    times = [_time_s(site, request, each, TaskResources()) for each in partitions]
    given = {"time", "time-min"} & options.keys() or request.time_s
    time_s = None if given or None in times else _smallest(times)
    memory = [_default_memory(site, request, shape, each) for each in partitions]
    theirs = ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU")
    asked = {"mem", "mem-per-cpu", "mem-per-gpu"} & options.keys() or any(map(os.environ.get, theirs))
    whole = site.whole_nodes or takes_whole_nodes(options) or any(each.exclusive for each in partitions)
    unknown = asked or whole or not site.shares_memory or None in memory
    return DefaultLimits(time_s, None if unknown else _smallest(memory))


def _default_memory(
    site: SlurmSite, request: ResourceRequest, shape: TaskResources, partition: Partition
) -> int | None:
    """MiB on each node; None where that cannot be told."""
    default = partition.memory or site.memory
    if default.by_gpu:
        return None
    if default.per_cpu is not None:
        return default.per_cpu * shape.cpus
    nodes = [node for node in site.nodes_of(partition.name) if may_be_used(node, request)]
    return _smallest([default.per_node, *(node.mem_mib for node in nodes)])


def may_be_used(node: Node, request: ResourceRequest) -> bool:
    """Whether the request leaves this node, as far as it can be told."""
    # Where the constraint is more than a list of features, any node may do.
    features = request.constraint.split("&") if re.fullmatch(r"[\w.&-]+", request.constraint) else []
    return (
        (not request.nodelist or node.name in hosts_of(request.nodelist))
        and node.name not in hosts_of(request.exclude)
        and (request.gpu_type is None or request.gpu_type in node.gpus)
        and set(features) <= set(node.features)
    )


def resource_problems(site: SlurmSite, request: ResourceRequest, shape: TaskResources) -> list[str]:
    """Why no task of this shape can ever run, each line with the key path at fault; empty if one can.

    With several partitions it is enough that one takes it.
    """
    if not site.partitions:
        return []
    known = ", ".join(partition.name for partition in site.partitions if partition.takes_jobs)
    unknown = [name for name in request.partitions if name not in {each.name for each in site.partitions}]
    if unknown:
        return [f"cluster.partition: there is no {', '.join(unknown)}; there are {known}"]
    partitions = wanted_partitions(site, request)
    if not partitions:
        return [f"cluster.partition: this site has no default partition, so name one of {known}"]
    each = [_partition_problems(site, request, shape, partition) for partition in partitions]
    return [] if [] in each else list(dict.fromkeys(line for lines in each for line in lines))


def _partition_problems(
    site: SlurmSite, request: ResourceRequest, shape: TaskResources, partition: Partition
) -> list[str]:
    if not partition.takes_jobs:
        taking = ", ".join(each.name for each in site.partitions if each.takes_jobs)
        return [f"cluster.partition: {partition.name} is {partition.state} and takes no jobs; use {taking}"]
    nodes = site.nodes_of(partition.name)
    time = _time_problems(site, request, shape, partition)
    return [*time, *(_node_problems(request, shape, partition, nodes) if nodes else [])]


# --------------------------------------------------------------------------- time and submits


def _time_problems(
    site: SlurmSite, request: ResourceRequest, shape: TaskResources, partition: Partition
) -> Iterator[str]:
    time_s = _time_s(site, request, partition, shape)
    if time_s is None:
        return
    time_s = 60 * math.ceil((shape.least_time_s or time_s) / 60)
    wall_s, whose = _wall(site, request, partition)
    got = f"got {duration(time_s)}"
    if shape.time_s is None:
        got = f"and a task that asks for none gets {duration(time_s)}"
    for limit_s, who in [(partition.max_time_s, f"partition {partition.name}"), (wall_s, whose)]:
        if limit_s is not None and time_s > limit_s:
            yield f"resources.time: {who} allows {duration(limit_s)} at most, {got}"


def _time_s(
    site: SlurmSite, request: ResourceRequest, partition: Partition, shape: TaskResources
) -> int | None:
    """The time limit that a task gets there; None if none."""
    requested = shape.time_s or request.time_s or partition.default_time_s
    # Without a default of the partition Slurm takes the account's limit, even one beyond the partition's.
    return requested or _wall(site, request, partition)[0] or partition.max_time_s


def _wall(site: SlurmSite, request: ResourceRequest, partition: Partition) -> tuple[int | None, str]:
    """The longest time that QOS and association allow, and which of them says so."""
    association, ladder = _accounts(site, request, partition)
    for qos in ladder:
        if qos.max_time_s is not None:
            return qos.max_time_s, f"QOS {qos.name}"
    if association is not None and association.max_time_s is not None:
        return association.max_time_s, f"account {association.account}"
    return None, ""


def _submits(site: SlurmSite, request: ResourceRequest, partition: Partition) -> int | None:
    """How many tasks the user may have in the queue, by QOS and association."""
    association, ladder = _accounts(site, request, partition)
    # Of limits of the same kind the first that is set holds, QOS before association.
    kinds: list[Callable[[Qos], int | None]] = [
        lambda qos: qos.max_submit,
        lambda qos: qos.account_submit,
        lambda qos: qos.group_submit,
    ]
    firsts = [next((n for qos in ladder if (n := kind(qos)) is not None), None) for kind in kinds]
    if association is not None:
        firsts[0] = association.max_submit if firsts[0] is None else firsts[0]
        firsts.append(association.group_submit)
    return _smallest(firsts)


def _accounts(
    site: SlurmSite, request: ResourceRequest, partition: Partition
) -> tuple[Association | None, list[Qos]]:
    """The association that counts the user's jobs there, and the QOS whose limits hold, in order."""
    if not site.enforces:
        return None, []
    ours = [each for each in site.associations if each.partition in ("", partition.name)]
    ours.sort(key=lambda each: each.partition, reverse=True)  # one for this partition goes before one for all
    if request.account is None:
        association = next((each for each in ours if each.default), None)
    else:
        association = next((each for each in ours if each.account == request.account), None)
    job = request.qos or (association.qos if association else "") or NORMAL
    by_name = {qos.name: qos for qos in site.qos}
    ladder = [by_name[name] for name in (partition.qos, job) if name in by_name]
    ladder.sort(key=lambda qos: not (qos.name == job and qos.over_partition))
    return association, ladder


# --------------------------------------------------------------------------- nodes


def _node_problems(
    request: ResourceRequest, shape: TaskResources, partition: Partition, nodes: Sequence[Node]
) -> Iterator[str]:
    where = f"the nodes of partition {partition.name}"
    types = sorted({kind for node in nodes for kind in node.gpus if kind})
    if shape.gpus and request.gpu_type is not None and request.gpu_type not in types:
        have = f"have {', '.join(types)}" if types else "have no GPUs of a type"
        yield f"cluster.gpu_type: {where} {have}, got {request.gpu_type}"
        return
    kind = f"{request.gpu_type} GPUs" if request.gpu_type else "GPUs"
    requested: list[tuple[str, int, Callable[[Node], int], Callable[[int], str]]] = [
        ("gpus", shape.gpus, lambda node: node_gpus(node, request), lambda n: f"{n} {kind}"),
        ("cpus", shape.cpus, lambda node: _least(node.cpus, partition.max_cpus), lambda n: f"{n} CPUs"),
        ("mem", shape.mem_mib or 0, lambda node: _least(node.mem_mib, partition.max_mem_mib), memory),
    ]
    fits = True
    for key, amount, has, words in requested:
        most = max(has(node) for node in nodes)
        if amount > most:
            fits = False
            got = words(amount) if key == "mem" else str(amount)
            got += f" for {shape.lanes} runs at once" if shape.lanes > 1 else ""
            yield f"resources.{key}: {where} have {words(most)} at most, got {got}"
    if fits and not any(all(has(node) >= amount for _, amount, has, _ in requested) for node in nodes):
        together = ", ".join(words(amount) for _, amount, _, words in requested if amount)
        yield f"resources: none of {where} has {together} together"
    elif fits:
        usable = sum(
            may_be_used(node, request) and all(has(node) >= amount for _, amount, has, _ in requested)
            for node in nodes
        )
        if 0 < usable < shape.nodes:
            yield f"resources.nodes: of {where} {usable} may be used for that, got {shape.nodes}"


def node_gpus(node: Node, request: ResourceRequest) -> int:
    """GPUs of the node that a task with this request may have."""
    return sum(count for kind, count in node.gpus.items() if request.gpu_type in (None, kind))


# --------------------------------------------------------------------------- words


def duration(seconds: int) -> str:
    """`1-00:00:00`, as Slurm writes a time limit."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hours:02d}:{minutes:02d}:{seconds:02d}"


def memory(mib: int) -> str:
    """`64G`, or `1000M` where it is no whole number of GiB."""
    return f"{mib // 1024}G" if mib and mib % 1024 == 0 else f"{mib}M"


def _smallest(limits: Sequence[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _least(n: int, limit: int | None) -> int:
    return n if limit is None else min(n, limit)


def task_allocation(
    site: SlurmSite, request: ResourceRequest, shape: TaskResources, options: Mapping[str, OptionValue]
) -> TaskAllocation:
    """What one task of this shape will hold at most; what it asks for where the nodes are not known."""
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
    gpus = max([shape.gpus, *(sum(node.gpus.values()) for node in nodes.values())])
    cpus = max([shape.cpus, *(node.cpus for node in nodes.values())])
    more = (gpus, cpus) != (shape.gpus, shape.cpus)
    return TaskAllocation(gpus * shape.nodes, cpus * shape.nodes, reason if more else "")


def tick_warning(site: SlurmSite, request: ResourceRequest, options: Mapping[str, OptionValue]) -> str:
    """That the small jobs that tick a detached sweep hold GPUs, and what to do; empty if they hold none."""
    held = task_allocation(site, request, TaskResources(), options)
    if not held.gpus:
        return ""
    others = [
        partition.name
        for partition in site.partitions
        if partition.state == "UP"
        and site.nodes_of(partition.name)
        and not task_allocation(site, ResourceRequest(partitions=(partition.name,)), TaskResources(), {}).gpus
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
