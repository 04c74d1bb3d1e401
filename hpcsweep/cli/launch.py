"""`launch`: start a sweep, or carry it on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import typer

from hpcsweep.cli.exit_codes import DONE, INTERRUPTED, LEFT_RUNNING, NO_VALUE, errors_exit, named
from hpcsweep.cli.format import (
    best_line,
    configuration,
    cost,
    removed_line,
    runs_line,
    state_counts,
)
from hpcsweep.cli.progress import Progress, progress
from hpcsweep.cli.sanitize import hide, sanitize
from hpcsweep.cli.waiting import turn
from hpcsweep.clock import SystemClock
from hpcsweep.core.counting import plural
from hpcsweep.core.events import SweepOutcome
from hpcsweep.core.quoting import shell_join, shell_quote
from hpcsweep.core.secrets import secret_values
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Driver
from hpcsweep.errors import ClusterError, FolderUnavailable, SubmitRefused
from hpcsweep.session.algorithms import resolve_searcher
from hpcsweep.session.session import check_folder, extensions, from_scratch, note_launch, open_sweep
from hpcsweep.session.snapshot import check_training_code, new_snapshot
from hpcsweep.session.target import (
    Target,
    check_fits,
    check_inherited,
    holding_of,
    holding_words,
    resolve_target,
    tell_slow_programs,
    tick_words,
)
from hpcsweep.session.validation import known_lines, validate
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.spec.extension import GROWING
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.tick import catch_up
from hpcsweep.views.enqueued import count_enqueued

#: A detached sweep is looked at once more so long after it was submitted.
LOOK_S: Final = 1.0
#: Where the results folder cannot be read or written the driver tries again after so long, at first and
#: at most.
AGAIN_S: Final = 5.0
LONGEST_AGAIN_S: Final = 60.0


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
    """Drive the sweep until it ends, or for one tick, or leave it to its jobs.

    Raises:
        typer.Exit: Always; see `exits` for the codes.
    """
    with errors_exit(), tell_slow_programs(_tell_slow):
        spec = load_spec(spec_path, overrides)
        hide(secret_values(spec.cluster.environment))
        folder = results or Path("results") / spec.name
        state = check_folder(spec, folder)
        further = extensions(spec, state)
        with named(spec_path):
            validate(spec, state=state)
            place = resolve_target(spec, name=cluster, state=state)
            check_inherited(spec, os.environ)
            if state is None or not once:
                check_fits(place, max_gpus=spec.cluster.max_gpus, folder=folder)
            if (state is None and not spec.train.snapshot) or (state is not None and state.ended is None):
                check_training_code(spec, Layout(folder.resolve()))
        again = _command(spec_path, results=results, cluster=cluster, overrides=overrides)
        try:
            with _Signals() as signals, progress(quiet=quiet) as show:
                if not quiet:
                    typer.echo(f"hpcsweep: {spec.name} in {folder}, on {place.why}")
                    held = holding_of(place) if state is None or not once else None
                    if held is not None and held.why:
                        typer.echo(f"note: {holding_words(place, held)}")
                    ticks = tick_words(place) if detach else ""
                    if ticks:
                        typer.echo(f"note: {ticks}")
                waiting = _turn(spec_path, spec, folder, state, once=once, clock=signals.clock)
                if not quiet:
                    for change in further:
                        typer.echo(f"goes further: {change}")
                    trials = from_scratch(spec, folder, state)
                    if trials:
                        typer.echo(_from_scratch(trials))
                mode: Literal["stay", "once", "detach"] = "detach" if detach else "once" if once else "stay"
                session = _Session(spec, folder, place, show=show, signals=signals, mode=mode, quiet=quiet)
                state = session.run(state, waiting)
        except _Interrupted as interrupted:
            typer.echo(f"\nLeft as it is, with its jobs; carry on with: {again}", err=True)
            raise typer.Exit(interrupted.code) from None
        except SubmitRefused as refusal:
            raise SubmitRefused(f"{refusal}\nNothing is lost; mend it and carry on with: {again}") from None
        code = _outcome(state, folder, quiet=quiet)
        if detach and code == LEFT_RUNNING:
            _left(state, folder)
        raise typer.Exit(code)


def _tell_slow(words: str) -> None:
    typer.echo(sanitize(f"[{time.strftime('%H:%M:%S')}] {words}"), err=True)


class _Session:
    """Drives the sweep as the command asks: one driver after another where the folder fails for a while.

    Args:
        mode: `stay` until it has ended, `once` for one tick, `detach`.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        place: Target,
        *,
        show: Progress,
        signals: _Signals,
        mode: Literal["stay", "once", "detach"],
        quiet: bool,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._place = place
        self._show = show
        self._signals = signals
        self._mode = mode
        self._quiet = quiet
        self._ticked = False
        self._again_s = AGAIN_S

    def run(
        self, before: SweepState | None, waiting: contextlib.AbstractContextManager[Journal | None]
    ) -> SweepState:
        """Drive; the state at the end.

        Args:
            before: The state before this launch, None for a new sweep.
            waiting: Gives the journal where it is to be held before the driver begins.

        Raises:
            FolderUnavailable: The folder failed before the first tick, or in a mode that does not stay.
        """
        try:
            return self._drive(before, waiting, first=True)
        except BrokenPipeError:  # nobody reads what is printed: that is no fault of the folder
            raise
        except (FolderUnavailable, OSError) as error:
            if not self._ticked or self._mode != "stay":
                raise
            failure: Exception = error
        while True:
            told = f"[{time.strftime('%H:%M:%S')}] {failure}; tries again in {self._again_s:g} s"
            typer.echo(sanitize(told), err=True)
            self._signals.clock.sleep(self._again_s)
            self._again_s = min(2 * self._again_s, LONGEST_AGAIN_S)
            self._show.restart()
            try:
                self._check_there()
                # A new driver reads all again: what the last one knew may not be what was written.
                return self._drive(before, contextlib.nullcontext(), first=False)
            except BrokenPipeError:
                raise
            except (FolderUnavailable, OSError) as error:
                failure = error

    def _check_there(self) -> None:
        """Whether the sweep is still in its folder: a new one must not begin in its place.

        Raises:
            FolderUnavailable: It is not; the file system may not be mounted.
        """
        if read_journal(Layout(self._folder)).tail is None:
            raise FolderUnavailable(
                f"{self._folder}: its journal is not there any more: bring it back, or end this launch"
            )

    def _drive(
        self,
        before: SweepState | None,
        waiting: contextlib.AbstractContextManager[Journal | None],
        *,
        first: bool,
    ) -> SweepState:
        clock = self._signals.clock
        opened = _opened(self._spec, self._folder, self._place, waiting, self._show, clock)
        with opened as driver:
            if not self._quiet and first:
                _beginning(self._spec, before, driver.state)
            if driver.state.ended is not None:
                if not self._quiet and first:
                    count = count_enqueued(driver.layout, driver.state)
                    typer.echo(_nothing_started(driver.state, self._spec.budget.trials, enqueued=count))
                driver.compact()
                return driver.state
            if first:
                note_launch(self._spec, driver.layout, self._place)
            match self._mode:
                case "detach":
                    _detach(driver, clock)
                    self._show.tick(driver)
                case "once":
                    # On this machine it is the next tick that starts what one has planned.
                    if driver.tick():
                        driver.tick()
                    self._show.tick(driver)
                    driver.compact()
                case "stay":
                    driver.acquire()
                    driver.run(self._on_tick)
            return driver.state

    def _on_tick(self, driver: Driver) -> None:
        self._ticked, self._again_s = True, AGAIN_S
        self._show.tick(driver)
        if driver.state.ended is None:
            self._signals.leave_if_told()


@contextlib.contextmanager
def _turn(
    spec_path: Path,
    spec: SweepSpec,
    folder: Path,
    state: SweepState | None,
    *,
    once: bool,
    clock: SystemClock,
) -> Iterator[Journal | None]:
    """The journal where it is to be held before the driver begins: see `turn` and `new_snapshot`."""
    if state is not None or not spec.train.snapshot:
        with turn(folder, None if once else state, clock) as journal:
            yield journal
        return
    with contextlib.ExitStack() as stack:
        with named(spec_path):
            held = stack.enter_context(new_snapshot(spec, folder))
        yield held


@contextlib.contextmanager
def _opened(
    spec: SweepSpec,
    folder: Path,
    place: Target,
    waiting: contextlib.AbstractContextManager[Journal | None],
    show: Progress,
    clock: SystemClock,
) -> Iterator[Driver]:
    """The driver; when it leaves, a detached sweep is in the hands of its jobs again."""
    interrupted = None
    with (
        waiting as journal,
        open_sweep(spec, folder, place, observers=[show.event], clock=clock, journal=journal) as driver,
    ):
        try:
            yield driver
        except _Interrupted as error:
            interrupted = error
        driver.schedule_successor()
    if driver.state.detached is not None and driver.state.ended is None and driver.has_unread:
        catch_up(Layout(folder.resolve()))
    if interrupted is not None:
        raise interrupted


def _detach(driver: Driver, clock: SystemClock) -> None:
    """Submit, and look once more: what can never start is told at once.

    Raises:
        ClusterError: No job can drive the sweep; nothing was submitted.
    """
    try:
        driver.detach()
    except ClusterError as error:
        raise ClusterError(f"--detach: {error}\nNothing was submitted.") from None
    driver.tick()
    if driver.state.ended is None:
        clock.sleep(LOOK_S)
        driver.tick()


def _left(state: SweepState, folder: Path) -> None:
    """Print what a detached sweep has on the cluster, and how to follow it."""
    for batch in state.live.values():
        words = batch.blocked_reason or (f"as job {batch.job}" if batch.job else "without an answer yet")
        typer.echo(f"submitted {batch.name}: {plural(len(batch.tasks), 'task')}, {words}")
    if state.submit_limit:
        typer.echo(f"the rest waits for its turn: {state.submit_limit}")
    place = shell_quote(str(folder))
    typer.echo("Its jobs drive it from here on: no process stays on this machine.")
    typer.echo(f"Follow it with: hpcsweep status {place}; end it with: hpcsweep stop {place}")


def _beginning(spec: SweepSpec, before: SweepState | None, state: SweepState) -> None:
    """Print what it searches with if the user left that open, and what it knows already.

    Args:
        spec: Of the sweep.
        before: As it was before this launch, None if it is new.
        state: As it is now.
    """
    name, reason = resolve_searcher(
        spec, picked=before.started.resolved_searcher if before and before.started else ""
    )
    if reason:
        typer.echo(f"searcher: {name}, picked by auto: {reason}")
    for line in known_lines(state.warm_starts):
        typer.echo(line)


def _nothing_started(state: SweepState, trials: int | None, *, enqueued: int) -> str:
    """That a sweep has ended for good, and what would carry it further.

    Args:
        state: Of the sweep.
        trials: Its `budget.trials`.
        enqueued: How many configurations wait.
    """
    scheduler = state.started.identity.get("scheduler", {}) if state.started else {}
    growing = [f"scheduler.{key}" for key in GROWING.get(scheduler.get("name", ""), ())]
    # Its first word is the key of a budget that is used up.
    reason = state.ended.reason.partition(" ")[0] if state.ended is not None else ""
    budgets = [reason] if reason.startswith("budget.") else []
    if trials is not None and state.configurations >= trials and "budget.trials" not in budgets:
        budgets.insert(0, "budget.trials")
    though = f", though {plural(enqueued, 'enqueued configuration')} {'wait' if enqueued > 1 else 'waits'}"
    ways = [f"raise {' or '.join([*budgets, *growing])}"] if budgets or growing else []
    if not budgets and not enqueued:
        ways.append("enqueue a configuration")
    advice = f" To go further, {', or '.join(ways)}." if ways else ""
    return f"It has ended already: nothing is started{though if enqueued else ''}.{advice}"


def _from_scratch(trials: Sequence[int]) -> str:
    """That these go on without a checkpoint."""
    one = len(trials) == 1
    return (
        f"note: {plural(len(trials), 'trial')} {'goes' if one else 'go'} on from scratch: "
        f"{'its checkpoint was' if one else 'their checkpoints were'} removed when nothing could need "
        f"{'it' if one else 'them'}; in a sweep that may be carried further, train.keep: all keeps them"
    )


def _command(spec_path: Path, *, results: Path | None, cluster: str | None, overrides: Sequence[str]) -> str:
    """The command line that carries on."""
    words = ["hpcsweep", "launch", str(spec_path)]
    words += ["--results", str(results)] if results else []
    words += ["--cluster", cluster] if cluster else []
    words += [word for override in overrides for word in ("--set", override)]
    return shell_join(words)


def _outcome(state: SweepState, folder: Path, *, quiet: bool) -> int:
    """Print how the sweep stands; the exit code."""
    if state.ended is None:
        typer.echo(f"{runs_line(state_counts(state))}; best {best_line(state)}")
        return LEFT_RUNNING
    typer.echo(f"{state.ended.outcome.value}: {state.ended.reason}")
    typer.echo(f"{runs_line(state_counts(state))}; {cost(state)}; results in {folder}")
    if state.without_checkpoint and not quiet:
        gone = removed_line(len(state.without_checkpoint), state.checkpoint_bytes_removed)
        typer.echo(f"checkpoints: {gone}; train.keep: all keeps them")
    if state.best is None:
        return NO_VALUE
    typer.echo(f"best: {best_line(state)}")
    typer.echo(f"      {configuration(state.best.config)}")
    return NO_VALUE if state.ended.outcome in (SweepOutcome.FAILED, SweepOutcome.PAUSED) else DONE


class _Interrupted(BaseException):
    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = INTERRUPTED if signum == signal.SIGINT else 128 + signum


class _Signals:
    """INT, TERM and HUP end the driver between two ticks, so that no submission is left in doubt.

    A second one ends it at once: nothing is lost by that either, but the next launch may have to
    wait until it is certain what became of a submission.
    """

    NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.clock = SystemClock()
        self._told: int | None = None

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._handle) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave_if_told(self) -> None:
        if self._told is not None:
            raise _Interrupted(self._told)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.clock.sleeping or self._told is not None:
            raise _Interrupted(number)
        self._told = number
