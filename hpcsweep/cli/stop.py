"""`stop`: ask a sweep to end, or one of its trials."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.cli.sanitize import hide
from hpcsweep.cli.waiting import turn
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import SweepOutcome
from hpcsweep.core.models import RunStatus, Trial
from hpcsweep.core.quoting import shell_quote
from hpcsweep.core.secrets import secret_values
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Driver
from hpcsweep.errors import FolderError, HeldError, SpecError
from hpcsweep.session.algorithms import retention_of
from hpcsweep.session.session import open_sweep
from hpcsweep.session.target import resolve_target
from hpcsweep.spec import load_spec
from hpcsweep.store.process_id import ProcessId
from hpcsweep.store.requests import Request, put_request
from hpcsweep.views.folder import Folder

#: How long the command itself sees to the end of the jobs where no driver is at work.
PATIENCE_S = 60.0


def stop(path: Path, trial: int | None = None) -> None:
    """Leave the request; where no driver is at work, cancel the jobs from here."""
    with errors_exit():
        folder = Folder(path)
        if trial is not None:
            _stop_trial(folder, path, trial)
            return
        if folder.state.ended is not None:
            typer.echo(f"{path}: has ended already ({folder.sweep_state})")
            return
        put_request(folder.layout, Request("stop", time.time(), _user()))
        try:
            state = _drive(folder)
        except HeldError as error:
            typer.echo(f"asked to stop: {error}")
            return
        rest = "its jobs are cancelled; `launch` or `stop` again sees to the rest"
        typer.echo("stopped" if state.ended is not None else rest)


def _user() -> str:
    me = ProcessId.me()
    return f"{me.user}@{me.host}"


def _stop_trial(folder: Folder, path: Path, trial: int) -> None:
    names = _names(folder, path, trial)
    put_request(folder.layout, Request("stop_trial", time.time(), _user(), {"trial": trial}))
    if folder.state.ended is not None:
        typer.echo(f"{names}: the next launch takes it up, the sweep is {folder.sweep_state}")
        return
    try:
        state = _drive(folder, trial)
    except HeldError as error:
        typer.echo(f"asked to stop {names}: {error}")
        return
    if state.trials[trial].runs[-1].status.ended:
        typer.echo(f"stopped: {names}; it is not promoted any more")
        return
    why = "its job is being cancelled"
    if _shares_task(state, trial):
        why = "its task, which goes on with other runs, has been told to end it"
    typer.echo(f"stopped: {names}; {why}")


def _names(folder: Folder, path: Path, number: int) -> str:
    """The trial, or the trials of its configuration, as they are told of.

    Raises:
        SpecError: There is no such trial, or it is over.
        FolderError: The sweep is over, or its spec is missing.
    """
    state = folder.state
    if not 0 <= number < len(state.trials):
        there = f"one of 0 to {len(state.trials) - 1}" if state.trials else "none, no trial was started yet"
        raise SpecError(f"TRIAL: expected {there}, got {number}")
    if not folder.layout.spec.exists():
        raise FolderError(f"{folder.layout.spec}: is missing; `launch SPEC` writes it")
    trial = state.trials[number]
    if trial.stopped:
        raise SpecError(f"TRIAL: trial {number} has been stopped already: {trial.stopped}")
    if state.ended is not None and state.ended.outcome not in (SweepOutcome.STOPPED, SweepOutcome.PAUSED):
        raise FolderError(f"{path}: has ended already ({folder.sweep_state}): no trial goes on")
    _, retention = retention_of(load_spec(folder.layout.spec), folder.reading.events)
    if retention.is_at_its_end(number):
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


def _drive(folder: Folder, trial: int | None = None) -> SweepState:
    """Tick until the sweep, or the trial, has ended, or that takes too long; the state after that.

    For a trial nothing new is submitted.

    Raises:
        HeldError: A driver is at work, and takes the request up.
    """
    if not folder.layout.spec.exists():
        raise FolderError(f"{folder.layout.spec}: is missing; stop the sweep with `launch SPEC`")
    spec = load_spec(folder.layout.spec, [])
    hide(secret_values(spec.cluster.environment))
    deadline = time.monotonic() + PATIENCE_S
    place = resolve_target(spec, state=folder.state)
    root = folder.layout.root
    with turn(root, folder.state, SystemClock()) as journal:
        if journal is not None:
            now = SweepState.replay(journal.events)
            if now.ended is not None:
                return now  # by a tick of its jobs
        with open_sweep(spec, root, place, journal=journal) as driver:
            _see_to(driver, trial, deadline, pause_s=min(place.cluster.poll_s[0], 2.0))
            driver.schedule_successor()
            return driver.state


def _see_to(driver: Driver, trial: int | None, deadline: float, *, pause_s: float) -> None:
    while driver.state.ended is None and time.monotonic() < deadline:
        if trial is None:
            driver.tick()
        else:
            driver.settle()
            if driver.state.trials[trial].runs[-1].status.ended:
                return
        if driver.state.ended is None:
            time.sleep(pause_s)
