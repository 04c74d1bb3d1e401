"""A quota for checkpoints: fewer runs at a time, never more on the disk, and a way on where there is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.events import (
    AnyEvent,
    CheckpointQuotaReached,
    CheckpointsDropped,
    CheckpointSizes,
    Config,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepOutcome,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.events import Interruption as Why
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Driver
from hpcsweep.driver.checkpoint_quota import FIRST_RUNS, CheckpointQuota
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.pbt import PBT
from hpcsweep.schedulers.synchronous import Halving, Hyperband
from hpcsweep.store.checkpoints import disk_usage_by_trial
from hpcsweep.store.requests import send_request
from hpcsweep.views.folder import ResultsFolder
from hpcsweep.views.format import checkpoints_text, warning_lines
from tests.doubles import FolderCluster, quadratic
from tests.driver.states import SETTINGS, planned, sweep_of
from tests.driver.sweeps import (
    SPACE,
    TABLE_27,
    TABLE_81,
    decided,
    drive,
    end_of,
    events,
    make_driver,
    of_kind,
    undisturbed,
)

#: Of the stand-in's checkpoints: weights and list; the numbers of steps and trials differ in length.
ONE = 1060
MB = 1 << 20


class Site(FolderCluster):
    """Trains four runs between two polls, and knows the most that checkpoints ever took."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder / "controller", checkpoints=True, per_poll=4, **options)
        self.most_bytes = self.most_files = 0

    def seen(self, driver: Driver) -> None:
        usage = disk_usage_by_trial(driver.layout).values()
        self.most_bytes = max(self.most_bytes, sum(one.bytes for one in usage))
        self.most_files = max(self.most_files, sum(one.files for one in usage))


def drive_within(root: Path, site: Site, *, ones: int, **options: Any) -> Driver:
    """Drive with room for so many checkpoints, and look at the disk after each tick."""
    options = {"compact": True, "checkpoint_bytes": ones * ONE} | options
    driver, journal = make_driver(root, site, **options)
    try:
        driver.run(site.seen)
    finally:
        journal.release()
    return driver


def table_of(state: SweepState) -> dict[int, list[tuple[int, int]]]:
    """For each bracket its rungs as (runs, resource)."""
    found: dict[int, dict[int, int]] = {}
    for trial in state.trials:
        for run in trial.runs:
            rungs = found.setdefault(trial.bracket, {})
            rungs[run.resource] = rungs.get(run.resource, 0) + 1
    return {bracket: [(n, resource) for resource, n in rungs.items()] for bracket, rungs in found.items()}


# --------------------------------------------------------------------------- whole sweeps


@pytest.mark.parametrize(
    ("reuse", "largest", "ones", "table"), [(False, 81, 60, TABLE_81), (True, 27, 16, TABLE_27)]
)
def test_hyperband_trains_the_table_of_the_paper_and_never_holds_more_than_the_quota(
    tmp_path: Path, reuse: bool, largest: int, ones: int, table: dict[int, list[tuple[int, int]]]
) -> None:
    site = Site(tmp_path)
    idle = {"idle_s": 60.0} if reuse else {}
    scheduler = Hyperband(max_resource=largest)
    driver = drive_within(tmp_path / "r", site, ones=ones, scheduler=scheduler, **idle)
    assert end_of(tmp_path / "r") == (SweepOutcome.FINISHED, "all trials are done")
    assert table_of(driver.state) == table
    assert ones * ONE // 2 < site.most_bytes <= ones * ONE
    assert decided(events(tmp_path / "r")) == undisturbed(tmp_path, scheduler=Hyperband(max_resource=largest))


def test_the_number_of_files_is_limited_as_well(tmp_path: Path) -> None:
    site = Site(tmp_path)
    limits: dict[str, Any] = {"checkpoint_bytes": None, "checkpoint_files": 14}
    driver = drive_within(tmp_path / "r", site, ones=0, scheduler=Hyperband(max_resource=9), **limits)
    assert (driver.state.ended is not None, 8 < site.most_files <= 14) == (True, True)
    assert decided(events(tmp_path / "r")) == undisturbed(tmp_path, scheduler=Hyperband(max_resource=9))


@pytest.mark.parametrize(
    ("scheduler", "ones"),
    [
        (Fifo(max_resource=2, trials=20), 4),
        (Halving(max_resource=16), 11),
        (PBT(population=4, interval=2, max_resource=8, space=SPACE, seed=0), 12),
        (ASHA(max_resource=9, trials=40), 8),
    ],
    ids=lambda case: type(case).__name__,
)
def test_every_scheduler_comes_to_its_end_within_the_quota(
    tmp_path: Path, scheduler: Scheduler, ones: int
) -> None:
    site = Site(tmp_path)
    driver = drive_within(
        tmp_path / "r",
        site,
        ones=ones,
        scheduler=scheduler,
        max_trials=40,
        least_promising_give_way=isinstance(scheduler, ASHA),
    )
    assert end_of(tmp_path / "r")[0] is SweepOutcome.FINISHED
    assert site.most_bytes <= ones * ONE
    for trial, rung, start in site.starts():  # nothing went on without its checkpoint
        runs = driver.state.trials[trial]
        assert start == (runs.runs[rung - 1].resource if rung else runs.start)


def test_under_asha_the_least_promising_give_way_and_half_of_the_quota_stays_for_such(tmp_path: Path) -> None:
    site = Site(tmp_path)
    scheduler = ASHA(max_resource=9, trials=40)
    drive_within(tmp_path / "r", site, ones=12, scheduler=scheduler, least_promising_give_way=True)
    state, held = SweepState(), []
    for event in events(tmp_path / "r"):
        if isinstance(event, TrialStopped):
            trial = state.trials[event.trial]
            better = [
                t for t in state.checkpoints.sizes if t not in state.dropped and not state.trials[t].stopped
            ]
            held.append(len(better))
            assert state.best is not None
            assert event.trial != state.best.trial
            same = [
                state.trials[t]
                for t in better
                if state.trials[t].runs[-1].resource == trial.runs[-1].resource
            ]
            values = [run.value for t in same if (run := t.runs[-1]).value is not None]
            assert trial.runs[-1].value == max(values), "the worst of its rung goes first"
        state.apply(event)
    assert held
    assert min(held) >= 6


def test_a_sweep_for_whose_next_run_there_is_no_room_pauses_in_words_and_goes_on_with_more(
    tmp_path: Path,
) -> None:
    root, site = tmp_path / "r", Site(tmp_path)
    drive_within(root, site, ones=6, scheduler=Hyperband(max_resource=27))
    outcome, reason = end_of(root)
    assert outcome is SweepOutcome.PAUSED
    assert reason == (
        "store.checkpoint_quota of 6.21K: 6.13K held by 6 trials, all of which may still be needed, and "
        "a new trial would keep 1.02K more and need 2.04K while it runs; raise it"
    )
    drive_within(root, site, ones=20, scheduler=Hyperband(max_resource=27))
    assert end_of(root)[0] is SweepOutcome.FINISHED
    assert decided(events(root)) == undisturbed(tmp_path, scheduler=Hyperband(max_resource=27))


def test_what_failed_gives_way_and_is_retried_from_scratch(tmp_path: Path) -> None:
    def failing(config: Config, resource: int) -> float | None:
        return None if config["x"] > 0.5 and not mended else quadratic(config, resource)

    mended = False
    root, site = tmp_path / "r", Site(tmp_path, objective=failing)
    driver = drive_within(root, site, ones=5, scheduler=Fifo(max_resource=2, trials=20))
    failed = [trial.trial for trial in driver.state.trials if trial.runs[-1].outcome is Outcome.FAILED]
    gone = {trial for event in of_kind(root, CheckpointsDropped) for trial in event.trials}
    assert end_of(root)[0] is SweepOutcome.FINISHED
    assert len(failed) > 5
    assert gone & set(failed), "some had to go"
    assert gone >= set(range(20)) - set(failed) - {driver.state.best.trial if driver.state.best else -1}
    mended = True
    send_request(driver.layout, "retry")
    driver = drive_within(root, site, ones=5, scheduler=Fifo(max_resource=2, trials=20))
    assert all(trial.runs[-1].outcome is Outcome.COMPLETED for trial in driver.state.trials)
    assert site.most_bytes <= 5 * ONE


def test_without_pressure_what_failed_stays_for_a_retry(tmp_path: Path) -> None:
    site = Site(tmp_path, objective=lambda config, resource: None if config["x"] > 0.5 else 1.0)
    driver = drive_within(tmp_path / "r", site, ones=60, scheduler=Fifo(max_resource=2, trials=20))
    failed = {trial.trial for trial in driver.state.trials if trial.runs[-1].outcome is Outcome.FAILED}
    assert set(disk_usage_by_trial(driver.layout)) == failed | {
        driver.state.best.trial if driver.state.best else -1
    }


def test_launch_and_status_say_what_is_held_and_what_waits(tmp_path: Path) -> None:
    root, site, said = tmp_path / "r", Site(tmp_path), dict[str, None]()

    def look(driver: Driver) -> None:
        said.update(dict.fromkeys(warning_lines(driver.state, now=0.0)))

    driver, journal = make_driver(
        root, site, scheduler=Hyperband(max_resource=27), compact=True, checkpoint_bytes=14 * ONE
    )
    driver.run(look)
    journal.release()
    assert [line for line in said if line.startswith("waits for room: store.checkpoint_quota of 14.5K: ")]
    assert [line for line in said if re.search(r": \d.*K held by \d+ trials, .* wait for room", line)]
    assert driver.state.quota_reached is None
    assert warning_lines(driver.state, now=0.0) == []
    driver.layout.spec.write_text("store: {checkpoint_quota: 1M, checkpoint_files: 100}\n")
    text = checkpoints_text(ResultsFolder(root).checkpoints(), ResultsFolder(root).checkpoint_quota)
    assert text.startswith("1.02K (of 1M) in 2 files (of 100) of 1 trial; ")


def test_without_a_quota_nothing_is_said_of_one(tmp_path: Path) -> None:
    drive(tmp_path / "r", Site(tmp_path), scheduler=Hyperband(max_resource=3), compact=True)
    assert of_kind(tmp_path / "r", CheckpointQuotaReached) == []


# --------------------------------------------------------------------------- decisions, as values


def finished(trial: int, rung: int = 0, *, kept: int = MB, batch: str = "", **fields: Any) -> RunFinished:
    sizes = CheckpointSizes(kept, 1, kept, 1)
    return RunFinished(
        trial, rung, Outcome.COMPLETED, 1.0 + trial, checkpoints=sizes, seconds=9.0, batch=batch, **fields
    )


def quota_of(
    state: SweepState, *history: AnyEvent, most: int, clones: bool = False, **given: Any
) -> CheckpointQuota:
    for event in history:
        state.apply(event)
    settings = msgspec.structs.replace(SETTINGS, checkpoint_bytes=most * MB, **given)
    return CheckpointQuota(state, settings=settings, clones=clones)


def runs(*pairs: tuple[int, int]) -> list[RunId]:
    return [RunId(*pair) for pair in pairs]


FRESH = runs((3, 0), (4, 0), (5, 0), (6, 0), (7, 0))


def test_before_anything_is_measured_only_a_few_runs_begin() -> None:
    quota = quota_of(sweep_of(8), planned("b1", [0]), most=100)
    assert quota.admit(FRESH) == FRESH[: FIRST_RUNS - 1]
    assert quota.room == 0


def test_a_new_run_needs_room_for_what_it_keeps_and_for_what_it_writes() -> None:
    ended: list[AnyEvent] = [planned("b1", [0, 1]), finished(0, batch="b1"), finished(1, batch="b1")]
    assert quota_of(sweep_of(8), *ended, most=5).admit(FRESH) == FRESH[:1]
    quota = quota_of(sweep_of(8), *ended, most=6)
    assert (quota.admit(FRESH), quota.room, quota.refuses) == (FRESH[:2], 0, True)
    assert (quota.admit(FRESH[:1]), quota.room, quota.refuses) == (FRESH[:1], 1, False)


def test_promotions_go_first_and_while_one_of_them_waits_no_new_trial_begins() -> None:
    history: list[AnyEvent] = [planned("b1", [0, 1, 2]), *(finished(trial, batch="b1") for trial in range(3))]
    history += [TrialPromoted(0, 1, 3), TrialPromoted(1, 1, 3)]
    queue = [*FRESH, *runs((0, 1), (1, 1))]
    assert quota_of(sweep_of(8), *history, most=5).admit(queue) == runs((0, 1), (1, 1))
    assert quota_of(sweep_of(8), *history, most=4).admit(queue) == runs((0, 1))
    assert quota_of(sweep_of(8), *history, most=7).admit(queue) == [*FRESH[:1], *runs((0, 1), (1, 1))]


def test_alone_a_run_begins_where_there_is_room_for_what_it_keeps() -> None:
    ended: list[AnyEvent] = [planned("b1", [0, 1, 2]), finished(0, batch="b1"), finished(1, batch="b1")]
    alone = quota_of(sweep_of(8), *ended, finished(2, batch="b1"), most=4)
    assert alone.admit(FRESH) == FRESH[:1]
    assert quota_of(sweep_of(8), *ended, most=4).admit(FRESH) == [], "another one is under way"
    full = quota_of(sweep_of(8), *ended, finished(2, batch="b1"), TrialPromoted(0, 1, 3), most=3)
    assert (full.admit(FRESH), full.room) == ([], 0)
    assert full.admit([*FRESH, RunId(0, 1)]) == [RunId(0, 1)], "it keeps no more than before"


def test_an_interrupted_run_keeps_its_room() -> None:
    lost = RunInterrupted(3, 0, Why.NODE_FAIL, batch="b1", seconds=5.0)
    history: list[AnyEvent] = [planned("b1", [0, 3]), finished(0, batch="b1"), lost]
    quota = quota_of(sweep_of(8), *history, most=4)
    assert quota.admit(runs((4, 0), (3, 0))) == runs((3, 0))
    assert quota.admit(runs((4, 0))) == runs((4, 0))
    assert quota.total.bytes == 4 * MB


def test_a_trial_of_which_nobody_measured_anything_counts_as_the_others_do() -> None:
    lost = RunInterrupted(3, 0, Why.NODE_FAIL, batch="b1", seconds=5.0)
    state = sweep_of(8)
    quota_of(state, planned("b1", [0, 3, 4]), finished(0, batch="b1"), lost, most=9)
    assert state.checkpoints.held.bytes == 2 * MB
    state.apply(RunInterrupted(4, 0, Why.NOT_STARTED, batch="b1"))
    assert state.checkpoints.held.bytes == 2 * MB


def test_a_trial_counts_with_the_size_of_its_own_checkpoint() -> None:
    history: list[AnyEvent] = [planned("b1", [0, 1])]
    history += [finished(0, kept=8 * MB, batch="b1"), finished(1, batch="b1")]
    history += [TrialPromoted(0, 1, 3), TrialPromoted(1, 1, 3)]
    quota = quota_of(sweep_of(2), *history, most=17)
    assert quota.admit(runs((1, 1), (0, 1))) == runs((1, 1))
    assert quota.total.bytes == 10 * MB
    assert quota.admit(runs((0, 1), (1, 1))) == runs((0, 1))
    assert quota.total.bytes == 17 * MB


def test_of_each_member_of_a_population_one_checkpoint_more_is_kept() -> None:
    history: list[AnyEvent] = [planned("b1", [0]), finished(0, batch="b1")]
    clone = TrialCreated(8, {"x": 0.5}, 1, 4, parent=0, start=2, origin="clone")
    state = sweep_of(8)
    assert quota_of(state, *history, clone, most=3, clones=True).admit(runs((8, 0), (3, 0))) == runs((8, 0))
    assert quota_of(state, most=4, clones=True).total.bytes == 0
    more = quota_of(state, most=9, clones=True)
    assert more.admit(runs((8, 0), (3, 0))) == runs((8, 0), (3, 0))
    assert more.total.bytes == 7 * MB


def test_the_quota_is_told_of_once_as_it_begins_and_as_it_ends() -> None:
    state = sweep_of(8)
    quota = quota_of(state, planned("b1", [0, 1]), finished(0, batch="b1"), most=5)

    def told(queue: list[RunId], *, free: int) -> list[AnyEvent]:
        quota.admit(queue)
        found = quota.events(free=free, kept_back=0, removes=lambda: False, now=7.0)
        for event in found:
            state.apply(event)
        return found

    message = (
        "store.checkpoint_quota of 5M: 1M held by 1 trial, 4M more expected of 2 runs under way; "
        "4 runs wait for room"
    )
    assert told(FRESH, free=3) == [CheckpointQuotaReached(7.0, message, bytes=MB, files=1)]
    assert told(FRESH, free=3) == []
    assert told(FRESH, free=1) == [CheckpointQuotaReached(7.0)]
    assert told(FRESH, free=1) == []
