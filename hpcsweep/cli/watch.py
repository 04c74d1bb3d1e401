"""`status --watch`: shows a sweep until it has ended, and its trials when keys ask for them."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from hpcsweep.cli.dashboard import glyphs_of
from hpcsweep.cli.keyboard import Keyboard
from hpcsweep.cli.progress import Plan, plan_of
from hpcsweep.cli.screen import Room, Screen
from hpcsweep.cli.status import ask_liveness, queue_of, status
from hpcsweep.cli.terminal import INTERRUPTED, errors_exit, raw
from hpcsweep.cli.trial_view import TrialReader
from hpcsweep.cluster.backend import Queue, find_backend, is_cluster
from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import SubmittedBatch, TaskId, TaskResources, TaskState
from hpcsweep.errors import ClusterUnavailable, SpecError
from hpcsweep.spec import load_spec
from hpcsweep.store.layout import Layout
from hpcsweep.views.health import Liveness, liveness
from hpcsweep.views.snapshot import StatusPoller, StatusSnapshot

#: How often the queue is asked whether the jobs of a sweep without a driver are alive.
_LIVENESS_S: Final = 30.0


def watch(path: Path, *, every: float) -> None:
    """Show the sweep until it has ended or somebody quits; once it has ended, print what `status` prints."""
    with errors_exit():
        console = Console(file=raw(sys.stdout))
        if not sys.stdout.isatty() or console.is_dumb_terminal:
            raise SpecError("--watch: needs a terminal to draw on; elsewhere use plain `hpcsweep status`")
        terminal = raw(sys.stdout)
        if hasattr(terminal, "reconfigure"):
            terminal.reconfigure(errors="replace")  # a name need not be in the terminal's alphabet
        try:
            ended = _Watch(path, console, every).run()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        if ended:
            status(path, json=False)


class _Watch:
    """Draws the sweep and does what keys say, while a thread polls: a cluster may take long to answer.

    That thread alone changes what is known of the sweep. It holds the lock meanwhile, but not while the
    cluster is asked; who draws holds it, too.
    """

    def __init__(self, path: Path, console: Console, every: float) -> None:
        self._console = console
        self._every = every
        self._queue = LiveQueue()
        self._lock = threading.Lock()
        self._poller, self._plans = StatusPoller(path, self._ask_unlocked), _Plans(path)
        self._trials = TrialReader(path)
        self._polled: queue.SimpleQueue[StatusSnapshot | Exception] = queue.SimpleQueue()
        self._view = self._poll()
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def run(self) -> bool:
        """Draw until the sweep has ended (then True), or somebody quits."""
        if self._ended:
            return True
        keyboard = Keyboard(sys.stdin, leave=self._leave, enter=self._enter)
        with keyboard, self._live:
            screen = Screen(self._trials.lines, keys=keyboard.present)
            due, polling, plan = time.monotonic() + self._every, False, self._plans.newest()
            while not screen.quitting and not (self._ended and screen.at_home):
                with keyboard.undisturbed(), self._lock:
                    self._live.update(_Frame(screen, self._view, plan), refresh=True)
                left = due - time.monotonic()
                if left <= 0 and not polling and not self._ended:
                    polling = True
                    threading.Thread(target=self._poll_for, args=[keyboard], daemon=True).start()
                for key in keyboard.wait(self._every if polling or self._ended else left):
                    screen.press(key)
                if not self._polled.empty():
                    self._view = self._newest()
                    due, polling, plan = time.monotonic() + self._every, False, self._plans.newest()
        return self._ended

    @property
    def _ended(self) -> bool:
        return self._view.progress.state.ended is not None

    def _poll(self) -> StatusSnapshot:
        with self._lock:
            view = self._poller.poll(now=time.time(), shown=self._console.height)
        return view._replace(liveness=self._queue.liveness(self._poller, view))

    def _ask_unlocked(self, batches: Sequence[BatchState]) -> Mapping[TaskId, TaskState]:
        """Ask the cluster; called with the lock held."""
        self._lock.release()
        try:
            return self._queue(batches)
        finally:
            self._lock.acquire()

    def _poll_for(self, keyboard: Keyboard) -> None:
        try:
            self._polled.put(self._poll())
        except Exception as error:
            self._polled.put(error)
        keyboard.wake()

    def _newest(self) -> StatusSnapshot:
        """What the thread has found."""
        found = self._polled.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _leave(self) -> None:
        """Give the screen back, as it was."""
        self._console.set_alt_screen(False)
        self._console.show_cursor(True)

    def _enter(self) -> None:
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)


class _Frame:
    """What the screen shows, drawn for the console that it is printed on."""

    def __init__(self, screen: Screen, view: StatusSnapshot, plan: Plan | None) -> None:
        self._screen = screen
        self._view = view
        self._plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = Room(options.max_width, console.height, glyphs_of(options))
        yield from self._screen.draw(self._view, self._plan, room)


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
            asked = self._queue(name)
            if asked is None:
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
            found = asked.poll(live)
            if found is None:
                raise ClusterUnavailable(asked.poll_error)
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
