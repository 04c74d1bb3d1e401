"""When the runs that are left will have ended: what runs, how many at a time, and since when."""

from __future__ import annotations

import pytest

from hpcsweep.core.events import BatchPlanned
from hpcsweep.views.run_times import BegunRun, RunTimes

RUNG = (0, 9)


def times(*, reuse: bool, waited: float, arrays: int = 4) -> RunTimes:
    """A sweep of arrays of one task, planned at 0, that waited and then ran for 100 s beside each other."""
    found = RunTimes()
    found.resume(0.0)
    for number in range(arrays):
        found.plan(BatchPlanned(f"b{number}", 0.0, (), 1, 1, reuse=reuse))
        found.add(waited + 100.0, RUNG, 100.0, completed=True, batch=f"b{number}")
    return found


def test_the_wait_for_the_first_task_that_keeps_its_gpus_lowers_no_pace() -> None:
    assert times(reuse=True, waited=300.0).parallel(now=400.0) == 4.0
    assert times(reuse=False, waited=300.0).parallel(now=400.0) == 1.0


@pytest.mark.parametrize(
    ("waited", "now", "left_s"),
    [
        (0.0, 125.0, 75.0),
        (5.0, 125.0, 80.0),
        (50.0, 175.0, 175.0),  # whether they have begun is not known: each counts in full
    ],
)
def test_a_run_of_an_array_began_when_another_one_made_room_unless_arrays_wait_long(
    waited: float, now: float, left_s: float
) -> None:
    submitted = [BegunRun(RUNG, 90.0)] * 4
    found = times(reuse=False, waited=waited).left_s({RUNG: 4}, now=now, submitted=submitted)
    assert found == pytest.approx(left_s)
