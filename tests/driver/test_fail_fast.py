"""Where the first runs all fail alike the sweep pauses, after a handful and not after all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.cluster_protocol import Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import (
    Config,
    PauseEnded,
    PauseRequested,
    RunFinished,
    RunInterrupted,
    SweepOutcome,
)
from hpcsweep.core.outcomes import AT_ONCE_S
from hpcsweep.core.state import SweepState
from hpcsweep.driver.failures import check_health
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import Request, write_request
from tests.doubles import FolderCluster

from .sweeps import drive, end_of, events, make_driver, of_kind

ALIKE = (
    "the first 5 trials failed within seconds with the same error: ValueError: no. Fix it, then run "
    "`hpcsweep retry` to retry them, or `launch` to continue without them "
    "(retries.fail_fast: false turns this off)"
)


class Queue(FolderCluster):
    """A cluster that starts one more task in each poll, whatever is submitted.

    Args:
        controller: See `FolderCluster`.
        objective: See there.
        forgets: Cancelled tasks are shown no more; else as cancelled.
    """

    def __init__(
        self,
        controller: Path,
        *,
        objective: Callable[[Config, int], float | None],
        forgets: bool = False,
    ) -> None:
        super().__init__(controller, objective=objective, per_poll=1)
        self.cancelled: set[TaskId] = set()
        self.forgets = forgets
        self.poll_s = (1.0, 1.0)  # time passes between two looks

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        self.cancelled.update(TaskId(batch.name, task) for task in tasks)
        super().cancel(batch, tasks)

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        states = dict(super().poll(live) or {})
        if self.forgets:
            return {task: state for task, state in states.items() if task not in self.cancelled}
        return states | {task: TaskState(Phase.CANCELLED) for task in self.cancelled & states.keys()}


def failing(config: Config, resource: int) -> float | None:
    return None


@pytest.mark.parametrize("forgets", [False, True], ids=["cancelled tasks are shown", "forgotten"])
@pytest.mark.parametrize(
    "scheduler", [lambda: Hyperband(max_resource=81), lambda: Fifo(max_resource=1, trials=40)]
)
def test_an_error_in_every_trial_costs_a_few_runs_and_cancels_queued_tasks(
    tmp_path: Path, scheduler: Callable[[], Hyperband | Fifo], forgets: bool
) -> None:
    cluster = Queue(tmp_path / "controller", objective=failing, forgets=forgets)
    driver = drive(tmp_path / "r", cluster, scheduler=scheduler(), fail_fast=5, max_tasks=49, max_trials=200)
    assert end_of(tmp_path / "r") == (SweepOutcome.PAUSED, ALIKE)
    assert len(cluster.trained()) <= 7
    assert SweepState.replay(events(tmp_path / "r")).first_errors.trials == driver.state.first_errors.trials
    # What was queued has not begun: it waits, and no attempt of it counts.
    whys = {(event.interruption.value, event.message) for event in of_kind(tmp_path / "r", RunInterrupted)}
    assert whys == {("not_started", "its task ended before this run started")}
    assert len(driver.state.waiting) >= 33


def test_after_a_fix_retry_runs_failed_and_queued_trials(tmp_path: Path) -> None:
    options: dict[str, Any] = {"fail_fast": 5, "max_tasks": 40, "max_trials": 40}
    scheduler = Fifo(max_resource=1, trials=40)
    drive(tmp_path / "r", Queue(tmp_path / "controller", objective=failing), scheduler=scheduler, **options)
    write_request(Layout(tmp_path / "r"), Request("retry", 0.0, "me"))
    good = FolderCluster(tmp_path / "controller")
    driver = drive(tmp_path / "r", good, scheduler=Fifo(max_resource=1, trials=40), **options)
    assert end_of(tmp_path / "r") == (SweepOutcome.FINISHED, "all trials are done")
    assert all(trial.runs[0].value is not None for trial in driver.state.trials)


def test_a_launch_without_a_fix_costs_a_few_runs_more(tmp_path: Path) -> None:
    cluster = Queue(tmp_path / "controller", objective=failing)
    for _ in range(2):
        scheduler = Fifo(max_resource=1, trials=40)
        drive(tmp_path / "r", cluster, scheduler=scheduler, fail_fast=5, max_tasks=40, max_trials=40)
    assert end_of(tmp_path / "r")[0] is SweepOutcome.PAUSED
    assert len(cluster.trained()) <= 14


@pytest.mark.parametrize(
    ("fail_fast", "objective"),
    [
        (0, failing),
        (5, lambda config, _: 1.0 if config["x"] < 0.2 else None),
    ],
    ids=["turned off", "some do well"],
)
def test_no_pause_where_fail_fast_is_off_or_a_run_has_succeeded(
    tmp_path: Path, fail_fast: int, objective: Callable[[Config, int], float | None]
) -> None:
    cluster = FolderCluster(tmp_path / "controller", objective=objective)
    options: dict[str, Any] = {"fail_fast": fail_fast, "max_tasks": 30, "max_trials": 30}
    drive(tmp_path / "r", cluster, scheduler=Fifo(max_resource=1, trials=30), **options)
    assert of_kind(tmp_path / "r", PauseRequested) == []
    assert len(of_kind(tmp_path / "r", RunFinished)) == 30


# --------------------------------------------------------------------------- runs that go on meanwhile


def paused(tmp_path: Path) -> SweepState:
    cluster = Queue(tmp_path / "controller", objective=failing)
    scheduler = Fifo(max_resource=1, trials=9)
    driver, journal = make_driver(tmp_path / "r", cluster, scheduler=scheduler, max_tasks=9, fail_fast=5)
    while driver.state.pausing is None:
        driver.tick()
    journal.release()
    return driver.state


@pytest.mark.parametrize(("longest_s", "resumed"), [(AT_ONCE_S, False), (AT_ONCE_S + 1, True)])
def test_the_pause_ends_when_a_run_outlives_the_failed_ones(
    tmp_path: Path, longest_s: float, resumed: bool
) -> None:
    state = paused(tmp_path)
    found = check_health(state, now=9.0, nodes=(), fail_fast=5, longest_s=longest_s)
    assert found == ([PauseEnded(9.0)] if resumed else [])


def test_the_pause_ends_for_good_when_a_run_has_a_value(tmp_path: Path) -> None:
    state = paused(tmp_path)
    state.first_errors.add(7, "", failed=False)
    (event,) = check_health(state, now=9.0, nodes=(), fail_fast=5)
    assert event == PauseEnded(9.0)
    state.apply(event)
    assert (state.pausing, state.first_errors.over) == (None, True)


def test_no_pause_while_an_older_run_is_running(tmp_path: Path) -> None:
    state = paused(tmp_path)
    state.pausing = None
    assert check_health(state, now=9.0, nodes=(), fail_fast=5, longest_s=AT_ONCE_S + 1) == []
