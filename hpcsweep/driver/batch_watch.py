"""What this session has seen of live batches, and which of their tasks wait in vain. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from hpcsweep.core.cluster_protocol import BlockKind, Phase, TaskId, TaskState
from hpcsweep.core.events import BatchBlocked, RunFinished, RunId, RunInterrupted
from hpcsweep.core.models import BatchState
from hpcsweep.driver.budgets import UsageAccounting
from hpcsweep.store.batch import Result

#: How long the cluster must give a reason that may pass before it is recorded.
RECORDED_AFTER_S: Final = 30.0
#: How long it must say that a task can never start before that is believed.
IMPOSSIBLE_AFTER_S: Final = 300.0


class BatchWatch:
    """Open tasks of a batch, and what is known of them.

    Attributes:
        open: Tasks not yet seen gone from the cluster.
        gone_at: When a task with unfinished runs was first seen gone.
        interrupted: Results of interrupted runs by task, until it shows whether the cluster requeues it.
        seen_at: When tasks were last seen waiting or running.
        ends: When runs of each task ended, in order.
        silent: Tasks with a start that the cluster ended and requeued and that left no result: since
            when, and how it ended.
        cancelled_pending: Tasks that this session cancelled before they started.
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


class _Suspicions:
    """What this session has seen of one batch.

    Attributes:
        polled: A poll has shown its tasks.
        since: Since when each poll has shown that a task may wait in vain.
        tasks: Those whose reason is recorded, or believed, if it persists.
    """

    def __init__(self) -> None:
        self.polled = False
        self.since: dict[int, float] = {}
        self.tasks: set[int] = set()


class BlockedTasks:
    """Tells what keeps tasks from starting, beside their turn; `held` and `impossible` are by batch.

    Slurm says some of it in passing. So what is not sure to stay is recorded after a while, and that a
    task can never start is concluded after minutes in which each poll has shown it.
    """

    def __init__(self) -> None:
        self.held: dict[str, list[int]] = {}
        self.impossible: dict[str, list[int]] = {}
        self._suspicions: dict[str, _Suspicions] = {}

    @property
    def undecided(self) -> bool:
        """Whether the next poll decides something."""
        return any(suspicions.tasks for suspicions in self._suspicions.values())

    def begin(self, live: Iterable[str]) -> None:
        """A poll has come; these batches are live."""
        self.held, self.impossible = {}, {}
        names = set(live)
        self._suspicions = {name: each for name, each in self._suspicions.items() if name in names}

    def observe(
        self,
        batch: BatchState,
        open_tasks: Iterable[int],
        states: Mapping[TaskId, TaskState],
        *,
        running: bool,
        now: float,
    ) -> list[BatchBlocked]:
        """What keeps open tasks of a live batch from starting; an event when it changes.

        `running` says whether any task of the sweep runs.
        """
        suspicions = self._suspicions.setdefault(batch.name, _Suspicions())
        # A session that polls for the first time what was submitted long ago may poll only once.
        old = not suspicions.polled and now - batch.planned_at >= RECORDED_AFTER_S
        suspicions.polled = True
        suspicions.tasks = set()
        reasons: Counter[str] = Counter()
        held: list[int] = []
        impossible: list[int] = []
        active = False
        for task in sorted(open_tasks):
            state = states.get(TaskId(batch.name, task))
            active = active or (state is not None and state.phase.active)
            kind = None if state is None else _block_kind(state, running=running)
            if state is None or kind is None:
                suspicions.since.pop(task, None)
                continue
            if kind is BlockKind.HELD and task not in batch.released:
                held.append(task)
                continue
            since = suspicions.since.setdefault(task, now - RECORDED_AFTER_S if old else now)
            reason = state.reason or "unknown state"
            recorded = reason in batch.blocked_reason
            records = recorded or now - since >= RECORDED_AFTER_S
            records = records or kind in (BlockKind.BLOCKED, BlockKind.HELD)
            if kind is BlockKind.IMPOSSIBLE:
                recorded_at = batch.blocked_since if recorded and batch.blocked_since else now
                if now - min(since, recorded_at) >= IMPOSSIBLE_AFTER_S:
                    impossible.append(task)
            if kind is BlockKind.IMPOSSIBLE or not records:
                suspicions.tasks.add(task)
            if records:
                reasons[reason] += 1
        if held:
            self.held[batch.name] = held
        if impossible:
            self.impossible[batch.name] = impossible
        if not active:
            return []  # what blocked them is how they ended
        text = "; ".join(
            f"{count} task{'s' if count > 1 else ''}: {reason}" for reason, count in reasons.items()
        )
        return [BatchBlocked(batch.name, text, now)] if text != batch.blocked_reason else []


def _block_kind(state: TaskState, *, running: bool) -> BlockKind | None:
    """Why the task may wait in vain, None if it runs or need only wait for its turn."""
    if state.phase is Phase.UNKNOWN:
        return BlockKind.UNKNOWN
    if state.phase is not Phase.PENDING or (state.block is BlockKind.LIMITED and running):
        return None
    return state.block
