"""A results folder as it is now: its state and a summary. Imports neither numpy nor pandas."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

from hpcsweep.core.events import BatchAbandoned, BatchSubmitted
from hpcsweep.core.models import Run, RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.store.checkpoints import disk_usage_by_trial
from hpcsweep.store.journal.segments import JournalSnapshot, list_segments, read_journal
from hpcsweep.store.journal.writer import current_driver
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId
from hpcsweep.store.provenance import list_records
from hpcsweep.store.requests import new_requests
from hpcsweep.store.results import new_results
from hpcsweep.store.skipped import Skipped, regular_files
from hpcsweep.views.enqueued import count_enqueued
from hpcsweep.views.warnings import (
    clocks,
    hindrances,
    interruptions,
    left_out,
    newest_failures,
    newest_interruptions,
    said,
)

#: Names of a task's files: the task comes first.
_LOG: Final = re.compile(r"([0-9]+)(?:\.[0-9]+)?\.log")
_RESULT: Final = re.compile(r"([0-9]+)\.[0-9]+\.[0-9]+\.json")


def check_trial(state: SweepState, number: int, *, argument: str = "TRIAL") -> None:
    """Check that the sweep has a trial of this number.

    Raises:
        SpecError: It has not.
    """
    if not 0 <= number < len(state.trials):
        valid = f"one of 0 to {len(state.trials) - 1}" if state.trials else "none, no trial was started yet"
        raise SpecError(f"{argument}: expected {valid}, got {number}")


class Folder:
    """One reading of a results folder.

    Raises:
        FolderError: It is not a results folder.
    """

    def __init__(self, path: Path) -> None:
        self.layout = Layout(path.resolve())
        self.reading: JournalSnapshot = read_journal(self.layout)
        if self.reading.tail is None:
            what = "is not a results folder" if path.is_dir() else "does not exist"
            raise FolderError(f"{path}: {what}: expected a folder that `launch` made, with journal/ in it")
        self.state = SweepState.replay(self.reading.events)

    @property
    def driver(self) -> ProcessId | None:
        """Who drives the sweep at this moment."""
        return current_driver(self.reading)

    @property
    def sweep_state(self) -> str:
        """`running` until the sweep has ended, then `finished`, `stopped`, `failed` or `paused`."""
        return "running" if self.state.ended is None else self.state.ended.outcome.value

    @property
    def clocks(self) -> dict[str, float]:
        """Nodes whose clocks are off; see `troubles.clocks`."""
        return clocks(self.reading.events)

    def refusal(self) -> str | None:
        """Why the newest batch was refused, if nothing has been submitted since."""
        batches = (e for e in reversed(self.reading.events) if isinstance(e, BatchAbandoned | BatchSubmitted))
        newest = next(batches, None)
        return newest.reason if isinstance(newest, BatchAbandoned) and not newest.over_limit else None

    def running(self) -> int:
        """Submitted runs whose task has begun and that have no result yet, by their files.

        Two readdirs for each live batch; nobody but the filesystem is asked.
        """
        count = 0
        for batch in self.state.live.values():
            files = self.layout.batch(batch.name)
            begun, told = _first_numbers(files.logs, _LOG), _first_numbers(files.results, _RESULT)
            ended = sum(min(told[task], len(batch.tasks[task])) for task in told if task < len(batch.tasks))
            count += max(0, sum(len(batch.tasks[t]) for t in begun if t < len(batch.tasks)) - ended)
        return min(count, self.state.counts[RunStatus.SUBMITTED])

    def run_counts(self) -> dict[str, int]:
        """Number of runs in each state."""
        counts = {status.value: count for status, count in self.state.counts.items()}
        submitted = counts.pop(RunStatus.SUBMITTED.value)
        running = self.running()
        return {
            "waiting": counts.pop("waiting"),
            "pending": submitted - running,
            "running": running,
        } | counts

    def checkpoints(self) -> dict[str, int]:
        """What all checkpoints take now, by a walk, and of how many trials they were removed."""
        held = disk_usage_by_trial(self.layout)
        return {
            "bytes": sum(one.bytes for one in held.values()),
            "files": sum(one.files for one in held.values()),
            "trials": len(held),
            "removed_trials": len(self.state.without_checkpoint),
            "removed_bytes": self.state.checkpoint_bytes_removed,
        }

    def status(self, *, now: float) -> dict[str, Any]:
        """The summary that `status --json` prints.

        Args:
            now: Unix time, for what holds only until then.
        """
        state = self.state
        driver = self.driver
        events = self.reading.events
        return {
            "name": state.started.name if state.started else None,
            "simulated": state.simulated,
            "state": self.sweep_state,
            "reason": state.ended.reason if state.ended else self.refusal(),
            "pausing": state.pausing.reason if state.pausing and not state.ended else None,
            "driver": str(driver) if driver else None,
            "detached": state.detached.cluster if state.detached else None,
            "tick_jobs": [batch.tick_job for batch in state.live.values() if batch.tick_job],
            "hindered": hindrances(state),
            "limited": (state.submit_limit or None) if state.ended is None else None,
            "clocks": self.clocks,
            "cluster_said": said(state) if state.ended is None else [],
            "excluded": [
                {"node": out.node, "until": out.until, "reason": out.reason}
                for out in left_out(state, now=now)
            ],
            "trials": len(state.trials),
            "enqueued": count_enqueued(self.layout, state),
            "runs": self.run_counts(),
            "failed_by": failed_by(state),
            "checkpoints": self.checkpoints(),
            "best": best_of(state),
            "gpu_hours": round(state.spent_gpu_s / 3600, 6),
            "run_hours": round(state.spent_s / 3600, 6),
            "interrupted": interruptions(state),
            "newest_interruptions": newest_interruptions(events),
            "failures": newest_failures(events, state),
            "passed_over": self.passed_over(),
        }

    def passed_over(self) -> list[str]:
        """Files that a driver would pass over: not ours, or not to be read; one line for each.

        The results of runs whose ending the journal knows are not opened.
        """
        found = Skipped()
        list_segments(self.layout.journal, found)
        list_records(self.layout, found)
        if self.state.ended is None:
            for _ in new_requests(self.layout, self.state.requests, found):
                pass
            for batch in self.state.live.values():
                files = self.layout.batch(batch.name)
                unended = {self.state.run(run).task for run in batch.unfinished}
                known = [
                    name
                    for name, match in regular_files(files.results, _RESULT)
                    if int(match[1]) not in unended
                ]
                for _ in new_results(files, frozenset(known), found):
                    pass
        return found.lines(self.layout.root)


def _first_numbers(folder: Path, pattern: re.Pattern[str]) -> Counter[int]:
    """How many files of the folder begin with each number: those of one task."""
    return Counter(int(match[1]) for _, match in regular_files(folder, pattern))


def best_of(state: SweepState) -> dict[str, Any] | None:
    """The best configuration: its (first) trial, value, the resource of that value, and itself."""
    best = state.best
    if best is None:
        return None
    found = {"trial": best.trial, "value": best.value, "resource": best.resource, "config": best.config}
    return found | ({"repeats": best.repeats} if best.repeats > 1 else {})


def failed_by(state: SweepState) -> dict[str, int]:
    """What was wrong with the runs that failed for good, and with how many; the most frequent first."""
    kinds = Counter(run.failure_kind for run in failures(state))
    return {kind.value: count for kind, count in kinds.most_common() if kind is not None}


def failures(state: SweepState) -> list[Run]:
    """Runs that failed for good, in trial order."""
    return [run for trial in state.trials for run in trial.runs if run.status is RunStatus.FAILED]
