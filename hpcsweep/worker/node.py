"""`python -m hpcsweep.worker.node PLAN`: starts the ranks of a run on this node."""

from __future__ import annotations

import importlib.util
import math
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping

from hpcsweep import bootstrap
from hpcsweep.bootstrap import use_utf8
from hpcsweep.worker.rank import PARENT_VARIABLE, PEER_S
from hpcsweep.worker.ranks import END_S, NOT_FOUND, RANK_VARIABLES, RankPlan, read_plan
from hpcsweep.worker.signals import Signals


def main(path: str) -> int:
    """Become the launcher of this node, or start the ranks where none does."""
    plan = read_plan(path)
    node = int(os.environ.get(RANK_VARIABLES[2], "0"))
    environ = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    rank = bootstrap.command(plan.python, "hpcsweep.worker.rank", path)
    if plan.launcher == "srun":
        return _start_ranks(plan, rank, environ, node=node)
    argv = launcher_command(plan, rank, node=node, environ=environ)
    if argv is None:
        print(
            f"hpcsweep: train.launcher: {plan.launcher} is neither installed for {plan.python} nor on PATH",
            file=sys.stderr,
        )
        return NOT_FOUND
    return os.execvpe(argv[0], argv, environ)


def launcher_command(
    plan: RankPlan, rank: list[str], *, node: int, environ: Mapping[str, str]
) -> list[str] | None:
    """The command of torchrun or accelerate on one node; None if it is not installed.

    Args:
        plan: What to start.
        rank: The command of each rank.
        node: Number of the node.
        environ: Where PATH is looked up.
    """
    if plan.launcher == "torchrun":
        program = _program("torch", ["-m", "torch.distributed.run"], "torchrun", plan.python, environ)
        options = [
            f"--nnodes={plan.nodes}",
            f"--node-rank={node}",
            f"--nproc-per-node={plan.per_node}",
            f"--master-addr={plan.address}",
            f"--master-port={plan.port}",
            "--no-python",
        ]
    else:
        program = _program(
            "accelerate", ["-m", "accelerate.commands.launch"], "accelerate", plan.python, environ
        )
        options = [
            # Without a config of its user's it would start one process, where it sees less than two GPUs.
            *(["--multi_gpu"] if plan.size > 1 and not _has_accelerate_config(environ) else []),
            f"--num_machines={plan.nodes}",
            f"--machine_rank={node}",
            f"--num_processes={plan.size}",
            f"--main_process_ip={plan.address}",
            f"--main_process_port={plan.port}",
            "--no_python",
        ]
    return [*program, *options, *rank] if program else None


def _has_accelerate_config(environ: Mapping[str, str]) -> bool:
    """Whether `accelerate config` was run, which says how to train (FSDP, DeepSpeed, ...)."""
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "~"), ".cache")
    home = environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return os.path.isfile(os.path.join(os.path.expanduser(home), "accelerate", "default_config.yaml"))


def _program(
    module: str, as_module: list[str], name: str, python: str, environ: Mapping[str, str]
) -> list[str]:
    """The launcher of this interpreter, else the one on PATH; empty if there is none."""
    if python == sys.executable and importlib.util.find_spec(module) is not None:
        return [python, *as_module]
    found = shutil.which(name, path=environ.get("PATH"))
    launch = ["launch"] if name == "accelerate" else []
    return [found, *launch] if found else []


def _start_ranks(plan: RankPlan, rank: list[str], environ: Mapping[str, str], *, node: int) -> int:
    """Start them, and wait for all of them; the exit status of the first one that failed."""
    signals = Signals()  # what the ranks are to do they learn from files
    ranks = [
        subprocess.Popen(rank, env={**environ, **dict(zip(RANK_VARIABLES, map(str, place), strict=True))})
        for place in ((node * plan.per_node + local, local, node) for local in range(plan.per_node))
    ]
    failed, deadline = 0, math.inf
    while any(each.poll() is None for each in ranks):
        failed = failed or next((each.returncode for each in ranks if each.returncode), 0)
        if failed and deadline == math.inf:  # the others end by themselves, unless one was killed
            deadline = time.monotonic() + PEER_S + END_S
        if time.monotonic() > deadline:
            for each in ranks:
                each.kill()
        select.select([signals.wakeup], [], [], 0.1 if failed else 60.0)
        signals.take()
    return failed or next((each.returncode for each in ranks if each.returncode), 0)


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(sys.argv[1]))
