"""What `plan` says of the wall time, and what it knows that from."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import AnyEvent, SweepStarted
from tests.views.folders import created, finished, identity, planned, written

SPEC = """\
name: lr
train: {command: "python train.py --lr {lr} --resume {resume_from}", check: false}
objective: {metric: loss}
space: {lr: {type: float, low: 1e-4, high: 1.0, log: true}}
searcher: random
scheduler: {name: fifo, max_resource: 10}
budget: {trials: 20}
cluster: {name: local, slots: 4}
"""
#: Two runs to 10 of an hour each.
MEASURED: list[AnyEvent] = [
    SweepStarted("cafe01", "lr", 50.0, identity()),
    *created(2),
    *planned("a", (0, 0), (1, 0)),
    finished(0),
    finished(1),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lr.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(*options: str) -> str:
    done = CliRunner().invoke(app, ["plan", "lr.yaml", *options])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("wall time: ")]
    return line.removeprefix("wall time: ")


def test_without_anything_known_it_says_what_gives_an_estimate() -> None:
    assert told() == "unknown; --seconds-per-step gives an estimate"


def test_what_is_stated_is_repeated_with_the_estimate() -> None:
    queue = "waits in the queue come on top"
    assert told("--seconds-per-step", "90", "--startup", "60") == (
        "about 80 min with 4 runs at a time, if a step takes 90 s and the start of a run 60 s; " + queue
    )
    rungs = ("--set", "scheduler={name: halving, max_resource: 9}", "--set", "stop=median")
    assert told("--seconds-per-step", "60", *rungs) == (
        f"about 13 min with 4 runs at a time, if a step takes 60 s; {queue}; "
        "stopping rules may end runs earlier"
    )
    assert CliRunner().invoke(app, ["plan", "lr.yaml", "--startup", "60"]).exit_code == 2


def test_runs_that_were_measured_in_this_sweep_or_an_earlier_one_tell(here: Path) -> None:
    written(here / "earlier", MEASURED)
    warm = ("--set", "warm_start=[earlier]")
    assert told(*warm) == (
        f"about 5 h with 4 runs at a time, if runs take as long as the 2 runs in {here / 'earlier'}; "
        "waits in the queue come on top"
    )
    (here / "earlier").rename(here / "kept")
    (here / "results").mkdir()
    (here / "kept").rename(here / "results" / "lr")
    assert "if runs take as long as its completed runs;" in told()


def test_time_limits_tell_the_most_and_a_budget_may_end_it_earlier() -> None:
    assert told("--set", "resources.time=1h", "--set", "budget.time=2h") == (
        "about 5 h with 4 runs at a time, if each run takes its whole time limit; "
        "waits in the queue come on top; budget.time 2h ends it earlier"
    )
    assert told("--set", "budget={time: 2h}") == "about 2 h, when budget.time ends it"
