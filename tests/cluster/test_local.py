"""This machine as a cluster: slots, GPUs, and processes that outlive their driver."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from hpcsweep.cluster.local.cluster import LocalCluster, local_gpus
from hpcsweep.core.cluster_protocol import Batch, Phase, SubmittedBatch, TaskId, TaskResources
from hpcsweep.errors import FolderError
from hpcsweep.store.batch import Header, ManifestRun, Program, new_results, write_manifest
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.process_id import start_time
from tests.waiting import wait_until

#: Notes its devices, then waits to be let go.
TRAINER = """\
import os, pathlib, time

def train(trial):
    notes = pathlib.Path(__file__).parent
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    text = f"{devices} {os.environ['OMP_NUM_THREADS']} {os.environ.get('MORE', '')}"
    (notes / f"{trial.id}.part").write_text(text)
    (notes / f"{trial.id}.part").rename(notes / f"{trial.id}.began")
    while not (notes / "go").exists() and not trial.should_stop:
        time.sleep(0.01)
    return 1.0
"""


class Site:
    """One batch of three tasks on this machine."""

    def __init__(self, root: Path) -> None:
        self.notes = root / "notes"
        self.notes.mkdir(parents=True)
        (self.notes / "trainer.py").write_text(TRAINER)
        self.files = BatchLayout(root / "results" / "batches" / "b")
        self.files.root.mkdir(parents=True)
        program = Program(workdir=str(root), metric="loss", function=f"{self.notes}/trainer.py:train")
        runs = [[ManifestRun(t, 0, 0, 1, 0, t, {})] for t in range(3)]
        write_manifest(self.files, Header("b", "cafe01", program, gpus=1), runs)
        self.clusters: list[LocalCluster] = []
        self.shape = TaskResources()

    def cluster(self, *, gpus: int = 0, cpus: int = 1, **options: object) -> LocalCluster:
        """Its tasks have so many GPUs and CPUs."""
        self.shape = TaskResources(gpus, cpus)
        made = LocalCluster(**{"slots": 3, **options})  # type: ignore[arg-type]
        made.submit(Batch("b", self.files.root, 3, 3, self.shape))
        return made

    def live(self, *, throttle: int = 3, tasks: Sequence[int] = (0, 1, 2)) -> SubmittedBatch:
        return SubmittedBatch("b", "local", self.files.root, 3, throttle, self.shape, tasks)

    def phases(self, cluster: LocalCluster, *, throttle: int = 3) -> list[Phase]:
        shown = cluster.poll([self.live(throttle=throttle)])
        return [shown[TaskId("b", task)].phase for task in range(3)]

    def began(self, count: int) -> list[str]:
        """What the trainers noted, once so many have begun."""
        wait_until(lambda: len(list(self.notes.glob("*.began"))) >= count)
        return [path.read_text() for path in sorted(self.notes.glob("*.began"))]

    def go(self) -> None:
        (self.notes / "go").touch()

    def ended(self) -> list[float | None]:
        return [result.value for _, result in new_results(self.files, ())]

    def workers(self) -> list[int]:
        claims = [msgspec.json.decode(path.read_bytes()) for path in self.files.claims.iterdir()]
        return [claim["owner"]["pid"] for claim in claims]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "a place")
    yield made
    made.go()
    if made.files.claims.exists():
        wait_until(lambda: all(start_time(pid) is None for pid in made.workers()))


def test_each_task_has_gpus_of_its_own(site: Site) -> None:
    cluster = site.cluster(devices=["0", "GPU-5ab", "MIG-7"], gpus=1, cpus=3, environment={"MORE": "x y"})
    assert site.phases(cluster) == [Phase.RUNNING] * 3
    assert sorted(site.began(3)) == ["0 3 x y", "GPU-5ab 3 x y", "MIG-7 3 x y"]
    site.go()
    wait_until(lambda: site.phases(cluster) == [Phase.COMPLETED] * 3)
    assert site.ended() == [1.0] * 3


def test_tasks_of_two_gpus_leave_the_third_idle_and_wait_for_a_slot(site: Site) -> None:
    cluster = site.cluster(slots=1, devices=["0", "1", "2"], gpus=2)
    assert site.phases(cluster) == [Phase.RUNNING, Phase.PENDING, Phase.PENDING]
    assert site.began(1) == ["0,1 1 "]
    assert site.phases(cluster) == [Phase.RUNNING, Phase.PENDING, Phase.PENDING]
    site.go()
    wait_until(lambda: site.phases(cluster) == [Phase.COMPLETED] * 3)
    assert site.began(3) == ["0,1 1 "] * 3


def test_tasks_share_cpus_and_gpus_by_their_shapes() -> None:
    cluster = LocalCluster(slots=9, devices=["0", "1", "2"])
    few = LocalCluster(slots=9, cpus=4)
    for shape, fits in [(TaskResources(4), False), (TaskResources(3), True), (TaskResources(0, 8), True)]:
        assert cluster._fits(shape, 0) is fits
    for cpus, taken, fits in [(4, 0, True), (8, 0, True), (2, 2, True), (3, 2, False)]:
        assert few._fits(TaskResources(0, cpus), taken) is fits
    run = TaskResources(2, 3, 100, 60)
    assert cluster.granted(run) == TaskResources(2, 3, 100, 60)
    assert few.granted(run) == TaskResources(0, 3, 100, 60)


def test_the_throttle_of_a_batch_is_held(site: Site) -> None:
    cluster = site.cluster()
    assert site.phases(cluster, throttle=2) == [Phase.RUNNING, Phase.RUNNING, Phase.PENDING]
    assert site.phases(cluster, throttle=3) == [Phase.RUNNING] * 3


def test_a_driver_that_comes_back_finds_processes_and_their_gpus(site: Site) -> None:
    devices = ["0", "1", "2"]
    first = site.cluster(slots=2, devices=devices, gpus=1)
    site.phases(first)
    site.began(2)
    second = site.cluster(slots=3, devices=devices, gpus=1)
    assert site.phases(second) == [Phase.RUNNING] * 3
    assert sorted(note.split()[0] for note in site.began(3)) == devices
    site.go()
    wait_until(lambda: site.phases(second) == [Phase.COMPLETED] * 3)
    assert site.ended() == [1.0] * 3


def test_of_two_processes_for_one_task_one_works_and_is_followed(site: Site) -> None:
    first, second = site.cluster(), site.cluster()
    site.phases(first)  # it starts all three, and is killed before anybody could see a claim
    second._known_batches.add("b")
    site.phases(second)
    site.began(3)
    begun = {task.pid for cluster in (first, second) for task in cluster._tasks.values()}
    lost = begun - set(site.workers())
    assert len(lost) == 3
    wait_until(lambda: all(start_time(pid) is None for pid in lost))
    assert site.phases(second) == [Phase.RUNNING] * 3
    site.go()
    wait_until(lambda: site.phases(second) == [Phase.COMPLETED] * 3)
    assert site.ended() == [1.0] * 3


def test_a_task_of_another_machine_is_not_started_here(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.phases(site.cluster(slots=1))
    site.began(1)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "another")
        with pytest.raises(
            FolderError, match=r"task 0 was started on .* and has no result yet; launch there"
        ):
            site.phases(site.cluster())
    site.go()
    wait_until(lambda: site.ended() == [1.0])
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert site.phases(site.cluster())[1:] == [Phase.RUNNING] * 2


def test_a_killed_worker_is_seen_as_ended_without_a_result(site: Site) -> None:
    cluster = site.cluster()
    site.phases(cluster)
    site.began(3)
    for pid in site.workers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: site.phases(cluster) == [Phase.COMPLETED] * 3)
    assert site.ended() == []


def test_cancelled_tasks_checkpoint_and_leave_and_waiting_ones_never_start(site: Site) -> None:
    cluster = site.cluster(slots=2)
    site.phases(cluster)
    site.began(2)
    cluster.cancel(site.live(), [0, 1, 2])
    cluster.cancel(site.live(), [0, 1, 2])
    wait_until(lambda: site.phases(cluster) == [Phase.COMPLETED, Phase.COMPLETED, Phase.CANCELLED])
    assert not (site.notes / "2.began").exists()
    assert [result.interrupted is not None for _, result in new_results(site.files, ())] == [True, True]


def test_gpus_of_this_machine_are_those_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-1")
    assert local_gpus() == ["2", "GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert local_gpus() == []
