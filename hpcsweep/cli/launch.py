"""`launch`: start a sweep, or carry it on."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import typer

from hpcsweep.cli.exits import DONE, INTERRUPTED, LEFT_RUNNING, NO_VALUE, errors_exit, named
from hpcsweep.cli.progress import progress
from hpcsweep.cli.text import best_line, configuration, cost, runs_line, state_counts
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import Ending
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Driver
from hpcsweep.errors import SubmitRefused
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.sweep import check_folder, check_training_code, choose_place, open_sweep, pick


def launch(
    spec_path: Path,
    *,
    results: Path | None,
    cluster: str | None,
    overrides: Sequence[str],
    once: bool,
    quiet: bool,
) -> None:
    """Drive the sweep until it ends, or for one tick.

    Raises:
        typer.Exit: Always; see `exits` for the codes.
    """
    with errors_exit():
        spec = load_spec(spec_path, overrides)
        folder = results or Path("results") / spec.name
        state = check_folder(spec, folder)
        with named(spec_path):
            place = choose_place(spec, name=cluster, state=state)
            if state is None or state.ended is None:
                check_training_code(spec)
        again = _command(spec_path, results=results, cluster=cluster, overrides=overrides)
        try:
            with _Signals() as signals, progress(quiet=quiet) as show:

                def on_tick(driver: Driver) -> None:
                    show.tick(driver)
                    if driver.state.ended is None:
                        signals.leave_if_told()

                if not quiet:
                    typer.echo(f"hpcsweep: {spec.name} in {folder}, on {place.why}")
                with open_sweep(spec, folder, place, observers=[show.event], clock=signals.clock) as driver:
                    if not quiet:
                        _beginning(spec, state, driver.state)
                    if driver.state.ended is None:
                        if once:
                            # On this machine it is the next tick that starts what one has planned.
                            if driver.tick():
                                driver.tick()
                            show.tick(driver)
                        else:
                            driver.acquire()
                            driver.run(on_tick)
                    elif not quiet:
                        typer.echo("It has ended already: nothing is started.")
                    state = driver.state
        except _Interrupted as interrupted:
            typer.echo(f"\nLeft as it is, with its jobs; carry on with: {again}", err=True)
            raise typer.Exit(interrupted.code) from None
        except SubmitRefused as refusal:
            raise SubmitRefused(f"{refusal}\nNothing is lost; mend it and carry on with: {again}") from None
        raise typer.Exit(_outcome(state, folder, quiet=quiet))


def _beginning(spec: SweepSpec, before: SweepState | None, state: SweepState) -> None:
    """Print what it searches with if the user left that open, and what it knows already.

    Args:
        spec: Of the sweep.
        before: As it was before this launch, None if it is new.
        state: As it is now.
    """
    name, reason = pick(spec, picked=before.started.picked if before and before.started else "")
    if reason:
        typer.echo(f"searcher: {name}, picked by auto: {reason}")
    for known in state.known:
        taken, left_out = len(known.results), sum(known.passed_over.values())
        typer.echo(f"warm start: {taken} of {taken + left_out} configurations of {known.source}")
        for problem, count in known.passed_over.items():
            typer.echo(f"  {count} left out: {problem}")


def _command(spec_path: Path, *, results: Path | None, cluster: str | None, overrides: Sequence[str]) -> str:
    """The command line that carries on."""
    words = ["hpcsweep", "launch", str(spec_path)]
    words += ["--results", str(results)] if results else []
    words += ["--cluster", cluster] if cluster else []
    words += [word for override in overrides for word in ("--set", override)]
    return shlex.join(words)


def _outcome(state: SweepState, folder: Path, *, quiet: bool) -> int:
    """Print how the sweep stands; the exit code."""
    if state.ended is None:
        typer.echo(f"{runs_line(state_counts(state))}; best {best_line(state)}")
        return LEFT_RUNNING
    typer.echo(f"{state.ended.ending.value}: {state.ended.reason}")
    typer.echo(f"{runs_line(state_counts(state))}; {cost(state)}; results in {folder}")
    if state.best is None:
        return NO_VALUE
    typer.echo(f"best: {best_line(state)}")
    typer.echo(f"      {configuration(state.best.config)}")
    return NO_VALUE if state.ended.ending is Ending.FAILED else DONE


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
