"""Reads what the driver decides on: result files, the cluster's answer, traces of runs without a result."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsweep.core.events import RunId
from hpcsweep.core.models import BatchState, Run
from hpcsweep.core.protocols import Clock, Cluster, SubmittedBatch
from hpcsweep.core.state import SweepState
from hpcsweep.driver.observations import Observation, Sighting
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store import checkpoints
from hpcsweep.store.layout import Layout
from hpcsweep.store.log_excerpt import read_excerpt
from hpcsweep.store.results import Result, new_results
from hpcsweep.store.skipped import Skipped


class Observer:
    """Reads each result once. Changes nothing, on the cluster or in the results folder.

    Args:
        state: Of the sweep; only read.
        skipped: Told of files that cannot be read.
    """

    def __init__(
        self, state: SweepState, *, layout: Layout, cluster: Cluster, clock: Clock, skipped: Skipped
    ) -> None:
        self._state = state
        self._layout = layout
        self._cluster = cluster
        self._clock = clock
        self._skipped = skipped
        #: Names of the result files that were read, by live batch.
        self._read: dict[str, set[str]] = {}

    def observe(self, submitted: Sequence[SubmittedBatch]) -> Observation:
        """New results, then one poll: one readdir for each of these batches, and one query."""
        now = self._clock.time()
        self._read = {name: read for name, read in self._read.items() if name in self._state.live}
        results = {batch.name: self._new_results(batch.name) for batch in submitted}
        if not submitted:
            return Observation(now, results, {})
        try:
            tasks = self._cluster.poll(submitted)
        except ClusterUnavailable as error:
            return Observation(now, results, None, str(error))
        if tasks is None:
            return Observation(now, results, None, self._cluster.poll_error or "the cluster does not answer")
        return Observation(now, results, tasks, "")

    def _new_results(self, name: str) -> list[Result]:
        tasks, files = self._state.live[name].tasks, self._layout.batch(name)
        read = self._read.setdefault(name, set())
        results = []
        for file, result in new_results(files, read, self._skipped):
            read.add(file)
            if result.task < len(tasks) and RunId(result.trial, result.rung) in tasks[result.task]:
                results.append(result)
            else:
                self._skipped.note(files.results / file, "is the result of a run of another batch")
        return results

    @property
    def has_unread(self) -> bool:
        """Whether results have come that were not read yet."""
        batches = [batch.name for batch in self._state.live.values() if batch.job is not None]
        return any(
            True for name in batches for _ in new_results(self._layout.batch(name), self._read.get(name, ()))
        )

    def sighting(self, batch: BatchState) -> Sighting:
        """What there is of a batch that was planned and never acknowledged.

        Raises:
            ClusterUnavailable: The cluster does not answer.
        """
        files = self._layout.batch(batch.name)
        if files.void.exists():
            return Sighting(abandoned=True)
        job = self._cluster.find_batch(batch.name, folder=files.root, since=batch.planned_at)
        if not job:  # the cluster may have forgotten it already: then its tasks have left results
            results = (result for _, result in new_results(files, ()))
            job = next((result.job.partition("_")[0] for result in results), "")
        return Sighting(job=job or None, has_script=files.script.exists())

    # ------------------------------------------------------------------ evidence of runs without a result

    def newest_step(self, run: Run) -> int:
        """Step of its trial's newest complete checkpoint up to its resource; 0 without one."""
        files = self._layout.trial(run.trial)
        try:
            newest = checkpoints.newest(files, at_most=run.resource)
        except OSError as error:  # whether its next attempt can read them shows when it begins
            self._skipped.note(files.checkpoints, error)
            return 0
        return newest.step if newest else 0

    def has_reported(self, run: RunId, *, attempt: int, restart: int) -> bool:
        """Whether this start of the run has reported a metric."""
        try:
            return self._layout.trial(run.trial).metrics(run.rung, attempt, restart).stat().st_size > 0
        except OSError:
            return False

    def last_lines(self, batch: str, task: int) -> str:
        """The last lines of the task's log; empty without any."""
        return read_excerpt(self._layout.batch(batch).log(task))

    def node_failed(self, node: str) -> bool:
        """Whether the cluster says that the node has failed."""
        return self._cluster.has_failed(node)
