"""`status --watch`: what is drawn at each size, what is said of the way ahead, and the verb on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.color import Color
from rich.console import Console

from hpcsweep.cli import colours
from hpcsweep.cli.dashboard import Dashboard, draw
from hpcsweep.cli.progress import Plan, RemainingWork, format_eta, format_throughput, plan_of, remaining_work
from hpcsweep.cli.rung_bars import ASCII, STYLES, UNICODE, sparkline
from hpcsweep.cli.terminal import sanitize
from hpcsweep.cli.watch import LiveQueue
from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, QueuedJob, TaskId, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchBlocked,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepDetached,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
)
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.spec import load_spec
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.views.progress import SweepProgress
from hpcsweep.views.snapshot import StatusPoller, StatusSnapshot
from tests.cluster.programs import Programs, row
from tests.views.test_tasks import BUSY
from tests.waiting import PATIENCE_S, wait_until

#: 1970-01-01 01:00 in UTC.
START = 3600.0
STARTED = SweepStarted("cafe01", "lr", START, {"objective": {"metric": "loss", "mode": "min"}})
HOSTILE = "\x1b[31mred\x1b]0;title\x07 [bold]x[/bold] [link=http://evil]y[/link]\r\n\u202eback \x9b2J"
SHOWN = "?[31mred?]0;title? [bold]x[/bold] [link=http://evil]y[/link]  ?back ?2J"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs(tmp_path)
    monkeypatch.setenv("PATH", programs.path)
    return programs


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def finished(trial: int, value: float | None, *, rung: int = 0, at: float, **more: Any) -> RunFinished:
    outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
    return RunFinished(
        trial, rung, outcome, value, started=at - 600, seconds=600.0, gpu_seconds=1200.0, **more
    )


def hyperband() -> list[AnyEvent]:
    """A bracket of nine that is over, one of five in its middle, and one of which three runs wait."""
    events: list[AnyEvent] = [
        STARTED,
        *(TrialCreated(trial, {"lr": trial / 7, "optimizer": "adam"}, 0, 1) for trial in range(9)),
        BatchPlanned("a", START, tuple((RunId(trial, 0),) for trial in range(9)), 2, 9, "slurm"),
        BatchSubmitted("a", "70", START),
    ]
    for trial in range(9):
        value = None if trial == 4 else 0.9 - trial / 10
        events.append(
            finished(
                trial, value, at=START + 100 * trial, batch="a", task=trial, message="" if value else "odd"
            )
        )
    events += [TrialPromoted(trial, 1, 3) for trial in (8, 7, 6)]
    events += [BatchPlanned("b", START + 810, tuple((RunId(t, 1),) for t in (8, 7, 6)), 2, 9, "slurm")]
    events += [BatchSubmitted("b", "71", START + 811)]
    events += [
        finished(
            trial, 0.05 + trial / 100, rung=1, at=START + 1400, batch="b", task=task, node="n1", job="71_0"
        )
        for task, trial in enumerate((8, 7, 6))
    ]
    events += [TrialCreated(9 + trial, {"lr": 0.5, "optimizer": "sgd"}, 1, 3) for trial in range(5)]
    events += [BatchPlanned("c", START + 1410, tuple((RunId(9 + t, 0),) for t in range(5)), 2, 9, "slurm")]
    events += [BatchSubmitted("c", "72", START + 1411)]
    events += [finished(9, 0.3, at=START + 2100, batch="c", task=0)]
    events += [
        RunInterrupted(
            10, 0, Interruption.PREEMPTED, batch="c", task=1, requeued=True, node="n2", message="preempted"
        )
    ]
    return events


def view_of(
    folder: Path,
    events: Sequence[AnyEvent],
    shown: Mapping[int, TaskState] | None = None,
    *,
    now: float = START + 2400,
) -> StatusSnapshot:
    """The view of a folder with these events, and with these tasks of batch c in the queue."""

    def queue(batches: Sequence[BatchState]) -> Mapping[TaskId, TaskState]:
        if shown is None:
            raise ClusterUnavailable("nothing known: squeue: it is down")
        return {TaskId("c", task): state for task, state in shown.items()}

    journal = Journal.open(Layout(folder))
    journal.commit(events)
    journal.release()
    return StatusPoller(folder, queue).poll(now=now, shown=20)


QUEUE = {
    1: TaskState(Phase.RUNNING, node="n1", seconds=120.0),
    2: TaskState(Phase.RUNNING, node="n2", seconds=130.0),
    3: TaskState(Phase.PENDING, "Priority"),
    4: TaskState(Phase.PENDING, "Resources"),
}


def plan(folder: Path, scheduler: str, **more: str) -> Plan:
    path = folder / "lr.yaml"
    text = (
        "name: lr\ntrain: {function: 't.py:train'}\nobjective: {metric: loss}\nsearcher: random\n"
        f"scheduler: {scheduler}\nresources: {{gpus: 1, time: 1h}}\n"
        "space: {x: {type: int, low: 0, high: 99}}\n"
    )
    path.write_text(text + "".join(f"{key}: {value}\n" for key, value in more.items()))
    return plan_of(load_spec(path))


def lines(view: StatusSnapshot, plan: Plan | None, width: int, height: int, **options: Any) -> list[str]:
    """What a console of this size shows."""
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None, **options
    )
    with console.capture() as captured:
        console.print(Dashboard(view, plan))
    return [line.rstrip() for line in captured.get().splitlines()]


# --------------------------------------------------------------------------- the picture


def test_a_wide_terminal_shows_all_there_is(tmp_path: Path) -> None:
    view = view_of(tmp_path / "s", hyperband(), QUEUE)
    known = plan(tmp_path, "{name: hyperband, max_resource: 9}", budget="{gpu_hours: 20}")
    assert (
        lines(view, known, 110, 40)
        == """\
lr  running  driver: none at work; launch again to resume                                             01:40:00

best        loss 0.11 (trial 6 at step 3)  ██▇▇▆▆▆▅▅▅▅▅▄▄▃▃▃▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁
            lr=0.857143 optimizer=adam
runs        12 runs completed, 1 failed, 2 running, 2 pending
recent pace 19.5 runs/h
end         in about 23.8 min, 02:03; at most 9 runs left
cost        4.33 of 20 GPU-hours  █████████······························· 22%

2nd         loss 0.12 (trial 7 at step 3)  lr=1 optimizer=adam
3rd         loss 0.13 (trial 8 at step 3)  lr=1.14286 optimizer=adam
4th         loss 0.3 (trial 9 at step 3)  lr=0.5 optimizer=sgd
5th         loss 0.4 (trial 5 at step 1)  lr=0.714286 optimizer=adam

bracket 0   9x1 (1 failed) > 3x3
bracket 1   3 ████████================················ 1/5 2 running

running     trial 10 rung 0: no report yet on n1 (2 min)
running     trial 11 rung 0: no report yet on n2 (2.17 min)

pending     1 task: Priority
pending     1 task: Resources

interrupted 1 preempted
crashed: trial 4 rung 0: odd
preempted: trial 10 rung 0 on n2: preempted
""".splitlines()
    )


def test_tasks_that_keep_their_gpus_are_counted_and_idle_ones_named(tmp_path: Path) -> None:
    journal = Journal.open(Layout(tmp_path / "s"))
    journal.commit(BUSY)
    journal.release()
    queue = {TaskId("a", 3): TaskState(Phase.PENDING, "BeginTime")}
    view = StatusPoller(tmp_path / "s", lambda batches: queue).poll(now=1100.0, shown=20)
    assert lines(view, None, 90, 30)[2:] == [
        "best        loss 0.5 (trial 0 at step 3)",
        "            x=0.5",
        "runs        3 runs completed, 1 running, 5 waiting",
        "tasks       1 running, 1 idle, 1 leaving, 3 pending",
        "queue waits 11.5 s in the median, 13 s the last (4 tasks)",
        "recent pace 54 runs/h",
        "end         unknown: the folder's sweep.yaml cannot be read",
        "cost        0 GPU-hours",
        "",
        "2nd         loss 0.5 (trial 2 at step 3)  x=0.5",
        "3rd         loss 0.5 (trial 3 at step 3)  x=0.5",
        "",
        "bracket 0   3 ███████████====··················· 3/9 1 running",
        "",
        "running     trial 1 rung 0: no report yet on n0 (57 s)",
        "",
        "idle        task 1 on n1 (job 70_1, 36 s)",
        "leaving     task 2 on n2 (job 70_2, 40 s)",
        "pending     2 tasks",
        "pending     1 task: BeginTime",
        "waiting     5 runs, not submitted yet",
        "",
        "interrupted 1 preempted",
        "preempted: trial 4 rung 0:",
    ]


def test_a_large_terminal_has_two_columns(tmp_path: Path) -> None:
    view = view_of(tmp_path / "s", hyperband(), QUEUE)
    known = plan(tmp_path, "{name: hyperband, max_resource: 9}", budget="{gpu_hours: 20}")
    shown = lines(view, known, 144, 24)
    assert shown[2:] == [
        f"{left:<70}{right}".rstrip()
        for left, right in [
            (
                "best        loss 0.11 (trial 6 at step 3)  ▇▆▅▅▄▃▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁",
                "2nd         loss 0.12 (trial 7 at step 3)  lr=1 optimizer=adam",
            ),
            (
                "            lr=0.857143 optimizer=adam",
                "3rd         loss 0.13 (trial 8 at step 3)  lr=1.14286 optimizer=adam",
            ),
            (
                "runs        12 runs completed, 1 failed, 2 running, 2 pending",
                "4th         loss 0.3 (trial 9 at step 3)  lr=0.5 optimizer=sgd",
            ),
            (
                "recent pace 19.5 runs/h",
                "5th         loss 0.4 (trial 5 at step 1)  lr=0.714286 optimizer=adam",
            ),
            ("end         in about 23.8 min, 02:03; at most 9 runs left", ""),
            (
                "cost        4.33 of 20 GPU-hours  ██████····················· 22%",
                "running     trial 10 rung 0: no report yet on n1 (2 min)",
            ),
            ("", "running     trial 11 rung 0: no report yet on n2 (2.17 min)"),
            ("bracket 0   9x1 (1 failed) > 3x3", ""),
            ("bracket 1   3 ██=====···· 1/5 2 running", "interrupted 1 preempted"),
            ("", "crashed: trial 4 rung 0: odd"),
            ("pending     1 task: Priority", "preempted: trial 10 rung 0 on n2: preempted"),
            ("pending     1 task: Resources", ""),
        ]
    ]


def test_colours_are_readable_on_white_and_on_black() -> None:
    def luminance(colour: str) -> float:
        parts = (part / 255 for part in Color.parse(colour).get_truecolor())
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    used = {colours.GOOD, colours.BAD, colours.WARNING, colours.ACTIVE, colours.QUIET}
    assert len(used) == 5
    assert used >= set(STYLES.values())
    for colour in used:
        assert 1.05 / (luminance(colour) + 0.05) >= 4
        assert (luminance(colour) + 0.05) / 0.05 >= 4


def test_a_small_terminal_shows_the_same_in_its_lines(tmp_path: Path) -> None:
    view = view_of(tmp_path / "s", hyperband(), QUEUE)
    known = plan(tmp_path, "{name: hyperband, max_resource: 9}", budget="{gpu_hours: 20}")
    assert (
        lines(view, known, 60, 15)
        == """\
lr  running  driver: none at work; launch again to… 01:40:00
best        loss 0.11 (trial 6 at step 3)  ▇▆▅▄▂▁▁▁▁▁▁▁▁▁▁▁▁
            lr=0.857143 optimizer=adam
runs        12 runs completed, 1 failed, 2 running, 2 pendi…
recent pace 19.5 runs/h
end         in about 23.8 min, 02:03; at most 9 runs left
cost        4.33 of 20 GPU-hours  ████················ 22%
bracket 0   9x1 (1 failed) > 3x3
bracket 1   3 █===·· 1/5 2 running
running     trial 10 rung 0: no report yet on n1 (2 min)
running     trial 11 rung 0: no report yet on n2 (2.17 min)
pending     1 task: Priority
pending     1 task: Resources
interrupted 1 preempted
crashed: trial 4 rung 0: odd
""".splitlines()
    )


@pytest.mark.parametrize("width", [1, 7, 13, 24, 80, 150])
def test_no_terminal_is_too_small(tmp_path: Path, width: int) -> None:
    view = view_of(tmp_path / "s", [*hyperband(), BatchBlocked("c", "PartitionDown")], QUEUE)
    known = plan(tmp_path, "{name: hyperband, max_resource: 9}")
    for height in range(1, 30):
        drawn = draw(view, known, width=width, height=height).lines
        assert 1 <= len(drawn) <= height
        assert max(line.cell_len for line in drawn) <= width
        assert not any("\n" in line.plain for line in drawn)


def test_what_has_ended_without_the_driver_s_notice_is_told_by_how(tmp_path: Path) -> None:
    queue = {task: TaskState(Phase.PREEMPTED) for task in (1, 2, 3)} | {4: TaskState(Phase.NODE_FAIL)}
    shown = lines(view_of(tmp_path / "s", hyperband(), queue), None, 80, 24)
    assert "runs        12 runs completed, 1 failed" in shown
    assert [line for line in shown if line.startswith("ended")] == [
        "ended       1 run (node fail), not processed yet",
        "ended       3 runs (preempted), not processed yet",
    ]


def brackets_of(folder: Path, count: int, *, ended: int) -> StatusSnapshot:
    """So many brackets of two runs each, of which the first ones are over."""
    events: list[AnyEvent] = [STARTED]
    for bracket in range(count):
        trials = (2 * bracket, 2 * bracket + 1)
        events += [TrialCreated(trial, {}, bracket, 3) for trial in trials]
        events += [BatchPlanned(f"b{bracket}", START, tuple((RunId(t, 0),) for t in trials), 1, 2, "local")]
        if bracket < ended:
            events += [finished(trial, 0.5, at=START + 100, batch=f"b{bracket}") for trial in trials]
    return view_of(folder, events)


@pytest.mark.parametrize(
    ("height", "more", "short", "ladders"),
    [
        (30, "34 more brackets, 0 of them under way", range(34, 40), [40, 41]),
        (14, "36 more brackets, 0 of them under way", range(36, 40), [40, 41]),
        (7, "41 more brackets, 1 of them under way", [], [41]),
    ],
)
def test_brackets_that_are_over_give_way_to_those_under_way(
    tmp_path: Path, height: int, more: str, short: Sequence[int], ladders: Sequence[int]
) -> None:
    shown = lines(brackets_of(tmp_path, 42, ended=40), None, 90, height)
    brackets = [line for line in shown if line.startswith("bracket") or "more brackets" in line]
    expected = [f"bracket {bracket}  2x3" for bracket in short]
    expected += [f"bracket {bracket}  3 {'·' * 34} 0/2" for bracket in ladders]
    assert brackets == [f"{'':12}{more}", *expected]


def test_running_tasks_show_each_objective_that_they_have_reported(tmp_path: Path) -> None:
    objectives = [{"metric": "loss", "mode": "min"}, {"metric": "latency_ms", "mode": "min"}]
    events: list[AnyEvent] = [
        SweepStarted("cafe01", "lr", START, {"objective": objectives}),
        *(TrialCreated(trial, {"lr": 0.5}, 0, 9) for trial in range(2)),
        BatchPlanned("c", START, ((RunId(0, 0),), (RunId(1, 0),)), 1, 9, "slurm"),
        BatchSubmitted("c", "70", START),
    ]
    folder = tmp_path / "s"
    reports: list[list[dict[str, float]]] = [
        [{"latency_ms": 60, "loss": 0.5}, {"loss": 0.25}],
        [{"loss": 0.75}],
    ]
    for trial, reported in enumerate(reports):
        writer = MetricsWriter(Layout(folder).trial(trial).metrics(0, 0, 0))
        for step, values in enumerate(reported, start=1):
            writer.write(step, values)
        writer.close()
    running = {task: TaskState(Phase.RUNNING, node="n1", seconds=120.0) for task in range(2)}
    shown = lines(view_of(folder, events, running), None, 100, 30)
    assert [line for line in shown if line.startswith("running")] == [
        "running     trial 0 rung 0: 2/9  loss 0.25, latency_ms 60 on n1 (2 min)",
        "running     trial 1 rung 0: 1/9  loss 0.75 on n1 (2 min)",
    ]


def test_text_of_others_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    started = SweepStarted("cafe01", HOSTILE, START, {"objective": {"metric": HOSTILE, "mode": "min"}})
    events: list[AnyEvent] = [
        started,
        *(TrialCreated(trial, {HOSTILE: HOSTILE}, 0, 1) for trial in range(3)),
        BatchPlanned("c", START, tuple((RunId(trial, 0),) for trial in range(3)), 1, 9, "slurm"),
        BatchSubmitted("c", "70", START),
        BatchBlocked("c", HOSTILE),
        finished(0, 0.5, at=START + 100, batch="c"),
        finished(1, None, at=START + 100, batch="c", node=HOSTILE, message=HOSTILE),
        PauseRequested(START + 200, HOSTILE),
    ]
    queue = {2: TaskState(Phase.PENDING, HOSTILE)}
    shown = lines(view_of(tmp_path / "s", events, queue), None, 1000, 40)
    assert all(line.isprintable() for line in shown)
    assert shown[0].startswith(f"{SHOWN}  running")
    for line in (
        f"best        {SHOWN} 0.5 (trial 0 at step 1)",
        f"            {SHOWN}={SHOWN}",
        f"cannot start: {SHOWN}",
        f"pausing, nothing more is submitted: {SHOWN}",
        f"pending     1 task: {SHOWN}",
        f"crashed: trial 1 rung 0 on {SHOWN}: {SHOWN}",
    ):
        assert any(line in each for each in shown)  # two columns


def test_only_what_a_terminal_would_obey_is_taken_out_of_a_text() -> None:
    assert sanitize("größe=0.1 学習 ✓ [red]") == "größe=0.1 学習 ✓ [red]"
    assert sanitize(HOSTILE) == SHOWN
    assert sanitize("\ud800\u200b\t\x00") == "?? ?"


def test_a_terminal_without_unicode_has_bars_and_sparklines_too(tmp_path: Path) -> None:
    view = view_of(tmp_path / "s", hyperband(), QUEUE)
    drawn = [line.plain for line in draw(view, None, width=80, height=24, glyphs=ASCII).lines]
    assert all(line.isascii() for line in drawn)
    assert "bracket 1   3 #####=========.......... 1/5 2 running" in drawn


def test_without_colour_nothing_is_coloured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(width=80, height=24, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with console.capture() as captured:
        console.print(Dashboard(view_of(tmp_path / "s", hyperband(), QUEUE), None))
    codes = set(re.findall(r"\x1b\[([\d;]*)m", captured.get()))
    assert codes <= {"0", "1", "2", "1;2"}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([(0.0, 1.0)], "▁▁▁▁▁▁▁▁"),
        ([(4.0, 8.0), (5.0, 1.0)], "   █▁▁▁▁"),
        ([(0.0, 8.0), (2.0, 5.0), (4.0, 3.0), (99.0, 1.0)], "█▅▅▃▃▃▃▁"),
        ([(0.0, 10_000.0), (2.0, 100.0), (4.0, 1.0)], "█▅▅▁▁▁▁▁"),
        ([(0.0, -10_000.0), (2.0, -100.0), (4.0, -1.0)], "▁███████"),
    ],
)
def test_a_sparkline_is_as_high_as_the_best_value_was_then(
    history: list[tuple[float, float]], expected: str
) -> None:
    assert sparkline(history, 0.0, 8.0, width=8, levels=UNICODE.levels) == expected


# --------------------------------------------------------------------------- the way ahead


def progress_of(events: Sequence[AnyEvent]) -> SweepProgress:
    progress = SweepProgress()
    for event in events:
        progress.apply(event)
    return progress


NOTHING = progress_of([STARTED])


@pytest.mark.parametrize(
    ("scheduler", "more", "expected"),
    [
        ("{name: hyperband, max_resource: 9}", {}, RemainingWork(22, 69)),
        ("{name: hyperband, max_resource: 9, iterations: 2}", {"repeats": "3"}, RemainingWork(132, 414)),
        (
            "{name: hyperband, max_resource: 9, iterations: null}",
            {"budget": "{trials: 12}"},
            RemainingWork(17, 36),
        ),
        ("{name: hyperband, max_resource: 9, iterations: null}", {"budget": "{time: 1d}"}, None),
        ("{name: halving, max_resource: 4, rounds: 2}", {}, RemainingWork(14, 16)),
        ("{name: asha, max_resource: 9}", {"budget": "{trials: 9}"}, RemainingWork(13, 21)),
        ("{name: asha, max_resource: 9}", {"budget": "{time: 1d}"}, None),
        ("{name: fifo, max_resource: 5}", {"budget": "{trials: 7}"}, RemainingWork(7, 35)),
        ("{name: fifo, max_resource: 5}", {}, RemainingWork(100, 500)),
        ("{name: pbt, population: 4, interval: 2, max_resource: 8}", {}, RemainingWork(16, 32)),
    ],
)
def test_what_a_sweep_is_to_do_is_known_as_far_as_its_scheduler_says(
    tmp_path: Path, scheduler: str, more: dict[str, str], expected: RemainingWork | None
) -> None:
    assert remaining_work(plan(tmp_path, scheduler, **more), NOTHING) == expected


def test_what_has_ended_is_not_left_and_failures_take_no_places(tmp_path: Path) -> None:
    known = plan(tmp_path, "{name: hyperband, max_resource: 9}")
    events = hyperband()
    assert remaining_work(known, progress_of(events)) == RemainingWork(9, 6 + 4 * 3 + 6 + 3 * 9)
    lost = [finished(trial, None, at=START + 2200, batch="c") for trial in range(10, 14)]
    assert remaining_work(known, progress_of([*events, *lost])) == RemainingWork(1 + 1 + 3, 6 + 6 + 27)
    end = TrialsExhausted("the space is exhausted", "space")
    assert remaining_work(known, progress_of([*events, end])) == RemainingWork(1 + 4 + 1, 6 + 12 + 6)
    endless = plan(tmp_path, "{name: hyperband, max_resource: 9, iterations: null}", budget="{time: 1d}")
    assert remaining_work(endless, progress_of([*events, end])) == RemainingWork(1 + 4 + 1, 6 + 12 + 6)


def test_the_end_is_told_as_the_first_of_what_would_end_it(tmp_path: Path) -> None:
    progress, now = progress_of(hyperband()), START + 2400
    assert format_throughput(progress, now=now) == "19.5 runs/h"
    bracket, endless = (
        "{name: hyperband, max_resource: 9}",
        "{name: hyperband, max_resource: 9, iterations: null}",
    )
    cases = {
        (bracket, "{}"): "in about 23.8 min, 02:03; at most 9 runs left",
        (bracket, "{time: 1h}"): "in about 20 min, 02:00 by budget.time; at most 9 runs left",
        (bracket, "{gpu_hours: 4.5}"): "in about 92 s, 01:41 by budget.gpu_hours; at most 9 runs left",
        (endless, "{time: 3d}"): "in about 2.97 days, Sun 04 Jan 01:00 by budget.time; open-ended",
    }
    for (scheduler, budget), expected in cases.items():
        assert format_eta(plan(tmp_path, scheduler, budget=budget), progress, now=now) == expected
    assert format_eta(None, progress, now=now) == "unknown: the folder's sweep.yaml cannot be read"


def test_an_end_that_nobody_can_know_is_not_made_up(tmp_path: Path) -> None:
    known = plan(tmp_path, "{name: hyperband, max_resource: 9}")
    assert (format_throughput(NOTHING, now=START), format_eta(known, NOTHING, now=START)) == (
        "",
        "at most 22 runs left",
    )
    stopping = progress_of([*hyperband(), PauseRequested(START + 2300, "enough")])
    assert format_eta(known, stopping, now=START + 2400) == "when the runs under way have ended"
    ended = progress_of([*hyperband(), SweepEnded(START + 2300, SweepOutcome.FINISHED, "done")])
    assert format_eta(known, ended, now=START + 2400) == ""


# --------------------------------------------------------------------------- the verb


class Terminal:
    """A pseudo-terminal with a program on it."""

    def __init__(
        self, *argv: str | Path, size: tuple[int, int] = (24, 80), parent: str = "", **env: str
    ) -> None:
        # Whatever the tests' own terminal is: it has the size of this one.
        inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.screen = b""
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.process = subprocess.Popen(
            [sys.executable, *(["-c", parent] if parent else ["-m", "hpcsweep"]), *map(str, argv)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**inherited, "TERM": "xterm-256color", **env},
        )
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def child(self) -> int:
        """The only process that its own has started."""
        [child] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def read_until(self, words: str, *, timeout_s: float = PATIENCE_S) -> str:
        """All that it has written, up to the moment when these words were among what was not read before."""
        until = time.monotonic() + timeout_s
        begun = len(self.screen)
        while words.encode() not in self.screen[begun:]:
            assert time.monotonic() < until, self.screen.decode(errors="replace")
            assert self.read_some(), self.screen.decode(errors="replace")
        return self.screen[begun:].decode()

    def read_some(self) -> bool:
        """Read what comes within a second; False once it has ended."""
        ready, _, _ = select.select([self.master], [], [], 1.0)
        if ready:
            try:
                self.screen += os.read(self.master, 1 << 16)
            except OSError:  # nobody holds the other end any more
                return False
        return True

    def end(self, *, timeout_s: float = PATIENCE_S) -> int:
        """Its exit status."""
        until = time.monotonic() + timeout_s
        while self.read_some():
            assert time.monotonic() < until, self.screen.decode(errors="replace")
        return self.process.wait(PATIENCE_S)

    def after(self) -> str:
        """What stays on the terminal when the picture has gone."""
        return self.screen.decode().rpartition("\x1b[?1049l")[2]


@contextlib.contextmanager
def terminal(*argv: str | Path, **options: Any) -> Iterator[Terminal]:
    started = Terminal(*argv, **options)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        os.close(started.master)


def assert_restored(shown: Terminal) -> None:
    """The picture was on a screen of its own, which is gone, and the cursor is there again."""
    text = shown.screen.decode()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_it_follows_the_sweep_and_the_terminal_and_ends_with_the_sweep(
    tmp_path: Path, programs: Programs
) -> None:
    folder = tmp_path / "a sweep"
    programs.rows(
        row("1", "RUNNING", job="72", own="73", name="c", node="n1", elapsed="2:00"),
        row("3", "PENDING", job="72", own="74", name="c", reason="Priority"),
        row("0", "PENDING", job="99", own="99", name="another"),
    )
    journal = Journal.open(Layout(folder))
    journal.commit(hyperband())
    with terminal("status", folder, "--watch", "--every", "0.5", size=(30, 100)) as shown:
        shown.read_until("running     \x1b[0mtrial 10 rung 0: no report yet on n1 (2 min)")
        shown.read_until("1 task: Priority")
        journal.commit([finished(11, 0.01, at=START + 2500, batch="c", task=2)])
        shown.read_until("loss 0.01 (trial 11 at step 3)")
        shown.resize(30, 40)
        shown.read_until("loss 0.01 (trial 11 at step…")
        wait_until(lambda: len(programs.calls()) >= 2)
        # It answers once the sweep has ended: it is asked once more, by whoever sees the end.
        begun, go = tmp_path / "begun", tmp_path / "go"
        waits = f": > '{begun}'; while test ! -e '{go}'; do /bin/sleep 0.02; done"
        programs.put("squeue", f"{waits}; echo 'slurm_load_jobs error: \x1b[2JUnable to contact' >&2; exit 1")
        wait_until(begun.exists)
        asked = len(programs.calls())
        journal.commit([SweepEnded(START + 2600, SweepOutcome.FINISHED, "all done")])
        journal.release()
        go.touch()
        shown.read_until("squeue: slurm_load_jobs")
        assert shown.end() == 0
    assert_restored(shown)
    assert shown.after().replace("\r", "").splitlines()[0].endswith("lr: finished (all done)")
    assert {call[0] for call in programs.calls()} == {"squeue"}
    assert len(programs.calls()) == asked + 1
    frames = shown.screen.count(b"\x1b[H")
    assert 4 <= len(programs.calls()) <= frames + 1


def is_cooked(shown: Terminal) -> bool:
    """Whether the terminal shows what is typed, and hands it on by lines."""
    both = termios.ICANON | termios.ECHO
    return bool(termios.tcgetattr(shown.master)[3] & both == both)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_restores_the_terminal(tmp_path: Path, number: int, code: int) -> None:
    journal = Journal.open(Layout(tmp_path))
    journal.commit(hyperband())
    with terminal("status", tmp_path, "-w", PATH="/nonexistent") as shown:
        shown.read_until("squeue is not on the PATH")
        assert not is_cooked(shown)
        if number == signal.SIGINT:
            os.write(shown.master, b"\x03")
        else:
            os.kill(shown.process.pid, number)
        assert shown.end() == code
        assert is_cooked(shown)
    assert_restored(shown)
    assert "Traceback" not in shown.screen.decode()


def test_keys_move_in_it_and_ctrl_z_gives_the_terminal_back_until_it_goes_on(
    tmp_path: Path, programs: Programs
) -> None:
    folder = tmp_path / "s"
    journal = Journal.open(Layout(folder))
    journal.commit(hyperband())
    # It answers once; then it takes long, and nobody waits for it.
    asked, twice = tmp_path / "asked", tmp_path / "twice"
    programs.put("squeue", f"test -e {asked} && : > {twice} && exec /bin/sleep 20; : > {asked}")
    # A parent that starts it as a job, as shells do: else Ctrl-Z stops nothing.
    script = """if True:
        import os, signal, subprocess, sys
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        job = subprocess.Popen([sys.executable, "-m", "hpcsweep", *sys.argv[1:]], process_group=0)
        os.tcsetpgrp(0, job.pid)
        sys.exit(job.wait())
    """
    with terminal("status", folder, "-w", "--every", "0.5", parent=script) as shown:
        shown.read_until("q quit")
        wait_until(twice.exists)
        os.write(shown.master, b"\x1b[B\x1b[B\r")
        shown.read_until("trial 7: lr=1 optimizer=adam")
        os.write(shown.master, b"\x1bf")
        shown.read_until("1 failed run, 1 interruption: the newest first")
        os.write(shown.master, b"\x1a")
        shown.read_until("\x1b[?1049l")
        wait_until(lambda: " T " in Path(f"/proc/{shown.child}/stat").read_text().rpartition(")")[2][:4])
        assert is_cooked(shown)
        os.kill(shown.child, signal.SIGCONT)
        assert "\x1b[?1049h" in shown.read_until("1 failed run")
        assert not is_cooked(shown)
        os.write(shown.master, b"q")
        assert shown.end() == 0
        assert is_cooked(shown)
    assert shown.after().strip() == ""


def test_a_sweep_that_has_ended_is_told_at_once_as_by_status(tmp_path: Path) -> None:
    journal = Journal.open(Layout(tmp_path))
    journal.commit([*hyperband(), SweepEnded(START + 2600, SweepOutcome.FINISHED, "all done")])
    journal.release()
    with terminal("status", tmp_path, "--watch") as shown:
        assert shown.end() == 0
    argv = [sys.executable, "-m", "hpcsweep", "status", str(tmp_path)]
    plain = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert shown.screen.decode().replace("\r", "") == plain.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["status", ".", "--watch"],
            "--watch: needs a terminal to draw on; elsewhere use plain `hpcsweep status`",
        ),
        (["status", ".", "--watch", "--json"], "--json and --watch exclude each other"),
        (["status", ".", "--every", "0"], "--every"),
    ],
)
def test_what_cannot_be_watched_is_refused(tmp_path: Path, argv: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpcsweep", *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "200"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert words in re.sub(r"\x1b\[[\d;]*m", "", done.stderr)


def test_the_queue_is_asked_for_the_jobs_of_who_launched_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colleague who watches has other jobs; and a tick job may be known by its folder alone."""
    asked: list[str] = []

    def jobs(self: object, user: str, *, timeout_s: float) -> list[QueuedJob]:
        asked.append(user)
        job = QueuedJob("78", "site-41", "PENDING", "BeginTime", "N/A", str(tmp_path))
        return [job] if user == "ada" else []

    monkeypatch.setattr("hpcsweep.cluster.slurm.queue.SlurmQueue.jobs", jobs)
    monkeypatch.setattr("hpcsweep.store.process_id._user", lambda: "ada")
    monkeypatch.setattr(logging.getLogger("hpcsweep"), "propagate", True)  # put back afterwards
    journal = Journal.open(Layout(tmp_path))
    journal.commit([*hyperband(), SweepDetached(START + 1.0, "slurm")])
    journal.release()
    poller, squeue = StatusPoller(tmp_path, lambda batches: {}), LiveQueue()
    view = poller.poll(now=START + 2500, shown=9)
    found = [squeue.liveness(poller, view) for _ in range(2)]
    assert [one is not None and one.driven for one in found] == [True, True]
    assert asked == ["ada"]
