"""What stands in a sweep's way, and what went wrong last: for `status`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from hpcsweep.core.events import AnyEvent, Interruption, NodeExcluded, RunFinished, RunId, RunInterrupted
from hpcsweep.core.records import RunStatus
from hpcsweep.core.state import SweepState

#: So many of the newest failures and interruptions are listed.
NEWEST_SHOWN: Final = 5
#: Interruptions that nobody need look into.
_EXPECTED: Final = frozenset({Interruption.SWEEP_STOPPED, Interruption.NOT_STARTED})


def hindrances(state: SweepState) -> list[dict[str, Any]]:
    """Batches of which tasks cannot start, and why in the cluster's words."""
    return [
        {"batch": batch.name, "job": batch.job, "reason": batch.hindered}
        for batch in state.live.values()
        if batch.hindered
    ]


def left_out(state: SweepState, *, now: float) -> list[NodeExcluded]:
    """Nodes that batches submitted now stay away from, by name."""
    return sorted((found for found in state.excluded.values() if now < found.until), key=lambda e: e.node)


def interruptions(state: SweepState) -> dict[str, int]:
    """How often attempts were interrupted, by why, the most frequent first."""
    return {why.value: count for why, count in state.interrupted.most_common()}


def newest_interruptions(events: Sequence[AnyEvent]) -> list[dict[str, Any]]:
    """The last few that were not wanted, oldest first."""
    found = (e for e in reversed(events) if isinstance(e, RunInterrupted) and e.why not in _EXPECTED)
    newest = list(islice(found, NEWEST_SHOWN))
    return [{"why": event.why.value} | _where(event) for event in reversed(newest)]


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
        {"outcome": event.outcome.value, "failure": event.failed_by.value if event.failed_by else None}
        | _where(event)
        for event in reversed(found)
    ]


def _where(event: RunFinished | RunInterrupted) -> dict[str, Any]:
    fields = ("trial", "rung", "node", "job", "message")
    return {field: getattr(event, field) for field in fields}
