"""When a detached sweep gets a job that ticks, and what needs attention sooner than any job tells."""

from __future__ import annotations

import pytest

from hpcsweep.core.events import StopRequested, SweepEnded, SweepOutcome, TickSubmitted
from hpcsweep.core.state import SweepState
from hpcsweep.driver.effects import EffectResult, Step, SubmitTick
from hpcsweep.driver.job_control import LOOK_AGAIN_S, WATCH_S, TickScheduler
from hpcsweep.errors import ClusterError
from tests.driver.states import planned, submitted, sweep_of

NOW = 1000.0
BEHIND = SubmitTick("b1-tick", NOW, batch="b1", after="4711")


def with_batch() -> SweepState:
    return sweep_of(1, *submitted("b1", [0]))


def test_each_array_on_the_cluster_gets_one_tick_job_behind_it() -> None:
    state = with_batch()
    scheduler = TickScheduler(state)
    assert scheduler.behind_arrays(now=NOW) == Step(effects=(BEHIND,))
    state.apply(TickSubmitted("4712", NOW, "b1"))
    assert scheduler.behind_arrays(now=NOW) == Step()


def test_an_array_without_a_job_gets_none() -> None:
    assert TickScheduler(sweep_of(1, planned("b1", [0]))).behind_arrays(now=NOW) == Step()


def test_a_tick_job_that_left_the_queue_before_its_time_is_replaced_once_a_minute() -> None:
    state = with_batch()
    state.apply(TickSubmitted("4712", NOW, "b1"))
    scheduler = TickScheduler(state)
    for jobs in (None, {"4712": "b1-tick"}, {"9": "b1-tick"}):
        scheduler.jobs = jobs
        assert scheduler.behind_arrays(now=NOW, active={"b1"}) == Step()
    scheduler.jobs = {"4711": "b1"}
    assert scheduler.behind_arrays(now=NOW) == Step(), "the array has ended: the job may have run"
    assert scheduler.behind_arrays(now=NOW, active={"b1"}) == Step(effects=(BEHIND,))
    assert scheduler.behind_arrays(now=NOW + LOOK_AGAIN_S - 1, active={"b1"}) == Step()
    assert len(scheduler.behind_arrays(now=NOW + LOOK_AGAIN_S, active={"b1"}).effects) == 1


@pytest.mark.parametrize(("soon", "delay_s"), [(True, LOOK_AGAIN_S), (False, WATCH_S)])
def test_a_later_job_is_submitted_unless_one_comes_by_then(soon: bool, delay_s: float) -> None:
    state = with_batch()
    scheduler = TickScheduler(state)
    submit = SubmitTick("s-cafe01-tick", NOW + delay_s, delay_s)
    assert scheduler.later(soon=soon, now=NOW) == Step(effects=(submit,))
    state.apply(TickSubmitted("4713", NOW + delay_s))
    assert scheduler.later(soon=soon, now=NOW) == Step()
    scheduler.jobs = {}
    assert scheduler.later(soon=soon, now=NOW) == Step(effects=(submit,)), "the one that was to come is gone"
    state.apply(TickSubmitted("4714", NOW + 2 * delay_s))
    state.apply(TickSubmitted("4715", NOW + delay_s))
    scheduler.jobs = {"4714": "s-cafe01-tick"}
    assert scheduler.later(soon=soon, now=NOW) == Step(effects=(submit,)), "that one comes later"
    scheduler.jobs = None
    late = NOW + delay_s
    assert len(scheduler.later(soon=soon, now=late).effects) == 1, "it is due, and has not come"


@pytest.mark.parametrize(("soon", "delay_s"), [(True, LOOK_AGAIN_S), (False, WATCH_S)])
def test_a_driver_does_not_count_on_its_own_job(soon: bool, delay_s: float) -> None:
    """It may have begun before its time by another clock, or have followed the one that was to come."""
    state = with_batch()
    state.apply(TickSubmitted("4713", NOW + 1))
    submit = SubmitTick("s-cafe01-tick", NOW + delay_s, delay_s)
    for host, jobs, effects in [
        ("4713", None, (submit,)),
        ("4713", {"4713": "s-cafe01-tick"}, (submit,)),
        ("4714", {"4714": "s-cafe01-tick"}, (submit,)),
        ("4714", {"4713": "s-cafe01-tick", "4714": "s-cafe01-tick"}, ()),
        ("4714", {"4714": "s-cafe01-tick", "4715": "s-cafe01-tick"}, ()),
        ("4714", None, ()),
    ]:
        scheduler = TickScheduler(state, host_job=host)
        scheduler.jobs = jobs
        assert scheduler.later(soon=soon, now=NOW) == Step(effects=effects), (host, jobs)


def test_why_the_last_tick_job_was_refused_is_kept_until_one_is_accepted() -> None:
    scheduler = TickScheduler(with_batch())
    scheduler.note(BEHIND, EffectResult(error=ClusterError("QOSMaxSubmitJobPerUserLimit")))
    assert scheduler.error == "QOSMaxSubmitJobPerUserLimit"
    scheduler.note(BEHIND, EffectResult())
    assert scheduler.error == ""


def test_a_sweep_needs_attention_where_no_job_tells_of_what_is_to_be_done() -> None:
    state = with_batch()
    scheduler = TickScheduler(state)
    assert scheduler.needs_attention(undecided=False), "nothing ticks behind its array"
    state.apply(TickSubmitted("4712", NOW, "b1"))
    assert not scheduler.needs_attention(undecided=False)
    assert scheduler.needs_attention(undecided=True)
    behind = TickScheduler(state, host_job="4712")
    assert behind.needs_attention(undecided=False), "the job behind the array is this one"
    state.apply(StopRequested(NOW, "stopped by ada"))
    assert scheduler.needs_attention(undecided=False)
    state.apply(SweepEnded(NOW, SweepOutcome.STOPPED, "stopped by ada"))
    assert not scheduler.needs_attention(undecided=True)
    assert TickScheduler(sweep_of(1)).needs_attention(undecided=False), "nothing is on the cluster"


@pytest.mark.parametrize(
    ("jobs", "attention"),
    [
        (None, False),
        ({"4712": "b1-tick"}, False),
        ({"4712": "renamed"}, False),
        ({"4711": "b1", "9": "b1-tick"}, True),
        ({"9": "b1-tick", "10": "b1-tick"}, False),
    ],
)
def test_a_sweep_needs_attention_where_the_job_behind_an_array_is_gone(
    jobs: dict[str, str] | None, attention: bool
) -> None:
    """The driver is in the job that followed it, as it failed."""
    state = with_batch()
    state.apply(TickSubmitted("4712", NOW, "b1"))
    scheduler = TickScheduler(state, host_job="9")
    scheduler.jobs = jobs
    assert scheduler.needs_attention(undecided=False) is attention
