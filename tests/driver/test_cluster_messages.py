"""What the cluster said last where it does not do what is asked: kept, shown, and bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hpcsweep.core.cluster_protocol import Batch, Limits, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import BatchAbandoned, BatchSubmitted, ClusterMessage, SweepOutcome
from hpcsweep.driver import Driver
from hpcsweep.driver.failures import REFUSALS, REFUSALS_IN_ALL
from hpcsweep.errors import ClusterUnavailable, SubmitRefused, SubmitUncertain
from hpcsweep.store.layout import BatchLayout
from hpcsweep.views.format import warning_lines
from tests.doubles import FakeClock, FolderCluster
from tests.driver.sweeps import drive, end_of, make_driver, of_kind


class Moody(FolderCluster):
    """Fails as it is told to, each kind of call on its own."""

    settle_s = 150.0
    poll_s = (5.0, 5.0)

    def __init__(self, controller: Path) -> None:
        super().__init__(controller)
        self.words_of: dict[str, str] = {}
        self.refusals: list[Exception] = []
        self.asked = 0

    def _fail(self, asked: str) -> None:
        if asked in self.words_of:
            raise ClusterUnavailable(self.words_of[asked])

    @property
    def slots(self) -> int | None:
        return None

    @property
    def poll_error(self) -> str:
        return self.words_of.get("poll", "")

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        return None if "poll" in self.words_of else super().poll(live)

    def find(self, name: str) -> str | None:
        self._fail("find")
        return super().find(name)

    def limits(self) -> Limits:
        self._fail("limits")
        return super().limits()

    def submit(self, batch: Batch) -> str:
        self.asked += 1
        BatchLayout(batch.folder).script.write_text("#!/bin/sh\n")
        if self.refusals:
            raise self.refusals.pop(0)
        return super().submit(batch)


@pytest.fixture
def cluster(tmp_path: Path) -> Moody:
    return Moody(tmp_path / "controller")


def recorded_messages(driver: Driver, clock: FakeClock) -> list[str]:
    """What launch and status show, without the times."""
    return [
        line.partition(" (since ")[0] + ":" + line.partition("):")[2]
        for line in warning_lines(driver.state, now=clock.now)
    ]


def test_a_message_is_shown_while_it_holds_and_recorded_once(tmp_path: Path, cluster: Moody) -> None:
    clock = FakeClock()
    cluster.words_of = {"limits": "scontrol: Unable to contact slurm controller"}
    driver, journal = make_driver(tmp_path / "s", cluster, clock=clock)
    for _ in range(5):
        driver.tick()
        clock.sleep(100.0)
    words = "scontrol: Unable to contact slurm controller"
    assert recorded_messages(driver, clock) == [
        f"nothing is submitted before the cluster's limits are known: {words}"
    ]
    cluster.words_of = {"poll": "squeue: error 17 of job 4711"}
    driver.tick()
    driver.tick()
    assert recorded_messages(driver, clock) == ["nothing is known of its jobs: squeue: error 17 of job 4711"]
    clock.sleep(100.0)
    cluster.words_of = {"poll": "squeue: error 18 of job 4712"}
    driver.tick()
    cluster.words_of = {}
    driver.run()
    journal.release()
    assert recorded_messages(driver, clock) == []
    assert [(said.operation, said.message) for said in of_kind(tmp_path / "s", ClusterMessage)] == [
        ("limits", words),
        ("limits", ""),
        ("poll", "squeue: error 17 of job 4711"),
        ("poll", ""),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_refusals_with_the_same_unknown_message_pause_the_sweep(
    tmp_path: Path, cluster: Moody, number: int
) -> None:
    """The same words but for a number, a request's id or the like, are the same words."""
    root, clock = tmp_path / "s", FakeClock()
    refusals = [f"sbatch: policy: no jobs tonight (request {n * number})" for n in range(9)]
    cluster.refusals = [SubmitUncertain(words, refused=True) for words in refusals]
    began = clock.now
    driver = drive(root, cluster, clock=clock)
    assert cluster.asked == REFUSALS
    ending, reason = end_of(root)
    assert ending is SweepOutcome.PAUSED
    assert reason == f"3 submissions in a row were refused: {refusals[2]}"
    assert of_kind(root, BatchSubmitted) == []
    assert [event.reason for event in of_kind(root, BatchAbandoned)] == [
        f"it never reached the cluster; the answer was: {words}" for words in refusals[:3]
    ]
    assert clock.now - began >= REFUSALS * cluster.settle_s, "each may still turn up for a while"
    cluster.refusals = []
    driver = drive(root, cluster, clock=clock)
    assert driver.state.best is not None
    assert len(cluster.trained()) == len(set(cluster.trained()))


def test_a_few_refusals_that_differ_or_are_none_do_not_pause_it(tmp_path: Path, cluster: Moody) -> None:
    cluster.refusals = [
        *(SubmitUncertain("sbatch: Unable to contact slurm controller") for _ in range(5)),
        *(SubmitUncertain(f"sbatch: {kind}", refused=True) for kind in ("a", "b", "a", "b", "b")),
    ]
    driver = drive(tmp_path / "s", cluster)
    assert driver.state.ended is not None
    assert driver.state.ended.outcome is SweepOutcome.FINISHED
    assert cluster.asked > 10


def test_refusals_with_any_messages_pause_the_sweep_in_the_end(tmp_path: Path, cluster: Moody) -> None:
    root = tmp_path / "s"
    cluster.refusals = [SubmitUncertain(f"sbatch: no, said {name}", refused=True) for name in "abcdefghi"]
    drive(root, cluster)
    assert end_of(root) == (
        SweepOutcome.PAUSED,
        "6 submissions in a row were refused; the last: sbatch: no, said f",
    )
    assert cluster.asked == REFUSALS_IN_ALL
    cluster.refusals = []
    assert drive(root, cluster).state.best is not None


def test_known_refusals_are_counted_over_several_drivers(tmp_path: Path, cluster: Moody) -> None:
    root = tmp_path / "s"
    cluster.refusals = [SubmitRefused("sbatch: error: Access denied") for _ in range(9)]
    for _ in range(REFUSALS):
        with pytest.raises(SubmitRefused):
            drive(root, cluster)
    assert end_of(root) == (
        SweepOutcome.PAUSED,
        "3 submissions in a row were refused: sbatch: error: Access denied",
    )
    assert cluster.asked == REFUSALS


def test_the_launch_after_a_pause_by_refusals_submits_again(tmp_path: Path, cluster: Moody) -> None:
    root = tmp_path / "s"
    cluster.refusals = [SubmitRefused("sbatch: error: Access denied") for _ in range(REFUSALS)]
    for _ in range(REFUSALS):
        with pytest.raises(SubmitRefused):
            drive(root, cluster)
    assert drive(root, cluster).state.best is not None
