"""One trial is ended by its user: by `stop`, or by cancelling its job again and again."""

from __future__ import annotations

from pathlib import Path

from hpcsweep.core.events import (
    BatchPlanned,
    BatchSubmitted,
    CheckpointsRemoved,
    Interruption,
    Outcome,
    RunFinished,
    RunInterrupted,
    TrialStopped,
)

from .fixture import PrivateSlurm
from .sweeps import Sweep, finish, wait_until
from .test_accounting import TRAINER, reached


def job_of(sweep: Sweep, trial: int, *, attempt: int = 0) -> str:
    """The task that carries this attempt of the trial, as Slurm's programs name it; waits for it to run."""
    found: list[str] = []

    def runs() -> bool:
        jobs = {event.batch: event.job for event in sweep.of_kind(BatchSubmitted)}
        carried = [
            f"{jobs[event.batch]}_{index}"
            for event in sweep.of_kind(BatchPlanned)
            for index, task in enumerate(event.tasks)
            if event.batch in jobs and trial in {run.trial for run in task}
        ]
        shown = {f"{row.job}_{row.task}" for row in sweep.slurm.squeue(states="running")}
        found[:] = carried[attempt:]
        return bool(found) and found[0] in shown

    wait_until(f"attempt {attempt} of trial {trial} runs", runs)
    return found[0]


def test_a_trial_is_stopped_and_one_that_is_cancelled_twice_stays_so_until_it_is_asked_back(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    sets = ("scheduler={name: fifo, max_resource: 9}", "budget.trials=3")
    hold = {"hold": "trial.id < 2 and step > 2"}
    with Sweep(slurm, tmp_path / "s", *sets, trainer=TRAINER, holds=hold) as sweep:
        driver = sweep.launch()
        stopped, cancelled = job_of(sweep, 0), job_of(sweep, 1)
        trial = sweep.root / "trials/0000/0"
        wait_until("both have a checkpoint", lambda: reached(sweep, 2) >= {0, 1})
        slurm.run("scancel", cancelled)
        assert sweep.told("stop", "0").startswith("stop of trial 0 requested: ")
        wait_until("the stop is taken up", lambda: bool(sweep.of_kind(TrialStopped)))
        again = job_of(sweep, 1, attempt=1)
        slurm.run("scancel", again)
        out = finish(driver)
        assert "finished: " in out
        ends = {event.trial: event for event in sweep.of_kind(RunFinished)}
        assert {number: end.outcome for number, end in ends.items()} == {
            0: Outcome.STOPPED,
            1: Outcome.CANCELLED,
            2: Outcome.COMPLETED,
        }
        assert ends[0].message.startswith("stopped by ")
        assert ends[0].value is not None
        assert 2 <= ends[0].step < 9
        assert [event.interruption for event in sweep.of_kind(RunInterrupted)] == [Interruption.CANCELLED]
        assert not {stopped, cancelled, again} & {
            f"{row.job}_{row.task}" for row in slurm.squeue(states="running,pending")
        }
        assert not trial.joinpath("checkpoints").exists(), "the checkpoint of a stopped trial is removed"
        assert [event.had_files for event in sweep.of_kind(CheckpointsRemoved)] == [(0,)]
        status = sweep.told("status")
        assert "stays cancelled: its user cancelled it on the cluster again" in status
        assert "; those of 1 trial that could not go on were removed (" in status
        sweep.release("hold")
        told = sweep.told("retry", "1")
        assert "retrying: trial 1, rung 0 (to 9), from its checkpoint of step " in told
        finish(sweep.launch())
        assert sweep.of_kind(RunFinished)[-1].outcome is Outcome.COMPLETED
