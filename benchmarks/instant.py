"""What the benchmarks share: a cluster that answers at once, an objective that costs nothing, a space."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

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
from hpcsweep.core.domains import Choice, Float, Int, Ordinal
from hpcsweep.core.events import Config, Outcome, SweepStarted
from hpcsweep.core.space import Parameter, Space
from hpcsweep.store.batch import ManifestRun, ManifestTask, Program, Result
from hpcsweep.store.files import fsync_dir, make_dirs
from hpcsweep.store.layout import BatchLayout

#: Eight parameters of all kinds, one of them conditional.
SPACE = Space(
    (
        Parameter("lr", Float(1e-5, 1.0, log=True)),
        Parameter("weight_decay", Float(1e-8, 1e-2, log=True)),
        Parameter("dropout", Float(0.0, 0.6)),
        Parameter("batch_size", Int(16, 512, log=True)),
        Parameter("layers", Int(1, 8)),
        Parameter("width", Ordinal((64, 128, 256, 512))),
        Parameter("optimizer", Choice(("sgd", "adam", "adamw"))),
        Parameter("momentum", Float(0.0, 0.99), when={"optimizer": ("sgd",)}),
    )
)
PROGRAM = Program(workdir="/", metric="loss", function="train.py:train")
SHAPE = TaskResources(gpus=1)
STARTED = SweepStarted("cafe01", "bench", 1_000_000.0, {"objective": {"metric": "loss", "mode": "min"}})

_DONE = TaskState(Phase.COMPLETED, node="node001")
_PENDING = TaskState(Phase.PENDING, "JobArrayTaskLimit")
_encode = msgspec.json.Encoder().encode
_task_decoder = msgspec.json.Decoder(ManifestTask)


def objective(config: Config, resource: int) -> float:
    """Falls with the resource and depends on the configuration."""
    learning_rate: float = config["lr"]
    dropout: float = config["dropout"]
    return (learning_rate - 0.1) ** 2 + (dropout - 0.2) ** 2 + 1.0 / resource


def result_of(run: ManifestRun, task: int, job: str) -> Result:
    """What a worker would tell of the run."""
    return Result(
        run.trial,
        run.rung,
        run.attempt,
        restart=0,
        task=task,
        outcome=Outcome.COMPLETED,
        value=objective(run.config, run.resource),
        step=run.resource,
        progressed=True,
        seconds=60.25 * run.resource,
        gpu_seconds=60.25 * run.resource,
        started=1_000_000.5,
        node="node001",
        job=job,
    )


def peak_mib() -> float:
    """Largest resident size that this process has had."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self._now = 1_000_000.0

    def time(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


class InstantCluster(Cluster):
    """Each poll ends up to `per_poll` tasks, None for all: their results are there before the next one.

    What it does itself, writing the results as workers on other machines would, is measured, so
    that it can be left out of the driver's figures. The results folder is synced when a poll
    returns, so that the driver's own syncs need not wait for it.

    Attributes:
        cpu_s: CPU time that the stand-in took.
        wall_s: Wall time that it took.
    """

    settle_s = 0.0
    grace_s = 0.0
    poll_s = (1.0, 1.0)

    def __init__(self, *, per_poll: int | None) -> None:
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self._per_poll = per_poll
        self._todo: dict[str, list[bytes]] = {}

    def submit(self, batch: Batch) -> str:
        with self._timed():
            lines = BatchLayout(batch.folder).manifest.read_bytes().splitlines()
            self._todo[batch.name] = lines[1:]
            make_dirs(BatchLayout(batch.folder).results)
        return "4711"

    def find(self, name: str) -> str | None:
        return None

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState]:
        with self._timed():
            left = self._per_poll or sum(batch.tasks for batch in live)
            states: dict[TaskId, TaskState] = {}
            for batch in live:
                todo = self._todo[batch.name]
                waiting = [task for task in batch.open_tasks if todo[task]]
                at_once = min(left, batch.throttle) if self._per_poll else left
                self._end(batch, waiting[:at_once])
                left -= min(len(waiting), at_once)
                for task in batch.open_tasks:
                    states[TaskId(batch.name, task)] = _PENDING if todo[task] else _DONE
        return states

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        """Nothing to do: each poll goes by the throttle of the live batch."""

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Nothing runs between two polls."""

    def limits(self) -> Limits:
        return Limits()

    def _end(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Write the results of these tasks."""
        files = BatchLayout(batch.folder)
        todo = self._todo[batch.name]
        for index in tasks:
            for n, run in enumerate(_task_decoder.decode(todo[index]).runs):
                files.result(index, 0, n).write_bytes(_encode(result_of(run, index, f"{batch.job}_{index}")))
            todo[index] = b""
        if tasks:
            fsync_dir(files.results)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu_s += time.process_time() - cpu
            self.wall_s += time.perf_counter() - wall
