"""The decision what became of a run, and what it is made from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.core.objectives import Objective
from hpcsweep.store.batch import ManifestRun, Program
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.worker.outcome import ObjectiveReading, ProcessExit, RunOutcome, classify, read_objective
from hpcsweep.worker.process import oom_kills

GOOD = ObjectiveReading(0.5, "", 9, fresh=True, complete=True)
PART = ObjectiveReading(0.5, "", 5, fresh=True, complete=False)
NONE = ObjectiveReading(None, "never reported", 0, fresh=False, complete=False)
KERNEL = "killed by the kernel: out of memory"


@pytest.mark.parametrize(
    ("ended", "measured", "reached", "verdict"),
    [
        (ProcessExit(0), GOOD, 9, RunOutcome(Outcome.COMPLETED, value=0.5)),
        (ProcessExit(0), GOOD, 5, RunOutcome(Outcome.COMPLETED, value=0.5)),
        (
            ProcessExit(0),
            NONE,
            9,
            RunOutcome(Outcome.FAILED, message="never reported", failure=FailureKind.NEVER_REPORTED),
        ),
        (
            ProcessExit(1, types=("E",), message="E: no"),
            GOOD,
            9,
            RunOutcome(Outcome.FAILED, message="E: no", failure=FailureKind.CRASHED),
        ),
        (
            ProcessExit(3, message="a | no"),
            GOOD,
            9,
            RunOutcome(Outcome.FAILED, message="exit code 3: a | no", failure=FailureKind.CRASHED),
        ),
        (
            ProcessExit(3),
            GOOD,
            9,
            RunOutcome(
                Outcome.FAILED, message="exit code 3, and nothing was printed", failure=FailureKind.CRASHED
            ),
        ),
        (
            ProcessExit(139, message="no"),
            GOOD,
            9,
            RunOutcome(Outcome.FAILED, message="exit code 139 (SIGSEGV): no", failure=FailureKind.CRASHED),
        ),
        (
            ProcessExit(-6, message="a"),
            GOOD,
            9,
            RunOutcome(
                Outcome.FAILED, message="killed by SIGABRT; last line: a", failure=FailureKind.CRASHED
            ),
        ),
        (
            ProcessExit(-6, message="a | b"),
            GOOD,
            9,
            RunOutcome(
                Outcome.FAILED, message="killed by SIGABRT; last lines: a | b", failure=FailureKind.CRASHED
            ),
        ),
        (
            ProcessExit(1, types=("OSError",), message="OSError: [Errno 28] No space left on device: 'out'"),
            PART,
            5,
            RunOutcome(
                interrupted=Interruption.WORKER_DIED,
                message="OSError: [Errno 28] No space left on device: 'out'",
            ),
        ),
        (
            ProcessExit(2, message="epoch 1 | OSError: [Errno 122] Disk quota exceeded"),
            PART,
            5,
            RunOutcome(
                interrupted=Interruption.WORKER_DIED,
                message="exit code 2: epoch 1 | OSError: [Errno 122] Disk quota exceeded",
            ),
        ),
        (
            ProcessExit(1, message="epoch 1 | MemoryError"),
            GOOD,
            9,
            RunOutcome(Outcome.OUT_OF_MEMORY, message="exit code 1: epoch 1 | MemoryError", host_memory=True),
        ),
        (
            ProcessExit(1, message="RuntimeError: DefaultCPUAllocator: can't allocate memory"),
            GOOD,
            9,
            RunOutcome(
                Outcome.OUT_OF_MEMORY,
                message="exit code 1: RuntimeError: DefaultCPUAllocator: can't allocate memory",
                host_memory=True,
            ),
        ),
        (
            ProcessExit(1, types=("OutOfMemoryError", "RuntimeError"), message="CUDA out of memory"),
            GOOD,
            9,
            RunOutcome(Outcome.OUT_OF_MEMORY, message="CUDA out of memory"),
        ),
        (
            ProcessExit(-9, over_memory="its processes held 312 MiB, more than the 200 MiB of the run"),
            PART,
            5,
            RunOutcome(
                Outcome.OUT_OF_MEMORY,
                message="its processes held 312 MiB, more than the 200 MiB of the run",
                host_memory=True,
            ),
        ),
        (
            ProcessExit(-9, over_memory="its processes held 312 MiB, more than the 200 MiB of the run"),
            GOOD,
            9,
            RunOutcome(Outcome.COMPLETED, value=0.5),
        ),
        (
            ProcessExit(-9),
            GOOD,
            9,
            RunOutcome(Outcome.FAILED, message="killed by SIGKILL", failure=FailureKind.CRASHED),
        ),
        (
            ProcessExit(0),
            ObjectiveReading(None, "metric 'loss' is nan at step 9", 9, True, True, FailureKind.NOT_FINITE),
            9,
            RunOutcome(
                Outcome.FAILED, message="metric 'loss' is nan at step 9", failure=FailureKind.NOT_FINITE
            ),
        ),
        (
            ProcessExit(-9, oom_kills=1),
            GOOD,
            9,
            RunOutcome(Outcome.OUT_OF_MEMORY, message=KERNEL, host_memory=True),
        ),
        (
            ProcessExit(0, oom_kills=1),
            GOOD,
            9,
            RunOutcome(Outcome.OUT_OF_MEMORY, message=KERNEL, host_memory=True),
        ),
        (ProcessExit(0, oom_kills=1, alone=False), GOOD, 9, RunOutcome(Outcome.COMPLETED, value=0.5)),
        (
            ProcessExit(137, oom_kills=1, alone=False),
            GOOD,
            9,
            RunOutcome(Outcome.OUT_OF_MEMORY, message=KERNEL, host_memory=True),
        ),
        (ProcessExit(0, signal="SIGUSR2"), GOOD, 9, RunOutcome(Outcome.COMPLETED, value=0.5)),
        (
            ProcessExit(0, signal="SIGUSR2"),
            PART,
            5,
            RunOutcome(None, Interruption.TIMEOUT, message="told to stop by SIGUSR2 at step 5 of 9"),
        ),
        (
            ProcessExit(1, signal="SIGTERM", message="RuntimeError: a loader died"),
            PART,
            9,
            RunOutcome(None, Interruption.PREEMPTED, message="told to stop by SIGTERM at step 9 of 9"),
        ),
        # With its value at its resource it is completed, whatever ended it after that.
        (ProcessExit(1, signal="SIGTERM"), GOOD, 9, RunOutcome(Outcome.COMPLETED, value=0.5)),
        (ProcessExit(-9, signal="SIGUSR2"), GOOD, 9, RunOutcome(Outcome.COMPLETED, value=0.5)),
        (ProcessExit(-15, ended_by_us=True), GOOD, 9, RunOutcome(Outcome.COMPLETED, value=0.5)),
        (
            ProcessExit(-15, signal="SIGTERM"),
            ObjectiveReading(None, "nan", 9, True, True, FailureKind.NOT_FINITE),
            9,
            RunOutcome(Outcome.FAILED, message="nan", failure=FailureKind.NOT_FINITE),
        ),
    ],
)
def test_each_process_exit_has_its_outcome(
    ended: ProcessExit, measured: ObjectiveReading, reached: int, verdict: RunOutcome
) -> None:
    assert classify(ended, measured, resource=9, reached=reached) == verdict


@pytest.mark.parametrize(
    ("cgroup", "file", "text", "count"),
    [
        ("0::/job_1/task\n", "job_1/task/memory.events", "oom 3\noom_kill 2\n", 2),
        ("4:memory:/job_1\n1:cpu:/x\n", "memory/job_1/memory.oom_control", "under_oom 0\noom_kill 1\n", 1),
        ("0::/job_1\n", "other", "", None),
        ("", "other", "", None),
    ],
)
def test_the_kernels_counter_is_found(
    tmp_path: Path, cgroup: str, file: str, text: str, count: int | None
) -> None:
    for path, content in [("proc/self/cgroup", cgroup), (f"sys/fs/cgroup/{file}", text)]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert oom_kills(tmp_path) == count
    assert oom_kills(tmp_path / "nothing") is None


def measured(
    tmp_path: Path,
    files: dict[tuple[int, int, int], dict[int, float]],
    *,
    start: int,
    at: str,
    best: float | None = None,
) -> ObjectiveReading:
    """Of attempt 1 at rung 1 with resource 9, after these reports of `val_error`."""
    trial = TrialLayout(tmp_path)
    for key, reports in files.items():
        writer = MetricsWriter(trial.metrics(*key))
        for step, number in reports.items():
            writer.write(step, {"val_error": number})
        writer.close()
    run = ManifestRun(trial=0, rung=1, bracket=0, resource=9, attempt=1, seed=0, config={}, best=best)
    program = Program(workdir="/", metric="val_error", mode="min", at=at)
    return read_objective(trial, run, program, restart=0, start=start)


@pytest.mark.parametrize(("at", "best", "expected"), [("last", None, 0.6), ("best", 0.2, 0.2)])
@pytest.mark.parametrize("compacted", [False, True])
def test_the_value_is_that_of_the_steps_that_led_to_this_checkpoint(
    tmp_path: Path, at: str, best: float | None, expected: float, compacted: bool
) -> None:
    below = {(0, 0, 0): {1: 0.9, 2: 0.2, 3: 0.8}}
    files = {
        (1, 0, 0): {4: 0.7, 5: 0.1, 6: 0.1},  # beyond the checkpoint of step 4, trained again since
        (1, 1, 0): {5: 0.5, 8: 0.6, 10: 0.0},  # beyond the resource
    }
    files = files if compacted else below | files
    assert measured(tmp_path, files, start=4, at=at, best=best).value == expected


def test_the_best_value_of_the_rungs_below_counts_only_for_a_run_that_goes_on_from_them(
    tmp_path: Path,
) -> None:
    files = {(1, 1, 0): {5: 0.5, 9: 0.4}}
    assert measured(tmp_path, files, start=3, at="best", best=0.2).value == 0.2
    assert measured(tmp_path, files, start=0, at="best", best=0.2).value == 0.4
    assert measured(tmp_path, {(1, 1, 0): {9: math.nan}}, start=3, at="best", best=0.2).value == 0.2


def test_a_resumed_run_without_reports_fails_although_lower_rungs_are_compacted(
    tmp_path: Path,
) -> None:
    found = measured(tmp_path, {}, start=3, at="best", best=0.2)
    assert found == ObjectiveReading(
        None,
        "metric 'val_error' was not reported after step 3, where this run went on from a checkpoint, "
        "up to step 9",
        0,
        fresh=False,
        complete=False,
        failure=FailureKind.NEVER_REPORTED,
        start=3,
    )


def test_a_value_that_is_not_finite_differs_from_no_value(tmp_path: Path) -> None:
    nan = {(1, 1, 0): {8: 0.5, 9: math.nan}}
    assert measured(tmp_path / "last", nan, start=3, at="last").failure is FailureKind.NOT_FINITE
    assert measured(tmp_path / "best", nan, start=3, at="best").failure is None
    inf = {(1, 1, 0): {9: math.inf}}
    assert measured(tmp_path / "inf", inf, start=3, at="best").failure is FailureKind.NOT_FINITE
    assert measured(tmp_path / "nothing", {}, start=0, at="last").failure is FailureKind.NEVER_REPORTED
    before = {(1, 0, 0): {4: math.nan}}  # by an earlier attempt; this one reported nothing
    assert measured(tmp_path / "before", before, start=4, at="last").failure is FailureKind.NEVER_REPORTED


def test_for_the_same_step_the_last_report_counts(tmp_path: Path) -> None:
    reports = {(1, 0, 0): {9: 0.1}, (1, 1, 0): {9: 0.3}}
    assert measured(tmp_path, reports, start=9, at="last").value == 0.3


BOTH = (Objective("loss"), Objective("size", "max", "best"))


@pytest.mark.parametrize(
    ("reports", "values", "problem"),
    [
        ({1: {"size": 9.0}, 3: {"loss": 0.5, "size": 3.0}}, (0.5, 9.0), ""),
        ({1: {"size": 9.0}, 3: {"loss": 0.5}}, (0.5, 9.0), ""),
        ({3: {"loss": 0.5}}, (), "metric 'size' was never reported; reported were 'loss'"),
        ({3: {"size": 0.5}}, (), "metric 'loss' was never reported; reported were 'size'"),
        ({1: {"size": 1.0}, 3: {"loss": math.nan}}, (), "metric 'loss' is nan at step 3"),
        ({3: {"loss": 0.5, "size": math.inf}}, (), "metric 'size' is inf at step 3, and at no step finite"),
    ],
)
def test_a_run_has_values_only_with_every_objective(
    tmp_path: Path, reports: dict[int, dict[str, float]], values: tuple[float, ...], problem: str
) -> None:
    trial = TrialLayout(tmp_path)
    writer = MetricsWriter(trial.metrics(0, 0, 0))
    for step, metrics in reports.items():
        writer.write(step, metrics)
    writer.close()
    run = ManifestRun(0, 0, 0, resource=3, attempt=0, seed=0, config={})
    program = Program(workdir="/", metric="loss", objectives=BOTH)
    reading = read_objective(trial, run, program, restart=0, start=0)
    assert (reading.values, reading.problem) == (values, problem)
    assert (reading.value is None) == (not values)
    assert reading.fresh


def test_what_an_earlier_attempt_measured_once_counts_where_another_objective_shows_training(
    tmp_path: Path,
) -> None:
    trial = TrialLayout(tmp_path)
    for attempt, step, metrics in [(0, 1, {"loss": 2.0, "size": 7.0}), (1, 3, {"loss": 0.5})]:
        writer = MetricsWriter(trial.metrics(0, attempt, 0))
        writer.write(step, metrics)
        writer.close()
    run = ManifestRun(0, 0, 0, resource=3, attempt=1, seed=0, config={})
    program = Program(workdir="/", metric="loss", objectives=BOTH)
    assert read_objective(trial, run, program, restart=0, start=1).values == (0.5, 7.0)
    untrained = read_objective(trial, run, program, restart=1, start=1)
    assert untrained.problem.startswith("metric 'loss' was not reported after step 1")


def test_the_best_of_the_rungs_below_counts_for_the_objectives_at_their_best(tmp_path: Path) -> None:
    trial = TrialLayout(tmp_path)
    writer = MetricsWriter(trial.metrics(1, 0, 0))
    writer.write(3, {"loss": 0.5, "size": 3.0})
    writer.close()
    run = ManifestRun(0, 1, 0, resource=3, attempt=0, seed=0, config={}, bests=(None, 8.0))
    program = Program(workdir="/", metric="loss", objectives=BOTH)
    assert read_objective(trial, run, program, restart=0, start=1).values == (0.5, 8.0)
