"""`retry`: retry failed runs, and resume a paused sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.cli.sanitize import hide
from hpcsweep.clock import SystemClock
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import SweepOutcome
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.outcomes import needs_name
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import secret_values, shell_join, shell_quote
from hpcsweep.errors import FolderError, HeldError, SpecError, SubmitRefused
from hpcsweep.session.session import Session
from hpcsweep.session.target import Target
from hpcsweep.store import checkpoints
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import send_request
from hpcsweep.tick import finish_unread
from hpcsweep.views.folder import ResultsFolder, check_trial, failed_runs
from hpcsweep.views.format import MOST_LISTED, duration, listing, runs_text
from hpcsweep.views.progress import journal_counts

#: Sections of the spec that may change while a sweep goes on.
MAY_CHANGE: Final = ("resources", "cluster", "budget", "retries")


def retry(path: Path, trial: int | None, overrides: Sequence[str] = ()) -> None:
    """Leave the request; if no driver is at work, print what is retried and submit it.

    Args:
        path: The results folder.
        trial: Its number; None: all failed trials.
        overrides: `key.path=value` texts; they hold for the whole sweep from now on.
    """
    with errors_exit():
        folder = ResultsFolder(path)
        runs = _failed_runs(folder.state, trial, path)
        _check_overrides(folder, path, overrides)
        session = None
        if folder.layout.spec.exists() and folder.driver is None:
            session = _session(folder, overrides)
            if overrides:
                session.check_target()
            _announce(folder, session.target, runs, overrides)
        send_request(folder.layout, "retry", **({} if trial is None else {"trial": trial}))
        try:
            state = _drive(session or _session(folder, overrides), path)
        except HeldError as error:
            lost = "; it has just started, so --set was ignored: pass it to `launch`" if overrides else ""
            typer.echo(f"retry requested: {error}{lost}")
            return
        typer.echo(_retried(runs) + (_cancelled(folder.state, path) if trial is None else ""))
        if state.ended is not None:
            typer.echo(f"{state.ended.outcome.value}: {state.ended.reason}")
        elif state.detached is not None:
            typer.echo(f"its jobs drive it; follow it with: hpcsweep status {shell_quote(str(path))}")
        else:
            typer.echo(f"no driver is at work; resume with: {_launch_command(folder.layout, path)}")


def _session(folder: ResultsFolder, overrides: Sequence[str]) -> Session:
    if not folder.layout.spec.exists():
        raise FolderError(
            f"{folder.layout.spec}: is missing; go on with `launch SPEC`, it takes the request up"
        )
    session = Session.for_request(folder.layout, folder.state, overrides=overrides)
    hide(secret_values(session.spec.cluster.environment))
    return session


def _drive(session: Session, path: Path) -> SweepState:
    """Tick, so that the runs are submitted; the state after that.

    Raises:
        HeldError: A driver is at work, and takes the request up.
    """
    session.validate()
    with session.acquire(SystemClock()) as journal, session.open(journal=journal) as driver:
        session.record_launch()
        try:
            # On this machine it is the next tick that starts what one has planned.
            if driver.tick():
                driver.tick()
        except SubmitRefused as refusal:
            again = f"Nothing is lost; fix it and resume with: {_launch_command(session.layout, path)}"
            raise SubmitRefused(f"{refusal}\n{again}") from None
        driver.schedule_successor()
    finish_unread(driver)
    return driver.state


def _launch_command(layout: Layout, path: Path) -> str:
    return shell_join(["hpcsweep", "launch", str(layout.spec), "--results", str(path)])


def _failed_runs(state: SweepState, trial: int | None, path: Path) -> list[Run]:
    """The runs to retry; there may be none if the request resumes a paused sweep.

    Raises:
        SpecError: There is no such trial, or it did not fail.
        FolderError: Nothing failed, and the sweep is not paused.
    """
    failed = [run for run in failed_runs(state) if not state.trials[run.trial].stopped]
    if trial is None:
        failed = [run for run in failed if not needs_name(run.outcome)]
        paused = state.pausing is not None or (
            state.ended is not None and state.ended.outcome is SweepOutcome.PAUSED
        )
        if not failed and not paused:
            stand = f"{runs_text(journal_counts(state))}{_cancelled(state, path)}"
            raise FolderError(f"{path}: no failed runs to retry: {stand}")
        return failed
    check_trial(state, trial)
    wanted = [run for run in failed if run.trial == trial]
    if not wanted:
        there = f"those are: {_numbers(failed)}" if failed else "there is none"
        raise SpecError(
            f"TRIAL: expected one that has failed ({there}); trial {trial} {_status(state.trials[trial])}"
        )
    return wanted


def _cancelled(state: SweepState, path: Path) -> str:
    """Which trials stay cancelled until they are retried by number; empty if there are none."""
    runs = [run for run in failed_runs(state) if needs_name(run.outcome)]
    if not runs:
        return ""
    again = shell_join(["hpcsweep", "retry", str(path), str(runs[0].trial)])
    return f"; cancelled by their user: {_numbers(runs)}, retry them by number: {again}"


def _check_overrides(folder: ResultsFolder, path: Path, overrides: Sequence[str]) -> None:
    """Check that this command may make the changes.

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


def _announce(folder: ResultsFolder, target: Target, runs: Sequence[Run], overrides: Sequence[str]) -> None:
    """Print what is about to be retried, from where and with which resources."""
    for override in overrides:
        typer.echo(f"from now on: {override}")
    for run in runs[:MOST_LISTED]:
        newest = checkpoints.newest(folder.layout.trial(run.trial), at_most=run.resource)
        start = f"from its checkpoint of step {newest.step}" if newest else "from scratch"
        parent = folder.state.trials[run.trial].parent
        if newest is None and parent is not None:
            start = f"from the checkpoint of trial {parent}"
        elif newest is None and run.trial in folder.state.without_checkpoint:
            start = "from scratch: its checkpoint was removed"
        typer.echo(f"retrying: trial {run.trial}, rung {run.rung} (to {run.resource}), {start}")
    if len(runs) > MOST_LISTED:
        typer.echo(f"retrying: {len(runs) - MOST_LISTED} more")
    if runs:
        typer.echo(f"each with {_resources(target.shape)}, on {target.why}")


def _resources(shape: TaskResources) -> str:
    """`2 GPUs, 8 CPUs, 16384 MiB, 1800 s` of one task."""
    parts = [
        f"{shape.gpus} GPU{'' if shape.gpus == 1 else 's'}" if shape.gpus else "",
        f"{shape.cpus} CPU{'' if shape.cpus == 1 else 's'}",
        f"{shape.mem_mib} MiB" if shape.mem_mib else "",
        f"at most {duration(shape.time_s)}" if shape.time_s else "",
    ]
    return ", ".join(part for part in parts if part)


def _status(trial: Trial) -> str:
    """What became of a trial that has not failed."""
    run = trial.runs[-1]
    if trial.stopped:
        return f"was stopped early: {trial.stopped}"
    match run.status:
        case RunStatus.COMPLETED:
            return f"has completed rung {run.rung}"
        case RunStatus.WAITING:
            return f"waits to be submitted for rung {run.rung}"
        case _:
            return f"is queued or running at rung {run.rung}"


def _retried(runs: Sequence[Run]) -> str:
    match runs:
        case []:
            return "resumed; no failed runs to retry"
        case [run]:
            return f"trial {run.trial} is retried"
        case _:
            return f"{len(runs)} trials are retried: {_numbers(runs)}"


def _numbers(runs: Sequence[Run]) -> str:
    return listing([run.trial for run in runs])
