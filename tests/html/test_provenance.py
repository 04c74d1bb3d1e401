"""What the results folder tells of its launches, and how the page shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import hpcsweep
from hpcsweep.core.events import SweepStarted
from hpcsweep.html.sections import KeyValues, Table, Text
from hpcsweep.html.summary import provenance
from hpcsweep.store.git import GitState
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.provenance import Python, Record
from hpcsweep.views.folder import changes, code_line
from hpcsweep.views.results import Results

RECORD = Record(
    at=1_700_000_000.0,
    host="login1",
    user="ann",
    cwd="/home/ann",
    argv=("python", "-m", "hpcsweep", "launch", "my sweep.yaml"),
    python=Python("3.11.7", "/venv/bin/python"),
    hpcsweep="0.1.0",
    cluster="slurm",
    packages={"numpy": "2.0", "torch": "2.13.0"},
    spec_sha256="ab" * 32,
    files={"/home/ann/train.py": "11"},
    code=GitState(
        "/home/ann", "/home/ann", "1234567890abcdef", "main", dirty=True, remote="x", diff_sha256="22"
    ),
    diff="1.diff",
)
REPLACE = msgspec.structs.replace


def plain(record: Record) -> dict[str, Any]:
    return dict(msgspec.to_builtins(record))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (REPLACE(RECORD, at=9.0, host="login2", argv=("x",), spec_sha256="cd"), []),
        (
            REPLACE(RECORD, code=GitState("/home/ann", commit="ffff567890abcdef")),
            ["commit 1234567890 -> ffff567890"],
        ),
        (
            REPLACE(RECORD, code=REPLACE(RECORD.code, diff_sha256="33"), files={"/home/ann/train.py": "12"}),
            ["uncommitted changes", "/home/ann/train.py changed"],
        ),
        (
            REPLACE(
                RECORD,
                copied="/home/ann",
                code=GitState("", problem="copy"),
                files={"/home/ann/train.py": ""},
            ),
            [],
        ),
        (REPLACE(RECORD, python=Python("3.12.1", "/v")), ["Python 3.11.7 -> 3.12.1"]),
        (REPLACE(RECORD, python=Python("3.11.7", "/v", "/p")), ["interpreter of trials: the same -> /p"]),
        (
            REPLACE(RECORD, hpcsweep="0.2.0", packages={"torch": "2.14", "zarr": "3"}),
            ["hpcsweep 0.1.0 -> 0.2.0", "numpy 2.0 -> absent", "torch 2.13.0 -> 2.14", "zarr absent -> 3"],
        ),
        (
            REPLACE(RECORD, packages=RECORD.packages | {f"p{n}": "1" for n in range(7)}),
            [*(f"p{n} absent -> 1" for n in range(5)), "2 more packages"],
        ),
    ],
)
def test_differences_are_those_of_code_and_packages(other: Record, told: list[str]) -> None:
    assert changes(plain(RECORD), plain(other)) == told


def test_the_code_is_described_in_one_line() -> None:
    assert code_line(plain(RECORD)) == "commit 1234567890 on main, with uncommitted changes"
    none = REPLACE(RECORD, code=GitState("/x", problem="git is not installed"))
    assert code_line(plain(none)) == "git is not installed"
    part = REPLACE(RECORD, code=GitState("/x", commit="1234567890ab", problem="git diff took too long"))
    assert code_line(plain(part)) == "commit 1234567890 (git diff took too long)"


def results(folder: Path, *records: Record) -> Results:
    layout = Layout(folder)
    journal = Journal.open(layout)
    journal.commit([SweepStarted("cafe01", "s", 0.0, {"objective": {"metric": "loss", "mode": "min"}})])
    journal.release()
    for number, record in enumerate(records, 1):
        layout.provenance.mkdir(exist_ok=True)
        (layout.provenance / f"{number}.json").write_bytes(msgspec.json.encode(record))
    return hpcsweep.load(folder)


def test_a_folder_of_an_earlier_version_has_no_records_and_no_section(tmp_path: Path) -> None:
    found = results(tmp_path)
    assert (found.provenance, provenance(found)) == ([], None)


def test_one_launch_is_shown_without_a_table_and_without_a_warning(tmp_path: Path) -> None:
    section = provenance(results(tmp_path, RECORD))
    assert section is not None
    facts, command = section.blocks
    assert isinstance(facts, KeyValues)
    shown = dict(facts.rows)
    assert shown["Code"] == "commit 1234567890 on main, with uncommitted changes"
    assert shown["Uncommitted changes"] == "provenance/1.diff"
    assert shown["Launched"].endswith(" by ann on login1 in /home/ann")
    assert "Copied from" not in shown
    assert command == Text("python -m hpcsweep launch 'my sweep.yaml'", "code")


def test_launches_of_other_code_are_a_warning_and_listed_in_order(tmp_path: Path) -> None:
    records = [REPLACE(RECORD, at=RECORD.at + n, packages={"torch": f"2.{n}"}) for n in range(11)]
    section = provenance(results(tmp_path, *records))
    assert section is not None
    warning, _, _, table = section.blocks
    assert isinstance(warning, Text)
    assert warning.kind == "warning"
    assert "torch 2.0 -> 2.10" in warning.text
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == ["", *(f"torch 2.0 -> 2.{n}" for n in range(1, 11))]


def test_going_back_to_the_first_code_does_not_hide_that_others_ran(tmp_path: Path) -> None:
    records = [RECORD, REPLACE(RECORD, hpcsweep="0.2.0"), REPLACE(RECORD, argv=("again",))]
    section = provenance(results(tmp_path, *records))
    assert section is not None
    warning = section.blocks[0]
    assert isinstance(warning, Text)
    assert "hpcsweep 0.1.0 -> 0.2.0" in warning.text
