"""Runs become arrays and submissions; batches without an answer are found or abandoned."""

from __future__ import annotations

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import Batch
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver.budgets import GpuBudget
from hpcsweep.driver.effects import Abandon, Step, Submit
from hpcsweep.driver.observer import Sighting
from hpcsweep.driver.submitter import Submitter
from hpcsweep.store.batch import Header, ManifestRun, trial_seed
from tests.doubles import PROGRAM, SHAPE
from tests.driver.states import LAYOUT, SETTINGS, monitor_of, planned, submitted, sweep_of

SETTLE_S = 150.0


def submitter_of(state: SweepState, *, runs: int = 1, clones: bool = False) -> Submitter:
    settings = msgspec.structs.replace(SETTINGS, shape=msgspec.structs.replace(SHAPE, runs=runs))
    monitor = monitor_of(state, settings)
    return Submitter(
        state,
        layout=LAYOUT,
        settings=settings,
        monitor=monitor,
        budget=GpuBudget(settings, default_time_s=60),
        clones=clones,
    )


def plan(
    submitter: Submitter, trials: int, *, free: int, array_tasks: int | None = None
) -> list[BatchPlanned]:
    runs = [RunId(trial, 0) for trial in range(trials)]
    return submitter.plan(runs, segment=3, free=free, array_tasks=array_tasks, now=5.0)


# --------------------------------------------------------------------------- plans


def test_one_array_takes_all_runs_and_lets_as_many_tasks_run_as_there_are_slots() -> None:
    assert plan(submitter_of(sweep_of(5)), 5, free=2) == [
        BatchPlanned(
            "s-cafe01-3-1",
            5.0,
            tuple((RunId(trial, 0),) for trial in range(5)),
            gpus=1,
            throttle=2,
            cluster="fake",
            time_s=60,
        )
    ]


@pytest.mark.parametrize(
    ("runs", "array_tasks", "free", "arrays"),
    [
        (1, 2, 9, [([1, 1], 2), ([1, 1], 2), ([1], 1)]),
        (1, 2, 3, [([1, 1], 2), ([1, 1], 1)]),  # an array without a slot is not submitted
        (2, None, 9, [([2, 2, 1], 3)]),
        (2, 2, 9, [([2, 2], 2), ([1], 1)]),
        (1, None, 0, []),
    ],
)
def test_arrays_are_as_large_as_the_site_allows(
    runs: int, array_tasks: int | None, free: int, arrays: list[tuple[list[int], int]]
) -> None:
    found = plan(submitter_of(sweep_of(5), runs=runs), 5, free=free, array_tasks=array_tasks)
    assert [([len(task) for task in each.tasks], each.throttle) for each in found] == arrays
    assert len({each.batch for each in found}) == len(found)


def test_a_submission_holds_the_array_and_what_its_tasks_are_to_do() -> None:
    state = sweep_of(1, planned("b1", [0]))
    batch = planned("b1", [0])
    run = ManifestRun(
        trial=0,
        rung=0,
        bracket=0,
        resource=9,
        attempt=0,
        seed=trial_seed(7, 0),
        config={"x": 0.0},
        parent=None,
        parent_step=0,
    )
    assert submitter_of(state).submission(batch, now=5.0, after="4710_1") == Submit(
        Batch("b1", LAYOUT.batch("b1").root, 1, 4, SHAPE, after="4710_1"),
        Header("b1", "cafe01", PROGRAM, gpus=1, lanes=1),
        ((run,),),
    )


def test_checkpoints_that_others_may_start_from_are_kept_where_trials_are_cloned() -> None:
    state = sweep_of(1, *submitted("b1", [0]))
    state.apply(RunFinished(0, 0, Outcome.COMPLETED, value=0.5, step=9, batch="b1"))
    state.apply(TrialPromoted(0, 1, 27))
    state.apply(TrialCreated(1, {"x": 0.1}, 0, 9, parent=0, start=4))
    batch = BatchPlanned("b2", 5.0, ((RunId(0, 1),),), gpus=1, throttle=1)
    state.apply(batch)
    kept = [
        submitter_of(state, clones=clones).submission(batch, now=5.0).tasks[0][0].keep
        for clones in (True, False)
    ]
    assert kept == [(4, 9), ()]


# --------------------------------------------------------------------------- the queue


def test_interrupted_runs_go_first_then_waiting_ones_promotions_and_new_trials() -> None:
    state = sweep_of(3, *submitted("b1", [2]))
    state.apply(RunInterrupted(2, 0, Interruption.PREEMPTED, batch="b1", seconds=99.0))
    events: list[AnyEvent] = [
        TrialCreated(3, {"x": 0.3}, 0, 9),
        TrialPromoted(0, 1, 27),
        RunFinished(1, 0, Outcome.STOPPED),
    ]
    assert submitter_of(state).queue(events) == [RunId(2, 0), RunId(0, 0), RunId(0, 1), RunId(3, 0)]


def test_runs_of_a_batch_that_fails_at_once_wait_until_it_is_closed() -> None:
    state = sweep_of(2, *submitted("b1", [0], [1]))
    state.apply(RunInterrupted(0, 0, Interruption.WORKER_DIED, batch="b1", seconds=1.0))
    assert submitter_of(state).queue() == []
    state.apply(RunFinished(1, 0, Outcome.COMPLETED, value=0.5, step=9, batch="b1", seconds=99.0))
    assert submitter_of(state).queue() == [RunId(0, 0)]


def test_waiting_runs_of_stopped_trials_end_with_the_last_value_that_they_reported() -> None:
    state = sweep_of(3, *submitted("b1", [1]))
    state.apply(RunReported(1, 0, ((4, 0.25),)))
    state.apply(RunInterrupted(1, 0, Interruption.PREEMPTED, batch="b1", step=4))
    state.apply(TrialStopped(1, "median"))
    assert submitter_of(state).stopped_while_waiting([TrialStopped(2, "asked for")]) == [
        RunFinished(2, 0, Outcome.STOPPED, None, 0, message="asked for"),
        RunFinished(1, 0, Outcome.STOPPED, 0.25, 4, message="median"),
    ]


# --------------------------------------------------------------------------- batches without an answer


def unanswered() -> tuple[SweepState, Submitter]:
    state = sweep_of(1, planned("b1", [0], at=100.0))
    return state, submitter_of(state)


ABANDON = Step(effects=(Abandon("b1", "it never reached the cluster"),))


def test_a_batch_that_the_cluster_knows_is_adopted() -> None:
    state, submitter = unanswered()
    step = submitter.reconcile(
        state.live["b1"], Sighting(job="4711", has_script=True), now=101.0, settle_s=SETTLE_S
    )
    assert step == Step((BatchSubmitted("b1", "4711", 101.0),))


@pytest.mark.parametrize("sighting", [Sighting(abandoned=True), Sighting()])
def test_a_batch_that_was_fenced_off_or_has_no_script_is_abandoned_at_once(sighting: Sighting) -> None:
    state, submitter = unanswered()
    assert submitter.reconcile(state.live["b1"], sighting, now=101.0, settle_s=SETTLE_S) == ABANDON


def test_a_batch_with_a_script_may_turn_up_for_a_while() -> None:
    state, submitter = unanswered()
    steps = [
        submitter.reconcile(state.live["b1"], Sighting(has_script=True), now=at, settle_s=SETTLE_S)
        for at in (100.0 + SETTLE_S, 101.0, 100.0 + SETTLE_S)
    ]
    assert steps == [Step(), Step(), ABANDON], "never by a single answer, and not too early"


def test_a_batch_planned_by_a_clock_that_was_ahead_waits_no_longer() -> None:
    state, submitter = unanswered()
    steps = [
        submitter.reconcile(state.live["b1"], Sighting(has_script=True), now=at, settle_s=SETTLE_S)
        for at in (-500.0, -500.0 + SETTLE_S)
    ]
    assert steps == [Step(), ABANDON]


def test_of_refused_batches_only_the_first_met_the_limit() -> None:
    batches = [planned("b1", [0]), planned("b2", [1])]
    assert Submitter.abandon(batches, "QOSMaxSubmitJobPerUserLimit", limited=True) == Step(
        effects=(
            Abandon("b1", "QOSMaxSubmitJobPerUserLimit", limited=True),
            Abandon("b2", "QOSMaxSubmitJobPerUserLimit"),
        )
    )
