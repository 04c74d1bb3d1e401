"""Submit limits: worked by hand, and on a site that says nothing but no, under any sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.driver.submitter import FIRST_PAUSE_S, LONGEST_PAUSE_S, SubmitBackoff


@pytest.mark.parametrize(
    ("wanted", "open_tasks", "queued", "limit", "room"),
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
def test_what_the_site_tells_is_what_is_tried(
    wanted: int, open_tasks: int, queued: int | None, limit: int | None, room: int
) -> None:
    turn = SubmitBackoff()
    assert turn.allowed(wanted=wanted, open_tasks=open_tasks, queued=queued, limit=limit, now=9.0) == room


def room(turn: SubmitBackoff, wanted: int, *, beside: int, now: float) -> int:
    """On a site that tells nothing."""
    return turn.allowed(wanted=wanted, open_tasks=beside, queued=beside, limit=None, now=now)


def test_a_refused_task_is_tried_again_when_one_has_left_or_after_a_while() -> None:
    turn = SubmitBackoff()
    turn.refused(1, open_tasks=20, now=1000.0)
    assert room(turn, 50, beside=20, now=1001.0) == 0
    assert room(turn, 50, beside=19, now=1001.0) == 0, "one place of 20 is worth no array"
    assert room(turn, 1, beside=19, now=1001.0) == 1
    assert room(turn, 50, beside=17, now=1001.0) == 3
    assert room(turn, 50, beside=20, now=1000.0 + FIRST_PAUSE_S) == 50, "the limit may have been raised"


def test_where_not_even_one_goes_in_it_is_tried_again_after_a_while() -> None:
    turn = SubmitBackoff()
    turn.refused(1, open_tasks=0, now=1000.0)
    assert room(turn, 1, beside=0, now=1001.0) == 0
    assert room(turn, 1, beside=0, now=1000.0 + FIRST_PAUSE_S) == 1


def test_a_refusal_counts_where_the_site_tells_of_more() -> None:
    turn = SubmitBackoff()
    turn.refused(1, open_tasks=12, now=1000.0)  # the limit of a group, say
    assert turn.allowed(wanted=50, open_tasks=12, queued=12, limit=100, now=1001.0) == 0
    assert turn.allowed(wanted=50, open_tasks=9, queued=9, limit=100, now=1001.0) == 3
    assert turn.allowed(wanted=50, open_tasks=9, queued=9, limit=10, now=1001.0) == 1


def test_the_pause_doubles_as_long_as_trying_again_fails() -> None:
    turn, now, pauses = SubmitBackoff(), 1000.0, []
    for _ in range(7):
        turn.refused(1, open_tasks=20, now=now)
        start = now
        while not room(turn, 50, beside=20, now=now):
            now += 1.0
        pauses.append(now - start)
    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    now += LONGEST_PAUSE_S
    turn.refused(1, open_tasks=20, now=now)
    assert room(turn, 50, beside=20, now=now + FIRST_PAUSE_S) == 50, "it went well for a long time"


def test_the_pause_starts_from_its_least_again_once_something_was_accepted() -> None:
    turn, now = SubmitBackoff(), 1000.0
    for _ in range(5):
        turn.refused(1, open_tasks=20, now=now)
        while not room(turn, 50, beside=20, now=now):
            now += 1.0
    turn.accepted()
    for pause in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S):
        turn.refused(1, open_tasks=20, now=now)
        assert room(turn, 50, beside=20, now=now + pause - 1) == 0
        assert room(turn, 50, beside=20, now=now + pause) == 50
        now += pause


def test_the_halves_of_one_refused_array_are_no_new_refusals() -> None:
    turn = SubmitBackoff()
    for tasks in (64, 32, 16, 8, 4, 2, 1):
        turn.refused(tasks, open_tasks=20, now=1000.0)
    assert room(turn, 50, beside=20, now=1000.0 + FIRST_PAUSE_S) == 50


class Site:
    """Takes no array that would make more than `limit` tasks, and says no more than that."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self.most = 0
        self.refusals = 0

    def submit(self, turn: SubmitBackoff, wanted: int, *, now: float) -> int:
        """As the driver does: what is refused is halved. How many went in."""
        tasks = turn.allowed(wanted=wanted, open_tasks=self.open, queued=self.open, limit=None, now=now)
        while tasks:
            if self.open + tasks <= self.limit:
                self.open += tasks
                self.most = max(self.most, self.open)
                return tasks
            self.refusals += 1
            turn.refused(tasks, open_tasks=self.open, now=now)
            tasks //= 2
        return 0


@given(limit=st.integers(1, 300), wanted=st.integers(1, 2000), each=st.integers(1, 50))
def test_everything_goes_in_and_the_limit_is_found_by_few_refusals(
    limit: int, wanted: int, each: int
) -> None:
    site, turn, ticks = Site(limit), SubmitBackoff(), 0
    waiting = wanted
    while waiting:
        waiting -= site.submit(turn, waiting, now=float(ticks))
        if ticks % 10 == 9:  # it takes a while until some end
            site.open = max(0, site.open - each)
        ticks += 1
        assert ticks <= 30 + 40 * wanted
    # Few for each time that the bound was sought: at the beginning, and after pauses of 30, 60, ... s.
    sought = 1 + sum(ticks > FIRST_PAUSE_S * (2**n - 1) for n in range(1, 5)) + ticks // LONGEST_PAUSE_S
    assert site.refusals <= sought * 2 * wanted.bit_length()
    if wanted >= 2 * limit and ticks >= 10:
        assert site.most >= limit - limit // 8, "it is made use of"
