"""What chance decides at a simulated site. Drawn by what it is about: when it is polled changes nothing."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng

from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.store.batch import ManifestRun

_HOUR_S = 3600.0


class _Stream(enum.IntEnum):
    """Keeps the draws apart; none is 0, which would be as good as not there."""

    RUN = 1
    WAIT = 2
    PREEMPTION = 3
    NODE = 4
    REPLY = 5
    RESULT = 6
    OUTAGE = 7


class RunFaults(NamedTuple):
    """What a run is like, however often it is started.

    Attributes:
        factor: By which its duration is multiplied.
        fails_after: Share of what it has to do after which it fails; None if it does not.
    """

    factor: float = 1.0
    fails_after: float | None = None


class FaultSampler:
    """Everything random of one site; `grace_s` and `settle_s` are those of `Cluster`."""

    def __init__(self, options: SimulatedOptions, *, seed: int, grace_s: float, settle_s: float) -> None:
        self._options = options
        self._seed = seed
        self._grace_s = grace_s
        self._settle_s = settle_s

    def run(self, run: ManifestRun) -> RunFaults:
        """Drawn for each trial and rung."""
        options = self._options
        if options.spread == 1 and not options.failures:
            return RunFaults()
        spread, fails, after = self._rng(_Stream.RUN, run.trial, run.rung).random(3)
        return RunFaults(float(options.spread**spread), float(after) if fails < options.failures else None)

    def wait(self, task: tuple[int, ...], restart: int, *, limit_s: float = math.inf) -> float:
        """Seconds in the queue, for each start of a task with this time limit."""
        wait = self._options.wait
        if isinstance(wait, Mapping):  # that of the shortest limit that it keeps, else of the longest
            wait = next((each for most, each in wait.items() if limit_s <= most), [*wait.values()][-1])
        if not isinstance(wait, Sequence):
            return float(wait)
        shares, seconds = zip(*wait, strict=True)
        return float(np.interp(self._rng(_Stream.WAIT, *task, restart).random(), shares, seconds))

    def preempted_after(self, task: tuple[int, ...], restart: int) -> float:
        """Seconds after its start, infinite if never."""
        if not self._options.preemptions:
            return math.inf
        hours = self._rng(_Stream.PREEMPTION, *task, restart).exponential(1 / self._options.preemptions)
        return float(hours) * _HOUR_S

    def node_failures(self, node: int) -> Iterator[float]:
        """Seconds from each failure of the node to the next one, the first since the beginning."""
        rng = self._rng(_Stream.NODE, node)
        while self._options.node_failures:
            yield float(rng.exponential(1 / self._options.node_failures)) * _HOUR_S
        yield math.inf

    def outages(self) -> Iterator[tuple[float, float]]:
        """Seconds from the end of each outage to the next one, and how long that takes."""
        rng = self._rng(_Stream.OUTAGE)
        while self._options.outages:
            gap, length = rng.exponential((_HOUR_S / self._options.outages, self._options.outage))
            yield float(gap), float(length)
        yield math.inf, 0.0

    def lost_reply(self, submission: int, *, outage: bool) -> float | None:
        """None if this submission is answered, as none is in an outage; else seconds until it arrives.

        Infinite if it never does.
        """
        if not self._options.lost_replies and not outage:
            return None
        lost, sent, late, seconds = self._rng(_Stream.REPLY, submission).random(4)
        if lost >= self._options.lost_replies and not outage:
            return None
        if sent >= 0.5:
            return math.inf
        return float(2 * self._settle_s * seconds) if late < 0.5 else 0.0

    def late(self, run: ManifestRun, restart: int) -> float:
        """Seconds until the run's result can be seen."""
        if not self._options.late_results:
            return 0.0
        rng = self._rng(_Stream.RESULT, run.trial, run.rung, run.attempt, restart)
        late, seconds = rng.random(2)
        return float(2 * self._grace_s * seconds) if late < self._options.late_results else 0.0

    def _rng(self, *what: int) -> Generator:
        return default_rng([self._seed, *what])
