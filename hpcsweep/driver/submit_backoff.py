"""Submit limits: how many tasks may go in now, and when to try again after a refusal. Pure."""

from __future__ import annotations

from typing import Final

#: So long a bound that refusals taught is kept to; then more is tried, for it may have been raised.
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 600.0
#: A piece of an array is worth an array of its own if it fills one in so many of the places.
SHARE: Final = 8


class SubmitBackoff:
    """Remembers the refusals of this session; a new one simply tries."""

    def __init__(self) -> None:
        #: So many of ours fit at most, None before any refusal.
        self._most: int | None = None
        self._until = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._accepted = False

    def room(self, *, wanted: int, open_tasks: int, queued: int | None, limit: int | None, now: float) -> int:
        """How many of the `wanted` tasks to try now.

        Args:
            wanted: Tasks that are to go in.
            open_tasks: Ours that wait or run.
            queued: The user's that waited or ran when we last looked, None where unknown.
            limit: How many of those the site allows, None where unknown.
            now: Unix time.
        """
        bounds = []
        if limit:  # one of 0 is for the refusal to tell
            # With none of ours there nobody looks any more: what the others had may be long gone.
            bounds.append((limit, queued if queued is not None and open_tasks else open_tasks))
        # A time further ahead was told by a clock that has been set since.
        if self._most is not None and 0 < self._until - now <= LONGEST_PAUSE_S:
            bounds.append((self._most, open_tasks))
        room = wanted
        for places, taken in bounds:
            free = places - taken
            if open_tasks and free < min(wanted, places // SHARE):
                return 0
            room = min(room, free)
        return max(0, room)

    def refused(self, tasks: int, *, open_tasks: int, now: float) -> None:
        """An array of so many tasks was kept out, beside so many of ours."""
        if now >= self._until:  # nothing was known, or it was tried again
            again = now < self._until + LONGEST_PAUSE_S and not self._accepted
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s) if again else FIRST_PAUSE_S
            self._accepted = False
        self._most, self._until = open_tasks + tasks - 1, now + self._pause_s

    def accepted(self) -> None:
        """An array went in: the pause after the next refusal is the first one again."""
        self._accepted = True
