"""Carries out effects on the cluster and in the results folder. Commits nothing: that is the loop's part."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import assert_never

from hpcsweep.core.events import BatchAbandoned, BatchSubmitted, BatchThrottled, TasksReleased, TickSubmitted
from hpcsweep.core.protocols import Clock, Cluster, SubmittedBatch
from hpcsweep.core.state import SweepState
from hpcsweep.driver.cluster_messages import call_failed, call_succeeded
from hpcsweep.driver.effects import (
    Abandon,
    Cancel,
    CancelTicks,
    DiscardCheckpoints,
    DropRequest,
    Effect,
    EffectResult,
    Release,
    StopRun,
    Submit,
    SubmitTick,
    Throttle,
)
from hpcsweep.errors import (
    ClusterError,
    ClusterUnavailable,
    SpecError,
    SubmitLimited,
    SubmitRefused,
    SubmitUncertain,
)
from hpcsweep.store import checkpoints
from hpcsweep.store.files import make_dirs, wrap_oserror, write_atomic
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.manifest import write_manifest
from hpcsweep.store.requests import remove_request
from hpcsweep.store.skipped import Skipped
from hpcsweep.store.stops import request_stop

_log = logging.getLogger(__name__)


class Executor:
    """Carries out effects, one at a time.

    Args:
        state: Of the sweep; only read.
        submitted: A live batch as the cluster knows it, by name.
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
        skipped: Skipped,
    ) -> None:
        self._state = state
        self._layout = layout
        self._journal = journal
        self._cluster = cluster
        self._clock = clock
        self._submitted = submitted
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
                    write_atomic(files.void, effect.reason.encode())
                return EffectResult((BatchAbandoned(effect.batch, effect.reason, effect.limited),))
            case StopRun():
                with wrap_oserror(self._layout.root):
                    request_stop(self._layout.batch(effect.batch), effect.run)
            case DiscardCheckpoints():
                checkpoints.hide_all(self._layout.trial(effect.trial))
            case DropRequest():
                remove_request(self._layout, effect.name, self._skipped)
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
