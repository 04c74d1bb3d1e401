"""What `launch` shows while it drives: troubles when they come, in a log and on a terminal."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from hpcsweep.cli.progress import LiveDisplay, LogDisplay, Progress
from hpcsweep.core.events import (
    AnyEvent,
    BatchBlocked,
    BatchPlanned,
    BatchSubmitted,
    NodeExcluded,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunRetried,
    SweepResumed,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.core.state import SweepState
from tests.views.test_tasks import BUSY

LATER = 4_102_444_800.0
BEGUN: list[AnyEvent] = [
    SweepStarted("cafe01", "lr", 100.0, {"objective": {"metric": "loss", "mode": "min"}}),
    *(TrialCreated(trial, {"x": 0.5}, 0, 3) for trial in range(3)),
    BatchPlanned("b", 200.0, tuple((RunId(trial, 0),) for trial in range(3)), 1, 3, "slurm"),
    BatchSubmitted("b", "11", 201.0),
]
HINDERED = BatchBlocked("b", "2 tasks: PartitionTimeLimit")
EXCLUDED = NodeExcluded("n1", 202.0, LATER, "3 trials failed there in a row")
FAILED = RunFinished(0, 0, Outcome.OUT_OF_MEMORY, batch="b", message="killed \x1b[2J")
PAUSE = PauseRequested(203.0, "its jobs can never start")


class Played:
    """A driver of which only the state is looked at."""

    def __init__(self, show: Progress) -> None:
        self.state = SweepState()
        self.show = show
        self.skipped_files: list[str] = []

    def tick(self, events: Sequence[AnyEvent]) -> None:
        for event in events:
            self.state.apply(event)
            self.show.event(event)
        driver: Any = SimpleNamespace(
            state=self.state,
            phases=Counter(),
            monitor=SimpleNamespace(states={}),
            skipped_files=self.skipped_files,
        )
        self.show.tick(driver)


def text(renderable: Any) -> list[str]:
    """What a terminal shows of it."""
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        console.print(renderable)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_log_has_a_line_for_each_trouble_when_it_comes_however_soon(
    capsys: pytest.CaptureFixture[str],
) -> None:
    played = Played(LogDisplay())
    ticks: list[list[AnyEvent]] = [
        BEGUN,
        [HINDERED],
        [EXCLUDED],
        [FAILED, PAUSE],
        [],
        [SweepResumed(204.0)],
        [PAUSE],
    ]
    for events in ticks:
        played.tick(events)
    lines = capsys.readouterr().out.splitlines()
    shown = [re.sub(r"^\[[0-9:]{8}\] ", "", line) for line in lines]
    assert [re.sub(r"until .*: 3", "until then: 3", line) for line in shown] == [
        "0 runs completed, 3 under way | best no value yet | 0 GPU-hours | bracket 0: 0/3x3",
        "cannot start: 2 tasks: PartitionTimeLimit",
        "excluded: n1 until then: 3 trials failed there in a row",
        "pausing, nothing more is submitted: its jobs can never start",
        "pausing, nothing more is submitted: its jobs can never start",
    ]


def test_a_terminal_shows_the_troubles_of_the_moment_and_what_failed_last() -> None:
    screen = io.StringIO()
    with Live(console=Console(file=screen, width=100), auto_refresh=False) as live:
        played = Played(LiveDisplay(live))
        played.tick([*BEGUN, HINDERED, FAILED, PAUSE])
        shown = live.get_renderable()
        played.tick([BatchBlocked("b", ""), SweepResumed(204.0), RunRetried(0, 0)])
        later = live.get_renderable()

    head = ["bracket  rungs (runs x resource)"]
    assert text(shown) == [
        *head,
        "      0  1/3x3 (1 failed)",
        "0 runs completed, 0 running, 0 pending, 0 GPU-hours",
        "best no value yet",
        "cannot start: 2 tasks: PartitionTimeLimit",
        "pausing, nothing more is submitted: its jobs can never start",
        "trial 0 out of memory: killed ?[2J",
    ]
    assert text(later) == [
        *head,
        "      0  0/3x3",
        "0 runs completed, 0 running, 0 pending, 0 GPU-hours",
        "best no value yet",
    ]


def test_tasks_that_keep_their_gpus_are_counted_by_what_they_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.cli.progress.time.time", lambda: 1100.0)
    Played(LogDisplay()).tick(BUSY)
    tasks = "tasks: 1 running, 1 idle, 1 leaving, 2 pending"
    assert tasks in capsys.readouterr().out.split(" | ")
    with Live(console=Console(file=io.StringIO(), width=100), auto_refresh=False) as live:
        Played(LiveDisplay(live)).tick(BUSY)
        assert f"3 runs completed, {tasks}, 0 GPU-hours" in text(live.get_renderable())


def test_a_log_names_what_was_passed_over_once(capsys: pytest.CaptureFixture[str]) -> None:
    played = Played(LogDisplay())
    for found in (["skipped: a"], ["skipped: a"], ["skipped: a", "skipped: \x1b]0;b"]):
        played.skipped_files = found
        played.tick([])
    lines = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["skipped: a", "skipped: ?]0;b"]
