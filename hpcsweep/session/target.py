"""Where batches run: the cluster that a spec asks for, and whether its tasks fit there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hpcsweep.cluster import CLUSTERS
from hpcsweep.cluster.local.cluster import LocalCluster, cpus_here, devices_here
from hpcsweep.core.counting import plural
from hpcsweep.core.protocols import (
    Batch,
    Cluster,
    TaskAllocation,
    TaskResources,
)
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterUnavailable, SpecError
from hpcsweep.plugins import find_class
from hpcsweep.spec import SweepSpec
from hpcsweep.spec.plugin_options import CLUSTER_PLUGINS, cluster_options
from hpcsweep.store.layout import Layout

if TYPE_CHECKING:
    pass


class Target(msgspec.Struct, frozen=True):
    """Where a sweep runs.

    Attributes:
        name: Of the cluster.
        why: One sentence for the user.
        shape: What a task asks of it.
        max_tasks: The cap on tasks at a time, None if there is none.
        simulated: Whether nothing is really run there, and time is virtual.
    """

    name: str
    why: str
    cluster: Cluster
    shape: TaskResources
    max_tasks: int | None
    simulated: bool = False


def resolve_target(spec: SweepSpec, *, name: str | None = None, state: SweepState | None = None) -> Target:
    """The cluster that the spec (or `name`, which goes before it) asks for.

    `auto` is where the sweep's jobs are if it has any (see `state`), else Slurm where sbatch is on
    the PATH and a cluster is configured, else this machine.

    Raises:
        SpecError: There is no such cluster, it cannot run this sweep, or `auto` meets an outage of Slurm.
    """
    wanted = name or spec.cluster.name
    why = "as asked for"
    if wanted == "auto" and state is not None and state.live:
        wanted, why = next(iter(state.live.values())).cluster, "where its jobs are"
    if wanted == "auto":
        from hpcsweep.cluster.slurm.cluster import Presence, probe

        presence, why = probe()
        if presence is Presence.SILENT:
            raise SpecError(
                f"cluster.name: auto: {why}: launch again when it answers, have Slurm waited for with "
                "--cluster slurm, or train on this very machine with --cluster local"
            )
        wanted = "slurm" if presence is Presence.ANSWERS else "local"
    match wanted:
        case "local":
            return _local(spec, why)
        case "slurm":
            return _slurm(spec, why)
        case "simulated":
            raise SpecError(
                "cluster.name: simulated trains nothing; use `hpcsweep simulate`, "
                "or give another one, as with --cluster local"
            )
        case _:
            make = find_class(CLUSTERS, wanted, group=CLUSTER_PLUGINS, key="cluster.name")
            own = cluster_options(spec.cluster, make) if spec.cluster.name == wanted else {}
            cluster: Cluster = make(spec=spec, **own)
            shape = spec.task_shape()
            return Target(wanted, why, cluster, shape, max_tasks(spec, shape))


def _local(spec: SweepSpec, why: str) -> Target:
    devices = devices_here() if spec.resources.gpus else []
    wanted = spec.resources.gpus
    options = spec.cluster
    if devices:
        if wanted > len(devices):
            raise SpecError(f"resources.gpus: this machine has {plural(len(devices), 'GPU')}, got {wanted}")
        slots = len(devices) // wanted
        what = f"{plural(slots, 'run')} at a time on {plural(len(devices), 'GPU')}"
    else:
        wanted = 0
        slots = options.slots or max(1, cpus_here() // spec.resources.cpus)
        what = f"{plural(slots, 'run')} at a time on CPUs"
    poll = (options.poll, options.poll) if options.poll else (0.05, 0.5)
    cluster = LocalCluster(
        slots=slots,
        devices=devices,
        gpus=wanted,
        cpus=spec.resources.cpus,
        signal_s=options.signal,
        environment=set_variables(options.environment),
        poll_s=poll,
        **({"python": options.python} if options.python else {}),
    )
    shape = TaskResources(gpus=wanted, cpus=spec.resources.cpus, time_s=spec.resources.time)
    return Target("local", f"this machine, {what} ({why})", cluster, shape, max_tasks(spec, shape))


def _slurm(spec: SweepSpec, why: str) -> Target:
    from hpcsweep.cluster.slurm.cluster import SlurmCluster
    from hpcsweep.cluster.slurm.options import SlurmOptions

    options = spec.cluster
    given = {
        field: getattr(options, field)
        for field in (
            "partition",
            "account",
            "qos",
            "constraint",
            "nodelist",
            "exclude",
            "gpu_type",
            "template",
            "setup",
            "environment",
            "options",
            "tick_options",
            "python",
        )
        if getattr(options, field) is not None
    }
    given["environment"] = set_variables(options.environment)
    given["inherited"] = tuple(name for name, value in options.environment.items() if value is None)
    times = {"settle_s": options.settle, "grace_s": options.grace}
    given |= {key: value for key, value in times.items() if value is not None}
    if options.poll is not None:
        given["poll_s"] = (options.poll, options.poll)
    cluster = SlurmCluster(SlurmOptions(**given, signal_s=options.signal, workdir=spec.train.workdir))
    shape = spec.task_shape()
    return Target("slurm", f"Slurm ({why})", cluster, shape, max_tasks(spec, shape))


@contextlib.contextmanager
def tell_slow_programs(tell: Callable[[str], None]) -> Iterator[None]:
    """Until the block ends, say which of the cluster's programs has not answered for a while."""
    from hpcsweep.cluster.slurm import programs

    before = programs.on_slow
    programs.on_slow = lambda name, seconds: tell(f"waits for {name}: no answer for {seconds:g} s")
    try:
        yield
    finally:
        programs.on_slow = before


def set_variables(environment: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that the spec gives a value; the others are inherited."""
    return {name: value for name, value in environment.items() if value is not None}


def check_inherited(spec: SweepSpec, environ: Mapping[str, str]) -> None:
    """Variables that a launch is to pass on to the jobs must be there.

    Raises:
        SpecError: One line for each that is not.
    """
    missing = [
        name for name, value in spec.cluster.environment.items() if value is None and name not in environ
    ]
    if missing:
        raise SpecError(
            *(
                f"cluster.environment.{name}: null takes it from the environment of `launch`, where it is "
                f"not set; export {name} first"
                for name in missing
            )
        )


def check_fits(place: Target, *, max_gpus: int | None, folder: Path | None = None) -> None:
    """What can never run there is refused before anything is submitted.

    Args:
        place: Where the sweep runs.
        max_gpus: The cap that a task must fit below.
        folder: The results folder, where it is to be one of which scripts can tell.

    Raises:
        SpecError: One line for each way in which the resources do not fit.
    """
    problems = place.cluster.problems(place.shape) or holding_problems(place, max_gpus=max_gpus)
    if problems:
        raise SpecError(*problems)
    script = getattr(place.cluster, "script", None)
    if script is not None and folder is not None:
        script(Batch("x", Layout(folder.resolve()).batch("x").root, 1, 1, place.shape))


def holding_of(place: Target) -> TaskAllocation:
    """What a task will hold there; what it asks for where the cluster does not answer."""
    try:
        return place.cluster.allocation_of(place.shape)
    except ClusterUnavailable:
        return TaskAllocation(place.shape.gpus, place.shape.cpus)


def holding_problems(place: Target, *, max_gpus: int | None) -> list[str]:
    """Why no task fits below the cap on GPUs, one line; empty if one does."""
    held = holding_of(place)
    if max_gpus is None or held.gpus <= max_gpus:
        return []
    return [f"cluster.max_gpus: must be at least {held.gpus}, got {max_gpus}: {holding_words(place, held)}"]


def holding_words(place: Target, held: TaskAllocation) -> str:
    """That a task holds more than it asks for, and what to do about it; empty if it does not."""
    shape = place.shape
    if not held.why:
        return ""
    if held.gpus > shape.gpus:
        got, asked, each = f"{held.gpus} GPUs", str(shape.gpus), held.gpus // (shape.gpus // shape.lanes or 1)
    else:
        got, asked, each = f"{held.cpus} CPUs", str(shape.cpus), held.cpus // (shape.cpus // shape.lanes or 1)
    words = f"a task asks for {asked} and holds {got}: {held.why}"
    if each > shape.lanes:
        words += (
            f"; cluster.concurrent: {each} (with cluster.runs_per_task: {each}) shares them among {each} runs"
        )
    return words


def tick_words(place: Target) -> str:
    """That jobs that tick a detached sweep hold GPUs there, and what to do; empty if that is not known."""
    told = getattr(place.cluster, "ticks_hold", None)
    if told is None:
        return ""
    try:
        return str(told())
    except ClusterUnavailable:
        return ""


def max_tasks(spec: SweepSpec, shape: TaskResources) -> int | None:
    """The cap on tasks at a time that the spec sets, None if it sets none."""
    caps = []
    if spec.cluster.max_tasks is not None:
        caps.append(spec.cluster.max_tasks)
    if spec.cluster.max_gpus is not None and shape.gpus:
        caps.append(max(1, spec.cluster.max_gpus // shape.gpus))
    return min(caps, default=None)
