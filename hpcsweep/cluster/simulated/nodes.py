"""Nodes of a simulated site: what is free on them, when they fail, how many tasks ran; outages."""

from __future__ import annotations

import itertools
import math
from array import array as packed_array
from collections.abc import Container, Iterable, Iterator

import numpy as np

from hpcsweep.core.cluster_protocol import TaskResources


class Nodes:
    """GPUs and CPU slots of equal nodes. Tasks are packed onto the first node with room."""

    def __init__(self, count: int, *, gpus: int, slots: int) -> None:
        self._gpus = [gpus] * count
        self._slots = [slots] * count
        self.names = [f"node{index + 1:03d}" for index in range(count)]

    def allocate(self, shape: TaskResources, exclude: Container[str]) -> tuple[int, ...]:
        """The nodes that now run one more such task; empty without room beside the excluded ones."""
        free, needed = self._kind(shape)
        rooms = (index for index, room in enumerate(free) if room >= needed)
        usable = (index for index in rooms if self.names[index] not in exclude)
        nodes = tuple(itertools.islice(usable, shape.nodes))
        if len(nodes) < shape.nodes:
            return ()
        for node in nodes:
            free[node] -= needed
        return nodes

    def release(self, nodes: Iterable[int], shape: TaskResources) -> None:
        """A task of this shape has left its nodes."""
        free, needed = self._kind(shape)
        for node in nodes:
            free[node] += needed

    def _kind(self, shape: TaskResources) -> tuple[list[int], int]:
        return (self._gpus, shape.gpus) if shape.gpus else (self._slots, 1)


class Failures:
    """When a node fails; asked for only while something runs there, so that idle time costs nothing."""

    def __init__(self, gaps: Iterator[float], start: float) -> None:
        self._gaps = gaps
        self._due = start + next(gaps)
        self._expected = False

    def expect(self, now: float) -> float | None:
        """The next failure, to be waited for; None if it is waited for already or never comes."""
        while self._due <= now:
            self._due += next(self._gaps)
        if self._expected or self._due == math.inf:
            return None
        self._expected = True
        return self._due

    def happened(self) -> None:
        """The failure that was waited for is over."""
        self._expected = False


class Outages:
    """When the controller does not answer."""

    def __init__(self, times: Iterator[tuple[float, float]], start: float) -> None:
        self._times = times
        self._begins = self._ends = start

    def until(self, now: float) -> float | None:
        """When the outage of this moment ends; None if there is none."""
        while self._ends <= now:
            gap, length = next(self._times)
            self._begins = self._ends + gap
            self._ends = self._begins + length
        return self._ends if self._begins <= now else None


class Usage:
    """How many tasks ran at each time, or GPUs where tasks differ in these.

    Attributes:
        last_start: When a task began last; `last_first`: one that carries the first run of a trial.
    """

    def __init__(self, start: float) -> None:
        self.last_start = self.last_first = start
        self._times = packed_array("d", [start])
        self._counts = packed_array("q", [0])

    def began(self, now: float, units: int = 1) -> None:
        """One more task runs."""
        self.last_start = now
        self._add(now, units)

    def left(self, now: float, units: int = 1) -> None:
        """One task fewer runs."""
        self._add(now, -units)

    def _add(self, now: float, change: int) -> None:
        count = self._counts[-1] + change
        if self._times[-1] == now:
            self._counts[-1] = count
        else:
            self._times.append(now)
            self._counts.append(count)

    @property
    def most(self) -> int:
        """Tasks that ran at a time at most; those that left at the moment of their start not counted."""
        return max(self._counts)

    def task_seconds(self, until: float) -> float:
        """Seconds that tasks ran up to this time, all together."""
        times = np.minimum(np.frombuffer(self._times), until)
        counts = np.frombuffer(self._counts, dtype=np.int64)
        return float(np.sum(np.diff(times, append=until).clip(min=0) * counts))
