"""What runs use is measured: their peak memory, shared pages once, and seconds for each step."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcsweep.core.events import Outcome
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.worker import usage
from hpcsweep.worker.process import marked
from hpcsweep.worker.usage import Held, UsageMeter, family, measure
from tests.worker.conftest import Bench

#: A process with 64 MiB that it shares with three others, one of which has a session of its own.
FORKS = r"""
import os, signal, sys, time
held = bytearray(os.urandom(1024)) * (64 << 10)
for session in (False, False, True):
    if not os.fork():
        if session:
            os.setsid()
        os.write(1, b"up\n")
        signal.pause()
os.write(1, b"up\n")
signal.pause()
"""


@pytest.fixture
def forks() -> Iterator[int]:
    """The leader of a group with four processes, one of them with a group of its own."""
    process = subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == b"up\n"
    yield process.pid
    for pid in family(process.pid):
        os.kill(pid, 9)
    process.wait()
    process.stdout.close()


def test_pages_that_processes_share_count_once(forks: int) -> None:
    processes = family(forks)
    assert len(processes) == 4, "that of another session included"
    plain, shared = measure(processes, above=float("inf")), measure(processes)
    assert plain.all > 4 * 64 << 10
    assert 64 << 10 < shared.firm <= shared.all < 2 * 64 << 10


def test_where_sharing_is_unknown_the_largest_process_counts(
    forks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: Callable[[str], object] = usage._numbers
    monkeypatch.setattr(
        usage, "_numbers", lambda path: None if path.endswith("smaps_rollup") else numbers(path)
    )
    assert 64 << 10 < measure(family(forks)).firm < 2 * 64 << 10


def test_a_process_that_has_ended_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert family(process.pid) == []
    assert measure([process.pid]) == Held(0, 0, 0)


def test_processes_of_a_run_are_found_wherever_they_are_on_the_node(tmp_path: Path) -> None:
    mark = f"HPCSWEEP_RUN={tmp_path}/a b"
    environ = {"HPCSWEEP_RUN": f"{tmp_path}/a b", "HPCSWEEP_OTHER": "c"}
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert marked(mark) == [process.pid]
        assert marked(mark.removesuffix(" b")) == []
        process.communicate(b"\n")


def test_seconds_for_each_step_leave_the_start_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = MetricsWriter(tmp_path / "metrics-0.0.0.jsonl")
    meter = UsageMeter(os.getpid(), metrics.path)
    monkeypatch.setattr(time, "monotonic", lambda: meter.wake_at)
    meter.sample()
    assert meter.unit_seconds(3) == 0.0, "nothing is reported yet"
    for step, at in ((1, 1030.0), (2, 1032.5), (3, 1035.0)):  # it takes 30 s to begin
        metrics.write(step, {"error": 0.5})
        os.utime(metrics.path, (at, at))
        meter.sample()
    assert meter.unit_seconds(3) == 2.5
    assert meter.unit_seconds(1) == 0.0, "of one step nothing is known"


def test_a_result_tells_the_peak_of_a_run_however_short(bench: Bench) -> None:
    bench.plan_python("""
        def train(trial):
            bytearray(200 << 20)
            trial.report(3, val_error=0.5)
    """)
    assert 200 <= bench.work().peak_mib < 300


#: It has 300 MiB from its second step on, and then waits for whoever ends it.
HOGS = """
    import signal

    def train(trial):
        for step in trial.steps():
            held = bytearray(1) * ((300 << 20) * (step == 2))
            if held:
                signal.pause()
            trial.report(step, val_error=0.5)
            with trial.checkpoint(step):
                pass
"""


def test_a_run_that_holds_more_than_its_limit_is_ended(bench: Bench) -> None:
    bench.plan_python(HOGS, mem_limit_mib=200)
    result = bench.work()
    assert (result.outcome, result.host_memory) == (Outcome.OUT_OF_MEMORY, True)
    assert result.message.startswith("its processes held ")
    assert result.message.endswith(" MiB, more than the 200 MiB of the run")
    assert (result.progressed, bench.newest()) == (True, 1)
    assert result.peak_mib > 200
