"""What a cluster tells the worker of a task, and which launcher variables it keeps from its runs."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from hpcsweep.bootstrap import collect_seldom

#: By these a process believes that srun or mpirun has started it, together with the others of its training:
#: a batch script has them too (SLURM_NTASKS=1, SLURM_PROCID=0), and Lightning with `devices: 2` then trains
#: on one device. srun sets them again for those that it starts. What stays, for srun and mpirun to see
#: what the job has: SLURM_JOB_*, SLURM_TASKS_PER_NODE, SLURM_CPUS_PER_TASK, SLURM_NNODES, SLURM_NODELIST.
_LAUNCHER: Final = frozenset(
    {
        "SLURM_NTASKS",
        "SLURM_NPROCS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_GTIDS",
        "SLURM_TASK_PID",
        "SLURM_LAUNCH_NODE_IPADDR",
        "SLURM_DISTRIBUTION",
        # NONE at sites that pass nothing on: srun would keep a run's own variables from what it starts.
        "SLURM_EXPORT_ENV",
        "PMI_RANK",
        "PMI_SIZE",
        "PMI_LOCAL_RANK",
        "PMI_LOCAL_SIZE",
        "PMI_UNIVERSE_SIZE",
        "PMI_FD",
        "PMI_ID",
        "PMI_JOBID",
        "PMI_PORT",
        "PMI_SPAWNED",
        "PMI_CONTROL_PORT",
        "PMI_SHARED_SECRET",
        "OMPI_UNIVERSE_SIZE",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
    }
)
_LAUNCHER_PREFIXES: Final = (
    "SLURM_STEP",
    "SLURM_SRUN_",
    "SLURM_PTY_",
    "SLURM_PMI",
    "SLURM_CPU_BIND",
    "SLURM_MEM_BIND",
    "PMIX_",
    "OMPI_COMM_WORLD_",
    "MV2_COMM_WORLD_",
)
#: User settings that share a prefix with the above.
_SETTINGS: Final = "PMIX_MCA_"


def without_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment less the variables by which a process believes that a launcher started it."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _LAUNCHER and (not name.startswith(_LAUNCHER_PREFIXES) or name.startswith(_SETTINGS))
    }
    # srun since Slurm 22.05 no longer takes the CPUs of a task from the batch job that it runs in.
    if "SLURM_CPUS_PER_TASK" in kept:
        kept.setdefault("SRUN_CPUS_PER_TASK", kept["SLURM_CPUS_PER_TASK"])
    return kept


def task_variables(
    *,
    task: int | str,
    restart: int | str,
    job: str,
    node: str = "",
    start: Sequence[str] = (),
    address: str = "",
    nodes: str = "",
) -> dict[str, str]:
    """By what the worker knows its task, on every cluster.

    Args:
        task: The array index.
        restart: How often the task was started before.
        job: Its job id.
        node: The node that its worker runs on, the first of the task's.
        start: The words of a command that takes a number of processes, a module of ours and its arguments,
            and runs that module so many times on each node of the task, each with `process_variables`; empty
            where processes can be started on this node alone.
        address: By what the other nodes reach this one.
        nodes: All nodes of the task as the cluster lists them, where there are several.
    """
    start_words = json.dumps(list(start)) if start else ""
    known = {"HPCSWEEP_START": start_words, "HPCSWEEP_ADDRESS": address, "HPCSWEEP_NODES": nodes}
    return {
        "HPCSWEEP_TASK": str(task),
        "HPCSWEEP_RESTART": str(restart),
        "HPCSWEEP_JOB": job,
        "HPCSWEEP_NODE": node,
        **{name: value for name, value in known.items() if value},
    }


def process_variables(*, rank: int | str, local: int | str, node: int | str) -> dict[str, str]:
    """By what a process that was started on all nodes knows its number, that on its node, and its node's."""
    return {
        "HPCSWEEP_RANK": str(rank),
        "HPCSWEEP_LOCAL_RANK": str(local),
        "HPCSWEEP_NODE_RANK": str(node),
    }


def alarm_after(time_s: int | None, *, signal_s: int) -> float:
    """Seconds after which a task is told that its time is nearly over, not in its first half; 0 for never."""
    return 0.0 if time_s is None else max(time_s / 2, time_s - signal_s)


def set_alarm(seconds: float) -> None:
    """Have this process get SIGALRM after so many seconds; 0 is never."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # until the worker takes it up
    signal.setitimer(signal.ITIMER_REAL, seconds)


def run_in_task(arguments: list[str], variables: Mapping[str, str]) -> None:
    """Become the worker, or the module that `--module` names, with these variables; does not return."""
    collect_seldom()
    module = "hpcsweep.worker"
    if arguments[:1] == ["--module"]:
        module, arguments = arguments[1], arguments[2:]
    environ = without_launcher(os.environ) | dict(variables)
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(environ)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
