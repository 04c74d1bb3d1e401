"""The tick of a detached sweep, in a child process of the worker."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from typing import Final

from hpcsweep import bootstrap
from hpcsweep.store.batch import read_task
from hpcsweep.store.files import open_append
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.worker.command import TaskContext
from hpcsweep.worker.process import Child
from hpcsweep.worker.signals import Signals

#: Marks the tick's process; what it submits must not inherit it.
TICK_VARIABLE: Final = "HPCSWEEP_TICK"
#: Time limit of a tick, which holds the task's GPUs.
LONGEST_S: Final = 180.0
#: How long a tick may finish when the task must stop: an interrupted submission costs more.
TICK_NOTICE_S: Final = 10.0
#: Seconds between ticks by a task that waits for a run.
IDLE_TICK_S: Final = 20.0


class TickProcess:
    """A tick that has begun.

    Args:
        batch: Whose task this is.
        task: Its index. `job`: its job id.
        environ: The environment of the task.
        goes_on: The task takes more runs afterwards; else it leaves as soon as it has ticked.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self, batch: BatchLayout, *, task: int, job: str, environ: Mapping[str, str], goes_on: bool
    ) -> None:
        layout = Layout.of_batch(batch.root)
        argv = bootstrap.command(sys.executable, "hpcsweep.tick", str(layout.root))
        argv += ["--batch", batch.root.name, "--task", str(task), "--job", job]
        argv += ["--goes-on"] if goes_on else []
        try:
            log = open_append(layout.tick_log)
        except OSError as error:  # then the task's own log has what the tick says
            print(
                f"hpcsweep: {layout.tick_log}: cannot be written: {error.strerror}",
                file=sys.stderr,
                flush=True,
            )
            log = os.dup(2)
        try:
            env = {**environ, TICK_VARIABLE: os.urandom(8).hex()}
            self._child = Child(argv, env=env, mark=TICK_VARIABLE, cwd=str(layout.root), output=log)
        finally:
            os.close(log)
        #: When it is killed, on the monotonic clock.
        self.deadline = time.monotonic() + LONGEST_S
        self._hurries = False

    @property
    def over(self) -> bool:
        """Whether it has ended; kills it at its deadline."""
        if not self._child.exited and time.monotonic() < self.deadline:
            return False
        self._child.kill_all()
        return True

    def hurry(self) -> None:
        """The task is told to stop, or takes no more runs: the tick may finish what it is at."""
        if not self._hurries and not self._child.exited:
            self._hurries = True
            self.deadline = min(self.deadline, time.monotonic() + TICK_NOTICE_S)
            self._child.forward_signal(signal.SIGTERM)


class TicksBeside:
    """Ticks of a task that goes on, one at a time; none unless `enabled`.

    Attributes:
        due: This task takes runs now, or one has ended.
        process: The tick that is under way.
    """

    def __init__(self, context: TaskContext, *, enabled: bool) -> None:
        self._context = context
        self._enabled = self.due = enabled
        self.process: TickProcess | None = None
        self._idle_tick_at = time.monotonic() + IDLE_TICK_S

    def keep(self, *, idle: bool, closed: bool) -> None:
        """Begin a tick where one is due; another driver that is at work sees to it as well.

        Args:
            idle: The task waits for a run: then nobody may drive.
            closed: It takes no more runs, and leaves once its tick has ended.
        """
        if self.process is not None and self.process.over:
            self.process = None
        if closed:
            self.hurry()
            return
        now = time.monotonic()
        self.due = self._enabled and (self.due or (idle and now >= self._idle_tick_at))
        if self.process is not None or not self.due:
            return
        self.due, self._idle_tick_at = False, now + IDLE_TICK_S
        task = self._context
        try:
            self.process = TickProcess(
                task.batch, task=task.task, job=task.job, environ=task.environ, goes_on=True
            )
        except OSError as error:
            print(f"hpcsweep: this task does not tick: {error}", file=sys.stderr, flush=True)

    def hurry(self) -> None:
        """See `TickProcess.hurry`."""
        if self.process is not None:
            self.process.hurry()


def tick(batch: BatchLayout, *, task: int, job: str, environ: Mapping[str, str], signals: Signals) -> None:
    """Tick the sweep if the manifest asks for it; errors change nothing for this task, which leaves now."""
    try:
        header, _ = read_task(batch, task)
        if not header.tick or batch.abandoned_marker.exists():
            return
        process = TickProcess(batch, task=task, job=job, environ=environ, goes_on=False)
        while not process.over:
            # Its end wakes us as well.
            select.select([signals.wakeup], [], [], max(0.0, process.deadline - time.monotonic()))
            if signals.take():
                process.hurry()
    except Exception as error:  # the results of the task are on disk, whatever fails here
        print(f"hpcsweep: this task does not tick: {error}", file=sys.stderr, flush=True)
