"""Time that tasks hold GPUs without a run: before each run, and in all."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunsAssigned,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
)
from hpcsweep.views.task_times import HandOver, Overhead, TaskTimes


def planned(*, lanes: int = 1, reuse: bool = True) -> BatchPlanned:
    return BatchPlanned("b", 0.0, ((), ()), 2, 2, "slurm", reuse=reuse, lanes=lanes)


def given(trial: int, at: float, *, task: int = 0, restart: int = 0) -> RunsAssigned:
    return RunsAssigned("b", at, task, (RunId(trial, 0),), restart)


def done(trial: int, started: float, seconds: float, *, task: int = 0, restart: int = 0) -> RunFinished:
    return RunFinished(
        trial,
        0,
        Outcome.COMPLETED,
        0.5,
        1,
        restart=restart,
        batch="b",
        task=task,
        seconds=seconds,
        gpu_seconds=2 * seconds,
        started=started,
    )


def known(events: Sequence[AnyEvent]) -> list[HandOver | Overhead]:
    times = TaskTimes()
    return [found for event in events if (found := times.apply(event)) is not None]


#: Two tasks of two GPUs: the first takes runs from 10 to 100 and trains for 60 s of them, the second is
#: requeued after 20 s of training, and its second start trains for 30 s of 40 s.
SWEEP: list[AnyEvent] = [
    planned(),
    TaskBegan("b", 11.0, 0, 0, 10.0),
    given(0, 12.0),
    done(0, 14.0, 40.0),
    given(1, 55.0),
    done(1, 57.0, 20.0),
    TaskLeft("b", 101.0, 0, 0, 2, 100.0),
    TaskBegan("b", 11.0, 1, 0, 10.0),
    given(2, 12.0, task=1),
    RunInterrupted(2, 0, Interruption.PREEMPTED, batch="b", task=1, seconds=20.0, gpu_seconds=40.0),
    TaskBegan("b", 211.0, 1, 1, 210.0),
    given(2, 211.0, task=1, restart=1),
    done(2, 212.0, 30.0, task=1, restart=1),
    TaskLeft("b", 251.0, 1, 1, 1, 250.0),
]


def test_the_time_before_each_run_counts_from_the_run_before_or_the_beginning_of_its_task() -> None:
    assert known(SWEEP) == [
        HandOver(12.0, 4.0, first=True),
        HandOver(55.0, 3.0, first=False),
        HandOver(12.0, 2.0, first=True),  # when it began is not known: once it was assigned
        HandOver(211.0, 2.0, first=True),
    ]


def test_a_task_may_tell_that_it_leaves_before_its_last_run_is_known_to_have_ended() -> None:
    events = [*SWEEP[:5], SWEEP[6], SWEEP[5]]
    assert known(events) == known(SWEEP[:7])


def test_what_tasks_took_beyond_their_runs_is_split_into_hand_over_and_start_up() -> None:
    # 90 s held and 60 s trained, 22 and 20, 40 and 30; the cluster counted 62 s beyond the runs.
    [*_, closed] = known([*SWEEP, BatchClosed("b", 62.0, 124.0)])
    assert closed == Overhead(42.0, 84.0, 20.0, 40.0)


def test_hand_over_is_never_more_than_the_cluster_counted() -> None:
    [*_, closed] = known([*SWEEP, BatchClosed("b", 12.0, 24.0)])
    assert closed == Overhead(12.0, 24.0, 0.0, 0.0)


def test_gpus_that_a_task_was_given_beyond_those_asked_for_are_held_between_runs_as_well() -> None:
    begun: list[AnyEvent] = [planned(), TasksAllocated("b", (0,), 4), TaskBegan("b", 11.0, 0, 0, 10.0)]
    [closed] = known([*begun, TaskLeft("b", 31.0, 0, 0, 0, 30.0), BatchClosed("b", 25.0, 100.0)])
    assert closed == Overhead(20.0, 80.0, 5.0, 20.0)


def test_of_lanes_side_by_side_only_the_sum_is_known() -> None:
    begun: list[AnyEvent] = [planned(lanes=2), TaskBegan("b", 11.0, 0, 0, 10.0)]
    runs: list[AnyEvent] = [given(0, 11.0), given(1, 11.0), done(0, 12.0, 10.0), done(1, 12.0, 10.0)]
    assert known([*begun, *runs]) == [HandOver(11.0, None, first=True), HandOver(11.0, None, first=False)]


def test_of_tasks_with_runs_of_their_own_nothing_is_told() -> None:
    batch = BatchPlanned("b", 0.0, ((RunId(0, 0),),), 2, 1, "slurm")
    assert known([batch, done(0, 12.0, 10.0), BatchClosed("b", 9.0, 18.0)]) == []
