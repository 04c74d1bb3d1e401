"""Which training code a job finds again, and what is said of the others."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcsweep as hs
from hpcsweep.api.function import default_name, function_name, train_section
from hpcsweep.errors import SpecError
from hpcsweep.worker.training_function import load_trainer


def train(trial: hs.Trial) -> None: ...


class Trainer:
    def train(self, trial: hs.Trial) -> None: ...

    def __call__(self, trial: hs.Trial) -> None: ...


def nested() -> Callable[[hs.Trial], None]:
    def train(trial: hs.Trial) -> None: ...

    return train


WAY_OUT = "write a function of a module, `def train(trial): ...` at the left margin of a file"


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda trial: 1.0, f"a lambda has no name by which a job could find it; {WAY_OUT}"),
        (nested(), f"train is defined within nested, where no job can find it; {WAY_OUT}"),
        (Trainer().train, f"train is a method of an object, which a job does not have; {WAY_OUT}"),
        (Trainer.train, f"Trainer.train is defined within a class; {WAY_OUT}"),
        (Trainer(), f"an object of Trainer has no name by which a job could find it; {WAY_OUT}"),
        (
            functools.partial(train),
            (
                f"a functools.partial of train has no name by which a job could find it; {WAY_OUT}, that "
                "calls train with these arguments, or make them constants of the space"
            ),
        ),
        (7, "expected a function, 'FILE.py:NAME', a command or a list of its arguments, got int"),
        ([], "expected a function, 'FILE.py:NAME', a command or a list of its arguments, got list"),
    ],
)
def test_what_no_job_could_find_is_refused_with_the_way_out(function: Any, problem: str) -> None:
    with pytest.raises(SpecError) as found:
        hs.Sweep(function, {"lr": hs.Float(0, 1)}, "loss")
    assert str(found.value) == f"hs.Sweep: train: {problem}"


def notebook_function(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that was typed into a cell: its module is `__main__`, which has no file."""
    cell = types.ModuleType("__main__")
    exec("def train(trial): ...", vars(cell))
    monkeypatch.setitem(sys.modules, "__main__", cell)
    return vars(cell)["train"]


def test_a_function_of_a_notebook_s_cell_is_refused_with_writefile(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError) as found:
        function_name(notebook_function(monkeypatch))
    assert str(found.value) == (
        "train: train was defined here and not in a file, so that no job can find it; write the function "
        "into a file, in a notebook with `%%writefile train.py` in the first line of its cell, and give it "
        "as `from train import train` or 'train.py:train'"
    )


def test_a_function_that_its_module_calls_otherwise_now_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = types.FunctionType(train.__code__, globals(), "train")
    with pytest.raises(SpecError, match=r"train of .*test_function is another object than the one given"):
        function_name(other)


def test_a_decorated_function_is_found_by_its_name() -> None:
    assert function_name(decorated) == f"{__name__}:decorated"


@functools.cache
def decorated(trial: hs.Trial) -> None: ...


def test_a_function_of_a_script_is_found_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text("def fit(trial): ...")
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    exec(script.read_text(), vars(module))
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert function_name(module.fit) == f"{script}:fit"


def test_a_function_of_a_package_is_found_by_the_full_name_of_its_module() -> None:
    assert function_name(load_trainer) == "hpcsweep.worker.training_function:load_trainer"


@pytest.mark.parametrize(
    ("train", "section", "name"),
    [
        ("train.py:fit", {"function": "train.py:fit"}, "train-fit"),
        ("/a b/train.py:train", {"command": "/a b/train.py:train"}, "a"),
        ("my.models.net:train", {"function": "my.models.net:train"}, "net-train"),
        ("train.py:train", {"function": "train.py:train"}, "train"),
        ("python train.py --lr {lr}", {"command": "python train.py --lr {lr}"}, "train"),
        (
            ["python", "my train.py", "--lr={lr}"],
            {"command": "python 'my train.py' --lr={lr}"},
            "my-train",
        ),
        ("./run {lr}", {"command": "./run {lr}"}, "run"),
        ("{python} -c 'print(1)'", {"command": "{python} -c 'print(1)'"}, "print-1"),
    ],
)
def test_a_text_is_a_function_where_it_names_one_and_else_a_command(
    train: Any, section: dict[str, str], name: str
) -> None:
    found = train_section(train)
    assert found == section
    assert default_name(found) == name
