"""Clusters.

Made by `python -m tests.docs.reference`: change the code that it is made from, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from hpcsweep.api.parts import AnyCluster, NamedCluster

__all__ = ["PBS", "Cluster", "Local", "Simulated", "Slurm"]


@dataclass(frozen=True, repr=False)
class Cluster(AnyCluster):
    """A cluster by its name, by default the first batch system that answers here, else this machine.

    Attributes:
        name: The cluster. `auto` is the first batch system that answers here, else this machine.
        max_gpus: Maximum number of GPUs in use, over all jobs of the sweep. Without any cap: 1000 tasks at a
            time.
        max_tasks: Maximum number of running tasks, over all jobs of the sweep.
        setup: Shell lines to run before training, such as `module load cuda`.
        environment: Environment variables of the runs; null takes the value from the environment of `launch`.
        python: Python interpreter on the compute nodes. Default: the one that launches.
        poll: Time between two ticks, in seconds or such as `30s`. Default: adapts to the cluster and its
            load.
        settle: How long an unanswered submission may still appear, such as `2m`. Default: depends on the
            cluster.
        grace: How long a result may appear after its task ended, such as `1m`. Default: depends on the
            cluster.
        reuse: Whether a task keeps its GPUs and does run after run; else it does one. Default: true where
            jobs wait in a queue, as on Slurm, false on this machine.
        task_time: Time limit of a task with `reuse`. Default: enough for the longest run, and at least an
            hour where the site allows that.
        idle: Seconds for which a task with `reuse` may hold its GPUs without a run.
        concurrent: Number of runs of a task that run at the same time and share its GPUs.
        signal: Seconds before the time limit at which a run is told to checkpoint and exit.
        partition: Slurm partition, or several separated by commas.
        account: Slurm account to charge.
        qos: Slurm quality of service (QOS).
        constraint: Required node features, as for `sbatch --constraint`.
        gpu_type: GPU type as named in Slurm's gres, such as `a100`. Default: any.
        nodelist: Nodes that may be used, such as `n[3-4]`. Default: all.
        exclude: Nodes that must not be used, such as `n7,n9`.
        pools: Partitions, QOS or kinds of GPUs to use side by side, each with its own `max_gpus`, in this
            order.
        template: The template of job scripts: a file, or one that comes with hpcsweep; default.sbatch if not
            given.
        options: Further sbatch options without their dashes, such as mail-type; null for one without value.
        tick_options: Further sbatch options of the small jobs that drive a sweep under --detach, such as
            partition.
        queue: The queue of PBS.
        project: The project that PBS charges.
        directives: Further qsub options for PBS, one directive each, such as `-l place=excl`.
        slots: Runs at a time on a machine without GPUs; by its cores if not given.
        simulated: The site that `hpcsweep simulate` runs the sweep on.
    """

    _: KW_ONLY
    name: str = "auto"
    max_gpus: int | None = None
    max_tasks: int | None = None
    setup: str | Sequence[str] | None = None
    environment: Mapping[str, Any] | None = None
    python: str | None = None
    poll: float | str | None = None
    settle: float | str | None = None
    grace: float | str | None = None
    reuse: bool | None = None
    task_time: str | None = None
    idle: int = 120
    concurrent: int = 1
    signal: int = 60
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_type: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    pools: Sequence[Any] | None = None
    template: str | None = None
    options: Mapping[str, Any] | None = None
    tick_options: Mapping[str, Any] | None = None
    queue: str | None = None
    project: str | None = None
    directives: str | Sequence[str] | None = None
    slots: int | None = None
    simulated: Mapping[str, Any] | None = None


@dataclass(frozen=True, repr=False)
class Slurm(NamedCluster):
    """Slurm as a cluster.

    Attributes:
        max_gpus: Maximum number of GPUs in use, over all jobs of the sweep. Without any cap: 1000 tasks at a
            time.
        max_tasks: Maximum number of running tasks, over all jobs of the sweep.
        setup: Shell lines to run before training, such as `module load cuda`.
        environment: Environment variables of the runs; null takes the value from the environment of `launch`.
        python: Python interpreter on the compute nodes. Default: the one that launches.
        poll: Time between two ticks, in seconds or such as `30s`. Default: adapts to the cluster and its
            load.
        settle: How long an unanswered submission may still appear, such as `2m`. Default: depends on the
            cluster.
        grace: How long a result may appear after its task ended, such as `1m`. Default: depends on the
            cluster.
        reuse: Whether a task keeps its GPUs and does run after run; else it does one. Default: true where
            jobs wait in a queue, as on Slurm, false on this machine.
        task_time: Time limit of a task with `reuse`. Default: enough for the longest run, and at least an
            hour where the site allows that.
        idle: Seconds for which a task with `reuse` may hold its GPUs without a run.
        concurrent: Number of runs of a task that run at the same time and share its GPUs.
        signal: Seconds before the time limit at which a run is told to checkpoint and exit.
        partition: Slurm partition, or several separated by commas.
        account: Slurm account to charge.
        qos: Slurm quality of service (QOS).
        constraint: Required node features, as for `sbatch --constraint`.
        gpu_type: GPU type as named in Slurm's gres, such as `a100`. Default: any.
        nodelist: Nodes that may be used, such as `n[3-4]`. Default: all.
        exclude: Nodes that must not be used, such as `n7,n9`.
        pools: Partitions, QOS or kinds of GPUs to use side by side, each with its own `max_gpus`, in this
            order.
        template: The template of job scripts: a file, or one that comes with hpcsweep; default.sbatch if not
            given.
        options: Further sbatch options without their dashes, such as mail-type; null for one without value.
        tick_options: Further sbatch options of the small jobs that drive a sweep under --detach, such as
            partition.
    """

    name: ClassVar[str] = "slurm"

    _: KW_ONLY
    max_gpus: int | None = None
    max_tasks: int | None = None
    setup: str | Sequence[str] | None = None
    environment: Mapping[str, Any] | None = None
    python: str | None = None
    poll: float | str | None = None
    settle: float | str | None = None
    grace: float | str | None = None
    reuse: bool | None = None
    task_time: str | None = None
    idle: int = 120
    concurrent: int = 1
    signal: int = 60
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_type: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    pools: Sequence[Any] | None = None
    template: str | None = None
    options: Mapping[str, Any] | None = None
    tick_options: Mapping[str, Any] | None = None


@dataclass(frozen=True, repr=False)
class PBS(NamedCluster):
    """PBS as a cluster.

    Attributes:
        max_gpus: Maximum number of GPUs in use, over all jobs of the sweep. Without any cap: 1000 tasks at a
            time.
        max_tasks: Maximum number of running tasks, over all jobs of the sweep.
        setup: Shell lines to run before training, such as `module load cuda`.
        environment: Environment variables of the runs; null takes the value from the environment of `launch`.
        python: Python interpreter on the compute nodes. Default: the one that launches.
        poll: Time between two ticks, in seconds or such as `30s`. Default: adapts to the cluster and its
            load.
        settle: How long an unanswered submission may still appear, such as `2m`. Default: depends on the
            cluster.
        grace: How long a result may appear after its task ended, such as `1m`. Default: depends on the
            cluster.
        reuse: Whether a task keeps its GPUs and does run after run; else it does one. Default: true where
            jobs wait in a queue, as on Slurm, false on this machine.
        task_time: Time limit of a task with `reuse`. Default: enough for the longest run, and at least an
            hour where the site allows that.
        idle: Seconds for which a task with `reuse` may hold its GPUs without a run.
        concurrent: Number of runs of a task that run at the same time and share its GPUs.
        signal: Seconds before the time limit at which a run is told to checkpoint and exit.
        queue: The queue of PBS.
        project: The project that PBS charges.
        account: The account that is charged.
        directives: Further qsub options for PBS, one directive each, such as `-l place=excl`.
        template: The template of job scripts: a file, or one that comes with hpcsweep; default.pbs under PBS.
    """

    name: ClassVar[str] = "pbs"

    _: KW_ONLY
    max_gpus: int | None = None
    max_tasks: int | None = None
    setup: str | Sequence[str] | None = None
    environment: Mapping[str, Any] | None = None
    python: str | None = None
    poll: float | str | None = None
    settle: float | str | None = None
    grace: float | str | None = None
    reuse: bool | None = None
    task_time: str | None = None
    idle: int = 120
    concurrent: int = 1
    signal: int = 60
    queue: str | None = None
    project: str | None = None
    account: str | None = None
    directives: str | Sequence[str] | None = None
    template: str | None = None


@dataclass(frozen=True, repr=False)
class Local(NamedCluster):
    """Local as a cluster.

    Attributes:
        max_gpus: Maximum number of GPUs in use, over all jobs of the sweep. Without any cap: 1000 tasks at a
            time.
        max_tasks: Maximum number of running tasks, over all jobs of the sweep.
        setup: Shell lines to run before training, such as `module load cuda`.
        environment: Environment variables of the runs; null takes the value from the environment of `launch`.
        python: Python interpreter on the compute nodes. Default: the one that launches.
        poll: Time between two ticks, in seconds or such as `30s`. Default: adapts to the cluster and its
            load.
        settle: How long an unanswered submission may still appear, such as `2m`. Default: depends on the
            cluster.
        grace: How long a result may appear after its task ended, such as `1m`. Default: depends on the
            cluster.
        reuse: Whether a task keeps its GPUs and does run after run; else it does one. Default: true where
            jobs wait in a queue, as on Slurm, false on this machine.
        task_time: Time limit of a task with `reuse`. Default: enough for the longest run, and at least an
            hour where the site allows that.
        idle: Seconds for which a task with `reuse` may hold its GPUs without a run.
        concurrent: Number of runs of a task that run at the same time and share its GPUs.
        signal: Seconds before the time limit at which a run is told to checkpoint and exit.
        slots: Runs at a time on a machine without GPUs; by its cores if not given.
    """

    name: ClassVar[str] = "local"

    _: KW_ONLY
    max_gpus: int | None = None
    max_tasks: int | None = None
    setup: str | Sequence[str] | None = None
    environment: Mapping[str, Any] | None = None
    python: str | None = None
    poll: float | str | None = None
    settle: float | str | None = None
    grace: float | str | None = None
    reuse: bool | None = None
    task_time: str | None = None
    idle: int = 120
    concurrent: int = 1
    signal: int = 60
    slots: int | None = None


@dataclass(frozen=True, repr=False)
class Simulated(NamedCluster):
    """Simulated as a cluster.

    Attributes:
        max_gpus: Maximum number of GPUs in use, over all jobs of the sweep. Without any cap: 1000 tasks at a
            time.
        max_tasks: Maximum number of running tasks, over all jobs of the sweep.
        setup: Shell lines to run before training, such as `module load cuda`.
        environment: Environment variables of the runs; null takes the value from the environment of `launch`.
        python: Python interpreter on the compute nodes. Default: the one that launches.
        poll: Time between two ticks, in seconds or such as `30s`. Default: adapts to the cluster and its
            load.
        settle: How long an unanswered submission may still appear, such as `2m`. Default: depends on the
            cluster.
        grace: How long a result may appear after its task ended, such as `1m`. Default: depends on the
            cluster.
        reuse: Whether a task keeps its GPUs and does run after run; else it does one. Default: true where
            jobs wait in a queue, as on Slurm, false on this machine.
        task_time: Time limit of a task with `reuse`. Default: enough for the longest run, and at least an
            hour where the site allows that.
        idle: Seconds for which a task with `reuse` may hold its GPUs without a run.
        concurrent: Number of runs of a task that run at the same time and share its GPUs.
        signal: Seconds before the time limit at which a run is told to checkpoint and exit.
        slots: Runs at a time on a machine without GPUs; by its cores if not given.
        simulated: The site that `hpcsweep simulate` runs the sweep on.
    """

    name: ClassVar[str] = "simulated"

    _: KW_ONLY
    max_gpus: int | None = None
    max_tasks: int | None = None
    setup: str | Sequence[str] | None = None
    environment: Mapping[str, Any] | None = None
    python: str | None = None
    poll: float | str | None = None
    settle: float | str | None = None
    grace: float | str | None = None
    reuse: bool | None = None
    task_time: str | None = None
    idle: int = 120
    concurrent: int = 1
    signal: int = 60
    slots: int | None = None
    simulated: Mapping[str, Any] | None = None
