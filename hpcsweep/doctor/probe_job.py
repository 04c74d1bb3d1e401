"""One canary in its task: a small job through the sweep's own template, asked and told by files."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hpcsweep.core.protocols import (
    Batch,
    BlockKind,
    Phase,
    ProbeCluster,
    SubmittedBatch,
    TaskId,
    TaskState,
)
from hpcsweep.doctor.probe import ProbeFiles, ProbeReport, ProbeTask
from hpcsweep.store.files import make_dirs, read_bytes, write_atomic
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.log_excerpt import read_excerpt

#: From the start of the task to its report: Python and the package over a busy filesystem.
REPORT_S: Final = 150.0
#: From its end to a report that is still invisible.
LATE_S: Final = 60.0
LOOK_S: Final = 0.05
SQUEUE_EVERY_S: Final = 2.0
#: Round trips, fewer where they take long; and how long one may take.
TRIPS: Final = 5
TRIPS_S: Final = 20.0
TRIP_S: Final = 90.0
SIGNAL_S: Final = 10.0
#: Slurm may say in passing that a job can never start: it is believed after so long.
NEVER_S: Final = 20.0


class ProbeFailed(Exception):
    """The canary gave no report; why is in the message.

    Args:
        why: For the user.
        state: What Slurm said of it last, None if nothing.
        waited: It waited in the queue to the end.
    """

    def __init__(self, why: str, *, state: TaskState | None = None, waited: bool = False) -> None:
        super().__init__(why)
        self.state = state
        self.waited = waited


class RoundTrip(NamedTuple):
    """A file there and its answer back.

    Attributes:
        seconds: Both ways, by the clock here.
        ahead_s: How far the clock there is ahead, give or take half of that.
    """

    seconds: float
    ahead_s: float


class ProbeJob:
    """A canary in its task. Made by `fly`, which also removes it."""

    def __init__(self, cluster: ProbeCluster, batch: Batch, *, backend: str) -> None:
        self._backend = backend
        self._cluster = cluster
        self._batch = batch
        self._exchange = ProbeFiles(batch.folder)
        self._live: SubmittedBatch | None = None
        self._next_look = 0.0
        self._state: TaskState | None = None

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._batch.folder

    def start(self) -> None:
        """Write its errand and submit it.

        Raises:
            ClusterError: Slurm does not take it; the message has its words.
        """
        batch, exchange = self._batch, self._exchange
        make_dirs(exchange.folder)
        script = batch.folder / "held.sbatch"
        write_atomic(script, self._cluster.tick_script(held_name(batch), batch.folder).encode())
        self._token = secrets.token_hex(8)
        errand = ProbeTask(self._token, self._backend, script=str(script), name=held_name(batch))
        write_atomic(exchange.errand, msgspec.json.encode(errand))
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

    def report(self, *, wait_s: float) -> ProbeReport:
        """What it saw.

        Raises:
            ProbeFailed: It still waits after `wait_s`, or ended without a readable report.
        """
        began = time.monotonic()
        started = ended = stuck = 0.0
        while self._exchange.report.name not in self._exchange.names():
            now = time.monotonic()
            state = self._look()
            if state is None:
                if now - began > wait_s:
                    raise ProbeFailed(
                        f"Slurm does not show it, {wait_s:g} s after it was submitted", waited=True
                    )
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
                        f"no report after {REPORT_S:g} s on {state.node}{self._said()}", state=state
                    )
            else:
                ended = ended or now
                if now - ended > min(self._cluster.grace_s, LATE_S):
                    what = f"it ended as {state.phase.value} on {state.node or 'no node'} without a report"
                    raise ProbeFailed(f"{what}{self._said()}", state=state)
            time.sleep(LOOK_S)
        found = msgspec.json.decode(read_bytes(self._exchange.report), type=ProbeReport)
        if found.token != self._token:
            raise ProbeFailed("its report answers another errand: the node sees another folder by that name")
        return found

    def trips(self) -> list[RoundTrip]:
        """How long files take there and back; fewer trips where they are slow, none where one is lost."""
        began = time.monotonic()
        found: list[RoundTrip] = []
        for n in range(TRIPS):
            if time.monotonic() - began > TRIPS_S:
                break
            sent, at = time.monotonic(), time.time()
            write_atomic(self._exchange.ping(n), b"")
            if not self._appears(self._exchange.pong(n), within_s=TRIP_S):
                return []
            seconds = time.monotonic() - sent
            there = msgspec.json.decode(read_bytes(self._exchange.pong(n)), type=float)
            found.append(RoundTrip(seconds, there - at - seconds / 2))
        return found

    def warned(self, *, trip_s: float) -> bool:
        """Whether the signal that Slurm sends before a time limit reaches what the script has become."""
        assert self._live is not None
        self._cluster.warn(self._live, 0)
        return self._appears(self._exchange.told(signal.SIGUSR2), within_s=SIGNAL_S + trip_s)

    def ended(self, *, trip_s: float) -> bool:
        """Cancel it; whether it was told so before it was killed."""
        assert self._live is not None
        self._cluster.cancel(self._live, [0])
        return self._appears(self._exchange.told(signal.SIGTERM), within_s=SIGNAL_S + trip_s)

    @property
    def name(self) -> str:
        """The job name that was asked for."""
        return self._batch.name

    @property
    def shown_name(self) -> str | None:
        """The job name under which squeue shows it, None if it does not."""
        if self._live is None:
            return None
        self._next_look = 0.0
        self._look()
        return self._cluster.shown_name(self._live)

    def left(self) -> list[str]:
        """Ids of its active jobs, under whatever name.

        Raises:
            ClusterUnavailable: Slurm did not answer.
        """
        known = [self._live.job] if self._live is not None else []
        return self._cluster.find_jobs(self._batch.folder, names=(self._batch.name,), known=known)

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel these jobs and whatever bears its names; silent where Slurm does not answer."""
        names = (self._batch.name, held_name(self._batch))
        known = [self._live.job] if self._live is not None else []
        self._cluster.cancel_jobs(names=names, jobs=list(dict.fromkeys([*known, *jobs])))

    def _look(self) -> TaskState | None:
        """What Slurm says of the task; asked now and then."""
        if time.monotonic() >= self._next_look and self._live is not None:
            self._next_look = time.monotonic() + SQUEUE_EVERY_S
            shown = self._cluster.poll([self._live])
            self._state = (shown or {}).get(TaskId(self._batch.name, 0), self._state)
        return self._state

    def _appears(self, path: Path, *, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while path.name not in self._exchange.names():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def _said(self) -> str:
        line = read_excerpt(BatchLayout(self._batch.folder).log(0))
        return f"; its log ends: {line}" if line else ""


def held_name(batch: Batch) -> str:
    """Job name of what the canary itself submits."""
    return f"{batch.name}-held"
