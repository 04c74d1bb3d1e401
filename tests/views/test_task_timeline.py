"""When tasks held nodes, and what they ran there."""

from __future__ import annotations

from typing import Any

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunId,
    RunsAssigned,
    TaskBegan,
    TaskLeft,
)
from hpcsweep.views.task_timeline import (
    UNKNOWN_NODE,
    TimedRun,
    TimedTask,
    lanes_by_node,
    task_timeline,
)
from tests.views.folders import TROUBLED, finished, interrupted, planned


def reused(*tasks: int, **more: Any) -> list[AnyEvent]:
    """Tasks that keep their GPUs, submitted at 110."""
    plan = BatchPlanned("a", 100.0, ((),) * len(tasks), 2, 8, "slurm", reuse=True, **more)
    return [plan, BatchSubmitted("a", "7", 110.0)]


def given(task: int, trial: int, at: float) -> RunsAssigned:
    return RunsAssigned("a", at, task, (RunId(trial, 0),))


def placed(events: list[AnyEvent]) -> dict[str, list[list[tuple[int, float, float]]]]:
    """By node the trials of each lane with the beginning and end of their runs."""
    lanes = lanes_by_node(task_timeline(events).tasks)
    return {
        node: [[(r.run.trial, r.began, r.ended) for task in lane.tasks for r in task.runs] for lane in rows]
        for node, rows in lanes.items()
    }


def test_one_run_a_task_has_a_lane_where_none_is_free() -> None:
    events = [
        *planned("a", (0, 0), (1, 0), (2, 0)),
        finished(0, seconds=30.0),
        finished(1, started=180.0, seconds=30.0),
        finished(2, started=200.0, seconds=5.0),
        finished(3, node="", seconds=1.0),
        finished(4, node="n10", seconds=1.0),
    ]
    assert placed(events) == {
        "n1": [[(0, 170.0, 200.0), (2, 200.0, 205.0)], [(1, 180.0, 210.0)]],
        "n10": [[(4, 170.0, 171.0)]],
        UNKNOWN_NODE: [[(3, 170.0, 171.0)]],
    }
    found = task_timeline(events)
    assert found.waiting.tolist() == [[110.0, 170.0]] * 3 + [[110.0, 180.0], [110.0, 200.0]]
    assert not any(task.keeps for task in found.tasks)


def test_a_task_that_keeps_its_gpus_goes_from_run_to_run_until_it_leaves() -> None:
    events = [
        *reused(0),
        TaskBegan("a", 130.0, 0, started=120.0, node="n1", job="7_0"),
        given(0, 0, 131.0),
        finished(0, task=0, started=140.0, seconds=20.0),
        given(0, 1, 161.0),
        interrupted(1, Interruption.PREEMPTED, task=0, node="n1", started=165.0, seconds=5.0),
        TaskLeft("a", 190.0, 0, left=180.0),
        BatchClosed("a"),
    ]
    (task,) = task_timeline(events).tasks
    runs = (
        TimedRun(RunId(0, 0), 140.0, 160.0, Outcome.COMPLETED, 0),
        TimedRun(RunId(1, 0), 165.0, 170.0, Interruption.PREEMPTED, 0),
    )
    expected = TimedTask("a", 0, 0, "n1", "7_1", "", 110.0, 120.0, 180.0, True, 1, 1, runs)
    assert task == expected
    assert task.idle_s == 35.0


def test_a_task_that_was_found_gone_ended_with_its_last_run() -> None:
    events = [
        *reused(0),
        TaskBegan("a", 130.0, 0, started=120.0, node="n1"),
        given(0, 0, 131.0),
        finished(0, task=0, started=140.0, seconds=20.0),
        TaskLeft("a", 900.0, 0, left=900.0),
        BatchClosed("a"),
    ]
    assert [task.ended for task in task_timeline(events).tasks] == [160.0]


def test_what_is_under_way_lasts_until_the_newest_time_that_is_known() -> None:
    events = [
        *reused(0, 1, 2),
        TaskBegan("a", 130.0, 0, started=120.0, node="n1"),
        given(0, 0, 131.0),
        given(1, 1, 200.0),  # its beginning was not read yet
    ]
    found = task_timeline(events)
    assert found.tasks[0].runs == (TimedRun(RunId(0, 0), 131.0, 200.0, None, 0),)
    assert (found.tasks[0].ended, found.unplaced) == (200.0, 1)
    assert found.waiting.tolist() == [[110.0, 120.0], [110.0, 200.0], [110.0, 200.0]]


def test_lanes_of_a_task_are_rows_of_one_lane() -> None:
    events = [
        *reused(0, lanes=2),
        TaskBegan("a", 130.0, 0, started=120.0, node="n1"),
        *(given(0, trial, 131.0) for trial in range(3)),
        finished(0, task=0, started=140.0, seconds=60.0),
        finished(1, task=0, started=140.0, seconds=10.0),
        finished(2, task=0, started=150.0, seconds=10.0),
    ]
    found = task_timeline(events)
    assert [run.lane for run in found.tasks[0].runs] == [0, 1, 1]
    ((lane,),) = lanes_by_node(found.tasks).values()
    assert lane.height == 2


def test_of_an_earlier_version_an_interrupted_run_ends_when_the_driver_knew_of_it() -> None:
    """TROUBLED: submitted at 110; by then one run had ended that began at 170 and took an hour."""
    found = {run.run.trial: run for task in task_timeline(TROUBLED).tasks for run in task.runs if run.about}
    assert sorted(found) == [2, 3]
    assert [(run.began, run.ended) for run in found.values()] == [(1970.0, 3770.0)] * 2


def test_nodes_of_pools_are_apart_and_in_natural_order() -> None:
    events: list[AnyEvent] = []
    for at, (pool, node) in enumerate([("b", "n10"), ("b", "n9"), ("a", "n10")]):
        events += [
            BatchPlanned(f"b{at}", 100.0, ((RunId(at, 0),),), 2, 8, pool=pool, nodes=2),
            finished(at, batch=f"b{at}", task=0, node=node),
        ]
    assert list(placed(events)) == ["a: n10", "b: n9", "b: n10"]
    assert {task.nodes for task in task_timeline(events).tasks} == {2}
