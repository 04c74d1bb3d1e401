"""The table of trials: what its columns hold, and what is told of each trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcsweep.core.events import Outcome, SweepStarted
from hpcsweep.html import trials as module
from hpcsweep.html.sections import TrialTable
from hpcsweep.html.trials import trials
from hpcsweep.store.layout import Layout
from hpcsweep.views.results import Results, load
from tests.html.hand_made_sweeps import ENDED, HALVING, Ran, report, sweep
from tests.views.folders import TROUBLED, identity, written


def data(results: Results) -> dict[str, Any]:
    section = trials(results)
    assert section is not None
    (table,) = [block for block in section.blocks if isinstance(block, TrialTable)]
    assert table.total == len(results.folder.state.trials)
    return dict(table.data)


def columns(found: dict[str, Any]) -> dict[str, list[Any]]:
    return {each["name"]: list(each["values"]) for each in found["columns"] if each["values"] is not None}


def test_trials_stand_best_first_with_what_became_of_them(tmp_path: Path) -> None:
    found = data(sweep(tmp_path, HALVING, ENDED))
    shown = columns(found)
    assert shown["trial"] == [1, 2, 4, 3, 0, 5]
    np.testing.assert_equal(shown["loss"], [0.1, 0.35, 0.7, 0.8, 0.9, np.nan])
    np.testing.assert_equal(shown["at step"], [9, 3, 1, 1, 1, np.nan])
    assert shown["fate"] == ["trained in full", *["dropped"] * 4, "crashed"]
    assert found["configs"] == [{"x": float(trial)} for trial in shown["trial"]]
    np.testing.assert_allclose(shown["GPU-hours"], [18 / 60, 6 / 60, *[2 / 60] * 4])
    kinds = {each["name"]: each["kind"] for each in found["columns"]}
    assert (kinds["x"], kinds["fate"], kinds["rung"]) == ("number", "text", "number")


def test_the_filter_s_example_is_of_this_sweep(tmp_path: Path) -> None:
    def example(folder: str, **options: Any) -> list[str]:
        section = trials(sweep(tmp_path / folder, HALVING, **options))
        assert section is not None
        (table,) = section.blocks
        assert isinstance(table, TrialTable)
        return list(table.example)

    assert example("numbers") == ["x<2.5", "loss<0.7"]
    words = {"type": "choice", "values": ["a b", "c"]}
    configs = {trial: {"my kind": "a b"} for trial in range(6)}
    options: dict[str, Any] = {"space": {"my kind": words}, "configs": configs}
    assert example("words", mode="max", **options) == ["loss>0.7", '"a b"']


def test_null_is_a_value_and_what_is_not_active_has_none(tmp_path: Path) -> None:
    space = {
        "x": {"type": "choice", "values": [None, 1]},
        "y": {"type": "int", "low": 0, "high": 9, "when": {"x": 1}},
    }
    configs: dict[int, Any] = {0: {"x": None}, 1: {"x": 1, "y": 3}}
    found = data(sweep(tmp_path, [Ran(0, 9, 0.5), Ran(1, 9, 0.6)], space=space, configs=configs))
    kinds = {each["name"]: each["kind"] for each in found["columns"]}
    assert (kinds["x"], kinds["y"]) == ("text", "number")
    assert found["configs"] == [{"x": None}, {"x": 1, "y": 3}]


def test_what_is_not_promoted_is_not_dropped_while_the_sweep_runs(tmp_path: Path) -> None:
    assert columns(data(sweep(tmp_path, HALVING)))["fate"][1:5] == ["not promoted yet"] * 4


def test_a_story_has_a_line_for_each_rung_with_the_place_there(tmp_path: Path) -> None:
    found = data(sweep(tmp_path, HALVING, ENDED))
    assert found["story"] == [
        [
            "Rung 0, resource 1: loss 0.5, place 2 of 5, promoted",
            "Rung 1, resource 3: loss 0.3, place 1 of 2, promoted",
            "Rung 2, resource 9: loss 0.1, place 1 of 1",
        ],
        [
            "Rung 0, resource 1: loss 0.4, place 1 of 5, promoted",
            "Rung 1, resource 3: loss 0.35, place 2 of 2; the last one promoted had 0.3",
        ],
        ["Rung 0, resource 1: loss 0.7, place 3 of 5; the last one promoted had 0.5"],
        ["Rung 0, resource 1: loss 0.8, place 4 of 5; the last one promoted had 0.5"],
        ["Rung 0, resource 1: loss 0.9, place 5 of 5; the last one promoted had 0.5"],
        ["Rung 0, resource 1: crashed"],
    ]


def test_attempts_say_how_they_ended_where_and_after_how_long(tmp_path: Path) -> None:
    found = data(written(tmp_path, TROUBLED))["attempts"]
    rows = list(
        zip(*(found[name] for name in ("trial", "ending", "node", "job", "took", "message")), strict=True)
    )
    assert rows == [
        (0, "completed", "n1", "7_0", "60 min", ""),
        (1, "crashed", "n2", "7_1", "60 min", "ValueError: odd"),
        (2, "preempted", "n2", "7_2", "30 min", "told to stop"),
        (3, "node failed", "n2", "7_3", "30 min", "node is down"),
        (2, "completed", "n1", "7_2", "60 min", ""),
        (3, "completed", "n1", "7_3", "60 min", ""),
    ]


def test_curves_are_those_of_the_best_trials_and_whole(tmp_path: Path, monkeypatch: Any) -> None:
    runs = [Ran(trial, 4, float(3 - trial)) for trial in range(3)]
    results = sweep(tmp_path, runs, ENDED)
    for trial in range(3):
        report(results, trial, 0, {step: {"loss": float(step)} for step in range(1, 5)})
    monkeypatch.setattr(module, "CURVE_POINTS", 9)
    (curves,) = data(load(tmp_path))["curves"]
    assert curves["metric"] == "loss"
    assert curves["trial"].tolist() == [2] * 4 + [1] * 4
    assert curves["step"].tolist() == [1, 2, 3, 4] * 2


def test_the_end_of_the_log_of_the_best_and_of_those_that_failed_is_there(tmp_path: Path) -> None:
    results = written(tmp_path, TROUBLED)
    log = Layout(tmp_path).batch("a").log(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"line {index}\n" for index in range(50)))
    logs = data(results)["logs"]
    assert logs == {"1": "\n".join(f"line {index}" for index in range(30, 50))}


def test_there_is_no_table_before_there_is_a_trial(tmp_path: Path) -> None:
    assert trials(written(tmp_path, [SweepStarted("cafe01", "lr", 50.0, identity())])) is None


def test_a_stopped_trial_is_stopped_early(tmp_path: Path) -> None:
    runs = [Ran(0, 9, 0.5, outcome=Outcome.STOPPED, step=4), Ran(1, 9, 0.4)]
    assert columns(data(sweep(tmp_path, runs, ENDED)))["fate"] == ["trained in full", "stopped early"]
