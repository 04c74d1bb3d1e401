"""What happened: frozen events and their versioned JSON form.

The journal is a list of commits, each a list of events; `SweepState` is the fold over them.
An event says what is true from now on. Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Any, Final, Self, TypeAlias, get_args

import msgspec

from hpcsweep.core.outcomes import FailureKind, Interruption, Outcome, classify_failure
from hpcsweep.core.run_events import (
    BatchAbandoned,
    BatchBlocked,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    CheckpointSizes,
    ClusterMessage,
    Config,
    Event,
    NodeExcluded,
    ParametersSuggested,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    RunRetried,
    RunsAssigned,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
    TasksReleased,
    TickSubmitted,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)

__all__ = [
    "FORMAT_VERSION",
    "AnyEvent",
    "BatchAbandoned",
    "BatchBlocked",
    "BatchClosed",
    "BatchPlanned",
    "BatchSubmitted",
    "BatchThrottled",
    "CheckpointQuotaReached",
    "CheckpointSizes",
    "CheckpointsDropped",
    "CheckpointsRemoved",
    "ClusterMessage",
    "Config",
    "ConfigsEnqueued",
    "Event",
    "EventFold",
    "FailureKind",
    "FilesCompacted",
    "Interruption",
    "NodeExcluded",
    "Outcome",
    "ParametersSuggested",
    "PauseEnded",
    "PauseRequested",
    "PoolSkipped",
    "RunFinished",
    "RunId",
    "RunInterrupted",
    "RunReported",
    "RunRetried",
    "RunsAssigned",
    "StopRequested",
    "SweepDetached",
    "SweepEnded",
    "SweepExtended",
    "SweepOutcome",
    "SweepResumed",
    "SweepStarted",
    "TaskBegan",
    "TaskLeft",
    "TasksAllocated",
    "TasksReleased",
    "TickSubmitted",
    "TimeUp",
    "TrialCreated",
    "TrialPromoted",
    "TrialStopped",
    "TrialsExhausted",
    "WarmStartLoaded",
    "classify_failure",
]


#: Raised when a field changes its meaning. Readers accept every version up to their own;
#: new fields get defaults, so that old journals stay readable.
FORMAT_VERSION: Final = 1


class SweepOutcome(enum.Enum):
    """The state that a sweep was left in by its last driver."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    PAUSED = "paused"


class SweepStarted(Event, frozen=True, tag="sweep_started", gc=False):
    """A sweep began.

    Attributes:
        sweep: Random id of this sweep, part of every batch name.
        identity: What must not change between launches: space, objective, searcher, scheduler.
        resolved_searcher: The searcher that `auto` stands for in this sweep, for as long as it lives.
        searcher_versions: Of the searchers that it uses, by name, where they are not 1.
        default_time_s: What the cluster gave a task then that asked for none; below that limits are learned
            where the spec gives none. 0: nothing is learned. `default_mem_mib` likewise.
    """

    sweep: str
    name: str
    at: float
    identity: dict[str, Any]
    version: int = FORMAT_VERSION
    resolved_searcher: str = msgspec.field(default="", name="picked")
    searcher_versions: dict[str, int] = msgspec.field(default_factory=dict)
    default_time_s: int = 0
    default_mem_mib: int = 0


class SweepResumed(Event, frozen=True, tag="sweep_resumed", gc=False):
    """A sweep that had ended is resumed."""

    at: float


class SweepExtended(Event, frozen=True, tag="sweep_extended", gc=False):
    """The sweep is extended: more iterations, a higher largest resource.

    Attributes:
        identity: From now on what must not change between launches; see `SweepStarted`.
        changes: What was changed, one line for each.
    """

    at: float
    identity: dict[str, Any]
    changes: tuple[str, ...] = ()


class SweepEnded(Event, frozen=True, tag="sweep_ended", gc=False):
    """Nothing is left to do, or nothing may be done any more."""

    at: float
    outcome: SweepOutcome = msgspec.field(name="ending")
    reason: str


class TimeUp(Event, frozen=True, tag="time_up", gc=False):
    """`budget.time` is used up by the wall clock; the sweep ends when that is still so after a while.

    Attributes:
        up: False: it is not, a clock was wrong.
    """

    at: float
    up: bool = True


class StopRequested(Event, frozen=True, tag="stop_requested", gc=False):
    """From now on nothing is submitted; what is queued or running is cancelled.

    Attributes:
        request: File name of the control request that asked for it, empty for the driver's own.
    """

    at: float
    reason: str
    request: str = ""


class ConfigsEnqueued(Event, frozen=True, tag="enqueued", gc=False):
    """Configurations that are to be tried before any that the searcher proposes.

    Attributes:
        configs: Complete ones, in the order in which they are to start.
        request: File name of the control request that brought them, empty for those of the spec.
    """

    configs: tuple[Config, ...]
    request: str = ""


class WarmStartLoaded(Event, frozen=True, tag="known_results", gc=False):
    """Results of an earlier sweep that the searcher learns from.

    Attributes:
        source: The folder that they are from.
        results: Each configuration with its observations, lowest resource first: resource and
            objective value, None for a failed run.
        skipped: Why trials of that sweep were left out: reason -> how many.
        values: With several objectives, for each result their values at each observation, none for a failed
            run.
    """

    source: str
    results: tuple[tuple[Config, tuple[tuple[int, float | None], ...]], ...]
    skipped: dict[str, int] = msgspec.field(default={}, name="passed_over")
    values: tuple[tuple[tuple[float, ...], ...], ...] = ()


class PauseRequested(Event, frozen=True, tag="pause_requested", gc=False):
    """From now on nothing is submitted; what is queued or running goes on, then the sweep is paused.

    Attributes:
        cause: `fail_fast` where the first runs all failed alike: then what is queued is cancelled, and the
            pause ends by itself should a run do better. Empty for any other.
    """

    at: float
    reason: str
    cause: str = ""

    @property
    def is_fail_fast(self) -> bool:
        return self.cause == "fail_fast"


class PauseEnded(Event, frozen=True, tag="pause_ended", gc=False):
    """A run did better than those for which the sweep was to pause: it goes on as if nothing had been."""

    at: float


class SweepDetached(Event, frozen=True, tag="detached", gc=False):
    """From now on the jobs drive the sweep: finishing tasks tick, and a small job behind each array.

    Attributes:
        cluster: Name of the cluster whose jobs do.
    """

    at: float
    cluster: str


class PoolSkipped(Event, frozen=True, tag="pool_skipped", gc=False):
    """A pool gets no tasks for a while, as those that it has do not start; no `reason`: it gets some.

    Attributes:
        spent: It gets none as its `gpu_hours` do not pay for one more.
    """

    pool: str
    at: float
    reason: str = ""
    spent: bool = False


class TrialsExhausted(Event, frozen=True, tag="no_more_trials", gc=False):
    """No trial will be started any more.

    Attributes:
        cause: `space` (it is exhausted) or `budget` (`budget.trials` is reached).
    """

    reason: str
    cause: str


class FilesCompacted(Event, frozen=True, tag="compacted", gc=False):
    """What was in many small files is in a part, durable; from now on the part counts in their place.

    Attributes:
        part: Its name.
        runs: Those whose reports are in it, beside those of the parts that it replaces.
        batches: Those whose folders are in it, whole.
        replaces: Older parts of which its reports were made as well.
    """

    part: str
    runs: tuple[RunId, ...] = ()
    batches: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()

    @property
    def holds_reports(self) -> bool:
        """Whether it has a file of reports at all."""
        return bool(self.runs or self.replaces)


class CheckpointsDropped(Event, frozen=True, tag="checkpoints_dropped", gc=False):
    """The checkpoints of these trials are removed from now on, for nothing can need them any more."""

    trials: tuple[int, ...]


class CheckpointsRemoved(Event, frozen=True, tag="checkpoints_removed", gc=False):
    """The checkpoints of these trials, which were dropped before, are gone.

    Attributes:
        trials: Those of which nothing is left.
        had_files: Those of them that had any files.
        files: How many files were removed; `bytes`: their size together.
    """

    trials: tuple[int, ...]
    had_files: tuple[int, ...] = msgspec.field(default=(), name="had")
    files: int = 0
    bytes: int = 0


class CheckpointQuotaReached(Event, frozen=True, tag="checkpoint_quota_reached", gc=False):
    """Runs that could begin wait until there is room for their checkpoints; empty: none do any more.

    Attributes:
        message: The quota, what is held, and what waits.
        bytes: What was held then, in `files`; 0 where nothing was measured yet.
    """

    at: float
    message: str = ""
    bytes: int = 0
    files: int = 0


AnyEvent: TypeAlias = (
    SweepStarted
    | SweepExtended
    | SweepResumed
    | SweepEnded
    | StopRequested
    | PauseRequested
    | PauseEnded
    | SweepDetached
    | TrialCreated
    | TrialPromoted
    | TrialStopped
    | ParametersSuggested
    | ConfigsEnqueued
    | WarmStartLoaded
    | RunReported
    | TrialsExhausted
    | BatchPlanned
    | BatchSubmitted
    | TaskBegan
    | RunsAssigned
    | TaskLeft
    | TasksAllocated
    | BatchThrottled
    | BatchAbandoned
    | BatchBlocked
    | TimeUp
    | ClusterMessage
    | BatchClosed
    | TasksReleased
    | TickSubmitted
    | NodeExcluded
    | PoolSkipped
    | RunFinished
    | RunInterrupted
    | RunRetried
    | FilesCompacted
    | CheckpointsDropped
    | CheckpointsRemoved
    | CheckpointQuotaReached
)

#: The method of an `EventFold` for each event.
_METHODS: Final = {
    event: "_" + re.sub("(?<=[a-z])(?=[A-Z])", "_", event.__name__).lower() for event in get_args(AnyEvent)
}


class EventFold:
    """A state that events change: each goes to the method of its name, `BatchPlanned` to `_batch_planned`.

    Events without a method are ignored.
    """

    def __init__(self) -> None:
        self._handlers = {
            event: getattr(self, name) for event, name in _METHODS.items() if hasattr(self, name)
        }

    @classmethod
    def replay(cls, events: Iterable[AnyEvent]) -> Self:
        """The state after these events."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: AnyEvent) -> None:
        """Take one event in."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)
