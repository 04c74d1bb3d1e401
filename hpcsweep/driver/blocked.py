"""Which pending tasks wait in vain, and since when the cluster has said so. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from hpcsweep.core.cluster_protocol import BlockKind, Phase, TaskId, TaskState
from hpcsweep.core.events import BatchBlocked
from hpcsweep.core.models import BatchState

#: How long the cluster must give a reason that may pass before it is recorded.
RECORDED_AFTER_S: Final = 30.0
#: How long it must say that a task can never start before that is believed.
IMPOSSIBLE_AFTER_S: Final = 300.0


class _Suspicions:
    """What this session has seen of one batch.

    Attributes:
        polled: A poll has shown what there is of it.
        since: Since when each poll has shown that a task may wait in vain.
        tasks: Those whose reason is recorded, or believed, if it persists.
    """

    def __init__(self) -> None:
        self.polled = False
        self.since: dict[int, float] = {}
        self.tasks: set[int] = set()


class BlockedTasks:
    """Tells what keeps tasks from starting, beside their turn.

    Slurm says some of it in passing. So what is not sure to stay is recorded after a while, and that a
    task can never start is concluded after minutes in which each poll has shown it.

    Attributes:
        held: Tasks that the cluster requeued and holds, by batch.
        impossible: Tasks that can never start, by batch.
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
        """What keeps tasks of the batch from starting; an event when it changes.

        Args:
            batch: It is live.
            open_tasks: Its tasks not yet seen gone.
            states: All tasks as the cluster shows them.
            running: Whether any task of the sweep runs.
            now: Unix time.
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
            kind = None if state is None else _hindrance(state, running=running)
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


def _hindrance(state: TaskState, *, running: bool) -> BlockKind | None:
    """Why the task may wait in vain, None if it runs or need only wait for its turn."""
    if state.phase is Phase.UNKNOWN:
        return BlockKind.UNKNOWN
    if state.phase is not Phase.PENDING or (state.block is BlockKind.LIMITED and running):
        return None
    return state.block
