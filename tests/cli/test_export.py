"""The verb `export`: where it writes, and what it says of requests that cannot be."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.store.layout import Layout
from tests.exports.exported import exported


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    exported(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, ["export", *argv])


def test_trials_go_to_standard_output_as_csv(here: Path) -> None:
    result = run("s")
    assert result.exit_code == 0, result.output
    assert [line.partition(",")[0] for line in result.stdout.splitlines()] == ["trial", *"01234"]


def test_a_table_goes_into_a_file(here: Path) -> None:
    result = run("s", "--table", "attempts", "--format", "json", "--output", "attempts.json")
    assert (result.exit_code, result.output) == (0, "")
    endings = [row["ending"] for row in json.loads((here / "attempts.json").read_text())]
    assert endings == ["completed", "completed", "failed", "stopped", "preempted", "completed"]


@pytest.mark.parametrize("format_", ["csv", "json", "parquet"])
def test_all_tables_go_into_a_folder(here: Path, format_: str) -> None:
    result = run("s", "--table", "all", "--format", format_, "--output", "out/tables")
    assert (result.exit_code, result.output) == (0, "")
    files = sorted((here / "out" / "tables").iterdir())
    assert [file.name for file in files] == [
        f"{name}.{format_}" for name in ("attempts", "metrics", "runs", "trials")
    ]
    read: Any = getattr(pd, f"read_{format_}")
    assert [len(read(file)) for file in files] == [6, 14, 6, 5]


@pytest.mark.parametrize(
    ("format_", "target", "opener"),
    [
        ("tensorboard", "s/tensorboard", "tensorboard --logdir"),
        ("optuna", "s/optuna-journal.log", "optuna-dashboard"),
    ],
)
def test_a_whole_sweep_goes_into_its_own_folder_or_where_it_is_told_to(
    here: Path, format_: str, target: str, opener: str
) -> None:
    result = run("s", "--format", format_)
    assert result.output == f"5 trials in {target}; look at them: {opener} {target}\n"
    assert (here / target).exists()
    result = run("s", "--format", format_, "--output", "my place")
    assert result.output == f"5 trials in my place; look at them: {opener} 'my place'\n"
    assert (here / "my place").exists()


REFUSED = {
    "--format cvs": "--format cvs: unknown format; did you mean 'csv'?",
    "--format xls5": (
        "--format xls5: unknown format; expected one of: csv, json, parquet, tensorboard, optuna"
    ),
    "--table trails": "--table trails: unknown table; did you mean 'trials'?",
    "--table runs --format optuna": (
        "--table runs: goes with csv, json, parquet; optuna takes the whole sweep"
    ),
    "--table all": "--output: needed for --table all: the folder for the files",
    "--format parquet": "--output: needed for parquet, which is no text",
    "--output s": "--output s: is a folder; give a file, or --table all for every table there",
    "--output nowhere/t.csv": (
        "nowhere/t.csv: cannot be written: No such file or directory: give another place with --output"
    ),
    "--table all --output lr.yaml": (
        "lr.yaml: cannot be written: File exists: give another place with --output"
    ),
    "--format tensorboard --output lr.yaml": "lr.yaml: is a file: give a folder with --output",
    "--format tensorboard --output lr.yaml/tb": (
        "lr.yaml/tb: cannot be written: Not a directory: give another place with --output"
    ),
    "--format optuna --output nowhere/o.log": (
        "nowhere/o.log: cannot be written: No such file or directory: give another place with --output"
    ),
    "--format optuna --output s": (
        "s: exists, and is no export or was written to by others since: "
        "remove it, or give another file with --output"
    ),
}


@pytest.mark.parametrize("argv", REFUSED)
def test_wrong_requests_say_what_to_do_and_write_nothing(here: Path, argv: str) -> None:
    before = sorted(here.rglob("*"))
    result = run("s", *argv.split())
    assert result.stderr == f"hpcsweep: {REFUSED[argv]}\n"
    assert (result.exit_code, result.stdout) == (2, "")
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("format_", ["tensorboard", "optuna"])
def test_a_missing_package_is_reported_with_its_extra(
    here: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("hpcsweep.cli.export")  # by its path it would be the verb of that name
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = run("s", "--format", format_)
    assert result.exit_code == 2
    assert result.stderr == (
        f"hpcsweep: --format {format_}: needs {format_}, which is not installed; "
        f"pip install 'hpcsweep[{format_}]'\n"
    )


@pytest.mark.parametrize("format_", ["tensorboard", "optuna"])
def test_exporting_a_sweep_without_trials_is_an_error(tmp_path: Path, format_: str) -> None:
    folder = exported(tmp_path, events=())
    result = run(str(folder), "--format", format_)
    assert result.exit_code == 2
    assert result.stderr == f"hpcsweep: {folder}: nothing to export: no trial has been started yet\n"


OUTPUTS: dict[str, list[str]] = {
    "report": ["report", "s"],
    "export": ["export", "s", "--table", "metrics"],
    "export of all": ["export", "s", "--format", "optuna"],
}


@pytest.mark.parametrize("argv", OUTPUTS.values(), ids=OUTPUTS)
def test_output_follows_links_and_writes_into_pipes(here: Path, argv: list[str]) -> None:
    (here / "link").symlink_to("target")
    os.mkfifo(here / "pipe")
    linked = CliRunner().invoke(app, [*argv, "--output", "link"])
    with (here / "got").open("wb") as got, subprocess.Popen(["cat", here / "pipe"], stdout=got) as reader:
        piped = CliRunner().invoke(app, [*argv, "--output", "pipe"])
        if piped.exit_code:
            reader.kill()
    assert (linked.exit_code, piped.exit_code) == (0, 0), piped.output
    assert (os.readlink(here / "link"), stat.S_ISFIFO(os.stat(here / "pipe").st_mode)) == ("target", True)
    assert (here / "target").read_bytes()[:20] == (here / "got").read_bytes()[:20] != b""


@pytest.mark.parametrize("argv", OUTPUTS.values(), ids=OUTPUTS)
def test_a_dash_writes_to_standard_output_alone(here: Path, argv: list[str]) -> None:
    whole = CliRunner().invoke(app, [*argv, "--output", "file"])
    piped = CliRunner().invoke(app, [*argv, "--output", "-"])
    assert (whole.exit_code, piped.exit_code) == (0, 0)
    first = (here / "file").read_bytes()[:60]
    assert piped.stdout_bytes[:20] == first[:20]
    assert not (here / "-").exists()


@pytest.mark.parametrize("argv", [["export", "s", "--table", "metrics"], ["report", "s"]])
def test_an_unreadable_file_is_named_and_the_rest_is_shown(here: Path, argv: list[str]) -> None:
    trial = Layout(here / "s").trial(0)
    file = trial.root / "metrics-0.9.0.jsonl"
    os.mkfifo(file)
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    place = file.relative_to(here / "s")
    assert result.stderr == f"skipped: {place}: cannot be read: is a pipe, not a file\n"
