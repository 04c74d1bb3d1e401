"""After its work a task of a detached sweep drives the sweep on, in a process that it watches."""

from __future__ import annotations

import os
import secrets
import select
import sys
import time
from collections.abc import Mapping
from typing import Final

from hpcsweep import bootstrap
from hpcsweep.store.files import open_append
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.manifest import read_task
from hpcsweep.worker.process import Child
from hpcsweep.worker.task import Signals

#: By this variable the process is known; what it submits must not inherit it.
TICK_VARIABLE: Final = "HPCSWEEP_TICK"
#: The GPU is held meanwhile.
LONGEST_S: Final = 180.0
#: A task that is told to stop lets it finish what it is at: a submission that is cut off costs more.
TICK_NOTICE_S: Final = 10.0


def tick(batch: BatchLayout, *, task: int, job: str, environ: Mapping[str, str], signals: Signals) -> None:
    """Drive the sweep on if its header asks for it; what comes of that changes nothing for this task."""
    try:
        header, _ = read_task(batch, task)
        if header.tick and not batch.void.exists():
            _run(batch, task=task, job=job, environ=environ, signals=signals)
    except Exception as error:  # the results of the task are on disk, whatever fails here
        print(f"hpcsweep: this task does not tick: {error}", file=sys.stderr, flush=True)


def _run(batch: BatchLayout, *, task: int, job: str, environ: Mapping[str, str], signals: Signals) -> None:
    layout = Layout.of_batch(batch.root)
    argv = bootstrap.command(sys.executable, "hpcsweep.tick", str(layout.root))
    argv += ["--batch", batch.root.name, "--task", str(task), "--job", job]
    try:
        log = open_append(layout.tick_log)
    except OSError as error:  # then the task's own log has what the tick says
        print(
            f"hpcsweep: {layout.tick_log}: cannot be written: {error.strerror}", file=sys.stderr, flush=True
        )
        log = os.dup(2)
    try:
        env = {**environ, TICK_VARIABLE: secrets.token_hex(8)}
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
        child.end()
