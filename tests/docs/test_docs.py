"""Every command and every snippet of the documentation works, in the order in which a reader meets it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hpcsweep.cli import app
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.searchers import SEARCHERS

from .doc_runner import DOCS, ON_SLURM, DocRunner

PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ON_SLURM], ids=lambda p: p.stem)
def test_a_page_works_from_its_first_block_to_its_last(page: Path, tmp_path: Path) -> None:
    DocRunner(tmp_path, os.environ).run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere_and_verbs_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    verbs = {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}
    assert set(re.findall(r"`hpcsweep ([a-z]+)", text)) <= verbs


def test_the_tables_name_every_searcher_and_scheduler() -> None:
    text = (DOCS / "search.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*SEARCHERS, *SCHEDULERS}
