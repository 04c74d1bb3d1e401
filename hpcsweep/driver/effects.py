"""What the driver does to the cluster and the results folder, as values, and the one place that does it.

Events go into the journal first, then effects are executed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, assert_never

import msgspec

from hpcsweep.core.cluster_protocol import Batch, Cluster, SubmittedBatch
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchSubmitted,
    BatchThrottled,
    ClusterMessage,
    RunId,
    TasksReleased,
    TickSubmitted,
)
from hpcsweep.driver.config import SweepContext
from hpcsweep.driver.failures import Operation, call_failed, call_succeeded
from hpcsweep.errors import (
    ClusterError,
    ClusterUnavailable,
    SpecError,
    SubmitLimited,
    SubmitRefused,
    SubmitUncertain,
)
from hpcsweep.store import checkpoints
from hpcsweep.store.assignments import (
    Assignment,
    StartId,
    remove_hand_over,
    request_leave,
    write_assignment,
)
from hpcsweep.store.batch import Header, ManifestRun, request_stop, write_manifest
from hpcsweep.store.compaction import CompactionResult, CompactionTask, WriteTables
from hpcsweep.store.files import make_dirs, wrap_oserror, write_atomic
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.requests import remove_request

_log = logging.getLogger(__name__)


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


class Assign(msgspec.Struct, frozen=True):
    """Hand a run to a start of a task, as its `number`-th."""

    batch: str
    start: StartId
    number: int
    assignment: Assignment


class Leave(msgspec.Struct, frozen=True):
    """Have a start of a task take no more runs, and with `at_once` interrupt those that it is at."""

    batch: str
    start: StartId
    at_once: bool = False


class RemoveHandOver(msgspec.Struct, frozen=True):
    """Remove the assignment and the result of a run whose end is in the journal."""

    batch: str
    start: StartId
    number: int


class Release(msgspec.Struct, frozen=True):
    """Release tasks that the cluster requeued and holds."""

    batch: str
    tasks: tuple[int, ...]


class SubmitTick(msgspec.Struct, frozen=True):
    """Submit a job that ticks a detached sweep, from `due` on and once the job `after` has ended."""

    name: str
    due: float
    delay_s: float = 0.0
    batch: str = ""  # whose job `after` is
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


class WriteSpec(msgspec.Struct, frozen=True):
    """Write the spec of the sweep, whose space has grown."""

    text: str
    mode: int


class Compact(msgspec.Struct, frozen=True):
    """Have the compactor begin with a task; what came of it is known later."""

    task: CompactionTask


Effect: TypeAlias = (
    Submit
    | Abandon
    | Cancel
    | StopRun
    | Throttle
    | Assign
    | Leave
    | RemoveHandOver
    | Release
    | SubmitTick
    | CancelTicks
    | DiscardCheckpoints
    | RemoveRequest
    | WriteSpec
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

    def begin(self, task: CompactionTask) -> None:
        """Begin with a task; the one before is done."""

    def answer(self, wait_s: float) -> CompactionResult | None:
        """Result of the task; None if there is none after `wait_s` seconds."""

    def close(self) -> None:
        """Stop at once. Safe to call twice; a later task starts it again."""


@dataclass
class Committer:
    """Commits what collaborators decide, then has it executed: intent is on disk before effect."""

    sweep: SweepContext
    executor: Executor
    #: Called with each event once it is committed, in this order.
    appliers: Sequence[Callable[[AnyEvent], None]]
    #: Called with each effect and what came of it.
    observers: Sequence[Callable[[Effect, EffectResult], None]]
    commits: int = 0

    def replay(self) -> None:
        """Apply the events of earlier sessions."""
        self._apply(self.sweep.journal.events)

    def commit(self, events: Sequence[AnyEvent]) -> None:
        """Make these events true, all or none; SupersededError if a newer driver took over."""
        if events:
            self.sweep.journal.commit(events)
            self.commits += 1
            self._apply(events)

    def _apply(self, events: Iterable[AnyEvent]) -> None:
        for event in events:
            for apply in self.appliers:
                apply(event)

    def do(self, step: Step) -> None:
        """Commit the events, then carry out the effects."""
        self.commit(step.events)
        for effect in step.effects:
            self.execute(effect)

    def execute(self, effect: Effect) -> EffectResult:
        """Execute one effect, and commit what came of it."""
        result = self.executor.execute(effect)
        self.commit(result.events)
        for note in self.observers:
            note(effect, result)
        return result

    def execute_all(self, effects: Sequence[Effect]) -> None:
        self.do(Step(effects=tuple(effects)))

    def note_query(self, operation: Operation, error: str = "") -> None:
        """Record how a query of the cluster went; `error` is empty if it succeeded."""
        state, now = self.sweep.state, self.sweep.now
        succeeded = call_succeeded(state, operation, now=now)
        self.commit(call_failed(state, operation, error, now=now) if error else succeeded)


@dataclass
class Executor:
    """Executes effects, one at a time; `submitted` gives a live batch as the cluster knows it."""

    sweep: SweepContext
    submitted: Callable[[str], SubmittedBatch]
    compactor: Compactor | None = None

    def execute(self, effect: Effect) -> EffectResult:
        """Execute one effect; its intent is committed, what comes of it is for the caller to commit."""
        match effect:
            case Submit():
                return self._submit(effect)
            case Cancel() | Throttle() | Release():
                return self._change(effect)
            case SubmitTick():
                return self._submit_tick(effect)
            case CancelTicks():
                try:
                    self.sweep.cluster.cancel_ticks(effect.jobs)
                except ClusterUnavailable as error:
                    return EffectResult(error=error)
            case Abandon():
                files = self.sweep.layout.batch(effect.batch)
                with wrap_oserror(self.sweep.layout.root):
                    make_dirs(files.root)
                    write_atomic(files.abandoned_marker, effect.reason.encode())
                return EffectResult((BatchAbandoned(effect.batch, effect.reason, effect.limited),))
            case StopRun():
                with wrap_oserror(self.sweep.layout.root):
                    request_stop(self.sweep.layout.batch(effect.batch), effect.run)
            case Assign() | Leave() | RemoveHandOver():
                with wrap_oserror(self.sweep.layout.root):
                    _hand_over(self.sweep.layout.batch(effect.batch), effect)
            case DiscardCheckpoints():
                checkpoints.hide_all(self.sweep.layout.trial(effect.trial))
            case RemoveRequest():
                remove_request(self.sweep.layout, effect.name, self.sweep.skipped)
            case WriteSpec(text, mode):
                with wrap_oserror(self.sweep.layout.root):
                    write_atomic(self.sweep.layout.spec, text.encode(), mode=mode)
            case Compact():
                self._compact(effect)
            case _:
                assert_never(effect)
        return EffectResult()

    def _submit(self, effect: Submit) -> EffectResult:
        name = effect.batch.name
        files = self.sweep.layout.batch(name)
        with wrap_oserror(self.sweep.layout.root):
            make_dirs(files.root)
            write_manifest(files, effect.header, effect.tasks)
        self.sweep.journal.check()
        try:
            job = self.sweep.cluster.submit(effect.batch)
        except SubmitLimited as error:
            return EffectResult(error=error)
        except (SubmitRefused, SubmitUncertain, ClusterUnavailable, SpecError) as error:
            refused = (
                error.refused
                if isinstance(error, SubmitUncertain)
                else not isinstance(error, ClusterUnavailable)
            )
            return EffectResult(self._failed("submit", error, batch=name, refused=refused), error)
        return EffectResult((BatchSubmitted(name, job, self.sweep.now),))

    def _change(self, effect: Cancel | Throttle | Release) -> EffectResult:
        batch = self.submitted(effect.batch)
        done: tuple[BatchThrottled | TasksReleased, ...] = ()
        try:
            match effect:
                case Cancel():
                    self.sweep.cluster.cancel(batch, effect.tasks)
                case Throttle():
                    self.sweep.cluster.throttle(batch, effect.tasks)
                    if effect.tasks != self.sweep.state.live[effect.batch].throttle:
                        done = (BatchThrottled(effect.batch, effect.tasks),)
                case Release():
                    self.sweep.cluster.release(batch, effect.tasks)
                    done = (TasksReleased(effect.batch, effect.tasks),)
        except ClusterUnavailable as error:
            return EffectResult(self._failed("change", error), error)
        return EffectResult((*call_succeeded(self.sweep.state, "change", now=self.sweep.now), *done))

    def _failed(
        self, operation: Operation, error: Exception, *, batch: str = "", refused: bool = False
    ) -> tuple[ClusterMessage, ...]:
        state, now = self.sweep.state, self.sweep.now
        return call_failed(state, operation, str(error), now=now, batch=batch, refused=refused)

    def _compact(self, effect: Compact) -> None:
        if not isinstance(effect.task, WriteTables):
            # Only who holds the journal knows what is in it for good; and a newer driver may have come
            # between the last look at the journal and the commit, and not have read that commit.
            self.sweep.journal.acquire()
            self.sweep.journal.check()
        assert self.compactor is not None, "without a compactor nothing is compacted"
        self.compactor.begin(effect.task)

    def _submit_tick(self, effect: SubmitTick) -> EffectResult:
        try:
            return EffectResult((submit_tick(self.sweep.cluster, self.sweep.layout, effect),))
        except ClusterError as error:  # finishing tasks tick as well, and the next tick tries again
            _log.warning("no job that ticks could be submitted: %s", error)
            return EffectResult(error=error)


def _hand_over(batch: BatchLayout, effect: Assign | Leave | RemoveHandOver) -> None:
    match effect:
        case Assign():
            write_assignment(batch, effect.start, effect.number, effect.assignment)
        case Leave():
            request_leave(batch, effect.start, at_once=effect.at_once)
        case RemoveHandOver():
            remove_hand_over(batch, effect.start, effect.number)


def submit_tick(cluster: Cluster, layout: Layout, effect: SubmitTick) -> TickSubmitted:
    """Submit a job that ticks the sweep; ClusterError if the cluster does not take it."""
    job = cluster.submit_tick(effect.name, layout.root, after=effect.after, delay_s=effect.delay_s)
    return TickSubmitted(job, effect.due, effect.batch)
