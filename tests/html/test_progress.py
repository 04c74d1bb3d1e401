"""The best value over time and cost: lines against small sweeps made by hand."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from hpcsweep.core.events import Interruption, RunFinished, RunInterrupted, RunRetried
from hpcsweep.html.progress import MOST_RUNS, progress
from tests.html.hand_made_sweeps import HALVING, Ran, events, figure, sweep, trace
from tests.views.folders import written


def test_the_line_is_the_best_of_the_newest_values_and_lasts_until_now(tmp_path: Path) -> None:
    section = progress(sweep(tmp_path / "r", HALVING))
    line = trace(figure(section), "best so far")
    assert line["x"] == [1, 2, 3, 8, 15, 15]
    assert line["y"] == [0.9, 0.5, 0.4, 0.3, 0.1, 0.1]
    assert line["customdata"] == [0, 1, 2, 1, 1, 1]
    assert figure(section).layout["xaxis"]["title"] == {"text": "minutes since the start"}
    assert figure(section).summary == (
        "The first value of loss is 0.9, after 1 minutes since the start. After 4 changes the best is 0.1 of "
        "trial 1, found after 15 of 15 minutes since the start. Half of the improvement came by 2."
    )
    assert "0.9" in figure(section, 1).summary


def test_points_are_the_runs_that_gave_a_value(tmp_path: Path) -> None:
    points = trace(figure(progress(sweep(tmp_path / "r", HALVING))), "runs")
    assert points["x"].tolist() == [1, 2, 3, 4, 5, 8, 9, 15]
    assert points["y"].tolist() == [0.9, 0.5, 0.4, 0.8, 0.7, 0.3, 0.35, 0.1]
    assert points["customdata"].tolist()[-1] == [1, 9]


def test_cost_includes_failed_and_interrupted_attempts_in_order(tmp_path: Path) -> None:
    journal = events(HALVING[:3])
    lost = RunInterrupted(2, 0, Interruption.PREEMPTED, seconds=600.0, gpu_seconds=1200.0)
    # It is known after trial 0 had ended; its start is not known, so it ends with the one before.
    journal.insert(6, lost)
    found = figure(progress(written(tmp_path / "r", journal)), 1)
    assert found.layout["xaxis"]["title"] == {"text": "GPU-minutes"}
    assert trace(found, "best so far")["x"] == pytest.approx([2, 24, 26, 26])


def test_a_best_that_gets_worse_at_a_higher_rung_gives_way(tmp_path: Path) -> None:
    runs = [Ran(0, 1, 0.2, 1), Ran(1, 1, 0.3, 2), Ran(0, 3, 0.5, 3)]
    found = figure(progress(sweep(tmp_path / "r", runs)))
    line = trace(found, "best at the time")
    assert (line["y"], line["customdata"]) == ([0.2, 0.3, 0.3], [0, 1, 1])
    assert found.caption == (
        "The best loss at the time over minutes since the start; each point is a run that gave a value. The "
        "line gets worse where the best trial did when it was trained further or again."
    )


def test_large_values_lead_where_the_objective_is_maximised(tmp_path: Path) -> None:
    line = trace(figure(progress(sweep(tmp_path / "r", HALVING, mode="max"))), "best so far")
    assert (line["y"], line["customdata"]) == ([0.9, 0.9], [0, 0])


def test_repeats_count_with_their_mean_once_all_have_a_value(tmp_path: Path) -> None:
    runs = [
        Ran(0, 1, 0.2, 1, repeat=0),
        Ran(2, 1, 0.3, 2, repeat=0),
        Ran(3, 1, 0.3, 3, repeat=1),
        Ran(1, 1, 0.8, 4, repeat=1),
    ]
    results = sweep(tmp_path / "r", runs, repeats=2)
    found = figure(progress(results))
    line = trace(found, "best so far")
    assert (line["x"], line["y"], line["customdata"]) == ([3, 4], [0.3, 0.3], [2, 2])
    assert "The line shows means over the repeats of a configuration" in found.caption


def test_a_configuration_with_a_failed_repeat_is_never_the_best(tmp_path: Path) -> None:
    runs = [Ran(0, 1, 0.2, 1), Ran(1, 1, None, 2, repeat=1), Ran(2, 1, 0.9, 3), Ran(3, 1, 0.7, 4, repeat=1)]
    line = trace(figure(progress(sweep(tmp_path / "r", runs, repeats=2))), "best so far")
    assert line["y"] == pytest.approx([0.8, 0.8])


def test_of_a_run_that_was_tried_again_the_last_ending_counts(tmp_path: Path) -> None:
    journal = events([Ran(0, 1, None, 1), Ran(1, 1, 0.4, 2)])
    again = events([Ran(0, 1, 0.3, 9)])[-1]
    assert isinstance(again, RunFinished)
    again = msgspec.structs.replace(again, attempt=1)
    results = written(tmp_path / "r", [*journal, RunRetried(0, 0), again])
    line = trace(figure(progress(results)), "best so far")
    assert (line["x"], line["y"]) == ([2, 9, 9], [0.4, 0.3, 0.3])


def test_time_of_runs_stands_in_where_there_are_no_gpus(tmp_path: Path) -> None:
    found = figure(progress(sweep(tmp_path / "r", HALVING, gpus=0)), 1)
    assert found.layout["xaxis"]["title"] == {"text": "minutes of runs"}
    assert trace(found, "best so far")["x"] == [1, 2, 3, 8, 16, 16]


@pytest.mark.parametrize("seed", range(5))
def test_the_end_of_the_line_is_the_best_of_the_sweep(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    runs: list[Ran] = []
    for minute in range(60):
        trial = rng.randrange(len({run.trial for run in runs}) + 1)
        before = [run for run in runs if run.trial == trial]
        if not before or before[-1].value is not None:
            value = None if rng.random() < 0.2 else rng.random()
            runs.append(Ran(trial, 3 ** len(before), value, minute + 1))
    results = sweep(tmp_path / "r", runs)
    assert results.best is not None
    lines = [one for one in figure(progress(results)).traces if one["name"].startswith("best")]
    (line,) = lines
    assert (line["customdata"][-1], line["y"][-1]) == (results.best["trial"], results.best["value"])


def test_of_many_runs_the_best_are_kept_and_the_caption_says_how_many(tmp_path: Path) -> None:
    count = MOST_RUNS + 500
    runs = [Ran(trial, 1, float((trial * 7919) % count), trial + 1) for trial in range(count)]
    found = figure(progress(sweep(tmp_path / "r", runs)))
    drawn = sorted(trace(found, "runs")["y"])
    assert len(drawn) == MOST_RUNS
    assert drawn[:300] == list(range(300))
    assert drawn[-1] == count - 1
    assert "1,500 of 2,000 runs are drawn." in found.caption


def test_values_of_several_magnitudes_are_on_a_log_scale_that_may_be_left(tmp_path: Path) -> None:
    found = figure(progress(sweep(tmp_path / "r", [Ran(0, 1, 1e-4, 1), Ran(1, 1, 3.0, 2)])))
    assert found.layout["yaxis"]["type"] == "log"
    (menu,) = found.layout["updatemenus"]
    assert (menu["active"], [button["label"] for button in menu["buttons"]]) == (1, ["linear", "log"])


def test_outliers_are_outside_the_initial_view(tmp_path: Path) -> None:
    runs = [Ran(trial, 1, trial / 10 - 1, trial + 1) for trial in range(20)] + [Ran(20, 1, 1e9, 21)]
    found = figure(progress(sweep(tmp_path / "r", runs)))
    low, high = found.layout["yaxis"]["range"]
    assert low < -1
    assert 1 < high < 3
    assert " 1 outlier above" in found.caption


def test_without_a_value_there_is_no_progress(tmp_path: Path) -> None:
    assert progress(sweep(tmp_path / "failed", [Ran(0, 1, None)])) is None
    assert progress(sweep(tmp_path / "empty", [])) is None


def test_the_summary_of_a_single_value_says_so(tmp_path: Path) -> None:
    found = figure(progress(sweep(tmp_path / "r", [Ran(0, 1, 0.5)])))
    assert found.summary.endswith("Nothing better came until 60 seconds since the start.")
