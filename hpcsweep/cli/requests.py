"""`stop`, `enqueue` and `retry`: requests to a sweep, carried out at once if no driver is at work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import typer

from hpcsweep.cli.terminal import errors_exit, hide
from hpcsweep.clock import SystemClock
from hpcsweep.core.arrays import np
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.configurations import complete_config
from hpcsweep.core.events import SweepOutcome
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.outcomes import needs_name
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import secret_values, shell_join, shell_quote
from hpcsweep.driver import Driver
from hpcsweep.errors import FolderError, HeldError, SpecError, SubmitRefused
from hpcsweep.session.algorithms import replay_sweep
from hpcsweep.session.session import Session
from hpcsweep.session.target import Target
from hpcsweep.spec import load_spec
from hpcsweep.spec.yaml_io import parse_yaml
from hpcsweep.store import checkpoints
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import send_request
from hpcsweep.tick import finish_unread
from hpcsweep.views.folder import ResultsFolder, beyond_budget, check_trial, count_enqueued, failed_runs
from hpcsweep.views.format import MOST_LISTED, duration, listing, runs_text
from hpcsweep.views.progress import journal_counts

#: How long the command itself waits for the jobs to end if no driver is at work.
PATIENCE_S: Final = 60.0


def _check_spec(folder: ResultsFolder, advice: str) -> None:
    if not folder.layout.spec.exists():
        raise FolderError(f"{folder.layout.spec}: is missing; {advice}")


def _session(folder: ResultsFolder, advice: str, overrides: Sequence[str] = ()) -> Session:
    _check_spec(folder, advice)
    session = Session.for_request(folder.layout, folder.state, overrides=overrides)
    hide(secret_values(session.spec.cluster.environment))
    return session


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
            state = _drive_until_ended(folder)
        except HeldError as error:
            typer.echo(f"stop requested: {error}")
            return
        unfinished = "its jobs are being cancelled; `launch` or `stop` again finishes that"
        typer.echo("stopped" if state.ended is not None else unfinished)


def end_sweep(path: Path) -> None:
    """Cancel the jobs of a sweep that nobody drives, and wait a while until they are gone."""
    folder = ResultsFolder(path)
    send_request(folder.layout, "stop")
    _drive_until_ended(folder)


def _stop_trial(folder: ResultsFolder, path: Path, trial: int) -> None:
    names = _names(folder, path, trial)
    send_request(folder.layout, "stop_trial", trial=trial)
    if folder.state.ended is not None:
        typer.echo(f"{names}: the next launch stops it, the sweep is {folder.progress.status}")
        return
    try:
        state = _drive_until_ended(folder, trial)
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
    """What is stopped: the trial, or all repeats of its configuration."""
    state = folder.state
    check_trial(state, number)
    _check_spec(folder, "`launch SPEC` writes it")
    trial = state.trials[number]
    if trial.stopped:
        raise SpecError(f"TRIAL: trial {number} has been stopped already: {trial.stopped}")
    if state.ended is not None and state.ended.outcome not in (SweepOutcome.STOPPED, SweepOutcome.PAUSED):
        raise FolderError(f"{path}: has ended already ({folder.progress.status}): no trial is running")
    *_, retention = replay_sweep(load_spec(folder.layout.spec, stored=True), folder.events)
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
    return batch is not None and (batch.reuse or len(batch.tasks[run.task]) > 1)


def _drive_until_ended(folder: ResultsFolder, trial: int | None = None) -> SweepState:
    """Tick until the sweep, or the trial, has ended, or that takes too long; the state after that.

    For a trial nothing new is submitted.
    """
    session = _session(folder, "stop the sweep with `launch SPEC`")
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
    finish_unread(driver)
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


def enqueue(path: Path, values: Sequence[str]) -> None:
    """Leave the request for the sweep's next tick."""
    with errors_exit():
        folder = ResultsFolder(path)
        _check_spec(folder, "`launch SPEC` writes it")
        config = read_config(values, verb="enqueue")
        if not config:
            raise SpecError(
                "enqueue: expected name=value, such as lr=0.01; what is missing is drawn at random"
            )
        try:
            spec = load_spec(folder.layout.spec, stored=True)
            complete_config(spec.space, config, np.random.default_rng(0))
        except SpecError as error:
            raise SpecError(*(f"enqueue: {problem}" for problem in error.problems)) from None
        send_request(folder.layout, "enqueue", config=config)
        known = [trial.trial for trial in folder.state.trials if trial.config == config]
        if known:
            removed = ", whose checkpoint was removed" if known[-1] in folder.state.without_checkpoint else ""
            typer.echo(f"same configuration as trial {known[-1]}{removed}: it is trained again, from scratch")
        why = beyond_budget(count_enqueued(folder.layout, folder.state), folder.state, spec.budget.trials)
        if why:
            typer.echo(f"enqueued, and waits: {why}")
        elif folder.state.ended is not None:
            typer.echo(f"enqueued; the sweep has {folder.progress.status}: launch it again to run it")
        elif folder.driver is None and folder.state.detached is None:
            typer.echo("enqueued; no driver is at work: launch again to resume")
        else:
            typer.echo("enqueued: it is the next configuration that starts")


def read_config(values: Sequence[str], *, verb: str) -> dict[str, Any]:
    """`["lr=0.1", "optimizer=adam"]` as a configuration; values are YAML."""
    config: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name = name.strip()
        if not equals or not name:
            raise SpecError(f"{verb} {value}: must be name=value")
        if name in config:
            raise SpecError(f"{verb} {value}: {name} must be given once, got it twice")
        config[name] = parse_yaml(text, source=f"{verb} {value}")
    return config


#: Sections of the spec that may change while a sweep goes on.
MAY_CHANGE: Final = ("resources", "cluster", "budget", "retries", "store")


def retry(path: Path, trial: int | None, overrides: Sequence[str] = ()) -> None:
    """Leave the request; if no driver is at work, print what is retried and submit it."""
    with errors_exit():
        folder = ResultsFolder(path)
        runs = _failed_runs(folder.state, trial, path)
        _check_overrides(folder, path, overrides)
        session = None
        advice = "go on with `launch SPEC`, it takes the request up"
        if folder.layout.spec.exists() and folder.driver is None:
            session = _session(folder, advice, overrides)
            if overrides:
                session.check_target()
            _announce(folder, session.target, runs, overrides)
        send_request(folder.layout, "retry", **({} if trial is None else {"trial": trial}))
        try:
            state = _tick(session or _session(folder, advice, overrides), path)
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


def _tick(session: Session, path: Path) -> SweepState:
    """Tick, so that the runs are submitted; the state after that."""
    session.validate()
    with session.acquire(SystemClock()) as journal, session.open(journal=journal) as driver:
        session.record_launch()
        try:
            driver.tick_once()
        except SubmitRefused as refusal:
            again = f"Nothing is lost; fix it and resume with: {_launch_command(session.layout, path)}"
            raise SubmitRefused(f"{refusal}\n{again}") from None
        driver.schedule_successor()
    finish_unread(driver)
    return driver.state


def _launch_command(layout: Layout, path: Path) -> str:
    return shell_join(["hpcsweep", "launch", str(layout.spec), "--results", str(path)])


def _failed_runs(state: SweepState, trial: int | None, path: Path) -> list[Run]:
    """The runs to retry; there may be none if the request resumes a paused sweep."""
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
    """Check that this command may make the changes."""
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
        f"{shape.nodes} nodes, on each" if shape.nodes > 1 else "",
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
