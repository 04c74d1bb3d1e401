"""What the command line says of a command: in `plan`, at the start, in logs and of failures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app

SPEC = """\
name: s
train: {command: "echo error={lr} {args:-name value}", metrics: 'error=(?P<error>\\S+)'}
objective: {metric: error}
space: {lr: [1, 2], text: "two words"}
searcher: random
budget: {trials: 2}
cluster: {name: local, slots: 1}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "s.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, argv)


def test_the_command_is_shown_and_where_the_sweep_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = run("plan", "s.yaml").stdout.splitlines()
    assert plan[2] == "command of a run, for example: echo error=2 -text 'two words'"
    folder = here / "results" / "s"
    at = ", on this machine, 1 run at a time on CPUs (as asked for)"
    first = run("launch", "s.yaml", "--set", "budget.trials=1")
    assert first.stdout.splitlines()[0] == f"hpcsweep: s in {folder} (new){at}"
    lines = run("logs", "results/s", "0").stdout.splitlines()
    (at_line,) = [n for n, line in enumerate(lines) if line.startswith("[hpcsweep] command: echo error=")]
    assert lines[at_line].endswith(" -text 'two words'")
    printed = lines[at_line].removeprefix("[hpcsweep] command: echo ").replace("'", "")
    assert lines[at_line + 1] == printed
    second = run("launch", "s.yaml")
    assert second.stdout.splitlines()[0] == f"hpcsweep: s in {folder} (carries on, 1 run done){at}"

    other = here / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    anew = run("launch", "../s.yaml", "--once").stdout.splitlines()
    assert anew[:2] == [
        f"hpcsweep: s in {other}/results/s (new){at}",
        (
            f"note: {here}/results/s holds a sweep of this name (2 runs done); to carry it on: "
            "hpcsweep launch ../s.yaml --results ../results/s"
        ),
    ]


def test_names_with_dots_and_slashes_are_names_everywhere(here: Path) -> None:
    text = SPEC.replace("{lr} {args:-name value}", "{optimizer.lr} {args}").replace("trials: 2", "trials: 4")
    space = "{optimizer.lr: {type: float, low: 1, high: 2}, model/depth: [1, 2], a.b: [0, 3]}"
    spec = text.replace('{lr: [1, 2], text: "two words"}', space)
    (here / "s.yaml").write_text(f"{spec}constraints: ['`optimizer.lr` * `model/depth` < 5']\n")
    assert run("launch", "s.yaml", "--once").exit_code == 3
    given = ("optimizer.lr=1.25", "model/depth=2", "a.b=3")
    assert run("enqueue", "results/s", *given).exit_code == 0
    done = run("launch", "s.yaml", "--set", "space.optimizer.lr.high=2.0", "--set", "budget.trials=5")
    assert done.exit_code == 0, done.output
    assert "command of a run, for example: echo error=" in run("plan", "s.yaml").stdout
    best = run("best", "results/s").stdout.splitlines()
    assert [line.partition(":")[0].strip() for line in best[1:]] == ["optimizer.lr", "model/depth", "a.b"]
    assert "optimizer.lr=1.25 model/depth=2 a.b=3" in run("explain", "results/s", "4").stdout
    table = run("export", "results/s", "--format", "csv").stdout.splitlines()
    assert {"config.optimizer.lr", "config.model/depth", "config.a.b"} <= set(table[0].split(","))
    for argv in (("report",), ("export", "--format", "tensorboard"), ("export", "--format", "optuna")):
        result = run(argv[0], "results/s", *argv[1:])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("verb", ["plan", "launch", "doctor"])
def test_a_parameter_that_the_command_never_uses_is_known_before(here: Path, verb: str) -> None:
    (here / "p.py").write_text("print('error=1')\n")
    result = run(verb, "s.yaml", "--set", "train.command='{python} p.py'")
    assert (result.exit_code, result.stderr) == (
        2,
        (
            "hpcsweep: s.yaml: train.command: never uses the parameter lr: trials would differ in nothing "
            "that the program sees; add {lr}, or {args} for all of them "
            "(train.check: false turns this check off)\n"
        ),
    )
    assert not (here / "results").exists()


def test_a_warning_is_said_and_stops_nothing(here: Path) -> None:
    (here / "run.sh").write_text("echo error=1\n")
    given = ("--set", "train.command=sh run.sh")
    words = "never uses the parameter lr: trials would differ in nothing that the program sees; add {lr}, or"
    for verb in ("plan", "launch", "doctor"):
        result = run(verb, "s.yaml", *given)
        assert (words in result.stdout, result.exit_code) == (True, 0), result.output


def test_a_start_that_fails_quotes_the_command_as_run(here: Path) -> None:
    result = run("launch", "s.yaml", "--set", "train.check=false", "--set", "train.command=nosuch --lr {lr}")
    assert result.exit_code == 1
    status = run("status", "results/s").stdout
    assert "nosuch --lr 2: cannot be started: [Errno 2] No such file or directory: 'nosuch'" in status


def test_setup_runs_before_each_task_on_this_machine(here: Path) -> None:
    given = ["--set", "train.command=printenv LINE_{lr}", "--set", "cluster.setup=['. ./set.sh', cd /]"]
    (here / "set.sh").write_text("export LINE_1=error=4 LINE_2=error=5\n")
    result = run("launch", "s.yaml", *given)
    assert result.exit_code == 0, result.output
    assert "best: error 4 (trial " in result.stdout


def test_a_setup_that_fails_is_said_and_nothing_is_trained(here: Path) -> None:
    result = run("launch", "s.yaml", "--set", "cluster.setup=['ls nosuch']")
    assert result.exit_code == 1
    words = "cluster.setup: 'ls nosuch' failed with exit status 2: ls: cannot access 'nosuch': No such file"
    assert words in result.stdout


def test_an_interpreter_that_is_gone_is_an_error_in_words(here: Path) -> None:
    python = here / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    command = f"train.command=sh -c 'rm {python}; echo error={{lr}}'"
    given = ["--set", f"cluster.python={python}", "--set", command]
    result = run("launch", "s.yaml", *given)
    gone = (
        f"hpcsweep: {python}: the Python that runs the tasks is gone: bring it back, or launch with another"
    )
    assert (result.exit_code, result.stderr.splitlines()[:1]) == (2, [gone]), result.output
    again = run("launch", "s.yaml", *given)
    missing = f"hpcsweep: s.yaml: cluster.python: there is no such program on this machine: {python}\n"
    assert (again.exit_code, again.stderr) == (2, missing)


def test_a_command_that_has_begun_is_carried_on_as_it_is(here: Path) -> None:
    assert run("launch", "s.yaml", "--set", "budget.trials=1").exit_code == 0
    (here / "p.py").write_text("print('error=1')\n")
    again = run("launch", "s.yaml", "--set", "train.command='{python} p.py'")
    assert again.exit_code == 0, again.output
