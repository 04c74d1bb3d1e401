"""Detached sweeps whose ticks fail for a while: each goes on by itself, on real daemons."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcsweep.core.events import RunFinished, SweepEnded, SweepStarted

from .fixture import PrivateSlurm
from .sweeps import Sweep, wait_until

#: What would start in a minute or later starts in three seconds.
SOON = """\
args=()
for word in "$@"; do
  if [ -f "$word" ]; then
    short=$(mktemp "$(dirname "$0")/script.XXXXXX")
    sed 's/begin=now+[0-9]*/begin=now+3/' "$word" >"$short"
    word=$short
  fi
  args+=("${word/begin=now+*/begin=now+3}")
done
exec $real "${args[@]}"
"""
#: So long each fault lasts: several ticks fall into it.
FAULT_S = 12.0
TRIALS = 12


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=20k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def made(slurm: PrivateSlurm, folder: Path, *sets: str) -> Sweep:
    """A sweep of 12 runs of about eight seconds, four at a time."""
    sweep = Sweep(
        slurm,
        folder,
        "scheduler={name: fifo, max_resource: 8}",
        f"budget.trials={TRIALS}",
        *sets,
        max_gpus=4,
        pause=1.0,
    )
    sweep.put_before("sbatch", SOON)
    return sweep


def name_of(sweep: Sweep) -> str:
    return f"free-{sweep.of_kind(SweepStarted)[0].sweep}-"


def cancel_tick_jobs(sweep: Sweep) -> None:
    rows = sweep.slurm.squeue(states="pending,running")
    jobs = [row.job for row in rows if row.name.startswith(name_of(sweep)) and row.name.endswith("-tick")]
    assert jobs
    sweep.slurm.run("scancel", *jobs)


def launch_detached(*sweeps: Sweep) -> None:
    """Launch them, and wait until a run of each has ended."""
    for process in [sweep.launch("--detach") for sweep in sweeps]:
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 3, out
    for sweep in sweeps:
        wait_until("a run ended", lambda sweep=sweep: bool(sweep.of_kind(RunFinished)))  # type: ignore[misc]


def test_detached_sweeps_survive_faults_of_files_set_up_and_tick_jobs(
    slurm: PrivateSlurm, tmp_path: Path, small_disk: Path
) -> None:
    broken = tmp_path / "broken"
    setup = f'cluster.setup=["test ! -e {broken} || exit 1"]'
    unreadable = made(slurm, tmp_path / "control")
    full = made(slurm, small_disk / "full")
    cancelled = made(slurm, tmp_path / "cancelled")
    no_setup = made(slurm, tmp_path / "setup", setup)
    abandoned = made(slurm, tmp_path / "abandoned", "budget.trials=8")
    sweeps = (unreadable, full, cancelled, no_setup)
    launch_detached(abandoned)
    slurm.run("scancel", *{row.job for row in slurm.squeue() if row.name.startswith(name_of(abandoned))})
    launch_detached(*sweeps)

    control = unreadable.root / "control"
    with contextlib.suppress(FileNotFoundError):
        control.rename(unreadable.folder / "control")
    control.write_text("a file in its place cannot be listed, by root neither\n")
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as file:
        while file.write(bytes(4096)):
            pass
    cancel_tick_jobs(cancelled)
    broken.touch()
    # While a last tick is at work the queue need not be asked.
    wait_until("status tells", lambda: (abandoned.status()["liveness"] or {}).get("driven") is False)
    assert "nobody drives this sweep: no task or tick job of it is in the queue" in abandoned.told("status")
    time.sleep(FAULT_S)
    control.unlink()
    (small_disk / "filler").unlink()
    broken.unlink()

    assert "looks again in" in (no_setup.root / "ticks.log").read_text()
    assert "finished" in abandoned.finish()
    for sweep in sweeps:
        wait_until(
            "the sweep ends by itself",
            lambda sweep=sweep: bool(sweep.of_kind(SweepEnded)),  # type: ignore[misc]
            900,
        )
        assert sweep.of_kind(SweepEnded)[0].reason == "all trials are done", sweep.told("status")
        ended = Counter(event.run for event in sweep.of_kind(RunFinished))
        assert set(ended.values()) == {1}
        assert len(ended) == TRIALS
        assert set(sweep.runs["outcome"]) == {"completed"}
