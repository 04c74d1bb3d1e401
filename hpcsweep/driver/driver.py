"""One tick: read results, read the cluster, decide, submit. Intent is on disk before effect."""

from __future__ import annotations

import contextlib
import itertools
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Sequence

from numpy.random import default_rng

from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    Detached,
    Ending,
    Enqueued,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    StopRequested,
    SweepEnded,
    SweepResumed,
    TasksReleased,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.filling import filled
from hpcsweep.core.protocols import (
    Batch,
    Clock,
    Cluster,
    Phase,
    Scheduler,
    Searcher,
    TaskId,
)
from hpcsweep.core.space import Space
from hpcsweep.core.state import BatchState, Run, RunStatus, SweepState, Trial
from hpcsweep.driver.budgets import GpuBudget, spent_budget, work_left
from hpcsweep.driver.deciding import Deciding
from hpcsweep.driver.following import Following
from hpcsweep.driver.health import excluded, unhealthy
from hpcsweep.driver.settings import Leaving, Settings
from hpcsweep.driver.throttles import Share, free_slots, lowered, raised
from hpcsweep.driver.ticking import Ticking
from hpcsweep.driver.turns import Turn
from hpcsweep.driver.watching import Watching
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitLimited, SubmitRefused, SubmitUncertain
from hpcsweep.store.control import Request, drop_request, new_requests
from hpcsweep.store.files import explained, make_dirs, write_atomic
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.manifest import Header, ManifestRun, write_manifest
from hpcsweep.store.results import new_results

_UNLIMITED = 1_000_000
#: Tasks at a time where nothing caps them: an endless scheduler would fill any number of slots.
_MOST_TASKS = 1000
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
        settings: Settings,
        leaving: Leaving | None = None,
        observers: Sequence[Callable[[AnyEvent], None]] = (),
    ) -> None:
        self.state = SweepState()
        self.scheduler = scheduler
        self.cluster = cluster
        self.settings = settings
        self.layout = layout
        self._journal = journal
        self._clock = clock
        self._space = space
        self._leaving = leaving
        self._limits = cluster.limits()
        self._budget = GpuBudget(settings, default_time_s=self._limits.time_s)
        self._turn = Turn()
        self._ticking = Ticking(self.state, cluster=cluster, layout=layout)
        self._deciding = Deciding(
            self.state, scheduler=scheduler, searcher=searcher, space=space, settings=settings
        )
        self._batch_numbers = itertools.count(1)
        self._commits = 0
        self._observers = observers
        #: Clean empty answers to "is this batch there?", by batch.
        self._not_found: Counter[str] = Counter()
        #: Batches whose throttle on the cluster may differ from the one in the journal.
        self._throttle_due: set[str] = set()
        #: Tasks that this session has cancelled because nobody wants them.
        self._cancelled: set[TaskId] = set()
        for event in journal.events:
            self._apply(event)
            if isinstance(event, BatchThrottled):
                self._throttle_due.add(event.batch)
        if self.state.limited:
            tasks, others, at = self.state.kept_out
            self._turn.refused(tasks, open_tasks=others, now=at)
        self.following = Following(
            self.state,
            layout=layout,
            cluster=cluster,
            settings=settings,
        )
        self._watching = Watching(self.state, layout=layout, program=settings.program)

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
                return
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
        self._adopt()
        self._keep_ticking()  # before anything else that may fail: an adopted array has nobody behind it
        self._commit(self._observe())
        self._cancel_unwanted()
        self._let_go()
        self._take_requests()
        self._commit(unhealthy(self.state, now=self._clock.time(), nodes=self._limits.nodes))
        if self.state.stopping is not None:
            self._cancel_everything()
        elif self.state.pausing is not None:
            self._cancel_what_never_starts()
        else:
            self._rethrottle()
            self._plan_and_submit()
        self._end_if_done()
        self._keep_ticking()
        return self._commits > before

    def start(self, *events: AnyEvent) -> None:
        """Begin the sweep with these events if it is new; carry it on if it had ended and there is work left.

        Args:
            events: `SweepStarted`, then what is known at the beginning. Read only if it is new.
        """
        if self.state.started is None:
            self._commit(events)
            return
        now = self._clock.time()
        requests = list(new_requests(self.layout, ()))
        retry = self.state.ended is not None and any(request.verb == "retry" for _, request in requests)
        if retry or work_left(self.state, self.scheduler, self.settings, self._budget, now=now):
            for name, request in requests:
                if request.verb == "stop":  # it was meant for its last life
                    drop_request(self.layout, name)
            self._commit([SweepResumed(now)])

    def _observe(self) -> list[AnyEvent]:
        events = self.following.observe(self._clock.time())
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
        self._deciding.apply(event)
        for observe in self._observers:
            observe(event)

    # ------------------------------------------------------------------ batches that may be there

    def _adopt(self) -> None:
        """Settle the batches that were planned and never acknowledged."""
        now = self._clock.time()
        for batch in [batch for batch in self.state.live.values() if batch.job is None]:
            files = self.layout.batch(batch.name)
            if not files.void.exists():
                try:
                    job = self.cluster.find(batch.name)
                except ClusterUnavailable:
                    continue
                job = job or self._job_by_results(files)
                if job is not None:
                    self._commit([BatchSubmitted(batch.name, job, now)])
                    continue
                self._not_found[batch.name] += 1
                # The script is written just before the cluster is called. Without it nothing was
                # submitted; with it a submission may still be on its way for a while.
                settled = self._not_found[batch.name] >= 2 and now - batch.planned_at >= self.cluster.settle_s
                if files.script.exists() and not settled:
                    continue
            self._abandon(batch.name, "it never reached the cluster")

    @staticmethod
    def _job_by_results(files: BatchLayout) -> str | None:
        """The job of a batch that the cluster has forgotten already, by what its tasks left."""
        for _, result in new_results(files, ()):
            return result.job.partition("_")[0] or None
        return None

    def _abandon(self, name: str, reason: str, *, limited: bool = False) -> None:
        """Fence the batch off, then let its runs wait again: a task that starts all the same leaves."""
        files = self.layout.batch(name)
        with explained(self.layout.root):
            make_dirs(files.root)
            write_atomic(files.void, reason.encode())
        self._commit([BatchAbandoned(name, reason, limited)])

    # ------------------------------------------------------------------ requests

    def _take_requests(self) -> None:
        for name, request in list(new_requests(self.layout, ())):
            if name not in self.state.requests:
                self._commit(self._answer(name, request))
            drop_request(self.layout, name)

    def _answer(self, name: str, request: Request) -> list[AnyEvent]:
        """What follows from a request; nothing from one that makes no sense here."""
        match request.verb:
            case "stop":
                return [StopRequested(self._clock.time(), f"stopped by {request.user}", name)]
            case "enqueue":
                rng = default_rng([self.settings.seed, zlib.crc32(name.encode()), 1])
                try:
                    config = filled(self._space, request.arguments.get("config", {}), rng)
                except (SpecError, AttributeError) as error:
                    _log.warning("%s: the request is passed over: %s", name, error)
                    return []
                return [Enqueued((config,), name)]
            case "retry":
                return self._retried(name, request)
            case _:
                return []

    def _retried(self, name: str, request: Request) -> list[AnyEvent]:
        """Failed runs are tried again, those of one trial or all; and a pause is over."""
        wanted = request.arguments.get("trial")
        runs = [
            trial.runs[-1]
            for trial in self.state.trials
            if trial.runs[-1].status is RunStatus.FAILED
            and not trial.stopped
            and wanted in (None, trial.trial)
        ]
        paused = self.state.pausing is not None and self.state.stopping is None
        resumed = [SweepResumed(self._clock.time())] if paused else []
        return [*resumed, *(RunRetried(run.trial, run.rung, name) for run in runs)]

    def _let_go(self) -> None:
        """Release, once, what the cluster put back and holds; pause where tasks can never start."""
        for name, tasks in self.following.held.items():
            batch = self.state.live[name]
            with contextlib.suppress(ClusterUnavailable):
                self.cluster.release(self.following.live(batch), tasks)
                self._commit([TasksReleased(name, tuple(tasks))])
        if self.following.never and self.state.pausing is None and self.state.stopping is None:
            name = next(iter(self.following.never))
            words = self.state.live[name].hindered
            reason = f"its jobs can never start ({words}): mend the spec, then launch again"
            self._commit([PauseRequested(self._clock.time(), reason)])

    def _cancel_what_never_starts(self) -> None:
        for name, tasks in self.following.never.items():
            if name in self.state.live:
                self._cancel(self.state.live[name], tasks)

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

    def _cancel(self, batch: BatchState, tasks: Sequence[int]) -> bool:
        """Whether the cluster took it; if not, a later tick tries again."""
        try:
            self.cluster.cancel(self.following.live(batch), tasks)
        except ClusterUnavailable:
            return False
        return True

    # ------------------------------------------------------------------ slots

    @property
    def _cap(self) -> int:
        caps = [cap for cap in (self.settings.max_tasks, self._limits.slots) if cap is not None]
        return min(caps, default=_MOST_TASKS)

    def _shares(self, *, leaving: bool = True) -> list[Share]:
        """What the live batches may take, with or without the task that this driver runs in."""
        gpus = self.settings.shape.gpus or 1
        return [
            Share(
                self.following.open_tasks(batch) - (not leaving and self._is_leaving(batch)),
                batch.throttle,
                max(1, -(-batch.gpus // gpus)),
            )
            for batch in self.state.live.values()
        ]

    def _is_leaving(self, batch: BatchState) -> bool:
        mine = self._leaving
        if mine is None or mine.batch != batch.name:
            return False
        return mine.task in self.following.live(batch).open_tasks

    def _rethrottle(self) -> None:
        """Hand the slots of arrays that run out to arrays that could use them."""
        batches = list(self.state.live.values())
        shares = self._shares()
        over = free_slots(self._cap, shares) < 0
        throttles = lowered(self._cap, shares) if over else raised(self._cap, shares)
        for batch, throttle in zip(batches, throttles, strict=True):
            if batch.job is None:
                continue
            try:
                if throttle > batch.throttle:  # counted before it holds, so that the cap always does
                    self._commit([BatchThrottled(batch.name, throttle)])
                    self._throttle_due.add(batch.name)
                elif throttle < batch.throttle:
                    self.cluster.throttle(self.following.live(batch), throttle)
                    self._commit([BatchThrottled(batch.name, throttle)])
                if batch.name in self._throttle_due:
                    self.cluster.throttle(self.following.live(batch), throttle)
                    self._throttle_due.discard(batch.name)
            except ClusterUnavailable:
                continue

    # ------------------------------------------------------------------ decide and submit

    def _plan_and_submit(self) -> None:
        per_task = self.settings.shape.runs
        free = free_slots(self._cap, self._shares(leaving=False))
        affordable = self._budget.tasks_left(
            self.state, open_tasks=self.following.open_tasks, unbooked_gpu_s=self.following.unbooked_gpu_s
        )
        if self._spent_budget() is not None:
            affordable = 0  # what runs may still be stopped
        new = max(0, free if affordable is None else min(free, affordable))
        waiting = -(-len(self.state.waiting) // per_task)
        events = self._deciding.decide(max(0, new - waiting) * per_task)
        events += self._stopped_while_waiting(events)
        runs = self._queue(events)
        most = self._room(-(-len(runs) // per_task), affordable)
        planned = self._planned(runs[: most * per_task], free)
        self._commit([*events, *planned])
        self._cancel_unwanted()
        while (refused := self._submit_all(planned)) > 1:
            planned = self._planned(self._queue([])[: refused // 2 * per_task], free)
            self._commit(planned)

    def _room(self, wanted: int, affordable: int | None) -> int:
        """How many tasks to submit now: what budget and submit limits allow."""
        if affordable is not None:
            wanted = min(wanted, affordable)
        room = self._turn.room(
            wanted=wanted,
            open_tasks=self._open_tasks,
            queued=self.cluster.queued,
            limit=self._limits.queued,
            now=self._clock.time(),
        )
        # The job behind the array counts for the limit as well.
        return max(room - 1, min(room, 1)) if self._detached and room < wanted else room

    @property
    def _open_tasks(self) -> int:
        return sum(self.following.open_tasks(batch) for batch in self.state.live.values())

    def _planned(self, runs: Sequence[RunId], free: int) -> list[BatchPlanned]:
        """Arrays that carry these runs, as far as there are slots for one task of each."""
        planned: list[BatchPlanned] = []
        shape = self.settings.shape
        for chunk in _chunks(runs, (self._limits.array_tasks or _UNLIMITED) * shape.runs):
            if free <= 0:
                break
            tasks = tuple(_chunks(chunk, shape.runs))
            throttle = min(free, len(tasks))
            free -= throttle
            planned.append(
                BatchPlanned(
                    self._new_name(),
                    self._clock.time(),
                    tasks,
                    gpus=shape.gpus,
                    throttle=throttle,
                    cluster=self.settings.cluster,
                    time_s=self._budget.time_s,
                )
            )
        return planned

    def _submit_all(self, planned: Sequence[BatchPlanned]) -> int:
        """Submit them in order; the size of one that a submit limit kept out, after which none is tried.

        Raises:
            SubmitRefused: For another reason. The runs wait.
        """
        for position, batch in enumerate(planned):
            try:
                self._submit(batch)
            except (SubmitRefused, SpecError) as refusal:
                limited = isinstance(refusal, SubmitLimited)
                for other in planned[position:]:
                    self._abandon(other.batch, str(refusal), limited=limited and other is batch)
                if not limited:
                    raise
                self._turn.refused(len(batch.tasks), open_tasks=self._open_tasks, now=self._clock.time())
                return len(batch.tasks)
        return 0

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
        promoted = [RunId(e.trial, e.rung) for e in events if isinstance(e, TrialPromoted)]
        created = [RunId(e.trial, 0) for e in events if isinstance(e, TrialCreated)]
        return [*waiting, *promoted, *created]

    def _is_dying(self, run: RunId) -> bool:
        """Whether its batch dies at once, as far as one knows yet: then its runs go in again together."""
        batch = self.state.live.get(self.state.run(run).batch)
        return batch is not None and not batch.lived and not self.following.lives(batch)

    def _new_name(self) -> str:
        # The segment's number makes it unique even against a driver that was taken over from.
        assert self.state.started is not None
        self._journal.acquire()
        number = next(self._batch_numbers)
        return f"{self.settings.name}-{self.state.started.sweep}-{self._journal.number}-{number}"

    def _submit(self, planned: BatchPlanned) -> None:
        """Write what the tasks are to do, then submit the array.

        Raises:
            SubmitRefused: For certain. An uncertain outcome is settled by later ticks.
        """
        files = self.layout.batch(planned.batch)
        assert self.state.started is not None
        header = Header(
            planned.batch,
            self.state.started.sweep,
            self.settings.program,
            gpus=self.settings.shape.gpus,
            lanes=self.settings.shape.lanes,
            tick=self._detached,
        )
        with explained(self.layout.root):
            make_dirs(files.root)
            write_manifest(
                files, header, ([self._manifest_run(run) for run in task] for task in planned.tasks)
            )
        self._journal.check()
        batch = Batch(
            planned.batch,
            files.root,
            len(planned.tasks),
            planned.throttle,
            self.settings.shape,
            exclude=excluded(self.state, now=self._clock.time()),
            # What the cluster would run again by itself could carry the sweep beyond its budget.
            requeue=not self._budget.capped,
            after=self._place_to_wait_for(),
        )
        try:
            job = self.cluster.submit(batch)
        except (SubmitUncertain, ClusterUnavailable):
            return
        self._commit([BatchSubmitted(planned.batch, job, self._clock.time())])

    def _place_to_wait_for(self) -> str:
        """The task that this driver runs in, where the cap holds only once that has ended."""
        if self._leaving is None or not self._leaving.batch or free_slots(self._cap, self._shares()) >= 0:
            return ""
        return self._leaving.job

    def _manifest_run(self, run_id: RunId) -> ManifestRun:
        trial = self.state.trials[run_id.trial]
        run: Run = trial.runs[run_id.rung]
        return ManifestRun(
            trial=run_id.trial,
            rung=run_id.rung,
            bracket=trial.bracket,
            resource=run.resource,
            attempt=run.attempts - 1,
            seed=zlib.crc32(f"{self.settings.seed}:{run_id.trial}".encode()),
            config=trial.config,
            parent=trial.parent,
            parent_step=trial.start,
            keep=self._kept_steps(trial, run),
        )

    def _kept_steps(self, trial: Trial, run: Run) -> tuple[int, ...]:
        """Steps whose checkpoints others start from: known clones, and those that come while it runs."""
        if not self.scheduler.clones:
            return ()
        steps = set(self.state.clone_steps(trial.trial))
        if run.rung:
            steps.add(trial.runs[run.rung - 1].resource)
        return tuple(sorted(steps))

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
            self._commit([Detached(now, self.settings.cluster), first])

    @property
    def _detached(self) -> bool:
        """Whether the jobs of this very cluster drive the sweep."""
        detached = self.state.detached
        return detached is not None and detached.cluster == self.settings.cluster

    @property
    def behind(self) -> bool:
        """Whether results or requests have come that the last tick did not take in."""
        return self.following.unread or any(True for _ in new_requests(self.layout, self.state.requests))

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
            self._commit(self._ticking.behind_arrays(now=self._clock.time()))

    def leave(self) -> None:
        """See to it that a detached sweep is looked at again: soon where no job will tell of it."""
        if self._detached and self.state.ended is None:
            self._commit(self._ticking.later(soon=self.needs_attention, now=self._clock.time()))

    # ------------------------------------------------------------------ budgets and the end

    def _spent_budget(self) -> str | None:
        return spent_budget(self.state, self.settings, self._budget, now=self._clock.time())

    def _end_if_done(self) -> None:
        state = self.state
        if state.ended is not None or state.live:
            return
        spent = self._spent_budget()
        if state.stopping is not None:
            ending, reason = Ending.STOPPED, state.stopping.reason
        elif spent is not None:
            ending, reason = Ending.FINISHED, spent
        elif self.scheduler.done and not state.waiting:
            stop = state.no_more_trials
            ending, reason = Ending.FINISHED, stop.reason if stop else "all trials are done"
        elif state.pausing is not None:
            ending, reason = Ending.PAUSED, state.pausing.reason
        else:
            return
        if ending is Ending.FINISHED and state.best is None:
            ending = Ending.FAILED
            failure = state.last_failure
            if failure is not None:
                reason = f"no run gave a value; the last failure: {failure.message}"
            else:
                reason = f"no run gave a value; {reason}"
        self._commit([SweepEnded(self._clock.time(), ending, reason)])


def _chunks(items: Sequence[RunId], size: int) -> list[tuple[RunId, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
