"""`best --rerun`: what it prints trains again what the sweep trained."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hpcsweep import rerun
from hpcsweep.cli import app
from hpcsweep.cli.status import _record_at
from hpcsweep.rerun import plan_rerun
from hpcsweep.views.folder import ResultsFolder, best_of
from tests.waiting import PATIENCE_S

FUNCTION = """\
import os, random

def train(trial):
    total = 0.0
    if trial.resume_from:
        total = float((trial.resume_from / "total").read_text())
    for step in trial.steps():
        total -= random.Random(f"{trial.seed} {step} {trial.config['lr']} {trial.config['note']}").random()
        trial.report(step, loss=total, accuracy=0.5)
        with trial.checkpoint(step) as folder:
            (folder / "total").write_text(str(total))
    print("set by the sweep:", os.environ["OF_SITE"])
"""
PROGRAM = """\
import os, random, sys
resource, resume, save, seed, lr, note = sys.argv[1:]
total, first = 0.0, 1
if resume:
    first, total = eval(open(resume + "/total").read())
for step in range(first, int(resource) + 1):
    total -= random.Random(f"{seed} {step} {lr} {note} {os.environ['HPCSWEEP_PARAM_NOTE']}").random()
    print(f"{os.environ['OF_SITE']}: {step=} loss={total}", flush=True)
open(save + "/total", "w").write(repr((int(resource) + 1, total)))
"""
#: Reports by hpcsweep, though it is a command.
SCRIPT = """\
import hpcsweep
trial = hpcsweep.current_trial()
for step in trial.steps():
    trial.report(step, loss=trial.config["lr"] + len(trial.config["note"]) + trial.seed % 97 + 1 / step)
"""
COMMAND = "{python} 'my prog.py' {resource} {resume_from} {checkpoint_dir} {seed} {lr} {note}"
METRICS = r"step=(?P<step>\d+) loss=(?P<loss>.*)"
TRAIN: dict[str, dict[str, Any]] = {
    "function": {"function": "it's mine.py:train"},
    "command": {"command": COMMAND, "metrics": METRICS},
    "shell": {"command": f"{COMMAND} 2>&1", "metrics": METRICS, "shell": True},
    "script": {"command": "{python} script.py"},
}
SPEC = """\
name: again
train: %s
objective: {metric: loss}
space:
  lr: {type: float, low: 0.0, high: 1.0}
  note: {type: choice, values: ['a b', "it's", '$HOME `x` "q" \\\\', '']}
searcher: {name: random, seed: 3}
scheduler: {name: halving, min_resource: 1, max_resource: 4, eta: 2}
budget: {trials: 1}
cluster: {name: local, slots: 2, environment: {OF_SITE: 'a "site"'}}
"""


def project(folder: Path, kind: str) -> Path:
    root = folder / "it's my project"
    root.mkdir()
    (root / "it's mine.py").write_text(FUNCTION)
    (root / "my prog.py").write_text(PROGRAM)
    (root / "script.py").write_text(SCRIPT)
    (root / "sweep.yaml").write_text(SPEC % json.dumps(TRAIN[kind]))
    return root


def hpcsweep(root: Path, *argv: str) -> Result:
    """The command line in this process, started in that folder."""
    with contextlib.chdir(root):
        return CliRunner().invoke(app, argv)


def shell(line: str, cwd: Path) -> str:
    done = subprocess.run(["sh", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def started(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """A process that becomes the training."""
    command = [sys.executable, "-m", "hpcsweep", "best", "results/again", "--rerun", "--start", *argv]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE_S)


def swept(root: Path, *argv: str) -> dict[str, Any]:
    """The best of a sweep that was launched and has ended."""
    done = hpcsweep(root, "launch", "sweep.yaml", "-q", *argv)
    assert done.exit_code == 0, done.output
    best = best_of(ResultsFolder(root / "results" / "again").state)
    assert best is not None
    return best


def printed(root: Path, *argv: str) -> str:
    done = hpcsweep(root, "best", "results/again", "--rerun", *argv)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["function", "script"])
def test_the_printed_command_gives_the_same_value_metrics_and_checkpoint(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path, kind)
    best = swept(root)
    line = printed(root)
    assert line.count("\n") == 1
    out = shell(line, tmp_path)
    folder = root / f"rerun-again-{best['trial']}"
    value = f"{best['value']:.6g}"
    assert f"loss {value} at 4; in the sweep it was {value}\n" in out
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("step ")] == [
        f"step {step}" for step in range(1, 5)
    ]
    reports = [json.loads(line) for line in next(folder.glob("metrics-*")).read_text().splitlines()]
    assert [report["step"] for report in reports] == [1, 2, 3, 4]
    assert reports[-1]["loss"] == best["value"]
    if kind == "function":
        assert 'set by the sweep: a "site"' in out
        assert float((folder / "checkpoints" / "step-4" / "total").read_text()) == best["value"]
    assert not list(folder.glob("checkpoints/.*"))
    assert rerun.main(shlex.split(line)[4:]) == 2
    assert f"expected a new or an empty folder, {folder} is not" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["command", "shell"])
def test_program_that_only_prints_is_rerun_by_its_own_command_line(tmp_path: Path, kind: str) -> None:
    root = project(tmp_path, kind)
    best = swept(root)
    line = printed(root, "--output", "out put")
    assert "hpcsweep.rerun" not in line
    out = shell(line, tmp_path)
    assert out.splitlines()[-1] == f'a "site": step=4 loss={best["value"]}'
    assert (root / "out put" / "checkpoint" / "total").read_text() == repr((5, best["value"]))


def test_printed_command_quotes_unprintable_values(tmp_path: Path) -> None:
    root = project(tmp_path, "command")
    best = swept(root, "--set", r'space.note={type: constant, value: "\e[1m\u202e\nx"}')
    line = printed(root)
    assert line.strip().isprintable()
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f'a "site": step=4 loss={best["value"]}'


def test_a_run_of_several_processes_is_left_to_a_sweep(tmp_path: Path) -> None:
    root = project(tmp_path, "script")
    swept(root, "--set", "budget.trials=1", "--set", "train.launcher=srun")
    refused = hpcsweep(root, "best", "results/again", "--rerun")
    assert refused.exit_code == 2
    assert "is several processes (train.launcher: srun), which only a task starts" in refused.stderr


def test_start_trains_and_prints_the_result(tmp_path: Path) -> None:
    root = project(tmp_path, "command")
    best = swept(root, "--set", "budget.trials=2")
    other = 1 - best["trial"]
    found = plan_rerun(ResultsFolder(root / "results" / "again"), other)
    assert found is not None
    done = started(root, "--trial", str(other))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"# trial {other}: loss {found.value:.6g} at {found.run.resource}\n")
    folder = root / f"rerun-again-{other}"
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith('a "site": step=')]) == found.run.resource
    ended = f"{found.value:.6g} at {found.run.resource}; in the sweep it was {found.value:.6g}"
    assert f"loss {ended}" in lines
    assert lines[-1] == f"checkpoint: {folder}/checkpoints/step-{found.run.resource}"
    assert (folder / "checkpoints" / f"step-{found.run.resource}" / "total").exists()


def test_failed_training_exits_with_1(tmp_path: Path) -> None:
    root = project(tmp_path, "function")
    swept(root)
    (root / "it's mine.py").write_text("def train(trial): raise ValueError('no')")
    done = started(root)
    assert done.returncode == 1
    assert "no value: training ended with exit code 1; its output is in " in done.stdout
    assert "ValueError: no" in done.stderr
    assert "changed since it was trained" in done.stderr
    assert "it's mine.py changed" in done.stderr


def test_printed_metric_that_is_no_number_is_reported_with_its_text(tmp_path: Path) -> None:
    root = project(tmp_path, "command")
    swept(root)
    (root / "my prog.py").write_text("print('step=4 loss=0,43')")
    done = started(root)
    assert done.returncode == 1
    assert "no value: metric 'loss' was printed, but as '0,43', which is not a number" in done.stdout


@pytest.mark.parametrize("kind", ["function", "command"])
def test_rerun_uses_the_snapshot_of_the_code(tmp_path: Path, kind: str) -> None:
    root = project(tmp_path, kind)
    best = swept(root, "--set", "train.snapshot=true")
    for name in ("it's mine.py", "my prog.py"):
        (root / name).write_text("raise 1")
    done = hpcsweep(root, "best", "results/again", "--rerun")
    assert done.exit_code == 0, done.stderr
    copy = root / "results" / "again" / "code"
    assert f"# uses the sweep's snapshot of the code: {copy}\n" in done.stderr
    assert "changed" not in done.stderr
    value = f"{best['value']:.6g}" if kind == "function" else str(best["value"])
    assert value in shell(done.stdout, tmp_path)


def test_rerun_reports_a_changed_commit(tmp_path: Path) -> None:
    root = project(tmp_path, "function")

    def commit(message: str) -> str:
        named = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        for argv in (["add", "*.py"], [*named, "commit", "-q", "-m", message]):
            subprocess.run(["git", *argv], cwd=root, check=True)
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
        return done.stdout[:10]

    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    one = commit("one")
    swept(root)
    assert "has changed" not in hpcsweep(root, "best", "results/again", "--rerun").stderr
    (root / "other.py").write_text("")
    two = commit("two")
    done = hpcsweep(root, "best", "results/again", "--rerun")
    assert f"# changed since it was trained: commit {one} -> {two}\n" in done.stderr


def test_invalid_rerun_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    root = project(tmp_path, "function")
    swept(root)
    wrong = {
        ("--rerun", "--trial", "7"): "--trial: expected one of 0 to 0, got 7",
        ("--rerun", "--json"): "--json and --rerun exclude each other",
        ("--start",): "need --rerun",
    }
    for argv, words in wrong.items():
        done = hpcsweep(root, "best", "results/again", *argv)
        assert (done.exit_code, words in done.stderr) == (2, True), done.stderr
    os.rename(root / "results" / "again" / "sweep.yaml", root / "away.yaml")
    done = hpcsweep(root, "best", "results/again", "--rerun")
    assert done.exit_code == 2
    assert "sweep.yaml: is missing: it tells how trials are run; bring it back" in done.stderr


def test_differences_are_to_the_newest_record_before_the_run() -> None:
    records = [{"at": 10.0}, {"at": 20.0}, {"at": 30.0}]
    at = [_record_at(records, moment)["at"] for moment in (25.0, 30.0, 5.0, None)]
    assert at == [20.0, 30.0, 10.0, 30.0]
