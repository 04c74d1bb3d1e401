"""Checkpoints of trials that can never go on: removed as it becomes so, or by `clean` in an old folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.core.events import CheckpointsDropped, RunFinished, SweepStarted
from hpcsweep.spec import load_spec
from hpcsweep.store.checkpoints import disk_usage_by_trial
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import ResultsFolder

TRAINER = """
def train(trial):
    for step in trial.steps():
        trial.report(step, loss=trial.config["lr"] / step)
        with trial.checkpoint(step) as folder:
            (folder / "weights").write_bytes(b"w" * 1000)
"""
SPEC = """
name: lr
train: {function: trainer.py:train, keep: KEEP}
objective: {metric: loss}
space: {lr: {type: float, low: 0.1, high: 1.0}}
searcher: {name: random, seed: 1}
scheduler: {name: SCHEDULER, max_resource: 3}
budget: {trials: 5}
cluster: {name: local, slots: 2}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trainer.py").write_text(TRAINER)
    return tmp_path


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, argv)


def launched(here: Path, *, keep: str, scheduler: str) -> Layout:
    (here / "lr.yaml").write_text(SPEC.replace("KEEP", keep).replace("SCHEDULER", scheduler))
    done = run("launch", "lr.yaml", "--quiet")
    assert done.exit_code == 0, done.output
    return Layout(here / "results/lr")


def best(layout: Layout) -> int:
    found = ResultsFolder(layout.root).state.best
    assert found is not None
    return found.trial


def status(*argv: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("status", "results/lr", "--json").stdout)["checkpoints"]
    return found


def test_only_survivors_keep_checkpoints_by_default_and_status_and_explain_report_removed_ones(
    here: Path,
) -> None:
    layout = launched(here, keep="survivors", scheduler="hyperband")
    kept = best(layout)
    assert list(disk_usage_by_trial(layout)) == [kept]
    found = status()
    assert (found["trials"], found["files"], found["removed_trials"]) == (1, 2, 4)
    line = next(
        line for line in run("status", "results/lr").stdout.splitlines() if line.startswith("checkpoints: ")
    )
    assert line.startswith(("checkpoints: 1.0", "checkpoints: 1.1"))
    assert "kB in 2 files of 1 trial; those of 4 trials that could not go on were removed (4." in line
    other = (kept + 1) % 5
    words = "its checkpoint was removed: it could go no further, and it was not the best"
    assert run("explain", "results/lr", str(other)).stdout.splitlines()[-1] == words
    assert words not in run("explain", "results/lr", str(kept)).stdout


def test_clean_removes_nothing_without_yes_and_shows_what_it_would_remove(here: Path) -> None:
    layout = launched(here, keep="all", scheduler="hyperband")
    kept = best(layout)
    others = sorted({*range(5)} - {kept})
    shown = run("clean", "results/lr")
    size = sum(disk_usage_by_trial(layout)[trial].bytes for trial in others)
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0
    assert (
        lines[0] == f"would remove {size / 1000:.3g} kB in 8 files of 4 trials: {', '.join(map(str, others))}"
    )
    assert lines[1].endswith("in 2 files of 1 trial that may resume, were trained to the end or are the best")
    assert lines[2] == "nothing was removed; to remove, run: hpcsweep clean results/lr --yes"
    assert len(disk_usage_by_trial(layout)) == 5
    told = json.loads(run("clean", "results/lr", "--json").stdout)
    assert (told["trials"], told["kept_trials"], told["removed"]) == (others, [kept], False)
    before = run("best", "results/lr").stdout
    done = run("clean", "results/lr", "--yes")
    assert done.stdout.splitlines()[0].startswith("removed ")
    assert list(disk_usage_by_trial(layout)) == [kept]
    assert run("best", "results/lr").stdout == before
    assert run("clean", "results/lr", "--yes").stdout.splitlines()[0] == (
        "nothing to remove: all checkpoints may still be needed"
    )
    assert status()["removed_trials"] == 4


def test_clean_keeps_finished_trials_unless_best_is_given(here: Path) -> None:
    layout = launched(here, keep="all", scheduler="asha, eta: 2")
    assert run("clean", "results/lr", "--yes").exit_code == 0
    state = ResultsFolder(layout.root).state
    trained = [trial.trial for trial in state.trials if trial.runs[-1].resource == 3]
    assert len(trained) > 1
    assert sorted(disk_usage_by_trial(layout)) == trained
    shown = run("clean", "results/lr", "--best")
    assert shown.stdout.splitlines()[-1].endswith("hpcsweep clean results/lr --best --yes")
    assert run("clean", "results/lr", "--best", "--yes").exit_code == 0
    assert list(disk_usage_by_trial(layout)) == [best(layout)]


def test_launch_reports_trials_that_restart_from_scratch(here: Path) -> None:
    layout = launched(here, keep="survivors", scheduler="fifo")
    kept = best(layout)
    assert list(disk_usage_by_trial(layout)) == [kept]
    (here / "lr.yaml").write_text(
        (here / "lr.yaml").read_text().replace("max_resource: 3", "max_resource: 4")
    )
    done = run("launch", "lr.yaml")
    assert done.exit_code == 0, done.output
    told = (
        "note: 4 trials restart from scratch: their checkpoints were removed when they could not be needed "
        "any more; train.keep: all keeps them"
    )
    assert done.stdout.splitlines()[1:3] == ["extended: scheduler.max_resource: 3 -> 4", told]
    starts = {trial: _start(layout, trial) for trial in range(5)}
    assert starts == {trial: 3 if trial == kept else 0 for trial in range(5)}
    assert list(disk_usage_by_trial(layout)) == [best(layout)]
    words = "  trained from scratch: its checkpoint had been removed (train.keep: all keeps them)"
    explained = [run("explain", "results/lr", str(trial)).stdout.splitlines() for trial in range(5)]
    assert [words in lines for lines in explained] == [trial != kept for trial in range(5)]
    assert "from scratch" not in run("launch", "lr.yaml").stdout


def test_keep_all_lets_fifo_resume_from_checkpoints_at_a_higher_max_resource(here: Path) -> None:
    layout = launched(here, keep="all", scheduler="fifo")
    (here / "lr.yaml").write_text(
        (here / "lr.yaml").read_text().replace("max_resource: 3", "max_resource: 4")
    )
    done = run("launch", "lr.yaml")
    assert "from scratch" not in done.stdout
    assert {_start(layout, trial) for trial in range(5)} == {3}


def _start(layout: Layout, trial: int) -> int:
    """The step from which the second run of the trial went on."""
    (event,) = (
        event
        for event in ResultsFolder(layout.root).events
        if isinstance(event, RunFinished) and event.trial == trial and event.rung == 1
    )
    assert event.start is not None
    return event.start


def test_killed_removal_is_completed(here: Path) -> None:
    layout = launched(here, keep="all", scheduler="hyperband")
    other = (best(layout) + 1) % 5
    journal = Journal.open(layout)
    journal.commit([CheckpointsDropped((other,))])
    journal.release()
    assert run("clean", "results/lr", "--yes").exit_code == 0
    assert list(disk_usage_by_trial(layout)) == [best(layout)]
    assert ResultsFolder(layout.root).state.dropping == {}


def test_clean_is_refused_while_a_driver_runs(here: Path) -> None:
    (here / "lr.yaml").write_text(SPEC.replace("KEEP", "all").replace("SCHEDULER", "fifo"))
    spec = load_spec(here / "lr.yaml")
    layout = Layout(here / "results/lr")
    journal = Journal.open(layout)
    journal.commit([SweepStarted("cafe01", "lr", 100.0, spec.identity())])
    layout.spec.write_text(spec.yaml)
    try:
        refused = run("clean", "results/lr", "--yes")
    finally:
        journal.release()
    assert refused.exit_code == 3
    assert "is driving this sweep" in refused.stderr
    assert "end it first" in refused.stderr
    nothing = run("clean", "nowhere")
    assert (nothing.exit_code, "nowhere: does not exist" in nothing.stderr) == (2, True)


def test_unknown_keep_value_lists_valid_ones(here: Path) -> None:
    (here / "lr.yaml").write_text(SPEC.replace("KEEP", "best").replace("SCHEDULER", "fifo"))
    refused = run("plan", "lr.yaml")
    assert refused.exit_code == 2
    assert "lr.yaml: train.keep: must be 'survivors' or 'all', got 'best'" in refused.stderr
