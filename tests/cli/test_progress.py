"""What `launch` shows while it drives: troubles when they come, in a log and on a terminal."""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from hpcsweep.cli.progress import LiveDisplay, LogDisplay, Plan, Progress
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
from hpcsweep.core.protocols import BracketPlan, SchedulerPlan
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
    shown = [re.sub(r"^\[[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\] ", "", line) for line in lines]
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


def test_a_log_says_what_is_done_and_when_it_ends_once_a_minute_unless_something_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("hpcsweep.cli.progress.time.time", lambda: clock.now)
    monkeypatch.setattr("hpcsweep.cli.progress.time.monotonic", lambda: clock.now)
    rungs = BracketPlan((1, 3), (9, 3))
    played = Played(LogDisplay(Plan(SchedulerPlan((rungs,), eta=3))))

    def tick(at: float, *events: AnyEvent) -> list[str]:
        clock.now = at
        played.tick(events)
        return [line.partition(" | bracket")[0] for line in capsys.readouterr().out.splitlines()]

    def done(trial: int, value: float | None, at: float) -> RunFinished:
        outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
        message = "" if value else "no"
        return RunFinished(
            trial, 0, outcome, value, 1, batch="b", started=at - 50, seconds=50.0, message=message
        )

    begun: list[AnyEvent] = [
        SweepStarted("cafe01", "lr", 1000.0, {"objective": {"metric": "loss", "mode": "min"}}),
        *(TrialCreated(trial, {"x": 0.5}, 0, 1) for trial in range(9)),
        BatchPlanned("b", 1000.0, tuple((RunId(trial, 0),) for trial in range(9)), 0, 9, "local"),
    ]
    assert tick(1001.0, *begun) == [
        "[1970-01-01 00:16:41] 0% | 0 runs completed, 9 under way | best no value yet | 0 run-hours"
    ]
    best = "best loss 0.5 (trial 0 at step 1)"
    # One run of 50 s in 50 s: one at a time; 8 of 50 s and 3 of twice the training, 100 s, are left.
    assert tick(1050.0, done(0, 0.5, 1050.0)) == [
        (
            "[1970-01-01 00:17:30] 7%, ends in about 11.7 min, 00:29 | 1 run completed, 8 under way | "
            f"{best} | 0.0139 run-hours"
        )
    ]
    assert tick(1060.0, done(1, 0.6, 1060.0)) == []  # nothing of note
    assert tick(1061.0) == []
    assert [line[:30] for line in tick(1070.0, done(2, None, 1070.0))] == ["[1970-01-01 00:17:50] 20%, end"]
    assert tick(1075.0, done(3, 0.7, 1075.0)) == []
    assert [line[:22] for line in tick(1131.0)] == ["[1970-01-01 00:18:51] "]
    assert tick(1192.0) == []  # nothing has changed
