"""The real clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: A wall clock that deviates by more than this from the monotonic clock has jumped.
JUMP_S: Final = 2.0
#: A jump is accepted once it has lasted this long.
ACCEPT_JUMP_S: Final = 60.0


class SystemClock:
    """The time of this machine; short-lived jumps of its wall clock are ignored.

    Args:
        wake: Called as soon as `sleeping` is true; what it raises ends the sleep.

    Attributes:
        sleeping: Whether it sleeps at the moment.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self.sleeping = False
        self._wake = wake
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
            if passed - self._off_since < ACCEPT_JUMP_S:
                return expected
            self._off_since = None
        self._wall, self._passed = wall, passed
        return wall

    def sleep(self, seconds: float) -> None:
        self.sleeping = True
        try:
            self._wake()
            time.sleep(seconds)
        finally:
            self.sleeping = False
