"""`python -m hpcsweep.worker BATCH_FOLDER`: runs one array task.

The cluster sets HPCSWEEP_TASK (the array index, or `--task`), HPCSWEEP_RESTART (how often the task was
started before), HPCSWEEP_JOB (its job id) and HPCSWEEP_NODE. Exit 0 means that every run that was started
has its result on disk, whatever the result is.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from hpcsweep.bootstrap import use_utf8
from hpcsweep.errors import HpcsweepError
from hpcsweep.store.layout import BatchLayout
from hpcsweep.worker.signals import Signals, ignore_signals
from hpcsweep.worker.task import SetupFailure, run_task
from hpcsweep.worker.tick_process import tick


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the task; 0 if its results are on disk, 1 if not, 2 for wrong arguments."""
    signals = Signals()
    parser = argparse.ArgumentParser(
        prog="python -m hpcsweep.worker", description="Do one array task's work."
    )
    parser.add_argument("batch", type=Path, help="the batch folder, with its manifest.jsonl")
    parser.add_argument("--task", type=int, help="the array index, in place of HPCSWEEP_TASK")
    parser.add_argument(
        "--setup-failed",
        nargs=2,
        metavar=("STATUS", "LINE"),
        help="train nothing: this line of the script failed before",
    )
    request = parser.parse_args(arguments)
    try:
        if request.task is None and "HPCSWEEP_TASK" not in environ:
            environ = _submitted_before(environ)
        task = _number(environ, "HPCSWEEP_TASK") if request.task is None else request.task
        if task is None:
            parser.error("which task? Give --task or HPCSWEEP_TASK")
        folder, job = request.batch.absolute(), environ.get("HPCSWEEP_JOB", "")
        written = run_task(
            folder,
            task=task,
            restart=_number(environ, "HPCSWEEP_RESTART") or 0,
            job=job,
            node=environ.get("HPCSWEEP_NODE") or socket.gethostname(),
            environ=environ,
            signals=signals,
            setup_failed=request.setup_failed and SetupFailure(*request.setup_failed),
        )
        if written and signals.first is None:
            tick(BatchLayout(folder), task=task, job=job, environ=environ, signals=signals)
    except (HpcsweepError, OSError) as error:
        print(f"hpcsweep: {error}", file=sys.stderr)
        return 2
    return 0 if written else 1


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "")
    return int(value) if value.isdecimal() else None


def _submitted_before(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Scripts of earlier versions may still be queued: they leave the task index to Slurm's variables."""
    from hpcsweep.cluster.slurm.task import slurm_task
    from hpcsweep.cluster.task_environment import without_launcher

    return without_launcher(environ) | slurm_task(environ)


if __name__ == "__main__":
    use_utf8()
    code = main(sys.argv[1:])
    ignore_signals()
    sys.exit(code)
