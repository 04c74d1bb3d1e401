"""`status`: whole outputs of hand-made journals, for people and as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hpcsweep.cli.status import status
from hpcsweep.core.cluster_protocol import QueuedJob
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchBlocked,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    NodeExcluded,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    StopRequested,
    SweepDetached,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TickSubmitted,
    TrialCreated,
)
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store.files import make_dirs
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter
from tests.views.test_tasks import BUSY, began, events

#: What the queue shows where a test says nothing else: the live array of `TROUBLED`, and its tick job.
ALIVE = [("13", "b", "RUNNING", "", "N/A", "/w"), ("14", "b-tick", "PENDING", "Dependency", "N/A", "/w")]

#: 2100-01-01, and long past.
LATER, BEFORE = 4_102_444_800.0, 1_000_000.0


def planned(name: str, *trials: int) -> BatchPlanned:
    return BatchPlanned(name, 200.0, tuple((RunId(t, 0),) for t in trials), 4, len(trials), "slurm", 1800)


STARTED = SweepStarted("cafe01", "lr", 100.0, {"objective": {"metric": "loss", "mode": "min"}})
BEGUN: list[AnyEvent] = [
    STARTED,
    *(TrialCreated(trial, {"x": trial / 10}, 0, 3) for trial in range(9)),
    planned("a", 0, 1, 2, 3, 4),
    BatchSubmitted("a", "11", 201.0),
    RunFinished(0, 0, Outcome.COMPLETED, 0.5, 3, batch="a", seconds=900.0, gpu_seconds=3600.0, node="n1"),
]
TROUBLED: list[AnyEvent] = [
    *BEGUN,
    SweepDetached(150.0, "slurm"),
    TickSubmitted("12", 201.0, "a"),
    RunInterrupted(1, 0, Interruption.PREEMPTED, batch="a", task=1, requeued=True, node="n1", message="p"),
    RunInterrupted(
        1, 0, Interruption.NODE_FAIL, restart=1, batch="a", task=1, node="n3", job="11_1", message="down"
    ),
    RunInterrupted(2, 0, Interruption.PREEMPTED, batch="a", task=2, node="n2", job="11_2", message="gone"),
    RunFinished(
        3, 0, Outcome.OUT_OF_MEMORY, batch="a", task=3, node="n2", job="11_3", message="killed (MaxRSS 16G)"
    ),
    RunFinished(4, 0, Outcome.FAILED, batch="a", task=4, node="n2", job="11_4", message="ValueError: no"),
    NodeExcluded("n3", 300.0, LATER, "3 trials failed there in a row; the last: down"),
    NodeExcluded("n2", 300.0, BEFORE, "that was long ago"),
    BatchClosed("a", 10.0, 36.0),
    planned("b", 5, 6),
    BatchSubmitted("b", "13", 301.0),
    TickSubmitted("14", 301.0, "b"),
    BatchBlocked("b", "2 tasks: PartitionTimeLimit"),
    planned("c", 7, 8),
    BatchAbandoned("c", "QOSMaxSubmitJobPerUserLimit", over_limit=True),
    PauseRequested(302.0, "its jobs can never start (2 tasks: PartitionTimeLimit)"),
]


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...] | str]:
    """What squeue shows, or the words with which it fails."""
    shown: list[tuple[str, ...] | str] = [*ALIVE]

    def jobs(self: object, user: str, *, timeout_s: float) -> list[QueuedJob]:
        if shown and isinstance(shown[0], str):
            raise ClusterUnavailable(shown[0])
        return [QueuedJob(*job) for job in shown]

    monkeypatch.setattr("hpcsweep.cluster.slurm.queue.SlurmQueue.jobs", jobs)
    return shown


def written(folder: Path, events: Sequence[AnyEvent], *, spec: str = "") -> Path:
    journal = Journal.open(Layout(folder))
    journal.commit(events)
    journal.release()
    if spec:
        Layout(folder).spec.write_text(spec)
    return folder


def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    status(folder, json=False)
    return capsys.readouterr().out.splitlines()


def test_status_shows_everything_that_blocks_a_detached_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "a sweep", TROUBLED, spec="budget: {gpu_hours: 20}\n")
    assert told(folder, capsys) == [
        "lr: running",
        "driver: its jobs on slurm: tasks as they finish, then tick jobs 14",
        "cannot start: 2 tasks: PartitionTimeLimit",
        "waits for its turn: QOSMaxSubmitJobPerUserLimit",
        "excluded: n3 until 2100-01-01 00:00:00: 3 trials failed there in a row; the last: down",
        "pausing, nothing more is submitted: its jobs can never start (2 tasks: PartitionTimeLimit)",
        "bracket 0: 3/9x3 (2 failed)",
        (
            "9 trials; 1 run completed, 2 failed (1 out of memory, 1 crashed), 2 pending, 4 waiting; "
            "1.01 of 20 GPU-hours"
        ),
        "best: loss 0.5 (trial 0 at step 3)",
        "      x=0",
        "interruptions: 2 preempted, 1 node failed",
        "preempted: trial 1 rung 0 on n1: p",
        "node failed: trial 1 rung 0 on n3 (job 11_1): down",
        "preempted: trial 2 rung 0 on n2 (job 11_2): gone",
        "out of memory: trial 3 rung 0 on n2 (job 11_3): killed (MaxRSS 16G)",
        "crashed: trial 4 rung 0 on n2 (job 11_4): ValueError: no",
        f"retry what failed: hpcsweep retry '{folder}'",
    ]


def test_status_json_of_a_blocked_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "s", TROUBLED, spec="budget: {gpu_hours: 20}\n")
    status(folder, json=True)
    assert json.loads(capsys.readouterr().out) == {
        "name": "lr",
        "metric": "loss",
        "mode": "min",
        "started": 100.0,
        "newest": 302.0,
        "ended": None,
        "brackets": [
            {
                "bracket": 0,
                "rungs": [{"resource": 3, "runs": 9, "completed": 1, "failed": 2, "stopped": 0}],
            }
        ],
        "end": None,
        "simulated": False,
        "state": "running",
        "reason": None,
        "pausing": "its jobs can never start (2 tasks: PartitionTimeLimit)",
        "driver": None,
        "detached": "slurm",
        "tick_jobs": ["14"],
        "hindered": [{"batch": "b", "job": "13", "reason": "2 tasks: PartitionTimeLimit"}],
        "limited": "QOSMaxSubmitJobPerUserLimit",
        "clocks": {},
        "cluster_said": [],
        "excluded": [
            {"node": "n3", "until": LATER, "reason": "3 trials failed there in a row; the last: down"}
        ],
        "trials": 9,
        "enqueued": 0,
        "rank_correlations": [],
        "runs": {"waiting": 4, "pending": 2, "running": 0, "completed": 1, "failed": 2, "stopped": 0},
        "tasks": None,
        "queue_waits": None,
        "pools": [],
        "failed_by": {"out_of_memory": 1, "crashed": 1},
        "checkpoints": {"trials": 0, "files": 0, "bytes": 0, "removed_trials": 0, "removed_bytes": 0},
        "best": {"trial": 0, "value": 0.5, "resource": 3, "config": {"x": 0.0}},
        "warnings": [],
        "added_parameters": [],
        "checkpoint_quota": {"bytes": None, "files": None},
        "quota_reached": None,
        "passed_over": [],
        "gpu_hours": 1.01,
        "budget_gpu_hours": 20.0,
        "liveness": {
            "driven": True,
            "arrays": [
                {"job": "13", "name": "b", "state": "RUNNING", "reason": "", "begins": "N/A", "folder": "/w"}
            ],
            "tick_jobs": [
                {
                    "job": "14",
                    "name": "b-tick",
                    "state": "PENDING",
                    "reason": "Dependency",
                    "begins": "N/A",
                    "folder": "/w",
                }
            ],
            "unknown": "",
            "lines": [],
            "advice": f"hpcsweep launch {folder}/sweep.yaml --results {folder} --detach",
        },
        "run_hours": 0.252778,
        "interrupted": {"preempted": 2, "node_fail": 1},
        "newest_interruptions": [
            {"why": "preempted", "trial": 1, "rung": 0, "node": "n1", "job": "", "message": "p"},
            {"why": "node_fail", "trial": 1, "rung": 0, "node": "n3", "job": "11_1", "message": "down"},
            {"why": "preempted", "trial": 2, "rung": 0, "node": "n2", "job": "11_2", "message": "gone"},
        ],
        "failures": [
            {
                "outcome": "out_of_memory",
                "failure": "out_of_memory",
                "trial": 3,
                "rung": 0,
                "node": "n2",
                "job": "11_3",
                "message": "killed (MaxRSS 16G)",
            },
            {
                "outcome": "failed",
                "failure": "crashed",
                "trial": 4,
                "rung": 0,
                "node": "n2",
                "job": "11_4",
                "message": "ValueError: no",
            },
        ],
    }


def test_a_paused_sweep_says_why_and_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "3 batches in a row failed within seconds; the last: ModuleNotFoundError: torch"
    end: list[AnyEvent] = [PauseRequested(302.0, reason), SweepEnded(303.0, SweepOutcome.PAUSED, reason)]
    events = [*BEGUN[:10], *end]
    assert told(written(tmp_path / "s", events), capsys) == [
        f"lr: paused ({reason})",
        "bracket 0: 0/9x3",
        "9 trials; 0 runs completed, 9 waiting; 0 run-hours",
        "best: no value yet",
        f"resume, and retry what failed: hpcsweep retry {tmp_path}/s",
    ]


def test_status_of_an_undisturbed_sweep_has_no_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(written(tmp_path / "s", BEGUN, spec="budget: {trials: 9}\n"), capsys) == [
        "lr: running",
        "driver: none at work; launch again to resume",
        "bracket 0: 1/9x3",
        "9 trials; 1 run completed, 4 pending, 4 waiting; 1 GPU-hours",
        "best: loss 0.5 (trial 0 at step 3)",
        "      x=0",
    ]


def test_only_the_newest_failures_and_unexpected_interruptions_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[AnyEvent] = [STARTED, *(TrialCreated(t, {"x": 0.0}, 0, 1) for t in range(20))]
    for trial in range(8):
        events += [planned(f"a{trial}", trial)]
        events.append(RunInterrupted(trial, 0, Interruption.TIMEOUT, batch=f"a{trial}", message="time"))
    events.append(planned("b", *range(8, 20)))
    events += [RunFinished(t, 0, Outcome.FAILED, batch="b", message=f"no {t}") for t in range(8, 16)]
    events.append(RunRetried(15, 0))
    why = (Interruption.SWEEP_STOPPED, Interruption.NOT_STARTED, Interruption.CANCELLED_BY_ADMIN)
    events += [RunInterrupted(16 + i, 0, w, batch="b", message="m") for i, w in enumerate(why)]
    assert told(written(tmp_path / "s", events), capsys)[2:] == [
        "bracket 0: 7/20x1 (7 failed)",
        "20 trials; 0 runs completed, 7 failed, 1 pending, 12 waiting; 0 GPU-hours",
        "best: no value yet",
        "interruptions: 8 timed out, 1 cancelled with the sweep, 1 not begun, 1 cancelled by an admin",
        *[f"timed out: trial {trial} rung 0: time" for trial in range(4, 8)],
        "cancelled by an admin: trial 18 rung 0: m",
        *[f"crashed: trial {trial} rung 0: no {trial}" for trial in range(10, 15)],
        f"retry what failed: hpcsweep retry {tmp_path}/s",
    ]


def test_escapes_and_line_breaks_in_what_others_wrote_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "\x1b[2J[bold]\nnew \x9b31m"
    events = [*BEGUN, RunFinished(1, 0, Outcome.FAILED, batch="a", task=1, node=words, message=words)]
    shown = "?[2J[bold] new ?31m"
    assert told(written(tmp_path / "s", events), capsys)[-2] == f"crashed: trial 1 rung 0 on {shown}: {shown}"


# --------------------------------------------------------------------------- tasks that keep their GPUs


@pytest.fixture
def at_1100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcsweep.cli.status.time.time", lambda: 1100.0)


@pytest.mark.usefixtures("at_1100")
def test_status_shows_what_each_task_is_at_and_how_long_the_queue_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "s", BUSY)
    writer = MetricsWriter(Layout(folder).trial(1).metrics(0, 0, 0))
    writer.write(2, {"loss": 0.7})
    writer.close()
    lines = told(folder, capsys)
    assert lines[lines.index("bracket 0: 3/9x3") + 1 : -2] == [
        "tasks: 1 running, 1 idle, 1 leaving, 2 pending",
        "  70_1 on n1: idle for 36 s",
        "  70_2 on n2: leaving for 40 s",
        "  70_0 on n0: trial 1 rung 0, step 2/3, for 57 s",
        "queue waits: 11.5 s in the median, 13 s the last (4 tasks)",
        "9 trials; 3 runs completed, 1 running, 5 waiting; 0 GPU-hours",
        "best: loss 0.5 (trial 0 at step 3)",
        "      x=0.5",
    ]


@pytest.mark.usefixtures("at_1100")
def test_status_json_of_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status(written(tmp_path / "s", BUSY), json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["queue_waits"] == {"tasks": 4, "median": 11.5, "last": 13.0}
    tasks = shown["tasks"]
    each = tasks.pop("each")
    assert tasks == {"running": 1, "idle": 1, "leaving": 1, "pending": 2}
    assert [task["task"] for task in each] == [1, 2, 0, 4, 5]
    assert each[2:4] == [
        {
            "batch": "a",
            "task": 0,
            "job": "70_0",
            "node": "n0",
            "state": "running",
            "since": 1043.0,
            "runs": [{"trial": 1, "rung": 0, "resource": 3, "step": None}],
        },
        {"batch": "a", "task": 4, "job": "", "node": "", "state": "pending", "since": 1000.0, "runs": []},
    ]


@pytest.mark.usefixtures("at_1100")
def test_of_a_thousand_tasks_the_first_few_are_listed_and_all_are_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = [began(task, 1000.0 + task / 100) for task in range(1000)]
    folder = written(tmp_path / "s", events(*idle, tasks=1000))
    lines = told(folder, capsys)
    first = lines.index("tasks: 1,000 idle")
    assert lines[first + 1] == "  70_0 on n0: idle for 100 s"
    assert lines[first + 10 : first + 13] == [
        "  70_9 on n9: idle for 100 s",
        "  and 990 more",
        "queue waits: 9.5 s in the median, 10 s the last (100 tasks)",
    ]
    status(folder, json=True)
    assert len(json.loads(capsys.readouterr().out)["tasks"]["each"]) == 1000


# --------------------------------------------------------------------------- who drives it

DETACHED: list[AnyEvent] = [*BEGUN, SweepDetached(150.0, "slurm"), TickSubmitted("12", 201.0, "a")]


def driven(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is told of that: the lines between the first and that of the bracket."""
    lines = told(folder, capsys)
    return lines[1 : lines.index("bracket 0: 1/9x3")]


def test_a_detached_sweep_without_jobs_has_no_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], queue: list[tuple[str, ...] | str]
) -> None:
    folder = written(tmp_path / "s", DETACHED)
    layout = Layout(folder)
    layout.tick_log.write_text("one\ntwo\nthree\nnode n1: Permission denied\n")
    make_dirs(layout.batch("a").logs)
    layout.batch("a").log(2).write_text("ModuleNotFoundError: no module named torch\n\n")
    queue[:] = [("99", "of-another-project", "RUNNING", "", "N/A", "/w")]
    assert driven(folder, capsys) == [
        "driver: none at work",
        "nobody drives this sweep: no task or tick job of it is in the queue, and no launch is at work",
        "ticks.log: two",
        "ticks.log: three",
        "ticks.log: node n1: Permission denied",
        "batches/a/logs/2.log: ModuleNotFoundError: no module named torch",
        f"to go on: hpcsweep launch {folder}/sweep.yaml --results {folder} --detach",
    ]
    status(folder, json=True)
    assert json.loads(capsys.readouterr().out)["liveness"]["driven"] is False


def test_jobs_are_recognised_by_name_folder_or_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], queue: list[tuple[str, ...] | str]
) -> None:
    folder = written(tmp_path / "s", DETACHED)
    queue[:] = [("77", "lr-cafe01-tick", "PENDING", "BeginTime", "2026-01-01T00:00:00", "/w")]
    jobs = "driver: its jobs on slurm: tasks as they finish, then tick jobs 12"
    assert driven(folder, capsys) == [jobs]
    queue[:] = [("78", "site-41", "PENDING", "BeginTime", "N/A", str(folder))]
    assert driven(folder, capsys) == [jobs], "renamed, under a new id, known by its folder"
    queue[:] = [("11", "site-42", "RUNNING", "", "N/A", "/w")]
    assert driven(folder, capsys) == [jobs, "no tick job is in the queue: its tasks drive it as they end"]


def test_failing_ticks_are_reported_until_one_works_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], queue: list[tuple[str, ...] | str]
) -> None:
    folder = written(tmp_path / "s", DETACHED)
    log = Layout(folder).tick_log
    failure = "2026-11-28 21:29:30 tick job 53: failed (exit status 1, 2 in a row); looks again in 120 s"
    log.write_text(f"module: command not found\n{failure}\n")
    queue[:] = [("77", "lr-cafe01-tick", "PENDING", "BeginTime", "2026-01-01T00:00:00", "/w")]
    jobs = "driver: its jobs on slurm: tasks as they finish, then tick jobs 12"
    assert driven(folder, capsys) == [
        jobs,
        "its ticks fail, so nobody promotes or submits",
        "ticks.log: module: command not found",
        f"ticks.log: {failure}",
    ]
    segment = next(Layout(folder).journal.iterdir())
    later = log.stat().st_mtime + 5
    os.utime(segment, (later, later))
    assert driven(folder, capsys) == [jobs], "a task has ticked since"
    os.utime(segment, (0, 0))
    log.write_text(f"{failure}\n2026-11-28 21:31:30 tick job 57: works again\n")
    assert driven(folder, capsys) == [jobs]


def test_an_unavailable_queue_is_reported_and_nothing_concluded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], queue: list[tuple[str, ...] | str]
) -> None:
    folder = written(tmp_path / "s", DETACHED)
    queue[:] = ["squeue: no answer within 10 s"]
    assert driven(folder, capsys) == [
        "driver: its jobs on slurm: tasks as they finish, then tick jobs 12",
        "whether its jobs live is not known: squeue: no answer within 10 s",
    ]
    status(folder, json=True)
    assert json.loads(capsys.readouterr().out)["liveness"]["driven"] is None


def test_a_sweep_without_driver_says_that_its_arrays_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], queue: list[tuple[str, ...] | str]
) -> None:
    folder = written(tmp_path / "s", BEGUN)
    queue[:] = [("11", "a", "RUNNING", "", "N/A", "/w")]
    assert driven(folder, capsys) == [
        "driver: none at work; launch again to resume",
        "1 array of it in the queue: what is there trains on, nobody promotes or submits",
    ]


def test_a_silent_driver_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path / "s")
    journal = Journal.open(layout)
    journal.commit(BEGUN)
    segment = layout.journal / "000001.jsonl"
    before = time.time() - 36_000
    os.utime(segment, (before, before))
    lines = driven(layout.root, capsys)
    journal.release()
    assert lines[1:] == ["the driver gives no sign of life for 600 min: it may hang"]


# --------------------------------------------------------------------------- clocks


def test_nodes_with_skewed_clocks_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(trial: int, node: str, started: float) -> RunFinished:
        done = Outcome.COMPLETED
        return RunFinished(trial, 0, done, 0.5, 3, batch="a", seconds=60.0, started=started, node=node)

    events = [
        *BEGUN[:-1],
        run(0, "n1", 210.0),
        run(1, "n2", 200.0 - 600.0),  # planned at 200
        run(2, "n3", 290.0 + 900.0),
        run(3, "n4", 195.0),
        StopRequested(350.0, "by me"),
    ]
    lines = told(written(tmp_path / "s", events), capsys)
    assert [line for line in lines if line.startswith("clock")] == [
        "clock: n2 is at least 10 min behind the driver; start times in tables are by its clock",
        "clock: n3 is at least 15 min ahead of the driver; start times in tables are by its clock",
    ]
