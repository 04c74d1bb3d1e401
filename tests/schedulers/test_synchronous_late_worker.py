"""The late worker of Dive into Deep Learning, 19.4: what happens while and after a rung waits for it."""

from __future__ import annotations

from hpcsweep.core.protocols import Decision, Promote, Start
from hpcsweep.schedulers.synchronous import Halving
from tests.schedulers.scheduler_harness import Harness


def test_a_late_worker_holds_up_its_rung_only_and_its_promotions_go_to_the_front() -> None:
    # Rungs 2, 4, 8, 10 of 8, 4, 2, 1 runs, two rounds; four workers.
    harness = Harness(Halving(min_resource=2, max_resource=10, eta=2, rounds=2))
    log: list[list[Decision]] = [harness.take(4)]
    harness.finish(0, {trial: trial / 10 for trial in range(7)})
    log.append(harness.take(3))  # trial 7 is late: the queue is empty, and the next round opens
    harness.finish(0, {8: 0.01, 9: 0.02})  # better than all of round 0, and no part of it
    log.append(harness.take(2))
    harness.finish(0, {7: 0.15})  # the late worker: rung 0 of round 0 is full
    log.append(harness.take(3, at_most=3))
    log.append(harness.take(1))  # the rest of them, before anything of round 1
    harness.finish(0, dict.fromkeys(range(10, 16), 0.5))
    harness.finish(1, {0: 0.4, 1: 0.3, 7: 0.2})
    log.append(harness.take(4))  # round 0 waits for trial 2, round 1 does not
    harness.finish(1, {2: 0.1})
    log.append(harness.take(1))
    assert log == [
        [Start(0, 2)] * 8,
        [Start(1, 2)] * 8,
        [],
        [Promote(0, 1, 4), Promote(1, 1, 4), Promote(7, 1, 4)],
        [Promote(2, 1, 4)],
        [Promote(8, 1, 4), Promote(9, 1, 4), Promote(10, 1, 4), Promote(11, 1, 4)],
        [Promote(2, 2, 8), Promote(7, 2, 8)],
    ]


def test_promotions_of_a_late_rung_go_before_the_rest_of_a_round_that_was_opened_meanwhile() -> None:
    harness = Harness(Halving(min_resource=2, max_resource=10, eta=2, rounds=2))
    harness.take(4)
    harness.finish(0, {trial: trial / 10 for trial in range(7)})
    harness.take(3, at_most=3)  # three trials of round 1 are started, five are in the queue
    harness.finish(0, {7: 0.15})
    promoted = [Promote(trial, 1, 4) for trial in (0, 1, 7, 2)]
    assert harness.take(1) == [*promoted, *[Start(1, 2)] * 5]
