"""The space of an objective of Optuna, found by calling it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcsweep as hs
from hpcsweep.api.discovery import Call, Suggestion, _Line, explore, find_space, space_of
from hpcsweep.errors import SpecError


def explored(objective: Callable[[Any], object]) -> list[Call]:
    """What the calls record."""
    lines: list[_Line] = []
    explore(objective, lines.append)
    calls: dict[int, list[Suggestion]] = {}
    for line in lines:
        found = calls.setdefault(line.call, [])
        if line.suggestion is not None:
            found.append(line.suggestion)
    return [Call(found, "") for found in calls.values()]


def plain(trial: Any) -> None:
    trial.suggest_float("lr", 1e-4, 1, log=True)
    trial.suggest_float("dropout", 0, 0.5, step=0.1)
    trial.suggest_int("batch", 16, 256, step=16)
    trial.suggest_int("hidden", 8, 512, log=True)
    trial.suggest_categorical("act", ["relu", "tanh", None, True, 3])
    trial.suggest_loguniform("a", 1e-3, 1)
    trial.suggest_uniform("b", 0, 1)
    trial.suggest_discrete_uniform("c", 0, 1, 0.5)
    trial.suggest_categorical("fixed", ["one"])
    trial.suggest_int("same", 3, 3)
    trial.suggest_float("lr", 1e-4, 1, log=True)


def layers(trial: Any) -> None:
    for layer in range(trial.suggest_int("layers", 1, 3)):
        trial.suggest_int(f"width_{layer}", 4, 128, log=True)


def nested(trial: Any) -> None:
    if trial.suggest_categorical("model", ["svm", "forest"]) == "svm":
        if trial.suggest_categorical("kernel", ["rbf", "poly"]) == "poly":
            trial.suggest_int("degree", 2, 5)
    else:
        trial.suggest_int("trees", 10, 100, log=True)
    if trial.suggest_categorical("scale", [False, True]):
        trial.suggest_float("quantile", 0, 1)


def many(trial: Any) -> None:
    """What `count` decides cannot be tried, so its parameters are always there."""
    if trial.suggest_int("count", 1, 100) < 50:
        trial.suggest_float("x", 0, 1)
    if trial.suggest_categorical("on", [True, False]):
        trial.suggest_float("x", -1, 1)


def growing(trial: Any) -> None:
    """Limits that depend on another parameter: the widest count."""
    most = trial.suggest_categorical("most", [2, 8])
    trial.suggest_int("depth", 1, most)


def believed(trial: Any) -> None:
    """With what is known beforehand."""
    trial.suggest_float("lr", 1e-4, 1, log=True, prior={"center": 1e-3, "sigma": 0.5})
    trial.suggest_int("depth", 1, 8, prior={"center": 3, "sigma": 1})
    trial.suggest_categorical("kind", ["a", "b"], prior={"a": 3})


@pytest.mark.parametrize(
    ("objective", "space"),
    [
        (
            plain,
            {
                "lr": hs.Float(1e-4, 1, log=True),
                "dropout": hs.Float(0, 0.5, step=0.1),
                "batch": hs.Int(16, 256, step=16),
                "hidden": hs.Int(8, 512, log=True),
                "act": hs.Choice("relu", "tanh", None, True, 3),
                "a": hs.Float(1e-3, 1, log=True),
                "b": hs.Float(0, 1),
                "c": hs.Float(0, 1, step=0.5),
                "fixed": hs.Constant("one"),
                "same": hs.Constant(3),
            },
        ),
        (
            layers,
            {
                "layers": hs.Int(1, 3),
                "width_0": hs.Int(4, 128, log=True),
                "width_1": hs.Int(4, 128, log=True, when={"layers": [2, 3]}),
                "width_2": hs.Int(4, 128, log=True, when={"layers": [3]}),
            },
        ),
        (
            nested,
            {
                "model": hs.Choice("svm", "forest"),
                "kernel": hs.Choice("rbf", "poly", when={"model": ["svm"]}),
                "scale": hs.Choice(False, True),
                "trees": hs.Int(10, 100, log=True, when={"model": ["forest"]}),
                "degree": hs.Int(2, 5, when={"kernel": ["poly"]}),
                "quantile": hs.Float(0, 1, when={"scale": [True]}),
            },
        ),
        (many, {"count": hs.Int(1, 100), "x": hs.Float(0, 1), "on": hs.Choice(True, False)}),
        (
            believed,
            {
                "lr": hs.Float(1e-4, 1, log=True, prior={"center": 1e-3, "sigma": 0.5}),
                "depth": hs.Int(1, 8, prior={"center": 3, "sigma": 1}),
                "kind": hs.Choice("a", "b", prior={"a": 3}),
            },
        ),
        (growing, {"most": hs.Choice(2, 8), "depth": hs.Int(1, 8)}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_space_is_what_is_suggested_with_its_conditions(
    objective: Callable[[Any], object], space: dict[str, Any]
) -> None:
    assert space_of(explored(objective)) == space


OBJECTIVES = """\
import time

def train(trial):
    print("noise")
    lr = trial.suggest_float("lr", 0, 1)
    for epoch in range(7):
        trial.report(lr, epoch)
    return lr

def quiet(trial):
    return trial.suggest_float("lr", 0, 1)

def slow(trial):
    trial.suggest_float("lr", 0, 1)
    time.sleep(60)

def broken(trial):
    trial.suggest_float("lr", 0, 1)
    raise FileNotFoundError("data.npz")

def empty(trial):
    return 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("objectives")
    (found / "objectives.py").write_text(OBJECTIVES)
    return found


@pytest.mark.parametrize(
    ("name", "seconds", "reports", "steps"),
    [("train", 60, True, 7), ("quiet", 60, False, 0), ("slow", 3, False, 0)],
)
def test_reports_and_steps_are_found_too(
    folder: Path, name: str, seconds: int, reports: bool, steps: int
) -> None:
    found = find_space(f"objectives.py:{name}", folder=folder, seconds=seconds)
    assert found == ({"lr": hs.Float(0, 1)}, reports, steps)


ADVICE = "give the parameters yourself: space={'lr': hs.Float(1e-4, 1, log=True), ...}"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "broken",
            "raised FileNotFoundError: data.npz, when it was called to find its parameters",
        ),
        ("empty", "has suggested no parameter within 5 s"),
        (
            "nothing",
            (
                "cannot be called to find its parameters: TrainerError: objectives.py: has no 'nothing'; it "
                "defines train, quiet, slow, broken, empty"
            ),
        ),
    ],
)
def test_an_objective_that_cannot_be_called_here_says_why(folder: Path, name: str, problem: str) -> None:
    with pytest.raises(SpecError) as found:
        find_space(f"objectives.py:{name}", folder=folder, seconds=5)
    assert str(found.value) == f"space: objectives.py:{name} {problem}; {ADVICE}"
