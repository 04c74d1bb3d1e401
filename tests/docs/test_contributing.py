"""The pages for contributors name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hpcsweep

PACKAGE = Path(hpcsweep.__file__).parent
ROOT = PACKAGE.parent
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md")

#: A part of a path that stands for what a reader adds.
_PATTERN = re.compile(r"<\w+>")
_PATH = re.compile(r"[\w.<>/-]+")
#: A name with the file that defines it.
_DEFINED = re.compile(r"`(\w+)`,? \(`([\w/.]+\.py)`\)")
#: Files of a sweep's results folder.
_OF_A_SWEEP = ("batches/", "control/")


def prose_of(page: str) -> str:
    """The page without its fenced blocks, each paragraph on one line."""
    text = re.sub(
        r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"\n +", " ", text)


def paths_of(page: str) -> list[str]:
    """What stands in backticks and has a folder, is a Python file or one of the pages."""
    quoted = [word for word in re.findall(r"`([^`\n]+)`", prose_of(page)) if _PATH.fullmatch(word)]
    paths = {word for word in quoted if "/" in word or word.endswith((".py", ".md", ".toml"))}
    return sorted(path for path in paths if not path.startswith(_OF_A_SWEEP))


def exists(path: str) -> bool:
    """Whether it is there, from the root or in the package; of a pattern, whether its folder is."""
    fixed = _PATTERN.split(path)[0]
    if fixed != path:
        fixed = fixed.rpartition("/")[0]
    return any((root / fixed).exists() for root in (ROOT, PACKAGE))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    paths = paths_of(page)
    assert len(paths) > 10
    assert [path for path in paths if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_name_is_defined_in_the_file_that_stands_behind_it(page: str) -> None:
    named = _DEFINED.findall(prose_of(page))
    assert named
    for name, file in named:
        text = next(root / file for root in (ROOT, PACKAGE) if (root / file).exists()).read_text(
            encoding="utf-8"
        )
        assert re.search(rf"^(?:class |def )?{name}\b", text, re.MULTILINE), (name, file)
