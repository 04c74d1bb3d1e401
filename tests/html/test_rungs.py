"""Rungs: tables and values against sweeps made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.core.events import Outcome, TrialCreated
from hpcsweep.html.rungs import MOST_TABLES, rungs
from hpcsweep.html.sections import Figure, Table, Text
from tests.html.hand_made_sweeps import ENDED, HALVING, Ran, events, figure, sweep, table, trace
from tests.views.folders import written


def test_the_table_of_a_bracket_tells_who_was_promoted_and_where_the_cut_was(tmp_path: Path) -> None:
    found = table(rungs(sweep(tmp_path / "r", HALVING, ENDED)))
    assert list(found.columns) == [
        *("resource", "runs", "completed", "failed", "best loss", "cut-off", "went on", "which, best first")
    ]
    assert [list(row) for row in found.rows] == [
        [1, 6, 5, 1, 0.4, 0.5, 2, "2, 1"],
        [3, 2, 2, 0, 0.3, 0.3, 1, "1"],
        [9, 1, 1, 0, 0.1, None, None, "fully trained"],
    ]
    assert found.marked == {2}
    assert found.caption == "Bracket 0: 6 configurations. The best of the sweep is in the marked row."


def test_the_best_lead_where_the_objective_is_maximised(tmp_path: Path) -> None:
    runs = [Ran(0, 1, 0.9), Ran(1, 1, 0.5), Ran(2, 1, 0.95), Ran(2, 9, 0.99), Ran(0, 9, 0.8)]
    found = table(rungs(sweep(tmp_path / "r", runs, mode="max")))
    assert [list(row)[4:] for row in found.rows] == [
        [0.95, 0.9, 2, "2, 0"],
        [0.99, None, None, "fully trained"],
    ]


def test_long_lists_of_trials_are_cut(tmp_path: Path) -> None:
    runs = [Ran(trial, 1, float(trial)) for trial in range(40)]
    runs += [Ran(trial, 3, float(trial)) for trial in range(22)]
    found = table(rungs(sweep(tmp_path / "r", runs)))
    assert found.rows[0][-1] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 12 more"


def test_the_figure_has_a_column_for_each_rung_with_its_cut_off(tmp_path: Path) -> None:
    found = figure(rungs(sweep(tmp_path / "r", HALVING, ENDED)))
    assert found.layout["xaxis"]["ticktext"] == ["1", "3", "9"]
    on, dropped = trace(found, "went on"), trace(found, "dropped")
    places = zip(on["customdata"].tolist(), on["x"].round().tolist(), on["y"].tolist(), strict=True)
    assert list(places) == [(2, 0, 0.4), (1, 0, 0.5), (1, 1, 0.3), (1, 2, 0.1)]
    assert dropped["customdata"].tolist() == [4, 3, 0, 2]
    cut = trace(found, "cut-off")
    assert cut["y"] == [0.5, 0.5, None, 0.3, 0.3, None, None, None, None]
    assert "at resource 1 the best of 5 is 0.4, 2 went on, cut-off 0.5" in found.summary


def test_without_rungs_there_is_no_section(tmp_path: Path) -> None:
    fifo = {"name": "fifo", "max_resource": 9}
    assert rungs(sweep(tmp_path / "r", [Ran(0, 9, 0.1), Ran(1, 9, 0.2)], scheduler=fifo)) is None


def test_runs_that_are_ended_on_the_way_are_counted_as_stopped(tmp_path: Path) -> None:
    runs = [Ran(0, 9, 0.5, outcome=Outcome.STOPPED, step=3), Ran(1, 9, 0.2)]
    section = rungs(sweep(tmp_path / "r", runs, scheduler={"name": "asha", "max_resource": 9}))
    assert section is not None
    assert section.blocks[0] == Text("Every trial trains towards 9; 1 run stopped early.")
    found = table(section)
    assert list(found.rows[0])[:6] == [9, 2, 1, 0, 1, 0.2]
    assert found.columns[4] == "stopped"


def test_many_brackets_are_taken_together_by_their_rungs(tmp_path: Path) -> None:
    runs: list[Ran] = []
    for bracket in range(200):
        lowest = 1 if bracket % 2 == 0 else 3
        value = 0.5 + bracket / 1000
        runs.append(Ran(len(runs) // 2, lowest, value, bracket=bracket))
        runs.append(Ran(len(runs) // 2, 9, value - 0.3, bracket=bracket))
    section = rungs(sweep(tmp_path / "r", runs))
    assert section is not None
    assert section.blocks[0] == Text(
        "200 brackets: those with the same rungs are taken together, and the one of the best trial is "
        "shown by itself."
    )
    tables = [block for block in section.blocks if isinstance(block, Table)][:-1]  # without correlations
    assert [found.caption for found in tables] == [
        "100 brackets from 1: 100 configurations. The best of the sweep is in the marked row.",
        "100 brackets from 3: 100 configurations.",
        "Bracket 0: 1 configuration. The best of the sweep is in the marked row.",
    ]
    assert list(tables[0].rows[0])[:4] == [1, 100, 100, 0]
    figure = next(block for block in section.blocks if isinstance(block, Figure))
    names = [(each["text"], each["yshift"]) for each in figure.layout["annotations"]]
    assert names == [("100 brackets", 0), ("100 brackets", 13), ("bracket 0", 0)]


def test_the_number_of_tables_is_bounded_whatever_the_scheduler(tmp_path: Path) -> None:
    runs = [Ran(2 * n + k, 1 + n, 0.1 if n == 30 else 0.5, bracket=n) for n in range(40) for k in range(2)]
    section = rungs(sweep(tmp_path / "r", runs))
    assert section is not None
    assert sum(isinstance(block, Table) for block in section.blocks) == MOST_TABLES + 1
    assert section.blocks[0] == Text(
        "40 brackets: those with the same rungs are taken together, and the one of the best trial is "
        "shown by itself. Shown are 6 of 40 kinds."
    )
    assert table(section, MOST_TABLES).caption.startswith("Bracket 30: ")


def test_a_population_is_one_table_that_names_copied_trials(tmp_path: Path) -> None:
    runs = [Ran(trial, 2, 0.5 + trial, bracket=trial) for trial in range(4)]
    runs += [Ran(trial, 4, 0.2 + trial, bracket=trial) for trial in range(3)]
    journal = events(runs, scheduler={"name": "pbt", "max_resource": 4})
    journal.append(TrialCreated(4, {"x": 0.1}, 3, 4, parent=0, origin="clone", start=2))
    found = table(rungs(written(tmp_path / "r", journal)))
    assert found.columns[-1] == "copied by clones"
    assert [(row[0], row[1], row[-1]) for row in found.rows] == [(2, 4, "0 (×1)"), (4, 4, "")]
    assert found.caption == "Population: 5 configurations. The best of the sweep is in the marked row."


def test_repeats_are_one_configuration_with_its_mean(tmp_path: Path) -> None:
    runs = [Ran(0, 1, 0.2), Ran(1, 1, 0.4, repeat=1), Ran(2, 1, 0.1), Ran(3, 1, None, repeat=1)]
    found = table(rungs(sweep(tmp_path / "r", runs, repeats=2)))
    assert list(found.rows[0])[:5] == [1, 4, 3, 1, pytest.approx(0.3)]
    assert found.caption.startswith("Bracket 0: 2 configurations.")


def test_sweeps_without_trials_have_no_section_and_failed_runs_no_values(tmp_path: Path) -> None:
    assert rungs(sweep(tmp_path / "empty", [])) is None
    found = table(rungs(sweep(tmp_path / "failed", [Ran(0, 1, None), Ran(1, 1, None)])))
    assert list(found.rows[0]) == [1, 2, 0, 2, None, None, 0, ""]
    runs = [Ran(0, 1, None), Ran(1, 9, None, bracket=1)]
    found = table(rungs(sweep(tmp_path / "failed at the top", runs)), 1)
    assert list(found.rows[0]) == [9, 1, 0, 1, None, None, None, None]  # nobody is fully trained
