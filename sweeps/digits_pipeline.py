"""A network that is split over two processes, as one is that no single GPU can hold.

The first process has the convolutions, the second one the rest. Activations go forward from one to the
other, and their gradients back. Each process keeps its own part; a checkpoint holds both. By hand:
`torchrun --nproc-per-node=2 digits_pipeline.py`.
"""

from __future__ import annotations

import os
from typing import Any, Final

import torch
import torch.distributed as dist
from digits import Split
from torch import Tensor, nn

from hpcsweep import Trial, current_trial
from hpcsweep.training.pytorch import gather

FRONT, BACK = 0, 1
FILE: Final = "parts.pt"


def part_of(rank: int, config: dict[str, Any]) -> nn.Module:
    """The part of the network that this process holds."""
    channels = config["channels"]
    if rank == FRONT:
        return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(nn.Linear(channels * 16, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10))


class Pipeline:
    """The network, of which this process holds one part."""

    def __init__(self, config: dict[str, Any], device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.part = part_of(self.rank, config).to(device)
        self.optimiser = torch.optim.SGD(self.part.parameters(), lr=config["lr"], momentum=0.9)
        self._features = config["channels"] * 16
        self._device = device

    def forward(self, images: Tensor) -> Tensor:
        """What this part makes of the images `(n, 1, 8, 8)`: features `(n, f)` or scores `(n, 10)`."""
        if self.rank == FRONT:
            features = self.part(images)
            dist.send(features.detach(), BACK)
            return features  # type: ignore[no-any-return]
        self._received = torch.empty(len(images), self._features, device=self._device)
        dist.recv(self._received, FRONT)
        return self.part(self._received.requires_grad_())  # type: ignore[no-any-return]

    def train(self, images: Tensor, labels: Tensor) -> float:
        """One step on a batch; its loss, which only the second process knows: 0 in the first."""
        out, loss = self.forward(images), 0.0
        self.optimiser.zero_grad()
        if self.rank == FRONT:
            gradient = torch.empty_like(out)
            dist.recv(gradient, BACK)
            out.backward(gradient)  # type: ignore[no-untyped-call]
        else:
            cost = nn.functional.cross_entropy(out, labels)
            cost.backward()  # type: ignore[no-untyped-call]
            assert self._received.grad is not None
            dist.send(self._received.grad, FRONT)
            loss = cost.item() * len(labels)
        self.optimiser.step()
        return loss

    @torch.no_grad()
    def wrong(self, images: Tensor, labels: Tensor) -> float:
        """How many answers are wrong, which only the second process knows: 0 in the first."""
        out = self.forward(images)
        return float((out.argmax(1) != labels).sum()) if self.rank == BACK else 0.0

    def state(self) -> dict[str, Any]:
        return {"part": self.part.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.part.load_state_dict(state["part"])
        self.optimiser.load_state_dict(state["optimiser"])


def train(trial: Trial) -> None:
    """Train up to `trial.resource` epochs; reports `val_error`, the share of wrong answers, and `loss`."""
    torch.set_num_threads(1)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        local = int(os.environ["LOCAL_RANK"])
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        train_part(trial, device)
    finally:
        dist.destroy_process_group()


def train_part(trial: Trial, device: torch.device) -> None:
    """What each process does."""
    data, config = Split(device), trial.config
    torch.manual_seed(trial.seed)
    network = Pipeline(config, device)
    order = torch.Generator().manual_seed(trial.seed)  # the same in both
    if trial.resume_from is not None:
        saved = torch.load(trial.resume_from / FILE, map_location=device, weights_only=True)
        network.load(saved["parts"][network.rank])
        order.set_state(saved["order"].cpu())

    images, labels = data.train
    for epoch in trial.steps():
        batches = torch.split(torch.randperm(len(labels), generator=order).to(device), config["batch_size"])
        loss = sum(network.train(images[batch], labels[batch]) for batch in batches)
        known = torch.tensor([loss, network.wrong(*data.validation)], device=device)
        dist.broadcast(known, BACK)
        loss, wrong = known.tolist()
        trial.report(epoch, val_error=wrong / len(data.validation[1]), loss=loss / len(labels))
        parts = gather(network.state())
        with trial.checkpoint(epoch) as folder:  # what the second process writes is thrown away
            torch.save({"parts": parts, "order": order.get_state()}, folder / FILE)


if __name__ == "__main__":
    train(current_trial(lr=0.05, batch_size=32, channels=8, width=32, resource=3))
