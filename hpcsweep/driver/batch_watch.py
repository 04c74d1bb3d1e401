"""What this session has seen of one live batch. Pure."""

from __future__ import annotations

from hpcsweep.core.cluster_protocol import TaskState
from hpcsweep.core.events import RunFinished, RunId, RunInterrupted
from hpcsweep.core.models import BatchState
from hpcsweep.driver.accounting import UsageAccounting
from hpcsweep.store.batch import Result


class BatchWatch:
    """Open tasks of a batch, and what is known of them.

    Attributes:
        open: Tasks not yet seen gone from the cluster.
        gone_at: When a task with unfinished runs was first seen gone.
        interrupted: Results of interrupted runs by task, until it shows whether the cluster requeues it.
        nodes: Where tasks were last seen running.
        seen_at: When tasks were last seen waiting or running.
        ends: When runs of each task ended, in order.
        silent: Tasks with a start that the cluster ended and requeued and that left no result: since
            when, and how it ended.
        cancelled_pending: Tasks that this session cancelled before they started.
        usage: What its tasks cost.
    """

    def __init__(self, batch: BatchState) -> None:
        self.open: set[int] = set(range(len(batch.tasks)))
        self.gone_at: dict[int, float] = {}
        self.interrupted: dict[int, list[Result]] = {}
        self.nodes: dict[int, str] = {}
        self.seen_at: dict[int, float] = {}
        self.silent: dict[int, tuple[float, TaskState]] = {}
        self.ends: dict[int, list[float]] = {}
        self.cancelled_pending: set[int] = set()
        self.usage = UsageAccounting(batch.gpus, batch.gpus_of, limit_s=batch.time_s, since=batch.planned_at)
        for ending in batch.endings:
            self.note(ending, at=_ended_at(ending) or batch.planned_at)

    def note(self, ending: RunFinished | RunInterrupted, *, at: float) -> None:
        """A run of it ended, at this Unix time."""
        self.usage.add_reported(ending)
        if isinstance(ending, RunFinished) or not ending.requeued:
            self.ends.setdefault(ending.task, []).append(at)

    def begun_at(self, task: int, run: int, *, since: float, lanes: int) -> float:
        """When the task's n-th run began: it begins them in order, the next one whenever one has ended."""
        ends = self.ends.get(task, [])
        before = run - lanes
        return max(since, ends[before]) if 0 <= before < len(ends) else since

    def take_interrupted(self, run_id: RunId, task: int) -> list[Result]:
        """The results of this run that waited for what becomes of its task."""
        waiting = self.interrupted.get(task, [])
        self.interrupted[task] = [result for result in waiting if (result.trial, result.rung) != run_id]
        return [result for result in waiting if (result.trial, result.rung) == run_id]


def _ended_at(ending: RunFinished | RunInterrupted) -> float | None:
    """By the clock of its node, None where unknown."""
    started = ending.started if isinstance(ending, RunFinished) else None
    return None if started is None else started + ending.seconds
