"""Saves and loads everything that the next step of a PyTorch training depends on, as one file.

    state = TorchState(model=model, optimizer=optimizer, scheduler=scheduler)
    if trial.resume_from is not None:
        state.load(trial.resume_from)
    for epoch in trial.steps():
        ...
        with trial.checkpoint(epoch) as folder:
            state.save(folder)

On a CPU, training resumed from such a checkpoint gives the same numbers, bit for bit, as uninterrupted
training, if batches depend on nothing else: no worker process with a state of its own, nor
`trial.resource`, which differs in the next rung.
"""

from __future__ import annotations

import io
import os
import pickle
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hpcsweep.errors import CheckpointError
from hpcsweep.trial import Trial, current_rank

#: In the checkpoint's folder.
FILE: Final = "state.pt"
T = TypeVar("T")


class Stateful(Protocol):
    """Modules, optimisers, learning rate schedulers, gradient scalers, samplers and many more."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class TorchState:
    """The named parts of a training, and the random states of Python, NumPy, torch and CUDA.

    With several processes all of them call `save` and `load`. Rank 0 writes, and each one gets its own
    random states back. `DistributedDataParallel` modules are saved without the wrapper, so that any number
    of processes can resume. Sharded models are not supported.

    Args:
        **parts: Objects with `state_dict` and `load_state_dict`, `torch.Generator`s and
            `numpy.random.Generator`s (such as the one that shuffles the data).

    Raises:
        TypeError: A part is none of these, or there is none.
    """

    def __init__(self, **parts: Stateful | torch.Generator | np.random.Generator) -> None:
        if not parts:
            raise TypeError("TorchState keeps what it is given: TorchState(model=model, optimizer=optimizer)")
        self._parts = {name: _stateful(name, part) for name, part in parts.items()}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything into the folder, in a form that `load` can certainly read.

        Raises:
            CheckpointError: A state holds objects that cannot be read back without running code.
        """
        random = random_states()
        if rank() != 0:
            return
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        path = Path(folder) / FILE
        torch.save({"parts": parts, "random": random}, path)
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # reads no tensor's numbers
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path}: the state of {_names(_unreadable(parts))} holds more than tensors and plain values "
                "and could not be loaded safely: keep its numbers as int, float or tensors, or name its "
                "classes to torch.serialization.add_safe_globals"
            ) from error

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Restore what `save` wrote, on whichever device each part is now. Runs no code from the file.

        Raises:
            CheckpointError: There is no such file, it has other parts, or a part's state does not fit.
        """
        path = Path(folder) / FILE
        saved = _read(path)
        states, parts = saved["parts"], self._parts
        if states.keys() != parts.keys():
            missing, left = _names(parts.keys() - states.keys()), _names(states.keys() - parts.keys())
            problems = [f"has no state of {missing}"] if missing else []
            problems += [f"has the state of {left}, which nobody asks for"] if left else []
            advice = "Give TorchState the same names when it saves and when it loads"
            raise CheckpointError(f"{path}: {'; '.join(problems)}. {advice}")
        for name, part in parts.items():
            try:
                part.load_state_dict(states[name])
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{path}: the state of {name!r} does not fit {type(part).__name__}: {error}"
                ) from error
        restore_random_states(saved["random"])


class _Generator:
    def __init__(self, generator: torch.Generator | np.random.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> Any:
        if isinstance(self._generator, torch.Generator):
            return self._generator.get_state()
        return plain(self._generator.bit_generator.state)

    def load_state_dict(self, state_dict: Any, /) -> None:
        if isinstance(self._generator, torch.Generator):
            self._generator.set_state(state_dict)
        else:
            self._generator.bit_generator.state = state_dict


def _stateful(name: str, part: object) -> Stateful:
    if isinstance(part, torch.Generator | np.random.Generator):
        return _Generator(part)
    if isinstance(part, DistributedDataParallel):
        part = part.module
    if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
        raise TypeError(
            f"TorchState({name}=...): must have state_dict and load_state_dict, or be a random generator; "
            f"got {type(part).__name__}"
        )
    return part


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no such file: this checkpoint was not made with TorchState.save(folder)"
        ) from None
    except Exception as error:  # of a damaged file torch raises whatever its bytes lead to
        raise CheckpointError(f"{path}: cannot be read safely: {error}") from error
    if not (isinstance(saved, dict) and saved.keys() == {"parts", "random"}):
        raise CheckpointError(f"{path}: was not written by TorchState.save")
    return saved


def _unreadable(parts: dict[str, Any]) -> Iterable[str]:
    for name, state in parts.items():
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        try:
            torch.load(file, weights_only=True)
        except pickle.UnpicklingError:
            yield name


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def random_states() -> list[dict[str, Any]]:
    """States of Python, NumPy, torch and CUDA by rank, in types that are safe to load; all must call it."""
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


def is_distributed() -> bool:
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
    if is_distributed():
        dist.barrier()


def any_should_stop(trial: Trial) -> bool:
    """Whether any process was told to stop, so that all leave at the same step; all must call it."""
    return any(gather(trial.told_to_stop))
