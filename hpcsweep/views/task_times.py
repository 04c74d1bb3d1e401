"""How long tasks that keep their GPUs held them without a run: a fold over events. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    RunFinished,
    RunId,
    RunInterrupted,
    RunsAssigned,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
)


class HandOver(NamedTuple):
    """What came before a run of a task that keeps its GPUs.

    Attributes:
        assigned: When the run was given to the task; Unix time.
        idle_s: How long the task, or a lane of it, had no run before; None where that is not known.
        first: It is the task's first run: the time counts from the task's own beginning.
    """

    assigned: float
    idle_s: float | None
    first: bool


class Overhead(NamedTuple):
    """Time of the tasks of a batch beyond their runs; in seconds, and in seconds times GPUs.

    Attributes:
        between_s: From when a task took runs until it took no more: hand-over, and waiting for a run.
        start_up_s: All else: until tasks took runs, and after they took no more.
    """

    between_s: float
    between_gpu_s: float
    start_up_s: float
    start_up_gpu_s: float


class _Start(msgspec.Struct):
    """One start of a task: when it began, and its newest run ended; what its runs took."""

    began: float
    ended: float
    runs: int = 0
    seconds: float = 0.0
    gpu_s: float = 0.0


class TaskTimes:
    """Takes in all events of a sweep in their order."""

    def __init__(self) -> None:
        self._batches: dict[str, BatchPlanned] = {}
        self._gpus: dict[tuple[str, int], int] = {}
        #: By batch, then by task and restart.
        self._starts: dict[str, dict[tuple[int, int], _Start]] = {}
        self._given: dict[RunId, float] = {}

    def apply(self, event: AnyEvent) -> HandOver | Overhead | None:
        """What is known now: of a run that has ended, or of a batch that is closed, if its tasks are such."""
        match event:
            case BatchPlanned() if event.reuse:
                self._batches[event.batch] = event
                self._starts[event.batch] = {}
            case TasksAllocated():
                self._gpus |= {(event.batch, task): event.gpus for task in event.tasks}
            case TaskBegan():
                began = event.started or event.at
                self._starts[event.batch][event.task, event.restart] = _Start(began, began)
            case TaskLeft() if event.announced:
                start = self._starts[event.batch][event.task, event.restart]
                start.ended = max(start.ended, event.left)
            case RunsAssigned():
                self._given |= dict.fromkeys(event.runs, event.at)
            case RunFinished() | RunInterrupted():
                return self._run_ended(event)
            case BatchClosed():
                return self._closed(event)
            case _:
                pass
        return None

    def _run_ended(self, event: RunFinished | RunInterrupted) -> HandOver | None:
        start = self._starts.get(event.batch, {}).get((event.task, event.restart))
        given = self._given.get(event.run)
        if start is None or given is None:
            return None
        began = max(given, start.ended) if event.started is None else event.started
        lanes = self._batches[event.batch].lanes
        idle_s = max(0.0, began - start.ended) if lanes == 1 and event.seconds else None
        hand_over = HandOver(given, idle_s, first=not start.runs)
        start.runs += bool(event.seconds)
        start.ended = max(start.ended, began + event.seconds)
        start.seconds += event.seconds
        start.gpu_s += event.gpu_seconds
        return hand_over

    def _closed(self, event: BatchClosed) -> Overhead | None:
        batch = self._batches.get(event.batch)
        if batch is None:
            return None
        seconds = gpu_s = 0.0
        for (task, _), start in self._starts.pop(event.batch).items():
            held_s = start.ended - start.began
            gpus = self._gpus.get((event.batch, task), batch.gpus_held or batch.gpus)
            seconds += max(0.0, held_s - start.seconds)
            gpu_s += max(0.0, held_s * gpus - start.gpu_s)
        seconds, gpu_s = min(seconds, event.seconds), min(gpu_s, event.gpu_seconds)
        return Overhead(seconds, gpu_s, event.seconds - seconds, event.gpu_seconds - gpu_s)
