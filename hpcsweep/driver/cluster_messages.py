"""The cluster's last error message for each kind of call, kept in the journal. Pure."""

from __future__ import annotations

from typing import Final, Literal

from hpcsweep.core.events import ClusterMessage
from hpcsweep.core.state import SweepState, without_numbers

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
