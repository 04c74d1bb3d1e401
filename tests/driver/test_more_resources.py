"""A run that was given too little memory or time is tried again with more, and that ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import Phase, TaskResources, TaskState
from hpcsweep.core.domains import Int
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.core.learned import LEAST
from hpcsweep.core.models import RunStatus
from hpcsweep.core.run_resources import MOST_GUESSES, Learned, MemorySteps, RunResources
from hpcsweep.core.space import Parameter, Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.shapes import RunShapes
from tests.driver.test_monitor import GRACE_S, SETTINGS, Watched

RUN = RunId(0, 0)
OVER: dict[str, Any] = {
    "outcome": Outcome.OUT_OF_MEMORY,
    "host_memory": True,
    "message": "its processes held 312 MiB, more than the 200 MiB of the run",
    "peak_mib": 312,
}


def watch(resources: RunResources, **changes: Any) -> Watched:
    """A sweep with one run, in no batch yet."""
    watched = Watched()
    watched.settings = msgspec.structs.replace(SETTINGS, resources=resources, **changes)
    watched.restart()
    watched.state.apply(BatchClosed("b1"))
    watched.state.apply(RunInterrupted(0, 0, Interruption.NOT_STARTED, batch="b1"))
    return watched


def submit(watched: Watched, mem_mib: int | None = None, time_s: int = 60) -> None:
    watched.batches += 1
    planned = BatchPlanned(watched.name, watched.now, ((RUN,),), 1, 4, time_s=time_s, mem_mib=mem_mib)
    watched.state.apply(planned)
    watched.state.apply(BatchSubmitted(watched.name, "4711", watched.now))


def test_out_of_memory_is_tried_again_until_the_most_was_too_little() -> None:
    watched = watch(RunResources(mem_mib=MemorySteps(100, 400)))
    ends: list[Any] = []
    for mem_mib in (100, 200, 400):
        submit(watched, mem_mib)
        watched.shows(None)
        watched.writes(**OVER, step=2, progressed=True)
        ends.append(watched.observe()[0])
    again: dict[str, Any] = {"start": 0, "started": 7.0, "step": 2}
    again |= {"message": OVER["message"], "peak_mib": 312}
    assert ends == [
        RunInterrupted(
            *(0, 0, Interruption.OUT_OF_MEMORY),
            attempt=n + 1,
            batch=f"b{n + 2}",
            mem_mib=100 << n,
            progressed=True,
            **again,
        )
        for n in range(2)
    ] + [RunFinished(0, 0, Outcome.OUT_OF_MEMORY, attempt=3, batch="b4", **again)]
    run = watched.state.run(RUN)
    assert (run.lacked_mib, run.errors, run.faults_without_progress) == (200, 0, 0)


@pytest.mark.parametrize(
    ("resources", "mem_mib", "fields"),
    [
        (RunResources(mem_mib=100), 100, OVER),
        (RunResources(mem_mib=MemorySteps(100, 400)), 100, OVER | {"host_memory": False}),
        (RunResources(mem_mib=MemorySteps(100, 400)), None, OVER),
    ],
    ids=["no more is allowed", "of a GPU", "of the cluster's default"],
)
def test_out_of_memory_ends_a_run_that_more_would_not_help(
    resources: RunResources, mem_mib: int | None, fields: dict[str, Any]
) -> None:
    watched = watch(resources)
    submit(watched, mem_mib)
    watched.shows(None)
    watched.writes(**fields)
    watched.observe()
    assert watched.status is RunStatus.FAILED


def test_a_run_that_is_given_no_more_than_before_is_not_tried_for_ever() -> None:
    watched = watch(RunResources(mem_mib=MemorySteps(100, 400)))
    for _ in range(2):
        submit(watched, 100)
        watched.shows(None)
        watched.writes(**OVER)
        watched.observe()
    assert watched.status is RunStatus.FAILED


def test_a_task_that_was_killed_for_memory_without_a_result_counts_for_its_run() -> None:
    watched = watch(RunResources(mem_mib=MemorySteps(100, 400)))
    submit(watched, 100)
    watched.says = {0: TaskState(Phase.OUT_OF_MEMORY, node="n1", seconds=2.0)}
    watched.observe()
    event, *_ = watched.observe(GRACE_S)
    assert isinstance(event, RunInterrupted)
    assert (event.interruption, event.mem_mib) == (Interruption.OUT_OF_MEMORY, 100)
    assert watched.state.run(RUN).lacked_mib == 100


def test_memory_that_was_learned_and_too_little_is_asked_for_no_more() -> None:
    watched = watch(RunResources(mem_mib=Learned()))
    submit(watched, 300)
    watched.shows(None)
    watched.writes(**OVER)
    watched.observe()
    assert (watched.status, watched.state.run(RUN).lacked_mib) == (RunStatus.WAITING, 300)
    submit(watched)  # by the cluster's default
    watched.shows(None)
    watched.writes(**OVER)
    watched.observe()
    assert watched.status is RunStatus.FAILED


@pytest.mark.parametrize("first_s", [3600, None])
def test_guessed_time_limits_count_against_nothing_and_are_few(first_s: int | None) -> None:
    watched = watch(RunResources(time_s=Learned(first_s)), max_timeouts=0)
    for _ in range(MOST_GUESSES):
        submit(watched, time_s=600)
        watched.shows(Phase.TIMEOUT)
        watched.writes(interrupted=Interruption.TIMEOUT)
        event, *_ = watched.observe()
        assert isinstance(event, RunInterrupted)
        assert event.guessed
    run = watched.state.run(RUN)
    assert (run.short_guesses, run.timeouts, run.idle_timeouts) == (MOST_GUESSES, 0, 0)
    assert run.faults_without_progress == 0
    submit(watched, time_s=3600)  # the first limit, or the cluster's default
    watched.shows(Phase.TIMEOUT)
    watched.writes(interrupted=Interruption.TIMEOUT)
    assert isinstance(watched.observe()[0], RunFinished), "that was no guess"


def test_time_outs_without_progress_are_counted_however_far_apart() -> None:
    watched = watch(RunResources())
    for progressed in (False, True, False):
        submit(watched)
        watched.shows(Phase.TIMEOUT)
        watched.writes(interrupted=Interruption.TIMEOUT, progressed=progressed)
        watched.observe()
    run = watched.state.run(RUN)
    assert (run.idle_timeouts, run.timeouts, run.faults_without_progress) == (2, 3, 1)


def test_runs_ask_for_what_others_used_and_only_what_changed_is_computed_again() -> None:
    space = Space((Parameter("width", Int(64, 4096, log=True)),))
    resources = RunResources(time_s=Learned(86400), mem_mib=Learned(65536))
    settings = msgspec.structs.replace(SETTINGS, resources=resources)
    state = SweepState()
    shapes = RunShapes(state, space, settings=settings, granted=lambda needs: needs)

    def apply(*events: AnyEvent) -> None:
        for event in events:
            state.apply(event)
            shapes.apply(event)

    apply(SweepStarted("cafe01", "s", 0.0, {}))
    for trial in range(LEAST + 1):
        apply(TrialCreated(trial, {"width": 64 << trial % 6}, 0, 9))
    waiting = RunId(LEAST, 0)
    assert shapes.of(waiting) == TaskResources(mem_mib=65536, time_s=86400)
    for trial in range(LEAST):
        used: dict[str, Any] = {"seconds": 900.0, "started": 1.0, "peak_mib": 1000}
        apply(RunFinished(trial, 0, Outcome.COMPLETED, 0.5, 9, **used))
    asked = TaskResources(mem_mib=1200 + 128, time_s=990 + 55)
    assert shapes.of(waiting) == asked
    assert shapes.of(waiting) is shapes.of(waiting)
    apply(RunInterrupted(*waiting, Interruption.OUT_OF_MEMORY, mem_mib=1328))
    assert shapes.of(waiting) == TaskResources(mem_mib=65536, time_s=990 + 55)


def test_what_tasks_need_beside_their_runs_is_learned_from_limits_that_were_too_short() -> None:
    settings = msgspec.structs.replace(SETTINGS, resources=RunResources(time_s=Learned(86400)))
    state = SweepState()
    shapes = RunShapes(state, Space(()), settings=settings, granted=lambda needs: needs)

    def apply(*events: AnyEvent) -> None:
        for event in events:
            state.apply(event)
            shapes.apply(event)

    apply(SweepStarted("cafe01", "s", 0.0, {}))
    for trial in range(LEAST + 2):
        apply(TrialCreated(trial, {}, 0, 9))
    for trial in range(LEAST):
        apply(RunFinished(trial, 0, Outcome.COMPLETED, 0.5, 9, seconds=900.0, started=1.0))
    waiting, late = RunId(LEAST, 0), RunId(LEAST + 1, 0)
    assert shapes.of(waiting).time_s == 990 + 55
    apply(BatchPlanned("s-1", 0.0, ((late,),), gpus=1, throttle=1, time_s=1080))
    apply(RunInterrupted(*late, Interruption.TIMEOUT, batch="s-1", guessed=True, seconds=725.0))
    set_up_s = 1080 - 55 - 725
    assert shapes.of(waiting).time_s == 990 + 55 + set_up_s
