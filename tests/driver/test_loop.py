"""The driver over a cluster without processes: whole sweeps, caps, budgets, refusals, and its cost."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import (
    Batch,
    Phase,
    SubmittedBatch,
    TaskAllocation,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.core.events import (
    BatchAbandoned,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    Interruption,
    RunFinished,
    RunInterrupted,
    StopRequested,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    TasksAllocated,
    TimeUp,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Driver
from hpcsweep.errors import ClusterUnavailable, FolderError, SubmitRefused, SubmitUncertain, SupersededError
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Halving, Hyperband
from hpcsweep.store.batch import write_manifest
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.requests import Request, write_request
from tests.doubles import FakeClock, FolderCluster
from tests.driver.sweeps import decided, drive, end_of, events, make_driver, of_kind, undisturbed

# --------------------------------------------------------------------------- whole sweeps


def test_a_hyperband_is_trained_run_by_run_as_in_the_table(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller)
    driver = drive(root, cluster)
    state = driver.state
    created = Counter((e.bracket, e.resource) for e in of_kind(root, TrialCreated))
    promoted = Counter((state.trials[e.trial].bracket, e.resource) for e in of_kind(root, TrialPromoted))
    assert created == {(0, 1): 9, (1, 3): 5, (2, 9): 3}
    assert promoted == {(0, 3): 3, (0, 9): 1, (1, 9): 1}
    assert len(cluster.trained()) == len(set(cluster.trained())) == 22
    assert state.counts == {status: 22 if status is RunStatus.COMPLETED else 0 for status in RunStatus}
    ended = state.ended
    assert ended is not None
    assert (ended.outcome, ended.reason) == (SweepOutcome.FINISHED, "all trials are done")
    assert (state.live, list(state.waiting)) == ({}, [])


def test_promotions_are_of_the_best_of_each_rung(root: Path, controller: Path) -> None:
    state = drive(root, FolderCluster(controller)).state
    first = sorted(range(9), key=lambda trial: abs(state.trials[trial].config["x"] - 0.3))
    assert {trial for trial in range(9) if len(state.trials[trial].runs) > 1} == set(first[:3])
    assert [trial for trial in range(9) if len(state.trials[trial].runs) > 2] == first[:1]
    best = state.best
    assert best is not None
    values = [run.value for trial in state.trials for run in trial.runs if run.resource == 9]
    assert best.value == min(value for value in values if value is not None)


def test_maximising_promotes_the_largest_value(root: Path, controller: Path) -> None:
    scheduler = Halving(max_resource=2, minimise=False)
    state = drive(root, FolderCluster(controller), scheduler=scheduler, minimise=False).state
    first = [trial.runs[0].value or 0.0 for trial in state.trials]
    assert [event.trial for event in of_kind(root, TrialPromoted)] == [first.index(max(first))]


def test_observers_see_the_events_of_the_journal(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller))
    replayed = SweepState.replay(events(root))
    again, journal = make_driver(root, FolderCluster(controller))
    journal.release()
    assert replayed.counts == again.state.counts
    assert replayed.trials == again.state.trials
    assert replayed.best == again.state.best


def test_every_run_failing_ends_the_sweep_as_failed_and_says_why(root: Path, controller: Path) -> None:
    state = drive(root, FolderCluster(controller, objective=lambda config, resource: None)).state
    ended = state.ended
    assert ended is not None
    assert (ended.outcome, ended.reason) == (
        SweepOutcome.FAILED,
        "no run gave a value; the last failure: ValueError: no",
    )
    assert of_kind(root, TrialPromoted) == []
    assert state.counts[RunStatus.FAILED] == 17


def test_a_finished_sweep_that_is_launched_again_does_nothing(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller))
    before = files(root)
    cluster = FolderCluster(controller)
    driver, journal = make_driver(root, cluster)
    assert driver.tick() is False
    journal.release()
    assert (files(root), cluster.polls) == (before, 0)


def test_nothing_is_promoted_before_its_whole_rung_has_ended(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, per_poll=1)
    drive(root, cluster)
    log = events(root)
    for bracket, size in [(0, 9), (1, 5)]:
        state = SweepState()
        for event in log:
            state.apply(event)
            if isinstance(event, TrialPromoted) and event.rung == 1:
                trials = [trial for trial in state.trials if trial.bracket == bracket]
                if state.trials[event.trial].bracket == bracket:
                    assert len(trials) == size
                    assert all(trial.runs[0].status.ended for trial in trials)


# --------------------------------------------------------------------------- batches and the cap


def test_each_rung_of_each_bracket_is_one_array(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller))
    planned = of_kind(root, BatchPlanned)
    assert sorted(len(batch.tasks) for batch in planned) == [1, 1, 3, 3, 5, 9]
    for batch in planned:
        rungs = {(batch.batch, run.rung) for task in batch.tasks for run in task}
        assert len(rungs) == 1


class SlowCluster(FolderCluster):
    """Tasks take a few polls, and only the throttles that it was told of hold.

    Attributes:
        most_running: Most tasks at a time, over all arrays.
    """

    def __init__(self, controller: Path, *, seed: int, **options: Any) -> None:
        super().__init__(controller, **options)
        self.random = Random(seed)
        self.throttles: dict[str, int] = {}
        self.left: dict[TaskId, int] = {}
        self.most_arrays = 0

    def submit(self, batch: Batch) -> str:
        self.throttles[batch.name] = batch.throttle
        return super().submit(batch)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        super().throttle(batch, tasks)
        self.throttles[batch.name] = tasks

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        self.polls += 1
        states: dict[TaskId, TaskState] = {}
        for batch in live:
            tasks = [TaskId(batch.name, task) for task in batch.open_tasks]
            for task in tasks:
                if task in self.left:
                    self.left[task] -= 1
                    if self.left[task] == 0:
                        del self.left[task]
                        self.run(batch, task.task)
            for task in tasks:
                done = (self.controller / batch.name / str(task.task)).exists()
                running = sum(other.batch == batch.name for other in self.left)
                if not done and task not in self.left and running < self.throttles[batch.name]:
                    self.left[task] = self.random.randint(1, 5)
                phase = Phase.RUNNING if task in self.left else Phase.PENDING
                states[task] = TaskState(Phase.COMPLETED if done else phase)
        self.most_running = max(self.most_running, len(self.left))
        self.most_arrays = max(self.most_arrays, len(live))
        return states


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cap", [3, 5])
def test_many_arrays_together_never_run_more_than_the_cap(
    root: Path, controller: Path, seed: int, cap: int
) -> None:
    cluster = SlowCluster(controller, seed=seed, array_tasks=2)
    drive(root, cluster, scheduler=Hyperband(max_resource=27), max_tasks=cap)
    assert cluster.most_running == cap
    assert cluster.most_arrays > 1
    assert min(event.throttle for event in of_kind(root, BatchPlanned, BatchThrottled)) >= 1
    assert len(cluster.trained()) == len(set(cluster.trained())) == 69


def test_free_slots_are_handed_to_the_array_that_can_use_them(root: Path, controller: Path) -> None:
    cluster = SlowCluster(controller, seed=0)
    drive(root, cluster)
    throttled = [(event.batch, event.throttle) for event in of_kind(root, BatchThrottled)]
    assert throttled == cluster.throttled
    assert throttled != []


def test_a_lowered_cap_holds_for_arrays_that_are_there_already(root: Path, controller: Path) -> None:
    cluster = SlowCluster(controller, seed=0)
    driver, journal = make_driver(root, cluster, max_tasks=8)
    driver.tick()
    journal.release()
    assert sum(cluster.throttles.values()) == 8
    driver, journal = make_driver(root, cluster, max_tasks=2)
    driver.tick()
    assert cluster.throttles == {"s-cafe01-1-1": 2}
    while cluster.left:
        driver.tick()
        if len(cluster.left) <= 2:
            break
    cluster.most_running = 0
    driver.run()
    journal.release()
    assert cluster.most_running == 2
    assert decided(events(root)) == undisturbed(root.parent)


def test_arrays_of_larger_tasks_count_with_all_their_gpus(root: Path, controller: Path) -> None:
    cluster = SlowCluster(controller, seed=0)
    driver, journal = make_driver(root, cluster, shape=TaskResources(gpus=2), max_tasks=2)  # 4 GPUs
    driver.tick()
    journal.release()
    driver, journal = make_driver(root, cluster, shape=TaskResources(gpus=1), max_tasks=4)  # 4 GPUs
    driver.tick()
    assert cluster.throttles == {"s-cafe01-1-1": 2}
    driver.run()
    journal.release()
    assert decided(events(root)) == undisturbed(root.parent)


class WholeNodes(SlowCluster):
    """Gives each task a node of 4 GPUs; says so beforehand, or only of tasks that run."""

    foretells = True

    def allocation_of(self, shape: TaskResources) -> TaskAllocation:
        return TaskAllocation(4, 16, "whole nodes") if self.foretells else super().allocation_of(shape)

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        shown = super().poll(live) or {}
        return {
            task: msgspec.structs.replace(state, gpus=4 if state.phase is Phase.RUNNING else None)
            for task, state in shown.items()
        }


def test_cap_on_gpus_counts_what_tasks_will_hold(root: Path, controller: Path) -> None:
    cluster = WholeNodes(controller, seed=0)
    drive(root, cluster, max_tasks=100, max_gpus=11)
    assert cluster.most_running == 2
    assert {(event.gpus, event.gpus_held) for event in of_kind(root, BatchPlanned)} == {(1, 4)}
    assert of_kind(root, TasksAllocated) == []
    assert decided(events(root)) == undisturbed(root.parent)


def test_cap_on_gpus_learns_from_what_running_tasks_were_given(root: Path, controller: Path) -> None:
    cluster = WholeNodes(controller, seed=0)
    cluster.foretells = False
    driver, journal = make_driver(root, cluster, max_tasks=100, max_gpus=8)
    while not of_kind(root, TasksAllocated):
        driver.tick()
    cluster.most_running = 0
    for _ in range(8):  # those that run are not cancelled
        driver.tick()
    cluster.most_running = 0
    driver.run()
    journal.release()
    assert cluster.most_running == 2
    assert {event.gpus for event in of_kind(root, TasksAllocated)} == {4}
    assert decided(events(root)) == undisturbed(root.parent)


def test_sweep_pauses_where_one_task_holds_more_than_the_cap(root: Path, controller: Path) -> None:
    cluster = WholeNodes(controller, seed=0)
    drive(root, cluster, max_tasks=100, max_gpus=3)
    assert end_of(root) == (SweepOutcome.PAUSED, "a task holds 4 GPUs, and cluster.max_gpus is 3: raise it")
    assert cluster.most_running == 0


def test_a_throttle_that_the_cluster_did_not_accept_is_set_again(root: Path, controller: Path) -> None:
    cluster = SlowCluster(controller, seed=0)
    accept = cluster.throttle
    refused = 0

    def flaky(batch: SubmittedBatch, tasks: int) -> None:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise ClusterUnavailable("no answer")
        accept(batch, tasks)

    cluster.throttle = flaky  # type: ignore[method-assign]
    drive(root, cluster)
    assert refused == 3
    assert cluster.throttled != []
    assert cluster.most_running == 4
    assert decided(events(root)) == undisturbed(root.parent)


def test_arrays_are_split_at_the_site_s_limit(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller, array_tasks=4), max_tasks=100)
    sizes = [len(batch.tasks) for batch in of_kind(root, BatchPlanned)]
    assert sizes[:3] == [4, 4, 4]  # 9 + 5 + 3 started at once
    assert max(sizes) == 4
    assert decided(events(root)) == undisturbed(root.parent)


def test_batch_names_are_unique_over_all_sessions(root: Path, controller: Path) -> None:
    ticks(root, lambda: FolderCluster(controller, per_poll=2))
    names = [batch.batch for batch in of_kind(root, BatchPlanned)]
    assert len(names) == len(set(names)) > 5


# --------------------------------------------------------------------------- the same sweep


def ticks(root: Path, make: Callable[[], FolderCluster], **options: Any) -> int:
    """A new driver for each tick, as `--once` does; the number of ticks to the end."""
    clock = FakeClock()
    for count in range(1, 500):
        driver, journal = make_driver(root, make(), clock=clock, **options)
        driver.tick()
        journal.release()
        clock.sleep(1.0)
        if driver.state.ended is not None:
            return count
    raise AssertionError("the sweep does not end")


@pytest.mark.parametrize("per_poll", [1, 2, 5, 1000])
def test_however_fast_results_come_the_decisions_are_the_same(
    root: Path, controller: Path, per_poll: int
) -> None:
    drive(root, FolderCluster(controller, per_poll=per_poll))
    assert decided(events(root)) == undisturbed(root.parent)


@pytest.mark.parametrize("cap", [1, 7, 1000])
def test_however_many_slots_there_are_the_decisions_are_the_same(
    root: Path, controller: Path, cap: int
) -> None:
    drive(root, FolderCluster(controller, per_poll=3), max_tasks=cap)
    assert decided(events(root)) == undisturbed(root.parent)


def test_a_new_driver_for_each_tick_makes_the_same_sweep_in_few_files(root: Path, controller: Path) -> None:
    count = ticks(root, lambda: FolderCluster(controller, per_poll=1))
    assert count > 20
    assert decided(events(root)) == undisturbed(root.parent)
    assert len(os.listdir(Layout(root).journal)) <= 13


def test_another_seed_makes_another_sweep(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller), seed=8)
    other = [event.config for event in of_kind(root, TrialCreated)]
    undisturbed(root.parent)
    same = [event.config for event in of_kind(root.parent / "undisturbed", TrialCreated)]
    assert len(other) == len(same)
    assert all(one not in same for one in other)


# --------------------------------------------------------------------------- budgets


def test_the_budget_of_trials_is_held_and_raising_it_carries_on(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller), max_trials=12)
    assert len(of_kind(root, TrialCreated)) == 12
    assert end_of(root) == (SweepOutcome.FINISHED, "budget.trials 12 is reached")
    assert of_kind(root, TrialsExhausted) == [TrialsExhausted("budget.trials 12 is reached", "budget")]
    first = decided(events(root))

    drive(root, FolderCluster(controller), max_trials=12)  # the same budget: nothing to do
    assert decided(events(root)) == first
    assert of_kind(root, SweepResumed) == []

    drive(root, FolderCluster(controller))
    assert len(of_kind(root, SweepResumed)) == 1
    assert len(of_kind(root, TrialCreated)) == 17  # the bracket cut short is filled, then the next one starts
    assert end_of(root) == (SweepOutcome.FINISHED, "all trials are done")
    assert [event for event in decided(events(root)) if event in first] == first


def test_a_budget_raised_fills_the_bracket_that_it_had_cut_and_opens_none(
    root: Path, controller: Path
) -> None:
    drive(root, FolderCluster(controller), scheduler=Halving(max_resource=8), max_trials=5)
    assert len(of_kind(root, TrialCreated)) == 5
    drive(root, FolderCluster(controller), scheduler=Halving(max_resource=8), max_trials=20)
    assert len(of_kind(root, TrialCreated)) == 8
    completed = Counter(event.rung for event in of_kind(root, RunFinished))
    assert completed == {0: 8, 1: 4, 2: 2, 3: 1}
    first = events(root)
    drive(root, FolderCluster(controller), scheduler=Halving(max_resource=8), max_trials=30)
    assert events(root) == first


def test_the_budget_of_gpu_hours_ends_it_and_raising_it_carries_on(root: Path, controller: Path) -> None:
    capped: dict[str, Any] = {"shape": TaskResources(gpus=1, time_s=60), "max_gpu_s": 100.8}
    drive(root, FolderCluster(controller), **capped)
    spent = sum(event.gpu_seconds for event in of_kind(root, RunFinished))
    # Only what fits with its whole time limit is submitted; these runs are far quicker than theirs.
    assert 40.8 < spent < 78.0
    words = f"budget.gpu_hours 0.028 is used up: {spent / 3600:.4g} are spent"
    assert end_of(root) == (SweepOutcome.FINISHED, f"{words}, and one more task may take 0.01667")
    drive(root, FolderCluster(controller), **capped)
    assert of_kind(root, SweepResumed) == []
    drive(root, FolderCluster(controller))
    assert len(of_kind(root, SweepResumed)) == 1
    assert decided(events(root)) == undisturbed(root.parent)


def test_a_clock_that_jumps_for_seconds_does_not_use_up_the_budget_of_time(
    root: Path, controller: Path
) -> None:
    """Each tick is one of a new driver, as in a detached sweep: none has seen the time pass."""
    cluster, clock = FolderCluster(controller), FakeClock()
    ends = []
    for passed, jump in ((0.0, 0.0), (10.0, 3600.0), (10.0, 0.0), (500.0, 3600.0), (10.0, 0.0), (490.0, 0.0)):
        clock.now += passed + jump
        driver, journal = make_driver(
            root, cluster, clock=clock, max_time_s=1000.0, confirm_s=90.0, max_tasks=1
        )
        driver._submission.run = lambda: None  # type: ignore[method-assign]
        driver.tick()
        ends.append(driver.state.ended)
        journal.release()
        clock.now -= jump
    clock.now += 90.0
    driver, journal = make_driver(root, cluster, clock=clock, max_time_s=1000.0, confirm_s=90.0)
    driver.tick()
    journal.release()
    assert ends == [None] * 6
    assert [event.up for event in of_kind(root, TimeUp)] == [True, False, True, False, True]
    assert of_kind(root, SweepEnded)[0].reason.startswith("no run gave a value; budget.time 1000 s")


def test_the_budget_of_time_ends_it_when_what_runs_has_ended(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, per_poll=1)
    cluster.poll_s = (60.0, 60.0)
    clock = FakeClock()
    drive(root, cluster, clock=clock, max_time_s=100.0)
    assert end_of(root) == (SweepOutcome.FINISHED, "budget.time 100 s is used up")
    assert len(of_kind(root, BatchPlanned)) == 1
    assert len(of_kind(root, RunFinished)) == 9  # nothing that was submitted is thrown away
    drive(root, cluster, clock=clock)
    assert decided(events(root)) == undisturbed(root.parent)


def test_fifo_without_an_end_ends_with_the_budget_of_trials(root: Path, controller: Path) -> None:
    drive(root, FolderCluster(controller), scheduler=Fifo(max_resource=2), max_trials=10)
    assert len(of_kind(root, TrialCreated)) == 10
    assert end_of(root) == (SweepOutcome.FINISHED, "budget.trials 10 is reached")


# --------------------------------------------------------------------------- stopping


def test_a_request_to_stop_cancels_and_ends_and_a_second_launch_carries_on(
    root: Path, controller: Path
) -> None:
    clock = FakeClock()
    cluster = FolderCluster(controller, per_poll=2)
    cluster.poll_s = (1.0, 1.0)
    driver, journal = make_driver(root, cluster, clock=clock)
    driver.tick()
    driver.tick()
    request = write_request(Layout(root), Request("stop", clock.time(), "ada"))
    driver.run()
    journal.release()
    assert end_of(root) == (SweepOutcome.STOPPED, "stopped by ada")
    assert [(e.reason, e.request) for e in of_kind(root, StopRequested)] == [("stopped by ada", request.name)]
    interrupted = of_kind(root, RunInterrupted)
    assert [event.interruption for event in interrupted] == [Interruption.SWEEP_STOPPED] * 5
    assert len(of_kind(root, RunFinished)) == 4  # what had come in until then counts
    assert driver.state.live == {}
    assert len(driver.state.waiting) == 5
    assert os.listdir(Layout(root).control) == []

    drive(root, cluster, clock=clock)
    assert len(of_kind(root, SweepResumed)) == 1
    assert decided(events(root)) == undisturbed(root.parent)
    assert all(run.faults_without_progress == 0 for trial in driver.state.trials for run in trial.runs)


def test_a_cluster_that_cannot_cancel_now_is_asked_again(root: Path, controller: Path) -> None:
    clock = FakeClock()
    cluster = FolderCluster(controller, per_poll=0)
    cluster.poll_s = (1.0, 1.0)
    accept = cluster.cancel
    asked = 0

    def flaky(batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ClusterUnavailable("no answer")
        accept(batch, tasks)

    cluster.cancel = flaky  # type: ignore[method-assign]
    driver, journal = make_driver(root, cluster, clock=clock)
    driver.tick()
    write_request(Layout(root), Request("stop", clock.time(), "ada"))
    driver.run()
    journal.release()
    assert end_of(root) == (SweepOutcome.STOPPED, "stopped by ada")
    assert asked >= 3


# --------------------------------------------------------------------------- submitting


class Refusing(FolderCluster):
    """Raises what it is given instead of accepting, or after it has accepted."""

    settle_s = 30.0
    poll_s = (1.0, 1.0)

    def __init__(self, controller: Path, *errors: Exception, accepts: bool = False, **options: Any) -> None:
        super().__init__(controller, **options)
        self.errors = list(errors)
        self.accepts = accepts
        self.submissions = 0
        self.unavailable = 0

    def submit(self, batch: Batch) -> str:
        self.submissions += 1
        if not self.errors:
            return super().submit(batch)
        (batch.folder / "script.sbatch").write_bytes(b"#!/bin/sh\n")
        if self.accepts:
            super().submit(batch)
        raise self.errors.pop(0)

    def find(self, name: str) -> str | None:
        if self.unavailable:
            self.unavailable -= 1
            raise ClusterUnavailable("no answer")
        return super().find(name)


def test_a_refusal_is_raised_with_the_cluster_s_message_and_leaves_the_sweep_resumable(
    root: Path, controller: Path
) -> None:
    words = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    cluster = Refusing(controller, SubmitRefused(words), array_tasks=3)
    driver, journal = make_driver(root, cluster, max_tasks=100)
    with pytest.raises(SubmitRefused, match=words):
        driver.run()
    journal.release()
    assert cluster.submissions == 1
    planned = [event.batch for event in of_kind(root, BatchPlanned)]
    assert len(planned) > 1
    assert of_kind(root, BatchAbandoned) == [BatchAbandoned(name, words) for name in planned]
    assert [(Layout(root).batch(name).abandoned_marker).read_text() for name in planned] == [words] * len(
        planned
    )
    assert driver.state.live == {}
    assert (len(driver.state.waiting), driver.state.ended) == (17, None)

    drive(root, cluster, max_tasks=100)
    assert len(cluster.trained()) == len(set(cluster.trained())) == 22
    assert decided(events(root)) == undisturbed(root.parent)


def test_a_full_disk_is_a_clear_error_and_the_next_launch_continues(
    root: Path, controller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("hpcsweep.driver.effects.write_manifest", full)
        with pytest.raises(FolderError, match="No space left on device"):
            drive(root, FolderCluster(controller))
    drive(root, FolderCluster(controller))
    assert decided(events(root)) == undisturbed(root.parent)


def test_a_damaged_result_file_is_no_result_and_its_run_is_repeated(root: Path, controller: Path) -> None:
    class Damaging(FolderCluster):
        poll_s = (1.0, 1.0)

        def run(self, batch: SubmittedBatch, task: int) -> None:
            super().run(batch, task)
            if not damaged:
                damaged.append(path := BatchLayout(batch.folder).result(task, 0, 0))
                path.write_bytes(b"")

    damaged: list[Path] = []
    cluster = Damaging(controller)
    drive(root, cluster)
    assert decided(events(root)) == undisturbed(root.parent)
    assert sorted(Counter(cluster.trained()).values()) == [*[1] * 21, 2]


def test_a_refusal_keeps_the_arrays_that_were_accepted_before_it(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, array_tasks=4)
    accept = cluster.submit

    def second_refused(batch: Batch) -> str:
        if batch.name.endswith("-2"):
            raise SubmitRefused("too many jobs")
        return accept(batch)

    cluster.submit = second_refused  # type: ignore[method-assign]
    driver, journal = make_driver(root, cluster, max_tasks=100)
    with pytest.raises(SubmitRefused):
        driver.tick()
    journal.release()
    assert list(driver.state.live) == ["s-cafe01-1-1"]
    assert len(driver.state.waiting) == 13


@pytest.mark.parametrize("error", [SubmitUncertain("timed out"), ClusterUnavailable("no answer")])
def test_a_submission_without_an_answer_is_found_by_its_name(
    root: Path, controller: Path, error: Exception
) -> None:
    cluster = Refusing(controller, error, accepts=True)
    driver, journal = make_driver(root, cluster)
    driver.tick()
    (batch,) = driver.state.live.values()
    assert batch.job is None
    driver.tick()
    journal.release()
    first = of_kind(root, BatchSubmitted)[0]
    assert (first.batch, first.job) == (batch.name, f"job-{batch.name}")
    drive(root, cluster)
    assert of_kind(root, BatchAbandoned) == []
    assert len(cluster.trained()) == len(set(cluster.trained())) == 22
    assert decided(events(root)) == undisturbed(root.parent)


def test_a_submission_that_never_arrived_is_fenced_off_and_submitted_anew(
    root: Path, controller: Path
) -> None:
    clock = FakeClock()
    cluster = Refusing(controller, SubmitUncertain("timed out"))
    driver, journal = make_driver(root, cluster, clock=clock)
    driver.tick()
    (name,) = driver.state.live
    void = Layout(root).batch(name).abandoned_marker
    cluster.unavailable = 3
    for seconds in (10.0, 10.0, 50.0):  # no answer is no empty answer, however late
        clock.sleep(seconds)
        driver.tick()
    assert (list(driver.state.live), void.exists()) == ([name], False)
    driver.tick()  # a first empty answer
    assert (list(driver.state.live), void.exists()) == ([name], False)
    driver.tick()  # a second one, and it is late enough
    reason = "it never reached the cluster; the answer was: timed out"
    assert void.read_text() == reason
    assert of_kind(root, BatchAbandoned) == [BatchAbandoned(name, reason)]
    assert name not in driver.state.live
    driver.run()
    journal.release()
    assert len(cluster.trained()) == len(set(cluster.trained())) == 22
    assert decided(events(root)) == undisturbed(root.parent)


def test_a_submission_may_still_turn_up_for_as_long_as_the_cluster_needs(
    root: Path, controller: Path
) -> None:
    clock = FakeClock()
    cluster = Refusing(controller, SubmitUncertain("timed out"))
    driver, journal = make_driver(root, cluster, clock=clock)
    driver.tick()
    (name,) = driver.state.live
    for _ in range(29):
        clock.sleep(1.0)
        driver.tick()
    assert list(driver.state.live) == [name]
    (controller / name).mkdir()  # the queue was slow
    driver.tick()
    journal.release()
    assert driver.state.live[name].job == f"job-{name}"
    assert of_kind(root, BatchAbandoned) == []


def test_a_task_of_an_abandoned_batch_that_starts_all_the_same_leaves(root: Path, controller: Path) -> None:
    cluster = Refusing(controller, SubmitUncertain("timed out"))
    cluster.settle_s = 0.0
    driver, journal = make_driver(root, cluster)
    for _ in range(3):
        driver.tick()
    (abandoned,) = of_kind(root, BatchAbandoned)
    folder = Layout(root).batch(abandoned.batch).root
    (controller / abandoned.batch).mkdir()
    cluster.run(SubmittedBatch(abandoned.batch, "1", folder, 9, 4, TaskResources(gpus=1), range(9)), 0)
    driver.run()
    journal.release()
    assert not Layout(root).batch(abandoned.batch).results.exists()
    assert len(cluster.trained()) == len(set(cluster.trained())) == 22


def test_a_driver_that_was_superseded_submits_nothing(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller)
    driver, journal = make_driver(root, cluster)
    (Layout(root).journal / "000002.jsonl").touch()
    with pytest.raises(SupersededError):
        driver.tick()
    journal.release()
    assert cluster.batches() == []


def test_a_driver_that_is_superseded_between_plan_and_submission_submits_nothing(
    root: Path, controller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FolderCluster(controller)
    driver, journal = make_driver(root, cluster)

    def slow(*args: Any) -> None:
        write_manifest(*args)
        (Layout(root).journal / "000002.jsonl").touch()

    monkeypatch.setattr("hpcsweep.driver.effects.write_manifest", slow)
    with pytest.raises(SupersededError):
        driver.tick()
    journal.release()
    assert len(of_kind(root, BatchPlanned)) == 1
    assert cluster.batches() == []


# --------------------------------------------------------------------------- the cost of a tick


def files(root: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(root.rglob("*")):
        stat = path.stat()
        found[str(path.relative_to(root))] = (stat.st_size, stat.st_mtime_ns)
    return found


def test_a_tick_that_changes_nothing_writes_nothing(root: Path, controller: Path) -> None:
    cluster = FolderCluster(controller, per_poll=2)
    driver, journal = make_driver(root, cluster)
    driver.tick()
    driver.tick()
    cluster.per_poll = 0
    driver.tick()
    before = files(root)
    assert [driver.tick() for _ in range(3)] == [False, False, False]
    assert files(root) == before
    journal.release()
    after = files(root)
    again, journal = make_driver(root, cluster)  # nor does a new driver that finds nothing new
    assert again.tick() is False
    journal.release()
    assert files(root) == after


class Watch:
    """What a driver does to files below a folder, other than through its cluster."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[tuple[str, str]] = []
        self.on = False
        for name in ("stat", "lstat", "listdir", "scandir", "open", "access"):
            patch.setattr(os, name, self._around(name, getattr(os, name)))
        patch.setattr(io, "open", self._around("open", io.open))
        patch.setattr(builtins, "open", self._around("open", builtins.open))

    def _around(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if self.on and isinstance(path, str | os.PathLike) and str(path).startswith(str(self.root)):
                self.calls.append((name, os.path.relpath(path, self.root)))
            return operation(path, *args, **kwargs)

        return wrapped

    def tick(self, driver: Driver) -> list[tuple[str, str]]:
        self.calls = []
        self.on = True
        try:
            driver.tick()
        finally:
            self.on = False
        return sorted(self.calls)


def test_a_quiet_tick_costs_one_poll_and_one_readdir_for_each_live_batch(
    root: Path, controller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FolderCluster(controller, per_poll=4, array_tasks=4)
    scheduler = Fifo(max_resource=1, trials=40)
    driver, journal = make_driver(root, cluster, scheduler=scheduler, max_tasks=12)
    watch = Watch(root, monkeypatch)
    quiet = []
    for _ in range(5):  # the same after few finished trials as after many
        driver.tick()
        cluster.per_poll = 0
        driver.tick()
        polls = cluster.polls
        calls = watch.tick(driver)
        assert cluster.polls == polls + 1
        live = sorted(("scandir", f"batches/{name}/results") for name in driver.state.live)
        assert calls == sorted([*live, ("scandir", "control")])
        quiet.append((len(live), driver.state.counts[RunStatus.COMPLETED]))
        cluster.per_poll = 4
    journal.release()
    assert [done for _, done in quiet] == sorted({done for _, done in quiet})
    assert max(live for live, _ in quiet) >= 3


def test_only_new_result_files_are_opened_and_each_once(
    root: Path, controller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FolderCluster(controller, per_poll=3)
    driver, journal = make_driver(root, cluster, scheduler=Halving(max_resource=8, rounds=2))
    watch = Watch(root, monkeypatch)
    opened: list[str] = []
    while driver.state.ended is None:
        watch.calls = []
        polls = cluster.polls
        run = cluster.run

        def unwatched(batch: SubmittedBatch, task: int, run: Callable[..., None] = run) -> None:
            watch.on = False
            run(batch, task)
            watch.on = True

        cluster.run = unwatched  # type: ignore[method-assign]
        calls = watch.tick(driver)
        cluster.run = run  # type: ignore[method-assign]
        assert cluster.polls <= polls + 1
        opened += [path for name, path in calls if name == "open" and "/results/" in path]
        assert [path for _, path in calls if path.startswith("trials")] == []
        assert not any(name in ("stat", "lstat", "access") and "/results" in path for name, path in calls)
        listed = Counter(path for name, path in calls if name in ("listdir", "scandir"))
        assert {count for path, count in listed.items() if "results" in path} <= {1}
    journal.release()
    assert len(opened) == len(set(opened)) == 30


def test_the_time_between_ticks_grows_while_nothing_happens_and_falls_when_something_does(
    root: Path, controller: Path
) -> None:
    slept: list[float] = []

    class Clock(FakeClock):
        def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            super().sleep(seconds)
            cluster.per_poll = 1_000_000 if len(slept) == 4 else 0
            if len(slept) == 6:
                raise KeyboardInterrupt

    cluster = FolderCluster(controller, per_poll=0)
    cluster.poll_s = (4.0, 10.0)
    driver, journal = make_driver(root, cluster, clock=Clock())
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    journal.release()
    assert slept == [4.0, 6.0, 9.0, 10.0, 10.0, 4.0]
