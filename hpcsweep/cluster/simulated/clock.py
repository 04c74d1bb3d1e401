"""Virtual time: a clock that is also the list of what is to happen."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

#: Does what happens at its time; says whether a driver that looks could see anything of it.
Action = Callable[[], bool]


class VirtualClock:
    """Fulfils `core.protocols.Clock`: while somebody sleeps, everything happens in its order.

    A driver polls, mostly in vain. Here it wakes up only where it could see something new: at the
    first of those polls, spaced as `Driver.run` spaces them, that comes after it has happened.

    Args:
        start: Unix seconds.
        longest_s: The longest time between two polls.

    Attributes:
        unfinished: Tasks that wait or run. Without any of them nothing is worth waiting for, and
            time passes as it is slept.
    """

    def __init__(self, start: float, *, longest_s: float) -> None:
        self.unfinished = 0
        self._now = start
        self._longest_s = longest_s
        self._events: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        #: Called before somebody sleeps.
        self.before_sleep: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self._now

    def at(self, when: float, action: Action) -> None:
        """Have it happen then; what is due at the same time happens in the order of these calls."""
        heapq.heappush(self._events, (max(when, self._now), next(self._order), action))

    def wake(self, when: float) -> None:
        """Have the first poll that is not before `when`: somebody waits for that time."""
        self.at(when, lambda: True)

    def sleep(self, seconds: float) -> None:
        """Let time pass: `seconds`, or up to the poll that sees something."""
        self.before_sleep()
        until, delay = self._now + seconds, seconds
        seen = self._play(until)
        while not seen and self.unfinished and self._events:
            until, delay = self._next_poll(until, delay, after=self._events[0][0])
            seen = self._play(until)
        self._now = until

    def _next_poll(self, until: float, delay: float, *, after: float) -> tuple[float, float]:
        """The first poll that is not before `after`, and the time since the one before."""
        while until < after and 0 < delay < self._longest_s:
            delay = min(self._longest_s, 1.5 * delay)
            until += delay
        if until < after:
            until += delay * math.ceil((after - until) / delay) if delay else after - until
        return until, delay

    def _play(self, until: float) -> bool:
        """Everything up to this time; whether anything could be seen."""
        seen = False
        while self._events and self._events[0][0] <= until:
            self._now, _, action = heapq.heappop(self._events)
            seen = action() or seen
        return seen
