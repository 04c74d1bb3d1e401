"""The runs of a task that keeps its GPUs: taken one after another from the driver's assignments."""

from __future__ import annotations

import sys
import time
from typing import Final

import msgspec

from hpcsweep.errors import NewerFormatError
from hpcsweep.store.assignments import (
    Assignment,
    StartId,
    TaskDeparture,
    TaskStart,
    announce,
    list_inbox,
    read_assignment,
)
from hpcsweep.store.batch import Reuse
from hpcsweep.worker.command import TaskContext

#: Seconds between two looks for an assignment: the first ones after a run, and at most.
_SHORTEST_S: Final = 0.05
_LONGEST_S: Final = 1.0
#: How long before its time limit a task stops looking for runs: its departure must be written.
_MARGIN_S: Final = 30.0


def announce_failure(context: TaskContext, message: str) -> None:
    """Tell the driver that this task can take no run."""
    start, now = StartId(context.task, context.restart), time.time()
    announce(context.batch, start, TaskStart(context.job, context.node, at=now))
    announce(context.batch, start, TaskDeparture(0, message, at=now, failed=True))


class AssignedRuns:
    """Assignments of one start of a task, each taken once, in order.

    Attributes:
        taken: How many were taken.
        closed: No more are taken, and the driver was told so.
        look_at: When to look next, on the monotonic clock.
    """

    def __init__(self, context: TaskContext, reuse: Reuse) -> None:
        self._batch = context.batch
        self._start = StartId(context.task, context.restart)
        self._idle_s = reuse.idle_s
        began = time.time()
        self._ends = began + reuse.time_s if reuse.time_s else None
        self.taken = 0
        self.closed = False
        self._pause_s = _SHORTEST_S
        self.look_at = self._idle_since = time.monotonic()
        announce(self._batch, self._start, TaskStart(context.job, context.node, at=began, ends=self._ends))

    def take(self, *, idle: bool) -> tuple[int, Assignment] | None:
        """The next assignment with its number, if there is one yet.

        Args:
            idle: No run of the task is going on.
        """
        now = time.monotonic()
        if self.closed or now < self.look_at:
            return None
        inbox = list_inbox(self._batch, self._start)
        if self.taken in inbox.numbers and (assignment := self._read()) is not None:
            self.taken += 1
            self.rest(now)
            return self.taken - 1, assignment
        self._pause_s = min(_LONGEST_S, 1.5 * self._pause_s)
        self.look_at = now + self._pause_s
        if not idle:
            self._idle_since = now
        elif inbox.leave:
            self.close("the driver has no more runs for it")
        elif now - self._idle_since >= self._idle_s:
            self.close(f"it was given no run for {self._idle_s:g} s")
        elif self._ends is not None and time.time() > self._ends - _MARGIN_S:
            self.close("its time is over")
        return None

    @property
    def must_leave(self) -> bool:
        """Whether the driver has it leave at once; costs a readdir."""
        return not self.closed and list_inbox(self._batch, self._start).at_once

    def rest(self, now: float) -> None:
        """A run was taken or has ended: the next one may come at any moment."""
        self._pause_s = _SHORTEST_S
        self.look_at = self._idle_since = now

    def close(self, reason: str) -> None:
        """Take no more runs, and tell the driver so."""
        if self.closed:
            return
        self.closed = True
        departure = TaskDeparture(self.taken, reason, at=time.time())
        try:
            announce(self._batch, self._start, departure)
        except OSError as error:  # the driver sees the task gone all the same, only later
            print(f"hpcsweep: its departure cannot be written: {error}", file=sys.stderr, flush=True)
        print(f"hpcsweep: takes no more runs after {self.taken}: {reason}", flush=True)

    def _read(self) -> Assignment | None:
        try:
            return read_assignment(self._batch, self._start, self.taken)
        except OSError:  # shown before it can be read, on some filesystems
            return None
        except (msgspec.MsgspecError, NewerFormatError) as error:
            self.close(f"assignment {self.taken} cannot be read: {error}")
            return None
