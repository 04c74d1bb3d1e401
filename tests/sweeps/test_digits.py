"""The example trainers go on from a checkpoint as if they had never stopped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpcsweep.trial import StandaloneTrial, current_trial
from hpcsweep.worker.training_function import load_trainer
from tests.lazy import LazyModule

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")

SWEEPS = Path(__file__).parents[2] / "sweeps"

SGD = {"lr": 0.03, "batch_size": 64, "optimizer": "sgd", "momentum": 0.9, "channels": 4}
ADAM = {"lr": 0.003, "batch_size": 64, "optimizer": "adam", "channels": 4}


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, float]]]:
    """What is reported from now on."""
    found: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr(StandaloneTrial, "_write", lambda _, step, values: found.append((step, values)))
    return found


def train(folder: Path, resource: int, config: dict[str, Any]) -> dict[str, Any]:
    """Train up to `resource` with checkpoints in `folder`; what is in the last one."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        trial = current_trial(
            config, dropout=0.2, weight_decay=1e-4, resource=resource, seed=5, folder=folder
        )
        load_trainer(f"{SWEEPS / 'digits.py'}:train")(trial)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    saved: dict[str, Any] = torch.load(
        folder / "checkpoints" / f"step-{resource}" / "state.pt", weights_only=True
    )
    return saved


@pytest.mark.parametrize("config", [SGD, ADAM], ids=["sgd", "adam"])
def test_training_from_a_checkpoint_equals_uninterrupted_training_bit_for_bit(
    tmp_path: Path, reports: list[tuple[int, dict[str, float]]], config: dict[str, Any]
) -> None:
    whole = train(tmp_path / "whole", 4, config)
    uninterrupted = reports.copy()
    reports.clear()
    pieces = [train(tmp_path / "pieces", resource, config) for resource in (1, 3, 4)]
    assert reports == uninterrupted
    assert [step for step, _ in reports] == [1, 2, 3, 4]
    assert_same(pieces[-1], whole)


def assert_same(left: Any, right: Any) -> None:
    """Equal to the last bit, tensors included."""
    assert type(left) is type(right)
    match left:
        case torch.Tensor():
            assert torch.equal(left, right)
        case dict():
            assert left.keys() == right.keys()
            for key in left:
                assert_same(left[key], right[key])
        case list():
            assert len(left) == len(right)
            for one, other in zip(left, right, strict=True):
                assert_same(one, other)
        case _:
            assert left == right


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn import datasets

    digits = sys.modules[load_trainer(f"{SWEEPS / 'digits.py'}:train").__module__]
    images, labels = digits.load_digits()
    expected = datasets.load_digits()
    assert torch.equal(images.squeeze(1) * 16, torch.tensor(expected.images, dtype=torch.float32))
    assert torch.equal(labels, torch.tensor(expected.target))


def test_training_learns_the_digits(tmp_path: Path, reports: list[tuple[int, dict[str, float]]]) -> None:
    train(tmp_path, 9, {"lr": 0.01, "batch_size": 32, "optimizer": "adam", "channels": 8})
    assert reports[-1][1]["val_error"] < 0.05


def softmax(epochs: int, save: Path, resume: Path | str = "") -> list[str]:
    """The lines that the plain script prints."""
    save.mkdir()
    options = ["--epochs", str(epochs), "--save", str(save), "--resume", str(resume)]
    command = [sys.executable, str(SWEEPS / "softmax.py"), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_the_plain_script_goes_on_from_its_weights(tmp_path: Path) -> None:
    uninterrupted = softmax(3, tmp_path / "whole")
    pieces = softmax(1, tmp_path / "first")
    pieces += softmax(3, tmp_path / "second", resume=tmp_path / "first")
    assert pieces == uninterrupted
    assert all(re.fullmatch(r"epoch=\d+ val_error=\d\.\d+", line) for line in pieces)
