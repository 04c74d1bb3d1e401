"""Which runs are submitted, in which arrays, and what becomes of batches without an answer. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Final

from hpcsweep.core.cluster_protocol import Batch
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    Outcome,
    RunFinished,
    RunId,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.models import BatchState, Run, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import Abandon, Step, Submit
from hpcsweep.driver.health import excluded
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Sighting
from hpcsweep.store.batch import Header, ManifestRun, trial_seed
from hpcsweep.store.layout import Layout

#: How long to respect a limit learned from a refusal; then more is tried, for it may have been raised.
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 600.0
#: A piece of an array gets an array of its own if it fills at least this share of the limit.
SHARE: Final = 8


class Submitter:
    """Brings runs to the cluster in batches, each once.

    Args:
        state: Of the sweep.
        layout: Names the folders of batches.
        settings: Caps and shapes.
        monitor: Knows the tasks of live batches.
        requeue: Whether the cluster may run a task again by itself.
        clones: Whether trials start from checkpoints of others.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        settings: DriverConfig,
        monitor: JobMonitor,
        requeue: bool,
        clones: bool,
    ) -> None:
        self._state = state
        self._layout = layout
        self._settings = settings
        self._monitor = monitor
        self._requeue = requeue
        self._clones = clones
        self._numbers = itertools.count(1)
        #: How often the cluster answered that it does not know the batch.
        self._not_found: Counter[str] = Counter()
        #: And when this session asked that first.
        self._asked_since: dict[str, float] = {}

    # ------------------------------------------------------------------ batches without an answer

    def reconcile(self, batch: BatchState, sighting: Sighting, *, now: float, settle_s: float) -> Step:
        """What became of a batch that was planned and never acknowledged.

        Args:
            batch: It has no job.
            sighting: What there is of it.
            now: Unix time.
            settle_s: How long a submission without an answer may still turn up.
        """
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
        said = f"; the answer was: {batch.submit_message}" if batch.submit_message else ""
        return Step(effects=(Abandon(batch.name, f"it never reached the cluster{said}"),))

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
        return batch is not None and not batch.made_progress and not self._monitor.has_run(batch)

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
        self,
        runs: Sequence[RunId],
        *,
        segment: int,
        free: int,
        array_tasks: int | None,
        time_s: int,
        task_gpus: int,
        now: float,
    ) -> list[BatchPlanned]:
        """Arrays that carry these runs, as far as there are slots for one task of each.

        Args:
            runs: In the order in which they are to start.
            segment: The journal's, which no other driver has: it makes the names unique.
            free: Slots that may be taken.
            array_tasks: Tasks of one array at most, None for any number.
            time_s: Time limit of a task; 0 where unknown.
            task_gpus: GPUs that a task will hold.
            now: Unix time.
        """
        planned: list[BatchPlanned] = []
        shape = self._settings.shape
        assert self._state.started is not None
        for chunk in _chunks(runs, array_tasks * shape.runs if array_tasks else max(1, len(runs))):
            if free <= 0:
                break
            tasks = tuple(_chunks(chunk, shape.runs))
            throttle = min(free, len(tasks))
            free -= throttle
            planned.append(
                BatchPlanned(
                    f"{self._settings.name}-{self._state.started.sweep}-{segment}-{next(self._numbers)}",
                    now,
                    tasks,
                    gpus=shape.gpus,
                    throttle=throttle,
                    cluster=self._settings.cluster,
                    time_s=time_s,
                    gpus_held=task_gpus if task_gpus != shape.gpus else 0,
                )
            )
        return planned

    def submission(self, planned: BatchPlanned, *, now: float, after: str = "") -> Submit:
        """The array of a planned batch with its manifest.

        Args:
            planned: Its event has been applied.
            now: Unix time.
            after: Job or task that has to end first, empty if none.
        """
        shape = self._settings.shape
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
                fail_fast=0 if self._state.first_errors.over else self._settings.fail_fast,
            ),
            tuple(tuple(self._manifest_run(run) for run in task) for task in planned.tasks),
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

    def _manifest_run(self, run_id: RunId) -> ManifestRun:
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


def _chunks(items: Sequence[RunId], size: int) -> list[tuple[RunId, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]


class SubmitBackoff:
    """Submit limits: how many tasks may be submitted now, and when to try again after a refusal.

    Remembers the refusals of this session; a new one simply tries.
    """

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

        Args:
            wanted: Tasks that are to be submitted.
            open_tasks: Ours that wait or run.
            queued: The user's that waited or ran when we last looked, None where unknown.
            limit: How many of those the site allows, None where unknown.
            now: Unix time.
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
