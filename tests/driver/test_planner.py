"""Enqueued configurations, results of earlier sweeps and repeats, through the whole driver."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from hpcsweep.core.events import (
    AnyEvent,
    Config,
    ConfigsEnqueued,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
    WarmStartLoaded,
)
from hpcsweep.core.history import History
from hpcsweep.core.models import Best
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers.random import Random
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import Request, write_request
from tests.doubles import FolderCluster
from tests.driver.sweeps import STARTED, drive, make_driver, of_kind


def started(**identity: Any) -> SweepStarted:
    return SweepStarted("cafe01", "s", 1_000_000.0, STARTED.identity | identity)


class Recording(Random):
    """Random search that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        self.told.append(
            {
                "n": n,
                "X": history.X.tolist(),
                "values": history.values.tolist(),
                "resources": history.resources.tolist(),
                "trials": history.trials.tolist(),
                "newest": history.newest.tolist(),
                "pending": len(history.pending),
                "proposed": history.proposed,
            }
        )
        return super().ask(n, history, rng)


# --------------------------------------------------------------------------- enqueued


def test_configurations_of_the_spec_start_first_and_count_for_the_budget(
    root: Path, controller: Path
) -> None:
    first = (STARTED, ConfigsEnqueued(({"x": 0.25}, {"x": 0.75})))
    driver = drive(
        root, FolderCluster(controller), scheduler=Fifo(max_resource=1, trials=5), first=first, max_trials=5
    )
    found = [(event.config["x"], event.origin) for event in of_kind(root, TrialCreated)]
    assert found[:2] == [(0.25, "enqueued"), (0.75, "enqueued")]
    assert [origin for _, origin in found[2:]] == ["searcher"] * 3
    assert list(driver.state.enqueued) == []


def test_enqueued_configuration_is_completed_and_started_once(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, per_poll=1)
    scheduler = Fifo(max_resource=1, trials=9)
    driver, journal = make_driver(root, cluster, scheduler=scheduler, max_tasks=2)
    for _ in range(3):
        driver.tick()
    before = len(driver.state.trials)
    path = write_request(Layout(root), Request("enqueue", 1.0, "ada", {"config": {"x": 0.125}}))
    text = path.read_bytes()
    driver.tick()
    journal.release()
    path.write_bytes(text)  # the driver was killed before it could remove it
    driver, journal = make_driver(root, cluster, scheduler=Fifo(max_resource=1, trials=9), max_tasks=2)
    driver.run()
    journal.release()
    (enqueued,) = of_kind(root, ConfigsEnqueued)
    assert (enqueued.configs, enqueued.request) == (({"x": 0.125},), path.name)
    created = of_kind(root, TrialCreated)
    assert [(e.trial, e.config["x"]) for e in created if e.origin == "enqueued"] == [(before, 0.125)]
    assert len(created) == 9
    assert os.listdir(Layout(root).control) == []


def test_an_invalid_request_is_skipped(root: Path, controller: Path) -> None:
    driver, journal = make_driver(root, FolderCluster(controller), scheduler=Fifo(trials=2))
    for arguments in ({"config": {"y": 1}}, {"config": 3}, {}):
        write_request(Layout(root), Request("enqueue", 1.0, "ada", arguments))
    write_request(Layout(root), Request("dance", 1.0, "ada"))
    driver.run()
    journal.release()
    # Without a configuration everything is drawn.
    assert [len(event.configs) for event in of_kind(root, ConfigsEnqueued)] == [1]
    assert os.listdir(Layout(root).control) == []


def test_enqueued_configurations_that_do_not_fit_go_to_the_next_bracket(root: Path, controller: Path) -> None:
    configs = tuple({"x": i / 100} for i in range(12))
    drive(
        root,
        FolderCluster(controller),
        scheduler=Hyperband(max_resource=9),
        first=(STARTED, ConfigsEnqueued(configs)),
    )
    created = of_kind(root, TrialCreated)
    assert [event.config for event in created[:12]] == list(configs)
    assert [event.bracket for event in created[:12]] == [0] * 9 + [1] * 3


# --------------------------------------------------------------------------- earlier sweeps


@pytest.mark.parametrize(("minimise", "sign"), [(True, 1.0), (False, -1.0)])
def test_results_of_earlier_sweeps_are_observations_from_the_beginning(
    root: Path, controller: Path, minimise: bool, sign: float
) -> None:
    results = (({"x": 0.5}, ((1, 3.0), (3, 2.0))), ({"x": 0.25}, ((1, None),)))
    searcher = Recording()
    mode = "min" if minimise else "max"
    drive(
        root,
        FolderCluster(controller),
        scheduler=Fifo(max_resource=1, trials=2),
        searcher=searcher,
        first=(started(objective={"metric": "loss", "mode": mode}), WarmStartLoaded("old", results)),
        max_tasks=1,
        minimise=minimise,
    )
    told = searcher.told[0]
    assert told["X"] == [[0.5], [0.5], [0.25]]
    np.testing.assert_array_equal(told["values"], [sign * 3.0, sign * 2.0, np.nan])
    assert told["resources"] == [1, 3, 1]
    assert told["trials"] == [-1, -1, -2]
    assert told["newest"] == [False, True, True]
    assert (told["proposed"], told["pending"]) == (0, 0)
    later = searcher.told[1]
    assert later["trials"] == [-1, -1, -2, 0]
    assert later["X"][3] == [of_kind(root, TrialCreated)[0].config["x"]]


def test_each_rung_of_a_promoted_trial_is_an_observation(root: Path, controller: Path) -> None:
    searcher = Recording()
    drive(
        root, FolderCluster(controller), scheduler=Hyperband(max_resource=9), searcher=searcher, max_tasks=1
    )
    told = searcher.told[-1]
    assert max(map(told["trials"].count, told["trials"])) > 1
    assert len(set(zip(told["trials"], told["resources"], strict=True))) == len(told["trials"])
    assert sum(told["newest"]) == len(set(told["trials"]))


# --------------------------------------------------------------------------- repeats


class Seeded(FolderCluster):
    """The value depends on the configuration and on the trial: repeats differ."""

    offsets: Sequence[float] = (0.0, 0.4, -0.1)

    def result(self, run: Any, task: int, gpus: int) -> Any:
        self.objective = lambda config, resource: (
            (config["x"] - 0.3) ** 2 + 1.0 / resource + self.offsets[run.trial % 3]
        )
        return super().result(run, task, gpus)


def test_each_configuration_is_trained_with_several_seeds_and_compared_by_the_mean(
    root: Path, controller: Path
) -> None:
    first = (started(repeats=3),)
    searcher = Recording()
    driver = drive(
        root, Seeded(controller), scheduler=Hyperband(max_resource=9), searcher=searcher, first=first
    )
    trials = driver.state.trials
    assert len(trials) == 3 * (9 + 5 + 3)
    for configuration in range(9 + 5 + 3):
        three = trials[3 * configuration : 3 * configuration + 3]
        assert [trial.config for trial in three] == [three[0].config] * 3
        assert [trial.repeat for trial in three] == [0, 1, 2]
        assert len({len(trial.runs) for trial in three}) == 1, "promoted together"
    means = {c: driver.state.value_of(3 * c, 0) for c in range(9)}
    best_three = sorted(means, key=lambda c: means[c] or 0.0)[:3]
    promoted = {e.trial // 3 for e in of_kind(root, TrialPromoted) if e.rung == 1 and e.trial < 27}
    assert promoted == set(best_three)
    best = driver.state.best
    assert isinstance(best, Best)
    assert best.trial % 3 == 0
    assert best.value == pytest.approx((best.config["x"] - 0.3) ** 2 + 1 / 9 + 0.1)
    last = searcher.told[-1]
    assert last["proposed"] == 9 + 5
    assert last["values"][0] == pytest.approx(means[last["trials"][0]])


def test_the_budget_of_trials_counts_configurations(root: Path, controller: Path) -> None:
    driver = drive(
        root,
        FolderCluster(controller),
        scheduler=Fifo(max_resource=1, trials=4),
        first=(started(repeats=2),),
        max_trials=4,
    )
    assert (len(driver.state.trials), driver.state.configurations) == (8, 4)


def test_a_configuration_of_which_one_repeat_fails_is_not_promoted(root: Path, controller: Path) -> None:
    class Flaky(FolderCluster):
        def result(self, run: Any, task: int, gpus: int) -> Any:
            # The very best configuration of the first bracket fails with one of its seeds.
            best = run.trial == self.failing
            self.objective = lambda config, resource: None if best else (config["x"] - 0.3) ** 2
            return super().result(run, task, gpus)

        failing = -1

    def sweep(folder: Path, failing: int) -> list[Any]:
        cluster = Flaky(folder.with_name(folder.name + " controller"))
        cluster.failing = failing
        drive(folder, cluster, scheduler=Hyperband(max_resource=9), first=(started(repeats=2),))
        return of_kind(folder, TrialPromoted)

    winner = sweep(root, -1)[0].trial
    again = sweep(root.with_name("again"), winner + 1)
    assert winner // 2 not in {event.trial // 2 for event in again if event.rung == 1}


def test_replaying_a_sweep_gives_the_same_decisions(root: Path, controller: Path) -> None:
    """A driver for each tick decides what one driver does, with repeats and enqueued trials too."""
    first: tuple[AnyEvent, ...] = (started(repeats=2), ConfigsEnqueued(({"x": 0.5},)))

    def created(folder: Path, *, one_driver: bool) -> list[Any]:
        cluster = FolderCluster(folder.with_name(folder.name + " controller"))
        if one_driver:
            drive(folder, cluster, scheduler=Hyperband(max_resource=9), first=first)
        else:
            ended = False
            while not ended:
                driver, journal = make_driver(
                    folder, cluster, scheduler=Hyperband(max_resource=9), first=first
                )
                driver.tick()
                ended = driver.state.ended is not None
                journal.release()
        return of_kind(folder, TrialCreated, TrialPromoted)

    assert created(root, one_driver=True) == created(root.with_name("ticks"), one_driver=False)
