"""Learning curves: who went on from each rung, and which of many are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from hpcsweep.core.events import Outcome
from hpcsweep.html.curves import MOST_CURVES, MOST_POINTS, curves
from hpcsweep.views.results import Results
from tests.html.hand_made_sweeps import ENDED, HALVING, Ran, figure, report, sweep, trace


def stretches(found: dict[str, Any]) -> list[list[tuple[int, float, float]]]:
    """Trial, step and value of each unbroken line."""
    lines: list[list[tuple[int, float, float]]] = [[]]
    for trial, x, y in zip(found["customdata"], found["x"], found["y"], strict=True):
        if math.isnan(y):
            lines.append([])
        else:
            lines[-1].append((int(trial), float(x), float(y)))
    return lines


def halving(folder: Path) -> Results:
    """Trials 1 and 2 go on from 1 to 3, trial 1 to 9; reported after each step."""
    results = sweep(folder, HALVING, ENDED)
    for trial, value in {0: 0.9, 1: 0.5, 2: 0.4, 3: 0.8, 4: 0.7}.items():
        report(results, trial, 0, {1: {"loss": value}})
    report(results, 5, 0, {1: {"loss": math.nan}})
    report(results, 1, 1, {2: {"loss": 0.4}, 3: {"loss": 0.3}})
    report(results, 2, 1, {2: {"loss": 0.38}, 3: {"loss": 0.35}})
    report(results, 1, 2, {step: {"loss": 0.1 + (9 - step) / 100} for step in range(4, 10)})
    return results


def test_each_stretch_shows_whether_its_trial_was_promoted_at_its_end(tmp_path: Path) -> None:
    found = figure(curves(halving(tmp_path / "r")))
    went_on, dropped = trace(found, "went on"), trace(found, "dropped")
    first, second = stretches(went_on)
    assert first[:3] == [(1, 1, 0.5), (1, 2, 0.4), (1, 3, 0.3)]
    assert (len(first), first[-1]) == (9, (1, 9, 0.1))
    assert second == [(2, 1, 0.4)]
    # What trial 2 did after its promotion hangs on where it was promoted.
    assert stretches(dropped) == [
        [(0, 1, 0.9)],
        [(2, 1, 0.4), (2, 2, 0.38), (2, 3, 0.35)],
        [(3, 1, 0.8)],
        [(4, 1, 0.7)],
    ]
    assert trace(found, "best: trial 1")["y"].tolist()[-1] == 0.1


def test_rungs_are_marked_and_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    found = figure(curves(halving(tmp_path / "r")))
    assert [shape["x0"] for shape in found.layout["shapes"]] == [1, 3, 9]
    assert found.layout["xaxis"]["tickvals"] == [1, 3, 9]
    assert 5 not in {int(trial) for line in found.traces[:-1] for trial in line["customdata"]}
    assert found.caption.startswith("loss while training, 5 curves.")
    assert "at resource 1: 2 went on (median 0.45), 3 dropped (median 0.8)." in found.summary
    assert found.summary.startswith("The best, trial 1, went from 0.5 at step 1 to 0.1 at step 9.")


def test_failed_stopped_and_running_trials_differ_in_style(tmp_path: Path) -> None:
    runs = [
        Ran(0, 9, None),
        Ran(1, 9, 0.5, outcome=Outcome.STOPPED, step=2),
        Ran(2, 9, 0.1),
    ]
    results = sweep(tmp_path / "r", runs)
    for trial in range(3):
        report(results, trial, 0, {1: {"loss": 0.9}, 2: {"loss": 0.5}})
    found = figure(curves(results))
    names = ("failed", "dropped", "fully trained")  # there is no rung to go on from
    assert {name: stretches(trace(found, name))[0][0][0] for name in names} == {
        "failed": 0,
        "dropped": 1,
        "fully trained": 2,
    }
    assert "at resource 9: 1 fully trained (median 0.1), 1 dropped (median 0.5)." in found.summary


def test_without_reports_the_values_of_the_runs_are_joined(tmp_path: Path) -> None:
    found = figure(curves(sweep(tmp_path / "r", HALVING)))
    assert stretches(trace(found, "went on"))[0] == [(1, 1, 0.5), (1, 3, 0.3), (1, 9, 0.1)]
    assert trace(found, "went on")["mode"] == "lines+markers"


def test_a_sweep_with_one_value_a_trial_has_no_curves(tmp_path: Path) -> None:
    assert curves(sweep(tmp_path / "r", [Ran(trial, 9, 0.1) for trial in range(3)])) is None
    assert curves(sweep(tmp_path / "empty", [])) is None


def test_of_many_curves_the_best_and_finished_ones_are_kept_and_the_caption_says_so(tmp_path: Path) -> None:
    count = 3 * MOST_CURVES
    runs = [Ran(trial, 1, (trial * 7 % count) + 1.0) for trial in range(count)]
    best = sorted(range(count), key=lambda trial: trial * 7 % count)
    runs += [Ran(trial, 3, trial * 7 % count + 0.5) for trial in best[:400]]
    runs += [Ran(trial, 9, 800.0 - trial / count) for trial in best[300:400]]
    results = sweep(tmp_path / "r", runs)
    found = figure(curves(results))
    drawn = {int(t) for line in found.traces for t in np.atleast_1d(line.get("customdata", []))}
    assert len(drawn) == MOST_CURVES
    assert set(best[:60]) <= drawn
    assert set(best[300:400]) <= drawn
    assert found.caption.startswith("loss while training, 300 of 900 curves (the best,")


def test_of_a_long_curve_so_many_points_are_kept_its_ends_among_them(tmp_path: Path) -> None:
    results = sweep(tmp_path / "r", [Ran(0, 5000, 0.5), Ran(1, 5000, 0.6)])
    for trial in range(2):
        report(results, trial, 0, {step: {"loss": 1.0 / step} for step in range(1, 5001)})
    first, second = stretches(trace(figure(curves(results)), "fully trained"))
    assert len(first) == len(second) == MOST_POINTS
    assert (first[0][1], first[-1][1]) == (1, 5000)
    assert max(np.diff([x for _, x, _ in first])) < 30


def test_brackets_are_chosen_from_a_list_and_the_best_curve_stays(tmp_path: Path) -> None:
    runs = [Ran(0, 1, 0.9), Ran(1, 3, 0.5, bracket=1), Ran(2, 1, 0.7), Ran(2, 3, 0.6), Ran(1, 9, 0.1)]
    found = figure(curves(sweep(tmp_path / "r", runs)))
    (menu,) = [menu for menu in found.layout["updatemenus"] if menu["name"] == "Bracket"]
    assert [button["label"] for button in menu["buttons"]] == ["all brackets", "bracket 0", "bracket 1"]
    shown = [button["args"][0]["visible"] for button in menu["buttons"]]
    assert [len(each) for each in shown] == [len(found.traces)] * 3
    assert all(each[-1] for each in shown)
    seen = [line for line, visible in zip(found.traces, shown[2], strict=True) if visible]
    assert {int(trial) for line in seen[:-1] for trial in line["customdata"]} == {1}


def test_the_members_of_a_population_are_one_group(tmp_path: Path) -> None:
    runs = [Ran(trial, 2, 0.5 + trial, bracket=trial) for trial in range(12)]
    runs += [Ran(trial, 4, 0.2 + trial, bracket=trial) for trial in range(12)]
    found = figure(curves(sweep(tmp_path / "r", runs, scheduler={"name": "pbt", "max_resource": 4})))
    assert [menu["name"] for menu in found.layout["updatemenus"]] == ["Scale"]
    assert "In population, at resource 2: 12 went on" in found.summary


def test_the_best_curve_is_the_mean_of_the_repeats(tmp_path: Path) -> None:
    """Trial 0 is the best alone; the configuration of trials 2 and 3 is."""
    values = [0.1, 0.9, 0.3, 0.5]
    runs = [Ran(trial, 9, value, repeat=trial % 2) for trial, value in enumerate(values)]
    results = sweep(tmp_path / "r", runs, repeats=2)
    for trial, value in enumerate(values):
        report(results, trial, 0, {3: {"loss": 1 + value}, 9: {"loss": value}})
    found = figure(curves(results))
    best = trace(found, "best: mean of trials 2 to 3")
    assert (best["x"].tolist(), best["y"].tolist()) == ([3, 9], [1.4, 0.4])
    assert "The best, mean of trials 2 to 3, went from 1.4 at step 3 to 0.4 at step 9." in found.summary
