"""What happened: frozen events and their versioned JSON form.

The journal is a list of commits, each a list of events; `SweepState` is the fold over them.
An event says what is true from now on. Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

import enum
import re
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

#: Raised when a field changes its meaning. Readers accept every version up to their own;
#: new fields get defaults, so that old journals stay readable.
FORMAT_VERSION: Final = 1

#: One configuration: parameter name -> JSON value. An inactive parameter is absent.
Config: TypeAlias = dict[str, Any]


class RunId(NamedTuple):
    """One trial trained up to one rung's resource. `rung` counts from 0 in the trial's bracket."""

    trial: int
    rung: int

    def __str__(self) -> str:
        return f"trial {self.trial} rung {self.rung}"


class Outcome(enum.Enum):
    """How a run ended for good."""

    COMPLETED = "completed"
    FAILED = "failed"  # an error in training code, a metric that is missing or not finite
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"  # interrupted more often than the bound allows
    STOPPED = "stopped"  # a stopping rule or the user ended it before its resource
    CANCELLED = "cancelled"  # its owner cancelled it on the cluster again after it had been resubmitted


class FailureKind(enum.Enum):
    """What was wrong with a run that failed."""

    CRASHED = "crashed"  # training code ended with an error, or could not be started
    NOT_FINITE = "not_finite"  # the objective is NaN or infinite
    NEVER_REPORTED = "never_reported"  # the objective was not reported, or not for a step that counts
    UNREADABLE = "unreadable"  # what was reported or printed of the objective cannot be read
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"  # interrupted more often than the bound allows
    CANCELLED = "cancelled"  # its owner cancelled it again after it had been resubmitted


#: Clocks of the hosts that drive may differ by so much, in seconds.
_HOSTS_S: Final = 300.0
#: How the worker words what is no crash.
_NOT_FINITE: Final = re.compile(r"metric .+ is -?(?:nan|inf) at step ")
_NEVER_REPORTED: Final = re.compile(r"metric .+ was (?:never reported|not reported after|reported only) ?")


def classify_failure(
    outcome: Outcome | None, failure: FailureKind | None, message: str
) -> FailureKind | None:
    """What was wrong, None with a run that did not fail.

    Args:
        outcome: Of the run.
        failure: As its worker said; None of those before hpcsweep told, whose message tells.
        message: Last line of the error.
    """
    match outcome:
        case Outcome.OUT_OF_MEMORY:
            return FailureKind.OUT_OF_MEMORY
        case Outcome.LOST:
            return FailureKind.LOST
        case Outcome.CANCELLED:
            return FailureKind.CANCELLED
        case Outcome.FAILED if failure is not None:
            return failure
        case Outcome.FAILED if _NOT_FINITE.match(message):
            return FailureKind.NOT_FINITE
        case Outcome.FAILED if _NEVER_REPORTED.match(message):
            return FailureKind.NEVER_REPORTED
        case Outcome.FAILED:
            return FailureKind.CRASHED
        case _:
            return None


class Interruption(enum.Enum):
    """Why an attempt ended without being the configuration's fault."""

    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    NODE_FAIL = "node_fail"
    CANCELLED = "cancelled"  # by the user outside hpcsweep, or by somebody of whom the cluster does not tell
    CANCELLED_BY_ADMIN = "cancelled_by_admin"  # by another user id
    TRAINING_ERROR = "training_error"  # training code failed, and `retries.training` allows another try
    NEVER_STARTED = "never_started"  # the cluster says that it can never start; never counts against a bound
    WORKER_DIED = "worker_died"  # the task ended without a result
    LOST = "lost"  # the cluster does not show the task any more and no result came
    NOT_STARTED = "not_started"  # its task ended before its turn came; never counts against a bound
    SWEEP_STOPPED = "sweep_stopped"  # cancelled by `stop`; never counts against a bound


class SweepOutcome(enum.Enum):
    """The state that a sweep was left in by its last driver."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    PAUSED = "paused"


class Event(msgspec.Struct, frozen=True, tag_field="event", omit_defaults=True, gc=False):
    """Base of all events; the JSON object's `event` field names the class."""


class SweepStarted(Event, frozen=True, tag="sweep_started", gc=False):
    """A sweep began.

    Attributes:
        sweep: Random id of this sweep, part of every batch name.
        identity: What must not change between launches: space, objective, searcher, scheduler.
        resolved_searcher: The searcher that `auto` stands for in this sweep, for as long as it lives.
    """

    sweep: str
    name: str
    at: float
    identity: dict[str, Any]
    version: int = FORMAT_VERSION
    resolved_searcher: str = msgspec.field(default="", name="picked")


class SweepResumed(Event, frozen=True, tag="sweep_resumed", gc=False):
    """A sweep that had ended is carried on."""

    at: float


class SweepExtended(Event, frozen=True, tag="sweep_extended", gc=False):
    """The sweep goes further than it was started for: more iterations, a higher largest resource.

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


class TrialCreated(Event, frozen=True, tag="trial_created", gc=False):
    """A configuration was chosen, with a first run at rung 0.

    Attributes:
        resource: Of rung 0.
        parent: The trial whose checkpoint of step `start` it goes on from, if any.
        origin: `searcher`, `enqueued` or `clone`.
        repeat: Which training of its configuration it is, from 0; the trial number of the first
            one is `trial - repeat`.
    """

    trial: int
    config: Config
    bracket: int
    resource: int
    parent: int | None = None
    origin: str = "searcher"
    start: int = 0
    repeat: int = 0


class TrialPromoted(Event, frozen=True, tag="trial_promoted", gc=False):
    """A trial goes on to `rung`, to be trained up to `resource`."""

    trial: int
    rung: int
    resource: int


class TrialStopped(Event, frozen=True, tag="trial_stopped", gc=False):
    """A stopping rule or its user ended a trial: its unfinished run is cancelled, it goes no further.

    Attributes:
        request: File name of the control request that asked for it, empty for a stopping rule.
    """

    trial: int
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
    """

    source: str
    results: tuple[tuple[Config, tuple[tuple[int, float | None], ...]], ...]
    skipped: dict[str, int] = msgspec.field(default={}, name="passed_over")


class RunReported(Event, frozen=True, tag="run_reported", gc=False):
    """What a run that goes on has reported of the objective.

    Only for schedulers that watch, and of a trial that its user stops.

    Attributes:
        reports: Step and finite value, in the order of the steps, each step of a trial once. Where
            `objective.at` is best, the value is the best one up to that step.
    """

    trial: int
    rung: int
    reports: tuple[tuple[int, float], ...]

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)


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


class RunRetried(Event, frozen=True, tag="run_retried", gc=False):
    """A run that had failed for good is tried again, because somebody asked for it.

    Attributes:
        request: File name of the control request.
    """

    trial: int
    rung: int
    request: str = ""


class SweepDetached(Event, frozen=True, tag="detached", gc=False):
    """From now on the jobs drive the sweep: finishing tasks tick, and a small job behind each array.

    Attributes:
        cluster: Name of the cluster whose jobs do.
    """

    at: float
    cluster: str


class NodeExcluded(Event, frozen=True, tag="node_excluded", gc=False):
    """Batches submitted before `until` stay away from a node on which several trials failed at once."""

    node: str
    at: float
    until: float
    reason: str

    def holds(self, now: float) -> bool:
        """Whether batches stay away from it now; not if it was told by a clock that was ahead."""
        return self.at - _HOSTS_S <= now < self.until


class TrialsExhausted(Event, frozen=True, tag="no_more_trials", gc=False):
    """No trial will be started any more.

    Attributes:
        cause: `space` (it is exhausted) or `budget` (`budget.trials` is reached).
    """

    reason: str
    cause: str


class BatchPlanned(Event, frozen=True, tag="batch_planned", gc=False):
    """The intent to submit one array; on disk before the cluster is called.

    Attributes:
        batch: Unique name, the job name on the cluster.
        tasks: For each array index the runs it carries, as `(trial, rung)`.
        gpus: GPUs of one task.
        throttle: So many tasks at a time at most.
        cluster: Name of the cluster that it is meant for.
        time_s: Time limit of one task; 0 where unknown.
        gpus_held: GPUs that one task will hold where that is more than it asks for, else 0.
    """

    batch: str
    at: float
    tasks: tuple[tuple[RunId, ...], ...]
    gpus: int
    throttle: int
    cluster: str = ""
    time_s: int = 0
    gpus_held: int = msgspec.field(default=0, name="held")


class BatchSubmitted(Event, frozen=True, tag="batch_submitted", gc=False):
    """The cluster accepted the batch as `job`."""

    batch: str
    job: str
    at: float


class TasksAllocated(Event, frozen=True, tag="tasks_allocated", gc=False):
    """The cluster gave each of these tasks of the batch so many GPUs, which was not expected."""

    batch: str
    tasks: tuple[int, ...]
    gpus: int


class BatchThrottled(Event, frozen=True, tag="batch_throttled", gc=False):
    """At most `throttle` tasks of the batch run at a time from now on."""

    batch: str
    throttle: int


class BatchAbandoned(Event, frozen=True, tag="batch_abandoned", gc=False):
    """The batch never reached the cluster and never will; its runs wait again.

    Attributes:
        over_limit: A submit limit was reached: they go in later.
    """

    batch: str
    reason: str
    over_limit: bool = msgspec.field(default=False, name="limited")


class BatchBlocked(Event, frozen=True, tag="batch_hindered", gc=False):
    """Why tasks of the batch cannot start, in the cluster's words; empty when nothing hinders them.

    Attributes:
        at: Unix time, 0 where unknown.
    """

    batch: str
    reason: str
    at: float = 0.0


class ClusterMessage(Event, frozen=True, tag="cluster_said", gc=False):
    """The cluster did not do what was asked, or gave no information; again, if the words are empty.

    Attributes:
        operation: `poll`, `find`, `submit`, `limits` or `change`.
        message: Its own, or those of the program that was called.
        batch: Of a submission.
        refused: The submission was refused in these words, as far as the program told.
    """

    at: float
    operation: str = msgspec.field(name="asked")
    message: str = msgspec.field(name="words")
    batch: str = ""
    refused: bool = False


class TasksReleased(Event, frozen=True, tag="tasks_released", gc=False):
    """Tasks that the cluster had put back and held were let go, which is done once for each."""

    batch: str
    tasks: tuple[int, ...]


class TickSubmitted(Event, frozen=True, tag="tick_submitted", gc=False):
    """A small job will tick: once every task of `batch` has ended, or not before `at`.

    Attributes:
        batch: Empty for a job that only waits for a time.
    """

    job: str
    at: float
    batch: str = ""


class BatchClosed(Event, frozen=True, tag="batch_closed", gc=False):
    """Every task of the batch has left the cluster and every run has an ending.

    Attributes:
        gpu_seconds: What its tasks took by the cluster's count beyond what their runs told: starting
            up, ticks, idle lanes. `seconds` is the same without the factor of the GPUs.
    """

    batch: str
    seconds: float = 0.0
    gpu_seconds: float = 0.0


class RunFinished(Event, frozen=True, tag="run_finished", gc=False):
    """A run ended for good; counted once.

    Attributes:
        attempt: Which try it was, from 0; `restart` counts the cluster's own requeues of it.
        value: The objective, None unless the outcome is `completed`, or `stopped` after a report.
        step: Resource that the trial has reached.
        start: Step of the checkpoint that this attempt went on from, 0 from scratch, None where
            unknown.
        seconds: Wall time of this attempt; `gpu_seconds` that times its GPUs.
        started: Unix time, None where unknown.
        message: Last line of the error, empty when completed.
        failure: What was wrong if the outcome is `failed`; None in journals of earlier versions, see
            `failure_kind`.
    """

    trial: int
    rung: int
    outcome: Outcome
    value: float | None = None
    step: int = 0
    start: int | None = 0
    attempt: int = 0
    restart: int = 0
    batch: str = ""
    task: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    started: float | None = None
    node: str = ""
    job: str = ""
    message: str = ""
    failure: FailureKind | None = None

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)

    @property
    def failure_kind(self) -> FailureKind | None:
        """What was wrong; None if it did not fail."""
        return classify_failure(self.outcome, self.failure, self.message)


class RunInterrupted(Event, frozen=True, tag="run_interrupted", gc=False):
    """An attempt ended without a value and without fault of the configuration.

    Attributes:
        start: Step of the checkpoint that this attempt went on from, None where unknown.
        requeued: The cluster runs the same task again by itself; otherwise the run waits for
            a new batch.
        progressed: Whether the trial's newest checkpoint is newer than when the attempt began.
        step: Step that the trial has reached, as far as that is known.
    """

    trial: int
    rung: int
    interruption: Interruption = msgspec.field(name="why")
    attempt: int = 0
    restart: int = 0
    batch: str = ""
    task: int = 0
    start: int | None = None
    requeued: bool = False
    progressed: bool = False
    step: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    node: str = ""
    job: str = ""
    message: str = ""

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)


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
    | ConfigsEnqueued
    | WarmStartLoaded
    | RunReported
    | TrialsExhausted
    | BatchPlanned
    | BatchSubmitted
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
    | RunFinished
    | RunInterrupted
    | RunRetried
    | FilesCompacted
    | CheckpointsDropped
    | CheckpointsRemoved
)
