"""The glossary explains the words that the documentation uses, and says where the code has them."""

from __future__ import annotations

import importlib
import re

import pytest

from .doc_runner import DOCS

ENTRY = re.compile(r"^\| ([a-z ]+) \| ([^|]+) \| `([\w.]+)` \|$", re.MULTILINE)
ENTRIES = {word: (meaning, name) for word, meaning, name in ENTRY.findall((DOCS / "glossary.md").read_text())}

WORDS = {
    *("sweep", "trial", "resource", "rung", "bracket", "run", "attempt", "batch", "task", "assignment"),
    *("tick", "searcher", "scheduler", "cluster", "store", "worker", "driver", "journal", "outcome"),
}
#: Words that only contributors need.
OF_THE_CODE = {"assignment", "compaction", "history", "store"}


def test_the_glossary_has_the_words_of_the_project_one_line_each() -> None:
    rows = [line for line in (DOCS / "glossary.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == len(ENTRIES) + 2
    assert set(ENTRIES) >= WORDS


@pytest.mark.parametrize("word", ENTRIES)
def test_the_code_has_what_a_word_means(word: str) -> None:
    name = ENTRIES[word][1]
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("word", sorted(set(ENTRIES) - OF_THE_CODE))
def test_a_word_is_used_elsewhere_in_the_documentation(word: str) -> None:
    pages = [path for path in DOCS.glob("*.md") if path.name != "glossary.md"]
    assert any(re.search(rf"\b{word}(s|es)?\b", path.read_text(), re.IGNORECASE) for path in pages)
