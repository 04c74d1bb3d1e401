"""Stand-ins for what tests must control: a cluster without processes, a clock, a compactor at once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import (
    Batch,
    Cluster,
    Limits,
    Phase,
    SubmittedBatch,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.core.events import Config, Outcome
from hpcsweep.store import checkpoints
from hpcsweep.store.assignments import (
    StartId,
    TaskDeparture,
    TaskStart,
    announce,
    list_inbox,
    read_assignment,
)
from hpcsweep.store.batch import ManifestRun, Program, Result, read_task, write_result
from hpcsweep.store.compaction import CompactionResult, CompactionTask
from hpcsweep.store.compaction.worker import run_compaction_task
from hpcsweep.store.files import make_dirs, write_atomic
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.worker.results import measure

PROGRAM = Program(workdir="/", metric="loss", function="t.py:train")


def quadratic(config: Config, resource: int) -> float | None:
    """A learning curve that falls with the resource and depends on `x`."""
    x: float = config["x"]
    return (x - 0.3) ** 2 + 1.0 / resource


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class InlineCompactor:
    """Carries out each order in this very process, as soon as it is given."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._answer: CompactionResult | None = None

    def begin(self, order: CompactionTask) -> None:
        self._answer = run_compaction_task(self._layout, order, now=time.time())

    def answer(self, wait_s: float) -> CompactionResult | None:
        return self._answer

    def close(self) -> None:
        """Nothing goes on."""


def compact_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of this process are compacted in it: another process takes longer than many a sweep.

    Sweeps of the command line as a process, of jobs and `tests/driver/test_compaction` have the real one.
    """

    def inline(command: Sequence[str], _: Mapping[str, str]) -> InlineCompactor:
        return InlineCompactor(Layout(Path(command[-1])))

    monkeypatch.setattr("hpcsweep.session.session.SubprocessCompactor", inline)


class FolderCluster(Cluster):
    """A cluster whose controller is a folder: it survives every kill of the driver.

    Each poll runs up to `per_poll` further tasks at once, writing their results as a worker
    would, and logs and reports of every step if `reports`, and a checkpoint if `checkpoints`. `point`
    is called around each effect, so that a test can kill the driver there.
    """

    settle_s = 0.0
    grace_s = 0.0
    poll_s = (0.0, 0.0)

    def __init__(
        self,
        controller: Path,
        *,
        objective: Callable[[Config, int], float | None] = quadratic,
        per_poll: int = 1_000_000,
        array_tasks: int | None = None,
        point: Callable[[str], None] = lambda _: None,
        reports: bool = False,
        checkpoints: bool = False,
    ) -> None:
        self.controller = controller
        self.checkpoints = checkpoints
        self.reports = reports
        self.objective = objective
        self.per_poll = per_poll
        self.array_tasks = array_tasks
        self.point = point
        self.polls = 0
        self.reused: dict[str, bool] = {}
        self.most_running = 0
        self.throttled: list[tuple[str, int]] = []
        make_dirs(controller)

    def submit(self, batch: Batch) -> str:
        files = BatchLayout(batch.folder)
        write_atomic(files.script, b"#!/bin/sh\n")
        self.point("before sbatch")
        make_dirs(self.controller / batch.name)
        self.point("after sbatch")
        self.is_reused(batch)
        return f"job-{batch.name}"

    def find(self, name: str) -> str | None:
        return f"job-{name}" if (self.controller / name).exists() else None

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        self.polls += 1
        left = self.per_poll
        states: dict[TaskId, TaskState] = {}
        running = 0
        for batch in live:
            started = 0
            for task in batch.open_tasks:
                done = self.controller / batch.name / str(task)
                if self.is_reused(batch):
                    if not done.exists():
                        left -= self.go_on(batch, task, left)
                        started += 1
                    phase = Phase.COMPLETED if done.exists() else Phase.RUNNING
                    states[TaskId(batch.name, task)] = TaskState(phase)
                    continue
                if not done.exists() and left > 0 and started < batch.throttle:
                    self.run(batch, task)
                    left -= 1
                    started += 1
                phase = Phase.COMPLETED if done.exists() else Phase.PENDING
                states[TaskId(batch.name, task)] = TaskState(phase)
            running += started
        self.most_running = max(self.most_running, running)
        return states

    def is_reused(self, batch: Batch | SubmittedBatch) -> bool:
        if batch.name not in self.reused:
            self.reused[batch.name] = read_task(BatchLayout(batch.folder), 0)[0].reuse is not None
        return self.reused[batch.name]

    def go_on(self, batch: SubmittedBatch, task: int, most: int) -> int:
        """A task that keeps its GPUs begins, does up to so many runs or leaves; how many it did."""
        files, start = BatchLayout(batch.folder), StartId(task, 0)
        taken = self.controller / batch.name / f"{task} taken"
        if not taken.exists():
            announce(files, start, TaskStart(f"job_{task}", at=1_000_000.0))
            taken.touch()
            return 0
        before = number = taken.stat().st_size
        inbox = list_inbox(files, start)
        while number in inbox.numbers and number < before + most:
            assignment = read_assignment(files, start, number)
            self.train_run(files, assignment.run, task, number, files.assigned_log(task, 0, number))
            number += 1
            taken.write_bytes(b"." * number)
        if inbox.leave and number not in inbox.numbers:
            announce(files, start, TaskDeparture(number))
            (self.controller / batch.name / str(task)).touch()
        return number - before

    def run(self, batch: SubmittedBatch, task: int) -> None:
        files = BatchLayout(batch.folder)
        if files.abandoned_marker.exists():
            return
        _, found = read_task(files, task)
        for n, run in enumerate(found.runs):
            self.train_run(files, run, task, n, files.log(task, n if len(found.runs) > 1 else None))
        (self.controller / batch.name / str(task)).touch()

    def train_run(self, files: BatchLayout, run: ManifestRun, task: int, n: int, log: Path) -> None:
        self.note(run)
        if self.reports:
            self.tell(files, run, log)
        if self.checkpoints:
            self.checkpoint(Layout.of_batch(files.root), run)
        result = self.result(run, task, read_task(files, task)[0].gpus)
        if self.checkpoints:
            trial = Layout.of_batch(files.root).trial(run.trial)
            result = msgspec.structs.replace(result, checkpoints=measure(trial, checkpoints.newest(trial)))
        write_result(files, result, n=n)

    def tell(self, files: BatchLayout, run: ManifestRun, log: Path) -> None:
        """What a run prints and reports."""
        writer = MetricsWriter(Layout.of_batch(files.root).trial(run.trial).metrics(run.rung, run.attempt, 0))
        for step in range(1, run.resource + 1):
            writer.write(step, {"loss": self.objective(run.config, step) or math.nan, f"at{run.rung}": step})
        writer.close()
        make_dirs(files.logs)
        log.write_text(f"trained {run.trial} to {run.resource}\n")

    def checkpoint(self, layout: Layout, run: ManifestRun) -> None:
        """Go on from the newest checkpoint, and leave one of the last step."""
        trial = layout.trial(run.trial)
        newest = checkpoints.newest(trial, at_most=run.resource)
        if newest is None and run.parent is not None:
            newest = checkpoints.newest(layout.trial(run.parent), at_most=run.parent_step)
        with open(self.controller / "starts", "a") as file:
            file.write(f"{run.trial} {run.rung} {newest.step if newest else 0}\n")
        with checkpoints.new_checkpoint(trial, run.resource, owner="0") as folder:
            (folder / "weights").write_bytes(b"w" * 1000)
        checkpoints.prune(trial, keep=1, steps=run.keep)

    def starts(self) -> list[tuple[int, ...]]:
        """Trial, rung and step of the checkpoint of every run that was trained."""
        lines = (self.controller / "starts").read_text().splitlines()
        return sorted(tuple(map(int, line.split())) for line in lines)

    def note(self, run: ManifestRun) -> None:
        """Remember outside the results folder that this run was trained."""
        with open(self.controller / "trained", "a") as file:
            file.write(f"{run.trial} {run.rung}\n")

    def result(self, run: ManifestRun, task: int, gpus: int) -> Result:
        value = self.objective(run.config, run.resource)
        return Result(
            run.trial,
            run.rung,
            run.attempt,
            restart=0,
            task=task,
            outcome=Outcome.FAILED if value is None else Outcome.COMPLETED,
            value=value,
            step=run.resource,
            seconds=float(run.resource),
            gpu_seconds=float(run.resource * gpus),
            message="ValueError: no" if value is None else "",
        )

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        self.throttled.append((batch.name, tasks))

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        for task in tasks:
            (self.controller / batch.name / str(task)).touch()

    def limits(self) -> Limits:
        return Limits(array_tasks=self.array_tasks)

    def trained(self) -> list[tuple[int, int]]:
        """Every run that was trained, as often as it was."""
        path = self.controller / "trained"
        if not path.exists():
            return []
        return [(int(t), int(r)) for t, r in (line.split() for line in path.read_text().splitlines())]

    def batches(self) -> list[str]:
        """Names of all arrays that were ever accepted."""
        return sorted(entry.name for entry in os.scandir(self.controller) if entry.is_dir())


SHAPE = TaskResources(gpus=1)
