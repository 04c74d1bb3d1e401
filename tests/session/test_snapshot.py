"""`train.snapshot: true`: later rungs and launches run the code that the first launch found."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.store.layout import Layout
from hpcsweep.store.provenance import list_records
from hpcsweep.views.folder import ResultsFolder, best_of
from tests.waiting import PATIENCE_S

FUNCTION = """\
import os
from pathlib import Path
from pkg.model import offset

def train(trial):
    Path(os.environ["HPCSWEEP_WORKDIR"], f"ran-{trial.id}-{trial.rung}").write_text(os.getcwd())
    for step in trial.steps():
        trial.report(step, loss=trial.config["x"] + offset)
    with trial.checkpoint(trial.resource) as folder:
        (folder / "state").touch()
"""
PROGRAM = """\
import json, sys
from pkg.model import offset
with open(sys.argv[3]) as file:
    offset += json.load(file)["offset"]
print("loss =", float(sys.argv[1]) + offset)
open(sys.argv[2] + "/state", "w").close()
"""
SPEC = """\
name: s
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: random
scheduler: {name: halving, min_resource: 1, max_resource: 2, eta: 2, rounds: null}
cluster: {name: local, slots: 2}
budget: {trials: 1}
"""
COMMAND = """\
train:
  snapshot: true
  command: '{python} train.py {x} {checkpoint_dir} {config_file} {resource}'
  config: base.json
  metrics: 'loss = (?P<loss>.*)'
"""
#: A launch that dies the hard way as it copies the second file.
DIES = """\
import os, sys
from hpcsweep.store import snapshot
copy, count = snapshot._copy, []
def dying(*arguments, **more):
    count.append(copy(*arguments, **more))
    if len(count) == 2:
        os._exit(9)
snapshot._copy = dying
from hpcsweep.cli import app
app(sys.argv[1:])
"""


def sweep(folder: Path, train: str, code: str) -> Path:
    """A sweep whose code adds 10 to its parameter, in a folder with a space; its spec."""
    project = folder / "my project"
    (project / "pkg").mkdir(parents=True)
    (project / "pkg" / "model.py").write_text("offset = 10")
    (project / "train.py").write_text(code)
    (project / "base.json").write_text('{"offset": 0}')
    spec = project / "sweep.yaml"
    spec.write_text(SPEC + train)
    return spec


def launch(spec: Path, *argv: str) -> Result:
    """The verb in this process, started in the project's folder."""
    with contextlib.chdir(spec.parent):
        return CliRunner().invoke(app, ["launch", str(spec), "-q", *argv])


@pytest.mark.parametrize(
    ("train", "code"),
    [
        ("train: {snapshot: true, function: train.py:train}", FUNCTION),
        ("train: {snapshot: true, function: 'train:train'}", FUNCTION),
        (COMMAND, PROGRAM),
    ],
    ids=["file", "module", "command"],
)
def test_later_launches_run_the_snapshot_even_if_the_code_is_gone(
    tmp_path: Path, train: str, code: str
) -> None:
    spec = sweep(tmp_path, train, code)
    project = spec.parent
    done = launch(spec)
    assert done.exit_code == 0, done.output
    (project / "pkg" / "model.py").write_text("offset = -1000")
    (project / "train.py").unlink()
    (project / "base.json").write_text('{"offset": -1000}')
    folder = project / "results" / "s"
    done = launch(folder / "sweep.yaml", "--results", str(folder), "--set", "budget.trials=2")
    assert done.exit_code == 0, done.output
    state = ResultsFolder(folder).state
    values = [run.value for trial in state.trials for run in trial.runs]
    assert len(values) == 3
    assert all(value is not None and value > 9.9 for value in values)
    assert [record.copied for _, record in list_records(Layout(folder))] == [str(project)] * 2
    if code == FUNCTION:
        assert [path.read_text() for path in project.glob("ran-*")] == [f"{folder}/code"] * 3


def test_launch_killed_while_copying_starts_nothing_and_the_next_one_copies_again(
    tmp_path: Path,
) -> None:
    spec = sweep(tmp_path, "train: {snapshot: true, function: train.py:train}", FUNCTION)
    folder = spec.parent / "results" / "s"
    died = subprocess.run(
        [sys.executable, "-c", DIES, "launch", str(spec)], cwd=spec.parent, timeout=PATIENCE_S
    )
    assert died.returncode == 9
    assert sorted(path.name for path in folder.iterdir()) == [".code-1.tmp", "journal"]
    (spec.parent / "pkg" / "model.py").write_text("offset = 20")
    done = launch(spec)
    assert done.exit_code == 0, done.output
    assert not (folder / ".code-1.tmp").exists()
    best = best_of(ResultsFolder(folder).state)
    assert best is not None
    assert best["value"] > 20


def test_snapshot_that_cannot_be_imported_starts_nothing_and_is_replaced_after_a_fix(
    tmp_path: Path,
) -> None:
    spec = sweep(tmp_path, "train: {snapshot: true, function: train.py:train}", FUNCTION)
    (spec.parent / "pkg" / "model.py").write_text("offest = 10")
    done = launch(spec)
    assert done.exit_code == 2
    assert "sweep.yaml: train.function: " in done.stderr
    assert "cannot import name 'offset'" in done.stderr
    assert not (spec.parent / "results" / "s" / "batches").exists()
    (spec.parent / "pkg" / "model.py").write_text("offset = 10")
    done = launch(spec, "--once")
    assert done.exit_code == 3, done.output


def test_snapshot_setting_cannot_change_after_the_start(tmp_path: Path) -> None:
    spec = sweep(tmp_path, "train: {snapshot: true, function: train.py:train}", FUNCTION)
    assert launch(spec).exit_code == 0
    done = launch(spec, "--set", "train.snapshot=false")
    assert (done.exit_code, "train.snapshot: removed" in done.stderr) == (2, True)
    shutil.rmtree(spec.parent / "results" / "s" / "code")
    done = launch(spec, "--set", "budget.trials=2")
    assert done.exit_code == 2
    assert "expected the copy of the training code that the sweep was started with" in done.stderr


def test_too_much_code_leaves_no_results_folder(tmp_path: Path) -> None:
    spec = sweep(tmp_path, "train: {snapshot: true, function: train.py:train}", FUNCTION)
    with (spec.parent / "weights.pt").open("wb") as file:
        file.truncate(200 * 2**20)
    done = launch(spec)
    assert done.exit_code == 2
    assert "sweep.yaml: train.snapshot: " in done.stderr
    assert "the largest files: weights.pt (200.0 MiB)" in done.stderr
    assert not (spec.parent / "results").exists()
