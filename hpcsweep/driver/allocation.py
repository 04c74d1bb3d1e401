"""One look at the runs that wait and the tasks that are there: who does what next. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Container, Sequence, Set
from typing import NamedTuple, Protocol

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import TaskId, TaskResources
from hpcsweep.core.events import RunId
from hpcsweep.driver.assigner import OpenTask
from hpcsweep.driver.effects import Leave
from hpcsweep.driver.pools import is_passed_over
from hpcsweep.driver.room import Room
from hpcsweep.driver.shapes import Demand, Kind, kind_of, share_tasks
from hpcsweep.store.assignments import StartId


class Purse:
    """What may still be spent on runs: of the budget, and of each pool.

    Args:
        left: GPU-seconds of the budget; inf without one.
        pools: Of each pool; inf where it has no cap.
        cost: GPU-seconds of a task (its GPUs) for a run, of one that is there or of a new one.
    """

    def __init__(
        self, left: float, pools: dict[str, float], cost: Callable[[int, TaskResources, bool], float]
    ) -> None:
        self.cost = cost
        self.pools = pools
        self._left = left

    def pays(self, gpus: int, needs: TaskResources, pool: str) -> bool:
        """Whether a task that is there in this pool may do the run, by what the pool has left."""
        left = self.pools.get(pool, math.inf)
        return left == math.inf or left >= self.cost(gpus, needs, False)

    def spend(self, gpus: int, needs: TaskResources, *, new: bool = False, pool: str = "") -> bool:
        """Whether the budget allows it; it is spent then, of the pool, too, unless the task is `new`."""
        cost = self.cost(gpus, needs, new)
        if cost > self._left:
            return False
        self._left -= cost
        if pool in self.pools:
            self.pools[pool] -= cost
        return True


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


class Rules(Protocol):
    """What an allocation asks about tasks and runs; see `ShapedAssigner`."""

    @property
    def lanes(self) -> int: ...

    @property
    def runs_are_short(self) -> bool: ...

    def task_of(self, needs: Sequence[TaskResources]) -> TaskResources: ...

    def bad_nodes(self, *, now: float) -> set[str]: ...

    def serves(self, each: Working, needs: TaskResources, run: RunId, *, now: float) -> bool: ...

    def length(self, run: RunId, needs: TaskResources) -> float: ...


class Allocating:
    """One allocation, step by step."""

    def __init__(
        self,
        assigner: Rules,
        queue: Sequence[RunId],
        needs: dict[RunId, TaskResources],
        working: Sequence[Working],
        *,
        room: Room,
        purse: Purse,
        spent: Container[str],
        now: float,
        leaves: bool,
    ) -> None:
        self._room = room
        self._purse = purse
        #: GPU-seconds of a new task of each kind.
        self._costs: dict[Kind, float] = {}
        self._preemptible: Set[str] = {pool.name for pool in room.pools if pool.preemptible}
        #: How long the waiting runs take in the median; None while nobody has asked.
        self._typical: float | None = None
        self._assigner = assigner
        self._queue = queue
        self._needs = needs
        self._now = now
        self._leaves = leaves
        self._ahead = int(leaves or assigner.runs_are_short)
        bad = assigner.bad_nodes(now=now)
        self._tasks: dict[Kind, list[Working]] = {}
        #: On nodes that are avoided, or of pools that cannot pay for any run: they take none.
        self._bad: set[TaskId] = set()
        #: Tasks that do not start, of pools that are passed over: others are to take their work.
        self._late: list[Working] = []
        for each in working:
            if each.task.start.node in bad or each.batch.pool in spent:
                self._bad.add(each.task.id)
            elif not each.begun and is_passed_over(each.batch, room):
                self._late.append(each)
            else:
                self._tasks.setdefault(each.kind, []).append(each)
        self._all = working
        #: Runs that each task has, those that it is given now included.
        self._load = {each.task.id: each.task.assigned for each in working}
        self._released: set[TaskId] = set()
        self._draining: set[TaskId] = set()
        self._claimed: dict[TaskId, int] = {}

    def result(self, *, held_gpus: Callable[[TaskResources], int], done: bool) -> Allocation:
        spend = self._purse.spend
        shares, gpus = self._shares(held_gpus)
        missing = {kind: max(0, share - len(self._tasks.get(kind, ()))) for kind, share in shares.items()}
        self._make_room(shares, missing, gpus)
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
                if not spend(each.batch.task_gpus, needs, pool=each.batch.pool):
                    complete = False
                    break
                self._load[each.task.id] += 1
                assigned.append((each.task, run, needs))
            elif (coming := self._claim(kind, run, needs)) is not None:
                if not spend(gpus[kind], needs, pool=coming.batch.pool):
                    complete = False
                    break
            elif lanes.get(kind, 0) or missing.get(kind, 0):
                new = not lanes.get(kind, 0)
                if not spend(gpus[kind], needs, new=new):
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
            useless = useless or (id_ in self._released and each in self._late)
            if done and load == 0 and id_ not in self._claimed:
                useless = True
            if useless and each.begun:
                leave.append(Leave(id_.batch, StartId(id_.task, each.task.start.restart)))
            elif useless:
                cancel.append(id_)
            elif each.begun and id_ not in self._draining and id_ not in self._bad:
                idle += max(0, each.task.lanes - load)
        return Allocation(assigned, leave, cancel, wanted, idle, complete)

    def _shares(self, held_gpus: Callable[[TaskResources], int]) -> tuple[dict[Kind, int], dict[Kind, int]]:
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
        whole = self._room
        demands = []
        for each in self._late:
            whole = whole.less(each.batch.task_gpus, -1, each.batch.pool)
        for kind, tasks in self._tasks.items():
            for each in tasks:
                whole = whole.less(each.batch.task_gpus, -1, each.batch.pool)
            if kind in positions:
                gpus[kind] = max(gpus[kind], *(each.batch.task_gpus for each in tasks))
        for kind, waiting in positions.items():
            busy = sum(each.task.assigned for each in self._tasks.get(kind, ()))
            weight = work[kind] * (1 + busy / len(waiting))
            first = self._needs[self._queue[waiting[0]]]
            self._costs[kind] = self._purse.cost(gpus[kind], first, True)
            demands.append(Demand(gpus[kind], self._assigner.lanes, busy, waiting, weight, self._costs[kind]))
        return dict(zip(positions, share_tasks(whole, demands), strict=True)), gpus

    def _turns(self, shares: dict[Kind, int]) -> dict[Kind, int]:
        counts: dict[Kind, int] = {}
        for run in self._queue:
            kind = kind_of(self._needs[run])
            counts[kind] = counts.get(kind, 0) + 1
        each = self._assigner.lanes
        return {kind: -(-count // (max(1, shares[kind]) * each)) for kind, count in counts.items()}

    def _make_room(self, shares: dict[Kind, int], missing: dict[Kind, int], gpus: dict[Kind, int]) -> None:
        """Have as many tasks leave as stand in the way of those that are missing, the idle ones now."""
        wanted = [(gpus[kind], count) for kind, count in missing.items()]
        over = {
            kind: len(tasks) - shares.get(kind, 0)
            for kind, tasks in self._tasks.items()
            if len(tasks) > shares.get(kind, 0)
        }
        candidates = [each for kind in over for each in self._tasks[kind]]
        # What has not begun holds nothing yet; the last ones come first.
        candidates.sort(key=lambda each: (each.task.assigned, each.begun))
        for each in self._late:
            begun = sum(other.begun for other in self._tasks.get(each.kind, ()))
            if begun >= shares.get(each.kind, 0) or not self._room.fits(wanted):
                self._release(each)
        for each in candidates:
            if self._room.fits(wanted):
                return
            lacks_tasks = self._room.tasks < sum(count for _, count in wanted)
            helps = lacks_tasks or each.batch.task_gpus > 0
            if helps and over[each.kind]:
                over[each.kind] -= 1
                self._release(each)
        for kind, count in missing.items():
            if count and not self._tasks.get(kind):
                self._clear_pool(gpus[kind], self._costs[kind])

    def _release(self, each: Working) -> None:
        if each.task.assigned and each.begun:  # it leaves once it has done what it has
            self._draining.add(each.task.id)
        else:
            self._released.add(each.task.id)
        self._room = self._room.less(each.batch.task_gpus, -1, each.batch.pool)

    def _clear_pool(self, gpus: int, gpu_s: float) -> None:
        """Have tasks leave one pool for a task that no pool has room for, though there is enough in all."""
        tasks = [each for tasks in self._tasks.values() for each in tasks if not self._goes(each)]
        tasks.sort(key=lambda each: (each.task.assigned, each.begun))
        usable = self._room.usable(gpus, gpu_s)
        if any(self._room.count(gpus, pool.name, gpu_s=gpu_s) for pool in usable):
            return
        for pool in usable[:1]:
            for each in tasks:
                if each.batch.pool == pool.name and not self._room.count(gpus, pool.name, gpu_s=gpu_s):
                    self._release(each)

    def _goes(self, each: Working) -> bool:
        return each.task.id in self._released or each.task.id in self._draining

    def _find(self, kind: Kind, run: RunId, needs: TaskResources) -> Working | None:
        """The task that could begin it first, the shortest of these."""
        best: tuple[tuple[int, bool, float], Working] | None = None
        short = self._is_short(run)
        for each in self._tasks.get(kind, ()):
            id_ = each.task.id
            if id_ in self._released or id_ in self._draining or not (each.begun or self._may_come(each)):
                continue
            load = self._load[id_]
            depth = max(0, load - each.task.lanes + 1)
            if load >= each.task.lanes + self._ahead:
                continue
            if not self._serves(each, needs, run):
                continue
            unsafe = each.batch.pool in self._preemptible
            key = depth, unsafe is not short, float(each.batch.time_s or math.inf)
            if best is None or key < best[0]:
                best = key, each
        return best[1] if best is not None else None

    def _is_short(self, run: RunId) -> bool:
        """Whether the run is for a task that may be preempted, where another one is free as well."""
        if not self._preemptible:
            return False
        if self._typical is None:
            lengths = [self._assigner.length(each, needs) for each, needs in self._needs.items()]
            self._typical = statistics.median(lengths)
        return self._assigner.length(run, self._needs[run]) < self._typical

    def _may_come(self, each: Working) -> bool:
        """Whether a task that has not begun is given runs: where nobody will be there when it begins."""
        return self._leaves and each.task.start.restart == 0 and each.batch.job is not None

    def _serves(self, each: Working, needs: TaskResources, run: RunId) -> bool:
        """Whether the task can take the run now, and its pool can pay for that."""
        return self._assigner.serves(each, needs, run, now=self._now) and self._purse.pays(
            each.batch.task_gpus, needs, each.batch.pool
        )

    def _claim(self, kind: Kind, run: RunId, needs: TaskResources) -> Working | None:
        """The task that is submitted and will take it; None if there is none."""
        for each in self._tasks.get(kind, ()):
            id_ = each.task.id
            if each.begun or id_ in self._released:
                continue
            claims = self._claimed.get(id_, 0) + self._load[id_]
            if claims < each.task.lanes and self._serves(each, needs, run):
                self._claimed[id_] = self._claimed.get(id_, 0) + 1
                return each
        return None

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
