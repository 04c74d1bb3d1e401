"""A cluster whose programs are stand-ins, and a batch for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.core.cluster_protocol import Batch, TaskResources

from .programs import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs(tmp_path)
    monkeypatch.setenv("PATH", programs.path)
    return programs


@pytest.fixture
def cluster(programs: Programs) -> SlurmCluster:
    return SlurmCluster(SlurmOptions())


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    folder = tmp_path / "it's a $HOME" / "batches" / "s-1"
    folder.mkdir(parents=True)
    return Batch(name="s-1", folder=folder, tasks=4, throttle=2, shape=TaskResources(gpus=1))
