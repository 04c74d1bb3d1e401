"""When tasks held which node, what they ran there, which waited in the queue: a fold over events. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
import numpy as np

from hpcsweep.core.domains import Floats
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
    TickSubmitted,
)
from hpcsweep.core.outcomes import Ending

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


class _Start(msgspec.Struct):
    """One start of a task, as far as it is known."""

    began: float | None = None
    left: float | None = None
    node: str = ""
    job: str = ""
    ended: float = 0.0  # when its newest run did
    runs: list[tuple[RunId, float, float, Ending | None, bool]] = []


def task_timeline(events: Iterable[AnyEvent]) -> Timeline:
    """What the journal tells of all tasks."""
    fold = _Fold()
    for event in events:
        fold.apply(event)
    return fold.timeline()


class _Fold:
    def __init__(self) -> None:
        self._now = 0.0
        self._batches: dict[str, BatchPlanned] = {}
        self._submitted: dict[str, float] = {}
        self._closed: set[str] = set()
        #: By batch, task and restart.
        self._starts: dict[tuple[str, int, int], _Start] = {}
        #: Runs that a task has been given and that have not ended; when.
        self._given: dict[RunId, tuple[tuple[str, int, int], float]] = {}

    def apply(self, event: AnyEvent) -> None:
        """Take in the next event."""
        at = getattr(event, "at", None)
        if isinstance(at, float) and not isinstance(event, TickSubmitted):  # that is when it will tick
            self._now = max(self._now, at)
        match event:
            case BatchPlanned():
                self._batches[event.batch] = event
                self._submitted[event.batch] = event.at
            case BatchSubmitted():
                self._submitted[event.batch] = event.at
            case BatchClosed():
                self._closed.add(event.batch)
            case TaskBegan():
                start = self._start(event.batch, event.task, event.restart)
                start.began, start.node, start.job = event.started or event.at, event.node, event.job
            case TaskLeft():
                start = self._start(event.batch, event.task, event.restart)
                start.left = event.left if event.announced else 0.0  # it was gone before that was noticed
            case RunsAssigned():
                key = event.batch, event.task, event.restart
                self._given |= dict.fromkeys(event.runs, (key, event.at))
            case RunFinished() | RunInterrupted():
                self._ended(event)
            case _:
                pass

    def _start(self, batch: str, task: int, restart: int) -> _Start:
        return self._starts.setdefault((batch, task, restart), _Start(runs=[]))

    def _ended(self, event: RunFinished | RunInterrupted) -> None:
        _, given = self._given.pop(event.run, (None, 0.0))
        began, about = event.started, False
        if began is None:
            if not event.seconds:
                return  # it never began
            # The driver learned of its end at about this time.
            start = self._starts.get((event.batch, event.task, event.restart), _Start())
            earliest = max(given, start.ended, self._submitted.get(event.batch, 0.0))
            began, about = max(earliest, self._now - event.seconds), True
        else:
            self._now = max(self._now, began + event.seconds)
        start = self._start(event.batch, event.task, event.restart)
        start.node, start.job = event.node or start.node, event.job or start.job
        start.ended = max(start.ended, began + event.seconds)
        start.runs.append((event.run, began, began + event.seconds, _ending(event), about))

    def timeline(self) -> Timeline:
        """All tasks, those under way until the newest time that the journal tells."""
        unplaced = 0
        for run, (key, at) in self._given.items():
            start = self._starts.get(key)
            if start is None or start.began is None:
                unplaced += 1
                continue
            if start.left is None and key[0] not in self._closed:
                began = max(at, start.began, start.ended)
                start.runs.append((run, began, max(began, self._now), None, False))
        tasks = [self._task(key, start) for key, start in self._starts.items() if start.runs or start.began]
        tasks.sort(key=lambda task: task.began)
        return Timeline(tuple(tasks), self._waits(tasks), unplaced)

    def _task(self, key: tuple[str, int, int], start: _Start) -> TimedTask:
        batch, task, restart = key
        plan = self._batches.get(batch)
        runs = _in_lanes(sorted(start.runs, key=lambda run: run[1]), plan.lanes if plan else 1)
        began = min((run.began for run in runs), default=self._now)
        began = began if start.began is None else min(start.began, began)
        ended = max((run.ended for run in runs), default=began)
        if start.began is not None and batch not in self._closed:
            ended = max(ended, self._now if start.left is None else start.left)
        elif start.left is not None:
            ended = max(ended, start.left)
        return TimedTask(
            batch,
            task,
            restart,
            start.node or UNKNOWN_NODE,
            start.job,
            plan.pool if plan else "",
            None if restart else self._submitted.get(batch),
            began,
            ended,
            keeps=start.began is not None,
            lanes=max((run.lane + 1 for run in runs), default=1),
            nodes=plan.nodes if plan else 1,
            runs=tuple(runs),
        )

    def _waits(self, tasks: Iterable[TimedTask]) -> Floats:
        """Of tasks that have begun, and of those of live batches that have not."""
        first: dict[tuple[str, int], float] = {}
        for task in tasks:
            key = task.batch, task.task
            first[key] = min(task.began, first.get(key, task.began))
        waits = [
            (self._submitted[batch], max(began, self._submitted[batch]))
            for (batch, _), began in first.items()
            if batch in self._submitted
        ]
        for name, plan in self._batches.items():
            if name not in self._closed:
                count = sum((name, task) not in first for task in range(len(plan.tasks)))
                waits += [(self._submitted[name], self._now)] * count
        return np.array(waits, dtype=float).reshape(-1, 2)


def _ending(event: RunFinished | RunInterrupted) -> Ending:
    if isinstance(event, RunInterrupted):
        return event.interruption
    return event.failure_kind or event.outcome


def _in_lanes(runs: Iterable[tuple[RunId, float, float, Ending | None, bool]], most: int) -> list[TimedRun]:
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
