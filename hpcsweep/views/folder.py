"""A results folder as it is now: its state, a summary, its launches and the logs of its trials.

Imports neither numpy nor pandas.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchPlanned,
    FilesCompacted,
    RunId,
    RunsAssigned,
)
from hpcsweep.core.models import Run, RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import added_parameters
from hpcsweep.core.text import mask_arguments
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.store.batch import new_results
from hpcsweep.store.checkpoints import disk_usage_by_trial
from hpcsweep.store.compaction import read_archived
from hpcsweep.store.files import read_bytes
from hpcsweep.store.journal import current_driver
from hpcsweep.store.journal.segments import JournalSnapshot, list_segments, read_journal
from hpcsweep.store.layout import BatchLayout, Layout, Skipped, regular_files
from hpcsweep.store.process_id import ProcessId
from hpcsweep.store.provenance import Record, list_records
from hpcsweep.store.requests import new_requests
from hpcsweep.views.health import (
    advice_lines,
    blocked_batches,
    clock_skews,
    cluster_errors,
    excluded_nodes,
    interruption_counts,
)
from hpcsweep.views.pools import pool_records
from hpcsweep.views.progress import RungCount, SweepProgress, run_counts
from hpcsweep.views.rank_correlations import rank_correlations
from hpcsweep.views.tasks import activity_counts, live_tasks, queue_waits, task_record
from hpcsweep.views.usage import ResourceUse, resource_use

#: Names of a task's files: the task comes first.
_LOG: Final = re.compile(r"([0-9]+)(?:\.[0-9]+)?\.log")
_RESULT: Final = re.compile(r"([0-9]+)\.[0-9]+\.[0-9]+\.json")

#: What is said of a simulated sweep.
SIMULATION: Final = "by `hpcsweep simulate`: nothing was trained, and times are virtual"


def missing_folder(path: Path) -> FolderError:
    """The error for a path that is no results folder."""
    what = "is not a results folder" if path.is_dir() else "does not exist"
    return FolderError(f"{path}: {what}: expected a folder that `launch` made, with journal/ in it")


def check_trial(state: SweepState, number: int, *, argument: str = "TRIAL") -> None:
    """Raises a SpecError if the sweep has no trial of this number."""
    if not 0 <= number < len(state.trials):
        valid = f"one of 0 to {len(state.trials) - 1}" if state.trials else "none, no trial was started yet"
        raise SpecError(f"{argument}: expected {valid}, got {number}")


class ResultsFolder:
    """One reading of a results folder.

    Raises:
        FolderError: It is not a results folder.
    """

    def __init__(self, path: Path) -> None:
        self.layout = Layout(path.resolve())
        self.journal: JournalSnapshot = read_journal(self.layout)
        if self.journal.tail is None:
            raise missing_folder(path)
        self.progress = SweepProgress.replay(self.events)

    @property
    def events(self) -> Sequence[AnyEvent]:
        return self.journal.events

    @property
    def state(self) -> SweepState:
        return self.progress.state

    @property
    def driver(self) -> ProcessId | None:
        """The process that drives the sweep now."""
        return current_driver(self.journal)

    @cached_property
    def clock_skews(self) -> dict[str, float]:
        """See `warnings.clock_skews`."""
        return clock_skews(self.events)

    @cached_property
    def budget(self) -> dict[str, Any]:
        """`budget` in the folder's sweep.yaml; empty if there is none, or it cannot be read."""
        return self._section("budget")

    @property
    def pools(self) -> list[dict[str, Any]]:
        """The pools of the cluster that had tasks; see `pool_records`."""
        return pool_records(self.state, self._section("cluster"))

    @cached_property
    def resource_use(self) -> list[ResourceUse]:
        """What runs asked for against what they used, where that changes as the sweep goes on; else empty."""
        given = self._section("resources")
        learned = any(isinstance(given.get(key), dict) or given.get(key) == "auto" for key in ("mem", "time"))
        if not (learned or self._lowers_defaults(given)):
            return []
        return [use for use in resource_use(self.events) if use.compares]

    def _lowers_defaults(self, given: Mapping[str, Any]) -> bool:
        """Whether runs ask for less than the cluster gives by default, as others used less."""
        started = self.state.started
        most_s = 0 if started is None or given.get("time") else started.default_time_s
        most_mib = 0 if started is None or given.get("mem") else started.default_mem_mib
        return any(
            0 < event.time_s < most_s or 0 < (event.mem_mib or 0) < most_mib
            for event in (self.events if most_s or most_mib else ())
            if isinstance(event, BatchPlanned) and not event.reuse
        )

    @cached_property
    def checkpoint_quota(self) -> dict[str, int | None]:
        """Bytes and files of `store` in the folder's sweep.yaml; None where there is no limit."""
        from hpcsweep.core.units import parse_size

        store = self._section("store")
        size, files = store.get("checkpoint_quota"), store.get("checkpoint_files")
        most = None
        with contextlib.suppress(ValueError):
            most = None if size is None else parse_size(size)
        return {"bytes": most, "files": files if isinstance(files, int) else None}

    def _section(self, name: str) -> dict[str, Any]:
        """A section of the folder's sweep.yaml; empty if there is none, or it cannot be read."""
        section = self._spec.get(name)
        return section if isinstance(section, dict) else {}

    @cached_property
    def _spec(self) -> Mapping[str, Any]:
        """The folder's sweep.yaml; empty if it cannot be read."""
        from hpcsweep.spec.yaml_io import read_yaml

        try:
            return read_yaml(self.layout.spec)
        except SpecError:
            return {}

    def running(self) -> int:
        """Submitted runs that have begun and have no result yet: two readdirs for each live batch."""
        count = 0
        for batch in self.state.live.values():
            if batch.reuse:
                count += len(batch.begun)
                continue
            files = self.layout.batch(batch.name)
            begun, results = _files_by_task(files.logs, _LOG), _files_by_task(files.results, _RESULT)
            ended = sum(
                min(results[task], len(batch.tasks[task])) for task in results if task < len(batch.tasks)
            )
            count += max(0, sum(len(batch.tasks[t]) for t in begun if t < len(batch.tasks)) - ended)
        return min(count, self.state.counts[RunStatus.SUBMITTED])

    def run_counts(self) -> dict[str, int]:
        """Number of runs in each state."""
        return run_counts(self.state, running=self.running())

    def checkpoints(self) -> dict[str, int]:
        """What all checkpoints take now, by a walk, and of how many trials they were removed."""
        held = disk_usage_by_trial(self.layout)
        return {
            "bytes": sum(each.bytes for each in held.values()),
            "files": sum(each.files for each in held.values()),
            "trials": len(held),
            "removed_trials": len(self.state.without_checkpoint),
            "removed_bytes": self.state.checkpoint_bytes_removed,
        }

    def tasks(self, *, now: float) -> dict[str, Any] | None:
        """What tasks do that keep their GPUs, counted and each; None where no live batch has any."""
        state = self.state
        if not any(batch.reuse for batch in state.live.values()):
            return None
        tasks = live_tasks(state, now=self.progress.now if state.simulated else now)
        return activity_counts(tasks) | {"each": [task_record(task, self.layout) for task in tasks]}

    def status(self, *, now: float) -> dict[str, Any]:
        """The summary that `status --json` prints."""
        state, progress, driver = self.state, self.progress, self.driver
        return {
            "name": state.started.name if state.started else None,
            "metric": state.metric,
            "mode": "min" if state.minimise else "max",
            "simulated": state.simulated,
            "state": progress.status,
            "reason": state.ended.reason if state.ended else progress.refusal,
            "pausing": state.pausing.reason if state.pausing and not state.ended else None,
            "driver": str(driver) if driver else None,
            "detached": state.detached.cluster if state.detached else None,
            "tick_jobs": [batch.tick_job for batch in state.live.values() if batch.tick_job],
            "hindered": blocked_batches(state),
            "quota_reached": state.quota_reached.message if state.quota_reached and not state.ended else None,
            "limited": (state.submit_limit or None) if state.ended is None else None,
            "clocks": self.clock_skews,
            "cluster_said": cluster_errors(state) if state.ended is None else [],
            "excluded": [
                {"node": event.node, "until": event.until, "reason": event.reason}
                for event in excluded_nodes(state, now=now)
            ],
            "started": state.started.at if state.started else None,
            "newest": progress.now or None,
            "ended": state.ended.at if state.ended else None,
            "brackets": [
                {"bracket": bracket, "rungs": [_rung_record(rung) for rung in rungs]}
                for bracket, rungs in progress.rungs.brackets().items()
            ],
            "trials": len(state.trials),
            "enqueued": count_enqueued(self.layout, state),
            "rank_correlations": msgspec.to_builtins(rank_correlations(state)),
            "runs": self.run_counts(),
            "tasks": self.tasks(now=now),
            "queue_waits": queue_waits(state),
            "pools": self.pools,
            "failed_by": failure_counts(state),
            "checkpoints": self.checkpoints(),
            "checkpoint_quota": self.checkpoint_quota,
            "best": best_of(state),
            **_front(progress),
            "gpu_hours": round(state.spent_gpu_s / 3600, 6),
            "run_hours": round(state.spent_s / 3600, 6),
            "interrupted": interruption_counts(state),
            "newest_interruptions": progress.interruptions,
            "failures": progress.failures,
            "warnings": advice_lines(state),
            "added_parameters": list(added_parameters(state.started)),
            "passed_over": self.skipped_files(),
        }

    def skipped_files(self) -> list[str]:
        """Files that a driver would skip, one line each; results that the journal knows are not opened."""
        skipped = Skipped()
        list_segments(self.layout.journal, skipped)
        list_records(self.layout, skipped)
        if self.state.ended is None:
            for _ in new_requests(self.layout, self.state.requests, skipped):
                pass
            for batch in self.state.live.values():
                files = self.layout.batch(batch.name)
                unended = {self.state.run(run).task for run in batch.unfinished}
                known = [
                    name
                    for name, match in regular_files(files.results, _RESULT)
                    if int(match[1]) not in unended
                ]
                for _ in new_results(files, frozenset(known), skipped):
                    pass
        return skipped.lines(self.layout.root)


def _files_by_task(folder: Path, pattern: re.Pattern[str]) -> Counter[int]:
    """How many files of the folder begin with each number: those of one task."""
    return Counter(int(match[1]) for _, match in regular_files(folder, pattern))


def _rung_record(rung: RungCount) -> dict[str, int]:
    """Runs at one rung as `status --json` has them."""
    return {
        "resource": rung.resource,
        "runs": rung.runs,
        "completed": rung.completed,
        "failed": rung.failed,
        "stopped": rung.stopped,
    }


def _front(progress: SweepProgress) -> dict[str, Any]:
    """With several objectives the front, its picks, its hypervolume, and who is beyond the bounds."""
    if not progress.state.objectives.several:
        return {}
    from hpcsweep.views.front_history import front_history, hypervolume_record
    from hpcsweep.views.fronts import front_summary

    return {**front_summary(progress.state), "hypervolume": hypervolume_record(front_history(progress))}


def best_of(state: SweepState) -> dict[str, Any] | None:
    """The best configuration: its (first) trial, value, the resource of that value, and itself.

    With several objectives the knee of the front, with `values` by metric; `infeasible` where no
    configuration keeps the bounds.
    """
    best = state.best
    if best is None:
        return None
    # What ends by itself before its resource has the value of the step that it came to.
    reached = state.trials[best.trial].runs[best.rung].step
    resource = min(best.resource, reached or best.resource)
    shown = {"trial": best.trial, "value": best.value, "resource": resource, "config": best.config}
    shown |= {"repeats": best.repeats} if best.repeats > 1 else {}
    values = dict(zip(state.objectives.metrics, best.values, strict=True)) if best.values else None
    infeasible = {"infeasible": True} if values and state.objectives.violation(best.values) else {}
    return shown if values is None else shown | {"values": values} | infeasible


def failure_counts(state: SweepState) -> dict[str, int]:
    """Runs that failed for good by kind of failure; the most frequent first."""
    kinds = Counter(run.failure_kind for run in failed_runs(state))
    return {kind.value: count for kind, count in kinds.most_common() if kind is not None}


def failed_runs(state: SweepState) -> list[Run]:
    """Runs that failed for good, in trial order."""
    return [run for trial in state.trials for run in trial.runs if run.status is RunStatus.FAILED]


def count_enqueued(layout: Layout, state: SweepState) -> int:
    """Enqueued configurations that have not started, requests that no driver has read included."""
    requests = (request for _, request in new_requests(layout, state.requests))
    return len(state.enqueued) + sum(request.verb == "enqueue" for request in requests)


def beyond_budget(count: int, state: SweepState, trials: int | None) -> str:
    """Why not all of `count` waiting configurations can start, as a clause; empty if they can."""
    left = None if trials is None else max(0, trials - state.configurations)
    if left is None or count <= left:
        return ""
    most = f"no more than {left} of them" if left else "none"
    return f"budget.trials {trials} lets {most} start; raise it, then launch again"


class AttemptLog(NamedTuple):
    """One attempt of a run; the cluster's own restarts of its task go on in the same file."""

    rung: int
    attempt: int
    batch: str
    task: int
    path: Path


def attempt_logs(events: Sequence[AnyEvent], layout: Layout, trial: int) -> list[AttemptLog]:
    """The logs of a trial's attempts, in the order in which they were submitted.

    Raises:
        SpecError: There is no such trial, or nothing of it was submitted yet.
    """
    abandoned = {event.batch for event in events if isinstance(event, BatchAbandoned)}
    logs: list[AttemptLog] = []
    tried: Counter[int] = Counter()
    for event in events:
        if not isinstance(event, BatchPlanned | RunsAssigned) or event.batch in abandoned:
            continue
        for task, run, path in _logs_of(event, layout.batch(event.batch)):
            if run.trial == trial:
                logs.append(AttemptLog(run.rung, tried[run.rung], event.batch, task, path))
                tried[run.rung] += 1
    if not logs:
        raise SpecError(
            f"TRIAL: expected one of which a run was submitted, got {trial}; see `hpcsweep status`"
        )
    return logs


def _logs_of(event: BatchPlanned | RunsAssigned, batch: BatchLayout) -> Iterator[tuple[int, RunId, Path]]:
    """Task, run and log of each run that the event gives to a task."""
    if isinstance(event, RunsAssigned):
        for number, run in enumerate(event.runs, start=event.number):
            yield event.task, run, batch.assigned_log(event.task, event.restart, number)
        return
    for task, runs in enumerate(event.tasks):
        for n, run in enumerate(runs):
            yield task, run, batch.log(task, n if len(runs) > 1 else None)


class LogReader:
    """Reads logs, wherever they are by now."""

    def __init__(self, layout: Layout, events: Sequence[AnyEvent]) -> None:
        self._layout = layout
        self._parts = _parts(events)

    def read(self, log: AttemptLog) -> tuple[Path, bytes | None]:
        """Where the log is and what it says; None if nothing was printed yet."""
        with contextlib.suppress(FileNotFoundError):
            return log.path, read_bytes(log.path)
        if log.batch not in self._parts:  # it may have been compacted just now
            self._parts = _parts(read_journal(self._layout).events)
        part = self._parts.get(log.batch)
        if part is None:
            return log.path, None
        name = log.path.relative_to(self._layout.batches)
        return self._layout.batches_part(part) / name, read_archived(self._layout, part, str(name))


def _parts(events: Sequence[AnyEvent]) -> dict[str, str]:
    """The part of each batch that is in one."""
    return {
        batch: event.part for event in events if isinstance(event, FilesCompacted) for batch in event.batches
    }


#: Packages whose change is named; of more only the number.
NAMED: Final = 5


def read_provenance(layout: Layout) -> list[dict[str, Any]]:
    """The records of `launch`, oldest first; empty for a sweep of an earlier version."""
    records = (record for _, record in list_records(layout))
    # Those of earlier versions hold the command line as it was.
    clean = (msgspec.structs.replace(record, argv=mask_arguments(record.argv)) for record in records)
    return [msgspec.to_builtins(record) for record in clean]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences in code and packages from an old record to a new one; empty if no known difference."""
    before, after = (msgspec.convert(record, Record) for record in (old, new))
    lines = []
    if not after.copied:  # else what runs is the copy, whatever the original has become
        first, then = before.code, after.code
        if first.commit and then.commit and first.commit != then.commit:
            lines.append(f"commit {first.commit[:10]} -> {then.commit[:10]}")
        elif first.commit == then.commit and first.diff_sha256 != then.diff_sha256:
            lines.append("uncommitted changes")
        same = before.files.keys() & after.files.keys()
        lines += [f"{path} changed" for path in sorted(same) if before.files[path] != after.files[path]]
    if before.python.version != after.python.version:
        lines.append(f"Python {before.python.version} -> {after.python.version}")
    if before.python.trials != after.python.trials:
        names = (record.python.trials or "the same" for record in (before, after))
        lines.append(f"interpreter of trials: {' -> '.join(names)}")
    if before.hpcsweep != after.hpcsweep:
        lines.append(f"hpcsweep {before.hpcsweep} -> {after.hpcsweep}")
    return lines + _packages(before.packages, after.packages)


def code_line(record: Mapping[str, Any]) -> str:
    """For example `commit 1a2b3c4d5e on main, with uncommitted changes`."""
    code = msgspec.convert(record, Record).code
    if not code.commit:
        return code.problem or "unknown"
    branch = f" on {code.branch}" if code.branch else ""
    dirty = ", with uncommitted changes" if code.dirty else ""
    return f"commit {code.commit[:10]}{branch}{dirty}" + (f" ({code.problem})" if code.problem else "")


def _packages(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    names = sorted(before.keys() | after.keys(), key=str.lower)
    changed = [
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in names
        if before.get(name) != after.get(name)
    ]
    more = [f"{len(changed) - NAMED} more packages"] if len(changed) > NAMED else []
    return changed[:NAMED] + more
