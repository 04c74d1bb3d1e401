"""One start of an array task: its runs one after another, or several at a time in lanes."""

from __future__ import annotations

import functools
import math
import os
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hpcsweep.core.events import Interruption, Outcome, RunId
from hpcsweep.core.outcomes import FirstErrors, failed_at_once
from hpcsweep.errors import FolderError
from hpcsweep.store.batch import (
    ManifestRun,
    Result,
    new_results,
    read_result,
    read_task,
    requested_stops,
    write_result,
)
from hpcsweep.store.excerpts import read_excerpt
from hpcsweep.store.layout import BatchLayout
from hpcsweep.worker.assigned import AssignedRuns, announce_failure
from hpcsweep.worker.command import TaskContext, lane_devices, modules_folder
from hpcsweep.worker.run import Attempt
from hpcsweep.worker.signals import Signals
from hpcsweep.worker.tick_process import TicksBeside
from hpcsweep.worker.warm import WarmProcess

#: Waits between tries to write a result: a run of hours must not be lost to a filesystem's hiccup.
_RETRY_S = (0.2, 1.0, 3.0, 6.0)

#: Seconds between checks for stop requests, in a task of several runs; each costs a readdir.
STOP_CHECK_S = 8.0

#: How long an existing file may stay invisible on another node.
VISIBLE_S = 60.0

#: How long after the first failure fail-fast applies: long runs, which may come later, only the driver knows.
_BURST_S = 300.0


class SetupFailure(NamedTuple):
    """The line of `cluster.setup` that failed, and its exit status."""

    status: str
    line: str

    def message(self, log: Path) -> str:
        excerpt = read_excerpt(log)
        text = f"cluster.setup: {self.line.strip()!r} failed with exit status {self.status}"
        return f"{text}: {excerpt}" if excerpt else text


def run_task(
    folder: Path,
    *,
    task: int,
    restart: int,
    job: str,
    node: str,
    environ: Mapping[str, str],
    signals: Signals,
    setup_failed: SetupFailure | None = None,
) -> bool:
    """Run what the manifest says, or what the driver assigns; True if every result is on disk.

    Raises:
        FolderError: There is no such manifest or task.
    """
    batch = BatchLayout(folder)
    if batch.abandoned_marker.exists():
        print(f"hpcsweep: {folder.name} was abandoned: nothing to do", flush=True)
        return True
    _await_manifest(batch)
    header, work = read_task(batch, task)
    scratch = Path(tempfile.mkdtemp(prefix="hpcsweep-"))
    try:
        context = TaskContext(
            batch=batch,
            header=header,
            task=task,
            restart=restart,
            job=job,
            node=node,
            scratch=scratch,
            environ=environ,
            modules=modules_folder(scratch / "python"),
        )
        if setup_failed is not None and header.reuse is not None:
            message = setup_failed.message(batch.log(task))
            announce_failure(context, message)
            raise FolderError(message)
        lanes = _Lanes(context, work.runs, signals)
        if setup_failed is not None:
            lanes.leave(setup_failed.message(batch.log(task)), why=Interruption.WORKER_DIED)
        try:
            return lanes.run()
        finally:
            lanes.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _await_manifest(batch: BatchLayout) -> None:
    """Wait until this node sees the manifest: NFS may show a new file late."""
    deadline = time.monotonic() + VISIBLE_S
    while batch.root.is_dir() and not batch.manifest.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
        os.listdir(batch.root)  # has NFS look again instead of remembering that there was nothing


class _Lanes:
    """Runs the runs, `header.lanes` at a time, in one thread."""

    def __init__(self, context: TaskContext, runs: tuple[ManifestRun, ...], signals: Signals) -> None:
        self._context = context
        self._signals = signals
        self._assigned = AssignedRuns(context, reuse) if (reuse := context.header.reuse) else None
        self._several = len(runs) > 1 or self._assigned is not None
        self._waiting = deque(
            (n, run)
            for n, run in enumerate(runs)
            if not is_finished(context.batch, context.task, context.restart, n)
        )
        header = context.header
        visible = context.environ.get("CUDA_VISIBLE_DEVICES")
        #: The GPUs of each free lane.
        self._lanes = deque(lane_devices(visible, gpus=header.gpus, lanes=header.lanes))
        #: By the GPUs of a lane: what its processes are forked from.
        self._warm: dict[tuple[str, ...] | None, WarmProcess] = {}
        if self._assigned is not None and header.program.function is not None and header.program.warm:
            for devices in self._lanes:
                if (key := _key(devices)) not in self._warm:
                    self._warm[key] = WarmProcess(context, devices, name=f"warm-{len(self._warm)}")
        self._active: dict[int, tuple[Attempt, list[str] | None]] = {}
        self._time_s: dict[int, float | None] = {}
        self._all_written = True
        self._fail_fast = FailFast(context.batch, header.fail_fast)
        #: Runs that are to end, and when to look for more of them, on the monotonic clock.
        self._stopped: set[RunId] = set()
        self._next_check = time.monotonic()
        self._ticks = TicksBeside(context, enabled=header.tick and self._assigned is not None)

    def run(self) -> bool:
        """Run until every run has its result; whether all results could be written."""
        while self._waiting or self._active or self._ticks.process or not self._is_closed:
            self._ticks.keep(idle=not self._active, closed=self._is_closed)
            self._check_early_end()
            self._check_stop_requests()
            self._take_assignment()
            while self._waiting and self._lanes:
                self._begin(*self._waiting.popleft())
            if self._active or self._ticks.process or not self._is_closed:
                self._wait()
            for signum in self._signals.take():
                self._ticks.hurry()
                for attempt, _ in self._active.values():
                    _guard(attempt, functools.partial(attempt.forward_signal, signum))
            for n, (attempt, devices) in list(self._active.items()):
                _guard(attempt, attempt.advance)
                if attempt.result is not None:
                    del self._active[n]
                    self._lanes.append(devices)
                    self._write(attempt.result, n)
                    self._ticks.due = True
                    if self._assigned is not None:
                        self._assigned.rest(time.monotonic())
        return self._all_written

    def close(self) -> None:
        """Leave no process behind."""
        for warm in self._warm.values():
            warm.close()

    @property
    def _is_closed(self) -> bool:
        """Whether no runs come beside those that wait."""
        return self._assigned is None or self._assigned.closed

    def _take_assignment(self) -> None:
        """Take a run for a free lane, if the driver has assigned one."""
        if self._assigned is None or self._waiting or not self._lanes:
            return
        taken = self._assigned.take(idle=not self._active)
        if taken is not None:
            n, assignment = taken
            self._time_s[n] = assignment.time_s
            self._stopped.discard(RunId(assignment.run.trial, assignment.run.rung))
            self._waiting.append((n, assignment.run))

    def _check_early_end(self) -> None:
        """Begin no more runs if the task was told to stop, the batch was abandoned or fails fast."""
        if not self._lanes or (not self._waiting and self._is_closed):
            return
        batch = self._context.batch
        # An abandoned batch may be compacted by now.
        if batch.abandoned_marker.exists() or not batch.manifest.exists():
            self._waiting.clear()
            self._close("its batch was abandoned")
        elif self._signals.first is not None:
            self._close(f"told to stop by {self._signals.first.name}")
            self.leave("the task was told to stop before this run began")
        elif self._waiting and self._fail_fast.reached():
            self.leave("not begun: the first runs all failed at once with the same error")

    def _check_stop_requests(self) -> None:
        """Stop the runs that were asked to stop, and begin none of them; the others go on."""
        if not self._several or time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + STOP_CHECK_S
        if self._assigned is not None and self._assigned.must_leave:
            self._close("the driver has it leave at once")
            for attempt, _ in self._active.values():
                _guard(attempt, functools.partial(attempt.forward_signal, signal.SIGTERM))
        new = requested_stops(self._context.batch) - self._stopped
        self._stopped |= new
        for attempt, _ in self._active.values():
            if RunId(attempt.run.trial, attempt.run.rung) in new:
                _guard(attempt, attempt.stop)
        waiting, self._waiting = self._waiting, deque()
        for n, run in waiting:
            if RunId(run.trial, run.rung) not in self._stopped:
                self._waiting.append((n, run))
                continue
            result = _not_started(self._context, run, why=None, message="stopped before it began")
            self._write(msgspec.structs.replace(result, outcome=Outcome.STOPPED), n)

    def _close(self, reason: str) -> None:
        if self._assigned is not None:
            self._assigned.close(reason)

    def leave(self, message: str, *, why: Interruption = Interruption.NOT_STARTED) -> None:
        """Begin none of the waiting runs; each gets a result that says why."""
        for n, run in self._waiting:
            self._write(_not_started(self._context, run, why=why, message=message), n)
        self._waiting.clear()

    def _begin(self, n: int, run: ManifestRun) -> None:
        devices, context = self._lanes.popleft(), self._context
        if self._assigned is not None:
            log = context.batch.assigned_log(context.task, context.restart, n)
        else:
            log = context.batch.log(context.task, n if self._several else None)
        try:
            attempt = Attempt(
                context,
                run,
                log=log,
                devices=devices,
                time_s=self._time_s.pop(n, None),
                warm=self._warm.get(_key(devices)),
            )
        except OSError as error:
            self._lanes.append(devices)
            message = f"the worker: {type(error).__name__}: {error}"
            self._write(_not_started(context, run, why=Interruption.WORKER_DIED, message=message), n)
            return
        self._active[n] = attempt, devices
        _guard(attempt, attempt.begin)

    def _wait(self) -> None:
        """Sleep until a child ends or prints, a signal comes or a deadline passes."""
        attempts = [attempt for attempt, _ in self._active.values()]
        if any(attempt.result is not None for attempt in attempts):
            return
        deadlines = [attempt.deadline for attempt in attempts if attempt.deadline is not None]
        # The end of what a child leaves behind wakes nobody: under a deadline it is polled.
        pause = min(max(min(deadlines) - time.monotonic(), 0.0), 0.1) if deadlines else 60.0
        if self._several:
            pause = min(pause, max(self._next_check - time.monotonic(), 0.0))
        if self._ticks.process is not None:
            pause = min(pause, max(self._ticks.process.deadline - time.monotonic(), 0.0))
        importing = [warm for warm in self._warm.values() if warm.importing]
        for warm in importing:
            pause = min(pause, warm.left_s)
        wakes = [attempt.wake_at for attempt in attempts if attempt.wake_at is not None]
        if wakes:
            pause = min(pause, max(min(wakes) - time.monotonic(), 0.0))
        if self._assigned is not None and not self._assigned.closed and self._lanes:
            pause = min(pause, max(self._assigned.look_at - time.monotonic(), 0.0))
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals.wakeup, selectors.EVENT_READ)
            for attempt in attempts:
                if attempt.output is not None:
                    selector.register(attempt.output, selectors.EVENT_READ)
            for warm in importing:
                selector.register(warm.descriptor, selectors.EVENT_READ)
            selector.select(pause)
        for warm in importing:
            warm.poll()

    def _write(self, result: Result, n: int) -> None:
        for pause in (*_RETRY_S, None):
            try:
                write_result(self._context.batch, result, n=n)
                return
            except OSError as error:
                message = f"hpcsweep: the result of run {n} cannot be written: {error}"
                print(message, file=sys.stderr, flush=True)
            if pause is not None:
                time.sleep(pause)
        self._all_written = False


class FailFast:
    """Whether the first `trials` of the batch all fail at once with the same error; 0: off.

    The driver pauses the sweep then, but polls rarely: all runs of a task may have failed before it does.
    """

    def __init__(self, batch: BatchLayout, trials: int) -> None:
        self._batch = batch
        self._trials = trials
        self._errors = FirstErrors()
        self._read: set[str] = set()
        self._first_at = math.inf

    def reached(self) -> bool:
        """Whether no further run should begin; costs a readdir while that is open."""
        if not self._trials or self._errors.over:
            return False
        for name, result in new_results(self._batch, self._read):
            self._read.add(name)
            failed = failed_at_once(
                outcome=result.outcome,
                why=result.interrupted,
                seconds=result.seconds,
                valued=result.value is not None,
            )
            self._errors.add(result.trial, result.message, failed)
            self._first_at = min(self._first_at, result.started or time.time())
            if self._errors.over:
                return False
        return len(self._errors.trials) >= self._trials and time.time() - self._first_at < _BURST_S


def is_finished(batch: BatchLayout, task: int, restart: int, n: int) -> bool:
    """Whether the task's `n`-th run ended for good in an earlier start, or was interrupted in this one."""
    for earlier in range(restart, -1, -1):
        try:
            result = read_result(batch.result(task, earlier, n))
        except (OSError, msgspec.MsgspecError):
            continue
        if result.outcome is not None or earlier == restart:
            return True
    return False


def _key(devices: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if devices is None else tuple(devices)


def _guard(attempt: Attempt, action: Callable[[], None]) -> None:
    """An error of the worker with one run becomes that run's result, and the others go on."""
    try:
        action()
    except Exception as error:
        traceback.print_exc()
        attempt.abandon(error)


def _not_started(context: TaskContext, run: ManifestRun, *, why: Interruption | None, message: str) -> Result:
    return Result(
        trial=run.trial,
        rung=run.rung,
        attempt=run.attempt,
        restart=context.restart,
        task=context.task,
        interrupted=why,
        node=context.node,
        job=context.job,
        message=message,
    )
