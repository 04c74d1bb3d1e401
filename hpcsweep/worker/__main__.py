"""`python -m hpcsweep.worker BATCH_FOLDER`: runs one array task.

The cluster sets HPCSWEEP_TASK (the array index, or `--task`), HPCSWEEP_RESTART (how often the task was
started before), HPCSWEEP_JOB (its job id) and HPCSWEEP_NODE. Exit 0 means that every run that was started
has its result on disk, whatever the result is.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcsweep import bootstrap
from hpcsweep.bootstrap import use_utf8
from hpcsweep.errors import HpcsweepError
from hpcsweep.store.batch import read_task
from hpcsweep.store.files import open_append
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.worker.process import Child
from hpcsweep.worker.task import SetupFailure, Signals, ignore_signals, run_task

#: Marks the tick's process; what it submits must not inherit it.
TICK_VARIABLE: Final = "HPCSWEEP_TICK"
#: Time limit of a tick, which holds the task's GPUs.
LONGEST_S: Final = 180.0
#: How long a tick may finish when the task must stop: an interrupted submission costs more.
TICK_NOTICE_S: Final = 10.0


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


def tick(batch: BatchLayout, *, task: int, job: str, environ: Mapping[str, str], signals: Signals) -> None:
    """Tick the sweep in a child process if the manifest asks for it; errors do not fail this task."""
    try:
        header, _ = read_task(batch, task)
        if header.tick and not batch.abandoned_marker.exists():
            _run_tick(batch, task=task, job=job, environ=environ, signals=signals)
    except Exception as error:  # the results of the task are on disk, whatever fails here
        print(f"hpcsweep: this task does not tick: {error}", file=sys.stderr, flush=True)


def _run_tick(
    batch: BatchLayout, *, task: int, job: str, environ: Mapping[str, str], signals: Signals
) -> None:
    layout = Layout.of_batch(batch.root)
    argv = bootstrap.command(sys.executable, "hpcsweep.tick", str(layout.root))
    argv += ["--batch", batch.root.name, "--task", str(task), "--job", job]
    try:
        log = open_append(layout.tick_log)
    except OSError as error:  # then the task's own log has the output of the tick
        message = f"hpcsweep: {layout.tick_log}: cannot be written: {error.strerror}"
        print(message, file=sys.stderr, flush=True)
        log = os.dup(2)
    try:
        env = {**environ, TICK_VARIABLE: os.urandom(8).hex()}
        child = Child(argv, env=env, mark=TICK_VARIABLE, cwd=str(layout.root), output=log)
    finally:
        os.close(log)
    deadline = time.monotonic() + LONGEST_S
    try:
        while not child.exited and (left := deadline - time.monotonic()) > 0:
            select.select([signals.wakeup], [], [], left)  # its end wakes us as well
            if signals.take():
                deadline = min(deadline, time.monotonic() + TICK_NOTICE_S)
    finally:
        child.kill_all()


if __name__ == "__main__":
    use_utf8()
    code = main(sys.argv[1:])
    ignore_signals()
    sys.exit(code)
