"""The real clock."""

from __future__ import annotations

import time
from typing import Final

#: A wall clock that differs by more than this from the time that has passed was set.
JUMP_S: Final = 2.0
#: What it says is believed once it has said so for so long.
BELIEVED_S: Final = 60.0


class SystemClock:
    """Time as this machine tells it, but that a wall clock which jumps for a while is not followed.

    Attributes:
        sleeping: Whether nothing is being done at the moment.
    """

    def __init__(self) -> None:
        self.sleeping = False
        self._wall, self._passed = time.time(), time.monotonic()
        #: Since when, on the monotonic clock, the wall clock has been off; None while it is not.
        self._off_since: float | None = None

    def time(self) -> float:
        wall, passed = time.time(), time.monotonic()
        expected = self._wall + passed - self._passed
        if abs(wall - expected) <= JUMP_S:
            self._off_since = None
        else:
            if self._off_since is None:
                self._off_since = passed
            if passed - self._off_since < BELIEVED_S:
                return expected
            self._off_since = None
        self._wall, self._passed = wall, passed
        return wall

    def sleep(self, seconds: float) -> None:
        self.sleeping = True
        try:
            time.sleep(seconds)
        finally:
            self.sleeping = False
