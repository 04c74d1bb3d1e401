"""Configuration of the driver."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hpcsweep.core.cluster_protocol import Cluster, TaskResources
from hpcsweep.core.protocols import Clock
from hpcsweep.core.state import SweepState
from hpcsweep.store.batch import Program
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout, Skipped


class DriverConfig(msgspec.Struct, frozen=True):
    """Caps are None where there is none.

    Attributes:
        name: Of the sweep; batch names begin with it.
        cluster: Name of the cluster, kept with each batch.
        max_tasks: Tasks that may hold GPUs at a time, over all batches.
        max_gpus: GPUs that may be held at a time, over all batches.
        max_trials: Configurations that may be started in all; clones do not count.
        max_gpu_s: GPU-seconds that the sweep may cost, with every submitted task at its full time limit.
        max_time_s: Wall time since the sweep began after which nothing more is submitted.
        confirm_s: How long the wall clock must agree that `max_time_s` is over.
        max_idle_faults: Interruptions in a row without a newer checkpoint that a run may have.
        max_errors: Errors in training code after which a run is tried again.
        max_timeouts: Time limits that a run may reach; None: no limit while its checkpoints advance.
        fail_fast: Number of first trials that pause the sweep if all fail alike within seconds; 0: none.
        compact_at: Raw files of ended runs, about, from which on they are compacted while the sweep runs.
        keep_all: Checkpoints stay even where nothing can need them any more.
    """

    name: str
    cluster: str
    program: Program
    shape: TaskResources
    seed: int
    max_tasks: int | None = None
    max_gpus: int | None = None
    max_trials: int | None = None
    max_gpu_s: float | None = None
    max_time_s: float | None = None
    confirm_s: float = 0.0
    max_idle_faults: int = 5
    max_errors: int = 0
    max_timeouts: int | None = None
    minimise: bool = True
    fail_fast: int = 0
    compact_at: int = 2000
    keep_all: bool = False


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
