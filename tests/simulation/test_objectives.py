"""Whole sweeps with several objectives, on the simulated cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import Config
from hpcsweep.core.objectives import dominates
from hpcsweep.core.state import SweepState
from hpcsweep.simulation import simulate, synthetic_curves
from hpcsweep.spec import load_spec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

SPEC = """\
name: both
train: {function: "trainer.py:train"}
objective: [{metric: error}, {metric: speed, mode: max, at_least: 0.2}]
space: {x: {type: float, low: 0.0, high: 1.0}, y: {type: float, low: 0.0, high: 1.0}}
resources: {gpus: 1}
cluster: {max_gpus: 4, poll: 1, grace: 5, settle: 20, simulated: {gpus: 4, seconds_per_unit: 10}}
"""

SCHEDULERS = {
    "fifo": "{name: fifo, max_resource: 4}\nbudget: {trials: 12}",
    "halving": "{name: halving, max_resource: 9, eta: 3}",
    "hyperband": "{name: hyperband, max_resource: 9}",
    "asha": "{name: asha, max_resource: 9}\nbudget: {trials: 12}",
    "asha, stopping": "{name: asha, max_resource: 9, stopping: true}\nbudget: {trials: 12}",
    "pbt": "{name: pbt, population: 4, interval: 3, max_resource: 9}",
    "with rules": "{name: fifo, max_resource: 9}\nbudget: {trials: 12}\nstop: [median, plateau]",
}


def curve(config: Config, step: int, seed: int) -> dict[str, float]:
    return {"speed": config["x"] * config["y"], "error": config["x"] ** 2 + 1 / step, "other": 0.0}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_sweep_ends_with_the_front_of_its_values(tmp_path: Path, scheduler: str) -> None:
    path = tmp_path / "s.yaml"
    searcher = "random" if scheduler == "pbt" else "tpe"
    path.write_text(f"{SPEC}searcher: {searcher}\nscheduler: {SCHEDULERS[scheduler]}\n")
    folder = tmp_path / "results"
    found = simulate(load_spec(path), curve, folder=folder)
    assert (found.ending, found.failures) == ("finished", 0)
    state = SweepState.replay(read_journal(Layout(folder)).events)
    values = {each.trial: each for trial in state.trials if (each := state.newest(trial.trial)) is not None}
    for best in values.values():
        config, (error, speed) = best.config, best.values
        assert error == best.value
        assert speed == pytest.approx(config["x"] * config["y"])
    keys = {trial: state.objectives.key(each.value, each.values) for trial, each in values.items()}
    expected = {trial for trial, key in keys.items() if not any(dominates(k, key) for k in keys.values())}
    assert {each.trial for each in state.front} == expected
    assert state.best in state.front


def test_status_and_best_show_the_front(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"{SPEC}searcher: random\nscheduler: {SCHEDULERS['fifo']}\n")
    simulate(load_spec(path), curve, folder=tmp_path / "results")
    runner = CliRunner()
    shown = runner.invoke(app, ["best", str(tmp_path / "results")]).output.splitlines()
    found = json.loads(runner.invoke(app, ["status", "--json", str(tmp_path / "results")]).output)
    size = len(found["front"])
    assert size > 1
    assert shown[1].split()[0] == str(found["front"][0]["trial"])
    assert shown[1 + size].startswith(f"front: {size} of ")
    assert shown[-1] == "simulated: nothing was trained"
    assert found["best"]["values"] in [row["values"] for row in found["front"]]
    assert found["hypervolume"]["reference"]["speed"] == 0.2
    assert found["hypervolume"]["value"] > 0
    status = runner.invoke(app, ["status", str(tmp_path / "results")]).output
    assert f"best: front of {size}, knee error " in status
    assert "hypervolume: " in status


def test_a_curve_without_one_of_the_objectives_fails_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"{SPEC}searcher: random\nscheduler: {{name: fifo}}\nbudget: {{trials: 2}}\n")
    found = simulate(load_spec(path), lambda config, step, seed: {"error": 1.0})
    assert "the curve gave no 'speed' but 'error'" in found.reason
    one = simulate(load_spec(path), lambda config, step, seed: 1.0)
    assert "the curve gave 1 values for 2 objectives" in one.reason


def test_the_built_in_curves_have_their_optima_apart(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"{SPEC}searcher: random\nscheduler: {{name: fifo}}\nbudget: {{trials: 2}}\n")
    spec = load_spec(path)
    measured = synthetic_curves(spec.space, spec.objectives)
    assert measured({"x": 0.3, "y": 0.3}, 4, 0) == pytest.approx([0.5, 0.5 * (1 - 0.16)])


def test_repeats_are_compared_by_the_mean_of_each_objective(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"{SPEC}searcher: random\nscheduler: {{name: hyperband, max_resource: 3}}\nrepeats: 2\n")

    def noisy(config: Config, step: int, seed: int) -> tuple[float, float]:
        return seed % 7, seed % 5 + 1.0

    folder = tmp_path / "results"
    simulate(load_spec(path), noisy, folder=folder)
    state = SweepState.replay(read_journal(Layout(folder)).events)
    best = state.front[0]
    runs = [state.trials[best.trial + repeat].runs[best.rung] for repeat in range(2)]
    assert best.values == tuple(sum(column) / 2 for column in zip(*(run.values for run in runs), strict=True))
