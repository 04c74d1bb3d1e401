"""How runs and their attempts end: one total table of whose fault it is, what follows and what people read.

Everything else that depends on an outcome reads it from `FACTS`, so that a new member is added here alone.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec


class Outcome(enum.Enum):
    """How a run ended for good."""

    COMPLETED = "completed"
    FAILED = "failed"  # an error in training code, a metric that is missing or not finite
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"  # interrupted more often than the limits allow
    STOPPED = "stopped"  # a stopping rule or the user ended it before its resource
    CANCELLED = "cancelled"  # its owner cancelled it on the cluster again after it had been resubmitted


class FailureKind(enum.Enum):
    """What was wrong with a run that failed."""

    CRASHED = "crashed"  # training code ended with an error, or could not be started
    NOT_FINITE = "not_finite"  # the objective is NaN or infinite
    NEVER_REPORTED = "never_reported"  # the objective was not reported, or not for a step that counts
    UNREADABLE = "unreadable"  # what was reported or printed of the objective cannot be read
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    CANCELLED = "cancelled"


class Interruption(enum.Enum):
    """Why an attempt ended while its run goes on later."""

    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    NODE_FAIL = "node_fail"
    CANCELLED = "cancelled"  # by the user outside hpcsweep, or by somebody whom the cluster does not name
    CANCELLED_BY_ADMIN = "cancelled_by_admin"  # by another user id
    OUT_OF_MEMORY = "out_of_memory"  # it had too little, and may have more next time
    TRAINING_ERROR = "training_error"  # training code failed, and `retries.training` allows another try
    NEVER_STARTED = "never_started"  # the cluster says that it can never start
    WORKER_DIED = "worker_died"  # the task ended without a result
    LOST = "lost"  # the cluster does not show the task any more and no result came
    NOT_STARTED = "not_started"  # its task ended before this run started
    SWEEP_STOPPED = "sweep_stopped"  # cancelled by `stop`


#: Any of the ways to end.
Ending: TypeAlias = Outcome | FailureKind | Interruption


class Fault(enum.Enum):
    """Whose fault it is."""

    NOBODY = "nobody"
    CONFIGURATION = "the configuration"
    INFRASTRUCTURE = "the infrastructure"
    USER = "its owner"


class RetryLimit(enum.Enum):
    """What bounds how often a run is retried: a key of `retries`."""

    TRAINING = "training"
    INFRASTRUCTURE = "infrastructure"  # in a row without a newer checkpoint
    TIMEOUTS = "timeouts"


class Facts(NamedTuple):
    """What follows from one way to end.

    Attributes:
        label: A few words after a number or a name: `3 timed out`; the same for one and many.
        fault: Whose fault it is.
        next_step: What happens then.
        retry_limits: Limits that it counts against; none: it is always retried, or (an outcome) never.
        lost_time: What compute time that left nothing behind is put down to in the report; empty if none is.
        message: What is written down where nobody says more.
        suspects_node: The reason may lie in the node.
        broken_training: Within seconds of its start it shows that training as a whole may be broken.
        expected: Nobody need look into it.
        needs_name: `retry` takes it up only where the trial is named.
        begun: Whether the run had begun where no time is known that it took; None: if its node is known.
    """

    label: str
    fault: Fault
    next_step: str
    retry_limits: tuple[RetryLimit, ...] = ()
    lost_time: str = ""
    message: str = ""
    suspects_node: bool = False
    broken_training: bool = False
    expected: bool = False
    needs_name: bool = False
    begun: bool | None = True

    @property
    def ended_well(self) -> bool:
        """Whether nothing went wrong, and no time was lost."""
        return self.fault is Fault.NOBODY and not self.lost_time

    @property
    def counts_without_progress(self) -> bool:
        """Whether it counts against the interruptions in a row that leave no newer checkpoint."""
        return RetryLimit.INFRASTRUCTURE in self.retry_limits


_NEVER_PROMOTED: Final = "never promoted"
_RESUMES: Final = "resumes from its newest checkpoint"
_FAILED_RUNS: Final = "failed runs"
_NODES: Final = "lost to nodes"
_CANCELLING: Final = "lost to cancelling"
_IN_A_ROW: Final = (RetryLimit.INFRASTRUCTURE,)
_CRASHED = Facts("failed", Fault.CONFIGURATION, _NEVER_PROMOTED, lost_time=_FAILED_RUNS, broken_training=True)
_OUT_OF_MEMORY = _CRASHED._replace(label="out of memory")
_GIVEN_UP = Facts(
    "lost for good",
    Fault.INFRASTRUCTURE,
    "given up after too many interruptions",
    lost_time=_FAILED_RUNS,
    begun=None,
)
_CANCELLED = Facts(
    "cancelled for good",
    Fault.USER,
    "stays cancelled until `retry` names the trial",
    lost_time=_FAILED_RUNS,
    needs_name=True,
    begun=None,
)

#: Every way to end.
FACTS: Final[Mapping[Ending, Facts]] = {
    Outcome.COMPLETED: Facts("completed", Fault.NOBODY, "its value counts"),
    Outcome.STOPPED: Facts("stopped early", Fault.NOBODY, "trained no further", begun=None),
    Outcome.FAILED: _CRASHED,
    Outcome.OUT_OF_MEMORY: _OUT_OF_MEMORY,
    Outcome.LOST: _GIVEN_UP,
    Outcome.CANCELLED: _CANCELLED,
    FailureKind.CRASHED: _CRASHED._replace(label="crashed"),
    FailureKind.NOT_FINITE: _CRASHED._replace(label="not finite"),
    FailureKind.NEVER_REPORTED: _CRASHED._replace(label="never reported"),
    FailureKind.UNREADABLE: _CRASHED._replace(label="unreadable report"),
    FailureKind.OUT_OF_MEMORY: _OUT_OF_MEMORY,
    FailureKind.LOST: _GIVEN_UP,
    FailureKind.CANCELLED: _CANCELLED,
    Interruption.PREEMPTED: Facts(
        "preempted", Fault.INFRASTRUCTURE, _RESUMES, _IN_A_ROW, "lost to preemption", "preempted"
    ),
    Interruption.TIMEOUT: Facts(
        "timed out",
        Fault.INFRASTRUCTURE,
        _RESUMES,
        (RetryLimit.TIMEOUTS, RetryLimit.INFRASTRUCTURE),
        "lost at time limits",
        "reached its time limit",
    ),
    Interruption.NODE_FAIL: Facts(
        "node failed",
        Fault.INFRASTRUCTURE,
        _RESUMES,
        _IN_A_ROW,
        _NODES,
        "its node failed",
        suspects_node=True,
    ),
    Interruption.WORKER_DIED: Facts(
        "ended without a result",
        Fault.INFRASTRUCTURE,
        _RESUMES,
        _IN_A_ROW,
        _NODES,
        "its task ended without a result",
        suspects_node=True,
        broken_training=True,
    ),
    Interruption.LOST: Facts(
        "lost",
        Fault.INFRASTRUCTURE,
        _RESUMES,
        _IN_A_ROW,
        _NODES,
        "the job disappeared from the queue without a result",
        suspects_node=True,
        begun=None,
    ),
    Interruption.CANCELLED: Facts(
        "cancelled by the user",
        Fault.USER,
        _RESUMES,
        _IN_A_ROW,
        _CANCELLING,
        "cancelled on the cluster",
        begun=None,
    ),
    Interruption.CANCELLED_BY_ADMIN: Facts(
        "cancelled by an admin",
        Fault.INFRASTRUCTURE,
        _RESUMES,
        _IN_A_ROW,
        _CANCELLING,
        "cancelled by an admin",
        begun=None,
    ),
    Interruption.OUT_OF_MEMORY: Facts(
        "out of memory, to be retried",
        Fault.CONFIGURATION,
        "resumes with more memory, up to `mem.max`",
        (),  # it ends at the largest memory
        "lost to too little memory",
        "out of memory",
    ),
    Interruption.TRAINING_ERROR: Facts(
        "failed, to be retried",
        Fault.CONFIGURATION,
        _RESUMES,
        (RetryLimit.TRAINING,),
        _FAILED_RUNS,
        "training failed",
        broken_training=True,
    ),
    Interruption.NEVER_STARTED: Facts(
        "impossible to start",
        Fault.INFRASTRUCTURE,
        "the sweep pauses",
        (),
        _NODES,
        "it could never start",
        begun=False,
    ),
    Interruption.NOT_STARTED: Facts(
        "not begun",
        Fault.NOBODY,
        "waits for another task",
        (),
        _CANCELLING,
        "its task ended before this run started",
        expected=True,
        begun=False,
    ),
    Interruption.SWEEP_STOPPED: Facts(
        "cancelled with the sweep",
        Fault.USER,
        "waits for `launch`",
        (),
        _CANCELLING,
        "the sweep was stopped",
        expected=True,
        begun=None,
    ),
}


def ending_of(value: str, *, final: bool) -> Outcome | Interruption:
    """How an attempt ended, as tables have it: the outcome of its run if it was `final`."""
    return Outcome(value) if final else Interruption(value)


def needs_name(outcome: Outcome | None) -> bool:
    """Whether `retry` takes a run with this outcome up only where its trial is named."""
    return outcome is not None and FACTS[outcome].needs_name


#: How workers of earlier versions word what is no crash.
_NOT_FINITE: Final = re.compile(r"metric .+ is -?(?:nan|inf) at step ")
_NEVER_REPORTED: Final = re.compile(r"metric .+ was (?:never reported|not reported after|reported only) ?")
_SAME: Final = {
    Outcome.OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
    Outcome.LOST: FailureKind.LOST,
    Outcome.CANCELLED: FailureKind.CANCELLED,
}


def classify_failure(
    outcome: Outcome | None, failure: FailureKind | None, message: str
) -> FailureKind | None:
    """What was wrong with a run; None if it did not fail. Without `failure` the message decides."""
    if outcome is not Outcome.FAILED:
        return None if outcome is None else _SAME.get(outcome)
    if failure is not None:
        return failure
    if _NOT_FINITE.match(message):
        return FailureKind.NOT_FINITE
    return FailureKind.NEVER_REPORTED if _NEVER_REPORTED.match(message) else FailureKind.CRASHED


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


def without_numbers(message: str) -> str:
    """The message with each number replaced: by that alone two refusals may differ."""
    return re.sub(r"\d+", "#", message)


def failed_at_once(
    *,
    outcome: Outcome | None = None,
    why: Interruption | None = None,
    seconds: float = 0.0,
    valued: bool = False,
) -> bool | None:
    """Whether an attempt shows that training fails at once (True), that it does not, or nothing (None)."""
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
