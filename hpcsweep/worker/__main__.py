"""`python -m hpcsweep.worker BATCH_FOLDER`: do one array task's work.

Which task it is, and its which start, it is told (`--task`, with `HPCSWEEP_RESTART` and
`HPCSWEEP_JOB`), else it knows from Slurm (`SLURM_ARRAY_TASK_ID`, `SLURM_RESTART_COUNT`): a worker
that is started by hand inside a Slurm job has that job's variables around it.
Exit 0 means that every run that was started has its result on disk, whatever became of it.
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
from hpcsweep.worker.task import SetupFailure, Signals, ignore_signals, run_task
from hpcsweep.worker.tick_process import tick


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the task; 0 if its results are on disk, 1 if not, 2 if it was asked wrongly."""
    signals = Signals()
    parser = argparse.ArgumentParser(
        prog="python -m hpcsweep.worker", description="Do one array task's work."
    )
    parser.add_argument("batch", type=Path, help="the batch folder, with its manifest.jsonl")
    parser.add_argument("--task", type=int, help="the array index, where Slurm does not tell it")
    parser.add_argument(
        "--setup-failed",
        nargs=2,
        metavar=("STATUS", "LINE"),
        help="train nothing: this line of the script failed before",
    )
    request = parser.parse_args(arguments)
    try:
        task = request.task
        if task is None:
            task = _first_number(environ, "SLURM_ARRAY_TASK_ID", "HPCSWEEP_TASK")
        if task is None:
            parser.error("which task? Give --task, HPCSWEEP_TASK or run in a Slurm array")
        folder, job = request.batch.absolute(), _job(environ)
        written = run_task(
            folder,
            task=task,
            restart=_first_number(environ, "HPCSWEEP_RESTART", "SLURM_RESTART_COUNT") or 0,
            job=job,
            node=environ.get("SLURMD_NODENAME") or socket.gethostname(),
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


def _first_number(environ: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None


def _job(environ: Mapping[str, str]) -> str:
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    from_slurm = f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")
    return environ.get("HPCSWEEP_JOB") or from_slurm


if __name__ == "__main__":
    use_utf8()
    code = main(sys.argv[1:])
    ignore_signals()
    sys.exit(code)
