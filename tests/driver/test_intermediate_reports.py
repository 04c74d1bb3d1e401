"""Runs that are watched and stopped on the way, through the whole driver; and clones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.cluster_protocol import Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import (
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunReported,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver.observer import MetricsPoller
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.pbt import PBT
from hpcsweep.schedulers.stopping_rules import Median, Plateau, WithStoppingRules
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.store.batch import Result, read_task, write_result
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import BatchLayout, Layout, Skipped
from hpcsweep.store.run_files import MetricsWriter
from tests.doubles import PROGRAM, FolderCluster
from tests.driver.sweeps import SPACE, STARTED, decided, drive, make_driver, of_kind


class Stepping(FolderCluster):
    """Each running task trains one step between two polls and reports it.

    The curve is `x + 1 / step`; a run that is cancelled leaves a result as an interrupted one does,
    unless `silent`, and `deaf` ones run on.
    """

    poll_s = (1.0, 1.0)
    silent = False
    deaf = False

    def __init__(self, controller: Path) -> None:
        super().__init__(controller)
        self.steps: dict[TaskId, int] = {}
        self.cancelled: list[TaskId] = []

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        states = {}
        for batch in live:
            running = 0
            for task in batch.open_tasks:
                key = TaskId(batch.name, task)
                done = (self.controller / batch.name / str(task)).exists()
                if done or running == batch.throttle:
                    states[key] = TaskState(Phase.COMPLETED if done else Phase.PENDING)
                    continue
                running += 1
                states[key] = TaskState(Phase.RUNNING)
                self.train(batch, task, key)
        return states

    def train(self, batch: SubmittedBatch, task: int, key: TaskId) -> None:
        """One step of the task's run; its result if that was the last one."""
        files = BatchLayout(batch.folder)
        _, found = read_task(files, task)
        (run,) = found.runs
        step = self.steps[key] = self.steps.get(key, 0) + 1
        value = run.config["x"] + 1 / step
        writer = MetricsWriter(Layout.of_batch(files.root).trial(run.trial).metrics(run.rung, run.attempt, 0))
        writer.write(step, {"loss": value, "other": 0.0})
        writer.close()
        if step >= run.resource:
            self.objective = lambda config, resource: config["x"] + 1 / resource
            write_result(files, self.result(run, task, 1), n=0)
            (self.controller / batch.name / str(task)).touch()

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        if self.deaf:
            return
        for task in tasks:
            key = TaskId(batch.name, task)
            self.cancelled.append(key)
            files = BatchLayout(batch.folder)
            _, found = read_task(files, task)
            (run,) = found.runs
            if not self.silent:
                told = Result(
                    run.trial, run.rung, run.attempt, 0, task, interrupted=Interruption.CANCELLED, step=99
                )
                write_result(files, told, n=0)
        super().cancel(batch, tasks)


def fifo_with_plateau(trials: int = 4) -> WithStoppingRules:
    """Stops where 1 / step falls by no more than 0.1 for two reports: at step 6 of 20."""
    rule = Plateau(patience=2, min_delta=0.1)
    return WithStoppingRules(Fifo(max_resource=20, trials=trials), rules=[rule])


@pytest.mark.parametrize("silent", [False, True])
def test_a_stopped_run_keeps_its_last_reported_value_at_the_step_that_it_reached(
    root: Path, controller: Path, silent: bool
) -> None:
    cluster = Stepping(controller)
    cluster.silent = silent
    driver = drive(root, cluster, scheduler=fifo_with_plateau())
    stopped = of_kind(root, TrialStopped)
    assert sorted(event.trial for event in stopped) == [0, 1, 2, 3]
    assert all(event.reason.startswith("plateau: at step ") for event in stopped)
    finished = of_kind(root, RunFinished)
    assert {event.outcome for event in finished} == {Outcome.STOPPED}
    for event in finished:
        x = driver.state.trials[event.trial].config["x"]
        assert event.value == pytest.approx(x + 1 / event.step)
        assert event.step < 10
    assert len(cluster.cancelled) == 4
    best = driver.state.best
    assert best is not None
    assert best.resource == finished[0].step


def test_each_report_is_in_the_journal_once(root: Path, controller: Path) -> None:
    drive(root, Stepping(controller), scheduler=fifo_with_plateau())
    steps: dict[int, list[int]] = {}
    for event in of_kind(root, RunReported):
        steps.setdefault(event.trial, []).extend(step for step, _ in event.reports)
    assert set(steps) == {0, 1, 2, 3}
    for found in steps.values():
        assert found == list(range(1, len(found) + 1))


def test_a_run_that_completes_while_it_is_being_stopped_counts_as_stopped(
    root: Path, controller: Path
) -> None:
    cluster = Stepping(controller)
    cluster.deaf = True
    drive(root, cluster, scheduler=fifo_with_plateau(2))
    finished = of_kind(root, RunFinished)
    assert [(event.outcome, event.step) for event in finished] == [(Outcome.STOPPED, 20)] * 2


def test_reports_between_the_last_tick_and_the_end_are_read(root: Path, controller: Path) -> None:
    """All steps of a run happen between two ticks: the median of completed runs knows them."""

    class Quick(Stepping):
        def train(self, batch: SubmittedBatch, task: int, key: TaskId) -> None:
            for _ in range(20):
                super().train(batch, task, key)

    drive(
        root,
        Quick(controller),
        scheduler=WithStoppingRules(Fifo(max_resource=20, trials=3), rules=[Median(min_trials=1)]),
    )
    reported = {event.trial: [step for step, _ in event.reports] for event in of_kind(root, RunReported)}
    assert reported == {trial: list(range(1, 21)) for trial in range(3)}


@pytest.mark.parametrize(("mode", "expected"), [("min", [4.0, 2.0, 2.0]), ("max", [5.0, 5.0, 6.0])])
def test_with_at_best_each_report_is_the_best_so_far(
    tmp_path: Path, mode: str, expected: list[float]
) -> None:
    state = SweepState.replay([STARTED, TrialCreated(0, {"x": 0.5}, 0, 1)])
    state.apply(RunFinished(0, 0, Outcome.COMPLETED, value=5.0 if mode == "max" else 9.0))
    state.apply(TrialPromoted(0, 1, 9))
    state.run(RunId(0, 1)).submissions = 1
    layout = Layout(tmp_path)
    writer = MetricsWriter(layout.trial(0).metrics(1, 0, 0))
    for step, value in ((2, 4.0), (3, 2.0), (4, 6.0)):
        writer.write(step, {"loss": value})
    writer.close()
    program = msgspec.structs.replace(PROGRAM, mode=mode, at="best")
    (event,) = MetricsPoller(state, layout=layout, program=program, skipped=Skipped()).running([RunId(0, 1)])
    assert event == RunReported(0, 1, tuple(zip((2, 3, 4), expected, strict=True)))


def test_metrics_are_not_read_for_a_scheduler_that_needs_no_reports(
    root: Path, controller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("read a metrics file")

    monkeypatch.setattr("hpcsweep.driver.observer.read_reports", refuse)
    drive(root, Stepping(controller), scheduler=Fifo(max_resource=3, trials=3))
    assert of_kind(root, RunReported) == []


@pytest.mark.parametrize("kind", ["plateau", "median", "asha", "hyperband"])
def test_a_new_driver_for_each_tick_stops_the_same_runs(root: Path, tmp_path: Path, kind: str) -> None:
    def scheduler() -> Any:
        match kind:
            case "plateau":
                return fifo_with_plateau()
            case "median":
                return WithStoppingRules(Fifo(max_resource=9, trials=9), rules=[Median(min_trials=2)])
            case "asha":
                return ASHA(max_resource=9, trials=9, stopping=True)
            case _:
                return WithStoppingRules(Hyperband(max_resource=9), rules=[Median(min_trials=2)])

    def sweep(name: str, *, one_driver: bool) -> tuple[list[Any], list[Any]]:
        folder, cluster = tmp_path / name, Stepping(tmp_path / f"{name} controller")
        if one_driver:
            drive(folder, cluster, scheduler=scheduler())
        ended = one_driver
        while not ended:
            driver, journal = make_driver(folder, cluster, scheduler=scheduler())
            driver.tick()
            ended = driver.state.ended is not None
            journal.release()
        return of_kind(folder, TrialStopped), decided(read_journal(Layout(folder)).events)

    found = sweep("one", one_driver=True)
    assert found == sweep("many", one_driver=False)
    assert found[0], "something was stopped"


def test_a_stopped_trial_is_never_promoted(root: Path, controller: Path) -> None:
    scheduler = WithStoppingRules(Hyperband(max_resource=9, iterations=2), rules=[Median(min_trials=2)])
    drive(root, Stepping(controller), scheduler=scheduler)
    stopped = {event.trial: index for index, event in enumerate(of_kind(root, TrialStopped))}
    assert stopped
    events = read_journal(Layout(root)).events
    for position, event in enumerate(events):
        if isinstance(event, TrialStopped):
            later = [e for e in events[position:] if isinstance(e, TrialPromoted) and e.trial == event.trial]
            assert later == []


def test_clones_start_from_their_donors_and_donors_keep_what_clones_need(
    root: Path, controller: Path
) -> None:
    scheduler = PBT(population=8, interval=2, max_resource=8, space=SPACE, seed=3)
    started = SweepStarted("cafe01", "s", 1_000_000.0, STARTED.identity)
    driver = drive(root, FolderCluster(controller), scheduler=scheduler, first=(started,), max_trials=8)
    clones = [event for event in of_kind(root, TrialCreated) if event.origin == "clone"]
    assert clones, "somebody was replaced"
    trials = driver.state.trials
    assert driver.state.configurations == 8
    for clone in clones:
        donor = trials[clone.parent]
        assert clone.start in [run.resource for run in donor.runs if run.value is not None]
        assert clone.resource > clone.start
        assert SPACE.check(clone.config) == []
    kept = {}
    for batch in sorted(Layout(root).batches.iterdir()):
        for task in range(len(list((batch / "results").iterdir()))):
            for run in read_task(BatchLayout(batch), task)[1].runs:
                kept[run.trial, run.rung] = run
    for (trial, rung), run in kept.items():
        if rung:  # what it starts from stays, for a clone may be made while it runs
            assert trials[trial].runs[rung - 1].resource in run.keep
    for clone in clones:
        run = kept[clone.trial, 0]
        assert (run.parent, run.parent_step) == (clone.parent, clone.start)
