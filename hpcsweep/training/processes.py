"""The processes of one training: all the same where there is only one."""

from __future__ import annotations

import os
from typing import TypeVar

import torch.distributed as dist

from hpcsweep.trial import Trial, current_rank

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this process has joined others in a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Of this process, as the process group has it, else as its environment says."""
    return dist.get_rank() if is_distributed() else current_rank(os.environ)


def gather(value: T) -> list[T]:
    """The values of all processes by rank; all of them must call it."""
    if not is_distributed():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def wait_for_all() -> None:
    """Return once all processes have come here."""
    if is_distributed():
        dist.barrier()


def told_to_stop(trial: Trial) -> bool:
    """Whether any process of the training was told to stop; all of them must ask, and all get the same.

    Processes that looked for themselves could leave at different steps, and wait for each other for ever.
    """
    return any(gather(trial.should_stop))
