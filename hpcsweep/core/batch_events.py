"""Events of batches, their tasks and the cluster; see `core.events`."""

from __future__ import annotations

from typing import Final

import msgspec

from hpcsweep.core.run_events import Event, RunId


class BatchPlanned(Event, frozen=True, tag="batch_planned", gc=False):
    """The intent to submit one array; on disk before the cluster is called.

    Attributes:
        batch: Unique name, the job name on the cluster.
        tasks: For each array index the runs it carries, as `(trial, rung)`.
        gpus: GPUs of one task.
        throttle: So many tasks at a time at most.
        cluster: Name of the cluster that it is meant for.
        time_s: Time limit of one task; 0 where unknown.
        gpus_held: GPUs that one task will hold where that is more than it asks for, else 0.
    """

    batch: str
    at: float
    tasks: tuple[tuple[RunId, ...], ...]
    gpus: int
    throttle: int
    cluster: str = ""
    time_s: int = 0
    gpus_held: int = msgspec.field(default=0, name="held")


class BatchSubmitted(Event, frozen=True, tag="batch_submitted", gc=False):
    """The cluster accepted the batch as `job`."""

    batch: str
    job: str
    at: float


class TasksAllocated(Event, frozen=True, tag="tasks_allocated", gc=False):
    """The cluster gave each of these tasks of the batch so many GPUs, which was not expected."""

    batch: str
    tasks: tuple[int, ...]
    gpus: int


class BatchThrottled(Event, frozen=True, tag="batch_throttled", gc=False):
    """At most `throttle` tasks of the batch run at a time from now on."""

    batch: str
    throttle: int


class BatchAbandoned(Event, frozen=True, tag="batch_abandoned", gc=False):
    """The batch never reached the cluster and never will; its runs wait again.

    Attributes:
        over_limit: A submit limit was reached: they go in later.
    """

    batch: str
    reason: str
    over_limit: bool = msgspec.field(default=False, name="limited")


class BatchBlocked(Event, frozen=True, tag="batch_hindered", gc=False):
    """Why tasks of the batch cannot start, in the cluster's words; empty when nothing hinders them.

    Attributes:
        at: Unix time, 0 where unknown.
    """

    batch: str
    reason: str
    at: float = 0.0


class ClusterMessage(Event, frozen=True, tag="cluster_said", gc=False):
    """The cluster did not do what was asked, or gave no information; again, if the words are empty.

    Attributes:
        operation: `poll`, `find`, `submit`, `limits` or `change`.
        message: Its own, or those of the program that was called.
        batch: Of a submission.
        refused: The submission was refused in these words, as far as the program told.
    """

    at: float
    operation: str = msgspec.field(name="asked")
    message: str = msgspec.field(name="words")
    batch: str = ""
    refused: bool = False


class TasksReleased(Event, frozen=True, tag="tasks_released", gc=False):
    """Tasks that the cluster had put back and held were let go, which is done once for each."""

    batch: str
    tasks: tuple[int, ...]


class TickSubmitted(Event, frozen=True, tag="tick_submitted", gc=False):
    """A small job will tick: once every task of `batch` has ended, or not before `at`.

    Attributes:
        batch: Empty for a job that only waits for a time.
    """

    job: str
    at: float
    batch: str = ""


class BatchClosed(Event, frozen=True, tag="batch_closed", gc=False):
    """Every task of the batch has left the cluster and every run has an ending.

    Attributes:
        gpu_seconds: What its tasks took by the cluster's count beyond what their runs told: starting
            up, ticks, idle lanes. `seconds` is the same without the factor of the GPUs.
    """

    batch: str
    seconds: float = 0.0
    gpu_seconds: float = 0.0


#: Clocks of the hosts that drive may differ by so much, in seconds.
_HOSTS_S: Final = 300.0


class NodeExcluded(Event, frozen=True, tag="node_excluded", gc=False):
    """Batches submitted before `until` stay away from a node on which several trials failed at once."""

    node: str
    at: float
    until: float
    reason: str

    def holds(self, now: float) -> bool:
        """Whether batches stay away from it now; not if it was told by a clock that was ahead."""
        return self.at - _HOSTS_S <= now < self.until
