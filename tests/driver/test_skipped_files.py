"""A sweep in a folder that others use too: what they leave there ends no driver."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.core.events import FailureKind, Outcome, RunFinished, RunId, SweepOutcome
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.store.batch import ManifestRun, Program
from hpcsweep.store.compaction import CompactableRun, WritePart
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.compaction.worker import run_compaction_task
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.store.requests import Request, write_request
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.views.folder import ResultsFolder
from hpcsweep.views.tables import metrics_table, read_raw
from hpcsweep.worker.outcome import read_objective
from tests.doubles import FolderCluster
from tests.driver.sweeps import make_driver
from tests.users import ADA, IS_ROOT, as_user, give, open_folder


def test_strange_files_in_the_folder_do_not_disturb_a_sweep(root: Path, controller: Path) -> None:
    driver, journal = make_driver(
        root, FolderCluster(controller, per_poll=0), scheduler=Fifo(max_resource=1, trials=4)
    )
    layout = Layout(root)
    driver.tick()
    driver.tick()
    [batch] = driver.state.live
    layout.control.mkdir()
    (layout.control / "d.json").mkdir()
    (layout.control / "x.json").write_text("{")
    os.mkfifo(layout.control / "p.json")
    results = layout.batch(batch).results
    results.mkdir(exist_ok=True)
    for name in ("notes.json", "0.0.0 (copy).json"):
        (results / name).write_text("{}")
    (layout.journal / "000003 (copy).jsonl").write_text("whatever")
    (layout.batches / "stray").mkdir()
    named = [
        f"skipped: batches/{batch}/results/0.0.0 (copy).json: is not a file of this sweep",
        f"skipped: batches/{batch}/results/notes.json: is not a file of this sweep",
        "skipped: control/d.json: is a folder, not a file",
        "skipped: control/p.json: is a pipe, not a file",
        "skipped: control/x.json: is damaged: Input data was truncated",
    ]
    for _ in range(3):  # the same lines each time: `launch` prints those that are new
        driver.tick()
        assert driver.skipped_files == named
    journal.release()
    stray = "skipped: journal/000003 (copy).jsonl: is not a file of this sweep"
    assert ResultsFolder(root).skipped_files() == [*named, "skipped: 1 more file that is not ours"]
    again, journal = make_driver(
        root, FolderCluster(controller, per_poll=4), scheduler=Fifo(max_resource=1, trials=4)
    )
    again.run()
    journal.release()
    assert again.skipped_files[0] == stray
    ended = again.state.ended
    assert ended is not None
    assert (ended.outcome, sum(again.state.counts.values())) == (SweepOutcome.FINISHED, 4)
    values = [event for event in read_journal(layout).events if isinstance(event, RunFinished)]
    assert [event.outcome for event in values] == [Outcome.COMPLETED] * 4


def test_a_result_of_another_batch_is_skipped(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, per_poll=0)
    driver, journal = make_driver(root, cluster, scheduler=Fifo(max_resource=1, trials=2))
    driver.tick()
    driver.tick()
    [batch] = driver.state.live
    results = Layout(root).batch(batch).results
    results.mkdir(exist_ok=True)
    foreign = {"trial": 1, "rung": 0, "attempt": 0, "restart": 0, "task": 7, "outcome": "failed"}
    (results / "7.0.0.json").write_bytes(msgspec.json.encode(foreign))
    driver.tick()
    place = f"skipped: batches/{batch}/results/7.0.0.json"
    assert driver.skipped_files == [f"{place}: is the result of a run of another batch"]
    cluster.per_poll = 4
    driver.run()
    journal.release()
    assert driver.state.ended is not None
    assert driver.state.ended.outcome is SweepOutcome.FINISHED


def test_a_request_that_cannot_be_removed_is_handled_once(root: Path, controller: Path) -> None:
    layout = Layout(root)
    driver, journal = make_driver(
        root, FolderCluster(controller, per_poll=4), scheduler=Fifo(max_resource=1, trials=2)
    )
    name = write_request(layout, Request("nothing of ours", 1.0, "bob")).name
    path, unlink = layout.control / name, Path.unlink

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self, *args, **kwargs)

    Path.unlink = refuse  # type: ignore[method-assign]
    try:
        driver.tick()
        said = driver.skipped_files
        assert not driver.has_unread
    finally:
        Path.unlink = unlink  # type: ignore[method-assign]
    journal.release()
    assert said == [f"skipped: control/{name}: is taken up and cannot be removed: Permission denied"]


def test_an_unreadable_metrics_file_fails_only_its_run() -> None:
    with open_folder() as folder:
        trial = Layout(folder).trial(0)
        path = trial.metrics(0, 0, 0)
        writer = MetricsWriter(path)
        writer.write(1, {"loss": 0.5})
        writer.close()
        path.chmod(0)
        give(folder, ADA) if IS_ROOT else None
        run = ManifestRun(trial=0, rung=0, bracket=0, resource=1, attempt=0, seed=0, config={})
        program = Program(workdir="/", metric="loss")
        found = as_user(lambda: tuple(read_objective(trial, run, program, restart=0, start=0)))
        problem = f"{path}: cannot be read: Permission denied"
        assert found == (None, problem, 0, False, False, FailureKind.UNREADABLE, 0, 0, None, 0, ())


def test_reports_that_cannot_be_read_stay_where_they_are_and_are_named() -> None:
    with open_folder() as folder:
        layout = Layout(folder / "sweep")
        for trial in range(3):
            writer = MetricsWriter(layout.trial(trial).metrics(0, 0, 0))
            writer.write(1, {"loss": 0.5 + trial})
            writer.close()
        unread = layout.trial(1).metrics(0, 0, 0)
        unread.chmod(0)
        os.mkfifo(layout.trial(2).metrics(0, 1, 0))
        give(folder, ADA) if IS_ROOT else None
        order = WritePart("000001-1", tuple(CompactableRun(trial, 0, 0, 0) for trial in range(3)))

        def look() -> tuple[Any, ...]:
            answer = run_compaction_task(layout, order, now=1e9)
            found = Skipped()
            table = read_raw(layout, [RunId(trial, 0) for trial in range(3)], found)
            return answer.runs, answer.error, table.to_pydict(), found.lines(layout.root)

        runs, error, table, lines = as_user(look)
        assert (runs, error) == (((0, 0),), "")
        assert table == {"trial": [0, 2], "rung": [0, 0], "step": [1, 1], "loss": [0.5, 2.5]}
        assert lines == [
            "skipped: trials/0000/1/metrics-0.0.0.jsonl: cannot be read: Permission denied",
            "skipped: trials/0000/2/metrics-0.1.0.jsonl: cannot be read: is a pipe, not a file",
        ]


def test_a_batch_folder_with_a_file_that_cannot_be_archived_stays_whole(root: Path, controller: Path) -> None:
    driver, journal = make_driver(
        root, FolderCluster(controller, per_poll=2), scheduler=Fifo(max_resource=1, trials=2)
    )
    driver.run()
    journal.release()
    layout = Layout(root)
    [batch] = CompactionState.replay(read_journal(layout).events).batches
    folder = layout.batch(batch).root
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    Path(os.fsdecode(os.path.join(os.fsencode(folder), b"\xff"))).touch()
    before = sorted(path.name for path in folder.rglob("*"))
    again, journal = make_driver(
        root,
        FolderCluster(controller, per_poll=2),
        scheduler=Fifo(max_resource=1, trials=2),
        compact=True,
    )
    again.compact()
    journal.release()
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert CompactionState.replay(read_journal(layout).events).batches == {}
    shutil.rmtree(folder)  # the archive has all the rest
    assert metrics_table(layout, read_journal(layout).events).num_rows == 0
