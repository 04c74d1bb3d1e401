"""`simulate` as it is called: what it prints, as text and as JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from hpcsweep.cli.simulate import SimulateOptions, run
from tests.simulation.specs import write_spec

CODE = """\
def curve(config, step):
    return config["x"] ** 2 + 1 / step

def nothing(config, step):
    return float("nan")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_spec(tmp_path)
    (tmp_path / "objective.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wanted(*overrides: str, **others: Any) -> SimulateOptions:
    nothing: dict[str, Any] = {
        "objective": "objective.py:curve",
        "curves": None,
        "comparisons": [],
        "seed": None,
        "repeat": 1,
        "results": None,
        "output": None,
    }
    return SimulateOptions(overrides, **(nothing | others))


FIFO = ("scheduler={name: fifo, max_resource: 4}", "budget.trials=3", "cluster.max_gpus=2")


def test_one_simulation_prints_all_figures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Path("lr.yaml"), wanted(*FIFO, "enqueue=[{x: 0.5}, {x: 0.25}, {x: 0.125}]"), json=False)
    assert capsys.readouterr().out == (
        "lr: objective objective.py:curve; seed 0; 2 places of 1 GPU\n"
        "finished: all trials are done\n"
        "  makespan          1m20s; no packing is quicker than 1m, the longest trial takes 40s\n"
        "  GPU-hours         0.03333\n"
        "  trials            3; 3 runs, 0 failed\n"
        "  interruptions     none\n"
        "  idle share        25.0%; 0.0% until the last trial started (40s), "
        "0.0% until the last run started (40s)\n"
        "  best loss\n"
        "               8s  none yet\n"
        "              20s  none yet\n"
        "              40s  0.3125\n"
        "               1m  0.3125\n"
        "            1m20s  0.265625\n"
        "  trial 2 at 4: x=0.125\n"
    )
    assert {path.name for path in here.iterdir()} <= {"__pycache__", "lr.yaml", "objective.py"}


def test_several_seeds_print_medians(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Path("lr.yaml"), wanted(*FIFO, repeat=3, seed=5), json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lr: objective objective.py:curve; seeds 5 to 7; 2 places of 1 GPU"
    assert "  makespan          1m20s (1m20s to 1m20s)" in lines
    assert "  idle share        25.0% (25.0% to 25.0%)" in lines


def test_a_comparison_is_a_table_and_a_plot(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = wanted(comparisons=["scheduler=hyperband,halving", "searcher=random"], repeat=2)
    run(Path("lr.yaml"), both, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["best", "loss", "time", "to", "target", "makespan", "GPU-hours", "idle"]
    assert [line.split()[0] for line in lines[2:4]] == ["scheduler=hyperband", "scheduler=halving"]
    assert lines[4:] == [
        "medians of 2 seeds; the target of a seed is the worst final value of all variants",
        "plot: lr-compared.html",
    ]
    assert "plotly" in (here / "lr-compared.html").read_text(encoding="utf-8")


def test_json_has_every_simulation(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Path("lr.yaml"), wanted(*FIFO, repeat=2, output=here / "plot.html"), json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["mode"], found["plot"]) == ("loss", "min", str(here / "plot.html"))
    [variant] = found["variants"]
    assert variant["makespan_s"] == 80.0
    assert [one["seed"] for one in variant["simulations"]] == [0, 1]
    one = variant["simulations"][0]
    assert one["hours"] == pytest.approx(120 / 3600)
    assert one["value"] == one["values"][-1][1] == one["best"]["value"]


def test_kept_results_serve_as_curves(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Path("lr.yaml"), wanted(results=here / "kept"), json=False)
    first = capsys.readouterr().out.splitlines()
    run(Path("lr.yaml"), wanted(objective=None, curves=here / "kept"), json=False)
    again = capsys.readouterr().out.splitlines()
    assert again[0] == f"lr: curves of {here}/kept; seed 0; 4 places of 1 GPU"
    assert again[1:] == first[1:]


def test_output_without_a_curve_says_that_only_times_count(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Path("lr.yaml"), wanted(*FIFO, objective=None), json=False)
    assert "a built-in curve, so look at times alone" in capsys.readouterr().out


def test_simulate_exits_with_1_if_no_run_has_a_value(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        run(Path("lr.yaml"), wanted(*FIFO, objective="objective.py:nothing"), json=False)
    assert left.value.exit_code == 1
    assert "no run gave a value" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "others", "words"),
    [
        ((), {"curves": Path("x")}, "--curves: give either it or --objective"),
        ((), {"results": Path("x"), "repeat": 2}, "--results: holds a single sweep"),
        ((), {"objective": "objective.py:curv"}, "objective: objective.py: has no 'curv'"),
        (("cluster.simulated.spread=0",), {}, "cluster.simulated.spread: must be >= 1, got 0"),
        (
            ("cluster.max_gpus=16", "resources.gpus=5"),
            {},
            "cluster.simulated.gpus: must be at least the 5 of one task",
        ),
    ],
)
def test_invalid_options_exit_with_2(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    others: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(typer.Exit) as left:
        run(Path("lr.yaml"), wanted(*overrides, **others), json=False)
    assert left.value.exit_code == 2
    assert words in capsys.readouterr().err
