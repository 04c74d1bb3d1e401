"""Ask and tell: runs for people with a launcher of their own, on the same folder and journal.

To the driver what is asked for is a task of a cluster that starts nothing. A task that was handed out has a
claim in its batch's folder; `tell` writes the result that a worker would have written. So a process may be
killed between any two lines: what is told is told, what was handed out is found again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from hpcsweep.clock import SystemClock
from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Batch, Cluster, Limits, Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import FailureKind, Interruption, Outcome, RunId
from hpcsweep.errors import SpecError
from hpcsweep.session.preparation import check_folder
from hpcsweep.session.session import Session, wait_for_journal
from hpcsweep.session.target import Target, max_tasks
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import (
    Header,
    ManifestRun,
    Program,
    Result,
    read_task,
    request_stop,
    requested_stops,
    write_result,
)
from hpcsweep.store.files import make_dirs, write_atomic
from hpcsweep.store.layout import BatchLayout, Layout, TrialLayout
from hpcsweep.store.run_files import MetricsWriter, RunFile, check_metric_name, to_number
from hpcsweep.trial import Trial
from hpcsweep.worker.outcome import ProcessExit, RunOutcome, classify, read_objective

if TYPE_CHECKING:
    from hpcsweep.core.state import SweepState
    from hpcsweep.driver import Driver
    from hpcsweep.spec import SweepSpec

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
        own = checkpoints.newest(self.layout, at_most=self.run.resource)
        if own is None and self.run.parent is not None:
            parent = Layout.of_batch(self.batch.root).trial(self.run.parent)
            return checkpoints.newest(parent, at_most=min(self.run.resource, self.run.parent_step))
        return own

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

    Args:
        slots: Tasks that may be handed out at a time.
    """

    settle_s = 0.0
    grace_s = 0.0
    poll_s = (1.0, 1.0)

    def __init__(self, slots: int) -> None:
        self._slots = slots

    def submit(self, batch: Batch) -> str:
        for folder in (BatchLayout(batch.folder).results, BatchLayout(batch.folder).claims):
            make_dirs(folder)
        return ASK

    def find(self, name: str) -> str | None:
        """Always None: a batch is only taken in, so it may as well be planned again."""
        return None

    def limits(self) -> Limits:
        return Limits(slots=self._slots)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        """The driver's own figure counts."""

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState]:
        states: dict[TaskId, TaskState] = {}
        for batch in live:
            files = BatchLayout(batch.folder)
            claimed, told, stopped = _claimed(files), _told(files), _stopped(files)
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
                request_stop(files, _run_id(run))


def _run_id(run: ManifestRun) -> RunId:
    return RunId(run.trial, run.rung)


def _claimed(files: BatchLayout) -> set[int]:
    """Tasks that were handed out."""
    return _numbers(files.claims)


def _told(files: BatchLayout) -> set[int]:
    """Tasks that have a result."""
    return _numbers(files.results)


def _stopped(files: BatchLayout) -> set[int]:
    """Tasks that were cancelled, for good."""
    return {task for run in requested_stops(files) for task in _tasks_of(files, run)}


def _tasks_of(files: BatchLayout, run: RunId) -> Iterator[int]:
    for task in _claimed(files):
        _, found = read_task(files, task)
        if run in map(_run_id, found.runs):
            yield task


def _numbers(folder: Path) -> set[int]:
    """The numbers with which the names of the folder's files begin."""
    try:
        return {
            int(name.partition(".")[0]) for name in os.listdir(folder) if name.partition(".")[0].isdecimal()
        }
    except FileNotFoundError:
        return set()


# --------------------------------------------------------------------------- the verbs


def ask(spec: SweepSpec, folder: Path, n: int) -> list[Trial]:
    """Hand out up to `n` runs; see `Sweep.ask`."""
    with _driver(spec, folder, more=n) as driver:
        _tick(driver)
        found = list(_hand_out(driver, n))
        driver.compact()
    return [asked.trial() for asked in found]


def outstanding(folder: Path, state: SweepState) -> list[Asked]:
    """The runs that were handed out and not told."""
    return [asked for batch in _batches(state) for asked in _handed_out(Layout(folder.resolve()), batch)]


def tell(
    spec: SweepSpec,
    folder: Path,
    trial: Trial | int,
    value: float | Mapping[str, float] | None,
    *,
    error: str,
    interrupted: bool,
) -> None:
    """Record how a run ended; see `Sweep.tell`."""
    number = trial if isinstance(trial, int) else trial.id
    state = check_folder(spec, folder)
    runs = [] if state is None else outstanding(folder, state)
    asked = next((each for each in runs if each.run.trial == number), None)
    stale = not isinstance(trial, int) and asked is not None and asked.run.rung != trial.rung
    if asked is None or stale:
        raise SpecError(
            f"tell: trial {number} has no run that was asked for and not told; these have: "
            f"{', '.join(str(each.run.trial) for each in runs) or 'none'}"
        )
    result = _result(asked, value, error=error, interrupted=interrupted)
    write_result(asked.batch, result, n=0)
    with _driver(spec, folder, more=0) as driver:
        _tick(driver)
        driver.compact()


@contextlib.contextmanager
def _driver(spec: SweepSpec, folder: Path, *, more: int) -> Iterator[Driver]:
    """A driver that starts so many tasks more than are handed out now."""
    state = check_folder(spec, folder)
    layout, clock = Layout(folder.resolve()), SystemClock()
    slots = more + (len(outstanding(folder, state)) if state is not None else 0)
    shape = spec.task_shape(reuse=False)
    target = Target(ASK, "asked for from Python", AskCluster(slots), shape, False, max_tasks(spec, shape))
    session = Session(spec, folder, state=state, target=target)
    journal = wait_for_journal(layout, clock)
    with session.open(clock=clock, journal=journal) as driver:
        if state is None:
            session.record_launch()
        yield driver


def _tick(driver: Driver) -> None:
    """Tick until nothing is left to conclude: what looks gone is looked at twice."""
    for _ in range(4):
        if not driver.tick() and not driver.monitor.undecided:
            return


def _batches(state: SweepState) -> list[BatchState]:
    return [batch for batch in state.live.values() if batch.cluster == ASK and batch.job is not None]


def _handed_out(layout: Layout, batch: BatchState) -> Iterator[Asked]:
    files = layout.batch(batch.name)
    for task in sorted(_claimed(files) - _told(files) - _stopped(files)):
        header, found = read_task(files, task)
        if any(_run_id(run) in batch.unfinished for run in found.runs):
            yield Asked(files, task, header, found.runs[0])


def _hand_out(driver: Driver, n: int) -> Iterator[Asked]:
    """Claim tasks of live batches, those of high rungs first, as far as the caps allow."""
    waiting: list[tuple[BatchState, Asked]] = []
    room: dict[str, int] = {}
    for batch in _batches(driver.state):
        files = driver.layout.batch(batch.name)
        claimed, told = _claimed(files), _told(files)
        room[batch.name] = batch.throttle - len(claimed - told - _stopped(files))
        for task in range(len(batch.tasks)):
            if task not in claimed and any(run in batch.unfinished for run in batch.tasks[task]):
                header, found = read_task(files, task)
                waiting.append((batch, Asked(files, task, header, found.runs[0])))
    waiting.sort(key=lambda each: -each[1].run.rung)
    for batch, asked in waiting:
        if n > 0 and room[batch.name] > 0 and _claim(asked):
            n, room[batch.name] = n - 1, room[batch.name] - 1
            yield asked


def _claim(asked: Asked) -> bool:
    """Take the task; False if it was handed out already."""
    path = asked.batch.claims / f"{asked.task}.json"
    if path.exists():  # who claims holds the journal
        return False
    write_atomic(path, msgspec.json.encode(Claim(time.time(), socket.gethostname(), os.getpid())))
    return True


def _result(
    asked: Asked, value: float | Mapping[str, float] | None, *, error: str, interrupted: bool
) -> Result:
    """What a worker would have written."""
    run, program, start = asked.run, asked.program, asked.checkpoint()
    if value is not None and not (error or interrupted):
        metrics = value if isinstance(value, Mapping) else {program.metric: value}
        writer = MetricsWriter(asked.metrics)
        writer.write(run.resource, {check_metric_name(key): to_number(key, x) for key, x in metrics.items()})
        writer.sync_and_close()
    step = start.step if start else 0
    reading = read_objective(asked.layout, run, program, restart=0, start=step)
    reached = min(max(reading.reached, step), run.resource)
    if error:
        outcome = RunOutcome(Outcome.FAILED, message=" ".join(error.split()), failure=FailureKind.CRASHED)
    elif interrupted:
        outcome = RunOutcome(interrupted=Interruption.WORKER_DIED, message="told to be interrupted")
    else:
        outcome = classify(ProcessExit(0), reading, resource=run.resource, reached=reached)
    claim = msgspec.json.decode((asked.batch.claims / f"{asked.task}.json").read_bytes(), type=Claim)
    seconds = max(0.0, time.time() - claim.at)
    return Result(
        trial=run.trial,
        rung=run.rung,
        attempt=run.attempt,
        restart=0,
        task=asked.task,
        outcome=outcome.outcome,
        interrupted=outcome.interrupted,
        value=outcome.value,
        step=reached,
        start=step,
        progressed=reached > step,
        seconds=seconds,
        gpu_seconds=seconds * asked.header.gpus,
        started=claim.at,
        node=claim.host,
        job=ASK,
        message=outcome.message,
        failure=outcome.failure,
    )
