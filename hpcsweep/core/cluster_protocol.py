"""The seam to where batches run: `Cluster`, what it is given and what it shows."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from hpcsweep.errors import ClusterError


class TaskId(NamedTuple):
    """One array index of a batch."""

    batch: str
    task: int


class Phase(enum.Enum):
    """What the cluster says of a task, whatever its own words for it."""

    PENDING = "pending"
    RUNNING = "running"  # starting up, suspended and cleaning up included: it may hold GPUs
    COMPLETED = "completed"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAIL = "node_fail"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # a word that we do not know: kept, logged, and nothing concluded

    @property
    def active(self) -> bool:
        """Whether the task may still run, or run again."""
        return self in (Phase.PENDING, Phase.RUNNING, Phase.UNKNOWN)


class BlockKind(enum.Enum):
    """Why a pending task does not start, where waiting alone will not help."""

    IMPOSSIBLE = "never"  # as it was submitted it can never start, if it goes on being said
    HELD = "held"  # the cluster itself put it back and holds it: letting it go may help once
    BLOCKED = "waits"  # somebody must do something first, for example release it or raise a limit
    LIMITED = "limited"  # a limit for a group: it passes as jobs end, where some run
    UNKNOWN = "unknown"  # a word that is not known to pass by itself


class TaskState(msgspec.Struct, frozen=True):
    """One task as the cluster shows it.

    Attributes:
        reason: The cluster's own words, for example why it is pending.
        node: Where it runs or ran, empty if nowhere yet.
        seconds: How long it has run since it started last, None where the cluster does not say.
        block: Why it does not start, None if it need only wait for its turn.
        foreign: It was cancelled by another user id than ours.
        gpus: GPUs that the cluster gave it, None where it does not say.
    """

    phase: Phase
    reason: str = ""
    node: str = ""
    seconds: float | None = None
    block: BlockKind | None = None
    foreign: bool = False
    gpus: int | None = None


class TaskResources(msgspec.Struct, frozen=True):
    """What one task asks of the cluster, for all the runs that it does at a time; or what one run needs.

    Attributes:
        gpus: Of each node; 0 for a CPU task. `cpus` and `mem_mib` are those of each node, too.
        mem_mib: None leaves it to the cluster's default.
        time_s: Time limit; None leaves it to the cluster's default.
        lanes: Runs at a time; `gpus`, `cpus` and `mem_mib` are divided evenly among lanes.
        least_time_s: Where the site does not allow `time_s`, so much would do; None: nothing less.
        nodes: How many nodes one task has.
        pool: Name of the `Pool` that it is for; empty where that is open, or there are none.
    """

    gpus: int = 0
    cpus: int = 1
    mem_mib: int | None = None
    time_s: int | None = None
    lanes: int = 1
    least_time_s: int | None = None
    nodes: int = 1
    pool: str = ""

    @property
    def total_gpus(self) -> int:
        """GPUs on all nodes of a task: what it holds and costs."""
        return self.gpus * self.nodes

    def within(self, limits_s: Sequence[int]) -> TaskResources:
        """The same with a time limit that all of these limits allow that allow `least_time_s`."""
        if self.time_s is None or self.least_time_s is None:
            return self
        enough = [limit for limit in limits_s if limit >= self.least_time_s]
        return msgspec.structs.replace(self, time_s=min([self.time_s, *enough]))


class Pool(msgspec.Struct, frozen=True):
    """A part of a cluster with caps of its own, such as a partition.

    Attributes:
        max_gpus: That a sweep's tasks may hold there at a time, as `max_tasks`; None: no cap but the sweep's.
        preemptible: Tasks may be interrupted there by those of others: it gets short runs first.
        max_gpu_s: GPU-seconds that a sweep's tasks may cost there in all; None: no cap but the sweep's.
    """

    name: str
    max_gpus: int | None = None
    max_tasks: int | None = None
    preemptible: bool = False
    max_gpu_s: float | None = None


class TaskAllocation(msgspec.Struct, frozen=True):
    """What one task holds of a cluster, all its nodes together, which may be more than it asks for.

    Attributes:
        why: It is more, in words; empty if it is not.
    """

    gpus: int
    cpus: int
    why: str = ""


class Batch(msgspec.Struct, frozen=True):
    """One submission: one array of `tasks` tasks, all alike.

    Attributes:
        name: Unique for ever; the job name.
        folder: `batches/<name>` of the results folder, absolute; holds the manifest already.
        throttle: At most so many tasks at a time.
        exclude: Nodes to stay away from.
        requeue: Whether the cluster may run a task again by itself.
        after: Job or task that has to end first, empty if none.
    """

    name: str
    folder: Path
    tasks: int
    throttle: int
    shape: TaskResources
    exclude: tuple[str, ...] = ()
    requeue: bool = True
    after: str = ""


class SubmittedBatch(msgspec.Struct, frozen=True):
    """A batch that the cluster accepted and that is not closed.

    Attributes:
        open_tasks: Indices of the tasks that were not seen gone yet, ascending.
        planned_at: It was submitted no earlier; Unix time, 0 where unknown.
    """

    name: str
    job: str
    folder: Path
    tasks: int
    throttle: int
    shape: TaskResources
    open_tasks: Sequence[int]
    planned_at: float = 0.0


class Limits(msgspec.Struct, frozen=True):
    """What a site allows. None is no limit.

    Attributes:
        array_tasks: Tasks in one array.
        slots: Tasks that can run at a time, for a cluster of fixed size such as this machine.
        queued_tasks: Tasks that may wait or run at a time, all of the user's jobs together.
        time_s: Time limit of a task that asks for none.
        most_times_s: The longest time limit of each partition that a task may run in; empty where unknown.
        nodes: Names of the nodes that the sweep may run on; empty where unknown.
    """

    array_tasks: int | None = None
    slots: int | None = None
    queued_tasks: int | None = None
    time_s: int | None = None
    most_times_s: tuple[int, ...] = ()
    nodes: tuple[str, ...] = ()


class DefaultLimits(NamedTuple):
    """What a task gets that asks for none, and that holds for it; None where that is unknown or no limit.

    Attributes:
        mem_mib: Of each node.
    """

    time_s: int | None = None
    mem_mib: int | None = None


class QueuedJob(msgspec.Struct, frozen=True):
    """A job or an array that waits or runs, as the queue shows it.

    Attributes:
        job: Its id, that of the array for a task.
        reason: Why it waits, in the queue's words.
        begins: When a job that waits for a time may start, in the queue's words.
        folder: Where its script starts; empty where unknown.
    """

    job: str
    name: str
    state: str = ""
    reason: str = ""
    begins: str = ""
    folder: str = ""


class Cluster(Protocol):
    """Where batches run. Every call may raise `ClusterUnavailable`."""

    #: How long a submission without an answer may still turn up, and a result may stay
    #: invisible after its task has ended.
    settle_s: float
    grace_s: float
    #: How long a task may take from its start until it takes runs.
    start_up_s: float = 300.0
    #: Shortest and longest time between two polls.
    poll_s: tuple[float, float]
    #: Whether a task may have several nodes: its worker is told how to start processes on all of them.
    spans_nodes: bool = False
    #: Tasks are submitted to these, in this order as far as the caps allow; empty: it is all one.
    pools: tuple[Pool, ...] = ()

    def submit(self, batch: Batch) -> str:
        """Submit one array, give its job id.

        Raises:
            SubmitRefused: It was refused for certain, with the cluster's own words.
            SubmitLimited: It was refused for certain, and may be accepted later or in smaller pieces.
            SubmitUncertain: It may have been accepted: `find` it.
        """
        ...

    def find(self, name: str) -> str | None:
        """Job id of the batch with this name, None if the cluster knows of none."""
        ...

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        """Every task that the cluster shows, in one query; None: no information."""
        ...

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        """Let at most `tasks` tasks of the batch run at a time from now on."""
        ...

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Cancel these tasks; those that have ended are passed over."""
        ...

    def limits(self) -> Limits:
        """What the site allows; asked once a session at most."""
        ...

    # What follows has a default for clusters that inherit this class.

    def find_batch(self, name: str, *, folder: Path, since: float) -> str | None:
        """As `find`, where a site may have renamed the job.

        Args:
            name: Of the batch.
            folder: Its own folder.
            since: It was submitted no earlier; Unix time.
        """
        return self.find(name)

    def release(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Let tasks go that the cluster put back and holds."""
        return

    def has_failed(self, node: str) -> bool:
        """Whether the node is known to have failed; False where the cluster does not say."""
        return False

    def submit_tick(self, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0) -> str:
        """Submit a small job that ticks the sweep in `folder`, give its job id.

        Args:
            name: The job name.
            folder: The results folder.
            after: Job that has to end first, however it ends.
            delay_s: It starts no earlier than so much later.

        Raises:
            ClusterError: The cluster takes no such jobs, or not now.
        """
        raise ClusterError("no job can drive a sweep here: leave `launch` running, under nohup or tmux")

    def cancel_ticks(self, jobs: Sequence[str]) -> None:
        """Cancel jobs that `submit_tick` submitted; those that have ended are passed over."""
        return

    def tick_warning(self) -> str:
        """That the jobs of `submit_tick` hold GPUs, and what to do about it; empty if they hold none."""
        return ""

    def script(self, batch: Batch) -> str | None:
        """The script of the batch as it would be sent; writes nothing. None: this cluster has no scripts.

        Raises:
            SpecError: There can be no such script.
        """
        return None

    @property
    def can_probe(self) -> bool:
        """Whether it is a `ProbeCluster`."""
        return False

    @property
    def template(self) -> str:
        """The template of the scripts; empty where there are none."""
        return ""

    def problems(self, shape: TaskResources) -> list[str]:
        """Why a task like this can never run here; each line begins with the key path at fault."""
        return []

    def granted(self, run: TaskResources) -> TaskResources:
        """What a run that needs that gets here: less what this cluster does not share out."""
        return run

    def allocation_of(self, shape: TaskResources) -> TaskAllocation:
        """What a task of this shape will hold at most."""
        return TaskAllocation(shape.total_gpus, shape.cpus * shape.nodes)

    def default_limits(self, shape: TaskResources) -> DefaultLimits:
        """What a task of this shape gets in any case, where it asks for no time or no memory."""
        return DefaultLimits(self.limits().time_s)

    def pool_task_gpus(self, pool: str, *, nodes: int) -> int | None:
        """The most GPUs that one task of so many nodes can have in a pool; None where that is not known."""
        return None

    @property
    def slots(self) -> int | None:
        """Tasks that can run at a time; None where that is not fixed, or not ours to know."""
        return self.limits().slots

    @property
    def total_gpus(self) -> int | None:
        """GPUs that its tasks share; None where that is not fixed, or not ours to know."""
        return None

    @property
    def poll_error(self) -> str:
        """Why the last poll gave no information, in the cluster's words; empty if it gave some."""
        return ""

    @property
    def known_jobs(self) -> Mapping[str, str] | None:
        """Ids and names of the user's jobs that waited or ran at the last poll; None: unknown."""
        return None

    @property
    def queued_tasks(self) -> int | None:
        """The user's tasks that waited or ran at the last poll, all jobs together; None: unknown."""
        return None


class ProbeCluster(Cluster, Protocol):
    """A cluster on which `doctor --canary` can submit a small job that says what a node sees."""

    @property
    def can_probe(self) -> bool:
        return True

    @property
    def crontabs(self) -> str:
        """What can run a command at fixed times there, as in "cron or scrontab"."""
        return "cron"

    def with_module(self, module: str) -> ProbeCluster:
        """The same cluster whose tasks run another module of ours in the worker's place."""
        ...

    def tick_script(self, name: str, folder: Path) -> str:
        """The script of a small job like those of `submit_tick`; writes nothing."""
        ...

    def shown_name(self, batch: SubmittedBatch) -> str | None:
        """The job name under which the last poll showed the batch, None if it did not."""
        ...

    def find_jobs(self, folder: Path, *, names: Sequence[str], known: Sequence[str]) -> list[str]:
        """Ids of the user's active jobs: these ids, what bears a name of these, what starts below the folder.

        Raises:
            ClusterUnavailable: Nothing is known.
        """
        ...

    def warn(self, batch: SubmittedBatch, task: int) -> None:
        """Send the signal that comes before a time limit to this task.

        Raises:
            ClusterUnavailable: The cluster did not take it.
        """
        ...

    def cancel_jobs(self, *, names: Sequence[str], jobs: Sequence[str]) -> None:
        """Cancel jobs of these names and ids; silent where the cluster does not answer."""
        ...
