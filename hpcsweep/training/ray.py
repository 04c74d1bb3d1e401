"""Runs a trainable that was written for Ray Tune, for `train.call: ray`. Ray is not needed.

A function gets the configuration as a dict and calls `report`, `get_checkpoint` and more of `hpcsweep.ray`:
each report is a step. A class has `setup`, `step`, `save_checkpoint` and `load_checkpoint`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcsweep.trial import Trial, current_trial


class EndOfRun(BaseException):
    """Leaves a trainable at the end of its rung, or when it is told to stop."""


class Checkpoint:
    """A folder with what training goes on from, as `ray.tune.Checkpoint`.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r})"

    @classmethod
    def from_directory(cls, path: str | Path) -> Checkpoint:
        """The checkpoint in a folder."""
        return cls(path)

    def to_directory(self, path: str | Path | None = None) -> str:
        """A copy of it, by default in a new temporary folder."""
        folder = str(path) if path is not None else tempfile.mkdtemp(prefix="hpcsweep-checkpoint-")
        shutil.copytree(self.path, folder, dirs_exist_ok=True)
        return folder

    @contextlib.contextmanager
    def as_directory(self) -> Iterator[str]:
        """The folder itself: only read it."""
        yield self.path


class Context:
    """What a trainable may ask about its run, as `ray.tune.get_context()`."""

    def get_trial_id(self) -> str:
        """The trial's number, as text."""
        return str(current_trial().id)

    def get_trial_name(self) -> str:
        """Such as `trial-3`."""
        return f"trial-{current_trial().id}"

    def get_trial_dir(self) -> str:
        """The working folder of the run."""
        return str(current_trial().checkpoint_dir or Path.cwd())

    def get_world_rank(self) -> int:
        """Rank of this process in a multi-process training."""
        return current_trial().rank


class _Progress:
    """The step of the last report in this process, by the trial that it is of."""

    def __init__(self) -> None:
        self.of: Trial | None = None
        self.step = 0

    def next(self, trial: Trial) -> int:
        if self.of is not trial:
            self.of, self.step = trial, trial.start
        self.step += 1
        return self.step


_progress = _Progress()


def report(
    metrics: Mapping[str, Any] | None = None, *, checkpoint: Checkpoint | None = None, **more: Any
) -> None:
    """Report the metrics of one more step, and keep its checkpoint; ends the trainable where it should stop.

    Metrics that are not numbers are left out.
    """
    trial = current_trial()
    step = _progress.next(trial)
    given = {**(metrics or {}), **more}
    numbers = {name: value for name, value in given.items() if _is_number(value)}
    if numbers:
        trial._record(step, numbers)
    if checkpoint is not None:
        with trial.checkpoint(step) as folder:
            shutil.copytree(checkpoint.path, folder, dirs_exist_ok=True)
    if trial.metric is not None and (step >= trial.resource or trial.should_stop):
        raise EndOfRun


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "size", 1) == 1)


def get_checkpoint() -> Checkpoint | None:
    """The checkpoint to go on from; None: from scratch."""
    resume_from = current_trial().resume_from
    return None if resume_from is None else Checkpoint(resume_from)


def get_context() -> Context:
    """Facts about the run."""
    return Context()


class Trainable:
    """Base of trainables that are classes, as `ray.tune.Trainable`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.iteration = 0
        self.setup(config)

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare the training."""

    def step(self) -> dict[str, Any]:
        """Train one step; gives its metrics."""
        raise NotImplementedError

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any] | None:
        """Save what training goes on from into the folder."""
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load what `save_checkpoint` has saved; gets the folder."""

    def cleanup(self) -> None:
        """Free what training holds."""


def call_trainable(trainable: Callable[[Any], Any], trial: Trial) -> object:
    """Train; gives what a function returned."""
    config = nested(trial.config)
    with contextlib.suppress(EndOfRun):
        if isinstance(trainable, type) and hasattr(trainable, "step"):
            _train_class(trainable(config), trial)
            return None
        returned: object = trainable(config)
        return returned
    return None


def _train_class(trainable: Any, trial: Trial) -> None:
    if trial.resume_from is not None:
        trainable.iteration = trial.start
        trainable.load_checkpoint(str(trial.resume_from))
    try:
        for step in trial.steps():
            metrics = trainable.step()
            trainable.iteration = step
            trial._record(step, {name: value for name, value in metrics.items() if _is_number(value)})
            with trial.checkpoint(step) as folder:
                trainable.save_checkpoint(str(folder))
    finally:
        trainable.cleanup()


def nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with dictionaries for the dots of its names, as the search space had them."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        *outer, last = name.split(".")
        inner = found
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return found
