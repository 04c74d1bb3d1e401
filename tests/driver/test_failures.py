"""Bad nodes are excluded, broken set-ups pause the sweep, and messages of the cluster are recorded."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    ClusterMessage,
    Interruption,
    NodeExcluded,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.core.models import INSTANT_S
from hpcsweep.core.state import SweepState
from hpcsweep.driver.failures import (
    EVERY_S,
    EXCLUDED_S,
    LENGTH,
    call_failed,
    call_succeeded,
    check_health,
    excluded,
)

NODES = ("n1", "n2", "n3")


def fault(
    trial: int, node: str, why: Interruption = Interruption.NODE_FAIL, *, progressed: bool = False
) -> RunInterrupted:
    return RunInterrupted(trial, 0, why, batch="b", node=node, progressed=progressed, message=f"{why.value}!")


def done(trial: int, node: str) -> RunFinished:
    return RunFinished(trial, 0, Outcome.COMPLETED, 1.0, 1, batch="b", node=node)


def sweep(*happened: AnyEvent, trials: int = 6) -> SweepState:
    state = SweepState()
    state.apply(SweepStarted("cafe01", "s", 0.0, {}))
    for trial in range(trials):
        state.apply(TrialCreated(trial, {}, 0, 1))
    runs = tuple((RunId(trial, 0),) for trial in range(trials))
    state.apply(BatchPlanned("b", 0.0, runs, gpus=1, throttle=4))
    state.apply(BatchSubmitted("b", "1", 0.0))
    for event in (done(trials - 1, "n0"), *happened):
        state.apply(event)
    return state


def excluded_nodes(state: SweepState, *, nodes: Sequence[str] = NODES, now: float = 100.0) -> list[str]:
    events = check_health(state, now=now, nodes=nodes)
    return [event.node for event in events if isinstance(event, NodeExcluded)]


def test_a_node_where_three_trials_failed_in_a_row_is_excluded_for_a_while() -> None:
    state = sweep(fault(0, "n1"), fault(1, "n1", Interruption.WORKER_DIED))
    assert check_health(state, now=100.0, nodes=NODES) == []
    state.apply(fault(2, "n1", Interruption.LOST))
    exclusion = NodeExcluded(
        "n1", 100.0, 100.0 + EXCLUDED_S, "3 trials failed there in a row; the last: lost!"
    )
    assert check_health(state, now=100.0, nodes=NODES) == [exclusion]
    state.apply(exclusion)
    assert check_health(state, now=101.0, nodes=NODES) == []
    assert excluded(state, now=101.0) == ("n1",)
    assert excluded(state, now=100.0 + EXCLUDED_S) == ()


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([fault(0, "n1"), fault(0, "n1"), fault(0, "n1")], id="one trial only"),
        pytest.param([fault(0, "n1"), fault(1, "n2"), fault(2, "n3")], id="different nodes"),
        pytest.param(
            [fault(0, "n1"), fault(1, "n1"), done(5, "n1"), fault(2, "n1")], id="a run did well meanwhile"
        ),
        pytest.param(
            [
                fault(0, "n1"),
                fault(1, "n1"),
                fault(5, "n1", Interruption.PREEMPTED, progressed=True),
                fault(2, "n1"),
            ],
            id="a run made progress meanwhile",
        ),
        *(
            pytest.param([fault(trial, "n1", why) for trial in range(5)], id=why.value)
            for why in (
                Interruption.PREEMPTED,
                Interruption.TIMEOUT,
                Interruption.CANCELLED,
                Interruption.CANCELLED_BY_ADMIN,
                Interruption.NOT_STARTED,
                Interruption.TRAINING_ERROR,
            )
        ),
    ],
)
def test_other_failures_do_not_exclude_the_node(events: list[AnyEvent]) -> None:
    assert excluded_nodes(sweep(*events)) == []


def test_no_node_is_excluded_where_no_other_one_ever_succeeded() -> None:
    state = SweepState.replay(
        [
            SweepStarted("cafe01", "s", 0.0, {}),
            *(TrialCreated(trial, {}, 0, 1) for trial in range(6)),
            BatchPlanned("b", 0.0, tuple((RunId(trial, 0),) for trial in range(6)), gpus=1, throttle=4),
            BatchSubmitted("b", "1", 0.0),
            *(fault(trial, "n1", Interruption.WORKER_DIED) for trial in range(4)),
        ]
    )
    assert excluded_nodes(state) == []
    state.apply(done(5, "n1"))
    assert excluded_nodes(state) == []
    state.apply(done(4, "n2"))
    for trial in range(3):
        state.apply(fault(trial, "n1"))
    assert excluded_nodes(state) == ["n1"]


def test_never_all_nodes_are_excluded() -> None:
    everywhere = [fault(trial, node) for node in NODES for trial in range(3)]
    assert excluded_nodes(sweep(*everywhere)) == ["n1", "n2"]
    assert excluded_nodes(sweep(*everywhere), nodes=("n1",)) == []
    assert excluded_nodes(sweep(*everywhere), nodes=()) == []


# --------------------------------------------------------------------------- batches that die


def died(
    state: SweepState, number: int, event: RunInterrupted | RunFinished | None = None, *, trial: int = 0
) -> None:
    """One more batch of one task, which ends so."""
    name = f"d{number}"
    state.apply(BatchPlanned(name, 0.0, ((RunId(trial, 0),),), gpus=1, throttle=1))
    state.apply(BatchSubmitted(name, "1", 0.0))
    if event is None:
        event = RunInterrupted(trial, 0, Interruption.WORKER_DIED, message="no module named x")
    state.apply(msgspec.structs.replace(event, batch=name))
    state.apply(BatchClosed(name))


def fresh(trials: int = 1) -> SweepState:
    state = SweepState()
    state.apply(SweepStarted("cafe01", "s", 0.0, {}))
    for trial in range(trials):
        state.apply(TrialCreated(trial, {}, 0, 1))
    return state


def test_three_batches_in_a_row_failing_within_seconds_pause_the_sweep_with_the_last_message() -> None:
    state = fresh()
    for number in range(2):
        died(state, number)
        assert check_health(state, now=9.0, nodes=()) == []
    died(state, 2)
    pause = PauseRequested(9.0, "3 batches in a row failed within seconds; the last: no module named x")
    assert check_health(state, now=9.0, nodes=()) == [pause]
    state.apply(pause)
    assert check_health(state, now=9.0, nodes=()) == []


def test_a_resumed_sweep_counts_failed_batches_from_zero() -> None:
    state = fresh()
    for number in range(3):
        died(state, number)
    state.apply(PauseRequested(9.0, "3 batches"))
    state.apply(SweepEnded(9.0, SweepOutcome.PAUSED, "3 batches"))
    state.apply(SweepResumed(10.0))
    assert (state.pausing, check_health(state, now=11.0, nodes=())) == (None, [])


def test_a_resumed_sweep_excludes_no_node() -> None:
    state = sweep(*(fault(trial, "n1") for trial in range(3)), fault(3, "n2"))
    state.apply(NodeExcluded("n1", 100.0, 100.0 + EXCLUDED_S, "3 trials"))
    state.apply(SweepResumed(101.0))
    assert (excluded(state, now=102.0), state.node_faults) == ((), {})


@pytest.mark.parametrize(
    "life",
    [
        RunInterrupted(0, 0, Interruption.WORKER_DIED, seconds=INSTANT_S + 1),
        RunInterrupted(0, 0, Interruption.NODE_FAIL, progressed=True),
        RunInterrupted(0, 0, Interruption.PREEMPTED),
        RunInterrupted(0, 0, Interruption.TIMEOUT),
        RunInterrupted(0, 0, Interruption.CANCELLED),
        RunInterrupted(0, 0, Interruption.NOT_STARTED),
    ],
)
def test_a_batch_that_makes_progress_resets_the_count(life: RunInterrupted) -> None:
    state = fresh()
    for number in range(5):
        died(state, number, life if number == 2 else None)
        assert check_health(state, now=9.0, nodes=()) == []


def test_training_errors_within_seconds_pause_only_while_no_run_has_a_value() -> None:
    failure = RunFinished(0, 0, Outcome.FAILED, message="ImportError: no")
    broken, working = fresh(4), fresh(4)
    died(working, 9, RunFinished(3, 0, Outcome.COMPLETED, 0.5), trial=3)
    for state in (broken, working):
        for trial in range(3):
            event = msgspec.structs.replace(failure, trial=trial)
            died(state, trial, event, trial=trial)
    assert check_health(working, now=9.0, nodes=()) == []
    assert check_health(broken, now=9.0, nodes=()) == [
        PauseRequested(9.0, "3 batches in a row failed within seconds; the last: ImportError: no")
    ]


# --------------------------------------------------------------------------- messages of the cluster


def state_of(*events: AnyEvent) -> SweepState:
    return SweepState.replay([SweepStarted("cafe01", "s", 0.0, {}), *events])


def test_a_failed_call_is_recorded_with_its_message_cut_short() -> None:
    assert call_failed(state_of(), "poll", "  no answer \n", now=5.0) == (
        ClusterMessage(5.0, "poll", "no answer"),
    )
    assert call_failed(state_of(), "poll", " ", now=5.0) == (ClusterMessage(5.0, "poll", "no message"),)
    (event,) = call_failed(state_of(), "poll", "x" * (LENGTH + 1), now=5.0)
    assert event.message == "x" * LENGTH


@pytest.mark.parametrize(
    ("message", "now", "recorded"),
    [
        ("timeout after 5 s", 500.0, False),  # the same, again
        ("timeout after 7 s", 500.0, False),  # the same but for a number
        ("no route", 100.0 + EVERY_S - 1, False),  # another one, too soon
        ("no route", 100.0 + EVERY_S, True),
        ("no route", 99.0, True),  # the clock was set back
    ],
)
def test_a_message_is_recorded_again_only_when_it_changes_and_not_too_often(
    message: str, now: float, recorded: bool
) -> None:
    state = state_of(ClusterMessage(100.0, "poll", "timeout after 5 s"))
    expected = (ClusterMessage(now, "poll", message),) if recorded else ()
    assert call_failed(state, "poll", message, now=now) == expected


def test_messages_of_other_calls_and_batches_and_refusals_are_always_recorded() -> None:
    state = state_of(ClusterMessage(100.0, "submit", "no", "b1"))
    other_call = ClusterMessage(101.0, "poll", "no")
    other_batch = ClusterMessage(101.0, "submit", "no", "b2")
    refusal = ClusterMessage(101.0, "submit", "no", "b1", True)
    assert call_failed(state, "poll", "no", now=101.0) == (other_call,)
    assert call_failed(state, "submit", "no", now=101.0, batch="b2") == (other_batch,)
    assert call_failed(state, "submit", "no", now=101.0, batch="b1", refused=True) == (refusal,)
    assert call_failed(state, "submit", "no", now=101.0, batch="b1") == ()


def test_a_success_is_recorded_once_after_a_failure_of_the_same_call() -> None:
    failed = ClusterMessage(100.0, "poll", "no answer")
    assert call_succeeded(state_of(), "poll", now=101.0) == ()
    assert call_succeeded(state_of(failed), "find", now=101.0) == ()
    success = ClusterMessage(101.0, "poll", "")
    assert call_succeeded(state_of(failed), "poll", now=101.0) == (success,)
    assert call_succeeded(state_of(failed, success), "poll", now=102.0) == ()
