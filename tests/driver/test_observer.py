"""What the driver reads: results once, one poll, and what is left of runs without a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hpcsweep.core.cluster_protocol import Batch, Cluster, Limits, Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import BatchPlanned, BatchSubmitted, Outcome, RunId, SweepStarted, TrialCreated
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import SweepContext
from hpcsweep.driver.observer import Observation, Observer, Sighting
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import Result, write_result
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.store.run_files import MetricsWriter
from tests.doubles import SHAPE, FakeClock
from tests.driver.states import SETTINGS

RUN = RunId(0, 0)
RESULT = Result(0, 0, 0, restart=0, task=0, outcome=Outcome.COMPLETED, value=0.5, step=9, job="4711_0")
RUNNING = {TaskId("b1", 0): TaskState(Phase.RUNNING)}


class Scripted(Cluster):
    """A cluster that says what the test has it say, and can be asked questions only."""

    settle_s = grace_s = 0.0
    poll_s = (1.0, 1.0)

    def __init__(self) -> None:
        self.says: Mapping[TaskId, TaskState] | None = RUNNING
        self.fails: Exception | None = None
        self.knows: str | None = None
        self.polls = 0

    @property
    def poll_error(self) -> str:
        return "slurmctld is down"

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        self.polls += 1
        if self.fails is not None:
            raise self.fails
        return self.says

    def find(self, name: str) -> str | None:
        if self.fails is not None:
            raise self.fails
        return self.knows

    def submit(self, batch: Batch) -> str:
        raise NotImplementedError

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        raise NotImplementedError

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        raise NotImplementedError

    def limits(self) -> Limits:
        raise NotImplementedError


class Sweep:
    """One trial in one batch, which the cluster has accepted."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.files = self.layout.batch("b1")
        self.cluster = Scripted()
        self.skipped = Skipped()
        self.state = SweepState()
        planned = BatchPlanned("b1", 100.0, ((RUN,),), gpus=1, throttle=1)
        for event in (SweepStarted("cafe01", "s", 0.0, {}), TrialCreated(0, {}, 0, 9), planned):
            self.state.apply(event)
        journal = Journal.open(self.layout)
        self.observer = Observer(
            SweepContext(self.state, SETTINGS, self.layout, journal, self.cluster, FakeClock(), self.skipped)
        )

    def observe(self) -> Observation:
        batch = SubmittedBatch("b1", "4711", self.files.root, 1, 1, SHAPE, [0])
        return self.observer.observe([batch])


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_a_result_is_read_once_with_what_the_cluster_shows(sweep: Sweep) -> None:
    write_result(sweep.files, RESULT, n=0)
    now = FakeClock().now
    assert sweep.observe() == Observation(now, {"b1": [RESULT]}, RUNNING, "")
    assert sweep.observe() == Observation(now, {"b1": []}, RUNNING, "")


def test_without_a_batch_the_cluster_is_not_asked(sweep: Sweep) -> None:
    assert sweep.observer.observe([]) == Observation(FakeClock().now, {}, {}, None)
    assert sweep.cluster.polls == 0


def test_a_failed_poll_gives_no_information_but_the_results_and_the_cluster_s_message(sweep: Sweep) -> None:
    write_result(sweep.files, RESULT, n=0)
    sweep.cluster.fails = ClusterUnavailable("no answer")
    now = FakeClock().now
    assert sweep.observe() == Observation(now, {"b1": [RESULT]}, None, "no answer")
    sweep.cluster.fails, sweep.cluster.says = None, None
    assert sweep.observe() == Observation(now, {"b1": []}, None, "slurmctld is down")


def test_a_result_of_another_batch_is_skipped_with_a_message(sweep: Sweep) -> None:
    write_result(sweep.files, Result(7, 0, 0, restart=0, task=0, outcome=Outcome.COMPLETED), n=0)
    assert sweep.observe().results == {"b1": []}
    (line,) = sweep.skipped.lines(sweep.layout.root)
    assert line.endswith("batches/b1/results/0.0.0.json: is the result of a run of another batch")


def test_results_that_came_after_the_last_tick_are_unread(sweep: Sweep) -> None:
    sweep.state.apply(BatchSubmitted("b1", "4711", 100.0))
    sweep.observe()
    assert not sweep.observer.has_unread
    write_result(sweep.files, RESULT, n=0)
    assert sweep.observer.has_unread
    sweep.observe()
    assert not sweep.observer.has_unread


def test_a_batch_without_an_answer_is_found_by_name_by_results_or_by_its_files(sweep: Sweep) -> None:
    batch = sweep.state.live["b1"]
    assert sweep.observer.sighting(batch) == Sighting()
    sweep.files.root.mkdir(parents=True)
    sweep.files.script.write_text("#!/bin/sh\n")
    assert sweep.observer.sighting(batch) == Sighting(has_script=True)
    write_result(sweep.files, RESULT, n=0)
    assert sweep.observer.sighting(batch) == Sighting(job="4711", has_script=True)
    sweep.cluster.knows = "4712"
    assert sweep.observer.sighting(batch) == Sighting(job="4712", has_script=True)
    sweep.files.abandoned_marker.write_text("refused")
    sweep.cluster.fails = ClusterUnavailable("no answer")
    assert sweep.observer.sighting(batch) == Sighting(abandoned=True), "nobody need be asked"


def test_checkpoints_metrics_and_logs_are_evidence_of_a_run_without_a_result(sweep: Sweep) -> None:
    run = sweep.state.run(RUN)
    assert sweep.observer.newest_step(run) == 0
    assert sweep.observer.reported(RUN, attempt=0, restart=0) is None
    assert sweep.observer.last_lines("b1", 0) == ""
    for step in (3, 5, 12):  # the last is beyond its resource
        with checkpoints.new_checkpoint(sweep.layout.trial(0), step, owner=f"{step}"):
            pass
    assert sweep.observer.newest_step(run) == 5
    writer = MetricsWriter(sweep.layout.trial(0).metrics(0, 0, 0))
    for step in (3, 4):
        writer.write(step, {"loss": 0.5})
    writer.close()
    assert sweep.observer.reported(RUN, attempt=0, restart=0) == (3, 4)
    assert sweep.observer.reported(RUN, attempt=0, restart=1) is None
    sweep.files.logs.mkdir(parents=True)
    sweep.files.log(0).write_text("module load cuda\nNo module named hpcsweep\n[hpcsweep] ours\n\n")
    assert sweep.observer.last_lines("b1", 0) == "module load cuda | No module named hpcsweep"
