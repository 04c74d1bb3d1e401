"""Where batches run: the cluster that a spec asks for, and whether its tasks fit there."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from hpcsweep.cluster import CLUSTERS, FALLBACK, processes
from hpcsweep.cluster.asked import ASK, AskCluster
from hpcsweep.cluster.backend import Backend, Presence, SweepRequest, find_backend, is_cluster, options_of
from hpcsweep.core.cluster_protocol import Batch, Cluster, DefaultLimits, TaskAllocation, TaskResources
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.errors import ClusterError, ClusterUnavailable, SpecError
from hpcsweep.spec import SweepSpec
from hpcsweep.store.layout import Layout


class Target(msgspec.Struct, frozen=True, dict=True):
    """Where a sweep runs."""

    name: str
    why: str  # one sentence for the user
    cluster: Cluster
    shape: TaskResources  # of a task
    reuse: bool  # tasks keep their GPUs for run after run
    max_tasks: int | None  # at a time
    kinds: tuple[TaskResources, ...] = ()  # of a task, by its GPUs, where runs differ
    simulated: bool = False  # nothing is really run there, in virtual time

    @functools.cached_property
    def submitted_shape(self) -> TaskResources:
        """What a task asks for within the site's limits, as far as the cluster tells them."""
        return self.within_limits(self.shape)

    def within_limits(self, shape: TaskResources) -> TaskResources:
        """The same with the time limit that the site allows, as far as the cluster tells that."""
        try:
            return shape.within(self.cluster.limits().most_times_s)
        except ClusterError:
            return shape

    def default_limits(self) -> DefaultLimits:
        """What a task gets there that asks for no time or memory, as far as the cluster tells that."""
        try:
            return self.cluster.default_limits(min(self.shapes, key=lambda shape: shape.cpus))
        except ClusterError:
            return DefaultLimits()

    @property
    def shapes(self) -> tuple[TaskResources, ...]:
        """The tasks that it may need, the fewest GPUs first."""
        return self.kinds or (self.shape,)

    def allocation(self, shape: TaskResources | None = None) -> TaskAllocation:
        """What a task (of this shape) holds there; what it requests if the cluster does not answer."""
        shape = shape or self.shape
        try:
            return self.cluster.allocation_of(shape)
        except ClusterUnavailable:
            return TaskAllocation(shape.total_gpus, shape.cpus * shape.nodes)

    def allocation_note(self, held: TaskAllocation, shape: TaskResources | None = None) -> str:
        """That a task (of this shape) holds more than it requests, and what to do; empty if it does not."""
        shape = shape or self.shape
        if not held.why:
            return ""
        gpus, cpus = shape.total_gpus, shape.cpus * shape.nodes
        if held.gpus > gpus:
            got, asked, each = f"{held.gpus} GPUs", gpus, held.gpus // (gpus // shape.lanes or 1)
        else:
            got, asked, each = f"{held.cpus} CPUs", cpus, held.cpus // (cpus // shape.lanes or 1)
        note = f"a task asks for {asked} and holds {got}: {held.why}"
        if each > shape.lanes and shape.nodes == 1:
            note += f"; cluster.concurrent: {each} shares them among {each} runs"
        return note

    def tick_note(self) -> str:
        """That tick jobs of a detached sweep hold GPUs there, and what to do; empty if that is unknown."""
        try:
            return self.cluster.tick_warning()
        except ClusterUnavailable:
            return ""

    def problems(self, *, max_gpus: int | None) -> list[str]:
        """Why no task can ever run there, one line each; empty if one can.

        Raises:
            ClusterUnavailable: The cluster did not answer.
        """
        nodes = self.shape.nodes
        if nodes > 1 and not self.cluster.spans_nodes:
            return [f"resources.nodes: must be 1 on {self.name}, where a task has one node, got {nodes}"]
        found = [line for shape in self.shapes for line in self.cluster.problems(shape)]
        found += self._useless_pools()
        found += self._pools_without_limit()
        problems = list(dict.fromkeys(found))
        if problems or max_gpus is None:
            return problems
        held, shape = max(
            ((self.allocation(each), each) for each in self.shapes), key=lambda each: each[0].gpus
        )
        if held.gpus <= max_gpus:
            return []
        note = self.allocation_note(held, shape)
        return [f"cluster.max_gpus: must be at least {held.gpus}, got {max_gpus}: {note}"]

    def _useless_pools(self) -> Iterator[str]:
        """Pools whose nodes have too few GPUs for any task."""
        least = min(shape.total_gpus for shape in self.shapes)
        for index, pool in enumerate(self.cluster.pools):
            most = self.cluster.pool_task_gpus(pool.name, nodes=self.shape.nodes)
            if most is not None and most < least:
                expected = f"must have nodes for a task of {plural(least, 'GPU')}"
                yield f"cluster.pools[{index}]: {expected}, those of {pool.name} have {most} at most"

    def _pools_without_limit(self) -> Iterator[str]:
        """Pools whose `gpu_hours` nothing can be held to."""
        capped = [index for index, pool in enumerate(self.cluster.pools) if pool.max_gpu_s is not None]
        if capped and self.shape.time_s is None and self.cluster.limits().time_s is None:
            why = "without a time limit nothing can be held to it"
            yield f"cluster.pools[{capped[0]}].gpu_hours: needs resources.time: {why}"

    def check(self, *, max_gpus: int | None, folder: Path) -> None:
        """Refuse what can never run there, before anything is submitted to the results folder.

        Raises:
            SpecError: All problems at once.
        """
        problems = self.problems(max_gpus=max_gpus)
        if problems:
            raise SpecError(*problems)
        self.cluster.script(Batch("x", Layout(folder.resolve()).batch("x").root, 1, 1, self.shape))


def resolve_target(spec: SweepSpec, *, name: str | None = None, state: SweepState | None = None) -> Target:
    """The cluster that the spec asks for; `name` overrides it.

    `auto` is where the sweep's jobs are if it has any (see `state`), else the first cluster detected,
    such as Slurm, else this machine.

    Raises:
        SpecError: There is no such cluster, it cannot run this sweep, or `auto` meets an outage.
    """
    name, why = name or spec.cluster.name, "as asked for"
    if name == "auto" and state is not None and state.live:
        name, why = next(iter(state.live.values())).cluster, "where its jobs are"
        if not is_cluster(name):
            raise SpecError(
                f"cluster.name: auto: its runs were started by {name!r}, which is no cluster: what was asked "
                "for from Python (Sweep.ask) is told there (Sweep.tell), which also takes up requests"
            )
    if name == "auto":
        name, why = _detect()
    backend = find_backend(name)
    reuse = keeps_gpus(spec, backend)
    connection = backend.connect(sweep_request(spec, reuse=reuse), options_of(backend.options, spec.cluster))
    shape, cluster = connection.shape, connection.cluster
    kinds = task_kinds(spec, cluster, reuse=reuse, lanes=shape.lanes)
    cap = max_tasks(spec, min(kinds, default=shape, key=lambda kind: kind.gpus))
    return Target(name, f"{connection.where} ({why})", cluster, shape, reuse, cap, kinds)


def task_kinds(spec: SweepSpec, cluster: Cluster, *, reuse: bool, lanes: int) -> tuple[TaskResources, ...]:
    """A task for the runs of each number of GPUs; empty where all runs need the same."""
    if spec.run_resources.constant is not None:
        return ()
    runs = {cluster.granted(run) for run in spec.kinds}
    tasks = (spec.task_shape(reuse=reuse, run=run, lanes=lanes) for run in runs)
    return tuple(sorted(tasks, key=lambda task: task.gpus))


def asked_target(spec: SweepSpec, cluster: AskCluster) -> Target:
    """That of runs which somebody asks for; see `Sweep.ask`."""
    shape = spec.task_shape(reuse=False)
    return Target(ASK, "asked for from Python", cluster, shape, False, max_tasks(spec, shape))


def keeps_gpus(spec: SweepSpec, backend: Backend | type[Backend]) -> bool:
    """Whether tasks do run after run there: as the spec says, else as the cluster does by default."""
    return backend.reuses if spec.cluster.reuse is None else spec.cluster.reuse


def _detect() -> tuple[str, str]:
    """What `auto` means here, and why."""
    why = ""
    for name in CLUSTERS:
        backend = find_backend(name)
        if not backend.automatic:
            continue
        presence, answer = backend.detect()
        if presence is Presence.SILENT:
            raise SpecError(
                f"cluster.name: auto: {answer}: launch again when it answers, wait for {backend.title} "
                f"with --cluster {name}, or run on this machine with --cluster {FALLBACK}"
            )
        if presence is Presence.ANSWERS:
            return name, answer
        why = why or answer
    return FALLBACK, why


def sweep_request(spec: SweepSpec, *, reuse: bool) -> SweepRequest:
    """What a cluster needs to know of the sweep."""
    section = spec.cluster
    return SweepRequest(
        run=spec.largest_run,
        least=None if spec.run_resources.constant is not None else spec.least_run,
        task=spec.task_shape(reuse=reuse),
        workdir=spec.train.workdir,
        environment=section.environment,
        setup=section.setup,
        python=section.python,
        signal_s=section.signal,
        poll_s=section.poll,
        settle_s=section.settle,
        grace_s=section.grace,
        reuse=reuse,
        spec=spec,
    )


@contextlib.contextmanager
def tell_slow_programs(tell: Callable[[str], None]) -> Iterator[None]:
    """Until the block ends, report the cluster's programs that are slow to answer."""
    before = processes.on_slow
    processes.on_slow = lambda name, seconds: tell(f"waits for {name}: no answer for {seconds:g} s")
    try:
        yield
    finally:
        processes.on_slow = before


def set_variables(environment: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that the spec sets; the others are inherited."""
    return {name: value for name, value in environment.items() if value is not None}


def check_inherited(spec: SweepSpec, environ: Mapping[str, str]) -> None:
    """Check that the variables that jobs inherit from `launch` are set; SpecError for those that are not."""
    problems = [
        f"cluster.environment.{name}: null takes it from the environment of `launch`, where it is "
        f"not set; export {name} first"
        for name, value in spec.cluster.environment.items()
        if value is None and name not in environ
    ]
    if problems:
        raise SpecError(*problems)


def max_tasks(spec: SweepSpec, shape: TaskResources) -> int | None:
    """The cap on tasks at a time that the spec sets, None if it sets none."""
    caps = []
    if spec.cluster.max_tasks is not None:
        caps.append(spec.cluster.max_tasks)
    if spec.cluster.max_gpus is not None and shape.gpus:
        caps.append(max(1, spec.cluster.max_gpus // shape.total_gpus))
    return min(caps, default=None)
