"""A Python environment with hpcsweep and msgspec alone can train."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import msgspec
import pytest

import hpcsweep

TRAIN = """\
import importlib.util, sys
import hpcsweep as hs

def train(trial):
    assert not any(map(importlib.util.find_spec, ("numpy", "pydantic", "typer")))
    epochs = int((trial.resume_from / "epochs").read_text()) if trial.resume_from else 0
    for step in trial.steps():
        epochs += 1
        trial.report(step, epochs=epochs)
        with trial.checkpoint(step) as folder:
            (folder / "epochs").write_text(str(epochs))
    print(sys.prefix)

# As in a script that launches it: a job makes the sweep again, and neither checks nor loads anything for it.
sweep = hs.Sweep(train, {"x": hs.Float(0, 1)}, "epochs", scheduler=hs.Halving(max_resource=2), timeout_min=5)
"""
SPEC = """\
name: light
train: {{function: train.py:train}}
objective: {{metric: epochs, mode: max}}
space: {{x: {{type: float, low: 0.0, high: 1.0}}}}
scheduler: {{name: halving, max_resource: 2}}
cluster: {{name: local, slots: 2, python: {python}}}
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment made by `pip install --no-deps hpcsweep msgspec`."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for package in (hpcsweep, msgspec):
        assert package.__file__ is not None
        installed = Path(package.__file__).parent
        (packages / installed.name).symlink_to(installed)
    return folder / "bin/python"


def without_pythonpath() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def hpcsweep_prints(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "hpcsweep", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_trials_train_and_resume_there(python: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "s.yaml").write_text(SPEC.format(python=python))
    command = [sys.executable, "-m", "hpcsweep", "launch", str(tmp_path / "s.yaml"), "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=without_pythonpath(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert hpcsweep_prints("best", "results/light", cwd=tmp_path).startswith("trial 0: 2 at 2\n")
    log = hpcsweep_prints("logs", "results/light", "0", cwd=tmp_path)
    assert log.splitlines().count(str(python.parent.parent)) == 2


def test_the_command_line_says_what_is_missing_there(python: Path, tmp_path: Path) -> None:
    command = [str(python), "-m", "hpcsweep", "status", "results"]
    done = subprocess.run(command, cwd=tmp_path, env=without_pythonpath(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"hpcsweep: this Python ({python}) lacks typer, which the command line needs: "
        "python -m pip install hpcsweep\n"
    )
