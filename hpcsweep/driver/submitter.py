"""Starts runs: which go into which arrays, within caps, budgets and submit limits, and their submission."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpcsweep.core.cluster_protocol import Batch, Limits
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.models import BatchState, Run, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig, SweepContext
from hpcsweep.driver.effects import (
    Abandon,
    Committer,
    DiscardCheckpoints,
    Step,
    Submit,
)
from hpcsweep.driver.failures import excluded
from hpcsweep.driver.job_control import Cancellations, ThrottleManager
from hpcsweep.driver.lifecycle import GpuBudget, exhausted_budget, minutes
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observer, Sighting
from hpcsweep.driver.planner import Planner
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitLimited, SubmitRefused
from hpcsweep.store.batch import Header, ManifestRun, Reuse, trial_seed
from hpcsweep.store.layout import Layout

#: How long to respect a limit learned from a refusal; then more is tried, for it may have been raised.
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 600.0
#: A piece of an array gets an array of its own if it fills at least this share of the limit.
SHARE: Final = 8


class Submitter:
    """Brings runs to the cluster in batches, each once."""

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        settings: DriverConfig,
        monitor: JobMonitor,
        budget: GpuBudget,
        clones: bool,
    ) -> None:
        self._state = state
        self._layout = layout
        self._settings = settings
        #: Of a new task, as far as the site allows it.
        self._shape = settings.shape
        self._monitor = monitor
        self._budget = budget
        # What the cluster would run again by itself could carry the sweep beyond its budget.
        self._requeue = budget.cap_s is None
        self._clones = clones  # whether trials start from checkpoints of others
        self._numbers = itertools.count(1)
        #: How often the cluster answered that it does not know the batch.
        self._not_found: Counter[str] = Counter()
        #: And when this session asked that first.
        self._asked_since: dict[str, float] = {}

    # ------------------------------------------------------------------ batches without an answer

    def reconcile(self, batch: BatchState, sighting: Sighting, *, now: float, settle_s: float) -> Step:
        """What became of a batch that was never acknowledged; its submission may turn up for `settle_s`."""
        if not sighting.abandoned:
            if sighting.job is not None:
                return Step((BatchSubmitted(batch.name, sighting.job, now),))
            self._not_found[batch.name] += 1
            # Without a script nothing was submitted; with one a submission may still be on its way.
            # A clock that was ahead when it was planned does not make it wait for longer than that.
            waited_s = max(now - batch.planned_at, now - self._asked_since.setdefault(batch.name, now))
            settled = self._not_found[batch.name] >= 2 and waited_s >= settle_s
            if sighting.has_script and not settled:
                return Step()
        answer = f"; the answer was: {batch.submit_message}" if batch.submit_message else ""
        return Step(effects=(Abandon(batch.name, f"it never reached the cluster{answer}"),))

    # ------------------------------------------------------------------ what waits

    def queue(self, events: Sequence[AnyEvent] = ()) -> list[RunId]:
        """All runs that wait, once these events hold: interrupted ones, promotions, then new trials."""
        ended = {event.run for event in events if isinstance(event, RunFinished)}
        waiting = sorted(
            (run for run in self._state.waiting if run not in ended and not self._is_held_back(run)),
            key=lambda run: self._state.run(run).attempts == 0,
        )
        promoted = [
            RunId(event.trial, event.rung)
            for event in events
            if isinstance(event, TrialPromoted) and not self._state.trials[event.trial].stopped
        ]
        created = [RunId(event.trial, 0) for event in events if isinstance(event, TrialCreated)]
        return [*waiting, *promoted, *created]

    def _is_held_back(self, run: RunId) -> bool:
        """Whether its batch seems to fail at once: then its runs are submitted again together."""
        batch = self._state.live.get(self._state.run(run).batch)
        return (
            batch is not None
            and not batch.reuse
            and not batch.made_progress
            and not self._monitor.has_run(batch)
        )

    def stopped_while_waiting(self, events: Sequence[AnyEvent] = ()) -> list[RunFinished]:
        """The endings of waiting runs whose trials are stopped, by these events or before."""
        reasons = {event.trial: event.reason for event in events if isinstance(event, TrialStopped)}
        finished = []
        for run in map(self._state.run, self._state.waiting):
            reason = reasons.get(run.trial) or self._state.trials[run.trial].stopped
            if reason:
                step, value = run.last_report or (0, None)
                finished.append(
                    RunFinished(run.trial, run.rung, Outcome.STOPPED, value, step, message=reason)
                )
        return finished

    # ------------------------------------------------------------------ new batches

    def plan(
        self, runs: Sequence[RunId], *, segment: int, free: int, array_tasks: int | None, now: float
    ) -> list[BatchPlanned]:
        """Arrays of at most `array_tasks` that carry these runs in order, while there are free slots.

        The number of the journal's segment, which no other driver has, makes their names unique.
        """
        planned: list[BatchPlanned] = []
        size = array_tasks or max(1, len(runs))
        for first in range(0, len(runs), size):
            if free <= 0:
                break
            tasks = tuple((run,) for run in runs[first : first + size])
            throttle = min(free, len(tasks))
            free -= throttle
            planned.append(self._planned(tasks, throttle, segment=segment, now=now))
        return planned

    def plan_tasks(
        self, tasks: int, *, spares: int = 0, segment: int, limits: Limits, now: float
    ) -> list[BatchPlanned]:
        """Arrays of so many tasks that are given their runs once they have begun; see `plan`.

        As far as they fit into one array, `spares` wait behind its throttle.
        """
        self._shape = self._settings.shape.within(limits.most_times_s)
        most = limits.array_tasks or tasks + spares
        if tasks <= most:
            sizes = [(min(tasks + spares, most), tasks)]
        else:
            sizes = [(min(most, tasks - first),) * 2 for first in range(0, tasks, most)]
        return [
            self._planned(((),) * size, throttle, segment=segment, now=now, reuse=True)
            for size, throttle in sizes
        ]

    def _planned(
        self,
        tasks: tuple[tuple[RunId, ...], ...],
        throttle: int,
        *,
        segment: int,
        now: float,
        reuse: bool = False,
    ) -> BatchPlanned:
        shape, gpus = self._shape, self._budget.task_gpus
        assert self._state.started is not None
        return BatchPlanned(
            f"{self._settings.name}-{self._state.started.sweep}-{segment}-{next(self._numbers)}",
            now,
            tasks,
            gpus=shape.gpus,
            throttle=throttle,
            cluster=self._settings.cluster,
            time_s=minutes(shape.time_s) if shape.time_s else self._budget.time_s,
            gpus_held=gpus if gpus != shape.gpus else 0,
            reuse=reuse,
            lanes=shape.lanes,
            cpus=shape.cpus,
            mem_mib=shape.mem_mib,
        )

    def submission(self, planned: BatchPlanned, *, now: float, after: str = "") -> Submit:
        """The array of a planned batch with its manifest; `after` is a job that has to end first."""
        shape = self._shape
        assert self._state.started is not None
        return Submit(
            Batch(
                planned.batch,
                self._layout.batch(planned.batch).root,
                len(planned.tasks),
                planned.throttle,
                shape,
                exclude=excluded(self._state, now=now),
                requeue=self._requeue,
                after=after,
            ),
            Header(
                planned.batch,
                self._state.started.sweep,
                self._settings.program,
                gpus=shape.gpus,
                lanes=shape.lanes,
                tick=self._state.is_detached(self._settings.cluster),
                fail_fast=0 if planned.reuse or self._state.first_errors.over else self._settings.fail_fast,
                reuse=Reuse(self._settings.idle_s or 0.0, planned.time_s) if planned.reuse else None,
            ),
            tuple(tuple(self.manifest_run(run) for run in task) for task in planned.tasks),
        )

    @staticmethod
    def abandon(planned: Sequence[BatchPlanned], reason: str, *, limited: bool) -> Step:
        """The first of these batches was refused, the others are not tried."""
        return Step(
            effects=tuple(
                Abandon(batch.batch, reason, limited=limited and index == 0)
                for index, batch in enumerate(planned)
            )
        )

    def manifest_run(self, run_id: RunId) -> ManifestRun:
        trial = self._state.trials[run_id.trial]
        run = trial.runs[run_id.rung]
        return ManifestRun(
            trial=run_id.trial,
            rung=run_id.rung,
            bracket=trial.bracket,
            resource=run.resource,
            attempt=run.attempts - 1,
            seed=trial_seed(self._settings.seed, run_id.trial),
            config=trial.config,
            parent=trial.parent,
            parent_step=trial.start,
            keep=self._kept_steps(trial, run),
            best=trial.runs[run.rung - 1].value if run.rung and self._settings.program.at == "best" else None,
        )

    def _kept_steps(self, trial: Trial, run: Run) -> tuple[int, ...]:
        """Steps whose checkpoints others start from: known clones, and those that come while it runs."""
        if not self._clones:
            return ()
        steps = set(self._state.clone_steps(trial.trial))
        if run.rung:
            steps.add(trial.runs[run.rung - 1].resource)
        return tuple(sorted(steps))


@dataclass
class Submission:
    """Starts runs: has them decided, plans arrays, and submits these."""

    sweep: SweepContext
    committer: Committer
    observer: Observer
    monitor: JobMonitor
    planner: Planner
    cancellations: Cancellations
    throttle: ThrottleManager
    submitter: Submitter
    budget: GpuBudget

    #: The driver leaves after this tick, and no other one comes at once.
    leaves: bool = False

    def __post_init__(self) -> None:
        self.backoff, state = SubmitBackoff(), self.sweep.state
        if state.submit_limit:
            tasks, others, at = state.submit_limit_hit
            self.backoff.refused(tasks, open_tasks=others, now=at)

    def hand_over(self) -> None:
        """Give runs to tasks that have begun; here each was submitted with its own."""

    def dismiss(self) -> None:
        """Have tasks leave that have no run: nothing will be given to them."""

    def run(self) -> None:
        """Start what there is to start; SubmitRefused if the cluster refused a batch: its runs wait."""
        self.committer.do(self.throttle.rethrottle())
        self.budget.task_gpus = self.throttle.task_gpus
        free, affordable = self.throttle.free, self._affordable
        new = max(0, free if affordable is None else min(free, affordable))
        events = self.planner.decide(max(0, new - len(self.sweep.state.waiting)))
        events += self.submitter.stopped_while_waiting(events)
        runs = self.submitter.queue(events)
        if runs and not self.fits_max_gpus():
            runs = []
        free, affordable = self.throttle.free, self._affordable
        planned = self._plan(runs[: self.allowed(len(runs), affordable)], free)
        self.before_decisions(events)
        self.committer.commit([*events, *planned])
        self.after_decisions(events)
        while refused := self.submit(planned):
            self.backoff.refused(refused, open_tasks=self.throttle.open_tasks, now=self.sweep.now)
            planned = self._plan(self.submitter.queue()[: refused // 2], free)
            self.committer.commit(planned)

    def before_decisions(self, events: Sequence[AnyEvent]) -> None:
        # A scheduler changed its mind: checkpoints that are half removed are of no use.
        for event in events:
            if isinstance(event, TrialPromoted) and event.trial in self.sweep.state.dropping:
                self.committer.execute(DiscardCheckpoints(event.trial))

    def after_decisions(self, events: Sequence[AnyEvent]) -> None:
        if any(isinstance(event, TrialStopped) for event in events):
            self.committer.execute_all(self.cancellations.tasks_to_cancel())

    @property
    def _affordable(self) -> int | None:
        """How many tasks the budgets allow to be submitted now; None: any number."""
        affordable = self.budget.tasks_left(
            self.sweep.state, open_tasks=self.monitor.open_tasks, unbooked_gpu_s=self.monitor.unbooked_gpu_s
        )
        exhausted = exhausted_budget(self.sweep.state, self.sweep.settings, self.budget, now=self.sweep.now)
        return affordable if exhausted is None else 0  # runs may still be stopped

    def fits_max_gpus(self) -> bool:
        """Whether one task fits below `max_gpus`, by what the cluster says it will hold."""
        if not self.throttle.expected_gpus:
            with contextlib.suppress(ClusterUnavailable):
                self.throttle.expected_gpus = self.sweep.cluster.allocation_of(self.sweep.settings.shape).gpus
        self.budget.task_gpus = self.throttle.task_gpus
        most, each = self.sweep.settings.max_gpus, self.throttle.task_gpus
        if most is None or each <= most:
            return True
        reason = f"a task holds {each} GPUs, and cluster.max_gpus is {most}: raise it"
        self.committer.commit([PauseRequested(self.sweep.now, reason)])
        return False

    def allowed(self, wanted: int, affordable: int | None) -> int:
        """How many tasks to submit now: what budget and submit limits allow."""
        if affordable is not None:
            wanted = min(wanted, affordable)
        limit = None
        if wanted:
            try:
                limit = self.observer.limits.queued_tasks
            except ClusterUnavailable as error:
                self.committer.note_query("limits", str(error))
                return 0
            self.committer.note_query("limits")
        allowed = self.backoff.allowed(
            wanted=wanted,
            open_tasks=self.throttle.open_tasks,
            queued=self.sweep.cluster.queued_tasks,
            limit=limit,
            now=self.sweep.now,
        )
        # The tick job behind the array counts for the limit as well.
        detached = self.sweep.state.is_detached(self.sweep.settings.cluster)
        return max(allowed - 1, min(allowed, 1)) if detached and allowed < wanted else allowed

    def _plan(self, runs: Sequence[RunId], free: int) -> list[BatchPlanned]:
        if not runs:
            return []
        array_tasks = self.observer.limits.array_tasks
        if free > 0:
            self.sweep.journal.acquire()  # from now on its number is this driver's alone
        return self.submitter.plan(
            runs, segment=self.sweep.journal.number, free=free, array_tasks=array_tasks, now=self.sweep.now
        )

    def submit(self, planned: Sequence[BatchPlanned]) -> int:
        """Submit batches in order; the size of one that a submit limit refused, after which none is tried."""
        for index, batch in enumerate(planned):
            after = self.throttle.dependency
            submission = self.submitter.submission(batch, now=self.sweep.now, after=after)
            error = self.committer.execute(submission).error
            if error is None:
                self.backoff.accepted()
            elif isinstance(error, SubmitRefused | SpecError):
                limited = isinstance(error, SubmitLimited)
                self.committer.do(self.submitter.abandon(planned[index:], str(error), limited=limited))
                if not limited:
                    raise error
                return len(batch.tasks)
        return 0


class SubmitBackoff:
    """Submit limits: how many tasks may be submitted now, and when to try again after a refusal."""

    def __init__(self) -> None:
        #: How many of ours fit, as far as refusals tell; None before any.
        self._most: int | None = None
        self._until = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._accepted = False

    def allowed(
        self, *, wanted: int, open_tasks: int, queued: int | None, limit: int | None, now: float
    ) -> int:
        """How many of the `wanted` tasks to submit now.

        The user had `queued` tasks at the last poll, `open_tasks` of them ours, and may have `limit`.
        """
        bounds = []
        if limit:  # a limit of 0 is reported by the refusal
            # Without tasks of ours there was no recent poll: the count of the others is stale.
            bounds.append((limit, queued if queued is not None and open_tasks else open_tasks))
        # A time further ahead comes from a clock that has been set back since.
        if self._most is not None and 0 < self._until - now <= LONGEST_PAUSE_S:
            bounds.append((self._most, open_tasks))
        allowed = wanted
        for most, taken in bounds:
            free = most - taken
            if open_tasks and free < min(wanted, most // SHARE):
                return 0
            allowed = min(allowed, free)
        return max(0, allowed)

    def refused(self, tasks: int, *, open_tasks: int, now: float) -> None:
        """An array of `tasks` tasks was refused while `open_tasks` of ours were there."""
        if now >= self._until:  # nothing was known, or it was tried again
            again = now < self._until + LONGEST_PAUSE_S and not self._accepted
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s) if again else FIRST_PAUSE_S
            self._accepted = False
        self._most, self._until = open_tasks + tasks - 1, now + self._pause_s

    def accepted(self) -> None:
        """An array was accepted: the pause after the next refusal is the first one again."""
        self._accepted = True
