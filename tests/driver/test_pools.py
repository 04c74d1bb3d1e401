"""Pools of a cluster: which tasks go where within every cap, and what is passed over."""

from __future__ import annotations

import functools
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.cluster.simulated.cluster import SimulatedCluster
from hpcsweep.cluster.simulated.nodes import Nodes
from hpcsweep.cluster.simulated.site import Array, Site
from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, Pool, TaskId, TaskResources, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    Outcome,
    PoolSkipped,
    RunFinished,
    TaskBegan,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver.gpu_throttle import ShapedUsage, fit_throttles
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.pools import skip_events
from hpcsweep.driver.room import PoolRoom, Room
from tests.driver.test_shapes import GPUS, decisions, sweep

# --------------------------------------------------------------------------- arithmetic

A4 = PoolRoom("a", gpus=4, most_gpus=4)
B8 = PoolRoom("b", gpus=8, most_gpus=8)
SAFE_FIRST = (A4, B8._replace(preemptible=True))


@pytest.mark.parametrize(
    ("room", "tasks", "pools"),
    [
        (Room(99, 99, (A4, B8)), [(1, 1.0)] * 6, [*"aaaabb"]),
        (Room(99, 5, (A4, B8)), [(1, 1.0)] * 6, [*"aaaab", None]),
        (Room(99, 99, (A4, B8)), [(8, 1.0), (4, 1.0), (1, 1.0)], ["b", "a", None]),
        (Room(99, 99, (A4, B8)), [(2, 1.0), (4, 1.0), (2, 1.0)], ["a", "b", "a"]),
        # A task for the sweep is no task for a pool that is full.
        (Room(99, 99, (A4._replace(tasks=1), B8)), [(1, 1.0)] * 3, [*"abb"]),
        # A preemptible pool has the shortest of those that it gets.
        (Room(99, 99, (A4, B8._replace(gpus=1, preemptible=True))), [(2, 9.0), (2, 8.0), (1, 7.0), (1, 1.0)],
         ["a", "a", None, "b"]),
        (Room(99, 99, (B8._replace(gpus=2, preemptible=True), A4)), [(1, 3.0), (1, 1.0), (1, 2.0)], [*"abb"]),
        # One that is passed over gets what no other can take.
        (Room(99, 99, (A4._replace(open=False), B8)), [(1, 1.0)] * 2, [*"bb"]),
        (Room(99, 99, (A4, B8._replace(open=False))), [(8, 1.0), (1, 1.0)], ["b", "a"]),
        (Room(99, 99, (A4._replace(open=False), B8._replace(open=False))), [(1, 1.0)], ["a"]),
        (Room(2, 3), [(2, 1.0), (2, 1.0), (1, 1.0)], ["", None, ""]),
    ],
)  # fmt: skip
def test_tasks_go_to_pools_in_their_order(
    room: Room, tasks: list[tuple[int, float]], pools: list[str | None]
) -> None:
    assert room.assign(tasks) == pools


caps = st.one_of(st.just(float("inf")), st.integers(0, 9).map(float))
rooms = st.builds(
    lambda tasks, gpus, pools: Room(
        tasks,
        gpus,
        tuple(
            PoolRoom(name, own, cap, cap, is_open, unsafe)
            for name, (own, cap, is_open, unsafe) in zip("abc", pools, strict=False)
        ),
    ),
    st.integers(0, 12).map(float),
    caps,
    st.lists(st.tuples(caps, caps, st.booleans(), st.booleans()), max_size=3),
)


@given(rooms, st.lists(st.tuples(st.sampled_from([0, 1, 2, 4, 8]), st.floats(0, 9)), max_size=15))
def test_no_cap_of_a_pool_is_exceeded_and_nothing_that_fits_is_left_out(
    room: Room, tasks: list[tuple[int, float]]
) -> None:
    pools = room.assign(tasks)
    counts, gpus = Counter(pools), Counter[str | None]()
    for (each, _), pool in zip(tasks, pools, strict=True):
        gpus[pool] += each
    placed = [pool for pool in pools if pool is not None]
    assert len(placed) <= room.tasks
    assert sum(gpus[pool] for pool in {*placed}) <= room.gpus
    left = room
    for each_pool in room.pools:
        assert counts[each_pool.name] <= each_pool.tasks
        assert gpus[each_pool.name] <= each_pool.gpus
    for (each, _), name in zip(tasks, pools, strict=True):
        left = left if name is None else left.less(each, pool=name)
    assert not left.missing
    assert all(name is not None or not left.count(each) for (each, _), name in zip(tasks, pools, strict=True))


@given(rooms, st.sampled_from([0, 1, 2, 4]), st.integers(0, 12))
def test_as_many_tasks_fit_as_are_counted(room: Room, gpus: int, tasks: int) -> None:
    assert room.fits([(gpus, tasks)]) is (tasks <= room.count(gpus))
    assert (room.assign([(gpus, 1.0)] * 12).count(None) == 0) is (room.count(gpus) >= 12)


@given(
    rooms,
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.sampled_from("abcx")).map(
            lambda each: ShapedUsage(each[0], each[1], min(each[0], each[1]), each[2], each[3])
        ),
        max_size=6,
    ),
)
def test_throttles_keep_to_the_caps_of_pools_as_far_as_they_can(
    room: Room, usages: list[ShapedUsage]
) -> None:
    throttles = fit_throttles(room, usages)
    left = room
    for usage, throttle in zip(usages, throttles, strict=True):
        left = left.less(usage.gpus, min(usage.open, throttle), usage.pool)
    assert all(throttle >= 1 for throttle in throttles)
    assert all(
        min(usage.open, throttle) == 1 or not left.over(usage.gpus, usage.pool)
        for usage, throttle in zip(usages, throttles, strict=True)
    )


# --------------------------------------------------------------------------- pools whose tasks do not start


class Shown:
    """A monitor that has seen nothing but these states."""

    def __init__(self, **phases: Phase) -> None:
        self.states = {
            TaskId(name[0], int(name[1])): TaskState(phase, seconds=5.0 if phase is Phase.RUNNING else None)
            for name, phase in phases.items()
        }

    def held_tasks(self, batch: BatchState) -> int:
        return sum(
            id_.batch == batch.name and state.phase is Phase.RUNNING for id_, state in self.states.items()
        )


WAITS: list[AnyEvent] = [
    BatchPlanned("b", 100.0, ((), ()), 1, 2, reuse=True, pool="a"),
    BatchSubmitted("b", "1", 100.0),
]
SKIPPED = PoolSkipped("a", 700.0, "2 tasks waited for 10 minutes there")
BEGAN = TaskBegan("b", 650.0, 0, 0, started=640.0, ends=None, node="n1", job="1_0")
BEGAN_LATER = msgspec.structs.replace(BEGAN, at=701.0)
PENDING = {"b0": Phase.PENDING, "b1": Phase.PENDING}


@pytest.mark.parametrize(
    ("events", "shown", "now", "expected"),
    [
        (WAITS, PENDING, 699.0, []),
        (WAITS, PENDING, 700.0, [SKIPPED]),
        # What is not shown to wait does not wait in vain.
        (WAITS, {}, 9000.0, []),
        # One has begun: the others have time from then on.
        ([*WAITS, BEGAN], {"b0": Phase.RUNNING, "b1": Phase.PENDING}, 1249.0, []),
        (
            [*WAITS, BEGAN],
            {"b0": Phase.RUNNING, "b1": Phase.PENDING},
            1250.0,
            [PoolSkipped("a", 1250.0, "1 task waited for 10 minutes there")],
        ),
        # What our own throttle holds back does not wait for the cluster.
        ([*WAITS, BEGAN, BatchThrottled("b", 1)], {"b0": Phase.RUNNING, "b1": Phase.PENDING}, 9000.0, []),
        ([*WAITS, SKIPPED], PENDING, 9000.0, []),
        (
            [*WAITS, SKIPPED, msgspec.structs.replace(BEGAN, at=701.0)],
            PENDING,
            702.0,
            [PoolSkipped("a", 702.0)],
        ),
        ([SKIPPED], {}, 4299.0, []),
        ([SKIPPED], {}, 4300.0, [PoolSkipped("a", 4300.0)]),
    ],
)
def test_a_pool_is_passed_over_while_tasks_wait_there_and_none_begins(
    events: list[AnyEvent], shown: dict[str, Phase], now: float, expected: list[PoolSkipped]
) -> None:
    state = SweepState.replay(events)
    monitor = cast("JobMonitor", Shown(**shown))
    assert skip_events([Pool("a"), Pool("b")], state, monitor, now=now) == expected
    assert skip_events([Pool("a")], state, monitor, now=now) == [], "there is no other one"


# --------------------------------------------------------------------------- whole sweeps, simulated


class Peaks:
    """GPUs that tasks of each pool of a simulated site held at a time, at most; some pools start none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pools: Pool, stuck: Iterable[str] = ()) -> None:
        self.now, self.most = Counter[str](), Counter[str]()
        allocate, release, wait = Nodes.allocate, Nodes.release, Site._wait

        def counted(nodes: Nodes, shape: TaskResources, exclude: Any) -> tuple[int, ...]:
            node = allocate(nodes, shape, exclude)
            for key in (shape.pool, "all") if node else ():
                self.now[key] += shape.total_gpus
                self.most[key] = max(self.most[key], self.now[key])
            return node

        def released(nodes: Nodes, node: Iterable[int], shape: TaskResources) -> None:
            for key in (shape.pool, "all"):
                self.now[key] -= shape.total_gpus
            release(nodes, node, shape)

        def waits(site: Site, array: Array, tasks: Iterable[Any]) -> None:
            if array.shape.pool not in stuck:
                wait(site, array, tasks)

        monkeypatch.setattr(Site, "_wait", waits)
        monkeypatch.setattr(Nodes, "allocate", counted)
        monkeypatch.setattr(Nodes, "release", released)
        monkeypatch.setattr(SimulatedCluster, "pools", pools)


SITES: list[dict[str, Any]] = [
    {},
    {"wait": [[0, 0], [1, 600]], "spread": 4.0, "preemptions": 6.0},
    {"wait": 60, "preemptions": 6.0, "requeue": False, "node_failures": 0.5, "late_results": 0.3},
    {"lost_replies": 0.2, "outages": 2.0, "forgets": "60s", "seconds_per_unit": 60},
]


@functools.cache
def alike() -> list[tuple[int, int, float | None]]:
    with tempfile.TemporaryDirectory() as folder:
        return decisions(sweep(Path(folder) / "s", {"gpus": 1, "time": "30m"}))


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("gpus", [1, GPUS])
@pytest.mark.parametrize("site", SITES)
def test_a_sweep_in_pools_decides_as_one_without_and_keeps_every_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: dict[str, Any], gpus: Any, *, reuse: bool
) -> None:
    plain = alike()
    peaks = Peaks(monkeypatch, Pool("a", max_gpus=4), Pool("b", max_gpus=5, preemptible=True))
    events = sweep(tmp_path, {"gpus": gpus, "time": {"per_unit": "5m"}}, reuse=reuse, simulated=site)
    assert decisions(events) == plain
    assert peaks.most["a"] <= 4
    assert peaks.most["b"] <= 5
    assert peaks.most["all"] <= 8
    assert {event.pool for event in events if isinstance(event, BatchPlanned)} == {"a", "b"}
    state = SweepState.replay(events)
    assert sum(state.pool_gpu_s.values()) == pytest.approx(state.spent_gpu_s)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_pool_whose_tasks_do_not_start_is_passed_over_and_its_tasks_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reuse: bool
) -> None:
    plain = alike()
    peaks = Peaks(monkeypatch, Pool("a", max_gpus=8), Pool("b", max_gpus=4), stuck=["a"])
    events = sweep(tmp_path, {"gpus": 1, "time": "30m"}, reuse=reuse)
    assert decisions(events) == plain
    assert (peaks.most["a"], peaks.most["b"]) == (0, 4)
    skipped = [event for event in events if isinstance(event, PoolSkipped)]
    assert skipped[0].pool == "a"
    assert skipped[0].reason.endswith("waited for 10 minutes there")
    assert SweepState.replay(events).live == {}


@pytest.mark.parametrize("reuse", [False, True])
def test_a_large_run_gets_the_one_pool_that_is_large_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reuse: bool
) -> None:
    plain = alike()
    peaks = Peaks(monkeypatch, Pool("a", max_gpus=4), Pool("b", max_gpus=2))
    events = sweep(tmp_path, {"gpus": GPUS, "time": "30m"}, reuse=reuse, simulated={"spread": 3.0})
    assert decisions(events) == plain
    assert (peaks.most["a"], peaks.most["b"]) == (4, 2)


# --------------------------------------------------------------------------- GPU-hours of pools

HOURS = {"wait": 30, "preemptions": 3.0, "requeue": False, "seconds_per_unit": 60}


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("gpus", [1, GPUS])
def test_a_pool_costs_no_more_than_its_gpu_hours_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: Any, *, reuse: bool
) -> None:
    Peaks(monkeypatch, Pool("a", max_gpus=4, max_gpu_s=1800.0), Pool("b", max_gpus=4))
    sections = {"scheduler": {"name": "fifo", "max_resource": 3}, "budget": {"trials": 30}}
    resources = {"gpus": gpus, "time": {"base": "2m", "per_unit": "2m"}}
    events = sweep(tmp_path, resources, reuse=reuse, simulated=HOURS, sections=sections)
    assert [event.outcome for event in events if isinstance(event, RunFinished)] == [Outcome.COMPLETED] * 30
    state = SweepState.replay(events)
    assert 600 < state.pool_gpu_s["a"] <= 1800
    assert state.pool_gpu_s["b"] > 0
    said = [event.reason for event in events if isinstance(event, PoolSkipped) and event.spent]
    assert re.match(
        r"its gpu_hours are used up: 0\.\d+ of 0\.5 are spent, and one more task may take ", said[0]
    )


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("gpus", [1, GPUS])
def test_a_sweep_ends_when_the_gpu_hours_of_all_pools_are_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: Any, *, reuse: bool
) -> None:
    caps = {"a": 900.0, "b": 1800.0}
    Peaks(monkeypatch, *(Pool(name, max_gpus=4, max_gpu_s=most) for name, most in caps.items()))
    time = {"base": "2m", "per_unit": "1m"}
    events = sweep(tmp_path, {"gpus": gpus, "time": time}, reuse=reuse, simulated=HOURS)
    state = SweepState.replay(events)
    assert state.ended is not None
    assert re.fullmatch(
        r"cluster\.pools\[\]\.gpu_hours are used up: [\d.]+ of 0.25 in a, [\d.]+ of 0.5 in b are spent, and "
        r"no pool that is large enough can pay for one more task, which may take [\d.]+",
        state.ended.reason,
    )
    for name, most in caps.items():
        assert 0 < state.pool_gpu_s[name] <= most


@pytest.mark.parametrize(
    ("pools", "budget"), [((), {"gpu_hours": 2}), ((Pool("a", max_gpu_s=2 * 3600.0),), {"trials": 40})]
)
def test_runs_of_different_limits_share_no_array_that_its_budget_cannot_pay_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pools: tuple[Pool, ...], budget: dict[str, Any]
) -> None:
    """Limits of 45 and 75 minutes are alike; in one array each run may take 75."""
    Peaks(monkeypatch, *pools)
    events = sweep(
        tmp_path,
        {"gpus": 1, "time": "2700 if width == 256 else 4500"},
        reuse=False,
        simulated={"seconds_per_unit": 4300},
        sections={"budget": budget, "scheduler": {"name": "fifo", "max_resource": 1}},
    )
    state = SweepState.replay(events)
    assert state.ended is not None
    assert "used up" in state.ended.reason
    assert 1.9 < state.spent_gpu_s / 3600 <= 2
