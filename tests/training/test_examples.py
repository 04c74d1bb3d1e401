"""The examples of the callbacks train, go on from their checkpoints, and report what their sweeps look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.spec import load_spec
from hpcsweep.worker.training_function import load_trainer
from tests.training.runs import LIGHTNING_ITSELF, kept, new_run, reported

SWEEPS = Path(__file__).parents[2] / "sweeps"

pytestmark = LIGHTNING_ITSELF


@pytest.mark.parametrize(
    ("name", "config", "worst", "best"),
    [
        ("digits_lightning", {"lr": 0.01, "width": 64, "dropout": 0.1}, 0.0, 0.2),
        ("digits_transformers", {"lr": 0.005, "batch_size": 32, "layers": 1}, 0.3, 1.0),
    ],
)
def test_an_example_goes_on_from_its_checkpoint_and_learns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    config: dict[str, object],
    worst: float,
    best: float,
) -> None:
    spec = load_spec(SWEEPS / f"{name}.yaml")
    assert config.keys() == set(spec.space.names)
    train = load_trainer(f"{SWEEPS / name}.py:train")
    for resource in (1, 3):
        trial = new_run(tmp_path, metric=spec.objective.metric, resource=resource)
        trial.config.update(config)
        train(trial)
        assert kept(tmp_path) == resource
    values = {step: metrics[spec.objective.metric] for step, metrics in reported(tmp_path).items()}
    assert list(values) == [1, 2, 3]
    assert worst <= values[3] <= best
