"""Caps over all live arrays and submit limits: arithmetic, worked by hand and under any usages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.events import BatchThrottled
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import HostTask
from hpcsweep.driver.effects import EffectResult, Step, Throttle
from hpcsweep.driver.job_control import (
    ArrayUsage,
    ThrottleManager,
    free_slots,
    lower_throttles,
    raise_throttles,
)
from hpcsweep.driver.submission import FIRST_PAUSE_S, LONGEST_PAUSE_S, SubmitBackoff
from hpcsweep.errors import ClusterUnavailable
from tests.driver.states import SETTINGS, monitor_of, planned, submitted, sweep_of

usage_of = st.builds(
    ArrayUsage,
    open=st.integers(0, 50),
    throttle=st.integers(1, 30),
    slots=st.integers(1, 4),
    held=st.just(0),
)
usages_of = st.lists(usage_of, max_size=12)
#: Of some arrays more tasks hold GPUs than the throttle, which was lowered, lets through.
lowered_usages_of = st.lists(
    st.builds(lambda usage, held: usage._replace(held=min(held, usage.open)), usage_of, st.integers(0, 50)),
    max_size=12,
)


def with_throttles(usages: list[ArrayUsage], throttles: list[int]) -> list[ArrayUsage]:
    return [usage._replace(throttle=throttle) for usage, throttle in zip(usages, throttles, strict=True)]


def used(usages: list[ArrayUsage]) -> int:
    return sum(usage.used for usage in usages)


@pytest.mark.parametrize(
    ("cap", "usages", "free"),
    [
        (4, [], 4),
        (4, [ArrayUsage(9, 4)], 0),
        (4, [ArrayUsage(2, 4)], 2),  # a throttle counts only as far as there are tasks
        (4, [ArrayUsage(0, 4), ArrayUsage(3, 1)], 3),
        (2, [ArrayUsage(9, 4)], -2),
        (8, [ArrayUsage(9, 3, slots=2)], 2),  # submitted when a task took twice the GPUs of now
    ],
)
def test_free_slots_are_what_no_array_may_take(cap: int, usages: list[ArrayUsage], free: int) -> None:
    assert free_slots(cap, usages) == free


@pytest.mark.parametrize(
    ("cap", "usages", "throttles"),
    [
        (4, [ArrayUsage(9, 4)], [4]),
        (4, [ArrayUsage(9, 1)], [4]),
        (8, [ArrayUsage(2, 1), ArrayUsage(9, 1)], [2, 6]),  # the oldest first, the rest to the next
        (8, [ArrayUsage(0, 4), ArrayUsage(9, 1)], [4, 8]),  # an array that has ended gives its slots away
        (8, [ArrayUsage(3, 5)], [5]),  # more than its tasks is of no use
        (2, [ArrayUsage(9, 4), ArrayUsage(9, 1)], [4, 1]),  # over the cap: nothing is handed out
        (8, [ArrayUsage(9, 1, slots=3), ArrayUsage(9, 1)], [2, 2]),  # 5 free: one task of 3, 2 of 1
    ],
)
def test_free_slots_go_to_the_oldest_array_that_can_use_them(
    cap: int, usages: list[ArrayUsage], throttles: list[int]
) -> None:
    assert raise_throttles(cap, usages) == throttles


@pytest.mark.parametrize(
    ("cap", "usages", "throttles"),
    [
        (4, [ArrayUsage(9, 4)], [4]),
        (2, [ArrayUsage(9, 4)], [2]),
        (4, [ArrayUsage(9, 4), ArrayUsage(9, 3)], [3, 1]),  # the newest gives first, down to one
        (1, [ArrayUsage(9, 4), ArrayUsage(9, 3)], [1, 1]),  # none below one: the rest ends by itself
        (3, [ArrayUsage(2, 9), ArrayUsage(3, 9)], [9, 1]),
        (3, [ArrayUsage(0, 4), ArrayUsage(9, 4)], [4, 3]),
    ],
)
def test_a_lowered_cap_is_cut_from_the_newest_arrays(
    cap: int, usages: list[ArrayUsage], throttles: list[int]
) -> None:
    assert lower_throttles(cap, usages) == throttles


@given(st.integers(1, 60), lowered_usages_of)
def test_raising_never_lets_more_run_than_the_cap(cap: int, usages: list[ArrayUsage]) -> None:
    after = with_throttles(usages, raise_throttles(cap, usages))
    assert used(after) <= max(cap, used(usages))
    assert all(new.throttle >= old.throttle for new, old in zip(after, usages, strict=True))
    # Whatever is free after it could not be used by anybody.
    idle = free_slots(cap, after)
    assert all(usage.throttle >= usage.open or idle < usage.slots for usage in after)


@given(st.integers(1, 60), lowered_usages_of)
def test_raising_one_after_the_other_never_exceeds_the_cap_in_between(
    cap: int, usages: list[ArrayUsage]
) -> None:
    target = raise_throttles(cap, usages)
    for done in range(len(usages) + 1):
        between = [*with_throttles(usages, target)[:done], *usages[done:]]
        assert used(between) <= max(cap, used(usages))


@given(st.integers(1, 60), usages_of)
def test_lowering_cuts_just_enough_and_leaves_every_array_one(cap: int, usages: list[ArrayUsage]) -> None:
    after = with_throttles(usages, lower_throttles(cap, usages))
    least = sum(usage.slots for usage in usages if usage.open)
    widest = max((usage.slots for usage in usages), default=1)
    assert used(after) <= max(cap, least)
    assert used(after) > min(used(usages), cap) - widest  # no more was cut than one task too much
    assert all(1 <= new.throttle <= old.throttle for new, old in zip(after, usages, strict=True))


@given(st.integers(1, 60), usages_of)
def test_raising_twice_is_raising_once_and_so_is_lowering(cap: int, usages: list[ArrayUsage]) -> None:
    for change in (raise_throttles, lower_throttles):
        once = change(cap, usages)
        assert change(cap, with_throttles(usages, once)) == once


# --------------------------------------------------------------------------- throttles of a sweep


def manager(state: SweepState, **options: Any) -> ThrottleManager:
    settings = msgspec.structs.replace(SETTINGS, max_tasks=4)
    return ThrottleManager(state, settings=settings, monitor=monitor_of(state), **options)


def test_a_higher_throttle_is_committed_before_it_holds_and_asked_for_until_the_cluster_took_it() -> None:
    state = sweep_of(3, *submitted("b1", [0], [1], [2], throttle=1))
    throttles = manager(state)
    effect = Throttle("b1", 3)
    step = throttles.rethrottle()
    assert step == Step((BatchThrottled("b1", 3),), (effect,))
    state.apply(step.events[0])
    throttles.note(effect, EffectResult(error=ClusterUnavailable("no answer")))
    assert throttles.rethrottle() == Step(effects=(effect,))
    throttles.note(effect, EffectResult())
    assert throttles.rethrottle() == Step()


def test_a_lower_throttle_is_committed_only_after_it_holds() -> None:
    state = sweep_of(6, *submitted("b1", *([trial] for trial in range(6)), throttle=6))
    assert manager(state).rethrottle() == Step(effects=(Throttle("b1", 4),))


def test_a_new_session_asks_again_for_what_an_earlier_one_may_not_have_reached() -> None:
    state = sweep_of(2, *submitted("b1", [0], [1], throttle=2))
    assert manager(state, unconfirmed={"b1"}).rethrottle() == Step(effects=(Throttle("b1", 2),))


def test_a_batch_without_a_job_takes_slots_and_is_left_alone() -> None:
    state = sweep_of(2, planned("b1", [0], [1], throttle=1))
    throttles = manager(state)
    assert (throttles.rethrottle(), throttles.free, throttles.open_tasks) == (Step(), 3, 2)


def test_the_task_that_the_driver_runs_in_gives_its_slot_to_what_waits_for_it() -> None:
    state = sweep_of(5, *submitted("b1", *([trial] for trial in range(4))))
    throttles = manager(state, host=HostTask("b1", 0, "4711_0"))
    state.apply(planned("b2", [4], throttle=1))
    assert (throttles.free, throttles.dependency) == (0, "4711_0")
    assert (manager(state).free, manager(state).dependency) == (-1, "")


@pytest.mark.parametrize(("gpus", "free"), [(1, 4), (2, 4), (4, 2), (9, 0)])
def test_gpus_are_counted_as_the_cluster_gives_them(gpus: int, free: int) -> None:
    state = sweep_of(0)
    settings = msgspec.structs.replace(SETTINGS, max_tasks=4, max_gpus=8)
    throttles = ThrottleManager(state, settings=settings, monitor=monitor_of(state))
    throttles.expected_gpus = gpus
    assert (throttles.task_gpus, throttles.free) == (gpus, free)


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


def test_where_not_even_one_task_is_accepted_it_is_tried_again_after_a_while() -> None:
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


def test_accepted_array_resets_the_pause() -> None:
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
def test_all_tasks_are_submitted_and_the_limit_is_found_by_few_refusals(
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
