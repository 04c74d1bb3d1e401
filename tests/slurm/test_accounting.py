"""Sweeps where the cluster keeps accounts: what they cost, the limits that are set there, who cancelled."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from hpcsweep.core.events import (
    BatchAbandoned,
    Interruption,
    RunInterrupted,
    SweepEnded,
    SweepOutcome,
    TaskBegan,
)
from tests.compacted import batch_files

from .fixture import ACCOUNT, AccountRow, PrivateSlurm
from .sweeps import Sweep, finish, wait_until

#: Leaves a checkpoint at each step.
TRAINER = """\
import time

def train(trial):
    for step in trial.steps():
        time.sleep(trial.config["pause"])
        trial.report(step, loss=(trial.config["x"] - 0.3) ** 2 + 1 / step)
        with trial.checkpoint(step) as folder:
            (folder / "state").write_text(str(step))
"""


def trials(
    slurm: PrivateSlurm, folder: Path, *sets: str, epochs: int, pause: float = 1.0, hold: str = "False"
) -> Sweep:
    """A sweep of independent trials of so many epochs, a pause each; some are held (see `write_sweep`)."""
    fifo = f"scheduler={{name: fifo, max_resource: {epochs}}}"
    holds = {"hold": hold}
    return Sweep(slurm, folder, fifo, *sets, max_gpus=16, pause=pause, trainer=TRAINER, holds=holds)


def tasks(sweep: Sweep, *, states: str = "all") -> list[str]:
    """Its tasks that the controller shows in these states, as Slurm's programs name them."""
    names = {name for name, _ in sweep.submitted()}
    return [f"{row.job}_{row.task}" for row in sweep.slurm.squeue(states=states) if row.name in names]


def reached(sweep: Sweep, step: int) -> set[int]:
    """Trials whose newest checkpoint is of this step."""
    return {int(path.parts[-3]) for path in sweep.root.glob(f"trials/*/*/checkpoints/step-{step}")}


def running(sweep: Sweep, n: int, *, driver: subprocess.Popen[str]) -> list[str]:
    """Waits for so many running tasks."""

    def are_there() -> bool:
        assert driver.poll() is None, driver.communicate()
        return len(tasks(sweep, states="running")) >= n

    wait_until(f"{n} running", are_there)
    return tasks(sweep, states="running")


def accounted(sweep: Sweep) -> list[AccountRow]:
    """Every start of every task of the sweep, as the accounts have it."""
    return sweep.slurm.accounted(*(job for _, job in sweep.submitted()))


def settled(sweep: Sweep) -> list[AccountRow]:
    """The same of a sweep that has ended."""
    return sweep.slurm.settled(*(job for _, job in sweep.submitted()))


def gpu_s(rows: list[AccountRow]) -> int:
    return sum(row.seconds * row.gpus for row in rows)


def assert_agrees(sweep: Sweep, rows: list[AccountRow]) -> None:
    """The GPU hours that are told are those of the accounts, which count each start in whole seconds."""
    told = float(sweep.status()["gpu_hours"]) * 3600
    whole_seconds = sum(row.gpus for row in rows)
    assert told == pytest.approx(gpu_s(rows), rel=0.02, abs=whole_seconds)
    shortest = min(row.seconds * row.gpus for row in rows)
    assert shortest > max(whole_seconds, 0.02 * gpu_s(rows)), "a start that is left out would not show"


def why_interrupted(sweep: Sweep) -> dict[str, Interruption]:
    """By the task, as Slurm names it."""
    return {event.job: event.interruption for event in sweep.of_kind(RunInterrupted)}


def path_without(folder: Path, program: str) -> str:
    """A PATH on which nothing is missing but this program."""
    folder.mkdir()
    for directory in map(Path, os.environ["PATH"].split(os.pathsep)):
        for each in directory.iterdir() if directory.is_dir() else ():
            link = folder / each.name
            if each.name != program and not link.is_symlink():
                link.symlink_to(each)
    return str(folder)


# --------------------------------------------------------------------------- cost, and who cancelled


class Played(NamedTuple):
    """A sweep that has ended.

    Attributes:
        hit: Tasks to which something was done, in this order.
        out: What `launch` printed.
    """

    sweep: Sweep
    hit: tuple[str, ...]
    out: str


def requeued_and_cancelled(slurm: PrivateSlurm, folder: Path) -> Played:
    sets = ("budget.trials=6", "resources.gpus=2", "cluster.max_gpus=6")
    sweep = trials(slurm, folder, *sets, epochs=21, hold="step == 11")
    driver = sweep.launch()
    requeued, cancelled, *_ = running(sweep, 3, driver=driver)
    wait_until("three are held", lambda: reached(sweep, 10) == {0, 1, 2})
    slurm.run("scontrol", "requeue", requeued)
    slurm.run("scancel", cancelled)
    sweep.release("hold")
    return Played(sweep, (requeued, cancelled), finish(driver))


def forgotten(slurm: PrivateSlurm, folder: Path) -> Played:
    """Nobody looks until all tasks have ended and are shown no more."""
    sweep = trials(slurm, folder, "budget.trials=4", epochs=10, hold="step == 10")
    driver = sweep.launch()
    running(sweep, 4, driver=driver)
    driver.send_signal(signal.SIGSTOP)
    sweep.release("hold")
    wait_until("nothing is shown any more", lambda: not tasks(sweep))
    driver.send_signal(signal.SIGCONT)
    return Played(sweep, (), finish(driver))


def cancelled_by_two(slurm: PrivateSlurm, folder: Path) -> Played:
    """By the user and by an operator."""
    slurm.sacctmgr("add", "user", "nobody", f"account={ACCOUNT}", "adminlevel=operator")
    sweep = trials(slurm, folder, "budget.trials=3", epochs=8, hold="step == 4")
    driver = sweep.launch()
    ours, theirs, *_ = running(sweep, 3, driver=driver)
    wait_until("three are held", lambda: reached(sweep, 3) == {0, 1, 2})
    driver.send_signal(signal.SIGSTOP)
    time.sleep(0.5)  # a squeue may be under way
    slurm.run("scancel", ours)
    slurm.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "scancel", theirs)
    by_whom = {ours: "CANCELLED by 0", theirs: f"CANCELLED by {pwd.getpwnam('nobody').pw_uid}"}

    def cancelled() -> dict[str, str]:
        return {row.task: row.state for row in accounted(sweep) if row.state.startswith("CANCELLED")}

    wait_until("both are cancelled", lambda: cancelled() == by_whom)
    sweep.release("hold")
    driver.send_signal(signal.SIGCONT)
    return Played(sweep, (ours, theirs), finish(driver))


#: What a third of 24 runs of 17 s takes. Each of them may take a minute, and Slurm may announce the end
#: of that minute from its 20th second on.
CAP_GPU_S = 130


def capped(slurm: PrivateSlurm, folder: Path) -> Played:
    hours = f"budget.gpu_hours={CAP_GPU_S / 3600:.9f}"
    time_limit = ("resources.time=1m", "cluster.signal=10")
    sweep = trials(slurm, folder, "budget.trials=24", hours, *time_limit, epochs=15)
    return Played(sweep, (), sweep.finish())


Scene = Callable[[PrivateSlurm, Path], Played]


@pytest.fixture(scope="module")
def played(
    cluster_with_accounts: PrivateSlurm, tmp_path_factory: pytest.TempPathFactory
) -> dict[Scene, Future[Played]]:
    """The sweeps that mostly wait, each at its end; they go on at the same time."""
    scenes: list[Scene] = [requeued_and_cancelled, forgotten, cancelled_by_two, capped]
    with ThreadPoolExecutor(len(scenes)) as pool:
        return {
            scene: pool.submit(scene, cluster_with_accounts, tmp_path_factory.mktemp(scene.__name__))
            for scene in scenes
        }


def test_cost_agrees_with_the_accounts_requeued_and_cancelled_starts_included(
    played: dict[Scene, Future[Played]],
) -> None:
    sweep, (requeued, cancelled), _ = played[requeued_and_cancelled].result()
    rows = settled(sweep)
    assert sorted(row.state for row in rows) == ["CANCELLED by 0", *["COMPLETED"] * 6, "REQUEUED"]
    assert why_interrupted(sweep) == {requeued: Interruption.PREEMPTED, cancelled: Interruption.CANCELLED}
    assert_agrees(sweep, rows)


def test_cost_of_tasks_that_keep_their_gpus_agrees_with_the_accounts(
    accounts: PrivateSlurm, tmp_path: Path
) -> None:
    keeps = ("cluster.reuse=true", "cluster.idle=60", "resources.gpus=2", "cluster.max_gpus=6")
    sets = ("budget.trials=12", *keeps)
    hold = "trial.id >= 3 and step == 4"
    with trials(accounts, tmp_path / "sweep", *sets, epochs=12, hold=hold) as sweep:
        driver = sweep.launch()
        wait_until("three later runs are held", lambda: len(reached(sweep, 3) - {0, 1, 2}) == 3)
        requeued, cancelled, *_ = running(sweep, 3, driver=driver)
        accounts.run("scontrol", "requeue", requeued)
        accounts.run("scancel", cancelled)
        sweep.release("hold")
        finish(driver)
        rows = settled(sweep)
        assert {row.state for row in rows if row.task == requeued} == {"REQUEUED", "COMPLETED"}
        assert [row.state for row in rows if row.task == cancelled] == ["CANCELLED by 0"]
        assert list(sweep.runs["outcome"]) == ["completed"] * 12
        why = why_interrupted(sweep)
        assert (why[requeued], why[cancelled]) == (Interruption.PREEMPTED, Interruption.CANCELLED)
        assert {event.restart for event in sweep.of_kind(TaskBegan) if event.job == requeued} == {0, 1}
        assert len(rows) < 12, "a task does several runs"
        assert_agrees(sweep, rows)


def test_cost_of_tasks_that_are_forgotten_before_anybody_looks_is_asked_of_the_accounts(
    played: dict[Scene, Future[Played]],
) -> None:
    sweep, _, _ = played[forgotten].result()
    assert (sweep.runs["attempts"] == 1).all()
    assert_agrees(sweep, settled(sweep))


def test_a_cancelled_run_goes_on_and_it_is_told_by_whom(played: dict[Scene, Future[Played]]) -> None:
    sweep, (ours, theirs), _ = played[cancelled_by_two].result()
    assert why_interrupted(sweep) == {
        ours: Interruption.CANCELLED,
        theirs: Interruption.CANCELLED_BY_ADMIN,
    }
    assert set(sweep.runs["outcome"]) == {"completed"}
    assert sorted(sweep.runs["attempts"]) == [1, 2, 2]


def test_a_budget_of_gpu_hours_is_never_exceeded(played: dict[Scene, Future[Played]]) -> None:
    sweep, _, out = played[capped].result()
    rows = settled(sweep)
    assert [row for row in rows if row.state != "COMPLETED"] == []
    assert CAP_GPU_S - 60 < gpu_s(rows) <= CAP_GPU_S
    (end,) = sweep.of_kind(SweepEnded)
    assert end.outcome is SweepOutcome.FINISHED
    used = r"budget\.gpu_hours 0\.0361111 is used up: (0\.\d+) are spent"
    told = re.fullmatch(rf"{used}, and one more task may take 0\.01667", end.reason)
    assert told is not None
    assert float(told[1]) * 3600 == pytest.approx(gpu_s(rows), rel=0.02, abs=len(rows))
    best = sweep.runs.loc[sweep.runs["value"].idxmin()]
    assert f"finished: {end.reason}" in out
    assert f"best: loss {best['value']:.6g} (trial {best['trial']} at step 15)" in out
    scripts = [data for name, data in batch_files(sweep.root).items() if name.endswith("/script.sbatch")]
    assert scripts
    assert all(b"#SBATCH --no-requeue" in data for data in scripts), "a second start could cost as much again"


# --------------------------------------------------------------------------- limits


def all_once(sweep: Sweep, count: int) -> list[BatchAbandoned]:
    """Every run is completed by its first attempt; what was refused on the way."""
    assert list(sweep.runs["outcome"]) == ["completed"] * count
    assert list(sweep.runs["attempts"]) == [1] * count
    refused = sweep.of_kind(BatchAbandoned)
    assert all(event.over_limit for event in refused)
    return refused


def test_many_trials_go_through_a_submit_limit_of_eight_without_a_refusal(
    accounts: PrivateSlurm, tmp_path: Path
) -> None:
    accounts.limit_submits(association=8)
    sweep = trials(accounts, tmp_path / "sweep", "budget.trials=24", epochs=2, pause=0.05)
    sweep.finish()
    assert all_once(sweep, 24) == []


def test_a_submit_limit_that_nobody_tells_of_is_found_by_few_refusals(
    accounts: PrivateSlurm, tmp_path: Path
) -> None:
    accounts.limit_submits(qos=8)
    sweep = trials(accounts, tmp_path / "sweep", "budget.trials=20", epochs=2, pause=0.05)
    sweep.env["PATH"] = path_without(tmp_path / "programs", "sacctmgr")
    sweep.finish()
    refused = all_once(sweep, 20)
    assert 2 <= len(refused) <= 15
    assert {event.reason.splitlines()[0] for event in refused} == {
        "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    }
