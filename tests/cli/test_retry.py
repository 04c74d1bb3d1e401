"""`retry` on this machine: what it tries again, what it refuses, and how to go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunRetried,
    SweepDetached,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TrialCreated,
    TrialStopped,
)
from hpcsweep.errors import SubmitRefused
from hpcsweep.spec import load_spec
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

SPEC = """\
name: lr
train: {function: "trainer.py:train"}
objective: {metric: loss}
space:
  lr: {type: float, low: 1e-4, high: 1.0, log: true}
searcher: random
scheduler: fifo
budget: {trials: 3}
cluster: {name: local, slots: 3}
"""
TRAINER = """\
from pathlib import Path

def train(trial):
    if trial.id in {broken}:
        raise ValueError("no")
    return trial.config["lr"]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lr.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, argv)


def statuses() -> dict[str, int]:
    runs: dict[str, int] = json.loads(run("status", "results/lr", "--json").stdout)["runs"]
    return {state: count for state, count in runs.items() if count}


def test_retry_retries_one_trial_or_all_and_launch_resumes(here: Path) -> None:
    trainer = here / "trainer.py"
    trainer.write_text(TRAINER.replace("{broken}", "(0, 1, 2)"))
    assert run("launch", "lr.yaml", "--quiet").exit_code == 1
    trainer.write_text(TRAINER.replace("{broken}", "()"))
    spec = here / "results/lr/sweep.yaml"
    resume = f"no driver is at work; resume with: hpcsweep launch {spec} --results results/lr\n"
    one = run("retry", "results/lr", "1")
    again = "retrying: trial {}, rung 0 (to 1), from scratch\n"
    each = "each with 1 CPU, on this machine, 3 runs at a time on CPUs (as asked for)\n"
    assert (one.exit_code, one.stdout) == (
        0,
        f"{again.format(1)}{each}trial 1 is retried\n{resume}",
    )
    assert run("launch", str(spec), "--results", "results/lr", "--quiet").exit_code == 0
    assert statuses() == {"completed": 1, "failed": 2}
    others = run("retry", "results/lr")
    assert (others.exit_code, others.stdout) == (
        0,
        f"{again.format(0)}{again.format(2)}{each}2 trials are retried: 0, 2\n{resume}",
    )
    assert run("launch", "lr.yaml", "--quiet").exit_code == 0
    assert statuses() == {"completed": 3}
    events = read_journal(Layout(here / "results/lr")).events
    assert [event.trial for event in events if isinstance(event, RunRetried)] == [1, 0, 2]
    explained = run("explain", "results/lr", "2").stdout.splitlines()
    assert explained[3].startswith("rung 0, resource 1: completed in attempt 2 on ")
    assert explained[4].startswith("  attempt 1: crashed on ")
    assert "): trainer.py:5 in train | ValueError: no; then tried again by the request " in explained[4]
    nothing = run("retry", "results/lr")
    assert (nothing.exit_code, nothing.stderr) == (
        2,
        "hpcsweep: results/lr: no failed runs to retry: 3 runs completed\n",
    )


# --------------------------------------------------------------------------- hand-made journals

COMPLETED, FAILED, SUBMITTED, WAITING, STOPPED = range(5)


def written(here: Path, *more: AnyEvent) -> Path:
    """A sweep with a trial in each state, and no jobs behind it."""
    (here / "trainer.py").write_text(TRAINER.replace("{broken}", "()"))
    spec = load_spec(here / "lr.yaml", ["budget.trials=5"])
    runs = tuple((RunId(trial, 0),) for trial in (COMPLETED, FAILED, SUBMITTED, STOPPED))
    events: Sequence[AnyEvent] = [
        SweepStarted("cafe01", "lr", 100.0, spec.identity()),
        *(TrialCreated(trial, {"lr": 0.1}, 0, 1) for trial in range(5)),
        BatchPlanned("b", 200.0, runs, 0, 4, "local"),
        RunFinished(COMPLETED, 0, Outcome.COMPLETED, 0.5, 1, batch="b"),
        RunFinished(FAILED, 0, Outcome.FAILED, batch="b", task=1, message="no"),
        TrialStopped(STOPPED, "median: it is bad"),
        RunFinished(STOPPED, 0, Outcome.FAILED, batch="b", task=3, message="no"),
        *more,
    ]
    layout = Layout(here / "results/lr")
    journal = Journal.open(layout)
    journal.commit(events)
    journal.release()
    layout.spec.write_text(spec.yaml)
    return layout.root


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ("7", "expected one of 0 to 4, got 7"),
        ("0", "expected one that has failed (those are: 1); trial 0 has completed rung 0"),
        ("2", "expected one that has failed (those are: 1); trial 2 is queued or running at rung 0"),
        ("3", "expected one that has failed (those are: 1); trial 3 waits to be submitted for rung 0"),
        (
            "4",
            "expected one that has failed (those are: 1); trial 4 was stopped early: median: it is bad",
        ),
    ],
)
def test_retry_of_a_trial_that_did_not_fail_reports_its_state_and_leaves_no_request(
    here: Path, trial: str, words: str
) -> None:
    root = written(here)
    result = run("retry", "results/lr", trial)
    assert (result.exit_code, result.stderr) == (2, f"hpcsweep: TRIAL: {words}\n")
    assert not (root / "control").exists()


def test_running_driver_takes_up_the_retry(here: Path) -> None:
    root = written(here)
    journal = Journal.open(Layout(root))
    journal.acquire()
    try:
        result = run("retry", "results/lr", "1")
    finally:
        journal.release()
    assert result.exit_code == 0
    assert result.stdout.startswith(f"retry requested: {root}: ")
    assert " is driving this sweep since " in result.stdout
    (request,) = (root / "control").iterdir()
    kept = json.loads(request.read_text())
    assert (kept["verb"], kept["arguments"]) == ("retry", {"trial": 1})


def test_retry_resumes_a_paused_sweep_without_failures(here: Path) -> None:
    (here / "trainer.py").write_text(TRAINER.replace("{broken}", "()"))
    assert run("launch", "lr.yaml", "--quiet").exit_code == 0
    layout = Layout(here / "results/lr")
    journal = Journal.open(layout)
    pause = "its jobs can never start (3 tasks: PartitionTimeLimit)"
    journal.commit([PauseRequested(1.0, pause), SweepEnded(2.0, SweepOutcome.PAUSED, pause)])
    journal.release()
    result = run("retry", "results/lr")
    assert (result.exit_code, result.stdout) == (
        0,
        "resumed; no failed runs to retry\nfinished: all trials are done\n",
    )


def test_refused_submission_is_reported_with_how_to_resume(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(self: object, batch: object) -> str:
        raise SubmitRefused("sbatch: invalid partition specified: gpu")

    (here / "trainer.py").write_text(TRAINER.replace("{broken}", "(0, 1, 2)"))
    assert run("launch", "lr.yaml", "--quiet").exit_code == 1
    monkeypatch.setattr("hpcsweep.cluster.local.cluster.LocalCluster.submit", submit)
    result = run("retry", "results/lr")
    assert (result.exit_code, result.stderr) == (
        2,
        (
            "hpcsweep: sbatch: invalid partition specified: gpu\nNothing is lost; fix it and resume with: "
            f"hpcsweep launch {here}/results/lr/sweep.yaml --results results/lr\n"
        ),
    )
    assert statuses() == {"waiting": 3}
    assert run("status", "results/lr").stdout.splitlines()[:2] == [
        "lr: running (sbatch: invalid partition specified: gpu)",
        "driver: none at work; launch again to resume",
    ]


def test_retry_without_the_stored_spec_leaves_the_request_for_launch(here: Path) -> None:
    root = written(here)
    (root / "sweep.yaml").unlink()
    result = run("retry", "results/lr")
    assert (result.exit_code, result.stderr) == (
        2,
        f"hpcsweep: {root}/sweep.yaml: is missing; go on with `launch SPEC`, it takes the request up\n",
    )
    assert len(list((root / "control").iterdir())) == 1


def test_retry_hands_a_detached_sweep_back_to_its_jobs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def submit_tick(self: object, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0) -> str:
        called.append(name.rpartition("-")[2])
        return str(len(called))

    monkeypatch.setattr("hpcsweep.cluster.local.cluster.LocalCluster.submit_tick", submit_tick)
    (here / "trainer.py").write_text(TRAINER.replace("{broken}", "(0, 1, 2)"))
    assert run("launch", "lr.yaml", "--quiet").exit_code == 1
    journal = Journal.open(Layout(here / "results/lr"))
    journal.commit([SweepDetached(1.0, "local")])
    journal.release()
    result = run("retry", "results/lr")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        "3 trials are retried: 0, 1, 2",
        "its jobs drive it; follow it with: hpcsweep status results/lr",
    ]
    assert set(called) == {"tick"}


def test_retry_set_prints_the_changes_and_keeps_them(here: Path) -> None:
    trainer = here / "trainer.py"
    trainer.write_text(TRAINER.replace("{broken}", "(0,)"))
    assert run("launch", "lr.yaml", "--quiet").exit_code == 0
    trainer.write_text(TRAINER.replace("{broken}", "()"))
    result = run("retry", "results/lr", "--set", "resources.cpus=2", "--set", "resources.time=5m")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:5] == [
        "from now on: resources.cpus=2",
        "from now on: resources.time=5m",
        "retrying: trial 0, rung 0 (to 1), from scratch",
        "each with 2 CPUs, at most 5 min, on this machine, 3 runs at a time on CPUs (as asked for)",
        "trial 0 is retried",
    ]
    spec = load_spec(here / "results/lr/sweep.yaml")
    assert (spec.resources.cpus, spec.resources.time) == (2, 300)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "scheduler.max_resource=3",
            "not change in a sweep that has begun; resources.*, cluster.*, budget.*, retries.*, store.* may",
        ),
        ("train.command=rm", "--set train.command=rm: may not change in a sweep that has begun; "),
        ("resources.gpu=3", "resources.gpu: unknown key; did you mean 'gpus'?"),
        ("resources", "--set resources: must be key.path=value"),
    ],
)
def test_retry_refuses_invalid_changes_and_leaves_no_request(here: Path, change: str, words: str) -> None:
    root = written(here)
    result = run("retry", "results/lr", "1", "--set", change)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (root / "control").exists()


def test_retry_set_is_refused_while_a_driver_runs(here: Path) -> None:
    root = written(here)
    journal = Journal.open(Layout(root))
    journal.acquire()
    try:
        result = run("retry", "results/lr", "1", "--set", "resources.cpus=2")
    finally:
        journal.release()
    assert result.exit_code == 3
    assert "with the values that it was launched with" in result.stderr
    assert not (root / "control").exists()


def test_cancelled_trial_is_retried_only_by_its_number(here: Path) -> None:
    root = written(here, RunFinished(SUBMITTED, 0, Outcome.CANCELLED, batch="b", task=2, message="twice"))
    layout = Layout(root)
    journal = Journal.open(layout)
    journal.commit([BatchClosed("b"), SweepEnded(300.0, SweepOutcome.STOPPED, "stopped by ada")])
    journal.release()
    all_failed = run("retry", "results/lr")
    words = f"cancelled by their user: {SUBMITTED}, retry them by number: hpcsweep retry results/lr 2"
    assert words in all_failed.stdout
    assert [event.trial for event in read_journal(layout).events if isinstance(event, RunRetried)] == [FAILED]
    assert run("retry", "results/lr", str(SUBMITTED)).exit_code == 0
    retried = [event.trial for event in read_journal(layout).events if isinstance(event, RunRetried)]
    assert retried == [FAILED, SUBMITTED]


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ("7", "TRIAL: expected one of 0 to 4, got 7"),
        (str(STOPPED), "TRIAL: trial 4 has been stopped already: median: it is bad"),
        (
            str(COMPLETED),
            (
                "TRIAL: expected one that runs, waits or may be promoted; trial 0 has completed rung 0, "
                "its last: see hpcsweep explain results/lr 0"
            ),
        ),
    ],
)
def test_stop_of_a_trial_that_cannot_be_stopped_reports_its_state(here: Path, trial: str, words: str) -> None:
    root = written(here)
    result = run("stop", "results/lr", trial)
    assert (result.exit_code, result.stderr) == (2, f"hpcsweep: {words}\n")
    assert not (root / "control").exists()


def test_trial_is_stopped_by_the_driver_or_else_by_the_command(here: Path) -> None:
    root = written(here)
    journal = Journal.open(Layout(root))
    journal.acquire()
    try:
        asked = run("stop", "results/lr", str(WAITING))
    finally:
        journal.release()
    assert asked.exit_code == 0
    assert asked.stdout.startswith(f"stop of trial {WAITING} requested: {root}: ")
    (request,) = (root / "control").iterdir()
    request.unlink()
    done = run("stop", "results/lr", str(WAITING))
    assert (done.exit_code, done.stdout) == (
        0,
        f"stopped: trial {WAITING}; it will not be promoted\n",
    )
    explained = run("explain", "results/lr", str(WAITING)).stdout
    assert "stopped: stopped by " in explained
    events = read_journal(Layout(root)).events
    assert [event.trial for event in events if isinstance(event, TrialStopped)] == [STOPPED, WAITING]
    assert not [event for event in events if isinstance(event, BatchPlanned)][1:], "nothing is submitted"
