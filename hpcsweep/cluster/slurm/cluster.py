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
import submitit

from hpcsweep.cluster.slurm import programs
from hpcsweep.cluster.slurm.options import DEFAULT_TEMPLATE, SlurmOptions, gpu_problems
from hpcsweep.cluster.slurm.programs import export_of, overriding_variables, passed_variables, refusal, submit
from hpcsweep.cluster.slurm.queue import Identity, SlurmQueue
from hpcsweep.cluster.slurm.requests import (
    ResourceRequest,
    holding,
    limits_of,
    request_from_options,
    resource_problems,
    tick_warning,
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
from hpcsweep.cluster.slurm.site import Node, SlurmSite, host_list, hosts_of, read_site
from hpcsweep.core.cluster_protocol import (
    Batch,
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

__all__ = ["SlurmCluster", "SlurmOptions"]

_log = logging.getLogger(__name__)

#: Ranges of indices in one scancel.
CANCEL_RANGES: Final = 500


class SlurmCluster(ProbeCluster):
    """Runs batches as Slurm arrays. Keeps nothing that a new process would have to know.

    Raises:
        SpecError: The options or the template are wrong; found before anything is submitted.
    """

    def __init__(self, options: SlurmOptions) -> None:
        self.settle_s = options.settle_s
        self.grace_s = options.grace_s
        self.poll_s = options.poll_s
        self._options = options
        _refuse_words_of_submitit(options)
        self._scripts = SlurmScripts(options)
        self._queue = SlurmQueue(workdir=options.workdir, node_gpus=self._node_gpus)
        self._scripts.asked(TaskResources())
        self._scripts.tick_script("check", Path("/check"))

    @property
    def template(self) -> str:
        """The template of the scripts."""
        return self._options.template or DEFAULT_TEMPLATE

    @property
    def crontabs(self) -> str:
        """What can run a command at fixed times here."""
        with contextlib.suppress(ClusterUnavailable):
            if self._site.scrontab:
                return "cron or scrontab"
        return "cron"

    @cached_property
    def _site(self) -> SlurmSite:
        return read_site()

    @cached_property
    def _request(self) -> ResourceRequest:
        return request_from_options(self._scripts.asked(TaskResources()), gpu_type=self._options.gpu_type)

    # ------------------------------------------------------------------ submitting

    def script(self, batch: Batch) -> str:
        """The script as it would be sent; writes nothing.

        Raises:
            SpecError: The template is wrong, or the script longer than Slurm likes; or several nodes may
                be used, and Slurm does not show which others there are.
        """
        return self._scripts.render(*self._placed(batch))

    def _placed(self, batch: Batch) -> tuple[Batch, SlurmOptions]:
        """The batch kept to `nodelist`: one task uses one of these nodes, and --nodelist would mean all."""
        options = self._options
        allowed = hosts_of(options.nodelist or "")
        if len(allowed) < 2:
            return batch, options
        try:
            nodes = _nodes_of(self._site, self._request)
        except ClusterUnavailable:
            nodes = []
        if not nodes:
            raise SpecError(
                "cluster.nodelist: Slurm does not show here which nodes there are, so several cannot be "
                "chosen: name one, or use cluster.exclude or cluster.constraint"
            )
        others = host_list(node.name for node in nodes if node.name not in allowed)
        exclude = (*batch.exclude, *([others] if others else []))
        return (
            msgspec.structs.replace(batch, exclude=exclude),
            options.model_copy(update={"nodelist": None}),
        )

    def submit(self, batch: Batch) -> str:
        """Submit one array, give its job id; `script.sbatch` is on disk before sbatch is called.

        Raises:
            SubmitRefused: It was refused for certain, with sbatch's own words.
            SubmitLimited: It was refused for certain, and may be accepted later or in smaller pieces.
            SubmitUncertain: It may have been accepted: `find` it.
            SpecError: Its options ask for other GPUs than it is counted with.
        """
        text = self.script(batch)
        wrong = gpu_problems(own_options(text), batch.shape.gpus, where=self._scripts.source_of)
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

        Raises:
            ClusterError: Slurm takes no such job, or not now.
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
        """Why the last poll gave no information."""
        return self._queue.poll_error

    @property
    def known_jobs(self) -> Mapping[str, str] | None:
        """Ids and names of the user's jobs that waited or ran at the last poll."""
        return self._queue.known_jobs

    def cancel_ticks(self, jobs: Sequence[str]) -> None:
        """Cancel jobs that `submit_tick` submitted, those that have ended passed over.

        Raises:
            ClusterUnavailable: Slurm did not take it.
        """
        _steer(["scancel", *jobs])

    def tick_script(self, name: str, folder: Path) -> str:
        """The script of a small job like those of `submit_tick`; writes nothing."""
        return self._scripts.tick_script(name, folder)

    def with_module(self, module: str) -> SlurmCluster:
        """The same cluster with another module of ours in the worker's place."""
        return SlurmCluster(self._options.model_copy(update={"module": module}))

    @property
    def slots(self) -> int | None:
        """None: how much of the site is ours to use is for its scheduler to say."""
        return None

    @property
    def queued_tasks(self) -> int | None:
        """The user's tasks and jobs that waited or ran at the last poll."""
        return self._queue.queued_tasks

    # ------------------------------------------------------------------ the site

    def limits(self) -> Limits:
        """What the site allows a sweep with these options; asked once.

        Raises:
            ClusterError: The site allows no arrays.
            ClusterUnavailable: The controller did not answer.
        """
        if self._site.max_array_size == 0:
            raise ClusterError("this Slurm allows no job arrays (MaxArraySize=0)")
        return limits_of(self._site, self._request)

    def problems(self, shape: TaskResources) -> list[str]:
        """Why no task of this shape can ever run; nothing where the controller does not answer."""
        found = gpu_problems(self._scripts.asked(shape), shape.gpus, where=self._scripts.source_of)
        found += self._kept_from_jobs(shape)
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
        nodes = _nodes_of(site, request)
        if nodes and request.nodelist and not any(node.name in hosts_of(request.nodelist) for node in nodes):
            names = ", ".join(each.name for each in wanted_partitions(site, request))
            return [f"cluster.nodelist: partition {names} has none of these nodes, got {request.nodelist}"]
        batch = example_batch(shape)
        drop = overriding_variables(sbatch_options(batch, self._options))
        words = refusal(self.script(batch), all_nodes_up=bool(nodes) and all(n.up for n in nodes), drop=drop)
        set_here = passed_variables(drop)
        words = f"{words}; your environment sets {set_here}" if words and set_here else words
        return [f"cluster: Slurm would never take such a task: {words}"] if words else []

    def _kept_from_jobs(self, shape: TaskResources) -> list[str]:
        """Variables that tasks, or the jobs that submit the next ones, would silently be without."""
        site, example = self._options, Path("/check")
        tick = own_options(self._scripts.tick_script("check", example))
        exports = {
            "cluster.options": export_of(
                self._scripts.asked(shape),
                dropped=overriding_variables(sbatch_options(example_batch(shape), site)),
            ),
            "cluster.tick_options": export_of(
                tick, dropped=overriding_variables(tick_options("check", example, site))
            ),
        }
        found: list[str] = []
        for key, export in exports.items():
            names = export.names
            missing = [] if names is None else [name for name in site.inherited if name not in names]
            whole = ",".join([*(names or ()), *missing])
            found += [
                f"cluster.environment.{name}: null takes it from the environment of `launch`, and "
                f"{export.source} keeps it from the jobs; give {key}: {{export: '{whole}'}}"
                for name in missing
            ]
        return found

    def allocation_of(self, shape: TaskResources) -> TaskAllocation:
        """What a task of this shape will hold at most.

        Raises:
            ClusterUnavailable: The controller did not answer.
        """
        return holding(self._site, self._request, shape, self._scripts.asked(shape))

    def tick_warning(self) -> str:
        """That the jobs that tick a detached sweep hold GPUs, and what to do; empty if they hold none.

        Raises:
            ClusterUnavailable: The controller did not answer.
        """
        asked = own_options(self._scripts.tick_script("tick", Path("/check")))
        return tick_warning(self._site, request_from_options(asked, gpu_type=None), asked)

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
        """Job id of the batch with this name: from squeue, else from the database if there is one.

        Raises:
            ClusterUnavailable: squeue failed, so nothing is known.
        """
        return self._queue.find(Identity(name, "", Path(), workdir=self._options.workdir))

    def find_batch(self, name: str, *, folder: Path, since: float) -> str | None:
        """As `find`, also by folder and comment: a site may have renamed the job.

        Raises:
            ClusterUnavailable: squeue failed, so nothing is known.
        """
        return self._queue.find(Identity(name, "", folder, since=since, workdir=self._options.workdir))

    def shown_name(self, batch: SubmittedBatch) -> str | None:
        """The job name under which the last poll showed the batch, None if it did not."""
        names = self._queue.shown.get(batch.name, {})
        return names.get(batch.job) or next(iter(names.values()), None)

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        """Every task of these batches that Slurm shows, by one squeue; None: squeue failed."""
        return self._queue.poll(live)

    def has_failed(self, node: str) -> bool:
        """Whether Slurm calls the node down or failed; False where it does not answer."""
        try:
            states = programs.check_output(
                ["sinfo", "-h", "-N", "-n", node, "-o", "%T"], timeout_s=programs.QUERY_S
            )
        except ClusterUnavailable:
            return False
        return any(word in states for word in ("down", "fail", "unknown"))

    def find_jobs(self, folder: Path, *, names: Sequence[str], known: Sequence[str]) -> list[str]:
        """Ids of the user's active jobs: these ids, what bears a name of these, what starts below the folder.

        Raises:
            ClusterUnavailable: squeue failed, so nothing is known.
        """
        return self._queue.find_jobs(folder, names=names, known=known)

    # ------------------------------------------------------------------ steering

    def warn(self, batch: SubmittedBatch, task: int) -> None:
        """Send this task's script the signal that comes before its time limit.

        Raises:
            ClusterUnavailable: Slurm did not take it.
        """
        argv = ["scancel", "--batch", "--signal=USR2", f"{batch.job}_{task}"]
        programs.check_output(argv, timeout_s=programs.QUERY_S)

    def cancel_jobs(self, *, names: Sequence[str], jobs: Sequence[str]) -> None:
        """Cancel the user's jobs of these names and ids; silent where Slurm does not answer."""
        for which in [*(f"--name={name}" for name in names), *jobs]:
            with contextlib.suppress(ClusterUnavailable):
                programs.run(["scancel", f"--user={os.getuid()}", which], timeout_s=programs.QUERY_S)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        """Let at most `tasks` tasks of the batch run at a time from now on; at least one.

        Raises:
            ClusterUnavailable: Slurm did not take it.
        """
        # 0 would mean no limit at all.
        for job in self._queue.jobs_of(batch):
            argv = ["scontrol", "update", f"jobid={job}", f"ArrayTaskThrottle={max(1, tasks)}"]
            _steer(argv)

    def release(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Let tasks go that Slurm put back into the queue and holds.

        Raises:
            ClusterUnavailable: Slurm did not take it.
        """
        names = ",".join(f"{job}_{task}" for job in self._queue.jobs_of(batch) for task in tasks)
        _steer(["scontrol", "release", names])

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Cancel these tasks; those that have ended are passed over.

        Raises:
            ClusterUnavailable: Slurm did not take it.
        """
        parts = programs.ranges(tasks)
        starts = range(0, len(parts), CANCEL_RANGES)
        for job, start in itertools.product(self._queue.jobs_of(batch), starts):
            indices = ",".join(parts[start : start + CANCEL_RANGES])
            _steer(["scancel", f"{job}_[{indices}]"])


def _steer(argv: Sequence[str]) -> None:
    """Have scancel or scontrol do something to jobs, some of which may have ended."""
    answer = programs.run(argv, timeout_s=programs.QUERY_S)
    if answer.code != 0 and not programs.only_ended(answer):
        raise ClusterUnavailable(f"{argv[0]}: {answer.message}")


def _nodes_of(site: SlurmSite, request: ResourceRequest) -> list[Node]:
    """The nodes of the partitions where the tasks may run."""
    found = {
        node.name: node for each in wanted_partitions(site, request) for node in site.nodes_of(each.name)
    }
    return list(found.values())


def _with_variable(problem: str, options: SlurmOptions) -> str:
    """The problem with the variable at fault, where that and not the spec says it."""
    value = os.environ.get("SBATCH_PARTITION")
    mine = options.partition or options.options.get("partition")
    if value and not mine and problem.startswith("cluster.partition: "):
        return f"{problem}; your environment sets SBATCH_PARTITION={value}"
    return problem


def _refuse_words_of_submitit(options: SlurmOptions) -> None:
    """Refuse options that only submitit knows: people bring them along, and sbatch would not."""
    ours = {
        "setup": "cluster.setup",
        "array_parallelism": "cluster.max_gpus",
        "signal_delay_s": "cluster.signal",
        "num_gpus": "resources.gpus",
    }
    beyond_sbatch = {"teardown", "stderr_to_stdout", "additional_parameters", "srun_args", "use_srun", *ours}
    names = submitit.SlurmExecutor._valid_parameters() & beyond_sbatch
    wrong = [key for key in options.options if key.lstrip("-").replace("-", "_") in names]
    hints = [f"; here it is {ours[key]}" if key in ours else "" for key in wrong]
    if wrong:
        raise SpecError(
            *(
                f"cluster.options.{key}: a word of submitit, not of sbatch{hint}"
                for key, hint in zip(wrong, hints, strict=True)
            )
        )
