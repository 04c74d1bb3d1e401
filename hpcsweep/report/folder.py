"""A results folder as it is now: its state and a summary. Imports neither numpy nor pandas."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from hpcsweep.core.events import BatchAbandoned
from hpcsweep.core.state import Run, RunStatus, SweepState
from hpcsweep.errors import FolderError
from hpcsweep.store.journal import holder
from hpcsweep.store.layout import Layout
from hpcsweep.store.owner import Owner
from hpcsweep.store.segments import Reading, read_journal

#: So many of the newest failures are listed.
FAILURES_SHOWN = 5


class Folder:
    """One reading of a results folder.

    Raises:
        FolderError: It is not a results folder.
    """

    def __init__(self, path: Path) -> None:
        self.layout = Layout(path.resolve())
        self.reading: Reading = read_journal(self.layout)
        if self.reading.tail is None:
            what = "is not a results folder" if path.is_dir() else "does not exist"
            raise FolderError(f"{path}: {what}: expected a folder that `launch` made, with journal/ in it")
        self.state = SweepState.replay(self.reading.events)

    @property
    def driver(self) -> Owner | None:
        """Who drives the sweep at this moment."""
        return holder(self.reading)

    @property
    def sweep_state(self) -> str:
        """`running` until the sweep has ended, then `finished`, `stopped`, `failed` or `paused`."""
        return "running" if self.state.ended is None else self.state.ended.ending.value

    def refusal(self) -> str | None:
        """Why the newest batch was abandoned, if nothing has been submitted since."""
        if self.reading.events and isinstance(last := self.reading.events[-1], BatchAbandoned):
            return last.reason
        return None

    def running(self) -> int:
        """Submitted runs whose task has begun and that have no result yet, by their files.

        Two readdirs for each live batch; nobody but the filesystem is asked.
        """
        count = 0
        for batch in self.state.live.values():
            files = self.layout.batch(batch.name)
            begun, told = _first_numbers(files.logs), _first_numbers(files.results)
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

    def status(self) -> dict[str, Any]:
        """The summary that `status --json` prints."""
        state = self.state
        driver = self.driver
        return {
            "name": state.started.name if state.started else None,
            "state": self.sweep_state,
            "reason": state.ended.reason if state.ended else self.refusal(),
            "driver": str(driver) if driver else None,
            "trials": len(state.trials),
            "enqueued": len(state.enqueued),
            "runs": self.run_counts(),
            "best": best_of(state),
            "gpu_hours": round(state.spent_gpu_s / 3600, 6),
            "run_hours": round(state.spent_s / 3600, 6),
            "interruptions": state.interruptions,
            "failures": [
                {"trial": run.trial, "rung": run.rung, "outcome": _outcome(run), "message": run.message}
                for run in failures(state)[-FAILURES_SHOWN:]
            ],
        }


def _first_numbers(folder: Path) -> Counter[int]:
    """How many files of the folder begin with each number: those of one task."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return Counter()
    return Counter(int(first) for name in names if (first := name.partition(".")[0]).isdecimal())


def best_of(state: SweepState) -> dict[str, Any] | None:
    """The best configuration: its (first) trial, value, the resource of that value, and itself."""
    best = state.best
    if best is None:
        return None
    found = {"trial": best.trial, "value": best.value, "resource": best.resource, "config": best.config}
    return found | ({"repeats": best.repeats} if best.repeats > 1 else {})


def failures(state: SweepState) -> list[Run]:
    """Runs that failed for good, in trial order."""
    return [run for trial in state.trials for run in trial.runs if run.status is RunStatus.FAILED]


def _outcome(run: Run) -> str:
    return run.outcome.value if run.outcome else run.status.value
