"""A results folder as it is now: its state and a summary. Imports neither numpy nor pandas."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from hpcsweep.core.events import AnyEvent
from hpcsweep.core.models import Run, RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.store.batch import new_results
from hpcsweep.store.checkpoints import disk_usage_by_trial
from hpcsweep.store.journal import current_driver
from hpcsweep.store.journal.segments import JournalSnapshot, list_segments, read_journal
from hpcsweep.store.layout import Layout, Skipped, regular_files
from hpcsweep.store.process_id import ProcessId
from hpcsweep.store.provenance import list_records
from hpcsweep.store.requests import new_requests
from hpcsweep.views.progress import SweepProgress, run_counts
from hpcsweep.views.warnings import (
    blocked_batches,
    clock_skews,
    cluster_errors,
    excluded_nodes,
    interruption_counts,
)

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
    """Check that the sweep has a trial of this number.

    Raises:
        SpecError: It has not.
    """
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
        """All that the journal holds."""
        return self.journal.events

    @property
    def state(self) -> SweepState:
        """After these events."""
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
        from hpcsweep.spec.yaml_io import read_yaml

        try:
            budget = read_yaml(self.layout.spec).get("budget")
        except SpecError:
            return {}
        return budget if isinstance(budget, dict) else {}

    def running(self) -> int:
        """Submitted runs that have begun and have no result yet, by their files.

        Two readdirs for each live batch; nobody but the filesystem is asked.
        """
        count = 0
        for batch in self.state.live.values():
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

    def enqueued(self) -> int:
        """Enqueued configurations that have not started."""
        return count_enqueued(self.layout, self.state)

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

    def status(self, *, now: float) -> dict[str, Any]:
        """The summary that `status --json` prints."""
        state, progress, driver = self.state, self.progress, self.driver
        return {
            "name": state.started.name if state.started else None,
            "simulated": state.simulated,
            "state": progress.status,
            "reason": state.ended.reason if state.ended else progress.refusal,
            "pausing": state.pausing.reason if state.pausing and not state.ended else None,
            "driver": str(driver) if driver else None,
            "detached": state.detached.cluster if state.detached else None,
            "tick_jobs": [batch.tick_job for batch in state.live.values() if batch.tick_job],
            "hindered": blocked_batches(state),
            "limited": (state.submit_limit or None) if state.ended is None else None,
            "clocks": self.clock_skews,
            "cluster_said": cluster_errors(state) if state.ended is None else [],
            "excluded": [
                {"node": event.node, "until": event.until, "reason": event.reason}
                for event in excluded_nodes(state, now=now)
            ],
            "trials": len(state.trials),
            "enqueued": self.enqueued(),
            "runs": self.run_counts(),
            "failed_by": failure_counts(state),
            "checkpoints": self.checkpoints(),
            "best": best_of(state),
            "gpu_hours": round(state.spent_gpu_s / 3600, 6),
            "run_hours": round(state.spent_s / 3600, 6),
            "interrupted": interruption_counts(state),
            "newest_interruptions": progress.interruptions,
            "failures": progress.failures,
            "passed_over": self.skipped_files(),
        }

    def skipped_files(self) -> list[str]:
        """Files that a driver would skip: not ours, or not readable; one line for each.

        The results of runs whose ending the journal knows are not opened.
        """
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


def best_of(state: SweepState) -> dict[str, Any] | None:
    """The best configuration: its (first) trial, value, the resource of that value, and itself."""
    best = state.best
    if best is None:
        return None
    found = {"trial": best.trial, "value": best.value, "resource": best.resource, "config": best.config}
    return found | ({"repeats": best.repeats} if best.repeats > 1 else {})


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
