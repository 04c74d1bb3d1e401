"""What stands in a sweep's way, and what went wrong last: for `status`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Interruption,
    NodeExcluded,
    RunFinished,
    RunId,
    RunInterrupted,
    TickSubmitted,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState

#: So many of the newest failures and interruptions are listed.
NEWEST_SHOWN: Final = 5
#: Clocks that differ by more are told of.
CLOCKS_S: Final = 30.0
#: Interruptions that nobody need look into.
_EXPECTED: Final = frozenset({Interruption.SWEEP_STOPPED, Interruption.NOT_STARTED})


def hindrances(state: SweepState) -> list[dict[str, Any]]:
    """Batches of which tasks cannot start, and why in the cluster's words."""
    return [
        {"batch": batch.name, "job": batch.job, "reason": batch.blocked_reason}
        for batch in state.live.values()
        if batch.blocked_reason
    ]


def restarted(state: SweepState) -> list[int]:
    """Trials that go on at this time without the checkpoint that they had."""
    return [run.trial for run in state.from_scratch if not state.run(run).status.ended]


#: What the cluster does not do, for people.
_ASKED: Final = {
    "poll": "nothing is known of its jobs",
    "find": "whether a batch was accepted is not known",
    "submit": "a submission was not accepted for certain",
    "limits": "nothing is submitted before the cluster's limits are known",
    "change": "a change of its jobs was not taken",
}


def said(state: SweepState) -> list[dict[str, Any]]:
    """What the cluster said last of each thing that it does not do, with since when and what that means."""
    return [
        {
            "asked": event.operation,
            "at": event.at,
            "words": event.message,
            "batch": event.batch,
            "means": _ASKED.get(event.operation, event.operation),
        }
        for event in state.cluster_messages.values()
    ]


def clocks(events: Sequence[AnyEvent]) -> dict[str, float]:
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
            if early > CLOCKS_S:
                found[event.node] = min(found.get(event.node, 0.0), -early)
        elif isinstance(at, float) and not isinstance(event, TickSubmitted):
            for run in unread:
                late = (run.started or 0.0) + run.seconds - at
                if late > CLOCKS_S:
                    found[run.node] = max(found.get(run.node, 0.0), late)
            unread.clear()
    return {node: round(seconds, 1) for node, seconds in sorted(found.items())}


def left_out(state: SweepState, *, now: float) -> list[NodeExcluded]:
    """Nodes that batches submitted now stay away from, by name."""
    holding = (event for event in state.excluded.values() if event.holds(now))
    return sorted(holding, key=lambda event: event.node)


def interruptions(state: SweepState) -> dict[str, int]:
    """How often attempts were interrupted, by why, the most frequent first."""
    return {why.value: count for why, count in state.interrupted.most_common()}


def newest_interruptions(events: Sequence[AnyEvent]) -> list[dict[str, Any]]:
    """The last few that were not wanted, oldest first."""
    found = (e for e in reversed(events) if isinstance(e, RunInterrupted) and e.interruption not in _EXPECTED)
    newest = list(islice(found, NEWEST_SHOWN))
    return [{"why": event.interruption.value} | _where(event) for event in reversed(newest)]


def newest_failures(events: Sequence[AnyEvent], state: SweepState) -> list[dict[str, Any]]:
    """The last few runs that failed for good and are not tried again, oldest first."""
    seen: set[RunId] = set()
    found: list[RunFinished] = []
    for event in reversed(events):
        if len(found) == NEWEST_SHOWN:
            break
        if isinstance(event, RunFinished) and event.run not in seen:
            seen.add(event.run)
            if state.run(event.run).status is RunStatus.FAILED:
                found.append(event)
    return [
        {"outcome": event.outcome.value, "failure": event.failure_kind.value if event.failure_kind else None}
        | _where(event)
        for event in reversed(found)
    ]


def _where(event: RunFinished | RunInterrupted) -> dict[str, Any]:
    fields = ("trial", "rung", "node", "job", "message")
    return {field: getattr(event, field) for field in fields}
