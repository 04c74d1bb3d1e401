"""The GPU cap over all live arrays, held by their throttles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ArrayUsage(NamedTuple):
    """One live array: tasks that may still run, and how many of them at a time.

    Attributes:
        slots: What one of its tasks takes; more than 1 where it asks for more GPUs than a task
            of now, because the resources were changed since it was submitted.
    """

    open: int
    throttle: int
    slots: int = 1

    @property
    def running(self) -> int:
        """Tasks that it may have running at this moment."""
        return min(self.open, self.throttle)

    @property
    def used(self) -> int:
        """Slots that it may take at this moment."""
        return self.running * self.slots


def free_slots(cap: int, shares: Sequence[ArrayUsage]) -> int:
    """Slots that could be taken beyond what may be taken now; negative where too many may be."""
    return cap - sum(share.used for share in shares)


def raised(cap: int, shares: Sequence[ArrayUsage]) -> list[int]:
    """New throttles that hand free slots to arrays with more open tasks, oldest first.

    Only what is free is handed out, so that at no moment more than `cap` slots may be taken.
    """
    free = free_slots(cap, shares)
    throttles = []
    for share in shares:
        more = max(0, min(free // share.slots, share.open - share.throttle))
        free -= more * share.slots
        throttles.append(share.throttle + more)
    return throttles


def lowered(cap: int, shares: Sequence[ArrayUsage]) -> list[int]:
    """New throttles after the cap was lowered: cut from the newest arrays, none below 1."""
    over = -free_slots(cap, shares)
    throttles = []
    for share in reversed(shares):
        cut = max(0, min(-(-over // share.slots), share.running - 1))
        over -= cut * share.slots
        throttles.append(share.running - cut if cut else share.throttle)
    return throttles[::-1]
