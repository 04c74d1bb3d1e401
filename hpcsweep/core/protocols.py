"""The seams: Searcher, Scheduler, Cluster, Clock, and the decisions that cross them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import msgspec

from hpcsweep.core.events import AnyEvent, Config

if TYPE_CHECKING:
    from numpy.random import Generator

    from hpcsweep.core.history import History
    from hpcsweep.core.space import Space


# --------------------------------------------------------------------------- searchers


class Searcher(Protocol):
    """Proposes configurations. Holds no state between calls: all that it knows is the history.

    It may remember what it computed, as long as the answer depends on the arguments alone.

    Attributes:
        adaptive: Whether a proposal depends on results. If not, trials may be started far ahead.
    """

    adaptive: bool

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """Propose `n` configurations in one call, a whole rung at a time.

        Fewer than `n` back means that the space is exhausted. The same history and the same
        generator state give the same answer, in any process.
        """
        ...

    def problems(self, space: Space) -> list[str]:
        """Why it cannot search this space, each line beginning with the key path at fault."""
        ...

    def ends(self, space: Space) -> bool:
        """Whether it runs out of proposals by itself."""
        ...


# --------------------------------------------------------------------------- schedulers


class Start(msgspec.Struct, frozen=True):
    """Start a new trial in `bracket`, its first run trained up to `resource`."""

    bracket: int
    resource: int


class Promote(msgspec.Struct, frozen=True):
    """Train `trial` further, up to the resource of `rung`."""

    trial: int
    rung: int
    resource: int


class Clone(msgspec.Struct, frozen=True):
    """Start a new trial in `bracket` from the checkpoint that `parent` has at step `start`."""

    bracket: int
    resource: int
    parent: int
    start: int
    config: Config


class Stop(msgspec.Struct, frozen=True):
    """End the running trial now; it is not trained any further by anybody."""

    trial: int
    reason: str


Decision: TypeAlias = Start | Promote | Clone | Stop


class Scheduler(Protocol):
    """Decides who starts, who is promoted, who stops: a state machine over events.

    Attributes:
        watches: Whether it must see what runs report before they end (`RunReported`). Without
            it the driver never reads a metrics file.
        clones: Whether it makes `Clone` decisions: then the checkpoints that a clone may start
            from are kept.
    """

    watches: bool
    clones: bool

    def apply(self, event: AnyEvent) -> None:
        """Take note of what happened. Events that do not concern it are ignored."""
        ...

    def decide(self, slots: int) -> list[Decision]:
        """What to do next with `slots` free places; changes nothing in the scheduler.

        Stops come first, promotions and clones before starts. A synchronous rung is handed out
        whole, even if it is larger than `slots`; with no free slot nothing but stops is decided.
        A decision is in force once its event (`TrialCreated`, `TrialPromoted`, `TrialStopped`)
        has been applied; until then `decide` gives it again.
        """
        ...

    @property
    def done(self) -> bool:
        """Whether no decision will ever come any more, whatever happens."""
        ...


# --------------------------------------------------------------------------- clusters


class TaskId(NamedTuple):
    """One array index of a batch."""

    batch: str
    task: int


class Phase(enum.Enum):
    """What the cluster says of a task, whatever its own words for it."""

    PENDING = "pending"
    RUNNING = "running"  # starting up, suspended and cleaning up included: it may hold GPUs
    COMPLETED = "completed"
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAIL = "node_fail"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # a word that we do not know: kept, logged, and nothing concluded

    @property
    def active(self) -> bool:
        """Whether the task may still run, or run again."""
        return self in (Phase.PENDING, Phase.RUNNING, Phase.UNKNOWN)


class TaskState(msgspec.Struct, frozen=True):
    """One task as the cluster shows it.

    Attributes:
        reason: The cluster's own words, for example why it is pending.
        node: Where it runs or ran, empty if nowhere yet.
    """

    phase: Phase
    reason: str = ""
    node: str = ""


class TaskShape(msgspec.Struct, frozen=True):
    """What one task asks of the cluster, all its runs together.

    Attributes:
        gpus: 0 for a CPU task.
        mem_mib: None leaves it to the cluster's default.
        time_s: Time limit; None leaves it to the cluster's default.
        runs: Runs that one task carries at most.
        lanes: How many of them at a time; `gpus` and `cpus` are divided evenly among lanes.
    """

    gpus: int = 0
    cpus: int = 1
    mem_mib: int | None = None
    time_s: int | None = None
    runs: int = 1
    lanes: int = 1


class Batch(msgspec.Struct, frozen=True):
    """One submission: one array of `tasks` tasks, all alike.

    Attributes:
        name: Unique for ever; the job name.
        folder: `batches/<name>` of the results folder, absolute; holds the manifest already.
        throttle: At most so many tasks at a time.
    """

    name: str
    folder: Path
    tasks: int
    throttle: int
    shape: TaskShape


class LiveBatch(msgspec.Struct, frozen=True):
    """A batch that the cluster accepted and that is not closed.

    Attributes:
        open_tasks: Indices of the tasks that were not seen gone yet, ascending.
    """

    name: str
    job: str
    folder: Path
    tasks: int
    throttle: int
    shape: TaskShape
    open_tasks: Sequence[int]


class Limits(msgspec.Struct, frozen=True):
    """What a site allows. None is no limit.

    Attributes:
        array_tasks: Tasks in one array.
        slots: Tasks that can run at a time, for a cluster of fixed size such as this machine.
    """

    array_tasks: int | None = None
    slots: int | None = None


class Cluster(Protocol):
    """Where batches run. Every call may raise `ClusterUnavailable`."""

    #: How long a submission without an answer may still turn up, and a result may stay
    #: invisible after its task has ended.
    settle_s: float
    grace_s: float
    #: Shortest and longest time between two polls.
    poll_s: tuple[float, float]

    def submit(self, batch: Batch) -> str:
        """Submit one array, give its job id.

        Raises:
            SubmitRefused: It was refused for certain, with the cluster's own words.
            SubmitUncertain: It may have been accepted: `find` it.
        """
        ...

    def find(self, name: str) -> str | None:
        """Job id of the batch with this name, None if the cluster knows of none."""
        ...

    def poll(self, live: Sequence[LiveBatch]) -> Mapping[TaskId, TaskState] | None:
        """Every task that the cluster shows, in one query; None: no information."""
        ...

    def throttle(self, batch: LiveBatch, tasks: int) -> None:
        """Let at most `tasks` tasks of the batch run at a time from now on."""
        ...

    def cancel(self, batch: LiveBatch, tasks: Sequence[int]) -> None:
        """Cancel these tasks; those that have ended are passed over."""
        ...

    def limits(self) -> Limits:
        """What the site allows; asked once a session."""
        ...


class Clock(Protocol):
    """Time is an argument."""

    def time(self) -> float:
        """Unix seconds."""
        ...

    def sleep(self, seconds: float) -> None: ...
