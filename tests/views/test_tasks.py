"""Tasks that keep their GPUs, as status shows them: by the journal alone, and with what the queue knows."""

from __future__ import annotations

from hpcsweep.core.cluster_protocol import Phase, TaskId, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunsAssigned,
    SweepStarted,
    TaskBegan,
    TaskLeft,
    TrialCreated,
)
from hpcsweep.core.state import SweepState
from hpcsweep.views.tasks import Activity, activity_counts, live_tasks, queue_waits

NOW = 1100.0


def began(task: int, at: float, *, restart: int = 0) -> TaskBegan:
    return TaskBegan("a", at, task, restart, at - 1, node=f"n{task}", job=f"70_{task}")


def given(task: int, at: float, *trials: int, restart: int = 0, number: int = 0) -> RunsAssigned:
    return RunsAssigned("a", at, task, tuple(RunId(trial, 0) for trial in trials), restart, number)


def finished(trial: int, task: int, *, started: float, seconds: float) -> RunFinished:
    return RunFinished(
        trial, 0, Outcome.COMPLETED, 0.5, 3, batch="a", task=task, started=started, seconds=seconds
    )


def events(*more: AnyEvent, tasks: int = 6, lanes: int = 1) -> list[AnyEvent]:
    return [
        SweepStarted("cafe01", "lr", 900.0, {"objective": {"metric": "loss", "mode": "min"}}),
        *(TrialCreated(trial, {"x": 0.5}, 0, 3) for trial in range(9)),
        BatchPlanned("a", 1000.0, ((),) * tasks, 1, tasks, "slurm", reuse=True, lanes=lanes),
        BatchSubmitted("a", "70", 1001.0),
        *more,
    ]


#: Task 0 trains its second run, 1 idles, 2 has left, 3 was preempted before, 4 and 5 have not begun.
BUSY = events(
    *(began(task, 1010.0 + task) for task in range(4)),
    given(0, 1012.0, 0, 1),
    given(1, 1013.0, 2),
    given(2, 1014.0, 3),
    given(3, 1015.0, 4),
    finished(0, 0, started=1013.0, seconds=30.0),
    finished(2, 1, started=1014.0, seconds=50.0),
    finished(3, 2, started=1015.0, seconds=40.0),
    TaskLeft("a", 1061.0, 2, 0, 1, 1060.0),
    TaskLeft("a", 1031.0, 3, 0, 1, 1030.0),
    RunInterrupted(4, 0, Interruption.PREEMPTED, batch="a", task=3),
)


def shown(state: SweepState, *, now: float = NOW, **queue: TaskState) -> list[tuple[int, str, float]]:
    queued = {TaskId("a", int(task.removeprefix("task"))): each for task, each in queue.items()}
    return [
        (task.id.task, task.activity.value, task.since) for task in live_tasks(state, now=now, shown=queued)
    ]


def test_the_journal_tells_what_each_task_is_at_and_since_when() -> None:
    state = SweepState.replay(BUSY)
    assert shown(state) == [
        (1, "idle", 1064.0),
        (2, "leaving", 1060.0),
        (0, "running", 1043.0),  # when its first run ended: the second was assigned ahead
        (4, "pending", 1000.0),
        (5, "pending", 1000.0),
    ]
    tasks = live_tasks(state, now=NOW)
    assert activity_counts(tasks) == {"idle": 1, "leaving": 1, "running": 1, "pending": 2}
    [running] = [task for task in tasks if task.activity is Activity.RUNNING]
    assert (running.job, running.node, [run.trial for run in running.runs]) == ("70_0", "n0", [1])


def test_a_task_that_left_is_not_shown_for_long_unless_the_queue_has_it() -> None:
    state = SweepState.replay(BUSY)
    later = 1060.0 + 61
    assert (2, "leaving", 1060.0) not in shown(state, now=later)
    assert (2, "leaving", 1060.0) in shown(state, now=later, task2=TaskState(Phase.RUNNING))
    assert (2, "leaving", 1060.0) not in shown(state, task2=TaskState(Phase.COMPLETED))


def test_the_queue_shows_requeued_tasks_and_those_that_are_gone() -> None:
    state = SweepState.replay(BUSY)
    queue = {
        "task0": TaskState(Phase.NODE_FAIL),
        "task3": TaskState(Phase.PENDING, "BeginTime"),
        "task4": TaskState(Phase.RUNNING),  # starting up
    }
    tasks = live_tasks(state, now=NOW, shown={TaskId("a", int(t[4:])): each for t, each in queue.items()})
    assert [(task.id.task, task.activity.value, task.reason) for task in tasks] == [
        (1, "idle", ""),
        (2, "leaving", ""),
        (3, "pending", "BeginTime"),
        (4, "pending", ""),
        (5, "pending", ""),
    ]


def test_a_task_that_the_cluster_started_again_is_at_what_its_new_start_does() -> None:
    again: list[AnyEvent] = [began(3, 1080.0, restart=1), given(3, 1081.0, 4, restart=1)]
    assert (3, "running", 1081.0) in shown(SweepState.replay([*BUSY, *again]))


def test_lanes_train_side_by_side() -> None:
    state = SweepState.replay(events(began(0, 1010.0), given(0, 1012.0, 0, 1, 2), tasks=1, lanes=2))
    [task] = live_tasks(state, now=NOW)
    assert (task.activity, task.since, [run.trial for run in task.runs]) == (Activity.RUNNING, 1012.0, [0, 1])


def test_queue_waits_are_those_of_first_starts() -> None:
    assert queue_waits(SweepState.replay(events())) is None
    state = SweepState.replay([*BUSY, began(3, 2000.0, restart=1)])
    assert queue_waits(state) == {"tasks": 4, "median": 11.5, "last": 13.0}


def test_tasks_with_runs_of_their_own_are_none_of_these() -> None:
    batch = BatchPlanned("b", 1000.0, ((RunId(0, 0),),), 1, 1, "slurm")
    assert live_tasks(SweepState.replay([*events(tasks=0)[:10], batch]), now=NOW) == []
