"""Scripts that are written for hpcsweep, and odd files: what `init` makes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app

SWEEPS = Path(__file__).parents[2] / "sweeps"


def proposed(script: Path) -> list[str]:
    """The spec without its comments."""
    done = CliRunner().invoke(app, ["init", str(script), "-o", "-"])
    assert done.exit_code == 0, done.output
    lines = [line.partition(" #")[0].rstrip() for line in done.output.splitlines()]
    return [line for line in lines if line and not line.lstrip().startswith("#")]


def test_a_script_that_asks_for_its_trial_is_swept_over_what_it_asks_for() -> None:
    assert proposed(SWEEPS / "digits.py") == [
        "name: digits",
        "train:",
        '  command: "{python} digits.py"',
        "objective: {metric: val_error, mode: min}",
        "space:",
        "  lr: {type: float, low: 3e-5, high: 0.03, log: true}",
        "  batch_size: {type: ordinal, values: [8, 16, 32, 64, 128]}",
        "  channels: {type: ordinal, values: [4, 8, 16, 32]}",
        "  dropout: {type: float, low: 0.0, high: 0.5}",
        "  weight_decay: {type: float, low: 1e-7, high: 0.0001, log: true}",
        "  momentum: {type: float, low: 0.5, high: 0.99}",
        "scheduler: {name: asha, max_resource: 5, eta: 3}",
        "budget: {trials: 50}",
        "resources: {gpus: 1, cpus: 1}",
    ]


@pytest.mark.parametrize(
    ("script", "objective"), [("digits_lightning", "val_error"), ("digits_transformers", "eval_loss")]
)
def test_a_script_that_reports_by_a_callback_needs_no_pattern(script: str, objective: str) -> None:
    spec = proposed(SWEEPS / f"{script}.py")
    assert spec[2:4] == [
        f'  command: "{{python}} {script}.py"',
        f"objective: {{metric: {objective}, mode: min}}",
    ]


def test_reported_costs_are_offered_as_further_objectives() -> None:
    done = CliRunner().invoke(app, ["init", str(SWEEPS / "digits_front.py"), "-o", "-"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    at = lines.index("objective: {metric: val_error, mode: min}")
    assert lines[at + 2] == "# objective: [{metric: val_error, mode: min}, {metric: size, mode: min}]"
    assert (
        "objective: [" not in CliRunner().invoke(app, ["init", str(SWEEPS / "digits.py"), "-o", "-"]).output
    )


FUNCTION = """\
from hpcsweep import Trial


def train(trial: Trial) -> None:
    lr, depth = trial.config["lr"], trial.config.get("depth", 2)
    for step in trial.steps():
        trial.report(step, **{"val/error": lr / depth / step})
"""


def test_a_function_that_gets_a_trial_is_launched_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(FUNCTION)
    done = CliRunner().invoke(app, ["init", "model.py"])
    assert done.output.splitlines() == [
        "wrote sweep.yaml",
        "  function: model.py:train",
        "  space: lr, depth",
        "  objective: val/error, min",
        "next: hpcsweep try sweep.yaml",
    ]
    argv = ["launch", "sweep.yaml", "-q", "--cluster", "local", "--set", "budget.trials=1"]
    done = CliRunner().invoke(app, argv)
    assert (done.exit_code, "best: val/error" in done.output) == (0, True), done.output


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16"])
def test_a_script_of_windows_is_read_where_python_reads_it(form: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from hpcsweep import current_trial\ncurrent_trial(lr=0.1).report(1, loss=2)\n", encoding=form
    )
    done = CliRunner().invoke(app, ["init", str(script), "-o", "-"])
    assert (done.exit_code == 0) == (form == "utf-8-sig")


def test_what_is_no_script_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text("x = " + "-" * 20_000 + "1\n")
    (tmp_path / "binary.py").write_bytes(bytes(range(256)))
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "book.ipynb").write_text('{"cells": []}')
    (tmp_path / "sweep.yaml").write_text("train: {command: x}\n")
    said = {
        name: CliRunner().invoke(app, ["init", str(tmp_path / name), "-o", "-"]).output.strip()
        for name in ("deep.py", "binary.py", "pipe.py", "book.ipynb", "sweep.yaml")
    }
    assert {name: text.rpartition(f"{name}: ")[2].partition(":")[0] for name, text in said.items()} == {
        "deep.py": "is not Python that this version can read",
        "binary.py": "is not text",
        "pipe.py": "is no regular file",
        "book.ipynb": "is a notebook",
        "sweep.yaml": "is no script of a known language, and not executable",
    }


def test_the_arguments_of_several_parsers_are_said_to_be_those_of_several(tmp_path: Path) -> None:
    one = (
        "import argparse\n"
        "def {0}():\n"
        "    p = argparse.ArgumentParser()\n"
        "    p.add_argument('--{1}', type=float)\n"
    )
    (tmp_path / "train.py").write_text(one.format("train", "lr") + one.format("test", "dropout"))
    done = CliRunner().invoke(app, ["init", str(tmp_path / "train.py"), "-o", "-"])
    assert "  # of 2 parsers: take out what the one for training does not know\n" in done.output
