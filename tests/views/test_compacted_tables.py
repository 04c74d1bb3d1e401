"""Frames are the same whether what they are made of is compacted or not, and whenever that happens."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpcsweep import load
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    Config,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.errors import FolderError
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.views import tables
from hpcsweep.views.results import Results
from tests.compacted import compact

STARTED = SweepStarted("cafe01", "s", 0.0, {"objective": {"metric": "loss", "mode": "max"}})
ENDED = SweepEnded(9.0, SweepOutcome.FINISHED, "all trials are done")
#: One of each kind; `w` is of several types, `m` absent in some, `b` a bool, `g` a number too large.
CONFIGS: list[Config] = [
    {"lr": 0.1, "n": 3, "opt": "sgd", "m": 0.9, "w": 1, "b": True, "g": 2**70},
    {"lr": 1, "n": 4, "opt": "adam", "w": "auto", "b": False, "g": 1},
    {"lr": 1e-300, "n": 5, "opt": "adam", "w": None, "b": True, "g": 0},
    {"lr": 0.25, "n": 6, "opt": "sgd", "m": 0.5, "w": [1, 2.5, "x"], "b": True, "g": 2},
    {"lr": 0.5, "n": -7, "opt": "sgd", "m": 0.1, "w": 1.0, "b": False, "g": 3},
]
Reports = dict[int, dict[str, float]]
#: By trial, rung, attempt and restart. Trial 3 failed; the last two reported other metrics than the rest.
REPORTS: dict[tuple[int, int, int, int], Reports] = {
    (0, 0, 0, 0): {1: {"loss": 0.5, "acc": 0.25}, 2: {"loss": math.nan}},
    (0, 1, 0, 0): {3: {"loss": math.inf, "acc": 0.5}},
    (1, 0, 0, 0): {1: {"loss": 9.0, "old": 1.0}, 2: {"loss": 8.0}},
    (1, 0, 0, 1): {2: {"loss": 0.125}},
    (1, 0, 1, 0): {1: {"loss": 1.0}},
    (3, 0, 0, 0): {1: {"loss": 0.0, "trial": 7.0}},
    (4, 0, 0, 0): {1: {"late": 1.0, "loss": -math.inf}},
}


def ended(trial: int, rung: int, value: float | None, *, attempt: int = 0) -> RunFinished:
    outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
    return RunFinished(trial, rung, outcome, value, 2, attempt=attempt, batch="b", node="n1", message="no")


HAPPENED: list[AnyEvent] = [
    STARTED,
    *(TrialCreated(trial, config, trial % 2, 2) for trial, config in enumerate(CONFIGS)),
    BatchPlanned("b", 0.0, tuple((RunId(trial, 0),) for trial in range(5)), gpus=0, throttle=5),
    ended(0, 0, 0.5),
    RunInterrupted(1, 0, Interruption.PREEMPTED, batch="b", task=1),
    ended(2, 0, 0.25),
    ended(3, 0, None),
    ended(4, 0, 0.75),
    BatchClosed("b"),
    TrialPromoted(0, 1, 6),
    BatchPlanned("c", 0.0, ((RunId(0, 1),), (RunId(1, 0),)), gpus=0, throttle=5),
    ended(0, 1, 1.5),
    ended(1, 0, 0.5, attempt=1),
    BatchClosed("c"),
]


def commit(root: Path, events: Sequence[AnyEvent]) -> None:
    journal = Journal.open(Layout(root))
    journal.commit(events)
    journal.release()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    commit(tmp_path, [*HAPPENED, ENDED])
    for (trial, *of), reports in REPORTS.items():
        writer = MetricsWriter(Layout(tmp_path).trial(trial).metrics(*of))
        for step, metrics in reports.items():
            writer.write(step, metrics)
        writer.close()
    return tmp_path


def frames(results: Results) -> tuple[pd.DataFrame, ...]:
    return results.trials, results.runs, results.metrics


def assert_same(found: Results, expected: Results) -> None:
    """Values, types of columns, and the order of rows and columns."""
    for mine, theirs in zip(frames(found), frames(expected), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)
    known = ("best", "name", "identity", "metric", "minimise")
    assert {key: getattr(found, key) for key in known} == {key: getattr(expected, key) for key in known}


def raw_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root / "trials/0000")) for path in root.glob("trials/*/*/*"))


def test_metrics_of_the_newest_attempt_count_in_the_order_of_their_first_rows(root: Path) -> None:
    nan, inf = math.nan, math.inf
    expected = {
        "trial": [0, 0, 0, 1, 1, 3, 4],
        "rung": [0, 0, 1, 0, 0, 0, 0],
        "step": [1, 2, 3, 1, 2, 1, 1],
        "loss": [0.5, nan, inf, 1.0, 0.125, 0.0, -inf],
        "acc": [0.25, nan, 0.5, nan, nan, nan, nan],
        "old": [nan, nan, nan, 1.0, nan, nan, nan],
        "metric.trial": [nan, nan, nan, nan, nan, 7.0, nan],
        "late": [nan, nan, nan, nan, nan, nan, 1.0],
    }
    pd.testing.assert_frame_equal(load(root).metrics, pd.DataFrame(expected))


def test_configurations_keep_their_types_in_the_tables(root: Path) -> None:
    for compacted in (False, True):
        if compacted:
            compact(root, tables=True)
        trials = load(root).trials
        for name in ("w", "g"):
            column = list(trials[f"config.{name}"])
            wanted = [config[name] for config in CONFIGS]
            assert list(map(type, column)) == list(map(type, wanted))
            assert column == wanted
        assert list(trials["config.lr"]) == [0.1, 1.0, 1e-300, 0.25, 0.5]
        assert trials["config.n"].dtype == np.int64
        assert trials["config.b"].dtype == np.bool_
        assert list(trials["config.m"].isna()) == [False, True, True, False, False]


def test_frames_are_the_same_at_every_stage_of_compaction(root: Path) -> None:
    expected = load(root)
    frames(expected)
    for most in (1, 2, None):
        compact(root, most=most)
        assert_same(load(root), expected)
    assert raw_files(root) == ["3/metrics-0.0.0.jsonl"]
    compact(root, tables=True)
    found = load(root)
    assert_same(found, expected)
    assert "folder" not in vars(found)  # the journal was not read for it
    assert found.folder.state.trials[3].config == CONFIGS[3]


def test_reading_starts_no_thread_that_could_abort_the_process_as_it_exits(root: Path) -> None:
    compact(root, tables=True)
    code = (
        "import os, sys, pandas, pyarrow.compute, pyarrow.parquet\n"
        "from hpcsweep import load\n"
        "before = os.listdir('/proc/self/task')\n"
        "found = load(sys.argv[1])\n"
        "lengths = [len(frame) for frame in (found.trials, found.runs, found.metrics, found.rows)]\n"
        "print(lengths, os.listdir('/proc/self/task') == before)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    assert printed.stdout == "[5, 6, 7, 5] True\n"


def test_null_in_a_part_means_not_reported(root: Path) -> None:
    compact(root)
    (part,) = root.glob("compacted/metrics-*.parquet")
    table = tables.read_part(part)
    assert table.column_names == ["trial", "rung", "step", "loss", "acc", "old", "late"]
    assert table["loss"].null_count == 0
    assert math.isnan(table["loss"].to_pylist()[1])
    assert table["acc"].to_pylist() == [0.25, None, 0.5, None, None, None]


def test_a_sweep_without_reports_and_one_without_trials_have_empty_frames_of_the_same_types(
    tmp_path: Path,
) -> None:
    commit(tmp_path, [STARTED, ENDED])
    expected = load(tmp_path)
    assert [len(frame) for frame in frames(expected)] == [0, 0, 0]
    assert list(expected.metrics.dtypes) == [np.int64] * 3
    compact(tmp_path, tables=True)
    assert_same(load(tmp_path), expected)


def test_compacted_tables_are_ignored_once_the_sweep_continues(root: Path) -> None:
    compact(root, tables=True)
    commit(root, [SweepResumed(10.0), TrialCreated(5, {"lr": 0.3}, 0, 2)])
    found = load(root)
    assert len(found.trials) == 6
    assert list(found.metrics["trial"]) == [0, 0, 0, 1, 1, 3, 4]


# --------------------------------------------------------------------------- beside a driver


def during(monkeypatch: pytest.MonkeyPatch, name: str, *actions: Callable[[], None]) -> None:
    """The next calls of a function of `views.tables` find that this has happened just before."""
    real: Any = getattr(tables, name)
    left = list(actions)

    def called(*args: Any) -> Any:
        if left:
            left.pop(0)()
        return real(*args)

    monkeypatch.setattr(tables, name, called)


@pytest.mark.parametrize("most", [1, None])
def test_files_compacted_during_a_read_are_read_from_their_part(
    root: Path, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    expected = load(root)
    frames(expected)
    found = load(root)
    during(monkeypatch, "read_raw", lambda: compact(root, most=most), lambda: compact(root))
    assert_same(found, expected)


def test_a_part_replaced_during_a_read_is_read_from_its_successor(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(root)
    frames(expected)
    compact(root, most=2)
    found = load(root)
    during(monkeypatch, "read_part", lambda: compact(root))
    assert_same(found, expected)


def test_tables_removed_after_the_load_are_rebuilt_from_the_journal(root: Path) -> None:
    compact(root, tables=True)
    expected = load(root)
    frames(expected)
    found = load(root)
    commit(root, [SweepResumed(10.0), ENDED])
    compact(root, tables=True)
    assert_same(found, expected)


def test_a_part_that_the_journal_does_not_record_is_ignored(root: Path) -> None:
    expected = load(root)
    frames(expected)
    (root / "compacted").mkdir()
    (root / "compacted/metrics-000009-1.parquet").write_bytes(b"garbage")
    assert_same(load(root), expected)


def test_a_missing_part_is_an_error(root: Path) -> None:
    compact(root)
    (part,) = root.glob("compacted/metrics-*.parquet")
    part.unlink()
    with pytest.raises(FolderError) as caught:
        _ = load(root).metrics
    assert str(caught.value) == (
        f"{part}: is missing: restore it from a backup or snapshot of the filesystem"
    )
