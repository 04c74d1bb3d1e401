"""Results folders made of events, and by small sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.results import Results, load

SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
    "optimizer": {"type": "choice", "values": ["sgd", "adam"]},
}


def identity(*, metric: str = "loss", space: dict[str, Any] = SPACE) -> dict[str, Any]:
    return {
        "objective": {"metric": metric, "mode": "min", "at": "last"},
        "space": space,
        "constraints": [],
        "searcher": {"name": "random", "seed": 0},
        "scheduler": {"name": "fifo", "max_resource": 10},
    }


def planned(batch: str, *runs: tuple[int, int], at: float = 100.0) -> list[AnyEvent]:
    """A batch of one run a task, submitted ten seconds later."""
    tasks = tuple((RunId(*run),) for run in runs)
    return [BatchPlanned(batch, at, tasks, 2, 8, "slurm", 3600), BatchSubmitted(batch, "7", at + 10)]


def finished(trial: int, **more: Any) -> RunFinished:
    """A run that had all of its ten steps, an hour on two GPUs."""
    fields: dict[str, Any] = {
        "value": 0.1 * (trial + 1),
        "step": 10,
        "task": trial,
        "node": "n1",
        "job": f"7_{trial}",
    }
    fields |= {"batch": "a", "seconds": 3600.0, "gpu_seconds": 7200.0, "started": 170.0}
    return RunFinished(trial, 0, **({"outcome": Outcome.COMPLETED} | fields | more))


def failed(trial: int, message: str, **more: Any) -> RunFinished:
    return finished(trial, **({"outcome": Outcome.FAILED, "value": None, "message": message} | more))


def interrupted(trial: int, why: Interruption, **more: Any) -> RunInterrupted:
    fields: dict[str, Any] = {
        "batch": "a",
        "task": trial,
        "node": "n2",
        "job": f"7_{trial}",
        "message": "told to stop",
    }
    fields |= {"seconds": 1800.0, "gpu_seconds": 3600.0, "start": 0}
    return RunInterrupted(trial, 0, why, **(fields | more))


def created(count: int, **config: Any) -> list[AnyEvent]:
    """Trials with one run to ten steps."""
    return [
        TrialCreated(trial, {"lr": 0.01 * (trial + 1), "optimizer": "adam"} | config, 0, 10)
        for trial in range(count)
    ]


#: One of each: well, failed, preempted at step 8 of which 6 were kept, lost with its node.
TROUBLED: list[AnyEvent] = [
    SweepStarted("cafe01", "lr", 50.0, identity()),
    *created(4),
    *planned("a", (0, 0), (1, 0), (2, 0), (3, 0)),
    finished(0),
    failed(1, "ValueError: odd", node="n2"),
    interrupted(2, Interruption.PREEMPTED, step=8),
    interrupted(3, Interruption.NODE_FAIL, start=None, message="node is down"),
    *planned("b", (2, 0), (3, 0), at=4000.0),
    finished(2, batch="b", attempt=1, start=6, task=0, started=4070.0),
    finished(3, batch="b", attempt=1, task=1, started=5010.0),
    BatchClosed("a", 100.0, 200.0),
    BatchClosed("b"),
]
ENDED = SweepEnded(9000.0, SweepOutcome.FINISHED, "all trials are done")


def written(folder: Path, events: Sequence[AnyEvent]) -> Results:
    """A results folder with that journal."""
    journal = Journal.open(Layout(folder))
    journal.commit(events)
    journal.release()
    return load(folder)
