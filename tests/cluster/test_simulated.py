"""The simulated site: what happens when, worked out by hand, and that chance is the same for everybody."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.cluster.simulated.clock import VirtualClock
from hpcsweep.cluster.simulated.cluster import EPOCH_S, SimulatedCluster
from hpcsweep.core.cluster_protocol import (
    Batch,
    Limits,
    Phase,
    SubmittedBatch,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.core.events import CheckpointSizes, Config, Interruption, Outcome
from hpcsweep.errors import ClusterUnavailable, SubmitLimited, SubmitRefused, SubmitUncertain
from hpcsweep.store.batch import Header, ManifestRun, Program, Result, new_results, write_manifest
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import metrics_files, read_reports

PROGRAM = Program(workdir="/", metric="loss", function="t.py:train")
#: An hour is as short as a minute elsewhere: rates per hour that make something happen every time.
OFTEN = 60.0


def falling(config: Config, step: int, seed: int) -> float:
    return float(config["x"]) + 1 / step


def run(trial: int, *, rung: int = 0, resource: int = 10, attempt: int = 0, **more: Any) -> ManifestRun:
    return ManifestRun(trial, rung, 0, resource, attempt, trial, {"x": float(trial)}, **more)


class Site:
    """A site with the clock at 0, and what its tasks have left."""

    def __init__(
        self,
        root: Path,
        *,
        shape: TaskResources | None = None,
        program: Program = PROGRAM,
        curve: Callable[[Config, int, int], float] = falling,
        seed: int = 0,
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"nodes": 1, "gpus": 2, "seconds_per_unit": 1.0} | options
        self.shape = shape or TaskResources(gpus=1)
        self.layout = Layout(root)
        self.program = program
        self.cluster = SimulatedCluster(
            SimulatedOptions(**given),
            shape=self.shape,
            curve=curve,
            unit_seconds=lambda config: given["seconds_per_unit"],
            seed=seed,
            start=0.0,
            grace_s=30.0,
            settle_s=100.0,
        )
        self.batches: dict[str, int] = {}

    def submit(
        self,
        *tasks: ManifestRun | Sequence[ManifestRun],
        throttle: int = 10_000,
        name: str = "a",
        **more: Any,
    ) -> str:
        runs = [[task] if isinstance(task, ManifestRun) else list(task) for task in tasks]
        files = self.layout.batch(name)
        files.root.mkdir(parents=True)
        write_manifest(
            files, Header(name, "cafe01", self.program, self.shape.gpus, lanes=self.shape.lanes), runs
        )
        self.batches[name] = len(tasks)
        return self.cluster.submit(Batch(name, files.root, len(tasks), throttle, self.shape, **more))

    def live(self, name: str = "a") -> SubmittedBatch:
        count = self.batches[name]
        folder = self.layout.batch(name).root
        return SubmittedBatch(name, "1", folder, count, count, self.shape, range(count))

    def wait(self, seconds: float) -> None:
        """Let exactly so much time pass."""
        self.cluster.clock.at(self.cluster.clock.time() + seconds, lambda: True)
        until = self.cluster.clock.time() + seconds
        while (now := self.cluster.clock.time()) < until:
            self.cluster.clock.sleep(until - now)

    def states(self, *names: str) -> Mapping[TaskId, TaskState]:
        """What a poll for these arrays shows."""
        shown = self.cluster.poll([self.live(name) for name in names])
        assert shown is not None
        return shown

    def phases(self, name: str = "a") -> list[Phase | None]:
        shown = self.states(name)
        ids = [TaskId(name, task) for task in range(self.batches[name])]
        return [shown[task].phase if task in shown else None for task in ids]

    def results(self, name: str = "a") -> list[Result]:
        return [result for _, result in new_results(self.layout.batch(name), ())]

    def times(self, name: str = "a") -> list[tuple[int, float | None, float]]:
        """For each result its trial, when it began and how long it took."""
        return [(result.trial, result.started, result.seconds) for result in self.results(name)]


# --------------------------------------------------------------------------- the clock


def test_a_sleeper_wakes_at_the_first_poll_that_sees_something() -> None:
    clock = VirtualClock(0.0, longest_s=20.0)
    clock.unfinished = 1
    happened: list[float] = []

    def happen(seen: bool) -> Callable[[], bool]:
        def action() -> bool:
            happened.append(clock.time())
            return seen

        return action

    clock.at(30.0, happen(False))
    clock.at(81.0, happen(True))
    clock.sleep(5.0)
    # Polls at 5, 12.5, 23.75, 40.625 and then every 20 seconds, as the driver's own loop has them.
    assert happened == [30.0, 81.0]
    assert clock.time() == 5 + 7.5 + 11.25 + 16.875 + 20 * 3


def test_time_passes_as_it_is_slept_when_nothing_is_under_way() -> None:
    clock = VirtualClock(7.0, longest_s=20.0)
    clock.at(1000.0, lambda: True)
    clock.sleep(5.0)
    assert clock.time() == 12.0


def test_a_time_that_somebody_waits_for_is_not_slept_over() -> None:
    clock = VirtualClock(0.0, longest_s=10.0)
    clock.unfinished = 1
    clock.at(1000.0, lambda: True)
    clock.wake(35.0)
    clock.sleep(10.0)
    assert clock.time() == 40.0


# --------------------------------------------------------------------------- queue and places


def test_three_tasks_on_two_gpus_after_a_wait(tmp_path: Path) -> None:
    site = Site(tmp_path, wait=5.0)
    assert site.submit(run(0), run(1), run(2)) == "1"
    assert site.phases() == [Phase.PENDING] * 3
    site.wait(5.0)
    assert site.phases() == [Phase.RUNNING, Phase.RUNNING, Phase.PENDING]
    site.wait(9.0)
    assert site.results() == []
    site.wait(1.0)
    assert site.phases() == [Phase.COMPLETED, Phase.COMPLETED, Phase.RUNNING]
    site.wait(10.0)
    assert site.times() == [(0, 5.0, 10.0), (1, 5.0, 10.0), (2, 15.0, 10.0)]
    assert site.results()[2] == Result(
        trial=2,
        rung=0,
        attempt=0,
        restart=0,
        task=2,
        outcome=Outcome.COMPLETED,
        value=2.1,
        step=10,
        progressed=True,
        seconds=10.0,
        gpu_seconds=10.0,
        started=15.0,
        node="node001",
        job="1_2",
        unit_seconds=1.0,
        checkpoints=CheckpointSizes(),
    )
    assert [site.cluster.usage.task_seconds(until) for until in (5.0, 10.0, 15.0, 25.0, 99.0)] == [
        0,
        10,
        20,
        30,
        30,
    ]


def test_the_throttle_holds_tasks_back_and_raising_it_lets_them_go(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=8)
    site.submit(*map(run, range(5)), throttle=1)
    site.wait(4.0)
    assert site.phases() == [Phase.RUNNING, *[Phase.PENDING] * 4]
    site.cluster.throttle(site.live(), 3)
    assert site.phases() == [*[Phase.RUNNING] * 3, *[Phase.PENDING] * 2]
    site.cluster.throttle(site.live(), 1)
    site.wait(100.0)
    assert site.times() == [(0, 0.0, 10.0), (1, 4.0, 10.0), (2, 4.0, 10.0), (3, 14.0, 10.0), (4, 24.0, 10.0)]


def test_older_arrays_go_first(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=1)
    site.submit(run(0), run(1), name="a")
    site.submit(run(2), name="b")
    site.wait(40.0)
    assert site.times("a") == [(0, 0.0, 10.0), (1, 10.0, 10.0)]
    assert site.times("b") == [(2, 20.0, 10.0)]


def test_a_throttled_array_does_not_hold_up_the_next_one(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=2)
    site.submit(run(0), run(1), throttle=1, name="a")
    site.submit(run(2), name="b")
    site.wait(40.0)
    assert site.times("b") == [(2, 0.0, 10.0)]


@pytest.mark.parametrize(
    ("shape", "options", "places"),
    [
        (TaskResources(gpus=1), {"nodes": 3, "gpus": 4}, 12),
        (TaskResources(gpus=3), {"nodes": 3, "gpus": 4}, 3),
        (TaskResources(), {"nodes": 3, "gpus": 4}, 12),
        (TaskResources(), {"nodes": 3, "gpus": 4, "slots": 2}, 6),
        (TaskResources(), {"nodes": 2, "gpus": 0}, 2),
        (TaskResources(gpus=2, nodes=2), {"nodes": 5, "gpus": 4}, 4),
        (TaskResources(nodes=3), {"nodes": 5, "gpus": 0, "slots": 2}, 2),
    ],
)
def test_as_many_run_at_a_time_as_fit_the_nodes(
    tmp_path: Path, shape: TaskResources, options: dict[str, Any], places: int
) -> None:
    site = Site(tmp_path, shape=shape, **options)
    assert site.cluster.limits().slots == places
    site.submit(*map(run, range(20)))
    site.wait(1.0)
    assert site.phases().count(Phase.RUNNING) == places


def test_a_wait_is_drawn_between_the_quantiles(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=200, wait=[[0.0, 10], [0.5, 20], [1.0, 120]])
    site.submit(*map(run, range(200)))
    site.wait(200.0)
    waits = sorted(started for _, started, _ in site.times() if started is not None)
    assert len(waits) == 200
    assert 10 <= waits[0] < 11 < 119 < waits[-1] <= 120
    assert 15 < waits[100] < 30


@pytest.mark.parametrize(("limit_s", "waited_s"), [(60, 5.0), (3600, 5.0), (3601, 50.0), (None, 50.0)])
def test_short_jobs_wait_as_their_time_limit_says(
    tmp_path: Path, limit_s: int | None, waited_s: float
) -> None:
    waits = {"1d": 50.0, "1h": [[0, 5], [1, 5]]}
    site = Site(tmp_path, shape=TaskResources(gpus=1, time_s=limit_s), wait=waits)
    site.submit(run(0))
    site.wait(100.0)
    assert site.times() == [(0, waited_s, 10.0)]


@pytest.mark.parametrize("wait", [{}, {"1h": [[1, 5], [0, 5]]}, {"1h": {"1h": 5}}, {"soon": 5}])
def test_waits_by_time_limit_must_be_waits(wait: object) -> None:
    with pytest.raises(ValueError, match="must"):
        SimulatedOptions(wait=wait)


def test_lanes_share_a_task(tmp_path: Path) -> None:
    site = Site(tmp_path, shape=TaskResources(gpus=2, lanes=2))
    site.submit([run(0), run(1, resource=4), run(2)])
    site.wait(14.0)
    assert site.times() == [(0, 0.0, 10.0), (1, 0.0, 4.0), (2, 4.0, 10.0)]
    assert [result.gpu_seconds for result in site.results()] == [10.0, 4.0, 10.0]
    assert site.phases() == [Phase.COMPLETED]


def test_what_a_site_refuses_it_refuses_in_words(tmp_path: Path) -> None:
    big = Site(tmp_path / "big", shape=TaskResources(gpus=2), gpus=2, array_tasks=3, max_jobs=4)
    assert big.cluster.limits().array_tasks == 3
    with pytest.raises(SubmitRefused, match="b4: 4 tasks are more than array_tasks 3"):
        big.submit(*map(run, range(4)), name="b4")
    big.submit(*map(run, range(3)), name="b3")
    with pytest.raises(SubmitLimited, match="b2: 2 tasks beside 3 are more than max_jobs 4"):
        big.submit(*map(run, range(2)), name="b2")
    small = Site(tmp_path / "small", shape=TaskResources(gpus=3))
    with pytest.raises(SubmitRefused, match="a: no node has 3 GPUs, only 2"):
        small.submit(run(0))


# --------------------------------------------------------------------------- training


def test_a_promoted_run_trains_the_difference(tmp_path: Path) -> None:
    site = Site(tmp_path, startup=3.0)
    site.submit(run(0, resource=3))
    site.wait(20.0)
    site.submit(run(0, rung=1, resource=9), name="b")
    site.wait(20.0)
    assert site.times() == [(0, 0.0, 6.0)]
    assert site.times("b") == [(0, 20.0, 9.0)]
    assert site.results("b")[0].start == 3


def test_a_clone_goes_on_from_its_parent_s_checkpoint(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.submit(run(7, resource=9, parent=2, parent_step=6))
    site.wait(20.0)
    assert [(result.start, result.seconds) for result in site.results()] == [(6, 3.0)]


def test_what_was_trained_before_the_simulation_is_not_trained_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.cluster = SimulatedCluster(
        SimulatedOptions(gpus=2),
        shape=site.shape,
        curve=falling,
        unit_seconds=lambda config: 1.0,
        start=500.0,
        reached={0: 4},
    )
    site.submit(run(0), run(1))
    site.wait(20.0)
    assert site.times() == [(0, 500.0, 6.0), (1, 500.0, 10.0)]


def test_stragglers_take_up_to_the_spread_and_each_its_own_time(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=300, spread=4.0)
    site.submit(*map(run, range(300)))
    site.wait(50.0)
    factors = sorted(seconds / 10 for _, _, seconds in site.times())
    assert len(set(factors)) == 300
    assert 1 <= factors[0] < 1.1 < 3.9 < factors[-1] <= 4
    assert factors[150] == pytest.approx(2.0, abs=0.25)  # log-uniform: the median is the root


def failing(config: Config, step: int, seed: int) -> float:
    if config["x"] == 1.0:
        raise RuntimeError("shapes do not fit")
    return math.nan if config["x"] == 2.0 else step + seed / 10


def test_an_error_and_nan_fail_the_run_and_the_seed_is_the_trial_s(tmp_path: Path) -> None:
    site = Site(tmp_path, curve=failing)
    site.submit(run(1), run(2), run(3))
    site.wait(30.0)
    assert [(r.outcome, r.value, r.message) for r in site.results()] == [
        (Outcome.FAILED, None, "RuntimeError: shapes do not fit"),
        (Outcome.FAILED, None, "metric 'loss' is nan at step 10"),
        (Outcome.COMPLETED, 10.3, ""),
    ]


@pytest.mark.parametrize(("mode", "value"), [("min", 0.0), ("max", 16.0)])
def test_the_best_step_counts_where_the_objective_says_so(tmp_path: Path, mode: str, value: float) -> None:
    program = msgspec.structs.replace(PROGRAM, at="best", mode=mode)
    site = Site(tmp_path, program=program, curve=lambda config, step, seed: float((step - 5) ** 2))
    site.submit(run(0, resource=9))
    site.wait(10.0)
    assert site.results()[0].value == value


def test_the_share_of_runs_that_fail(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=400, failures=0.25)
    site.submit(*map(run, range(400)))
    site.wait(20.0)
    failed = [result for result in site.results() if result.outcome is Outcome.FAILED]
    assert 70 < len(failed) < 130
    assert {result.message for result in failed} == {"simulated failure"}
    assert all(result.seconds < 10 and result.step == math.floor(result.seconds) for result in failed)


def test_metrics_are_written_as_time_passes_if_wanted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.cluster.reports = True
    site.submit(run(3, resource=4))
    site.wait(2.0)
    [file] = metrics_files(site.layout.trial(3))
    assert [tuple(report) for report in read_reports(file.path)] == [(1, {"loss": 4.0}), (2, {"loss": 3.5})]
    site.wait(2.0)
    assert [report.step for report in read_reports(file.path)] == [1, 2, 3, 4]
    silent = Site(tmp_path / "silent")
    silent.submit(run(3, resource=4))
    silent.wait(5.0)
    assert metrics_files(silent.layout.trial(3)) == []


def test_a_run_that_reports_fails_in_the_step_with_the_error(tmp_path: Path) -> None:
    def diverging(config: Config, step: int, seed: int) -> float:
        return 1 / (step - 4)

    site = Site(tmp_path, curve=diverging)
    site.cluster.reports = True
    site.submit(run(0))
    site.wait(20.0)
    assert [(r.outcome, r.seconds, r.message) for r in site.results()] == [
        (Outcome.FAILED, 4.0, "ZeroDivisionError: division by zero")
    ]


# --------------------------------------------------------------------------- what goes wrong


def test_a_preempted_task_is_requeued_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    site = Site(tmp_path, preemptions=OFTEN, checkpoint_every=3, wait=2.0)
    site.submit(run(0, resource=400))
    site.wait(10_000.0)
    results = site.results()
    assert [result.restart for result in results] == list(range(len(results)))
    assert len(results) > 2
    expected = 0
    for result in results:
        assert result.start == expected
        whole = expected + math.floor(result.seconds + 1e-6)
        expected = max(expected, whole - whole % 3) if result.outcome is None else 400
        assert result.step == expected
        assert result.progressed == (result.step > result.start)
    assert {result.interrupted for result in results[:-1]} == {Interruption.PREEMPTED}
    assert results[-1].outcome is Outcome.COMPLETED
    gaps = [
        after.started - before.started - before.seconds
        for before, after in itertools.pairwise(results)
        if after.started is not None and before.started is not None
    ]
    assert gaps == pytest.approx([2.0] * len(gaps))
    assert site.cluster.ends == {Phase.PREEMPTED: len(results) - 1}


def test_without_requeue_a_preempted_task_is_over(tmp_path: Path) -> None:
    site = Site(tmp_path, preemptions=OFTEN, requeue=False)
    site.submit(run(0, resource=1000))
    site.wait(2000.0)
    [result] = site.results()
    assert result.interrupted is Interruption.PREEMPTED
    assert site.phases() == [Phase.PREEMPTED]


def test_preempted_lanes_tell_of_the_runs_that_did_not_begin(tmp_path: Path) -> None:
    site = Site(tmp_path, shape=TaskResources(gpus=1), preemptions=OFTEN, requeue=False)
    site.submit([run(0, resource=1000), run(1, resource=1000)])
    site.wait(2000.0)
    assert [(r.interrupted, r.started) for r in site.results()] == [
        (Interruption.PREEMPTED, 0.0),
        (Interruption.PREEMPTED, None),
    ]


def test_a_time_limit_ends_a_task(tmp_path: Path) -> None:
    site = Site(tmp_path, shape=TaskResources(gpus=1, time_s=6))
    site.submit(run(0), run(1, resource=6))
    site.wait(20.0)
    assert site.phases() == [Phase.TIMEOUT, Phase.COMPLETED]
    assert [(result.step, result.outcome) for result in site.results()] == [(6, None), (6, Outcome.COMPLETED)]


def test_a_node_that_fails_takes_its_tasks_and_no_others_with_it(tmp_path: Path) -> None:
    site = Site(tmp_path, nodes=2, gpus=2, node_failures=1.0)
    site.submit(*(run(trial, resource=50_000) for trial in range(4)))
    while site.cluster.ends[Phase.NODE_FAIL] == 0:
        site.cluster.clock.sleep(1.0)
    failed, others = [Phase.NODE_FAIL] * 2, [Phase.RUNNING] * 2
    assert site.phases() in ([*failed, *others], [*others, *failed])
    assert site.results() == []
    gone = site.phases().index(Phase.NODE_FAIL)
    trained = math.floor(site.cluster.usage.task_seconds(site.cluster.clock.time()) / 4)
    site.submit(run(gone, resource=50_000, attempt=1), name="b")
    site.cluster.clock.sleep(1.0)
    site.cluster.cancel(site.live("b"), [0])
    [again] = site.results("b")
    assert 0 < again.start == pytest.approx(trained, abs=60)  # on the node that is back, from its checkpoint


def test_a_task_of_two_nodes_fails_with_either_and_frees_both(tmp_path: Path) -> None:
    site = Site(tmp_path, shape=TaskResources(gpus=2, nodes=2), nodes=2, gpus=2, node_failures=1.0)
    site.submit(run(0, resource=50_000), run(1, resource=50_000))
    while site.cluster.ends[Phase.NODE_FAIL] == 0:
        site.cluster.clock.sleep(1.0)
    assert site.phases() == [Phase.NODE_FAIL, Phase.RUNNING]


def test_cancelled_tasks_leave_their_checkpoint_or_never_start(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=1)
    site.submit(run(0), run(1), run(2))
    site.wait(4.5)
    site.cluster.cancel(site.live(), [0, 1])
    assert site.phases() == [Phase.CANCELLED, Phase.CANCELLED, Phase.RUNNING]
    site.cluster.cancel(site.live(), [0, 1])
    site.wait(20.0)
    assert [(result.trial, result.step, result.started) for result in site.results()] == [
        (0, 4, 0.0),
        (2, 10, 4.5),
    ]


def test_a_task_of_an_abandoned_batch_does_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.submit(run(0))
    site.layout.batch("a").abandoned_marker.touch()
    site.wait(1.0)
    assert site.phases() == [Phase.COMPLETED]
    assert site.results() == []


def test_a_lost_reply_may_hide_a_submission_that_arrives_at_once_or_late_or_never(tmp_path: Path) -> None:
    site = Site(tmp_path, lost_replies=1.0)
    for number in range(20):
        with pytest.raises(SubmitUncertain):
            site.submit(run(number), name=f"b{number}")
        assert site.layout.batch(f"b{number}").script.exists()

    def found() -> list[str]:
        return [job for number in range(20) if (job := site.cluster.find(f"b{number}")) is not None]

    at_once = found()
    site.wait(200.0)  # twice the settling time
    in_all = found()
    site.wait(200.0)
    assert 0 < len(at_once) < len(in_all) < 20
    assert set(at_once) < set(in_all)
    assert found() == in_all
    assert [result.trial for number in range(20) for result in site.results(f"b{number}")] == [
        int(job) - 1 for job in in_all
    ]


def test_late_results_come_within_twice_the_grace_period(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=100, late_results=0.5)
    site.submit(*map(run, range(100)))
    site.wait(10.0)
    assert site.phases() == [Phase.COMPLETED] * 100
    assert 30 < len(site.results()) < 70
    site.wait(60.0)
    assert len(site.results()) == 100


def test_an_array_that_nobody_follows_any_more_is_forgotten(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.submit(run(0), name="a")
    site.submit(run(1), name="b")
    assert site.states("a", "b").keys() == {TaskId("a", 0), TaskId("b", 0)}
    site.wait(20.0)
    site.states("b")
    assert (site.cluster.find("a"), site.cluster.find("b")) == (None, "2")


# --------------------------------------------------------------------------- what the site tells


def test_tasks_are_shown_with_the_seconds_of_their_last_start(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=1, wait=5.0)
    site.submit(run(0), run(1))
    site.wait(9.0)
    pending, node = TaskState(Phase.PENDING, "Resources"), "node001"
    assert site.states("a") == {
        TaskId("a", 0): TaskState(Phase.RUNNING, node=node, seconds=4.0),
        TaskId("a", 1): pending,
    }
    site.wait(8.0)
    assert site.states("a") == {
        TaskId("a", 0): TaskState(Phase.COMPLETED, node=node, seconds=10.0),
        TaskId("a", 1): TaskState(Phase.RUNNING, node=node, seconds=2.0),
    }
    site.cluster.cancel(site.live(), [1])
    site.submit(run(2), name="b")
    site.cluster.cancel(site.live("b"), [0])
    assert site.states("a", "b") == {
        TaskId("a", 0): TaskState(Phase.COMPLETED, node=node, seconds=10.0),
        TaskId("a", 1): TaskState(Phase.CANCELLED, node=node, seconds=2.0),
        TaskId("b", 0): TaskState(Phase.CANCELLED, seconds=0.0),
    }


def test_limits_and_the_length_of_the_queue_are_told(tmp_path: Path) -> None:
    options: dict[str, Any] = {"nodes": 2, "array_tasks": 5, "max_jobs": 7, "time_limit": "60s"}
    site = Site(tmp_path / "told", **options)
    told = Limits(array_tasks=5, slots=4, queued_tasks=7, time_s=60, nodes=("node001", "node002"))
    assert site.cluster.limits() == told
    assert site.cluster.queued_tasks is None
    site.submit(*map(run, range(5)))
    assert site.cluster.queued_tasks is None
    site.states("a")
    assert site.cluster.queued_tasks == 5
    silent = Site(tmp_path / "silent", **options, tells_max_jobs=False)
    assert silent.cluster.limits() == msgspec.structs.replace(told, queued_tasks=None)


def test_the_time_limit_of_the_site_holds_for_tasks_that_ask_for_none(tmp_path: Path) -> None:
    site = Site(tmp_path / "a", time_limit="6s")
    site.submit(run(0), run(1, resource=6))
    site.wait(20.0)
    assert site.phases() == [Phase.TIMEOUT, Phase.COMPLETED]
    asking = Site(tmp_path / "b", time_limit="6s", shape=TaskResources(gpus=1, time_s=10))
    asking.submit(run(0))
    asking.wait(20.0)
    assert asking.phases() == [Phase.COMPLETED]


def test_excluded_nodes_are_not_used(tmp_path: Path) -> None:
    site = Site(tmp_path, nodes=3, gpus=1)
    site.submit(*map(run, range(4)), exclude=("node001", "node003"))
    site.wait(50.0)
    assert [(result.node, result.started) for result in site.results()] == [
        ("node002", 10.0 * trial) for trial in range(4)
    ]


def test_a_batch_that_may_not_be_requeued_is_not(tmp_path: Path) -> None:
    site = Site(tmp_path, preemptions=OFTEN)
    site.submit(run(0, resource=1000), requeue=False)
    site.wait(2000.0)
    assert len(site.results()) == 1
    assert site.phases() == [Phase.PREEMPTED]


def test_a_site_may_forget_what_has_ended(tmp_path: Path) -> None:
    site = Site(tmp_path, gpus=1, forgets=15.0)
    site.submit(run(0), run(1))
    site.wait(20.0)
    assert site.phases() == [Phase.COMPLETED, Phase.COMPLETED]
    site.wait(5.0)
    assert site.phases() == [None, Phase.COMPLETED]
    assert site.cluster.find("a") == "1"
    site.wait(10.0)
    assert site.phases() == [None, None]
    assert site.cluster.find("a") is None
    assert len(site.results()) == 2


def silences(site: Site) -> list[bool]:
    """For each second of an hour whether nobody answered."""
    found = []
    for _ in range(3600):
        site.wait(1.0)
        found.append(site.cluster.poll([]) is None)
    return found


def test_outages_come_as_often_and_last_as_long_as_told_and_tasks_run_on(tmp_path: Path) -> None:
    site = Site(tmp_path / "a", outages=OFTEN, outage=30.0)
    site.submit(run(0, resource=1800))
    silent = silences(site)
    begins = sum(after and not before for before, after in itertools.pairwise(silent))
    assert 25 < begins < 60  # in an hour of 90 seconds each, but for the shortest ones
    assert 0.2 < sum(silent) / len(silent) < 0.5
    assert [(result.started, result.seconds) for result in site.results()] == [(0.0, 1800.0)]
    assert silences(Site(tmp_path / "b", outages=OFTEN, outage=30.0)) == silent


def test_in_an_outage_nothing_is_answered(tmp_path: Path) -> None:
    site = Site(tmp_path, outages=OFTEN, outage=10_000.0)
    site.submit(run(0, resource=1000))
    while site.cluster.poll([]) is not None:
        site.wait(1.0)
    calls: list[Callable[[], object]] = [
        lambda: site.cluster.find("a"),
        lambda: site.cluster.throttle(site.live(), 1),
        lambda: site.cluster.cancel(site.live(), [0]),
        lambda: site.submit(run(1), name="b"),
    ]
    for call in calls:
        with pytest.raises(ClusterUnavailable, match=r"did not answer|does not answer"):
            call()
    while site.cluster.poll([]) is None:
        site.cluster.clock.sleep(1.0)
    assert site.cluster.find("a") == "1"
    [result] = site.results()
    assert (result.outcome, result.seconds) == (Outcome.COMPLETED, 1000.0)


# --------------------------------------------------------------------------- chance


def history(root: Path, *, seed: int, step_s: float) -> list[Result]:
    """What a site with everything that can go wrong has left after an hour, looked at so often."""
    site = Site(
        root,
        seed=seed,
        nodes=2,
        gpus=2,
        spread=4.0,
        preemptions=OFTEN,
        failures=0.2,
        node_failures=OFTEN / 10,
        late_results=0.2,
        wait=[[0.0, 1], [1.0, 20]],
    )
    site.submit(*map(run, range(12)))
    while site.cluster.clock.time() < 3600:
        site.wait(step_s)
        site.phases()
    return site.results()


def test_the_same_seed_gives_the_same_whoever_looks_when(tmp_path: Path) -> None:
    often = history(tmp_path / "often", seed=3, step_s=1.0)
    assert often == history(tmp_path / "seldom", seed=3, step_s=450.0)
    assert len(often) > 12
    assert often != history(tmp_path / "other", seed=4, step_s=450.0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"nodes": 0}, "greater than or equal to 1"),
        ({"gpus": -1}, "greater than or equal to 0"),
        ({"spread": 0.5}, "greater than or equal to 1"),
        ({"failures": 2.0}, "less than or equal to 1"),
        ({"wait": -1.0}, "must be a number >= 0, got -1.0"),
        ({"wait": [[0.9, 10], [0.5, 60]]}, "must be seconds >= 0 or a list of"),
        ({"seconds_per_unit": -1.0}, "must be a number >= 0, got -1.0"),
        ({"seconds_per_unit": "2 +"}, "'2 \\+': "),
    ],
)
def test_a_site_that_makes_no_sense_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SimulatedOptions(**given)


def test_simulations_begin_at_a_fixed_time() -> None:
    cluster = SimulatedCluster(
        SimulatedOptions(), shape=TaskResources(), curve=falling, unit_seconds=lambda config: 1.0
    )
    assert cluster.clock.time() == EPOCH_S
