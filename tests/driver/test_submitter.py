"""Runs become arrays and submissions; batches without an answer are found or abandoned."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from hpcsweep.driver.effects import Abandon, Step, Submit
from hpcsweep.driver.observer import Sighting
from hpcsweep.driver.submitter import FIRST_PAUSE_S, LONGEST_PAUSE_S, SubmitBackoff, Submitter
from hpcsweep.store.batch import Header, ManifestRun, trial_seed
from tests.doubles import PROGRAM, SHAPE
from tests.driver.states import LAYOUT, SETTINGS, monitor_of, planned, submitted, sweep_of

SETTLE_S = 150.0


def submitter_of(state: SweepState, *, runs: int = 1, clones: bool = False) -> Submitter:
    settings = msgspec.structs.replace(SETTINGS, shape=msgspec.structs.replace(SHAPE, runs=runs))
    monitor = monitor_of(state, settings)
    return Submitter(state, layout=LAYOUT, settings=settings, monitor=monitor, requeue=True, clones=clones)


def plan(
    submitter: Submitter, trials: int, *, free: int, array_tasks: int | None = None
) -> list[BatchPlanned]:
    runs = [RunId(trial, 0) for trial in range(trials)]
    return submitter.plan(
        runs, segment=3, free=free, array_tasks=array_tasks, time_s=60, task_gpus=1, now=5.0
    )


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


# --------------------------------------------------------------------------- submit limits


@pytest.mark.parametrize(
    ("wanted", "open_tasks", "queued", "limit", "allowed"),
    [
        (100, 0, None, None, 100),  # nothing is known
        (100, 0, None, 20, 20),
        (100, 20, 20, 20, 0),
        (100, 16, 16, 20, 4),
        (100, 10, 16, 20, 4),  # other jobs of the user count
        (100, 10, 30, 20, 0),  # the limit was lowered
        (100, 19, 19, 20, 0),  # one place of 20 is worth no array
        (1, 19, 19, 20, 1),  # unless it is all that is wanted
        (100, 18, 18, 20, 2),
        (100, 6, 6, 7, 1),  # one of 7 is
        (100, 0, 20, 20, 20),  # none of ours is there: that was long ago
        (3, 0, None, 20, 3),
        (5, 0, None, 0, 5),  # nothing may go in: the refusal says so
        (0, 4, 4, 20, 0),
    ],
)
def test_as_many_tasks_are_submitted_as_the_site_s_limit_leaves(
    wanted: int, open_tasks: int, queued: int | None, limit: int | None, allowed: int
) -> None:
    backoff = SubmitBackoff()
    assert (
        backoff.allowed(wanted=wanted, open_tasks=open_tasks, queued=queued, limit=limit, now=9.0) == allowed
    )


def allowed(backoff: SubmitBackoff, wanted: int, *, beside: int, now: float) -> int:
    """On a site that tells nothing."""
    return backoff.allowed(wanted=wanted, open_tasks=beside, queued=beside, limit=None, now=now)


def test_a_refused_task_is_tried_again_when_one_has_left_or_after_a_while() -> None:
    backoff = SubmitBackoff()
    backoff.refused(1, open_tasks=20, now=1000.0)
    assert allowed(backoff, 50, beside=20, now=1001.0) == 0
    assert allowed(backoff, 50, beside=19, now=1001.0) == 0, "one place of 20 is worth no array"
    assert allowed(backoff, 1, beside=19, now=1001.0) == 1
    assert allowed(backoff, 50, beside=17, now=1001.0) == 3
    assert allowed(backoff, 50, beside=20, now=1000.0 + FIRST_PAUSE_S) == 50, "the limit may have been raised"


def test_where_not_even_one_goes_in_it_is_tried_again_after_a_while() -> None:
    backoff = SubmitBackoff()
    backoff.refused(1, open_tasks=0, now=1000.0)
    assert allowed(backoff, 1, beside=0, now=1001.0) == 0
    assert allowed(backoff, 1, beside=0, now=1000.0 + FIRST_PAUSE_S) == 1


def test_a_refusal_overrides_a_higher_limit_of_the_site() -> None:
    backoff = SubmitBackoff()
    backoff.refused(1, open_tasks=12, now=1000.0)  # the limit of a group, say
    assert backoff.allowed(wanted=50, open_tasks=12, queued=12, limit=100, now=1001.0) == 0
    assert backoff.allowed(wanted=50, open_tasks=9, queued=9, limit=100, now=1001.0) == 3
    assert backoff.allowed(wanted=50, open_tasks=9, queued=9, limit=10, now=1001.0) == 1


def test_the_pause_doubles_as_long_as_trying_again_fails() -> None:
    backoff, now, pauses = SubmitBackoff(), 1000.0, []
    for _ in range(7):
        backoff.refused(1, open_tasks=20, now=now)
        start = now
        while not allowed(backoff, 50, beside=20, now=now):
            now += 1.0
        pauses.append(now - start)
    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    now += LONGEST_PAUSE_S
    backoff.refused(1, open_tasks=20, now=now)
    assert allowed(backoff, 50, beside=20, now=now + FIRST_PAUSE_S) == 50, "it went well for a long time"


def test_the_pause_starts_from_its_least_again_once_something_was_accepted() -> None:
    backoff, now = SubmitBackoff(), 1000.0
    for _ in range(5):
        backoff.refused(1, open_tasks=20, now=now)
        while not allowed(backoff, 50, beside=20, now=now):
            now += 1.0
    backoff.accepted()
    for pause in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S):
        backoff.refused(1, open_tasks=20, now=now)
        assert allowed(backoff, 50, beside=20, now=now + pause - 1) == 0
        assert allowed(backoff, 50, beside=20, now=now + pause) == 50
        now += pause


def test_halves_of_a_refused_array_do_not_lengthen_the_pause() -> None:
    backoff = SubmitBackoff()
    for tasks in (64, 32, 16, 8, 4, 2, 1):
        backoff.refused(tasks, open_tasks=20, now=1000.0)
    assert allowed(backoff, 50, beside=20, now=1000.0 + FIRST_PAUSE_S) == 50


class Site:
    """Takes no array that would make more than `limit` tasks, and says no more than that."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self.most = 0
        self.refusals = 0

    def submit(self, backoff: SubmitBackoff, wanted: int, *, now: float) -> int:
        """As the driver does: what is refused is halved. How many went in."""
        tasks = backoff.allowed(wanted=wanted, open_tasks=self.open, queued=self.open, limit=None, now=now)
        while tasks:
            if self.open + tasks <= self.limit:
                self.open += tasks
                self.most = max(self.most, self.open)
                return tasks
            self.refusals += 1
            backoff.refused(tasks, open_tasks=self.open, now=now)
            tasks //= 2
        return 0


@given(limit=st.integers(1, 300), wanted=st.integers(1, 2000), each=st.integers(1, 50))
def test_everything_goes_in_and_the_limit_is_found_by_few_refusals(
    limit: int, wanted: int, each: int
) -> None:
    site, backoff, ticks = Site(limit), SubmitBackoff(), 0
    waiting = wanted
    while waiting:
        waiting -= site.submit(backoff, waiting, now=float(ticks))
        if ticks % 10 == 9:  # it takes a while until some end
            site.open = max(0, site.open - each)
        ticks += 1
        assert ticks <= 30 + 40 * wanted
    # Few for each time that the bound was sought: at the beginning, and after pauses of 30, 60, ... s.
    sought = 1 + sum(ticks > FIRST_PAUSE_S * (2**n - 1) for n in range(1, 5)) + ticks // LONGEST_PAUSE_S
    assert site.refusals <= sought * 2 * wanted.bit_length()
    if wanted >= 2 * limit and ticks >= 10:
        assert site.most >= limit - limit // 8, "it is made use of"
