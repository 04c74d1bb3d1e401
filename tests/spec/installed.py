"""Packages of others, as pip installs them."""

from __future__ import annotations

from pathlib import Path

import pytest


def install(
    monkeypatch: pytest.MonkeyPatch, site: Path, name: str, *, entry_points: str, module: str, code: str
) -> None:
    """Put a package with these entry points and one module into the folder `site`, and that on the path."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (site / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(site)
