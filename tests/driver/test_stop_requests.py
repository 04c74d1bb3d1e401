"""One trial is ended because its user asks for it, whatever it is doing, through the whole driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import SubmittedBatch
from hpcsweep.core.events import (
    BatchPlanned,
    Outcome,
    RunFinished,
    RunId,
    RunReported,
    SweepOutcome,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Driver
from hpcsweep.driver.submitter import Submitter
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Halving
from hpcsweep.store.batch import Result, read_task, requested_stops, write_result
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.requests import Request, write_request
from hpcsweep.store.run_files import MetricsWriter
from tests.doubles import FolderCluster
from tests.driver.sweeps import STARTED, end_of, events, make_driver, of_kind

REASON = "stopped by ada"


def ask(root: Path, trial: Any) -> str:
    return write_request(Layout(root), Request("stop_trial", 1.0, "ada", {"trial": trial})).name


class HoldingCluster(FolderCluster):
    """Its tasks begin when they are let, trial by trial."""

    def __init__(self, controller: Path) -> None:
        super().__init__(controller)
        self.held: set[tuple[int, int]] = set()
        self.cancelled: list[int] = []

    def hold(self, trial: int, rung: int = 0) -> None:
        self.held.add((trial, rung))

    def run(self, batch: SubmittedBatch, task: int) -> None:
        runs = read_task(BatchLayout(batch.folder), task)[1].runs
        if all((run.trial, run.rung) not in self.held for run in runs):
            super().run(batch, task)

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        super().cancel(batch, tasks)
        self.cancelled += tasks


@pytest.fixture
def site(tmp_path: Path) -> HoldingCluster:
    return HoldingCluster(tmp_path / "controller")


def ended(driver: Driver, most: int = 60) -> Driver:
    for _ in range(most):
        driver.tick()
        if driver.state.ended is not None:
            break
        driver._sweep.clock.sleep(1.0)
    assert SweepState.replay(events(driver.layout.root)).trials == driver.state.trials
    return driver


def test_a_run_under_way_is_cancelled_and_counts_as_stopped_with_what_it_has_reported(
    root: Path, site: HoldingCluster
) -> None:
    site.hold(1)
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=3))
    driver.tick()
    driver.tick()
    writer = MetricsWriter(driver.layout.trial(1).metrics(0, 0, 0))
    writer.write(2, {"loss": 0.7})
    writer.close()
    name = ask(root, 1)
    ended(driver)
    journal.release()
    run = driver.state.trials[1].runs[0]
    assert (run.status, run.value, run.step, run.message) == (RunStatus.STOPPED, 0.7, 2, REASON)
    assert of_kind(root, TrialStopped) == [TrialStopped(1, REASON, name)]
    assert [event.trial for event in of_kind(root, RunReported)] == [1]
    assert site.cancelled == [1]
    assert end_of(root) == (SweepOutcome.FINISHED, "all trials are done")
    assert not list((root / "control").iterdir())


def test_a_run_that_waits_ends_without_being_submitted(root: Path, site: HoldingCluster) -> None:
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=3), max_tasks=1)
    site.hold(0)
    driver.tick()
    driver._committer.commit([TrialCreated(1, {"x": 0.5}, 0, 4)])
    ask(root, 1)
    driver.tick()
    (finished,) = of_kind(root, RunFinished)
    assert (finished.trial, finished.outcome, finished.message) == (1, Outcome.STOPPED, REASON)
    site.held.clear()
    ended(driver)
    journal.release()
    assert (1, 0) not in site.trained()


@pytest.mark.parametrize("scheduler", [Halving(max_resource=4), ASHA(max_resource=4, eta=2, trials=4)])
def test_a_trial_that_waits_for_its_promotion_is_not_promoted_but_the_next_best(
    root: Path, site: HoldingCluster, scheduler: Any
) -> None:
    driver, journal = make_driver(root, site, scheduler=scheduler, max_tasks=8)
    site.hold(3)
    for _ in range(3):
        driver.tick()
    ranked = sorted((trial.runs[0].value, trial.trial) for trial in driver.state.trials[:3])
    waiting = [trial for _, trial in ranked if len(driver.state.trials[trial].runs) == 1]
    ask(root, waiting[0])
    driver.tick()
    site.held.clear()
    ended(driver)
    journal.release()
    promoted = {event.trial for event in of_kind(root, TrialPromoted)}
    assert waiting[0] not in promoted
    assert len(promoted) == 2
    assert driver.state.trials[waiting[0]].stopped == REASON
    assert end_of(root)[0] is SweepOutcome.FINISHED


def test_all_repeats_of_a_configuration_are_ended_with_it(root: Path, site: HoldingCluster) -> None:
    started = STARTED.__class__("cafe01", "s", 1.0, {**STARTED.identity, "repeats": 2})
    site.hold(2)
    site.hold(3)
    driver, journal = make_driver(root, site, scheduler=Fifo(trials=3), first=(started,), max_tasks=8)
    driver.tick()
    ask(root, 3)
    ended(driver)
    journal.release()
    assert [event.trial for event in of_kind(root, TrialStopped)] == [2, 3]
    assert [trial.runs[0].status for trial in driver.state.trials[2:4]] == [RunStatus.STOPPED] * 2
    assert end_of(root)[0] is SweepOutcome.FINISHED


@pytest.mark.parametrize("wanted", [7, -1, "1", None, 0])
def test_a_trial_that_cannot_be_stopped_is_skipped(root: Path, site: HoldingCluster, wanted: Any) -> None:
    """There is no such trial, or it is trained to its end."""
    site.hold(1)
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=2))
    for _ in range(3):
        driver.tick()
    assert driver.state.trials[0].runs[0].status is RunStatus.COMPLETED
    ask(root, wanted)
    driver.tick()
    assert of_kind(root, TrialStopped) == []
    assert not list((root / "control").iterdir())
    site.held.clear()
    ended(driver)
    journal.release()


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task carries all runs, two at a time, as in earlier versions, whose tasks may still be queued."""
    plan = Submitter.plan

    def packed(submitter: Submitter, *args: Any, **kwargs: Any) -> list[BatchPlanned]:
        batches = plan(submitter, *args, **kwargs)
        return [
            msgspec.structs.replace(batch, tasks=(sum(batch.tasks, ()),), throttle=1, lanes=2)
            for batch in batches
        ]

    monkeypatch.setattr(Submitter, "plan", packed)


def write_stopped_result(files: BatchLayout, trial: int, n: int) -> None:
    result = Result(trial, 0, 0, 0, task=0, outcome=Outcome.STOPPED, step=3, seconds=5.0, gpu_seconds=2.5)
    write_result(files, result, n=n)


@pytest.mark.usefixtures("shared")
def test_a_run_that_shares_its_task_is_ended_by_its_worker_and_the_others_go_on(
    root: Path, site: HoldingCluster
) -> None:
    site.hold(1)
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=3))
    driver.tick()
    driver.tick()
    (batch,) = driver.state.live
    files = driver.layout.batch(batch)
    for trial in (0, 2):
        writer = MetricsWriter(driver.layout.trial(trial).metrics(0, 0, 0))
        writer.write(2, {"loss": 0.25 * (1 + trial)})
        writer.close()
    ask(root, 0)
    ask(root, 2)
    driver.tick()
    assert requested_stops(files) == {RunId(0, 0), RunId(2, 0)}
    journal.release()
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=3))
    write_stopped_result(files, 0, 0)
    write_stopped_result(files, 2, 2)
    driver.tick()
    runs = [driver.state.trials[trial].runs[0] for trial in (0, 2)]
    assert [(run.status, run.value, run.step, run.message) for run in runs] == [
        (RunStatus.STOPPED, 0.25, 2, REASON),
        (RunStatus.STOPPED, 0.75, 2, REASON),
    ]
    assert site.cancelled == []
    site.held.clear()
    ended(driver)
    journal.release()
    assert driver.state.trials[1].runs[0].status is RunStatus.COMPLETED
    assert end_of(root) == (SweepOutcome.FINISHED, "all trials are done")


@pytest.mark.usefixtures("shared")
def test_the_whole_task_is_cancelled_once_nobody_wants_any_of_its_runs(
    root: Path, site: HoldingCluster
) -> None:
    site.hold(1)
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=3))
    driver.tick()
    driver.tick()
    ask(root, 0)
    ask(root, 1)
    driver.tick()
    assert site.cancelled == []
    ask(root, 2)
    ended(driver)
    journal.release()
    assert site.cancelled == [0]
    assert {trial.runs[0].status for trial in driver.state.trials} == {RunStatus.STOPPED}


@pytest.mark.usefixtures("shared")
def test_run_stopped_by_a_superseded_driver_is_retried(root: Path, site: HoldingCluster) -> None:
    site.hold(1)
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=3))
    driver.tick()
    driver.tick()
    (batch,) = driver.state.live
    write_stopped_result(driver.layout.batch(batch), 0, 0)
    driver.tick()
    site.held.clear()
    ended(driver)
    journal.release()
    assert [trial.runs[0].status for trial in driver.state.trials] == [RunStatus.COMPLETED] * 3
    assert driver.state.trials[0].runs[0].attempts == 2


def test_settle_handles_requests_and_submits_nothing(root: Path, site: HoldingCluster) -> None:
    site.hold(0)
    driver, journal = make_driver(root, site, scheduler=Fifo(max_resource=4, trials=9), max_tasks=1)
    driver.tick()
    batches = site.batches()
    ask(root, 0)
    for _ in range(4):
        driver.settle()
        driver._sweep.clock.sleep(1.0)
    journal.release()
    assert driver.state.trials[0].runs[0].status is RunStatus.STOPPED
    assert site.batches() == batches
