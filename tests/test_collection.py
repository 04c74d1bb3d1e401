"""How the tests are collected and given to the workers of pytest-xdist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import FIRST
from tests.lazy import MODULES_AFTER_COLLECTION

HEAVY = {"accelerate", "lightning", "scipy", "sklearn", "torch", "transformers"}


def test_collecting_imports_no_torch(pytestconfig: pytest.Config) -> None:
    modules = pytestconfig.stash[MODULES_AFTER_COLLECTION]
    assert "pytest" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("start", FIRST)
def test_tests_that_are_grouped_or_begin_first_exist(start: str) -> None:
    assert list(Path(__file__).parent.glob(f"{start}*"))
