"""One tick: read results, read the cluster, decide, submit. Intent is on disk before effect."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from hpcsweep.core.cluster_protocol import Cluster, Phase, SubmittedBatch
from hpcsweep.core.events import AnyEvent, BatchThrottled, SweepDetached, SweepResumed, TrialStopped
from hpcsweep.core.models import RunStatus
from hpcsweep.core.protocols import Clock, Scheduler, Searcher
from hpcsweep.core.retention import Retention
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.assigner import Assigner
from hpcsweep.driver.checkpoint_quota import CheckpointQuota
from hpcsweep.driver.compaction import Compaction, CompactionManager
from hpcsweep.driver.config import DriverConfig, HostTask, SweepContext
from hpcsweep.driver.effects import CancelTicks, Committer, Compactor, Executor, RemoveRequest, submit_tick
from hpcsweep.driver.failures import check_health
from hpcsweep.driver.gpu_throttle import GpuThrottle
from hpcsweep.driver.job_control import Cancellations, ThrottleManager, TickScheduler
from hpcsweep.driver.lifecycle import (
    GpuBudget,
    can_resume,
    confirm_time_over,
    exhausted_budget,
    handle_request,
    sweep_end,
)
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import MetricsPoller, Observation, Observer, running_runs
from hpcsweep.driver.planner import Planner
from hpcsweep.driver.shaped_assigner import ShapedAssigner
from hpcsweep.driver.shaped_reuse import make_submission
from hpcsweep.driver.shapes import RunShapes
from hpcsweep.driver.submitter import Submitter
from hpcsweep.errors import ClusterUnavailable, HeldError, SubmitRefused, SupersededError
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import list_segments
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.store.requests import new_requests, remove_request

#: Time between two looks for results of tasks that wait for their next run.
LOOK_S: Final = 1.0


class Driver:
    """Drives one sweep as long as it holds the journal, whose events are replayed here.

    It keeps nothing that is not in the journal or can be observed again, so a driver killed at any
    instant is followed by one that continues as if nothing had happened.

    Args:
        scheduler: Fresh; it is brought up to date here.
        host: The task that this driver runs in, which ends as soon as it has ticked.
        observers: Called with every event, those of the past first.
        compactor: Compacts what has ended; None: it stays as it is.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        journal: Journal,
        space: Space,
        searcher: Searcher,
        scheduler: Scheduler,
        cluster: Cluster,
        clock: Clock,
        settings: DriverConfig,
        host: HostTask | None = None,
        observers: Sequence[Callable[[AnyEvent], None]] = (),
        compactor: Compactor | None = None,
    ) -> None:
        self.state = SweepState()
        self.compaction_state = CompactionState()
        self.retention = Retention(self.state, scheduler)
        self.scheduler = scheduler
        self.settings = settings
        self.layout = layout
        self._host = host
        self._began = clock.time()
        skipped = Skipped()
        list_segments(layout.journal, skipped)
        #: Stray files of the journal's folder, listed once: the journal itself was read already.
        self._strays = skipped.lines(layout.root)
        #: Requests that were handled: one that cannot be removed is not handled again.
        self._handled: set[str] = set()

        state = self.state
        self._sweep = context = SweepContext(state, settings, layout, journal, cluster, clock, skipped)
        observer = self._observer = Observer(context)
        self._metrics = MetricsPoller(state, layout=layout, program=settings.program, skipped=skipped)
        capped = settings.max_gpu_s is not None or any(pool.max_gpu_s is not None for pool in cluster.pools)
        time_s = observer.limits.time_s if capped and settings.shape.time_s is None else None
        budget = self._budget = GpuBudget(
            settings, default_time_s=time_s, start_up_s=cluster.start_up_s, pools=cluster.pools
        )
        monitor = self.monitor = JobMonitor(
            state,
            layout=layout,
            settings=settings,
            grace_s=cluster.grace_s,
            evidence=observer,
            capped=budget.caps,
        )
        planner = self._planner = Planner(
            state, scheduler=scheduler, searcher=searcher, space=space, settings=settings
        )
        cancellations = self._cancellations = Cancellations(state, monitor)
        unconfirmed = (each.batch for each in journal.events if isinstance(each, BatchThrottled))
        differ = settings.resources.constant is None or bool(cluster.pools)
        throttle = self._throttle = (GpuThrottle if differ else ThrottleManager)(
            state, settings=settings, monitor=monitor, host=host, unconfirmed=unconfirmed, cluster=cluster
        )
        clones = scheduler.clones
        quota = CheckpointQuota(state, settings=settings, clones=clones)
        shapes = RunShapes(state, space, settings=settings, granted=cluster.granted)
        submitter = self._submitter = Submitter(
            state,
            quota,
            layout=layout,
            settings=settings,
            monitor=monitor,
            budget=budget,
            clones=clones,
            shapes=shapes,
        )
        self._ticks = TickScheduler(state, host_job=host.job if host else "")
        assigner = (ShapedAssigner if differ else Assigner)(
            state, settings=settings, monitor=monitor, manifest_run=submitter.manifest_run, shapes=shapes
        )
        retain = self.retention.apply
        noting = (monitor, self._cancellations, self._throttle, self._ticks, assigner)
        committer = self._committer = Committer(
            context,
            Executor(context, monitor.submitted, compactor),
            (state.apply, self.compaction_state.apply, planner.apply, retain, shapes.apply, *observers),
            [part.note for part in noting],
        )
        self._committer.replay()
        planner.grow()
        kept = None if settings.keep_all else self.retention
        manager = CompactionManager(
            state, self.compaction_state, kept, quota, layout=layout, at=settings.compact_at
        )
        self._compaction = Compaction(context, manager, compactor, self._committer)
        acting = (context, committer, observer, monitor, planner, cancellations)
        parts = (*acting, throttle, submitter, budget, quota, manager)
        self._submission = make_submission(assigner, throttle, shapes, settings, parts)

    # ------------------------------------------------------------------ the loop

    def acquire(self) -> None:
        """Become the driver now, even if there is nothing to write; HeldError if another process did."""
        self._sweep.journal.acquire()

    def run(self, on_tick: Callable[[Driver], None] | None = None) -> None:
        """Tick until the sweep has ended. The time between ticks adapts to what happens."""
        shortest, longest = self._sweep.cluster.poll_s
        delay = shortest
        while True:
            changed = self.tick()
            if on_tick is not None:
                on_tick(self)
            if self.state.ended is not None:
                self.compact()
                return
            if self._compaction.makes_room():
                continue
            removing = self._compaction.step() and self.state.quota_reached is not None
            self._sweep.journal.heartbeat()
            delay = shortest if changed or removing else min(longest, delay * 1.5)
            self._wait(delay, on_tick)

    def _wait(self, seconds: float, on_tick: Callable[[Driver], None] | None) -> None:
        """Sleep until the next tick, but take up what tasks that keep their GPUs have done meanwhile."""
        clock = self._sweep.clock
        began = clock.time()
        until = began + seconds
        while (left := until - clock.time()) > 0:
            if not any(batch.reuse for batch in self.state.live.values()):
                clock.sleep(left)
                return
            clock.sleep(min(left, LOOK_S))
            news = self._observer.has_unread or self._compaction.makes_room()
            if news and self.look() and on_tick is not None:
                on_tick(self)
            if self.monitor.awaits_poll or self.monitor.all_have_left:
                until = min(until, began + self._sweep.cluster.poll_s[0])

    def look(self) -> bool:
        """Take in new results and hand over the next runs, without asking the cluster; True on a change."""
        before = self._committer.commits
        self._sweep.skipped.clear()
        self._take_in(self._observer.observe_files(self._submitted))
        self._check_health()
        if self.state.stopping is None and self.state.pausing is None:
            self._submission.hand_over()
        return self._committer.commits > before

    def tick(self) -> bool:
        """Process what has happened and act on it; True if anything changed.

        Raises:
            SubmitRefused: The cluster refused a batch, with this message. The runs wait.
            SupersededError: A newer driver took over.
        """
        before, state = self._committer.commits, self.state
        self._sweep.skipped.clear()
        self._reconcile()
        self._keep_ticking()  # before anything that may fail: an adopted array has no tick job yet
        self._observe()
        self._committer.execute_all(self._cancellations.tasks_to_cancel())
        self._committer.execute_all(self._cancellations.tasks_to_release())
        self._committer.commit(self._cancellations.pause(now=self._sweep.now))
        self._handle_requests()
        self._check_health()
        if state.stopping is not None:
            self._committer.execute_all(self._cancellations.all_to_cancel())
        elif state.pausing is not None:
            self._submission.dismiss()
            self._committer.execute_all(self._cancellations.impossible_to_cancel())
            if state.pausing.is_fail_fast:
                self._committer.execute_all(self._cancellations.pending_to_cancel())
        else:
            self._throttle.cluster_slots = self._sweep.cluster.slots
            self._throttle.cluster_gpus = self._sweep.cluster.total_gpus
            try:
                self._submission.run()
            except SubmitRefused:  # the last one pauses now: whoever launches next has fixed the cause
                self._check_health()
                self._end_if_done()
                raise
        self._end_if_done()
        self._keep_ticking()
        return self._committer.commits > before

    def tick_once(self) -> None:
        """Tick, for a driver that leaves and that nobody follows at once, such as one that cron starts."""
        self._submission.leaves = not self.state.is_detached(self.settings.cluster)
        if self.tick():
            self.tick()  # on this machine it is the next tick that starts what one has planned

    def compact(self) -> None:
        """Compact what is ready; for a driver that leaves the sweep after its tick."""
        with contextlib.suppress(SupersededError, HeldError):  # then it is for the other one to do
            if self._compaction.finish() and self.state.ended is None:
                self.tick()  # runs waited for the room of what was removed

    def start(self, *events: AnyEvent, extension: Sequence[AnyEvent] = ()) -> None:
        """Begin a new sweep with these events; extend an old one, and resume it if there is work left."""
        if self.state.started is None:
            self._committer.commit(events)
            return
        self._committer.commit(extension)
        now = self._sweep.now
        requests = list(new_requests(self.layout, ()))
        verbs = {request.verb for _, request in requests} if self.state.ended is not None else set()
        if can_resume(self.state, self.scheduler, self.settings, self._budget, verbs=verbs, now=now):
            for name, request in requests:
                if request.verb == "stop":  # it was meant for the session before
                    remove_request(self.layout, name)
            self._committer.commit([SweepResumed(now)])

    @property
    def _submitted(self) -> list[SubmittedBatch]:
        batches = [batch.name for batch in self.state.live.values() if batch.job is not None]
        return [self.monitor.submitted(name) for name in batches]

    def _observe(self) -> None:
        observation = self._observer.observe(self._submitted)
        self._take_in(observation)
        if observation.poll_error is not None:
            self._committer.note_query("poll", observation.poll_error)

    def _take_in(self, observation: Observation) -> None:
        events = self.monitor.observe(observation)
        if self.scheduler.needs_reports:
            events = self._metrics.before_endings(events)
            events += self._metrics.running(running_runs(self.state, self.monitor.states, events))
        self._committer.commit(events)
        self._committer.execute_all(self._planner.grow())
        self._committer.execute_all(self._observer.settled_hand_overs())

    @property
    def skipped_files(self) -> list[str]:
        """What the last tick skipped in the results folder, one line for each file."""
        return [*self._strays, *self._sweep.skipped.lines(self.layout.root)]

    @property
    def phases(self) -> Counter[Phase]:
        """Tasks by what the cluster said of them last."""
        return Counter(state.phase for state in self.monitor.states.values())

    # ------------------------------------------------------------------ requests

    def _handle_requests(self) -> None:
        for name, request in list(new_requests(self.layout, self._handled, self._sweep.skipped)):
            if name not in self.state.requests:
                events = handle_request(
                    name,
                    request,
                    state=self.state,
                    space=self._planner.space,
                    seed=self.settings.seed,
                    now=self._sweep.now,
                    is_over=self.retention.is_final,
                )
                stopped = [event.trial for event in events if isinstance(event, TrialStopped)]
                self._submission.before_decisions(events)
                self._committer.commit([*self._last_reports(stopped), *events])
                if stopped:
                    self._committer.execute_all(self._cancellations.tasks_to_cancel())
            self._handled.add(name)
            self._committer.execute(RemoveRequest(name))

    def _last_reports(self, trials: Sequence[int]) -> list[AnyEvent]:
        """The last reports of trials that are about to be stopped: their values."""
        runs = (self.state.trials[trial].runs[-1] for trial in trials)
        return self._metrics.running([run.id for run in runs if run.status is RunStatus.SUBMITTED])

    def settle(self) -> None:
        """Process results and requests and cancel unwanted tasks; submit nothing."""
        self._reconcile()
        self._observe()
        self._handle_requests()
        self._committer.execute_all(self._cancellations.tasks_to_cancel())
        self._committer.commit(self._submitter.stopped_while_waiting())

    def _reconcile(self) -> None:
        """Settle the batches that were planned and never acknowledged."""
        now, settle_s = self._sweep.now, self._sweep.cluster.settle_s
        for batch in [batch for batch in self.state.live.values() if batch.job is None]:
            try:
                sighting = self._observer.sighting(batch)
            except ClusterUnavailable as error:
                self._committer.note_query("find", str(error))
                continue
            if not sighting.abandoned:
                self._committer.note_query("find")
            self._committer.do(self._submitter.reconcile(batch, sighting, now=now, settle_s=settle_s))

    def _check_health(self) -> None:
        nodes: tuple[str, ...] = ()
        if self.state.node_faults:
            with contextlib.suppress(ClusterUnavailable):
                nodes = self._observer.limits.nodes
        now = self._sweep.now
        fail_fast, longest_s = self.settings.fail_fast, self.monitor.longest_s(now)
        self._committer.commit(
            check_health(self.state, now=now, nodes=nodes, fail_fast=fail_fast, longest_s=longest_s)
        )

    # ------------------------------------------------------------------ who ticks next

    def detach(self) -> None:
        """Leave the sweep to tick jobs, the first of which runs in a minute.

        Raises:
            ClusterError: The cluster takes no tick jobs; nothing has changed.
        """
        if not self.state.is_detached(self.settings.cluster):
            self.acquire()
            now = self._sweep.now
            # The effect first, for once: the sweep is not detached where this is refused.
            submitted = submit_tick(self._sweep.cluster, self.layout, self._ticks.first(now=now))
            self._committer.commit([SweepDetached(now, self.settings.cluster), submitted])

    @property
    def has_unread(self) -> bool:
        """Whether results or requests have come that the last tick did not take in."""
        known = self._handled.union(self.state.requests)
        return self._observer.has_unread or any(True for _ in new_requests(self.layout, known))

    @property
    def needs_attention(self) -> bool:
        """Whether something is to be done soon that no job will trigger."""
        undecided = self.monitor.undecided or self.monitor.awaits_poll or self.scheduler.needs_reports
        # A poll that failed may have been to decide something.
        return self._ticks.needs_attention(undecided=undecided or bool(self._sweep.cluster.poll_error))

    def _keep_ticking(self) -> None:
        if self._needs_ticks:
            active = {task.batch for task, state in self.monitor.states.items() if state.phase.active}
            self._ticks.jobs = self._sweep.cluster.known_jobs
            self._committer.do(self._ticks.behind_arrays(now=self._sweep.now, active=active))

    def schedule_successor(self) -> None:
        """Make sure that a detached sweep gets another tick: soon where no job will trigger one."""
        if self._needs_ticks:
            self._ticks.jobs = self._sweep.cluster.known_jobs
            self._committer.do(self._ticks.later(soon=self.needs_attention, now=self._sweep.now))

    @property
    def unattended(self) -> str:
        """Why no tick job could be submitted, empty if one was or none is needed."""
        return self._ticks.error if self._needs_ticks else ""

    @property
    def _needs_ticks(self) -> bool:
        return self.state.is_detached(self.settings.cluster) and self.state.ended is None

    # ------------------------------------------------------------------ budgets and the end

    def _end_if_done(self) -> None:
        state, now = self.state, self._sweep.now
        if state.ended is not None or state.live:
            return
        exhausted = exhausted_budget(state, self.settings, self._budget, now=now)
        if state.stopping is None:
            confirmed, event = confirm_time_over(state, self.settings, now=now, since=self._began)
            self._committer.commit([event] if event is not None else [])
            if not confirmed:
                return
        end = sweep_end(state, self.scheduler, exhausted=exhausted, now=now)
        if end is None:
            return
        self._committer.commit([end])
        host = self._host.job if self._host else ""
        others = tuple(job for job in state.tick_jobs if job != host)
        if others:  # they would find that the sweep has ended
            self._committer.execute(CancelTicks(others))
