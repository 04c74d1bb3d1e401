"""The real clock."""

from __future__ import annotations

import time


class SystemClock:
    """Time as this machine tells it.

    Attributes:
        sleeping: Whether nothing is being done at the moment.
    """

    def __init__(self) -> None:
        self.sleeping = False

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self.sleeping = True
        try:
            time.sleep(seconds)
        finally:
            self.sleeping = False
