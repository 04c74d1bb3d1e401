"""What a live view sees of hand-made journals, while a queue answers or does not and files vanish."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, TaskId, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.errors import ClusterUnavailable, FolderError
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.views.folder import ResultsFolder
from hpcsweep.views.progress import SweepProgress, Throughput
from hpcsweep.views.snapshot import StatusPoller, StatusSnapshot
from hpcsweep.views.tasks import newest_report

STARTED = SweepStarted("cafe01", "lr", 1000.0, {"objective": {"metric": "loss", "mode": "min"}})


def planned(name: str, *tasks: Sequence[int], cluster: str = "slurm", rung: int = 0) -> BatchPlanned:
    runs = tuple(tuple(RunId(trial, rung) for trial in task) for task in tasks)
    return BatchPlanned(name, 1000.0, runs, 1, 9, cluster)


def finished(
    trial: int, value: float | None, *, rung: int = 0, at: float = 1100.0, **more: Any
) -> RunFinished:
    outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
    return RunFinished(trial, rung, outcome, value, started=at - 50, seconds=50.0, gpu_seconds=50.0, **more)


#: Six trials in one batch of five tasks, the last of which carries two.
BEGUN: list[AnyEvent] = [
    STARTED,
    *(TrialCreated(trial, {"x": 0.5}, 0, 3) for trial in range(6)),
    planned("a", [0], [1], [2], [3], [4, 5]),
    BatchSubmitted("a", "70", 1001.0),
]


class Queue:
    """Answers as it is told to, and counts."""

    def __init__(self, shown: Mapping[int, TaskState] | None = None) -> None:
        self.shown = shown
        self.asked: list[list[str]] = []

    def __call__(self, batches: Sequence[BatchState]) -> Mapping[TaskId, TaskState]:
        self.asked.append([batch.name for batch in batches])
        if self.shown is None:
            raise ClusterUnavailable("squeue: it is down")
        return {TaskId("a", task): state for task, state in self.shown.items()}


class Sweep:
    """A results folder that grows, and what is seen of it."""

    def __init__(self, folder: Path, queue: Queue) -> None:
        self.layout = Layout(folder)
        self.journal = Journal.open(self.layout)
        self.queue = queue
        self.poller = StatusPoller(folder, queue)

    def add(self, *events: AnyEvent) -> None:
        self.journal.commit(events)

    def poll(self, now: float = 1200.0, shown: int = 9) -> StatusSnapshot:
        return self.poller.poll(now=now, shown=shown)

    def begin(self, *tasks: int) -> None:
        logs = self.layout.batch("a").logs
        logs.mkdir(parents=True, exist_ok=True)
        for task in tasks:
            (logs / f"{task}.log").touch()

    def tell(self, task: int, restart: int = 0, n: int = 0) -> None:
        path = self.layout.batch("a").result(task, restart, n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def report(self, trial: int, *values: float, attempt: int = 0, restart: int = 0) -> Path:
        path = self.layout.trial(trial).metrics(0, attempt, restart)
        writer = MetricsWriter(path)
        for step, value in enumerate(values, start=1):
            writer.write(step, {"loss": value})
        writer.close()
        return path


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "a sweep", Queue())


def runs_of(view: StatusSnapshot) -> list[int]:
    return [run.trial for run in view.running]


# --------------------------------------------------------------------------- what runs and what waits


def test_the_queue_gives_node_time_and_pending_reason(sweep: Sweep) -> None:
    sweep.queue.shown = {
        0: TaskState(Phase.RUNNING, node="n1", seconds=65.0),
        1: TaskState(Phase.PENDING, "Priority"),
        2: TaskState(Phase.PENDING, "Resources"),
        3: TaskState(Phase.PENDING, "Priority"),
        4: TaskState(Phase.PREEMPTED),
    }
    sweep.add(*BEGUN)
    sweep.begin(0, 1)  # task 1 was preempted: its log is there, and it waits again
    sweep.report(0, 0.9, 0.7)
    view = sweep.poll()
    assert [(one.run.trial, one.step, one.values, one.node, one.seconds) for one in view.shown] == [
        (0, 2, {"loss": 0.7}, "n1", 65.0)
    ]
    assert view.pending == {"Priority": 2, "Resources": 1}
    assert (view.ended, view.problem) == ({"preempted": 2}, "")


def test_an_unavailable_queue_is_reported_and_changes_nothing(sweep: Sweep) -> None:
    sweep.queue.shown = {task: TaskState(Phase.PENDING, "Priority") for task in range(1, 5)}
    sweep.queue.shown[0] = TaskState(Phase.RUNNING, node="n1", seconds=5.0)
    sweep.add(*BEGUN)
    before = sweep.poll()
    sweep.queue.shown = None
    after = sweep.poll()
    assert after.problem == "squeue: it is down"
    assert (after.running, after.shown, after.pending) == (before.running, before.shown, {"Priority": 4})


def test_without_a_queue_files_show_what_runs(sweep: Sweep) -> None:
    sweep.queue.shown = None
    sweep.add(*BEGUN)
    sweep.begin(0, 1, 4)
    sweep.tell(0)
    sweep.tell(4, n=1)
    view = sweep.poll()
    assert (runs_of(view), dict(view.pending), view.ended) == ([1, 4], {"": 2}, {"": 2})


def test_a_requeued_task_that_runs_again_is_not_counted_as_ended(sweep: Sweep) -> None:
    sweep.queue.shown = None
    sweep.add(*BEGUN, RunInterrupted(0, 0, Interruption.PREEMPTED, batch="a", requeued=True))
    sweep.begin(0)
    sweep.tell(0)  # of the start that the journal knows to be over
    assert (runs_of(sweep.poll()), sweep.poll().ended) == ([0], {})
    sweep.tell(0, restart=1)
    assert (runs_of(sweep.poll()), sweep.poll().ended) == ([], {"": 1})


def test_a_preempted_task_is_pending_despite_an_earlier_unread_result(sweep: Sweep) -> None:
    sweep.queue.shown = {
        0: TaskState(Phase.PENDING, "BeginTime"),
        1: TaskState(Phase.RUNNING),
        4: TaskState(Phase.RUNNING),
    }
    sweep.add(*BEGUN)
    sweep.begin(0, 1, 4)
    for task in (0, 1, 4):
        sweep.tell(task)
    view = sweep.poll()
    assert (runs_of(view), view.pending["BeginTime"], view.ended) == ([1, 5], 1, {"": 1})


def test_the_queue_is_asked_once_a_poll_and_only_for_batches_with_a_job(sweep: Sweep) -> None:
    sweep.queue.shown = {}
    sweep.add(STARTED, *(TrialCreated(trial, {"x": 0.5}, 0, 3) for trial in range(6)))
    sweep.poll()
    sweep.add(planned("b", [0], cluster="local"), BatchSubmitted("b", "local", 1001.0), planned("a", [1]))
    sweep.poll()
    assert sweep.queue.asked == [["b"]]
    sweep.add(BatchSubmitted("a", "70", 1002.0), planned("c", [2]), BatchSubmitted("c", "71", 1003.0))
    sweep.poll()
    sweep.poll()
    assert sweep.queue.asked == [["b"], ["b", "a", "c"], ["b", "a", "c"]]


def test_a_batch_that_the_cluster_has_not_acknowledged_is_being_submitted(sweep: Sweep) -> None:
    sweep.add(*BEGUN[:-1])
    assert dict(sweep.poll().pending) == {"being submitted": 5}


def test_runs_of_high_rungs_are_shown_and_the_others_only_counted(sweep: Sweep) -> None:
    sweep.queue.shown = {}
    promoted: list[AnyEvent] = [
        finished(5, 0.5, batch="a", task=4),
        TrialPromoted(5, 1, 9),
        planned("b", [5], rung=1),
    ]
    sweep.add(*BEGUN, *promoted, BatchSubmitted("b", "71", 1002.0))
    sweep.begin(0, 1, 2, 3, 4)
    logs = sweep.layout.batch("b").logs
    logs.mkdir(parents=True)
    (logs / "0.log").touch()
    view = sweep.poll(shown=2)
    assert [(run.trial, run.rung) for run in view.running] == [(5, 1), (0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]
    assert [one.run.trial for one in view.shown] == [5, 0]


def test_vanishing_files_are_no_error(sweep: Sweep) -> None:
    sweep.queue.shown = {0: TaskState(Phase.RUNNING)}
    sweep.add(*BEGUN)
    sweep.begin(0, 1)
    sweep.report(0, 0.5)
    assert sweep.poll().shown[0].values == {"loss": 0.5}
    shutil.rmtree(sweep.layout.batches)
    shutil.rmtree(sweep.layout.trials)
    view = sweep.poll()
    assert [(one.step, one.values) for one in view.shown] == [(None, {})]
    assert dict(view.pending) == {"": 4}


def test_files_of_trials_that_do_not_run_are_not_read(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.queue.shown = {1: TaskState(Phase.RUNNING)}
    sweep.add(*BEGUN, finished(0, 0.5, batch="a"))
    for trial in range(6):
        sweep.report(trial, 0.5)
    listed: list[str] = []

    def noted(real: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def listing(path: Any) -> Any:
            listed.append(Path(path).relative_to(sweep.layout.root).as_posix())
            return real(path)

        return listing

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, noted(getattr(os, name)))
    sweep.poll()
    assert listed == ["journal", "batches/a/logs", "batches/a/results", "trials/0000/1"]


# --------------------------------------------------------------------------- reports


def test_the_newest_report_is_that_of_the_newest_attempt_at_the_rung(sweep: Sweep) -> None:
    trial = sweep.layout.trial(3)
    assert newest_report(trial, 0, ["loss"]) is None
    sweep.report(3, 0.9, 0.8, 0.7)
    assert newest_report(trial, 0, ["loss"]) == (3, {"loss": 0.7})
    sweep.report(3, 0.95, attempt=1)
    assert newest_report(trial, 0, ["loss"]) == (1, {"loss": 0.95})
    sweep.report(3, attempt=2)
    assert newest_report(trial, 0, ["loss"]) == (1, {"loss": 0.95})
    assert newest_report(trial, 1, ["loss"]) is None


def test_only_the_end_of_a_long_metrics_file_is_read_and_torn_lines_are_skipped(sweep: Sweep) -> None:
    path = sweep.report(3, *[number / 10 for number in range(5000)])
    with path.open("ab") as file:
        file.write(b'{"step": 5001, "accuracy": 1}\n{"step": 50')
    assert newest_report(sweep.layout.trial(3), 0, ["loss"]) == (5001, {"loss": 499.9})
    assert newest_report(sweep.layout.trial(3), 0, ["never", "accuracy"]) == (5001, {"accuracy": 1})
    path.write_bytes(b'{"step": "x", "loss": 1}\n')
    assert newest_report(sweep.layout.trial(3), 0, ["loss"]) is None


# --------------------------------------------------------------------------- the folder


def test_a_folder_without_a_journal_is_an_error_at_the_first_poll(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is not a results folder"), (tmp_path / "no", "does not exist")):
        with pytest.raises(FolderError, match=words):
            StatusPoller(path, Queue()).poll(now=0.0, shown=1)


def test_a_temporarily_unreadable_folder_is_reported_and_keeps_its_state(sweep: Sweep) -> None:
    sweep.queue.shown = {}
    sweep.add(*BEGUN)
    sweep.poll()
    hidden = sweep.layout.root / "hidden"
    sweep.layout.journal.rename(hidden)
    sweep.layout.journal.write_text("no folder")
    view = sweep.poll()
    assert view.problem == f"{sweep.layout.journal}: cannot be read: Not a directory"
    assert len(view.progress.state.trials) == 6
    sweep.layout.journal.unlink()
    hidden.rename(sweep.layout.journal)
    sweep.add(finished(0, 0.5, batch="a"))
    view = sweep.poll()
    assert (view.problem, best_values(view.progress)) == ("", [(1100.0, 0.5)])


def best_values(progress: SweepProgress) -> list[tuple[float, float]]:
    return [(change.at, change.value) for change in progress.best_changes]


def told(progress: SweepProgress) -> dict[str, Any]:
    """All that a progress can be asked."""
    state = progress.state
    return {
        "counts": state.counts,
        "spent": (state.spent_s, state.spent_gpu_s),
        "best": (state.best, progress.best_changes),
        "rungs": {b: [vars(count) for count in counts] for b, counts in progress.rungs.brackets().items()},
        "current": list(progress.rungs.current(newest=2)),
        "failures": progress.failures,
        "interruptions": list(progress.interruptions),
        "refusal": progress.refusal,
        "throughput": progress.throughput(now=5000.0),
        "unended": {name: batch.unfinished for name, batch in state.live.items()},
    }


@pytest.mark.parametrize("seed", range(5))
def test_many_polls_show_what_one_poll_and_status_show(sweep: Sweep, seed: int) -> None:
    drawn = random.Random(seed)
    sweep.queue.shown = {}
    events: list[AnyEvent] = [STARTED]
    for bracket in range(4):
        trials = range(bracket * 5, bracket * 5 + 5)
        name = f"b{bracket}"
        events += [TrialCreated(trial, {"x": 0.1}, bracket, 1) for trial in trials]
        events += [planned(name, *([trial] for trial in trials)), BatchSubmitted(name, "7", 1001.0)]
        for task, trial in enumerate(trials):
            where: dict[str, Any] = {"batch": name, "task": task, "node": "n1", "message": f"m{trial}"}
            value = None if drawn.random() < 0.3 else drawn.random()
            for _ in range(drawn.randint(0, 2)):
                why = drawn.choice(list(Interruption))
                events.append(RunInterrupted(trial, 0, why, requeued=True, **where))
            if drawn.random() < 0.9:
                events.append(finished(trial, value, at=1000.0 + 100 * trial, **where))
                if value is None and drawn.random() < 0.3:
                    events.append(RunRetried(trial, 0))
        if drawn.random() < 0.5:
            events.append(planned(f"x{bracket}"))
            events.append(BatchAbandoned(f"x{bracket}", "no", over_limit=drawn.random() < 0.5))
    for event in events:
        sweep.add(event)
        if drawn.random() < 0.2:
            sweep.poll()
    once = SweepProgress()
    for event in events:
        once.apply(event)
    progress = sweep.poll().progress
    assert told(progress) == told(once)
    summary = ResultsFolder(sweep.layout.root).status(now=5000.0)
    assert progress.failures == summary["failures"]
    assert list(progress.interruptions) == summary["newest_interruptions"]
    assert progress.refusal == summary["reason"]


# --------------------------------------------------------------------------- the progress


def progress_of(*events: AnyEvent) -> SweepProgress:
    progress = SweepProgress()
    for event in events:
        progress.apply(event)
    return progress


def test_the_best_so_far_is_kept_with_the_time_of_each_change() -> None:
    values = {0: 0.5, 1: 0.7, 2: None, 3: 0.2}
    ends = [finished(trial, value, at=1100.0 + trial, batch="a") for trial, value in values.items()]
    progress = progress_of(*BEGUN, *ends, TrialPromoted(3, 1, 9), planned("b", [3], rung=1))
    assert best_values(progress) == [(1100.0, 0.5), (1103.0, 0.2)]
    progress.apply(finished(3, 0.9, rung=1, at=1050.0, batch="b"))  # and a clock that is off
    assert best_values(progress) == [(1100.0, 0.5), (1103.0, 0.2), (1103.0, 0.5)]


def test_throughput_is_that_of_the_last_hour() -> None:
    ends = [finished(trial, 0.5, at=1100.0, batch="a") for trial in range(4)]
    progress = progress_of(*BEGUN, *ends)
    assert progress.throughput(now=1200.0) == Throughput(runs=4 / 200, units=12 / 200, gpu_s=200 / 200)
    many = [TrialCreated(trial, {"x": 0.5}, 0, 3) for trial in range(6, 40)]
    more = [finished(trial, 0.5, at=50_000.0, batch="b") for trial in range(6, 26)]
    progress = progress_of(*BEGUN, *ends, *many, planned("b", range(6, 40)), *more)
    assert progress.throughput(now=50_400.0) == Throughput(runs=20 / 3600, units=60 / 3600, gpu_s=1000 / 3600)


def test_throughput_of_long_runs_uses_a_longer_window() -> None:
    assert progress_of(*BEGUN).throughput(now=1200.0) is None
    ends = [finished(trial, 0.5, at=1000.0 + 9000 * trial, batch="a") for trial in range(4)]
    throughput = progress_of(*BEGUN, *ends).throughput(now=31_000.0)
    assert throughput is not None
    assert throughput.runs == pytest.approx(4 / 30_000)


def test_throughput_of_a_resumed_sweep_starts_at_the_resumption() -> None:
    ends = [finished(trial, 0.5, at=1100.0, batch="a") for trial in range(3)]
    end: list[AnyEvent] = [SweepEnded(1150.0, SweepOutcome.STOPPED, "asked"), SweepResumed(9000.0)]
    progress = progress_of(*BEGUN, *ends, *end)
    assert progress.throughput(now=9100.0) is None
    for trial in (3, 4):
        progress.apply(finished(trial, 0.5, at=9050.0, batch="a"))
    throughput = progress.throughput(now=9100.0)
    assert throughput is not None
    assert throughput.runs == 2 / 100


def test_a_refusal_is_shown_until_the_next_submission() -> None:
    progress = progress_of(*BEGUN, BatchClosed("a"))
    assert progress.refusal is None
    progress = progress_of(*BEGUN[:-2], planned("b", [0]), BatchAbandoned("b", "invalid account"))
    assert progress.refusal == "invalid account"
    progress.apply(planned("c", [0]))
    progress.apply(BatchSubmitted("c", "72", 1002.0))
    assert progress.refusal is None
