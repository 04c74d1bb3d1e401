"""Tasks that keep their GPUs: what the monitor makes of what they tell, and who is given what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import Phase, SubmittedBatch, TaskId, TaskResources, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunsAssigned,
    SweepEnded,
    SweepOutcome,
    TaskBegan,
    TaskLeft,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.space import Choice, Parameter, Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.assigner import Assigner
from hpcsweep.driver.effects import Cancel, EffectResult
from hpcsweep.driver.job_control import Cancellations
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observation
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.store.assignments import StartId, TaskDeparture, TaskStart, announce
from hpcsweep.store.batch import ManifestRun, Result, write_result
from hpcsweep.store.layout import BatchLayout
from tests.doubles import FakeClock, FolderCluster
from tests.driver.states import LAYOUT, SETTINGS, NoEvidence, sweep_of
from tests.driver.sweeps import decided, drive, events, make_driver, of_kind, undisturbed

REUSING = msgspec.structs.replace(SETTINGS, idle_s=60.0)
GRACE_S = 10.0


class Stage:
    """A sweep of six trials with one batch of three tasks, which have begun."""

    def __init__(self, *happened: AnyEvent, tasks: int = 3) -> None:
        self.state = sweep_of(
            6,
            BatchPlanned("b", 0.0, ((),) * tasks, gpus=1, throttle=tasks, reuse=True),
            BatchSubmitted("b", "4711", 1.0),
            *happened,
        )
        self.drive_anew()

    def drive_anew(self) -> None:
        """Another driver takes over, which knows what the journal does."""
        self.monitor = JobMonitor(
            self.state, layout=LAYOUT, settings=REUSING, grace_s=GRACE_S, evidence=NoEvidence()
        )
        self.assigner = Assigner(
            self.state, settings=REUSING, monitor=self.monitor, manifest_run=self.manifest_run
        )

    @staticmethod
    def manifest_run(run: RunId) -> ManifestRun:
        return ManifestRun(run.trial, run.rung, 0, 9, 0, 7, {"x": 0.5})

    def look(
        self,
        at: float = 2.0,
        *,
        phases: Sequence[Phase | None] = (Phase.RUNNING,) * 3,
        seconds: float | None = None,
        results: Sequence[Result] = (),
        told: Sequence[tuple[StartId, TaskStart | TaskDeparture]] = (),
    ) -> list[AnyEvent]:
        """What follows from what is seen then; it is true from then on."""
        tasks = {
            TaskId("b", n): TaskState(phase, seconds=seconds)
            for n, phase in enumerate(phases)
            if phase is not None
        }
        seen = Observation(at, {"b": results}, tasks, announcements={"b": told})
        found = self.monitor.observe(seen if self.state.live else Observation(at, {}, {}))
        for event in found:
            self.state.apply(event)
        return found

    def assign(self, *runs: int, at: float = 3.0) -> list[RunsAssigned]:
        waiting = [RunId(trial, 0) for trial in runs]
        given = self.assigner.assign(waiting, self.assigner.free_tasks(now=at), now=at)
        for event in given:
            self.state.apply(event)
        return given


def result(trial: int, task: int, **fields: Any) -> Result:
    return Result(
        trial, 0, 0, 0, task, **{"outcome": Outcome.COMPLETED, "value": 1.0, "started": 3.0, **fields}
    )


def started(*tasks: int, restart: int = 0) -> list[tuple[StartId, TaskStart | TaskDeparture]]:
    return [(StartId(task, restart), TaskStart("j", f"n{task}", at=2.0)) for task in tasks]


def test_only_tasks_that_have_begun_are_given_runs() -> None:
    stage = Stage()
    assert stage.assign(0, 1, 2) == []
    stage.look(told=started(1))
    assert stage.assign(0, 1, 2) == [RunsAssigned("b", 3.0, 1, (RunId(0, 0),))]
    assert stage.assigner.coming == 2


def test_a_task_that_begins_between_two_polls_is_given_a_run_at_once_and_one_that_was_put_back_is_not() -> (
    None
):
    stage = Stage()
    stage.look(2.0, phases=[Phase.PENDING] * 3)
    told = Observation(3.0, {}, None, announcements={"b": started(0)})
    for event in stage.monitor.observe(told):
        stage.state.apply(event)
    assert [event.task for event in stage.assign(0)] == [0]
    stage.look(8.0, phases=[Phase.PENDING] * 3)
    assert stage.assign(1) == []


def test_a_task_is_given_its_next_run_when_the_one_before_has_ended_and_each_is_numbered() -> None:
    stage = Stage()
    stage.look(told=started(0))
    assert [event.number for event in stage.assign(0, 1)] == [0]
    assert stage.assign(1) == []
    [ended] = stage.look(4.0, results=[result(0, 0, seconds=100.0)])
    assert isinstance(ended, RunFinished)
    assert [(event.number, event.runs) for event in stage.assign(1)] == [(1, (RunId(1, 0),))]


def test_short_runs_are_assigned_one_ahead_once_nobody_is_free() -> None:
    stage = Stage()
    stage.look(told=started(0, 1))
    stage.assign(0, 1)
    stage.look(4.0, results=[result(0, 0, seconds=1.0)])
    assert [(event.task, event.runs) for event in stage.assign(2, 3, 4)] == [
        (0, (RunId(2, 0), RunId(3, 0))),
        (1, (RunId(4, 0),)),
    ]
    assert stage.state.live["b"].begun == [RunId(1, 0), RunId(2, 0)]


def test_what_a_task_did_not_take_before_it_left_waits_again_and_counts_nothing() -> None:
    stage = Stage()
    stage.look(told=started(0))
    stage.assign(0)
    told = [(StartId(0, 0), TaskDeparture(0, "no run for 60 s"))]
    left, interrupted = stage.look(4.0, told=told)
    assert isinstance(left, TaskLeft)
    assert isinstance(interrupted, RunInterrupted)
    assert interrupted.interruption is Interruption.NOT_STARTED
    run = stage.state.run(RunId(0, 0))
    assert (run.status, run.faults_without_progress) == (RunStatus.WAITING, 0)
    assert stage.assign(0) == [], "no other task has begun"


def test_a_later_start_shows_that_the_one_before_is_over() -> None:
    stage = Stage()
    stage.look(told=started(0))
    stage.assign(0)
    stage.look(4.0, told=started(0, restart=1))
    assert stage.look(5.0) == [], "its result may come late"
    [interrupted] = stage.look(6.0 + GRACE_S)
    assert isinstance(interrupted, RunInterrupted)
    assert (interrupted.restart, interrupted.requeued) == (0, False)
    given = stage.assign(0, at=7.0 + GRACE_S)
    assert [(event.restart, event.number) for event in given] == [(1, 0)]


@pytest.mark.parametrize("phase", [Phase.PREEMPTED, Phase.NODE_FAIL, None])
def test_runs_of_a_task_that_is_gone_wait_again_and_a_result_in_time_counts(phase: Phase | None) -> None:
    stage = Stage(tasks=2)
    stage.look(told=started(0, 1), phases=[Phase.RUNNING] * 2)
    stage.assign(0, 1)
    assert stage.look(4.0, phases=[phase, Phase.RUNNING]) == []
    late = stage.look(4.0 + GRACE_S / 2, phases=[phase, Phase.RUNNING], results=[result(0, 0)])
    late += stage.look(9.0 + GRACE_S, phases=[phase, phase])
    assert [(type(event), event.task) for event in late if isinstance(event, RunFinished | TaskLeft)] == [
        (RunFinished, 0),
        (TaskLeft, 0),
    ]
    ends = [end for at in (40.0, 60.0) for end in stage.look(at, phases=[phase, phase])]
    assert [type(event) for event in ends] == [RunInterrupted, TaskLeft, BatchClosed]
    assert list(stage.state.waiting) == [RunId(trial, 0) for trial in (2, 3, 4, 5, 1)]


def test_once_all_tasks_have_told_that_they_leave_a_poll_is_due() -> None:
    stage = Stage(tasks=2)
    stage.look(told=started(0, 1), phases=[Phase.RUNNING] * 2)
    assert not stage.monitor.all_have_left
    stage.look(3.0, told=[(StartId(0, 0), TaskDeparture(0))], phases=[Phase.RUNNING] * 2)
    assert not stage.monitor.all_have_left
    stage.look(4.0, told=[(StartId(1, 0), TaskDeparture(0))], phases=[Phase.RUNNING] * 2)
    assert stage.monitor.all_have_left


@pytest.mark.parametrize("phase", [Phase.OUT_OF_MEMORY, Phase.PENDING])
def test_a_run_that_was_given_ahead_does_not_share_the_fate_of_the_one_before_it(phase: Phase) -> None:
    stage = Stage(tasks=1)
    stage.look(told=started(0), phases=[Phase.RUNNING])
    stage.state.apply(RunsAssigned("b", 3.0, 0, (RunId(0, 0), RunId(1, 0))))
    stage.look(4.0, phases=[phase])
    first, second, *_ = stage.look(5.0 + GRACE_S, phases=[phase])
    if phase is Phase.PENDING:
        assert isinstance(first, RunInterrupted)
        assert first.interruption is Interruption.PREEMPTED
    else:
        assert isinstance(first, RunFinished)
        assert first.outcome is Outcome.OUT_OF_MEMORY
    assert isinstance(second, RunInterrupted)
    assert (second.run, second.interruption) == (RunId(1, 0), Interruption.NOT_STARTED)
    assert stage.state.run(RunId(1, 0)).faults_without_progress == 0


def test_a_start_that_ended_without_a_word_is_given_nothing_by_a_later_driver_either() -> None:
    stage = Stage(tasks=1)
    stage.look(told=started(0), phases=[Phase.RUNNING])
    assert stage.look(4.0, phases=[Phase.PENDING]) == [
        TaskLeft("b", 4.0, 0, left=4.0, reason="the cluster ended it")
    ]
    stage.drive_anew()
    assert stage.assign(0) == []
    stage.look(6.0, told=started(0, restart=1), phases=[Phase.RUNNING])
    assert [event.restart for event in stage.assign(0)] == [1]


def test_a_run_whose_task_is_gone_is_undecided_until_its_result_must_have_come() -> None:
    stage = Stage(tasks=1)
    stage.look(told=started(0), phases=[Phase.RUNNING])
    stage.assign(0)
    stage.look(4.0, phases=[Phase.PENDING])
    assert stage.monitor.undecided
    stage.look(5.0 + GRACE_S, phases=[Phase.PENDING])
    assert not stage.monitor.undecided


@pytest.mark.parametrize(
    ("phase", "why"),
    [
        (Phase.CANCELLED, Interruption.CANCELLED),
        (Phase.NODE_FAIL, Interruption.NODE_FAIL),
        (Phase.PENDING, Interruption.PREEMPTED),
        (None, Interruption.PREEMPTED),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_why_a_task_was_told_to_stop_is_what_the_cluster_says_of_it(
    phase: Phase | None, why: Interruption, at_once: bool
) -> None:
    """Its worker writes the result of its run first, and then that it leaves."""
    stage = Stage(tasks=1)
    stage.look(told=started(0), phases=[Phase.RUNNING])
    stage.assign(0)
    ended = result(0, 0, outcome=None, value=None, interrupted=Interruption.PREEMPTED, seconds=5.0)
    leaves = [(StartId(0, 0), TaskDeparture(1, "told to stop by SIGTERM", at=8.0))]
    first = stage.look(8.0, phases=[Phase.RUNNING], results=[ended], told=leaves if at_once else ())
    assert [type(event) for event in first] == [TaskLeft] * at_once
    assert stage.monitor.awaits_poll
    later = stage.look(9.0, phases=[phase], told=() if at_once else leaves)
    assert [event.interruption for event in later if isinstance(event, RunInterrupted)] == [why]
    assert not stage.monitor.awaits_poll


class EndOfTest(Exception):
    pass


def test_the_cluster_is_asked_soon_why_a_task_was_told_to_stop(tmp_path: Path) -> None:
    """Polls are a minute apart, as nothing else happens, when the task leaves."""
    polls: list[float] = []
    begin, leave = 1_000_000.0, 1_000_200.0

    class Site(FolderCluster):
        poll_s = (5.0, 60.0)

        def poll(self, live: Sequence[SubmittedBatch]) -> dict[TaskId, TaskState]:
            polls.append(clock.now)
            for batch in live:
                self.files = BatchLayout(batch.folder)
                announce(self.files, StartId(0, 0), TaskStart("j", "n0", at=begin))
            if clock.now > leave:
                raise EndOfTest
            return {TaskId(batch.name, 0): TaskState(Phase.RUNNING) for batch in live}

    class Time(FakeClock):
        def sleep(self, seconds: float) -> None:
            before, self.now = self.now, self.now + seconds
            if before < leave <= self.now:
                ended = result(0, 0, outcome=None, value=None, interrupted=Interruption.PREEMPTED)
                write_result(site.files, ended, n=0)
                announce(site.files, StartId(0, 0), TaskDeparture(1, "told to stop", at=leave))

    clock, site = Time(), Site(tmp_path / "controller")
    with pytest.raises(EndOfTest):
        drive(tmp_path / "s", site, clock=clock, idle_s=600.0, max_tasks=1)
    assert polls[-2] < leave
    assert polls[-1] <= leave + 1.0 + 5.0 + 1.0


def test_a_requeued_task_costs_what_the_cluster_counts_though_its_last_run_left_no_result() -> None:
    stage = Stage(tasks=1)
    stage.look(10.0, phases=[Phase.RUNNING], seconds=8.0, told=started(0))
    stage.assign(0, at=10.0)
    first = result(0, 0, seconds=60.0, gpu_seconds=60.0)
    stage.look(102.0, phases=[Phase.RUNNING], seconds=100.0, results=[first])
    stage.look(110.0, phases=[Phase.PENDING], seconds=0.0)
    stage.look(120.0, phases=[Phase.RUNNING], seconds=5.0, told=started(0, restart=1))
    stage.assign(1, at=120.0)
    again = msgspec.structs.replace(result(1, 0, seconds=30.0, gpu_seconds=30.0), restart=1)
    stage.look(160.0, phases=[Phase.RUNNING], seconds=45.0, results=[again])
    stage.assign(2, at=160.0)
    assert stage.look(315.0, phases=[Phase.NODE_FAIL], seconds=200.0) == []
    lost, left, closed = stage.look(316.0 + GRACE_S, phases=[Phase.NODE_FAIL], seconds=200.0)
    assert isinstance(lost, RunInterrupted)
    assert isinstance(left, TaskLeft)
    assert (lost.run, lost.restart, lost.gpu_seconds) == (RunId(2, 0), 1, 170.0)
    assert closed == BatchClosed("b", 40.0, 40.0)
    assert (stage.state.spent_s, stage.state.spent_gpu_s) == (300.0, 300.0)


@pytest.mark.parametrize(("left", "closed_s"), [(None, 40.0), (108.0, 46.0), (300.0, 48.0), (50.0, 40.0)])
def test_a_task_that_told_when_it_left_is_charged_until_then_once_the_cluster_requeues_it(
    left: float | None, closed_s: float
) -> None:
    """The last poll saw it at 102 s, running for 100 s; it trained for 60 s of them."""
    stage = Stage(tasks=1)
    stage.look(10.0, phases=[Phase.RUNNING], seconds=8.0, told=started(0))
    stage.assign(0, at=10.0)
    first = result(0, 0, seconds=60.0, gpu_seconds=60.0)
    stage.look(102.0, phases=[Phase.RUNNING], seconds=100.0, results=[first])
    told = [] if left is None else [(StartId(0, 0), TaskDeparture(1, "requeued", at=left))]
    stage.look(110.0, phases=[Phase.PENDING], seconds=0.0, told=told)
    assert stage.look(200.0, phases=[Phase.CANCELLED]) == [BatchClosed("b", closed_s, closed_s)]


def requeued(stage: Stage) -> list[AnyEvent]:
    """What is known once the second start of the only task has begun; it trains run 1 for 30 s of 45."""
    stage.look(120.0, phases=[Phase.RUNNING], seconds=5.0, told=started(0, restart=1))
    stage.assign(1, at=120.0)
    again = msgspec.structs.replace(result(1, 0, seconds=30.0, gpu_seconds=30.0), restart=1)
    stage.look(160.0, phases=[Phase.RUNNING], seconds=45.0, results=[again])
    return stage.look(170.0, phases=[Phase.COMPLETED], seconds=45.0)


@pytest.mark.parametrize("noted", ["by the driver before", "by this one"])
def test_a_start_that_was_over_before_a_driver_looked_is_charged_by_what_it_told(noted: str) -> None:
    stage = Stage(tasks=1)
    stage.look(10.0, phases=[Phase.RUNNING], seconds=8.0, told=started(0))
    stage.assign(0, at=10.0)
    trained = result(0, 0, seconds=60.0, gpu_seconds=60.0)
    stage.look(102.0, phases=[Phase.RUNNING], seconds=100.0, results=[trained])
    left = [(StartId(0, 0), TaskDeparture(1, "told to stop", at=107.0))]
    if noted == "by the driver before":
        stage.look(110.0, phases=[Phase.PENDING], seconds=0.0, told=left)
        stage.look(111.0, phases=[Phase.PENDING], seconds=0.0, told=started(0, restart=1))
    stage.drive_anew()
    if noted == "by this one":
        stage.look(111.0, phases=[Phase.PENDING], seconds=0.0, told=[*started(0, restart=1), *left])
    # 105 s from 2 to 107, of which it trained for 60, and 15 s beyond the run of the second start.
    closed = requeued(stage)[-1]
    assert closed == BatchClosed("b", 60.0, 60.0)
    assert stage.state.spent_gpu_s == 105.0 + 45.0


def test_a_run_that_reached_its_own_limit_goes_on_while_its_task_takes_others() -> None:
    stage = Stage()
    stage.look(told=started(0))
    stage.assign(0)
    timeout = result(0, 0, outcome=None, value=None, interrupted=Interruption.TIMEOUT, progressed=True)
    [interrupted] = stage.look(4.0, results=[timeout])
    assert isinstance(interrupted, RunInterrupted)
    assert interrupted.interruption is Interruption.TIMEOUT
    assert stage.state.run(RunId(0, 0)).timeouts == 1
    assert [event.number for event in stage.assign(0)] == [1]


def test_a_batch_whose_tasks_all_ended_before_they_began_is_a_failure_and_an_idle_one_is_not() -> None:
    never = Stage(tasks=1)
    for at in (2.0, 3.0 + GRACE_S):
        never.look(at, phases=[Phase.FAILED])
    assert never.state.failed_batches_in_a_row == 1
    assert never.state.last_batch_failure == "no log output"
    idle = Stage(tasks=1)
    idle.look(told=started(0), phases=[Phase.RUNNING])
    for at in (3.0, 4.0 + GRACE_S):
        idle.look(at, phases=[Phase.COMPLETED], told=[(StartId(0, 0), TaskDeparture(0))])
    assert (idle.state.live, idle.state.failed_batches_in_a_row) == ({}, 0)


def test_how_long_the_oldest_run_has_lasted_counts_from_its_assignment_and_not_from_its_task() -> None:
    stage = Stage()
    stage.look(told=started(0, 1))
    stage.assign(0, at=500.0)
    stage.assign(1, at=700.0)
    stage.look(1000.0)
    assert stage.monitor.longest_s(1000.0) == 500.0
    stage.look(1001.0, results=[result(0, 0), result(1, 1)])
    assert stage.monitor.longest_s(1001.0) == 0.0


def test_a_sweep_that_pauses_gives_its_idle_tasks_back_at_once(tmp_path: Path) -> None:
    """As where the first runs all fail alike; the tasks of this cluster never leave by themselves."""
    root = tmp_path / "results"
    cluster = FolderCluster(tmp_path / "controller", per_poll=3, objective=lambda config, resource: None)
    driver = drive(root, cluster, idle_s=60.0, fail_fast=3)
    assert driver.state.ended is not None
    assert driver.state.ended.outcome is SweepOutcome.PAUSED


def test_a_task_near_the_end_of_its_time_is_given_its_first_run_and_no_further_one() -> None:
    stage = Stage(TaskBegan("b", 2.0, 0, ends=100.0), TaskBegan("b", 2.0, 1, ends=1000.0))
    settings = msgspec.structs.replace(REUSING, run=TaskResources(time_s=200))
    stage.assigner = Assigner(
        stage.state, settings=settings, monitor=stage.monitor, manifest_run=stage.manifest_run
    )
    assert [event.task for event in stage.assign(0, 1)] == [0, 1]
    stage.look(4.0, results=[result(0, 0, seconds=90.0), result(1, 1, seconds=40.0)])
    assert stage.assigner.longest_run_s == 90.0
    assert [task.id.task for task in stage.assigner.free_tasks(now=5.0)] == [1]
    [leave] = stage.assigner.to_leave(wanted=True, now=5.0)
    assert (leave.start, leave.at_once) == (StartId(0, 0), False)
    # Runs take less than their limit, so that more of them fit.
    assert [task.id.task for task in stage.assigner.free_tasks(now=860.0)] == [1]
    assert stage.assigner.free_tasks(now=870.0) == []


def test_tasks_beyond_the_cap_leave_at_once_idle_ones_first() -> None:
    stage = Stage()
    stage.look(told=started(0, 1, 2))
    stage.assign(0, 1)
    leaving = stage.assigner.to_leave(wanted=True, now=4.0, surplus=2)
    assert [(leave.start.task, leave.at_once) for leave in leaving] == [(2, True), (0, True)]
    for leave in leaving:
        stage.assigner.note(leave, EffectResult())
    assert stage.assigner.to_leave(wanted=True, now=5.0, surplus=2) == [], "both are on their way"


def test_of_an_array_with_more_tasks_than_its_throttle_the_others_take_the_place_of_those_that_end() -> None:
    stage = Stage(BatchThrottled("b", 2), tasks=4)
    pending = [Phase.PENDING] * 4
    stage.look(phases=pending)
    assert (stage.assigner.coming, stage.assigner.spares) == (2, 2)
    stage.look(3.0, phases=[Phase.RUNNING, Phase.RUNNING, *pending[2:]], told=started(0, 1))
    assert (stage.assigner.coming, stage.assigner.spares) == (0, 2)
    cancellations = Cancellations(stage.state, stage.monitor)
    assert cancellations.pending_to_cancel(stage.assigner.useless(wanted=True)) == []
    [cancel] = cancellations.pending_to_cancel(stage.assigner.useless(wanted=False))
    assert cancel == Cancel("b", (2, 3), pending=True)
    cancellations.note(cancel, EffectResult())
    assert cancellations.pending_to_cancel(stage.assigner.useless(wanted=False)) == []


def test_tasks_that_are_too_small_for_a_run_are_given_none_and_leave() -> None:
    stage = Stage(tasks=2)
    stage.look(phases=[Phase.RUNNING, Phase.PENDING], told=started(0))
    settings = msgspec.structs.replace(REUSING, run=TaskResources(gpus=2))
    assigner = Assigner(
        stage.state, settings=settings, monitor=stage.monitor, manifest_run=stage.manifest_run
    )
    assert (assigner.free_tasks(now=3.0), assigner.coming) == ([], 0)
    assert [leave.start.task for leave in assigner.to_leave(wanted=True, now=3.0)] == [0]
    cancellations = Cancellations(stage.state, stage.monitor)
    cancels = cancellations.pending_to_cancel(assigner.useless(wanted=True))
    assert cancels == [Cancel("b", (1,), pending=True)]


def test_a_run_that_was_given_ahead_is_reserved_after_the_one_before_it() -> None:
    stage = Stage(tasks=1)
    stage.look(phases=[Phase.RUNNING], seconds=0.0, told=started(0))
    runs = (RunId(0, 0), RunId(1, 0))
    stage.state.apply(RunsAssigned("b", 3.0, 0, runs))

    def reserved(now: float) -> float:
        batch = stage.state.live["b"]
        return stage.monitor.reserved_gpu_s(batch, now=now, run_s=100.0, idle_s=10.0)

    assert reserved(3.0) == 1.0 + 200.0 + 10.0
    stage.state.live["b"].lanes = 2
    assert reserved(3.0) == 1.0 + 100.0 + 10.0


def test_all_assigned_files_are_written_again_by_the_next_session() -> None:
    stage = Stage()
    stage.look(told=started(0, 2))
    stage.assign(0, 1)
    again = stage.assigner.all_assigned()
    assert [(each.start, each.number, each.assignment.run.trial) for each in again] == [
        (StartId(0, 0), 0, 0),
        (StartId(2, 0), 0, 1),
    ]


def test_the_same_is_decided_with_fewer_tasks_and_nothing_of_the_hand_over_is_left(tmp_path: Path) -> None:
    root = tmp_path / "results"
    drive(root, FolderCluster(tmp_path / "controller", per_poll=3), idle_s=60.0)
    assert decided(events(root)) == undisturbed(tmp_path)
    [batch] = of_kind(root, BatchPlanned)
    assert len(batch.tasks) == 4
    assert [path for path in (root / "batches").rglob("*.json") if path.parent.name != "tasks"] == []
    assert SweepState.replay(events(root)).live == {}


def test_a_driver_that_leaves_gives_a_run_ahead_to_each_task_also_to_one_that_has_not_begun() -> None:
    stage = Stage()
    stage.look(told=started(1))
    free = stage.assigner.free_tasks(now=3.0, leaves=True)
    assert sorted(task.id.task for task in free) == [0, 0, 1, 1, 2, 2]
    for event in stage.assigner.assign([RunId(trial, 0) for trial in range(4)], free, now=3.0):
        stage.state.apply(event)
    assert sorted(len(runs) for runs in stage.state.live["b"].tasks) == [1, 1, 2]
    assert stage.look(4.0, told=started(0)) == [TaskBegan("b", 4.0, 0, started=2.0, node="n0", job="j")]
    # Put back before it had begun, the third one's start is not the one that was given the run.
    [began] = stage.look(5.0, told=started(2, restart=1))
    assert isinstance(began, TaskBegan)
    assert stage.look(6.0) == []
    [lost] = stage.look(6.0 + GRACE_S)
    assert isinstance(lost, RunInterrupted)
    assert lost.task == 2


def test_a_sweep_is_driven_by_ticks_that_leave(tmp_path: Path) -> None:
    root = tmp_path / "results"
    ticks = 0
    while not (ended := of_kind(root, SweepEnded)):
        cluster = FolderCluster(tmp_path / "controller", per_poll=3)
        driver, journal = make_driver(root, cluster, idle_s=60.0)
        driver.tick_once()
        journal.release()
        ticks += 1
    assert ended[0].outcome is SweepOutcome.FINISHED
    assert ticks < 20
    assert decided(events(root)) == undisturbed(root.parent)
    assert len(of_kind(root, BatchPlanned)) == 1


def test_a_node_on_which_tasks_can_take_no_run_is_suspected_and_the_sweep_goes_on() -> None:
    stage = Stage()
    stage.look(told=started(0))
    no_module = TaskDeparture(0, "cluster.setup: no module cuda", at=3.0, failed=True)
    told = [*started(2), (StartId(2, 0), no_module)]
    stage.look(3.0, phases=[Phase.RUNNING, Phase.RUNNING, Phase.FAILED], told=told)
    assert stage.state.node_faults == {"n2": {-1: "cluster.setup: no module cuda"}}


def test_a_batch_whose_tasks_can_take_no_run_is_a_failure() -> None:
    stage = Stage(tasks=1)
    failed = TaskDeparture(0, "cluster.setup: no module cuda", at=3.0, failed=True)
    for at in (2.0, 3.0 + GRACE_S):
        stage.look(at, phases=[Phase.FAILED], told=[*started(0), (StartId(0, 0), failed)])
    assert stage.state.live == {}
    assert stage.state.failed_batches_in_a_row == 1


def test_no_more_tasks_are_submitted_than_a_finite_space_has_runs(tmp_path: Path) -> None:
    space = Space((Parameter("x", Choice((0.25, 0.5, 0.75))),))
    cluster = FolderCluster(tmp_path / "controller")
    state = drive(
        tmp_path / "s", cluster, space=space, scheduler=Fifo(max_resource=1), idle_s=60.0, max_tasks=None
    ).state
    assert len(state.trials) == 3
    assert sum(len(batch.tasks) for batch in of_kind(tmp_path / "s", BatchPlanned)) == 3
