"""What tasks cost, the hard cap on GPU-hours under any course of a sweep, and how a sweep ends or resumes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, TaskResources, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    StopRequested,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TimeUp,
    TrialCreated,
    TrialsExhausted,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.lifecycle import GpuBudget, can_resume, confirm_time_over, exhausted_budget, sweep_end
from hpcsweep.driver.live_batches import (
    CLOCK_SKEW_S,
    HOST_SKEW_S,
    OVERRUN_S,
    UsageAccounting,
    at_most,
    clip_duration,
)
from hpcsweep.errors import SpecError
from hpcsweep.schedulers.fifo import Fifo
from tests.doubles import PROGRAM

HOUR = 3600.0


def settings(
    *,
    hours: float | None = None,
    gpus: int = 1,
    time_s: int | None = 3600,
    max_time_s: float | None = None,
    max_trials: int | None = None,
) -> DriverConfig:
    return DriverConfig(
        "s",
        "fake",
        PROGRAM,
        TaskResources(gpus=gpus, time_s=time_s),
        seed=0,
        max_gpu_s=None if hours is None else hours * HOUR,
        max_time_s=max_time_s,
        max_trials=max_trials,
    )


def budget(wanted: DriverConfig, *, default_time_s: int | None = None) -> GpuBudget:
    return GpuBudget(wanted, default_time_s=default_time_s)


def sweep(*, trials: int = 0) -> SweepState:
    state = SweepState.replay([SweepStarted("cafe01", "s", 1000.0, {})])
    for trial in range(trials):
        state.apply(TrialCreated(trial, {}, 0, 9))
    return state


def submit(state: SweepState, name: str, trials: range, *, gpus: int = 1, time_s: int = 3600) -> None:
    tasks = tuple((RunId(trial, 0),) for trial in trials)
    state.apply(BatchPlanned(name, 0.0, tasks, gpus=gpus, throttle=99, time_s=time_s))
    state.apply(BatchSubmitted(name, name, 0.0))


def finish(state: SweepState, trial: int, *, batch: str, gpu_s: float) -> None:
    state.apply(
        RunFinished(trial, 0, Outcome.COMPLETED, 0.5, 9, batch=batch, seconds=gpu_s, gpu_seconds=gpu_s)
    )


def tasks_left(
    wanted: DriverConfig,
    state: SweepState,
    *,
    open_tasks: Callable[[BatchState], int] = lambda batch: len(batch.unfinished),
    unbooked_gpu_s: float = 0.0,
) -> int | None:
    return budget(wanted).tasks_left(
        state, open_tasks=open_tasks, unbooked_gpu_s=lambda batch: unbooked_gpu_s
    )


# --------------------------------------------------------------------------- the cap


def test_a_cap_needs_a_time_limit_from_the_spec_or_the_cluster() -> None:
    with pytest.raises(SpecError, match=r"^budget\.gpu_hours: needs resources\.time"):
        budget(settings(hours=1.0, time_s=None))
    assert budget(settings(hours=1.0, time_s=None), default_time_s=90).time_s == 120
    assert budget(settings(hours=1.0, time_s=90), default_time_s=600).time_s == 120, "the spec's own first"


@pytest.mark.parametrize("wanted", [settings(time_s=None), settings(hours=1.0, gpus=0, time_s=None)])
def test_without_a_cap_or_gpus_anything_may_be_submitted(wanted: DriverConfig) -> None:
    state = sweep(trials=2)
    submit(state, "b1", range(2))
    assert budget(wanted).cap_s is None
    assert tasks_left(wanted, state) is None
    assert budget(wanted).exhausted(state) is None


@pytest.mark.parametrize(
    ("hours", "gpus", "time_s", "tasks"),
    [
        (10.0, 1, 3600, 10),
        (10.0, 4, 3600, 2),
        (10.0, 1, 3601, 9),  # Slurm counts in minutes: 61 of them
        (10.0, 1, 1, 600),
        (0.9, 1, 3600, 0),
        (1.1, 1, 3960, 1),  # 1.1 hours to the second
    ],
)
def test_a_new_sweep_may_submit_what_could_not_cost_more(
    hours: float, gpus: int, time_s: int, tasks: int
) -> None:
    assert tasks_left(settings(hours=hours, gpus=gpus, time_s=time_s), sweep()) == tasks


def test_tasks_that_may_still_run_count_with_their_whole_limit() -> None:
    wanted, state = settings(hours=10.0), sweep(trials=6)
    submit(state, "b1", range(6))
    assert tasks_left(wanted, state) == 4
    finish(state, 0, batch="b1", gpu_s=0.1 * HOUR)
    finish(state, 1, batch="b1", gpu_s=0.1 * HOUR)
    assert tasks_left(wanted, state) == 5, "0.2 h spent, 4 h that may be"
    assert tasks_left(wanted, state, open_tasks=lambda batch: 6) == 3, "they reported, and are still open"


def test_unreported_time_of_ended_tasks_counts_before_the_batch_is_closed() -> None:
    wanted, state = settings(hours=4.0), sweep(trials=2)
    submit(state, "b1", range(2))
    finish(state, 0, batch="b1", gpu_s=1.0 * HOUR)
    assert tasks_left(wanted, state) == 2
    assert tasks_left(wanted, state, unbooked_gpu_s=1.0) == 1
    finish(state, 1, batch="b1", gpu_s=1.0 * HOUR)
    state.apply(BatchClosed("b1", 1.0, 1.0))
    assert tasks_left(wanted, state) == 1, "and after"


def test_live_batches_count_as_they_were_submitted() -> None:
    wanted, state = settings(hours=10.0), sweep(trials=3)
    submit(state, "b1", range(1), gpus=4, time_s=7200)  # the resources were changed since
    assert tasks_left(wanted, state) == 2
    submit(state, "b2", range(1, 3), time_s=0)  # there was no limit known: that of now
    assert tasks_left(wanted, state) == 0


def test_a_budget_that_was_overspent_leaves_nothing() -> None:
    wanted, state = settings(hours=1.0), sweep(trials=1)
    submit(state, "b1", range(1))
    finish(state, 0, batch="b1", gpu_s=2.0 * HOUR)
    state.apply(BatchClosed("b1"))
    assert tasks_left(wanted, state) == 0
    assert budget(wanted).exhausted(state) == (
        "budget.gpu_hours 1 is used up: 2 are spent, and one more task may take 1"
    )


def test_the_budget_is_exhausted_only_when_no_further_task_can_fit() -> None:
    wanted, state = settings(hours=2.5), sweep(trials=2)
    submit(state, "b1", range(2))
    assert tasks_left(wanted, state) == 0
    assert budget(wanted).exhausted(state) is None, "what is reserved may become free"
    finish(state, 0, batch="b1", gpu_s=0.75 * HOUR)
    finish(state, 1, batch="b1", gpu_s=0.75 * HOUR)
    state.apply(BatchClosed("b1"))
    assert tasks_left(wanted, state) == 1
    assert budget(wanted).exhausted(state) is None
    assert budget(settings(hours=2.4)).exhausted(state) == (
        "budget.gpu_hours 2.4 is used up: 1.5 are spent, and one more task may take 1"
    )


@given(spent=st.floats(0.0, 50.0), hours=st.floats(0.01, 50.0), minutes=st.integers(1, 3000))
def test_a_sweep_with_nothing_under_way_either_submits_or_ends(
    spent: float, hours: float, minutes: int
) -> None:
    wanted, state = settings(hours=hours, time_s=60 * minutes), sweep(trials=1)
    submit(state, "b1", range(1))
    finish(state, 0, batch="b1", gpu_s=spent * HOUR)
    state.apply(BatchClosed("b1"))
    assert (tasks_left(wanted, state) == 0) == (budget(wanted).exhausted(state) is not None)


@given(
    hours=st.floats(0.5, 30.0),
    gpus=st.integers(1, 4),
    tasks=st.lists(
        st.tuples(st.integers(0, 3600), st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=40
    ),
)
def test_no_course_of_a_sweep_costs_more_than_the_cap(
    hours: float, gpus: int, tasks: list[tuple[int, float, bool]]
) -> None:
    """Each task takes seconds, tells of a share of them, and ends before the next look or after it."""
    wanted, state = settings(hours=hours, gpus=gpus), sweep(trials=len(tasks))
    cost = 0.0
    waiting = list(range(len(tasks)))
    live: dict[str, list[int]] = {}
    beyond: dict[str, float] = {}
    for look in range(2 * len(tasks)):
        may = budget(wanted).tasks_left(
            state,
            open_tasks=lambda batch: len(live[batch.name]),
            unbooked_gpu_s=lambda batch: beyond[batch.name],
        )
        assert may is not None
        now, waiting = waiting[:may], waiting[may:]
        name = f"b{look}"
        if now:
            submit(state, name, range(now[0], now[-1] + 1), gpus=gpus)
            live[name], beyond[name] = now, 0.0
        for batch in list(live):
            for trial in list(live[batch]):
                seconds, share, at_once = tasks[trial]
                if at_once or batch != name:
                    cost += seconds * gpus
                    finish(state, trial, batch=batch, gpu_s=seconds * gpus * share)
                    beyond[batch] += seconds * gpus * (1.0 - share)
                    live[batch].remove(trial)
            if not live[batch]:
                state.apply(BatchClosed(batch, 0.0, beyond.pop(batch)))
                del live[batch]
        assert cost <= hours * HOUR + 1e-6
    assert not waiting or budget(wanted).exhausted(state) is not None


# --------------------------------------------------------------------------- time, and the end


def test_a_budget_of_time_counts_from_the_beginning() -> None:
    wanted = settings(max_time_s=100.0)
    assert exhausted_budget(sweep(), wanted, budget(wanted), now=1099.9) is None
    assert exhausted_budget(sweep(), wanted, budget(wanted), now=1100.0) == "budget.time 100 s is used up"


def ended(ending: SweepOutcome, *, cause: str | None = None, trials: int = 0) -> SweepState:
    """A sweep whose trials have all ended."""
    state = sweep(trials=trials)
    if trials:
        submit(state, "b1", range(trials))
        for trial in range(trials):
            finish(state, trial, batch="b1", gpu_s=HOUR)
        state.apply(BatchClosed("b1"))
    if cause is not None:
        state.apply(TrialsExhausted("no more", cause))
    state.apply(SweepEnded(2000.0, ending, "because"))
    return state


def fifo(state: SweepState) -> Fifo:
    """The scheduler of this sweep, brought up to date."""
    scheduler = Fifo(max_resource=9)
    for trial in state.trials:
        scheduler.apply(TrialCreated(trial.trial, {}, 0, 9))
    if state.no_more_trials is not None:
        scheduler.apply(state.no_more_trials)
    return scheduler


def resumes(state: SweepState, wanted: DriverConfig) -> bool:
    return can_resume(state, fifo(state), wanted, budget(wanted), now=2000.0)


def test_only_an_ended_sweep_can_resume() -> None:
    assert not resumes(sweep(), settings())


@pytest.mark.parametrize("ending", [SweepOutcome.STOPPED, SweepOutcome.PAUSED])
def test_a_stopped_or_paused_sweep_can_resume_whatever_is_spent(ending: SweepOutcome) -> None:
    assert resumes(ended(ending, trials=2), settings(hours=1.0))


def test_a_sweep_can_resume_under_a_raised_budget_and_not_under_the_same() -> None:
    spent = ended(SweepOutcome.FINISHED, trials=2)
    assert not resumes(spent, settings(hours=2.0))
    assert resumes(spent, settings(hours=3.0))
    trials = ended(SweepOutcome.FINISHED, cause="budget", trials=2)
    assert not resumes(trials, settings(max_trials=2))
    assert resumes(trials, settings(max_trials=3))


def test_an_exhausted_space_cannot_be_resumed() -> None:
    assert not resumes(ended(SweepOutcome.FINISHED, cause="space", trials=2), settings(max_trials=9))


def test_can_resume_changes_nothing() -> None:
    state, wanted = ended(SweepOutcome.FINISHED, cause="budget", trials=2), settings(max_trials=3)
    scheduler = fifo(state)
    assert can_resume(state, scheduler, wanted, budget(wanted), now=2000.0)
    assert scheduler.done


# --------------------------------------------------------------------------- budget.time


CLOCK = msgspec.structs.replace(settings(max_time_s=100.0), confirm_s=30.0)  # the sweep began at 1000


def test_without_a_time_to_confirm_the_clock_is_trusted() -> None:
    wanted = settings(max_time_s=100.0)
    for now in (1099.0, 1100.0):
        assert confirm_time_over(sweep(), wanted, now=now, since=now) == (True, None)


@pytest.mark.parametrize(
    ("up_since", "now", "since", "confirmed", "event"),
    [
        (None, 1099.0, 1000.0, True, None),  # not over
        (None, 1130.0, 1100.0, True, None),  # this session has seen the time pass
        (None, 1129.0, 1100.0, False, TimeUp(1129.0)),  # noted, to be confirmed
        (1100.0, 1129.0, 1120.0, False, None),  # not yet for long enough
        (1100.0, 1130.0, 1120.0, True, None),
        (1100.0, 1099.0, 1090.0, True, TimeUp(1099.0, False)),  # it was set back: it was wrong
    ],
)
def test_the_clock_must_agree_for_a_while_that_the_time_is_over(
    up_since: float | None, now: float, since: float, confirmed: bool, event: TimeUp | None
) -> None:
    state = sweep()
    if up_since is not None:
        state.apply(TimeUp(up_since))
    assert confirm_time_over(state, CLOCK, now=now, since=since) == (confirmed, event)


# --------------------------------------------------------------------------- the end


def done(*events: AnyEvent) -> SweepState:
    """A sweep whose two trials ended with values."""
    state = sweep(trials=2)
    submit(state, "b1", range(2))
    for trial in range(2):
        finish(state, trial, batch="b1", gpu_s=HOUR)
    for event in (BatchClosed("b1"), *events):
        state.apply(event)
    return state


def failed(*events: AnyEvent) -> SweepState:
    """A sweep whose only trial ended without a value."""
    state = sweep(trials=1)
    submit(state, "b1", range(1))
    state.apply(RunFinished(0, 0, Outcome.FAILED, None, 1, batch="b1", message="ValueError: no"))
    for event in (BatchClosed("b1"), *events):
        state.apply(event)
    return state


STOP, PAUSE = StopRequested(9.0, "stopped by ann"), PauseRequested(9.0, "its jobs can never start")
NO_MORE = TrialsExhausted("budget.trials 2 is reached", "budget")


@pytest.mark.parametrize(
    ("state", "exhausted", "outcome", "reason"),
    [
        (done(NO_MORE), None, SweepOutcome.FINISHED, "budget.trials 2 is reached"),
        (done(), "budget.time 1 s is used up", SweepOutcome.FINISHED, "budget.time 1 s is used up"),
        (done(NO_MORE, STOP), "used up", SweepOutcome.STOPPED, "stopped by ann"),
        (done(NO_MORE, PAUSE), None, SweepOutcome.FINISHED, "budget.trials 2 is reached"),
        (done(PAUSE), None, SweepOutcome.PAUSED, "its jobs can never start"),
        (done(PAUSE), "used up", SweepOutcome.FINISHED, "used up"),
        (failed(STOP), None, SweepOutcome.STOPPED, "stopped by ann"),
        (
            failed(NO_MORE),
            None,
            SweepOutcome.FAILED,
            "no run gave a value; the last failure: ValueError: no",
        ),
        (sweep(), "used up", SweepOutcome.FAILED, "no run gave a value; used up"),
    ],
)
def test_a_sweep_ends_stopped_then_by_a_budget_then_by_its_trials_then_paused(
    state: SweepState, exhausted: str | None, outcome: SweepOutcome, reason: str
) -> None:
    end = sweep_end(state, fifo(state), exhausted=exhausted, now=2000.0)
    assert end == SweepEnded(2000.0, outcome, reason)


def test_a_sweep_with_something_left_to_do_continues() -> None:
    assert sweep_end(done(), fifo(done()), exhausted=None, now=2000.0) is None
    waiting = done(NO_MORE)
    waiting.apply(RunRetried(0, 0, "r1"))
    assert sweep_end(waiting, fifo(waiting), exhausted=None, now=2000.0) is None


GPUS = 2
PENDING = TaskState(Phase.PENDING)


def running(seconds: float | None) -> TaskState:
    return TaskState(Phase.RUNNING, seconds=seconds)


def exited(seconds: float | None) -> TaskState:
    return TaskState(Phase.COMPLETED, seconds=seconds)


def reported(
    seconds: float, *, task: int = 0, restart: int = 0, trial: int = 0, gpus: int = GPUS
) -> RunInterrupted:
    return RunInterrupted(
        trial,
        0,
        Interruption.PREEMPTED,
        restart=restart,
        task=task,
        seconds=seconds,
        gpu_seconds=seconds * gpus,
    )


#: So long after one another that clocks bound nothing.
LATER = itertools.count(1e6, 1e6)


def usage_of(gpus: int, *, limit_s: float = 0.0, since: float = 0.0) -> UsageAccounting:
    return UsageAccounting(lambda task: gpus, limit_s=limit_s, since=since)


def charged(*happened: TaskState | RunInterrupted) -> UsageAccounting:
    """Of task 0, in the order in which it came to be known."""
    usage = usage_of(GPUS)
    for each in happened:
        if isinstance(each, RunInterrupted):
            usage.add_reported(each)
        else:
            usage.observe(0, each, now=next(LATER))
    return usage


@pytest.mark.parametrize(
    ("happened", "seconds"),
    [
        ([], 0.0),
        ([reported(9.0)], 0.0),  # it was never seen
        ([running(None), reported(9.0), exited(None)], 0.0),  # the cluster does not count
        ([PENDING, running(3.0), reported(9.0), exited(11.0)], 2.0),  # starting up and leaving
        ([running(3.0), exited(11.0), reported(9.0)], 2.0),  # the result is late
        ([running(3.0), exited(11.0)], 11.0),  # it died without a word
        ([running(12.0), reported(9.0), exited(11.0)], 2.0),  # the clocks differ: the last count holds
        ([running(3.0), reported(9.0)], 0.0),  # it has vanished since
        ([reported(4.0, trial=0), reported(5.0, trial=1), exited(11.0)], 2.0),  # one after the other
        # Put back and started again.
        (
            [running(6.0), reported(5.0), PENDING, running(3.0), reported(9.0, restart=1), exited(11.0)],
            3.0,
        ),
        ([running(6.0), PENDING, PENDING, running(3.0), reported(9.0, restart=1), exited(11.0)], 8.0),
        ([running(6.0), reported(5.0), PENDING, exited(11.0)], 12.0),  # silent the second time
        ([running(6.0), PENDING, exited(11.0)], 17.0),  # and both times
        ([running(3.0), running(0.0), PENDING, exited(11.0)], 14.0),  # while it is put back it shows 0
        (
            [running(6.0), PENDING, reported(5.0), running(3.0), reported(9.0, restart=1), exited(11.0)],
            3.0,
        ),
        ([running(60.0), running(3.0), reported(55.0), reported(9.0, restart=1), exited(11.0)], 7.0),
        (
            [running(60.0), reported(9.0, restart=1), exited(11.0)],
            62.0,
        ),  # that it was put back was not seen
        ([running(6.0), reported(5.0), PENDING], 1.0),  # cancelled before its second start
        # A new driver reads all results, and sees what there is still to see.
        ([reported(500.0), reported(9.0, restart=1), exited(11.0)], 2.0),
        ([reported(500.0), PENDING, running(3.0), reported(9.0, restart=1), exited(11.0)], 2.0),
    ],
)
def test_time_that_no_run_reported_is_charged(
    happened: Sequence[TaskState | RunInterrupted], seconds: float
) -> None:
    assert charged(*happened).unaccounted([0]) == (seconds, seconds * GPUS)


def test_idle_lanes_cost_gpu_seconds_and_no_time() -> None:
    usage = charged(reported(9.0, trial=0, gpus=1), reported(4.0, trial=1, gpus=1), exited(11.0))
    assert usage.unaccounted([0]) == (0.0, 2 * 11 - 9 - 4)


def test_tasks_are_counted_each_on_its_own() -> None:
    usage = usage_of(GPUS)
    for task, seconds in enumerate((11.0, 7.0, 5.0)):
        usage.observe(task, exited(seconds), now=next(LATER))
    usage.add_reported(reported(9.0, task=0))
    usage.add_reported(reported(9.0, task=1))
    assert usage.unaccounted(range(3)) == (7.0, 14.0)
    assert usage.unaccounted([0]) == (2.0, 4.0)
    assert usage.unaccounted([]) == (0.0, 0.0)
    assert usage.unaccounted([7]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("happened", "seconds"),
    [
        ([], 0.0),
        ([running(3.0)], 3.0),
        ([running(3.0), running(20.0)], 20.0),
        ([running(9.0), reported(5.0)], 4.0),
        ([running(9.0), PENDING], 0.0),
        ([running(9.0), PENDING, running(3.0)], 3.0),
        ([reported(500.0), running(3.0)], 0.0),
    ],
)
def test_a_run_that_vanishes_is_charged_what_its_start_has_left(
    happened: Sequence[TaskState | RunInterrupted], seconds: float
) -> None:
    assert charged(*happened).unreported_s(0) == seconds


starts_of = st.lists(
    st.tuples(st.integers(1, 500), st.one_of(st.none(), st.floats(0.0, 1.0))), min_size=1, max_size=6
)


@given(starts=starts_of, late=st.booleans())
def test_all_starts_together_cost_what_the_cluster_counts(
    starts: list[tuple[int, float | None]], late: bool
) -> None:
    """Each start ends with or without a word, which is seen at once or after the last one."""
    usage = usage_of(GPUS)
    results = [
        reported(elapsed * share, restart=restart)
        for restart, (elapsed, share) in enumerate(starts)
        if share is not None
    ]
    for restart, (elapsed, _) in enumerate(starts):
        usage.observe(0, PENDING, now=next(LATER))
        usage.observe(0, running(float(elapsed)), now=next(LATER))
        for result in results:
            if result.restart == restart and not late:
                usage.add_reported(result)
    if late:
        for result in results:
            usage.add_reported(result)
    seconds, gpu_s = usage.unaccounted([0])
    count = sum(elapsed for elapsed, _ in starts)
    assert seconds + sum(result.seconds for result in results) == pytest.approx(count, abs=0.01)
    assert gpu_s + sum(result.gpu_seconds for result in results) == pytest.approx(GPUS * count, abs=0.01)


def test_a_vanished_task_is_charged_the_most_it_can_have_taken() -> None:
    usage = usage_of(GPUS)
    usage.observe(0, TaskState(Phase.RUNNING, seconds=20.0), now=next(LATER))
    usage.assume(0, 15.0, at_most_s=60.0)
    usage.assume(1, 500.0, at_most_s=60.0)  # never seen at all
    assert [usage.unreported_s(task) for task in (0, 1)] == [35.0, 60.0]
    assert usage.unaccounted([0, 1]) == (95.0, 95.0 * GPUS)


@pytest.mark.parametrize(("run_s", "unaccounted_s"), [(10.4, -0.4), (9.5, 0.5), (11.5, 0.0)])
def test_the_cluster_s_whole_seconds_are_charged_not_the_worker_s_fractions(
    run_s: float, unaccounted_s: float
) -> None:
    assert charged(exited(10.0), reported(run_s)).unaccounted([0]) == pytest.approx(
        (unaccounted_s, unaccounted_s * GPUS)
    )


# --------------------------------------------------------------------------- clocks that are wrong

LIMIT_S = 600.0


def observed_at(usage: UsageAccounting, *happened: tuple[float, TaskState]) -> float:
    """Seconds that task 0 cost, seen in these states at these times."""
    for now, state in happened:
        usage.observe(0, state, now=now)
    return usage.unaccounted([0])[0]


def test_an_elapsed_time_that_jumps_for_a_moment_costs_next_to_nothing() -> None:
    usage = usage_of(GPUS, limit_s=36_000.0, since=1000.0)
    seconds = observed_at(
        usage,
        (1100.0, running(60.0)),
        (1105.0, running(65.0 + 3600.0)),  # the controller's clock is an hour ahead
        (1110.0, running(70.0)),
        (1165.0, exited(125.0)),
    )
    assert 125.0 <= seconds <= 125.0 + 2 * CLOCK_SKEW_S


@pytest.mark.parametrize("run_s", [1e9, 7200.0, float("nan"), -5.0, float("inf")])
def test_no_start_costs_more_than_its_limit_or_less_than_nothing(run_s: float) -> None:
    usage = usage_of(GPUS, limit_s=LIMIT_S, since=0.0)
    seconds = observed_at(usage, (1e6, running(run_s)), (2e6, exited(run_s)))
    assert 0.0 <= seconds <= LIMIT_S + OVERRUN_S
    assert 0.0 <= clip_duration(run_s, at_most_s=at_most(LIMIT_S)) <= LIMIT_S + OVERRUN_S


def test_the_first_elapsed_time_is_bounded_by_the_time_since_the_batch_was_planned() -> None:
    usage = usage_of(GPUS, since=1000.0)
    assert observed_at(usage, (1010.0, running(36_000.0))) <= 10.0 + HOST_SKEW_S


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.one_of(st.none(), st.floats(-1e6, 1e6))), min_size=1, max_size=12
    )
)
def test_each_observed_start_stays_within_its_limit_under_any_clocks(
    steps: list[tuple[float, float | None]],
) -> None:
    usage = usage_of(1, limit_s=LIMIT_S, since=0.0)
    for now, seconds in steps:
        usage.observe(0, running(seconds), now=now)
    assert all(0.0 <= start <= LIMIT_S + OVERRUN_S for start in usage._starts[0])
