"""Tasks that keep their GPUs for run after run, on real daemons."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from hpcsweep.core.events import BatchPlanned, RunFinished, RunInterrupted, SweepEnded, TaskBegan, TaskLeft
from tests.driver.sweeps import TABLE_27, rung_table

from .fixture import PrivateSlurm
from .sweeps import Sweep, finish, wait_until
from .test_accounting import TRAINER as CHECKPOINTS

REUSING = ("cluster.reuse=true", "cluster.idle=60")


def check_whole(sweep: Sweep) -> None:
    """Exact rungs, each run counted once, and only as many units trained as interruptions explain."""
    runs = sweep.runs
    assert rung_table(runs) == TABLE_27
    assert set(runs["outcome"]) == {"completed"}
    finished = sweep.of_kind(RunFinished)
    assert len({event.run for event in finished}) == len(finished) == len(runs)
    assert list((sweep.root / "batches").rglob("results/*.json")) == []


def nothing_is_left_in_the_queue(sweep: Sweep) -> None:
    wait_until("its tasks have left", lambda: not sweep.slurm.squeue(states="pending,running"))


def test_a_sweep_of_four_rungs_waits_in_the_queue_once(slurm: PrivateSlurm, tmp_path: Path) -> None:
    hold = {"hold": "trial.resource == 1"}
    with Sweep(slurm, tmp_path / "s", *REUSING, max_resource=27, max_gpus=4, holds=hold) as sweep:
        driver = sweep.launch()
        wait_until("four tasks have begun", lambda: len(sweep.of_kind(TaskBegan)) == 4)
        sweep.release("hold")
        finish(driver)
        nothing_is_left_in_the_queue(sweep)
        check_whole(sweep)
        [batch] = sweep.of_kind(BatchPlanned)
        assert (batch.reuse, batch.throttle) == (True, 4)
        assert len(batch.tasks) >= 4, "some wait to take the place of others"
        assert len(sweep.of_kind(TaskBegan)) == 4
        assert sweep.of_kind(RunInterrupted) == []


def test_requeued_and_cancelled_tasks_and_a_killed_driver_change_nothing(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    hold = {"hold": "trial.resource == 1 and trial.id >= 12"}
    with Sweep(slurm, tmp_path / "s", *REUSING, max_resource=27, max_gpus=4, holds=hold) as sweep:
        driver = sweep.launch()
        wait_until("ten runs have ended", lambda: len(sweep.of_kind(RunFinished)) >= 10)
        ((_, array),) = sweep.submitted()
        slurm.run("scontrol", "requeue", f"{array}_0")
        slurm.run("scancel", f"{array}_1")
        wait_until("it began again", lambda: any(event.restart for event in sweep.of_kind(TaskBegan)))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        sweep.release("hold")
        time.sleep(1.0)
        finish(sweep.launch())
        nothing_is_left_in_the_queue(sweep)
        check_whole(sweep)
        assert len(sweep.of_kind(BatchPlanned)) <= 3
        assert {event.restart for event in sweep.of_kind(TaskBegan)} >= {0, 1}
        assert all(not event.requeued for event in sweep.of_kind(RunInterrupted))


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_detached_sweep_is_driven_by_its_tasks_while_they_go_on(
    slurm: PrivateSlurm, tmp_path: Path, lanes: int
) -> None:
    options = (*REUSING, f"cluster.concurrent={lanes}")
    with Sweep(slurm, tmp_path / "s", *options, max_resource=9, max_gpus=4) as sweep:
        driver = sweep.launch("--detach")
        out, _ = driver.communicate(timeout=120)
        assert driver.returncode == 3, out
        wait_until("the sweep has ended", lambda: bool(sweep.of_kind(SweepEnded)))
        nothing_is_left_in_the_queue(sweep)
        assert len(sweep.of_kind(RunFinished)) == 22
        [batch] = sweep.of_kind(BatchPlanned)
        assert len(batch.tasks) == 4 // lanes
        assert (sweep.root / "ticks.log").read_text() == ""


def test_a_lowered_cap_frees_gpus_within_seconds_and_a_raised_one_takes_them_again(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    sets = (*REUSING, "scheduler={name: fifo, max_resource: 9}", "budget.trials=8", "cluster.signal=5")
    hold = {"hold": "step > 4"}
    with Sweep(slurm, tmp_path / "s", *sets, max_gpus=4, trainer=CHECKPOINTS, holds=hold) as sweep:

        def running() -> int:
            return len(sweep.slurm.squeue(states="running"))

        def trained() -> int:
            return len(list(sweep.root.glob("trials/*/*/checkpoints/step-4")))

        driver = sweep.launch()
        wait_until("all train", lambda: trained() == running() == 4)
        driver.send_signal(signal.SIGINT)
        driver.wait()
        driver = sweep.launch("--set", "cluster.max_gpus=2")
        wait_until("two have left", lambda: running() == 2)
        driver.send_signal(signal.SIGINT)
        driver.wait()
        driver = sweep.launch("--set", "cluster.max_gpus=4")
        wait_until("all train again", lambda: running() == 4)
        sweep.release("hold")
        finish(driver)
        nothing_is_left_in_the_queue(sweep)
        assert set(sweep.runs["outcome"]) == {"completed"}
        reasons = [event.reason for event in sweep.of_kind(TaskLeft)]
        assert reasons.count("the driver has it leave at once") == 2
        interrupted = sweep.of_kind(RunInterrupted)
        assert len(interrupted) == 2
        # What was trained before is not trained again.
        assert all(event.progressed and event.step > 4 for event in interrupted)
