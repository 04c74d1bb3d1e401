"""Programs that know nothing of hpcsweep, as they are, each with a sweep of at most 15 lines."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hpcsweep
from hpcsweep.cli import app
from hpcsweep.views.results import Results

PROGRAMS = Path(__file__).parent / "programs"


def swept(folder: Path, name: str, *more: str) -> Results:
    """The results of the sweep `<name>.yaml`, run in a copy of the programs."""
    shutil.copytree(PROGRAMS, folder / "it's mine")
    with contextlib.chdir(folder / "it's mine"):
        argv = ["launch", f"{name}.yaml", "--quiet", "--cluster", "local", "--set", "cluster.slots=2", *more]
        done = CliRunner().invoke(app, argv)
    assert (done.exit_code, done.stderr) == (0, "")
    (results,) = (folder / "it's mine/results").iterdir()
    return hpcsweep.load(results)


def reports(results: Results, metric: str) -> dict[int, dict[int, float]]:
    """Trial -> step -> the metric."""
    found: dict[int, dict[int, float]] = {}
    for row in results.metrics.dropna(subset=[metric]).to_dict("records"):
        found.setdefault(int(row["trial"]), {})[int(row["step"])] = row[metric]
    return found


def test_each_sweep_is_short() -> None:
    sizes = {path.name: len(path.read_text().splitlines()) for path in PROGRAMS.glob("*.yaml")}
    assert len(sizes) == 5
    assert max(sizes.values()) <= 15
    used = [path for path in PROGRAMS.iterdir() if path.suffix != ".yaml" and "hpcsweep" in path.read_text()]
    assert used == []


@pytest.mark.parametrize(("name", "metric"), [("lightning_fit", "val/loss"), ("trainer_fit", "eval_loss")])
def test_the_logs_of_a_framework_are_its_metrics(tmp_path: Path, name: str, metric: str) -> None:
    results = swept(tmp_path, name, "--set", "budget.trials=1")
    found = reports(results, metric)[0]
    assert [*found] == [1, 2]
    assert results.best is not None
    assert (results.best["value"], results.best["resource"]) == (found[2], 2)


def test_the_scores_of_a_cross_validation_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    data = load_iris(return_X_y=True)
    found = reports(swept(tmp_path, "cross_validate"), "accuracy")
    expected = {
        trial: {1: pytest.approx(cross_val_score(tree, *data, cv=5).mean())}
        for trial, tree in enumerate(
            DecisionTreeClassifier(max_depth=depth, random_state=0) for depth in (1, 3)
        )
    }
    assert found == expected


def test_what_awk_prints_is_read(tmp_path: Path) -> None:
    found = reports(swept(tmp_path, "descend"), "err")
    assert {trial: list(values) for trial, values in found.items()} == {0: [1, 2, 3], 1: [1, 2, 3]}


def test_a_table_with_decimal_commas_is_read(tmp_path: Path) -> None:
    found = reports(swept(tmp_path, "fit"), "r2")
    assert found == {0: {1: 0.11, 2: 0.12}, 1: {1: 0.21, 2: 0.22}, 2: {1: 0.31, 2: 0.32}}


def test_init_knows_that_the_epochs_of_lightning_count_from_0() -> None:
    with contextlib.chdir(PROGRAMS):
        done = CliRunner().invoke(app, ["init", "lightning_fit.py", "--output", "-"])
    assert "\n  first_step: 0\n" in done.stdout
