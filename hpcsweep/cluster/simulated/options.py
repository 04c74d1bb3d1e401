"""What a simulated site is like, as one frozen value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from hpcsweep.core.domains import format_value
from hpcsweep.core.expressions import Expression
from hpcsweep.core.protocols import TaskResources
from hpcsweep.errors import SpecError

_RATES = ("wait", "startup", "preemptions", "node_failures", "outages", "outage", "forgets")
_SHARES = ("failures", "lost_replies", "late_results")
_COUNTS = ("nodes", "checkpoint_every", "slots", "array_tasks", "max_jobs", "time_limit")


class SimulatedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The site and what goes wrong there. Rates are per hour, shares between 0 and 1.

    Attributes:
        nodes: How many there are, all alike, with `gpus` GPUs each.
        slots: Tasks without GPUs that a node runs at a time; as many as it has GPUs if None.
        wait: Seconds that each task waits in the queue at least: a number, or quantiles
            `((q, seconds), ...)` between which it is drawn.
        seconds_per_unit: Of one unit of resource: a number, or an expression over the parameters.
            None takes recorded times where there are any, else 10 seconds.
        startup: Seconds before the first unit of each start of a run.
        spread: The duration of each run is multiplied by a factor between 1 and this, drawn
            log-uniformly.
        checkpoint_every: Units between two checkpoints; there is one at the end of each run too.
        preemptions: Of a task, per hour that it runs.
        requeue: Whether the cluster runs a preempted task again by itself.
        failures: Share of runs that fail as if their training code had an error.
        node_failures: Of a node, per hour: what runs there ends without a result.
        time_limit: Seconds that a task may take which asks for no limit; any number if None.
        array_tasks: Tasks in one array at most, as Slurm's MaxArraySize.
        max_jobs: Tasks that may wait or run; a submission beyond it is refused.
        tells_max_jobs: Whether the site tells of that limit; if not, only its refusals do.
        outages: Of the controller, per hour between two of them; tasks run on meanwhile.
        outage: Seconds that one takes on average.
        lost_replies: Share of submissions that nobody answers; half of them did not get through,
            and of the others half do so late, by up to twice the settling time.
        late_results: Share of results that are visible late, by up to twice the grace period.
        forgets: Seconds after its end at which the site knows nothing more of a task, as Slurm's
            MinJobAge where there is no accounting; never if None.

    Raises:
        SpecError: A value makes no sense.
    """

    nodes: int = 1
    gpus: int = 8
    slots: int | None = None
    wait: float | Sequence[Sequence[float]] = 0.0
    seconds_per_unit: float | str | None = None
    startup: float = 0.0
    spread: float = 1.0
    checkpoint_every: int = 1
    preemptions: float = 0.0
    requeue: bool = True
    failures: float = 0.0
    node_failures: float = 0.0
    time_limit: int | None = None
    array_tasks: int | None = None
    max_jobs: int | None = None
    tells_max_jobs: bool = True
    outages: float = 0.0
    outage: float = 120.0
    lost_replies: float = 0.0
    late_results: float = 0.0
    forgets: float | None = None

    def __post_init__(self) -> None:
        problems = [f"cluster.simulated.{key}: {problem}" for key, problem in self._problems()]
        if problems:
            raise SpecError(*problems)

    def _problems(self) -> Iterator[tuple[str, str]]:
        for key, expected, good in self._ranges():
            if not good:
                yield key, f"must be {expected}, got {format_value(getattr(self, key))}"
        if isinstance(self.wait, Sequence) and not _are_quantiles(self.wait):
            expected = (
                "seconds >= 0 or a list of [quantile, seconds] such as [[0.5, 60], [0.9, 3600]], ascending"
            )
            yield "wait", f"must be {expected}, got {format_value(self.wait)}"
        if isinstance(self.seconds_per_unit, str):
            try:
                Expression(self.seconds_per_unit)
            except ValueError as error:
                yield "seconds_per_unit", f"{format_value(self.seconds_per_unit)}: {error}"

    def _ranges(self) -> Iterator[tuple[str, str, bool]]:
        values: dict[str, Any] = {key: getattr(self, key) for key in self.__struct_fields__}
        for key in _COUNTS:
            yield key, ">= 1", values[key] is None or values[key] >= 1
        for key in _RATES:
            if values[key] is not None and not isinstance(values[key], Sequence):
                yield key, "a number >= 0", 0 <= values[key] < math.inf
        for key in _SHARES:
            yield key, "between 0 and 1", 0 <= values[key] <= 1
        yield "gpus", ">= 0", self.gpus >= 0
        yield "spread", "a number >= 1", 1 <= self.spread < math.inf
        if isinstance(self.seconds_per_unit, int | float):
            yield "seconds_per_unit", "a number >= 0", 0 <= self.seconds_per_unit < math.inf

    def places(self, shape: TaskResources) -> int:
        """Tasks of this shape that one node runs at a time."""
        if shape.gpus:
            return self.gpus // shape.gpus
        return self.slots if self.slots is not None else max(1, self.gpus)


def _are_quantiles(pairs: Sequence[Sequence[float]]) -> bool:
    if not pairs or any(len(pair) != 2 for pair in pairs):
        return False
    shares, seconds = (list(column) for column in zip(*pairs, strict=True))
    numbers = all(0 <= number < math.inf for number in (*shares, *seconds))
    return numbers and shares[-1] <= 1 and all(column == sorted(column) for column in (shares, seconds))
