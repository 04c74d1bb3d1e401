"""How long the runs of each rung take, and when those that are left will have ended. A fold; pure."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heapreplace
from itertools import islice
from typing import Final, NamedTuple

from hpcsweep.core.events import BatchPlanned

#: A rung: the resource at which its runs begin, and that which they reach.
Rung = tuple[int, int]

#: The pace is that of the newest runs, at most so many.
RECENT: Final = 200
#: A run that takes longer than others did is expected to take so much of its time once more.
_OVERDUE: Final = 0.1
#: What runs at a time is rounded up, unless it is so little above a whole number.
_ROUNDED: Final = 0.05
#: A wait in the queue is short if it is no longer than such a share of a run.
_SHORT_WAIT: Final = 0.1
#: More runs than that are not scheduled one by one: the work is divided by how many run at a time.
_MOST_SCHEDULED: Final = 2000


class _Ended(NamedTuple):
    at: float
    seconds: float


class BegunRun(NamedTuple):
    """A run that goes on, and when it began; Unix time."""

    rung: Rung
    since: float


class RunTimes:
    """Seconds of completed runs by rung, start-up included, and how many were trained at a time of late."""

    def __init__(self) -> None:
        self._count: dict[Rung, int] = defaultdict(int)
        self._seconds: dict[Rung, float] = defaultdict(float)
        self._recent: deque[_Ended] = deque(maxlen=RECENT)
        self._since = 0.0
        #: When the first run began after that.
        self._began = math.inf
        #: When arrays were planned of which no run has ended; how long the first runs of others waited.
        self._planned: dict[str, float] = {}
        self._waits: deque[float] = deque(maxlen=RECENT)

    def resume(self, at: float) -> None:
        """Nothing ran before that time: the sweep began, or went on after a pause."""
        self._since = at
        self._began = math.inf
        self._recent.clear()

    def plan(self, batch: BatchPlanned) -> None:
        """An array is submitted."""
        if not batch.reuse:
            self._planned[batch.batch] = batch.at

    def add(self, at: float, rung: Rung, seconds: float, *, completed: bool, batch: str = "") -> None:
        """A run has ended."""
        planned = self._planned.pop(batch, None)
        if planned is not None:
            self._waits.append(max(0.0, at - seconds - planned))
        self._recent.append(_Ended(at, seconds))
        self._began = min(self._began, at - seconds)
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

    def parallel(self, *, now: float, begun: Sequence[BegunRun] = ()) -> float | None:
        """Runs that were trained at a time of late, waits in the queue included; None while unknown.

        Tasks that keep their GPUs wait once, and the time until the first of them began is left out.

        Args:
            now: Unix time.
            begun: Runs that go on, as far as it is known when they began.
        """
        if not self._recent:
            return None
        waited = self._planned or self._waits
        since = self._since if waited else max(self._since, self._began)
        since = self._recent[0].at if len(self._recent) == RECENT else since
        if now <= since:
            return None
        ended = sum(min(run.seconds, max(0.0, run.at - since)) for run in self._recent)
        going_on = sum(max(0.0, now - max(run.since, since)) for run in begun)
        return (ended + going_on) / (now - since) or None

    def _guessed(self, submitted: Iterable[BegunRun], parallel: float | None, now: float) -> list[BegunRun]:
        """As many of these as run at a time, each as if it began once there was room.

        Of those for which arrays wait long in the queue nobody knows whether they have begun.
        """
        if parallel is None:
            return []
        wait_s = statistics.median(self._waits) if self._waits else 0.0
        # Who ends makes room for the next one; rooms that ended runs took are not free for these.
        rooms = sorted(run.at for run in self._recent)
        for began in sorted((run.at - run.seconds for run in self._recent), reverse=True):
            if before := bisect_right(rooms, began):
                del rooms[before - 1]
        begun = []
        for run in islice(submitted, math.ceil(parallel - _ROUNDED)):
            since = run.since
            if before := bisect_right(rooms, since):
                del rooms[before - 1]
            elif rooms:
                since = rooms.pop(0)
            if wait_s <= _SHORT_WAIT * (self.seconds(run.rung) or 0.0):
                begun.append(run._replace(since=min(now, since)))
        return begun

    def left_s(
        self,
        left: Mapping[Rung, int],
        *,
        now: float,
        begun: Sequence[BegunRun] = (),
        submitted: Iterable[BegunRun] = (),
    ) -> float | None:
        """Seconds until so many runs of each rung have ended; None while unknown.

        At least what one run of each rung takes that is left: these wait for one another.

        Args:
            left: Runs that have not ended, by rung.
            now: Unix time.
            begun: Those of them that go on, as far as it is known when they began.
            submitted: Runs of arrays, which may go on, in the order in which they begin, and when these were
                submitted.
        """
        begun = [*begun, *self._guessed(submitted, self.parallel(now=now, begun=begun), now)]
        parallel = self.parallel(now=now, begun=begun)
        each = {rung: self.seconds(rung) for rung, runs in left.items() if runs}
        if parallel is None or None in each.values():
            return None
        known = {rung: seconds or 0.0 for rung, seconds in each.items()}
        going_on: dict[Rung, list[float]] = {rung: [] for rung in known}
        for run in begun:
            if run.rung in known:
                trained = max(0.0, now - run.since)
                going_on[run.rung].append(max(known[run.rung] - trained, _OVERDUE * trained))
        waiting: list[tuple[float, int]] = []
        by_resource: dict[int, float] = defaultdict(float)
        for rung in sorted(known, key=lambda rung: -known[rung]):
            count, seconds = left[rung] - len(going_on[rung]), known[rung]
            waiting.append((seconds, max(0, count)))
            longest = seconds if count > 0 else max(going_on[rung])
            by_resource[rung[1]] = max(by_resource[rung[1]], longest)
        running = [seconds for runs in going_on.values() for seconds in runs]
        return max(_scheduled(running, waiting, parallel), sum(by_resource.values()))


def _scheduled(running: Sequence[float], waiting: Sequence[tuple[float, int]], parallel: float) -> float:
    """Seconds until all have ended, with so many at a time.

    Args:
        running: What is left of each run that goes on.
        waiting: Seconds of runs and how many of these there are, in the order in which they begin. The
            longest come first: a bracket's last runs go on while the next one fills the places beside them.
        parallel: Runs at a time.
    """
    if not running or sum(count for _, count in waiting) > _MOST_SCHEDULED:
        # Among them may be runs that go on since nobody knows when.
        return (sum(running) + sum(seconds * count for seconds, count in waiting)) / parallel
    places = max(1, math.ceil(parallel - _ROUNDED), len(running))
    longer = places / parallel  # the places are not always filled: tasks wait in the queue
    free = [*running, *[0.0] * (places - len(running))]
    heapify(free)
    for seconds, count in waiting:
        for _ in range(count):
            heapreplace(free, free[0] + longer * seconds)
    return max(free)
