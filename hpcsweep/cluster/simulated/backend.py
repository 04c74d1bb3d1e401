"""The simulated cluster as a backend: the section `cluster.simulated`, which describes the site.

It trains nothing, so no sweep is launched on it: see `simulation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from hpcsweep.cluster.backend import Backend, Connection, SweepRequest
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.expressions import Expression
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.errors import SpecError
from hpcsweep.options import (
    ArrayUsage,
    DiskSize,
    Hundreds,
    Positive,
    Rate,
    Seconds,
    Section,
    Speed,
    TimeLimit,
    Wait,
    Whole,
)

#: Tasks that a simulated site runs at a time at most.
MAX_PLACES: Final = 1_000_000


class SimulatedOptions(Section):
    """The site that `hpcsweep simulate` runs the sweep on, and what goes wrong there."""

    nodes: Hundreds = 1
    """How many nodes; as many as the sweep's caps need if not given, else 1."""
    gpus: Whole = Field(default=8, ge=0, le=10_000)
    """GPUs of each node."""
    slots: Hundreds | None = None
    """Tasks without GPUs that a node runs at a time; as many as it has GPUs if not given."""
    wait: Wait = 0.0
    """How long each task waits in the queue: a time, quantiles such as [[0, 1m], [0.5, 10m], [1, 2h]], or
    these by time limit: {1h: 5m, 1d: [[0, 10m], [1, 8h]]}."""
    seconds_per_unit: Speed | None = None
    """Seconds of one unit of resource, or an expression over parameters; recorded ones or 10 if not given."""
    startup: Seconds = 0.0
    """Time before the first unit of each start of a run."""
    hand_over: Seconds = 1.0
    """Time from the assignment of a run until a task that keeps its GPUs begins it."""
    spread: float = Field(default=1.0, ge=1, le=1000, allow_inf_nan=False)
    """Durations of runs are multiplied by factors between 1 and this, drawn log-uniformly."""
    checkpoint_every: Positive = 1
    """Units between two checkpoints; there is one at the end of each run too."""
    checkpoint_size: DiskSize = None
    """What a trial's checkpoint takes, such as `2G`, for `store.checkpoint_quota`; nothing if not given."""
    preemptions: Rate = 0.0
    """How often a task is preempted, per hour that it runs."""
    requeue: bool = True
    """Whether the site runs a preempted task again by itself."""
    failures: ArrayUsage = 0.0
    """The share of runs that fail as if training code had an error."""
    node_failures: Rate = 0.0
    """How often a node fails, per hour; what runs there ends without a result."""
    time_limit: TimeLimit = None
    """How long a task may take that asks for no limit; any time if not given."""
    array_tasks: Positive | None = None
    """Tasks of one array at most, as Slurm's MaxArraySize."""
    max_jobs: Positive | None = None
    """Tasks that may wait or run; a submission beyond it is refused."""
    tells_max_jobs: bool = True
    """Whether the site tells of that limit; if not, only its refusals do."""
    outages: Rate = 0.0
    """How often the controller stops answering, per hour; tasks run on meanwhile."""
    outage: Seconds = 120.0
    """How long that takes on average."""
    lost_replies: ArrayUsage = 0.0
    """The share of submissions that nobody answers; some of them get through, at once or late."""
    late_results: ArrayUsage = 0.0
    """The share of results that can be seen only later, by up to twice the grace period."""
    forgets: Seconds | None = None
    """How long after its end the site still tells of a task, as Slurm's MinJobAge; always if not given."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None}

    @field_validator("wait")
    @classmethod
    def _check_wait(cls, wait: Any) -> Any:
        return _checked_wait(wait)

    @field_validator("seconds_per_unit")
    @classmethod
    def _check_speed(cls, speed: Any) -> Any:
        if isinstance(speed, str):
            try:
                Expression(speed)
            except ValueError as error:
                expected = "must be seconds or an expression such as '2 + 0.1 * layers'"
                raise ValueError(f"{expected}, got {format_value(speed)}: {error}") from error
        elif speed is not None and not 0 <= speed < math.inf:
            raise ValueError(f"must be a number >= 0, got {format_value(speed)}")
        return speed

    @model_serializer(mode="wrap")
    def _given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}

    def places(self, shape: TaskResources) -> int:
        """Tasks of this shape that one node runs at a time."""
        if shape.gpus:
            return self.gpus // shape.gpus
        return self.slots if self.slots is not None else max(1, self.gpus)


class SimulatedSection(Section):
    """Keys of the simulated cluster under `cluster:`."""

    slots: Hundreds | None = None
    """Runs at a time on a machine without GPUs; by its cores if not given."""
    simulated: SimulatedOptions | None = None
    """The site that `hpcsweep simulate` runs the sweep on."""

    def site(self) -> SimulatedOptions:
        """The site, with the slots of `cluster.slots` where it names none."""
        site = self.simulated or SimulatedOptions()
        if "slots" in site.model_fields_set or self.slots is None:
            return site
        return site.model_copy(update={"slots": self.slots})

    def problems(self, space: Space) -> list[str]:
        """What does not fit together, each line beginning with the key path."""
        site = self.simulated or SimulatedOptions()
        places = site.nodes * max(1, site.gpus, site.slots or 1)
        found = []
        if places > MAX_PLACES:
            expected = f"must be such that nodes times gpus or slots is at most {MAX_PLACES}"
            found.append(f"cluster.simulated.nodes: {expected}, got {places}")
        speed = site.seconds_per_unit
        if isinstance(speed, str):
            for name in sorted(Expression(speed).names - set(space.names)):
                problem = suggest_name(name, space.names, kind=f"parameter {name!r}")
                found.append(f"cluster.simulated.seconds_per_unit: {problem}")
        return found


def _checked_wait(wait: Any) -> Any:
    if isinstance(wait, Mapping):
        return {limit: _checked_wait(each) for limit, each in wait.items()}
    if isinstance(wait, Sequence) and not _are_quantiles(wait):
        expected = "seconds >= 0 or a list of [quantile, seconds] such as [[0.5, 60], [0.9, 3600]], ascending"
        raise ValueError(f"must be {expected}, got {format_value(wait)}")
    if not isinstance(wait, Sequence) and not 0 <= wait < math.inf:
        raise ValueError(f"must be a number >= 0, got {format_value(wait)}")
    return wait


def _are_quantiles(pairs: Sequence[Sequence[float]]) -> bool:
    if not pairs or any(len(pair) != 2 for pair in pairs):
        return False
    shares, seconds = (list(column) for column in zip(*pairs, strict=True))
    numbers = all(0 <= number < math.inf for number in (*shares, *seconds))
    return numbers and shares[-1] <= 1 and all(column == sorted(column) for column in (shares, seconds))


class SimulatedBackend(Backend):
    title = "a simulated cluster"
    options = SimulatedSection
    reuses = True
    remote = False

    def connect(self, sweep: SweepRequest, options: SimulatedSection) -> Connection:
        raise SpecError(
            "cluster.name: simulated trains nothing; use `hpcsweep simulate`, "
            "or give another one, as with --cluster local"
        )
