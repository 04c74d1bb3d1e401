"""When tasks held which node, what they ran there, which waited in the queue. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import AnyEvent, RunId
from hpcsweep.core.outcomes import Ending
from hpcsweep.views.task_times import PastRun, TaskStart, TaskTimes

UNKNOWN_NODE: Final = "unknown node"


class TimedRun(NamedTuple):
    """An attempt at a run; times in Unix seconds.

    Attributes:
        ending: None while it is under way.
        lane: Of its task, from 0; a task does that many runs at a time.
        about: When it began is not known exactly.
    """

    run: RunId
    began: float
    ended: float
    ending: Ending | None
    lane: int
    about: bool = False


class TimedTask(NamedTuple):
    """One start of a task and what it ran; times in Unix seconds.

    Attributes:
        submitted: None where unknown, and where the cluster has started the task again.
        began: When it got its node; `ended`: when it left it, or what is known last of one that has not.
        keeps: It keeps its GPUs, and takes one run after the other.
        lanes: How many runs it did at a time.
        nodes: How many nodes it had; `node` is the first.
    """

    batch: str
    task: int
    restart: int
    node: str
    job: str
    pool: str
    submitted: float | None
    began: float
    ended: float
    keeps: bool
    lanes: int
    nodes: int
    runs: tuple[TimedRun, ...]

    @property
    def idle_s(self) -> float:
        """Time without a run, of all lanes together."""
        return max(0.0, (self.ended - self.began) * self.lanes - sum(r.ended - r.began for r in self.runs))


class Timeline(NamedTuple):
    """Tasks in the order of their beginning.

    Attributes:
        waiting: From when to when each task waited in the queue, `(n, 2)`, Unix seconds.
        unplaced: Runs under way of which nothing tells when they began.
    """

    tasks: tuple[TimedTask, ...]
    waiting: Floats
    unplaced: int


def task_timeline(events: Iterable[AnyEvent]) -> Timeline:
    """What the journal tells of all tasks, those under way until the newest time that it tells."""
    times = TaskTimes()
    for event in events:
        times.apply(event)
    unplaced = 0
    for run, (batch, task, restart, at) in times.given.items():
        start = times.starts.get(batch, {}).get((task, restart))
        if start is None or start.began is None:
            unplaced += 1
        elif start.left is None and batch not in times.closed:
            began = max(at, start.began, start.ended)
            start.runs.append(PastRun(run, began, max(began, times.now), None, about=False))
    tasks = [
        _task(times, batch, task, restart, start)
        for batch, starts in times.starts.items()
        for (task, restart), start in starts.items()
        if start.runs or start.began
    ]
    tasks.sort(key=lambda task: task.began)
    return Timeline(tuple(tasks), _waits(times, tasks), unplaced)


def _task(times: TaskTimes, batch: str, task: int, restart: int, start: TaskStart) -> TimedTask:
    plan = times.plans.get(batch)
    runs = _in_lanes(sorted(start.runs, key=lambda run: run.began), plan.lanes if plan else 1)
    began = min((run.began for run in runs), default=times.now)
    began = began if start.began is None else min(start.began, began)
    ended = max((run.ended for run in runs), default=began)
    if start.began is not None and batch not in times.closed:
        ended = max(ended, times.now if start.left is None else start.left)
    elif start.left is not None:
        ended = max(ended, start.left)
    return TimedTask(
        batch,
        task,
        restart,
        start.node or UNKNOWN_NODE,
        start.job,
        plan.pool if plan else "",
        None if restart else times.submitted.get(batch),
        began,
        ended,
        keeps=start.began is not None,
        lanes=max((run.lane + 1 for run in runs), default=1),
        nodes=plan.nodes if plan else 1,
        runs=tuple(runs),
    )


def _waits(times: TaskTimes, tasks: Iterable[TimedTask]) -> Floats:
    """Of tasks that have begun, and of those of live batches that have not."""
    first: dict[tuple[str, int], float] = {}
    for task in tasks:
        key = task.batch, task.task
        first[key] = min(task.began, first.get(key, task.began))
    waits = [
        (times.submitted[batch], max(began, times.submitted[batch]))
        for (batch, _), began in first.items()
        if batch in times.submitted
    ]
    for name, plan in times.plans.items():
        if name not in times.closed:
            count = sum((name, task) not in first for task in range(len(plan.tasks)))
            waits += [(times.submitted[name], times.now)] * count
    return np.array(waits, dtype=float).reshape(-1, 2)


def _in_lanes(runs: Iterable[PastRun], most: int) -> list[TimedRun]:
    """Runs in the order of their beginning, each in the first lane that is free."""
    free: list[float] = []
    found = []
    for run, began, ended, ending, about in runs:
        lane = next((at for at, until in enumerate(free) if until <= began), len(free))
        if lane >= most and free:  # clocks of nodes and of the driver differ
            lane = min(range(len(free)), key=free.__getitem__)
        if lane == len(free):
            free.append(0.0)
        free[lane] = ended
        found.append(TimedRun(run, began, ended, ending, lane, about))
    return found


class Lane(NamedTuple):
    """A row of a node in which one task follows the other."""

    node: str
    tasks: tuple[TimedTask, ...]
    height: int  # rows, as many as its tasks do runs at a time


def lanes_by_node(tasks: Iterable[TimedTask]) -> dict[str, list[Lane]]:
    """Tasks of each node in as few lanes as they need, the nodes by pool and name in natural order.

    A node of a pool is named `pool: node`.
    """
    by_node: dict[str, list[TimedTask]] = {}
    for task in tasks:
        name = f"{task.pool}: {task.node}" if task.pool else task.node
        by_node.setdefault(name, []).append(task)

    found: dict[str, list[Lane]] = {}
    for name in sorted(by_node, key=_natural):
        rows: list[list[TimedTask]] = []
        for task in sorted(by_node[name], key=lambda task: task.began):
            free = [row for row in rows if row[-1].ended <= task.began and row[-1].lanes >= task.lanes]
            free = free or [row for row in rows if row[-1].ended <= task.began]
            if free:
                free[0].append(task)
            else:
                rows.append([task])
        found[name] = [Lane(name, tuple(row), max(task.lanes for task in row)) for row in rows]
    return found


def _natural(name: str) -> tuple[object, ...]:
    """Orders `gpu9` before `gpu10`, and unknown nodes last."""
    parts = re.split(r"(\d+)", name)
    return name.endswith(UNKNOWN_NODE), *((int(part), "") if part.isdigit() else (-1, part) for part in parts)
