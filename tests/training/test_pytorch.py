"""Plain PyTorch: what goes on from a checkpoint cannot be told from what never stopped."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hpcsweep.errors import CheckpointError
from hpcsweep.trial import StandaloneTrial, current_trial
from tests.lazy import LazyModule
from tests.training.runs import Killed, assert_same_weights

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import lr_scheduler
    from torch.utils import data

    from hpcsweep.training import pytorch
else:
    torch, nn = LazyModule("torch"), LazyModule("torch.nn")
    lr_scheduler, data = LazyModule("torch.optim.lr_scheduler"), LazyModule("torch.utils.data")
    pytorch = LazyModule("hpcsweep.training.pytorch")

Reports = list[tuple[int, dict[str, float]]]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    """What is reported from now on."""
    found: Reports = []
    monkeypatch.setattr(StandaloneTrial, "_write", lambda _, step, values: found.append((step, values)))
    return found


def train(folder: Path, *, resource: int = 6, die_at: int | None = None) -> dict[str, torch.Tensor]:
    """Train with every kind of random number that there is; the weights at the end.

    Args:
        folder: Keeps the checkpoints.
        resource: Epochs.
        die_at: The batch at which to be killed, of those that are trained now.
    """
    trial = current_trial(resource=resource, folder=folder)
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)
    order = torch.Generator().manual_seed(4)
    noise = np.random.default_rng(5)
    inputs = torch.randn(48, 5, generator=torch.Generator().manual_seed(6))
    loader = data.DataLoader(
        data.TensorDataset(inputs, inputs.sum(1)), batch_size=16, shuffle=True, generator=order
    )
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    state = pytorch.TorchState(
        model=model, optimizer=optimizer, scheduler=scheduler, order=order, noise=noise
    )
    if trial.resume_from is not None:
        state.load(trial.resume_from)
    batches = 0
    loss = torch.zeros(())
    for epoch in trial.steps():
        for x, y in loader:
            batches += 1
            if batches == die_at:
                raise Killed
            x = x + random.gauss(0, 0.1) + np.random.normal() * 0.1 + noise.normal() * 0.1
            loss = nn.functional.mse_loss(model(x).squeeze(1), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        scheduler.step(loss.item())
        trial.report(epoch, loss=loss.item(), lr=optimizer.param_groups[0]["lr"])
        with trial.checkpoint(epoch) as kept:
            state.save(kept)
    return model.state_dict()


@pytest.mark.parametrize("seed", range(3))
def test_training_that_is_killed_anywhere_and_goes_on_gives_the_same_weights_and_reports(
    tmp_path: Path, reports: Reports, seed: int
) -> None:
    undisturbed = train(tmp_path / "undisturbed")
    expected = reports.copy()
    reports.clear()
    for instant in random.Random(seed).choices(range(1, 9), k=2):
        with pytest.raises(Killed):
            train(tmp_path / "killed", die_at=instant)
    assert_same_weights(train(tmp_path / "killed"), undisturbed)
    assert dict(reports) == dict(expected)
    assert len({values["lr"] for _, values in expected}) > 1, "the scheduler did nothing that could be lost"


def test_what_is_promoted_rung_by_rung_equals_what_is_trained_in_one_go(
    tmp_path: Path, reports: Reports
) -> None:
    whole = train(tmp_path / "whole")
    expected = reports.copy()
    reports.clear()
    *_, promoted = [train(tmp_path / "rungs", resource=resource) for resource in (1, 3, 6)]
    assert_same_weights(promoted, whole)
    assert reports == expected


@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_every_generator_of_numpy_goes_on_where_it_was(tmp_path: Path, kind: str) -> None:
    generator = np.random.Generator(getattr(np.random, kind)(7))
    generator.integers(9, dtype=np.int32)  # leaves half of a 64-bit number over
    state = pytorch.TorchState(generator=generator)
    state.save(tmp_path)
    expected = generator.integers(1 << 30, size=100, dtype=np.int32)
    generator.normal(size=1000)
    state.load(tmp_path)
    assert (generator.integers(1 << 30, size=100, dtype=np.int32) == expected).all()


def test_checkpoint_holds_no_code(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    pytorch.TorchState(model=model, optimizer=torch.optim.SGD(model.parameters())).save(tmp_path)
    saved = torch.load(tmp_path / pytorch.FILE, weights_only=True)
    assert saved["parts"].keys() == {"model", "optimizer"}
    assert saved["random"][0].keys() == {"python", "numpy", "torch", "cuda"}


def plain_scheduler() -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(torch.optim.SGD(nn.Linear(1, 1).parameters()), lambda epoch: 0.9**epoch)


class Schedule:
    """A schedule that counts with NumPy's numbers."""

    def __call__(self, epoch: int) -> float:
        return 1.0

    def __init__(self) -> None:
        self.best = np.float64(0.5)


def test_a_state_that_could_not_be_loaded_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    pytorch.TorchState(scheduler=plain_scheduler()).save(tmp_path)
    scheduler = lr_scheduler.LambdaLR(torch.optim.SGD(nn.Linear(1, 1).parameters()), Schedule())
    with pytest.raises(CheckpointError, match=r"the state of 'scheduler' holds more than tensors and plain"):
        pytorch.TorchState(model=nn.Linear(1, 1), scheduler=scheduler).save(tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            lambda: {"model": nn.Linear(2, 2), "ema": nn.Linear(1, 1)},
            r"no state of 'ema'; has the state of 'order',",
        ),
        (
            lambda: {"order": torch.Generator()},
            r"has the state of 'model', which nobody asks for. Give Torch",
        ),
        (
            lambda: {"model": nn.Linear(2, 3), "order": torch.Generator()},
            r"the state of 'model' does not fit Linear: [^$]*size mismatch for weight",
        ),
        (
            lambda: {"model": nn.Sequential(nn.Linear(2, 2)), "order": torch.Generator()},
            r"state of 'model' does not fit Sequential: [^$]*Missing key\(s\) in state_dict: \"0.weight\"",
        ),
    ],
)
def test_error_names_the_state_that_does_not_fit(
    tmp_path: Path, parts: Callable[[], dict[str, Any]], message: str
) -> None:
    pytorch.TorchState(model=nn.Linear(2, 2), order=torch.Generator()).save(tmp_path)
    with pytest.raises(CheckpointError, match=message) as raised:
        pytorch.TorchState(**parts()).load(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / pytorch.FILE}: ")


def test_foreign_files_are_refused_and_never_executed(tmp_path: Path) -> None:
    state = pytorch.TorchState(model=nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="there is no such file: this checkpoint was not made with"):
        state.load(tmp_path)
    torch.save({"model": 1}, tmp_path / pytorch.FILE)
    with pytest.raises(CheckpointError, match="was not written by TorchState"):
        state.load(tmp_path)
    torch.save({"parts": {"model": Schedule()}, "random": []}, tmp_path / pytorch.FILE)
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        state.load(tmp_path)
    (tmp_path / pytorch.FILE).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        state.load(tmp_path)


def test_parts_without_state_dict_are_refused() -> None:
    with pytest.raises(TypeError, match="TorchState keeps what it is given"):
        pytorch.TorchState()
    with pytest.raises(TypeError, match=r"TorchState\(epoch=...\): must have state_dict and .*; got int"):
        pytorch.TorchState(epoch=3)  # type: ignore[arg-type]


def test_a_process_that_is_not_the_first_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    pytorch.TorchState(model=nn.Linear(1, 1)).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


TWO = """
import os, sys, random, torch, torch.distributed as dist
from pathlib import Path
from torch.nn.parallel import DistributedDataParallel
from hpcsweep.trial import current_trial
from hpcsweep.training.pytorch import any_should_stop
from hpcsweep.training.pytorch import TorchState

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(rank)
model = DistributedDataParallel(torch.nn.Linear(2, 2))
state = TorchState(model=model)
trial = current_trial(folder=folder / "trial")
trial.rank = rank
with trial.checkpoint(1) as kept:
    state.save(kept)
dist.barrier()
expected, weights = torch.rand(3), model.module.weight.detach().clone()
with torch.no_grad():
    model.module.weight.zero_()
state.load(folder / "trial/checkpoints/step-1")
assert torch.equal(model.module.weight, weights)
assert torch.equal(torch.rand(3), expected), "the other process's random numbers"
trial._stop_seen = rank == 1
assert any_should_stop(trial)
trial._stop_seen = False
assert not any_should_stop(trial)
dist.barrier()
os._exit(0)  # taking gloo's threads down on the way out aborts now and then
"""


def test_of_two_processes_one_writes_and_each_gets_its_own_random_numbers_back(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    saved = torch.load(tmp_path / "trial/checkpoints/step-1" / pytorch.FILE, weights_only=True)
    assert saved["parts"]["model"].keys() == {"weight", "bias"}
    assert len(saved["random"]) == 2
    assert not torch.equal(saved["random"][0]["torch"], saved["random"][1]["torch"])
