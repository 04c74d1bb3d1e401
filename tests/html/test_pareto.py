"""Several metrics: the front against what none beats, by brute force and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.html.pareto import MOST_POINTS, MOST_ROWS, guess_direction, non_dominated, pareto
from hpcsweep.views.results import Results
from tests.html.hand_made_sweeps import ENDED, Ran, figure, report, sweep, table, trace


@given(st.integers(1, 4).flatmap(lambda d: st.lists(st.lists(st.integers(0, 3), min_size=d, max_size=d))))
def test_the_front_is_what_no_point_dominates(rows: list[list[int]]) -> None:
    def beats(a: list[int], b: list[int]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    points = np.array(rows, dtype=float).reshape(len(rows), len(rows[0]) if rows else 1)
    assert non_dominated(points).tolist() == [not any(beats(b, a) for b in rows) for a in rows]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_acc", "max"),
        ("valAccuracy", "max"),
        ("f1", "max"),
        ("mAP", "max"),
        ("eval/r2", "max"),
        ("tokens_throughput", "max"),
        ("loss", "min"),
        ("score_error", "min"),
        ("latency_ms", "min"),
        ("space", "min"),
    ],
)
def test_directions_are_guessed_from_metric_names(name: str, mode: str) -> None:
    assert guess_direction(name) == mode


def measured(folder: Path, rows: list[dict[str, float]], *, mode: str = "min") -> Results:
    """One trial for each row, reported at step 9; before that it was worse."""
    results = sweep(folder, [Ran(trial, 9, row["loss"]) for trial, row in enumerate(rows)], ENDED, mode=mode)
    for trial, row in enumerate(rows):
        report(results, trial, 0, {3: dict.fromkeys(row, 99.0), 9: row})
    return results


ROWS = [
    {"loss": 0.1, "ms": 30.0, "acc": 0.5},
    {"loss": 0.2, "ms": 10.0, "acc": 0.6},
    {"loss": 0.3, "ms": 20.0, "acc": 0.9},
    {"loss": 0.4, "ms": 40.0, "acc": 0.8},
    {"loss": 0.5, "ms": math.nan, "acc": 0.95},
]


def test_the_front_joins_pareto_optimal_trials_at_their_last_reports(tmp_path: Path) -> None:
    found = figure(pareto(measured(tmp_path / "r", ROWS)))
    against_ms, front_ms, against_acc, front_acc = found.traces
    assert front_ms["customdata"].tolist() == [[0, 9], [1, 9]]
    assert (front_ms["x"].tolist(), front_ms["y"].tolist()) == ([30, 10], [0.1, 0.2])
    assert [trial for trial, _ in front_acc["customdata"].tolist()] == [0, 1, 2, 4]
    # A metric that is not finite leaves the trial out of that figure alone.
    assert (len(against_ms["x"]), len(against_acc["x"])) == (4, 5)
    assert [line["visible"] for line in found.traces] == [True, True, False, False]
    assert "Directions guessed from the names: ms is minimised, acc is maximised." in found.caption
    assert found.summary.startswith(
        "2 Pareto-optimal trials from trial 0 (loss 0.1, ms 30) to trial 1 (loss 0.2, ms 10)."
    )


def test_the_table_lists_all_fronts_and_marks_trials_optimal_in_all_metrics(tmp_path: Path) -> None:
    found = table(pareto(measured(tmp_path / "r", ROWS)))
    assert list(found.columns) == ["trial", "step", "loss", "ms", "acc"]
    assert found.rows == [
        [0, 9, 0.1, 30.0, 0.5],
        [1, 9, 0.2, 10.0, 0.6],
        [2, 9, 0.3, 20.0, 0.9],
        [4, 9, 0.5, None, 0.95],
    ]
    assert found.marked == {0, 1, 2}


def test_the_direction_of_a_metric_can_be_given(tmp_path: Path) -> None:
    section = pareto(measured(tmp_path / "r", ROWS), {"acc": "min", "ms": "max"})
    assert figure(section).traces[3]["customdata"][:, 0].tolist() == [0]
    assert figure(section).traces[1]["customdata"][:, 0].tolist() == [0, 3]
    assert figure(section).caption.endswith("Directions as given: ms is maximised, acc is minimised.")


def test_a_maximised_objective_leads_with_its_largest(tmp_path: Path) -> None:
    section = pareto(measured(tmp_path / "r", ROWS, mode="max"))
    assert [row[0] for row in table(section).rows] == [4, 3, 2, 1]
    assert figure(section).traces[1]["customdata"][:, 0].tolist() == [1, 2, 3]


def test_the_report_of_the_highest_rung_counts(tmp_path: Path) -> None:
    results = sweep(tmp_path / "r", [Ran(0, 1, 0.5), Ran(1, 1, 0.4), Ran(0, 3, 0.3)])
    report(results, 0, 0, {1: {"loss": 0.5, "ms": 1.0}})
    report(results, 1, 0, {1: {"loss": 0.4, "ms": 3.0}})
    report(results, 0, 1, {2: {"loss": 0.1, "ms": 9.0}, 3: {"loss": 0.3, "ms": 5.0}})
    assert table(pareto(results)).rows == [[0, 3, 0.3, 5.0], [1, 1, 0.4, 3.0]]


def test_a_single_or_constant_metric_has_no_section(tmp_path: Path) -> None:
    assert pareto(measured(tmp_path / "one", [{"loss": 0.1}, {"loss": 0.2}])) is None
    assert pareto(measured(tmp_path / "same", [{"loss": 0.1, "gb": 4}, {"loss": 0.2, "gb": 4}])) is None
    assert pareto(sweep(tmp_path / "empty", [])) is None
    nan = [{"loss": 0.1, "ms": math.nan}, {"loss": 0.2, "ms": math.inf}]
    assert pareto(measured(tmp_path / "nan", nan)) is None


def test_the_caption_says_that_trials_are_subsampled_and_fronts_are_cut(tmp_path: Path) -> None:
    count = MOST_POINTS + 100
    rows = [{"loss": 1.0 + trial, "ms": float(count - trial)} for trial in range(count)]
    section = pareto(measured(tmp_path / "r", rows))
    assert len(trace(figure(section), "trials")["x"]) == MOST_POINTS
    assert "1,500 of 1,600 trials are drawn." in figure(section).caption
    assert len(table(section).rows) == MOST_ROWS
    assert table(section).caption.endswith(f"; the first {MOST_ROWS} are listed.")


# --------------------------------------------------------------------------- repeats, failures


def test_the_front_is_of_means_over_repeats(tmp_path: Path) -> None:
    """Trial 0 alone beats everybody; with its repeat its configuration does not."""
    reports = [(0.1, 1.0), (0.7, 9.0), (0.3, 2.0), (0.3, 4.0), (0.5, 1.0), (0.5, 1.0)]
    runs = [Ran(trial, 9, loss, repeat=trial % 2) for trial, (loss, _) in enumerate(reports)]
    results = sweep(tmp_path / "r", runs, repeats=2)
    for trial, (loss, time) in enumerate(reports):
        report(results, trial, 0, {9: {"loss": loss, "time": time}})
    section = pareto(results)
    found = figure(section)
    front = trace(found, "Pareto front")
    assert front["customdata"].tolist() == [[2, 9], [4, 9]]
    assert (front["y"].tolist(), front["x"].tolist()) == (pytest.approx([0.3, 0.5]), [3.0, 1.0])
    assert front["error_x"]["array"].tolist() == [1.0, 0.0]
    assert trace(found, "trials")["customdata"][:, 0].tolist() == [2, 0, 4]
    assert [row[0] for row in table(section).rows] == [2, 4]
    assert "the mean over the repeats of a configuration" in found.caption


def test_reports_of_failed_runs_are_on_no_front(tmp_path: Path) -> None:
    results = sweep(tmp_path / "r", [Ran(0, 1, 0.5), Ran(1, 1, 0.4), Ran(0, 3, None), Ran(2, 1, None)])
    report(results, 0, 0, {1: {"loss": 0.5, "time": 3.0}})
    report(results, 1, 0, {1: {"loss": 0.4, "time": 4.0}})
    report(results, 0, 1, {2: {"loss": 0.01, "time": 0.1}})
    report(results, 2, 0, {1: {"loss": 0.01, "time": 0.1}})
    front = trace(figure(pareto(results)), "Pareto front")
    assert front["customdata"].tolist() == [[1, 1], [0, 1]]
