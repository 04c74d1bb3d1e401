"""The outcome of a run, from its process and its reports. Pure."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.store.log_excerpt import label_excerpt
from hpcsweep.worker.objective import ObjectiveReading

_OUT_OF_MEMORY_TYPES = re.compile(r"OutOfMemory|\bMemoryError\b")
_OUT_OF_MEMORY_TEXT = re.compile(
    r"CUDA out of memory|OutOfMemoryError|RESOURCE_EXHAUSTED|(?:^|\| )MemoryError\b"
)

#: Errors that training code causes at its own files: umask, chmod, a folder in place of a file.
_OWN_FAULTS: Final = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


class ProcessExit(msgspec.Struct, frozen=True):
    """How a run's process ended.

    Attributes:
        returncode: Negative for the signal that ended it.
        signal: The signal that asked the worker to stop during the run, or None.
        types: Names of the exception's type and its bases, if Python training code raised.
        message: Its one-line message, else the last informative lines of the log.
        oom_kills: Processes of the task that the kernel killed for lack of memory meanwhile.
        alone: No other run shared the task, so those were this run's.
    """

    returncode: int
    signal: str | None = None
    types: tuple[str, ...] = ()
    message: str = ""
    oom_kills: int = 0
    alone: bool = True


class RunOutcome(msgspec.Struct, frozen=True):
    """Exactly one of `outcome` and `interrupted`; a value only when completed, `failure` when failed."""

    outcome: Outcome | None = None
    interrupted: Interruption | None = None
    value: float | None = None
    message: str = ""
    failure: FailureKind | None = None


def classify(process: ProcessExit, reading: ObjectiveReading, *, resource: int, reached: int) -> RunOutcome:
    """The outcome of a run. One that was asked to stop is finished only if it reached its last step."""
    killed = process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    if process.signal is not None and not (process.returncode == 0 and reached >= resource):
        # SIGUSR2 is what comes before the end of the task's time.
        why = Interruption.TIMEOUT if process.signal == "SIGUSR2" else Interruption.PREEMPTED
        return RunOutcome(
            interrupted=why,
            message=f"told to stop by {process.signal} at step {reached} of {resource}",
        )
    if process.oom_kills and (killed or process.alone):
        return RunOutcome(
            Outcome.OUT_OF_MEMORY, message=_with_line("killed by the kernel: out of memory", process)
        )
    if process.returncode != 0:
        if any(map(_OUT_OF_MEMORY_TYPES.search, process.types)) or _OUT_OF_MEMORY_TEXT.search(
            process.message
        ):
            return RunOutcome(Outcome.OUT_OF_MEMORY, message=process.message)
        return RunOutcome(Outcome.FAILED, message=_failure(process), failure=FailureKind.CRASHED)
    if reading.value is None:
        failure = reading.failure or FailureKind.NEVER_REPORTED
        return RunOutcome(Outcome.FAILED, message=reading.problem, failure=failure)
    return RunOutcome(Outcome.COMPLETED, value=reading.value)


def _failure(process: ProcessExit) -> str:
    if process.returncode < 0:
        try:
            name = signal.Signals(-process.returncode).name
        except ValueError:
            name = f"signal {-process.returncode}"
        return _with_line(f"killed by {name}", process)
    if process.types:  # what Python training code raised says it all
        return process.message
    code = f"exit code {process.returncode}"
    with contextlib.suppress(ValueError):  # how a shell tells what became of its child
        code += f" ({signal.Signals(process.returncode - 128).name})" if process.returncode > 128 else ""
    return f"{code}: {process.message}" if process.message else f"{code}, and nothing was printed"


def _with_line(text: str, process: ProcessExit) -> str:
    return f"{text}; {label_excerpt(process.message)}" if process.message else text


def classify_worker_error(error: Exception, trial: Path) -> RunOutcome:
    """The outcome of a run that made the worker fail: an interruption, unless the run broke its own files.

    A worker without access to files in the trial's folder was locked out by training code.
    """
    if isinstance(error, OSError) and error.errno in _OWN_FAULTS and error.filename is not None:
        path = os.fsdecode(error.filename)
        if path.startswith(f"{trial}/"):
            return RunOutcome(Outcome.FAILED, message=f"{path}: {error.strerror}")
    message = f"the worker: {type(error).__name__}: {error}"
    return RunOutcome(interrupted=Interruption.WORKER_DIED, message=message)
