"""`stop`: ask a sweep to end, or one of its trials."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import typer

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.cli.sanitize import hide
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import SweepOutcome
from hpcsweep.core.models import RunStatus, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import secret_values, shell_quote
from hpcsweep.driver import Driver
from hpcsweep.errors import FolderError, HeldError, SpecError
from hpcsweep.session.algorithms import replay_sweep
from hpcsweep.session.session import Session
from hpcsweep.spec import load_spec
from hpcsweep.store.requests import send_request
from hpcsweep.views.folder import ResultsFolder, check_trial

#: How long the command itself waits for the jobs to end if no driver is at work.
PATIENCE_S: Final = 60.0


def stop(path: Path, trial: int | None = None) -> None:
    """Leave the request; if no driver is at work, cancel the jobs."""
    with errors_exit():
        folder = ResultsFolder(path)
        if trial is not None:
            _stop_trial(folder, path, trial)
            return
        if folder.state.ended is not None:
            typer.echo(f"{path}: has ended already ({folder.progress.status})")
            return
        send_request(folder.layout, "stop")
        try:
            state = _drive(folder)
        except HeldError as error:
            typer.echo(f"stop requested: {error}")
            return
        unfinished = "its jobs are being cancelled; `launch` or `stop` again finishes that"
        typer.echo("stopped" if state.ended is not None else unfinished)


def _stop_trial(folder: ResultsFolder, path: Path, trial: int) -> None:
    names = _names(folder, path, trial)
    send_request(folder.layout, "stop_trial", trial=trial)
    if folder.state.ended is not None:
        typer.echo(f"{names}: the next launch stops it, the sweep is {folder.progress.status}")
        return
    try:
        state = _drive(folder, trial)
    except HeldError as error:
        typer.echo(f"stop of {names} requested: {error}")
        return
    if state.trials[trial].runs[-1].status.ended:
        typer.echo(f"stopped: {names}; it will not be promoted")
        return
    how = "its job is being cancelled"
    if _shares_task(state, trial):
        how = "its task goes on with other runs and has been told to end it"
    typer.echo(f"stopped: {names}; {how}")


def _names(folder: ResultsFolder, path: Path, number: int) -> str:
    """What is stopped: the trial, or all repeats of its configuration.

    Raises:
        SpecError: There is no such trial, or it is over.
        FolderError: The sweep has ended, or its spec is missing.
    """
    state = folder.state
    check_trial(state, number)
    if not folder.layout.spec.exists():
        raise FolderError(f"{folder.layout.spec}: is missing; `launch SPEC` writes it")
    trial = state.trials[number]
    if trial.stopped:
        raise SpecError(f"TRIAL: trial {number} has been stopped already: {trial.stopped}")
    if state.ended is not None and state.ended.outcome not in (SweepOutcome.STOPPED, SweepOutcome.PAUSED):
        raise FolderError(f"{path}: has ended already ({folder.progress.status}): no trial is running")
    *_, retention = replay_sweep(load_spec(folder.layout.spec), folder.events)
    if retention.is_final(number):
        raise SpecError(
            f"TRIAL: expected one that runs, waits or may be promoted; trial {number} {_end(trial)}: "
            f"see hpcsweep explain {shell_quote(str(path))} {number}"
        )
    first = number - trial.repeat
    if state.repeats == 1:
        return f"trial {number}"
    return f"trials {first} to {first + state.repeats - 1}, the repeats of one configuration"


def _end(trial: Trial) -> str:
    run = trial.runs[-1]
    return f"has completed rung {run.rung}, its last" if run.status is RunStatus.COMPLETED else "has ended"


def _shares_task(state: SweepState, number: int) -> bool:
    """Whether its run shares a task with others, so that it cannot be cancelled alone."""
    run = state.trials[number].runs[-1]
    batch = state.live.get(run.batch)
    return batch is not None and len(batch.tasks[run.task]) > 1


def _drive(folder: ResultsFolder, trial: int | None = None) -> SweepState:
    """Tick until the sweep, or the trial, has ended, or that takes too long; the state after that.

    For a trial nothing new is submitted.

    Raises:
        HeldError: A driver is at work, and takes the request up.
    """
    if not folder.layout.spec.exists():
        raise FolderError(f"{folder.layout.spec}: is missing; stop the sweep with `launch SPEC`")
    session = Session.for_request(folder.layout, folder.state)
    hide(secret_values(session.spec.cluster.environment))
    deadline = time.monotonic() + PATIENCE_S
    pause_s = min(session.target.cluster.poll_s[0], 2.0)
    with session.acquire(SystemClock()) as journal:
        if journal is not None:
            state = SweepState.replay(journal.events)
            if state.ended is not None:
                return state  # a tick of its jobs has stopped it
        with session.open(journal=journal) as driver:
            _tick_until_ended(driver, trial, deadline, pause_s=pause_s)
            driver.schedule_successor()
            return driver.state


def _tick_until_ended(driver: Driver, trial: int | None, deadline: float, *, pause_s: float) -> None:
    while driver.state.ended is None and time.monotonic() < deadline:
        if trial is None:
            driver.tick()
        else:
            driver.settle()
            if driver.state.trials[trial].runs[-1].status.ended:
                return
        if driver.state.ended is None:
            time.sleep(pause_s)
