"""The cost of a batch: the runs' own words and the cluster's count, each start counted once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.cluster_protocol import Phase, TaskState
from hpcsweep.core.events import Interruption, RunInterrupted
from hpcsweep.driver.budgets import CLOCK_SKEW_S, HOST_SKEW_S, OVERRUN_S, UsageAccounting, at_most, bounded

GPUS = 2
PENDING = TaskState(Phase.PENDING)


def running(seconds: float | None) -> TaskState:
    return TaskState(Phase.RUNNING, seconds=seconds)


def completed(seconds: float | None) -> TaskState:
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


def charged(*happened: TaskState | RunInterrupted) -> UsageAccounting:
    """Of task 0, in the order in which it came to be known."""
    usage = UsageAccounting(GPUS)
    for each in happened:
        if isinstance(each, RunInterrupted):
            usage.add_reported(each)
        else:
            usage.observe(0, each)
    return usage


@pytest.mark.parametrize(
    ("happened", "seconds"),
    [
        ([], 0.0),
        ([reported(9.0)], 0.0),  # it was never seen
        ([running(None), reported(9.0), completed(None)], 0.0),  # the cluster does not count
        ([PENDING, running(3.0), reported(9.0), completed(11.0)], 2.0),  # starting up and leaving
        ([running(3.0), completed(11.0), reported(9.0)], 2.0),  # the result is late
        ([running(3.0), completed(11.0)], 11.0),  # it died without a word
        ([running(12.0), reported(9.0), completed(11.0)], 2.0),  # the clocks differ: the last count holds
        ([running(3.0), reported(9.0)], 0.0),  # it has vanished since
        ([reported(4.0, trial=0), reported(5.0, trial=1), completed(11.0)], 2.0),  # one after the other
        # Put back and started again.
        ([running(6.0), reported(5.0), PENDING, running(3.0), reported(9.0, restart=1), completed(11.0)], 3.0),
        ([running(6.0), PENDING, PENDING, running(3.0), reported(9.0, restart=1), completed(11.0)], 8.0),
        ([running(6.0), reported(5.0), PENDING, completed(11.0)], 12.0),  # silent the second time
        ([running(6.0), PENDING, completed(11.0)], 17.0),  # and both times
        ([running(3.0), running(0.0), PENDING, completed(11.0)], 14.0),  # while it is put back it shows 0
        ([running(6.0), PENDING, reported(5.0), running(3.0), reported(9.0, restart=1), completed(11.0)], 3.0),
        ([running(60.0), running(3.0), reported(55.0), reported(9.0, restart=1), completed(11.0)], 7.0),
        ([running(60.0), reported(9.0, restart=1), completed(11.0)], 62.0),  # that it was put back was not seen
        ([running(6.0), reported(5.0), PENDING], 1.0),  # cancelled before its second start
        # A new driver reads all results, and sees what there is still to see.
        ([reported(500.0), reported(9.0, restart=1), completed(11.0)], 2.0),
        ([reported(500.0), PENDING, running(3.0), reported(9.0, restart=1), completed(11.0)], 2.0),
    ],
)
def test_time_that_no_run_reported_is_charged(
    happened: Sequence[TaskState | RunInterrupted], seconds: float
) -> None:
    assert charged(*happened).unaccounted([0]) == (seconds, seconds * GPUS)


def test_idle_lanes_cost_gpu_seconds_and_no_time() -> None:
    usage = charged(reported(9.0, trial=0, gpus=1), reported(4.0, trial=1, gpus=1), completed(11.0))
    assert usage.unaccounted([0]) == (0.0, 2 * 11 - 9 - 4)


def test_tasks_are_counted_each_on_its_own() -> None:
    usage = UsageAccounting(GPUS)
    for task, seconds in enumerate((11.0, 7.0, 5.0)):
        usage.observe(task, completed(seconds))
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
    usage = UsageAccounting(GPUS)
    results = [
        reported(elapsed * share, restart=restart)
        for restart, (elapsed, share) in enumerate(starts)
        if share is not None
    ]
    for restart, (elapsed, _) in enumerate(starts):
        usage.observe(0, PENDING)
        usage.observe(0, running(float(elapsed)))
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
    usage = UsageAccounting(GPUS)
    usage.observe(0, TaskState(Phase.RUNNING, seconds=20.0))
    usage.assume(0, 15.0, at_most_s=60.0)
    usage.assume(1, 500.0, at_most_s=60.0)  # never seen at all
    assert [usage.unreported_s(task) for task in (0, 1)] == [35.0, 60.0]
    assert usage.unaccounted([0, 1]) == (95.0, 95.0 * GPUS)


@pytest.mark.parametrize(("told_s", "beyond_s"), [(10.4, -0.4), (9.5, 0.5), (11.5, 0.0)])
def test_the_cluster_s_whole_seconds_are_charged_not_the_worker_s_fractions(
    told_s: float, beyond_s: float
) -> None:
    assert charged(completed(10.0), reported(told_s)).unaccounted([0]) == pytest.approx((beyond_s, beyond_s * GPUS))


# --------------------------------------------------------------------------- clocks that are wrong

LIMIT_S = 600.0


def seen_at(usage: UsageAccounting, *happened: tuple[float, TaskState]) -> float:
    """Seconds that task 0 cost, seen in these states at these times."""
    for now, state in happened:
        usage.observe(0, state, now=now)
    return usage.unaccounted([0])[0]


def test_an_elapsed_time_that_jumps_for_a_moment_costs_next_to_nothing() -> None:
    usage = UsageAccounting(GPUS, limit_s=36_000.0, since=1000.0)
    seconds = seen_at(
        usage,
        (1100.0, running(60.0)),
        (1105.0, running(65.0 + 3600.0)),  # the controller's clock is an hour ahead
        (1110.0, running(70.0)),
        (1165.0, completed(125.0)),
    )
    assert 125.0 <= seconds <= 125.0 + 2 * CLOCK_SKEW_S


@pytest.mark.parametrize("told_s", [1e9, 7200.0, float("nan"), -5.0, float("inf")])
def test_no_start_costs_more_than_its_limit_or_less_than_nothing(told_s: float) -> None:
    usage = UsageAccounting(GPUS, limit_s=LIMIT_S, since=0.0)
    seconds = seen_at(usage, (1e6, running(told_s)), (2e6, completed(told_s)))
    assert 0.0 <= seconds <= LIMIT_S + OVERRUN_S
    assert 0.0 <= bounded(told_s, at_most_s=at_most(LIMIT_S)) <= LIMIT_S + OVERRUN_S


def test_the_first_elapsed_time_is_bounded_by_the_time_since_the_batch_was_planned() -> None:
    usage = UsageAccounting(GPUS, since=1000.0)
    assert seen_at(usage, (1010.0, running(36_000.0))) <= 10.0 + HOST_SKEW_S


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.one_of(st.none(), st.floats(-1e6, 1e6))), min_size=1, max_size=12
    )
)
def test_each_observed_start_stays_within_its_limit_under_any_clocks(
    steps: list[tuple[float, float | None]],
) -> None:
    usage = UsageAccounting(1, limit_s=LIMIT_S, since=0.0)
    for now, seconds in steps:
        usage.observe(0, running(seconds), now=now)
    assert all(0.0 <= start <= LIMIT_S + OVERRUN_S for start in usage._starts[0])
