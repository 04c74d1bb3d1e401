"""Whole sweeps on this machine, by the command line, as a user runs them."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import pytest
from typer.testing import CliRunner

import hpcsweep
from hpcsweep.cli import app
from hpcsweep.core.events import RunFinished
from hpcsweep.simulation.simulate import simulate
from hpcsweep.spec import load_spec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.compacted import batch_files
from tests.driver.sweeps import TABLE_9, TABLE_27, TABLE_81, decided, rung_table
from tests.effort import by_effort
from tests.waiting import PATIENCE_S, wait_until

#: With HOLD a trial, or "all", goes on after a report only when there is a file `go` or it is told to stop;
#: with DEAF only when there is the file.
TRAINER = """\
import os, time

def train(trial):
    held = os.environ.get("HOLD") in ("all", str(trial.id))
    for step in trial.steps():
        time.sleep(float(os.environ.get("STEP_S", 0)))
        trial.report(step, loss=(trial.config["x"] - 0.3) ** 2 + 1 / step)
        while held and not os.path.exists("go") and not (trial.should_stop and "DEAF" not in os.environ):
            time.sleep(0.02)
    with trial.checkpoint(trial.resource) as folder:
        (folder / "state").write_text(str(trial.resource))

def fails(trial):
    raise ValueError("the learning rate\\nis odd")

def other_metric(trial):
    trial.report(1, accuracy=0.5, val_loss=1.0)
"""
SPEC = """\
name: free
train: {function: trainer.py:train}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: random
scheduler: {name: hyperband, max_resource: 9}
cluster: {name: local, slots: 2}
"""
#: Five trials and six runs, where the sweep itself is not the point.
SHORT = ("--set", "scheduler.max_resource=3")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "trainer.py").write_text(TRAINER)
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC)
    return path


def command(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "hpcsweep", *map(str, argv)]


def run(spec: Path, *argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*argv),
        cwd=spec.parent,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=300,
    )


def start(spec: Path, *argv: str | Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*argv),
        cwd=spec.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **env},
    )


def ours(folder: Path) -> list[psutil.Process]:
    """Processes that work on this results folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_hyperband_is_exact_leaves_few_files_and_a_second_launch_starts_nothing(spec: Path) -> None:
    most, table, trials, runs, trained = by_effort(
        (9, TABLE_9, 17, 22, 69), (81, TABLE_81, 143, 206, 1581), ci=(27, TABLE_27, 49, 69, 357)
    )
    done = run(spec, "launch", spec, "--set", f"scheduler.max_resource={most}")
    assert done.returncode == 0, done.stderr
    folder = spec.parent / "results" / "free"
    results = hpcsweep.load(folder)
    assert rung_table(results.runs) == table
    assert (len(results.trials), len(results.runs)) == (trials, runs)
    assert (results.runs["resource"] - results.runs["start_resource"]).sum() == trained
    assert set(results.runs["outcome"]) == {"completed"}
    best = results.best
    assert best is not None
    assert best["value"] == results.trials["value"].min()
    assert f"loss {best['value']:.6g} (trial {best['trial']} at step {most})" in done.stdout
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len([path for path in files if "checkpoints" not in path.parts]) < 20
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    again = run(spec, "launch", spec, "--set", f"scheduler.max_resource={most}")
    assert again.returncode == 0
    assert "nothing is started" in again.stdout
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_resumed_driver_finds_its_running_processes(spec: Path) -> None:
    folder = spec.parent / "results" / "free"
    reference = spec.parent / "reference"
    simulate(
        load_spec(spec), lambda config, step, seed: (config["x"] - 0.3) ** 2 + 1 / step, folder=reference
    )
    instants = random.Random(2)
    for _ in range(6):
        driver = begun(spec, folder, STEP_S="0.3")
        time.sleep(instants.uniform(0.0, 0.6))
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
        assert driver.returncode == -signal.SIGKILL, "it had ended before it could be killed"
    done = run(spec, "launch", spec, STEP_S="0.3")
    assert done.returncode == 0, done.stderr
    assert decided(read_journal(Layout(folder)).events) == decided(read_journal(Layout(reference)).events)
    starts = Counter(start for text in logs_of(folder) for start in starts_in(text))
    assert len(starts) == 22
    assert set(starts.values()) == {1}, "a run was started twice"


def begun(spec: Path, folder: Path, **env: str) -> subprocess.Popen[str]:
    """A driver that is at work: it has a segment of its own."""

    def newest() -> str:
        return max((path.name for path in folder.glob("journal/*.jsonl")), default="")

    before = newest()
    driver = start(spec, "launch", spec, **env)
    wait_until(lambda: newest() > before)
    return driver


def logs_of(folder: Path) -> list[str]:
    """What the tasks printed."""
    return [data.decode() for name, data in batch_files(folder).items() if name.endswith(".log")]


def starts_in(log: str) -> list[str]:
    """The run of each start that a log tells of."""
    return re.findall(r"trial \d+ rung \d+", log)


def test_stop_ends_the_processes_and_launch_resumes(spec: Path) -> None:
    folder = spec.parent / "results" / "free"
    driver = start(spec, "launch", spec, *SHORT, HOLD="all", DEAF="1")
    wait_until(lambda: bool(ours(folder)))
    stopped = run(spec, "stop", folder)
    assert stopped.returncode == 0, stopped.stderr
    assert f"process {driver.pid}" in stopped.stdout
    (spec.parent / "go").touch()  # until then the driver waits for its runs
    out, _ = driver.communicate(timeout=PATIENCE_S)
    assert "stopped: stopped by" in out
    assert ours(folder) == []
    status = json.loads(run(spec, "status", folder, "--json").stdout)
    assert status["state"] == "stopped"
    assert status["driver"] is None
    assert run(spec, "launch", spec, *SHORT).returncode == 0
    runs = hpcsweep.load(folder).runs
    assert len(runs) == 6
    assert set(runs["outcome"]) == {"completed"}
    assert (runs["resource"] - runs["start_resource"]).min() >= 0


def test_stop_works_without_a_driver(spec: Path) -> None:
    folder = spec.parent / "results" / "free"
    assert run(spec, "launch", spec, "--once", HOLD="all").returncode == 3
    assert ours(folder)
    stopped = run(spec, "stop", folder)
    assert stopped.stdout == "stopped\n", stopped.stderr
    assert ours(folder) == []


def test_stopping_a_trial_ends_its_run_alone_and_its_task_goes_on(spec: Path) -> None:
    folder = spec.parent / "results" / "free"
    shared = ["scheduler={name: fifo, max_resource: 9}", "budget.trials=3", "cluster.slots=1"]
    options = [word for each in [*shared, "cluster.reuse=true"] for word in ("--set", each)]
    with start(spec, "launch", spec, *options, HOLD="0") as driver:
        wait_until(lambda: any(folder.rglob("metrics-*.jsonl")))
        stopped = run(spec, "stop", folder, "0")
        assert stopped.stdout.startswith(f"stop of trial 0 requested: {folder}"), stopped.stderr
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    ends = [(end.trial, end.outcome.value, end.task) for end in finished(folder)]
    assert sorted(ends) == [(0, "stopped", 0), (1, "completed", 0), (2, "completed", 0)]


def finished(folder: Path) -> list[RunFinished]:
    events = read_journal(Layout(folder)).events
    return [event for event in events if isinstance(event, RunFinished)]


def test_second_launch_names_the_driver_and_takes_over_after_a_kill(spec: Path) -> None:
    first = start(spec, "launch", spec, *SHORT, HOLD="all")
    wait_until(lambda: bool(ours(spec.parent / "results" / "free")))
    second = run(spec, "launch", spec, *SHORT)
    assert second.returncode == 3
    assert re.search(rf"process {first.pid} of \S+ on \S+ is driving this sweep since", second.stderr)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (spec.parent / "go").touch()
    assert run(spec, "launch", spec, *SHORT).returncode == 0


def test_ctrl_c_leaves_runs_going_and_prints_how_to_resume(spec: Path) -> None:
    folder = spec.parent / "results" / "free"
    driver = start(spec, "launch", spec, *SHORT, "--set", "budget={time: 1d}", HOLD="all")
    wait_until(lambda: bool(ours(folder)))
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 130
    words = "--set scheduler.max_resource=3 --set 'budget={time: 1d}'"
    assert f"Resume with: hpcsweep launch {spec} {words}\n" in out
    assert ours(folder)
    (spec.parent / "go").touch()
    assert run(spec, "launch", spec, *SHORT).returncode == 0


def test_once_from_cron_finishes_a_sweep_and_idle_ticks_write_nothing(spec: Path) -> None:
    folder = spec.parent / "results" / "free"
    codes = set()
    for _ in range(200):
        codes.add(code := run(spec, "launch", spec, *SHORT, "--once", "--quiet").returncode)
        if code == 0:
            break
    assert codes == {3, 0}
    assert len(hpcsweep.load(folder).runs) == 6
    assert len(list((folder / "journal").iterdir())) <= 8
    assert list((folder / "batches").iterdir()) == []


def test_failing_trainer_pauses_after_a_few_runs_with_its_message(spec: Path) -> None:
    done = run(spec, "launch", spec, "--set", "train.function=trainer.py:fails")
    assert done.returncode == 1
    message = (
        r"the first [56] trials failed within seconds with the same error: trainer\.py:\d+ in fails \| "
        r"ValueError: the learning rate"
    )
    assert re.search(rf"{message} is odd\.", done.stdout)
    folder = spec.parent / "results" / "free"
    status = run(spec, "status", folder).stdout
    error = r"trainer\.py:\d+ in fails \| ValueError: the learning rate is odd"
    last = rf"^crashed: trial [456] rung 0 on \S+ \(job \S+\): {error}$"
    assert re.search(last, status, re.MULTILINE)
    assert re.search(rf"{message} is odd\.", status)
    assert "Traceback (most recent call last)" in "".join(logs_of(folder))
    assert (hpcsweep.load(folder).runs["outcome"] == "failed").sum() <= 6


def test_failing_trainer_ends_with_its_last_line_if_fail_fast_is_off(spec: Path) -> None:
    options = ("--set", "train.function=trainer.py:fails", "--set", "retries.fail_fast=false", *SHORT)
    done = run(spec, "launch", spec, *options)
    assert done.returncode == 1
    last = r"no run gave a value; the last failure: trainer\.py:\d+ in fails \| ValueError: the learning"
    assert re.search(f"{last} rate is odd", done.stdout)


def test_missing_metric_fails_and_lists_the_reported_ones(spec: Path) -> None:
    done = run(spec, "launch", spec, "--set", "train.function=trainer.py:other_metric")
    assert done.returncode == 1
    assert "'loss' was never reported" in done.stdout
    assert re.search("accuracy.*val_loss", done.stdout)


def test_export_goes_to_standard_output_and_to_files(spec: Path) -> None:
    assert run(spec, "launch", spec, "--quiet", *SHORT).returncode == 0
    folder = spec.parent / "results" / "free"
    results = hpcsweep.load(folder)
    printed = run(spec, "export", folder, "--format", "csv").stdout
    assert list(pd.read_csv(io.StringIO(printed)).columns) == list(results.trials.columns)
    for table in ("trials", "runs", "metrics"):
        expected = getattr(results, table)
        for format_, read in (("csv", pd.read_csv), ("json", pd.read_json)):
            out = CliRunner().invoke(app, ["export", str(folder), "--format", format_, "--table", table])
            frame = read(io.StringIO(out.stdout))
            assert list(frame.columns) == list(expected.columns)
            assert len(frame) == len(expected)
        file = spec.parent / f"{table}.parquet"
        words = ["export", folder, "--format", "parquet", "--table", table, "--output", file]
        out = CliRunner().invoke(app, list(map(str, words)))
        assert out.exit_code == 0, out.stderr
        assert list(pd.read_parquet(file).columns) == list(expected.columns)
