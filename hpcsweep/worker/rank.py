"""`python -m hpcsweep.worker.rank PLAN`: one rank of a run, the parent of its training program.

It sets what the program needs to meet the others, keeps its output, hands on what the worker tells, and
says how the program failed. Where another rank has failed it ends its own.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hpcsweep.bootstrap import use_utf8
from hpcsweep.store.excerpts import excerpt
from hpcsweep.store.files import write_atomic
from hpcsweep.store.layout import rank_log
from hpcsweep.worker.entrypoint import ChildError
from hpcsweep.worker.process import Child, RunLog, die_with_parent, marked, oom_kills
from hpcsweep.worker.ranks import (
    FAILED,
    RANK_VARIABLES,
    STOP,
    WARN,
    RankFailure,
    RankPlan,
    read_plan,
)
from hpcsweep.worker.signals import Signals
from hpcsweep.worker.usage import MemoryMeter

#: Process id of what starts the ranks of a node, unless the cluster does.
PARENT_VARIABLE: Final = "HPCSWEEP_RANK_PARENT"
#: Finds whatever a rank has started.
MARK_VARIABLE: Final = "HPCSWEEP_RANK_MARK"
#: How long a rank goes on after another one has failed: it may be writing a checkpoint.
PEER_S: Final = 5.0
#: Seconds between looks at what the worker tells and at the other ranks.
LOOK_S: Final = 0.5
_TAIL: Final = 64 * 1024


class Place(NamedTuple):
    """Which of all ranks this is, of those of its node, and on which node."""

    rank: int
    local: int
    node: int


def place_of(plan: RankPlan, environ: Mapping[str, str]) -> Place:
    """By torchrun's variables where that (or accelerate) started this rank, else by those of our own."""
    names = RANK_VARIABLES if plan.launcher == "srun" else ("RANK", "LOCAL_RANK", "GROUP_RANK")
    return Place(*(int(environ.get(name) or 0) for name in names))


def rank_environment(plan: RankPlan, place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the rank's program: that of the run, and how to meet the others."""
    ours = {*RANK_VARIABLES, PARENT_VARIABLE}
    kept = {name: value for name, value in environ.items() if name not in ours}
    meeting = {
        "MASTER_ADDR": plan.address,
        "MASTER_PORT": str(plan.port),
        "RANK": str(place.rank),
        "LOCAL_RANK": str(place.local),
        "NODE_RANK": str(place.node),
        "WORLD_SIZE": str(plan.size),
        "LOCAL_WORLD_SIZE": str(plan.per_node),
    }
    if plan.launcher != "srun":  # the launcher has its own, which may differ
        meeting |= {name: kept[name] for name in meeting if name in kept}
    threads = kept.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():  # those of the whole node
        meeting["OMP_NUM_THREADS"] = str(max(1, int(threads) // plan.per_node))
    return kept | meeting | {MARK_VARIABLE: f"{plan.folder}:{place.rank}"}


class _Output:
    """What the program prints: rank 0's goes on to the worker, that of others into a log of their own."""

    def __init__(self, plan: RankPlan, rank: int) -> None:
        self._log = None
        if rank:
            limit = None if plan.log_limit_mib is None else plan.log_limit_mib << 20
            self._log = RunLog(rank_log(Path(plan.log), rank), limit=limit)
        self._tail = b""

    def write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL:]
        if self._log is not None:
            self._log.write(data)
            return
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(1, data) :]

    def finish(self) -> str:
        """The last informative lines."""
        if self._log is not None:
            self._log.finish()
            self._log.close()
        return excerpt(self._tail.decode(errors="replace"))


class Rank:
    """A rank while its program runs."""

    def __init__(self, plan: RankPlan, place: Place, environ: Mapping[str, str]) -> None:
        self._plan = plan
        self._place = place
        self._output = _Output(plan, place.rank)
        self._told: set[str] = set()
        self._read = 0  # lines of `control`
        self._kill_at: float | None = None
        self._ended_by_us = False
        self._oom_kills = oom_kills()
        #: Of all that the run has on this node; the worker sees to the first one.
        self._meter: MemoryMeter | None = None
        if place.node and not place.local:
            self._meter = MemoryMeter(lambda: marked(plan.mark))
        argv = [str(plan.ending_of(place.rank)) if each == plan.ending else each for each in plan.argv]
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        self._open = True
        try:
            env = rank_environment(plan, place, environ)
            self._child = Child(argv, env=env, mark=MARK_VARIABLE, cwd=os.getcwd(), output=write_end)
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)

    def run(self, signals: Signals) -> int:
        """Until the program has ended; its exit status."""
        look_at = 0.0
        while not self._child.exited or self._is_leaving:
            if self._meter is not None:  # not between the end of the program and the note of when that was
                self._meter.sample()
            self._wait(signals)
            for signum in signals.take():  # from the cluster, or a launcher that ends the others
                self._tell(WARN if signum is signal.SIGUSR2 else STOP)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_S
                self._look()
            self._drain()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                break
        ended_at = time.time()  # a rank that fails because of this one does so in a moment
        returncode = self._child.kill_all()
        self._drain()
        last = self._output.finish()
        failed = returncode != 0 and not self._ended_by_us
        if failed:
            self._note_failure(returncode, last, at=ended_at)
        peak_mib = self._meter.peak_mib(at_least_kib=self._child.max_rss_kib) if self._meter else 0
        with contextlib.suppress(OSError):
            write_atomic(self._plan.end_of(self._place.rank), str(peak_mib).encode())
        if failed:
            self._await_others(PEER_S + 2 * LOOK_S)
        return 128 - returncode if returncode < 0 else returncode

    @property
    def _is_leaving(self) -> bool:
        """Whether what the program started may still use the time that it was given."""
        return bool(self._told) and bool(self._child.running)

    def _wait(self, signals: Signals) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(signals.wakeup, selectors.EVENT_READ)
            if self._open:
                selector.register(self._pipe, selectors.EVENT_READ)
            selector.select(LOOK_S)

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            lines = self._plan.control.read_text(encoding="ascii").splitlines()
            new, self._read = lines[self._read :], len(lines)
            for line in new:
                self._tell(line)
        with contextlib.suppress(OSError):
            if any(name.startswith(FAILED) for name in os.listdir(self._plan.folder)):
                self._end_within(PEER_S)

    def _tell(self, line: str) -> None:
        if line in self._told:
            return
        self._told.add(line)
        match line:
            case "warn" | "stop":
                signum = signal.SIGUSR2 if line == WARN else signal.SIGTERM
                # Another rank that does not care would die of it, and rank 0 with it before its checkpoint.
                if self._place.rank == 0 or self._child.catches(signum):
                    self._child.forward_signal(signum)
            case "terminate":
                self._child.terminate()
            case "kill":
                self._end_within(0.0)

    def _end_within(self, seconds: float) -> None:
        if not self._ended_by_us:
            self._ended_by_us = True
            self._kill_at = time.monotonic() + seconds
        elif self._kill_at is not None:
            self._kill_at = min(self._kill_at, time.monotonic() + seconds)

    def _await_others(self, seconds: float) -> None:
        """Let ranks of other nodes say that they have ended: once this one is gone, launchers kill them."""
        plan, deadline = self._plan, time.monotonic() + seconds
        others = {
            plan.end_of(rank).name for rank in range(plan.size) if rank // plan.per_node != self._place.node
        }
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if others <= set(os.listdir(plan.folder)):
                    return
            time.sleep(LOOK_S)

    def _drain(self) -> None:
        while self._open:
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._open = False
                os.close(self._pipe)
                return
            self._output.write(data)

    def _note_failure(self, returncode: int, last: str, *, at: float) -> None:
        failure = ChildError((), "")
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            ending = self._plan.ending_of(self._place.rank)
            failure = msgspec.json.decode(ending.read_bytes(), type=ChildError)
        before, after = self._oom_kills, oom_kills()
        note = RankFailure(
            rank=self._place.rank,
            returncode=returncode,
            at=at,
            types=failure.types,
            message=failure.message or last,
            oom_kills=after - before if before is not None and after is not None else 0,
        )
        with contextlib.suppress(OSError):
            write_atomic(self._plan.failure_of(self._place.rank), msgspec.json.encode(note))


def main(path: str) -> int:
    """Run the rank; 128 and the signal if one ended its program."""
    signals = Signals()
    if parent := os.environ.get(PARENT_VARIABLE):
        die_with_parent()
        if os.getppid() != int(parent):
            return 1
    plan = read_plan(path)
    place = place_of(plan, os.environ)
    try:
        rank = Rank(plan, place, os.environ)
    except (OSError, ValueError) as error:
        note = RankFailure(
            rank=place.rank,
            returncode=127,
            at=time.time(),
            message=f"{plan.argv[0]}: cannot be started: {error}",
        )
        write_atomic(plan.failure_of(place.rank), msgspec.json.encode(note))
        plan.end_of(place.rank).touch()
        return 127
    return rank.run(signals)


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(sys.argv[1]))
