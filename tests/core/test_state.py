"""SweepState is a fold: what each event makes true, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.batches import BatchState
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchBlocked,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    CheckpointQuotaReached,
    CheckpointsDropped,
    CheckpointsRemoved,
    ClusterMessage,
    ConfigsEnqueued,
    FilesCompacted,
    Interruption,
    NodeExcluded,
    Outcome,
    ParametersSuggested,
    PauseEnded,
    PauseRequested,
    PoolSkipped,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    RunRetried,
    RunsAssigned,
    StopRequested,
    SweepDetached,
    SweepEnded,
    SweepExtended,
    SweepOutcome,
    SweepResumed,
    SweepStarted,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
    TasksReleased,
    TickSubmitted,
    TimeUp,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
    WarmStartLoaded,
)
from hpcsweep.core.models import INSTANT_S, Best, Run, RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.views.format import warning_lines


def started(mode: str = "min") -> SweepStarted:
    return SweepStarted("cafe01", "s", 0.0, {"objective": {"metric": "loss", "mode": mode}})


def created(*trials: int) -> list[AnyEvent]:
    return [TrialCreated(trial, {"x": trial}, 0, 1) for trial in trials]


def planned(batch: str, *tasks: list[tuple[int, int]], throttle: int = 1) -> BatchPlanned:
    runs = tuple(tuple(RunId(*run) for run in task) for task in tasks)
    return BatchPlanned(batch, 5.0, runs, gpus=2, throttle=throttle, cluster="here")


def finished(trial: int, rung: int, value: float | None, **fields: Any) -> RunFinished:
    outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
    return RunFinished(trial, rung, outcome, value=value, **fields)


def snapshot(state: SweepState) -> dict[str, Any]:
    """All that a state knows, as plain data."""
    known = {name: value for name, value in vars(state).items() if not name.startswith("_")}
    known |= {
        "enqueued": list(state.enqueued),
        "from_scratch": list(state.from_scratch),
        "retrained": list(state.retrained),
        "waiting": list(state.waiting),
        "best": state.best,
        "objectives": list(state.objectives),
        "live": {name: _plain_batch(batch) for name, batch in state.live.items()},
        "requests": sorted(state.requests),
        "interrupted": {why.value: count for why, count in state.interrupted.items()},
    }
    return msgspec.to_builtins(  # type: ignore[no-any-return]
        {name: value for name, value in known.items() if name != "counts"}
        | {"counts": {status.value: count for status, count in state.counts.items()}}
    )


def _plain_batch(batch: BatchState) -> dict[str, Any]:
    fields = msgspec.structs.asdict(batch)
    return fields | {key: list(fields[key].items()) for key in ("assigned", "given")}


def counts(state: SweepState) -> dict[str, int]:
    return {status.value: count for status, count in state.counts.items() if count}


def test_a_trial_that_resumes_without_its_checkpoint_is_listed_while_it_trains() -> None:
    """As when a better trial is stopped by its user after this one's checkpoint was removed."""
    events: list[AnyEvent] = [TrialCreated(trial, {"x": 0.5}, 0, 1) for trial in range(3)]
    events += [finished(trial, 0, 0.1 * trial) for trial in range(3)]
    events += [CheckpointsDropped((1, 2)), CheckpointsRemoved((2,), (2,), files=1, bytes=10)]
    events += [TrialStopped(0, "stopped by ada"), *(TrialPromoted(trial, 1, 3) for trial in (0, 1, 2))]
    state = SweepState.replay(events)
    assert list(state.from_scratch) == [RunId(1, 1), RunId(2, 1)]
    words = "whose checkpoints were removed before (train.keep: all keeps them)"
    assert warning_lines(state, now=0.0) == [f"trained from scratch: trials 1, 2, {words}"]
    state.apply(finished(1, 1, 0.1))
    words = "whose checkpoint was removed before (train.keep: all keeps them)"
    assert warning_lines(state, now=0.0) == [f"trained from scratch: trial 2, {words}"]
    state.apply(finished(2, 1, 0.1))
    assert warning_lines(state, now=0.0) == []


def test_a_new_state_is_empty() -> None:
    state = SweepState()
    assert snapshot(state) == {
        "started": None,
        "ended": None,
        "stopping": None,
        "no_more_trials": None,
        "trials": [],
        "waiting": [],
        "live": {},
        "counts": {"waiting": 0, "submitted": 0, "completed": 0, "failed": 0, "stopped": 0},
        "spent_gpu_s": 0.0,
        "pool_gpu_s": {},
        "skipped_pools": {},
        "spent_pools": {},
        "spent_s": 0.0,
        "requests": [],
        "pausing": None,
        "detached": None,
        "interrupted": {},
        "failed_batches_in_a_row": 0,
        "last_batch_failure": "",
        "excluded": {},
        "submit_limit": "",
        "submit_limit_hit": (0, 0, 0.0),
        "dropped": [],
        "dropping": {},
        "first_errors": {"message": "", "over": False, "trials": {}},
        "checkpoint_bytes_removed": 0,
        "checkpoints": {"sizes": {}, "unmeasured": {}, "measured": (0, 0), "recent": []},
        "quota_reached": None,
        "without_checkpoint": [],
        "from_scratch": [],
        "retrained": [],
        "warnings": {},
        "cluster_messages": {},
        "refusals": ("", 0, 0),
        "time_up": None,
        "tick_due": 0.0,
        "tick_jobs": {},
        "good_nodes": [],
        "node_faults": {},
        "last_failure": None,
        "best": None,
        "objectives": [{"metric": "value"}],
        "enqueued": [],
        "warm_starts": [],
        "configurations": 0,
        "repeats": 1,
        "held_gpus": {},
        "queue_waits": [],
        "gpus": None,
        "simulated": False,
    }


def test_a_run_goes_from_waiting_to_submitted_to_completed() -> None:
    state = SweepState.replay([started(), *created(0)])
    run = Run(0, 0, 1)
    assert (state.run(RunId(0, 0)), list(state.waiting), counts(state)) == (
        run,
        [RunId(0, 0)],
        {"waiting": 1},
    )

    state.apply(planned("b", [(0, 0)], throttle=3))
    run = Run(0, 0, 1, status=RunStatus.SUBMITTED, submissions=1, batch="b")
    batch = BatchState("b", 5.0, [[RunId(0, 0)]], 2, 3, "here", {RunId(0, 0)})
    assert (state.run(RunId(0, 0)), list(state.waiting), state.live) == (run, [], {"b": batch})
    assert counts(state) == {"submitted": 1}

    state.apply(BatchSubmitted("b", "4711", 6.0))
    state.apply(BatchThrottled("b", 7))
    assert (state.live["b"].job, state.live["b"].throttle) == ("4711", 7)

    cost = {"seconds": 3.0, "gpu_seconds": 6.0}
    state.apply(finished(0, 0, 0.25, step=1, batch="b", node="n1", job="4711_0", **cost))
    run = Run(
        0,
        0,
        1,
        status=RunStatus.COMPLETED,
        submissions=1,
        last_counted=(0, 0),
        begun=1,
        last_begun=(0, 0),
        batch="b",
        outcome=Outcome.COMPLETED,
        value=0.25,
        start=0,
        step=1,
        seconds=3.0,
        gpu_seconds=6.0,
        node="n1",
        job="4711_0",
    )
    assert state.run(RunId(0, 0)) == run
    assert state.best == Best(0, 0, 0.25, 1, {"x": 0})
    assert (state.live["b"].unfinished, state.spent_s, state.spent_gpu_s) == (set(), 3.0, 6.0)
    assert (counts(state), state.outstanding) == ({"completed": 1}, 0)

    state.apply(BatchClosed("b"))
    assert state.live == {}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.FAILED, "failed"),
        (Outcome.OUT_OF_MEMORY, "failed"),
        (Outcome.LOST, "failed"),
        (Outcome.STOPPED, "stopped"),
    ],
)
def test_other_outcomes_have_their_own_count(outcome: Outcome, status: str) -> None:
    state = SweepState.replay([started(), *created(0), planned("b", [(0, 0)])])
    state.apply(RunFinished(0, 0, outcome, batch="b", message="why"))
    assert (counts(state), state.best) == ({status: 1}, None)
    failure = state.last_failure
    assert (failure.message if failure else None) == ("why" if status == "failed" else None)


def test_a_waiting_run_that_ends_is_not_waiting_any_more() -> None:
    state = SweepState.replay([*created(0), TrialStopped(0, "median"), RunFinished(0, 0, Outcome.STOPPED)])
    assert (list(state.waiting), counts(state), state.trials[0].stopped) == ([], {"stopped": 1}, "median")


def test_runs_wait_in_the_order_in_which_they_came_to_wait() -> None:
    state = SweepState.replay([started(), *created(0, 1, 2), planned("b", [(0, 0)], [(1, 0)])])
    state.apply(finished(0, 0, 1.0, batch="b"))
    state.apply(RunInterrupted(1, 0, Interruption.PREEMPTED, batch="b"))
    state.apply(TrialPromoted(0, 1, 3))
    assert list(state.waiting) == [RunId(2, 0), RunId(1, 0), RunId(0, 1)]


def test_runs_of_one_task_know_their_task() -> None:
    state = SweepState.replay([*created(0, 1, 2), planned("b", [(0, 0), (1, 0)], [(2, 0)])])
    assert [trial.runs[0].task for trial in state.trials] == [0, 0, 1]


def test_an_interrupted_run_waits_again_and_counts_its_cost_and_its_faults() -> None:
    state = SweepState.replay([*created(0), planned("b", [(0, 0)])])
    state.apply(
        RunInterrupted(
            0, 0, Interruption.NODE_FAIL, batch="b", seconds=2.0, gpu_seconds=4.0, node="n1", message="gone"
        )
    )
    run = state.run(RunId(0, 0))
    assert run == Run(
        0,
        0,
        1,
        submissions=1,
        faults_without_progress=1,
        last_counted=(0, 0),
        begun=1,
        last_begun=(0, 0),
        batch="b",
        seconds=2.0,
        gpu_seconds=4.0,
        node="n1",
        message="gone",
    )
    assert (list(state.waiting), state.live["b"].unfinished) == ([RunId(0, 0)], set())
    assert (counts(state), state.interruptions, state.spent_gpu_s) == ({"waiting": 1}, 1, 4.0)


def test_a_run_that_the_cluster_requeues_stays_submitted_in_its_batch() -> None:
    state = SweepState.replay([*created(0), planned("b", [(0, 0)])])
    state.apply(RunInterrupted(0, 0, Interruption.PREEMPTED, restart=2, batch="b", requeued=True))
    run = state.run(RunId(0, 0))
    assert (run.status, run.last_counted, run.faults_without_progress) == (RunStatus.SUBMITTED, (0, 2), 1)
    assert (list(state.waiting), state.live["b"].unfinished) == ([], {RunId(0, 0)})


TAKEN_BACK = RunInterrupted(0, 0, Interruption.PREEMPTED, batch="a", seconds=5.0, requeued=True)
A, B = planned("a", [(0, 0)]), planned("b", [(0, 0)])


@pytest.mark.parametrize(
    ("events", "attempts"),
    [
        ([], 0),
        ([A], 1),
        ([A, BatchAbandoned("a", "refused")], 0),
        ([A, TAKEN_BACK], 2),
        ([A, TAKEN_BACK, finished(0, 0, 0.5, batch="a", restart=1)], 2),
        ([A, RunInterrupted(0, 0, Interruption.TIMEOUT, batch="a")], 1),
        ([A, RunInterrupted(0, 0, Interruption.NOT_STARTED, batch="a", node="n1")], 0),
        ([A, RunInterrupted(0, 0, Interruption.NOT_STARTED, batch="a", started=5.0)], 1),
        ([A, RunInterrupted(0, 0, Interruption.SWEEP_STOPPED, batch="a")], 0),
        ([A, RunInterrupted(0, 0, Interruption.SWEEP_STOPPED, batch="a", node="n1"), B], 2),
        ([A, RunInterrupted(0, 0, Interruption.CANCELLED, batch="a"), B], 1),
        # Its result came after all.
        ([A, RunInterrupted(0, 0, Interruption.LOST, batch="a"), finished(0, 0, 0.5, batch="a")], 1),
        (
            [
                A,
                RunInterrupted(0, 0, Interruption.LOST, batch="a", node="n1"),
                finished(0, 0, 0.5, batch="a"),
            ],
            1,
        ),
        ([TrialStopped(0, "median"), RunFinished(0, 0, Outcome.STOPPED)], 0),
    ],
)
def test_attempts_are_how_often_a_run_was_begun_requeues_included(
    events: list[AnyEvent], attempts: int
) -> None:
    state = SweepState.replay([started(), *created(0), *events])
    assert (state.run(RunId(0, 0)).attempts, state.trials[0].attempts) == (attempts, attempts)


@pytest.mark.parametrize(
    ("why", "progressed", "faults"),
    [
        (Interruption.PREEMPTED, False, 3),
        (Interruption.TIMEOUT, False, 3),
        (Interruption.LOST, False, 3),
        (Interruption.PREEMPTED, True, 0),
        (Interruption.SWEEP_STOPPED, False, 2),
        (Interruption.SWEEP_STOPPED, True, 0),
        (Interruption.NOT_STARTED, False, 2),
        (Interruption.NEVER_STARTED, False, 2),
        (Interruption.TRAINING_ERROR, False, 2),
        (Interruption.CANCELLED_BY_ADMIN, False, 3),
    ],
)
def test_only_faults_without_progress_add_up_and_progress_clears_them(
    why: Interruption, progressed: bool, faults: int
) -> None:
    state = SweepState.replay(created(0))
    for attempt, (reason, newer) in enumerate([(Interruption.PREEMPTED, False)] * 2 + [(why, progressed)]):
        state.apply(planned(f"b{attempt}", [(0, 0)]))
        state.apply(RunInterrupted(0, 0, reason, attempt=attempt, batch=f"b{attempt}", progressed=newer))
    assert state.run(RunId(0, 0)).faults_without_progress == faults


def test_an_abandoned_batch_leaves_its_runs_as_if_it_had_never_been() -> None:
    events = [started(), *created(0, 1, 2)]
    state = SweepState.replay(events)
    before = snapshot(state)
    state.apply(planned("b", [(0, 0)], [(1, 0)], [(2, 0)]))
    state.apply(BatchAbandoned("b", "refused"))
    assert snapshot(state) == {**before, "gpus": 2}


def test_a_submit_limit_is_shown_until_a_batch_is_accepted() -> None:
    state = SweepState.replay([started(), *created(0), planned("a", [(0, 0)])])
    state.apply(BatchAbandoned("a", "QOSMaxSubmitJobPerUserLimit", over_limit=True))
    assert (state.submit_limit, list(state.waiting)) == ("QOSMaxSubmitJobPerUserLimit", [RunId(0, 0)])
    state.apply(planned("b", [(0, 0)]))
    state.apply(BatchSubmitted("b", "1", 6.0))
    assert state.submit_limit == ""


def test_tasks_that_keep_their_gpus_count_for_a_submit_limit_until_they_have_left() -> None:
    events: list[AnyEvent] = [
        BatchPlanned("a", 1.0, ((), (), ()), gpus=1, throttle=3, reuse=True),
        TaskBegan("a", 2.0, 0),
        TaskBegan("a", 2.0, 1),
        TaskLeft("a", 3.0, 0),
        BatchPlanned("b", 4.0, ((), ()), gpus=1, throttle=2, reuse=True),
        BatchAbandoned("b", "QOSMaxSubmitJobPerUserLimit", over_limit=True),
    ]
    assert SweepState.replay(events).submit_limit_hit == (2, 2, 4.0)


def test_errors_that_are_retried_and_time_limits_are_counted() -> None:
    state = SweepState.replay(created(0))
    for attempt, why in enumerate([Interruption.TRAINING_ERROR, Interruption.TIMEOUT, Interruption.TIMEOUT]):
        state.apply(planned(f"b{attempt}", [(0, 0)]))
        state.apply(RunInterrupted(0, 0, why, attempt=attempt, batch=f"b{attempt}"))
    run = state.run(RunId(0, 0))
    assert (run.errors, run.timeouts, run.faults_without_progress) == (1, 2, 2)
    assert state.interrupted == {Interruption.TRAINING_ERROR: 1, Interruption.TIMEOUT: 2}


def test_a_failed_run_that_is_retried_waits_with_nothing_counted_against_it() -> None:
    state = SweepState.replay([started(), *created(0, 1), planned("a", [(0, 0)])])
    state.apply(RunInterrupted(0, 0, Interruption.TIMEOUT, batch="a", seconds=5.0, requeued=True))
    state.apply(RunFinished(0, 0, Outcome.LOST, restart=1, batch="a", seconds=2.0, message="given up"))
    assert counts(state) == {"waiting": 1, "failed": 1}
    state.apply(RunRetried(0, 0, "r.json"))
    run = state.run(RunId(0, 0))
    assert run == Run(
        *(0, 0, 1),
        submissions=1,
        last_counted=(0, 1),
        batch="a",
        start=0,
        seconds=7.0,
        message="given up",
        begun=2,
        last_begun=(0, 1),
    )
    assert (counts(state), list(state.waiting)) == ({"waiting": 2}, [RunId(1, 0), RunId(0, 0)])
    assert state.requests == {"r.json"}
    state.apply(planned("b", [(0, 0)]))
    state.apply(finished(0, 0, 0.5, batch="b", attempt=1, step=1))
    assert (counts(state), state.run(RunId(0, 0)).submissions) == ({"waiting": 1, "completed": 1}, 2)
    assert state.best == Best(0, 0, 0.5, 1, {"x": 0})


def test_the_cost_of_a_run_includes_earlier_attempts() -> None:
    state = SweepState.replay([*created(0), planned("a", [(0, 0)])])
    state.apply(RunInterrupted(0, 0, Interruption.TIMEOUT, batch="a", seconds=5.0, gpu_seconds=10.0))
    state.apply(planned("b", [(0, 0)]))
    state.apply(finished(0, 0, 1.0, batch="b", attempt=1, seconds=1.0, gpu_seconds=2.0, step=1))
    run = state.run(RunId(0, 0))
    assert (run.attempts, run.seconds, run.gpu_seconds, run.last_counted) == (2, 6.0, 12.0, (1, 0))
    assert (state.spent_s, state.spent_gpu_s) == (6.0, 12.0)


def test_a_run_starts_where_its_first_known_attempt_started() -> None:
    state = SweepState.replay(created(0))
    for attempt, start in enumerate([None, 3, 5]):
        state.apply(planned(f"b{attempt}", [(0, 0)]))
        state.apply(
            RunInterrupted(0, 0, Interruption.LOST, attempt=attempt, batch=f"b{attempt}", start=start)
        )
    state.apply(planned("b", [(0, 0)]))
    state.apply(finished(0, 0, 1.0, batch="b", attempt=3, start=7, step=9))
    run = state.run(RunId(0, 0))
    assert (run.start, run.step) == (3, 9)


def test_a_stop_is_kept_until_the_sweep_is_resumed() -> None:
    stop, none = StopRequested(1.0, "stopped by ada", "r.json"), TrialsExhausted("no more", "budget")
    end = SweepEnded(2.0, SweepOutcome.STOPPED, "stopped by ada")
    state = SweepState.replay([started(), stop, none, end])
    assert (state.stopping, state.no_more_trials, state.ended) == (stop, none, end)
    state.apply(SweepResumed(3.0))
    assert (state.stopping, state.no_more_trials, state.ended) == (None, None, None)
    assert state.requests == {"r.json"}  # taken up once and for ever


def test_a_pause_is_over_when_the_sweep_is_resumed_and_so_is_the_count_of_dead_batches() -> None:
    pause = PauseRequested(1.0, "3 batches in a row died at once")
    state = SweepState.replay([started(), *created(0), planned("b", [(0, 0)]), BatchClosed("b"), pause])
    assert (state.pausing, state.failed_batches_in_a_row) == (pause, 1)
    state.apply(SweepResumed(3.0))
    assert (state.pausing, state.failed_batches_in_a_row) == (None, 0)


def test_what_a_batch_took_beyond_its_runs_is_spent_when_it_is_closed() -> None:
    state = SweepState.replay([*created(0), planned("b", [(0, 0)])])
    state.apply(finished(0, 0, 1.0, batch="b", seconds=3.0, gpu_seconds=6.0))
    state.apply(BatchClosed("b", 1.5, 3.0))
    assert (state.spent_s, state.spent_gpu_s, state.live) == (4.5, 9.0, {})


def test_a_batch_has_its_blocked_reason_released_tasks_and_tick_job() -> None:
    state = SweepState.replay([*created(0, 1), planned("b", [(0, 0)], [(1, 0)])])
    state.apply(BatchBlocked("b", "2 tasks: PartitionTimeLimit"))
    state.apply(TasksReleased("b", (0,)))
    state.apply(TasksReleased("b", (1,)))
    state.apply(TickSubmitted("4712", 6.0, "b"))
    batch = state.live["b"]
    assert (batch.blocked_reason, batch.released, batch.tick_job) == (
        "2 tasks: PartitionTimeLimit",
        {0, 1},
        "4712",
    )
    state.apply(BatchBlocked("b", ""))
    assert batch.blocked_reason == ""


@pytest.mark.parametrize(
    ("ending", "dead"),
    [
        (RunFinished(0, 0, Outcome.FAILED, batch="b", message="no"), 1),
        (RunFinished(0, 0, Outcome.FAILED, batch="b", message="no", seconds=INSTANT_S + 1), 0),
        (RunFinished(0, 0, Outcome.COMPLETED, value=1.0, batch="b"), 0),
        (RunInterrupted(0, 0, Interruption.WORKER_DIED, batch="b", message="no"), 1),
        (RunInterrupted(0, 0, Interruption.TRAINING_ERROR, batch="b", message="no"), 1),
        (RunInterrupted(0, 0, Interruption.WORKER_DIED, batch="b", progressed=True), 0),
        (RunInterrupted(0, 0, Interruption.PREEMPTED, batch="b"), 0),
    ],
)
def test_a_batch_without_any_progress_counts_as_failed(
    ending: RunFinished | RunInterrupted, dead: int
) -> None:
    state = SweepState.replay([started(), *created(0), planned("b", [(0, 0)]), ending, BatchClosed("b")])
    assert (state.failed_batches_in_a_row, state.last_batch_failure) == (dead, "no" if dead else "")


def test_node_faults_are_counted_until_a_run_succeeds_on_the_node() -> None:
    state = SweepState.replay([*created(0, 1, 2), planned("b", [(0, 0)], [(1, 0)], [(2, 0)])])
    state.apply(RunInterrupted(0, 0, Interruption.NODE_FAIL, batch="b", node="n1", message="down"))
    state.apply(RunInterrupted(1, 0, Interruption.PREEMPTED, batch="b", node="n1"))
    assert state.node_faults == {"n1": {0: "down"}}
    state.apply(finished(2, 0, 1.0, batch="b", node="n1"))
    assert state.node_faults == {}
    state.apply(planned("c", [(1, 0)]))
    state.apply(RunInterrupted(1, 0, Interruption.LOST, attempt=1, batch="c", node="n1", message="gone"))
    out = NodeExcluded("n1", 7.0, 3607.0, "why")
    state.apply(out)
    assert (state.node_faults, state.excluded) == ({}, {"n1": out})


def test_a_pool_is_skipped_until_it_is_said_that_it_is_not_or_the_sweep_is_resumed() -> None:
    skipped = PoolSkipped("a", 7.0, "4 tasks waited")
    state = SweepState.replay([started(), skipped])
    assert state.skipped_pools == {"a": skipped}
    state.apply(PoolSkipped("a", 8.0))
    assert state.skipped_pools == {}
    state.apply(skipped)
    spent = PoolSkipped("a", 7.0, "its gpu_hours are used up", spent=True)
    state.apply(spent)
    assert (state.skipped_pools, state.spent_pools) == ({"a": skipped}, {"a": spent})
    state.apply(SweepResumed(9.0))
    assert state.skipped_pools == state.spent_pools == {}


def test_a_stop_by_the_driver_is_not_a_request() -> None:
    assert SweepState.replay([StopRequested(1.0, "own")]).requests == set()


# --------------------------------------------------------------------------- the best


def best_after(mode: str, *results: tuple[int, int, float | None]) -> tuple[int, int, float | None] | None:
    """Best as (trial, rung, value) after these results; rung r has resource 3 ** r."""
    state = SweepState.replay([started(mode), *created(*range(4))])
    for trial, rung, value in results:
        if rung:
            state.apply(TrialPromoted(trial, rung, 3**rung))
        state.apply(finished(trial, rung, value))
        asked_now, asked_late = state.best, SweepState.replay([]).best
        assert asked_late is None
        assert asked_now is None or asked_now.value is not None
    best = state.best
    return None if best is None else (best.trial, best.rung, best.value)


@pytest.mark.parametrize(
    ("mode", "results", "best"),
    [
        ("min", [(0, 0, 2.0), (1, 0, 1.0), (2, 0, 3.0)], (1, 0, 1.0)),
        ("max", [(0, 0, 2.0), (1, 0, 1.0), (2, 0, 3.0)], (2, 0, 3.0)),
        ("min", [(1, 0, 1.0), (0, 0, 1.0)], (0, 0, 1.0)),  # a tie: the older trial
        ("max", [(0, 0, 1.0), (1, 0, 1.0)], (0, 0, 1.0)),
        ("min", [(0, 0, 1.0), (1, 0, 2.0), (1, 1, 1.0)], (1, 1, 1.0)),  # a tie: the larger resource
        ("max", [(0, 0, 1.0), (1, 0, 0.0), (1, 1, 1.0)], (1, 1, 1.0)),
        ("min", [(0, 0, 1.0), (0, 1, 1.0)], (0, 1, 1.0)),
        ("min", [(0, 0, 1.0), (1, 0, 2.0), (0, 1, 3.0)], (1, 0, 2.0)),  # it got worse
        ("max", [(0, 0, 3.0), (1, 0, 2.0), (0, 1, 1.0)], (1, 0, 2.0)),
        ("min", [(0, 0, 1.0), (1, 0, 2.0), (0, 1, 1.5)], (0, 1, 1.5)),  # worse, yet the best
        ("min", [(0, 0, 1.0), (1, 0, 2.0), (0, 1, None)], (0, 0, 1.0)),  # its last value counts
        ("min", [(0, 0, None), (1, 0, 5.0)], (1, 0, 5.0)),
        ("min", [(0, 0, None), (1, 0, None)], None),
        ("min", [(0, 0, 1.0), (0, 1, 9.0), (1, 0, 8.0), (2, 0, 8.5)], (1, 0, 8.0)),
    ],
)
def test_the_best_is_by_each_trial_s_newest_value(
    mode: str, results: list[tuple[int, int, float | None]], best: tuple[int, int, float | None] | None
) -> None:
    assert best_after(mode, *results) == best


values = st.none() | st.sampled_from([0.0, 1.0, 2.0]) | st.floats(allow_nan=False)


@given(
    st.sampled_from(["min", "max"]),
    st.lists(st.tuples(st.integers(0, 4), values, st.booleans()), max_size=25),
)
def test_the_running_best_is_the_one_found_by_looking_at_all_trials(
    mode: str, results: list[tuple[int, float | None, bool]]
) -> None:
    state = SweepState.replay([started(mode), *created(*range(5))])
    sign = 1 if mode == "min" else -1
    newest: dict[int, tuple[float, int]] = {}
    rungs = dict.fromkeys(range(5), 0)
    for trial, value, look in results:
        rung = rungs[trial]
        rungs[trial] += 1
        if rung:
            state.apply(TrialPromoted(trial, rung, 3**rung))
        state.apply(finished(trial, rung, value))
        if value is not None:
            newest[trial] = (value, rung)
        ranked = sorted((sign * value, -rung, trial) for trial, (value, rung) in newest.items())
        if look and ranked:
            signed, rung, trial = ranked[0]
            assert state.best == Best(trial, -rung, sign * signed, 3**-rung, state.trials[trial].config)
            assert [each.trial for each in state.leaders(3)] == [trial for *_, trial in ranked[:3]]
        elif look:
            assert state.best is None


def test_with_repeats_the_best_is_by_the_mean_once_all_have_ended() -> None:
    identity = {"objective": {"mode": "min"}, "repeats": 2}
    state = SweepState.replay([SweepStarted("cafe01", "s", 0.0, identity)])
    for trial in range(4):
        state.apply(TrialCreated(trial, {"x": trial // 2}, 0, 1, repeat=trial % 2))
    state.apply(finished(0, 0, 0.0))
    assert state.best is None
    state.apply(finished(1, 0, 3.0))
    assert state.best == Best(0, 0, 1.5, 1, {"x": 0}, 2)
    state.apply(finished(2, 0, 1.0))
    state.apply(finished(3, 0, None))  # it fails now and then: none to trust
    assert state.best == Best(0, 0, 1.5, 1, {"x": 0}, 2)
    assert state.configurations == 2


def test_a_repeat_that_is_retried_takes_the_value_of_its_configuration_back_until_it_has_ended() -> None:
    identity = {"objective": {"mode": "min"}, "repeats": 2}
    state = SweepState.replay([SweepStarted("cafe01", "s", 0.0, identity)])
    for trial in range(4):
        state.apply(TrialCreated(trial, {"x": trial // 2}, 0, 1, repeat=trial % 2))
        state.apply(finished(trial, 0, 1.0 + trial // 2))
    for trial in range(2):
        state.apply(TrialPromoted(trial, 1, 3))
    state.apply(finished(0, 1, 0.5))
    state.apply(RunFinished(1, 1, Outcome.LOST))
    assert state.best == Best(0, 1, 0.5, 3, {"x": 0}, 2)
    state.apply(RunRetried(1, 1))
    assert state.best == Best(0, 0, 1.0, 1, {"x": 0}, 2)
    state.apply(finished(1, 1, 4.5))
    assert state.best == Best(2, 0, 2.0, 1, {"x": 1}, 2)


def test_a_lost_repeat_says_nothing_of_its_configuration() -> None:
    identity = {"objective": {"mode": "max"}, "repeats": 2}
    state = SweepState.replay([SweepStarted("cafe01", "s", 0.0, identity)])
    state.apply(TrialCreated(0, {"x": 0}, 0, 1))
    state.apply(TrialCreated(1, {"x": 0}, 0, 1, repeat=1))
    state.apply(finished(0, 0, 2.0))
    state.apply(RunFinished(1, 0, Outcome.LOST))
    assert state.best == Best(0, 0, 2.0, 1, {"x": 0}, 2)


def test_a_stopped_run_counts_with_the_step_that_it_reached() -> None:
    state = SweepState.replay([started(), TrialCreated(0, {"x": 0}, 0, 81), planned("b", [(0, 0)])])
    state.apply(RunReported(0, 0, ((1, 4.0), (5, 6.0))))
    assert state.run(RunId(0, 0)).last_report == (5, 6.0)
    state.apply(RunFinished(0, 0, Outcome.STOPPED, 6.0, 5, batch="b", message="median"))
    assert state.best == Best(0, 0, 6.0, 5, {"x": 0})


def test_enqueued_configurations_wait_until_their_trials_start() -> None:
    state = SweepState.replay([started(), ConfigsEnqueued(({"x": 7}, {"x": 8}), "r.json")])
    assert (list(state.enqueued), state.requests) == ([{"x": 7}, {"x": 8}], {"r.json"})
    state.apply(TrialCreated(0, {"x": 7}, 0, 1, origin="enqueued"))
    assert list(state.enqueued) == [{"x": 8}]


def test_clones_are_no_new_configurations_and_need_their_parents_checkpoints() -> None:
    state = SweepState.replay([started(), *created(0, 1), finished(0, 0, 1.0)])
    state.apply(TrialCreated(2, {"x": 5}, 1, 4, parent=0, start=2, origin="clone"))
    assert (state.configurations, state.clone_steps(0), state.clone_steps(1)) == (2, [2], [])
    state.apply(finished(2, 0, None))
    assert state.clone_steps(0) == []
    state.apply(RunRetried(2, 0))
    assert state.clone_steps(0) == [2]


def story() -> list[AnyEvent]:
    """Every kind of event once or more."""
    return [
        started(),
        WarmStartLoaded("old", (({"x": 9}, ((1, 2.0),)),)),
        ConfigsEnqueued(({"x": 0},), "e.json"),
        TrialCreated(0, {"x": 0}, 0, 1, origin="enqueued"),
        *created(1, 2),
        planned("a", [(0, 0)], [(1, 0)]),
        BatchAbandoned("a", "refused"),
        planned("b", [(0, 0)], [(1, 0)], [(2, 0)]),
        BatchSubmitted("b", "1", 6.0),
        BatchThrottled("b", 2),
        TasksAllocated("b", (0, 2), 4),
        ClusterMessage(6.0, "poll", "squeue: no answer within 60 s"),
        TimeUp(6.0),
        SweepDetached(6.0, "slurm"),
        TickSubmitted("2", 6.5, "b"),
        BatchBlocked("b", "3 tasks: launch failed requeued held"),
        TasksReleased("b", (0, 1, 2)),
        RunReported(2, 0, ((1, 4.0),)),
        finished(0, 0, 1.0, batch="b", seconds=1.0, gpu_seconds=2.0),
        RunInterrupted(1, 0, Interruption.PREEMPTED, batch="b", task=1, requeued=True, seconds=1.0),
        finished(1, 0, 0.5, batch="b", restart=1, seconds=1.0, gpu_seconds=2.0),
        RunInterrupted(2, 0, Interruption.NODE_FAIL, batch="b", task=2, node="n1"),
        NodeExcluded("n1", 7.0, 3607.0, "why"),
        PoolSkipped("a", 7.0, "why"),
        BatchClosed("b"),
        PauseRequested(7.5, "why"),
        PauseEnded(8.5),
        SweepExtended(8.75, started().identity, ("scheduler.iterations: 1 -> 2",)),
        PauseRequested(7.5, "why"),
        ParametersSuggested(
            1, 0, {"m": {"type": "float", "low": 0.0, "high": 1.0, "log": False}}, {"m": 0.5}
        ),
        TrialPromoted(1, 1, 3),
        BatchPlanned("r", 7.75, ((), ()), 2, 2, "here", reuse=True),
        BatchSubmitted("r", "3", 7.75),
        TaskBegan("r", 8.0, 1, started=7.9, node="n2"),
        RunsAssigned("r", 8.0, 1, (RunId(1, 1),)),
        TaskLeft("r", 8.25, 1, taken=0),
        RunInterrupted(1, 1, Interruption.NOT_STARTED, batch="r", task=1),
        BatchClosed("r"),
        StopRequested(8.0, "stopped by ada", "r.json"),
        SweepEnded(9.0, SweepOutcome.STOPPED, "stopped by ada"),
        SweepResumed(10.0),
        RunFinished(2, 0, Outcome.FAILED, message="no"),
        RunRetried(2, 0, "t.json"),
        TrialStopped(2, "median"),
        RunFinished(2, 0, Outcome.STOPPED, message="median"),
        planned("c", [(1, 1)]),
        BatchSubmitted("c", "2", 11.0),
        TrialsExhausted("exhausted", "space"),
        finished(1, 1, 0.75, batch="c", seconds=3.0, gpu_seconds=6.0),
        BatchClosed("c"),
        SweepEnded(12.0, SweepOutcome.FINISHED, "all trials are done"),
        FilesCompacted("1-1", (RunId(0, 0), RunId(1, 0)), ("a", "b")),
        CheckpointsDropped((0,)),
        CheckpointsRemoved((0,), (0,), 1, 7),
        CheckpointQuotaReached(13.0, "7 B held", 7, 1),
    ]


def test_replay_gives_the_state_of_the_live_sweep_after_every_event() -> None:
    events = story()
    assert {type(event) for event in events} == set(AnyEvent.__args__)
    live = SweepState()
    for position, event in enumerate(events, start=1):
        live.apply(event)
        assert snapshot(SweepState.replay(events[:position])) == snapshot(live)


def test_counts_and_costs_of_a_whole_sweep_add_up() -> None:
    state = SweepState.replay(story())
    assert counts(state) == {"completed": 3, "stopped": 1}
    assert (state.live, list(state.waiting), state.outstanding) == ({}, [], 0)
    assert (state.spent_s, state.spent_gpu_s, state.interruptions) == (6.0, 10.0, 3)
    assert state.best is not None
    assert (state.best.trial, state.best.rung) == (1, 1)


def test_batches_that_fail_together_count_as_one_that_failed() -> None:
    state = SweepState.replay([started(), *(event for trial in range(5) for event in created(trial))])
    counts = []
    for wave in (["a", "b", "c"], ["d", "e"]):
        for name in wave:
            state.apply(planned(name, [("abcde".index(name), 0)]))
        for name in wave:
            state.apply(RunFinished("abcde".index(name), 0, Outcome.FAILED, batch=name, message=name))
            state.apply(BatchClosed(name))
            counts.append(state.failed_batches_in_a_row)
    assert counts == [1, 1, 1, 2, 2]
