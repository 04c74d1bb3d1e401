"""Why an attempt was interrupted, whether its run is retried, and the event that says so. Pure."""

from __future__ import annotations

import re

from hpcsweep.core.cluster_protocol import Phase, TaskState
from hpcsweep.core.events import Interruption, Outcome, RunFinished, RunInterrupted
from hpcsweep.core.models import BatchState, Run
from hpcsweep.core.outcomes import FACTS
from hpcsweep.driver.config import DriverConfig
from hpcsweep.store.batch import Result
from hpcsweep.store.log_excerpt import SEPARATOR

_BY_PHASE = {
    Phase.TIMEOUT: Interruption.TIMEOUT,
    Phase.PREEMPTED: Interruption.PREEMPTED,
    Phase.NODE_FAIL: Interruption.NODE_FAIL,
    Phase.CANCELLED: Interruption.CANCELLED,
}

#: What Slurm writes into the log of a task killed for memory, whose state may be another.
_KILLED_FOR_MEMORY = re.compile(r"oom[-_]kill|exceeded (job|step) memory limit", re.IGNORECASE)


def killed_for_memory(lines: str) -> str:
    """The log line in which Slurm reports an out-of-memory kill; empty if there is none."""
    return next((line for line in lines.split(SEPARATOR) if _KILLED_FOR_MEMORY.search(line)), "")


def classify_interruption(
    batch: BatchState, result: Result, state: TaskState | None, *, requeued: bool, stopping: bool
) -> Interruption:
    """Why an attempt was interrupted.

    Args:
        batch: That it was in.
        result: Of its worker, or what is known without one.
        state: What the cluster shows of its task; None if nothing.
        requeued: The cluster runs the task again by itself.
        stopping: The whole sweep is.
    """
    if stopping:
        return Interruption.SWEEP_STOPPED
    started = result.started is not None or result.interrupted in (None, Interruption.WORKER_DIED)
    if not started:
        return Interruption.NOT_STARTED
    if batch.blocked_reason and not result.node and (state is None or state.phase is Phase.CANCELLED):
        return Interruption.NEVER_STARTED
    if state is not None and state.phase in _BY_PHASE:
        if state.phase is Phase.CANCELLED and state.foreign:
            return Interruption.CANCELLED_BY_ADMIN
        return _BY_PHASE[state.phase]
    if result.interrupted is Interruption.TIMEOUT and requeued:
        # A site can have preemption announce itself by the signal of the time limit.
        return Interruption.PREEMPTED
    if result.interrupted is not None:
        return result.interrupted
    return Interruption.LOST if state is None else Interruption.WORKER_DIED


def retries_exhausted(run: Run, result: Result, why: Interruption, *, settings: DriverConfig) -> str:
    """Why the run is not retried; empty if it is."""
    if why is Interruption.CANCELLED and run.cancels:
        return "stays cancelled: its user cancelled it on the cluster again after it had been resubmitted"
    limit = settings.max_timeouts
    if why is Interruption.TIMEOUT and limit is not None and run.timeouts >= limit:
        return f"given up after reaching its time limit {run.timeouts + 1} times"
    if result.progressed or not FACTS[why].counts_without_progress:
        return ""
    if run.faults_without_progress < settings.max_idle_faults:
        return ""
    return f"given up after {run.faults_without_progress + 1} interruptions without progress"


def outcome_of(run: Run, why: Interruption) -> Outcome:
    """Outcome of a run that is not retried."""
    return Outcome.CANCELLED if why is Interruption.CANCELLED and run.cancels else Outcome.LOST


def interruption(
    batch: BatchState, result: Result, why: Interruption, *, requeued: bool = False
) -> RunInterrupted:
    """The event of an attempt that is resumed later."""
    return RunInterrupted(
        result.trial,
        result.rung,
        why,
        attempt=result.attempt,
        restart=result.restart,
        batch=batch.name,
        task=result.task,
        start=None if result.started is None else result.start,
        requeued=requeued,
        progressed=result.progressed,
        step=result.step,
        seconds=result.seconds,
        gpu_seconds=result.gpu_seconds,
        node=result.node,
        job=result.job,
        message=result.message,
    )


def finished(batch: BatchState, result: Result) -> RunFinished:
    """The event of a run that ended for good."""
    assert result.outcome is not None
    return RunFinished(
        result.trial,
        result.rung,
        result.outcome,
        value=result.value,
        step=result.step,
        start=None if result.started is None and result.outcome is not Outcome.COMPLETED else result.start,
        attempt=result.attempt,
        restart=result.restart,
        batch=batch.name,
        task=result.task,
        seconds=result.seconds,
        gpu_seconds=result.gpu_seconds,
        started=result.started,
        node=result.node,
        job=result.job,
        message=result.message,
        failure=result.failure,
    )
