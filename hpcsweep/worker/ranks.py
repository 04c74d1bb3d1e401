"""The processes ("ranks") of a run with `train.launcher`, as its worker sees them.

The worker starts one program: on several nodes what the cluster gave it for that (HPCSWEEP_START), else
`worker.node`. In the end each rank is a `worker.rank`, which starts the training program. What ranks and
worker tell one another is in a folder that all nodes see: the plan, `control` (the worker appends),
`failed-<rank>.json` and `ended-<rank>`. No signal goes through launchers, each of which makes something else
of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep import bootstrap
from hpcsweep.errors import TrainerError
from hpcsweep.worker.process import Child
from hpcsweep.worker.signals import STOP_SIGNALS

#: Of the task: how processes are started on all its nodes, as JSON; see `cluster.task_environment`.
START_VARIABLE: Final = "HPCSWEEP_START"
#: Of the task: by what its other nodes reach the first one.
ADDRESS_VARIABLE: Final = "HPCSWEEP_ADDRESS"
#: Which of all processes, of those of its node, and which node: what that command tells each process.
RANK_VARIABLES: Final = ("HPCSWEEP_RANK", "HPCSWEEP_LOCAL_RANK", "HPCSWEEP_NODE_RANK")

#: Exit status where the launcher is not installed.
NOT_FOUND: Final = 127
#: How long ranks may take to end once they are told to; they look every half second.
END_S: Final = 5.0
#: How long a launcher may take after that.
_LAUNCHER_S: Final = 2.0

#: Lines of `control`: what each rank is to send its program, or that it is to end it.
WARN, STOP, TERMINATE, KILL = "warn", "stop", "terminate", "kill"


class RankPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What every rank of a run is told.

    Attributes:
        launcher: As `train.launcher`.
        per_node: Ranks on each node.
        address: Of the first node; `port`: where the ranks meet there.
        argv: The program of each rank; `ending`, where it is in it, is made the rank's own.
        folder: Seen by all nodes.
        log: Of the run, which rank 0 prints into; the other ranks' are beside it.
        log_limit_mib: How much of a rank's output is kept; None: all.
        python: Runs our own modules.
        mark: A variable of every process of the run, as `NAME=value`.
    """

    launcher: str
    nodes: int
    per_node: int
    address: str
    port: int
    argv: tuple[str, ...]
    ending: str
    folder: str
    log: str
    log_limit_mib: int | None
    python: str
    mark: str

    @property
    def size(self) -> int:
        """Ranks of the run."""
        return self.nodes * self.per_node

    @property
    def control(self) -> Path:
        return Path(self.folder, "control")

    def ending_of(self, rank: int) -> Path:
        """Where the entrypoint of the rank writes how the function failed."""
        return Path(f"{self.ending}.{rank}")

    def failure_of(self, rank: int) -> Path:
        return Path(self.folder, f"{FAILED}{rank}.json")

    def end_of(self, rank: int) -> Path:
        """What a rank leaves at its end, however its program ends: see `measured_mib`."""
        return Path(self.folder, f"{ENDED}{rank}")


#: With it the name of a file begins that says how a rank failed.
FAILED: Final = "failed-"
#: And of one that says that it has ended.
ENDED: Final = "ended-"
#: What training says whose peer is gone: sockets, gloo, NCCL, torch's store, MPI.
_LOST_PEER: Final = re.compile(
    r"connection (?:was )?(?:reset|closed|refused|aborted|timed out|lost)|broken pipe|ncclRemoteError"
    r"|NCCL error|socket timeout|operation timeout|no route to host|host is (?:down|unreachable)",
    re.IGNORECASE,
)
_LOST_PEER_TYPES: Final = frozenset({"ConnectionError", "DistBackendError", "DistNetworkError"})


class RankFailure(msgspec.Struct, frozen=True, kw_only=True):
    """How a rank failed by itself.

    Attributes:
        returncode: Of its program, negative for the signal that ended it.
        at: When it ended; Unix time.
        types: Names of the exception's type and its bases, if a training function raised.
        message: Of the exception, else the last informative lines that it printed.
        oom_kills: Processes that the kernel killed for lack of memory on its node meanwhile.
    """

    rank: int
    returncode: int
    at: float
    types: tuple[str, ...] = ()
    message: str = ""
    oom_kills: int = 0

    @property
    def blames_peer(self) -> bool:
        """Whether it says that another rank is gone."""
        return not _LOST_PEER_TYPES.isdisjoint(self.types) or bool(_LOST_PEER.search(self.message))


_plan_decoder = msgspec.json.Decoder(RankPlan)
_failure_decoder = msgspec.json.Decoder(RankFailure)


def read_plan(path: str) -> RankPlan:
    return _plan_decoder.decode(Path(path).read_bytes())


def write_plan(plan: RankPlan) -> Path:
    """Write the plan and an empty `control`; the path of the plan."""
    path = Path(plan.folder, "ranks.json")
    path.write_bytes(msgspec.json.encode(plan))
    plan.control.touch()
    return path


def first_failure(folder: Path) -> RankFailure | None:
    """How the run failed: by the rank that failed first; of several with the same message by the lowest.

    A rank that says that a peer is gone comes after all others, whatever the clocks of their nodes say: it
    failed because of one of them.
    """
    failures = []
    for name in os.listdir(folder):
        if name.startswith(FAILED):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                failures.append(_failure_decoder.decode((folder / name).read_bytes()))
    if not failures:
        return None
    first = min(failures, key=lambda failure: (failure.blames_peer, failure.at))
    alike = [
        each for each in failures if (each.returncode, each.message) == (first.returncode, first.message)
    ]
    return min(alike, key=lambda failure: failure.rank)


def lost_ranks(plan: RankPlan) -> list[int]:
    """Ranks on other nodes than the first that left no word of their end: lost with their node, or killed."""
    others = range(plan.per_node, plan.size)
    return [rank for rank in others if not plan.end_of(rank).exists()]


def measured_mib(plan: RankPlan) -> int:
    """The most memory that the run held on a node but the first, as the first ranks there say; or 0."""
    found = 0
    for rank in range(plan.per_node, plan.size, plan.per_node):
        with contextlib.suppress(OSError, ValueError):
            found = max(found, int(plan.end_of(rank).read_bytes()))
    return found


def launcher_arguments(plan: RankPlan, path: Path, environ: Mapping[str, str]) -> list[str]:
    """The command that starts all ranks.

    Raises:
        TrainerError: There are several nodes, and the cluster did not tell how to start anything there.
    """
    start = environ.get(START_VARIABLE, "")
    words = msgspec.json.decode(start, type=list[str]) if start else []
    if plan.launcher == "srun" and words:
        return [*words, str(plan.per_node), "hpcsweep.worker.rank", str(path)]
    if plan.nodes > 1:
        if not words:
            raise TrainerError("the cluster did not tell how to start processes on the other nodes")
        return [*words, "1", "hpcsweep.worker.node", str(path)]
    return bootstrap.command(plan.python, "hpcsweep.worker.node", str(path))


class Ranks(Child):
    """The process that started the ranks of a run, and through files the ranks themselves."""

    def __init__(
        self, plan: RankPlan, argv: Sequence[str], *, env: Mapping[str, str], mark: str, cwd: str, output: int
    ) -> None:
        self._plan = plan
        super().__init__(argv, env=env, mark=mark, cwd=cwd, output=output)

    def forward_signal(self, signum: signal.Signals) -> None:
        self._tell(WARN if signum is signal.SIGUSR2 else STOP)

    def terminate(self) -> None:
        self._tell(TERMINATE)

    @property
    def exit_signal(self) -> int | None:
        """The signal that ended the rank which failed first, if the whole task may have got it."""
        if not self.exited:
            return None
        failure = first_failure(Path(self._plan.folder))
        died_of = -failure.returncode if failure is not None else 0
        return died_of if died_of in STOP_SIGNALS else super().exit_signal

    def kill_all(self) -> int:
        if not self.exited:
            self._tell(KILL)
            self._await(END_S)
        if not self.exited:  # srun ends its processes on all nodes
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)
            self._await(_LAUNCHER_S)
        return super().kill_all()

    def _await(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.exited and time.monotonic() < deadline:
            time.sleep(0.02)

    def _tell(self, line: str) -> None:
        # Written in place: by opening a file that is there a client of NFS asks the server for its content.
        with contextlib.suppress(OSError), open(self._plan.control, "a", encoding="ascii") as file:
            file.write(f"{line}\n")
