"""What the state of a sweep is made of: runs, trials, batches, first errors. Records of `SweepState`."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from hpcsweep.core.events import Config, RunFinished, RunId, RunInterrupted
from hpcsweep.core.outcomes import FACTS, FailureKind, Fault, Interruption, Outcome, classify_failure

#: An attempt that ends sooner than that has died at once.
INSTANT_S = 30.0
#: The cluster that trains nothing.
SIMULATED: Final = "simulated"
#: When the first sweep of a simulation begins; no real one began in the ten years after it.
SIMULATION_BEGINS_S: Final = 1_000_000_000.0


class RunStatus(enum.Enum):
    """Where a run stands in its life."""

    WAITING = "waiting"  # decided, in no batch
    SUBMITTED = "submitted"  # in a batch, on its way or running
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED)


class Run(msgspec.Struct, gc=False):
    """One trial trained up to one rung's resource.

    Attributes:
        attempts: How many batches it has been in, abandoned ones not counted.
        faults_without_progress: Interruptions in a row that left no newer checkpoint.
        errors: How often training code failed and it was retried; `timeouts`: time limits reached;
            `cancels`: how often its owner cancelled it on the cluster.
        last_counted: The last `(attempt, restart)` whose ending was taken into account.
        seconds: Wall time over all attempts; `gpu_seconds` that times the GPUs.
        start: Step that its first attempt went on from; None while unknown. `step`: step reached.
        last_report: Newest step that it was seen to report while under way, and the value there; only
            under schedulers that need reports.
    """

    trial: int
    rung: int
    resource: int
    status: RunStatus = RunStatus.WAITING
    attempts: int = 0
    faults_without_progress: int = 0
    errors: int = 0
    timeouts: int = 0
    cancels: int = 0
    last_counted: tuple[int, int] = (-1, -1)
    batch: str = ""
    task: int = 0
    outcome: Outcome | None = None
    value: float | None = None
    start: int | None = None
    step: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    node: str = ""
    job: str = ""
    message: str = ""
    failure: FailureKind | None = None
    last_report: tuple[int, float] | None = None

    @property
    def id(self) -> RunId:
        return RunId(self.trial, self.rung)

    @property
    def achieved_resource(self) -> int:
        """The resource at which it has its value: less than its rung's if it was stopped."""
        return self.step if self.status is RunStatus.STOPPED else self.resource

    @property
    def failure_kind(self) -> FailureKind | None:
        """What was wrong; None if it did not fail."""
        return classify_failure(self.outcome, self.failure, self.message)


class Trial(msgspec.Struct, gc=False):
    """One configuration and its runs, lowest rung first."""

    trial: int
    config: Config
    bracket: int
    parent: int | None
    origin: str
    runs: list[Run]
    stopped: str = ""
    start: int = 0
    repeat: int = 0

    @property
    def last_completed(self) -> Run | None:
        """Its run of the highest rung that gave a value."""
        for run in reversed(self.runs):
            if run.value is not None:
                return run
        return None


class Best(msgspec.Struct, frozen=True):
    """The best configuration: by its mean where it is trained several times.

    Attributes:
        trial: The first one of its configuration.
        value: At `resource`, the highest at which all its repeats have a value.
        repeats: How many values the mean is of.
    """

    trial: int
    rung: int
    value: float
    resource: int
    config: Config
    repeats: int = 1


class BatchState(msgspec.Struct):
    """A batch that is planned or on the cluster.

    Attributes:
        job: None while the cluster has not acknowledged it.
        unfinished: Its runs that have no ending in it yet.
        made_progress: A run of it went on for longer than a moment, or came to a value.
        blocked_reason: Why tasks of it cannot start; empty if nothing but their turn is awaited.
        blocked_since: Since when; Unix time, 0 where unknown.
        released: Tasks that the cluster held and that were let go.
        gpus_held: GPUs that one task holds, where that is more than it asks for, else 0.
        allocated: GPUs that tasks were seen to hold where that is another figure.
        tick_job: Job that ticks when all its tasks have ended, empty if there is none.
        endings: How its runs ended so far, requeued ones included.
        submit_message: What the cluster said when it was submitted, if it took no note of it for certain.
    """

    name: str
    planned_at: float
    tasks: tuple[tuple[RunId, ...], ...]
    gpus: int
    throttle: int
    cluster: str
    unfinished: set[RunId]
    time_s: int = 0
    job: str | None = None
    made_progress: bool = False
    last_message: str = ""
    blocked_reason: str = ""
    blocked_since: float = 0.0
    released: set[int] = msgspec.field(default_factory=set)
    tick_job: str = ""
    endings: list[RunFinished | RunInterrupted] = msgspec.field(default_factory=list)
    gpus_held: int = 0
    allocated: dict[int, int] = msgspec.field(default_factory=dict)
    submit_message: str = ""

    def gpus_of(self, task: int) -> int:
        """GPUs that this task holds, which is what it costs."""
        return self.allocated.get(task, self.gpus_held or self.gpus)

    @property
    def task_gpus(self) -> int:
        """GPUs that one of its tasks holds at most."""
        # Tasks that have not started may be given as much as any that has.
        return max((self.gpus_held or self.gpus, *self.allocated.values()))


class SubmitRefusals(NamedTuple):
    """Submissions that were refused since one was accepted.

    Attributes:
        message: Of the last.
        in_a_row: So many in a row were refused in the same words, numbers in them aside.
        total: So many in whatever words.
    """

    message: str
    in_a_row: int
    total: int


class SubmitLimitHit(NamedTuple):
    """The newest array that a submit limit kept out.

    Attributes:
        tasks: Of the array. `others`: tasks of ours that were on the cluster beside it.
        at: Unix time.
    """

    tasks: int
    others: int
    at: float


def mean_value(runs: Sequence[Run]) -> float | None:
    """Mean over the runs of one configuration; None if any failed, for then it is none to trust.

    A run that was lost or cancelled on the cluster says nothing of its configuration: the others count
    alone.
    """
    if any(run.outcome and FACTS[run.outcome].fault is Fault.CONFIGURATION for run in runs):
        return None
    values = [run.value for run in runs if run.value is not None]
    return sum(values) / len(values) if values else None


#: An attempt that fails within so many seconds has failed at once.
AT_ONCE_S: Final = 60.0
#: How many different trials have to, where the spec does not say.
FAIL_FAST: Final = 5

#: What differs from run to run in one and the same error: numbers, addresses, paths, long hexadecimal names.
_DIFFERS: Final = re.compile(
    r"(?<![\w/])(?:/[^\s'\",:;()]+)+|\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}\b|[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?",
    re.IGNORECASE,
)


def error_key(message: str) -> str:
    """The same for messages of the same error in different runs.

    Of several lines (see `store.last_words`) the last one counts: the others may show a configuration.
    """
    return _DIFFERS.sub("#", message.rpartition(" | ")[2]).strip()


def failed_at_once(
    *,
    outcome: Outcome | None = None,
    why: Interruption | None = None,
    seconds: float = 0.0,
    valued: bool = False,
) -> bool | None:
    """Whether an attempt shows that training fails at once (True), that it does not, or nothing (None).

    Args:
        outcome: How its run ended for good, if it did.
        why: Else why the attempt was interrupted.
        seconds: How long it took.
        valued: It has a value.
    """
    ending = outcome or why
    if ending is not None and FACTS[ending].broken_training:
        return seconds <= AT_ONCE_S
    return False if valued or seconds > AT_ONCE_S else None


class FirstErrors(msgspec.Struct):
    """The trials that failed at once with the same error, as long as nothing else has happened.

    Attributes:
        trials: Them, in order.
        message: What the last of them said.
        over: A run has ended otherwise: it is not training as a whole that is broken.
    """

    trials: dict[int, None] = msgspec.field(default_factory=dict)
    message: str = ""
    over: bool = False

    def add(self, trial: int, message: str, failed: bool | None) -> None:
        """Take in how an attempt ended; `failed` is what `failed_at_once` says of it."""
        if failed is None or self.over:
            return
        self.over = not failed or (bool(self.trials) and error_key(message) != error_key(self.message))
        if self.over:
            self.trials.clear()
        else:
            self.trials[trial] = None
            self.message = message
