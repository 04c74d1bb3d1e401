"""What `Sweep.ask` hands out: the cluster that starts nothing, and the files by which runs are known."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hpcsweep.core.cluster_protocol import Batch, Cluster, Limits, Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import RunId
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import Header, ManifestRun, Program, read_task, request_stop, requested_stops
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout, Layout, TrialLayout
from hpcsweep.store.run_files import RunFile
from hpcsweep.trial import Trial

#: Name of the cluster in the journal.
ASK: Final = "ask"


class Claim(msgspec.Struct, frozen=True):
    """That a task was handed out."""

    at: float
    host: str
    pid: int


class Asked(NamedTuple):
    """A run that was handed out, with the files of its batch."""

    batch: BatchLayout
    task: int
    header: Header
    run: ManifestRun

    @property
    def layout(self) -> TrialLayout:
        return Layout.of_batch(self.batch.root).trial(self.run.trial)

    @property
    def metrics(self) -> Path:
        """Where it reports."""
        return self.layout.metrics(self.run.rung, self.run.attempt, 0)

    @property
    def program(self) -> Program:
        return self.header.program

    def checkpoint(self) -> checkpoints.Checkpoint | None:
        """Where it goes on from; None: from scratch."""
        sweep, run = Layout.of_batch(self.batch.root), self.run
        parent = sweep.trial(run.parent) if run.parent is not None else None
        return checkpoints.newest_of_line(
            self.layout, parent, at_most=run.resource, parent_step=run.parent_step
        )

    def trial(self) -> Trial:
        """As training code sees it."""
        run, found = self.run, self.checkpoint()
        make_dirs(self.layout.checkpoints)
        file = RunFile(
            trial=run.trial,
            rung=run.rung,
            bracket=run.bracket,
            resource=run.resource,
            attempt=run.attempt,
            restart=0,
            seed=run.seed,
            config=run.config,
            start=found.step if found else 0,
            resume_from=str(found.path) if found else None,
            checkpoint_dir="",
            stop_file=str(self.batch.stop(run.trial, run.rung)),
            trial_folder=str(self.layout.root),
            metrics_file=str(self.metrics),
            metric=self.program.metric,
            keep_checkpoints=self.program.keep_checkpoints,
            keep_steps=run.keep,
        )
        return Trial(file, rank=0)


class AskCluster(Cluster):
    """Takes batches in and starts nothing.

    Attributes:
        allowed: Tasks that may be handed out at a time.
    """

    settle_s = 0.0
    grace_s = 0.0
    poll_s = (1.0, 1.0)

    def __init__(self) -> None:
        self.allowed = 0

    def submit(self, batch: Batch) -> str:
        for folder in (BatchLayout(batch.folder).results, BatchLayout(batch.folder).claims):
            make_dirs(folder)
        return ASK

    def find(self, name: str) -> str | None:
        """Always None: a batch is only taken in, so it may as well be planned again."""
        return None

    def limits(self) -> Limits:
        return Limits(slots=self.allowed)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        """The driver's own figure counts."""

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState]:
        states: dict[TaskId, TaskState] = {}
        for batch in live:
            files = BatchLayout(batch.folder)
            claimed, told, stopped = claimed_tasks(files), told_tasks(files), stopped_tasks(files)
            for task in batch.open_tasks:
                phase = Phase.RUNNING if task in claimed else Phase.PENDING
                phase = Phase.COMPLETED if task in told else phase
                phase = Phase.CANCELLED if task in stopped else phase
                reason = "not asked for yet" if phase is Phase.PENDING else ""
                states[TaskId(batch.name, task)] = TaskState(phase, reason)
        return states

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """They are over; who was handed one sees `Trial.should_stop`."""
        files = BatchLayout(batch.folder)
        for task in tasks:
            _, found = read_task(files, task)
            for run in found.runs:
                request_stop(files, run_id(run))


def run_id(run: ManifestRun) -> RunId:
    return RunId(run.trial, run.rung)


def claimed_tasks(files: BatchLayout) -> set[int]:
    """Tasks that were handed out."""
    return _numbers(files.claims)


def told_tasks(files: BatchLayout) -> set[int]:
    """Tasks that have a result."""
    return _numbers(files.results)


def stopped_tasks(files: BatchLayout) -> set[int]:
    """Tasks that were cancelled, for good."""
    return {task for run in requested_stops(files) for task in _tasks_of(files, run)}


def _tasks_of(files: BatchLayout, run: RunId) -> Iterator[int]:
    for task in claimed_tasks(files):
        _, found = read_task(files, task)
        if run in map(run_id, found.runs):
            yield task


def _numbers(folder: Path) -> set[int]:
    """The numbers with which the names of the folder's files begin."""
    try:
        return {
            int(name.partition(".")[0]) for name in os.listdir(folder) if name.partition(".")[0].isdecimal()
        }
    except FileNotFoundError:
        return set()
