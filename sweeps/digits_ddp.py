"""The network of `digits.py`, trained data-parallel: each process has its share of every batch.

`train.launcher` starts the processes; what they compute together is what one process computes with the whole
batch. By hand: `python digits_ddp.py`, or `torchrun --nproc-per-node=2 digits_ddp.py`.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from digits import DECAY, Split, build, error_of, optimiser_for
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpcsweep import Trial, current_trial
from hpcsweep.training.pytorch import TorchState


def train(trial: Trial) -> None:
    """Train up to `trial.resource` epochs; reports `val_error`, the share of wrong answers, and `loss`."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:  # by hand, alone
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        train_share(trial)
    finally:
        dist.destroy_process_group()


def train_share(trial: Trial) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    config = trial.config
    torch.manual_seed(trial.seed)
    data = Split(device)
    model = DistributedDataParallel(build(config).to(device))
    optimiser = optimiser_for(model, config)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, gamma=DECAY)
    # The same order in all processes, whatever else they draw random numbers for.
    order = torch.Generator().manual_seed(trial.seed)
    state = TorchState(model=model, optimizer=optimiser, schedule=schedule, order=order)
    if trial.resume_from is not None:
        state.load(trial.resume_from)

    for epoch in trial.steps():
        loss = train_epoch(model, optimiser, *data.train, batch_size=config["batch_size"], order=order)
        schedule.step()
        trial.report(epoch, val_error=error_of(model.module, *data.validation), loss=loss)
        with trial.checkpoint(epoch) as folder:
            state.save(folder)


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    order: torch.Generator,
) -> float:
    """One pass over the training images, of each batch the share of this process; the mean loss of all."""
    model.train()
    rank, size = dist.get_rank(), dist.get_world_size()
    total = torch.zeros((), device=labels.device)
    for batch in torch.split(torch.randperm(len(labels), generator=order), batch_size):
        share = batch[rank::size].to(labels.device)
        losses = nn.functional.cross_entropy(model(images[share]), labels[share], reduction="sum")
        optimiser.zero_grad()
        # Gradients are averaged over processes: this makes them those of the mean over the whole batch.
        (losses * size / len(batch)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += losses.detach()
    dist.all_reduce(total)
    return float(total) / len(labels)


if __name__ == "__main__":
    train(
        current_trial(
            lr=0.003, batch_size=32, optimizer="adam", channels=16, dropout=0.2, weight_decay=1e-5, resource=3
        )
    )
