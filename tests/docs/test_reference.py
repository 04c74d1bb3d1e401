"""The generated reference pages are those of the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from .reference import PAGES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path](), "run python -m tests.docs.reference"
