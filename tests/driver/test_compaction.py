"""Compaction by the driver: when it happens, what it leaves, and that it costs nothing where it fails."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcsweep import load
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    CheckpointsDropped,
    CheckpointsRemoved,
    Config,
    FilesCompacted,
    Outcome,
    RunFinished,
    RunId,
    SweepEnded,
    SweepOutcome,
)
from hpcsweep.driver import Compactor, Driver, DriverConfig, SubprocessCompactor, compaction
from hpcsweep.driver.checkpoint_quota import CheckpointQuota
from hpcsweep.driver.compaction import CompactionManager
from hpcsweep.driver.effects import Compact, Step
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.searchers.random import Random
from hpcsweep.store.compaction import (
    CleanUpPart,
    CompactableRun,
    CompactionResult,
    CompactionTask,
    RemoveCheckpoints,
    WritePart,
    WriteTables,
    read_tables,
)
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.compaction.worker import run_compaction_task
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import Request, write_request
from hpcsweep.views.tables import read_part
from tests.compacted import batch_files
from tests.doubles import PROGRAM, SHAPE, FakeClock, FolderCluster, InlineCompactor, quadratic
from tests.driver.states import SETTINGS, submitted, sweep_of
from tests.driver.sweeps import (
    SPACE,
    STARTED,
    decided,
    drive,
    end_of,
    events,
    make_driver,
    of_kind,
    undisturbed,
)
from tests.html.trade_offs import trade_off
from tests.waiting import PATIENCE_S

CHILD = [sys.executable, "-P", "-m", "hpcsweep.store.compaction.worker"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def files(root: Path) -> list[str]:
    """Every file of a results folder but the journal's."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.parent.name != "journal")
    return sorted(str(path.relative_to(root)) for path in paths)


def kinds(root: Path) -> list[str]:
    """The files of a results folder by what they are."""
    return sorted(path.name.partition("-")[0] for path in root.rglob("*") if path.is_file())


def driven(root: Path, controller: Path, compactor: Compactor, **options: Any) -> Driver:
    """A sweep of few trials, driven with this compactor."""
    journal = Journal.open(Layout(root))
    driver = Driver(
        layout=Layout(root),
        journal=journal,
        space=SPACE,
        searcher=Random(),
        scheduler=Fifo(max_resource=2, trials=5),
        cluster=FolderCluster(controller, per_poll=2, reports=True),
        clock=FakeClock(),
        settings=DriverConfig("s", "folder", PROGRAM, SHAPE, 7, max_trials=5, compact_at=6, **options),
        compactor=compactor,
    )
    driver.start(STARTED)
    try:
        driver.run()
    finally:
        journal.release()
    return driver


# --------------------------------------------------------------------------- whole sweeps


def test_parts_are_made_while_the_sweep_goes_on_and_are_one_at_its_end(
    root: Path, controller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MERGE_ABOVE", 2)
    cluster = FolderCluster(controller, per_poll=2, reports=True)
    drive(root, cluster, compact=True, compact_at=12)
    made = of_kind(root, FilesCompacted)
    assert len(made) >= 4
    assert made[-1].replaces
    assert sorted(run for event in made for run in event.runs) == sorted(cluster.trained())
    assert len(CompactionState.replay(events(root)).parts) == 1
    assert kinds(root) == sorted(
        ["000001.jsonl", "metrics", "runs", "trials", "tables.json"]
        + ["batches" for event in made if event.batches]
    )
    assert decided(events(root)) == undisturbed(root.parent)


def test_a_sweep_of_one_run_batches_has_fewer_files_than_trials(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, per_poll=1, reports=True)
    asha = ASHA(max_resource=9, trials=40)
    drive(root, cluster, scheduler=asha, compact=True, compact_at=100, max_tasks=1, max_trials=40)
    frames = load(root)
    assert len(frames.trials) == 40
    assert len(frames.metrics) == sum(frames.runs["resource"])
    assert len([path for path in root.rglob("*") if path.is_file()]) < 20
    assert len(of_kind(root, FilesCompacted)) > 2


def test_nothing_of_a_run_that_failed_is_compacted_before_it_came_to_its_end(
    root: Path, controller: Path
) -> None:
    failing = {True}

    def fails_once(config: Config, resource: int) -> float | None:
        return None if failing and resource == 3 else quadratic(config, resource)

    cluster = FolderCluster(controller, objective=fails_once, reports=True)
    options: dict[str, Any] = {"compact": True, "max_trials": 2}
    drive(root, cluster, scheduler=Fifo(max_resource=3, trials=2), **options)
    assert len(list(root.glob("trials/*/*/metrics-0.0.0.jsonl"))) == 2
    failing.clear()
    write_request(Layout(root), Request("retry", 0.0, "ada"))
    drive(root, cluster, scheduler=Fifo(max_resource=3, trials=2), **options)
    assert list(root.glob("trials/*/*")) == []
    frames = load(root)
    assert list(frames.runs["outcome"]) == ["completed", "completed"]
    assert len(frames.metrics) == 6
    assert len(of_kind(root, FilesCompacted)) == 2


def test_a_sweep_that_goes_on_after_its_end_is_compacted_again(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, reports=True)
    drive(root, cluster, scheduler=Fifo(max_resource=2), compact=True, max_trials=3)
    first = load(root).metrics
    drive(root, cluster, scheduler=Fifo(max_resource=2), compact=True, max_trials=5)
    again = load(root)
    assert len(again.trials) == 5
    assert again.metrics[:6].equals(first)
    assert len(again.metrics) == 10
    assert kinds(root) == [
        "000001.jsonl",
        "000002.jsonl",
        *["batches"] * 2,
        "metrics",
        "runs",
        "tables.json",
        "trials",
    ]


def test_a_driver_that_has_nothing_to_compact_writes_nothing(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller, reports=True), compact=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    driver, journal = make_driver(root, FolderCluster(controller), compact=True)
    driver.compact()
    journal.release()
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


def written(root: Path, *, told: bool) -> str:
    """All that is ready is in a part of a driver that was killed before or after it told of it."""
    layout = Layout(root)
    journal = Journal.open(layout)
    journal.acquire()
    compaction_state = CompactionState.replay(journal.events)
    runs = tuple(CompactableRun(*run, 0, 0) for run in sorted(compaction_state.ready))
    order = WritePart(f"{journal.number:06d}-1", runs, tuple(compaction_state.batches))
    answer = run_compaction_task(layout, order, now=0.0)
    if told:
        journal.commit([FilesCompacted(order.part, answer.runs, order.batches)])
    journal.release()
    return order.part


@pytest.mark.parametrize("told", [True, False])
def test_the_part_of_a_killed_driver_is_finished_or_removed_by_the_next(
    root: Path, controller: Path, told: bool
) -> None:
    drive(root, FolderCluster(controller, reports=True))
    raw = files(root)
    part = written(root, told=told)
    assert set(files(root)) > set(raw)
    drive(root, FolderCluster(controller), compact=True)
    mine = part if told else "000003-1"
    assert files(root) == sorted(
        [f"compacted/{name}" for name in (f"batches-{mine}.zip", f"metrics-{mine}.parquet", "tables.json")]
        + [str(path.relative_to(root)) for path in root.glob("compacted/[rt]*-*.parquet")]
    )
    assert len(load(root).metrics) == sum(load(root).runs["resource"])


# --------------------------------------------------------------------------- where it cannot be done


class Recording(InlineCompactor):
    """Notes what is asked for."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.orders: list[CompactionTask] = []

    def begin(self, order: CompactionTask) -> None:
        self.orders.append(order)
        super().begin(order)


class Failing(Recording):
    """Can do nothing."""

    def answer(self, wait_s: float) -> CompactionResult | None:
        return CompactionResult(error="OSError: no space left")


def test_a_failing_compaction_is_logged_once_and_costs_nothing(
    root: Path, controller: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(Layout(root))
    with caplog.at_level(logging.WARNING):
        driver = driven(root, controller, failing)
    assert end_of(root) == (SweepOutcome.FINISHED, driver.state.ended and driver.state.ended.reason)
    told = f"{root}: finished parts are not compacted: OSError: no space left"
    assert [record.message for record in caplog.records] == [told]
    assert len(failing.orders) == 1
    assert of_kind(root, FilesCompacted) == []
    assert len(load(root).metrics) == 10
    driven(root, controller, InlineCompactor(Layout(root)))
    assert len(load(root).metrics) == 10
    assert not any((root / "batches").iterdir())


def test_a_driver_whose_commit_came_too_late_removes_nothing(
    root: Path, controller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(root, FolderCluster(controller, reports=True))
    raw = files(root)
    commit = Journal.commit

    def superseded_meanwhile(journal: Journal, committed: Sequence[AnyEvent]) -> None:
        commit(journal, committed)
        if isinstance(committed[0], FilesCompacted):
            (root / "journal/000009.jsonl").touch()  # since its last look, and before it wrote

    monkeypatch.setattr(Journal, "commit", superseded_meanwhile)
    driver, journal = make_driver(root, FolderCluster(controller), compact=True)
    driver.compact()
    journal.release()
    assert len(of_kind(root, FilesCompacted)) == 1
    assert set(files(root)) >= set(raw)


def test_a_run_whose_reports_are_not_visible_yet_stays_raw_for_a_while(root: Path) -> None:
    layout = Layout(root)
    late, silent, seen = (
        CompactableRun(0, 0, 1, 0, 1000.0),
        CompactableRun(1, 0, 0, 0),
        CompactableRun(2, 0, 0, 0, 1000.0),
    )
    order = WritePart("000001-1", (late, silent, seen))
    path = layout.trial(2).metrics(0, 0, 0)
    path.parent.mkdir(parents=True)
    path.write_text('{"step":1,"loss":0.5}\n')
    assert run_compaction_task(layout, order, now=1100.0).runs == (RunId(1, 0), RunId(2, 0))
    assert run_compaction_task(layout, order, now=1200.0).runs == (RunId(0, 0), RunId(1, 0), RunId(2, 0))


# --------------------------------------------------------------------------- the process


def completed(compactor: Compactor) -> CompactionResult:
    deadline = time.monotonic() + PATIENCE_S
    while (answer := compactor.answer(1.0)) is None:
        assert time.monotonic() < deadline
    return answer


def test_a_process_of_its_own_compacts_a_sweep(root: Path, controller: Path) -> None:
    child = SubprocessCompactor([*CHILD, str(root)], ENVIRONMENT)
    driven(root, controller, child)
    assert len(of_kind(root, FilesCompacted)) >= 1
    assert len(load(root).metrics) == 10
    assert {name.partition("/")[2] for name in batch_files(root)} >= {"manifest.jsonl", "logs/0.log"}
    assert kinds(root)[-3:] == ["runs", "tables.json", "trials"]
    part = of_kind(root, FilesCompacted)[-1].part
    child.begin(WritePart("000009-1", replaces=(part, part), recorded=(part,)))
    assert completed(child) == CompactionResult()
    child.close()
    once, twice = (read_part(Layout(root).reports_part(name)) for name in (part, "000009-1"))
    assert twice.to_pylist() == [row for row in once.to_pylist() for _ in range(2)]


def test_a_process_of_its_own_writes_the_tables_of_several_objectives(tmp_path: Path) -> None:
    results = trade_off(tmp_path / "r")
    child = SubprocessCompactor([*CHILD, str(results.path)], ENVIRONMENT)
    child.begin(WriteTables())
    assert completed(child) == CompactionResult()
    child.close()
    best = {"error": 0.2, "speed": 80.0}
    tables = read_tables(Layout(results.path))
    assert tables is not None
    assert tables.best is not None
    assert tables.best["values"] == best
    assert load(results.path).trials["front"].tolist()[:4] == [1, 1, 1, 1]


def test_a_process_that_dies_or_cannot_be_started_is_an_error_and_not_the_end(root: Path) -> None:
    dying = SubprocessCompactor([sys.executable, "-c", "input(); import os; os._exit(7)"], ENVIRONMENT)
    dying.begin(CleanUpPart("000001-1"))
    assert completed(dying) == CompactionResult(error="the process ended with code 7")
    dying.close()
    missing = SubprocessCompactor(["/there/is/no/python"], {})
    missing.begin(CleanUpPart("000001-1"))
    assert "No such file or directory" in completed(missing).error
    missing.close()


def test_the_process_reports_an_error_and_takes_the_next_task(root: Path) -> None:
    child = SubprocessCompactor([*CHILD, str(root)], ENVIRONMENT)
    child.begin(WritePart("000002-1", replaces=("000001-1",)))
    missing = f"{root}/compacted/metrics-000001-1.parquet"
    told = f"FileNotFoundError: [Errno 2] No such file or directory: '{missing}'"
    assert completed(child) == CompactionResult(error=told)
    child.begin(CleanUpPart("000001-1"))
    assert completed(child) == CompactionResult()
    child.close()
    child.close()
    child.begin(CleanUpPart("000001-1"))
    assert completed(child) == CompactionResult()
    child.close()


# --------------------------------------------------------------------------- what is due, as values

RUN = CompactableRun(0, 0, 0, 0, 9.0)
PART = WritePart("000003-1", (RUN,), ("b1",))
COMPACTED = FilesCompacted(PART.part, (RUN.run,), ("b1",))


class Sweep:
    """Two trials, one of which is completed and in a closed batch; nothing was compacted."""

    def __init__(self, root: Path, *, at: int = 100) -> None:
        self.state = sweep_of(2)
        self.compaction_state = CompactionState()
        quota = CheckpointQuota(self.state, settings=SETTINGS, clones=False)
        self.manager = CompactionManager(
            self.state, self.compaction_state, None, quota, layout=Layout(root), at=at
        )
        history = [
            *submitted("b1", [0]),
            RunFinished(0, 0, Outcome.COMPLETED, value=0.5, step=9, batch="b1", started=7.0, seconds=2.0),
            BatchClosed("b1"),
        ]
        self.apply(*history)

    def apply(self, *events: AnyEvent) -> None:
        for event in events:
            self.state.apply(event)
            self.compaction_state.apply(event)

    def next(self, **options: Any) -> Step:
        return self.manager.next(segment=3, **options)

    def completed(self, task: CompactionTask, answer: CompactionResult) -> Step:
        step = self.manager.completed(task, answer)
        self.apply(*step.events)
        return step


def test_a_part_is_due_when_enough_raw_files_are_ready_and_cleared_once_it_is_committed(root: Path) -> None:
    assert Sweep(root).next() == Step()
    sweep = Sweep(root, at=1)
    assert sweep.next() == Step(effects=(Compact(PART),))
    assert sweep.completed(PART, CompactionResult(runs=(RUN.run,))) == Step((COMPACTED,))
    assert sweep.next() == Step(effects=(Compact(CleanUpPart(PART.part)),))
    assert sweep.completed(CleanUpPart(PART.part), CompactionResult()) == Step()
    assert sweep.next() == Step()


def test_at_the_end_all_goes_into_a_part_and_the_tables_are_written_unless_they_are_there(root: Path) -> None:
    for has_tables, due in ((False, Step(effects=(Compact(WriteTables()),))), (True, Step())):
        sweep = Sweep(root)
        sweep.apply(SweepEnded(9.0, SweepOutcome.FINISHED, "done"))
        assert sweep.next(has_tables=has_tables) == Step(effects=(Compact(PART),))
        sweep.completed(PART, CompactionResult(runs=(RUN.run,)))
        sweep.next(has_tables=has_tables)
        assert sweep.next(has_tables=has_tables) == due
        assert sweep.next(has_tables=has_tables) == Step()


def test_what_an_earlier_session_dropped_is_removed_and_a_failure_is_not_repeated(root: Path) -> None:
    sweep = Sweep(root)
    sweep.apply(CheckpointsDropped((0,)))
    removal = RemoveCheckpoints((0,))
    assert sweep.next() == Step(effects=(Compact(removal),))
    assert sweep.completed(removal, CompactionResult()) == Step()
    assert sweep.next() == Step()
    removed = CheckpointsRemoved((0,), (0,), files=2, bytes=9)
    assert sweep.completed(removal, CompactionResult(trials=(0,), had=(0,), files=2, bytes=9)) == Step(
        (removed,)
    )


def test_parts_of_a_killed_driver_are_cleared_only_if_the_journal_knows_them(root: Path) -> None:
    sweep = Sweep(root)
    sweep.apply(COMPACTED)
    assert sweep.manager.needs_parts
    step = sweep.next(pending=[PART.part, "000002-1"])
    assert step == Step(effects=(Compact(CleanUpPart(PART.part)),))
    assert not sweep.manager.needs_parts
    assert sweep.next() == Step()


def test_after_an_error_nothing_is_due_any_more(root: Path) -> None:
    sweep = Sweep(root, at=1)
    sweep.next()
    assert sweep.completed(PART, CompactionResult(error="OSError: no space left")) == Step()
    assert sweep.next() == Step()
