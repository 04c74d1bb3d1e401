"""Runs of one trial, as a worker would start them one after another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpcsweep.store import checkpoints
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import RunFile, metrics_files, read_reports
from hpcsweep.trial import Trial

if TYPE_CHECKING:
    import torch

#: What Lightning has to say about this machine, this torch and the small loaders of a test.
LIGHTNING_ITSELF = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in (
        "The `srun` command is available on your system but is not used",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        "The '(train|val)_dataloader' does not have many workers",
    )
]


class Killed(BaseException):
    """In place of a signal that nothing can catch."""


def new_run(folder: Path, *, metric: str, resource: int) -> Trial:
    """The next attempt at training to `resource`, from the newest complete checkpoint."""
    layout = TrialLayout(folder)
    layout.checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoints.remove_leftovers(layout)
    attempt = len(metrics_files(layout))
    newest = checkpoints.newest(layout, at_most=resource)
    work = layout.checkpoints / f".work-0-{attempt}-0"
    work.mkdir()
    run = RunFile(
        trial=0,
        rung=0,
        bracket=0,
        resource=resource,
        attempt=attempt,
        restart=0,
        seed=7,
        config={},
        start=newest.step if newest else 0,
        resume_from=str(newest.path) if newest else None,
        checkpoint_dir=str(work),
        stop_file=str(folder / "stop"),
        trial_folder=str(folder),
        metrics_file=str(layout.metrics(0, attempt, 0)),
        metric=metric,
    )
    return Trial(run, rank=0)


def told(folder: Path) -> None:
    """Tell the run to stop."""
    (folder / "stop").touch()


def kept(folder: Path) -> int | None:
    """The step of the newest complete checkpoint."""
    newest = checkpoints.newest(TrialLayout(folder))
    return newest.step if newest else None


def reported(folder: Path) -> dict[int, dict[str, float]]:
    """What all runs have reported: of each metric of a step the last."""
    found: dict[int, dict[str, float]] = {}
    for file in metrics_files(TrialLayout(folder)):
        for step, metrics in read_reports(file.path):
            found.setdefault(step, {}).update(metrics)
    return found


def assert_same_weights(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Equal to the last bit."""
    assert left.keys() == right.keys()
    assert [name for name in left if not left[name].equal(right[name])] == []
