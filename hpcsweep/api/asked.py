"""What `Sweep.ask` hands out, and the file by which that is known."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from hpcsweep.store import checkpoints
from hpcsweep.store.batch import Header, ManifestRun, Program
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout, Layout, TrialLayout
from hpcsweep.store.run_files import RunFile
from hpcsweep.trial import Trial


class Claim(msgspec.Struct, frozen=True):
    """That a task was handed out."""

    at: float
    host: str
    pid: int


class Asked(NamedTuple):
    """A run that was handed out, with the files of its batch."""

    batch: BatchLayout
    task: int
    header: Header
    run: ManifestRun

    @property
    def layout(self) -> TrialLayout:
        return Layout.of_batch(self.batch.root).trial(self.run.trial)

    @property
    def metrics(self) -> Path:
        """Where it reports."""
        return self.layout.metrics(self.run.rung, self.run.attempt, 0)

    @property
    def program(self) -> Program:
        return self.header.program

    def checkpoint(self) -> checkpoints.Checkpoint | None:
        """Where it goes on from; None: from scratch."""
        sweep, run = Layout.of_batch(self.batch.root), self.run
        parent = sweep.trial(run.parent) if run.parent is not None else None
        return checkpoints.newest_of_line(
            self.layout, parent, at_most=run.resource, parent_step=run.parent_step
        )

    def trial(self) -> Trial:
        """As training code sees it."""
        run, found = self.run, self.checkpoint()
        make_dirs(self.layout.checkpoints)
        file = RunFile(
            trial=run.trial,
            rung=run.rung,
            bracket=run.bracket,
            resource=run.resource,
            attempt=run.attempt,
            restart=0,
            seed=run.seed,
            config=run.config,
            start=found.step if found else 0,
            resume_from=str(found.path) if found else None,
            checkpoint_dir="",
            stop_file=str(self.batch.stop(run.trial, run.rung)),
            trial_folder=str(self.layout.root),
            metrics_file=str(self.metrics),
            metric=self.program.metric,
            keep_checkpoints=self.program.keep_checkpoints,
            keep_steps=run.keep,
        )
        return Trial(file, rank=0)
