"""What follows from the requests of other commands."""

from __future__ import annotations

from typing import Any

from hpcsweep.core.events import (
    AnyEvent,
    ConfigsEnqueued,
    Outcome,
    PauseRequested,
    RunFinished,
    RunRetried,
    StopRequested,
    SweepResumed,
    TrialStopped,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver.lifecycle import handle_request
from hpcsweep.store.requests import Request
from tests.driver.states import submitted, sweep_of
from tests.driver.sweeps import SPACE

NAME = "1-ab.json"


def handled(state: SweepState, verb: str, *, over: bool = False, **arguments: Any) -> list[AnyEvent]:
    return handle_request(
        NAME,
        Request(verb, 0.0, "ada", arguments),
        state=state,
        space=SPACE,
        seed=7,
        now=5.0,
        is_over=lambda trial: over,
    )


def failed(outcome: Outcome = Outcome.FAILED) -> SweepState:
    state = sweep_of(2, *submitted("b1", [0], [1]))
    state.apply(RunFinished(0, 0, outcome, batch="b1"))
    state.apply(RunFinished(1, 0, Outcome.COMPLETED, value=0.5, step=9, batch="b1"))
    return state


def test_a_stop_names_who_asked_for_it() -> None:
    assert handled(sweep_of(1), "stop") == [StopRequested(5.0, "stopped by ada", NAME)]


def test_a_trial_is_stopped_once_and_not_after_its_end() -> None:
    state = sweep_of(2)
    stopped = TrialStopped(1, "stopped by ada", NAME)
    assert handled(state, "stop_trial", trial=1) == [stopped]
    assert handled(state, "stop_trial", trial=1, over=True) == []
    state.apply(stopped)
    assert handled(state, "stop_trial", trial=1) == []


def test_invalid_requests_are_skipped() -> None:
    for trial in (2, -1, "1", None):
        assert handled(sweep_of(2), "stop_trial", trial=trial) == []
    assert handled(sweep_of(1), "enqueue", config={"unknown": 1}) == []
    assert handled(sweep_of(1), "dance") == []


def test_a_configuration_is_enqueued_as_it_is_given() -> None:
    assert handled(sweep_of(1), "enqueue", config={"x": 0.5}) == [ConfigsEnqueued(({"x": 0.5},), NAME)]


def test_failed_runs_are_retried_and_a_pause_is_over() -> None:
    state = failed()
    assert handled(state, "retry") == [RunRetried(0, 0, NAME)]
    assert handled(state, "retry", trial=1) == []
    state.apply(PauseRequested(4.0, "it is broken"))
    assert handled(state, "retry") == [SweepResumed(5.0), RunRetried(0, 0, NAME)]


def test_what_its_user_cancelled_is_retried_only_by_its_number() -> None:
    state = failed(Outcome.CANCELLED)
    assert handled(state, "retry") == []
    assert handled(state, "retry", trial=0) == [RunRetried(0, 0, NAME)]
