"""The cluster of `Sweep.ask`: it takes batches in and starts nothing. What is handed out has a claim."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcsweep.core.cluster_protocol import Batch, Cluster, Limits, Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import RunId
from hpcsweep.store.batch import ManifestRun, read_task, request_stop, requested_stops
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout

#: Its name in the journal.
ASK: Final = "ask"


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
            claimed, told = claimed_tasks(files), told_tasks(files)
            stopped = set(_stopped(files, batch.open_tasks))
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
    """Tasks that were handed out and cancelled, for good."""
    return set(_stopped(files, claimed_tasks(files)))


def _stopped(files: BatchLayout, tasks: Iterable[int]) -> Iterator[int]:
    stops = requested_stops(files)
    for task in tasks if stops else ():
        _, found = read_task(files, task)
        if not stops.isdisjoint(map(run_id, found.runs)):
            yield task


def _numbers(folder: Path) -> set[int]:
    """The numbers with which the names of the folder's files begin."""
    try:
        return {
            int(name.partition(".")[0]) for name in os.listdir(folder) if name.partition(".")[0].isdecimal()
        }
    except FileNotFoundError:
        return set()
