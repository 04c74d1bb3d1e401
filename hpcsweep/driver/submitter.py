"""Which runs and tasks go into which arrays, what waits, and arrays without an answer. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

import msgspec

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Batch, Limits, TaskResources
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
from hpcsweep.core.models import Run, Trial
from hpcsweep.core.run_resources import largest_need
from hpcsweep.core.state import SweepState
from hpcsweep.driver.checkpoint_quota import CheckpointQuota
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import (
    Abandon,
    Step,
    Submit,
)
from hpcsweep.driver.failures import excluded
from hpcsweep.driver.lifecycle import GpuBudget, minutes
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Sighting
from hpcsweep.driver.shapes import RunShapes
from hpcsweep.store.batch import Header, ManifestRun, Reuse, trial_seed
from hpcsweep.store.layout import Layout


class Submitter:
    """Brings runs to the cluster in batches, each once."""

    def __init__(
        self,
        state: SweepState,
        quota: CheckpointQuota,
        *,
        layout: Layout,
        settings: DriverConfig,
        monitor: JobMonitor,
        budget: GpuBudget,
        clones: bool,
        shapes: RunShapes,
    ) -> None:
        self._state = state
        self._run_shapes = shapes
        self._layout = layout
        self._settings = settings
        #: Of a new task, as far as the site allows it; of planned batches whose tasks are others.
        self._shape = settings.shape
        self._shapes: dict[str, TaskResources] = {}
        self._monitor = monitor
        self._budget = budget
        self._quota = quota
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
        """Runs that wait, once these events hold: interrupted ones, promotions, then new trials.

        Those for whose checkpoints there is no room are left out.
        """
        ended = {event.run for event in events if isinstance(event, RunFinished)}
        waiting = sorted(
            (run for run in self._state.waiting if run not in ended and not self._is_held_back(run)),
            key=lambda run: self._state.run(run).submissions == 0,
        )
        promoted = [
            RunId(event.trial, event.rung)
            for event in events
            if isinstance(event, TrialPromoted) and not self._state.trials[event.trial].stopped
        ]
        created = [RunId(event.trial, 0) for event in events if isinstance(event, TrialCreated)]
        return self._quota.admit([*waiting, *promoted, *created])

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
                    RunFinished(
                        run.trial,
                        run.rung,
                        Outcome.STOPPED,
                        value,
                        step,
                        message=reason,
                        values=run.last_values,
                    )
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
            chunk = runs[first : first + size]
            tasks = tuple((run,) for run in chunk)
            throttle = min(free, len(tasks))
            free -= throttle
            shape = self._shape_for(chunk)
            planned.append(self._planned(tasks, throttle, segment=segment, now=now, shape=shape))
            self._shapes[planned[-1].batch] = shape
        return planned

    def _shape_for(self, runs: Sequence[RunId]) -> TaskResources:
        """What the array of these runs asks for: where limits are learned, the most that any needs.

        They share it whatever they need: more arrays would reach a submit limit sooner, and where compute
        nodes may not submit, only a launch would bring the second.
        """
        if not self._settings.resources.learns:
            return self._shape
        most = largest_need([self._run_shapes.of(run) for run in runs])
        return msgspec.structs.replace(self._shape, time_s=most.time_s, mem_mib=most.mem_mib)

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

    def plan_array(
        self,
        tasks: Sequence[tuple[RunId, ...]],
        shape: TaskResources,
        *,
        gpus: int,
        segment: int,
        limits: Limits,
        now: float,
        reuse: bool = False,
    ) -> list[BatchPlanned]:
        """Arrays of these tasks, all of which may run at a time; each holds so many `gpus`."""
        shape, size = shape.within(limits.most_times_s), limits.array_tasks or max(1, len(tasks))
        pieces = [tuple(tasks[first : first + size]) for first in range(0, len(tasks), size)]
        planned = [
            self._planned(piece, len(piece), segment=segment, now=now, reuse=reuse, shape=shape, gpus=gpus)
            for piece in pieces
        ]
        self._shapes.update((batch.batch, shape) for batch in planned)
        return planned

    def _planned(
        self,
        tasks: tuple[tuple[RunId, ...], ...],
        throttle: int,
        *,
        segment: int,
        now: float,
        reuse: bool = False,
        shape: TaskResources | None = None,
        gpus: int | None = None,
    ) -> BatchPlanned:
        shape = shape or self._shape
        gpus = self._budget.task_gpus if gpus is None else gpus
        assert self._state.started is not None
        return BatchPlanned(
            f"{self._settings.name}-{self._state.started.sweep}-{segment}-{next(self._numbers)}",
            now,
            tasks,
            gpus=shape.total_gpus,
            throttle=throttle,
            cluster=self._settings.cluster,
            time_s=minutes(shape.time_s) if shape.time_s else self._budget.time_s,
            gpus_held=gpus if gpus != shape.total_gpus else 0,
            reuse=reuse,
            lanes=shape.lanes,
            cpus=shape.cpus,
            mem_mib=shape.mem_mib,
            nodes=shape.nodes,
            pool=shape.pool,
        )

    def submission(self, planned: BatchPlanned, *, now: float, after: str = "") -> Submit:
        """The array of a planned batch with its manifest; `after` is a job that has to end first."""
        shape = self._shapes.pop(planned.batch, self._shape)
        assert self._state.started is not None
        return Submit(
            Batch(
                planned.batch,
                self._layout.batch(planned.batch).root,
                len(planned.tasks),
                planned.throttle,
                shape,
                exclude=excluded(self._state, now=now),
                # What the cluster would run again by itself could carry the sweep beyond its budget.
                requeue=not self._budget.caps(shape.pool),
                after=after,
            ),
            Header(
                planned.batch,
                self._state.started.sweep,
                self._settings.program,
                gpus=shape.total_gpus,
                nodes=shape.nodes,
                lanes=shape.lanes,
                tick=self._state.is_detached(self._settings.cluster),
                fail_fast=0 if planned.reuse or self._state.first_errors.over else self._settings.fail_fast,
                reuse=Reuse(self._settings.idle_s or 0.0, planned.time_s) if planned.reuse else None,
                mem_limit_mib=self._watched_mib(planned),
            ),
            tuple(tuple(self.manifest_run(run) for run in task) for task in planned.tasks),
        )

    def _watched_mib(self, planned: BatchPlanned) -> int | None:
        """What a run may hold before its worker ends it; None where that costs it more than an attempt."""
        if planned.mem_mib is None or not self._settings.resources.watches_memory:
            return None
        return planned.mem_mib // planned.lanes

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
            attempt=run.submissions - 1,
            seed=trial_seed(self._settings.seed, run_id.trial),
            config=trial.config,
            parent=trial.parent,
            parent_step=trial.start,
            keep=self._kept_steps(trial, run),
            best=trial.runs[run.rung - 1].value if run.rung and self._settings.program.at == "best" else None,
            reached=trial.runs[run.rung - 1].resource if run.rung else 0,
            suggestion_seed=trial_seed(self._settings.seed, run_id.trial - trial.repeat)
            if trial.repeat
            else 0,
            bests=self._bests(trial, run),
        )

    def _bests(self, trial: Trial, run: Run) -> tuple[float | None, ...]:
        """Of each of several objectives the best value up to the rung below, where that is what counts."""
        objectives = self._settings.program.objectives
        if not objectives:
            return ()
        before = trial.runs[run.rung - 1].values if run.rung else ()
        pairs = zip_longest(objectives, before)
        return tuple(value if objective.at == "best" else None for objective, value in pairs)

    def _kept_steps(self, trial: Trial, run: Run) -> tuple[int, ...]:
        """Steps whose checkpoints others start from: known clones, and those that come while it runs."""
        if not self._clones:
            return ()
        steps = set(self._state.clone_steps(trial.trial))
        if run.rung:
            steps.add(trial.runs[run.rung - 1].resource)
        return tuple(sorted(steps))
