"""`status` and `best`: they read the results folder, and ask the queue whether its jobs are alive."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from hpcsweep.cli.terminal import NO_VALUE, WRONG, errors_exit, json_text, sanitize
from hpcsweep.cluster.backend import Queue, find_backend, is_cluster
from hpcsweep.core.events import FailureKind, Interruption, RunFinished, SweepOutcome
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural, shell_quote
from hpcsweep.errors import ClusterUnavailable, HpcsweepError, SpecError
from hpcsweep.store.journal.segments import LastSegment
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId
from hpcsweep.views.folder import SIMULATION, ResultsFolder, best_of, beyond_budget, changes, read_provenance
from hpcsweep.views.format import (
    MOST_LISTED,
    attempt_text,
    best_text,
    bracket_text,
    checkpoints_text,
    clock_text,
    config_text,
    cost,
    driver_text,
    mean_text,
    number,
    pool_text,
    runs_text,
    task_text,
    tasks_text,
    use_text,
    waits_text,
    warning_lines,
)
from hpcsweep.views.health import Liveness, added_lines, advice_lines, clusters_to_ask, liveness
from hpcsweep.views.progress import SweepProgress
from hpcsweep.views.rank_correlations import rank_correlation_text, rank_correlations
from hpcsweep.views.tasks import Activity

if TYPE_CHECKING:
    from hpcsweep.rerun import RerunPlan

#: The queue is given so long to answer.
QUEUE_S: Final = 10.0


def status(path: Path, *, json: bool, title: str = "") -> None:
    """Print how the sweep stands, below the title."""
    with errors_exit():
        folder, alive, summary = read_status(path)
        now = time.time()
        if json:
            typer.echo(json_text(summary))
            return
        if title:
            _echo(title)
        state, progress = folder.state, folder.progress
        reason = f" ({summary['reason']})" if summary["reason"] else ""
        _echo(f"{summary['name']}: {progress.status}{reason}")
        if state.simulated:
            _echo(f"simulated {SIMULATION}")
        if state.ended is None:
            _echo(f"driver: {driver_text(state, folder.driver, alive)}")
            for line in alive.lines if alive is not None else ():
                _echo(line)
        for line in (*warning_lines(state, now=now), *summary["passed_over"]):
            _echo(line)
        for node, seconds in folder.clock_skews.items():
            _echo(f"clock: {clock_text(node, seconds)}; start times in tables are by its clock")
        for bracket, rungs in progress.rungs.brackets().items():
            _echo(f"bracket {bracket}: {bracket_text(rungs)}")
        for found in rank_correlations(state):
            _echo(f"ranks: {rank_correlation_text(found, several=state.objectives.has_front)}")
        for line in _tasks(summary["tasks"], now=folder.progress.now if state.simulated else now):
            _echo(line)
        for pool in summary["pools"]:
            _echo(f"pool {pool_text(pool)}")
        if summary["queue_waits"]:
            _echo(f"queue waits: {waits_text(summary['queue_waits'])}")
        if summary["enqueued"]:
            _echo(f"enqueued: {_enqueued(folder, summary['enqueued'])}")
        runs = runs_text(summary["runs"], summary["failed_by"])
        _echo(f"{plural(len(state.trials), 'trial')}; {runs}; {cost(state, summary['budget_gpu_hours'])}")
        _echo(f"best: {best_text(state)}")
        if state.best is not None:
            _echo(f"      {config_text(state.best.config)}")
        for line in _front(progress):
            _echo(line)
        for use in folder.resource_use[-MOST_LISTED:]:
            _echo(use_text(use))
        checkpoints = checkpoints_text(summary["checkpoints"], summary["checkpoint_quota"])
        if checkpoints:
            _echo(f"checkpoints: {checkpoints}")
        if state.interrupted:
            counts = (f"{n:,} {FACTS[why].label}" for why, n in state.interrupted.most_common())
            _echo(f"interruptions: {', '.join(counts)}")
        for line in (*added_lines(state), *advice_lines(state)):
            _echo(line)
        for attempt in progress.interruptions:
            _echo(attempt_text(Interruption(attempt["why"]), attempt))
        for attempt in progress.failures:
            _echo(attempt_text(FailureKind(attempt["failure"]), attempt))
        paused = state.ended is not None and state.ended.outcome is SweepOutcome.PAUSED
        if progress.failures or paused:
            what = "resume, and retry what failed" if paused else "retry what failed"
            _echo(f"{what}: hpcsweep retry {shell_quote(str(path))}")


def statuses(paths: Sequence[Path], *, json: bool) -> None:
    """Print how each sweep stands; as JSON a list where there are several.

    A folder that cannot be read is said on standard error, and the others are shown.
    """
    if len(paths) == 1:
        status(paths[0], json=json)
        return
    summaries, failed = [], False
    for path in paths:
        try:
            if json:
                with errors_exit():
                    summaries.append({"folder": str(path)} | read_status(path)[2])
            else:
                status(path, json=False, title=f"{path}:")
                typer.echo()
        except typer.Exit:
            failed = True
    if json:
        typer.echo(json_text(summaries))
    if failed:
        raise typer.Exit(WRONG)


def read_status(path: Path) -> tuple[ResultsFolder, Liveness | None, dict[str, Any]]:
    """The folder, who drives the sweep (None once it has ended), and what `status --json` prints.

    Raises:
        FolderError: It is not a results folder.
    """
    folder = ResultsFolder(path)
    alive = _liveness(folder)
    if alive is not None and alive.driven is False and folder.state.detached is not None:
        folder = ResultsFolder(path)  # it may have ended, or a driver begun, since it was read
        alive = _liveness(folder)
    gpu_hours = folder.budget.get("gpu_hours")
    budget = float(gpu_hours) if isinstance(gpu_hours, int | float) else None
    summary = folder.status(now=time.time()) | {"budget_gpu_hours": budget}
    summary["end"] = None if alive is None else _end(folder)
    summary["liveness"] = None if alive is None else msgspec.to_builtins(alive)
    return folder, alive, summary


def _end(folder: ResultsFolder) -> dict[str, Any] | None:
    """When it will end; None where its sweep.yaml cannot be read."""
    from hpcsweep.cli.progress import estimate_end, plan_of  # slow to import
    from hpcsweep.spec import load_spec

    now = folder.progress.now if folder.state.simulated else time.time()
    try:
        plan = plan_of(load_spec(folder.layout.spec, stored=True))
    except (HpcsweepError, OSError, ValueError):
        return None
    end = estimate_end(plan, folder.progress, now=now)
    at = None if end.seconds is None else now + end.seconds
    return {"seconds": end.seconds, "at": at, "by": end.by, "runs_left": end.runs, "done": end.done}


def _echo(text: str) -> None:
    """Print a line; the terminal does not obey what it holds of configurations and logs."""
    typer.echo(sanitize(text))


def _tasks(tasks: dict[str, Any] | None, *, now: float) -> Iterator[str]:
    """How many tasks do what, and what the first few that have begun are at."""
    if tasks is None:
        return
    yield f"tasks: {tasks_text(tasks) or 'none'}"
    begun = [task for task in tasks["each"] if task["state"] != Activity.PENDING.value]
    for task in begun[:MOST_LISTED]:
        yield f"  {task_text(task, now=now)}"
    if len(begun) > MOST_LISTED:
        yield f"  and {len(begun) - MOST_LISTED:,} more"


def _front(progress: SweepProgress) -> Iterator[str]:
    """With several objectives the best of each, who is beyond the bounds, and the hypervolume."""
    if not progress.state.objectives.several:
        return
    from hpcsweep.views.front_history import front_history, hypervolume_text, reference_text
    from hpcsweep.views.fronts import front_lines

    yield from front_lines(progress.state)
    history = front_history(progress)
    if history is not None:
        yield f"hypervolume: {hypervolume_text(history, active_s=progress.active_s)}"
        yield f"      measured up to {reference_text(history)}"


def _enqueued(folder: ResultsFolder, count: int) -> str:
    """How many configurations wait, and for what."""
    several = count > 1
    what = f"{plural(count, 'configuration')} {'wait for their' if several else 'waits for its'} start"
    trials = folder.budget.get("trials")
    why = beyond_budget(count, folder.state, trials if isinstance(trials, int) else None)
    if not why and folder.state.ended is not None:
        why = f"launch again to run {'them' if several else 'it'}"
    return f"{what}; {why}" if why else what


def best(path: Path, *, json: bool, weights: str | None = None) -> None:
    """Print the best trial; with several objectives all that none dominates."""
    with errors_exit():
        state = ResultsFolder(path).state
        if state.objectives.several:
            from hpcsweep.cli.front import best as run

            run(path, state, json=json, weights=weights)
            return
        if weights is not None:
            raise SpecError(f"--weights: needs several objectives, and {state.metric} is the only one")
        found = best_of(state)
        if found is None:
            typer.echo(f"hpcsweep: {path}: no run has given a value yet", err=True)
            raise typer.Exit(NO_VALUE)
        if json:
            typer.echo(json_text(found | ({"simulated": True} if state.simulated else {})))
            return
        value = number(found["value"])
        simulated = " (simulated: nothing was trained)" if state.simulated else ""
        typer.echo(f"trial {found['trial']}: {value} at {found['resource']}{mean_text(found)}{simulated}")
        for name, value in found["config"].items():
            typer.echo(f"  {name}: {value}")


# --------------------------------------------------------------------------- liveness


def _liveness(folder: ResultsFolder) -> Liveness | None:
    """Who drives the sweep; None once it has ended."""
    state, tail = folder.state, folder.journal.tail
    if state.ended is not None or state.started is None or tail is None:
        return None
    return ask_liveness(folder.layout, state, driver=folder.driver, tail=tail)


def queue_of(state: SweepState, driver: ProcessId | None) -> Queue | None:
    """The queue that may show jobs of the sweep, None where there is none to be asked."""
    names = clusters_to_ask(state, driver)
    queues = (find_backend(name).queue() for name in names if is_cluster(name))
    return next((queue for queue in queues if queue is not None), None)


def ask_liveness(
    layout: Layout, state: SweepState, *, driver: ProcessId | None, tail: LastSegment
) -> Liveness:
    """Who drives the sweep, which has not ended; by one look at the queue where its jobs are to be there."""
    jobs, unknown, silent_s = None, "", 0.0
    if driver is not None:
        with contextlib.suppress(OSError):
            silent_s = time.time() - tail.path.stat().st_mtime
    if (queue := queue_of(state, driver)) is not None:
        try:
            found = queue.jobs(tail.header.owner.user, timeout_s=QUEUE_S)
            jobs = {job.job: job for job in found}
        except ClusterUnavailable as error:
            unknown = str(error)
    return liveness(layout, state, driver=driver, silent_s=silent_s, jobs=jobs, unknown=unknown)


def rerun(
    path: Path, *, trial: int | None, output: Path | None, start: bool, weights: str | None = None
) -> None:
    """Print the command on standard output and notes on standard error; or run it.

    Without a trial the best one, which with several objectives is the knee of the front, or who is best by
    these weights.
    """
    from hpcsweep.rerun import arguments, plan_rerun, shell_command  # slow to import

    with errors_exit():
        read = ResultsFolder(path)
        if weights is not None:
            from hpcsweep.cli.front import picked

            chosen = picked(read.state, weights)
            trial = None if chosen is None else chosen.trial
        plan = plan_rerun(read, trial)
        if plan is None:
            typer.echo(f"hpcsweep: {path}: no run has given a value yet", err=True)
            raise typer.Exit(NO_VALUE)
        for note in _notes(plan):
            typer.echo(f"# {note}", err=True)
        name = f"rerun-{plan.spec.name}-{plan.run.trial}"
        folder = (output or Path(name)).absolute()
        if start:
            argv = arguments(plan, folder)
            os.execv(argv[0], argv)
        typer.echo(shell_command(plan, folder, os.environ))


def _notes(plan: RerunPlan) -> list[str]:
    """What the user should know before the rerun."""
    run = plan.run
    value = "gave no value" if plan.value is None else _value(plan)
    lines = [f"trial {run.trial}: {value} at {run.resource}"]
    if plan.trial.parent is not None:
        parent = f"it continued a checkpoint of trial {plan.trial.parent}"
        lines.append(f"{parent}: from scratch the value may differ")
    if run.trial in plan.folder.state.without_checkpoint:
        lines.append("its checkpoint in the sweep was removed: this makes a new one")
    if plan.program.snapshot is not None:
        lines.append(f"uses the sweep's snapshot of the code: {plan.program.snapshot.code}")
    differences = _differences(plan)
    if differences:
        lines.append(f"changed since it was trained: {'; '.join(differences)}")
    if plan.spec.cluster.setup:
        lines.append(f"the sweep's jobs first ran: {'; '.join(plan.spec.cluster.setup)}")
    return lines


def _value(plan: RerunPlan) -> str:
    """All values of it, with several objectives."""
    metrics = plan.folder.state.objectives.metrics if plan.values else (plan.program.metric,)
    values = plan.values or (plan.value,)
    return ", ".join(
        f"{name} {number(of)}" for name, of in zip(metrics, values, strict=True) if of is not None
    )


def _differences(plan: RerunPlan) -> list[str]:
    """What has changed since it was trained, as far as that is recorded."""
    from hpcsweep.store.provenance import current_record

    records = read_provenance(plan.folder.layout)
    if not records:
        return []
    then = _record_at(records, _started(plan))
    spec = plan.spec
    now, _ = current_record(
        plan.program, spec.resolved(), cluster=then["cluster"], python=spec.cluster.python, first=False
    )
    return changes(then, msgspec.to_builtins(now))


def _started(plan: RerunPlan) -> float | None:
    """When its newest run began; None if unknown."""
    run = (plan.run.trial, plan.run.rung)
    for event in reversed(plan.folder.events):
        if isinstance(event, RunFinished) and (event.trial, event.rung) == run:
            return event.started
    return None


def _record_at(records: list[dict[str, Any]], at: float | None) -> dict[str, Any]:
    """The newest record before that time, else the oldest: clocks of nodes differ."""
    before = [record for record in records if at is None or record["at"] <= at]
    return (before or records[:1])[-1]
