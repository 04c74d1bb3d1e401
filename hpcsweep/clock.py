"""The real clock."""

from __future__ import annotations

import time


class SystemClock:
    """Time as this machine tells it."""

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
