"""What is cancelled, stopped and released, and that it is done once."""

from __future__ import annotations

from hpcsweep.core.cluster_protocol import BlockKind, Phase, TaskId, TaskState
from hpcsweep.core.events import (
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    StopRequested,
    TrialStopped,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver.effects import Cancel, Effect, EffectResult, Release, StopRun
from hpcsweep.driver.job_control import Cancellations
from hpcsweep.driver.live_batches import IMPOSSIBLE_AFTER_S
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observation
from hpcsweep.errors import ClusterUnavailable
from tests.driver.states import monitor_of, shown, submitted, sweep_of

DONE = EffectResult()
FAILED = EffectResult(error=ClusterUnavailable("no answer"))


def watched(*tasks: tuple[int, ...]) -> tuple[SweepState, JobMonitor, Cancellations]:
    """A sweep with one batch of these tasks."""
    trials = 1 + max(trial for task in tasks for trial in task)
    state = sweep_of(trials, *submitted("b1", *tasks))
    monitor = monitor_of(state)
    return state, monitor, Cancellations(state, monitor)


def test_tasks_of_stopped_trials_are_cancelled_once_the_cluster_took_it() -> None:
    state, monitor, cancellations = watched((0,), (1,), (2,))
    shown(monitor, {("b1", 0): Phase.RUNNING, ("b1", 1): Phase.PENDING, ("b1", 2): Phase.RUNNING})
    assert cancellations.tasks_to_cancel() == []
    for trial in (0, 1):
        state.apply(TrialStopped(trial, "median"))
    effects: list[Effect] = [Cancel("b1", (0,)), Cancel("b1", (1,))]
    assert cancellations.tasks_to_cancel() == effects
    cancellations.note(effects[0], DONE)
    cancellations.note(effects[1], FAILED)
    assert cancellations.tasks_to_cancel() == [effects[1]]


def test_in_a_task_with_wanted_runs_the_others_are_stopped_one_by_one() -> None:
    state, monitor, cancellations = watched((0, 1, 2))
    shown(monitor, {("b1", 0): Phase.RUNNING})
    state.apply(TrialStopped(1, "median"))
    stop = StopRun("b1", RunId(1, 0))
    assert cancellations.tasks_to_cancel() == [stop]
    cancellations.note(stop, DONE)
    assert cancellations.tasks_to_cancel() == []
    for trial in (0, 2):
        state.apply(TrialStopped(trial, "median"))
    assert cancellations.tasks_to_cancel() == [Cancel("b1", (0,))]


def test_a_task_whose_runs_have_ended_is_cancelled_only_where_it_would_start_again() -> None:
    state, monitor, cancellations = watched((0,))
    shown(monitor, {("b1", 0): Phase.RUNNING})
    state.apply(RunFinished(0, 0, Outcome.LOST, batch="b1"))
    assert cancellations.tasks_to_cancel() == [], "it leaves by itself"
    shown(monitor, {("b1", 0): Phase.PENDING})
    assert cancellations.tasks_to_cancel() == [Cancel("b1", (0,))]


def test_a_pause_for_early_failures_cancels_what_has_not_started_once() -> None:
    _, monitor, cancellations = watched((0,), (1,), (2,))
    shown(monitor, {("b1", 0): Phase.RUNNING, ("b1", 1): Phase.PENDING, ("b1", 2): Phase.PENDING})
    cancel = Cancel("b1", (1, 2), pending=True)
    assert cancellations.pending_to_cancel() == [cancel]
    cancellations.note(cancel, FAILED)
    assert cancellations.pending_to_cancel() == [cancel]
    cancellations.note(cancel, DONE)
    assert cancellations.pending_to_cancel() == []


def test_a_stop_cancels_all_open_tasks_as_often_as_it_is_asked() -> None:
    state, monitor, cancellations = watched((0,), (1,))
    cancel = Cancel("b1", (0, 1))
    for _ in range(2):
        assert cancellations.all_to_cancel() == [cancel]
        cancellations.note(cancel, DONE)
    for trial in (0, 1):
        state.apply(RunFinished(trial, 0, Outcome.LOST, batch="b1"))
    for event in shown(monitor, {}):
        state.apply(event)
    assert cancellations.all_to_cancel() == []


def held(monitor: JobMonitor, state: SweepState, kind: BlockKind, *, at: float) -> None:
    tasks = {TaskId("b1", 0): TaskState(Phase.PENDING, "BadConstraints", block=kind)}
    for event in monitor.observe(Observation(at, {}, tasks)):
        state.apply(event)


def test_tasks_that_the_cluster_holds_are_released() -> None:
    state, monitor, cancellations = watched((0,))
    held(monitor, state, BlockKind.HELD, at=2.0)
    assert cancellations.tasks_to_release() == [Release("b1", (0,))]


def test_tasks_that_can_never_start_pause_the_sweep_and_are_cancelled() -> None:
    state, monitor, cancellations = watched((0,))
    for at in (2.0, 40.0, 2.0 + IMPOSSIBLE_AFTER_S):
        assert cancellations.pause(now=at) == []
        held(monitor, state, BlockKind.IMPOSSIBLE, at=at)
    assert cancellations.impossible_to_cancel() == [Cancel("b1", (0,))]
    reason = "its jobs can never start (1 task: BadConstraints): fix the spec, then launch again"
    assert cancellations.pause(now=9.0) == [PauseRequested(9.0, reason)]
    state.apply(StopRequested(9.0, "stopped by ada"))
    assert cancellations.pause(now=9.0) == [], "it ends anyway"
