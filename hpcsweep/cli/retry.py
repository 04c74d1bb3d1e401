"""`retry`: try failed runs again, and go on with a sweep that is paused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.cli.format import duration, runs_line, state_counts
from hpcsweep.cli.sanitize import hide
from hpcsweep.cli.waiting import turn
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import Outcome, SweepOutcome
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.protocols import TaskResources
from hpcsweep.core.quoting import shell_join, shell_quote
from hpcsweep.core.secrets import secret_values
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, HeldError, SpecError, SubmitRefused
from hpcsweep.session.session import note_launch, open_sweep
from hpcsweep.session.target import Target, check_fits, resolve_target
from hpcsweep.session.validation import validate
from hpcsweep.spec import load_spec
from hpcsweep.store import checkpoints
from hpcsweep.store.process_id import ProcessId
from hpcsweep.store.requests import Request, put_request
from hpcsweep.tick import catch_up
from hpcsweep.views.folder import Folder, failures

#: So many trials are named.
NAMED = 10


#: What may change while a sweep goes on.
MAY_CHANGE = ("resources", "cluster", "budget", "retries")


def retry(path: Path, trial: int | None, overrides: Sequence[str] = ()) -> None:
    """Leave the request; where no driver is at work, say what is done with what, and submit from here.

    Args:
        path: The results folder.
        trial: Its number; None: all that failed.
        overrides: `key.path=value` texts; they hold for the whole sweep from now on.
    """
    with errors_exit():
        folder = Folder(path)
        runs = _failed(folder.state, trial, path)
        _check_changes(folder, path, overrides)
        place = None
        if folder.layout.spec.exists() and folder.driver is None:
            spec = load_spec(folder.layout.spec, overrides)
            place = resolve_target(spec, state=folder.state)
            if overrides:
                check_fits(place, max_gpus=spec.cluster.max_gpus)
            _announce(folder, place, runs, overrides)
        me = ProcessId.me()
        arguments = {} if trial is None else {"trial": trial}
        put_request(folder.layout, Request("retry", time.time(), f"{me.user}@{me.host}", arguments))
        try:
            state = _drive(folder, path, place, overrides)
        except HeldError as error:
            lost = "; it began just now, and --set was not taken: give it to `launch`" if overrides else ""
            typer.echo(f"asked to go on: {error}{lost}")
            return
        typer.echo(_tried(runs) + (_cancelled(folder.state, path) if trial is None else ""))
        if state.ended is not None:
            typer.echo(f"{state.ended.outcome.value}: {state.ended.reason}")
        elif state.detached is not None:
            typer.echo(f"its jobs drive it on; follow it with: hpcsweep status {shell_quote(str(path))}")
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
        failed = [run for run in failed if run.outcome is not Outcome.CANCELLED]
        paused = state.pausing is not None or (
            state.ended is not None and state.ended.outcome is SweepOutcome.PAUSED
        )
        if not failed and not paused:
            stand = f"{runs_line(state_counts(state))}{_cancelled(state, path)}"
            raise FolderError(f"{path}: no run has failed for good: {stand}")
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


def _cancelled(state: SweepState, path: Path) -> str:
    """That trials stay cancelled until they are asked for; empty where there are none."""
    runs = [run for run in failures(state) if run.outcome is Outcome.CANCELLED]
    if not runs:
        return ""
    again = shell_join(["hpcsweep", "retry", str(path), str(runs[0].trial)])
    return f"; cancelled by their user: {_numbers(runs)}, which come back by number: {again}"


def _check_changes(folder: Folder, path: Path, overrides: Sequence[str]) -> None:
    """Whether the changes can be made by this command.

    Raises:
        SpecError: Something else would change.
        HeldError: The sweep has a driver, which has read its spec.
    """
    for override in overrides:
        section = override.partition("=")[0].strip().partition(".")[0]
        if section not in MAY_CHANGE:
            allowed = ", ".join(f"{key}.*" for key in MAY_CHANGE)
            raise SpecError(f"--set {override}: may not change in a sweep that has begun; {allowed} may")
    if overrides and folder.driver is not None:
        raise HeldError(
            f"{path}: {folder.driver} is driving this sweep, with the values that it was launched with: end "
            "it (its jobs go on), then `retry` again or `launch` with --set"
        )


def _announce(folder: Folder, place: Target, runs: Sequence[Run], overrides: Sequence[str]) -> None:
    """Print what is about to be tried again, from where and with what."""
    for override in overrides:
        typer.echo(f"from now on: {override}")
    for run in runs[:NAMED]:
        newest = checkpoints.newest(folder.layout.trial(run.trial), at_most=run.resource)
        start = f"from its checkpoint of step {newest.step}" if newest else "from scratch"
        parent = folder.state.trials[run.trial].parent
        if newest is None and parent is not None:
            start = f"from the checkpoint of trial {parent}"
        elif newest is None and run.trial in folder.state.without_checkpoint:
            start = "from scratch, for its checkpoint was removed"
        typer.echo(f"to be tried again: trial {run.trial}, rung {run.rung} (to {run.resource}), {start}")
    if len(runs) > NAMED:
        typer.echo(f"to be tried again: {len(runs) - NAMED} more")
    if runs:
        typer.echo(f"each with {_resources(place.shape)}, on {place.why}")


def _resources(shape: TaskResources) -> str:
    """`2 GPUs, 8 CPUs, 16384 MiB, 1800 s` of one task."""
    parts = [
        f"{shape.gpus} GPU{'' if shape.gpus == 1 else 's'}" if shape.gpus else "",
        f"{shape.cpus} CPU{'' if shape.cpus == 1 else 's'}",
        f"{shape.mem_mib} MiB" if shape.mem_mib else "",
        f"at most {duration(shape.time_s)}" if shape.time_s else "",
    ]
    return ", ".join(part for part in parts if part)


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


def _drive(folder: Folder, path: Path, place: Target | None, overrides: Sequence[str]) -> SweepState:
    """Tick, so that the runs are submitted; the state after that.

    Args:
        folder: The sweep's.
        path: As the user gave it.
        place: Where it runs, None where that is not known yet.
        overrides: Of its spec.

    Raises:
        HeldError: A driver is at work, and takes the request up.
    """
    root = folder.layout.root
    if not folder.layout.spec.exists():
        raise FolderError(
            f"{folder.layout.spec}: is missing; go on with `launch SPEC`, it takes the request up"
        )
    spec = load_spec(folder.layout.spec, overrides)
    hide(secret_values(spec.cluster.environment))
    validate(spec, state=folder.state)
    place = place or resolve_target(spec, state=folder.state)
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
        driver.schedule_successor()
    if driver.state.detached is not None and driver.state.ended is None and driver.has_unread:
        catch_up(folder.layout)
    return driver.state


def _launch(folder: Folder, path: Path) -> str:
    """The command line that carries on."""
    return shell_join(["hpcsweep", "launch", str(folder.layout.spec), "--results", str(path)])
