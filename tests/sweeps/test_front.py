"""The example with two objectives goes on from a checkpoint as if it had never stopped, and learns."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.spec import load_spec
from hpcsweep.trial import StandaloneTrial, current_trial
from hpcsweep.worker.training_function import load_trainer

SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, float]]]:
    """What is reported from now on."""
    found: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr(StandaloneTrial, "_write", lambda _, step, values: found.append((step, values)))
    return found


def train(folder: Path, resource: int, pixels: int = 4) -> None:
    trial = current_trial(
        lr=0.1, momentum=0.5, width=16, pixels=pixels, resource=resource, seed=5, folder=folder
    )
    load_trainer(f"{SWEEPS / 'digits_front.py'}:train")(trial)


def test_training_from_a_checkpoint_equals_uninterrupted_training(
    tmp_path: Path, reports: list[tuple[int, dict[str, float]]]
) -> None:
    train(tmp_path / "whole", 3)
    uninterrupted = reports.copy()
    reports.clear()
    for resource in (1, 3):
        train(tmp_path / "pieces", resource)
    assert reports == uninterrupted
    assert [(step, values["size"]) for step, values in reports] == [
        (step, 16 * 16 + 160) for step in (1, 2, 3)
    ]


def test_a_smaller_network_errs_more(tmp_path: Path, reports: list[tuple[int, dict[str, float]]]) -> None:
    for pixels in (2, 8):
        train(tmp_path / str(pixels), 3, pixels)
    small, large = reports[2][1], reports[5][1]
    assert small["size"] < large["size"]
    assert large["val_error"] < 0.15 < small["val_error"] < 0.9


def test_its_sweep_is_valid() -> None:
    spec = load_spec(SWEEPS / "digits_front.yaml")
    assert spec.objectives.metrics == ("val_error", "size")
