"""Batches on their way to the cluster: planned, submitted, found again, abandoned."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from hpcsweep.core.events import AnyEvent, BatchAbandoned, BatchPlanned, BatchSubmitted, RunId
from hpcsweep.core.models import Run, Trial
from hpcsweep.core.protocols import Batch, Clock, Cluster
from hpcsweep.core.state import SweepState
from hpcsweep.driver.cluster_messages import ClusterMessages
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.health import excluded
from hpcsweep.driver.throttle import ThrottleManager
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitLimited, SubmitRefused, SubmitUncertain
from hpcsweep.store.files import explained, make_dirs, write_atomic
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.manifest import Header, ManifestRun, trial_seed, write_manifest
from hpcsweep.store.results import new_results


class Submitter:
    """Brings batches to the cluster, each once: the intent is on disk before the cluster is called.

    Args:
        state: Of the sweep.
        layout: The results folder.
        journal: Open.
        cluster: Where batches run.
        clock: The time.
        settings: Caps and shapes.
        slots: Who may run at a time.
        requeue: Whether the cluster may run a task again by itself.
        clones: Whether trials start from checkpoints of others.
        commit: Makes events true.
        words: Keeps what the cluster says.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        journal: Journal,
        cluster: Cluster,
        clock: Clock,
        settings: DriverConfig,
        slots: ThrottleManager,
        requeue: bool,
        clones: bool,
        commit: Callable[[Sequence[AnyEvent]], None],
        words: ClusterMessages,
    ) -> None:
        self._state = state
        self._layout = layout
        self._journal = journal
        self._cluster = cluster
        self._clock = clock
        self._settings = settings
        self._slots = slots
        self._requeue = requeue
        self._clones = clones
        self._commit = commit
        self._words = words
        self._numbers = itertools.count(1)
        #: Clean empty answers to "is this batch there?", by batch.
        self._not_found: Counter[str] = Counter()
        #: And when this session asked that first.
        self._asked_since: dict[str, float] = {}

    def adopt(self) -> None:
        """Settle the batches that were planned and never acknowledged."""
        now = self._clock.time()
        for batch in [batch for batch in self._state.live.values() if batch.job is None]:
            files = self._layout.batch(batch.name)
            if not files.void.exists():
                try:
                    job = self._cluster.find_batch(batch.name, folder=files.root, since=batch.planned_at)
                except ClusterUnavailable as error:
                    self._words.failed("find", str(error))
                    continue
                self._words.answered("find")
                job = job or _job_by_results(files)
                if job is not None:
                    self._commit([BatchSubmitted(batch.name, job, now)])
                    continue
                self._not_found[batch.name] += 1
                # The script is written just before the cluster is called. Without it nothing was
                # submitted; with it a submission may still be on its way for a while.
                # A clock that was ahead when it was planned does not make it wait for longer than that.
                waited_s = max(now - batch.planned_at, now - self._asked_since.setdefault(batch.name, now))
                settled = self._not_found[batch.name] >= 2 and waited_s >= self._cluster.settle_s
                if files.script.exists() and not settled:
                    continue
            said = f"; the answer was: {batch.said}" if batch.said else ""
            self._abandon(batch.name, f"it never reached the cluster{said}")

    def planned(
        self, runs: Sequence[RunId], *, free: int, array_tasks: int | None, time_s: int, held: int
    ) -> list[BatchPlanned]:
        """Arrays that carry these runs, as far as there are slots for one task of each.

        Args:
            runs: In the order in which they are to start.
            free: Slots that may be taken.
            array_tasks: Tasks of one array at most, None for any number.
            time_s: Time limit of a task; 0 where unknown.
            held: GPUs that a task will hold.
        """
        planned: list[BatchPlanned] = []
        shape = self._settings.shape
        for chunk in _chunks(runs, array_tasks * shape.runs if array_tasks else max(1, len(runs))):
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
                    cluster=self._settings.cluster,
                    time_s=time_s,
                    held=held if held != shape.gpus else 0,
                )
            )
        return planned

    def submit(self, planned: Sequence[BatchPlanned]) -> int:
        """Submit them in order; the size of one that a submit limit kept out, after which none is tried.

        Raises:
            SubmitRefused: For another reason. The runs wait.
        """
        for position, batch in enumerate(planned):
            try:
                self._submit(batch)
            except (SubmitRefused, SpecError) as refusal:
                limited = isinstance(refusal, SubmitLimited)
                if not limited:
                    self._words.failed("submit", str(refusal), batch=batch.batch, refused=True)
                for other in planned[position:]:
                    self._abandon(other.batch, str(refusal), limited=limited and other is batch)
                if not limited:
                    raise
                return len(batch.tasks)
        return 0

    def _submit(self, planned: BatchPlanned) -> None:
        """Write what the tasks are to do, then submit the array.

        Raises:
            SubmitRefused: For certain. An uncertain outcome is settled by later ticks.
        """
        files = self._layout.batch(planned.batch)
        shape = self._settings.shape
        assert self._state.started is not None
        header = Header(
            planned.batch,
            self._state.started.sweep,
            self._settings.program,
            gpus=shape.gpus,
            lanes=shape.lanes,
            tick=self._state.is_detached(self._settings.cluster),
            fail_fast=0 if self._state.first_errors.over else self._settings.fail_fast,
        )
        with explained(self._layout.root):
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
            shape,
            exclude=excluded(self._state, now=self._clock.time()),
            requeue=self._requeue,
            after=self._slots.to_wait_for,
        )
        try:
            job = self._cluster.submit(batch)
        except (SubmitUncertain, ClusterUnavailable) as error:
            refused = isinstance(error, SubmitUncertain) and error.refused
            self._words.failed("submit", str(error), batch=planned.batch, refused=refused)
            return
        self._commit([BatchSubmitted(planned.batch, job, self._clock.time())])

    def _abandon(self, name: str, reason: str, *, limited: bool = False) -> None:
        """Fence the batch off, then let its runs wait again: a task that starts all the same leaves."""
        files = self._layout.batch(name)
        with explained(self._layout.root):
            make_dirs(files.root)
            write_atomic(files.void, reason.encode())
        self._commit([BatchAbandoned(name, reason, limited)])

    def _new_name(self) -> str:
        # The segment's number makes it unique even against a driver that was taken over from.
        assert self._state.started is not None
        self._journal.acquire()
        number = next(self._numbers)
        return f"{self._settings.name}-{self._state.started.sweep}-{self._journal.number}-{number}"

    def _manifest_run(self, run_id: RunId) -> ManifestRun:
        trial = self._state.trials[run_id.trial]
        run: Run = trial.runs[run_id.rung]
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


def _job_by_results(files: BatchLayout) -> str | None:
    """The job of a batch that the cluster has forgotten already, by what its tasks left."""
    for _, result in new_results(files, ()):
        return result.job.partition("_")[0] or None
    return None


def _chunks(items: Sequence[RunId], size: int) -> list[tuple[RunId, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
