"""Trials as rows: what is known of each, selected, ordered, and as a frame."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import Interruption, SweepStarted, TrialCreated
from hpcsweep.errors import SpecError
from hpcsweep.html.sections import TrialTable
from hpcsweep.html.trials import trials as trials_section
from hpcsweep.store.batch import trial_seed
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.views.results import Results
from hpcsweep.views.trial_rows import select_rows, sort_rows
from tests.views.folders import created, failed, finished, identity, interrupted, planned, written

STARTED = SweepStarted("cafe01", "lr", 50.0, identity())
CONFIGS: list[dict[str, Any]] = [
    {"lr": 0.1, "optimizer": "sgd", "width": 3},
    {"lr": 0.5, "optimizer": "adam"},
    {"lr": 0.01},
]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two trials that completed, and one that failed and reported nothing."""
    events = [TrialCreated(trial, config, 0, 10) for trial, config in enumerate(CONFIGS)]
    ends = [finished(0), finished(1, value=0.05), failed(2, "ValueError: odd", seconds=1.0, gpu_seconds=2.0)]
    found = written(tmp_path, [STARTED, *events, *planned("a", (0, 0), (1, 0), (2, 0)), *ends])
    for trial in (0, 1):
        writer = MetricsWriter(found.folder.layout.trial(trial).metrics(0, 0, 0))
        writer.write(9, {"loss": 9.0, "size": 4})
        writer.write(10, {"loss": 0.1 * (trial + 1)})
        writer.sync_and_close()
    return found


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [row["trial"] for row in rows]


def test_a_trial_began_with_its_first_attempt_also_where_that_was_interrupted(tmp_path: Path) -> None:
    first = interrupted(0, Interruption.PREEMPTED, started=120.0, seconds=40.0)
    events = [SweepStarted("cafe01", "lr", 50.0, identity()), *created(1), *planned("a", (0, 0)), first]
    (row,) = written(tmp_path / "one", events).rows
    assert (row["started"], row["ended"]) == (120.0, 160.0)
    (row,) = written(tmp_path / "two", [*events, *planned("b", (0, 0)), finished(0, batch="b")]).rows
    assert (row["started"], row["ended"]) == (120.0, 3770.0)


def test_attempts_are_the_same_wherever_they_are_shown(tmp_path: Path) -> None:
    taken_back = interrupted(0, Interruption.PREEMPTED, started=120.0, seconds=40.0, requeued=True)
    in_the_queue = interrupted(0, Interruption.NOT_STARTED, restart=1, seconds=0.0, node="")
    events = [STARTED, *created(2), *planned("a", (0, 0), (1, 0)), taken_back, in_the_queue]
    events += [*planned("b", (0, 0)), finished(0, batch="b", attempt=1, started=900.0)]
    found = written(tmp_path, events)
    printed = CliRunner().invoke(app, ["trials", str(found.path), "--json"]).stdout
    explained = CliRunner().invoke(app, ["explain", str(found.path), "0"]).stdout.splitlines()
    section = trials_section(found)
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, TrialTable)
    (column,) = [each["values"] for each in table.data["columns"] if each["name"] == "attempts"]
    assert list(column) == [2, 1]
    assert [row["attempts"] for row in found.rows] == [2, 1]
    assert [row["attempts"] for row in json.loads(printed)] == [2, 1]
    assert list(found.trials_dataframe()["attempts"]) == [2, 1]
    assert list(found.runs["attempts"]) == [2, 1]
    assert explained[3:6] == [
        "rung 0, resource 10: completed in attempt 2 on n1 (job 7_0, 60 min) with loss 0.1",
        "  attempt 1: preempted on n2 (job 7_0, 40 s): told to stop",
        "  before attempt 2, restart 1 of its task: not begun (job 7_0): told to stop",
    ]


def test_a_row_has_all_that_is_known_of_its_trial(results: Results) -> None:
    assert results.rows[0] == {
        "trial": 0,
        "status": "completed",
        "failure": None,
        "value": 0.1,
        "resource": 10,
        "rung": 0,
        "bracket": 0,
        "config": CONFIGS[0],
        "metrics": {"loss": 0.1, "size": 4.0},
        "seconds": 3600.0,
        "gpu_seconds": 7200.0,
        "attempts": 1,
        "started": 170.0,
        "ended": 3770.0,
        "seed": trial_seed(0, 0),
        "repeat": 0,
        "parent": None,
        "origin": "searcher",
        "node": "n1",
        "job": "7_0",
        "message": None,
    }
    failed = results.rows[2]
    assert (failed["status"], failed["failure"], failed["value"], failed["metrics"], failed["message"]) == (
        "failed",
        "crashed",
        None,
        {},
        "ValueError: odd",
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("lr < 0.2", [0, 2]),
        ("loss < 0.15", [0]),
        ("optimizer == 'adam' or width > 2", [0]),
        ("optimizer != 'sgd'", [1]),
        ("status == 'failed' and seconds < 60", [2]),
        ("value <= 0.1 and size == 4", [0, 1]),
        ("`config.lr` == 0.5", [1]),
        ("log10(lr) < -1.5", [2]),
    ],
)
def test_rows_are_selected_by_parameters_metrics_and_columns(
    results: Results, where: str, expected: list[int]
) -> None:
    assert numbers(select_rows(results.rows, where)) == expected


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("lrr < 1", "unknown name 'lrr'; did you mean 'lr'?"),
        ("optimizer < 1", "cannot be computed"),
        ("lr <", "column "),
        ("__import__('os')", "only these functions can be called"),
    ],
)
def test_an_expression_that_makes_no_sense_is_refused(results: Results, where: str, problem: str) -> None:
    with pytest.raises(SpecError, match="--where: ") as caught:
        select_rows(results.rows, where)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, [1, 0, 2]),
        ("lr", [2, 0, 1]),
        ("-lr", [1, 0, 2]),
        ("optimizer", [1, 0, 2]),
        ("-trial", [2, 1, 0]),
    ],
)
def test_rows_come_best_first_or_by_a_name_and_those_without_it_last(
    results: Results, key: str | None, expected: list[int]
) -> None:
    assert numbers(sort_rows(results.rows, key)) == expected


def test_where_large_values_are_good_they_come_first(results: Results) -> None:
    assert numbers(sort_rows(results.rows, None, minimise=False)) == [0, 1, 2]
    with pytest.raises(SpecError, match="--sort: unknown name 'los'; did you mean 'loss'"):
        sort_rows(results.rows, "los")


def test_the_frame_has_whole_numbers_and_timestamps(results: Results) -> None:
    frame = results.trials_dataframe()
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert {name: kinds[name] for name in ("trial", "resource", "parent", "seed", "config.width")} == {
        "trial": "int64",
        "resource": "Int64",
        "parent": "Int64",
        "seed": "int64",
        "config.width": "Int64",
    }
    assert (kinds["value"], kinds["metrics.loss"], kinds["config.lr"]) == ("float64",) * 3
    assert kinds["started"] == kinds["ended"] == "datetime64[us, UTC]"
    optimizer = frame["config.optimizer"]
    assert (list(optimizer.cat.categories), optimizer.cat.ordered) == (["sgd", "adam"], False)
    narrow = {name: str(kind) for name, kind in results.trials.dtypes.items()}
    assert (narrow["trial"], narrow["resource"], narrow["config.width"]) == ("int64", "Int64", "Int64")
    assert frame["started"][0].to_pydatetime() == datetime.datetime(1970, 1, 1, 0, 2, 50, tzinfo=datetime.UTC)
    assert frame["duration"][0].total_seconds() == 3600
    assert list(results.best_configurations(5)["trial"]) == [1, 0]


def test_booleans_stay_booleans_where_some_are_missing(tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = [{"size": "l", "tied": True}, {"size": "s"}]
    space = {
        "size": {"type": "ordinal", "values": ["s", "l"]},
        "tied": {"type": "choice", "values": [True, False], "when": {"size": ["l"]}},
    }
    started = SweepStarted("cafe01", "lr", 50.0, identity(space=space))
    created = [TrialCreated(trial, config, 0, 10) for trial, config in enumerate(configs)]
    ends = [finished(0), finished(1)]
    found = written(tmp_path, [started, *created, *planned("a", (0, 0), (1, 0)), *ends])
    frame = found.trials_dataframe()
    assert [str(table["config.tied"].dtype) for table in (frame, found.trials)] == ["boolean"] * 2
    assert frame["config.size"].max() == "l"  # they are ordered


def test_results_say_how_the_sweep_stands(results: Results) -> None:
    expected = f"lr: running, 3 trials; best loss 0.05 (trial 1 at step 10); folder {results.path}"
    assert repr(results) == expected


def test_a_notebook_shows_the_best_and_nothing_that_a_browser_would_run(tmp_path: Path) -> None:
    config = {"lr": 0.1, "optimizer": "<script>"}
    created = TrialCreated(0, config, 0, 10)
    found = written(tmp_path, [STARTED, created, *planned("a", (0, 0)), finished(0)])
    page = found._repr_html_()
    assert "1 trial" in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_trials_and_best_print_a_table(results: Results) -> None:
    path = str(results.path)
    done = CliRunner().invoke(app, ["trials", path, "--where", "lr > 0.05"])
    assert done.stdout.splitlines() == [
        "trial  loss  size  at  rung     status    time  GPU-h  configuration",
        "    1  0.05     4  10     0  completed  60 min      2  lr=0.5 optimizer=adam",
        "    0   0.1     4  10     0  completed  60 min      2  lr=0.1 optimizer=sgd width=3",
        "2 of 2 trials where lr > 0.05, best first",
    ]
    done = CliRunner().invoke(app, ["best", path, "-n", "1"])
    assert done.stdout.splitlines()[1:] == [
        "    1  0.05     4  10     0  completed  60 min      2  lr=0.5 optimizer=adam",
        "the best 1 of 3",
    ]
