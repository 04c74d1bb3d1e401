"""A task that carries several runs."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from hpcsweep.core.events import Interruption, Outcome, RunId
from hpcsweep.store import batch as batch_module
from hpcsweep.store.batch import Result, read_result, request_stop, write_result
from hpcsweep.worker.command import lane_devices
from hpcsweep.worker.task import FailFast
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

SHOW = """
    import json, os, time
    def train(trial):
        began = time.time()
        time.sleep(0.15)
        print("here is", trial.id)
        seen = [os.environ.get("CUDA_VISIBLE_DEVICES"), began, time.time()]
        json.dump(seen, open(f"seen-{trial.id}.json", "w"))
        if trial.id == 1:
            raise ValueError("not this one")
        return trial.id
"""


def seen(bench: Bench, trial: int) -> tuple[str | None, float, float]:
    devices, began, ended = json.loads((bench.workdir / f"seen-{trial}.json").read_text())
    return devices, began, ended


@pytest.mark.parametrize(
    ("visible", "gpus", "lanes", "shares"),
    [
        ("0,1", 2, 1, [None]),
        ("4,7", 2, 2, [["4"], ["7"]]),
        ("GPU-aa, MIG-bb,GPU-cc,MIG-dd", 4, 2, [["GPU-aa", "MIG-bb"], ["GPU-cc", "MIG-dd"]]),
        (None, 4, 2, [["0", "1"], ["2", "3"]]),
        ("", 2, 2, [["0"], ["1"]]),
        ("3", 1, 2, [["3"], ["3"]]),
        (None, 0, 2, [None, None]),
        ("0,1", 0, 2, [None, None]),
    ],
)
def test_each_lane_gets_its_own_positions_of_the_tasks_list(
    visible: str | None, gpus: int, lanes: int, shares: list[list[str] | None]
) -> None:
    assert lane_devices(visible, gpus=gpus, lanes=lanes) == shares


def test_three_runs_in_two_lanes_never_share_a_gpu(bench: Bench) -> None:
    bench.plan_python(SHOW, *(bench.run(trial=trial) for trial in range(3)), gpus=4, lanes=2)
    bench.work(CUDA_VISIBLE_DEVICES="5,GPU-x,6,MIG-y")
    spans = [seen(bench, trial) for trial in range(3)]
    assert {span[0] for span in spans} == {"5,GPU-x", "6,MIG-y"}
    assert spans[0][0] != spans[1][0]
    assert spans[2][1] >= min(spans[0][2], spans[1][2])
    results = {result.trial: result for result in bench.results()}
    assert [results[trial].outcome for trial in range(3)] == [
        Outcome.COMPLETED,
        Outcome.FAILED,
        Outcome.COMPLETED,
    ]
    assert [results[trial].value for trial in range(3)] == [0.0, None, 2.0]
    assert results[0].gpu_seconds == pytest.approx(2 * results[0].seconds)


def test_runs_in_one_lane_go_one_after_another_each_with_its_log_and_all_gpus(bench: Bench) -> None:
    bench.plan_python(SHOW, *(bench.run(trial=trial) for trial in range(3)), gpus=2)
    bench.work(CUDA_VISIBLE_DEVICES="2,3")
    spans = [seen(bench, trial) for trial in range(3)]
    assert [span[0] for span in spans] == ["2,3"] * 3
    assert spans[0][2] <= spans[1][1]
    assert spans[1][2] <= spans[2][1]
    for trial in range(3):
        assert f"here is {trial}\n" in bench.log(0, trial)


def test_a_signalled_task_starts_no_further_run_and_the_next_start_does_the_rest(bench: Bench) -> None:
    code = """
        import os, pathlib, time
        def train(trial):
            with open(f"count-{trial.id}", "a") as file:
                file.write("x")
            if trial.id == 1 and not os.path.exists("told"):
                pathlib.Path("told").touch()
                while not trial.should_stop:
                    time.sleep(0.01)
                raise SystemExit(1)
            return trial.id
    """
    bench.plan_python(code, *(bench.run(trial=trial) for trial in range(3)))
    worker = bench.start()
    wait_until((bench.workdir / "told").exists)
    worker.send_signal(signal.SIGUSR2)
    assert worker.wait(PATIENCE_S) == 0
    first = bench.results()
    assert [result.outcome for result in first] == [Outcome.COMPLETED, None, None]
    assert [result.interrupted for result in first[1:]] == [
        Interruption.TIMEOUT,
        Interruption.NOT_STARTED,
    ]
    assert first[2].started is None
    bench.work(restart=1)
    outcomes = [(result.trial, result.restart, result.value) for result in bench.results() if result.outcome]
    assert sorted(outcomes) == [(0, 0, 0.0), (1, 1, 1.0), (2, 1, 2.0)]
    assert [(bench.workdir / f"count-{trial}").read_text() for trial in range(3)] == ["x", "xx", "x"]


def test_no_run_begins_after_the_batch_failed_fast_and_each_result_is_read_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def read(path: Path) -> Result:
        opened.append(path.name)
        return read_result(path)

    monkeypatch.setattr(batch_module, "read_result", read)
    fail_fast = FailFast(bench.batch, 3)
    reached = []
    for task in range(4):
        failed = Result(
            trial=task,
            rung=0,
            attempt=0,
            restart=0,
            task=task,
            outcome=Outcome.FAILED,
            message="no data",
            started=time.time(),
        )
        write_result(bench.batch, failed, n=0)
        reached.append(fail_fast.reached())
    assert reached == [False, False, True, True]
    assert opened == [f"{task}.0.0.json" for task in range(4)]


def test_a_batch_with_a_value_does_not_fail_fast_and_its_results_are_not_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Result(trial=9, rung=0, attempt=0, restart=0, task=9, outcome=Outcome.COMPLETED, value=0.5)
    write_result(bench.batch, good, n=0)
    fail_fast = FailFast(bench.batch, 1)
    assert not fail_fast.reached()
    monkeypatch.setattr(batch_module, "read_result", lambda path: pytest.fail(f"{path} is read again"))
    failed = msgspec.structs.replace(good, trial=1, task=1, outcome=Outcome.FAILED, value=None)
    write_result(bench.batch, failed, n=0)
    assert not fail_fast.reached()


WAIT = """
    import pathlib, signal, time
    if STUBBORN:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    def train(trial):
        pathlib.Path(f"began-{trial.id}").touch()
        while not pathlib.Path("go").exists() and (STUBBORN or not trial.should_stop):
            trial.report(1, val_error=0.5)
            time.sleep(0.01)
        if trial.should_stop:
            raise SystemExit(1)
        return trial.id
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_run_that_is_stopped_ends_while_its_siblings_go_on_and_one_that_waits_never_begins(
    bench: Bench, stubborn: bool
) -> None:
    code = WAIT.replace("STUBBORN", str(stubborn))
    bench.plan_python(code, *(bench.run(trial=trial) for trial in range(4)), lanes=2, grace_s=0.3)
    worker = bench.start()
    wait_until(lambda: all((bench.workdir / f"began-{trial}").exists() for trial in range(2)))
    request_stop(bench.batch, RunId(0, 0))
    request_stop(bench.batch, RunId(3, 0))
    wait_until(lambda: len(bench.results()) == 2 and (bench.workdir / "began-2").exists())
    assert worker.poll() is None
    stopped = {result.trial: result for result in bench.results()}
    assert {trial: result.outcome for trial, result in stopped.items()} == {
        0: Outcome.STOPPED,
        3: Outcome.STOPPED,
    }
    (bench.workdir / "go").touch()
    assert worker.wait(PATIENCE_S) == 0
    outcomes = {result.trial: (result.outcome, result.value) for result in bench.results()}
    assert outcomes == {
        0: (Outcome.STOPPED, None),
        1: (Outcome.COMPLETED, 1.0),
        2: (Outcome.COMPLETED, 2.0),
        3: (Outcome.STOPPED, None),
    }
    assert not (bench.workdir / "began-3").exists()
    began = bench.work(restart=1)
    assert began.restart == 0, "nothing of it is repeated"


def test_no_further_run_begins_once_the_abandoned_batch_was_compacted(bench: Bench) -> None:
    code = """
        import pathlib, time
        def train(trial):
            pathlib.Path(f"began-{trial.id}").touch()
            while not pathlib.Path("go").exists():
                time.sleep(0.01)
            return trial.id
    """
    bench.plan_python(code, bench.run(trial=0), bench.run(trial=1))
    worker = bench.start()
    wait_until((bench.workdir / "began-0").exists)
    bench.batch.root.rename(bench.batch.root.with_name(".gone-b1"))
    (bench.workdir / "go").touch()
    assert worker.wait(PATIENCE_S) == 0
    assert not (bench.workdir / "began-1").exists()
    assert [result.trial for result in bench.results()] == [0]


def test_start_that_has_its_results_trains_nothing_again(bench: Bench) -> None:
    bench.plan_python(SHOW, bench.run(trial=0))
    first = bench.work()
    assert bench.work() == first


def test_a_manifest_that_this_node_sees_late_is_waited_for(bench: Bench) -> None:
    code = bench.code("def train(trial):\n    return 0.5\n")
    worker = bench.start()
    time.sleep(1)
    assert worker.poll() is None
    bench.plan([bench.run()], function=f"{code}:train")
    assert worker.wait(PATIENCE_S) == 0
    assert [result.value for result in bench.results()] == [0.5]


# --------------------------------------------------------------------------- nothing is begun

NAME_ERROR = """
    def train(trial):
        with open("trained", "a") as notes:
            print(trial.id, file=notes)
        if trial.id != %d:
            raise NameError(f"name 'x{trial.id}' is not defined")
        trial.report(1, val_error=1)
"""


def outcomes(bench: Bench) -> dict[int, tuple[str, str]]:
    return {
        result.trial: ((result.outcome or result.interrupted or Outcome.LOST).value, result.message)
        for result in bench.results()
    }


@pytest.mark.parametrize(
    ("fail_fast", "good", "trained"),
    [(3, 99, [0, 1, 2]), (3, 1, [0, 1, 2, 3, 4, 5]), (0, 99, [0, 1, 2, 3, 4, 5]), (1, 99, [0])],
    ids=["3 alike", "one does well", "turned off", "the first"],
)
def test_a_task_begins_no_run_where_the_first_of_the_batch_failed_alike(
    bench: Bench, fail_fast: int, good: int, trained: list[int]
) -> None:
    code = bench.code(NAME_ERROR % good) + ":train"
    tasks = [[bench.run(trial=t, resource=1) for t in pair] for pair in ((0, 1), (2, 3), (4, 5))]
    bench.plan(*tasks, function=code, fail_fast=fail_fast)
    for task in range(3):
        bench.work(task)
    assert bench.trained() == trained
    message = "not begun: the first runs all failed at once with the same error"
    left = {t: ("not_started", message) for t in range(6) if t not in trained}
    assert {t: found for t, found in outcomes(bench).items() if t not in trained} == left


def test_a_task_whose_setup_failed_trains_nothing_and_reports_the_line_and_its_output(bench: Bench) -> None:
    bench.plan_python(NAME_ERROR % 0, bench.run(trial=0), bench.run(trial=1))
    log = bench.batch.log(0)
    log.parent.mkdir(parents=True)
    log.write_text("hello\n\n\x1b[31mLmod has detected the following error:\x1b[0m cuda/99.9 is unknown\n")
    worker = bench.start(argv=["--setup-failed", "1", "  module load cuda/99.9"])
    assert worker.wait(PATIENCE_S) == 0
    message = (
        "cluster.setup: 'module load cuda/99.9' failed with exit status 1: "
        "hello | Lmod has detected the following error: cuda/99.9 is unknown"
    )
    assert outcomes(bench) == dict.fromkeys((0, 1), ("worker_died", message))
    assert bench.trained() == []
