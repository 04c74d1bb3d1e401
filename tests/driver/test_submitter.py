"""Runs become arrays and submissions, also at submit limits and when arrays fail, hang or get no answer."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.cluster.simulated.cluster import SimulatedCluster
from hpcsweep.core.cluster_protocol import (
    Batch,
    BlockKind,
    Limits,
    Phase,
    Pool,
    SubmittedBatch,
    TaskId,
    TaskState,
)
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchBlocked,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    SweepOutcome,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver import HostTask
from hpcsweep.driver.checkpoint_quota import CheckpointQuota
from hpcsweep.driver.effects import Abandon, Step, Submit
from hpcsweep.driver.lifecycle import GpuBudget
from hpcsweep.driver.observer import Sighting
from hpcsweep.driver.shapes import RunShapes
from hpcsweep.driver.submitter import Submitter
from hpcsweep.errors import SubmitLimited
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.store.batch import Header, ManifestRun, trial_seed
from tests.doubles import PROGRAM, SHAPE, FakeClock, FolderCluster
from tests.driver.states import LAYOUT, SETTINGS, monitor_of, planned, submitted, sweep_of
from tests.driver.sweeps import decided, drive, end_of, events, make_driver, of_kind, undisturbed
from tests.driver.test_pools import Peaks
from tests.driver.test_shapes import GPUS, sweep

SETTLE_S = 150.0


def submitter_of(state: SweepState, *, clones: bool = False) -> Submitter:
    settings = SETTINGS
    monitor = monitor_of(state, settings)
    return Submitter(
        state,
        CheckpointQuota(state, settings=settings, clones=clones),
        layout=LAYOUT,
        settings=settings,
        monitor=monitor,
        budget=GpuBudget(settings, default_time_s=60),
        clones=clones,
        shapes=RunShapes(state, Space(()), settings=settings, granted=lambda needs: needs),
    )


def plan(
    submitter: Submitter, trials: int, *, free: int, array_tasks: int | None = None
) -> list[BatchPlanned]:
    runs = [RunId(trial, 0) for trial in range(trials)]
    return submitter.plan(runs, segment=3, free=free, array_tasks=array_tasks, now=5.0)


# --------------------------------------------------------------------------- plans


def test_one_array_takes_all_runs_and_lets_as_many_tasks_run_as_there_are_slots() -> None:
    assert plan(submitter_of(sweep_of(5)), 5, free=2) == [
        BatchPlanned(
            "s-cafe01-3-1",
            5.0,
            tuple((RunId(trial, 0),) for trial in range(5)),
            gpus=1,
            throttle=2,
            cluster="fake",
            time_s=60,
            cpus=SHAPE.cpus,
            mem_mib=SHAPE.mem_mib,
        )
    ]


@pytest.mark.parametrize(
    ("array_tasks", "free", "arrays"),
    [
        (2, 9, [(2, 2), (2, 2), (1, 1)]),
        (2, 3, [(2, 2), (2, 1)]),  # an array without a slot is not submitted
        (None, 9, [(5, 5)]),
        (None, 0, []),
    ],
)
def test_arrays_are_as_large_as_the_site_allows(
    array_tasks: int | None, free: int, arrays: list[tuple[int, int]]
) -> None:
    found = plan(submitter_of(sweep_of(5)), 5, free=free, array_tasks=array_tasks)
    assert [(len(each.tasks), each.throttle) for each in found] == arrays
    assert len({each.batch for each in found}) == len(found)


def test_a_submission_holds_the_array_and_what_its_tasks_are_to_do() -> None:
    state = sweep_of(1, planned("b1", [0]))
    batch = planned("b1", [0])
    run = ManifestRun(
        trial=0,
        rung=0,
        bracket=0,
        resource=9,
        attempt=0,
        seed=trial_seed(7, 0),
        config={"x": 0.0},
        parent=None,
        parent_step=0,
    )
    assert submitter_of(state).submission(batch, now=5.0, after="4710_1") == Submit(
        Batch("b1", LAYOUT.batch("b1").root, 1, 4, SHAPE, after="4710_1"),
        Header("b1", "cafe01", PROGRAM, gpus=1, lanes=1),
        ((run,),),
    )


def test_checkpoints_that_others_may_start_from_are_kept_where_trials_are_cloned() -> None:
    state = sweep_of(1, *submitted("b1", [0]))
    state.apply(RunFinished(0, 0, Outcome.COMPLETED, value=0.5, step=9, batch="b1"))
    state.apply(TrialPromoted(0, 1, 27))
    state.apply(TrialCreated(1, {"x": 0.1}, 0, 9, parent=0, start=4))
    batch = BatchPlanned("b2", 5.0, ((RunId(0, 1),),), gpus=1, throttle=1)
    state.apply(batch)
    kept = [
        submitter_of(state, clones=clones).submission(batch, now=5.0).tasks[0][0].keep
        for clones in (True, False)
    ]
    assert kept == [(4, 9), ()]


# --------------------------------------------------------------------------- the queue


def test_interrupted_runs_go_first_then_waiting_ones_promotions_and_new_trials() -> None:
    state = sweep_of(3, *submitted("b1", [2]))
    state.apply(RunInterrupted(2, 0, Interruption.PREEMPTED, batch="b1", seconds=99.0))
    events: list[AnyEvent] = [
        TrialCreated(3, {"x": 0.3}, 0, 9),
        TrialPromoted(0, 1, 27),
        RunFinished(1, 0, Outcome.STOPPED),
    ]
    assert submitter_of(state).queue(events) == [RunId(2, 0), RunId(0, 0), RunId(0, 1), RunId(3, 0)]


def test_runs_of_a_batch_that_fails_at_once_wait_until_it_is_closed() -> None:
    state = sweep_of(2, *submitted("b1", [0], [1]))
    state.apply(RunInterrupted(0, 0, Interruption.WORKER_DIED, batch="b1", seconds=1.0))
    assert submitter_of(state).queue() == []
    state.apply(RunFinished(1, 0, Outcome.COMPLETED, value=0.5, step=9, batch="b1", seconds=99.0))
    assert submitter_of(state).queue() == [RunId(0, 0)]


def test_waiting_runs_of_stopped_trials_end_with_the_last_value_that_they_reported() -> None:
    state = sweep_of(3, *submitted("b1", [1]))
    state.apply(RunReported(1, 0, ((4, 0.25),)))
    state.apply(RunInterrupted(1, 0, Interruption.PREEMPTED, batch="b1", step=4))
    state.apply(TrialStopped(1, "median"))
    assert submitter_of(state).stopped_while_waiting([TrialStopped(2, "asked for")]) == [
        RunFinished(2, 0, Outcome.STOPPED, None, 0, message="asked for"),
        RunFinished(1, 0, Outcome.STOPPED, 0.25, 4, message="median"),
    ]


# --------------------------------------------------------------------------- batches without an answer


def unanswered() -> tuple[SweepState, Submitter]:
    state = sweep_of(1, planned("b1", [0], at=100.0))
    return state, submitter_of(state)


ABANDON = Step(effects=(Abandon("b1", "it never reached the cluster"),))


def test_a_batch_that_the_cluster_knows_is_adopted() -> None:
    state, submitter = unanswered()
    step = submitter.reconcile(
        state.live["b1"], Sighting(job="4711", has_script=True), now=101.0, settle_s=SETTLE_S
    )
    assert step == Step((BatchSubmitted("b1", "4711", 101.0),))


@pytest.mark.parametrize("sighting", [Sighting(abandoned=True), Sighting()])
def test_a_batch_that_was_fenced_off_or_has_no_script_is_abandoned_at_once(sighting: Sighting) -> None:
    state, submitter = unanswered()
    assert submitter.reconcile(state.live["b1"], sighting, now=101.0, settle_s=SETTLE_S) == ABANDON


def test_a_batch_with_a_script_may_turn_up_for_a_while() -> None:
    state, submitter = unanswered()
    steps = [
        submitter.reconcile(state.live["b1"], Sighting(has_script=True), now=at, settle_s=SETTLE_S)
        for at in (100.0 + SETTLE_S, 101.0, 100.0 + SETTLE_S)
    ]
    assert steps == [Step(), Step(), ABANDON], "never by a single answer, and not too early"


def test_a_batch_planned_by_a_clock_that_was_ahead_waits_no_longer() -> None:
    state, submitter = unanswered()
    steps = [
        submitter.reconcile(state.live["b1"], Sighting(has_script=True), now=at, settle_s=SETTLE_S)
        for at in (-500.0, -500.0 + SETTLE_S)
    ]
    assert steps == [Step(), ABANDON]


def test_only_the_first_refused_batch_counts_as_limited() -> None:
    batches = [planned("b1", [0]), planned("b2", [1])]
    assert Submitter.abandon(batches, "QOSMaxSubmitJobPerUserLimit", limited=True) == Step(
        effects=(
            Abandon("b1", "QOSMaxSubmitJobPerUserLimit", limited=True),
            Abandon("b2", "QOSMaxSubmitJobPerUserLimit"),
        )
    )


# --------------------------------------------------------------------------- submit limits


class Limited(FolderCluster):
    """Takes no array by which more than `most` tasks would wait or run."""

    poll_s = (1.0, 60.0)

    def __init__(self, controller: Path, most: int, *, tells: bool, **options: Any) -> None:
        super().__init__(controller, **options)
        self.most = most
        self.tells = tells
        self.sizes: dict[str, int] = {}
        self.tried = 0

    def _open(self) -> int:
        done = sum(len(os.listdir(self.controller / name)) for name in self.sizes)
        return sum(self.sizes.values()) - done

    def submit(self, batch: Batch) -> str:
        self.tried += 1
        if self._open() + batch.tasks > self.most:
            raise SubmitLimited("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        self.sizes[batch.name] = batch.tasks
        return super().submit(batch)

    def limits(self) -> Limits:
        return Limits(queued_tasks=self.most if self.tells else None)

    @property
    def queued_tasks(self) -> int | None:
        return self._open() if self.tells else None


@pytest.mark.parametrize(("tells", "tries_at_most"), [(True, 20), (False, 60)])
def test_tasks_over_a_submit_limit_are_submitted_later_in_smaller_arrays(
    root: Path, controller: Path, tells: bool, tries_at_most: int
) -> None:
    cluster = Limited(controller, 5, tells=tells, per_poll=2)
    drive(root, cluster, max_tasks=100)
    assert decided(events(root)) == undisturbed(root.parent)
    assert len(cluster.trained()) == len(set(cluster.trained())) == 22
    assert max(cluster.sizes.values()) <= 5
    assert cluster.tried <= tries_at_most
    refused = of_kind(root, BatchAbandoned)
    assert all(event.over_limit for event in refused)
    assert (refused == []) is tells


def test_a_sweep_at_its_submit_limit_says_so_and_backs_off(root: Path, controller: Path) -> None:
    cluster = Limited(controller, 0, tells=False)
    clock = FakeClock()
    driver, journal = make_driver(root, cluster, clock=clock)
    driver.tick()
    assert driver.state.submit_limit == "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    first = cluster.tried
    for _ in range(60):
        clock.sleep(60.0)
        driver.tick()
    assert 2 <= (cluster.tried - first) / 5 <= 12  # an hour; halving a rung of 9 takes up to 4 tries
    cluster.most = 100
    driver.run()
    journal.release()
    assert driver.state.submit_limit == ""
    assert decided(events(root)) == undisturbed(root.parent)


REUSED = {"reuse": True, "simulated": {"array_tasks": 4}}
POOLS = (Pool("a", max_gpus=4), Pool("b", max_gpus=5))


@pytest.mark.parametrize(
    ("gpus", "pools", "cluster", "refused_first"),
    [
        (1, (), {"reuse": False, "simulated": {"array_tasks": 4}}, 1),
        (1, (), REUSED, 1),
        (1, (), {"reuse": True, "simulated": {"wait": 1800}}, 0),  # some of its tasks wait in advance
        (GPUS, (), {"reuse": False}, 1),
        (GPUS, (), REUSED, 1),
        (1, POOLS, {"reuse": False, "simulated": {"array_tasks": 4}}, 1),
        (1, POOLS, REUSED, 1),
    ],
)
def test_the_cap_holds_where_some_arrays_of_a_round_are_accepted_and_the_next_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: Any,
    pools: tuple[Pool, ...],
    cluster: dict[str, Any],
    refused_first: int,
) -> None:
    submit, peaks, tries = SimulatedCluster.submit, Peaks(monkeypatch, *pools), itertools.count()

    def every_other(site: SimulatedCluster, batch: Batch) -> str:
        if next(tries) % 2 == refused_first:
            raise SubmitLimited("too many jobs")
        return submit(site, batch)

    monkeypatch.setattr(SimulatedCluster, "submit", every_other)
    site = {"spread": 3.0, "seconds_per_unit": 60, **cluster.get("simulated", {})}
    options = {"reuse": cluster["reuse"], "simulated": site}
    events = sweep(tmp_path, {"gpus": gpus, "time": "30m"}, max_gpus=5, **options)
    assert any(isinstance(event, BatchAbandoned) for event in events)
    assert peaks.most["all"] <= 5


class Dying(FolderCluster):
    """Its tasks end at once without a word, until it is mended."""

    mended = False
    poll_s = (1.0, 1.0)

    def run(self, batch: SubmittedBatch, task: int) -> None:
        if self.mended:
            super().run(batch, task)
        else:
            (self.controller / batch.name / str(task)).touch()


def test_three_arrays_failing_within_seconds_pause_the_sweep_and_launch_resumes_it(
    root: Path, controller: Path
) -> None:
    cluster = Dying(controller)
    drive(root, cluster, max_tasks=100)
    reason = "3 batches in a row failed within seconds; the last: its task ended without a result"
    assert end_of(root) == (SweepOutcome.PAUSED, reason)
    assert len(cluster.batches()) == 3
    drive(root, cluster, max_tasks=100)
    assert (end_of(root)[0], len(cluster.batches())) == (SweepOutcome.PAUSED, 6)
    cluster.mended = True
    drive(root, cluster, max_tasks=100)
    assert decided(events(root)) == undisturbed(root.parent)


class Hindered(FolderCluster):
    """Its tasks pend for a reason, until the reason is gone or they are cancelled."""

    poll_s = (1.0, 1.0)
    reason = "PartitionTimeLimit"
    kind: BlockKind | None = BlockKind.IMPOSSIBLE

    def __init__(self, controller: Path, **options: Any) -> None:
        super().__init__(controller, **options)
        self.released: list[tuple[str, list[int]]] = []
        self.cancelled: set[TaskId] = set()

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        if self.kind is None:
            return super().poll(live)
        pending = TaskState(Phase.PENDING, self.reason, block=self.kind)
        cancelled = TaskState(Phase.CANCELLED)
        tasks = [TaskId(batch.name, task) for batch in live for task in batch.open_tasks]
        return {task: cancelled if task in self.cancelled else pending for task in tasks}

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        self.cancelled |= {TaskId(batch.name, task) for task in tasks}

    def release(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        self.released.append((batch.name, list(tasks)))


def test_tasks_that_can_never_start_are_cancelled_and_the_sweep_is_paused(
    root: Path, controller: Path
) -> None:
    cluster = Hindered(controller)
    drive(root, cluster)
    words = "9 tasks: PartitionTimeLimit"
    assert end_of(root) == (
        SweepOutcome.PAUSED,
        f"its jobs can never start ({words}): fix the spec, then launch again",
    )
    assert [event.reason for event in of_kind(root, BatchBlocked)] == [words]
    interrupted = of_kind(root, RunInterrupted)
    assert {event.interruption for event in interrupted} == {Interruption.NEVER_STARTED}
    assert len(interrupted) == 9
    cluster.kind = None
    drive(root, cluster)
    assert decided(events(root)) == undisturbed(root.parent)


def test_requeued_tasks_that_the_cluster_holds_are_released_once_and_then_recorded(
    root: Path, controller: Path
) -> None:
    cluster = Hindered(controller)
    cluster.kind, cluster.reason = BlockKind.HELD, "JobHeldMaxRequeue"
    driver, journal = make_driver(root, cluster)
    for _ in range(4):
        driver.tick()
    (batch,) = driver.state.live.values()
    assert cluster.released == [(batch.name, list(range(9)))]
    assert batch.blocked_reason == "9 tasks: JobHeldMaxRequeue"
    journal.release()
    driver, journal = make_driver(root, cluster)
    driver.tick()
    assert len(cluster.released) == 1
    cluster.kind = None
    driver.run()
    journal.release()
    assert decided(events(root)) == undisturbed(root.parent)


# --------------------------------------------------------------------------- detached


class Calling(FolderCluster):
    """Takes jobs that tick, and notes them."""

    def __init__(self, controller: Path, **options: Any) -> None:
        super().__init__(controller, **options)
        self.calls: list[tuple[str, str, float]] = []
        self.shapes: list[Batch] = []
        self.dismissed: list[str] = []
        self.still: set[TaskId] = set()

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        shown = super().poll(live) or {}
        return {**shown, **dict.fromkeys(self.still, TaskState(Phase.RUNNING))}

    def submit_tick(self, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0) -> str:
        self.calls.append((name, after, delay_s))
        return f"tick-{len(self.calls)}"

    def cancel_ticks(self, jobs: Sequence[str]) -> None:
        self.dismissed += jobs

    def submit(self, batch: Batch) -> str:
        self.shapes.append(batch)
        return super().submit(batch)


def test_each_array_of_a_detached_sweep_has_one_tick_job_behind_it(root: Path, controller: Path) -> None:
    cluster = Calling(controller, per_poll=0)
    for _ in range(3):
        driver, journal = make_driver(root, cluster)
        driver.detach()
        driver.tick()
        driver.schedule_successor()
        journal.release()
    (name,) = cluster.batches()
    assert cluster.calls == [("s-cafe01-tick", "", 60.0), (f"{name}-tick", f"job-{name}", 0.0)]

    clock = FakeClock()
    clock.sleep(61.0)  # the first of them has looked
    driver, journal = make_driver(root, cluster, clock=clock)
    driver.tick()
    driver.schedule_successor()
    journal.release()
    assert cluster.calls[2:] == [("s-cafe01-tick", "", 3600.0)], "should all of the others fail"
    cluster.per_poll = 100
    drive(root, cluster, clock=clock)
    assert cluster.dismissed == ["tick-1", "tick-3"], "at its end nobody need look any more"


def test_a_driver_in_a_task_of_its_own_sweep_lets_the_next_array_wait_for_that_task_alone(
    root: Path, controller: Path
) -> None:
    cluster = Calling(controller, per_poll=0)
    driver, journal = make_driver(root, cluster, scheduler=Fifo(max_resource=2, trials=3), max_tasks=2)
    driver.tick()
    journal.release()
    (name,) = cluster.batches()
    # Task 0 has told its result and still runs, for it is the one that ticks; task 1 runs.
    cluster.per_poll = 1
    host = HostTask(name, 0, "4711_0")
    cluster.still = {TaskId(name, 0), TaskId(name, 1)}
    driver, journal = make_driver(
        root, cluster, scheduler=Fifo(max_resource=2, trials=3), max_tasks=2, host=host
    )
    driver.tick()
    driver.tick()
    journal.release()
    assert [(batch.tasks, batch.throttle, batch.after) for batch in cluster.shapes] == [
        (2, 2, ""),
        (1, 1, "4711_0"),
    ]
