"""Ticks from inside jobs: who goes first, who waits, and that nothing is left with nobody to see to it."""

from __future__ import annotations

import errno
import importlib
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpcsweep import load, tick
from hpcsweep.cli import app
from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Batch, Limits, Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import FilesCompacted, RunFinished, SweepEnded, SweepOutcome, SweepResumed
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.driver.job_control import WATCH_S
from hpcsweep.errors import ClusterError, ClusterUnavailable, HeldError, SubmitRefused
from hpcsweep.session import session as session_module
from hpcsweep.session.session import Session
from hpcsweep.session.target import Target
from hpcsweep.spec import load_spec
from hpcsweep.store.batch import read_task
from hpcsweep.store.checkpoints import DiskUsage
from hpcsweep.store.journal import Journal, current_driver
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import Request, write_request
from hpcsweep.views.folder import ResultsFolder
from hpcsweep.worker.tick_process import LONGEST_S
from tests.doubles import SHAPE, FolderCluster
from tests.driver.sweeps import drive

SPEC = """\
name: s
train: {function: trainer.py:train, check: false}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: random
scheduler: {name: halving, max_resource: 4, eta: 2}
resources: {gpus: 1}
"""


class JobCluster(FolderCluster):
    """A cluster that takes jobs that tick; its tasks run when a test says so."""

    poll_s = (0.01, 0.01)

    def __init__(self, controller: Path) -> None:
        super().__init__(controller, per_poll=0)
        self.called: list[tuple[str, str, float]] = []
        self.refusal: ClusterError | None = None
        #: Tasks that go on cleaning up, and whether none can be cancelled.
        self.slow: set[int] = set()
        self.stubborn = False
        #: What the queue shows of the user; None: it does not tell.
        self.known: dict[str, str] | None = None
        #: So many polls fail.
        self.unanswered = 0

    @property
    def known_jobs(self) -> Mapping[str, str] | None:
        return self.known

    def submit_tick(self, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0) -> str:
        self.called.append((name, after, delay_s))
        return f"tick-{len(self.called)}"

    @property
    def poll_error(self) -> str:
        return "squeue: no answer within 60 s" if self.unanswered else ""

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        self.unanswered = max(self.unanswered - 1, 0)
        if self.unanswered:
            return None
        shown = super().poll(live) or {}
        slow = {task: TaskState(Phase.RUNNING) for task in shown if task.task in self.slow}
        return {**shown, **slow}

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        if not self.stubborn:
            super().cancel(batch, tasks)

    def submit(self, batch: Batch) -> str:
        if self.refusal is not None:
            raise self.refusal
        return super().submit(batch)


class Site:
    """A detached sweep of three rungs, 4 runs, 2 and 1, whose first rung is on the cluster."""

    def __init__(self, root: Path, *, reuse: bool = False) -> None:
        self.spec = root / "sweep.yaml"
        self.spec.write_text(SPEC)
        (root / "trainer.py").write_text("def train(trial): ...\n")
        self.root = root / "results"
        self.layout = Layout(self.root)
        self.cluster = JobCluster(root / "controller")
        self.place = Target("jobs", "for the test", self.cluster, SHAPE, reuse=reuse, max_tasks=4)
        with Session(load_spec(self.spec), self.root, target=self.place).open() as driver:
            driver.detach()
            driver.tick()
        self.cluster.called.clear()

    def events(self) -> list[Any]:
        return read_journal(self.layout).events

    @property
    def state(self) -> SweepState:
        return SweepState.replay(self.events())

    @property
    def batch(self) -> BatchState:
        """The only batch on the cluster."""
        (batch,) = self.state.live.values()
        return batch

    def work(self, *tasks: int) -> str:
        """Tasks of the only batch write their results and end; its name."""
        batch = self.batch
        folder = self.layout.batch(batch.name).root
        live = SubmittedBatch(batch.name, "", folder, len(batch.tasks), batch.throttle, SHAPE, ())
        for task in tasks:
            self.cluster.run(live, task)
        return batch.name

    def finished(self) -> int:
        return sum(isinstance(event, RunFinished) for event in self.events())

    def tick(self, batch: str = "", task: int = 0, job: str = "job-of-task") -> int:
        """A finishing task's tick, or one of a job of its own."""
        of_task = ["--batch", batch, "--task", str(task)] if batch else []
        return tick.main([str(self.root), *of_task, "--job", job], {})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(tmp_path)

    def resolve(spec: object, *, name: str | None, state: SweepState | None) -> Target:
        if state is None:  # a tick; `stop` gives the state
            assert name == "jobs", "the cluster that was resolved when the sweep was detached"
        return site.place

    monkeypatch.setattr(session_module, "resolve_target", resolve)
    return site


@pytest.fixture
def held(site: Site) -> Iterator[Journal]:
    """Another driver that is at work: the test's own process."""
    journal = Journal.open(site.layout)
    journal.acquire()
    yield journal
    journal.release()


class Time:
    """Time that passes only by sleeping; `then` is done in the `nth` sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.sleeps = 0
        self.then: dict[int, Callable[[], object]] = {}
        began = time.time()
        monkeypatch.setattr(time, "time", lambda: began + self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        self.then.pop(self.sleeps, lambda: None)()


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


# --------------------------------------------------------------------------- finishing tasks


def test_last_task_of_a_rung_submits_the_next_and_a_tick_job_behind_it(site: Site) -> None:
    name = site.work(0, 1, 2, 3)
    assert site.tick(name, 3) == 0
    assert site.state.counts[RunStatus.COMPLETED] == 4
    new = site.batch
    assert [len(task) for task in new.tasks] == [1, 1]
    assert site.cluster.called == [(f"{new.name}-tick", f"job-{new.name}", 0.0)]
    header, _ = read_task(site.layout.batch(new.name), 0)
    assert header.tick


def test_task_that_ends_the_sweep_compacts_it(site: Site) -> None:
    for tasks in (range(4), range(2), range(1)):
        name = site.work(*tasks)
        assert list(site.layout.batches.iterdir())
        assert site.tick(name, tasks[-1]) == 0
    assert site.state.ended is not None
    assert list(site.layout.batches.iterdir()) == []
    (event,) = (event for event in site.events() if isinstance(event, FilesCompacted))
    assert (len(event.runs), len(event.batches)) == (7, 3)
    assert len(load(site.root).runs) == 7


def test_task_leaves_at_once_if_a_driver_runs_and_imports_nothing_heavy(site: Site, held: Journal) -> None:
    name = site.work(0)
    code = (
        "import sys; from hpcsweep import tick; code = tick.main(sys.argv[1:]); "
        "print(code, *{'numpy', 'pydantic', 'jinja2', 'submitit', 'ruamel', 'typer'} & set(sys.modules))"
    )
    argv = [sys.executable, "-c", code, str(site.root), "--batch", name, "--task", "0", "--job", "1_0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert site.finished() == 0


def test_task_that_meets_a_driver_does_not_read_the_whole_journal(
    site: Site, held: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "open", lambda layout: pytest.fail("it is read"))
    assert site.tick(site.work(0), 0) == 0


def test_result_written_while_the_driver_releases_is_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = site.work(0)
    release = Journal.release
    late = [2, 1]

    def released(journal: Journal) -> None:
        if late and current_driver(read_journal(site.layout)) is not None:
            site.work(late.pop())
            assert site.tick(name, 1) == 0  # meets a driver at work, and leaves
            assert site.finished() == 2 - len(late)
        release(journal)

    monkeypatch.setattr(Journal, "release", released)
    assert site.tick(name, 0) == 0
    assert late == []
    assert site.finished() == 3


def test_simultaneous_ticks_retry(site: Site, passing: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = Journal.acquire

    def busy(journal: Journal) -> None:
        monkeypatch.setattr(Journal, "acquire", acquire)
        raise HeldError("another driver is starting on it at this moment")

    monkeypatch.setattr(Journal, "acquire", busy)
    assert site.tick(site.work(0), 0) == 0
    assert passing.sleeps == 1
    assert site.finished() == 1


def test_refused_batch_is_reported_and_loses_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.cluster.refusal = SubmitRefused("sbatch: error: Access/permission denied")
    assert site.tick(site.work(0, 1, 2, 3), 3) == 1
    name = f"s-{site.state.started.sweep}-tick" if site.state.started else ""
    assert site.cluster.called == [(name, "", tick.RETRY_S)], "the queue does not tell that another one waits"
    assert [record.getMessage() for record in caplog.records] == [
        "sbatch: error: Access/permission denied",
        "job tick-1 looks again in 60 s",
    ]
    assert ResultsFolder(site.root).progress.refusal == "sbatch: error: Access/permission denied"
    site.cluster.refusal = None
    assert site.tick() == 0
    assert [len(batch.tasks) for batch in site.state.live.values()] == [2]


@pytest.mark.parametrize(
    "fault",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        ValueError("a mistake of ours"),
    ],
)
@pytest.mark.parametrize(
    ("queue", "submits"),
    [
        ({"7": "other-tick"}, True),
        ({"7": "{sweep}-1-1-tick"}, True),  # it comes when that array has ended
        ({"{first}": "{sweep}-tick"}, False),
        ({"7": "{sweep}-tick"}, False),  # what such a failure, or that of a tick job, submitted
    ],
)
def test_task_whose_tick_fails_submits_a_tick_job_unless_one_comes_soon(
    site: Site, monkeypatch: pytest.MonkeyPatch, fault: Exception, queue: dict[str, str], submits: bool
) -> None:
    name = site.work(0)
    sweep = name.rsplit("-", 2)[0]
    (first,) = site.state.tick_jobs
    queue = {job.format(first=first): known.format(sweep=sweep) for job, known in queue.items()}

    def fails(*of: object) -> None:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr("hpcsweep.driver.loop.new_requests", fails)
        patch.setattr(site.cluster, "known", queue | {site.batch.tick_job: f"{name}-tick"})
        assert site.tick(name, 0) == 1
    assert site.cluster.called == ([(f"{sweep}-tick", "", tick.RETRY_S)] if submits else [])
    assert site.tick(name, 0) == 0
    assert site.finished() == 1


def test_task_whose_tick_fails_does_not_count_on_a_job_that_comes_in_an_hour(
    site: Site, passing: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = site.work(0)
    site.cluster.known = {site.batch.tick_job: f"{name}-tick"}
    assert site.tick(name, 0) == 0
    assert [delay_s for *_, delay_s in site.cluster.called] == [WATCH_S]
    site.cluster.known["tick-1"] = site.cluster.called.pop()[0]
    with monkeypatch.context() as patch:
        patch.setattr("hpcsweep.driver.loop.new_requests", lambda *of: 1 / 0)
        for _ in range(2):
            assert site.tick(name, 0) == 1
            site.cluster.known["8"] = site.cluster.called[-1][0]
    assert [delay_s for *_, delay_s in site.cluster.called] == [tick.RETRY_S], "the second one saw the first"


def test_renamed_tick_job_counts_as_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    name = site.work(0)
    monkeypatch.setattr(site.cluster, "known", {site.batch.tick_job: "lab7"})
    monkeypatch.setattr("hpcsweep.driver.loop.new_requests", lambda *of: 1 / 0)
    assert site.tick(name, 0) == 1
    assert site.cluster.called == []


def test_tick_fails_if_no_successor_can_be_submitted(
    site: Site, passing: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that failed is followed by another by other means."""
    name = site.work(0)

    def away(*of: object, **more: object) -> str:
        raise ClusterUnavailable("sbatch: Unable to contact slurm controller")

    with monkeypatch.context() as patch:
        patch.setattr(site.cluster, "submit_tick", away)
        patch.setattr(site.cluster, "known", {})
        patch.setattr(site.cluster, "poll_s", (60.0, 60.0))
        assert site.tick() == 1
    assert passing.now > tick.JOB_S
    words = "no job that looks again could be submitted: sbatch: Unable to contact slurm controller"
    assert caplog.records[-1].getMessage() == words
    assert site.finished() == 1, "it did what it could"
    assert site.tick(name, 0) == 0


def test_tick_jobs_that_vanish_early_are_replaced(site: Site) -> None:
    name = site.work(0)
    batch = site.batch
    site.cluster.known = {batch.tick_job: f"{name}-tick", "tick-1": "the one that looks in a minute"}
    assert site.tick(name, 0) == 0
    assert site.cluster.called == []
    site.cluster.known = {}
    site.work(1)
    assert site.tick(name, 1) == 0
    assert [(called, after) for called, after, _ in site.cluster.called] == [
        (f"{name}-tick", batch.job),
        (f"{name.rsplit('-', 2)[0]}-tick", ""),
    ]


@pytest.mark.parametrize("of_task", [True, False])
def test_tick_of_an_ended_sweep_changes_nothing(site: Site, of_task: bool) -> None:
    name = site.batch.name
    write_request(site.layout, Request("stop", 0.0, "me"))
    site.tick()
    assert [event.outcome for event in site.events() if isinstance(event, SweepEnded)] == [
        SweepOutcome.STOPPED
    ]
    before = {path: path.read_bytes() for path in site.layout.journal.iterdir()}
    assert site.tick(name if of_task else "") == 0
    assert {path: path.read_bytes() for path in site.layout.journal.iterdir()} == before


def test_tick_refuses_a_sweep_that_is_not_detached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    drive(tmp_path / "s", FolderCluster(tmp_path / "controller"))
    assert tick.main([str(tmp_path / "s")], {}) == 1
    expected = f"{tmp_path}/s: expected a detached sweep; see `hpcsweep launch --detach`"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_jobs_do_not_inherit_the_tick_mark(site: Site) -> None:
    environ = {"PYTHONPATH": "/ours", "HPCSWEEP_TICK": "1f"}
    tick.main([str(site.root), "--batch", "b", "--job", "1_0"], environ)
    assert environ == {"PYTHONPATH": "/ours"}


# --------------------------------------------------------------------------- jobs that only tick


def test_tick_job_stays_until_its_array_is_closed(site: Site, passing: Time) -> None:
    """A task may still be seen to clean up when the job behind its array starts."""
    site.work(0, 1, 2, 3)
    tick_job = site.batch.tick_job
    assert site.tick(job=tick_job) == 0
    (rung,) = site.state.live
    site.cluster.slow = {0}
    site.work(0, 1)
    passing.then[2] = site.cluster.slow.clear
    assert site.tick(job=site.batch.tick_job) == 0
    assert rung not in site.state.live


@pytest.mark.parametrize("known", [None, {}])
def test_tick_job_that_follows_one_that_failed_closes_its_array_though_the_queue_is_silent_at_first(
    site: Site, passing: Time, known: dict[str, str] | None
) -> None:
    name = site.work(0, 1, 2, 3)
    site.cluster.known, site.cluster.unanswered = known, 3
    assert site.tick(job="9") == 0
    assert name not in site.state.live
    assert [len(task) for task in site.batch.tasks] == [1, 1]


def test_task_whose_tick_had_no_answer_of_the_queue_leaves_a_job_that_looks_soon(
    site: Site, passing: Time
) -> None:
    name = site.work(0)
    passing.now += 61
    site.cluster.unanswered = 2
    assert site.tick(name, 0) == 0
    assert site.finished() == 1
    assert [(after, delay_s) for _, after, delay_s in site.cluster.called] == [("", 60.0)]


@pytest.mark.parametrize("behind_its_array", [True, False])
def test_tick_job_waits_for_a_driver_which_may_count_on_it(
    site: Site, held: Journal, passing: Time, behind_its_array: bool
) -> None:
    site.work(0, 1, 2, 3)
    passing.then[3] = held.release
    assert site.tick(job=site.batch.tick_job if behind_its_array else "another one") == 0
    assert passing.sleeps == 3
    assert [len(task) for task in site.batch.tasks] == [1, 1]


@pytest.mark.parametrize(
    ("behind_its_array", "shown", "submits"),
    [
        (True, True, True),
        (False, True, False),
        (False, False, True),  # it follows that one, which failed, or that was cancelled
        (False, None, True),
    ],
)
def test_tick_job_that_waited_too_long_leaves_another_one_in_the_queue(
    site: Site, held: Journal, passing: Time, behind_its_array: bool, shown: bool | None, submits: bool
) -> None:
    behind = site.batch.tick_job
    site.cluster.known = None if shown is None else {behind: "renamed"} if shown else {"9": "another"}
    assert site.tick(job=behind if behind_its_array else "9") == 0
    least_s, most_s = (tick.JOB_S, math.inf) if submits else (LONGEST_S, tick.JOB_S)
    assert least_s < passing.now < most_s
    expected = [("", 60.0)] if submits else []
    assert [(after, delay_s) for _, after, delay_s in site.cluster.called] == expected
    assert site.finished() == 0


@pytest.mark.parametrize("of_task", [True, False])
def test_tick_takes_over_again_from_a_driver_that_took_over_and_died(
    site: Site, passing: Time, monkeypatch: pytest.MonkeyPatch, of_task: bool
) -> None:
    name, poll = site.work(0, 1, 2, 3), site.cluster.poll

    def superseded(live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        monkeypatch.setattr(site.cluster, "poll", poll)
        newest = max(site.layout.journal.iterdir())
        (site.layout.journal / f"{int(newest.stem) + 1:06d}.jsonl").touch()
        return poll(live)

    monkeypatch.setattr(site.cluster, "poll", superseded)
    assert site.tick(name if of_task else "", 3) == 0
    assert site.finished() == 4
    assert [len(task) for task in site.batch.tasks] == [1, 1]


def test_tick_job_retries_while_the_cluster_is_unavailable(
    site: Site, passing: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = site.cluster.limits

    def down() -> Limits:
        raise ClusterUnavailable("scontrol: no answer within 60 s")

    monkeypatch.setattr(site.cluster, "limits", down)
    passing.then[4] = lambda: monkeypatch.setattr(site.cluster, "limits", limits)
    site.work(0, 1, 2, 3)
    assert site.tick() == 0
    assert passing.sleeps == 4
    assert site.finished() == 4


def test_tick_job_is_submitted_for_what_no_job_will_report(site: Site, passing: Time) -> None:
    batch = site.batch
    write_request(site.layout, Request("stop", 0.0, "me"))
    site.cluster.stubborn = True
    assert site.tick(batch.name, 0) == 0
    assert site.state.stopping is not None
    assert site.state.ended is None
    assert site.cluster.called == []  # the first job of the detached sweep is still to come
    passing.now += 61
    assert site.tick(batch.name, 1) == 0
    assert [(after, delay_s) for _, after, delay_s in site.cluster.called] == [("", 60.0)]


# --------------------------------------------------------------------------- commands that meet a tick


def test_stop_waits_for_a_tick_and_does_not_resume_what_it_stopped(
    site: Site, held: Journal, passing: Time
) -> None:
    def ticks() -> None:
        held.release()
        assert site.tick() == 0  # takes up the request

    passing.then[1] = ticks
    stopped = CliRunner().invoke(app, ["stop", str(site.root)])
    assert (stopped.exit_code, stopped.output) == (0, "stopped\n")
    assert [type(event) for event in site.events()].count(SweepResumed) == 0
    assert site.state.ended is not None


@pytest.mark.parametrize("command", [["stop"], ["clean", "--yes"]])
def test_result_of_a_task_that_took_a_command_for_the_driver_is_read(
    site: Site, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    release, late = Journal.release, [1]

    def released(journal: Journal) -> None:
        if late and current_driver(read_journal(site.layout)) is not None:
            name = site.work(late.pop())
            assert site.tick(name, 1) == 0
        release(journal)

    def removable(*of: object, **more: object) -> list[int]:
        return [0]

    monkeypatch.setattr(Journal, "release", released)
    clean = importlib.import_module("hpcsweep.cli.clean")  # its function has the same name
    monkeypatch.setattr(clean, "_removable", removable)
    monkeypatch.setattr(clean, "disk_usage_by_trial", lambda _: {0: DiskUsage(1, 1)})
    trial = ["0"] if command == ["stop"] else []
    done = CliRunner().invoke(app, [*command, str(site.root), *trial])
    assert done.exit_code == 0, done.output
    assert late == []
    assert [event.run.trial for event in site.events() if isinstance(event, RunFinished)][-1] == 1


def test_stop_names_a_driver_that_holds_on(site: Site, held: Journal) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "PATIENCE_S", 0.1)
        stopped = CliRunner().invoke(app, ["stop", str(site.root)])
    assert stopped.exit_code == 0
    assert stopped.output.startswith(f"stop requested: {site.root}: process ")


def test_once_and_detach_exclude_each_other(site: Site) -> None:
    both = CliRunner().invoke(app, ["launch", str(site.spec), "--once", "--detach"])
    assert both.exit_code == 2
    assert "--detach and --once exclude each other: jobs or cron drive the sweep" in both.output
