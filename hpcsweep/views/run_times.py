"""How long the runs of each rung take, and when those that are left will have ended. A fold; pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

#: A rung: the resource at which its runs begin, and that which they reach.
Rung = tuple[int, int]

#: The pace is that of the newest runs, at most so many.
RECENT: Final = 200


class _Ended(NamedTuple):
    at: float
    seconds: float


class RunTimes:
    """Seconds of completed runs by rung, start-up included, and how many were trained at a time of late."""

    def __init__(self) -> None:
        self._count: dict[Rung, int] = defaultdict(int)
        self._seconds: dict[Rung, float] = defaultdict(float)
        self._recent: deque[_Ended] = deque(maxlen=RECENT)
        self._since = 0.0

    def resume(self, at: float) -> None:
        """Nothing ran before that time: the sweep began, or went on after a pause."""
        self._since = at
        self._recent.clear()

    def add(self, at: float, rung: Rung, seconds: float, *, completed: bool) -> None:
        """A run has ended."""
        self._recent.append(_Ended(at, seconds))
        if completed:
            self._count[rung] += 1
            self._seconds[rung] += seconds

    @property
    def completed(self) -> int:
        """How many runs have completed."""
        return sum(self._count.values())

    def seconds(self, rung: Rung) -> float | None:
        """What a run of this rung takes; None while nothing is known.

        A rung that no run has ended at is estimated from the others: a part that does not depend on how much
        is trained, such as start-up, and one that does.
        """
        if self._count.get(rung):
            return self._seconds[rung] / self._count[rung]
        if not self._count:
            return None
        means = sorted((to - since, self._seconds[since, to] / n) for (since, to), n in self._count.items())
        (few, short), (many, long) = means[0], means[-1]
        units = rung[1] - rung[0]
        if many == few:
            return long * units / max(1, many)
        each = max(0.0, (long - short) / (many - few))
        return max(0.0, short - each * few) + each * units

    def parallel(self, *, now: float) -> float | None:
        """Runs that were trained at a time of late, waits in the queue included; None while unknown."""
        if not self._recent:
            return None
        full = len(self._recent) == RECENT
        since = self._recent[0].at if full else self._since
        if now <= since:
            return None
        return sum(run.seconds for run in list(self._recent)[int(full) :]) / (now - since) or None

    def left_s(self, left: Mapping[Rung, int], *, now: float) -> float | None:
        """Seconds until so many runs of each rung have ended; None while unknown.

        At least what one run of each rung takes that is left: these wait for one another.
        """
        parallel = self.parallel(now=now)
        each = {rung: self.seconds(rung) for rung, runs in left.items() if runs}
        if parallel is None or None in each.values():
            return None
        known = {rung: seconds or 0.0 for rung, seconds in each.items()}
        work = sum(left[rung] * seconds for rung, seconds in known.items())
        by_resource: dict[int, float] = defaultdict(float)
        for (_, resource), seconds in known.items():
            by_resource[resource] = max(by_resource[resource], seconds)
        return max(work / parallel, sum(by_resource.values()))
