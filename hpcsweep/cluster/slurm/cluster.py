"""Slurm: batches are job arrays."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.cluster.slurm import programs
from hpcsweep.cluster.slurm.options import DEFAULT_TEMPLATE, SlurmOptions, gpu_problems
from hpcsweep.cluster.slurm.parts import allows, at_pool, pool_updates, pools_of
from hpcsweep.cluster.slurm.pools import pool_problems
from hpcsweep.cluster.slurm.programs import export_of, overriding_variables, passed_variables, refusal, submit
from hpcsweep.cluster.slurm.queue import Identity, SlurmQueue
from hpcsweep.cluster.slurm.requests import (
    ResourceRequest,
    default_limits,
    limits_of,
    node_gpus,
    request_from_options,
    resource_problems,
    task_allocation,
    tick_warning,
    wanted_nodes,
    wanted_partitions,
    without_user_options,
)
from hpcsweep.cluster.slurm.rows import Row
from hpcsweep.cluster.slurm.scripts import (
    SlurmScripts,
    example_batch,
    own_options,
    sbatch_options,
    tick_options,
)
from hpcsweep.cluster.slurm.site import SlurmSite, host_list, hosts_of, read_site
from hpcsweep.cluster.slurm.submitit_options import refuse_submitit_options
from hpcsweep.core.cluster_protocol import (
    Batch,
    DefaultLimits,
    Limits,
    ProbeCluster,
    SubmittedBatch,
    TaskAllocation,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.errors import ClusterError, ClusterUnavailable, SpecError
from hpcsweep.store.files import file_mode, make_dirs, write_atomic
from hpcsweep.store.layout import BatchLayout, Layout

_log = logging.getLogger(__name__)

#: Ranges of indices in one scancel.
CANCEL_RANGES: Final = 500


class SlurmCluster(ProbeCluster):
    """Runs batches as Slurm arrays. Keeps nothing that a new process would have to know.

    Raises:
        SpecError: The options or the template are wrong; found before anything is submitted.
    """

    spans_nodes = True

    def __init__(self, options: SlurmOptions, *, whole: SlurmCluster | None = None) -> None:
        #: The cluster that this is a pool of, if it is one; what is known of the site is known there.
        self._whole = whole
        self._given = self._options = options
        given = options.pools or ()
        if wrong := pool_problems(options.pools):
            raise SpecError(*wrong)
        self.pools = pools_of(given)
        #: The same cluster as each pool sees it, with what that says in place of keys under `cluster`.
        self._parts: dict[str, SlurmCluster] = {}
        for index, pool in enumerate(given):
            update = {**pool_updates(pool, options.options), "pools": None}
            try:
                self._parts[pool.shown] = SlurmCluster(options.model_copy(update=update), whole=self)
            except SpecError as error:
                raise SpecError(*(at_pool(line, index, pool) for line in error.problems)) from None
        if given:  # what belongs to no pool, such as small jobs that tick, is as in the first one
            options = self._parts[given[0].shown]._options
        self.settle_s = options.settle_s
        self.grace_s = options.grace_s
        self.poll_s = options.poll_s
        self._options = options
        refuse_submitit_options(options)
        self._scripts = SlurmScripts(options)
        self._queue = SlurmQueue(workdir=options.workdir, node_gpus=self._node_gpus)
        self._scripts.task_options(TaskResources())
        self._scripts.tick_script("check", Path("/check"))

    @property
    def template(self) -> str:
        return self._options.template or DEFAULT_TEMPLATE

    @property
    def crontabs(self) -> str:
        with contextlib.suppress(ClusterUnavailable):
            if self._site.scrontab:
                return "cron or scrontab"
        return "cron"

    @cached_property
    def _site(self) -> SlurmSite:
        return read_site() if self._whole is None else self._whole._site

    @cached_property
    def _request(self) -> ResourceRequest:
        return request_from_options(
            self._scripts.task_options(TaskResources()), gpu_type=self._options.gpu_type
        )

    def _part(self, shape: TaskResources) -> SlurmCluster:
        """The pool of such a task; the first one, as which this is made, where it has none."""
        return self._parts.get(shape.pool, self)

    # ------------------------------------------------------------------ submitting

    def script(self, batch: Batch) -> str:
        part = self._part(batch.shape)
        return part._scripts.render(*part._within_nodelist(batch))

    def _within_nodelist(self, batch: Batch) -> tuple[Batch, SlurmOptions]:
        """The batch kept to `nodelist`: one task uses one of these nodes, and --nodelist would mean all."""
        options = self._options
        allowed = hosts_of(options.nodelist or "")
        if len(allowed) < 2:
            return batch, options
        try:
            nodes = wanted_nodes(self._site, self._request)
        except ClusterUnavailable:
            nodes = []
        if not nodes:
            raise SpecError(
                "cluster.nodelist: Slurm does not show here which nodes there are, so several cannot be "
                "chosen: name one, or use cluster.exclude or cluster.constraint"
            )
        others = host_list(node.name for node in nodes if node.name not in allowed)
        exclude = (*batch.exclude, *([others] if others else []))
        batch = msgspec.structs.replace(batch, exclude=exclude)
        return batch, options.model_copy(update={"nodelist": None})

    def submit(self, batch: Batch) -> str:
        """Submit one array, give its job id; `script.sbatch` is on disk before sbatch is called."""
        part = self._part(batch.shape)
        if part is not self:
            return part.submit(batch)
        text = self.script(batch)
        wrong = gpu_problems(own_options(text), batch.shape, where=self._scripts.source_of)
        if wrong:  # the spec may have been changed since it was checked
            raise SpecError(*wrong)
        layout = BatchLayout(batch.folder)
        make_dirs(layout.logs)  # where it is missing, Slurm fails every task without a word
        make_dirs(layout.results)
        drop = overriding_variables(sbatch_options(batch, self._options))
        # Its absence proves that sbatch was never called: durable first, then the call.
        write_atomic(layout.script, text.encode(), mode=file_mode(self._options.environment))
        job, warnings = submit(layout.script, cwd=batch.folder, drop=drop)
        if warnings:
            _log.warning("%s: accepted, but sbatch says: %s", batch.name, warnings)
        return job

    def submit_tick(self, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0) -> str:
        """Submit a small job that ticks the sweep in `folder`, give its job id.

        Not found again where its reply is lost: one that ticks too often does no harm.
        """
        # The user's own defaults may be for jobs with GPUs.
        drop = overriding_variables(tick_options(name, folder, self._options))
        text = self._scripts.resubmitting_tick_script(name, folder, after=after, delay_s=delay_s, drop=drop)
        script: Path | str = Layout(folder).tick_script
        try:
            write_atomic(Layout(folder).tick_script, text.encode(), mode=file_mode(self._options.environment))
        except OSError as error:  # it is there for people to read
            _log.warning("%s: cannot be written: %s", script, error.strerror or error)
            script = text
        job, _ = submit(script, cwd=folder if folder.is_dir() else Path("/"), drop=drop)
        self._queue.note(job, name)
        return job

    @property
    def poll_error(self) -> str:
        return self._queue.poll_error

    @property
    def known_jobs(self) -> Mapping[str, str] | None:
        return self._queue.known_jobs

    def cancel_ticks(self, jobs: Sequence[str]) -> None:
        _control_jobs(["scancel", *jobs])

    def tick_script(self, name: str, folder: Path) -> str:
        return self._scripts.tick_script(name, folder)

    def with_module(self, module: str) -> SlurmCluster:
        return SlurmCluster(self._given.model_copy(update={"module": module}))

    @property
    def slots(self) -> int | None:
        """None: how much of the site is ours to use is for its scheduler to say."""
        return None

    @property
    def queued_tasks(self) -> int | None:
        return self._queue.queued_tasks

    # ------------------------------------------------------------------ the site

    def limits(self) -> Limits:
        if self._site.max_array_size == 0:
            raise ClusterError("this Slurm allows no job arrays (MaxArraySize=0)")
        parts = [part._request.partitions for part in self._parts.values()]
        names = tuple(dict.fromkeys(name for partitions in parts for name in partitions))
        request = msgspec.structs.replace(self._request, partitions=names) if all(parts) and names else None
        return limits_of(self._site, request or self._request)

    def default_limits(self, shape: TaskResources) -> DefaultLimits:
        if self._parts and not shape.pool:  # as much as it gets in each
            found = [part.default_limits(shape) for part in self._parts.values()]
            return DefaultLimits(*(None if None in each else min(each) for each in zip(*found, strict=True)))
        bare = msgspec.structs.replace(shape, time_s=None, mem_mib=None)
        return default_limits(self._site, self._request, bare, self._scripts.task_options(bare))

    def problems(self, shape: TaskResources) -> list[str]:
        if self._parts and not shape.pool:
            return self._pool_problems(shape)
        part = self._part(shape)
        if part is not self:
            return part.problems(shape)
        found = gpu_problems(self._scripts.task_options(shape), shape, where=self._scripts.source_of)
        found += self._unexported_variables(shape)
        if found:
            return found
        try:
            site = self._site
        except ClusterUnavailable:
            return []
        request = self._request
        found = resource_problems(site, request, without_user_options(shape, self._options))
        if found:
            return [_with_variable(line, self._options) for line in found]
        nodes = wanted_nodes(site, request)
        if nodes and request.nodelist and not any(node.name in hosts_of(request.nodelist) for node in nodes):
            names = ", ".join(each.name for each in wanted_partitions(site, request))
            return [f"cluster.nodelist: partition {names} has none of these nodes, got {request.nodelist}"]
        batch = example_batch(shape)
        drop = overriding_variables(sbatch_options(batch, self._options))
        message = refusal(
            self.script(batch), all_nodes_up=bool(nodes) and all(n.up for n in nodes), drop=drop
        )
        set_here = passed_variables(drop)
        message = f"{message}; your environment sets {set_here}" if message and set_here else message
        return [f"cluster: Slurm would never take such a task: {message}"] if message else []

    def _pool_problems(self, shape: TaskResources) -> list[str]:
        """Those of such a task in each pool whose cap allows it."""
        pools = list(zip(self.pools, self._given.pools or (), strict=True))
        allowing = [(n, own) for n, (pool, own) in enumerate(pools) if allows(pool, shape.total_gpus)]
        # Others are passed over for such tasks, as long as one takes them.
        fitting = [each for each in allowing if self._holds(each[1].shown, shape)] or allowing
        if not fitting:
            most = max(pool.max_gpus or 0 for pool, _ in pools)
            expected = f"one must have max_gpus of at least {shape.total_gpus}, for one task"
            return [f"cluster.pools: {expected}, got {most} at most"]
        return [
            at_pool(line, index, own)
            for index, own in fitting
            for line in self._parts[own.shown].problems(msgspec.structs.replace(shape, pool=own.shown))
        ]

    def _holds(self, pool: str, shape: TaskResources) -> bool:
        """Whether nodes of the pool have as many GPUs as the task, as far as that is known."""
        try:
            most = self.pool_task_gpus(pool, nodes=shape.nodes)
        except ClusterUnavailable:
            return True
        return most is None or shape.total_gpus <= most

    def pool_task_gpus(self, pool: str, *, nodes: int) -> int | None:
        part = self._parts[pool]
        counts = [node_gpus(node, part._request) for node in wanted_nodes(part._site, part._request)]
        return max(counts) * nodes if counts else None

    def _unexported_variables(self, shape: TaskResources) -> list[str]:
        """Variables that tasks, or the jobs that submit the next ones, would silently be without."""
        options, folder = self._options, Path("/check")
        task_drop = overriding_variables(sbatch_options(example_batch(shape), options))
        tick_drop = overriding_variables(tick_options("check", folder, options))
        tick = own_options(self._scripts.tick_script("check", folder))
        exports = {
            "cluster.options": export_of(self._scripts.task_options(shape), dropped=task_drop),
            "cluster.tick_options": export_of(tick, dropped=tick_drop),
        }
        problems: list[str] = []
        for key, export in exports.items():
            names = export.names
            missing = [] if names is None else [name for name in options.inherited if name not in names]
            whole = ",".join([*(names or ()), *missing])
            problems += [
                f"cluster.environment.{name}: null takes it from the environment of `launch`, and "
                f"{export.source} keeps it from the jobs; give {key}: {{export: '{whole}'}}"
                for name in missing
            ]
        return problems

    def allocation_of(self, shape: TaskResources) -> TaskAllocation:
        if self._parts and not shape.pool:  # as much as it may hold in any
            held = [
                part.allocation_of(shape)
                for pool, part in zip(self.pools, self._parts.values(), strict=True)
                if allows(pool, shape.total_gpus)
            ]
            return max(held, key=lambda each: each.gpus, default=TaskAllocation(shape.total_gpus, shape.cpus))
        part = self._part(shape)
        if part is not self:
            return part.allocation_of(shape)
        return task_allocation(self._site, self._request, shape, self._scripts.task_options(shape))

    def tick_warning(self) -> str:
        options = own_options(self._scripts.tick_script("tick", Path("/check")))
        return tick_warning(self._site, request_from_options(options, gpu_type=None), options)

    def _node_gpus(self, batch: SubmittedBatch, row: Row) -> int | None:
        """GPUs of the task's node where it was given all of that, which its CPUs show."""
        if not row.node or row.cpus is None or row.cpus <= batch.shape.cpus:
            return None  # the site is not asked
        with contextlib.suppress(ClusterUnavailable, SpecError):
            node = next((each for each in self._site.nodes if each.name == row.node), None)
            # Slurm rounds CPUs up to whole cores, which alone may fill a node.
            whole = row.cpus > 2 * batch.shape.cpus or self.allocation_of(batch.shape).why
            if node is not None and row.cpus >= node.cpus and whole:
                return sum(node.gpus.values())
        return None

    # ------------------------------------------------------------------ following

    def find(self, name: str) -> str | None:
        return self.find_batch(name, folder=Path(), since=0.0)

    def find_batch(self, name: str, *, folder: Path, since: float) -> str | None:
        return self._queue.find(Identity(name, "", folder, since=since, workdir=self._options.workdir))

    def shown_name(self, batch: SubmittedBatch) -> str | None:
        names = self._queue.shown.get(batch.name, {})
        return names.get(batch.job) or next(iter(names.values()), None)

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        return self._queue.poll(live)

    def has_failed(self, node: str) -> bool:
        argv = ["sinfo", "-h", "-N", "-n", node, "-o", "%T"]
        try:
            states = programs.check_output(argv, timeout_s=programs.QUERY_S)
        except ClusterUnavailable:
            return False
        return any(word in states for word in ("down", "fail", "unknown"))

    def find_jobs(self, folder: Path, *, names: Sequence[str], known: Sequence[str]) -> list[str]:
        return self._queue.find_jobs(folder, names=names, known=known)

    # ------------------------------------------------------------------ steering

    def warn(self, batch: SubmittedBatch, task: int) -> None:
        argv = ["scancel", "--batch", "--signal=USR2", f"{batch.job}_{task}"]
        programs.check_output(argv, timeout_s=programs.QUERY_S)

    def cancel_jobs(self, *, names: Sequence[str], jobs: Sequence[str]) -> None:
        for which in [*(f"--name={name}" for name in names), *jobs]:
            with contextlib.suppress(ClusterUnavailable):
                programs.run(["scancel", f"--user={os.getuid()}", which], timeout_s=programs.QUERY_S)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        # 0 would mean no limit at all.
        for job in self._queue.jobs_of(batch):
            _control_jobs(["scontrol", "update", f"jobid={job}", f"ArrayTaskThrottle={max(1, tasks)}"])

    def release(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        names = ",".join(f"{job}_{task}" for job in self._queue.jobs_of(batch) for task in tasks)
        _control_jobs(["scontrol", "release", names])

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        parts = programs.ranges(tasks)
        starts = range(0, len(parts), CANCEL_RANGES)
        for job, start in itertools.product(self._queue.jobs_of(batch), starts):
            indices = ",".join(parts[start : start + CANCEL_RANGES])
            _control_jobs(["scancel", f"{job}_[{indices}]"])


def _control_jobs(argv: Sequence[str]) -> None:
    """Have scancel or scontrol do something to jobs, some of which may have ended."""
    answer = programs.run(argv, timeout_s=programs.QUERY_S)
    if answer.code != 0 and not programs.only_ended(answer):
        raise ClusterUnavailable(f"{argv[0]}: {answer.message}")


def _with_variable(problem: str, options: SlurmOptions) -> str:
    """The problem with the variable at fault, where that and not the spec says it."""
    value = os.environ.get("SBATCH_PARTITION")
    mine = options.partition or options.options.get("partition")
    if value and not mine and problem.startswith("cluster.partition: "):
        return f"{problem}; your environment sets SBATCH_PARTITION={value}"
    return problem
