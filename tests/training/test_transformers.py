"""Hugging Face's Trainer as one run of a trial."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from hpcsweep.trial import Trial
from tests.lazy import LazyModule
from tests.training.runs import Killed, assert_same_weights, kept, new_run, reported, told

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import Tensor

    from hpcsweep.training import transformers as callbacks
else:
    torch, transformers = LazyModule("torch"), LazyModule("transformers")
    callbacks = LazyModule("hpcsweep.training.transformers")

BATCH, EPOCHS = 16, 4


@cache
def dataset() -> Any:
    """Sequences of tokens, and whether the first is a small one."""
    tokens = torch.randint(20, (48, 6), generator=torch.Generator().manual_seed(6))
    return [{"input_ids": row, "labels": (row[0] < 10).long()} for row in tokens]


def new_model() -> transformers.BertForSequenceClassification:
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    return transformers.BertForSequenceClassification(config)


def accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())}


def kill() -> None:
    raise Killed


def train(
    trial: Trial,
    *,
    at: int | None = None,
    happens: Callable[[], object] = kill,
    unit: Literal["epoch", "step"] = "epoch",
    resume: bool = True,
    **options: Any,
) -> dict[str, Tensor]:
    """Train; the weights at the end. At the batch `at`, counted from this start, something happens."""
    transformers.set_seed(trial.seed)
    sweep = callbacks.SweepCallback(trial, unit=unit)
    model = new_model()
    batches = itertools.count(1)
    model.register_forward_pre_hook(lambda *_: happens() if next(batches) == at else None)
    length: dict[str, Any] = {"num_train_epochs": trial.resource, "save_strategy": "epoch"}
    if unit == "step":
        length = {"max_steps": trial.resource, "save_strategy": "steps", "save_steps": 2}
    often = length["save_strategy"]
    arguments: dict[str, Any] = {
        "output_dir": sweep.output_dir,
        "seed": trial.seed,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 5,
        "eval_strategy": often,
        "logging_strategy": often,
        "eval_steps": 2,
        "logging_steps": 2,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(**{**arguments, **length, **options}),
        train_dataset=dataset(),
        eval_dataset=dataset(),
        compute_metrics=accuracy,
        callbacks=[sweep],
    )
    trainer.train(resume_from_checkpoint=sweep.resume_from_checkpoint if resume else None)
    return model.state_dict()


def run(folder: Path, resource: int = EPOCHS, metric: str = "eval_loss") -> Trial:
    return new_run(folder, metric=metric, resource=resource)


def measured(folder: Path) -> dict[int, dict[str, float]]:
    """What was reported, but how long it took."""
    return {
        step: {name: x for name, x in metrics.items() if not name.endswith(("_runtime", "_per_second"))}
        for step, metrics in reported(folder).items()
    }


@pytest.mark.parametrize(("unit", "seed"), [("epoch", 0), ("step", 1)])
def test_training_that_is_killed_anywhere_and_goes_on_gives_the_same_weights_and_reports(
    tmp_path: Path, unit: Any, seed: int
) -> None:
    resource = {"epoch": 4, "step": 8}[unit]
    undisturbed = train(run(tmp_path / "undisturbed", resource), unit=unit)
    for instant in random.Random(seed).choices(range(1, 10), k=2):
        with pytest.raises(Killed):
            train(run(tmp_path / "killed", resource), unit=unit, at=instant)
    assert_same_weights(train(run(tmp_path / "killed", resource), unit=unit), undisturbed)
    expected = measured(tmp_path / "undisturbed")
    assert measured(tmp_path / "killed") == expected
    assert list(expected) == {"epoch": [1, 2, 3, 4], "step": [2, 4, 6, 8]}[unit]
    names = {"loss", "grad_norm", "learning_rate", "eval_loss", "eval_accuracy"}
    assert all(metrics.keys() == names for metrics in expected.values())


def test_what_is_promoted_rung_by_rung_equals_what_is_trained_in_one_go(tmp_path: Path) -> None:
    whole = train(run(tmp_path / "whole"))
    *_, promoted = [train(run(tmp_path / "rungs", resource)) for resource in (1, 2, 4)]
    assert_same_weights(promoted, whole)
    assert measured(tmp_path / "rungs") == measured(tmp_path / "whole")


def test_training_that_is_told_to_stop_ends_after_the_epoch_and_keeps_it(tmp_path: Path) -> None:
    train(run(tmp_path), at=7, happens=lambda: told(tmp_path))  # the first batch of the second epoch
    assert list(reported(tmp_path)) == [1, 2]
    assert kept(tmp_path) == 2


def test_training_that_counts_steps_stops_at_once_and_keeps_the_step(tmp_path: Path) -> None:
    undisturbed = train(run(tmp_path / "undisturbed", 8), unit="step")
    folder = tmp_path / "stopped"
    # Every second step is evaluated with three batches.
    for at, step in ((1, 1), (1, 2), (1, 3)):
        train(run(folder, 8), unit="step", at=at, happens=lambda: told(folder))
        assert kept(folder) == step
        (folder / "stop").unlink()
    assert_same_weights(train(run(folder, 8), unit="step"), undisturbed)
    ours, expected = measured(folder), measured(tmp_path / "undisturbed")
    assert {n: ours[n]["eval_loss"] for n in ours} == {n: expected[n]["eval_loss"] for n in expected}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("same_filesystem", [True, False])
def test_a_checkpoint_is_moved_into_the_trial_and_takes_no_space_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_filesystem: bool
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not same_filesystem:
        monkeypatch.setattr(os, "link", no_link)
    trial = run(tmp_path, resource=2)
    train(trial)
    assert trial.checkpoint_dir is not None
    assert files_in(trial.checkpoint_dir) == set()
    (checkpoint,) = tmp_path.glob("checkpoints/step-*")
    assert checkpoint.name == "step-2"
    assert files_in(checkpoint) > {"model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"}
    assert {path.stat().st_nlink for path in checkpoint.rglob("*") if path.is_file()} == {1}


def test_the_best_model_is_there_at_the_end_if_it_is_asked_for(tmp_path: Path) -> None:
    trial = run(tmp_path, resource=3)
    worst: dict[str, Any] = {"metric_for_best_model": "eval_loss", "greater_is_better": True}
    train(trial, load_best_model_at_end=True, save_total_limit=1, **worst)
    values = {step: metrics["eval_loss"] for step, metrics in reported(tmp_path).items()}
    assert max(values, key=values.__getitem__) == 1, "training made it no better"
    assert trial.checkpoint_dir is not None
    assert {path.name for path in trial.checkpoint_dir.iterdir()} == {"checkpoint-3"}
    assert kept(tmp_path) == 3


def test_a_checkpoint_that_is_killed_half_way_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(run(tmp_path, resource=2))
    linked: list[str] = []

    def half(source: str, target: str) -> None:
        if len(linked) == 3:
            raise Killed
        linked.append(target)
        Path(target).write_bytes(b"half")

    monkeypatch.setattr(os, "link", half)
    with pytest.raises(Killed):
        train(run(tmp_path, resource=3))
    assert len(linked) == 3
    assert kept(tmp_path) == 2


def test_a_metric_that_is_missing_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    message = (
        "objective.metric 'eval_f1' was not evaluated; evaluated were 'loss'.*'eval_loss', 'eval_accuracy'"
    )
    with pytest.raises(ValueError, match=message):
        train(run(tmp_path, metric="eval_f1"))
    assert list(reported(tmp_path)) == [1]
    assert kept(tmp_path) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_train_epochs": 9},
            r"\(num_train_epochs=9\): this run trains to epoch 4; write num_train_epochs=trial.resource",
        ),
        ({"unit": "step", "max_steps": 9}, r"\(max_steps=9\): this run trains to step 4; write max_steps="),
        ({"save_strategy": "steps"}, r"checkpoints of whole epochs; write save_strategy='epoch', and leave"),
        (
            {"unit": "step", "save_strategy": "no"},
            r"save_strategy='no', save_only_model=False\): a trial goes",
        ),
        ({"save_only_model": True}, r"save_strategy='epoch', save_only_model=True\): a trial goes on from"),
    ],
)
def test_training_arguments_that_do_not_fit_the_run_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(run(tmp_path), **options)


def test_training_that_does_not_resume_from_its_checkpoint_is_refused(tmp_path: Path) -> None:
    train(run(tmp_path, resource=1))
    with pytest.raises(
        ValueError, match=r"starts after epoch 0, the trial after 1: write trainer.train\(resume_"
    ):
        train(run(tmp_path), resume=False)
