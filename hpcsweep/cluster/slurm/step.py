"""`python -m hpcsweep.cluster.slurm.step PROCESSES MODULE ...`: runs a module of ours on all nodes of a job.

It becomes an srun with so many processes on each node. In each of them this module says, in the worker's
words, which one it is, and becomes the module.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping
from typing import Final

from hpcsweep import bootstrap
from hpcsweep.bootstrap import use_utf8
from hpcsweep.cluster.task_environment import process_variables, without_launcher

#: Training that srun starts may know it; the ranks that torchrun starts must not take themselves for srun's.
_RANK: Final = "hpcsweep.worker.rank"
#: In place of PROCESSES: srun has started this process.
_STARTED: Final = "started"


def srun_command(processes: int, started: list[str], environ: Mapping[str, str]) -> list[str]:
    """The srun of a step with so many processes on each node, which share its CPUs and GPUs."""
    nodes = int(environ.get("SLURM_JOB_NUM_NODES") or environ.get("SLURM_NNODES") or 1)
    cpus = int(environ.get("SLURM_CPUS_PER_TASK") or environ.get("SLURM_CPUS_ON_NODE") or processes)
    return [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes * processes}",
        f"--ntasks-per-node={processes}",
        f"--cpus-per-task={max(1, cpus // processes)}",
        "--kill-on-bad-exit=1",
        # One SIGINT ends the processes on all nodes.
        "--quit-on-interrupt",
        "--export=ALL",
        *started,
    ]


def main(arguments: list[str]) -> None:
    processes, module, *rest = arguments
    if processes == _STARTED:
        rank, local, node = (os.environ[f"SLURM_{name}"] for name in ("PROCID", "LOCALID", "NODEID"))
        environ = dict(os.environ) if module == _RANK else without_launcher(os.environ)
        os.environ.clear()
        os.environ.update(environ | process_variables(rank=rank, local=local, node=node))
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    started = bootstrap.command(sys.executable, "hpcsweep.cluster.slurm.step", _STARTED, module, *rest)
    argv = srun_command(int(processes), started, os.environ)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    use_utf8()
    main(sys.argv[1:])
