"""Detached sweeps whose ticks fail for a while: each goes on by itself, on real daemons."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcsweep.core.events import RunFinished, SweepStarted

from .fixture import PrivateSlurm
from .sweeps import Sweep, wait_until

#: What would start in a minute or later starts in three seconds; what only watches still comes in an hour.
SOON = """\
args=() script=-
for word in "$@"; do
  if [ -f "$word" ]; then script=$word; else args+=("${word/begin=now+*/begin=now+3}"); fi
done
sed 's/begin=now+60$/begin=now+3/' "$script" | $real "${args[@]}"
"""
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
    """A sweep of 12 runs of about eight seconds, four at a time; after the first four it is held."""
    sweep = Sweep(
        slurm,
        folder,
        "scheduler={name: fifo, max_resource: 8}",
        f"budget.trials={TRIALS}",
        *sets,
        max_gpus=4,
        pause=1.0,
        holds={"hold": "trial.id >= 4"},
    )
    sweep.put_before("sbatch", SOON)
    return sweep


def jobs_of(sweep: Sweep, states: str, *, suffix: str = "") -> list[str]:
    """Its jobs, and tasks of arrays, in these states."""
    name = f"free-{sweep.of_kind(SweepStarted)[0].sweep}-"
    rows = sweep.slurm.squeue(states=states)
    return [row.job for row in rows if row.name.startswith(name) and row.name.endswith(suffix)]


def tick_jobs(sweep: Sweep, states: str) -> list[str]:
    """Those of its jobs in these states that tick."""
    return jobs_of(sweep, states, suffix="-tick")


def cancel_tick_jobs(sweep: Sweep) -> set[str]:
    """Cancel them; all that there have been."""
    jobs = tick_jobs(sweep, "pending,running")
    assert jobs
    sweep.slurm.run("scancel", *jobs)
    return set(tick_jobs(sweep, "all"))


def cancel_all(sweep: Sweep) -> None:
    """Cancel all its jobs, and those that one of them submits meanwhile."""

    def none_is_left() -> bool:
        if jobs := jobs_of(sweep, "pending,running"):
            sweep.slurm.run("scancel", *jobs)
        return not jobs_of(sweep, "pending,running,completing")

    wait_until("all are cancelled", none_is_left)


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
    cancel_all(abandoned)
    launch_detached(*sweeps)

    control = unreadable.root / "control"
    ticked = len(tick_jobs(unreadable, "completed"))
    with contextlib.suppress(FileNotFoundError):
        control.rename(unreadable.folder / "control")
    control.write_text("a file in its place cannot be listed, by root neither\n")
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as file:
        while file.write(bytes(4096)):
            pass
    gone = cancel_tick_jobs(cancelled)
    broken.touch()
    for sweep in sweeps:
        sweep.release("hold")
    abandoned.release("hold")
    # While a last tick is at work the queue need not be asked.
    wait_until("status tells", lambda: (abandoned.status()["liveness"] or {}).get("driven") is False)
    assert "nobody drives this sweep: no task or tick job of it is in the queue" in abandoned.told("status")
    wait_until("a tick comes and goes", lambda: len(tick_jobs(unreadable, "completed")) > ticked)
    wait_until("ticks fail", lambda: min(len(tick_jobs(each, "failed")) for each in (full, no_setup)) >= 2)
    wait_until("another tick job comes", lambda: bool(set(tick_jobs(cancelled, "all")) - gone))
    control.unlink()
    (small_disk / "filler").unlink()
    broken.unlink()

    assert "looks again in" in (no_setup.root / "ticks.log").read_text()
    assert "finished" in abandoned.finish()
    for sweep in sweeps:
        sweep.ends_by_itself(900)
        ended = Counter(event.run for event in sweep.of_kind(RunFinished))
        assert set(ended.values()) == {1}
        assert len(ended) == TRIALS
        assert set(sweep.runs["outcome"]) == {"completed"}
