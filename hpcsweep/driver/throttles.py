"""The GPU cap over all live arrays, held by their throttles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Share(NamedTuple):
    """One live array: tasks that may still run, and how many of them at a time."""

    open: int
    throttle: int

    @property
    def used(self) -> int:
        """Tasks that it may have running at this moment."""
        return min(self.open, self.throttle)


def free_slots(cap: int, shares: Sequence[Share]) -> int:
    """Tasks that could be allowed beyond what is allowed now; negative where too many are."""
    return cap - sum(share.used for share in shares)


def raised(cap: int, shares: Sequence[Share]) -> list[int]:
    """New throttles that hand free slots to arrays with more open tasks, oldest first.

    Only what is free is handed out, so that at no moment more than `cap` tasks may run.
    """
    free = free_slots(cap, shares)
    throttles = []
    for share in shares:
        more = max(0, min(free, share.open - share.throttle))
        free -= more
        throttles.append(share.throttle + more)
    return throttles


def lowered(cap: int, shares: Sequence[Share]) -> list[int]:
    """New throttles after the cap was lowered: cut from the newest arrays, none below 1."""
    over = -free_slots(cap, shares)
    throttles = []
    for share in reversed(shares):
        cut = max(0, min(over, share.used - 1))
        over -= cut
        throttles.append(share.used - cut if cut else share.throttle)
    return throttles[::-1]
