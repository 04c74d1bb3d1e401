"""Whether low rungs predict high ones, as status, report and explain say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcsweep.cli.status import status
from hpcsweep.cli.trial import explain
from hpcsweep.html.rungs import rungs
from hpcsweep.views.rank_correlations import rank_correlation_text, rank_correlations
from hpcsweep.views.results import Results
from hpcsweep.views.verdict import verdict
from tests.html.hand_made_sweeps import Ran, sweep, table

#: What is best at 1 is worst at 9; 3 is in between, and only trials 0 and 1 have come to 27.
REVERSED = (
    [Ran(trial, 1, trial / 100) for trial in range(24)]
    + [Ran(trial, 3, 1 + (trial * 7 % 8) / 100) for trial in range(8)]
    + [Ran(trial, 9, 2 - trial / 100) for trial in range(8)]
    + [Ran(0, 27, 1.0), Ran(1, 27, 0.9)]
)
LINE = (
    "resource 1 did not predict resource 9: raise min_resource above 1 (rank correlation -1.00, "
    "90 % interval -1.00 to -0.99, of the 8 of 24 trials that have both)"
)


@pytest.fixture
def reversed_sweep(tmp_path: Path) -> Results:
    return sweep(tmp_path / "r", REVERSED, scheduler={"name": "asha", "max_resource": 27, "eta": 3})


def test_each_resource_goes_against_the_highest_with_enough_trials(reversed_sweep: Results) -> None:
    found = rank_correlations(reversed_sweep.folder.state)
    assert [(each.lower, each.higher, each.trials, each.known, each.predicts) for each in found] == [
        (1, 9, 8, 24, False),
        (3, 9, 8, 8, None),
    ]
    assert rank_correlation_text(found[0], several=False) == LINE
    assert rank_correlation_text(found[1], several=False) == (
        "whether resource 3 predicts resource 9 is open: rank correlation 0.33, "
        "90 % interval -0.39 to 0.80, of all 8 trials that have both"
    )


def test_status_report_and_explain_say_the_same(
    reversed_sweep: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    status(reversed_sweep.path, json=False)
    assert f"ranks: {LINE}" in capsys.readouterr().out.splitlines()
    status(reversed_sweep.path, json=True)
    in_json = json.loads(capsys.readouterr().out)["rank_correlations"][0]
    assert (in_json["rho"], in_json["trials"], in_json["predicts"]) == (-1.0, 8, False)
    explain(reversed_sweep.path, 2, json=False)
    shown = capsys.readouterr().out.splitlines()
    assert f"  ranks: {LINE}" in shown
    explain(reversed_sweep.path, 2, json=True)
    first, second, last = json.loads(capsys.readouterr().out)["rungs"]
    assert first["correlations"] == [in_json]
    assert (second["correlations"][0]["higher"], last["correlations"]) == (9, [])
    section = rungs(reversed_sweep)
    in_table = table(section, nth=1)
    assert [list(row) for row in in_table.rows] == [
        [1, 9, 8, "-1.00", "-1.00 to -0.99", "-1.00", "no"],
        [3, 9, 8, "0.33", "-0.39 to 0.80", "0.33", "open"],
    ]
    said = verdict(reversed_sweep.folder.progress, reversed_sweep.space)
    assert (said[-1].text, said[-1].advice) == (f"{LINE[0].upper()}{LINE[1:]}.", True)


def test_where_min_resource_raises_itself_nobody_is_asked_to(tmp_path: Path) -> None:
    options = {"name": "asha", "min_resource": "auto", "max_resource": 27, "eta": 3}
    found, _ = rank_correlations(sweep(tmp_path / "r", REVERSED, scheduler=options).folder.state)
    assert found.advice == "min_resource: auto raises itself"
    assert rank_correlation_text(found, several=False) == LINE.replace(
        "raise min_resource above 1", found.advice
    )


def test_a_resource_that_predicts_is_said_to(tmp_path: Path) -> None:
    runs = [Ran(trial, 1, trial / 10) for trial in range(9)] + [Ran(t, 3, t / 20) for t in range(9)]
    results = sweep(tmp_path / "r", runs)
    (found,) = rank_correlations(results.folder.state)
    assert rank_correlation_text(found, several=False).startswith(
        "resource 1 predicts resource 3: rank correlation 1.00, "
    )


def test_failed_runs_and_repeats_count_once_or_not_at_all(tmp_path: Path) -> None:
    runs = [Ran(trial, 1, trial / 10) for trial in range(9)]
    runs += [Ran(trial, 3, None if trial == 8 else trial / 20) for trial in range(9)]
    (found,) = rank_correlations(sweep(tmp_path / "r", runs).folder.state)
    assert (found.trials, found.known) == (8, 9)
    twice = [Ran(trial, resource, trial / 10, repeat=trial % 2) for resource in (1, 3) for trial in range(18)]
    (found,) = rank_correlations(sweep(tmp_path / "t", twice, repeats=2).folder.state)
    assert (found.trials, found.known) == (9, 9)


def test_one_resource_and_populations_have_none(tmp_path: Path) -> None:
    fifo = [Ran(trial, 9, 0.1 * trial) for trial in range(9)]
    assert rank_correlations(sweep(tmp_path / "f", fifo).folder.state) == []
    pbt = [Ran(trial, resource, 0.1 * trial) for resource in (1, 2) for trial in range(9)]
    options = {"name": "pbt", "max_resource": 2}
    assert rank_correlations(sweep(tmp_path / "p", pbt, scheduler=options).folder.state) == []


def test_each_of_several_objectives_has_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss at 1 is turned round at 3; the size stays what it is."""
    runs = [Ran(trial, 1, trial / 10, values=(trial / 10, 10.0 - trial)) for trial in range(9)]
    runs += [Ran(trial, 3, 1 - trial / 10, values=(1 - trial / 10, 10.0 - trial)) for trial in range(9)]
    objective = [{"metric": "loss"}, {"metric": "size"}]
    results = sweep(tmp_path / "r", runs, objective=objective, scheduler={"name": "asha", "max_resource": 3})
    state = results.folder.state
    loss, size = rank_correlations(state)
    assert [(each.metric, each.rho, each.predicts) for each in (loss, size)] == [
        ("loss", -1.0, False),
        ("size", 1.0, True),
    ]
    line = (
        "resource 1 did not predict resource 3 in loss: raise min_resource above 1 (rank correlation -1.00, "
    )
    assert rank_correlation_text(loss, several=True).startswith(line)
    status(results.path, json=False)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ranks: ")]
    assert [line.partition(":")[2].partition(":")[0] for line in shown] == [
        " resource 1 did not predict resource 3 in loss",
        " resource 1 predicts resource 3 in size",
    ]
    explain(results.path, 2, json=True)
    first, last = json.loads(capsys.readouterr().out)["rungs"]
    assert ([each["metric"] for each in first["correlations"]], last["correlations"]) == (
        ["loss", "size"],
        [],
    )
    in_table = table(rungs(results), nth=1)
    assert [row[:4] for row in in_table.rows] == [("loss", 1, 3, 9), ("size", 1, 3, 9)]
    found = verdict(results.folder.progress, results.space)
    assert [each.text[: len(line)] for each in found if "predict" in each.text] == [f"R{line[1:]}"]
