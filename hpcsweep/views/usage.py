"""What runs asked for against what they used, by resource. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Outcome,
    RunFinished,
    RunId,
    RunsAssigned,
    TrialCreated,
    TrialPromoted,
)


class ResourceUse(NamedTuple):
    """The runs up to one resource that were completed; medians, and the most; None where unknown.

    Attributes:
        asked_s: Time limit of a run. `used_s`: what it took, in its last attempt.
        asked_mib: Memory of a run. `used_mib`: what its processes held at most.
    """

    resource: int
    runs: int
    asked_s: float | None
    used_s: float | None
    longest_s: float | None
    asked_mib: float | None
    used_mib: float | None
    largest_mib: int | None

    @property
    def compares(self) -> bool:
        """Whether anything that was asked for stands beside what was used."""
        time = self.asked_s is not None and self.used_s is not None
        return time or (self.asked_mib is not None and self.used_mib is not None)


class _Level(NamedTuple):
    asked_s: list[float]
    used_s: list[float]
    asked_mib: list[float]
    used_mib: list[int]


def resource_use(events: Iterable[AnyEvent]) -> list[ResourceUse]:
    """A row for each resource with completed runs, the least first."""
    batches: dict[str, BatchPlanned] = {}
    limits: dict[RunId, int] = {}
    resources: dict[RunId, int] = {}
    levels: dict[int, _Level] = {}
    for event in events:
        match event:
            case TrialCreated():
                resources[RunId(event.trial, 0)] = event.resource
            case TrialPromoted():
                resources[RunId(event.trial, event.rung)] = event.resource
            case BatchPlanned():
                batches[event.batch] = event
            case RunsAssigned():
                limits.update(dict.fromkeys(event.runs, event.time_s))
            case RunFinished(outcome=Outcome.COMPLETED) if event.batch in batches and event.seconds:
                batch = batches[event.batch]
                level = levels.setdefault(resources[event.run], _Level([], [], [], []))
                limit_s = limits.get(event.run, 0) if batch.reuse else batch.time_s
                level.used_s.append(event.seconds)
                if limit_s:
                    level.asked_s.append(limit_s)
                if batch.mem_mib is not None:
                    level.asked_mib.append(batch.mem_mib / batch.lanes)
                if event.peak_mib:
                    level.used_mib.append(event.peak_mib)
            case _:
                pass
    return [
        ResourceUse(
            resource,
            len(level.used_s),
            _median(level.asked_s),
            _median(level.used_s),
            max(level.used_s, default=None),
            _median(level.asked_mib),
            _median(level.used_mib),
            max(level.used_mib, default=None),
        )
        for resource, level in sorted(levels.items())
    ]


def _median(values: list[float] | list[int]) -> float | None:
    return float(statistics.median(values)) if values else None
