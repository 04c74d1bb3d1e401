"""Metrics in CSV files and JSON lines, as they grow or are written again."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.worker.metrics import tables
from hpcsweep.worker.metrics.appended import Lines

from .following import Following, Found

CSV: dict[str, tuple[str, dict[str, str], Found]] = {
    "all numeric columns are metrics, rows are counted": (
        "loss,name,val/loss\n1,a,0.5\n2,b,0.25\n",
        {},
        [(1, {"loss": 1, "val/loss": 0.5}), (2, {"loss": 2, "val/loss": 0.25})],
    ),
    "values of each metric are counted where cells are empty": (
        "train,val\n1,\n,0.5\n2,\n,0.25\n",
        {},
        [(1, {"train": 1}), (1, {"val": 0.5}), (2, {"train": 2}), (2, {"val": 0.25})],
    ),
    "with a step column rows have its steps": (
        "epoch,step,loss\n1,10,0.5\n2,20,0.25\n",
        {"step": "epoch"},
        [(1, {"loss": 0.5}), (2, {"loss": 0.25})],
    ),
    "steps may be written as floats": ("epoch,loss\n1.0,0.5\n", {"step": "epoch"}, [(1, {"loss": 0.5})]),
    "rows with no whole step are passed over": (
        "epoch,loss\n0.5,9\n,8\nx,7\n1,6\n",
        {"step": "epoch"},
        [(1, {"loss": 6})],
    ),
    "quoted cells hold commas, quotes and line ends": (
        '"a,b","c ""d"""\n1,"x\ny"\n"1,234.5",2\n',
        {},
        [(1, {"a,b": 1}), (2, {"a,b": 1234.5}), (1, {'c "d"': 2})],
    ),
    "Windows line ends and a byte order mark": ("\ufeffloss\r\n0.5\r\n", {}, [(1, {"loss": 0.5})]),
    "tabs": ("epoch\tloss\n1\t0.5\n", {"step": "epoch"}, [(1, {"loss": 0.5})]),
    "semicolons, with decimal commas": ("loss;acc\n0,43;1\n", {}, [(1, {"loss": 0.43, "acc": 1})]),
    "white space, as R writes it": ('"loss" "acc"\n0.5 1\n', {}, [(1, {"loss": 0.5, "acc": 1})]),
    "a comment as header, and in between": ("# a b\n1 2\n# x\n", {}, [(1, {"a": 1, "b": 2})]),
    "no header: columns are numbered": (
        "1,0.5\n2,0.25\n",
        {"step": "1"},
        [(1, {"2": 0.5}), (2, {"2": 0.25})],
    ),
    "NA is no value, NaN is one": ("a,b\nNA,nan\n", {}, [(1, {"b": math.nan})]),
    "a header again, in another order": (
        "epoch,loss\n1,0.5\nloss,epoch\n0.25,2\n",
        {"step": "epoch"},
        [(1, {"loss": 0.5}), (2, {"loss": 0.25})],
    ),
    "too many and too few cells": ("a,b\n1\n1,2,3\n\n", {}, [(1, {"a": 1}), (2, {"a": 1}), (1, {"b": 2})]),
    "bytes that are no text": ("a,\udcff\n1,2\n", {}, [(1, {"a": 1, "\ufffd": 2})]),
    "a cell that is too long": (f"a\n{'x' * 140_000}\n1\n", {}, [(1, {"a": 1})]),
    "a column called step": ("step,loss\n3,0.5\n", {}, [(1, {"loss": 0.5})]),
}


def equal(found: Found, expected: Found) -> bool:
    """Whether they are equal, where NaN is NaN."""
    return repr([(step, sorted(row.items())) for step, row in found]) == repr(
        [(step, sorted((name, float(value)) for name, value in row.items())) for step, row in expected]
    )


@pytest.mark.parametrize(
    ("name", "piece"),
    [(name, piece) for name in CSV for piece in (10**6, 1) if piece > 1 or "long" not in name],
)
def test_csv_files_are_read_as_programs_write_them(tmp_path: Path, name: str, piece: int) -> None:
    text, options, expected = CSV[name]
    data = text.encode(errors="surrogateescape")
    followed = Following(tmp_path, "m.csv", step=options.get("step", ""))
    found: Found = []
    with open(tmp_path / "m.csv", "wb", buffering=0) as file:
        for begin in range(0, len(data), piece):
            file.write(data[begin : begin + piece])
            found += followed.new()
    found += followed.rest()
    assert equal(found, expected)


def test_a_line_without_its_end_waits_and_counts_only_after_a_good_end(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("loss\n0.5\n0.2")
    for whole, expected in [(True, [(1, {"loss": 0.5}), (2, {"loss": 0.2})]), (False, [(1, {"loss": 0.5})])]:
        os.rename(path, tmp_path / "away")
        followed = Following(tmp_path, "m.csv")
        os.rename(tmp_path / "away", path)
        assert followed.new() == [(1, {"loss": 0.5})]
        assert [(1, {"loss": 0.5}), *followed.rest(whole=whole)] == expected


def test_what_stood_in_the_file_before_the_attempt_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("epoch,loss\n1,9\n2,8\n3,7\n")  # its checkpoint is of step 2
    followed = Following(tmp_path, "m.csv", step="epoch", start=2)
    assert followed.new() == []
    with path.open("a") as file:
        file.write("3,0.7\n")
    assert followed.new() == [(3, {"loss": 0.7})]
    with path.open("a") as file:
        file.write("4,0.6\n")
    assert followed.rest() == [(4, {"loss": 0.6})]


def test_a_very_large_file_of_before_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_BEFORE", 1000)
    path = tmp_path / "m.csv"
    path.write_text("epoch,loss\n" + "".join(f"{n},1\n" for n in range(500)))
    followed = Following(tmp_path, "m.csv", step="epoch")
    with path.open("a") as file:
        file.write("500,0.5\n")
    assert followed.rest() == [(500, {"loss": 0.5})]


def test_counted_rows_go_on_after_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("loss\n9\n8\n")
    followed = Following(tmp_path, "m.csv", start=2)
    with (tmp_path / "m.csv").open("a") as file:
        file.write("7\n")
    assert followed.rest() == [(3, {"loss": 7})]


def test_a_header_that_is_written_again_for_a_new_column_repeats_no_row(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    followed = Following(tmp_path, "m.csv")
    path.write_text("loss\n9\n8\n")
    assert len(followed.new()) == 2
    path.write_text("loss,val\n9,\n8,\n,0.5\n")  # the same rows, as Lightning's logger does it
    assert followed.new() == [(1, {"val": 0.5})]
    path.write_text("loss,val\n9,\n8,\n,0.5\n7,0.4\n")
    assert followed.rest() == [(3, {"loss": 7}), (2, {"val": 0.4})]


@pytest.mark.parametrize("begun", [False, True])
def test_a_table_that_is_written_again_as_a_whole_repeats_no_row(tmp_path: Path, begun: bool) -> None:
    path = tmp_path / "m.csv"
    rows = [f"{step},{1 / step}" for step in range(1, 7)]

    def write(count: int) -> None:
        (tmp_path / "new").write_text("\n".join(["epoch,loss", *rows[:count], ""]))
        os.replace(tmp_path / "new", path)

    if begun:
        write(4)  # two rows beyond the checkpoint, which are trained again
    followed = Following(tmp_path, "m.csv", step="epoch", start=2 if begun else 0)
    assert followed.new() == []
    write(3)
    first = followed.new()
    assert [step for step, _ in first] == ([3] if begun else [1, 2, 3])
    write(6)
    assert [step for step, _ in followed.rest()] == [4, 5, 6]


def test_a_program_that_starts_from_scratch_over_an_old_file_is_read_from_the_first_row(
    tmp_path: Path,
) -> None:
    (tmp_path / "m.csv").write_text("loss\n9\n8\n")
    followed = Following(tmp_path, "m.csv", start=0)
    (tmp_path / "m.csv").write_text("loss\n9\n")
    assert followed.new() == [(1, {"loss": 9})]
    (tmp_path / "m.csv").write_text("loss\n9\n8\n")
    assert followed.rest() == [(2, {"loss": 8})]


def test_json_lines_are_rows_whatever_stands_between_them(tmp_path: Path) -> None:
    rows: list[object] = [
        {"epoch": 1, "val": {"loss": 0.5, "by class": {"a": 1}}, "ok": True, "none": None, "note": "x"},
        "no object",
        {"epoch": 2, "val/loss": float("nan")},
        {"epoch": 3, "val": {"loss": "0.25"}},
        {"epoch": 10**400, "val/loss": 10**400},
    ]
    followed = Following(
        tmp_path, "m.jsonl", step="epoch", values={"error": "val/loss", "a": "val.by class.a"}
    )
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"epoch": 4, "va')
    found = followed.rest(whole=False)
    assert equal(found, [(1, {"error": 0.5, "a": 1}), (2, {"error": math.nan})])
    assert followed.metrics.problem("error") == (
        f"metric 'error' is in {tmp_path}/m.jsonl, but as '0.25', which is not a number"
    )


@given(
    lines=st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line)),
    cuts=st.lists(st.integers(0, 200)),
)
def test_lines_are_the_same_however_a_file_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines) + b"rest"
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    cutter = Lines()
    found = [line for begin, end in itertools.pairwise(places) for line in cutter.feed(data[begin:end])]
    assert (found, cutter.finish()) == (lines, b"rest")
