"""The front in the report: its figure, history, table and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.html.front import front
from hpcsweep.html.page import page
from hpcsweep.html.pareto import pareto
from hpcsweep.html.progress import progress
from hpcsweep.html.sections import Figure, KeyValues, Text
from hpcsweep.html.summary import summary
from hpcsweep.html.trials import trials
from hpcsweep.views.results import Results
from hpcsweep.views.verdict import verdict
from tests.html.hand_made_sweeps import Ran, figure, report, sweep, table, trace
from tests.html.trade_offs import INFEASIBLE, OBJECTIVES, ran, trade_off


def points(found: Figure, name: str) -> list[tuple[int, float, float]]:
    """Trial, x and y of the points of a trace."""
    only = trace(found, name)
    return [
        (int(about[0]), x, y) for about, x, y in zip(only["customdata"], only["x"], only["y"], strict=True)
    ]


def sentences(results: Results) -> list[tuple[str, bool]]:
    return [(each.text, each.advice) for each in verdict(results.folder.progress, results.space)]


def test_a_parameter_that_ends_at_its_bound_in_half_of_the_front_is_named(tmp_path: Path) -> None:
    runs = [ran(trial, 0.1 + 0.1 * trial, 60.0 + trial) for trial in range(6)]
    for at_end, named in ((3, True), (2, False)):
        configs = {trial: {"x": 10.0 if trial < at_end else 3.0 + trial / 10} for trial in range(6)}
        results = trade_off(tmp_path / str(at_end), runs, configs=configs)
        at = f"x is at its upper end (10) in {at_end} of the 6 on the front"
        bound = f"{at}: a wider range may have better ones."
        assert ((bound, True) in sentences(results)) is named


def test_the_figure_has_the_front_its_picks_and_who_is_infeasible(tmp_path: Path) -> None:
    section = front(trade_off(tmp_path))
    found = figure(section)
    assert points(found, "front") == [(0, 0.1, 60.0), (2, 0.2, 80.0), (3, 0.2, 80.0), (1, 0.3, 90.0)]
    assert points(found, "others") == [(6, 0.4, 70.0)]
    assert points(found, "beyond a bound") == [(4, 0.05, 10.0)]
    assert points(found, "knee") == [(2, 0.2, 80.0)]
    assert points(found, "best error") == [(0, 0.1, 60.0)]
    assert points(found, "best speed") == [(1, 0.3, 90.0)]
    assert found.layout["updatemenus"] == []
    assert found.summary == (
        "4 trials on the front. The knee is trial 2: error 0.2, speed 80. "
        "Best error 0.1 (trial 0), best speed 90 (trial 1)."
    )
    history = figure(section, 1)
    assert history.traces[0]["y"] == pytest.approx([3.3, 7.2, 9.2, 9.2, 9.2])
    assert history.traces[0]["x"][:4] == pytest.approx([each / 3600 for each in (60, 120, 180, 240)])
    assert table(section).rows == [
        [0, 0.1, 60.0, 1, "best error"],
        [2, 0.2, 80.0, 1, "knee"],
        [3, 0.2, 80.0, 1, ""],
        [1, 0.3, 90.0, 1, "best speed"],
    ]
    assert section is not None
    assert section.blocks[0] == Text(
        "Beyond a bound are 1 of 6 configurations with values: 1 with speed below 50.", "note"
    )


def test_of_three_objectives_a_pair_is_chosen(tmp_path: Path) -> None:
    three: list[dict[str, Any]] = [*OBJECTIVES, {"metric": "size"}]
    runs = [ran(0, 0.1, 60.0, 1.0), ran(1, 0.2, 80.0, 5000.0), ran(2, 0.3, 70.0, 0.5)]
    found = figure(front(trade_off(tmp_path, runs, objective=three)))
    (choice,) = found.layout["updatemenus"]
    assert [button["label"] for button in choice["buttons"]] == [
        "error and speed",
        "error and size",
        "speed and size",
    ]
    shown = [button["args"][0]["visible"] for button in choice["buttons"]]
    assert [sum(each) for each in shown] == [7, 7, 7]
    assert all(len(each) == len(found.traces) == 21 for each in shown)
    changes = choice["buttons"][2]["args"][1]
    assert (changes["xaxis.title.text"], changes["yaxis.title.text"]) == ("speed", "size")
    assert (changes["xaxis.type"], changes["yaxis.type"]) == ("linear", "log")


def test_a_page_where_nobody_keeps_the_bounds(tmp_path: Path) -> None:
    results = trade_off(tmp_path, INFEASIBLE)
    section = front(results)
    assert points(figure(section), "nearest to the bounds") == [(1, 0.4, 40.0)]
    assert section is not None
    assert len([block for block in section.blocks if isinstance(block, Figure)]) == 1, "no hypervolume"
    beyond = "3 of 3 configurations with values: 3 with speed below 50"
    assert sentences(results) == [
        ("No configuration keeps the bounds; nearest to them is trial 1: error 0.4, speed 40.", True),
        ("Best error 0.4 (trial 1), best speed 40 (trial 1).", False),
        (f"Beyond the bounds: {beyond}: loosen them, or widen the space.", True),
    ]


@pytest.mark.parametrize("runs", [[], [ran(0), ran(1)]], ids=["none has begun", "all failed"])
def test_a_page_without_values_has_no_front(tmp_path: Path, runs: list[Ran]) -> None:
    results = trade_off(tmp_path, runs, ended=False)
    assert front(results) is None
    assert sentences(results) == []
    assert "<h2" in page(results)


def test_the_page_begins_with_the_front(tmp_path: Path) -> None:
    results = trade_off(tmp_path)
    assert [text for text, _ in sentences(results)] == [
        "The front has 4 of 6 configurations with values; its knee is trial 2: error 0.2, speed 80.",
        "Best error 0.1 (trial 0), best speed 90 (trial 1).",
        "Beyond the bounds: 1 of 6 configurations with values: 1 with speed below 50.",
        "The front did not grow in the last 25% of the GPU time.",
    ]
    facts = dict(next(block for block in summary(results).blocks if isinstance(block, KeyValues)).rows)
    assert (facts["Front"], facts["Knee of the front"]) == ("4 of 8 configurations", "error 0.2, speed 80")
    assert facts["Hypervolume"] == "9.2 up to error 0.43, speed 50"
    assert facts["Objective"] == "minimise error, maximise speed (at least 50)"
    assert (progress(results), pareto(results)) == (None, None)


def test_the_front_was_not_trained_in_full(tmp_path: Path) -> None:
    runs = [ran(0, 0.1, 60.0), ran(1, 0.2, 80.0), ran(0, 0.05, 60.0, resource=3, minutes=3.0)]
    results = trade_off(tmp_path, runs, scheduler={"name": "asha", "max_resource": 3})
    text = "1 of 2 on the front was not trained up to step 3: values in full are not known."
    assert (text, True) in sentences(results)


def test_other_metrics_are_compared_without_the_objectives(tmp_path: Path) -> None:
    results = trade_off(tmp_path, [ran(0, 0.1, 60.0), ran(1, 0.2, 80.0)])
    for trial in (0, 1):
        report(results, trial, 0, {1: {"error": 0.1 + trial / 10, "speed": 60.0, "memory": 5.0 - trial}})
    section = pareto(results)
    assert table(section).columns == ["trial", "step", "error", "memory"]


def test_the_table_of_trials_has_all_objectives_and_fronts(tmp_path: Path) -> None:
    section = trials(trade_off(tmp_path))
    assert section is not None
    columns = {each["name"]: each["values"] for each in section.blocks[0].data["columns"]}  # type: ignore[union-attr]
    assert list(columns["trial"]) == [2, 0, 1, 3, 6, 4, 5, 7]
    assert list(columns["speed"])[:6] == [80.0, 60.0, 90.0, 80.0, 70.0, 10.0]
    assert list(columns["front"])[:6] == [1, 1, 1, 1, 2, 3]


def test_one_objective_has_the_sections_it_had(tmp_path: Path) -> None:
    results = sweep(tmp_path, [Ran(0, 1, 0.5), Ran(1, 1, 0.4)])
    assert front(results) is None
    assert progress(results) is not None
