"""A small convolutional network on scikit-learn's handwritten digits: real data, no download.

It is written as training code for a sweep should be:

* `trial.steps()` says which epochs are left, so that a trial which is promoted or was interrupted
  goes on where it stopped;
* a checkpoint holds everything that the next epoch depends on: weights, optimiser, learning rate
  schedule and the state of the random numbers. Training that goes on from one gives the same
  numbers, bit for bit, as training that was never interrupted.

By hand, without any sweep: `python digits.py` trains one configuration for five epochs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcsweep import Trial, current_trial
from hpcsweep.training.pytorch import TorchState

#: The split must be the same for all trials: they are compared on the same images.
SPLIT_SEED = 20_240_917
VALIDATION, TEST = 360, 360

#: The learning rate is multiplied by this after each epoch. A schedule that depended on
#: `trial.resource` would make the first epochs of a short run differ from those of a long one.
DECAY = 0.97


def load_digits() -> tuple[Tensor, Tensor]:
    """Images `(1797, 1, 8, 8)` in 0..1 and labels `(1797,)`, as `sklearn.datasets.load_digits` has them.

    The file is read straight from the package: importing scikit-learn takes longer than ten epochs
    of this network, and each run of the sweep is a process of its own.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ImportError("the digits come with scikit-learn: pip install scikit-learn")
    table = torch.tensor(
        np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    )
    return table[:, :64].float().view(-1, 1, 8, 8) / 16, table[:, 64].long()


class Split:
    """Images `(n, 1, 8, 8)` in 0..1 and labels `(n,)`: 1077 to train, 360 to validate, 360 to test."""

    def __init__(self, device: torch.device) -> None:
        images, labels = load_digits()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
        images, labels = images[order], labels[order]
        sizes = [len(order) - VALIDATION - TEST, VALIDATION, TEST]
        self.train, self.validation, self.test = zip(
            torch.split(images.to(device), sizes), torch.split(labels.to(device), sizes), strict=True
        )


def build(config: dict[str, Any]) -> nn.Module:
    """Two convolutions, a pooling, and a linear layer behind dropout."""
    channels = config["channels"]
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(config["dropout"]),
        nn.Linear(2 * channels * 4 * 4, 10),
    )


def optimiser_for(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that the configuration names. `momentum` exists only where it is `sgd`."""
    rate, decay = config["lr"], config["weight_decay"]
    if config["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=config["momentum"], weight_decay=decay)
    return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)


def train(trial: Trial) -> None:
    """Train up to `trial.resource` epochs; reports `val_error`, the share of wrong answers, and `loss`."""
    torch.set_num_threads(1)  # the sweep is parallel already, and sums come out the same everywhere
    torch.backends.cudnn.deterministic = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = trial.config
    torch.manual_seed(trial.seed)
    data = Split(device)
    model = build(config).to(device)
    optimiser = optimiser_for(model, config)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, gamma=DECAY)
    # The order of the images and the dropout masks come from torch's own random numbers: kept as well.
    state = TorchState(model=model, optimizer=optimiser, schedule=schedule)
    if trial.resume_from is not None:
        state.load(trial.resume_from)

    for epoch in trial.steps():
        loss = train_epoch(model, optimiser, *data.train, batch_size=config["batch_size"])
        schedule.step()
        trial.report(epoch, val_error=error_of(model, *data.validation), loss=loss)
        with trial.checkpoint(epoch) as folder:
            state.save(folder)


def train_epoch(
    model: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor, *, batch_size: int
) -> float:
    """One pass over the training images in a new random order; the mean loss."""
    model.train()
    total = 0.0
    for batch in torch.split(torch.randperm(len(labels)).to(labels.device), batch_size):
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item() * len(batch)
    return total / len(labels)


@torch.no_grad()
def error_of(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of wrong answers."""
    model.eval()
    return float((model(images).argmax(1) != labels).double().mean())


if __name__ == "__main__":
    train(
        current_trial(
            lr=0.003, batch_size=32, optimizer="adam", channels=16, dropout=0.2, weight_decay=1e-5, resource=5
        )
    )
