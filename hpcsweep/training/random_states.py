"""The states of all random number generators, as values that `torch.load(weights_only=True)` reads."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from hpcsweep.training.processes import gather, rank


def random_states() -> list[dict[str, Any]]:
    """Of Python, NumPy, torch and CUDA, for each process by rank; all processes must call it."""
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
    """Put back this process's own states; where there were fewer processes, the present ones stay."""
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
    """The state of a NumPy generator, its arrays as lists: NumPy takes those as well."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state
