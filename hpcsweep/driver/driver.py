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
    Ending,
    Enqueued,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    StopRequested,
    SweepEnded,
    SweepResumed,
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
)
from hpcsweep.core.space import Space
from hpcsweep.core.state import BatchState, Run, RunStatus, SweepState, Trial
from hpcsweep.driver.budgets import spent_budget, work_left
from hpcsweep.driver.deciding import Deciding
from hpcsweep.driver.following import Following
from hpcsweep.driver.settings import Settings
from hpcsweep.driver.throttles import Share, free_slots, lowered, raised
from hpcsweep.driver.watching import Watching
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitRefused, SubmitUncertain
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
        self._limits = cluster.limits()
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
        for event in journal.events:
            self._apply(event)
            if isinstance(event, BatchThrottled):
                self._throttle_due.add(event.batch)
        self.following = Following(
            self.state,
            layout=layout,
            cluster=cluster,
            shape=settings.shape,
            max_idle_faults=settings.max_idle_faults,
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
        self._commit(self._observe())
        for batch, task in self.following.given_up():
            self._cancel(batch, [task])
        self._take_requests()
        if self.state.stopping is not None:
            self._cancel_everything()
        else:
            self._rethrottle()
            self._plan_and_submit()
        self._end_if_done()
        return self._commits > before

    def start(self, *events: AnyEvent) -> None:
        """Begin the sweep with these events if it is new; carry it on if it had ended and there is work left.

        Args:
            events: `SweepStarted`, then what is known at the beginning. Read only if it is new.
        """
        if self.state.started is None:
            self._commit(events)
        elif work_left(self.state, self.scheduler, self.settings, now=self._clock.time()):
            for name, request in list(new_requests(self.layout, ())):
                if request.verb == "stop":  # it was meant for its last life
                    drop_request(self.layout, name)
            self._commit([SweepResumed(self._clock.time())])

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

    def _abandon(self, name: str, reason: str) -> None:
        """Fence the batch off, then let its runs wait again: a task that starts all the same leaves."""
        files = self.layout.batch(name)
        with explained(self.layout.root):
            make_dirs(files.root)
            write_atomic(files.void, reason.encode())
        self._commit([BatchAbandoned(name, reason)])

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
            case _:
                return []

    def _cancel_everything(self) -> None:
        for batch in list(self.state.live.values()):
            open_tasks = self.following.live(batch).open_tasks
            if batch.job is not None and open_tasks:
                self._cancel(batch, open_tasks)

    def _cancel(self, batch: BatchState, tasks: Sequence[int]) -> None:
        # What it could not cancel now, a later tick or the task's own time limit ends.
        with contextlib.suppress(ClusterUnavailable):
            self.cluster.cancel(self.following.live(batch), tasks)

    # ------------------------------------------------------------------ slots

    @property
    def _cap(self) -> int:
        caps = [cap for cap in (self.settings.max_tasks, self._limits.slots) if cap is not None]
        return min(caps, default=_MOST_TASKS)

    def _shares(self) -> list[Share]:
        gpus = self.settings.shape.gpus or 1
        return [
            Share(self.following.open_tasks(batch), batch.throttle, max(1, -(-batch.gpus // gpus)))
            for batch in self.state.live.values()
        ]

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
        if self._spent_budget() is not None:
            return
        free = free_slots(self._cap, self._shares())
        waiting = -(-len(self.state.waiting) // self.settings.shape.runs)
        events = self._deciding.decide(max(0, free - waiting) * self.settings.shape.runs)
        runs = self._queue(events)
        planned: list[BatchPlanned] = []
        per_batch = (self._limits.array_tasks or _UNLIMITED) * self.settings.shape.runs
        for chunk in _chunks(runs, per_batch):
            if free <= 0:
                break
            tasks = tuple(_chunks(chunk, self.settings.shape.runs))
            throttle = min(free, len(tasks))
            free -= throttle
            planned.append(
                BatchPlanned(
                    self._new_name(),
                    self._clock.time(),
                    tasks,
                    gpus=self.settings.shape.gpus,
                    throttle=throttle,
                    cluster=self.settings.cluster,
                )
            )
        self._commit([*events, *planned])
        for event in events:
            if isinstance(event, TrialStopped):
                self._stop_trial(event)
        for position, batch in enumerate(planned):
            try:
                self._submit(batch)
            except (SubmitRefused, SpecError) as refusal:
                for other in planned[position:]:
                    self._abandon(other.batch, str(refusal))
                raise

    def _stop_trial(self, event: TrialStopped) -> None:
        """End the trial's unfinished run: cancelled where it is on the cluster."""
        run = self.state.trials[event.trial].runs[-1]
        if run.status is RunStatus.WAITING:
            step, value = run.reported or (0, None)
            ending = RunFinished(run.trial, run.rung, Outcome.STOPPED, value, step, message=event.reason)
            self._commit([ending])
        elif run.status is RunStatus.SUBMITTED and self.state.live[run.batch].job is not None:
            self._cancel(self.state.live[run.batch], [run.task])

    def _queue(self, events: Sequence[AnyEvent]) -> list[RunId]:
        """All waiting runs: interrupted ones first, then promotions, then new trials."""
        waiting = sorted(self.state.waiting, key=lambda run: self.state.run(run).attempts == 0)
        promoted = [RunId(e.trial, e.rung) for e in events if isinstance(e, TrialPromoted)]
        created = [RunId(e.trial, 0) for e in events if isinstance(e, TrialCreated)]
        return [*waiting, *promoted, *created]

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
        )
        with explained(self.layout.root):
            make_dirs(files.root)
            write_manifest(
                files, header, ([self._manifest_run(run) for run in task] for task in planned.tasks)
            )
        self._journal.check()
        batch = Batch(planned.batch, files.root, len(planned.tasks), planned.throttle, self.settings.shape)
        try:
            job = self.cluster.submit(batch)
        except (SubmitUncertain, ClusterUnavailable):
            return
        self._commit([BatchSubmitted(planned.batch, job, self._clock.time())])

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

    # ------------------------------------------------------------------ budgets and the end

    def _spent_budget(self) -> str | None:
        return spent_budget(self.state, self.settings, now=self._clock.time())

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
