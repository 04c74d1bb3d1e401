"""Configuration of the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from hpcsweep.core.cluster_protocol import Cluster, TaskResources
from hpcsweep.core.protocols import Clock, Searcher
from hpcsweep.core.run_resources import RunResources
from hpcsweep.core.state import SweepState
from hpcsweep.store.batch import Program
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout, Skipped


class Growth(NamedTuple):
    """What a sweep needs whose space grows while it goes on.

    Attributes:
        new_searcher: A fresh searcher, as what one keeps of the space before is of no use.
        spec: The text of the spec with these parameters added.
        mode: Of its file.
        ends: Whether the sweep ends in any space, so that one which was exhausted may go on in a grown one.
    """

    new_searcher: Callable[[], Searcher]
    spec: Callable[[Mapping[str, Any]], str]
    mode: int
    ends: bool = True


class DriverConfig(msgspec.Struct, frozen=True):
    """Caps are None where there is none."""

    name: str  # of the sweep; batch names begin with it
    cluster: str  # its name, kept with each batch
    program: Program
    shape: TaskResources  # of a new task
    seed: int
    max_tasks: int | None = None  # that may hold GPUs at a time, over all batches
    max_gpus: int | None = None  # that may be held at a time, over all batches
    max_trials: int | None = None  # configurations that may be started in all; clones do not count
    max_gpu_s: float | None = None  # that the sweep may cost, each submitted task at its full time limit
    max_time_s: float | None = None  # since the sweep began, after which nothing more is submitted
    confirm_s: float = 0.0  # how long the wall clock must agree that `max_time_s` is over
    max_idle_faults: int = 5  # interruptions of a run in a row without a newer checkpoint
    max_errors: int = 0  # errors in training code after which a run is tried again
    max_timeouts: int | None = None  # of a run; None: no limit while its checkpoints advance
    minimise: bool = True
    fail_fast: int = 0  # first trials that pause the sweep if all fail alike within seconds; 0: none
    compact_at: int = 2000  # raw files of ended runs, about, that are compacted while the sweep runs
    checkpoint_bytes: int | None = None  # that checkpoints may take in all
    checkpoint_files: int | None = None  # files that they may be
    least_promising_give_way: bool = False  # trials that may be promoted at any time, for the quota
    keep_all: bool = False  # checkpoints stay even where nothing can need them any more
    idle_s: float | None = None  # for which a task may hold GPUs without a run; None: it is given none
    run: TaskResources = TaskResources()  # enough for any run, with its time limit
    resources: RunResources = RunResources()  # what each run needs
    growth: Growth | None = None  # how the space grows by what runs suggest; None: it does not
    smallest: TaskResources = TaskResources()  # task with the fewest GPUs and the shortest time
    task_time_s: int | None = None  # time limit of a task that keeps its GPUs; None: by its runs

    @property
    def reuse(self) -> bool:
        """Whether tasks keep their GPUs for run after run."""
        return self.idle_s is not None


class HostTask(NamedTuple):
    """The task or job that a driver runs in; its slot is free as soon as the driver is done."""

    batch: str  # empty for a job that only ticks
    task: int
    job: str


class SweepContext(NamedTuple):
    """What those parts of a driver share that read and act; the journal is open, the state only read."""

    state: SweepState
    settings: DriverConfig
    layout: Layout
    journal: Journal
    cluster: Cluster
    clock: Clock
    skipped: Skipped

    @property
    def now(self) -> float:
        """Unix time."""
        return self.clock.time()
