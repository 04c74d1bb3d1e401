"""Where the sweeps of these tests live."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The results folder."""
    return tmp_path / "a sweep"


@pytest.fixture
def controller(tmp_path: Path) -> Path:
    """The folder of a `FolderCluster`."""
    return tmp_path / "controller"
