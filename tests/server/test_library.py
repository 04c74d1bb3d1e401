"""The sweeps below some folders: what is found, what is read again, what is said of broken ones."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import msgspec
import pytest

from hpcsweep.cli.list_ import share_done
from hpcsweep.core.events import FORMAT_VERSION, RunFinished
from hpcsweep.core.outcomes import Outcome
from hpcsweep.errors import FolderError
from hpcsweep.server import library as module
from hpcsweep.server.library import Library
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import encode_line, parse_header
from hpcsweep.store.layout import Layout
from hpcsweep.views.results import Results, load
from tests.cli.test_list import ENDED, write
from tests.server.serving import EVENTS


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were loaded for a report, in that order."""
    loaded: list[Path] = []

    def noted(path: Path) -> Results:
        loaded.append(path)
        return load(path)

    monkeypatch.setattr(module, "load", noted)
    return loaded


def rows(page: str) -> list[list[str]]:
    """The text in the cells of each sweep in the list, the first one with its link."""
    found = []
    for row in re.findall(r'<tr role="row">\n<th scope="row".*?</tr>', page, re.DOTALL):
        link = re.search('href="([^"]*)"', row)
        cells = re.findall(r"<t[hd] .*?</t[hd]>", row, re.DOTALL)
        texts = [re.sub(r"<br>", " | ", cell) for cell in cells]
        assert link is not None
        found.append([link[1], *(html.unescape(re.sub(r"<[^>]*>", "", text)).strip() for text in texts)])
    return found


def library(*folders: Path) -> Library:
    return Library(folders, share_done=share_done, every=60)


def test_the_list_shows_what_list_knows_and_says_why_a_sweep_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "one", EVENTS, age_s=7200)
    write(tmp_path / "a b" / "two", [*EVENTS, ENDED], age_s=10_800, spec="nonsense: [")
    for name in ("damaged", "newer"):
        write(tmp_path / name, EVENTS, age_s=1.0)
        segment = next(iter(Layout(tmp_path / name).journal.iterdir()))
        first, _, rest = segment.read_bytes().partition(b"\n")
        newer = msgspec.structs.replace(parse_header(first), version=FORMAT_VERSION + 1)
        segment.write_bytes((encode_line(newer) if name == "newer" else b"nonsense\n") + rest)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    page = library(tmp_path).list_page()
    best = "loss 0.5 (trial 0 at step 3)"
    assert rows(page) == [
        ["report/0/one", "lr | one", "running", "25%", best, "1", "0.25 run-hours", "2 h ago"],
        [
            "report/0/a%20b/two",
            "lr | a b/two",
            "stopped | on request",
            "–",
            best,
            "1",
            "0.25 run-hours",
            "3 h ago",
        ],
    ]
    problems = re.findall('<p class="warning">(.*?)</p>', page[page.index("<h2 id=") :])
    assert [problem.partition("/journal/")[0] for problem in problems] == [
        str(tmp_path / "damaged"),
        str(tmp_path / "newer"),
    ]
    assert "damaged: " in problems[0]
    assert "written by a newer hpcsweep" in problems[1]
    assert "2 sweeps below" in page


def test_a_report_is_made_when_it_is_asked_for_and_again_when_the_sweep_has_changed(
    tmp_path: Path, loads: list[Path]
) -> None:
    write(tmp_path / "one", EVENTS, age_s=60)
    write(tmp_path / "two", [*EVENTS, ENDED], age_s=60)
    sweeps = library(tmp_path)
    sweeps.list_page()
    assert loads == []
    first = sweeps.report_page("0/one", home="/secret/")
    assert first is not None
    assert '<a href="/secret/">All sweeps</a>' in first
    assert 'data-every="60"' in first
    assert sweeps.report_page("0/one", home="/secret/") is first
    assert 'data-every="' not in (sweeps.report_page("0/two", home="/secret/") or "")
    assert [path.name for path in loads] == ["one", "two"]

    journal = Journal.open(Layout(tmp_path / "one"))
    journal.commit([RunFinished(1, 0, Outcome.COMPLETED, 0.25, 3, batch="a", seconds=900.0)])
    assert "0.25" in (sweeps.report_page("0/one", home="/secret/") or "")
    assert rows(sweeps.list_page())[0][4] == "loss 0.25 (trial 1 at step 3)"
    reports = Layout(tmp_path / "one").trial(2).metrics(0, 0, 0)
    reports.parent.mkdir(parents=True)
    reports.write_text('{"step": 1, "time": 0.0, "metrics": {"loss": 2.0}}\n')
    sweeps.report_page("0/one", home="/secret/")
    journal.release()
    assert [path.name for path in loads] == ["one", "two", "one", "one"]


def test_only_so_many_reports_are_kept(
    tmp_path: Path, loads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_REPORTS", 1)
    for name in ("one", "two"):
        write(tmp_path / name, EVENTS[:1], age_s=1)
    sweeps = library(tmp_path)
    for key in ("0/one", "0/two", "0/two", "0/one"):
        assert sweeps.report_page(key, home="/") is not None
    assert [path.name for path in loads] == ["one", "two", "one"]


def test_a_folder_that_was_given_may_be_a_sweep_or_be_within_another(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "one", EVENTS, age_s=60)
    write(tmp_path / "two", EVENTS, age_s=120)
    alone = rows(library(tmp_path / "two").list_page())
    assert [row[:2] for row in alone] == [["report/0/", f"lr | {tmp_path}/two"]]
    found = rows(library(tmp_path, tmp_path / "deep").list_page())
    assert [row[:2] for row in found] == [
        ["report/0/deep/one", f"lr | {tmp_path}/deep/one"],
        ["report/0/two", f"lr | {tmp_path}/two"],
    ]


def test_names_need_not_be_text_nor_html(tmp_path: Path) -> None:
    name = os.fsdecode(b"<b>\xff&?#%2e")
    write(tmp_path / name, EVENTS, age_s=60)
    sweeps = library(tmp_path)
    [row] = rows(sweeps.list_page())
    assert row[0] == "report/0/%3Cb%3E%FF%26%3F%23%252e"
    assert sweeps.report_page(f"0/{name}", home="/") is not None


@pytest.mark.parametrize(
    "key", ["0/../outside", "0/./one", "0//one", "0/one/", "../one", "1/one", "0/link", "0/replaced", ""]
)
def test_nothing_beside_the_sweeps_that_were_found_is_ever_opened(
    tmp_path: Path, loads: list[Path], key: str
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "one", inside / "replaced", outside):
        write(folder, EVENTS, age_s=60)
    (inside / "link").symlink_to(outside)
    sweeps = library(inside)
    (inside / "replaced").rename(tmp_path / "old")
    (inside / "replaced").symlink_to(outside)
    keys = (key, f"0/{outside}", f"0{outside}")
    assert [sweeps.report_page(each, home="/") for each in keys] == [None, None, None]
    assert loads == []


def test_a_folder_that_goes_away_is_said_and_one_that_never_was_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    write(folder / "one", EVENTS, age_s=60)
    sweeps = library(folder)
    folder.rename(tmp_path / "elsewhere")
    page = sweeps.list_page()
    assert "0 sweeps below" in page
    assert f"{folder}: does not exist: expected a folder" in page
    with pytest.raises(FolderError, match="does not exist"):
        library(folder)
