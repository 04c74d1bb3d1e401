"""A results folder with one batch, and workers that run its tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.store import checkpoints
from hpcsweep.store.batch import (
    Header,
    ManifestRun,
    Program,
    Result,
    Reuse,
    new_results,
    write_manifest,
)
from hpcsweep.store.layout import BatchLayout, Layout, TrialLayout
from tests.waiting import PATIENCE_S, wait_until


class Bench:
    """One batch in a folder whose name has a space; training code is written by the tests."""

    def __init__(self, root: Path) -> None:
        self.workdir = root / "my sweep"
        self.temporary = root / "tmp"
        self.layout = Layout(self.workdir / "results")
        self.batch = BatchLayout(self.layout.batch("b1").root)
        for folder in (self.batch.root, self.temporary):
            folder.mkdir(parents=True)

    def code(self, text: str, name: str = "train.py") -> str:
        """Write training code, give its path."""
        path = self.workdir / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    def run(self, trial: int = 0, resource: int = 3, **fields: Any) -> ManifestRun:
        defaults: dict[str, Any] = {"rung": 0, "bracket": 0, "attempt": 0, "seed": 7, "config": {"lr": 0.5}}
        return ManifestRun(trial=trial, resource=resource, **{**defaults, **fields})

    def plan(
        self,
        *tasks: Sequence[ManifestRun],
        gpus: int = 0,
        lanes: int = 1,
        nodes: int = 1,
        fail_fast: int = 0,
        reuse: Reuse | None = None,
        mem_limit_mib: int | None = None,
        **program: Any,
    ) -> None:
        """Write the manifest; each argument is one task's runs."""
        program = {"workdir": str(self.workdir), "metric": "val_error", "parameters": ("lr",), **program}
        header = Header(
            batch="b1",
            sweep="s",
            program=Program(**program),
            gpus=gpus,
            lanes=lanes,
            nodes=nodes,
            fail_fast=fail_fast,
            reuse=reuse,
            mem_limit_mib=mem_limit_mib,
        )
        write_manifest(self.batch, header, tasks)

    def plan_python(self, text: str, *runs: ManifestRun, **fields: Any) -> None:
        """One task that trains with the `train` of this code."""
        self.plan(runs or [self.run()], function=self.code(text) + ":train", **fields)

    def plan_command(self, command: str, *runs: ManifestRun, **fields: Any) -> None:
        """One task that runs this command."""
        self.plan(runs or [self.run()], command=command, **fields)

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.temporary), **more}

    def wait_for(self, name: str) -> None:
        """Wait until training has made this file in its folder."""
        wait_until((self.workdir / name).exists)

    def start(
        self, task: int = 0, restart: int = 0, *, argv: Sequence[str] = (), **environ: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker."""
        return subprocess.Popen(
            [sys.executable, "-m", "hpcsweep.worker", str(self.batch.root), "--task", str(task), *argv],
            env=self.environment(HPCSWEEP_RESTART=str(restart), **environ),
            cwd="/",
        )

    def work(self, task: int = 0, restart: int = 0, **environ: str) -> Result:
        """Run a worker to its end; the result of its last run."""
        worker = self.start(task, restart, **environ)
        assert worker.wait(PATIENCE_S) == 0
        return self.results()[-1]

    def results(self) -> list[Result]:
        return [result for _, result in new_results(self.batch, ())]

    def log(self, task: int = 0, n: int | None = None) -> str:
        return self.batch.log(task, n).read_text()

    def trial(self, trial: int = 0) -> TrialLayout:
        return self.layout.trial(trial)

    def newest(self, trial: int = 0) -> int | None:
        """Step of the trial's newest complete checkpoint."""
        found = checkpoints.newest(self.trial(trial))
        return found.step if found else None

    def trained(self) -> list[int]:
        """The steps that training code noted, in order."""
        notes = self.workdir / "trained"
        return [int(line) for line in notes.read_text().split()] if notes.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
