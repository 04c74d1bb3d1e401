"""The section of tasks by node."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpcsweep.html.timeline
from hpcsweep.core.events import RunId, RunsAssigned, SweepStarted, TaskBegan
from hpcsweep.html.timeline import timeline
from tests.html.hand_made_sweeps import HALVING, figure, sweep, trace
from tests.views.folders import ENDED, TROUBLED, created, finished, identity, written
from tests.views.test_task_timeline import reused


def test_each_way_to_end_has_its_bars_and_the_queue_its_strip(tmp_path: Path) -> None:
    found = figure(timeline(written(tmp_path / "r", [*TROUBLED, ENDED])))
    assert [each["name"] for each in found.traces] == [
        *("completed", "interrupted", "failed"),
        "tasks in the queue",
    ]
    completed = trace(found, "completed")
    hours = [(170 - 50) / 3600, (4070 - 50) / 3600, (5010 - 50) / 3600]
    assert completed["base"] == pytest.approx(hours)
    assert completed["x"] == pytest.approx([1.0, 1.0, 1.0])
    assert completed["customdata"][0] == [0, 0, 10, "completed", "60 min", "n1"]
    assert trace(found, "interrupted")["customdata"][0] == [2, 0, 10, "preempted", "about 30 min", "n2"]
    assert found.layout["yaxis"]["ticktext"] == ["n1", "n2"]
    assert found.layout["xaxis"]["title"]["text"] == "hours since the start"
    assert "When some of the interrupted runs began is known only roughly." in found.caption
    assert found.summary == "6 attempts in 6 tasks on 2 nodes; 3 failed or interrupted."


def test_tasks_that_keep_their_gpus_are_grey_where_they_have_no_run(tmp_path: Path) -> None:
    events = [
        SweepStarted("cafe01", "lr", 50.0, identity()),
        *created(2),
        *reused(0),
        TaskBegan("a", 130.0, 0, started=120.0, node="n1", job="7_0"),
        *(RunsAssigned("a", 131.0, 0, (RunId(trial, 0),)) for trial in range(2)),
        finished(0, task=0, started=130.0, seconds=20.0, job="7_0"),
        finished(1, task=0, started=160.0, seconds=10.0, job="7_0"),
    ]
    found = figure(timeline(written(tmp_path / "r", events)))
    held = trace(found, "no run")
    assert found.layout["xaxis"]["title"]["text"] == "minutes since the start"
    assert (held["base"], held["x"]) == ([pytest.approx(70 / 60)], [pytest.approx(50 / 60)])
    assert held["customdata"] == [["7_0 task 0", 2, "50 s", "40%", "10 s"]]
    assert "Grey: tasks that keep their GPUs and have no run." in found.caption
    assert found.summary.endswith(
        "1 hand-over from one run to the next in tasks that keep their GPUs: "
        "the median took 10 s, the longest 10 s."
    )


def test_of_more_nodes_than_fit_those_with_trouble_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpcsweep.html.timeline, "MOST_ROWS", 2)
    found = figure(timeline(written(tmp_path / "r", [*TROUBLED, ENDED])))
    assert found.layout["yaxis"]["ticktext"] == ["n2"]
    assert "1 of 2 nodes are drawn." in found.caption


def test_of_a_single_node_with_very_many_runs_the_newest_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpcsweep.html.timeline, "MOST_RUNS", 2)
    found = figure(timeline(sweep(tmp_path / "r", HALVING)))
    assert [each[0] for each in trace(found, "completed")["customdata"]] == [2, 1]
    assert "2 of 9 runs are drawn. They are the newest." in found.caption


def test_before_anything_has_begun_there_is_no_timeline(tmp_path: Path) -> None:
    assert timeline(written(tmp_path / "r", [TROUBLED[0]])) is None
