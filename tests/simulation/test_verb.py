"""`hpcsweep simulate` on the command line, with the example that comes with the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app

SWEEPS = Path(__file__).parents[2] / "sweeps"
SPEC = str(SWEEPS / "simulated.yaml")
CURVE = f"{SWEEPS / 'curves.py'}:curve"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def simulate(*argv: str) -> Result:
    return CliRunner().invoke(app, ["simulate", SPEC, "--objective", CURVE, *argv])


def test_the_example_runs_as_it_says_and_the_same_each_time(elsewhere: Path) -> None:
    first, second = simulate("--json"), simulate("--json")
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert first.stdout == second.stdout
    (variant,) = json.loads(first.stdout)["variants"]
    (one,) = variant["simulations"]
    assert (one["ending"], one["places"], one["gpus"]) == ("finished", 32, 1)
    assert (one["trials"], one["runs"]) == (143, 206)
    assert one["makespan_s"] >= one["bound_s"] >= one["chain_s"] > 0
    assert 0 < one["value"] < 0.1
    assert list(elsewhere.iterdir()) == []


def test_compare_takes_several_values_before_other_options(elsewhere: Path) -> None:
    wanted = ["--compare", "scheduler=hyperband,halving", "searcher=random,sobol", "--repeat", "2"]
    result = simulate(*wanted, "--seed", "5", "--set", "scheduler.max_resource=9", "--output", "c.html")
    assert result.exit_code == 0, result.output
    head, _, *rows, target, plot = result.stdout.splitlines()
    assert head == f"simulated: objective {CURVE}; seeds 5 to 6; 32 places of 1 GPU"
    assert [row.split("  ")[0] for row in rows] == [
        "scheduler=hyperband searcher=random",
        "scheduler=hyperband searcher=sobol",
        "scheduler=halving searcher=random",
        "scheduler=halving searcher=sobol",
    ]
    assert target.startswith("medians of 2 seeds; ")
    assert plot == "plot: c.html"
    assert [path.name for path in elsewhere.iterdir()] == ["c.html"]
    repeated = simulate(
        "--compare", wanted[1], "--compare", wanted[2], *wanted[3:], "--seed", "5",
        "--set", "scheduler.max_resource=9", "--output", "c.html",
    )  # fmt: skip
    assert repeated.stdout == result.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["lr=0.1"], "lr=0.1: must come after --compare"),
        (["--compare", "scheduler"], "--compare scheduler: must be KEY=VALUE,VALUE,..."),
        (["--compare", "scheduler=asha,hyperbnd"], "did you mean 'hyperband'?"),
        (["--set", "cluster.simulated.nodes=0"], "cluster.simulated.nodes: must be >= 1, got 0"),
        (["--set", "resources.gpus=9"], "cluster.simulated.gpus: must be at least the 9 of one task, got 8"),
        (["--repeat", "0"], "'--repeat'"),
    ],
)
def test_invalid_options_exit_with_2(elsewhere: Path, argv: list[str], words: str) -> None:
    result = simulate(*argv)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("verb", ["launch", "plan"])
def test_a_simulated_cluster_trains_nothing(elsewhere: Path, verb: str) -> None:
    result = CliRunner().invoke(app, [verb, SPEC, "--cluster", "simulated"])
    assert result.exit_code == 2
    assert result.stderr == (
        f"hpcsweep: {SPEC}: cluster.name: simulated trains nothing; use `hpcsweep simulate`, "
        "or give another one, as with --cluster local\n"
    )
    assert list(elsewhere.iterdir()) == []


def test_launching_the_example_gives_the_values_of_its_curve(elsewhere: Path) -> None:
    argv = ["--quiet", "--cluster", "local", "--set", "scheduler.max_resource=3", "--set", "budget.trials=4"]
    launched = CliRunner().invoke(app, ["launch", SPEC, *argv])
    assert launched.exit_code == 0, launched.output
    runs = _runs(elsewhere / "results/simulated")
    argv = [*argv[3:], "--results", "s", "--set", "cluster.simulated={}"]
    simulated = simulate(*argv)
    assert simulated.exit_code == 0, simulated.output
    assert _runs(elsewhere / "s") == runs
    assert len(runs) >= 4


def _runs(folder: Path) -> list[tuple[Any, ...]]:
    """Of each run what was trained, up to where, and its value."""
    result = CliRunner().invoke(app, ["export", str(folder), "--table", "runs", "--format", "json"])
    keys = ("trial", "rung", "resource", "value")
    return sorted(tuple(row[key] for key in keys) for row in json.loads(result.stdout))
