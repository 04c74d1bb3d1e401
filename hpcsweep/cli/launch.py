"""`launch`: start a sweep, or carry it on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Literal, TypeAlias

import typer

from hpcsweep.cli.headlines import headlines
from hpcsweep.cli.progress import Progress, progress
from hpcsweep.cli.terminal import (
    DONE,
    INTERRUPTED,
    LEFT_RUNNING,
    NO_VALUE,
    errors_exit,
    hide,
    prefix_errors,
    sanitize,
)
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import SweepOutcome
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural, secret_values, shell_join, shell_quote
from hpcsweep.driver import Driver
from hpcsweep.driver.pool_budget import POOL_HOURS
from hpcsweep.errors import ClusterError, FolderUnavailable, SubmitRefused, SupersededError
from hpcsweep.schedulers import scheduler_traits
from hpcsweep.session.session import Session
from hpcsweep.session.target import check_inherited, tell_slow_programs
from hpcsweep.session.warm_start import describe_warm_start
from hpcsweep.spec import load_spec
from hpcsweep.store.journal import current_driver
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.tick import finish_unread, note_poll
from hpcsweep.views.folder import count_enqueued
from hpcsweep.views.format import (
    best_text,
    config_text,
    cost,
    removed_text,
    runs_text,
    timestamp,
)
from hpcsweep.views.health import added_lines, advice_lines
from hpcsweep.views.progress import journal_counts

#: Stay with the sweep until it ends, for one tick, or leave it to its jobs.
Mode: TypeAlias = Literal["stay", "once", "detach"]
#: Delay of the second tick of a detached launch: what can never start is reported at once.
SECOND_TICK_S: Final = 1.0
#: First and longest delay before the driver tries again where the results folder cannot be read or written.
RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 60.0


def launch(
    spec_path: Path,
    *,
    results: Path | None,
    cluster: str | None,
    overrides: Sequence[str],
    once: bool,
    detach: bool,
    quiet: bool,
) -> None:
    """Drive the sweep until it ends, or for one tick, or leave it to its jobs."""
    mode: Mode = "detach" if detach else "once" if once else "stay"
    with errors_exit(), tell_slow_programs(tell_slow):
        spec = load_spec(spec_path, overrides)
        hide(secret_values(spec.cluster.environment))
        folder = results or Path("results") / spec.name
        session = Session.for_launch(spec, folder, cluster=cluster)
        again = _command(spec_path, results=results, cluster=cluster, overrides=overrides)
        try:
            state = check_and_drive(session, spec_path, mode=mode, quiet=quiet)
        except Interrupted as interrupted:
            typer.echo(f"\nInterrupted; jobs keep running. Resume with: {again}", err=True)
            raise typer.Exit(interrupted.code) from None
        except SubmitRefused as refusal:
            raise SubmitRefused(f"{refusal}\nNothing is lost; fix it and resume with: {again}") from None
        code = print_outcome(state, folder, quiet=quiet)
        if detach and code == LEFT_RUNNING:
            print_detached(state, folder)
        raise typer.Exit(code)


def check_and_drive(session: Session, source: Path | str, *, mode: Mode, quiet: bool) -> SweepState:
    """Check the sweep, then drive it as the mode says; the state at the end.

    Args:
        session: Of the sweep, for a launch.
        source: Where its spec comes from, for messages.
        mode: Drive until it ends, for one tick, or leave it to its jobs.
        quiet: Print nothing.

    Raises:
        HpcsweepError: It cannot run, or its cluster or folder does not let it.
        Interrupted: By a signal; jobs keep running.
    """
    starts_tasks = session.state is None or mode != "once"
    with prefix_errors(source):
        session.validate()
        check_inherited(session.spec, os.environ)
        if starts_tasks:
            session.check_target()
        if not session.copies_code:
            session.check_training_code()
    with _Signals() as signals, progress(session.spec, quiet=quiet) as show:
        if not quiet:
            for line in headlines(session, source, starts_tasks=starts_tasks, detach=mode == "detach"):
                typer.echo(line)
        return _Loop(session, source, show=show, signals=signals, mode=mode, quiet=quiet).run()


def tell_slow(message: str) -> None:
    typer.echo(sanitize(f"[{timestamp(time.time())}] {message}"), err=True)


class _Loop:
    """Drives the sweep, with one driver after another where the folder is unavailable for a while."""

    def __init__(
        self,
        session: Session,
        source: Path | str,
        *,
        show: Progress,
        signals: _Signals,
        mode: Mode,
        quiet: bool,
    ) -> None:
        self._session = session
        self._source = source
        self._show = show
        self._signals = signals
        self._mode = mode
        self._quiet = quiet
        self._ticked = False
        self._retry_s = RETRY_S

    def run(self) -> SweepState:
        """Drive; the state at the end."""
        first = True
        while True:
            try:
                if not first:
                    self._check_there()
                # A new driver reads all again: what the last one knew may not be what was written.
                return self._drive(first=first)
            except BrokenPipeError:  # nobody reads what is printed: that is no fault of the folder
                raise
            except (FolderUnavailable, SupersededError, OSError) as error:
                if not self._ticked or self._mode != "stay" or self._is_replaced(error):
                    raise
                failure = error
            message = f"[{timestamp(time.time())}] {failure}; tries again in {self._retry_s:g} s"
            typer.echo(sanitize(message), err=True)
            self._signals.clock.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
            self._show.restart()
            first = False

    def _is_replaced(self, error: Exception) -> bool:
        """Whether another driver took over and is at work: one that gave up at once may have as well."""
        if not isinstance(error, SupersededError):
            return False
        return current_driver(read_journal(self._session.layout)) is not None

    def _check_there(self) -> None:
        """Check that the sweep is still in its folder: a new one must not begin in its place."""
        if read_journal(self._session.layout).tail is None:
            folder = self._session.folder
            raise FolderUnavailable(f"{folder}: its journal is gone: bring it back, or end this launch")

    def _drive(self, *, first: bool) -> SweepState:
        with self._open(first=first) as driver:
            if not self._quiet and first:
                _print_search(self._session, driver.state)
            if driver.state.ended is not None:
                if not self._quiet and first:
                    count = count_enqueued(driver.layout, driver.state)
                    trials = self._session.spec.budget.trials
                    typer.echo(nothing_started(driver.state, trials, enqueued=count))
                driver.compact()
                return driver.state
            if first:
                self._session.record_launch()
            match self._mode:
                case "detach":
                    _detach(driver, self._signals.clock)
                    self._show.tick(driver)
                case "once":
                    driver.tick_once()
                    self._show.tick(driver)
                    driver.compact()
                case "stay":
                    driver.acquire()
                    driver.run(self._on_tick)
            return driver.state

    @contextlib.contextmanager
    def _open(self, *, first: bool) -> Iterator[Driver]:
        """The driver; at the end a detached sweep is handed back to its jobs, also after an interruption."""
        interrupted = None
        clock = self._signals.clock
        with contextlib.ExitStack() as stack:
            journal = None
            # `--once` does not wait for its turn: cron comes again.
            if first and (self._mode != "once" or self._session.copies_code):
                with prefix_errors(self._source):
                    journal = stack.enter_context(self._session.acquire(clock))
            driver = stack.enter_context(
                self._session.open(observers=[self._show.event], clock=clock, journal=journal)
            )
            try:
                yield driver
            except Interrupted as error:
                interrupted = error
            driver.schedule_successor()
        finish_unread(driver)
        if interrupted is not None:
            raise interrupted

    def _on_tick(self, driver: Driver) -> None:
        self._ticked, self._retry_s = True, RETRY_S
        self._show.tick(driver)
        if driver.state.ended is None:
            self._signals.raise_if_received()


def _detach(driver: Driver, clock: SystemClock) -> None:
    """Submit, then tick once more: what can never start is reported at once."""
    try:
        driver.detach()
    except ClusterError as error:
        raise ClusterError(f"--detach: {error}\nNothing was submitted.") from None
    driver.tick()
    if driver.state.ended is None:
        clock.sleep(SECOND_TICK_S)
        note_poll(driver.layout)
        driver.tick()


def print_detached(state: SweepState, folder: Path) -> None:
    """Print what a detached sweep has on the cluster, and how to follow it."""
    for batch in state.live.values():
        job = batch.blocked_reason or (f"as job {batch.job}" if batch.job else "not confirmed yet")
        typer.echo(f"submitted {batch.name}: {plural(len(batch.tasks), 'task')}, {job}")
    if state.submit_limit:
        typer.echo(f"the rest is submitted later: {state.submit_limit}")
    path = shell_quote(str(folder))
    typer.echo("From here on its jobs drive it: no process stays on this machine.")
    typer.echo(f"Follow it with: hpcsweep status {path}; end it with: hpcsweep stop {path}")


def _print_search(session: Session, state: SweepState) -> None:
    """Print which searcher `auto` chose, and what the sweep starts from."""
    name, reason = session.searcher
    if reason:
        typer.echo(f"searcher: {name}, chosen by auto: {reason}")
    for line in session.searcher_changes:
        typer.echo(f"warning: {line}")
    for line in describe_warm_start(state.warm_starts):
        typer.echo(line)


def nothing_started(state: SweepState, trials: int | None, *, enqueued: int) -> str:
    """That the sweep has ended, and what would extend it."""
    scheduler = state.started.identity.get("scheduler", {}) if state.started else {}
    growing = [f"scheduler.{key}" for key in scheduler_traits(scheduler.get("name", "")).extendable]
    # Its first word is the key of a budget that is used up.
    reason = state.ended.reason.partition(" ")[0] if state.ended is not None else ""
    budgets = [reason] if reason.startswith(("budget.", POOL_HOURS)) else []
    if trials is not None and state.configurations >= trials and "budget.trials" not in budgets:
        budgets.insert(0, "budget.trials")
    though = f", though {plural(enqueued, 'enqueued configuration')} {'wait' if enqueued > 1 else 'waits'}"
    ways = [f"raise {' or '.join([*budgets, *growing])}"] if budgets or growing else []
    if not budgets and not enqueued:
        ways.append("enqueue a configuration")
    advice = f" To extend it, {', or '.join(ways)}." if ways else ""
    outcome = state.ended.outcome.value if state.ended is not None else "ended"
    return f"already {outcome}: nothing is started{though if enqueued else ''}.{advice}"


def _command(spec_path: Path, *, results: Path | None, cluster: str | None, overrides: Sequence[str]) -> str:
    """The command line that resumes the sweep."""
    argv = ["hpcsweep", "launch", str(spec_path)]
    argv += ["--results", str(results)] if results else []
    argv += ["--cluster", cluster] if cluster else []
    argv += [argument for override in overrides for argument in ("--set", override)]
    return shell_join(argv)


def print_outcome(state: SweepState, folder: Path, *, quiet: bool) -> int:
    """Print how the sweep stands; returns the exit code."""
    if state.ended is None:
        typer.echo(f"{runs_text(journal_counts(state))}; best {best_text(state)}")
        return LEFT_RUNNING
    typer.echo(f"{state.ended.outcome.value}: {state.ended.reason}")
    typer.echo(f"{runs_text(journal_counts(state))}; {cost(state)}; results in {folder}")
    if state.without_checkpoint and not quiet:
        gone = removed_text(len(state.without_checkpoint), state.checkpoint_bytes_removed)
        typer.echo(f"checkpoints: {gone}; train.keep: all keeps them")
    for line in (*added_lines(state), *advice_lines(state)):
        typer.echo(sanitize(line))
    if state.best is None:
        return NO_VALUE
    typer.echo(f"best: {best_text(state)}")
    typer.echo(f"      {config_text(state.best.config)}")
    return NO_VALUE if state.ended.outcome in (SweepOutcome.FAILED, SweepOutcome.PAUSED) else DONE


class Interrupted(BaseException):
    """A signal has ended this process's part in the sweep; `code` is the exit code for it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = INTERRUPTED if signum == signal.SIGINT else 128 + signum

    def plain(self) -> BaseException:
        """What Python itself would have raised."""
        return KeyboardInterrupt() if self.code == INTERRUPTED else SystemExit(self.code)


class _Signals:
    """INT, TERM and HUP end the driver between two ticks, so that no submission is left in doubt.

    A second one ends it at once. That loses nothing, either, but the next launch may have to wait until
    it is certain what became of a submission.
    """

    NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        # A signal may come before the clock sleeps and behind the last look at what was received.
        self.clock = SystemClock(self.raise_if_received)
        self._received: int | None = None

    def __enter__(self) -> _Signals:
        # Other threads of a program, and its notebook, leave signals to the main thread.
        ours = self.NUMBERS if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._handle) for number in ours}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_received(self) -> None:
        if self._received is not None:
            raise Interrupted(self._received)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.clock.sleeping or self._received is not None:
            raise Interrupted(number)
        self._received = number
