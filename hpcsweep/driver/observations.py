"""What the driver decides on, as values: results, the cluster's answers, and what else can be looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from hpcsweep.core.events import RunId
from hpcsweep.core.models import Run
from hpcsweep.core.protocols import TaskId, TaskState
from hpcsweep.store.results import Result


class Observation(msgspec.Struct, frozen=True):
    """What was seen of the sweep's batches at one moment.

    Attributes:
        at: Unix time.
        results: New results by batch, in the order in which they count; read before the poll.
        tasks: The tasks that the cluster shows; None: no information.
        poll_error: Why there is no information; empty if there is, None if nothing was to be asked.
    """

    at: float
    results: Mapping[str, Sequence[Result]] = {}
    tasks: Mapping[TaskId, TaskState] | None = None
    poll_error: str | None = None


class Evidence(Protocol):
    """What else tells of runs that ended without a result; looked up for those only."""

    def newest_step(self, run: Run) -> int:
        """Step of its trial's newest complete checkpoint up to its resource; 0 without one."""
        ...

    def has_reported(self, run: RunId, *, attempt: int, restart: int) -> bool:
        """Whether this start of the run has reported a metric."""
        ...

    def last_lines(self, batch: str, task: int) -> str:
        """The last lines of the task's log; empty without any."""
        ...

    def node_failed(self, node: str) -> bool:
        """Whether the cluster says that the node has failed."""
        ...


class Sighting(NamedTuple):
    """What there is of a batch that was planned and never acknowledged.

    Attributes:
        abandoned: It was fenced off.
        job: Its job, by the cluster or by the results of its tasks.
        has_script: The batch script was written, which is just before the cluster is called.
    """

    abandoned: bool = False
    job: str | None = None
    has_script: bool = False
