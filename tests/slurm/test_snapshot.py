"""A sweep of its own jobs that runs a copy of its code: the ticks inside of jobs run the copy too."""

from __future__ import annotations

from pathlib import Path

from hpcsweep.core.events import RunFinished

from .fixture import PrivateSlurm
from .sweeps import Sweep


def test_the_jobs_of_a_detached_sweep_go_on_with_the_copy_when_the_code_is_gone(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    halving = "scheduler={name: halving, max_resource: 4, eta: 2}"
    hold = {"hold": "trial.resource == 1"}
    sweep = Sweep(slurm, tmp_path / "copied", halving, "train.snapshot=true", max_gpus=4, holds=hold)
    process = sweep.launch("--detach")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3, out
    (sweep.folder / "trainer.py").unlink()
    sweep.release("hold")
    sweep.ends_by_itself()
    finished = sweep.of_kind(RunFinished)
    assert sorted(run.step for run in finished) == [1, 1, 1, 1, 2, 2, 4], sweep.told("status")
    assert all(run.value is not None for run in finished)
