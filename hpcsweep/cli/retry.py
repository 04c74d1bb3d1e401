"""`retry`: try failed runs again, and go on with a sweep that is paused."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from hpcsweep.cli.exits import errors_exit
from hpcsweep.cli.text import runs_line, state_counts
from hpcsweep.cli.waiting import turn
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import Ending
from hpcsweep.core.records import Run, RunStatus, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, HeldError, SpecError, SubmitRefused
from hpcsweep.report.folder import Folder, failures
from hpcsweep.spec import load_spec
from hpcsweep.store.control import Request, put_request
from hpcsweep.store.owner import Owner
from hpcsweep.sweep import choose_place, note_launch, open_sweep
from hpcsweep.tick import catch_up

#: So many trials are named.
NAMED = 10


def retry(path: Path, trial: int | None) -> None:
    """Leave the request; where no driver is at work, submit the runs from here."""
    with errors_exit():
        folder = Folder(path)
        runs = _failed(folder.state, trial, path)
        me = Owner.me()
        arguments = {} if trial is None else {"trial": trial}
        put_request(folder.layout, Request("retry", time.time(), f"{me.user}@{me.host}", arguments))
        try:
            state = _drive(folder, path)
        except HeldError as error:
            typer.echo(f"asked to go on: {error}")
            return
        typer.echo(_tried(runs))
        if state.ended is not None:
            typer.echo(f"{state.ended.ending.value}: {state.ended.reason}")
        elif state.detached is not None:
            typer.echo(f"its jobs drive it on; follow it with: hpcsweep status {shlex.quote(str(path))}")
        else:
            typer.echo(f"no driver is at work; carry on with: {_launch(folder, path)}")


def _failed(state: SweepState, trial: int | None, path: Path) -> list[Run]:
    """The runs that the request is for; there may be none where it lifts a pause.

    Raises:
        SpecError: There is no such trial, or it did not fail.
        FolderError: Nothing failed, and the sweep is not paused.
    """
    failed = [run for run in failures(state) if not state.trials[run.trial].stopped]
    if trial is None:
        paused = state.pausing is not None or (
            state.ended is not None and state.ended.ending is Ending.PAUSED
        )
        if not failed and not paused:
            raise FolderError(f"{path}: no run has failed for good: {runs_line(state_counts(state))}")
        return failed
    if not 0 <= trial < len(state.trials):
        there = f"one of 0 to {len(state.trials) - 1}" if state.trials else "none, no trial was started yet"
        raise SpecError(f"TRIAL: expected {there}, got {trial}")
    wanted = [run for run in failed if run.trial == trial]
    if not wanted:
        there = f"those are: {_numbers(failed)}" if failed else "there is none"
        raise SpecError(
            f"TRIAL: expected one that has failed ({there}); trial {trial} {_words(state.trials[trial])}"
        )
    return wanted


def _words(trial: Trial) -> str:
    """How a trial stands that has not failed."""
    run = trial.runs[-1]
    if trial.stopped:
        return f"was stopped early: {trial.stopped}"
    match run.status:
        case RunStatus.COMPLETED:
            return f"has completed rung {run.rung}"
        case RunStatus.WAITING:
            return f"waits to be submitted for rung {run.rung}"
        case _:
            return f"is under way at rung {run.rung}"


def _tried(runs: Sequence[Run]) -> str:
    match runs:
        case []:
            return "the pause is over; no run had failed for good"
        case [run]:
            return f"trial {run.trial} is tried again"
        case _:
            return f"{len(runs)} trials are tried again: {_numbers(runs)}"


def _numbers(runs: Sequence[Run]) -> str:
    named = [str(run.trial) for run in runs[:NAMED]]
    return ", ".join([*named, ".."] if len(runs) > NAMED else named)


def _drive(folder: Folder, path: Path) -> SweepState:
    """Tick, so that the runs are submitted; the state after that.

    Raises:
        HeldError: A driver is at work, and takes the request up.
    """
    root = folder.layout.root
    if not folder.layout.spec.exists():
        raise FolderError(
            f"{folder.layout.spec}: is missing; go on with `launch SPEC`, it takes the request up"
        )
    spec = load_spec(folder.layout.spec, [])
    place = choose_place(spec, state=folder.state)
    with (
        turn(root, folder.state, SystemClock()) as journal,
        open_sweep(spec, root, place, journal=journal) as driver,
    ):
        note_launch(spec, folder.layout, place)
        try:
            # On this machine it is the next tick that starts what one has planned.
            if driver.tick():
                driver.tick()
        except SubmitRefused as refusal:
            again = f"Nothing is lost; mend it and carry on with: {_launch(folder, path)}"
            raise SubmitRefused(f"{refusal}\n{again}") from None
        driver.leave()
    if driver.state.detached is not None and driver.state.ended is None and driver.behind:
        catch_up(folder.layout)
    return driver.state


def _launch(folder: Folder, path: Path) -> str:
    """The command line that carries on."""
    return shlex.join(["hpcsweep", "launch", str(folder.layout.spec), "--results", str(path)])
