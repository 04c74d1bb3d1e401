"""Ask and tell: exact rungs for a launcher of one's own, and nothing lost by a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hpcsweep as hs
from hpcsweep.cli import app
from hpcsweep.errors import SpecError
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sweep_of(**arguments: Any) -> hs.Sweep:
    given: dict[str, Any] = {
        "scheduler": hs.Halving(max_resource=4),
        "searcher": hs.Random(seed=3),
        "name": "mine",
        "resources": hs.Resources(gpus=2),
    }
    return hs.Sweep(None, {"x": hs.Float(0, 1)}, "loss", **(given | arguments))


def test_rungs_are_exact_and_promoted_trials_go_on_from_their_checkpoints() -> None:
    sweep, seen = sweep_of(), []
    assert not sweep.done
    while not sweep.done:
        trials = sweep.ask(2)
        assert trials == sweep.ask(0) + trials  # nothing more than was asked for
        for trial in trials:
            seen.append((trial.id, trial.rung, list(trial.steps()), trial.resume_from is not None))
            with trial.checkpoint(trial.resource) as folder:
                (folder / "weight").write_text("1")
            sweep.tell(trial, trial.config["x"] + 1 / trial.resource)
    by_rung = [[row for row in seen if row[1] == rung] for rung in range(3)]
    assert [len(rows) for rows in by_rung] == [4, 2, 1]
    assert [rows[0][2:] for rows in by_rung] == [([1], False), ([2], True), ([3, 4], True)]
    results = sweep.results()
    assert results.best is not None
    assert results.best["trial"] == by_rung[2][0][0]
    assert results.best["value"] == results.best["config"]["x"] + 0.25
    # The configurations are those of any launch by this spec, and the folder is one as any other.
    status = CliRunner().invoke(app, ["status", "results/mine"]).output
    assert "bracket 0: 4x1 > 2x2 > 1x4" in status
    explained = CliRunner().invoke(app, ["explain", "results/mine", str(by_rung[2][0][0])]).output
    assert "promoted" in explained


def test_what_was_asked_for_is_known_to_another_process_after_a_kill() -> None:
    code = (
        "import os, signal\n"
        "import hpcsweep as hs\n"
        "sweep = hs.Sweep(None, {'x': hs.Float(0, 1)}, 'loss', scheduler=hs.Halving(max_resource=4),\n"
        "    searcher=hs.Random(seed=3), name='mine', resources=hs.Resources(gpus=2))\n"
        "first, second = sweep.ask(2)\n"
        "sweep.tell(first, 0.5)\n"
        "second.report(1, loss=0.25)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE_S, check=False)
    assert done.returncode == -signal.SIGKILL
    sweep = sweep_of()
    (second,) = sweep.asked()
    assert (second.id, second.rung) == (1, 0)
    sweep.tell(second.id)  # by its number, with the value that it had reported
    assert list(sweep.results().runs["value"][:2]) == [0.5, 0.25]
    assert [trial.id for trial in sweep.ask(9)] == [2, 3]


def test_a_run_fails_or_is_interrupted_as_it_is_told() -> None:
    sweep = sweep_of(scheduler=hs.Fifo(), budget=hs.Budget(trials=4))
    failed, nan, lost, silent = sweep.ask(4)
    sweep.tell(failed, error="CUDA out\nof memory")
    sweep.tell(nan, math.nan)
    sweep.tell(lost, interrupted=True)
    sweep.tell(silent)
    (again,) = sweep.ask(1)
    assert (again.id, again.attempt) == (lost.id, 1)
    sweep.tell(again, {"loss": 0.5, "accuracy": 0.9})
    assert sweep.done
    runs = sweep.results().runs.set_index("trial")
    assert list(runs["failure"][[failed.id, nan.id, silent.id]]) == [
        "crashed",
        "not_finite",
        "never_reported",
    ]
    assert runs["message"][failed.id] == "CUDA out of memory"
    assert runs["value"][lost.id] == 0.5
    assert set(sweep.results().metrics.columns) >= {"loss", "accuracy"}


def test_what_was_not_asked_for_cannot_be_told() -> None:
    sweep = sweep_of()
    with pytest.raises(
        SpecError, match="tell: trial 0 has no run that was asked for and not told; these have: none"
    ):
        sweep.tell(0, 1.0)
    first, second = sweep.ask(2)
    sweep.tell(first, 1.0)
    with pytest.raises(SpecError, match=r"trial 0 has no run .* these have: 1"):
        sweep.tell(first, 2.0)
    with pytest.raises(TypeError, match="metric 'loss' must be one number"):
        sweep.tell(second, "bad")  # type: ignore[arg-type]
    assert [trial.id for trial in sweep.asked()] == [1]


def test_asking_holds_the_caps_and_budgets_of_the_spec() -> None:
    capped = sweep_of(cluster=hs.Cluster(max_gpus=6))
    assert len(capped.ask(9)) == 3
    assert capped.ask(1) == []
    few = sweep_of(scheduler=hs.Fifo(), budget=hs.Budget(trials=2), name="few")
    assert len(few.ask(9)) == 2


def test_a_trial_that_is_stopped_hears_of_it_and_another_one_is_given() -> None:
    sweep = sweep_of(scheduler=hs.Fifo(max_resource=9), budget=hs.Budget(trials=3))
    first, _ = sweep.ask(2)
    first.report(1, loss=3.0)
    assert not first.should_stop
    assert CliRunner().invoke(app, ["stop", "results/mine", "0"]).exit_code == 0
    assert first.should_stop
    (third,) = sweep.ask(1)
    assert third.id == 2
    assert [trial.id for trial in sweep.asked()] == [1, 2]
    assert sweep.ask(1) == []
    assert list(sweep.results().runs["value"][:1]) == [3.0]


def test_stop_ends_what_was_asked_for_and_leaves_no_request() -> None:
    sweep = sweep_of(scheduler=hs.Fifo(max_resource=9), budget=hs.Budget(trials=3))
    first, second = sweep.ask(2)
    done = CliRunner().invoke(app, ["stop", "results/mine"])
    assert (done.exit_code, done.output) == (0, "stopped\n")
    assert first.should_stop
    assert second.should_stop
    assert (sweep.status()["state"], list(Path("results/mine/control").iterdir())) == ("stopped", [])


def test_a_launch_does_not_take_over_what_was_asked_for() -> None:
    sweep = sweep_of(resources=hs.Resources())
    sweep.ask(1)
    sweep.to_yaml("sweep.yaml")
    done = CliRunner().invoke(app, ["launch", "sweep.yaml", "--results", "results/mine"])
    assert done.exit_code == 2
    assert "its runs were started by 'ask', which is no cluster" in done.output
    assert len(sweep.asked()) == 1


def test_a_sweep_without_training_code_cannot_be_launched() -> None:
    with pytest.raises(SpecError, match="launch: the sweep has no training code: ask for its runs"):
        sweep_of().launch()
    assert not os.path.exists("results")
