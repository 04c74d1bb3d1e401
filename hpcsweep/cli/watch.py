"""`status --watch`: refreshes a dashboard until the sweep has ended."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import typer
from rich.console import Console
from rich.live import Live

from hpcsweep.cli.dashboard import Dashboard
from hpcsweep.cli.progress import Plan, plan_of
from hpcsweep.cli.status import ask_liveness, queue_of, status
from hpcsweep.cli.terminal import INTERRUPTED, errors_exit, raw
from hpcsweep.cluster.backend import Queue, find_backend, is_cluster
from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import SubmittedBatch, TaskId, TaskResources, TaskState
from hpcsweep.errors import ClusterUnavailable, SpecError
from hpcsweep.spec import load_spec
from hpcsweep.store.layout import Layout
from hpcsweep.views.health import Liveness, liveness
from hpcsweep.views.snapshot import StatusPoller, StatusSnapshot

#: How often the terminal's size is checked.
_RESIZE_S: Final = 0.25
#: How often the queue is asked whether the jobs of a sweep without a driver are alive.
_LIVENESS_S: Final = 30.0


def watch(path: Path, *, every: float) -> None:
    """Show the dashboard until the sweep has ended, then print what `status` prints."""
    with errors_exit():
        console = Console(file=raw(sys.stdout))
        if not sys.stdout.isatty() or console.is_dumb_terminal:
            raise SpecError("--watch: needs a terminal to draw on; elsewhere use plain `hpcsweep status`")
        terminal = raw(sys.stdout)
        if hasattr(terminal, "reconfigure"):
            terminal.reconfigure(errors="replace")  # a name need not be in the terminal's alphabet
        before = signal.signal(signal.SIGTERM, _exit_cleanly)
        try:
            _draw(path, console, every)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        finally:
            signal.signal(signal.SIGTERM, before)
        status(path, json=False)


def _exit_cleanly(number: int, _: FrameType | None) -> None:
    """Exit as the signal would, but restore the terminal first."""
    raise SystemExit(128 + number)


def _draw(path: Path, console: Console, every: float) -> None:
    """Draw until the sweep has ended."""
    queue = LiveQueue()
    poller, plans = StatusPoller(path, queue), _Plans(path)

    def poll() -> StatusSnapshot:
        view = poller.poll(now=time.time(), shown=console.height)
        return view._replace(liveness=queue.liveness(poller, view))

    view = poll()
    if view.progress.state.ended is not None:
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while view.progress.state.ended is None:
            live.update(Dashboard(view, plans.newest()), refresh=True)
            _wait(live, every)
            view = poll()


def _wait(live: Live, seconds: float) -> None:
    """Wait; draw again when the terminal's size changes."""
    until = time.monotonic() + seconds
    size = live.console.size
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _RESIZE_S))
        if live.console.size != size:
            size = live.console.size
            live.refresh()


class LiveQueue:
    """Asks the queues of clusters for batches, each once a call."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue | None] = {}
        self._asked = 0.0
        self._liveness: Liveness | None = None
        log = logging.getLogger("hpcsweep")
        log.addHandler(logging.NullHandler())  # nothing else may write to the terminal
        log.propagate = False

    def __call__(self, batches: Sequence[BatchState]) -> Mapping[TaskId, TaskState]:
        """What the queues show of their tasks."""
        shown: dict[TaskId, TaskState] = {}
        for name in dict.fromkeys(batch.cluster for batch in batches):
            queue = self._queue(name)
            if queue is None:
                continue
            # Without open tasks nothing is looked up in the accounts.
            live = [
                SubmittedBatch(
                    name=batch.name,
                    job=batch.job or "",
                    folder=Path(),
                    tasks=len(batch.tasks),
                    throttle=batch.throttle,
                    shape=TaskResources(),
                    open_tasks=(),
                    planned_at=batch.planned_at,
                )
                for batch in batches
                if batch.cluster == name
            ]
            found = queue.poll(live)
            if found is None:
                raise ClusterUnavailable(queue.poll_error)
            shown |= found
        return shown

    def _queue(self, name: str) -> Queue | None:
        if name not in self._queues:
            self._queues[name] = find_backend(name).queue() if is_cluster(name) else None
        return self._queues[name]

    def liveness(self, poller: StatusPoller, view: StatusSnapshot) -> Liveness | None:
        """Whether anybody drives the sweep, asked now and then; None where no queue knows."""
        state, tail = view.progress.state, poller.tail
        if state.started is None or tail is None or queue_of(state, view.driver) is None:
            return None
        if view.problem:
            return liveness(poller.layout, state, driver=None, unknown=view.problem)
        if self._liveness is None or time.monotonic() - self._asked >= _LIVENESS_S:
            self._asked = time.monotonic()
            self._liveness = ask_liveness(poller.layout, state, driver=None, tail=tail)
        return self._liveness


class _Plans:
    """The plan by the folder's spec; read again when that file changes."""

    def __init__(self, path: Path) -> None:
        self._spec = Layout(path).spec
        self._written: tuple[int, int] | None = None
        self._plan: Plan | None = None

    def newest(self) -> Plan | None:
        """None while it cannot be read."""
        try:
            found = os.stat(self._spec)
            written = found.st_mtime_ns, found.st_size
            if written != self._written:
                self._plan, self._written = plan_of(load_spec(self._spec, stored=True)), written
        except (OSError, SpecError):
            self._plan, self._written = None, None
        return self._plan
