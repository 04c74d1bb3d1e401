"""PyTorch Lightning's Trainer as one run of a trial."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from hpcsweep.cluster.task_environment import without_launcher
from hpcsweep.store.batch import Program
from hpcsweep.trial import Trial
from hpcsweep.worker.command import run_environment
from tests.cluster.test_task_environment import JOB, LAUNCHED
from tests.lazy import LazyModule
from tests.training.runs import LIGHTNING_ITSELF, Killed, assert_same_weights, kept, new_run, reported, told
from tests.worker.test_environment import RUN

if TYPE_CHECKING:
    import lightning
    import torch
    from lightning.fabric.plugins.environments import slurm
    from torch import Tensor, nn
    from torch.utils import data

    from hpcsweep.training import lightning as callbacks
else:
    lightning, callbacks = LazyModule("lightning"), LazyModule("hpcsweep.training.lightning")
    slurm = LazyModule("lightning.fabric.plugins.environments.slurm")
    torch, nn, data = LazyModule("torch"), LazyModule("torch.nn"), LazyModule("torch.utils.data")

pytestmark = LIGHTNING_ITSELF

BATCH, EPOCHS = 16, 4


@cache
def dataset() -> data.TensorDataset:
    inputs = torch.randn(48, 5, generator=torch.Generator().manual_seed(6))
    return data.TensorDataset(inputs, inputs.sum(1))


def new_model(at: int | None, happens: Callable[[], object], *, plateau: bool) -> lightning.LightningModule:
    """A small network with noise in it, and something that happens at a batch."""

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
            self.batches = 0

        def loss(self, batch: list[Tensor]) -> Tensor:
            self.batches += 1
            if self.batches == at:
                happens()
            return nn.functional.mse_loss(self.layers(batch[0]).squeeze(1), batch[1])

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            loss = self.loss(batch)
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            self.log("val_loss", self.loss(batch))
            self.log("rate", self.trainer.optimizers[0].param_groups[0]["lr"])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
            scheduler: Any = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            if plateau:
                scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    return Model()


class Resumable:
    """Loads batches in another order each epoch, and can go on in the middle of one."""

    def __init__(self) -> None:
        self.epoch = self.next = 0

    def __len__(self) -> int:
        return len(dataset()) // BATCH

    def __iter__(self) -> Iterator[list[Tensor]]:
        if self.next == len(self):
            self.epoch, self.next = self.epoch + 1, 0
        order = torch.randperm(len(dataset()), generator=torch.Generator().manual_seed(self.epoch))
        while self.next < len(self):
            chosen = order[self.next * BATCH :][:BATCH]
            self.next += 1
            yield list(dataset()[chosen])

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.next = state["epoch"], state["next"]


def kill() -> None:
    raise Killed


def fit(
    trial: Trial,
    *,
    at: int | None = None,
    happens: Callable[[], object] = kill,
    plateau: bool = False,
    unit: Literal["epoch", "step"] = "epoch",
    resume: bool = True,
    **options: Any,
) -> dict[str, Tensor]:
    """Train; the weights at the end. At the batch `at`, counted from this start, something happens."""
    torch.manual_seed(trial.seed)
    sweep = callbacks.SweepCallback(trial, unit=unit)
    model = new_model(at, happens, plateau=plateau)
    length: dict[str, Any] = {"max_epochs": trial.resource}
    if unit == "step":
        length = {"max_steps": trial.resource, "val_check_interval": 2, "check_val_every_n_epoch": None}
    trainer = lightning.Trainer(
        callbacks=[sweep],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{**length, **options},
    )
    loader = Resumable() if unit == "step" else data.DataLoader(dataset(), BATCH, shuffle=True)
    trainer.fit(
        model, loader, data.DataLoader(dataset(), BATCH), ckpt_path=sweep.ckpt_path if resume else None
    )
    return model.state_dict()


def run(folder: Path, resource: int = EPOCHS, metric: str = "val_loss") -> Trial:
    return new_run(folder, metric=metric, resource=resource)


@pytest.mark.parametrize(("seed", "plateau"), [(0, False), (1, True), (2, False), (3, True)])
def test_a_fit_that_is_killed_anywhere_and_goes_on_gives_the_same_weights_and_reports(
    tmp_path: Path, seed: int, plateau: bool
) -> None:
    undisturbed = fit(run(tmp_path / "undisturbed"), plateau=plateau)
    for instant in random.Random(seed).choices(range(1, 13), k=2):
        with pytest.raises(Killed):
            fit(run(tmp_path / "killed"), at=instant, plateau=plateau)
    assert_same_weights(fit(run(tmp_path / "killed"), plateau=plateau), undisturbed)
    expected = reported(tmp_path / "undisturbed")
    assert reported(tmp_path / "killed") == expected
    assert list(expected) == [1, 2, 3, 4]
    assert all(metrics.keys() == {"loss", "val_loss", "rate"} for metrics in expected.values())
    assert len({metrics["rate"] for metrics in expected.values()}) > 1, "no schedule that could be lost"


@pytest.mark.parametrize("seed", range(2))
def test_where_steps_count_it_goes_on_in_the_middle_of_an_epoch(tmp_path: Path, seed: int) -> None:
    undisturbed = fit(run(tmp_path / "undisturbed", 8), unit="step")
    for instant in random.Random(seed).choices(range(1, 13), k=2):
        with pytest.raises(Killed):
            fit(run(tmp_path / "killed", 8), unit="step", at=instant)
    assert_same_weights(fit(run(tmp_path / "killed", 8), unit="step"), undisturbed)
    expected = reported(tmp_path / "undisturbed")
    assert reported(tmp_path / "killed") == expected
    assert list(expected) == [2, 4, 6, 8]


def test_a_fit_that_is_told_to_stop_ends_after_the_epoch_and_keeps_it(tmp_path: Path) -> None:
    fit(run(tmp_path), at=9, happens=lambda: told(tmp_path))  # the first batch of the second epoch
    assert list(reported(tmp_path)) == [1, 2]
    assert kept(tmp_path) == 2


def test_a_fit_that_counts_steps_stops_at_once_and_keeps_the_step(tmp_path: Path) -> None:
    undisturbed = fit(run(tmp_path / "undisturbed", 8), unit="step")
    expected = reported(tmp_path / "undisturbed")
    folder = tmp_path / "stopped"
    # The first start begins with two batches of the sanity check; every second step is validated with three.
    for at, step in ((3, 1), (1, 2), (1, 3), (5, 5), (5, 7)):
        fit(run(folder, 8), unit="step", at=at, happens=lambda: told(folder))
        assert kept(folder) == step
        assert list(reported(folder)) == [n for n in expected if n <= step]
        (folder / "stop").unlink()
    assert_same_weights(fit(run(folder, 8), unit="step"), undisturbed)
    assert reported(folder) == expected


def test_sigterm_does_what_the_trial_says_and_not_what_lightning_would(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: told(tmp_path))
    try:
        fit(run(tmp_path), at=3, happens=lambda: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert kept(tmp_path) == 1


def test_a_checkpoint_that_is_killed_half_way_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(run(tmp_path, resource=2))
    written = []

    def half(trainer: lightning.Trainer, path: str, **_: object) -> None:
        Path(path).write_bytes(b"half")
        written.append(path)
        raise Killed

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", half)
    with pytest.raises(Killed):
        fit(run(tmp_path, resource=3))
    assert len(written) == 1
    assert kept(tmp_path) == 2


def test_a_metric_that_is_missing_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match="metric 'val_acc' was not logged up to epoch 1; logged were 'loss', 'val_loss', 'rate'",
    ):
        fit(run(tmp_path, metric="val_acc"))
    assert kept(tmp_path) is None


def test_an_epoch_that_is_not_validated_is_kept_but_not_reported(tmp_path: Path) -> None:
    fit(run(tmp_path, resource=3), check_val_every_n_epoch=2)
    assert list(reported(tmp_path)) == [2]
    assert kept(tmp_path) == 3


def test_without_validation_what_training_logs_is_reported(tmp_path: Path) -> None:
    fit(run(tmp_path, resource=2, metric="loss"), limit_val_batches=0)
    assert [metrics.keys() for metrics in reported(tmp_path).values()] == [{"loss"}, {"loss"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_epochs": 9},
            r"Trainer\(max_epochs=9\): this run trains to epoch 4; write Trainer\(max_epochs=trial",
        ),
        (
            {"unit": "step", "max_steps": 9},
            r"Trainer\(max_steps=9\): this run trains to step 4; write Trainer\(max_st",
        ),
        (
            {"unit": "step", "limit_val_batches": 0},
            r"\(unit='step'\) reports after each validation: give the fit",
        ),
    ],
)
def test_a_trainer_that_does_not_fit_the_run_is_told_so(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit(run(tmp_path), **options)


def test_a_fit_that_forgets_its_checkpoint_is_told_so(tmp_path: Path) -> None:
    fit(run(tmp_path, resource=1))
    with pytest.raises(
        ValueError, match=r"starts after epoch 0, the trial after 1: write trainer.fit\(..., ckpt"
    ):
        fit(run(tmp_path), resume=False)


def test_nothing_is_written_beside_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(run(tmp_path / "run", resource=1))
    assert os.listdir(tmp_path) == ["run"]
    names = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert names == {"lightning.ckpt", ".hpcsweep.json", "metrics-0.0.0.jsonl"}


def test_two_devices_train_where_the_batch_script_of_one_task_would_make_lightning_take_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = {**JOB, **LAUNCHED}
    program = Program(workdir="/w", metric="loss")
    ours = run_environment(
        without_launcher(job), RUN, program, run_file=Path("/r"), devices=None, python="/p"
    )

    def seen(environ: dict[str, str]) -> tuple[bool, int, int]:
        with monkeypatch.context() as patch:
            for name in {*job, *ours} - {"HOME"}:
                patch.delenv(name, raising=False)
            for name, value in environ.items():
                if name != "HOME":
                    patch.setenv(name, value)
            trainer = lightning.Trainer(accelerator="cpu", devices=2, logger=False, barebones=True)
            return slurm.SLURMEnvironment.detect(), trainer.num_devices, trainer.world_size

    assert seen(job) == (True, 2, 1)
    assert seen(ours) == (False, 2, 2)
