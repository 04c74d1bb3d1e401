"""Runs that failed for good are tried again because somebody asks for it, through the whole driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcsweep.core.events import (
    Config,
    PauseRequested,
    RunRetried,
    SweepOutcome,
    SweepResumed,
    TrialPromoted,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.driver import Driver
from hpcsweep.driver.failures import FAILED_BATCHES
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import Request, write_request
from tests.doubles import FolderCluster, quadratic
from tests.driver.sweeps import drive, make_driver, of_kind
from tests.driver.test_planner import Recording, started


class Breaking(FolderCluster):
    """Training code that fails for some configurations until it is mended."""

    def __init__(self, controller: Path, *, below: float = 1.0, per_poll: int = 1_000_000) -> None:
        super().__init__(controller, objective=self.train, per_poll=per_poll)
        self.below = below

    def train(self, config: Config, resource: int) -> float | None:
        return None if config["x"] < self.below else quadratic(config, resource)


@pytest.fixture
def cluster(tmp_path: Path) -> Breaking:
    return Breaking(tmp_path / "controller")


def ask(root: Path, **arguments: Any) -> Path:
    return write_request(Layout(root), Request("retry", 1.0, "ada", arguments))


@pytest.mark.parametrize(
    ("iterations", "ending", "reason"),
    [
        (1, SweepOutcome.FAILED, "no run gave a value; the last failure: ValueError: no"),
        (
            4,
            SweepOutcome.PAUSED,
            f"{FAILED_BATCHES} batches in a row failed within seconds; the last: ValueError: no",
        ),
    ],
)
def test_a_sweep_with_broken_code_ends_like_an_undisturbed_one_after_a_fix_and_retry(
    root: Path, cluster: Breaking, tmp_path: Path, iterations: int, ending: SweepOutcome, reason: str
) -> None:
    def drive_on(folder: Path, controller: FolderCluster) -> Driver:
        return drive(folder, controller, scheduler=Hyperband(max_resource=9, iterations=iterations))

    broken = drive_on(root, cluster)
    assert broken.state.ended is not None
    assert (broken.state.ended.outcome, broken.state.ended.reason) == (ending, reason)
    failed = len(broken.state.trials)
    cluster.below = 0.0
    ask(root)
    mended = drive_on(root, cluster)
    other = tmp_path / "undisturbed"
    undisturbed = drive_on(other, FolderCluster(tmp_path / "other"))
    assert [event.trial for event in of_kind(root, RunRetried)] == list(range(failed))
    assert mended.state.best == undisturbed.state.best

    def promoted(folder: Path) -> set[Any]:
        return {(event.trial, event.rung, event.resource) for event in of_kind(folder, TrialPromoted)}

    assert promoted(root) == promoted(other)
    assert sorted(cluster.trained()) == sorted(
        [*FolderCluster(tmp_path / "other").trained(), *((trial, 0) for trial in range(failed))]
    )


def test_only_the_trial_that_is_named_is_tried_again_and_its_value_counts(
    root: Path, cluster: Breaking
) -> None:
    cluster.below = 0.5
    ended = drive(root, cluster, scheduler=Fifo(max_resource=1, trials=9))
    failed = [run.trial for trial in ended.state.trials if (run := trial.runs[-1]).status is RunStatus.FAILED]
    assert len(failed) > 2
    cluster.below = 0.0
    chosen = min(failed, key=lambda trial: abs(ended.state.trials[trial].config["x"] - 0.3))
    ask(root, trial=chosen)
    again = drive(root, cluster, scheduler=Fifo(max_resource=1, trials=9))
    assert [event.trial for event in of_kind(root, RunRetried)] == [chosen]
    assert again.state.best is not None
    assert again.state.best.trial == chosen
    assert again.state.counts[RunStatus.FAILED] == len(failed) - 1
    assert again.state.trials[chosen].runs[0].attempts == 2


@pytest.mark.parametrize("arguments", [{"trial": 99}, {"trial": "all"}, {"trial": None}, {}])
def test_a_retry_without_failed_runs_changes_nothing(
    root: Path, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    cluster = FolderCluster(tmp_path / "controller", per_poll=1)
    driver, journal = make_driver(root, cluster, scheduler=Fifo(max_resource=1, trials=9), max_tasks=1)
    driver.tick()
    path = ask(root, **arguments)
    driver.run()
    journal.release()
    assert not path.exists()
    assert (of_kind(root, RunRetried), of_kind(root, SweepResumed)) == ([], [])


def test_a_request_is_handled_once_even_if_the_driver_dies_before_removing_it(
    root: Path, cluster: Breaking
) -> None:
    cluster.below = 0.5
    drive(root, cluster, scheduler=Fifo(max_resource=1, trials=9))
    path = ask(root)
    text = path.read_bytes()
    drive(root, cluster, scheduler=Fifo(max_resource=1, trials=9))
    before = len(of_kind(root, RunRetried))
    assert before > 0
    path.write_bytes(text)
    drive(root, cluster, scheduler=Fifo(max_resource=1, trials=9))
    assert len(of_kind(root, RunRetried)) == before


def test_a_pause_is_lifted_while_jobs_are_still_on_the_cluster(root: Path, tmp_path: Path) -> None:
    cluster = FolderCluster(tmp_path / "controller", per_poll=1)
    driver, journal = make_driver(root, cluster, scheduler=Fifo(max_resource=1, trials=9), max_tasks=2)
    driver.tick()
    driver._committer.commit([PauseRequested(1.0, "its jobs can never start")])
    driver.tick()
    assert driver.state.pausing is not None
    ask(root)
    driver.run()
    journal.release()
    assert driver.state.ended is not None
    assert (driver.state.ended.outcome, driver.state.counts[RunStatus.COMPLETED]) == (
        SweepOutcome.FINISHED,
        9,
    )


def test_the_searcher_learns_what_a_configuration_gave_when_it_was_tried_again(
    root: Path, cluster: Breaking
) -> None:
    searcher = Recording()
    driver, journal = make_driver(
        root, cluster, scheduler=Fifo(max_resource=1, trials=4), searcher=searcher, max_tasks=1
    )
    while not searcher.told or not searcher.told[-1]["values"]:
        driver.tick()
    cluster.below = 0.0
    ask(root)
    driver.run()
    journal.release()
    failed = [event.trial for event in of_kind(root, RunRetried)]
    last = searcher.told[-1]
    config = driver.state.trials[failed[0]].config
    first, second = (i for i, trial in enumerate(last["trials"]) if trial == failed[0])
    np.testing.assert_array_equal(
        [last["values"][first], last["values"][second]], [np.nan, quadratic(config, 1)]
    )
    assert (last["newest"][first], last["newest"][second]) == (False, True)


def test_with_repeats_a_configuration_is_compared_once_each_of_its_failed_trainings_has_ended_again(
    root: Path, tmp_path: Path
) -> None:
    first = (started(repeats=3),)

    class Flaky(FolderCluster):
        """The second and third training of each configuration fail until they are mended."""

        broken = True

        def result(self, run: Any, task: int, gpus: int) -> Any:
            fails = self.broken and run.trial % 3 > 0
            self.objective = lambda config, resource: None if fails else quadratic(config, resource)
            return super().result(run, task, gpus)

    cluster = Flaky(tmp_path / "controller")
    broken = drive(root, cluster, scheduler=Hyperband(max_resource=9), first=first)
    assert (broken.state.best, of_kind(root, TrialPromoted)) == (None, [])
    cluster.broken = False
    ask(root)
    mended = drive(root, cluster, scheduler=Hyperband(max_resource=9), first=first)
    undisturbed = drive(
        tmp_path / "undisturbed",
        FolderCluster(tmp_path / "other"),
        scheduler=Hyperband(max_resource=9),
        first=first,
    )
    assert mended.state.best == undisturbed.state.best
    assert {event.trial // 3 for event in of_kind(root, TrialPromoted)} == {
        event.trial // 3 for event in of_kind(tmp_path / "undisturbed", TrialPromoted)
    }
