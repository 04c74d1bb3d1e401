"""The GPU cap over all live arrays: pure arithmetic, worked by hand and under any shares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.driver.throttle import ArrayUsage, free_slots, lower_throttles, raise_throttles

shares_of = st.lists(
    st.builds(ArrayUsage, open=st.integers(0, 50), throttle=st.integers(1, 30), slots=st.integers(1, 4)),
    max_size=12,
)


def with_throttles(shares: list[ArrayUsage], throttles: list[int]) -> list[ArrayUsage]:
    return [share._replace(throttle=throttle) for share, throttle in zip(shares, throttles, strict=True)]


def used(shares: list[ArrayUsage]) -> int:
    return sum(share.used for share in shares)


@pytest.mark.parametrize(
    ("cap", "shares", "free"),
    [
        (4, [], 4),
        (4, [ArrayUsage(9, 4)], 0),
        (4, [ArrayUsage(2, 4)], 2),  # a throttle counts only as far as there are tasks
        (4, [ArrayUsage(0, 4), ArrayUsage(3, 1)], 3),
        (2, [ArrayUsage(9, 4)], -2),
        (8, [ArrayUsage(9, 3, slots=2)], 2),  # submitted when a task took twice the GPUs of now
    ],
)
def test_free_slots_are_what_no_array_may_take(cap: int, shares: list[ArrayUsage], free: int) -> None:
    assert free_slots(cap, shares) == free


@pytest.mark.parametrize(
    ("cap", "shares", "throttles"),
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
    cap: int, shares: list[ArrayUsage], throttles: list[int]
) -> None:
    assert raise_throttles(cap, shares) == throttles


@pytest.mark.parametrize(
    ("cap", "shares", "throttles"),
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
    cap: int, shares: list[ArrayUsage], throttles: list[int]
) -> None:
    assert lower_throttles(cap, shares) == throttles


@given(st.integers(1, 60), shares_of)
def test_raising_never_lets_more_run_than_the_cap(cap: int, shares: list[ArrayUsage]) -> None:
    after = with_throttles(shares, raise_throttles(cap, shares))
    assert used(after) <= max(cap, used(shares))
    assert all(new.throttle >= old.throttle for new, old in zip(after, shares, strict=True))
    # Whatever is free after it could not be used by anybody.
    idle = free_slots(cap, after)
    assert all(share.throttle >= share.open or idle < share.slots for share in after)


@given(st.integers(1, 60), shares_of)
def test_raising_one_after_the_other_never_exceeds_the_cap_in_between(
    cap: int, shares: list[ArrayUsage]
) -> None:
    target = raise_throttles(cap, shares)
    for done in range(len(shares) + 1):
        between = [*with_throttles(shares, target)[:done], *shares[done:]]
        assert used(between) <= max(cap, used(shares))


@given(st.integers(1, 60), shares_of)
def test_lowering_cuts_just_enough_and_leaves_every_array_one(cap: int, shares: list[ArrayUsage]) -> None:
    after = with_throttles(shares, lower_throttles(cap, shares))
    least = sum(share.slots for share in shares if share.open)
    widest = max((share.slots for share in shares), default=1)
    assert used(after) <= max(cap, least)
    assert used(after) > min(used(shares), cap) - widest  # no more was cut than one task too much
    assert all(1 <= new.throttle <= old.throttle for new, old in zip(after, shares, strict=True))


@given(st.integers(1, 60), shares_of)
def test_raising_twice_is_raising_once_and_so_is_lowering(cap: int, shares: list[ArrayUsage]) -> None:
    for change in (raise_throttles, lower_throttles):
        once = change(cap, shares)
        assert change(cap, with_throttles(shares, once)) == once
