"""What became of a run, decided from what was seen. Pure."""

from __future__ import annotations

import contextlib
import re
import signal

import msgspec

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.store.log_excerpt import introduced
from hpcsweep.worker.objective import ObjectiveReading

_OUT_OF_MEMORY_TYPES = re.compile(r"OutOfMemory|\bMemoryError\b")
_OUT_OF_MEMORY_TEXT = re.compile(
    r"CUDA out of memory|OutOfMemoryError|RESOURCE_EXHAUSTED|(?:^|\| )MemoryError\b"
)


class Ended(msgspec.Struct, frozen=True):
    """What was seen of one run's process.

    Attributes:
        returncode: Negative for the signal that ended it.
        told: The signal that told the worker to stop while this run was still going, or None.
        types: Names of the exception's type and its bases, if Python training code raised.
        message: Its one line, else the last lines of the log that say something.
        oom_kills: Processes of the task that the kernel killed for want of memory meanwhile.
        alone: No other run shared the task, so those were this run's.
    """

    returncode: int
    told: str | None = None
    types: tuple[str, ...] = ()
    message: str = ""
    oom_kills: int = 0
    alone: bool = True


class Verdict(msgspec.Struct, frozen=True):
    """Exactly one of `outcome` and `interrupted`; a value only when completed, `failure` when failed."""

    outcome: Outcome | None = None
    interrupted: Interruption | None = None
    value: float | None = None
    message: str = ""
    failure: FailureKind | None = None


def judge(ended: Ended, measured: ObjectiveReading, *, resource: int, reached: int) -> Verdict:
    """How a run ended.

    A run that was told to stop is finished only if it had come to its last step all the same.
    """
    killed = ended.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    if ended.told is not None and not (ended.returncode == 0 and reached >= resource):
        # SIGUSR2 is what comes before the end of the task's time.
        why = Interruption.TIMEOUT if ended.told == "SIGUSR2" else Interruption.PREEMPTED
        return Verdict(
            interrupted=why,
            message=f"told to stop by {ended.told} at step {reached} of {resource}",
        )
    if ended.oom_kills and (killed or ended.alone):
        return Verdict(
            Outcome.OUT_OF_MEMORY, message=_with_line("killed by the kernel: out of memory", ended)
        )
    if ended.returncode != 0:
        if any(map(_OUT_OF_MEMORY_TYPES.search, ended.types)) or _OUT_OF_MEMORY_TEXT.search(ended.message):
            return Verdict(Outcome.OUT_OF_MEMORY, message=ended.message)
        return Verdict(Outcome.FAILED, message=_failure(ended), failure=FailureKind.CRASHED)
    if measured.value is None:
        failure = measured.failure or FailureKind.NEVER_REPORTED
        return Verdict(Outcome.FAILED, message=measured.problem, failure=failure)
    return Verdict(Outcome.COMPLETED, value=measured.value)


def _failure(ended: Ended) -> str:
    if ended.returncode < 0:
        try:
            name = signal.Signals(-ended.returncode).name
        except ValueError:
            name = f"signal {-ended.returncode}"
        return _with_line(f"killed by {name}", ended)
    if ended.types:  # what Python training code raised says it all
        return ended.message
    code = f"exit code {ended.returncode}"
    with contextlib.suppress(ValueError):  # how a shell tells what became of its child
        code += f" ({signal.Signals(ended.returncode - 128).name})" if ended.returncode > 128 else ""
    return f"{code}: {ended.message}" if ended.message else f"{code}, and nothing was printed"


def _with_line(text: str, ended: Ended) -> str:
    return f"{text}; {introduced(ended.message)}" if ended.message else text
