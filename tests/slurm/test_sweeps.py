"""Whole sweeps on real daemons, by the command line, as a user runs them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcsweep
from hpcsweep.core.events import BatchSubmitted, SweepStarted
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.driver.sweeps import TABLE_27, TABLE_81, rung_table
from tests.effort import by_effort

from .fixture import PrivateSlurm
from .sweeps import Sweep, drives, finish, launch, outcome, sampled, undisturbed, wait_until, write_sweep

POLL_S = 1.0


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """How often the sweep called each of Slurm's programs, by wrappers on the PATH."""
    wrappers = tmp_path / "wrappers"
    wrappers.mkdir()
    calls = tmp_path / "calls"
    calls.touch()
    for program in ("sbatch", "squeue", "sacct", "scontrol"):
        real = subprocess.run(["which", program], check=True, capture_output=True, text=True).stdout.strip()
        wrapper = wrappers / program
        count = f'[ -z "$COUNTED" ] || echo {program} >>"{calls}"'
        wrapper.write_text(f'#!/bin/sh\n{count}\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrappers}:{os.environ['PATH']}")
    return lambda program: calls.read_text().split().count(program)


def test_hyperband_is_exact_on_slurm(
    slurm: PrivateSlurm, tmp_path: Path, counted: Callable[[str], int]
) -> None:
    smaller, larger = (27, TABLE_27, 49, 69, 357), (81, TABLE_81, 143, 206, 1581)
    most, table, trials, runs, trained = by_effort(smaller, larger)
    spec = write_sweep(tmp_path, max_resource=most, max_gpus=8)
    began = time.monotonic()
    with sampled(lambda: len(slurm.squeue(states="running"))) as samples:  # a completing task is over
        finish(launch(spec, env={**os.environ, "COUNTED": "1"}))
    ticks = (time.monotonic() - began) / POLL_S
    results = hpcsweep.load(tmp_path / "results" / "free")
    assert rung_table(results.runs) == table
    assert len(results.trials) == trials
    assert len(results.runs) == runs
    assert set(results.runs["outcome"]) == {"completed"}
    assert (results.runs["resource"] - results.runs["start_resource"]).sum() == trained
    assert (results.runs["attempts"] == 1).all()
    assert results.runs["gpu_seconds"].sum() == pytest.approx(results.runs["seconds"].sum())
    assert 1 <= counted("sbatch") <= sum(len(rungs) for rungs in table.values())
    assert 3 <= counted("squeue") <= ticks + 1
    assert len(samples) > 10
    assert 2 <= max(samples) <= 8


def test_driver_killed_at_ten_instants_loses_and_repeats_nothing(slurm: PrivateSlurm, tmp_path: Path) -> None:
    hold = {"hold": "trial.resource == 9"}
    spec = write_sweep(tmp_path / "disturbed", max_resource=9, max_gpus=4, pause=0.3, holds=hold)
    instants = random.Random(1)
    root = spec.parent / "results" / "free"
    for _ in range(10):
        process = launch(spec)
        wait_until("it drives", lambda process=process: drives(root, process))  # type: ignore[misc]
        time.sleep(instants.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    (spec.parent / "hold").unlink()
    finish(launch(spec))
    assert outcome(spec.parent) == undisturbed(tmp_path / "alone", max_resource=9).outcome
    events = read_journal(Layout(root)).events
    started = next(event for event in events if isinstance(event, SweepStarted))
    arrays = {(row.name, row.job.split("_")[0]) for row in slurm.squeue() if started.sweep in row.name}
    submitted = {(event.batch, event.job) for event in events if isinstance(event, BatchSubmitted)}
    assert arrays == submitted, "one array for each intent, and none beside them"


def test_a_partition_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    spec = write_sweep(tmp_path, max_resource=3, max_gpus=8)
    refused = launch(spec, "--set", "cluster.partition=nowhere")
    out, _ = refused.communicate(timeout=120)
    assert refused.returncode == 2
    assert out == f"hpcsweep: {spec}: cluster.partition: there is no nowhere; there are gpu, urgent\n"
    assert not (tmp_path / "results").exists()


def test_refusal_shows_sbatchs_own_words_and_leaves_the_sweep_resumable(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    words = "sbatch: error: Batch job submission failed: Invalid wckey specification"
    with Sweep(slurm, tmp_path, max_resource=3) as sweep:
        sweep.put_before("sbatch", f"echo '{words}' >&2; exit 1")
        refused = sweep.launch()
        out, _ = refused.communicate(timeout=120)
        assert refused.returncode == 2, out
        assert words in out
        assert "resume with: hpcsweep launch" in out
        sweep.env["PATH"] = slurm.env["PATH"]
        sweep.finish()
        assert len(sweep.runs) == 4 + 2


def test_second_launch_names_the_driver_and_takes_over_after_a_kill(tmp_path: Path) -> None:
    spec = write_sweep(tmp_path, max_resource=3, max_gpus=4, holds={"hold": "True"})
    first = launch(spec)
    assert first.stdout is not None
    first.stdout.readline()
    journal = tmp_path / "results" / "free" / "journal"
    wait_until("the journal begins", lambda: any(path.stat().st_size for path in journal.glob("*")))
    second = launch(spec)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 3, out
    assert re.search(rf"process {first.pid} of \S+ on \S+ is driving this sweep since", out)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (tmp_path / "hold").unlink()
    finish(launch(spec))


def test_stop_cancels_the_jobs_and_launch_carries_on(slurm: PrivateSlurm, tmp_path: Path) -> None:
    spec = write_sweep(tmp_path, max_resource=3, max_gpus=2, holds={"hold": "True"})
    driver = launch(spec)
    folder = tmp_path / "results" / "free"
    wait_until("two runs go on", lambda: len(slurm.squeue(states="running")) == 2)
    command = [sys.executable, "-m", "hpcsweep"]
    subprocess.run([*command, "stop", str(folder)], check=True, timeout=120)
    driver.communicate(timeout=120)
    assert slurm.squeue(states="pending,running") == []
    text = subprocess.run([*command, "status", str(folder), "--json"], check=True, capture_output=True)
    assert json.loads(text.stdout)["state"] == "stopped"
    (tmp_path / "hold").unlink()
    finish(launch(spec))
    runs = hpcsweep.load(folder).runs
    assert len(runs) == 6
    assert set(runs["outcome"]) == {"completed"}
