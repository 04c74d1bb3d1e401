"""Who of the tasks of different shapes is given which run, who leaves, and which tasks are missing. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from hpcsweep.core.batches import BatchState, StartedTask
from hpcsweep.core.cluster_protocol import TaskId, TaskResources
from hpcsweep.core.events import RunId, RunsAssigned
from hpcsweep.driver.assigner import MARGIN, RECENT, SHORT_S, Assigner, OpenTask
from hpcsweep.driver.effects import Cancel, Effect, EffectResult, Leave
from hpcsweep.driver.failures import excluded
from hpcsweep.driver.shapes import Demand, Kind, Room, RunShapes, kind_of, share_tasks
from hpcsweep.store.assignments import StartId

#: Of a task (its GPUs) and a run: whether the budget allows it; it is spent then.
Spend = Callable[[int, TaskResources, bool], bool]


class Working(NamedTuple):
    """A task that takes runs, or will once it has begun."""

    task: OpenTask
    batch: BatchState
    begun: bool = True

    @property
    def kind(self) -> Kind:
        lanes = self.batch.lanes
        gpus = self.batch.gpus // lanes
        return Kind(gpus) if gpus else Kind(0, self.batch.cpus // lanes)


class Allocation(NamedTuple):
    """What follows for the runs that wait, and for the tasks.

    Attributes:
        assigned: Runs that tasks are given now, with their time limits.
        leave: Tasks that leave; `cancel`: that have not begun and would find nothing to do.
        wanted: Runs for which a task is to be submitted, and how many each of their kind does in turn.
        idle: How many runs more the tasks could be given.
        complete: Whether every run that waits has a task, or will have one that is submitted or wanted.
    """

    assigned: list[tuple[OpenTask, RunId, TaskResources]]
    leave: list[Leave]
    cancel: list[TaskId]
    wanted: list[tuple[RunId, TaskResources, int]]
    idle: int
    complete: bool


class ShapedAssigner(Assigner):
    """As `Assigner`, where runs need different resources: a run is given only to a task of its own kind."""

    _shapes: RunShapes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Tasks that this session cancelled before they began.
        self._cancelled: set[TaskId] = set()

    @property
    def lanes(self) -> int:
        """Runs that a new task does at a time."""
        return self._settings.shape.lanes

    def task_of(self, needs: Sequence[TaskResources]) -> TaskResources:
        """See `RunShapes.task`."""
        return self._shapes.task(needs)

    def leaving_gpus(self) -> Iterator[int]:
        """Of each task that holds GPUs and is leaving: how many."""
        for batch in self._state.live.values():
            for task, start in batch.starts.items():
                leaves = start.left is not None or self._is_leaving(batch, task)
                if leaves and self._monitor.is_open(batch, task) and self._monitor.holds(batch, task):
                    yield batch.task_gpus

    def note(self, effect: Effect, result: EffectResult) -> None:
        super().note(effect, result)
        if isinstance(effect, Cancel) and effect.pending and result.error is None:
            self._cancelled.update(TaskId(effect.batch, task) for task in effect.tasks)

    def tasks(self) -> Iterator[Working]:
        """All tasks that take runs, or will."""
        live = self._state.live
        for task in self._open_tasks():
            yield Working(task, live[task.id.batch])
        for batch in live.values():
            for index in self._coming(batch) if batch.reuse else ():
                id_ = TaskId(batch.name, index)
                if id_ not in self._cancelled:
                    # Of one that is started again, the start that comes.
                    first = StartedTask(batch.restart_of(index) + 1, 0.0, 0.0, None, "")
                    task = OpenTask(id_, first, len(batch.tasks[index]), 0, batch.lanes, True)
                    yield Working(task, batch, begun=False)

    def allocate(
        self,
        queue: Sequence[RunId],
        *,
        room: Room,
        held_gpus: Callable[[TaskResources], int],
        spend: Spend,
        done: bool,
        leaves: bool,
        now: float,
    ) -> Allocation:
        """Who does what next.

        Args:
            queue: The runs that wait, in order.
            room: What new tasks may take, beside all that are there.
            held_gpus: GPUs that a task of a shape will hold.
            spend: See there.
            done: Nothing else will be decided.
            leaves: Nobody hands anything over for a while: each task is given one run ahead.
            now: Unix time.
        """
        needs = {run: self._shapes.of(run) for run in queue}
        working = [each for each in self.tasks() if now < self._ends(each)]
        return _Allocating(self, queue, needs, working, now=now, leaves=leaves).result(
            room=self._room_to_come(room, working), held_gpus=held_gpus, spend=spend, done=done
        )

    def _ends(self, each: Working) -> float:
        ends = each.task.start.ends
        return math.inf if ends is None or each.task.assigned or not each.begun else ends

    def _room_to_come(self, room: Room, working: Iterable[Working]) -> Room:
        """The room with what tasks hold that are leaving."""
        staying = {each.task.id for each in working}
        for batch in self._state.live.values():
            if not batch.reuse:
                continue
            leaving = sum(
                TaskId(batch.name, task) not in staying and self._monitor.is_open(batch, task)
                for task in range(len(batch.tasks))
            )
            behind = max(0, self._monitor.open_tasks(batch) - batch.throttle)  # those hold no room
            room = room.less(batch.task_gpus, -max(0, leaving - behind))
        return room

    def serves(self, each: Working, needs: TaskResources, run: RunId, *, now: float) -> bool:
        """Whether the task has what the run needs, its time included."""
        batch, task = each.batch, each.task
        if each.kind != kind_of(needs) or not batch.fits(needs):
            return False
        if needs.time_s is not None and batch.time_s and batch.time_s < needs.time_s:
            return False
        if not each.begun or task.given == 0 or task.start.ends is None:
            return True
        return now + self.expected_s(run, needs) <= task.start.ends

    def expected_s(self, run: RunId, needs: TaskResources) -> float:
        """What it may take: well more than the longest of the newest of its rung, at most its limit."""
        recent = [
            end.seconds
            for batch in self._state.live.values()
            for end in batch.endings[-RECENT:]
            if end.seconds and end.rung == run.rung
        ]
        limit_s = math.inf if needs.time_s is None else needs.time_s
        if not recent:
            return 0.0 if math.isinf(limit_s) else limit_s
        return min(MARGIN * max(recent), limit_s)

    def bad_nodes(self, *, now: float) -> set[str]:
        return set(excluded(self._state, now=now))

    @property
    def runs_are_short(self) -> bool:
        recent_s = self._recent_s
        return bool(recent_s) and statistics.median(recent_s) < SHORT_S

    def assigned_events(
        self, assigned: Iterable[tuple[OpenTask, RunId, TaskResources]], *, now: float
    ) -> list[RunsAssigned]:
        """An event for each run, which has a time limit of its own."""
        given: dict[TaskId, int] = {}
        events = []
        for task, run, needs in assigned:
            id_, restart = task.id, task.start.restart
            before = self._state.live[id_.batch].given.get((id_.task, restart), 0)
            number = before + given.get(id_, 0)
            given[id_] = given.get(id_, 0) + 1
            events.append(RunsAssigned(id_.batch, now, id_.task, (run,), restart, number, needs.time_s or 0))
        return events


class _Allocating:
    """One allocation, step by step."""

    def __init__(
        self,
        assigner: ShapedAssigner,
        queue: Sequence[RunId],
        needs: dict[RunId, TaskResources],
        working: Sequence[Working],
        *,
        now: float,
        leaves: bool,
    ) -> None:
        self._assigner = assigner
        self._queue = queue
        self._needs = needs
        self._now = now
        self._leaves = leaves
        self._ahead = int(leaves or assigner.runs_are_short)
        bad = assigner.bad_nodes(now=now)
        self._tasks: dict[Kind, list[Working]] = {}
        self._bad: set[TaskId] = set()
        for each in working:
            if each.task.start.node in bad:
                self._bad.add(each.task.id)
            else:
                self._tasks.setdefault(each.kind, []).append(each)
        self._all = working
        #: Runs that each task has, those that it is given now included.
        self._load = {each.task.id: each.task.assigned for each in working}
        self._released: set[TaskId] = set()
        self._draining: set[TaskId] = set()
        self._claimed: dict[TaskId, int] = {}

    def result(
        self, *, room: Room, held_gpus: Callable[[TaskResources], int], spend: Spend, done: bool
    ) -> Allocation:
        shares, gpus = self._shares(room, held_gpus)
        missing = {kind: max(0, share - len(self._tasks.get(kind, ()))) for kind, share in shares.items()}
        self._make_room(room, shares, missing, gpus)
        turns = self._turns(shares)
        assigned: list[tuple[OpenTask, RunId, TaskResources]] = []
        wanted: list[tuple[RunId, TaskResources, int]] = []
        lanes: dict[Kind, int] = {}
        complete = True
        for run in self._queue:
            needs = self._needs[run]
            kind = kind_of(needs)
            each = self._find(kind, run, needs)
            if each is not None:
                if not spend(each.batch.task_gpus, needs, False):
                    complete = False
                    break
                self._load[each.task.id] += 1
                assigned.append((each.task, run, needs))
            elif self._claim(kind, run, needs):
                if not spend(gpus[kind], needs, False):
                    complete = False
                    break
            elif lanes.get(kind, 0) or missing.get(kind, 0):
                new = not lanes.get(kind, 0)
                if not spend(gpus[kind], needs, new):
                    complete = False
                    break
                if new:
                    missing[kind] -= 1
                lanes[kind] = (self._assigner.lanes if new else lanes[kind]) - 1
                wanted.append((run, needs, turns[kind]))
            else:
                complete = False
                self._replace(kind, run, needs)
        return self._finish(assigned, wanted, complete=complete, done=done)

    def _finish(
        self,
        assigned: list[tuple[OpenTask, RunId, TaskResources]],
        wanted: list[tuple[RunId, TaskResources, int]],
        *,
        complete: bool,
        done: bool,
    ) -> Allocation:
        leave, cancel, idle = [], [], 0
        for each in self._all:
            id_, load = each.task.id, self._load[each.task.id]
            useless = load == 0 and (id_ in self._released or id_ in self._bad)
            if done and load == 0 and id_ not in self._claimed:
                useless = True
            if useless and each.begun:
                leave.append(Leave(id_.batch, StartId(id_.task, each.task.start.restart)))
            elif useless:
                cancel.append(id_)
            elif each.begun and id_ not in self._draining and id_ not in self._bad:
                idle += max(0, each.task.lanes - load)
        return Allocation(assigned, leave, cancel, wanted, idle, complete)

    def _shares(
        self, room: Room, held_gpus: Callable[[TaskResources], int]
    ) -> tuple[dict[Kind, int], dict[Kind, int]]:
        """How many tasks of each kind there should be, and the GPUs that one of them holds."""
        positions: dict[Kind, list[int]] = {}
        work: dict[Kind, float] = {}
        gpus: dict[Kind, int] = {}
        for position, run in enumerate(self._queue):
            needs = self._needs[run]
            kind = kind_of(needs)
            positions.setdefault(kind, []).append(position)
            work[kind] = work.get(kind, 0.0) + max(1, needs.total_gpus) * float(needs.time_s or 1)
            if kind not in gpus:
                gpus[kind] = held_gpus(self._assigner.task_of([needs]))
        whole = room
        demands = []
        for kind, tasks in self._tasks.items():
            for each in tasks:
                whole = whole.less(each.batch.task_gpus, -1)
            if kind in positions:
                gpus[kind] = max(gpus[kind], *(each.batch.task_gpus for each in tasks))
        for kind, waiting in positions.items():
            busy = sum(each.task.assigned for each in self._tasks.get(kind, ()))
            weight = work[kind] * (1 + busy / len(waiting))
            demands.append(Demand(gpus[kind], self._assigner.lanes, busy, waiting, weight))
        return dict(zip(positions, share_tasks(whole, demands), strict=True)), gpus

    def _turns(self, shares: dict[Kind, int]) -> dict[Kind, int]:
        counts: dict[Kind, int] = {}
        for run in self._queue:
            kind = kind_of(self._needs[run])
            counts[kind] = counts.get(kind, 0) + 1
        each = self._assigner.lanes
        return {kind: -(-count // (max(1, shares[kind]) * each)) for kind, count in counts.items()}

    def _make_room(
        self, room: Room, shares: dict[Kind, int], missing: dict[Kind, int], gpus: dict[Kind, int]
    ) -> None:
        """Have as many tasks leave as stand in the way of those that are missing, the idle ones now."""
        for kind, count in missing.items():
            room = room.less(gpus[kind], count)
        over = {
            kind: max(0, len(tasks) - shares.get(kind, 0))
            for kind, tasks in self._tasks.items()
            if len(tasks) > shares.get(kind, 0)
        }
        candidates = [each for kind in over for each in self._tasks[kind]]
        # What has not begun holds nothing yet; the last ones come first.
        candidates.sort(key=lambda each: (each.task.assigned, each.begun))
        for each in candidates:
            if not room.missing:
                return
            helps = room.tasks < 0 or each.batch.task_gpus > 0
            if not helps or not over[each.kind]:
                continue
            over[each.kind] -= 1
            if each.task.assigned:  # it leaves once it has done what it has
                self._draining.add(each.task.id)
            else:
                self._released.add(each.task.id)
            room = room.less(each.batch.task_gpus, -1)

    def _find(self, kind: Kind, run: RunId, needs: TaskResources) -> Working | None:
        """The task that could begin it first, the shortest of these."""
        best: tuple[tuple[int, float], Working] | None = None
        for each in self._tasks.get(kind, ()):
            id_ = each.task.id
            if id_ in self._released or id_ in self._draining or not (each.begun or self._may_come(each)):
                continue
            load = self._load[id_]
            depth = max(0, load - each.task.lanes + 1)
            if load >= each.task.lanes + self._ahead:
                continue
            if not self._assigner.serves(each, needs, run, now=self._now):
                continue
            key = depth, float(each.batch.time_s or math.inf)
            if best is None or key < best[0]:
                best = key, each
        return best[1] if best is not None else None

    def _may_come(self, each: Working) -> bool:
        """Whether a task that has not begun is given runs: where nobody will be there when it begins."""
        return self._leaves and each.task.start.restart == 0 and each.batch.job is not None

    def _claim(self, kind: Kind, run: RunId, needs: TaskResources) -> bool:
        """Whether a task that is submitted will take it."""
        for each in self._tasks.get(kind, ()):
            id_ = each.task.id
            if each.begun or id_ in self._released:
                continue
            claims = self._claimed.get(id_, 0) + self._load[id_]
            if claims < each.task.lanes and self._assigner.serves(each, needs, run, now=self._now):
                self._claimed[id_] = self._claimed.get(id_, 0) + 1
                return True
        return False

    def _replace(self, kind: Kind, run: RunId, needs: TaskResources) -> None:
        """Where no task of its kind could ever serve the run, one leaves, so that a larger one comes."""
        tasks = self._tasks.get(kind, ())
        if any(
            self._assigner.serves(each, needs, run, now=self._now)
            for each in tasks
            if each.task.id not in self._released
        ):
            return
        for each in tasks:
            id_ = each.task.id
            if id_ not in self._released and not self._load[id_] and id_ not in self._claimed:
                self._released.add(id_)
                return
