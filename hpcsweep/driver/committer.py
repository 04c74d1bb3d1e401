"""The one committer: events go into the journal, then effects are carried out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import assert_never

from hpcsweep.core.cluster_protocol import Cluster, SubmittedBatch
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchSubmitted,
    BatchThrottled,
    TasksReleased,
    TickSubmitted,
)
from hpcsweep.core.protocols import Clock
from hpcsweep.core.state import SweepState
from hpcsweep.driver.compactor import Compactor
from hpcsweep.driver.effects import (
    Abandon,
    Cancel,
    CancelTicks,
    Compact,
    DiscardCheckpoints,
    DropRequest,
    Effect,
    EffectResult,
    Release,
    Step,
    StopRun,
    Submit,
    SubmitTick,
    Throttle,
)
from hpcsweep.driver.health import Asked, call_failed, call_succeeded
from hpcsweep.errors import (
    ClusterError,
    ClusterUnavailable,
    SpecError,
    SubmitLimited,
    SubmitRefused,
    SubmitUncertain,
)
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import request_stop, write_manifest
from hpcsweep.store.compaction.parts import WriteTables
from hpcsweep.store.files import Skipped, make_dirs, wrap_oserror, write_atomic
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import remove_request


class Committer:
    """Commits what collaborators decide, then has it carried out: intent is on disk before effect.

    Args:
        journal: Open.
        state: Of the sweep.
        clock: The time.
        executor: Carries out effects.
        appliers: Called with each event once it is committed, in this order.
        observers: Called with each effect and what came of it.

    Attributes:
        commits: How many commits there were.
    """

    def __init__(
        self,
        journal: Journal,
        state: SweepState,
        *,
        clock: Clock,
        executor: Executor,
        appliers: Sequence[Callable[[AnyEvent], None]],
        observers: Sequence[Callable[[Effect, EffectResult], None]],
    ) -> None:
        self._journal = journal
        self._state = state
        self._clock = clock
        self._executor = executor
        self._appliers = appliers
        self._observers = observers
        self.commits = 0

    def replay(self) -> None:
        """Apply the events of earlier sessions."""
        for event in self._journal.events:
            self._apply(event)

    def commit(self, events: Sequence[AnyEvent]) -> None:
        """Make these events true, all or none; nothing happens without any.

        Raises:
            SupersededError: A newer driver took over: nothing was written.
        """
        if events:
            self._journal.commit(events)
            self.commits += 1
            for event in events:
                self._apply(event)

    def _apply(self, event: AnyEvent) -> None:
        for apply in self._appliers:
            apply(event)

    def do(self, step: Step) -> None:
        """Commit the events, then carry out the effects."""
        self.commit(step.events)
        for effect in step.effects:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> EffectResult:
        """Carry out one effect, and commit what came of it."""
        result = self._executor.carry_out(effect)
        self.commit(result.events)
        for note in self._observers:
            note(effect, result)
        return result

    def carry_out_all(self, effects: Sequence[Effect]) -> None:
        """Carry out these effects in order."""
        self.do(Step(effects=tuple(effects)))

    def note_query(self, asked: Asked, error: str = "") -> None:
        """Record how a query of the cluster went; `error` is empty if it succeeded."""
        now = self._clock.time()
        if error:
            self.commit(call_failed(self._state, asked, error, now=now))
        else:
            self.commit(call_succeeded(self._state, asked, now=now))


_log = logging.getLogger(__name__)


class Executor:
    """Carries out effects, one at a time.

    Args:
        state: Of the sweep; only read.
        submitted: A live batch as the cluster knows it, by name.
        compactor: Carries out what `Compact` says; None where nothing is compacted.
        skipped: Told of files that cannot be removed.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        journal: Journal,
        cluster: Cluster,
        clock: Clock,
        submitted: Callable[[str], SubmittedBatch],
        compactor: Compactor | None = None,
        skipped: Skipped,
    ) -> None:
        self._state = state
        self._layout = layout
        self._journal = journal
        self._cluster = cluster
        self._clock = clock
        self._submitted = submitted
        self._compactor = compactor
        self._skipped = skipped

    def carry_out(self, effect: Effect) -> EffectResult:
        """Carry out one effect; its intent is committed, what comes of it is for the caller to commit.

        Raises:
            SupersededError: A newer driver took over; nothing was submitted.
            FolderError: The results folder cannot be written.
        """
        match effect:
            case Submit():
                return self._submit(effect)
            case Cancel() | Throttle() | Release():
                return self._change(effect)
            case SubmitTick():
                return self._submit_tick(effect)
            case CancelTicks():
                try:
                    self._cluster.cancel_ticks(effect.jobs)
                except ClusterUnavailable as error:
                    return EffectResult(error=error)
            case Abandon():
                files = self._layout.batch(effect.batch)
                with wrap_oserror(self._layout.root):
                    make_dirs(files.root)
                    write_atomic(files.abandoned_marker, effect.reason.encode())
                return EffectResult((BatchAbandoned(effect.batch, effect.reason, effect.limited),))
            case StopRun():
                with wrap_oserror(self._layout.root):
                    request_stop(self._layout.batch(effect.batch), effect.run)
            case DiscardCheckpoints():
                checkpoints.hide_all(self._layout.trial(effect.trial))
            case DropRequest():
                remove_request(self._layout, effect.name, self._skipped)
            case Compact():
                self._compact(effect)
            case _:
                assert_never(effect)
        return EffectResult()

    def _submit(self, effect: Submit) -> EffectResult:
        name, now = effect.batch.name, self._clock.time
        files = self._layout.batch(name)
        with wrap_oserror(self._layout.root):
            make_dirs(files.root)
            write_manifest(files, effect.header, effect.tasks)
        self._journal.check()
        try:
            job = self._cluster.submit(effect.batch)
        except SubmitLimited as error:
            return EffectResult(error=error)
        except (SubmitRefused, SubmitUncertain, ClusterUnavailable, SpecError) as error:
            refused = isinstance(error, SubmitRefused | SpecError)
            refused = refused or (isinstance(error, SubmitUncertain) and error.refused)
            said = call_failed(self._state, "submit", str(error), now=now(), batch=name, refused=refused)
            return EffectResult(said, error)
        return EffectResult((BatchSubmitted(name, job, now()),))

    def _change(self, effect: Cancel | Throttle | Release) -> EffectResult:
        batch = self._submitted(effect.batch)
        done: tuple[BatchThrottled | TasksReleased, ...] = ()
        try:
            match effect:
                case Cancel():
                    self._cluster.cancel(batch, effect.tasks)
                case Throttle():
                    self._cluster.throttle(batch, effect.tasks)
                    if effect.tasks != self._state.live[effect.batch].throttle:
                        done = (BatchThrottled(effect.batch, effect.tasks),)
                case Release():
                    self._cluster.release(batch, effect.tasks)
                    done = (TasksReleased(effect.batch, effect.tasks),)
        except ClusterUnavailable as error:
            return EffectResult(call_failed(self._state, "change", str(error), now=self._clock.time()), error)
        return EffectResult((*call_succeeded(self._state, "change", now=self._clock.time()), *done))

    def _compact(self, effect: Compact) -> None:
        if not isinstance(effect.task, WriteTables):
            # Only who holds the journal knows what is in it for good; and a newer driver may have come
            # between the last look at the journal and the commit, and not have read that commit.
            self._journal.acquire()
            self._journal.check()
        assert self._compactor is not None, "without a compactor nothing is compacted"
        self._compactor.begin(effect.task)

    def _submit_tick(self, effect: SubmitTick) -> EffectResult:
        try:
            return EffectResult((submit_tick(self._cluster, self._layout, effect),))
        except ClusterError as error:  # finishing tasks tick as well, and the next tick tries again
            _log.warning("no job that ticks could be submitted: %s", error)
            return EffectResult(error=error)


def submit_tick(cluster: Cluster, layout: Layout, effect: SubmitTick) -> TickSubmitted:
    """Submit a job that ticks the sweep.

    Raises:
        ClusterError: The cluster takes no such job, or not now.
    """
    job = cluster.submit_tick(effect.name, layout.root, after=effect.after, delay_s=effect.delay_s)
    return TickSubmitted(job, effect.due, effect.batch)
