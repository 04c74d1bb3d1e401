"""Checkpoints that nothing can need any more are removed while a sweep goes on."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.events import CheckpointsDropped, CheckpointsRemoved, SweepResumed, TrialCreated
from hpcsweep.schedulers.pbt import PBT
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.store import checkpoints
from hpcsweep.store.checkpoints import DiskUsage, disk_usage_by_trial
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import ResultsFolder
from tests.doubles import FolderCluster
from tests.driver.sweeps import SPACE, drive, make_driver, of_kind


def cluster(folder: Path, **options: Any) -> FolderCluster:
    return FolderCluster(folder / "controller", checkpoints=True, **options)


def test_hyperband_leaves_the_checkpoint_of_the_best_alone_and_trains_no_step_twice(tmp_path: Path) -> None:
    site = cluster(tmp_path, per_poll=5)
    driver = drive(tmp_path / "results", site, scheduler=Hyperband(max_resource=27), compact=True)
    state, layout = driver.state, driver.layout
    assert state.best is not None
    assert list(disk_usage_by_trial(layout)) == [state.best.trial]
    assert checkpoints.newest(layout.trial(state.best.trial)) is not None
    for trial, rung, start in site.starts():
        assert start == (state.trials[trial].runs[rung - 1].resource if rung else 0)
    removed = {trial.trial for trial in state.trials} - {state.best.trial}
    assert (state.dropped, state.without_checkpoint, state.dropping) == (removed, removed, {})
    told = of_kind(layout.root, CheckpointsRemoved)
    assert sum(event.files for event in told) == 2 * len(removed)
    assert state.checkpoint_bytes_removed == sum(event.bytes for event in told) > 1000 * len(removed)
    assert len(told) > 3, "as they become useless, not at the end"


def test_status_shows_kept_and_removed_checkpoints(tmp_path: Path) -> None:
    root = drive(tmp_path / "r", cluster(tmp_path), scheduler=Hyperband(max_resource=3), compact=True)
    layout, state = root.layout, root.state
    found = ResultsFolder(layout.root).checkpoints()
    size = sum(one.bytes for one in disk_usage_by_trial(layout).values())
    assert found == {
        "bytes": size,
        "files": 2,
        "trials": 1,
        "removed_trials": 4,
        "removed_bytes": state.checkpoint_bytes_removed,
    }


def test_keep_all_keeps_every_checkpoint(tmp_path: Path) -> None:
    driver = drive(
        tmp_path / "r", cluster(tmp_path), scheduler=Hyperband(max_resource=3), compact=True, keep_all=True
    )
    assert len(disk_usage_by_trial(driver.layout)) == len(driver.state.trials)
    assert of_kind(driver.layout.root, CheckpointsDropped) == []


def test_a_population_keeps_what_clones_start_from(tmp_path: Path) -> None:
    site = cluster(tmp_path, per_poll=2)
    scheduler = PBT(population=4, interval=2, max_resource=8, space=SPACE, seed=0)
    driver = drive(tmp_path / "results", site, scheduler=scheduler, compact=True)
    clones = [event for event in of_kind(driver.layout.root, TrialCreated) if event.parent is not None]
    starts = {(trial, rung): start for trial, rung, start in site.starts()}
    assert clones
    assert {starts[clone.trial, 0] for clone in clones} == {clone.start for clone in clones}
    assert len(disk_usage_by_trial(driver.layout)) == 1


def test_checkpoints_dropped_by_a_killed_driver_are_removed_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "results"
    site = cluster(tmp_path)
    drive(root, site, scheduler=Hyperband(max_resource=3), keep_all=True)
    layout, journal = Layout(root), Journal.open(Layout(root))
    journal.commit([CheckpointsDropped((1, 2))])
    journal.release()
    os.rename(layout.trial(1).checkpoints, layout.trial(1).root / ".gone-checkpoints-0")  # and no further
    driver, journal = make_driver(
        root, site, scheduler=Hyperband(max_resource=3), compact=True, keep_all=True
    )
    driver.compact()
    journal.release()
    assert [event.trials for event in of_kind(root, CheckpointsRemoved)] == [(1, 2)]
    assert sorted(set(range(5)) - set(disk_usage_by_trial(layout))) == [1, 2]
    assert not [path for path in root.rglob("*") if "gone" in path.name]
    assert driver.state.dropping == {}
    assert of_kind(root, SweepResumed) == []


def test_checkpoints_that_cannot_be_removed_are_logged_and_left_to_the_next_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.store.checkpoints.shutil.rmtree", lambda *_, **__: None)
    with caplog.at_level(logging.WARNING):
        driver = drive(tmp_path / "r", cluster(tmp_path), scheduler=Hyperband(max_resource=3), compact=True)
    assert "cannot be removed" in caplog.text
    assert len(driver.state.dropping) == 4
    assert of_kind(driver.layout.root, CheckpointsRemoved) == []
    monkeypatch.undo()
    again, journal = make_driver(
        tmp_path / "r", cluster(tmp_path), scheduler=Hyperband(max_resource=3), compact=True
    )
    again.compact()
    journal.release()
    assert (again.state.dropping, len(disk_usage_by_trial(again.layout))) == ({}, 1)


def test_a_removal_is_complete_or_not_begun_and_can_be_repeated(tmp_path: Path) -> None:
    trial = Layout(tmp_path).trial(7)
    assert checkpoints.remove_all(trial) == (DiskUsage(0, 0), True)
    with checkpoints.new_checkpoint(trial, 3, owner="a") as folder:
        (folder / "weights").write_bytes(b"w" * 100)
    (trial.checkpoints / ".work-0-0-0").mkdir()
    (trial.checkpoints / ".work-0-0-0/half").write_bytes(b"h" * 10)
    checkpoints.hide_all(trial)
    assert checkpoints.newest(trial) is None
    found, gone = checkpoints.remove_all(trial)
    assert (found.files, found.bytes > 110, gone, trial.root.exists()) == (3, True, True, False)
    assert checkpoints.remove_all(trial) == (DiskUsage(0, 0), True)


def test_a_link_in_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    trial, elsewhere = Layout(tmp_path).trial(7), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_bytes(b"m")
    trial.root.mkdir(parents=True)
    trial.checkpoints.symlink_to(elsewhere)
    checkpoints.remove_all(trial)
    assert (trial.checkpoints / "mine").read_bytes() == b"m"
