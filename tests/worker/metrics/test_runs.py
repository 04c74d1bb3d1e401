"""Workers that find the metrics of unmodified programs in their files."""

from __future__ import annotations

import json
import signal

import pytest

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.store.batch import MetricFile
from hpcsweep.store.run_files import read_reports
from tests.waiting import PATIENCE_S, wait_until

from ..conftest import Bench

#: Writes a row each time that it finds a file `go-<epoch>`, and ends with its last one.
STEPWISE = """\
import os, sys, time
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
new = not os.path.exists(path)
with open(path, "a") as file:
    if new:
        print("epoch,val/loss", file=file, flush=True)
    for epoch in range(first + 1, last + 1):
        while not os.path.exists(f"go-{epoch}"):
            time.sleep(0.01)
        print(f"{epoch},{1 / epoch}", file=file, flush=True)
"""
FILE = MetricFile("m-{trial}.csv", "csv", "epoch", {"val_error": "val/loss"})


def reports(bench: Bench, attempt: int = 0) -> list[tuple[int, dict[str, float]]]:
    return [(step, metrics) for step, metrics in read_reports(bench.trial().metrics(0, attempt, 0))]


def test_a_file_is_followed_while_the_program_runs_and_read_to_its_end(bench: Bench) -> None:
    bench.code(STEPWISE)
    bench.plan_command("{python} train.py m-{trial}.csv {start} {resource}", metric_files=(FILE,))
    worker = bench.start()
    (bench.workdir / "go-1").touch()
    wait_until(lambda: reports(bench) == [(1, {"val_error": 1.0})])
    for epoch in (2, 3):
        (bench.workdir / f"go-{epoch}").touch()
    assert worker.wait(PATIENCE_S) == 0
    (result,) = bench.results()
    assert (result.outcome, result.value, result.step) == (Outcome.COMPLETED, 1 / 3, 3)
    assert reports(bench) == [(epoch, {"val_error": 1 / epoch}) for epoch in (1, 2, 3)]


def test_rows_of_an_attempt_before_are_not_this_attempts(bench: Bench) -> None:
    bench.code(STEPWISE)
    runs = [[bench.run(attempt=0)], [bench.run(attempt=1)]]
    command = "{python} train.py m-{trial}.csv {start} {resource}"
    bench.plan(*runs, command=command, metric_files=(FILE,))
    worker = bench.start(0)
    (bench.workdir / "go-1").touch()
    wait_until(lambda: reports(bench) == [(1, {"val_error": 1.0})])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    assert bench.results()[0].interrupted is Interruption.PREEMPTED
    for epoch in (2, 3):
        (bench.workdir / f"go-{epoch}").touch()
    assert bench.start(1).wait(PATIENCE_S) == 0
    assert bench.results()[-1].value == 1 / 3
    assert [step for step, _ in reports(bench, 1)] == [1, 2, 3]


def test_a_program_is_ended_once_its_file_has_the_last_step(bench: Bench) -> None:
    bench.code(STEPWISE)
    for epoch in range(1, 4):
        (bench.workdir / f"go-{epoch}").touch()
    command = "{python} train.py m-{trial}.csv {start} 1000000"
    bench.plan_command(command, metric_files=(FILE,), stop_at_resource=True)
    result = bench.work()
    assert (result.outcome, result.value, result.step) == (Outcome.COMPLETED, 1 / 3, 3)


@pytest.mark.parametrize(
    ("document", "step", "value"),
    [({"test_score": 0.25}, 9, 0.25), ([{"test_score": 0.5}, {"test_score": 0.75}], 2, 0.75)],
)
def test_a_dump_at_the_end_is_the_result(bench: Bench, document: object, step: int, value: float) -> None:
    bench.code(f"import json, sys; json.dump({document!r}, open(sys.argv[1], 'w'))")
    file = MetricFile("{checkpoint_dir}/r.json", "json", values={"val_error": "test_score"})
    run = bench.run(resource=9)
    bench.plan_command("{python} train.py {checkpoint_dir}/r.json", run, metric_files=(file,))
    result = bench.work()
    assert (result.outcome, result.value) == (Outcome.COMPLETED, value)
    assert reports(bench)[-1] == (step, {"val_error": value})


def test_a_metric_that_never_came_is_told_with_all_that_was_seen(bench: Bench) -> None:
    bench.code("print('epoch 1 loss 3'); open('m-0.csv', 'w').write('epoch,val_loss\\n1,0.5\\n')")
    other = MetricFile("{trial}/*.json", "json")
    bench.plan_command(
        "{python} train.py", bench.run(resource=1), metrics=("err (?P<err>.*)",), metric_files=(FILE, other)
    )
    result, folder = bench.work(), bench.workdir
    assert result.failure is FailureKind.NEVER_REPORTED
    assert result.message == (
        "metric 'val_error' was never reported; no printed line matched train.metrics; the last one with a "
        f"number was 'epoch 1 loss 3'; the columns of {folder}/m-0.csv are 'epoch', 'val_loss'; did you mean "
        f"'val_loss'?; nothing matches {folder}/0/*.json"
    )


def test_a_file_that_cannot_be_read_harms_no_other_metric(bench: Bench) -> None:
    bench.code("import os; os.mkdir('m-0.csv'); print('val_error 0.5')")
    pattern = "val_error (?P<val_error>.*)"
    bench.plan_command("{python} train.py", bench.run(resource=1), metrics=(pattern,), metric_files=(FILE,))
    assert bench.work().value == 0.5


def test_printed_metrics_and_those_of_files_are_of_one_run(bench: Bench) -> None:
    rows = [{"epoch": epoch, "val/loss": 1 / epoch} for epoch in (1, 2, 3)]
    bench.code(f"for n in range(3): print('lr', n)\nopen('m.jsonl', 'w').write({json_lines(rows)!r})")
    file = MetricFile("m.jsonl", "jsonl", "epoch", {"val_error": "val/loss"})
    bench.plan_command("{python} train.py", metrics=("lr (?P<lr>.)",), metric_files=(file,))
    assert bench.work().value == 1 / 3
    assert sorted(reports(bench), key=lambda report: (report[0], [*report[1]])) == [
        (step, metrics) for step in (1, 2, 3) for metrics in ({"lr": step - 1.0}, {"val_error": 1 / step})
    ]


def json_lines(rows: list[dict[str, float]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
