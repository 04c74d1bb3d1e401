"""`launch`: start a sweep, or carry it on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from hpcsweep.cli.exits import DONE, INTERRUPTED, LEFT_RUNNING, NO_VALUE, errors_exit
from hpcsweep.cli.progress import progress
from hpcsweep.cli.text import best_line, configuration, cost, runs_line, state_counts
from hpcsweep.core.events import Ending
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SubmitRefused
from hpcsweep.spec import load_spec
from hpcsweep.sweep import check_folder, check_training_code, choose_place, open_sweep


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
        place = choose_place(spec, name=cluster, state=state)
        fresh = state is None or state.ended is None
        if fresh:
            check_training_code(spec, source=str(spec_path))
        again = f"hpcsweep launch {spec_path}" + (f" --results {results}" if results else "")
        try:
            with _signals_raise(), progress(quiet=quiet) as show:
                if not quiet:
                    typer.echo(f"hpcsweep: {spec.name} in {folder}, on {place.why}")
                with open_sweep(spec, folder, place, observers=[show.event]) as driver:
                    if driver.state.ended is None:
                        if once:
                            # On this machine it is the next tick that starts what one has planned.
                            if driver.tick():
                                driver.tick()
                            show.tick(driver)
                        else:
                            driver.acquire()
                            driver.run(show.tick)
                    elif not quiet:
                        typer.echo("It has ended already: nothing is started.")
                    state = driver.state
        except _Interrupted as interrupted:
            typer.echo(f"\nLeft as it is, with its jobs; carry on with: {again}", err=True)
            raise typer.Exit(interrupted.code) from None
        except SubmitRefused as refusal:
            raise SubmitRefused(f"{refusal}\nNothing is lost; mend it and carry on with: {again}") from None
        raise typer.Exit(_outcome(state, folder, quiet=quiet))


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
    typer.echo(f"      {configuration(state.trials[state.best.trial].config)}")
    return NO_VALUE if state.ended.ending is Ending.FAILED else DONE


class _Interrupted(BaseException):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """INT, TERM and HUP end the driver between two steps; it lets go of the journal."""

    def handle(number: int, _: Any) -> None:
        raise _Interrupted(INTERRUPTED if number == signal.SIGINT else 128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
