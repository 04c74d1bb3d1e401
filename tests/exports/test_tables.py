"""`export` of tables: what CSV, JSON and Parquet hold of a sweep."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hpcsweep
from hpcsweep.core.events import Outcome, SweepStarted
from hpcsweep.exports.tables import TABLES, encoded, table
from hpcsweep.views.results import Results
from tests.exports.exported import CONFIGS, EVENTS, exported, simulated
from tests.views.folders import created, failed, identity, planned, written


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return hpcsweep.load(exported(tmp_path))


def test_csv_keeps_numbers_as_they_are_and_texts_too(results: Results) -> None:
    lines = encoded(table(results, "trials"), "csv").decode().splitlines()
    assert lines[0] == (
        "trial,status,failure,value,resource,bracket,parent,origin,repeat,config.lr,config.drop,config.width,"
        "config.layers,config.flag,config.nesterov,config.warmup,config.data"
    )
    rows = pd.read_csv(io.StringIO("\n".join(lines)), dtype=str, keep_default_na=False)
    assert list(rows["config.lr"]) == ["1.25e-11", "0.1", "0.2", "0.3", "0.4"]
    assert list(rows["config.layers"]) == ["[64,64]", "[128]", "none", "3", ""]
    assert list(rows["config.flag"]) == ["'=1+1", "'-O2", "'@x", "'-O2", "'-O2"]
    assert list(rows["config.warmup"]) == ["4", "", "7", "", ""]
    assert list(rows["resource"]) == ["9", "3", "", "2", ""]
    assert list(rows["value"]) == ["0.2", "0.9", "", "0.8", ""]


def test_json_has_every_digit_and_values_of_every_type(results: Results) -> None:
    rows = json.loads(encoded(table(results, "trials"), "json"))
    assert [
        {name: row[f"config.{name}"] for name in config} for row, config in zip(rows, CONFIGS, strict=True)
    ] == list(CONFIGS)
    assert [row["config.warmup"] for row in rows] == [4, None, 7, None, None]
    assert [row["parent"] for row in rows] == [None] * 5


def test_json_has_null_where_a_metric_is_not_finite(results: Results) -> None:
    text = encoded(table(results, "metrics"), "json").decode()
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {row["acc"] for row in rows if row["trial"] == 1} == {None}
    of_csv = pd.read_csv(io.BytesIO(encoded(table(results, "metrics"), "csv")))
    assert list(of_csv[of_csv["trial"] == 1]["acc"])[1:] == [float("inf")]


def test_parquet_has_types_and_mixed_values_as_json_text(results: Results) -> None:
    frame = pd.read_parquet(io.BytesIO(encoded(table(results, "trials"), "parquet")))
    assert list(frame["config.layers"])[:4] == ["[64,64]", "[128]", '"none"', "3"]
    assert frame["config.layers"].isna().tolist() == [False] * 4 + [True]
    assert list(frame["config.nesterov"]) == [True, False, True, False, False]
    assert list(frame["config.lr"]) == [config["lr"] for config in CONFIGS]
    assert str(frame["config.warmup"].dtype) == "Int64"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_goes_into_every_format(results: Results, name: str) -> None:
    frame = getattr(results, name)
    before = frame.copy()
    of_csv = pd.read_csv(io.BytesIO(encoded(table(results, name), "csv")))
    of_json = pd.DataFrame(json.loads(encoded(table(results, name), "json")))
    of_parquet = pd.read_parquet(io.BytesIO(encoded(table(results, name), "parquet")))
    for found in (of_csv, of_json, of_parquet):
        assert list(found.columns) == list(frame.columns)
        assert len(found) == len(frame) > 0
    pd.testing.assert_frame_equal(frame, before)


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    results = hpcsweep.load(exported(tmp_path, events=EVENTS[:1]))
    assert encoded(table(results, "attempts"), "csv").decode().startswith("trial,rung,attempt,")
    assert encoded(table(results, "attempts"), "json") == b"[]\n"


def test_every_table_has_the_kind_of_failure(tmp_path: Path) -> None:
    messages = [
        "ValueError: odd",
        "metric 'loss' is nan at step 10",
        "metric 'loss' was never reported; nothing was",
    ]
    events = [
        SweepStarted("cafe01", "lr", 50.0, identity()),
        *created(4),
        *planned("a", *((trial, 0) for trial in range(4))),
        *(failed(trial, message) for trial, message in enumerate(messages)),
        failed(3, "killed", outcome=Outcome.OUT_OF_MEMORY),
    ]
    expected = ["crashed", "not_finite", "never_reported", "out_of_memory"]
    results = written(tmp_path / "r", events)
    for found in (results.trials, results.runs, results.attempts):
        assert found["failure"].tolist() == expected
    assert results.folder.status(now=0.0)["failed_by"] == dict.fromkeys(expected, 1)


def test_tables_of_an_earlier_version_get_the_kind_of_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def old(self: Results, name: str, made: Any) -> Any:
        return made(self.folder.state).drop_columns(["failure"])

    folder = exported(tmp_path)
    new = hpcsweep.load(folder)
    runs, trials = new.runs, new.trials
    assert set(trials["failure"].dropna()) == {"crashed"}
    monkeypatch.setattr(Results, "_table", old)
    found = hpcsweep.load(folder)
    pd.testing.assert_frame_equal(found.runs, runs, check_dtype=False)
    pd.testing.assert_frame_equal(found.trials, trials, check_dtype=False)


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_a_simulated_sweep_say_so_in_each_row(tmp_path: Path, name: str) -> None:
    frame = table(hpcsweep.load(simulated(tmp_path)), name)
    assert list(frame.columns)[-1] == "simulated"
    assert set(frame["simulated"]) == {True}
    for format_, read in (("csv", pd.read_csv), ("json", pd.read_json), ("parquet", pd.read_parquet)):
        assert set(read(io.BytesIO(encoded(frame, format_)))["simulated"]) == {True}


def test_text_that_looks_like_a_formula_is_text_in_csv_and_numbers_are_numbers() -> None:
    frame = pd.DataFrame(
        {
            "=cmd": ["=1+1", "+1 x", "-x", "@a", "\tb", "\rc"],
            "text": ["-0.5", "+3", "a=b", "-inf", "", "'=1"],
            "number": [-0.5, 1.0, -3.0, 0.0, 1e9, -1e-9],
            "mixed": [-1, "-y", None, 2.5, "=z", True],
        }
    )
    lines = encoded(frame, "csv").decode().split("\n")
    found = pd.read_csv(io.BytesIO(encoded(frame, "csv")), keep_default_na=False)
    assert lines[0] == '"\'=cmd","text","number","mixed"'
    assert found["'=cmd"].tolist() == ["'=1+1", "'+1 x", "'-x", "'@a", "'\tb", "'\rc"]
    assert found["text"].tolist() == ["-0.5", "+3", "a=b", "-inf", "", "'=1"]
    assert found["number"].tolist() == frame["number"].tolist()
    assert found["mixed"].tolist() == ["-1", "'-y", "", "2.5", "'=z", "True"]
