"""Live batches: open tasks, what keeps tasks from starting, what they cost. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Final

import msgspec

from hpcsweep.core.batches import AssignedRun, BatchState
from hpcsweep.core.cluster_protocol import BlockKind, Phase, TaskId, TaskState
from hpcsweep.core.events import (
    BatchBlocked,
    RunFinished,
    RunId,
    RunInterrupted,
)
from hpcsweep.store.batch import Result

#: How long the cluster must give a reason that may pass before it is recorded.
RECORDED_AFTER_S: Final = 30.0
#: How long it must say that a task can never start before that is believed.
IMPOSSIBLE_AFTER_S: Final = 300.0
#: Elapsed time that drops by more than the clock skew means a restart.
CLOCK_SKEW_S: Final = 5.0
#: Tolerance for the cluster's rounding to whole seconds.
ROUNDING_S: Final = 1.0
#: How much longer than its time limit a task may run: sites let tasks finish, and clean-up takes time.
OVERRUN_S: Final = 600.0
#: How long a task or a run takes to end once it is told to.
LEAVING_S: Final = 10.0
#: Clock skew between the hosts of two drivers.
HOST_SKEW_S: Final = 600.0


class BatchWatch:
    """Open tasks of a batch, and what is known of them."""

    def __init__(self, batch: BatchState) -> None:
        #: Tasks not yet seen gone from the cluster.
        self.open: set[int] = set(range(len(batch.tasks)))
        #: When a task with unfinished runs was first seen gone.
        self.gone_at: dict[int, float] = {}
        #: Results of interrupted runs by task, until it shows whether the cluster requeues it.
        self.interrupted: dict[int, list[Result]] = {}
        self.nodes: dict[int, str] = {}
        #: When tasks were last seen waiting or running.
        self.seen_at: dict[int, float] = {}
        #: Tasks requeued after a start that left no result: since when, and how it ended.
        self.silent: dict[int, tuple[float, TaskState]] = {}
        #: When runs of each task ended, in order.
        self.ends: dict[int, list[float]] = {}
        #: Tasks that this session cancelled before they started.
        self.cancelled_pending: set[int] = set()
        #: When the start that was given a run was first seen to be over without a result of it.
        self.over_since: dict[AssignedRun, float] = {}
        #: When the newest starts of tasks that keep their GPUs told that they leave.
        self.left = {task: start.left.left for task, start in batch.starts.items() if start.left}
        self.usage = UsageAccounting(batch.gpus_of, limit_s=batch.time_s, since=batch.planned_at)
        for task, starts in batch.earlier_starts.items():
            for seconds in starts:
                self.usage.add_earlier(task, seconds)
        for ending in batch.endings:
            self.note(ending, at=_ended_at(ending) or batch.planned_at)

    def note(self, ending: RunFinished | RunInterrupted, *, at: float) -> None:
        """A run of it ended, at this Unix time."""
        self.usage.add_reported(ending)
        if isinstance(ending, RunFinished) or not ending.requeued:
            self.ends.setdefault(ending.task, []).append(at)

    def charge_unseen(self, task: int, batch: BatchState, *, until: float) -> None:
        """Charge a task that is gone, and of which the cluster does not tell, since it was last seen."""
        unseen_s = until - self.seen_at.get(task, batch.planned_at)
        self.usage.assume(task, unseen_s, at_most_s=batch.time_s)

    def begun_at(self, task: int, run: int, *, since: float, lanes: int) -> float:
        """When the task's n-th run began: a task begins its runs in order, one whenever one has ended."""
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
    """Tasks of one batch that may wait in vain."""

    def __init__(self) -> None:
        self.polled = False  # whether a poll has shown its tasks
        #: Since when each poll has shown that a task may wait in vain.
        self.since: dict[int, float] = {}
        #: Those whose reason is recorded, or believed, if it persists.
        self.tasks: set[int] = set()


class BlockedTasks:
    """What keeps tasks from starting, besides their turn; `held` and `impossible` are by batch.

    Slurm says some of it in passing: what may pass is recorded after a while, and that a task can never
    start is concluded after minutes in which each poll has shown it.
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
        """An event when what keeps open tasks of a live batch from starting changes."""
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


def at_most(limit_s: float) -> float:
    """Seconds that one start of a task may count at most; a limit of 0 is unknown."""
    return limit_s + OVERRUN_S if limit_s > 0 else math.inf


def clip_duration(seconds: float, *, at_most_s: float) -> float:
    """A duration as it may enter the tables: no NaN, none below 0, none above what is possible."""
    return min(seconds, at_most_s) if seconds > 0 else 0.0


class UsageAccounting:
    """Compares what the runs of a task reported with how long the cluster says it ran, over all its starts.

    What the cluster counts beyond results (starting up, ticks, idle lanes, starts that left no result) is
    added when the batch is closed. No clock is trusted: a count grows by no more than the time that has
    passed here, and no start counts for more than its time limit allows, or began before `since`.
    """

    def __init__(self, gpus_of: Callable[[int], int], *, limit_s: float, since: float) -> None:
        self._gpus_of = gpus_of
        self._at_most_s = at_most(limit_s)
        self._since = since
        #: When each task was seen last.
        self._seen_at: dict[int, float] = {}
        #: By task and restart, of all its runs; seconds with several lanes more than wall time.
        self._seconds: dict[int, dict[int, float]] = defaultdict(dict)
        self._gpu_s: dict[int, dict[int, float]] = defaultdict(dict)
        #: Elapsed time of each start of a task that was seen; the present one last, 0 after a requeue.
        self._starts: dict[int, list[float]] = defaultdict(list)
        #: Tasks whose end was seen: the elapsed time of their last start is final.
        self._ended: set[int] = set()

    def add_reported(self, ending: RunFinished | RunInterrupted) -> None:
        """Add what the journal says a run took."""
        for of, amount in ((self._seconds, ending.seconds), (self._gpu_s, ending.gpu_seconds)):
            restarts = of[ending.task]
            restarts[ending.restart] = restarts.get(ending.restart, 0.0) + amount

    def add_earlier(self, task: int, seconds: float) -> None:
        """Add a start that was over before anybody looked, by what it told itself."""
        seconds = clip_duration(seconds, at_most_s=self._at_most_s)
        starts = self._starts[task] or [0.0]
        self._starts[task] = [*starts[:-1], seconds, starts[-1]]

    def _possible(self, task: int, seconds: float, now: float) -> float:
        """The cluster's count of the present start, as far as it can be true."""
        seconds = clip_duration(seconds, at_most_s=self._at_most_s)
        starts, before = self._starts[task], self._seen_at.get(task)
        if before is not None and starts:
            return min(seconds, starts[-1] + max(0.0, now - before) + CLOCK_SKEW_S)
        return min(seconds, max(0.0, now - self._since) + HOST_SKEW_S)

    def observe(self, task: int, state: TaskState, *, now: float, left: float | None = None) -> None:
        """Add what the cluster showed of the task; `left` is when its start told that it leaves."""
        if state.seconds is not None:
            possible = self._possible(task, state.seconds, now)
            state = msgspec.structs.replace(state, seconds=possible)
        before = self._seen_at.get(task, now)
        self._seen_at[task] = now
        starts = self._starts[task]
        if not state.phase.active and state.seconds is not None:
            self._ended.add(task)
        if state.phase is Phase.PENDING:
            if starts and starts[-1]:  # it was put back
                grown = min(max(0.0, (left or before) - before), now - before)
                starts[-1] = min(starts[-1] + grown, self._at_most_s)
                starts.append(0.0)
        elif state.seconds is not None:
            if starts and state.seconds >= starts[-1] - CLOCK_SKEW_S:
                starts[-1] = state.seconds or starts[-1]  # one that is being put back shows 0
            else:
                starts.append(state.seconds)

    def assume(self, task: int, unseen_s: float, *, at_most_s: float) -> None:
        """Charge a task that is gone for the time since it was last seen, up to `at_most_s`."""
        starts = self._starts[task] or [0.0]
        self._starts[task] = [*starts[:-1], max(starts[-1], min(starts[-1] + unseen_s, at_most_s))]

    def finished_starts(self, task: int) -> int:
        """How many starts of the task are over, as far as we saw them."""
        return max(0, len(self._starts[task]) - 1)

    def last_finished_s(self, task: int) -> float:
        """How long the last of those ran."""
        return self._starts[task][-2]

    def unreported_gpu_s(self, task: int, *, now: float) -> float:
        """GPU-seconds that the present start of an open task has taken and no run has reported."""
        if not self._starts[task]:
            return 0.0
        elapsed = self._starts[task][-1] + max(0.0, now - self._seen_at.get(task, now))
        reported = self._gpu_s[task]
        return max(0.0, elapsed * self._gpus_of(task) - (reported[max(reported)] if reported else 0.0))

    def unreported_s(self, task: int) -> float:
        """Seconds of the present start of the task that no run has reported."""
        reported = self._seconds[task]
        present = self._starts[task][-1:]
        return max(0.0, sum(present) - (reported[max(reported)] if reported else 0.0))

    def unaccounted(self, tasks: Iterable[int]) -> tuple[float, float]:
        """Seconds and GPU-seconds of these ended tasks beyond what their runs reported."""
        seconds = gpu_s = 0.0
        for task in tasks:
            starts = [start for start in self._starts[task] if start]
            # The cluster's count is the one that accounts go by, so it may be a little less as well.
            slack = ROUNDING_S if len(starts) == 1 and task in self._ended else 0.0
            seconds += _unaccounted(starts, self._seconds[task], slack=slack)
            gpus = self._gpus_of(task)
            gpu_starts = [start * gpus for start in starts]
            gpu_s += _unaccounted(gpu_starts, self._gpu_s[task], slack=slack * gpus)
        return round(seconds, 3), round(gpu_s, 3)


def _unaccounted(starts: Sequence[float], reported: Mapping[int, float], *, slack: float) -> float:
    """Time of the observed starts beyond what the newest of them reported.

    Which start reported what need not be known: none reports more than it took.
    """
    newest = [reported[restart] for restart in sorted(reported, reverse=True)[: len(starts)]]
    pairs = zip_longest(sorted(starts, reverse=True), sorted(newest, reverse=True), fillvalue=0.0)
    return sum(start - amount for start, amount in pairs if start > amount - slack)


def charge(result: Result, batch: BatchState) -> Result:
    """The result with what it can have cost, by the GPUs that its task holds (not known to its worker)."""
    most = at_most(batch.time_s)
    started = result.started
    seconds = clip_duration(result.seconds, at_most_s=most)
    gpu_s = clip_duration(result.gpu_seconds, at_most_s=most * max(1, batch.gpus))
    held = batch.gpus_of(result.task)
    if held != batch.gpus:
        gpu_s = round(gpu_s * held / batch.gpus if batch.gpus else seconds * held / batch.lanes, 3)
    return msgspec.structs.replace(
        result,
        seconds=seconds,
        gpu_seconds=gpu_s,
        started=started if started is not None and 0 < started < math.inf else None,
    )
