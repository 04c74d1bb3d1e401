"""The examples of several processes: they learn, and go on from their checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd

import hpcsweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


def train(folder: Path, name: str, *sets: str, epochs: int) -> pd.DataFrame:
    """One trial of the example up to so many epochs, on this machine; the table of its runs."""
    ours = ("budget.trials=1", "cluster.name=local", "cluster.slots=1", *sets)
    argv = [sys.executable, "-m", "hpcsweep", "launch", str(SWEEPS / f"{name}.yaml"), "--results", "r"]
    scheduler = f"scheduler={{name: fifo, max_resource: {epochs}}}"
    argv += [word for each in (scheduler, *ours) for word in ("--set", each)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return hpcsweep.load(folder / "r").runs


def test_torchrun_trains_two_processes_data_parallel(tmp_path: Path) -> None:
    (value,) = train(tmp_path, "digits_ddp", epochs=2)["value"]
    assert value < 0.4, "0.9 is chance"


def test_a_network_that_is_split_over_two_processes_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    # Without torchrun, which would import torch once more.
    (first,) = train(tmp_path, "digits_pipeline", "train.launcher=srun", epochs=1)["value"]
    runs = train(tmp_path, "digits_pipeline", "train.launcher=srun", epochs=2)
    assert list(runs["start_resource"]) == [0, 1]
    assert runs["value"].iloc[-1] < first
