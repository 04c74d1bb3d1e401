"""Site failures: bad nodes are excluded, a broken set-up pauses the sweep, errors are recorded. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from hpcsweep.core.events import ClusterMessage, NodeExcluded, PauseEnded, PauseRequested
from hpcsweep.core.models import AT_ONCE_S
from hpcsweep.core.state import SweepState, without_numbers

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


def excluded(state: SweepState, *, now: float) -> tuple[str, ...]:
    """Nodes that a batch submitted now stays away from."""
    return tuple(sorted(node for node, event in state.excluded.items() if event.holds(now)))


def check_health(
    state: SweepState, *, now: float, nodes: Sequence[str], fail_fast: int = 0, longest_s: float = 0.0
) -> list[NodeExcluded | PauseRequested | PauseEnded]:
    """What follows from failures that are not the fault of configurations.

    Args:
        state: Of the sweep.
        now: Unix time.
        nodes: Where the sweep may run; none is excluded where that is unknown, and never all.
        fail_fast: Number of first trials that pause the sweep if all fail alike within seconds; 0: none.
        longest_s: How long the oldest running run has lasted.
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
    if refusals.in_a_row >= REFUSALS and going_on:
        reason = f"{refusals.in_a_row} submissions in a row were refused: {refusals.message}"
        return [*events, PauseRequested(now, reason)]
    if refusals.total >= REFUSALS_IN_ALL and going_on:
        reason = f"{refusals.total} submissions in a row were refused; the last: {refusals.message}"
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


#: Shortest time between two different messages that are recorded.
EVERY_S: Final = 60.0
#: Characters kept of a message.
LENGTH: Final = 500

Asked = Literal["poll", "find", "submit", "limits", "change"]


def call_failed(
    state: SweepState, asked: Asked, message: str, *, now: float, batch: str = "", refused: bool = False
) -> tuple[ClusterMessage, ...]:
    """Record the message of a failed call, once for each change."""
    message = message.strip()[:LENGTH] or "no message"
    before = state.cluster_messages.get(asked)
    if before is not None and not refused and before.batch == batch:
        same = without_numbers(before.message) == without_numbers(message)
        if same or 0 <= now - before.at < EVERY_S:
            return ()
    return (ClusterMessage(now, asked, message, batch, refused),)


def call_succeeded(state: SweepState, asked: Asked, *, now: float) -> tuple[ClusterMessage, ...]:
    """Record that calls of this kind work again."""
    return (ClusterMessage(now, asked, ""),) if asked in state.cluster_messages else ()
