"""What holds up a sweep, and what went wrong last. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    NodeExcluded,
    RunFinished,
    RunInterrupted,
    TickSubmitted,
)
from hpcsweep.core.state import SweepState

#: So many of the newest failures and interruptions are listed.
NEWEST_SHOWN: Final = 5
#: Clocks that differ by less are not reported.
MAX_CLOCK_SKEW_S: Final = 30.0
#: What it means that the cluster does not answer or do this.
_MEANING: Final = {
    "poll": "nothing is known of its jobs",
    "find": "whether a batch was accepted is not known",
    "submit": "a submission was not accepted for certain",
    "limits": "nothing is submitted before the cluster's limits are known",
    "change": "a change of its jobs was not taken",
}


def blocked_batches(state: SweepState) -> list[dict[str, Any]]:
    """Batches of which tasks cannot start, and why in the cluster's words."""
    return [
        {"batch": batch.name, "job": batch.job, "reason": batch.blocked_reason}
        for batch in state.live.values()
        if batch.blocked_reason
    ]


def trials_from_scratch(state: SweepState) -> list[int]:
    """Trials that train now without the checkpoint that they had."""
    return [run.trial for run in state.from_scratch if not state.run(run).status.ended]


def cluster_errors(state: SweepState) -> list[dict[str, Any]]:
    """What the cluster does not answer or do: its last words, since when, and what that means."""
    return [
        {
            "asked": event.operation,
            "at": event.at,
            "words": event.message,
            "batch": event.batch,
            "means": _MEANING.get(event.operation, event.operation),
        }
        for event in state.cluster_messages.values()
    ]


def clock_skews(events: Sequence[AnyEvent]) -> dict[str, float]:
    """Nodes whose clocks differ from that of who submitted: by how many seconds they are ahead at least.

    A run cannot start before its batch is planned, nor end after the driver has read its result.
    """
    found: dict[str, float] = {}
    planned: dict[str, float] = {}
    unread: list[RunFinished] = []
    for event in events:
        at = getattr(event, "at", None)
        if isinstance(event, BatchPlanned):
            planned[event.batch] = event.at
        if isinstance(event, RunFinished) and event.started is not None:
            unread.append(event)
            early = planned.get(event.batch, event.started) - event.started
            if early > MAX_CLOCK_SKEW_S:
                found[event.node] = min(found.get(event.node, 0.0), -early)
        elif isinstance(at, float) and not isinstance(event, TickSubmitted):
            for run in unread:
                late = (run.started or 0.0) + run.seconds - at
                if late > MAX_CLOCK_SKEW_S:
                    found[run.node] = max(found.get(run.node, 0.0), late)
            unread.clear()
    return {node: round(seconds, 1) for node, seconds in sorted(found.items())}


def excluded_nodes(state: SweepState, *, now: float) -> list[NodeExcluded]:
    """Nodes that are avoided now, by name."""
    excluded = (event for event in state.excluded.values() if event.holds(now))
    return sorted(excluded, key=lambda event: event.node)


def interruption_counts(state: SweepState) -> dict[str, int]:
    """How often attempts were interrupted, by why, the most frequent first."""
    return {why.value: count for why, count in state.interrupted.most_common()}


def interruption_record(event: RunInterrupted) -> dict[str, Any]:
    """An interruption as `status --json` has it."""
    return {"why": event.interruption.value} | _where(event)


def failure_record(event: RunFinished) -> dict[str, Any]:
    """A failure as `status --json` has it."""
    failure = event.failure_kind.value if event.failure_kind else None
    return {"outcome": event.outcome.value, "failure": failure} | _where(event)


def _where(event: RunFinished | RunInterrupted) -> dict[str, Any]:
    return {field: getattr(event, field) for field in ("trial", "rung", "node", "job", "message")}
