"""What the driver does to the cluster and the results folder, as values."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from hpcsweep.core.cluster_protocol import Batch
from hpcsweep.core.events import AnyEvent, RunId
from hpcsweep.store.batch import Header, ManifestRun
from hpcsweep.store.compaction.parts import CompactionResult, CompactionTask


class Submit(msgspec.Struct, frozen=True):
    """Write the manifest of a planned batch, then submit its array."""

    batch: Batch
    header: Header
    tasks: tuple[tuple[ManifestRun, ...], ...]


class Abandon(msgspec.Struct, frozen=True):
    """Fence a batch off, so that a task which starts all the same leaves; its runs wait again."""

    batch: str
    reason: str
    limited: bool = False


class Cancel(msgspec.Struct, frozen=True):
    """Cancel tasks on the cluster; `pending` ones have not started."""

    batch: str
    tasks: tuple[int, ...]
    pending: bool = False


class StopRun(msgspec.Struct, frozen=True):
    """Tell the worker to end one of the runs of its task."""

    batch: str
    run: RunId


class Throttle(msgspec.Struct, frozen=True):
    """Let at most `tasks` tasks of the array run at a time."""

    batch: str
    tasks: int


class Release(msgspec.Struct, frozen=True):
    """Release tasks that the cluster requeued and holds."""

    batch: str
    tasks: tuple[int, ...]


class SubmitTick(msgspec.Struct, frozen=True):
    """Submit a small job that ticks a detached sweep, at `due` at the earliest.

    With a `batch`, whose job is `after`, it ticks once all tasks of that have ended.
    """

    name: str
    due: float
    delay_s: float = 0.0
    batch: str = ""
    after: str = ""


class CancelTicks(msgspec.Struct, frozen=True):
    """Cancel jobs that would tick."""

    jobs: tuple[str, ...]


class DiscardCheckpoints(msgspec.Struct, frozen=True):
    """Set the checkpoints of a trial aside: half of them may have been removed."""

    trial: int


class RemoveRequest(msgspec.Struct, frozen=True):
    """Remove the file of a request that was handled."""

    name: str


class Compact(msgspec.Struct, frozen=True):
    """Have the compactor begin with a task; what came of it is known later."""

    task: CompactionTask


Effect: TypeAlias = (
    Submit
    | Abandon
    | Cancel
    | StopRun
    | Throttle
    | Release
    | SubmitTick
    | CancelTicks
    | DiscardCheckpoints
    | RemoveRequest
    | Compact
)


class Step(NamedTuple):
    """Events to commit, then effects to carry out."""

    events: tuple[AnyEvent, ...] = ()
    effects: tuple[Effect, ...] = ()


class EffectResult(NamedTuple):
    """What came of an effect: events to commit, and why it was not executed if so."""

    events: tuple[AnyEvent, ...] = ()
    error: Exception | None = None


class Compactor(Protocol):
    """Executes one compaction task at a time."""

    def begin(self, order: CompactionTask) -> None:
        """Begin with a task; the one before is done."""

    def answer(self, wait_s: float) -> CompactionResult | None:
        """Result of the task; None if there is none after `wait_s` seconds."""

    def close(self) -> None:
        """Stop at once. Safe to call twice; a later task starts it again."""
