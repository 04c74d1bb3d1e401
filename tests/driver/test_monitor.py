"""Observations become events: what an ending means is decided in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import BlockKind, Phase, SubmittedBatch, TaskId, TaskResources, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchBlocked,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    FailureKind,
    Interruption,
    Outcome,
    PoolSkipped,
    RunFinished,
    RunId,
    RunInterrupted,
    StopRequested,
    SweepStarted,
    TasksAllocated,
    TrialCreated,
    TrialStopped,
)
from hpcsweep.core.models import Run, RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.driver import DriverConfig
from hpcsweep.driver.effects import Cancel
from hpcsweep.driver.job_control import Cancellations
from hpcsweep.driver.lifecycle import GpuBudget
from hpcsweep.driver.live_batches import IMPOSSIBLE_AFTER_S, RECORDED_AFTER_S
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observation
from hpcsweep.store.batch import Result
from hpcsweep.store.excerpts import SEPARATOR
from hpcsweep.store.layout import Layout
from tests.doubles import PROGRAM, SHAPE

GRACE_S = 60.0
MAX_IDLE_FAULTS = 2
SETTINGS = DriverConfig("s", "fake", PROGRAM, SHAPE, seed=0, max_idle_faults=MAX_IDLE_FAULTS)


class Traces:
    """Evidence of runs without a result, as values."""

    def __init__(self) -> None:
        self.steps: dict[int, int] = {}
        self.reports: dict[RunId, tuple[int, int]] = {}
        self.logs: dict[tuple[str, int], str] = {}
        self.failed_nodes: set[str] = set()

    def newest_step(self, run: Run) -> int:
        return self.steps.get(run.trial, 0)

    def reported(self, run: RunId, *, attempt: int, restart: int) -> tuple[int, int] | None:
        return self.reports.get(run) if (attempt, restart) == (0, 0) else None

    def last_lines(self, batch: str, task: int) -> str:
        return self.logs.get((batch, task), "")

    def node_failed(self, node: str) -> bool:
        return node in self.failed_nodes


class Watched:
    """A sweep of a few trials in one batch, and what is observed of it.

    Args:
        tasks: Runs of each task.

    Attributes:
        says: What the cluster shows of each task; None: no information.
    """

    def __init__(self, tasks: Sequence[Sequence[int]] = ((0,),)) -> None:
        self.says: dict[int, TaskState] | None = {}
        self.evidence = Traces()
        self.settings = SETTINGS
        self.grace_s = GRACE_S
        self.state = SweepState()
        self.now = 100.0
        self.batches = 0
        self.pool = ""
        #: Results by batch, each with its place in its task; and those that this session has read.
        self._results: dict[str, list[tuple[int, Result]]] = {}
        self._read: list[Result] = []
        self.state.apply(SweepStarted("cafe01", "s", 0.0, {}))
        for task in tasks:
            for trial in task:
                self.state.apply(TrialCreated(trial, {}, 0, 9))
        self.batch(*tasks)
        self.restart()

    def restart(self) -> None:
        """Another driver goes on with the same journal."""
        self._read = []
        self.monitor = JobMonitor(
            self.state,
            layout=Layout(Path("/s")),
            settings=self.settings,
            grace_s=self.grace_s,
            evidence=self.evidence,
            capped=GpuBudget(self.settings, default_time_s=3600).caps,
        )

    def batch(self, *tasks: Sequence[int]) -> None:
        self.batches += 1
        runs = tuple(tuple(RunId(trial, 0) for trial in task) for task in tasks)
        self.state.apply(
            BatchPlanned(self.name, self.now, runs, gpus=1, throttle=4, time_s=60, pool=self.pool)
        )
        self.state.apply(BatchSubmitted(self.name, "4711", self.now))

    @property
    def name(self) -> str:
        return f"b{self.batches}"

    def shows(self, *phases: Phase | None, reason: str = "", node: str = "") -> None:
        """Let the cluster show task i in the i-th phase; None: not at all."""
        self.says = {
            task: TaskState(phase, reason, node) for task, phase in enumerate(phases) if phase is not None
        }

    def writes(self, trial: int = 0, *, task: int = 0, restart: int = 0, n: int = 0, **fields: Any) -> None:
        """A worker leaves a result."""
        fields = {"started": 7.0, **fields}
        result = Result(trial, 0, self.batches - 1, restart=restart, task=task, **fields)
        self._results.setdefault(self.name, []).append((n, result))

    def observe(self, seconds: float = 1.0) -> list[AnyEvent]:
        self.now += seconds
        new: dict[str, list[Result]] = {}
        for batch, results in self._results.items():
            ordered = sorted(results, key=lambda each: (each[1].task, each[1].restart, each[0]))
            new[batch] = [result for _, result in ordered if not any(result is old for old in self._read)]
            self._read += new[batch]
        tasks = None
        if self.says is not None:
            live = [batch for batch in self.state.live if self.state.live[batch].job]
            tasks = {TaskId(batch, task): state for batch in live for task, state in self.says.items()}
        events = self.monitor.observe(Observation(self.now, new, tasks))
        for event in events:
            self.state.apply(event)
        return events

    @property
    def status(self) -> RunStatus:
        return self.state.run(RunId(0, 0)).status


@pytest.fixture
def watched() -> Watched:
    return Watched()


COMPLETED: dict[str, Any] = {"outcome": Outcome.COMPLETED, "value": 0.5, "step": 9}
FINISHED = RunFinished(0, 0, Outcome.COMPLETED, value=0.5, step=9, started=7.0, batch="b1")


def interrupted(why: Interruption, message: str, **fields: Any) -> RunInterrupted:
    return RunInterrupted(0, 0, why, batch="b1", message=message, **fields)


def interruption_event(why: Interruption, message: str, **fields: Any) -> RunInterrupted:
    """An interruption of which a result tells."""
    return interrupted(why, message, start=0, started=7.0, **fields)


def test_a_result_finishes_its_run_and_the_batch_closes_when_its_task_is_gone(watched: Watched) -> None:
    watched.shows(Phase.RUNNING)
    assert watched.observe() == []
    watched.writes(**COMPLETED)
    assert watched.observe() == [FINISHED]
    assert watched.observe() == []
    watched.shows(None)
    assert watched.observe() == [BatchClosed("b1")]
    assert watched.observe() == []


def test_every_field_of_a_result_is_in_the_event(watched: Watched) -> None:
    watched.shows(Phase.RUNNING)
    watched.writes(
        restart=1,
        outcome=Outcome.FAILED,
        step=3,
        start=1,
        seconds=5.0,
        gpu_seconds=10.0,
        started=8.0,
        node="n1",
        job="4711_0",
        message="ValueError: no",
    )
    assert watched.observe() == [
        RunFinished(
            0,
            0,
            Outcome.FAILED,
            step=3,
            start=1,
            restart=1,
            batch="b1",
            seconds=5.0,
            gpu_seconds=10.0,
            started=8.0,
            node="n1",
            job="4711_0",
            message="ValueError: no",
        )
    ]


def test_an_ended_task_with_its_result_closes_the_batch_in_one_go(watched: Watched) -> None:
    watched.writes(**COMPLETED)
    assert watched.observe() == [FINISHED, BatchClosed("b1")]
    assert watched.state.live == {}


def test_the_cluster_is_asked_for_the_tasks_not_yet_seen_gone() -> None:
    watched = Watched([[0], [1], [2]])
    folder = Path("/s/batches/b1")
    assert watched.monitor.submitted("b1") == SubmittedBatch(
        "b1", "4711", folder, 3, 4, SHAPE, [0, 1, 2], 100.0
    )
    watched.shows(Phase.RUNNING, None, Phase.PENDING)
    watched.writes(1, task=1, **COMPLETED)
    watched.observe()
    assert watched.monitor.submitted("b1") == SubmittedBatch("b1", "4711", folder, 3, 4, SHAPE, [0, 2], 100.0)


# --------------------------------------------------------------------------- tasks that vanish


def test_a_failed_poll_says_nothing_however_long_it_fails(watched: Watched) -> None:
    watched.shows(Phase.RUNNING)
    watched.observe()
    watched.says = None
    for _ in range(5):
        assert watched.observe(10 * GRACE_S) == []
    assert watched.status is RunStatus.SUBMITTED
    watched.shows(None)
    assert watched.observe() == []  # only now the grace begins
    assert watched.observe(GRACE_S - 1) == []


def test_results_count_while_the_poll_fails(watched: Watched) -> None:
    watched.says = None
    watched.writes(**COMPLETED)
    assert watched.observe() == [FINISHED]


def test_a_vanished_task_is_kept_within_the_grace_and_lost_after_it(watched: Watched) -> None:
    watched.shows(None)
    assert watched.observe() == []
    assert watched.observe(GRACE_S - 1) == []
    assert watched.status is RunStatus.SUBMITTED
    assert watched.observe() == [
        interrupted(Interruption.LOST, "the job disappeared from the queue without a result"),
        BatchClosed("b1"),
    ]
    assert (watched.status, list(watched.state.waiting)) == (RunStatus.WAITING, [RunId(0, 0)])


def test_a_late_result_within_the_grace_counts(watched: Watched) -> None:
    watched.shows(None)
    watched.observe()
    watched.observe(GRACE_S - 1)
    watched.writes(**COMPLETED)
    assert watched.observe(GRACE_S) == [FINISHED, BatchClosed("b1")]


def test_a_task_that_shows_again_within_the_grace_has_its_full_grace_later(watched: Watched) -> None:
    watched.shows(None)
    watched.observe()
    watched.shows(Phase.RUNNING)
    assert watched.observe(GRACE_S) == []
    watched.shows(None)
    assert watched.observe() == []
    assert watched.observe(GRACE_S - 1) == []
    assert len(watched.observe()) == 2


def test_a_new_session_gives_a_vanished_task_its_grace_again(watched: Watched) -> None:
    watched.shows(None)
    watched.observe()
    watched.observe(GRACE_S - 1)
    watched.restart()
    assert watched.observe() == []
    assert watched.observe(GRACE_S - 1) == []
    assert len(watched.observe()) == 2


def test_run_is_never_lost_after_one_poll_even_without_a_grace(watched: Watched) -> None:
    watched.grace_s = 0.0
    watched.restart()
    watched.shows(None)
    assert watched.observe() == []  # its result may have come after the folder was listed
    assert [type(event) for event in watched.observe()] == [RunInterrupted, BatchClosed]


@pytest.mark.parametrize(
    ("phase", "why", "message"),
    [
        (Phase.TIMEOUT, Interruption.TIMEOUT, "reached its time limit (n1)"),
        (Phase.PREEMPTED, Interruption.PREEMPTED, "preempted (n1)"),
        (Phase.NODE_FAIL, Interruption.NODE_FAIL, "its node failed (n1)"),
        (Phase.CANCELLED, Interruption.CANCELLED, "cancelled on the cluster (n1)"),
        (Phase.FAILED, Interruption.WORKER_DIED, "its task ended without a result (n1)"),
        (Phase.COMPLETED, Interruption.WORKER_DIED, "its task ended without a result (n1)"),
    ],
)
def test_the_cluster_s_state_explains_the_end_of_a_task_without_a_result(
    watched: Watched, phase: Phase, why: Interruption, message: str
) -> None:
    watched.shows(phase, node="n1")
    assert watched.observe() == []
    assert watched.observe(GRACE_S) == [interrupted(why, message, node="n1"), BatchClosed("b1")]


def test_a_run_that_its_user_cancels_again_after_it_was_resubmitted_stays_cancelled(watched: Watched) -> None:
    watched.shows(Phase.CANCELLED, node="n1")
    watched.observe()
    assert watched.observe(GRACE_S)[0] == interrupted(
        Interruption.CANCELLED, "cancelled on the cluster (n1)", node="n1"
    )
    assert watched.status.value == "waiting"
    watched.batch((0,))
    watched.shows(Phase.CANCELLED, node="n1")
    watched.observe()
    (ended, _) = watched.observe(GRACE_S)
    assert isinstance(ended, RunFinished)
    assert (ended.outcome, ended.value) == (Outcome.CANCELLED, None)
    assert ended.message == (
        "stays cancelled: its user cancelled it on the cluster again after it had been resubmitted; "
        "the last: cancelled on the cluster (n1)"
    )
    assert watched.status.value == "failed"


def test_cancelling_by_others_is_no_fault_of_the_run(watched: Watched) -> None:
    for _ in range(2):
        watched.says = {0: TaskState(Phase.CANCELLED, foreign=True)}
        watched.observe()
        (event, _) = watched.observe(GRACE_S)
        assert isinstance(event, RunInterrupted)
        assert event.interruption is Interruption.CANCELLED_BY_ADMIN
        watched.batch((0,))
    assert watched.status is RunStatus.SUBMITTED


def test_out_of_memory_without_a_result_is_the_configuration_s_own(watched: Watched) -> None:
    watched.shows(Phase.OUT_OF_MEMORY)
    watched.observe()
    assert watched.observe(GRACE_S) == [
        RunFinished(0, 0, Outcome.OUT_OF_MEMORY, start=None, batch="b1", message="killed: out of memory"),
        BatchClosed("b1"),
    ]


def test_an_unknown_state_concludes_nothing(watched: Watched) -> None:
    watched.shows(Phase.UNKNOWN, reason="HIBERNATING")
    told = [event for _ in range(5) for event in watched.observe(10 * GRACE_S)]
    assert [type(event) for event in told] == [BatchBlocked]
    watched.shows(Phase.COMPLETED)
    watched.writes(**COMPLETED)
    assert watched.observe() == [FINISHED, BatchClosed("b1")]


def test_of_a_packed_task_only_the_runs_without_a_result_are_lost() -> None:
    watched = Watched([[0, 1], [2]])
    watched.shows(None, Phase.RUNNING)
    watched.writes(0, n=0, **COMPLETED)
    assert watched.observe() == [FINISHED]
    assert watched.observe(GRACE_S) == [
        RunInterrupted(
            1,
            0,
            Interruption.LOST,
            batch="b1",
            message="the job disappeared from the queue without a result",
        )
    ]


# --------------------------------------------------------------------------- interruptions


def test_an_interrupted_result_of_a_task_that_pends_again_is_a_requeue(watched: Watched) -> None:
    watched.shows(Phase.RUNNING)
    watched.writes(interrupted=Interruption.PREEMPTED, step=3, progressed=True, seconds=2.0, gpu_seconds=2.0)
    assert watched.observe() == []  # not known yet whether it runs again by itself
    watched.shows(Phase.PENDING)
    event = interruption_event(
        Interruption.PREEMPTED,
        "preempted",
        requeued=True,
        progressed=True,
        step=3,
        seconds=2.0,
        gpu_seconds=2.0,
    )
    assert watched.observe() == [event]
    assert watched.observe() == []
    assert (watched.status, watched.state.spent_gpu_s) == (RunStatus.SUBMITTED, 2.0)
    watched.shows(Phase.RUNNING)
    watched.writes(restart=1, **COMPLETED)
    assert watched.observe() == [
        RunFinished(0, 0, Outcome.COMPLETED, value=0.5, step=9, restart=1, started=7.0, batch="b1")
    ]


def test_an_interrupted_result_of_a_task_that_is_gone_waits_again_at_once(watched: Watched) -> None:
    watched.shows(None)
    watched.writes(interrupted=Interruption.PREEMPTED, progressed=True, node="n1")
    assert watched.observe() == [
        interruption_event(Interruption.PREEMPTED, "preempted (n1)", progressed=True, node="n1"),
        BatchClosed("b1"),
    ]
    assert watched.status is RunStatus.WAITING


def test_the_cluster_s_reason_overrides_the_worker_s(watched: Watched) -> None:
    watched.shows(Phase.TIMEOUT)
    watched.writes(interrupted=Interruption.PREEMPTED)
    assert watched.observe() == [
        interruption_event(Interruption.TIMEOUT, "reached its time limit"),
        BatchClosed("b1"),
    ]


_ENDED = (
    "its ranks ended, and none failed by itself: slurmstepd-n1: error: *** JOB 311 ON n1 CANCELLED AT "
    "2026-11-30T11:08:03 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***"
)
_LOST = "its ranks ended, and none failed by itself: srun: error: Node failure on n2"


@pytest.mark.parametrize(
    ("why", "message", "is_down"),
    [
        (Interruption.PREEMPTED, "told to stop by SIGTERM", True),
        (Interruption.WORKER_DIED, "its ranks ended, and none failed by itself", True),
        (Interruption.WORKER_DIED, _ENDED, False),  # it is up again, or the cluster does not answer
        (Interruption.WORKER_DIED, _LOST, False),
    ],
)
def test_a_task_of_which_another_node_failed_is_called_so(
    watched: Watched, why: Interruption, message: str, is_down: bool
) -> None:
    told: dict[str, Any] = {"interrupted": why, "step": 3, "progressed": True}
    watched.writes(**told, node="n1", nodes="n[1-2]", message=message)
    if is_down:
        watched.evidence.failed_nodes.add("n[1-2]")
    watched.shows(Phase.PENDING)
    (event,) = watched.observe()
    assert isinstance(event, RunInterrupted)
    assert (event.interruption, event.node) == (Interruption.NODE_FAIL, "n[1-2]")
    assert event.message == f"a node of n[1-2] failed: {message}"
    assert event.requeued


@pytest.mark.parametrize("is_down", [True, False])
def test_training_that_fails_with_a_node_of_its_task_costs_the_configuration_nothing(
    watched: Watched, is_down: bool
) -> None:
    failed: dict[str, Any] = {"outcome": Outcome.FAILED, "failure": FailureKind.CRASHED}
    watched.writes(**failed, node="n1", nodes="n[1-2]", message="RuntimeError: NCCL error")
    if is_down:
        watched.evidence.failed_nodes.add("n[1-2]")
    watched.shows(Phase.NODE_FAIL)
    event = watched.observe()[0]
    assert isinstance(event, RunInterrupted if is_down else RunFinished)
    if isinstance(event, RunInterrupted):
        assert event.interruption is Interruption.NODE_FAIL
        assert "RuntimeError: NCCL error" in event.message


def test_ranks_that_end_while_all_nodes_are_well_are_called_so(watched: Watched) -> None:
    watched.writes(interrupted=Interruption.WORKER_DIED, step=3, progressed=True, node="n1", nodes="n[1-2]")
    watched.shows(Phase.PENDING)
    (event,) = watched.observe()
    assert isinstance(event, RunInterrupted)
    assert (event.interruption, event.node) == (Interruption.WORKER_DIED, "n1")


def test_a_requeue_that_no_poll_saw_is_inferred_from_the_next_start_s_result(watched: Watched) -> None:
    watched.shows(Phase.RUNNING)
    watched.writes(interrupted=Interruption.PREEMPTED, progressed=True)
    watched.observe()
    watched.writes(restart=1, **COMPLETED)
    assert watched.observe() == [
        interruption_event(Interruption.PREEMPTED, "preempted", requeued=True, progressed=True),
        RunFinished(0, 0, Outcome.COMPLETED, value=0.5, step=9, restart=1, started=7.0, batch="b1"),
    ]


def test_of_two_interrupted_starts_the_first_was_a_requeue_and_both_cost(watched: Watched) -> None:
    watched.shows(None)
    watched.writes(interrupted=Interruption.PREEMPTED, gpu_seconds=2.0)
    watched.writes(restart=1, interrupted=Interruption.PREEMPTED, gpu_seconds=3.0)
    assert watched.observe() == [
        interruption_event(Interruption.PREEMPTED, "preempted", requeued=True, gpu_seconds=2.0),
        interruption_event(Interruption.PREEMPTED, "preempted", restart=1, gpu_seconds=3.0),
        BatchClosed("b1"),
    ]
    assert (watched.status, watched.state.spent_gpu_s) == (RunStatus.WAITING, 5.0)


def test_a_result_that_was_counted_is_not_counted_by_the_next_session(watched: Watched) -> None:
    watched.writes(interrupted=Interruption.PREEMPTED)
    watched.shows(Phase.PENDING)
    assert len(watched.observe()) == 1
    watched.restart()
    assert watched.observe() == []
    watched.shows(Phase.RUNNING)
    watched.writes(restart=1, **COMPLETED)
    assert len(watched.observe()) == 1
    watched.restart()
    assert watched.observe() == []


@pytest.mark.parametrize("together", [True, False])
def test_results_of_two_starts_of_one_run_count_once(watched: Watched, together: bool) -> None:
    watched.shows(Phase.RUNNING)
    watched.writes(**COMPLETED)
    first = [] if together else watched.observe()
    watched.writes(restart=1, outcome=Outcome.COMPLETED, value=0.75, step=9)
    assert [*first, *watched.observe()] == [FINISHED]
    assert watched.state.counts[RunStatus.COMPLETED] == 1
    best = watched.state.best
    assert best is not None
    assert best.value == 0.5


def test_a_result_that_comes_after_its_run_was_given_up_does_not_count(watched: Watched) -> None:
    watched.shows(Phase.RUNNING)
    watched.observe()
    watched.shows(None)
    watched.observe()
    watched.observe(GRACE_S)
    assert watched.status is RunStatus.WAITING
    watched.writes(**COMPLETED)
    assert watched.observe() == []


# --------------------------------------------------------------------------- bounds


def endure(watched: Watched, *, progressed: bool) -> list[AnyEvent]:
    """One more interruption in a batch of its own."""
    watched.shows(None)
    watched.writes(interrupted=Interruption.NODE_FAIL, progressed=progressed)
    events = watched.observe()
    if watched.status is RunStatus.WAITING:
        watched.batch([0])
    return [event for event in events if not isinstance(event, BatchClosed)]


def test_a_run_that_makes_no_progress_is_given_up_after_the_bound(watched: Watched) -> None:
    for _ in range(MAX_IDLE_FAULTS):
        assert [type(event) for event in endure(watched, progressed=False)] == [RunInterrupted]
    assert endure(watched, progressed=False) == [
        RunFinished(
            0,
            0,
            Outcome.LOST,
            attempt=2,
            batch="b3",
            started=7.0,
            message="given up after 3 interruptions without progress; the last: its node failed",
        )
    ]
    assert watched.status is RunStatus.FAILED


def test_a_task_that_the_cluster_requeues_without_progress_is_given_up_and_to_be_cancelled(
    watched: Watched,
) -> None:
    watched.shows(Phase.PENDING)
    for restart in range(MAX_IDLE_FAULTS):
        watched.writes(restart=restart, interrupted=Interruption.PREEMPTED)
        assert [type(event) for event in watched.observe()] == [RunInterrupted]
        assert Cancellations(watched.state, watched.monitor).tasks_to_cancel() == []
    watched.writes(restart=MAX_IDLE_FAULTS, interrupted=Interruption.PREEMPTED)
    assert watched.observe() == [
        RunFinished(
            0,
            0,
            Outcome.LOST,
            restart=2,
            batch="b1",
            started=7.0,
            message="given up after 3 interruptions without progress; the last: preempted",
        )
    ]
    assert Cancellations(watched.state, watched.monitor).tasks_to_cancel() == [Cancel("b1", (0,))]


def test_progress_resets_the_count_of_interruptions(watched: Watched) -> None:
    for progressed in [False, False, True, False, False]:
        assert [type(event) for event in endure(watched, progressed=progressed)] == [RunInterrupted]
    assert [type(event) for event in endure(watched, progressed=False)] == [RunFinished]


def test_vanishing_again_and_again_is_bounded_too(watched: Watched) -> None:
    outcomes = []
    for _ in range(MAX_IDLE_FAULTS + 1):
        watched.shows(None)
        watched.observe()
        outcomes += [type(event) for event in watched.observe(GRACE_S)]
        if watched.status is RunStatus.WAITING:
            watched.batch([0])
    assert outcomes == [RunInterrupted, BatchClosed] * MAX_IDLE_FAULTS + [RunFinished, BatchClosed]


def requeue(watched: Watched, *, after_s: float) -> None:
    """The task runs on n1 for so long; then the cluster takes it back, and no worker tells of it."""
    watched.says = {0: TaskState(Phase.RUNNING, node="n1", seconds=after_s)}
    assert watched.observe() == []
    watched.says = {0: TaskState(Phase.PENDING, reason="BeginTime")}
    assert watched.observe() == []


def test_a_requeued_start_that_had_reported_counts_as_begun(watched: Watched) -> None:
    watched.evidence.reports[RunId(0, 0)] = 1, 1
    requeue(watched, after_s=5.0)
    event = interrupted(Interruption.PREEMPTED, "preempted (n1)", node="n1", requeued=True, step=1)
    assert watched.observe(GRACE_S) == [event]


@pytest.mark.parametrize(
    ("failed", "after_s", "why", "message"),
    [
        (True, 5.0, Interruption.NODE_FAIL, "its node failed (n1)"),
        (False, 500.0, Interruption.PREEMPTED, "preempted (n1)"),
        (False, 5.0, Interruption.NOT_STARTED, "its task ended before this run started (n1)"),
    ],
)
def test_a_requeued_start_without_a_result_is_recorded_after_the_grace(
    watched: Watched, failed: bool, after_s: float, why: Interruption, message: str
) -> None:
    if failed:
        watched.evidence.failed_nodes.add("n1")
    requeue(watched, after_s=after_s)
    assert watched.observe(GRACE_S / 2) == []
    event = interrupted(why, message, node="n1", requeued=True)
    assert watched.observe(GRACE_S) == [event]
    assert watched.observe(GRACE_S) == []
    watched.writes(restart=1, **COMPLETED)
    assert watched.observe() == [msgspec.structs.replace(FINISHED, restart=1)]


def test_a_requeued_start_is_recorded_before_the_result_of_the_next(watched: Watched) -> None:
    watched.evidence.failed_nodes.add("n1")
    requeue(watched, after_s=5.0)
    watched.writes(restart=1, **COMPLETED)
    event = interrupted(Interruption.NODE_FAIL, "its node failed (n1)", node="n1", requeued=True)
    assert watched.observe() == [event, msgspec.structs.replace(FINISHED, restart=1)]


def test_the_late_result_of_a_requeued_start_is_recorded_once(watched: Watched) -> None:
    requeue(watched, after_s=5.0)
    watched.writes(interrupted=Interruption.PREEMPTED, message="told to stop")
    assert watched.observe() == [interruption_event(Interruption.PREEMPTED, "told to stop", requeued=True)]
    assert watched.observe(GRACE_S) == []


def test_a_late_completion_on_a_lost_node_counts(watched: Watched) -> None:
    watched.evidence.failed_nodes.add("n1")
    requeue(watched, after_s=5.0)
    (event,) = watched.observe(GRACE_S)
    assert isinstance(event, RunInterrupted)
    watched.writes(restart=0, **COMPLETED)
    assert watched.observe() == [FINISHED]


def test_checkpoints_show_whether_an_attempt_without_a_result_made_progress(watched: Watched) -> None:
    def dies() -> RunInterrupted:
        watched.shows(Phase.TIMEOUT)
        watched.observe()
        event = watched.observe(GRACE_S)[0]
        assert isinstance(event, RunInterrupted)
        watched.batch([0])
        return event

    watched.evidence.steps[0] = 3
    first, second = dies(), dies()
    watched.evidence.steps[0] = 5
    third = dies()
    assert [(event.progressed, event.step) for event in (first, second, third)] == [
        (True, 3),
        (False, 3),
        (True, 5),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd: error: Exceeded job memory limit",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch. Some of your processes may",
        "slurmstepd: error: Detected 2 oom-kill event(s) in step 7.batch cgroup. Some of your processes",
    ],
)
def test_a_task_that_the_site_killed_for_memory_has_failed_whatever_its_state(
    watched: Watched, line: str
) -> None:
    watched.evidence.logs["b1", 0] = f"epoch 1{SEPARATOR}{line}"
    watched.shows(Phase.FAILED, node="n1")
    watched.observe()
    assert watched.observe(GRACE_S) == [
        RunFinished(0, 0, Outcome.OUT_OF_MEMORY, start=None, batch="b1", node="n1", message=line),
        BatchClosed("b1"),
    ]


def test_a_run_that_never_began_waits_again_without_fault(watched: Watched) -> None:
    for _ in range(2 * MAX_IDLE_FAULTS):
        watched.shows(Phase.TIMEOUT)
        watched.writes(interrupted=Interruption.TIMEOUT, started=None)
        assert watched.observe() == [
            RunInterrupted(
                0,
                0,
                Interruption.NOT_STARTED,
                attempt=watched.batches - 1,
                batch=watched.name,
                message="its task ended before this run started",
            ),
            BatchClosed(watched.name),
        ]
        watched.batch([0])
    assert watched.state.run(RunId(0, 0)).faults_without_progress == 0


@pytest.mark.parametrize("shown", [Phase.CANCELLED, None])
def test_a_task_cancelled_in_a_pool_that_is_passed_over_waits_again_whoever_sees_its_end(
    shown: Phase | None,
) -> None:
    watched = Watched(())
    watched.state.apply(TrialCreated(0, {}, 0, 9))
    watched.pool = "a"
    watched.state.apply(PoolSkipped("a", 1.0, "1 task waited"))
    for _ in range(2 * MAX_IDLE_FAULTS):
        watched.batch([0])
        watched.shows(Phase.PENDING)
        watched.observe()
        watched.restart()
        watched.shows(shown)
        (end, _) = watched.observe() or watched.observe(GRACE_S)
        assert isinstance(end, RunInterrupted)
        assert end.interruption is Interruption.NOT_STARTED
    run = watched.state.run(RunId(0, 0))
    assert (run.status, run.faults_without_progress, run.cancels) == (RunStatus.WAITING, 0, 0)
    assert watched.state.failed_batches_in_a_row == 0


# --------------------------------------------------------------------------- stopping


def test_a_task_cancelled_by_stop_gets_no_grace_and_counts_no_fault(watched: Watched) -> None:
    watched.shows(Phase.RUNNING)
    watched.observe()
    watched.state.apply(StopRequested(1.0, "stopped by ada"))
    watched.shows(Phase.CANCELLED)
    assert watched.observe() == []
    assert watched.observe() == [
        interrupted(Interruption.SWEEP_STOPPED, "the sweep was stopped"),
        BatchClosed("b1"),
    ]
    assert watched.state.run(RunId(0, 0)).faults_without_progress == 0


def test_a_trial_that_a_rule_stopped_ends_as_stopped(watched: Watched) -> None:
    watched.state.apply(TrialStopped(0, "median"))
    watched.shows(Phase.CANCELLED)
    watched.writes(interrupted=Interruption.CANCELLED, step=4)
    assert watched.observe() == [
        RunFinished(0, 0, Outcome.STOPPED, step=4, started=7.0, batch="b1", message="median"),
        BatchClosed("b1"),
    ]
    assert watched.status is RunStatus.STOPPED


# --------------------------------------------------------------------------- bounds of their own


def settings(**changes: Any) -> DriverConfig:
    return msgspec.structs.replace(SETTINGS, **changes)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.OUT_OF_MEMORY])
def test_an_error_in_training_code_is_tried_again_as_often_as_allowed(
    watched: Watched, outcome: Outcome
) -> None:
    watched.settings = settings(max_errors=2)
    watched.restart()
    kinds = []
    for _ in range(3):
        watched.shows(None)
        watched.writes(outcome=outcome, message="ValueError: no", node="n1", seconds=3.0, gpu_seconds=3.0)
        first, *rest = watched.observe()
        kinds.append(first)
        assert rest == [BatchClosed(watched.name)]
        if watched.status is RunStatus.WAITING:
            watched.batch([0])
    again: dict[str, Any] = {
        "start": 0,
        "started": 7.0,
        "seconds": 3.0,
        "gpu_seconds": 3.0,
        "node": "n1",
        "message": "ValueError: no",
    }
    assert kinds == [
        RunInterrupted(0, 0, Interruption.TRAINING_ERROR, attempt=0, batch="b1", **again),
        RunInterrupted(0, 0, Interruption.TRAINING_ERROR, attempt=1, batch="b2", **again),
        RunFinished(0, 0, outcome, attempt=2, batch="b3", **again),
    ]
    assert watched.state.run(RunId(0, 0)).errors == 2


def test_time_limits_have_no_bound_while_checkpoints_advance_unless_one_is_set(watched: Watched) -> None:
    for _ in range(3 * MAX_IDLE_FAULTS):
        watched.shows(Phase.TIMEOUT)
        watched.writes(interrupted=Interruption.TIMEOUT, progressed=True)
        assert [type(event) for event in watched.observe()] == [RunInterrupted, BatchClosed]
        watched.batch([0])
    watched.settings = settings(max_timeouts=3 * MAX_IDLE_FAULTS)
    watched.restart()
    watched.shows(Phase.TIMEOUT)
    watched.writes(interrupted=Interruption.TIMEOUT, progressed=True, message="told")
    finished, _ = watched.observe()
    assert isinstance(finished, RunFinished)
    assert (finished.outcome, finished.message) == (
        Outcome.LOST,
        "given up after reaching its time limit 7 times; the last: told",
    )


def test_a_signal_of_the_time_limit_before_a_requeue_was_preemption(watched: Watched) -> None:
    watched.shows(Phase.PENDING)
    watched.writes(interrupted=Interruption.TIMEOUT, progressed=True)
    (event,) = watched.observe()
    assert isinstance(event, RunInterrupted)
    assert (event.interruption, event.requeued) == (Interruption.PREEMPTED, True)


def test_a_cancellation_names_the_admin_where_the_cluster_knows_it(watched: Watched) -> None:
    whys = []
    for foreign in (False, True):
        watched.says = {0: TaskState(Phase.CANCELLED, node="n1", foreign=foreign)}
        watched.observe()
        event, _ = watched.observe(GRACE_S)
        assert isinstance(event, RunInterrupted)
        whys.append((event.interruption, event.message))
        watched.batch([0])
    assert whys == [
        (Interruption.CANCELLED, "cancelled on the cluster (n1)"),
        (Interruption.CANCELLED_BY_ADMIN, "cancelled by an admin (n1)"),
    ]


def test_a_task_without_a_result_is_recorded_with_its_last_log_lines(
    watched: Watched,
) -> None:
    lines = "module load cuda | /opt/env/bin/python: No module named hpcsweep"
    watched.evidence.logs["b1", 0] = lines
    watched.says = {0: TaskState(Phase.FAILED, node="n1", seconds=2.0)}
    watched.observe()
    assert watched.observe(GRACE_S) == [
        RunInterrupted(
            0,
            0,
            Interruption.WORKER_DIED,
            batch="b1",
            seconds=2.0,
            gpu_seconds=2.0,
            node="n1",
            message=f"its task ended without a result (n1); its last lines: {lines}",
        ),
        BatchClosed("b1"),
    ]


# --------------------------------------------------------------------------- what keeps tasks from starting


def test_why_tasks_cannot_start_is_recorded_once_and_again_when_it_changes() -> None:
    watched = Watched([[0], [1], [2]])

    def pend(*reasons: str) -> list[AnyEvent]:
        watched.says = {
            task: TaskState(Phase.PENDING, words, block=BlockKind.BLOCKED if words else None)
            for task, words in enumerate(reasons)
        }
        return watched.observe()

    assert pend("", "", "") == []
    assert pend("JobHeldUser", "JobHeldUser", "") == [BatchBlocked("b1", "2 tasks: JobHeldUser", 102.0)]
    assert pend("JobHeldUser", "JobHeldUser", "") == []
    assert pend("JobHeldUser", "AssocGrpGRES", "") == [
        BatchBlocked("b1", "1 task: JobHeldUser; 1 task: AssocGrpGRES", 104.0)
    ]
    assert watched.state.live["b1"].blocked_since == 102.0
    assert pend("", "", "") == [BatchBlocked("b1", "", 105.0)]
    assert (watched.monitor.blocked.held, watched.monitor.blocked.impossible) == ({}, {})


def unknown(words: str, *, phase: Phase = Phase.PENDING) -> TaskState:
    return TaskState(phase, words, block=None if phase is Phase.UNKNOWN else BlockKind.UNKNOWN)


@pytest.mark.parametrize("state", [unknown("QOSMinGRES"), unknown("HIBERNATING", phase=Phase.UNKNOWN)])
def test_an_unknown_reason_is_recorded_after_a_while(watched: Watched, state: TaskState) -> None:
    watched.says = {0: state}
    assert watched.observe() == []
    assert watched.monitor.undecided, "somebody has to look again"
    assert watched.observe(RECORDED_AFTER_S - 1) == []
    assert watched.observe() == [BatchBlocked("b1", f"1 task: {state.reason}", watched.now)]
    assert watched.observe(10 * IMPOSSIBLE_AFTER_S) == []
    assert (watched.monitor.blocked.impossible, watched.monitor.undecided) == ({}, False)
    watched.says = {0: TaskState(Phase.PENDING, "Priority")}
    assert watched.observe() == [BatchBlocked("b1", "", watched.now)]


def test_a_reason_that_passes_is_never_recorded_and_the_time_begins_again(watched: Watched) -> None:
    for _ in range(5):
        watched.says = {0: unknown("ReqNodeNotAvail")}
        assert watched.observe() == []
        assert watched.observe(RECORDED_AFTER_S - 1) == []
        watched.says = {0: TaskState(Phase.PENDING, "Resources")}
        assert watched.observe() == []


def test_a_group_limit_is_recorded_only_while_no_task_of_the_sweep_runs() -> None:
    watched = Watched([[0], [1]])
    limited = TaskState(Phase.PENDING, "AssocGrpGRES", block=BlockKind.LIMITED)
    watched.says = {0: TaskState(Phase.RUNNING), 1: limited}
    assert [watched.observe(RECORDED_AFTER_S) for _ in range(3)] == [[], [], []]
    watched.says = {0: limited, 1: limited}
    assert watched.observe() == []
    assert watched.observe(RECORDED_AFTER_S) == [BatchBlocked("b1", "2 tasks: AssocGrpGRES", watched.now)]


def test_a_session_with_one_poll_records_what_blocks_an_old_batch(watched: Watched) -> None:
    watched.says = {0: unknown("QOSMinGRES")}
    watched.now += RECORDED_AFTER_S
    assert watched.observe() == [BatchBlocked("b1", "1 task: QOSMinGRES", watched.now)]
    watched.restart()
    assert watched.observe() == []


@pytest.mark.parametrize("shown", [Phase.CANCELLED, None])
def test_a_task_that_can_never_start_is_believed_after_minutes(watched: Watched, shown: Phase | None) -> None:
    never = TaskState(Phase.PENDING, "BadConstraints", block=BlockKind.IMPOSSIBLE)
    watched.says = {0: never}
    assert watched.observe() == []
    assert watched.observe(RECORDED_AFTER_S) == [BatchBlocked("b1", "1 task: BadConstraints", watched.now)]
    assert watched.observe(IMPOSSIBLE_AFTER_S - RECORDED_AFTER_S - 1) == []
    assert (watched.monitor.blocked.impossible, watched.monitor.undecided) == ({}, True)
    watched.observe()
    assert watched.monitor.blocked.impossible == {"b1": [0]}
    # Cancelled by us, it says so itself; another session knows it from the journal.
    watched.restart()
    watched.shows(shown)
    watched.observe()
    event, _ = watched.observe(GRACE_S)
    assert isinstance(event, RunInterrupted)
    assert (event.interruption, watched.state.run(RunId(0, 0)).faults_without_progress) == (
        Interruption.NEVER_STARTED,
        0,
    )


def test_invalid_account_that_passes_does_nothing(watched: Watched) -> None:
    never = TaskState(Phase.PENDING, "InvalidAccount", block=BlockKind.IMPOSSIBLE)
    for _ in range(60):
        for state in (never, never, TaskState(Phase.PENDING, "Priority")):
            watched.says = {0: state}
            assert watched.observe(10.0) == []
            assert watched.monitor.blocked.impossible == {}


def test_sessions_with_one_poll_conclude_from_what_the_journal_recorded(watched: Watched) -> None:
    watched.says = {0: TaskState(Phase.PENDING, "InvalidAccount", block=BlockKind.IMPOSSIBLE)}
    watched.now += RECORDED_AFTER_S
    watched.observe()
    for seconds, never in ((IMPOSSIBLE_AFTER_S - 1, {}), (1.0, {"b1": [0]})):
        watched.restart()
        watched.observe(seconds)
        assert watched.monitor.blocked.impossible == never


@pytest.mark.parametrize(
    ("asked", "held", "given", "gpu_s"),
    [
        (1, 0, None, 10.0),
        (1, 4, None, 40.0),
        (1, 0, 4, 40.0),
        (1, 4, 1, 10.0),
        (0, 4, None, 40.0),
    ],
)
def test_cost_is_what_the_task_held(asked: int, held: int, given: int | None, gpu_s: float) -> None:
    watched = Watched()
    watched.state.live["b1"].gpus = asked
    watched.state.live["b1"].gpus_held = held
    watched.restart()
    watched.says = {0: TaskState(Phase.RUNNING, node="n1", seconds=2.0, gpus=given)}
    expected = [] if given is None else [TasksAllocated("b1", (0,), given)]
    assert watched.observe() == expected
    assert watched.observe() == [], "told once"
    watched.writes(**COMPLETED, seconds=10.0, gpu_seconds=10.0 * asked)
    (finished,) = watched.observe()
    assert isinstance(finished, RunFinished)
    assert finished.gpu_seconds == gpu_s
    # What the cluster counts beyond is charged with as many.
    watched.says = {0: TaskState(Phase.COMPLETED, node="n1", seconds=12.0, gpus=given)}
    assert watched.observe(20.0) == [BatchClosed("b1", 2.0, gpu_s / 5)]
    assert watched.state.spent_gpu_s == gpu_s * 1.2


def test_under_a_budget_a_task_that_vanished_between_two_polls_is_charged_up_to_its_time_limit(
    watched: Watched,
) -> None:
    charged = []
    # Without GPUs nothing is spent of it.
    for cap, gpus in ((None, 1), (1e6, 1), (1e6, 0)):
        watched.settings = settings(max_gpu_s=cap, shape=TaskResources(gpus=gpus), max_idle_faults=9)
        watched.restart()
        watched.says = {0: TaskState(Phase.RUNNING, node="n1", seconds=4.0)}
        watched.observe()
        watched.shows(None)
        watched.observe(30.0)
        event, closed = watched.observe(GRACE_S)
        assert isinstance(event, RunInterrupted)
        charged.append((event.interruption, event.seconds, closed))
        watched.batch([0])
    assert charged == [
        (Interruption.LOST, 4.0, BatchClosed("b1")),
        (Interruption.LOST, 34.0, BatchClosed("b2")),
        (Interruption.LOST, 4.0, BatchClosed("b3")),
    ]


# --------------------------------------------------------------------------- how long runs have gone on


@pytest.mark.parametrize("anew", [False, True], ids=["one session", "another driver"])
def test_a_run_has_lasted_since_the_one_before_it_ended_in_its_task(anew: bool) -> None:
    watched = Watched([(0, 1, 2)])
    watched.says = {0: TaskState(Phase.RUNNING, seconds=40.0)}
    watched.observe()
    assert watched.monitor.longest_s(watched.now) == 40.0
    for n, trial in enumerate((0, 1)):
        watched.writes(trial, n=n, outcome=Outcome.FAILED, message="no", started=watched.now, seconds=40.0)
        watched.says = {0: TaskState(Phase.RUNNING, seconds=40.0 * (n + 2))}
        watched.observe(40.0)
        if anew:
            watched.restart()
            watched.observe(0.0)
        assert watched.monitor.longest_s(watched.now) == 0.0
        assert watched.monitor.longest_s(watched.now + 9.0) == 9.0
    watched.writes(2, n=2, outcome=Outcome.FAILED, message="no", started=watched.now, seconds=1.0)
    watched.observe(1.0)
    assert watched.monitor.longest_s(watched.now) == 0.0, "none is left"


def test_with_several_lanes_the_oldest_run_counts() -> None:
    watched = Watched([(0, 1, 2, 3)])
    watched.state.live["b1"].lanes = 2
    watched.restart()
    watched.says = {0: TaskState(Phase.RUNNING, seconds=1.0)}
    watched.observe()
    watched.writes(1, n=1, outcome=Outcome.FAILED, message="no")
    watched.observe(9.0)
    assert watched.monitor.longest_s(watched.now) == 10.0, "trial 0 goes on"
    watched.writes(0, n=0, outcome=Outcome.FAILED, message="no")
    watched.observe(5.0)
    assert watched.monitor.longest_s(watched.now) == 5.0, "trial 2 began when trial 1 had ended"
