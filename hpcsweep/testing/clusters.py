"""What every cluster must do, as a pytest base class.

A package with a cluster of its own runs the suite by a subclass whose name begins with `Test`:

    from hpcsweep.testing.clusters import ClusterConformance

    class TestFarm(ClusterConformance):
        def connect(self, sweep):
            return FarmCluster(...)

`sweep` is what the cluster would be told of a sweep (`SweepRequest`). The tests submit small batches whose
tasks run a Python program through the worker, follow them, and read what they leave in the results folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcsweep.cluster.backend import SweepRequest
from hpcsweep.core.cluster_protocol import Batch, Cluster, Phase, SubmittedBatch, TaskId, TaskResources
from hpcsweep.core.events import Outcome
from hpcsweep.store.batch import Header, ManifestRun, Program, Result, new_results, write_manifest
from hpcsweep.store.files import make_dirs
from hpcsweep.store.layout import BatchLayout, Layout

#: Sees the sweep's environment, lasts until a file is there, and prints its metric.
_TRAINING = """\
import os, sys, time
task = os.environ["HPCSWEEP_TRIAL"]
assert os.environ["GREETING"] == "a 'b' $c"
while sys.argv[1] == "wait" and not os.path.exists("go"):
    time.sleep(0.05)
print(f"loss={task}.5", flush=True)
"""


class ClusterConformance:
    """Subclass it and override `connect`; the attributes say what a cluster cannot do.

    Attributes:
        timeout_s: How long a small batch may take.
        finds: Whether `find` can tell a batch by its name.
        trains: Whether tasks really run the training program; a simulated cluster only pretends.
    """

    timeout_s = 60.0
    finds = True
    trains = True

    def connect(self, sweep: SweepRequest) -> Cluster:
        """The cluster under test."""
        raise NotImplementedError

    def advance(self, cluster: Cluster) -> None:
        """Let a little time pass."""
        time.sleep(0.1)

    # ------------------------------------------------------------------ the bench

    @pytest.fixture
    def bench(self, tmp_path: Path) -> ClusterBench:
        """A results folder and the cluster."""
        shape = TaskResources(time_s=600)
        sweep = SweepRequest(
            run=shape, task=shape, workdir=str(tmp_path), environment={"GREETING": "a 'b' $c"}
        )
        return ClusterBench(tmp_path, self.connect(sweep), timeout_s=self.timeout_s, advance=self.advance)

    # ------------------------------------------------------------------ what must hold

    def test_every_task_of_a_batch_runs_and_leaves_its_result(self, bench: ClusterBench) -> None:
        live = bench.submit("s-all-1", tasks=3)
        bench.wait(live, lambda phases: all(phase is Phase.COMPLETED for phase in phases))
        results = sorted(bench.results(live), key=lambda result: result.trial)
        assert [(result.trial, result.task) for result in results] == [(0, 0), (1, 1), (2, 2)]
        assert {result.outcome for result in results} == {Outcome.COMPLETED}
        if self.trains:
            assert [result.value for result in results] == [0.5, 1.5, 2.5]

    def test_a_batch_of_one_task_runs(self, bench: ClusterBench) -> None:
        live = bench.submit("s-one-1", tasks=1)
        bench.wait(live, lambda phases: phases == [Phase.COMPLETED])
        assert [result.task for result in bench.results(live)] == [0]

    def test_no_more_tasks_than_the_throttle_run_at_a_time(self, bench: ClusterBench) -> None:
        live = bench.submit("s-cap-1", tasks=4, throttle=1)
        most = 0

        def done(phases: list[Phase | None]) -> bool:
            nonlocal most
            most = max(most, phases.count(Phase.RUNNING))
            return all(phase is Phase.COMPLETED for phase in phases)

        bench.wait(live, done)
        assert most <= 1

    def test_a_batch_is_found_by_its_name_and_no_other_is(self, bench: ClusterBench) -> None:
        live = bench.submit("s-find-1", tasks=2)
        found = bench.cluster.find("s-find-1")
        assert found == (live.job if self.finds else None)
        assert bench.cluster.find("s-find-11") is None
        bench.wait(live, lambda phases: all(phase is Phase.COMPLETED for phase in phases))

    def test_cancelled_tasks_end_and_the_others_go_on(self, bench: ClusterBench) -> None:
        live = bench.submit("s-cancel-1", tasks=2, waits=True)
        bench.wait(live, lambda phases: any(phase is Phase.RUNNING for phase in phases))
        bench.cluster.cancel(live, [1])
        bench.wait(live, lambda phases: phases[1] is None or not phases[1].active)
        (bench.root / "go").touch()
        bench.wait(live, lambda phases: phases[0] is Phase.COMPLETED)
        assert [r.task for r in bench.results(live) if r.outcome is Outcome.COMPLETED] == [0]
        bench.cluster.cancel(live, [0, 1])  # those that have ended are passed over

    def test_a_poll_shows_only_tasks_of_the_batches_that_it_is_asked_for(self, bench: ClusterBench) -> None:
        first, second = bench.submit("s-a-1", tasks=2), bench.submit("s-b-1", tasks=1)
        shown = bench.cluster.poll([first])
        assert shown is not None
        assert set(shown) <= {TaskId("s-a-1", 0), TaskId("s-a-1", 1)}
        assert bench.cluster.poll([]) == {}
        for live in (first, second):
            bench.wait(live, lambda phases: all(phase is Phase.COMPLETED for phase in phases))

    def test_limits_allocation_and_problems_can_be_asked_for(self, bench: ClusterBench) -> None:
        limits, shape = bench.cluster.limits(), TaskResources(time_s=600)
        assert limits.array_tasks is None or limits.array_tasks > 0
        assert bench.cluster.slots is None or bench.cluster.slots > 0
        assert bench.cluster.problems(shape) == []
        assert bench.cluster.allocation_of(shape).cpus >= 1
        assert bench.cluster.poll_s[0] <= bench.cluster.poll_s[1]

    def test_a_script_if_there_is_one_is_shown_without_writing_anything(self, bench: ClusterBench) -> None:
        folder = bench.root / "nowhere" / "batches" / "s-x-1"
        script = bench.cluster.script(Batch("s-x-1", folder, 2, 2, TaskResources(time_s=600)))
        assert script is None or script.startswith("#!")
        assert not (bench.root / "nowhere").exists()


class ClusterBench:
    """Batches of small training programs for one cluster."""

    def __init__(
        self, root: Path, cluster: Cluster, *, timeout_s: float, advance: Callable[[Cluster], None]
    ) -> None:
        self.root = root
        self.cluster = cluster
        self._timeout_s = timeout_s
        self._advance = advance
        (root / "train.py").write_text(_TRAINING)

    def submit(
        self, name: str, *, tasks: int, throttle: int | None = None, waits: bool = False
    ) -> SubmittedBatch:
        """Write the manifest, and submit it as a batch."""
        files = BatchLayout(Layout(self.root / "results").batch(name).root)
        make_dirs(files.root)
        mode = "wait" if waits else "run"
        program = Program(
            workdir=str(self.root),
            metric="loss",
            command=f"{sys.executable} train.py {mode}",
            metrics=(r"loss=(?P<loss>\S+)",),
        )
        runs = [[ManifestRun(task, 0, 0, 1, 0, task, {})] for task in range(tasks)]
        write_manifest(files, Header(name, "s", program, gpus=0), runs)
        shape = TaskResources(time_s=600)
        batch = Batch(name, files.root, tasks, throttle or tasks, shape)
        job = self.cluster.submit(batch)
        return SubmittedBatch(name, job, files.root, tasks, batch.throttle, shape, tuple(range(tasks)))

    def phases(self, live: SubmittedBatch) -> list[Phase | None]:
        """What a poll shows of each task; None where it shows nothing."""
        shown = self.cluster.poll([live]) or {}
        states = [shown.get(TaskId(live.name, task)) for task in range(live.tasks)]
        return [None if state is None else state.phase for state in states]

    def wait(self, live: SubmittedBatch, done: Callable[[list[Phase | None]], bool]) -> None:
        """Poll until the phases are as wanted."""
        deadline = time.monotonic() + self._timeout_s
        while not done(phases := self.phases(live)):
            assert time.monotonic() < deadline, phases
            self._advance(self.cluster)

    def results(self, live: SubmittedBatch) -> list[Result]:
        return [result for _, result in new_results(BatchLayout(live.folder), ())]
