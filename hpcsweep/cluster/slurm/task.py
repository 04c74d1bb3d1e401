"""`python -m hpcsweep.cluster.slurm.task BATCH_FOLDER`: the worker of an array task of Slurm."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping

from hpcsweep import bootstrap
from hpcsweep.cluster.task_environment import run_in_task, task_variables


def slurm_task(environ: Mapping[str, str]) -> dict[str, str]:
    """What Slurm's variables say of the task, in the worker's words; empty outside of an array."""
    index = environ.get("SLURM_ARRAY_TASK_ID", "")
    if not index.isdecimal():
        return {}
    array, job = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_JOB_ID", "")
    # By it submitit's JobEnvironment and TorchDistributedEnvironment know where training code runs.
    return {"SUBMITIT_EXECUTOR": "slurm"} | task_variables(
        task=index,
        restart=environ.get("SLURM_RESTART_COUNT") or 0,
        job=f"{array}_{index}" if array else job,
        node=environ.get("SLURMD_NODENAME", ""),
        start=bootstrap.command(sys.executable, "hpcsweep.cluster.slurm.step"),
        address=_address(environ),
        nodes=environ.get("SLURM_JOB_NODELIST", "") if _has_several_nodes(environ) else "",
    )


def _has_several_nodes(environ: Mapping[str, str]) -> bool:
    return environ.get("SLURM_JOB_NUM_NODES", "1") != "1"


def _address(environ: Mapping[str, str]) -> str:
    """By what other nodes of the job reach this one; empty where there are none."""
    if not _has_several_nodes(environ):
        return ""
    name = environ.get("SLURMD_NODENAME", "")
    with contextlib.suppress(OSError):
        socket.getaddrinfo(name, None)
        return name
    return socket.gethostname()  # nodes have other names in Slurm


if __name__ == "__main__":
    run_in_task(sys.argv[1:], slurm_task(os.environ))
