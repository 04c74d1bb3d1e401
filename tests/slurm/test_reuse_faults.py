"""What sweeps live through whose tasks keep their GPUs, on real daemons.

As in `test_survival` each scenario has a cluster of its own, and they go on at the same time.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Final

from hpcsweep.core.events import (
    BatchPlanned,
    Interruption,
    RunFinished,
    RunInterrupted,
    RunsAssigned,
    TaskBegan,
)

from .fixture import PrivateSlurm
from .sweeps import Sweep, finish, outcome, undisturbed, wait_until
from .test_survival import (
    TRAINER,
    _on_the_private_cluster,  # noqa: F401
    ended,  # noqa: F401
    job_processes,
    on_a_cluster,
    preempting,
)

SAME: Final[dict[str, Any]] = {"max_resource": 27, "trainer": TRAINER}
TRIALS: Final = "budget.trials=30"
REUSING: Final = ("cluster.reuse=true", "cluster.idle=60", TRIALS)


def broken_off(sweep: Sweep) -> list[RunInterrupted]:
    """Runs that had begun and did not come to their end."""
    interrupted = sweep.of_kind(RunInterrupted)
    return [event for event in interrupted if event.interruption is not Interruption.NOT_STARTED]


def check(sweep: Sweep, folder: Path) -> None:
    """The same decisions and values, each run counted once, no epoch repeated but for an interruption."""
    decisions, epochs, _ = undisturbed(folder / "undisturbed", TRIALS, max_resource=27)
    assert outcome(sweep.folder) == decisions
    finished = Counter(event.run for event in sweep.of_kind(RunFinished))
    assert set(finished.values()) == {1}
    assert set(sweep.runs["outcome"]) == {"completed"}
    assert epochs <= len(sweep.epochs()) <= epochs + len(broken_off(sweep))
    assert sweep.arrays() <= sweep.submitted(), "no array that the journal does not know"


def reaches_run(sweep: Sweep, number: int) -> tuple[str, int]:
    """Waits until a task has done so many runs and is held in the middle of another; batch and task."""
    found: list[tuple[str, int]] = []

    def is_there() -> bool:
        over = {event.run for event in sweep.of_kind(RunFinished)}
        given: dict[tuple[str, int], list[Any]] = {}
        for event in sweep.of_kind(RunsAssigned):
            given.setdefault((event.batch, event.task), []).extend(event.runs)
        held = {trial for trial, step in sweep.epochs() if step == 4}
        for task, runs in given.items():
            under_way = [run for run in runs if run not in over and run.trial in held]
            if len(over.intersection(runs)) >= number and under_way:
                found.append(task)
        return bool(found)

    wait_until(f"a task has done {number} runs", is_there)
    return found[0]


@on_a_cluster()
def test_preempted_throughout_it_ends_as_undisturbed(slurm: PrivateSlurm, folder: Path) -> None:
    hold = {"hold": "trial.resource == 27"}
    with Sweep(slurm, folder / "s", *REUSING, **SAME, pause=0.2, holds=hold) as sweep:
        with preempting(slurm):
            driver = sweep.launch()
            wait_until("a task began again", lambda: any(event.restart for event in sweep.of_kind(TaskBegan)))
            sweep.release("hold")
            finish(driver)
        check(sweep, folder)


@on_a_cluster()
def test_a_task_requeued_in_its_fifth_run_and_cancelled_ones_change_nothing(
    slurm: PrivateSlurm, folder: Path
) -> None:
    hold = {"hold": "trial.resource == 9 and step == 5"}
    with Sweep(slurm, folder / "s", *REUSING, **SAME, max_gpus=4, holds=hold) as sweep:
        driver = sweep.launch()
        batch, task = reaches_run(sweep, 4)
        job = dict(sweep.submitted())[batch]
        slurm.run("scontrol", "requeue", f"{job}_{task}")
        for other in [each for each in range(4) if each != task][:2]:
            slurm.run("scancel", f"{job}_{other}")

        def began_again() -> bool:
            return (task, 1) in {(event.task, event.restart) for event in sweep.of_kind(TaskBegan)}

        wait_until("it began again", began_again)
        sweep.release("hold")
        finish(driver)
        check(sweep, folder)


@on_a_cluster()
def test_a_dead_node_and_a_controller_that_is_away_change_nothing(slurm: PrivateSlurm, folder: Path) -> None:
    holds = {
        "before": "trial.resource == 1 and trial.id >= 5",
        "after": "trial.resource == 3 and step == 3",
    }
    with Sweep(slurm, folder / "s", *REUSING, **SAME, max_gpus=8, holds=holds) as sweep:
        driver = sweep.launch()
        wait_until("some runs have ended", lambda: len(sweep.of_kind(RunFinished)) >= 3)
        slurm.stop_controller()
        before = len(sweep.of_kind(RunFinished))
        sweep.release("before")
        wait_until("runs end and begin meanwhile", lambda: len(sweep.of_kind(RunFinished)) >= before + 10)
        slurm.start_controller()
        wait_until("every task is held", lambda: [step for _, step in sweep.epochs()].count(2) >= 8)
        node = next(row.node for row in slurm.squeue(states="running"))
        slurm.kill_node(node)
        for pid in job_processes(slurm, node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=broken")
        sweep.release("after")
        finish(driver)
        check(sweep, folder)
        assert {event.node for event in broken_off(sweep)} == {node}


@on_a_cluster(accounting=True)
def test_under_a_submit_limit_it_makes_do_with_fewer_tasks(slurm: PrivateSlurm, folder: Path) -> None:
    slurm.limit_submits(association=5)
    with Sweep(slurm, folder / "s", *REUSING, **SAME, max_gpus=8, pause=0.05) as sweep:
        sweep.finish()
        check(sweep, folder)
        assert sum(len(event.tasks) for event in sweep.of_kind(BatchPlanned)) <= 8
        assert sweep.of_kind(RunInterrupted) == []


@on_a_cluster()
def test_a_task_s_time_that_ends_in_the_middle_of_a_run_costs_nothing_but_a_new_task(
    slurm: PrivateSlurm, folder: Path
) -> None:
    """Without a limit of a run nothing tells whether it fits."""
    limits = ("cluster.task_time=1m", "resources.time=null", "cluster.signal=20")
    with Sweep(slurm, folder / "s", *REUSING, *limits, **SAME, max_gpus=4, pause=1.5) as sweep:
        sweep.finish()
        check(sweep, folder)
        assert len(sweep.of_kind(TaskBegan)) > 4
        assert {event.interruption for event in sweep.of_kind(RunInterrupted)} & {
            Interruption.TIMEOUT,
            Interruption.PREEMPTED,
        }
