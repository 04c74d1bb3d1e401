"""One tick: read results, read the cluster, decide, submit. Intent is on disk before effect."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from hpcsweep.core.compaction import CompactionState
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchThrottled,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepDetached,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    TasksReleased,
    TimeUp,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.models import BatchState, RunStatus
from hpcsweep.core.protocols import (
    Clock,
    Cluster,
    Limits,
    Phase,
    Scheduler,
    Searcher,
    TaskId,
)
from hpcsweep.core.retention import Retention
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.budgets import GpuBudget, is_time_over, spent_budget, work_left
from hpcsweep.driver.cluster_messages import ClusterMessages
from hpcsweep.driver.compaction import CompactionManager
from hpcsweep.driver.compactor import Compactor
from hpcsweep.driver.config import DriverConfig, HostTask
from hpcsweep.driver.health import unhealthy
from hpcsweep.driver.intermediate import MetricsPoller
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.planner import Planner
from hpcsweep.driver.requests import answered
from hpcsweep.driver.submit_backoff import SubmitBackoff
from hpcsweep.driver.submitter import Submitter
from hpcsweep.driver.throttle import ThrottleManager
from hpcsweep.driver.tick_scheduler import TickScheduler
from hpcsweep.errors import ClusterUnavailable, HeldError, SupersededError
from hpcsweep.store import checkpoints
from hpcsweep.store.files import explained
from hpcsweep.store.journal.segments import list_segments
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import drop_request, new_requests
from hpcsweep.store.skipped import Skipped
from hpcsweep.store.stops import order_stop

_log = logging.getLogger(__name__)


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
        leaving: The task that this driver runs in, which ends as soon as it has ticked.
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
        leaving: HostTask | None = None,
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
        self._leaving = leaving
        asks = settings.max_gpu_s is not None and settings.shape.time_s is None
        self._budget = GpuBudget(settings, default_time_s=self._limits.time_s if asks else None)
        self._turn = SubmitBackoff()
        self._words = ClusterMessages(self.state, clock=clock, commit=self._commit)
        self._ticking = TickScheduler(self.state, cluster=cluster, layout=layout)
        self._deciding = Planner(
            self.state, scheduler=scheduler, searcher=searcher, space=space, settings=settings
        )
        self._commits = 0
        self._began = clock.time()
        self._observers = observers
        self._passed_over = Skipped()
        list_segments(layout.journal, self._passed_over)
        #: Stray files of the journal's folder, found once: the journal itself was read already.
        self._strays = self._passed_over.lines(layout.root)
        #: Requests that were answered: one that cannot be removed is not answered again.
        self._answered: set[str] = set()
        #: Tasks that this session has cancelled because nobody wants them.
        self._cancelled: set[TaskId] = set()
        #: Runs that it has told their workers to end, by batch.
        self._stopped: set[tuple[str, RunId]] = set()
        for event in journal.events:
            self._apply(event)
        if self.state.limited:
            tasks, others, at = self.state.kept_out
            self._turn.refused(tasks, open_tasks=others, now=at)
        self.following = JobMonitor(
            self.state, layout=layout, cluster=cluster, settings=settings, passed_over=self._passed_over
        )
        self._watching = MetricsPoller(
            self.state, layout=layout, program=settings.program, passed_over=self._passed_over
        )
        self._slots = ThrottleManager(
            self.state,
            cluster=cluster,
            settings=settings,
            following=self.following,
            leaving=leaving,
            commit=self._commit,
            words=self._words,
            doubtful={event.batch for event in journal.events if isinstance(event, BatchThrottled)},
        )
        self._submitting = Submitter(
            self.state,
            layout=layout,
            journal=journal,
            cluster=cluster,
            clock=clock,
            settings=settings,
            slots=self._slots,
            # What the cluster would run again by itself could carry the sweep beyond its budget.
            requeue=not self._budget.capped,
            clones=scheduler.clones,
            commit=self._commit,
            words=self._words,
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
            self._journal.beat()
            delay = shortest if changed else min(longest, delay * 1.5)
            self._clock.sleep(delay)

    def tick(self) -> bool:
        """Take in what has happened and do what follows from it; True if anything changed.

        Raises:
            SubmitRefused: The cluster refused a batch, in its own words. The runs wait.
            SupersededError: A newer driver took over.
        """
        before = self._commits
        self._passed_over.clear()
        self._submitting.adopt()
        self._keep_ticking()  # before anything else that may fail: an adopted array has nobody behind it
        self._commit(self._observe())
        self._cancel_unwanted()
        self._let_go()
        self._take_requests()
        self._look_after_health()
        if self.state.stopping is not None:
            self._cancel_everything()
        elif self.state.pausing is not None:
            self._cancel_what_never_starts()
            if self.state.pausing.is_fail_fast:
                self._cancel_what_waits()
        else:
            self._slots.rethrottle()
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
        if asked or work_left(self.state, self.scheduler, self.settings, self._budget, now=now):
            for name, request in requests:
                if request.verb == "stop":  # it was meant for its last life
                    drop_request(self.layout, name)
            self._commit([SweepResumed(now)])

    @property
    def _takes_more(self) -> bool:
        """Whether the budgets leave something for a configuration that is enqueued."""
        most = self.settings.max_trials
        return (most is None or self.state.chosen < most) and self._spent_budget() is None

    def _observe(self) -> list[AnyEvent]:
        events = self.following.observe(self._clock.time())
        if self.following.words:
            self._words.failed("poll", self.following.words)
        elif self.following.words is not None:
            self._words.answered("poll")
        if not self.scheduler.watches:
            return events
        events = self._watching.before_endings(events)
        ended = {event.run for event in events if isinstance(event, RunFinished | RunInterrupted)}
        running = [
            run
            for task, state in self.following.states.items()
            if state.phase is Phase.RUNNING and task.batch in self.state.live
            for run in self.state.live[task.batch].tasks[task.task]
            if run in self.state.live[task.batch].unended and run not in ended
        ]
        return [*events, *self._watching.running(running)]

    @property
    def passed_over(self) -> list[str]:
        """What the last tick passed over in the results folder, one line for each file."""
        return [*self._strays, *self._passed_over.lines(self.layout.root)]

    @property
    def phases(self) -> Counter[Phase]:
        """Tasks by what the cluster said of them last."""
        return Counter(state.phase for state in self.following.states.values())

    # ------------------------------------------------------------------ truth

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
        self._deciding.apply(event)
        self.retention.apply(event)
        for observe in self._observers:
            observe(event)

    # ------------------------------------------------------------------ requests

    def _take_requests(self) -> None:
        for name, request in list(new_requests(self.layout, self._answered, self._passed_over)):
            if name not in self.state.requests:
                events = answered(
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
                    self._cancel_unwanted()
            self._answered.add(name)
            drop_request(self.layout, name, self._passed_over)

    def _last_reports(self, trials: Sequence[int]) -> list[AnyEvent]:
        """What the trials have reported that are about to be stopped: their values."""
        runs = (self.state.trials[trial].runs[-1] for trial in trials)
        return self._watching.running([run.id for run in runs if run.status is RunStatus.SUBMITTED])

    def settle(self) -> None:
        """Take in what has happened and what was asked for, and cancel what nobody wants; nothing more."""
        self._submitting.adopt()
        self._commit(self._observe())
        self._take_requests()
        self._cancel_unwanted()
        self._commit(self._stopped_while_waiting([]))

    def _let_go(self) -> None:
        """Release, once, what the cluster put back and holds; pause where tasks can never start."""
        for name, tasks in self.following.held.items():
            batch = self.state.live[name]
            try:
                self.cluster.release(self.following.live(batch), tasks)
            except ClusterUnavailable as error:
                self._words.failed("change", str(error))
                continue
            self._words.answered("change")
            self._commit([TasksReleased(name, tuple(tasks))])
        if self.following.never and self.state.pausing is None and self.state.stopping is None:
            name = next(iter(self.following.never))
            words = self.state.live[name].hindered
            reason = f"its jobs can never start ({words}): mend the spec, then launch again"
            self._commit([PauseRequested(self._clock.time(), reason)])

    @cached_property
    def _limits(self) -> Limits:
        """What the site allows. Asked only where something is to be submitted: a tick must stay cheap."""
        return self.cluster.limits()

    def _look_after_health(self) -> None:
        nodes: tuple[str, ...] = ()
        if self.state.node_faults:
            with contextlib.suppress(ClusterUnavailable):
                nodes = self._limits.nodes
        now = self._clock.time()
        self._commit(
            unhealthy(
                self.state,
                now=now,
                nodes=nodes,
                fail_fast=self.settings.fail_fast,
                longest_s=self.following.longest_s(now),
            )
        )

    def _cancel_what_never_starts(self) -> None:
        for name, tasks in self.following.never.items():
            if name in self.state.live:
                self._cancel(self.state.live[name], tasks)

    def _cancel_what_waits(self) -> None:
        """Cancel, once, the tasks that have not begun; their runs wait until the sweep goes on."""
        for name, batch in list(self.state.live.items()):
            waiting = [
                task for task in self.following.waiting(batch) if TaskId(name, task) not in self._cancelled
            ]
            if batch.job is not None and waiting and self._cancel(batch, waiting):
                self._cancelled.update(TaskId(name, task) for task in waiting)
                self.following.dismissed(batch, waiting)

    def _cancel_everything(self) -> None:
        for batch in list(self.state.live.values()):
            open_tasks = self.following.live(batch).open_tasks
            if batch.job is not None and open_tasks:
                self._cancel(batch, open_tasks)

    def _cancel_unwanted(self) -> None:
        """Cancel, once, the tasks that would run for nobody."""
        for batch, task in self.following.unwanted():
            task_id = TaskId(batch.name, task)
            if task_id not in self._cancelled and self._cancel(batch, [task]):
                self._cancelled.add(task_id)
        for batch, run in self.following.unwanted_runs():
            if (batch.name, run) not in self._stopped:
                with explained(self.layout.root):
                    order_stop(self.layout.batch(batch.name), run)
                self._stopped.add((batch.name, run))

    def _cancel(self, batch: BatchState, tasks: Sequence[int]) -> bool:
        """Whether the cluster took it; if not, a later tick tries again."""
        try:
            self.cluster.cancel(self.following.live(batch), tasks)
        except ClusterUnavailable as error:
            self._words.failed("change", str(error))
            return False
        self._words.answered("change")
        return True

    # ------------------------------------------------------------------ decide and submit

    def _plan_and_submit(self) -> None:
        per_task = self.settings.shape.runs
        self._budget.held(self._slots.task_gpus)
        free, affordable = self._slots.free, self._affordable
        new = max(0, free if affordable is None else min(free, affordable))
        waiting = -(-len(self.state.waiting) // per_task)
        events = self._deciding.decide(max(0, new - waiting) * per_task)
        events += self._stopped_while_waiting(events)
        runs = self._queue(events)
        if runs and not self._knows_holding():
            runs = []
        free, affordable = self._slots.free, self._affordable
        most = self._room(-(-len(runs) // per_task), affordable)
        planned = self._planned(runs[: most * per_task], free)
        for event in events:  # a scheduler changed its mind: what is half removed serves nobody
            if isinstance(event, TrialPromoted) and event.trial in self.state.dropping:
                checkpoints.set_aside(self.layout.trial(event.trial))
        self._commit([*events, *planned])
        if any(isinstance(event, TrialStopped) for event in events):
            self._cancel_unwanted()
        while refused := self._submit(planned):
            self._turn.refused(refused, open_tasks=self._slots.open_tasks, now=self._clock.time())
            planned = self._planned(self._queue([])[: refused // 2 * per_task], free)
            self._commit(planned)

    @property
    def _affordable(self) -> int | None:
        """How many tasks the budgets allow to be submitted now; None: any number."""
        affordable = self._budget.tasks_left(
            self.state, open_tasks=self.following.open_tasks, unbooked_gpu_s=self.following.unbooked_gpu_s
        )
        return affordable if self._spent_budget() is None else 0  # what runs may still be stopped

    def _knows_holding(self) -> bool:
        """Whether caps count what a task will hold, and one fits below them; asked before a submission."""
        if not self._slots.expected_gpus:
            with contextlib.suppress(ClusterUnavailable):
                self._slots.expected_gpus = self.cluster.holds(self.settings.shape).gpus
        self._budget.held(self._slots.task_gpus)
        most, each = self.settings.max_gpus, self._slots.task_gpus
        if most is None or each <= most:
            return True
        words = f"a task holds {each} GPUs, and cluster.max_gpus is {most}: raise it"
        self._commit([PauseRequested(self._clock.time(), words)])
        return False

    def _submit(self, planned: Sequence[BatchPlanned]) -> int:
        """See `Submitter.submit`; takes note of what was accepted."""
        refused = self._submitting.submit(planned)
        live = (self.state.live.get(batch.batch) for batch in planned)
        if any(batch is not None and batch.job is not None for batch in live):
            self._turn.accepted()
        return refused

    def _planned(self, runs: Sequence[RunId], free: int) -> list[BatchPlanned]:
        if not runs:
            return []
        array_tasks = self._limits.array_tasks
        return self._submitting.planned(
            runs, free=free, array_tasks=array_tasks, time_s=self._budget.time_s, held=self._slots.task_gpus
        )

    def _room(self, wanted: int, affordable: int | None) -> int:
        """How many tasks to submit now: what budget and submit limits allow."""
        if affordable is not None:
            wanted = min(wanted, affordable)
        try:
            limit = self._limits.queued if wanted else None
        except ClusterUnavailable as error:
            self._words.failed("limits", str(error))
            return 0
        if wanted:
            self._words.answered("limits")
        room = self._turn.room(
            wanted=wanted,
            open_tasks=self._slots.open_tasks,
            queued=self.cluster.queued,
            limit=limit,
            now=self._clock.time(),
        )
        # The job behind the array counts for the limit as well.
        return max(room - 1, min(room, 1)) if self._detached and room < wanted else room

    def _stopped_while_waiting(self, events: Sequence[AnyEvent]) -> list[RunFinished]:
        """The endings of waiting runs whose trials are stopped, by these events or before."""
        reasons = {event.trial: event.reason for event in events if isinstance(event, TrialStopped)}
        found = []
        for run in map(self.state.run, self.state.waiting):
            reason = reasons.get(run.trial) or self.state.trials[run.trial].stopped
            if reason:
                step, value = run.reported or (0, None)
                found.append(RunFinished(run.trial, run.rung, Outcome.STOPPED, value, step, message=reason))
        return found

    def _queue(self, events: Sequence[AnyEvent]) -> list[RunId]:
        """All waiting runs that go on: interrupted ones first, then promotions, then new trials."""
        ended = {event.run for event in events if isinstance(event, RunFinished)}
        waiting = sorted(
            (run for run in self.state.waiting if run not in ended and not self._is_dying(run)),
            key=lambda run: self.state.run(run).attempts == 0,
        )
        promoted = [
            RunId(e.trial, e.rung)
            for e in events
            if isinstance(e, TrialPromoted) and not self.state.trials[e.trial].stopped
        ]
        created = [RunId(e.trial, 0) for e in events if isinstance(e, TrialCreated)]
        return [*waiting, *promoted, *created]

    def _is_dying(self, run: RunId) -> bool:
        """Whether its batch dies at once, as far as one knows yet: then its runs go in again together."""
        batch = self.state.live.get(self.state.run(run).batch)
        return batch is not None and not batch.lived and not self.following.lives(batch)

    # ------------------------------------------------------------------ who ticks next

    def detach(self) -> None:
        """From now on the jobs drive the sweep; the first of them looks after it in a minute.

        Raises:
            ClusterError: The cluster takes no job that ticks; nothing has changed.
        """
        if not self._detached:
            self.acquire()
            now = self._clock.time()
            first = self._ticking.first(now=now)
            self._commit([SweepDetached(now, self.settings.cluster), first])

    @property
    def _detached(self) -> bool:
        return self.state.is_detached(self.settings.cluster)

    @property
    def behind(self) -> bool:
        """Whether results or requests have come that the last tick did not take in."""
        known = self._answered.union(self.state.requests)
        return self.following.unread or any(True for _ in new_requests(self.layout, known))

    @property
    def needs_attention(self) -> bool:
        """Whether something is to be done soon of which no job will tell."""
        state = self.state
        if state.ended is not None:
            return False
        if state.stopping is not None or self.following.waits or not state.live or self.scheduler.watches:
            return True
        # The job behind an array tells of its end once: this one may be it.
        told = ("", self._leaving.job if self._leaving else "")
        return any(batch.job is None or batch.tick in told for batch in state.live.values())

    def _keep_ticking(self) -> None:
        if self._detached and self.state.ended is None:
            active = {task.batch for task, state in self.following.states.items() if state.phase.active}
            self._commit(self._ticking.behind_arrays(now=self._clock.time(), active=active))

    def leave(self) -> None:
        """See to it that a detached sweep is looked at again: soon where no job will tell of it."""
        if self._detached and self.state.ended is None:
            self._commit(self._ticking.later(soon=self.needs_attention, now=self._clock.time()))

    @property
    def unattended(self) -> str:
        """Why no job could be submitted that looks again, empty if one was or none is needed."""
        return self._ticking.refused if self._detached and self.state.ended is None else ""

    # ------------------------------------------------------------------ budgets and the end

    def _spent_budget(self) -> str | None:
        return spent_budget(self.state, self.settings, self._budget, now=self._clock.time())

    def _is_confirmed(self) -> bool:
        """Whether what the wall clock says of `budget.time` has been so for long enough to be believed."""
        now, needed_s = self._clock.time(), self.settings.confirm_s
        over = is_time_over(self.state, self.settings, now=now)
        # Who has been here for so long has seen the time pass.
        if not needed_s or (over and now - self._began >= needed_s):
            return True
        if over is not (self.state.time_up is not None):
            self._commit([TimeUp(now, over)])
        return not over or now - (self.state.time_up or now) >= needed_s

    def _end_if_done(self) -> None:
        state = self.state
        if state.ended is not None or state.live:
            return
        spent = self._spent_budget()
        if state.stopping is None and not self._is_confirmed():
            return
        if state.stopping is not None:
            ending, reason = SweepOutcome.STOPPED, state.stopping.reason
        elif spent is not None:
            ending, reason = SweepOutcome.FINISHED, spent
        elif self.scheduler.done and not state.waiting:
            stop = state.no_more_trials
            ending, reason = SweepOutcome.FINISHED, stop.reason if stop else "all trials are done"
        elif state.pausing is not None:
            ending, reason = SweepOutcome.PAUSED, state.pausing.reason
        else:
            return
        if ending is SweepOutcome.FINISHED and state.best is None:
            ending = SweepOutcome.FAILED
            failure = state.last_failure
            if failure is not None:
                reason = f"no run gave a value; the last failure: {failure.message}"
            else:
                reason = f"no run gave a value; {reason}"
        self._commit([SweepEnded(self._clock.time(), ending, reason)])
        mine = self._leaving.job if self._leaving else ""
        others = [job for job in state.tick_jobs if job != mine]
        if others:
            with contextlib.suppress(ClusterUnavailable):  # they would find the sweep at its end
                self.cluster.dismiss(others)
