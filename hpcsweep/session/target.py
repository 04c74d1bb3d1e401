"""Where batches run: the cluster that a spec asks for, and whether its tasks fit there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from hpcsweep.cluster import CLUSTERS, FALLBACK, processes
from hpcsweep.cluster.backend import Presence, SweepRequest, find_backend, options_of
from hpcsweep.core.protocols import (
    Batch,
    Cluster,
    TaskAllocation,
    TaskResources,
)
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterUnavailable, SpecError
from hpcsweep.spec import SweepSpec
from hpcsweep.store.layout import Layout


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

    `auto` is where the sweep's jobs are if it has any (see `state`), else the first cluster that is found,
    such as Slurm, else this machine.

    Raises:
        SpecError: There is no such cluster, it cannot run this sweep, or `auto` meets an outage.
    """
    wanted = name or spec.cluster.name
    why = "as asked for"
    if wanted == "auto" and state is not None and state.live:
        wanted, why = next(iter(state.live.values())).cluster, "where its jobs are"
    if wanted == "auto":
        wanted, why = _detect()
    backend = find_backend(wanted)
    connection = backend.connect(sweep_request(spec), options_of(backend.options, spec.cluster))
    shape = connection.shape
    return Target(wanted, f"{connection.where} ({why})", connection.cluster, shape, max_tasks(spec, shape))


def _detect() -> tuple[str, str]:
    """What `auto` is here, and why."""
    why = ""
    for name in CLUSTERS:
        backend = find_backend(name)
        if not backend.automatic:
            continue
        presence, words = backend.detect()
        if presence is Presence.SILENT:
            raise SpecError(
                f"cluster.name: auto: {words}: launch again when it answers, have {backend.title} waited for "
                f"with --cluster {name}, or train on this very machine with --cluster {FALLBACK}"
            )
        if presence is Presence.ANSWERS:
            return name, words
        why = why or words
    return FALLBACK, why


def sweep_request(spec: SweepSpec) -> SweepRequest:
    """What a cluster is told of the sweep."""
    section, run = spec.cluster, spec.resources
    return SweepRequest(
        run=TaskResources(gpus=run.gpus, cpus=run.cpus, mem_mib=run.mem, time_s=run.time),
        task=spec.task_shape(),
        workdir=spec.train.workdir,
        environment=section.environment,
        setup=section.setup,
        python=section.python,
        signal_s=section.signal,
        poll_s=section.poll,
        settle_s=section.settle,
        grace_s=section.grace,
        spec=spec,
    )


@contextlib.contextmanager
def tell_slow_programs(tell: Callable[[str], None]) -> Iterator[None]:
    """Until the block ends, say which of the cluster's programs has not answered for a while."""
    before = processes.on_slow
    processes.on_slow = lambda name, seconds: tell(f"waits for {name}: no answer for {seconds:g} s")
    try:
        yield
    finally:
        processes.on_slow = before


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
    if folder is not None:
        place.cluster.script(Batch("x", Layout(folder.resolve()).batch("x").root, 1, 1, place.shape))


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


def tick_warning(place: Target) -> str:
    """That jobs that tick a detached sweep hold GPUs there, and what to do; empty if that is not known."""
    try:
        return place.cluster.tick_warning()
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
