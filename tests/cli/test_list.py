"""`list` and `status` of several folders."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hpcsweep
from hpcsweep.cli import app
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    Outcome,
    RunFinished,
    RunId,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout

SPEC = """
name: lr
train: {command: "true"}
objective: {metric: loss}
space: {x: {type: float, low: 0, high: 1}}
searcher: random
scheduler: {name: fifo, max_resource: 3}
budget: {trials: 4}
"""
EVENTS: list[AnyEvent] = [
    SweepStarted("cafe01", "lr", 100.0, {"objective": {"metric": "loss", "mode": "min"}}),
    *(TrialCreated(trial, {"x": trial / 10}, 0, 3) for trial in range(4)),
    BatchPlanned("a", 200.0, tuple((RunId(t, 0),) for t in range(4)), 0, 4, "local", 1800),
    BatchSubmitted("a", "11", 201.0),
    RunFinished(0, 0, Outcome.COMPLETED, 0.5, 3, batch="a", seconds=900.0),
]
ENDED = SweepEnded(1200.0, SweepOutcome.STOPPED, "on request")


def write(folder: Path, events: list[AnyEvent], *, age_s: float, spec: str = SPEC) -> None:
    journal = Journal.open(Layout(folder))
    journal.commit(events)
    journal.release()
    Layout(folder).spec.write_text(spec)
    for segment in Layout(folder).journal.iterdir():
        os.utime(segment, (time.time() - age_s,) * 2)


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """Three sweeps, of which one is damaged; folders that are none; a sweep within a sweep."""
    root = tmp_path / "results"
    write(root / "one", EVENTS, age_s=7200)
    write(root / "deep" / "two", [*EVENTS, ENDED], age_s=10_800, spec="nonsense: [")
    write(root / "one" / "trials" / "inner", EVENTS, age_s=1.0)
    write(root / ".hidden", EVENTS, age_s=1.0)
    write(root / "damaged", EVENTS, age_s=1.0)
    segment = next(iter(Layout(root / "damaged").journal.iterdir()))
    segment.write_text("nonsense\nnonsense\n" + segment.read_text())
    (root / "notes").mkdir()
    return root


def test_list_shows_each_sweep_the_newest_first_and_what_cannot_be_read(below: Path) -> None:
    found = CliRunner().invoke(app, ["list", str(below)])
    assert found.stdout.splitlines() == [
        "folder    state    done  runs  best                          cost            updated",
        "one       running  25%   1     loss 0.5 (trial 0 at step 3)  0.25 run-hours  2 h ago",
        "deep/two  stopped        1     loss 0.5 (trial 0 at step 3)  0.25 run-hours  3 h ago",
        f"2 sweeps below {below}",
    ]
    assert found.stderr.startswith(f"hpcsweep: {below}/damaged: ")
    assert found.exit_code == 2


def test_list_as_json_has_a_record_of_each_sweep(below: Path) -> None:
    found = json.loads(CliRunner().invoke(app, ["list", str(below), "--json"]).stdout)
    assert list(found["unreadable"]) == [str(below / "damaged")]
    two, one = found["sweeps"]
    assert one.pop("updated") == pytest.approx(time.time() - 7200, abs=30)
    assert one == {
        "folder": str(below / "one"),
        "name": "lr",
        "status": "running",
        "reason": "",
        "metric": "loss",
        "best": {"trial": 0, "value": 0.5, "resource": 3, "config": {"x": 0.0}},
        "trials": 4,
        "runs": {"waiting": 0, "submitted": 3, "completed": 1, "failed": 0, "stopped": 0},
        "gpu_hours": None,
        "run_hours": 0.25,
        "simulated": False,
        "started": 100.0,
        "done": 0.25,
    }
    assert (two["status"], two["reason"], two["done"]) == ("stopped", "on request", None)


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere", "does not exist: expected a folder"), ("file", "is a file: expected a folder")],
)
def test_list_of_no_folder_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    found = CliRunner().invoke(app, ["list", str(tmp_path / name)])
    assert (found.exit_code, found.stderr) == (2, f"hpcsweep: {tmp_path / name}: {words}\n")


def test_status_of_several_folders_shows_those_that_can_be_read(below: Path) -> None:
    one, nowhere, two = str(below / "one"), str(below / "nowhere"), str(below / "deep" / "two")
    found = CliRunner().invoke(app, ["status", one, nowhere, two])
    lines = found.stdout.splitlines()
    assert lines[:2] == [f"{one}:", "lr: running"]
    assert lines[lines.index("") :][:3] == ["", f"{two}:", "lr: stopped (on request)"]
    assert found.stderr.startswith(f"hpcsweep: {nowhere}: does not exist")
    assert found.exit_code == 2
    as_json = CliRunner().invoke(app, ["status", one, two, "--json"])
    assert [each["folder"] for each in json.loads(as_json.stdout)] == [one, two]
    watched = CliRunner().invoke(app, ["status", one, two, "--watch"])
    assert "--watch takes one folder" in watched.stderr


def test_fields_of_status_as_json_are_those_that_are_documented(below: Path) -> None:
    found = json.loads(CliRunner().invoke(app, ["status", str(below / "one"), "--json"]).stdout)
    page = (Path(hpcsweep.__file__).parent / "docs" / "results.md").read_text()
    table = page.partition("| field | |\n| --- | --- |\n")[2].partition("\n\n")[0]
    documented = [
        name for line in table.splitlines() for name in re.findall("`([a-z_]+)`", line.split("|")[1])
    ]
    several = {"front", "picks", "infeasible", "hypervolume"}  # objectives, of which this sweep has one
    assert sorted(documented) == sorted({*found, *several})
    assert several.isdisjoint(found)
    # A run of 900 s is over after 900 s, three are left, one at a time.
    end = found["end"]
    assert (end["runs_left"], end["done"], end["by"]) == (3, 0.25, "")
    assert end["seconds"] > 0
    assert end["at"] == pytest.approx(time.time() + end["seconds"], abs=60)
