"""When tasks ran what, and how long those that keep their GPUs held them without a run: a fold. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    RunFinished,
    RunId,
    RunInterrupted,
    RunsAssigned,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
    TickSubmitted,
)
from hpcsweep.core.outcomes import Ending


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


class PastRun(NamedTuple):
    """An attempt at a run; times in Unix seconds.

    Attributes:
        ending: None while it is under way.
        about: When it began is not known exactly.
    """

    run: RunId
    began: float
    ended: float
    ending: Ending | None
    about: bool


class TaskStart(msgspec.Struct):
    """One start of a task, as far as it is known; times in Unix seconds.

    Attributes:
        began: When it took runs; None of a task that does not keep its GPUs.
        left: When it took none any more; 0 where that was noticed after it was gone.
        ended: When its newest run did. `gpu_s`: what its runs took.
    """

    began: float | None = None
    left: float | None = None
    node: str = ""
    job: str = ""
    ended: float = 0.0
    gpu_s: float = 0.0
    runs: list[PastRun] = []


class TaskTimes:
    """Takes in all events of a sweep in their order.

    Attributes:
        now: The newest time that the journal tells.
        plans, submitted: By batch. `closed`: batches that are.
        starts: By batch, then by task and restart.
        given: Runs that tasks have been given and that have not ended: batch, task and restart, and when.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.plans: dict[str, BatchPlanned] = {}
        self.submitted: dict[str, float] = {}
        self.closed: set[str] = set()
        self.starts: dict[str, dict[tuple[int, int], TaskStart]] = {}
        self.given: dict[RunId, tuple[str, int, int, float]] = {}
        self._gpus: dict[tuple[str, int], int] = {}

    def apply(self, event: AnyEvent) -> HandOver | Overhead | None:
        """What is known now of tasks that keep their GPUs: of a run that has ended, or of a closed batch."""
        at = getattr(event, "at", None)
        if isinstance(at, float) and not isinstance(event, TickSubmitted):  # that is when it will tick
            self.now = max(self.now, at)
        match event:
            case BatchPlanned():
                self.plans[event.batch] = event
                self.submitted[event.batch] = event.at
            case BatchSubmitted():
                self.submitted[event.batch] = event.at
            case TasksAllocated():
                self._gpus |= {(event.batch, task): event.gpus for task in event.tasks}
            case TaskBegan():
                start = self._start(event)
                start.began, start.node, start.job = event.started or event.at, event.node, event.job
            case TaskLeft():
                self._start(event).left = event.left if event.announced else 0.0
            case RunsAssigned():
                given = event.batch, event.task, event.restart, event.at
                self.given |= dict.fromkeys(event.runs, given)
            case RunFinished() | RunInterrupted():
                return self._run_ended(event)
            case BatchClosed():
                self.closed.add(event.batch)
                return self._overhead(event)
            case _:
                pass
        return None

    def _start(self, event: TaskBegan | TaskLeft | RunFinished | RunInterrupted) -> TaskStart:
        starts = self.starts.setdefault(event.batch, {})
        return starts.setdefault((event.task, event.restart), TaskStart(runs=[]))

    def _run_ended(self, event: RunFinished | RunInterrupted) -> HandOver | None:
        start = self._start(event)
        free = max(start.began or 0.0, start.ended)
        *_, given = self.given.pop(event.run, (None, 0.0))
        if event.started is not None:
            began = event.started
            self.now = max(self.now, began + event.seconds)
        elif given:
            began = max(given, free)
        else:  # the driver learned of its end at about this time
            began = max(free, self.submitted.get(event.batch, 0.0), self.now - event.seconds)
        hand_over = None
        if given and start.began is not None:
            single = self.plans[event.batch].lanes == 1 and event.seconds
            idle_s = max(0.0, began - free) if single else None
            hand_over = HandOver(given, idle_s, first=not start.runs)
        if event.started is not None or event.seconds:  # else it never began
            start.node, start.job = event.node or start.node, event.job or start.job
            start.ended = max(start.ended, began + event.seconds)
            start.gpu_s += event.gpu_seconds
            run = PastRun(event.run, began, began + event.seconds, _ending(event), event.started is None)
            start.runs.append(run)
        return hand_over

    def _overhead(self, event: BatchClosed) -> Overhead | None:
        plan = self.plans.get(event.batch)
        if plan is None or not plan.reuse:
            return None
        seconds = gpu_s = 0.0
        for (task, _), start in self.starts.get(event.batch, {}).items():
            if start.began is not None:
                held_s = max(start.began, start.ended, start.left or 0.0) - start.began
                gpus = self._gpus.get((event.batch, task), plan.gpus_held or plan.gpus)
                seconds += max(0.0, held_s - sum(run.ended - run.began for run in start.runs))
                gpu_s += max(0.0, held_s * gpus - start.gpu_s)
        seconds, gpu_s = min(seconds, event.seconds), min(gpu_s, event.gpu_seconds)
        return Overhead(seconds, gpu_s, event.seconds - seconds, event.gpu_seconds - gpu_s)


def _ending(event: RunFinished | RunInterrupted) -> Ending:
    if isinstance(event, RunInterrupted):
        return event.interruption
    return event.failure_kind or event.outcome
