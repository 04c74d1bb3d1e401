"""Runs one small test job, submitted through the sweep's own template, and turns its report into findings."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, cast

import msgspec

from hpcsweep.core.cluster_protocol import (
    Batch,
    BlockKind,
    Cluster,
    Phase,
    ProbeCluster,
    SubmittedBatch,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.doctor.probe import (
    ROOT_PREFIX,
    ProbeFiles,
    ProbeReport,
    ProbeTask,
    RoundTrip,
    files_findings,
    gpus_finding,
    interpreter_finding,
    name_finding,
    submission_finding,
)
from hpcsweep.errors import ClusterError, ClusterUnavailable, Finding, failure, good, one_line, warning
from hpcsweep.store.excerpts import read_excerpt
from hpcsweep.store.files import make_dirs, read_bytes, write_atomic
from hpcsweep.store.layout import BatchLayout

#: From the start of the task to its report: Python and the package over a busy filesystem.
REPORT_S: Final = 150.0
#: From its end until its report must be visible.
LATE_S: Final = 60.0
POLL_S: Final = 0.05
SQUEUE_S: Final = 2.0
#: Round trips, fewer where they take long; and how long one may take.
TRIPS: Final = 5
TRIPS_S: Final = 20.0
TRIP_S: Final = 90.0
SIGNAL_S: Final = 10.0
#: Seconds until a pending reason that says the job can never start is believed.
NEVER_S: Final = 20.0


class ProbeFailed(Exception):
    """The test job gave no report.

    Args:
        why: The reason, for the user.
        state: Its last known state, None if unknown.
        waited: It was still in the queue at the end.
    """

    def __init__(self, why: str, *, state: TaskState | None = None, waited: bool = False) -> None:
        super().__init__(why)
        self.state = state
        self.waited = waited


class ProbeJob:
    """A test job; made and removed by `run_probe`."""

    def __init__(self, cluster: ProbeCluster, batch: Batch, *, backend: str) -> None:
        self._backend = backend
        self._cluster = cluster
        self._batch = batch
        self._files = ProbeFiles(batch.folder)
        self._live: SubmittedBatch | None = None
        self._next_poll = 0.0
        self._state: TaskState | None = None

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self._batch.folder

    def start(self) -> None:
        """Write its task and submit it."""
        batch, files = self._batch, self._files
        make_dirs(files.folder)
        script = batch.folder / "held.sbatch"
        write_atomic(script, self._cluster.tick_script(held_name(batch), batch.folder).encode())
        self._token = secrets.token_hex(8)
        task = ProbeTask(self._token, self._backend, script=str(script), name=held_name(batch))
        write_atomic(files.task, msgspec.json.encode(task))
        job = self._cluster.submit(batch)
        self._live = SubmittedBatch(
            name=batch.name,
            job=job,
            folder=batch.folder,
            tasks=1,
            throttle=1,
            shape=batch.shape,
            open_tasks=(0,),
        )

    def wait_for_report(self, *, wait_s: float) -> ProbeReport:
        """Wait for its report."""
        began = time.monotonic()
        started = ended = stuck = 0.0
        while self._files.report.name not in self._files.names():
            now = time.monotonic()
            state = self._poll()
            if state is None:
                if now - began > wait_s:
                    why = f"Slurm does not show it, {wait_s:g} s after it was submitted"
                    raise ProbeFailed(why, waited=True)
            elif state.phase is Phase.PENDING:
                stuck = (stuck or now) if state.block is BlockKind.IMPOSSIBLE else 0.0
                if stuck and now - stuck >= NEVER_S:
                    raise ProbeFailed(f"it can never start: {state.reason}", state=state)
                if now - began > wait_s:
                    why = (
                        f"after {wait_s:g} s it still waits in the queue: {state.reason or 'no reason given'}"
                    )
                    raise ProbeFailed(why, state=state, waited=True)
            elif state.phase.active:
                started = started or now
                if now - started > REPORT_S:
                    raise ProbeFailed(
                        f"no report after {REPORT_S:g} s on {state.node}{self._log_end()}", state=state
                    )
            else:
                ended = ended or now
                if now - ended > min(self._cluster.grace_s, LATE_S):
                    what = f"it ended as {state.phase.value} on {state.node or 'no node'} without a report"
                    raise ProbeFailed(f"{what}{self._log_end()}", state=state)
            time.sleep(POLL_S)
        found = msgspec.json.decode(read_bytes(self._files.report), type=ProbeReport)
        if found.token != self._token:
            raise ProbeFailed("its report belongs to another job: the node sees another folder by that name")
        return found

    def measure_trips(self) -> list[RoundTrip]:
        """Measure file round trips: fewer if they are slow, none if one is lost."""
        began = time.monotonic()
        found: list[RoundTrip] = []
        for n in range(TRIPS):
            if time.monotonic() - began > TRIPS_S:
                break
            sent, at = time.monotonic(), time.time()
            write_atomic(self._files.ping(n), b"")
            if not self._wait_for(self._files.pong(n), within_s=TRIP_S):
                return []
            seconds = time.monotonic() - sent
            there = msgspec.json.decode(read_bytes(self._files.pong(n)), type=float)
            found.append(RoundTrip(seconds, there - at - seconds / 2))
        return found

    def passes_warning(self, *, trip_s: float) -> bool:
        """Whether the signal before a time limit reaches the worker's process."""
        assert self._live is not None
        self._cluster.warn(self._live, 0)
        return self._wait_for(self._files.signal_file(signal.SIGUSR2), within_s=SIGNAL_S + trip_s)

    def passes_termination(self, *, trip_s: float) -> bool:
        """Cancel it; whether SIGTERM reaches the worker's process before it is killed."""
        assert self._live is not None
        self._cluster.cancel(self._live, [0])
        return self._wait_for(self._files.signal_file(signal.SIGTERM), within_s=SIGNAL_S + trip_s)

    @property
    def name(self) -> str:
        """The requested job name."""
        return self._batch.name

    @property
    def shown_name(self) -> str | None:
        """The job name that squeue shows, None if it does not show the job."""
        if self._live is None:
            return None
        self._next_poll = 0.0
        self._poll()
        return self._cluster.shown_name(self._live)

    def remaining_jobs(self) -> list[str] | None:
        """Ids of its active jobs, whatever their names; None if Slurm does not answer."""
        known = [self._live.job] if self._live is not None else []
        with contextlib.suppress(ClusterUnavailable):
            return self._cluster.find_jobs(self._batch.folder, names=(self._batch.name,), known=known)
        return None

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel these jobs and all with its names; does nothing if Slurm does not answer."""
        names = (self._batch.name, held_name(self._batch))
        known = [self._live.job] if self._live is not None else []
        self._cluster.cancel_jobs(names=names, jobs=list(dict.fromkeys([*known, *jobs])))

    def _poll(self) -> TaskState | None:
        """The last known state of the task, refreshed every few seconds."""
        if time.monotonic() >= self._next_poll and self._live is not None:
            self._next_poll = time.monotonic() + SQUEUE_S
            shown = self._cluster.poll([self._live])
            self._state = (shown or {}).get(TaskId(self._batch.name, 0), self._state)
        return self._state

    def _wait_for(self, path: Path, *, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while path.name not in self._files.names():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _log_end(self) -> str:
        line = read_excerpt(BatchLayout(self._batch.folder).log(0))
        return f"; its log ends: {line}" if line else ""


def held_name(batch: Batch) -> str:
    """Name of the job that the test job submits."""
    return f"{batch.name}-held"


#: Time limit of the test job.
LIMIT_S: Final = 300
#: How long its removal may take before the user is asked to do it.
REMOVAL_S: Final = 60.0
REMOVAL_POLL_S: Final = 0.1


class ProbeNotRemoved(ClusterError):
    """The test job could not be removed; the message says what remains."""


@contextlib.contextmanager
def run_probe(cluster: ProbeCluster, backend: str, below: Path, *, gpus: int) -> Iterator[ProbeJob]:
    """A test job, not yet submitted, with its files `below`; all of it is removed when the block ends.

    Raises:
        ProbeNotRemoved: It could not be removed.
    """
    root = Path(tempfile.mkdtemp(prefix=ROOT_PREFIX, dir=below))
    name = f"hpcsweep-doctor-{secrets.token_hex(4)}"
    shape = TaskResources(gpus=gpus, cpus=1, time_s=LIMIT_S)
    batch = Batch(name=name, folder=root / "batches" / name, tasks=1, throttle=1, shape=shape, requeue=False)
    job = ProbeJob(cluster.with_module("hpcsweep.doctor.probe"), batch, backend=backend)
    try:
        yield job
    finally:
        with handle_signals(lambda number, frame: None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            _remove(job, root)


def _remove(job: ProbeJob, root: Path) -> None:
    deadline = time.monotonic() + REMOVAL_S
    job.cancel([])
    while (left := job.remaining_jobs()) != [] and time.monotonic() < deadline:
        job.cancel(left or [])
        time.sleep(0.5)
    if left != []:
        still = f"job {', '.join(left)} is still there" if left else "a job by that name may still be there"
        raise ProbeNotRemoved(f"{job.folder.name}: {still}: scancel it, then remove {root}")
    while root.exists():  # the last of the node's writes may still turn up
        shutil.rmtree(root, ignore_errors=True)
        if root.exists() and time.monotonic() > deadline:
            raise ProbeNotRemoved(f"{root}: could not be removed: remove it")
        time.sleep(REMOVAL_POLL_S)


@contextlib.contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Have these signals handled so until the block ends."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def probe_findings(
    probe_cluster: Cluster, name: str, below: Path, *, gpus: int, wait_s: float, crontab_line: str
) -> Iterator[Finding]:
    """Run a test job for at most `wait_s` in the queue; nothing of it remains after the last finding."""
    cluster = cast("ProbeCluster", probe_cluster)
    cron = f"{cluster.crontabs}: {crontab_line}"
    with run_probe(cluster, name, below, gpus=gpus) as job:
        began = time.monotonic()
        try:
            job.start()
            report = job.wait_for_report(wait_s=wait_s)
        except ProbeFailed as error:
            yield _failed_finding(error, folder=job.folder)
            return
        except ClusterError as error:
            message = f"could not be submitted: {one_line(str(error))}"
            yield failure("canary", message, "fix this first: sweeps are submitted in the same way")
            return
        seconds = time.monotonic() - began
        yield good("canary", f"ran on {report.node}, and reported {seconds:.0f} s after its submission")
        shown = job.shown_name
        if shown is not None:
            yield name_finding(job.name, shown)
        yield interpreter_finding(report)
        trips = job.measure_trips()
        yield from files_findings(report, trips, grace_s=cluster.grace_s)
        if gpus:
            yield gpus_finding(report, gpus=gpus)
        yield submission_finding(report, cron=cron)
        yield signals_finding(job, trip_s=max((trip.seconds for trip in trips), default=0.0))


def _failed_finding(error: ProbeFailed, *, folder: Path) -> Finding:
    if error.state is not None and error.state.block is BlockKind.IMPOSSIBLE:
        return failure(
            "canary", str(error), "change cluster or resources in the spec: a sweep would wait as long"
        )
    if error.waited:
        advice = "it was cancelled; try again with a longer --wait, or when the queue is shorter"
        return warning("canary", f"test job did not run: {error}", advice)
    see = folder.parent.parent.parent
    advice = f"make sure that nodes see {see}, have cluster.python and start it by the template"
    return failure("canary", str(error), advice)


def signals_finding(job: ProbeJob, *, trip_s: float) -> Finding:
    """Whether signals before the end reach runs; cancels the test job."""
    lost = []
    try:
        lost += [] if job.passes_warning(trip_s=trip_s) else ["USR2 (before a time limit)"]
        lost += [] if job.passes_termination(trip_s=trip_s) else ["TERM (preemption, scancel)"]
    except ClusterError as error:
        return warning("signals", f"not tried: {one_line(str(error))}", "run doctor again")
    if lost:
        message = (
            f"{' and '.join(lost)} did not reach the worker: runs lose what came after their last checkpoint"
        )
        return warning(
            "signals",
            message,
            "end the template with {{ command }}, or hand signals on as default.sbatch shows",
        )
    return good("signals", "USR2 (before a time limit) and TERM (preemption, scancel) reach the worker")
