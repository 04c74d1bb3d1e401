"""A trainer that cannot run is found out before anything is submitted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.errors import TrainerError
from hpcsweep.store.batch import CodeSnapshot, Program
from hpcsweep.worker.training_function import check_trainer

CODE = """
def train(trial): ...
def nothing(): ...
def more(trial, data, *, lr): ...
class Trainer:
    def __init__(self, trial): ...
    @staticmethod
    def fit(trial): ...
lr = 0.1
"""


def check(folder: Path, **fields: Any) -> None:
    check_trainer(Program(workdir=str(folder), metric="val_error", **fields), sys.executable)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("import os\nimport no_such_module\n")
    (tmp_path / "wrong.py").write_text("def train(:\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    return tmp_path


@pytest.mark.parametrize("name", ["train", "Trainer", "Trainer.fit"])
def test_callable_that_takes_a_trial_is_accepted(folder: Path, name: str) -> None:
    check(folder, function=f"{folder}/train.py:{name}")
    check(folder, function=f"train:{name}")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("none.py:train", r"none.py: there is no such file$"),
        ("train.py:trian", r"train.py: has no 'trian'; did you mean 'train'\?$"),
        ("train.py:zzzz", r"train.py: has no 'zzzz'; it defines train, nothing, more, Trainer$"),
        ("train.py:lr", r"train.py: 'lr' is not a function but float$"),
        ("train.py:nothing", r"'nothing' must be callable with one argument, the trial \(too many"),
        ("train.py:more", r"'more' must be callable with one argument, the trial \(missing a required"),
        (
            "broken.py:train",
            r"broken.py: cannot be imported: ModuleNotFoundError: .* 'no_such_module' \(.*broken.py:2\)$",
        ),
        ("wrong.py:train", r"wrong.py: cannot be imported: SyntaxError: .*line 1"),
        ("leaves.py:train", r"leaves.py: cannot be imported: SystemExit: 0"),
        ("train.py", r"write FILE.py:NAME or package.module:NAME$"),
    ],
)
def test_wrong_training_function_is_refused_in_one_line(folder: Path, function: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message) as caught:
        check(folder, function=f"{folder}/{function}")
    assert "\n" not in str(caught.value)


def test_an_interpreter_that_is_not_there_is_named(folder: Path) -> None:
    program = Program(workdir=str(folder), metric="x", function="train:train")
    with pytest.raises(TrainerError, match="by /no/python: No such file"):
        check_trainer(program, "/no/python")


@pytest.fixture
def copied(tmp_path: Path) -> Program:
    """A trainer in `copy`, copied from `original`, which imports the package `net`."""
    for root in ("original", "copy"):
        (tmp_path / root / "src" / "net").mkdir(parents=True)
        (tmp_path / root / "src" / "net" / "__init__.py").write_text(f"where = {root!r}")
        (tmp_path / root / "train.py").write_text(
            "import net\nassert net.where == 'copy'\ndef train(trial): ..."
        )
    return Program(
        workdir=str(tmp_path / "copy"),
        metric="x",
        function=f"{tmp_path}/copy/train.py:train",
        snapshot=CodeSnapshot(str(tmp_path / "original"), str(tmp_path / "copy"), str(tmp_path / "original")),
    )


def test_a_copy_imports_from_the_copy_what_is_on_the_path_of_the_original(
    copied: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/original/src:{tmp_path}/original/none")
    check_trainer(copied, sys.executable)


def test_a_copy_that_imports_the_original_is_refused(
    copied: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = tmp_path / "site" / "sitecustomize.py"  # as an editable install has one
    hook.parent.mkdir()
    hook.write_text(
        "import importlib.util, sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        place = {str(tmp_path / 'original/src/net/__init__.py')!r}\n"
        "        return importlib.util.spec_from_file_location(name, place) if name == 'net' else None\n"
        "sys.meta_path.append(Finder)\n"
    )
    (tmp_path / "copy" / "train.py").write_text("import net\ndef train(trial): ...")
    monkeypatch.setenv("PYTHONPATH", str(hook.parent))
    with pytest.raises(TrainerError, match=r"train: imports .*original/src/net/__init__.py, not its copy in"):
        check_trainer(copied, sys.executable)
    monkeypatch.setenv("PYTHONPATH", f"{hook.parent}:{tmp_path}/original/src")
    check_trainer(copied, sys.executable)
