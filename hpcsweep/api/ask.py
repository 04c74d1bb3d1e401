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
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from hpcsweep.api.asked import Asked, Claim
from hpcsweep.clock import SystemClock
from hpcsweep.cluster.asked import ASK, AskCluster, claimed_tasks, run_id, stopped_tasks, told_tasks
from hpcsweep.core.batches import BatchState
from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.core.text import plural
from hpcsweep.errors import SpecError
from hpcsweep.session.preparation import check_folder
from hpcsweep.session.session import Session, wait_for_journal
from hpcsweep.session.target import asked_target
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import (
    Program,
    Result,
    read_task,
    write_result,
)
from hpcsweep.store.files import write_atomic
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter, check_metric_name, to_number
from hpcsweep.trial import Trial
from hpcsweep.worker.outcome import ProcessExit, RunOutcome, classify, read_objective
from hpcsweep.worker.results import measure

if TYPE_CHECKING:
    from hpcsweep.core.state import SweepState
    from hpcsweep.driver import Driver
    from hpcsweep.spec import SweepSpec


def ask(spec: SweepSpec, folder: Path, n: int) -> list[Trial]:
    """Hand out up to `n` runs; see `Sweep.ask`."""
    with asking(spec, folder) as session:
        return session.ask(n)


#: The objective, one number for each of several, or metrics by name.
Value: TypeAlias = float | Sequence[float] | Mapping[str, float]


def tell(
    spec: SweepSpec,
    folder: Path,
    trial: Trial | int,
    value: Value | None,
    *,
    error: str,
    interrupted: bool,
) -> None:
    """Record how a run ended; see `Sweep.tell`."""
    asked = find_outstanding(folder, check_folder(spec, folder), trial)
    write_result(asked.batch, _result(asked, value, error=error, interrupted=interrupted), n=0)
    with asking(spec, folder) as session:
        session.take_in()


def outstanding(folder: Path, state: SweepState) -> list[Asked]:
    """The runs that were handed out and not told."""
    return [asked for batch in _batches(state) for asked in _handed_out(Layout(folder.resolve()), batch)]


def find_outstanding(folder: Path, state: SweepState | None, trial: Trial | int) -> Asked:
    """The run of this trial that was handed out and not told.

    Raises:
        SpecError: There is none.
    """
    number = trial if isinstance(trial, int) else trial.id
    runs = [] if state is None else outstanding(folder, state)
    asked = next((each for each in runs if each.run.trial == number), None)
    stale = not isinstance(trial, int) and asked is not None and asked.run.rung != trial.rung
    if asked is None or stale:
        raise SpecError(
            f"tell: trial {number} has no run that was asked for and not told; these have: "
            f"{', '.join(str(each.run.trial) for each in runs) or 'none'}"
        )
    return asked


class AskSession:
    """Holds the journal, for many calls in a row."""

    def __init__(self, driver: Driver, cluster: AskCluster) -> None:
        self._driver = driver
        self._cluster = cluster

    @property
    def done(self) -> bool:
        """Whether the sweep has ended."""
        return self._driver.state.ended is not None

    def ask(self, n: int) -> list[Trial]:
        """Hand out up to `n` runs."""
        driver = self._driver
        self._cluster.allowed = n + len(outstanding(driver.layout.root, driver.state))
        _tick(driver)
        return [asked.trial() for asked in list(_hand_out(driver, n))]

    def outstanding(self) -> list[Trial]:
        """The runs that were handed out and not told."""
        return [each.trial() for each in outstanding(self._driver.layout.root, self._driver.state)]

    def tell(self, trial: Trial) -> None:
        """Record the end of a run that has reported; it is taken in with the next `ask`."""
        asked = find_outstanding(self._driver.layout.root, self._driver.state, trial)
        write_result(asked.batch, _result(asked, None, error="", interrupted=False), n=0)

    def take_in(self) -> None:
        """Take in what was told."""
        _tick(self._driver)


@contextlib.contextmanager
def asking(spec: SweepSpec, folder: Path, *, compacts: bool = True) -> Iterator[AskSession]:
    """Hold the sweep's journal until the block ends; starts the sweep if it is new.

    Args:
        spec: Of the sweep.
        folder: Its results folder.
        compacts: Whether to compact what has ended, at the end.

    Raises:
        FolderError: The folder cannot be used, or is of another sweep.
        HeldError: Another driver is at work, also after a while.
    """
    state = check_folder(spec, folder)
    layout, clock = Layout(folder.resolve()), SystemClock()
    cluster = AskCluster()
    if state is not None:
        cluster.allowed = len(outstanding(folder, state))
    session = Session(spec, folder, state=state, target=asked_target(spec, cluster))
    journal = wait_for_journal(layout, clock)
    with session.open(clock=clock, journal=journal) as driver:
        if state is None:
            session.record_launch()
        yield AskSession(driver, cluster)
        if compacts:
            driver.compact()


def _tick(driver: Driver) -> None:
    """Tick until nothing is left to conclude: what looks gone is looked at twice."""
    for _ in range(4):
        if not driver.tick() and not driver.monitor.undecided:
            return


def _batches(state: SweepState) -> list[BatchState]:
    return [batch for batch in state.live.values() if batch.cluster == ASK and batch.job is not None]


def _handed_out(layout: Layout, batch: BatchState) -> Iterator[Asked]:
    files = layout.batch(batch.name)
    for task in sorted(claimed_tasks(files) - told_tasks(files) - stopped_tasks(files)):
        header, found = read_task(files, task)
        if any(run_id(run) in batch.unfinished for run in found.runs):
            yield Asked(files, task, header, found.runs[0])


def _hand_out(driver: Driver, n: int) -> Iterator[Asked]:
    """Claim tasks of live batches, those of high rungs first, as far as the caps allow."""
    waiting: list[tuple[BatchState, Asked]] = []
    room: dict[str, int] = {}
    for batch in _batches(driver.state):
        files = driver.layout.batch(batch.name)
        claimed, told = claimed_tasks(files), told_tasks(files)
        room[batch.name] = batch.throttle - len(claimed - told - stopped_tasks(files))
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


def _metrics(value: Value, program: Program) -> Mapping[str, float]:
    """By name; SpecError where there is not one for each of several objectives."""
    if isinstance(value, Mapping):
        return value
    names = program.measured.metrics
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(values) != len(names):
        expected = f"expected one for each objective: {', '.join(names)}"
        raise SpecError(f"tell: {expected}, got {plural(len(values), 'value')}")
    return dict(zip(names, values, strict=True))


def _result(
    asked: Asked,
    value: Value | None,
    *,
    error: str,
    interrupted: bool,
) -> Result:
    """What a worker would have written."""
    run, program, start = asked.run, asked.program, asked.checkpoint()
    if value is not None and not (error or interrupted):
        metrics = _metrics(value, program)
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
        values=outcome.values,
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
        checkpoints=measure(asked.layout, checkpoints.newest(asked.layout)),
    )
