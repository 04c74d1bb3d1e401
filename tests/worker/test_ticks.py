"""A task of a detached sweep ticks once its results are on disk, and nothing of that changes its own end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, ClassVar

import msgspec
import pytest

from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.store.batch import read_task, write_manifest
from hpcsweep.store.process_id import start_time
from hpcsweep.worker import tick_process
from hpcsweep.worker.command import TaskContext
from hpcsweep.worker.tick_process import TicksBeside
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

#: A worker whose tick is the program in TICK, with a short notice.
WORKER = """\
import os, sys
from hpcsweep.worker import __main__ as worker
sys.executable = os.environ["TICK"]
worker.TICK_NOTICE_S = 0.2
sys.exit(worker.main(sys.argv[1:]))
"""


def plan(bench: Bench, command: str, *, tick: bool = True) -> None:
    """One task of one run, of a sweep that is detached or not."""
    bench.plan_command(command, shell=True)
    header, work = read_task(bench.batch, 0)
    write_manifest(bench.batch, msgspec.structs.replace(header, tick=tick), [work.runs])


def test_a_tick_that_fails_changes_nothing_for_its_task(bench: Bench) -> None:
    plan(bench, "true")
    assert bench.work(HPCSWEEP_JOB="7_0").outcome is not None
    assert f"b1 7_0: {bench.layout.root}: expected a detached sweep" in bench.layout.tick_log.read_text()


def test_a_task_that_is_told_to_stop_does_not_tick(bench: Bench) -> None:
    begun = bench.workdir / "begun"
    plan(bench, f"touch '{begun}'; sleep 30")
    worker = bench.start()
    wait_until(begun.exists)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    (result,) = bench.results()
    assert result.interrupted is Interruption.PREEMPTED
    assert not bench.layout.tick_log.exists()


def test_a_task_of_a_sweep_that_is_not_detached_does_not_tick(bench: Bench) -> None:
    plan(bench, "true", tick=False)
    bench.work()
    assert not bench.layout.tick_log.exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_a_worker_that_is_told_to_stop_or_killed_takes_its_tick_along(
    bench: Bench, signum: signal.Signals
) -> None:
    plan(bench, "true")
    begun = bench.workdir / "tick"
    program = bench.workdir / "sleeping.sh"
    program.write_text(f"#!/bin/sh\necho $$ >'{begun}.new'; mv '{begun}.new' '{begun}'; exec sleep 60\n")
    program.chmod(0o755)
    argv = [sys.executable, "-c", WORKER, str(bench.batch.root), "--task", "0"]
    worker = subprocess.Popen(argv, env=bench.environment(TICK=str(program)), cwd="/")
    wait_until(begun.exists)
    (result,) = bench.results()
    assert result.outcome is Outcome.FAILED, "on disk before the tick: the command reports no metric"
    worker.send_signal(signum)
    assert worker.wait(PATIENCE_S) == (-signum if signum == signal.SIGKILL else 0)
    tick = int(begun.read_text())
    wait_until(lambda: start_time(tick) is None, what="the tick lives on")


class FakeTick:
    """A tick that ends when a test says so."""

    begun: ClassVar[list[FakeTick]] = []

    def __init__(self, *_: object, **how: object) -> None:
        assert how["goes_on"] is True
        self.over = self.hurried = False
        self.begun.append(self)

    def hurry(self) -> None:
        self.hurried = True


@pytest.fixture
def beside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> TicksBeside:
    plan(bench, "true")
    header, _ = read_task(bench.batch, 0)
    context = TaskContext(
        bench.batch, header, 0, restart=0, job="7_0", node="n1", scratch=bench.workdir, environ={}
    )
    monkeypatch.setattr(tick_process, "TickProcess", FakeTick)
    monkeypatch.setattr(FakeTick, "begun", [])
    return TicksBeside(context, enabled=True)


def test_a_task_that_goes_on_ticks_when_a_run_ended_and_now_and_then_while_it_waits(
    beside: TicksBeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    beside.keep(idle=True, closed=False)
    assert len(FakeTick.begun) == 1, "it has begun"
    beside.due = True
    beside.keep(idle=False, closed=False)
    assert len(FakeTick.begun) == 1, "one at a time"
    FakeTick.begun[0].over = True
    beside.keep(idle=False, closed=False)
    assert len(FakeTick.begun) == 2
    FakeTick.begun[1].over = True
    now[0] += tick_process.IDLE_TICK_S
    beside.keep(idle=False, closed=False)
    assert len(FakeTick.begun) == 2, "it trains"
    beside.keep(idle=True, closed=False)
    beside.keep(idle=True, closed=False)
    assert len(FakeTick.begun) == 3, "whoever drove may be dead"


def test_a_task_that_takes_no_more_runs_has_its_tick_hurry(beside: TicksBeside) -> None:
    beside.keep(idle=True, closed=False)
    beside.keep(idle=True, closed=True)
    (tick,) = FakeTick.begun
    assert tick.hurried
    tick.over = True
    beside.keep(idle=True, closed=True)
    assert beside.process is None
