"""Tasks that keep their GPUs: what each is at, as the journal, the queue and metrics files tell."""

from __future__ import annotations

import enum
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, TaskId, TaskState
from hpcsweep.core.events import RunFinished, RunId
from hpcsweep.core.models import Run
from hpcsweep.core.state import SweepState
from hpcsweep.store.files import open_regular
from hpcsweep.store.layout import Layout, Skipped, TrialLayout
from hpcsweep.store.run_files import Report, metrics_files, parse_reports
from hpcsweep.views.run_times import BegunRun

#: Bytes at the end of a metrics file in which its newest report is sought.
_TAIL_BYTES: Final = 1 << 14
#: How long a task that takes no more runs is shown where no queue tells whether it is gone.
LEAVING_S: Final = 60.0


class Activity(enum.Enum):
    """What a task does; in the order in which tasks are listed."""

    IDLE = "idle"  # it has begun and has no run
    LEAVING = "leaving"  # it takes no more runs
    RUNNING = "running"
    PENDING = "pending"  # in the queue, or starting up


class LiveTask(NamedTuple):
    """A task that keeps its GPUs and holds them, or will.

    Attributes:
        job: As the cluster names it; empty while it has not begun.
        since: When that began: its present run, its idling, its departure, or its submission; Unix time.
        runs: What it trains.
        reason: Why it is pending, in the queue's words; empty where unknown.
    """

    id: TaskId
    activity: Activity
    since: float
    job: str = ""
    node: str = ""
    runs: tuple[Run, ...] = ()
    reason: str = ""


def live_tasks(
    state: SweepState, *, now: float, shown: Mapping[TaskId, TaskState] = MappingProxyType({})
) -> list[LiveTask]:
    """Tasks of live batches that keep their GPUs: those without a run first, then the longest at theirs.

    Args:
        state: Of the sweep.
        now: Unix time.
        shown: What the queue shows, where it was asked; it may know more than the journal.
    """
    tasks = [
        task
        for batch in state.live.values()
        if batch.reuse
        for task in _tasks_of(batch, state, shown)
        if task.activity is not Activity.LEAVING or task.id in shown or now - task.since < LEAVING_S
    ]
    order = list(Activity)
    return sorted(tasks, key=lambda task: (order.index(task.activity), task.since, task.id))


def _tasks_of(batch: BatchState, state: SweepState, shown: Mapping[TaskId, TaskState]) -> Iterator[LiveTask]:
    """The tasks of a batch that are not known to be gone."""
    runs: dict[int, list[RunId]] = {}
    for run in batch.begun:
        runs.setdefault(batch.assigned[run].task, []).append(run)
    # The newest ending in the present start of each task.
    ended = {end.task: end for end in batch.endings if end.restart == batch.restart_of(end.task)}
    for index in range(len(batch.tasks)):
        id_, start = TaskId(batch.name, index), batch.starts.get(index)
        queued = shown.get(id_)
        if queued is not None and not queued.phase.active:
            continue
        if start is None or (queued is not None and queued.phase is Phase.PENDING):
            reason = "" if queued is None else queued.reason
            yield LiveTask(id_, Activity.PENDING, batch.planned_at, reason=reason)
            continue
        named = LiveTask(id_, Activity.IDLE, start.began, start.job, start.node)
        last = ended.get(index)
        if isinstance(last, RunFinished) and last.started is not None:
            named = named._replace(since=max(start.began, last.started + last.seconds))
        if start.left is not None:
            yield named._replace(activity=Activity.LEAVING, since=start.left.left)
        elif index in runs:
            given = min(batch.assigned[run].at for run in runs[index])
            since = max(given, named.since) if batch.lanes == 1 else given
            trained = tuple(state.run(run) for run in runs[index])
            yield named._replace(activity=Activity.RUNNING, since=since, runs=trained)
        else:
            yield named


def begun_runs(state: SweepState, *, now: float) -> list[BegunRun]:
    """The runs that tasks which keep their GPUs are at; of others it is not known when they began."""
    return [
        BegunRun((state.trials[run.trial].below(run.rung), run.resource), task.since)
        for task in live_tasks(state, now=now)
        for run in task.runs
    ]


def submitted_runs(state: SweepState) -> Iterator[BegunRun]:
    """The runs of arrays in which each task has its own, and when these were submitted; they may wait."""
    for batch in state.live.values():
        if not batch.reuse and batch.job is not None:
            for run_id in (run for task in batch.tasks for run in task if run in batch.unfinished):
                run = state.run(run_id)
                rung = state.trials[run.trial].below(run.rung), run.resource
                yield BegunRun(rung, batch.planned_at)


def activity_counts(tasks: Iterable[LiveTask]) -> dict[str, int]:
    """How many tasks do what."""
    counts = Counter(task.activity for task in tasks)
    return {activity.value: counts[activity] for activity in Activity}


def task_record(task: LiveTask, layout: Layout) -> dict[str, Any]:
    """A task as `status --json` has it; of each of its runs the step of the newest report."""
    return {
        "batch": task.id.batch,
        "task": task.id.task,
        "job": task.job,
        "node": task.node,
        "state": task.activity.value,
        "since": task.since,
        "runs": [
            {
                "trial": run.trial,
                "rung": run.rung,
                "resource": run.resource,
                "step": (newest_report(layout.trial(run.trial), run.rung) or (None,))[0],
            }
            for run in task.runs
        ],
    }


def queue_waits(state: SweepState) -> dict[str, float] | None:
    """Of how many starts the wait in the queue is known, the median and the last; None of none. Seconds."""
    waits = state.queue_waits
    if not waits:
        return None
    return {"tasks": len(waits), "median": round(statistics.median(waits), 1), "last": round(waits[-1], 1)}


def newest_report(
    trial: TrialLayout, rung: int, metrics: Sequence[str] = ()
) -> tuple[int, dict[str, float]] | None:
    """Step of a run's newest report, and the newest values of these metrics; None without any report."""
    newest: int | None = None
    values: dict[str, float] = {}
    for file in reversed([file for file in metrics_files(trial, Skipped()) if file.rung == rung]):
        for report in reversed(_last_reports(file.path)):
            newest = report.step if newest is None else newest
            for metric in metrics:
                if metric in report.metrics:
                    values.setdefault(metric, report.metrics[metric])
            if len(values) == len(metrics):
                return newest, values
    return None if newest is None else (newest, values)


def _last_reports(path: Path) -> list[Report]:
    """The last whole lines of a metrics file, in order; none where it is gone."""
    try:
        with open(open_regular(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return list(parse_reports(file.read()))
    except OSError:
        return []
