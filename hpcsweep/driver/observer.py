"""Reads what the driver decides on: results, the cluster's answer, reports, evidence of lost runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Limits, Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import AnyEvent, RunFinished, RunId, RunInterrupted, RunReported
from hpcsweep.core.models import Run
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import SweepContext
from hpcsweep.driver.effects import RemoveHandOver
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store import checkpoints
from hpcsweep.store.assignments import StartId, TaskDeparture, TaskStart, new_announcements
from hpcsweep.store.batch import Program, Result, new_results
from hpcsweep.store.excerpts import read_excerpt
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.store.run_files import Report, metrics_files, read_reports


class Observation(msgspec.Struct, frozen=True):
    """What was seen of the sweep's batches at one moment."""

    at: float
    #: New results by batch, in the order in which they count; read before the poll.
    results: Mapping[str, Sequence[Result]] = {}
    #: The tasks that the cluster shows; None: no information.
    tasks: Mapping[TaskId, TaskState] | None = None
    #: Why there is no information; empty if there is, None if nothing was to be asked.
    poll_error: str | None = None
    #: What tasks that keep their GPUs told newly, by batch.
    announcements: Mapping[str, Sequence[tuple[StartId, TaskStart | TaskDeparture]]] = {}


class Evidence(Protocol):
    """What else tells of runs that ended without a result; looked up for those only."""

    def newest_step(self, run: Run) -> int:
        """Step of its trial's newest complete checkpoint up to its resource; 0 without one."""

    def reported(self, run: RunId, *, attempt: int, restart: int) -> tuple[int, int] | None:
        """The first and the last step that this start of the run has reported; None if it has none."""

    def last_lines(self, batch: str, task: int) -> str:
        """The last lines of the task's log; empty without any."""

    def node_failed(self, node: str) -> bool:
        """Whether the cluster says that the node has failed."""


class Sighting(NamedTuple):
    """What there is of a batch that was planned and never acknowledged."""

    abandoned: bool = False
    job: str | None = None  # known from the cluster or from results of its tasks
    has_script: bool = False  # it is written just before the cluster is called


class Observer:
    """Reads each result once. Changes nothing, on the cluster or in the results folder."""

    def __init__(self, sweep: SweepContext) -> None:
        self._sweep = sweep
        #: Names of the result files that were read, by live batch.
        self._read: dict[str, set[str]] = {}
        self._heard: dict[str, set[str]] = {}

    def observe(self, submitted: Sequence[SubmittedBatch]) -> Observation:
        """New results, then one poll: one readdir for each of these batches, and one query."""
        seen = self.observe_files(submitted)
        if not submitted:
            return msgspec.structs.replace(seen, tasks={})
        try:
            tasks = self._sweep.cluster.poll(submitted)
        except ClusterUnavailable as error:
            return msgspec.structs.replace(seen, poll_error=str(error))
        if tasks is None:
            reason = self._sweep.cluster.poll_error or "the cluster does not answer"
            return msgspec.structs.replace(seen, poll_error=reason)
        return msgspec.structs.replace(seen, tasks=tasks, poll_error="")

    def observe_files(self, submitted: Sequence[SubmittedBatch]) -> Observation:
        """New results and announcements alone: one or two readdirs for each of these batches."""
        now, live = self._sweep.now, self._sweep.state.live
        for known in (self._read, self._heard):
            for name in known.keys() - live.keys():
                del known[name]
        reused = [batch.name for batch in submitted if live[batch.name].reuse]
        # Announcements first: a start must be known before a result of it.
        announcements = {name: self._new_announcements(name) for name in reused}
        results = {batch.name: self._new_results(batch.name) for batch in submitted}
        return Observation(now, results, announcements=announcements)

    def _new_announcements(self, name: str) -> list[tuple[StartId, TaskStart | TaskDeparture]]:
        heard = self._heard.setdefault(name, set())
        found = list(new_announcements(self._sweep.layout.batch(name), heard, self._sweep.skipped))
        heard.update(file for file, _, _ in found)
        return [(start, message) for _, start, message in found]

    def _new_results(self, name: str) -> list[Result]:
        batch, files = self._sweep.state.live[name], self._sweep.layout.batch(name)
        tasks = batch.tasks
        read = self._read.setdefault(name, set())
        results = []
        for file, result in new_results(files, read, self._sweep.skipped):
            read.add(file)
            if batch.reuse:  # of an earlier session's, whose file it could not remove any more
                given = batch.assigned.get(RunId(result.trial, result.rung))
                if given is not None and given[:2] == (result.task, result.restart):
                    results.append(result)
            elif result.task < len(tasks) and RunId(result.trial, result.rung) in tasks[result.task]:
                results.append(result)
            else:
                self._sweep.skipped.note(files.results / file, "is the result of a run of another batch")
        return results

    def settled_hand_overs(self) -> list[RemoveHandOver]:
        """Files of assigned runs that were read and whose end is in the journal; each is given once."""
        settled = []
        for name, read in self._read.items():
            batch = self._sweep.state.live.get(name)
            if batch is None or not batch.reuse:
                continue
            open_files = {f"{a.task}.{a.restart}.{a.number}.json" for a in batch.assigned.values()}
            for file in read - open_files:
                task, restart, number = map(int, file.split(".")[:3])
                settled.append(RemoveHandOver(name, StartId(task, restart), number))
                read.discard(file)
        return settled

    @property
    def has_unread(self) -> bool:
        """Whether results or announcements have come that were not read yet."""
        for batch in self._sweep.state.live.values():
            if batch.job is None:
                continue
            files = self._sweep.layout.batch(batch.name)
            if any(True for _ in new_results(files, self._read.get(batch.name, ()))):
                return True
            if batch.reuse and any(True for _ in new_announcements(files, self._heard.get(batch.name, ()))):
                return True
        return False

    @cached_property
    def limits(self) -> Limits:
        """What the site allows. Asked only where something is to be submitted: a tick must stay cheap."""
        return self._sweep.cluster.limits()

    def sighting(self, batch: BatchState) -> Sighting:
        """What there is of the batch; ClusterUnavailable if the cluster does not answer."""
        files = self._sweep.layout.batch(batch.name)
        if files.abandoned_marker.exists():
            return Sighting(abandoned=True)
        job = self._sweep.cluster.find_batch(batch.name, folder=files.root, since=batch.planned_at)
        if not job:  # the cluster may have forgotten it already: then its tasks have left results
            results = (result for _, result in new_results(files, ()))
            job = next((result.job.partition("_")[0] for result in results), "")
        return Sighting(job=job or None, has_script=files.script.exists())

    # ------------------------------------------------------------------ evidence of runs without a result

    def newest_step(self, run: Run) -> int:
        files = self._sweep.layout.trial(run.trial)
        try:
            newest = checkpoints.newest(files, at_most=run.resource)
        except OSError as error:  # whether its next attempt can read them shows when it begins
            self._sweep.skipped.note(files.checkpoints, error)
            return 0
        return newest.step if newest else 0

    def reported(self, run: RunId, *, attempt: int, restart: int) -> tuple[int, int] | None:
        file = self._sweep.layout.trial(run.trial).metrics(run.rung, attempt, restart)
        try:
            steps = [report.step for report in read_reports(file)]
        except OSError:
            return None
        return (min(steps), max(steps)) if steps else None

    def last_lines(self, batch: str, task: int) -> str:
        return read_excerpt(self._sweep.layout.batch(batch).log(task))

    def node_failed(self, node: str) -> bool:
        return self._sweep.cluster.has_failed(node)


class MetricsPoller:
    """Reads the reports of running runs, one file for each; nothing of what has ended."""

    def __init__(self, state: SweepState, *, layout: Layout, program: Program, skipped: Skipped) -> None:
        self._state = state
        self._skipped = skipped
        self._layout = layout
        self._objectives = program.measured
        self._sizes: dict[RunId, int] = {}

    def running(self, runs: Iterable[RunId]) -> list[AnyEvent]:
        """What these runs have reported since the last call."""
        events = [self._new(self._state.run(run)) for run in runs]
        return [event for event in events if event is not None]

    def before_endings(self, events: Sequence[AnyEvent]) -> list[AnyEvent]:
        """The same events, each end of a run preceded by its reports that were not read yet."""
        with_reports: list[AnyEvent] = []
        for event in events:
            if isinstance(event, RunFinished):
                run = self._state.run(event.run)
                files = metrics_files(self._layout.trial(run.trial), self._skipped)
                reports = {
                    report.step: report.metrics
                    for file in files
                    if file.rung == run.rung
                    for report in self._read(file.path)
                }
                late = self._event(run, reports)
                if late is not None:
                    with_reports.append(late)
                self._sizes.pop(event.run, None)
            with_reports.append(event)
        return with_reports

    def _new(self, run: Run) -> RunReported | None:
        path = self._layout.trial(run.trial).metrics(run.rung, run.submissions - 1, next_restart(run))
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            self._skipped.note(path, error)
            return None
        if self._sizes.get(run.id) == size:
            return None
        self._sizes[run.id] = size
        return self._event(run, {report.step: report.metrics for report in self._read(path)})

    def _read(self, path: Path) -> list[Report]:
        """The reports in the file; none where it cannot be read."""
        try:
            return list(read_reports(path))
        except OSError as error:
            self._skipped.note(path, error)
            return []

    def _event(self, run: Run, reports: dict[int, dict[str, float]]) -> RunReported | None:
        """The new reports; each has the newest value of every objective, once every one was reported."""
        last_step = run.last_report[0] if run.last_report else 0
        newest = self._known(run)
        new: list[tuple[int, tuple[float, ...]]] = []
        for step, metrics in sorted(reports.items()):
            reported = False
            for index, objective in enumerate(self._objectives):
                value = metrics.get(objective.metric, math.nan)
                if last_step < step <= run.resource and math.isfinite(value):
                    before = newest[index] if objective.at == "best" else None
                    newest[index] = value if before is None else objective.better(value, before)
                    reported = True
            values = tuple(value for value in newest if value is not None)
            if reported and len(values) == len(newest):
                new.append((step, values))
        if not new:
            return None
        several = tuple(values for _, values in new) if self._objectives.several else ()
        return RunReported(run.trial, run.rung, tuple((step, values[0]) for step, values in new), several)

    def _known(self, run: Run) -> list[float | None]:
        """The value of each objective that the trial was last seen to have, None where there was none."""
        below = self._state.trials[run.trial].runs[run.rung - 1] if run.rung else None
        if not self._objectives.several:
            found = run.last_report[1] if run.last_report else below.value if below else None
            return [found]
        return list(run.last_values or (below.values if below else ()) or [None] * len(self._objectives))


def next_restart(run: Run) -> int:
    """Number of the first start of its present attempt that is not taken into account."""
    return run.last_counted[1] + 1 if run.last_counted[0] == run.submissions - 1 else 0


def running_runs(
    state: SweepState, tasks: Mapping[TaskId, TaskState], events: Sequence[AnyEvent]
) -> list[RunId]:
    """The runs of running tasks that have not ended, once these events hold."""
    ended = {event.run for event in events if isinstance(event, RunFinished | RunInterrupted)}
    batches = [
        (state.live[task.batch], task.task)
        for task, shown in tasks.items()
        if shown.phase is Phase.RUNNING and task.batch in state.live
    ]
    return [
        run
        for batch, task in batches
        for run in batch.tasks[task]
        if run in batch.unfinished and run not in ended
    ]
