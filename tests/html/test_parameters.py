"""Figures over parameters: axes, parallel coordinates, slices, the contour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpcsweep.html.parameters
import hpcsweep.views.importance
from hpcsweep.core.events import Config
from hpcsweep.core.space import Choice, Float, Int, Ordinal, Parameter, Space
from hpcsweep.html.contour import contour, smooth
from hpcsweep.html.parallel import BEST, MOST, parallel
from hpcsweep.html.parameters import slices
from hpcsweep.html.plotting import SYMBOLS_TEXT, dimensions, linear_ticks, log_ticks, outlier_cutoff
from hpcsweep.html.sections import Alternatives, Figure
from hpcsweep.views.importance import Importance
from hpcsweep.views.resource_values import compared_resources, values_of
from hpcsweep.views.results import Results
from tests.html.hand_made_sweeps import HALVING, Ran, figure, sweep, trace

HOSTILE = "<script>alert(1)</script>"
SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "layers": {"type": "int", "low": 1, "high": 4},
    "optimizer": {"type": "choice", "values": [HOSTILE, "adam"]},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer": [HOSTILE]}},
}


def config(trial: int) -> Config:
    found: Config = {"lr": 10.0 ** -(trial % 5), "layers": trial % 4 + 1, "optimizer": "adam"}
    return found if trial % 2 else {**found, "optimizer": HOSTILE, "momentum": 0.09 * (trial % 10)}


def results_of(folder: Path, values: Sequence[float | None], **options: Any) -> Results:
    """One run to 9 for each value."""
    runs = [Ran(trial, 9, value) for trial, value in enumerate(values)]
    configs: Mapping[int, Config] = {trial: config(trial) for trial in range(len(values))}
    return sweep(folder, runs, space=SPACE, configs=configs, **options)


# --------------------------------------------------------------------------- axes


def test_each_kind_of_parameter_has_its_scale_and_ticks_in_its_own_units() -> None:
    space = Space(
        (
            Parameter("lr", Float(1e-4, 1.0, log=True)),
            Parameter("depth", Int(1, 5)),
            Parameter("width", Ordinal((64, 128))),
            Parameter("net", Choice(("a", [1, True])), {"width": (64,)}),
        )
    )
    lr, depth, width, net = dimensions(
        space,
        [
            {"lr": 0.01, "depth": 3, "width": 64, "net": [1, True]},
            {"lr": 1.0, "depth": 5, "width": 128},
        ],
    )
    assert (lr.scaled.tolist(), lr.ends) == ([-2.0, 0.0], (-4.0, 0.0))
    assert lr.ticks == ([-4, -3, -2, -1, 0], ["0.0001", "0.001", "0.01", "0.1", "1"])
    assert (depth.values.tolist(), depth.ticks) == ([3, 5], ([1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"]))
    assert (width.values.tolist(), width.ticks) == ([0, 1], ([0, 1], ["64", "128"]))
    assert (net.values[0], net.active.tolist()) == (1, [True, False])
    assert net.listed == ("a", "[1, true]")


def test_ticks_are_round_and_few() -> None:
    assert linear_ticks(0.0, 0.6) == [0.0, 0.2, 0.4, 0.6]
    assert linear_ticks(-3.0, 40.0) == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert linear_ticks(1, 3, least=1) == [1, 2, 3]
    assert log_ticks(1e-12, 1.0) == pytest.approx([1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0])
    assert log_ticks(0.03, 0.6) == pytest.approx([0.05, 0.1, 0.2, 0.5])
    assert log_ticks(16, 17) == [16, 17]


def test_only_bad_outliers_are_cut_off() -> None:
    values = np.array([*range(10), 1e6])
    assert outlier_cutoff(values, minimise=True) == pytest.approx(13.5)
    assert outlier_cutoff(values, minimise=False) is None
    assert outlier_cutoff(np.arange(10.0), minimise=True) is None
    assert outlier_cutoff(np.ones(20), minimise=True) is None


# --------------------------------------------------------------------------- parallel coordinates


def test_inactive_parameters_have_a_point_below_their_axis(tmp_path: Path) -> None:
    found = figure(parallel(results_of(tmp_path / "r", [0.4, 0.1, 0.3, 0.2])))
    (only,) = found.traces
    lr, layers, optimizer, momentum, value = only["dimensions"]
    assert found.width == 5 * 90
    # The best, trial 1, is drawn last.
    assert value["values"].tolist() == [0.4, 0.3, 0.2, 0.1]
    assert lr["values"].tolist() == [0, -2, -3, -1]
    assert layers["values"].tolist() == [1, 3, 4, 2]
    assert optimizer["values"].tolist() == [0, 0, 1, 1]
    assert optimizer["ticktext"] == [HOSTILE, "adam"]
    assert momentum["values"].tolist() == pytest.approx([0, 0.18, -0.135, -0.135])
    assert (momentum["tickvals"][0], momentum["ticktext"][0]) == (pytest.approx(-0.135), "not active")
    assert momentum["range"] == [pytest.approx(-0.135), 0.9]
    assert (value["label"], lr["label"]) == ("loss", "lr")


def test_the_best_have_the_highest_colour_whatever_the_direction(tmp_path: Path) -> None:
    values = [0.4, 0.1, 1e9, 0.2]
    lowest = figure(parallel(results_of(tmp_path / "min", values))).traces[0]["line"]
    assert lowest["color"].tolist() == [0, 1, 2, 3]
    assert lowest["colorbar"]["ticktext"] == ["1e+09", "0.2", "0.1"]
    highest = figure(parallel(results_of(tmp_path / "max", values, mode="max"))).traces[0]
    assert highest["line"]["color"].tolist() == [0, 1, 2, 3]
    assert highest["dimensions"][-1]["values"].tolist() == pytest.approx(np.log10([0.1, 0.2, 0.4, 1e9]))


def test_the_resource_is_an_axis_where_there_are_several(tmp_path: Path) -> None:
    axes = figure(parallel(sweep(tmp_path / "r", HALVING))).traces[0]["dimensions"]
    assert [axis["label"] for axis in axes] == ["x", "resource", "loss"]
    assert axes[1]["ticktext"] == ["1", "3", "9"]


def test_of_many_trials_the_best_are_drawn_and_the_caption_says_how_many(tmp_path: Path) -> None:
    found = figure(parallel(results_of(tmp_path / "r", [float(n) for n in range(2000)])))
    values = found.traces[0]["dimensions"][-1]["values"].tolist()
    assert len(values) == MOST
    assert values[::-1][:BEST] == list(range(BEST))
    assert values[0] == 1999
    assert "1,500 of 2,000 trials with a value are drawn: the best 1,000, and an even spread" in found.caption


# --------------------------------------------------------------------------- slices


@pytest.fixture
def momentum_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if momentum and then lr mattered the most."""
    shares = {"momentum": 0.5, "lr": 0.3, "layers": 0.1, "optimizer": 0.0}
    known = tuple(Importance(name, share, 0.0, 1.0) for name, share in shares.items())
    for module in (hpcsweep.views.importance, hpcsweep.html.parameters):
        monkeypatch.setattr(module, "importances", lambda *_: known)


@pytest.mark.usefixtures("momentum_first")
def test_the_most_important_parameter_comes_first_with_the_trials_in_which_it_is_active(
    tmp_path: Path,
) -> None:
    found = figure(slices(results_of(tmp_path / "r", [0.4, 0.1, 0.3, 0.2])))
    (menu,) = found.layout["updatemenus"]
    assert [button["label"] for button in menu["buttons"]] == ["momentum", "lr", "layers", "optimizer"]
    momentum, ring, lr, ring_of_lr, *_ = found.traces
    assert (momentum["visible"], lr["visible"]) == (True, False)
    assert (momentum["x"].tolist(), momentum["y"].tolist()) == ([0, 0.18], [0.4, 0.3])
    assert momentum["customdata"].tolist() == [[0, 9], [2, 9]]
    assert (ring["x"].tolist(), ring["y"].tolist()) == ([], [])  # the best, trial 1, has no momentum
    assert (lr["x"].tolist(), lr["y"].tolist()) == ([1, 0.01, 0.001, 0.1], [0.4, 0.3, 0.2, 0.1])
    assert (ring_of_lr["x"].tolist(), ring_of_lr["y"].tolist()) == ([0.1], [0.1])
    assert found.caption == (
        "loss of each trial at resource 9 against one parameter, chosen above. "
        "The ring is the best of the sweep, trial 1, where it has the parameter."
    )


def test_a_choice_switches_points_and_axis(tmp_path: Path) -> None:
    found = figure(slices(results_of(tmp_path / "r", [0.4, 0.1, 0.3, 0.2])))
    assert found.layout["xaxis"]["type"] == "log"
    visible, axis = found.layout["updatemenus"][0]["buttons"][2]["args"]
    assert visible == {"visible": [False] * 4 + [True] * 2 + [False] * 2}
    assert axis["xaxis.title.text"] == "optimizer"
    assert (axis["xaxis.type"], axis["xaxis.tickvals"]) == ("linear", [0, 1])
    assert axis["xaxis.ticktext"] == [HOSTILE, "adam"]
    optimizer = found.traces[4]
    assert optimizer["x"].round().tolist() == [0, 0, 1, 1]
    assert len(set(optimizer["x"].tolist())) == 4


def test_points_are_coloured_by_the_resource_that_gave_their_value(tmp_path: Path) -> None:
    marker = figure(slices(sweep(tmp_path / "r", HALVING))).traces[0]["marker"]
    assert marker["color"].tolist() == pytest.approx([0, 0, 0, math.log(3), math.log(9)])
    assert marker["colorbar"]["ticktext"] == ["1", "3", "9"]


@pytest.mark.usefixtures("momentum_first")
def test_slices_of_many_trials_keep_the_best_and_say_so(tmp_path: Path) -> None:
    runs = [Ran(trial, 9, float(trial)) for trial in range(3000)]
    configs = {trial: {"x": trial / 300} for trial in range(3000)}
    found = figure(slices(sweep(tmp_path / "r", runs, configs=configs)))
    drawn = found.traces[0]["y"].tolist()[::-1]
    assert len(drawn) == 2000
    assert drawn[:300] == list(range(300))
    assert "2,000 of 3,000 trials are drawn" in found.caption
    assert found.summary == (
        "Medians of loss at resource 9. x: lowest third 499.5, middle third 1499.5, highest third 2499.5."
    )


# --------------------------------------------------------------------------- failures, repeats


def test_failed_trials_have_a_strip_of_their_own_in_slices(tmp_path: Path) -> None:
    found = figure(slices(results_of(tmp_path / "r", [0.4, None, 0.3, None])))
    crosses = [one for one in found.traces if one.get("name") == "failed"]
    assert [one["visible"] for one in crosses] == [True, False, False, False]
    lr = crosses[[one["label"] for one in found.layout["updatemenus"][0]["buttons"]].index("lr")]
    assert (lr["x"].tolist(), lr["yaxis"], lr["marker"]["symbol"]) == ([0.1, 0.001], "y2", ["x", "x"])
    assert lr["customdata"] == [[1, 9, "crashed"], [3, 9, "crashed"]]
    assert found.layout["yaxis2"]["ticktext"] == ["failed"]
    assert found.layout["yaxis"]["domain"][1] < found.layout["yaxis2"]["domain"][0]
    for button in found.layout["updatemenus"][0]["buttons"]:
        assert len(button["args"][0]["visible"]) == len(found.traces)
    assert "2 trials failed and have no value: x crashed" in found.caption
    assert "lr: lowest third no value (1 failed), middle third 0.3, highest third 0.4 (1 failed)." in (
        found.summary
    )
    best_at_the_top = figure(slices(results_of(tmp_path / "max", [0.4, None], mode="max"))).layout
    assert best_at_the_top["yaxis2"]["domain"][1] < best_at_the_top["yaxis"]["domain"][0]
    assert "yaxis2" not in figure(slices(results_of(tmp_path / "well", [0.4, 0.3]))).layout


def test_failed_trials_are_lines_that_end_at_a_tick_of_their_own(tmp_path: Path) -> None:
    found = figure(parallel(results_of(tmp_path / "r", [0.4, 0.1, None, 0.2])))
    (only,) = found.traces
    lr, *_, value = only["dimensions"]
    assert value["ticktext"][-1] == "failed"
    off = value["tickvals"][-1]
    assert value["values"].tolist() == [off, 0.4, 0.2, 0.1]
    assert value["range"] == [0.1, off]
    assert lr["values"].tolist() == [-2, 0, -3, -1]
    line = only["line"]
    assert line["color"].tolist() == pytest.approx([-0.3, 0, 1, 2])
    assert (line["cmin"], line["cmax"]) == (pytest.approx(-0.3), 2)
    assert line["colorscale"][0] == [0.0, "@4"]
    assert line["colorbar"]["ticktext"][0] == "failed"
    (menu,) = found.layout["updatemenus"]
    ((path, (chosen,)),) = menu["buttons"][2]["args"][0].items()
    assert path == "dimensions.4.constraintrange"
    assert chosen[0] < off < chosen[1]
    (without,) = menu["buttons"][1]["args"][0][path]
    assert without[0] < 0.1 < 0.4 < without[1] < off
    assert "Pink: 1 trial that failed." in found.caption


def test_figures_go_by_the_mean_over_repeats(tmp_path: Path) -> None:
    """Trial 2 has the least value of all, but its configuration the larger mean."""
    values = [0.3, 0.5, 0.1, 0.9, 0.6, 0.6]
    runs = [Ran(trial, 9, value, repeat=trial % 2) for trial, value in enumerate(values)]
    configs: dict[int, Config] = {trial: {"x": float(trial // 2)} for trial in range(6)}
    results = sweep(tmp_path / "r", runs, configs=configs, repeats=2)
    assert results.best is not None
    assert results.best["trial"] == 0
    points, ring = figure(slices(results)).traces
    assert (points["x"].tolist(), points["y"].tolist()) == ([2, 1, 0], pytest.approx([0.6, 0.5, 0.4]))
    assert points["error_y"]["array"].tolist() == pytest.approx([0, 0.4, 0.1])
    assert points["error_y"]["arrayminus"].tolist() == pytest.approx([0, 0.4, 0.1])
    assert points["customdata"].tolist() == [[4, 9], [2, 9], [0, 9]]
    assert (ring["x"].tolist(), ring["y"].tolist()) == ([0], pytest.approx([0.4]))
    lines = figure(parallel(results)).traces[0]["dimensions"][-1]["values"]
    assert lines.tolist() == pytest.approx([0.6, 0.5, 0.4])


def test_a_configuration_with_a_failed_repeat_failed(tmp_path: Path) -> None:
    runs = [Ran(trial, 9, value, repeat=trial % 2) for trial, value in enumerate([0.1, None, 0.6, 0.4])]
    points, _, crosses = figure(slices(sweep(tmp_path / "r", runs, repeats=2))).traces
    assert points["y"].tolist() == [0.5]
    assert crosses["customdata"] == [[1, 9, "crashed"]]


# --------------------------------------------------------------------------- contour


def valley(folder: Path, *, trials: int = 64, **options: Any) -> Results:
    """The value is the distance of x from 2, whatever y; y is on a log scale."""
    space = {
        "x": {"type": "float", "low": 0.0, "high": 10.0},
        "y": {"type": "float", "low": 0.01, "high": 1.0, "log": True},
        "kind": {"type": "choice", "values": ["a", "b"]},
        "depth": {"type": "int", "low": 1, "high": 3, "when": {"kind": ["a"]}},
    }
    rng = np.random.default_rng(0)
    configs: dict[int, Config] = {}
    for trial in range(trials):
        one: Config = {"x": float(rng.uniform(0, 10)), "y": float(10 ** rng.uniform(-2, 0))}
        configs[trial] = one | ({"kind": "a", "depth": trial % 3 + 1} if trial % 2 else {"kind": "b"})
    runs = [Ran(trial, 9, abs(configs[trial]["x"] - 2)) for trial in range(trials)]
    return sweep(folder, runs, space=space, configs=configs, **options)


def test_the_surface_follows_the_values_in_the_units_of_the_parameters(tmp_path: Path) -> None:
    section = contour(valley(tmp_path / "r"), ("x", "y"))
    assert section is not None
    assert section.title == "x and y together"
    found = figure(section)
    surface, trials, ring = found.traces
    assert surface["type"] == "contour"
    assert "The ring is the best of the sweep" in found.caption
    assert (surface["x"][0], surface["x"][-1]) == (0, 10)
    assert (surface["y"][0], surface["y"][-1]) == (pytest.approx(0.01), pytest.approx(1))
    heights = np.array(surface["z"], dtype=float)
    lowest = surface["x"][np.nanargmin(np.nanmean(heights, axis=0))]
    assert lowest == pytest.approx(2, abs=0.7)
    assert np.nanmax(heights) <= 8
    assert len(trials["x"]) == 64
    assert ring["x"].tolist() == trials["x"][-1:].tolist()
    assert trials["customdata"][-1].tolist()[1] == min(trials["customdata"][:, 1])
    assert (found.layout["xaxis"]["type"], found.layout["yaxis"]["type"]) == ("linear", "log")


def test_where_everything_failed_there_are_crosses_and_no_colour(tmp_path: Path) -> None:
    """The value falls towards x = 5, beyond which training breaks."""
    rng = np.random.default_rng(0)
    at = [(float(x), float(y)) for x, y in rng.uniform(0, 10, (300, 2))]
    space = {name: {"type": "float", "low": 0.0, "high": 10.0} for name in "xy"}
    configs: dict[int, Config] = {trial: {"x": x, "y": y} for trial, (x, y) in enumerate(at)}
    runs = [Ran(trial, 9, None if x > 5 else 5 - x) for trial, (x, _) in enumerate(at)]
    found = figure(contour(sweep(tmp_path / "r", runs, space=space, configs=configs), ("x", "y")))
    surface, crosses, _, ring = found.traces
    failed = sum(x > 5 for x, _ in at)
    assert (crosses["name"], len(crosses["x"]), min(crosses["x"]) > 5) == ("failed", failed, True)
    blank = [all(z is None for z in column) for column in zip(*surface["z"], strict=True)]
    assert [blank[np.searchsorted(surface["x"], x)] for x in (1.0, 3.0, 6.0, 8.0)] == [
        False,
        False,
        True,
        True,
    ]
    assert ring["x"][0] < 5
    assert f"{failed} trials failed: {SYMBOLS_TEXT}. There is no colour where most failed" in found.caption
    assert found.summary.endswith(f" {failed} more failed.")


def test_the_ring_is_the_best_of_the_sweep_also_where_another_was_better_at_that_resource(
    tmp_path: Path,
) -> None:
    """Trial 0 is the best at 1; trained further, trial 1 is."""
    configs: dict[int, Config] = {trial: {"x": float(trial % 10), "y": trial / 3} for trial in range(30)}
    space = {name: {"type": "float", "low": 0.0, "high": 10.0} for name in "xy"}
    runs = [Ran(trial, 1, 1.0 + trial) for trial in range(30)] + [Ran(0, 9, 0.8), Ran(1, 9, 0.5)]
    results = sweep(tmp_path / "r", runs, space=space, configs=configs)
    found = figure(contour(results, ("x", "y")))
    ring = trace(found, "best")
    assert (ring["x"].tolist(), ring["y"].tolist()) == ([1.0], [1 / 3])
    assert found.caption.endswith("The ring is the best of the sweep, trial 1 at step 9.")
    rings = [one for one in figure(slices(results)).traces if one.get("marker", {}).get("size") == 15]
    assert [one["y"].tolist() for one in rings] == [[1.0], [1.0]]  # at resource 1


def test_slices_are_of_one_resource_or_of_the_newest_value_of_each(tmp_path: Path) -> None:
    runs = [Ran(trial, 1, 1.0 + trial) for trial in range(30)] + [Ran(0, 9, 0.8), Ran(1, 9, 0.5)]
    section = slices(sweep(tmp_path / "r", runs))
    assert section is not None
    (block,) = section.blocks
    assert isinstance(block, Alternatives)
    assert (block.names, block.shown) == (["Resource"], ("1 (30 trials)",))
    assert block.labels == [["1 (30 trials)", "newest of each (30 trials)"]]
    (low,), (newest,) = block.versions.values()
    assert isinstance(low, Figure)
    assert isinstance(newest, Figure)
    assert low.id != newest.id
    assert [found.traces[0]["y"].min() for found in (low, newest)] == [1.0, 0.5]
    assert (
        "at resource 1 against one parameter, chosen above. The ring is the best of these, trial 0."
        in low.caption
    )
    assert "The ring is the best of the sweep, trial 1. The colour is the resource" in newest.caption


def test_the_contour_of_another_resource_has_the_same_parameters(tmp_path: Path) -> None:
    configs: dict[int, Config] = {trial: {"x": float(trial % 10), "y": trial / 3} for trial in range(30)}
    space = {name: {"type": "float", "low": 0.0, "high": 10.0} for name in "xy"}
    runs = [
        Ran(trial, rung, 1.0 + trial / rung) for rung in (1, 9) for trial in range(30 if rung == 1 else 20)
    ]
    section = contour(sweep(tmp_path / "r", runs, space=space, configs=configs), ("x", "y"))
    assert section is not None
    (block,) = section.blocks
    assert isinstance(block, Alternatives)
    assert block.labels == [["9 (20 trials)", "1 (30 trials)"]]
    (high,), (low,) = block.versions.values()
    assert isinstance(high, Figure)
    assert isinstance(low, Figure)
    assert (high.id, low.id) == ("contour-pair", "contour-pair-at-1")
    assert low.caption.startswith("loss at resource 1 over x and y:")


def test_listed_values_are_a_map_of_cells_that_do_not_flow_into_each_other(tmp_path: Path) -> None:
    surface = figure(contour(valley(tmp_path / "r"), ("x", "kind"))).traces[0]
    assert surface["type"] == "heatmap"
    assert (len(surface["z"]), list(surface["y"])) == (2, [0, 1])


def test_a_conditional_parameter_has_the_trials_in_which_both_are_active(tmp_path: Path) -> None:
    found = figure(contour(valley(tmp_path / "r"), ("depth", "x")))
    assert len(found.traces[1]["x"]) == 32
    assert (found.traces[1]["customdata"][:, 0] % 2 == 1).all()
    assert "a smooth mean of 32 trials" in found.caption


@pytest.mark.usefixtures("momentum_first")
def test_the_two_most_important_parameters_are_taken(tmp_path: Path) -> None:
    section = contour(results_of(tmp_path / "r", [0.1 * trial for trial in range(30)]))
    assert section is not None
    assert section.title == "momentum and lr together"


def test_large_values_are_good_where_the_objective_is_maximised(tmp_path: Path) -> None:
    found = figure(contour(valley(tmp_path / "r", mode="max"), ("x", "y")))
    assert found.traces[0]["reversescale"]
    assert found.traces[1]["customdata"][-1][1] == max(found.traces[1]["customdata"][:, 1])


def test_too_few_points_or_parameters_give_no_contour(tmp_path: Path) -> None:
    assert contour(valley(tmp_path / "few", trials=7), ("x", "y")) is None
    assert contour(valley(tmp_path / "unknown", trials=10)) is None
    assert contour(sweep(tmp_path / "one", [Ran(trial, 9, 0.5) for trial in range(30)])) is None
    assert contour(results_of(tmp_path / "failed", [None] * 30), ("lr", "layers")) is None


def test_smooth_means_stay_within_the_values_and_are_absent_far_from_all() -> None:
    at = np.array([[0.1, 0.1], [0.2, 0.1]])
    grid = (np.array([0.1, 0.15, 0.9]), np.array([0.1]))
    means = smooth(at, np.array([1.0, 3.0]), grid, width=np.array([0.02, 0.02]))
    assert means[0, :2] == pytest.approx([1, 2], abs=1e-4)
    assert math.isnan(means[0, 2])


@pytest.mark.parametrize("make", [parallel, slices, contour])
def test_sweeps_without_values_have_no_figures_of_parameters(tmp_path: Path, make: Any) -> None:
    assert make(sweep(tmp_path / "empty", [])) is None
    assert make(results_of(tmp_path / "failed", [None, None])) is None


def test_one_trial_and_equal_values_are_drawn(tmp_path: Path) -> None:
    assert figure(slices(results_of(tmp_path / "one", [0.5]))).traces[0]["y"].tolist() == [0.5]
    assert parallel(results_of(tmp_path / "alone", [0.5])) is None
    value = figure(parallel(results_of(tmp_path / "same", [0.5] * 12))).traces[0]["dimensions"][-1]
    assert (value["range"], value["ticktext"]) == ([-0.5, 1.5], ["0.5"])


def test_of_very_many_resources_a_few_can_be_chosen_with_the_ends_and_the_one_that_many_reached(
    tmp_path: Path,
) -> None:
    """To resource 3 went 100 trials, to 4 .. 12 went 20 of them."""
    counts = dict.fromkeys(range(1, 4), 100) | dict.fromkeys(range(4, 13), 20)
    runs = [Ran(trial, at, 1.0 + trial) for at, count in counts.items() for trial in range(count)]
    results = sweep(tmp_path / "r", runs)
    assert values_of(results).resource == 3
    assert compared_resources(results) == {12: 20, 9: 20, 6: 20, 4: 20, 3: 100, 1: 100}
