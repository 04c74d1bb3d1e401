"""What failures mean: for nodes, for the sweep, and for the run that was interrupted. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, TaskState
from hpcsweep.core.events import (
    ClusterMessage,
    Interruption,
    NodeExcluded,
    Outcome,
    PauseEnded,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
)
from hpcsweep.core.models import Run
from hpcsweep.core.outcomes import AT_ONCE_S, FACTS, without_numbers
from hpcsweep.core.run_resources import MOST_GUESSES
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.store.batch import Result
from hpcsweep.store.excerpts import SEPARATOR

#: Different trials in a row that must fail on a node before it is excluded.
BAD_TRIALS: Final = 3
#: How long a node stays excluded.
EXCLUDED_S: Final = 3600.0
#: Batches in a row failing within seconds that pause the sweep.
FAILED_BATCHES: Final = 3
#: Submissions in a row refused with the same message that pause it.
REFUSALS: Final = 3
#: And with any message: it may hold a date or an id.
REFUSALS_IN_ALL: Final = 6
#: Shortest time between two different messages that are recorded.
EVERY_S: Final = 60.0
#: Characters kept of a message.
LENGTH: Final = 500
Operation = Literal["poll", "find", "submit", "limits", "change"]
_BY_PHASE = {
    Phase.TIMEOUT: Interruption.TIMEOUT,
    Phase.PREEMPTED: Interruption.PREEMPTED,
    Phase.NODE_FAIL: Interruption.NODE_FAIL,
    Phase.CANCELLED: Interruption.CANCELLED,
}
#: What Slurm writes into the log of a task killed for memory, whose state may be another.
_KILLED_FOR_MEMORY = re.compile(r"oom[-_]kill|exceeded (job|step) memory limit", re.IGNORECASE)
#: What slurmstepd and srun write into the log of a run when a node of its job fails.
_NODE_FAILED = re.compile(r"slurmstepd\S*: error: .* DUE TO NODE FAILURE|srun: error: Node failure on ")


def excluded(state: SweepState, *, now: float) -> tuple[str, ...]:
    """Nodes that a batch submitted now stays away from."""
    return tuple(sorted(node for node, event in state.excluded.items() if event.holds(now)))


def check_health(
    state: SweepState, *, now: float, nodes: Sequence[str], fail_fast: int = 0, longest_s: float = 0.0
) -> list[NodeExcluded | PauseRequested | PauseEnded]:
    """Which nodes to exclude, and whether to pause the sweep; `longest_s` is the age of the oldest run.

    No node is excluded where the sweep's `nodes` are unknown, and never all.
    """
    events: list[NodeExcluded | PauseRequested | PauseEnded] = []
    out = set(excluded(state, now=now))
    for node, faults in state.node_faults.items():
        rest = set(nodes) - out - {node}
        # Where no other node ever did better, it is not this one's fault.
        elsewhere = state.good_nodes - {node}
        if len(faults) >= BAD_TRIALS and node in nodes and node not in out and rest and elsewhere:
            out.add(node)
            reason = f"{len(faults)} trials failed there in a row; the last: {[*faults.values()][-1]}"
            events.append(NodeExcluded(node, now, now + EXCLUDED_S, reason))
    going_on = state.pausing is None and state.stopping is None
    refusals, failed = state.refusals, state.failed_batches_in_a_row
    alike = refusals.in_a_row >= REFUSALS
    if going_on and (alike or refusals.total >= REFUSALS_IN_ALL):
        count, last = (refusals.in_a_row, ":") if alike else (refusals.total, "; the last:")
        reason = f"{count} submissions in a row were refused{last} {refusals.message}"
        return [*events, PauseRequested(now, reason)]
    if failed >= FAILED_BATCHES and going_on:
        last = state.last_batch_failure or "no log output"
        reason = f"{failed} batches in a row failed within seconds; the last: {last}"
        events.append(PauseRequested(now, reason))
    first, better = state.first_errors, longest_s > AT_ONCE_S
    if state.stopping is not None or state.ended is not None:
        return events
    if state.pausing is not None and state.pausing.is_fail_fast and (first.over or better):
        events.append(PauseEnded(now))
    if state.pausing is None and not events and 0 < fail_fast <= len(first.trials) and not better:
        events.append(PauseRequested(now, _fail_fast_reason(len(first.trials), first.message), "fail_fast"))
    return events


def _fail_fast_reason(trials: int, message: str) -> str:
    first = "the first trial" if trials == 1 else f"the first {trials} trials"
    return (
        f"{first} failed within seconds with the same error: {message}. Fix it, then run "
        "`hpcsweep retry` to retry them, or `launch` to continue without them "
        "(retries.fail_fast: false turns this off)"
    )


def call_failed(
    state: SweepState,
    operation: Operation,
    message: str,
    *,
    now: float,
    batch: str = "",
    refused: bool = False,
) -> tuple[ClusterMessage, ...]:
    """Record the message of a failed call, once for each change."""
    message = message.strip()[:LENGTH] or "no message"
    before = state.cluster_messages.get(operation)
    if before is not None and not refused and before.batch == batch:
        same = without_numbers(before.message) == without_numbers(message)
        if same or 0 <= now - before.at < EVERY_S:
            return ()
    return (ClusterMessage(now, operation, message, batch, refused),)


def call_succeeded(state: SweepState, operation: Operation, *, now: float) -> tuple[ClusterMessage, ...]:
    """Record that calls of this kind work again."""
    return (ClusterMessage(now, operation, ""),) if operation in state.cluster_messages else ()


def killed_for_memory(lines: str) -> str:
    """The log line in which Slurm reports an out-of-memory kill; empty if there is none."""
    return next((line for line in lines.split(SEPARATOR) if _KILLED_FOR_MEMORY.search(line)), "")


def tells_of_failed_node(lines: str) -> bool:
    """Whether Slurm reports in the log that a node of the job failed."""
    return bool(_NODE_FAILED.search(lines))


def classify_interruption(
    batch: BatchState, result: Result, state: TaskState | None, *, requeued: bool, stopping: bool
) -> Interruption:
    """Why an attempt was interrupted; `result` is its worker's, or what is known without one."""
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


def limit_was_guessed(
    batch: BatchState, run: Run, result: Result, why: Interruption, *, settings: DriverConfig
) -> bool:
    """Whether the attempt reached a time limit that was learned from other runs."""
    if run.short_guesses >= MOST_GUESSES:  # it had the first limit again
        return False
    given = batch.assigned.get(RunId(result.trial, result.rung))
    time_s = (given.time_s if given is not None else 0) or batch.time_s
    return why is Interruption.TIMEOUT and settings.resources.is_guess(time_s)


def retries_exhausted(
    run: Run, result: Result, why: Interruption, *, settings: DriverConfig, guessed: bool = False
) -> str:
    """Why the run is not retried; empty if it is. No limit counts a `guessed` time limit."""
    if guessed:
        return ""
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


def interruption(
    batch: BatchState,
    result: Result,
    why: Interruption,
    *,
    requeued: bool = False,
    guessed: bool = False,
) -> RunInterrupted:
    """The event of an attempt that is resumed later."""
    return RunInterrupted(
        result.trial,
        result.rung,
        why,
        batch=batch.name,
        start=None if result.started is None else result.start,
        started=result.started,
        requeued=requeued,
        progressed=result.progressed,
        mem_mib=(batch.run_mem_mib or 0) if why is Interruption.OUT_OF_MEMORY else 0,
        guessed=guessed,
        **_copied_fields(result),
    )


def finished(batch: BatchState, result: Result) -> RunFinished:
    """The event of a run that ended for good."""
    assert result.outcome is not None
    return RunFinished(
        result.trial,
        result.rung,
        result.outcome,
        value=result.value,
        values=result.values,
        batch=batch.name,
        start=None if result.started is None and result.outcome is not Outcome.COMPLETED else result.start,
        started=result.started,
        failure=result.failure,
        warning=result.warning,
        **_copied_fields(result),
    )


def _copied_fields(result: Result) -> dict[str, Any]:
    """The fields of a result that both kinds of ending have."""
    names = ("attempt", "restart", "task", "step", "seconds", "gpu_seconds", "node", "job", "message")
    return {name: getattr(result, name) for name in (*names, "peak_mib", "unit_seconds", "checkpoints")}
