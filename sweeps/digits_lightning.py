"""A perceptron on scikit-learn's handwritten digits with PyTorch Lightning.

Three lines make a Lightning script the training code of a sweep: the callback, `max_epochs`, and
`ckpt_path`. By hand, without any sweep: `python digits_lightning.py`.
"""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from hpcsweep import Trial, current_trial
from hpcsweep.training.lightning import SweepCallback


class Classifier(lightning.LightningModule):
    """Logs `val_error`, the share of wrong answers, and `loss`."""

    def __init__(self, *, lr: float, width: int, dropout: float) -> None:
        super().__init__()
        self.lr = lr
        self.layers = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10)
        )

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """The loss of one batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self.layers(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Log the error; Lightning takes the mean over the batches."""
        images, labels = batch
        self.log("val_error", (self.layers(images).argmax(1) != labels).double().mean())

    def configure_optimizers(self) -> Any:
        """Adam with a rate that falls by the same factor each epoch, however many there will be."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.97)]


def train(trial: Trial) -> None:
    """Train up to `trial.resource` epochs."""
    torch.set_num_threads(1)  # the sweep is parallel already
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(trial.seed, verbose=False)
    digits = load_digits()
    images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    # The split must be the same for all trials: they are compared on the same images.
    split = torch.Generator().manual_seed(0)
    data, validation = random_split(TensorDataset(images, labels), [0.8, 0.2], generator=split)

    sweep = SweepCallback(trial)
    trainer = lightning.Trainer(
        max_epochs=trial.resource,
        callbacks=[sweep],
        plugins=[LightningEnvironment()],  # Lightning, not Slurm, starts the processes of a run
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Classifier(**trial.config),
        DataLoader(data, batch_size=32, shuffle=True),
        DataLoader(validation, batch_size=360),
        ckpt_path=sweep.ckpt_path,
    )


if __name__ == "__main__":
    train(current_trial(lr=0.003, width=64, dropout=0.1, resource=4))
