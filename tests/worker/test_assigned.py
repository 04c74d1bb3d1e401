"""A task that keeps its GPUs and is given run after run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from hpcsweep.core.events import Interruption, Outcome, RunId
from hpcsweep.store.assignments import (
    Assignment,
    StartId,
    TaskDeparture,
    TaskStart,
    new_announcements,
    request_leave,
    write_assignment,
)
from hpcsweep.store.batch import Reuse, read_result, request_stop
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

START = StartId(0, 0)
TRAIN = """
    import os, signal, time
    def train(trial):
        print("trial", trial.id, "in process", os.getpid())
        if trial.id == 1:
            raise ValueError("not this one")
        if trial.id == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.id == 3:
            for step in range(600):
                time.sleep(0.1)
        return trial.id
"""


def announced(bench: Bench) -> list[TaskStart | TaskDeparture]:
    return [message for _, _, message in new_announcements(bench.batch, ())]


def departure(bench: Bench) -> TaskDeparture:
    return next(message for message in announced(bench) if isinstance(message, TaskDeparture))


def give(bench: Bench, number: int, trial: int, **fields: int) -> None:
    run = bench.run(trial, 1)
    write_assignment(bench.batch, START, number, Assignment(run, **fields))


def ended(bench: Bench, number: int) -> Callable[[], bool]:
    return bench.batch.result(0, 0, number).exists


@pytest.fixture
def begin(bench: Bench) -> Callable[..., subprocess.Popen[bytes]]:
    def begun(*, idle_s: float = 60.0, **options: int) -> subprocess.Popen[bytes]:
        function, reuse = bench.code(TRAIN) + ":train", Reuse(idle_s)
        bench.plan((), function=function, reuse=reuse, notice_s=1.0, grace_s=2.0, **options)
        worker = bench.start()
        wait_until(lambda: bool(announced(bench)))
        return worker

    return begun


def test_a_task_does_one_run_after_another_whatever_becomes_of_each_until_it_is_told_to_leave(
    bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    worker = begin()
    for number, trial in enumerate((0, 1, 2, 4)):
        give(bench, number, trial)
        wait_until(ended(bench, number))
    request_leave(bench.batch, START)
    assert worker.wait(PATIENCE_S) == 0
    results = [read_result(bench.batch.result(0, 0, number)) for number in range(4)]
    assert [result.outcome for result in results] == [
        Outcome.COMPLETED,
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.COMPLETED,
    ]
    assert [result.value for result in results] == [0.0, None, None, 4.0]
    assert departure(bench).taken == 4
    assert "trial 4 in process" in bench.batch.assigned_log(0, 0, 3).read_text()


def test_what_is_assigned_ahead_begins_when_the_run_before_has_ended(
    bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    worker = begin()
    for number, trial in enumerate((0, 4)):
        give(bench, number, trial)
    request_leave(bench.batch, START)  # it does what it was given before
    assert worker.wait(PATIENCE_S) == 0
    first, second = (read_result(bench.batch.result(0, 0, number)) for number in range(2))
    assert first.started is not None
    assert second.started is not None
    assert second.started >= first.started + first.seconds - 0.1


def test_a_task_without_a_run_leaves_after_the_idle_time(
    bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    worker = begin(idle_s=1.0)
    assert worker.wait(PATIENCE_S) == 0
    assert departure(bench).taken == 0
    assert "no run for 1 s" in departure(bench).reason


def test_a_run_that_reaches_its_own_time_limit_is_told_and_its_task_goes_on(
    bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    worker = begin()
    give(bench, 0, 3, time_s=2)
    wait_until(ended(bench, 0))
    give(bench, 1, 0)
    wait_until(ended(bench, 1))
    request_leave(bench.batch, START)
    assert worker.wait(PATIENCE_S) == 0
    first, second = (read_result(bench.batch.result(0, 0, number)) for number in range(2))
    assert (first.outcome, first.interrupted) == (None, Interruption.TIMEOUT)
    assert first.seconds < 45, "the whole would take 60"
    assert second.outcome is Outcome.COMPLETED


def test_a_task_that_is_told_to_stop_leaves_before_its_run_has_ended(
    bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    worker = begin()
    give(bench, 0, 3)
    give(bench, 1, 0)
    wait_until(lambda: bench.batch.assigned_log(0, 0, 0).exists())
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    assert departure(bench).taken == 1
    assert read_result(bench.batch.result(0, 0, 0)).interrupted is Interruption.PREEMPTED
    assert not bench.batch.result(0, 0, 1).exists()


def test_a_task_that_is_to_leave_at_once_interrupts_its_run(
    bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    worker = begin()
    give(bench, 0, 3)
    wait_until(lambda: bench.batch.assigned_log(0, 0, 0).exists())
    request_leave(bench.batch, START, at_once=True)
    assert worker.wait(PATIENCE_S) == 0
    assert (departure(bench).taken, departure(bench).reason) == (1, "the driver has it leave at once")
    assert read_result(bench.batch.result(0, 0, 0)).interrupted is Interruption.PREEMPTED


def test_a_run_that_was_stopped_and_is_given_again_is_trained(
    bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    request_stop(bench.batch, RunId(0, 0))
    worker = begin()
    give(bench, 0, 0)
    wait_until(ended(bench, 0))
    assert read_result(bench.batch.result(0, 0, 0)).outcome is Outcome.COMPLETED
    request_leave(bench.batch, START)
    assert worker.wait(PATIENCE_S) == 0


def test_lanes_do_runs_beside_each_other(bench: Bench, begin: Callable[..., subprocess.Popen[bytes]]) -> None:
    worker = begin(lanes=2)
    give(bench, 0, 3)
    give(bench, 1, 0)
    wait_until(ended(bench, 1))
    assert not bench.batch.result(0, 0, 0).exists()
    request_leave(bench.batch, START, at_once=True)
    assert worker.wait(PATIENCE_S) == 0
    assert departure(bench).taken == 2
