"""What tests of simulated sweeps have in common."""

from __future__ import annotations

import pytest

from tests.doubles import compact_inline


@pytest.fixture(autouse=True)
def _compacts_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    compact_inline(monkeypatch)
