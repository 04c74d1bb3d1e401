"""What the tasks of a batch cost, by their runs' own words and by the cluster's count. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Final

import msgspec

from hpcsweep.core.events import RunFinished, RunInterrupted
from hpcsweep.core.protocols import Phase, TaskState

#: A count that goes back by more than clocks may differ is that of a new start.
CLOCKS_S: Final = 5.0
#: Clusters count in whole seconds: by so much one start may be told to have taken longer than they say.
ROUNDED_S: Final = 1.0
#: So much longer than its time limit a task may run: sites let tasks finish, and cleaning up takes time.
OVERRUN_S: Final = 600.0
#: And by so much the clocks of those that planned, and that look, may differ.
HOSTS_S: Final = 600.0


def at_most(limit_s: float) -> float:
    """What one start of a task may count at most, in seconds.

    Args:
        limit_s: Its time limit; 0 where that is unknown.
    """
    return limit_s + OVERRUN_S if limit_s > 0 else math.inf


def bounded(seconds: float, *, at_most_s: float) -> float:
    """A duration as it may enter the tables: no NaN, none below 0, none above what is possible."""
    return min(seconds, at_most_s) if seconds > 0 else 0.0


class UsageAccounting:
    """Compares what the runs of a task told with how long the cluster saw it run, over all its starts.

    Each result counts as soon as it is there; what the cluster counts beyond (starting up, ticks,
    idle lanes, starts that ended without a word) is added when the batch is closed.

    No clock is trusted: a count grows by no more than the time that has passed here, and no start
    counts for more than its time limit allows.

    Args:
        gpus: Of one task.
        gpus_of: How many a task holds, where that may be another figure.
        limit_s: Time limit of one task; 0 where that is unknown.
        since: Unix time before which no task of it can have started.
    """

    def __init__(
        self,
        gpus: int,
        gpus_of: Callable[[int], int] | None = None,
        *,
        limit_s: float = 0.0,
        since: float | None = None,
    ) -> None:
        self._gpus_of = gpus_of or (lambda _: gpus)
        self._at_most_s = at_most(limit_s)
        self._since = since
        #: When each task was seen last.
        self._seen_at: dict[int, float] = {}
        #: By task and restart, of all its runs; seconds with several lanes more than wall time.
        self._seconds: dict[int, dict[int, float]] = defaultdict(dict)
        self._gpu_s: dict[int, dict[int, float]] = defaultdict(dict)
        #: How long each start of a task has run, as far as we saw them; the present one last, or 0
        #: after one that is over.
        self._starts: dict[int, list[float]] = defaultdict(list)
        #: Tasks that were seen at their end: the count of their last start is no longer one on the way.
        self._ended: set[int] = set()

    def told(self, ending: RunFinished | RunInterrupted) -> None:
        """The journal holds what a run took."""
        for of, amount in ((self._seconds, ending.seconds), (self._gpu_s, ending.gpu_seconds)):
            restarts = of[ending.task]
            restarts[ending.restart] = restarts.get(ending.restart, 0.0) + amount

    def _possible(self, task: int, seconds: float, now: float | None) -> float:
        """The cluster's count of the present start, as far as it can be true."""
        seconds = bounded(seconds, at_most_s=self._at_most_s)
        if now is None:
            return seconds
        starts, before = self._starts[task], self._seen_at.get(task)
        if before is not None and starts:
            return min(seconds, starts[-1] + max(0.0, now - before) + CLOCKS_S)
        if self._since is not None:
            return min(seconds, max(0.0, now - self._since) + HOSTS_S)
        return seconds

    def seen(self, task: int, state: TaskState, *, now: float | None = None) -> None:
        """The cluster showed the task.

        Args:
            task: Its index.
            state: What it showed.
            now: Unix time here.
        """
        if state.seconds is not None:
            possible = self._possible(task, state.seconds, now)
            state = msgspec.structs.replace(state, seconds=possible)
        if now is not None:
            self._seen_at[task] = now
        starts = self._starts[task]
        if not state.phase.active and state.seconds is not None:
            self._ended.add(task)
        if state.phase is Phase.PENDING:
            if starts and starts[-1]:  # it was put back
                starts.append(0.0)
        elif state.seconds is not None:
            if starts and state.seconds >= starts[-1] - CLOCKS_S:
                starts[-1] = state.seconds or starts[-1]  # one that is being put back shows 0
            else:
                starts.append(state.seconds)

    def assume(self, task: int, unseen_s: float, *, at_most_s: float) -> None:
        """The task is gone, and nobody knows how long it ran since it was seen: as long as it can have."""
        starts = self._starts[task] or [0.0]
        self._starts[task] = [*starts[:-1], max(starts[-1], min(starts[-1] + unseen_s, at_most_s))]

    def over(self, task: int) -> int:
        """How many starts of the task are over, as far as we saw them."""
        return max(0, len(self._starts[task]) - 1)

    def last_over_s(self, task: int) -> float:
        """How long the last of those ran."""
        return self._starts[task][-2]

    def untold(self, task: int) -> float:
        """Seconds of the present start of the task that no run has told of."""
        told = self._seconds[task]
        present = self._starts[task][-1:]
        return max(0.0, sum(present) - (told[max(told)] if told else 0.0))

    def beyond(self, tasks: Iterable[int]) -> tuple[float, float]:
        """Seconds and GPU-seconds of these tasks beyond what their runs told; they are at their end.

        The cluster's count is the one that accounts go by, so it may be a little less as well.
        """
        seconds = gpu_s = 0.0
        for task in tasks:
            starts = [start for start in self._starts[task] if start]
            slack = ROUNDED_S if len(starts) == 1 and task in self._ended else 0.0
            seconds += _beyond(starts, self._seconds[task], slack=slack)
            gpu_s += _beyond(
                [start * self._gpus_of(task) for start in starts],
                self._gpu_s[task],
                slack=slack * self._gpus_of(task),
            )
        return round(seconds, 3), round(gpu_s, 3)


def _beyond(starts: Sequence[float], told: Mapping[int, float], *, slack: float) -> float:
    """What the starts that were seen took beyond what was told of as many.

    Which of them told what need not be known: no start tells of more than it took. What was told
    of more starts than were seen is of those before we looked.
    """
    newest = [told[restart] for restart in sorted(told, reverse=True)[: len(starts)]]
    pairs = zip_longest(sorted(starts, reverse=True), sorted(newest, reverse=True), fillvalue=0.0)
    return sum(start - amount for start, amount in pairs if start > amount - slack)
