"""One tick: read results, read the cluster, decide, submit. Intent is on disk before effect."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from hpcsweep.core.compaction import CompactionState
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchThrottled,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepDetached,
    SweepResumed,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.protocols import Clock, Cluster, Limits, Phase, Scheduler, Searcher
from hpcsweep.core.retention import Retention
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.budgets import (
    GpuBudget,
    can_resume,
    confirm_time_over,
    exhausted_budget,
    sweep_end,
)
from hpcsweep.driver.cancellations import Cancellations
from hpcsweep.driver.cluster_messages import Asked, call_failed, call_succeeded
from hpcsweep.driver.compaction import CompactionManager
from hpcsweep.driver.compactor import Compactor
from hpcsweep.driver.config import DriverConfig, HostTask
from hpcsweep.driver.effects import (
    CancelTicks,
    DiscardCheckpoints,
    DropRequest,
    Effect,
    EffectResult,
    Step,
)
from hpcsweep.driver.executor import Executor, submit_tick
from hpcsweep.driver.health import check_health
from hpcsweep.driver.intermediate import MetricsPoller
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observer
from hpcsweep.driver.planner import Planner
from hpcsweep.driver.requests import handle_request
from hpcsweep.driver.submitter import SubmitBackoff, Submitter
from hpcsweep.driver.throttle import ThrottleManager
from hpcsweep.driver.tick_scheduler import TickScheduler
from hpcsweep.errors import (
    ClusterUnavailable,
    HeldError,
    SpecError,
    SubmitLimited,
    SubmitRefused,
    SupersededError,
)
from hpcsweep.store.journal.segments import list_segments
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import new_requests, remove_request
from hpcsweep.store.skipped import Skipped


class Driver:
    """Drives one sweep as long as it holds the journal.

    All that it knows is in the journal or can be seen again: a driver that is killed at any
    instant is followed by one that goes on as if nothing had happened.

    Args:
        layout: The results folder.
        journal: Open; its events are replayed here.
        space: What the searcher searches.
        searcher: Proposes configurations.
        scheduler: Fresh; it is brought up to date here.
        cluster: Where batches run.
        clock: The time.
        settings: Caps and shapes.
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
        self.packing = CompactionState()
        self.retention = Retention(self.state, scheduler)
        self.scheduler = scheduler
        self.cluster = cluster
        self.settings = settings
        self.layout = layout
        self._journal = journal
        self._clock = clock
        self._space = space
        self._host = host
        asks = settings.max_gpu_s is not None and settings.shape.time_s is None
        self._budget = GpuBudget(settings, default_time_s=self._limits.time_s if asks else None)
        self._backoff = SubmitBackoff()
        self._planner = Planner(
            self.state, scheduler=scheduler, searcher=searcher, space=space, settings=settings
        )
        self._commits = 0
        self._began = clock.time()
        self._observers = observers
        self._skipped = Skipped()
        list_segments(layout.journal, self._skipped)
        #: Stray files of the journal's folder, found once: the journal itself was read already.
        self._strays = self._skipped.lines(layout.root)
        #: Requests that were handled: one that cannot be removed is not handled again.
        self._handled: set[str] = set()
        for event in journal.events:
            self._apply(event)
        if self.state.submit_limit:
            tasks, others, at = self.state.submit_limit_hit
            self._backoff.refused(tasks, open_tasks=others, now=at)
        self._observer = Observer(
            self.state, layout=layout, cluster=cluster, clock=clock, skipped=self._skipped
        )
        self.monitor = JobMonitor(
            self.state,
            layout=layout,
            settings=settings,
            grace_s=cluster.grace_s,
            evidence=self._observer,
        )
        self._cancellations = Cancellations(self.state, self.monitor)
        self._metrics = MetricsPoller(
            self.state, layout=layout, program=settings.program, passed_over=self._skipped
        )
        self._throttle = ThrottleManager(
            self.state,
            settings=settings,
            monitor=self.monitor,
            host=host,
            unconfirmed=(event.batch for event in journal.events if isinstance(event, BatchThrottled)),
        )
        self._submitter = Submitter(
            self.state,
            layout=layout,
            settings=settings,
            monitor=self.monitor,
            # What the cluster would run again by itself could carry the sweep beyond its budget.
            requeue=not self._budget.capped,
            clones=scheduler.clones,
        )
        self._ticks = TickScheduler(self.state)
        self._executor = Executor(
            self.state,
            layout=layout,
            journal=journal,
            cluster=cluster,
            clock=clock,
            submitted=self.monitor.submitted,
            skipped=self._skipped,
        )
        self._compacting = None
        if compactor is not None:
            self._compacting = CompactionManager(
                self.state,
                self.packing,
                None if settings.keep_all else self.retention,
                layout=layout,
                journal=journal,
                commit=self._commit,
                compactor=compactor,
                at=settings.compact_at,
            )

    # ------------------------------------------------------------------ the loop

    def acquire(self) -> None:
        """Be the driver from now on, even while there is nothing to write.

        Raises:
            HeldError: Another one is, since the journal was read.
        """
        self._journal.acquire()

    def run(self, on_tick: Callable[[Driver], None] | None = None) -> None:
        """Tick until the sweep has ended. The time between ticks adapts to what happens."""
        shortest, longest = self.cluster.poll_s
        delay = shortest
        while True:
            changed = self.tick()
            if on_tick is not None:
                on_tick(self)
            if self.state.ended is not None:
                self.compact()
                return
            if self._compacting is not None:
                self._compacting.step()
            self._journal.heartbeat()
            delay = shortest if changed else min(longest, delay * 1.5)
            self._clock.sleep(delay)

    def tick(self) -> bool:
        """Take in what has happened and do what follows from it; True if anything changed.

        Raises:
            SubmitRefused: The cluster refused a batch, in its own words. The runs wait.
            SupersededError: A newer driver took over.
        """
        before, state = self._commits, self.state
        self._skipped.clear()
        self._reconcile()
        self._keep_ticking()  # before anything else that may fail: an adopted array has nobody behind it
        self._commit(self._observe())
        self._carry_out(*self._cancellations.tasks_to_cancel())
        self._carry_out(*self._cancellations.to_release())
        self._commit(self._cancellations.pause(now=self._clock.time()))
        self._handle_requests()
        self._check_health()
        if state.stopping is not None:
            self._carry_out(*self._cancellations.all_to_cancel())
        elif state.pausing is not None:
            self._carry_out(*self._cancellations.impossible_to_cancel())
            if state.pausing.is_fail_fast:
                self._carry_out(*self._cancellations.pending_to_cancel())
        else:
            self._throttle.cluster_slots = self.cluster.slots
            self._do(self._throttle.rethrottle())
            self._plan_and_submit()
        self._end_if_done()
        self._keep_ticking()
        return self._commits > before

    def compact(self) -> None:
        """Compact what there is enough of by now; for who leaves the sweep after it has ticked."""
        if self._compacting is not None:
            with contextlib.suppress(SupersededError, HeldError):  # then it is for the other one to do
                self._compacting.finish()

    def start(self, *events: AnyEvent, extension: Sequence[AnyEvent] = ()) -> None:
        """Begin the sweep with these events if it is new; carry it on if it had ended and there is work left.

        Args:
            events: `SweepStarted`, then what is known at the beginning. Read only if it is new.
            extension: What is added to it. Read only if it is not new.
        """
        if self.state.started is None:
            self._commit(events)
            return
        self._commit(extension)
        now = self._clock.time()
        requests = list(new_requests(self.layout, ()))
        verbs = {request.verb for _, request in requests} if self.state.ended is not None else set()
        asked = "retry" in verbs or ("enqueue" in verbs and self._takes_more)
        if asked or can_resume(self.state, self.scheduler, self.settings, self._budget, now=now):
            for name, request in requests:
                if request.verb == "stop":  # it was meant for its last life
                    remove_request(self.layout, name)
            self._commit([SweepResumed(now)])

    @property
    def _takes_more(self) -> bool:
        """Whether the budgets leave something for a configuration that is enqueued."""
        most = self.settings.max_trials
        return (most is None or self.state.configurations < most) and self._exhausted_budget() is None

    def _observe(self) -> list[AnyEvent]:
        submitted = [batch.name for batch in self.state.live.values() if batch.job is not None]
        observation = self._observer.observe([self.monitor.submitted(name) for name in submitted])
        events = self.monitor.observe(observation)
        if observation.poll_error is not None:
            self._note_call("poll", observation.poll_error)
        if not self.scheduler.needs_reports:
            return events
        events = self._metrics.before_endings(events)
        ended = {event.run for event in events if isinstance(event, RunFinished | RunInterrupted)}
        running = [
            run
            for task, state in self.monitor.states.items()
            if state.phase is Phase.RUNNING and task.batch in self.state.live
            for run in self.state.live[task.batch].tasks[task.task]
            if run in self.state.live[task.batch].unfinished and run not in ended
        ]
        return [*events, *self._metrics.running(running)]

    @property
    def passed_over(self) -> list[str]:
        """What the last tick passed over in the results folder, one line for each file."""
        return [*self._strays, *self._skipped.lines(self.layout.root)]

    @property
    def phases(self) -> Counter[Phase]:
        """Tasks by what the cluster said of them last."""
        return Counter(state.phase for state in self.monitor.states.values())

    # ------------------------------------------------------------------ commit, then act

    def _commit(self, events: Sequence[AnyEvent]) -> None:
        if not events:
            return
        self._journal.commit(events)
        self._commits += 1
        for event in events:
            self._apply(event)

    def _apply(self, event: AnyEvent) -> None:
        self.state.apply(event)
        self.packing.apply(event)
        self._planner.apply(event)
        self.retention.apply(event)
        for observe in self._observers:
            observe(event)

    def _do(self, step: Step) -> None:
        """Commit the events, then carry out the effects."""
        self._commit(step.events)
        self._carry_out(*step.effects)

    def _carry_out(self, *effects: Effect) -> None:
        for effect in effects:
            self._carry_out_one(effect)

    def _carry_out_one(self, effect: Effect) -> EffectResult:
        """Carry out the effect and commit what came of it."""
        result = self._executor.carry_out(effect)
        self._commit(result.events)
        self.monitor.note(effect, result)
        self._cancellations.note(effect, result)
        self._throttle.note(effect, result)
        self._ticks.note(effect, result)
        return result

    def _note_call(self, asked: Asked, message: str) -> None:
        """Record how a query of the cluster went; the message is empty if it succeeded."""
        now = self._clock.time()
        if message:
            self._commit(call_failed(self.state, asked, message, now=now))
        else:
            self._commit(call_succeeded(self.state, asked, now=now))

    # ------------------------------------------------------------------ requests

    def _handle_requests(self) -> None:
        for name, request in list(new_requests(self.layout, self._handled, self._skipped)):
            if name not in self.state.requests:
                events = handle_request(
                    name,
                    request,
                    state=self.state,
                    space=self._space,
                    seed=self.settings.seed,
                    now=self._clock.time(),
                )
                events = [
                    event
                    for event in events
                    if not (isinstance(event, TrialStopped) and self.retention.is_at_its_end(event.trial))
                ]
                stopped = [event.trial for event in events if isinstance(event, TrialStopped)]
                self._commit([*self._last_reports(stopped), *events])
                if stopped:
                    self._carry_out(*self._cancellations.tasks_to_cancel())
            self._handled.add(name)
            self._carry_out(DropRequest(name))

    def _last_reports(self, trials: Sequence[int]) -> list[AnyEvent]:
        """What the trials have reported that are about to be stopped: their values."""
        runs = (self.state.trials[trial].runs[-1] for trial in trials)
        return self._metrics.running([run.id for run in runs if run.status is RunStatus.SUBMITTED])

    def settle(self) -> None:
        """Take in what has happened and what was asked for, and cancel what nobody wants; nothing more."""
        self._reconcile()
        self._commit(self._observe())
        self._handle_requests()
        self._carry_out(*self._cancellations.tasks_to_cancel())
        self._commit(self._submitter.stopped_while_waiting())

    def _reconcile(self) -> None:
        """Settle the batches that were planned and never acknowledged."""
        now = self._clock.time()
        for batch in [batch for batch in self.state.live.values() if batch.job is None]:
            try:
                sighting = self._observer.sighting(batch)
            except ClusterUnavailable as error:
                self._note_call("find", str(error))
                continue
            if not sighting.abandoned:
                self._note_call("find", "")
            self._do(self._submitter.reconcile(batch, sighting, now=now, settle_s=self.cluster.settle_s))

    @cached_property
    def _limits(self) -> Limits:
        """What the site allows. Asked only where something is to be submitted: a tick must stay cheap."""
        return self.cluster.limits()

    def _check_health(self) -> None:
        nodes: tuple[str, ...] = ()
        if self.state.node_faults:
            with contextlib.suppress(ClusterUnavailable):
                nodes = self._limits.nodes
        now = self._clock.time()
        self._commit(
            check_health(
                self.state,
                now=now,
                nodes=nodes,
                fail_fast=self.settings.fail_fast,
                longest_s=self.monitor.longest_s(now),
            )
        )

    # ------------------------------------------------------------------ decide and submit

    def _plan_and_submit(self) -> None:
        per_task = self.settings.shape.runs
        self._budget.hold(self._throttle.task_gpus)
        free, affordable = self._throttle.free, self._affordable
        new = max(0, free if affordable is None else min(free, affordable))
        waiting = -(-len(self.state.waiting) // per_task)
        events = self._planner.decide(max(0, new - waiting) * per_task)
        events += self._submitter.stopped_while_waiting(events)
        runs = self._submitter.queue(events)
        if runs and not self._fits_max_gpus():
            runs = []
        free, affordable = self._throttle.free, self._affordable
        most = self._allowed(-(-len(runs) // per_task), affordable)
        planned = self._plan(runs[: most * per_task], free)
        # A scheduler changed its mind: checkpoints that are half removed are of no use.
        for event in events:
            if isinstance(event, TrialPromoted) and event.trial in self.state.dropping:
                self._carry_out(DiscardCheckpoints(event.trial))
        self._commit([*events, *planned])
        if any(isinstance(event, TrialStopped) for event in events):
            self._carry_out(*self._cancellations.tasks_to_cancel())
        while refused := self._submit(planned):
            self._backoff.refused(refused, open_tasks=self._throttle.open_tasks, now=self._clock.time())
            planned = self._plan(self._submitter.queue()[: refused // 2 * per_task], free)
            self._commit(planned)

    @property
    def _affordable(self) -> int | None:
        """How many tasks the budgets allow to be submitted now; None: any number."""
        affordable = self._budget.tasks_left(
            self.state, open_tasks=self.monitor.open_tasks, unbooked_gpu_s=self.monitor.unbooked_gpu_s
        )
        return affordable if self._exhausted_budget() is None else 0  # what runs may still be stopped

    def _fits_max_gpus(self) -> bool:
        """Whether the cluster told what a task will hold, and one fits below the cap."""
        if not self._throttle.expected_gpus:
            with contextlib.suppress(ClusterUnavailable):
                self._throttle.expected_gpus = self.cluster.allocation_of(self.settings.shape).gpus
        self._budget.hold(self._throttle.task_gpus)
        most, each = self.settings.max_gpus, self._throttle.task_gpus
        if most is None or each <= most:
            return True
        reason = f"a task holds {each} GPUs, and cluster.max_gpus is {most}: raise it"
        self._commit([PauseRequested(self._clock.time(), reason)])
        return False

    def _submit(self, planned: Sequence[BatchPlanned]) -> int:
        """Submit batches in order; the size of one that a submit limit refused, after which none is tried.

        Raises:
            SubmitRefused: For another reason. The runs wait.
        """
        for index, batch in enumerate(planned):
            after = self._throttle.to_wait_for
            submission = self._submitter.submission(batch, now=self._clock.time(), after=after)
            error = self._carry_out_one(submission).error
            if error is None:
                self._backoff.accepted()
            elif isinstance(error, SubmitRefused | SpecError):
                limited = isinstance(error, SubmitLimited)
                self._do(self._submitter.abandon(planned[index:], str(error), limited=limited))
                if not limited:
                    raise error
                return len(batch.tasks)
        return 0

    def _plan(self, runs: Sequence[RunId], free: int) -> list[BatchPlanned]:
        if not runs:
            return []
        array_tasks = self._limits.array_tasks
        if free > 0:
            self._journal.acquire()
        return self._submitter.plan(
            runs,
            segment=self._journal.number,
            free=free,
            array_tasks=array_tasks,
            time_s=self._budget.time_s,
            task_gpus=self._throttle.task_gpus,
            now=self._clock.time(),
        )

    def _allowed(self, wanted: int, affordable: int | None) -> int:
        """How many tasks to submit now: what budget and submit limits allow."""
        if affordable is not None:
            wanted = min(wanted, affordable)
        limit = None
        if wanted:
            try:
                limit = self._limits.queued_tasks
            except ClusterUnavailable as error:
                self._note_call("limits", str(error))
                return 0
            self._note_call("limits", "")
        allowed = self._backoff.allowed(
            wanted=wanted,
            open_tasks=self._throttle.open_tasks,
            queued=self.cluster.queued_tasks,
            limit=limit,
            now=self._clock.time(),
        )
        # The job behind the array counts for the limit as well.
        return max(allowed - 1, min(allowed, 1)) if self._detached and allowed < wanted else allowed

    # ------------------------------------------------------------------ who ticks next

    def detach(self) -> None:
        """From now on tick jobs drive the sweep; the first of them looks after it in a minute.

        Raises:
            ClusterError: The cluster takes no tick jobs; nothing has changed.
        """
        if not self._detached:
            self.acquire()
            now = self._clock.time()
            # The effect first, for once: the sweep is not detached where this is refused.
            submitted = submit_tick(self.cluster, self.layout, self._ticks.first(now=now))
            self._commit([SweepDetached(now, self.settings.cluster), submitted])

    @property
    def _detached(self) -> bool:
        return self.state.is_detached(self.settings.cluster)

    @property
    def has_unread(self) -> bool:
        """Whether results or requests have come that the last tick did not take in."""
        known = self._handled.union(self.state.requests)
        return self._observer.has_unread or any(True for _ in new_requests(self.layout, known))

    @property
    def needs_attention(self) -> bool:
        """Whether something is to be done soon of which no job will tell."""
        state = self.state
        if state.ended is not None:
            return False
        if (
            state.stopping is not None
            or self.monitor.undecided
            or not state.live
            or self.scheduler.needs_reports
        ):
            return True
        # The job behind an array tells of its end once: this one may be it.
        spent = ("", self._host.job if self._host else "")
        return any(batch.job is None or batch.tick_job in spent for batch in state.live.values())

    def _keep_ticking(self) -> None:
        if self._detached and self.state.ended is None:
            active = {task.batch for task, state in self.monitor.states.items() if state.phase.active}
            self._ticks.jobs = self.cluster.known_jobs
            self._do(self._ticks.behind_arrays(now=self._clock.time(), active=active))

    def schedule_successor(self) -> None:
        """Make sure that somebody looks at a detached sweep again: soon where no job will tell of it."""
        if self._detached and self.state.ended is None:
            self._ticks.jobs = self.cluster.known_jobs
            self._do(self._ticks.later(soon=self.needs_attention, now=self._clock.time()))

    @property
    def unattended(self) -> str:
        """Why no tick job could be submitted, empty if one was or none is needed."""
        return self._ticks.error if self._detached and self.state.ended is None else ""

    # ------------------------------------------------------------------ budgets and the end

    def _exhausted_budget(self) -> str | None:
        return exhausted_budget(self.state, self.settings, self._budget, now=self._clock.time())

    def _end_if_done(self) -> None:
        state, now = self.state, self._clock.time()
        if state.ended is not None or state.live:
            return
        exhausted = self._exhausted_budget()
        if state.stopping is None:
            confirmed, event = confirm_time_over(state, self.settings, now=now, since=self._began)
            self._commit([event] if event is not None else [])
            if not confirmed:
                return
        end = sweep_end(state, self.scheduler, exhausted=exhausted, now=now)
        if end is None:
            return
        self._commit([end])
        host = self._host.job if self._host else ""
        others = tuple(job for job in state.tick_jobs if job != host)
        if others:  # they would find that the sweep has ended
            self._carry_out(CancelTicks(others))
