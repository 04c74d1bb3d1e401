"""Sweeps that are launched from Python, on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

import hpcsweep as hs
from hpcsweep.cli import app
from hpcsweep.errors import FolderError, SpecError, SweepFailed
from tests.waiting import PATIENCE_S, wait_until

TRAIN = """\
import hpcsweep as hs


def train(trial: hs.Trial) -> None:
    for step in trial.steps():
        trial.report(step, loss=trial.config["x"] + 1 / step)


def fail(trial: hs.Trial) -> None:
    raise ValueError("no such data")
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a user, in the working directory."""
    path = tmp_path / "train.py"
    path.write_text(TRAIN)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train", module)
    spec.loader.exec_module(module)
    return module


def sweep_of(function: Any, **arguments: Any) -> hs.Sweep:
    given: dict[str, Any] = {
        "scheduler": hs.Halving(max_resource=2),
        "searcher": hs.Random(seed=1),
        "cluster": hs.Local(slots=2),
    }
    return hs.Sweep(function, {"x": hs.Float(0, 1)}, "loss", **(given | arguments))


def test_a_sweep_runs_and_its_results_come_back(code: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = sweep_of(code.train)
    with pytest.raises(FolderError, match="results/train: does not exist"):
        sweep.status()
    results = sweep.launch(quiet=True)
    assert capsys.readouterr().out == ""
    assert results.best is not None
    trials = results.trials
    assert results.best["value"] == trials["value"].min() == results.best["config"]["x"] + 0.5
    assert sweep.status()["state"] == "finished"
    assert sweep.results().best == results.best
    # In another process, and by the command line, it is the same sweep: nothing is started.
    sweep.to_yaml("sweep.yaml")
    done = CliRunner().invoke(app, ["launch", "sweep.yaml"])
    assert "already finished: nothing is started" in done.output
    assert sweep_of(code.train).launch().best == results.best
    assert "already finished: nothing is started" in capsys.readouterr().out


def test_the_plan_is_that_of_the_command_line(code: ModuleType) -> None:
    sweep = sweep_of(code.train)
    plan = sweep.plan()
    sweep.to_yaml("sweep.yaml")
    assert str(plan) == CliRunner().invoke(app, ["plan", "sweep.yaml"]).output
    assert [bracket.sizes for bracket in plan.scheduler.brackets] == [(2, 1)]
    assert not Path("results").exists()


def test_a_sweep_without_any_value_is_an_error(code: ModuleType) -> None:
    with pytest.raises(SweepFailed) as found:
        sweep_of(code.fail).launch(quiet=True)
    assert str(found.value) == (
        "results/train-fail: failed: no run gave a value; the last failure: train.py:10 in fail | "
        "ValueError: no such data; `hpcsweep status results/train-fail` shows what failed"
    )


def test_a_folder_of_another_sweep_is_an_error(code: ModuleType) -> None:
    sweep_of(code.train).launch(once=True, quiet=True)
    with pytest.raises(FolderError, match=r"scheduler.eta: 2 -> 3"):
        sweep_of(code.train, scheduler=hs.Halving(max_resource=2, eta=3)).launch()


def test_an_unknown_argument_is_met_with_the_names_of_a_sweep() -> None:
    for name, hint in (
        ("shedule", "did you mean 'scheduler'"),
        ("foo", "expected one of: train, space, obj"),
    ):
        given: dict[str, Any] = {name: 1}
        with pytest.raises(SpecError, match=f"hs.Sweep: {name}: unknown parameter; {hint}"):
            hs.Sweep("a {args}", {"lr": [1]}, "error", **given)


def test_all_problems_are_reported_where_the_sweep_is_made() -> None:
    with pytest.raises(SpecError) as found:
        hs.Sweep("train.py:train", {"lr": hs.Float(0, 1, log=True)}, "loss", scheduler="hyperbnd")
    assert found.value.problems == (
        "hs.Sweep: space.lr.low: must be > 0 on a log scale, got 0",
        "hs.Sweep: scheduler.name: unknown name 'hyperbnd'; did you mean 'hyperband'?",
    )


UNGUARDED = """\
import hpcsweep as hs


def train(trial):
    trial.report(1, loss=trial.config["x"])


hs.Sweep({train}, {{"x": [1, 2]}}, "loss", name="mine", searcher="grid", cluster=hs.Local(slots=1)).launch()
"""


def run(path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, path.name],
        cwd=path.parent,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


GUARD = (
    "launch() would run in each job of the sweep, as the job runs this file, too; put it below "
    "`if __name__ == '__main__':`"
)


def test_a_script_that_would_launch_itself_in_each_job_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED.format(train="train"))
    done = run(script)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"hpcsweep.errors.TrainerError: hs.Sweep: train.function: {script}: cannot be imported: SpecError: "
        f"{GUARD} ({Path(hs.__file__).parent / 'api/running.py'}:{guard_line()})"
    )
    assert not (tmp_path / "results/mine/trials").exists()


def guard_line() -> int:
    lines = (Path(hs.__file__).parent / "api/running.py").read_text().splitlines()
    return next(n for n, line in enumerate(lines, start=1) if "raise SpecError(" in line)


def test_a_command_that_would_launch_itself_fails_in_words(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED.format(train="['{python}', 'script.py']"))
    done = run(script)
    assert done.returncode == 1
    assert "SweepFailed" in done.stderr
    failures = hs.load(tmp_path / "results/mine").runs["message"]
    assert list(failures) == [f"exit code 1: script.py:8 | hpcsweep.errors.SpecError: {GUARD}"] * 2


def test_an_interrupted_launch_leaves_its_jobs_and_the_next_one_carries_on(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import pathlib, time\n"
        "import hpcsweep as hs\n"
        "def train(trial):\n"
        "    pathlib.Path(f'begun-{trial.id}').touch()\n"
        "    while not pathlib.Path('go').exists():\n"
        "        time.sleep(0.01)\n"
        "    trial.report(1, loss=trial.config['x'])\n"
        "if __name__ == '__main__':\n"
        "    sweep = hs.Sweep(train, {'x': [1, 2]}, 'loss', searcher='grid', cluster=hs.Local(slots=1))\n"
        "    print(sweep.launch().best)\n"
    )
    command = [sys.executable, "train.py"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until((tmp_path / "begun-0").exists)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=PATIENCE_S)
    assert "Interrupted; jobs keep running: launch() again carries on" in error
    assert error.rstrip().endswith("KeyboardInterrupt")
    (tmp_path / "go").touch()
    done = run(tmp_path / "train.py")
    assert done.stdout.splitlines()[-1] == str({"trial": 0, "value": 1.0, "resource": 1, "config": {"x": 1}})
    assert list(hs.load(tmp_path / "results/train").runs["attempts"]) == [1, 1]
