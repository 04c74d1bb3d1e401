"""Several objectives in `explain`, tables, exports, Python and `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.cli.trial import explanation_lines
from hpcsweep.core.events import (
    Outcome,
    RunReported,
    SweepExtended,
    SweepResumed,
    SweepStarted,
    TrialStopped,
)
from hpcsweep.core.state import SweepState
from hpcsweep.views.explain import explain
from hpcsweep.views.progress import SweepProgress
from hpcsweep.views.results import Results
from tests.html.hand_made_sweeps import Ran
from tests.html.trade_offs import INFEASIBLE, OBJECTIVES, TRADE_OFF, journal, ran, trade_off
from tests.views.folders import written

ONE, THREE = "it dominates 1 configuration", "dominated by trials 1, 2, 3"
FIVE = "5 configurations keep the bounds or are less far beyond"
KNEE = "the knee of the front is trial 2: error 0.2, speed 80"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def end(trial: int, runs: list[Ran] = TRADE_OFF) -> str:
    """Where `explain` says that it stands."""
    found = journal(runs)
    return explanation_lines(explain(found, SweepState.replay(found), trial))[-1]


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (2, "it is on the front, knee: error 0.2, speed 80 at resource 1; it dominates 2 configurations"),
        (0, f"it is on the front, best error: error 0.1, speed 60 at resource 1; {ONE}; {KNEE}"),
        (3, f"it is on the front: error 0.2, speed 80 at resource 1; it dominates 2 configurations; {KNEE}"),
        (6, f"it is on front 2 of 3: error 0.4, speed 70 at resource 1; {THREE}; {ONE}; {KNEE}"),
        (4, f"it is infeasible, speed is below 50: error 0.05, speed 10 at resource 1; {FIVE}; {KNEE}"),
        (5, f"it has no value; {KNEE}"),
        (7, f"it has no value; {KNEE}"),
    ],
)
def test_explain_says_where_a_trial_stands(trial: int, expected: str) -> None:
    assert end(trial) == expected


def test_explain_where_nobody_keeps_the_bounds() -> None:
    assert end(0, INFEASIBLE) == (
        "it is infeasible, speed is below 50: error 0.1, speed 20 at resource 1; "
        "no configuration keeps the bounds, 1 is less far beyond; "
        "nearest to the bounds is trial 1: error 0.4, speed 40"
    )


def test_explain_ranks_a_rung_front_by_front() -> None:
    """Of three on the front one went on; the dominated and the infeasible come behind."""
    runs = [*TRADE_OFF[:5], ran(1, 0.25, 95.0, resource=3, minutes=9.0)]
    found = journal(runs, scheduler={"name": "asha", "max_resource": 3, "eta": 3}, ended=False)
    shown = explanation_lines(explain(found, SweepState.replay(found), 1))
    assert shown[3:6] == [
        "rung 0, resource 1: completed (60 s) with error 0.3, speed 90",
        "  promoted: 3rd of 5 ended at resource 1 in bracket 0 when it was promoted; 1 had gone on by then",
        "    went on: 3rd trial 1 (0.3, 90) (this one)",
    ]
    assert shown[6] == (
        "    not: 1st trial 2 (0.2, 80), 2nd trial 0 (0.1, 60), 4th trial 3 (0.2, 80), 5th trial 4 (0.05, 10)"
    )


def test_explain_of_a_stopped_trial_compares_all_that_was_reported() -> None:
    runs = [ran(0, 0.1, 90.0), ran(1, 0.5, 60.0, outcome=Outcome.STOPPED)]
    found = journal(runs, ended=False)
    for at, trial in ((-1, 1), (-3, 0)):
        last = runs[trial]
        found.insert(at, RunReported(trial, 0, ((1, last.values[0]),), (last.values,)))
    found.insert(-1, TrialStopped(1, "dominated by the median"))
    (rung,) = explain(found, SweepState.replay(found), 1).rungs
    assert rung.comparison is not None
    assert [(peer.trial, peer.values) for peer in rung.comparison.named] == [
        (0, (0.1, 90.0)),
        (1, (0.5, 60.0)),
    ]


def test_explain_of_repeats_has_all_values_and_their_means() -> None:
    runs = [ran(0, 0.1, 60.0), ran(1, 0.3, 80.0, repeat=1)]
    found = journal(runs, repeats=2)
    shown = explanation_lines(explain(found, SweepState.replay(found), 0))
    assert "  repeats: trial 0 0.1, 60, trial 1 0.3, 80; mean 0.2, 70" in shown


def test_tables_carry_all_values(tmp_path: Path) -> None:
    trade_off(tmp_path)
    shown = run("export", tmp_path).output.splitlines()
    head = "trial,status,failure,value,values.error,values.speed,front,infeasible,resource,bracket"
    assert shown[0] == f"{head},parent,origin,repeat,config.x"
    assert [line.partition(",searcher")[0] for line in shown[1:]] == [
        "0,completed,,0.1,0.1,60.0,1,False,1,0,",
        "1,completed,,0.3,0.3,90.0,1,False,1,0,",
        "2,completed,,0.2,0.2,80.0,1,False,1,0,",
        "3,completed,,0.2,0.2,80.0,1,False,1,0,",
        "4,completed,,0.05,0.05,10.0,3,True,1,0,",
        "5,failed,crashed,,,,,,,0,",
        "6,completed,,0.4,0.4,70.0,2,False,1,0,",
        "7,failed,not_finite,,,,,,,0,",
    ]
    runs = run("export", tmp_path, "--table", "runs").output.splitlines()
    assert runs[5].startswith("4,0,0,1,0,completed,,0.05,0.05,10.0,")


def test_python_has_the_front_and_its_hypervolume(tmp_path: Path) -> None:
    results = trade_off(tmp_path)
    assert results.front.to_dict("list") == {
        "trial": [0, 2, 3, 1],
        "values.error": [0.1, 0.2, 0.2, 0.3],
        "values.speed": [60.0, 80.0, 80.0, 90.0],
        "resource": [1, 1, 1, 1],
        "picks": ["best error", "knee", "", "best speed"],
        "config.x": [0.0, 2.0, 3.0, 1.0],
    }
    assert results.hypervolume == pytest.approx(9.2)
    history = results.hypervolume_history
    assert history.attrs["reference"] == {"error": pytest.approx(0.43), "speed": 50.0}
    assert history[["seconds", "trial", "size"]].to_numpy().tolist() == [
        [60.0, 0, 1],
        [120.0, 1, 2],
        [180.0, 2, 3],
        [240.0, 3, 4],
    ]
    assert results.best_configurations(2)["values.speed"].tolist() == [80.0, 60.0]


def test_python_without_values_and_with_one_objective(tmp_path: Path) -> None:
    nothing = trade_off(tmp_path / "nothing", [], ended=False)
    assert (len(nothing.front), nothing.hypervolume, len(nothing.hypervolume_history)) == (0, None, 0)
    one = written(tmp_path / "one", journal([ran(0, 0.5)], objective={"metric": "loss"}))
    assert one.front["values.loss"].tolist() == [0.5]
    assert one.hypervolume is None


def test_a_study_of_optuna_has_directions_values_and_constraints(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from hpcsweep.exports.optuna import study_of

    study = study_of(trade_off(tmp_path), optuna.storages.InMemoryStorage())
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["error", "speed"]
    assert sorted(trial.number for trial in study.best_trials) == [0, 1, 2, 3]
    assert (study.trials[4].values, study.trials[4].system_attrs["constraints"]) == ([0.05, 10.0], [0.0, 0.8])


def test_tensorboard_has_a_value_for_each_objective(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("export", trade_off(tmp_path).path, "--format", "tensorboard").exit_code == 0
    events = EventAccumulator(str(tmp_path / "tensorboard/trial-00002"))
    events.Reload()
    tags = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    expected = {
        "sweep/value": 0.2,
        "sweep/value/error": 0.2,
        "sweep/value/speed": 80.0,
        "sweep/resource": 1.0,
    }
    assert tags == pytest.approx(expected)


# ---------------------------------------------------------------------- compare


def other(folder: Path, name: str, runs: list[Ran], **options: Any) -> Results:
    """A sweep of its own, with a seed of its own."""
    events = journal(runs, **options)
    started = events[0]
    assert isinstance(started, SweepStarted)
    identity = started.identity | {"searcher": {"name": name}}
    events[0] = msgspec.structs.replace(started, sweep=name, name=name, identity=identity)
    return written(folder / name, events)


def test_sweeps_are_compared_by_hypervolume_from_a_common_point(tmp_path: Path) -> None:
    one = other(tmp_path, "one", TRADE_OFF).path
    two = other(tmp_path, "two", [ran(0, 0.15, 85.0), ran(1, 0.05, 55.0)]).path
    found = json.loads(run("compare", one, two, "--json").output)
    assert (found["metric"], found["mode"]) == ("hypervolume", "max")
    # (0.435 - 0.1) * 10 + (0.435 - 0.2) * 20 + (0.435 - 0.3) * 10; (0.435 - 0.15) * 35 + (0.15 - 0.05) * 5
    assert [each["best"]["value"] for each in found["sweeps"]] == pytest.approx([9.4, 10.475])
    assert [each["best"]["trial"] for each in found["sweeps"]] == [2, 0]
    (note,) = found["notes"]
    other_point = "a point for these sweeps, with others it may be another"
    assert note == f"Hypervolumes are measured up to error 0.435, speed 50: {other_point}."
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"]) == ("two", "one")


def with_reference(error: float, speed: float) -> list[dict[str, Any]]:
    return [{**OBJECTIVES[0], "reference": error}, {**OBJECTIVES[1], "reference": speed}]


def test_hypervolumes_are_up_to_the_reference_point_of_the_sweep_file(tmp_path: Path) -> None:
    own = with_reference(1.0, 50.0)
    one = other(tmp_path, "one", TRADE_OFF, objective=own)
    assert one.hypervolume == pytest.approx((1 - 0.1) * 10 + (1 - 0.2) * 20 + (1 - 0.3) * 10)
    shown = run("status", one.path).output
    assert "hypervolume: 32 up to error 1, speed 50; " in shown
    volume = json.loads(run("status", "--json", one.path).output)["hypervolume"]
    assert (volume["reference"], volume["reference_settled"]) == ({"error": 1.0, "speed": 50.0}, True)
    two = other(tmp_path, "two", [ran(0, 0.15, 85.0)], objective=own)
    found = json.loads(run("compare", one.path, two.path, "--json").output)
    assert [each["best"]["value"] for each in found["sweeps"]] == pytest.approx([32.0, 0.85 * 35])
    note = "Hypervolumes are measured up to error 1, speed 50: the reference point of their sweep files."
    assert found["notes"] == [note]
    three = other(tmp_path, "three", [ran(0, 0.15, 85.0)], objective=with_reference(2.0, 50.0))
    _, differ = json.loads(run("compare", one.path, three.path, "--json").output)["notes"]
    assert differ == "Their sweep files give different reference points: none of them is taken."


def test_the_pause_before_an_extension_is_left_out_of_the_time() -> None:
    """As after a reference point was changed: an hour after the end."""
    found = journal()
    progress = SweepProgress.replay(found)
    before, end = progress.active_s, progress.now
    progress.apply(SweepExtended(end + 3600.0, {"objective": with_reference(2.0, 50.0)}, ("objective",)))
    assert progress.active_s == before
    progress.apply(SweepResumed(end + 3601.0))
    assert progress.active_s == before


def test_what_has_other_objectives_is_not_compared(tmp_path: Path) -> None:
    one = other(tmp_path, "one", TRADE_OFF).path
    two = other(tmp_path, "two", [ran(0, 0.15)], objective=OBJECTIVES[:1]).path
    done = run("compare", one, two)
    assert done.exit_code == 2
    assert done.stderr == (
        "hpcsweep: must have the same objective to be compared; leave out what measured something else, got "
        f"error (min), speed (max, at least 50) in {one}, error (min) in {two}\n"
    )


def test_sweeps_without_a_front_are_compared_too(tmp_path: Path) -> None:
    one = other(tmp_path, "one", TRADE_OFF).path
    two = other(tmp_path, "two", INFEASIBLE).path
    three = other(tmp_path, "three", []).path
    found = json.loads(run("compare", one, two, three, "--json").output)
    assert [each["best"] and each["best"]["value"] for each in found["sweeps"]] == [
        pytest.approx(9.2),
        0.0,
        None,
    ]
