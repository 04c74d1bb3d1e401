"""Batches that are planned or on the cluster, their tasks, and the runs that these were given."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import RunFinished, RunId, RunInterrupted, TaskLeft


class AssignedRun(NamedTuple):
    """Which start of a task was given a run, as its `number`-th.

    Attributes:
        at: Unix time.
        time_s: Its time limit; 0: the one that all runs have.
    """

    task: int
    restart: int
    number: int
    at: float = 0.0
    time_s: int = 0


class StartedTask(NamedTuple):
    """The newest start of a task that keeps its GPUs.

    Attributes:
        began: When it was noticed. `started`: when it began by its own clock, and `ends`: when its time
            limit ends.
        left: What it told when it left; None while it takes runs.
        job: As the cluster names the task.
    """

    restart: int
    began: float
    started: float
    ends: float | None
    node: str
    left: TaskLeft | None = None
    job: str = ""


class BatchState(msgspec.Struct):
    """A batch that is planned or on the cluster.

    Attributes:
        tasks: Runs of each task; where they are assigned late, those that it still has to do.
        lanes: Runs of a task at a time. `cpus`: of a task, 0 where unknown. `mem_mib`: None if it asked for
            none.
        reuse: Its tasks keep their GPUs, and runs are assigned to them once they have begun.
        assigned: Of the unfinished runs of such a batch, who was given them.
        starts: Of such tasks, the newest start of each that has begun.
        earlier_starts: Of such tasks, how long each earlier start lasted that told when it left; in seconds.
        given: How many runs each start of such a task was given, by task and restart.
        job: None while the cluster has not acknowledged it.
        unfinished: Its runs that have no ending in it yet.
        made_progress: A run of it went on for longer than a moment, or came to a value.
        blocked_reason: Why tasks of it cannot start; empty if nothing but their turn is awaited.
        blocked_since: Since when; Unix time, 0 where unknown.
        released: Tasks that the cluster held and that were let go.
        gpus: GPUs of one task, on all its `nodes` together; `cpus` and `mem_mib` are those of each node.
        gpus_held: GPUs that one task holds, where that is more than it asks for, else 0.
        allocated: GPUs that tasks were seen to hold where that is another figure.
        tick_job: Job that ticks when all its tasks have ended, empty if there is none.
        endings: How its runs ended so far, requeued ones included.
        pool: The part of the cluster that it is for; empty where there are none.
        submit_message: What the cluster said when it was submitted, if it took no note of it for certain.
    """

    name: str
    planned_at: float
    tasks: list[list[RunId]]
    gpus: int
    throttle: int
    cluster: str
    unfinished: set[RunId]
    time_s: int = 0
    job: str | None = None
    made_progress: bool = False
    last_message: str = ""
    blocked_reason: str = ""
    blocked_since: float = 0.0
    released: set[int] = msgspec.field(default_factory=set)
    tick_job: str = ""
    endings: list[RunFinished | RunInterrupted] = msgspec.field(default_factory=list)
    gpus_held: int = 0
    allocated: dict[int, int] = msgspec.field(default_factory=dict)
    submit_message: str = ""
    reuse: bool = False
    lanes: int = 1
    cpus: int = 0
    mem_mib: int | None = None
    nodes: int = 1
    pool: str = ""
    assigned: dict[RunId, AssignedRun] = msgspec.field(default_factory=dict)
    starts: dict[int, StartedTask] = msgspec.field(default_factory=dict)
    earlier_starts: dict[int, list[float]] = msgspec.field(default_factory=dict)
    given: dict[tuple[int, int], int] = msgspec.field(default_factory=dict)

    @property
    def shape(self) -> TaskResources:
        """What one of its tasks asked for."""
        gpus, cpus = self.gpus // self.nodes, self.cpus or 1
        time_s = self.time_s or None
        return TaskResources(gpus, cpus, self.mem_mib, time_s, self.lanes, nodes=self.nodes, pool=self.pool)

    @property
    def run_mem_mib(self) -> int | None:
        """Memory for each run of its tasks; None where that is the cluster's default, or unknown."""
        return None if self.mem_mib is None else self.mem_mib // self.lanes

    def fits(self, run: TaskResources) -> bool:
        """Whether each lane of its tasks has what such a run needs, its time aside."""
        needed = [(run.total_gpus, self.gpus), (run.cpus, self.cpus or math.inf)]
        if run.mem_mib is not None and self.mem_mib is not None:
            needed.append((run.mem_mib, self.mem_mib))
        return run.nodes == self.nodes and all(each * self.lanes <= there for each, there in needed)

    @property
    def open_tasks(self) -> int:
        """Tasks that may still wait or run, as far as the journal tells."""
        if self.reuse:
            return len(self.tasks) - sum(start.left is not None for start in self.starts.values())
        return sum(any(run in self.unfinished for run in task) for task in self.tasks)

    @property
    def begun(self) -> list[RunId]:
        """The assigned runs that their tasks work on; the others are assigned ahead."""
        by_task: dict[int, int] = {}
        begun = []
        for run, given in self.assigned.items():  # in the order in which they were given
            by_task[given.task] = by_task.get(given.task, 0) + 1
            if by_task[given.task] <= self.lanes:
                begun.append(run)
        return begun

    def restart_of(self, task: int) -> int:
        """The newest start of a task that keeps its GPUs; -1 if it has not begun."""
        return self.starts[task].restart if task in self.starts else -1

    def departure(self, task: int, restart: int) -> TaskLeft | None:
        """What this start of the task told when it left; None if it has not, or is not the newest."""
        start = self.starts.get(task)
        return start.left if start is not None and start.restart == restart else None

    def gpus_of(self, task: int) -> int:
        """GPUs that this task holds, which is what it costs."""
        return self.allocated.get(task, self.gpus_held or self.gpus)

    @property
    def task_gpus(self) -> int:
        """GPUs that one of its tasks holds at most."""
        # Tasks that have not started may be given as much as any that has.
        return max((self.gpus_held or self.gpus, *self.allocated.values()))
