"""Processes of one training and their random states; the same calls work for a single process."""

from __future__ import annotations

import os
import random
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from hpcsweep.trial import Trial, current_rank


def random_states() -> list[dict[str, Any]]:
    """States of Python, NumPy, torch and CUDA by rank; every process must call it.

    All values have types that `torch.load(weights_only=True)` reads.
    """
    # A process that has not touched CUDA so far is not made to: a context costs GPU memory.
    uses_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return gather(
        {
            "python": random.getstate(),
            "numpy": plain(np.random.get_state(legacy=False)),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if uses_cuda else [],
        }
    )


def restore_random_states(states: list[dict[str, Any]]) -> None:
    """Restore this process's own states; if there were fewer processes, the present ones stay."""
    if rank() >= len(states):
        return
    state = states[rank()]
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        for device, numbers in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(numbers.cpu(), device)


def plain(state: Any) -> Any:
    """The state of a NumPy generator with its arrays as lists, which NumPy accepts as well."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this process has joined others in a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Rank in the process group, else in the environment."""
    return dist.get_rank() if is_distributed() else current_rank(os.environ)


def gather(value: T) -> list[T]:
    """The values of all processes by rank; all of them must call it."""
    if not is_distributed():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def wait_for_all() -> None:
    """Barrier of all processes."""
    if is_distributed():
        dist.barrier()


def any_should_stop(trial: Trial) -> bool:
    """Whether any process of the training was told to stop; every process must call it.

    All get the same answer. Processes that looked for themselves could leave at different steps, and wait
    for each other forever.
    """
    return any(gather(trial.should_stop))
