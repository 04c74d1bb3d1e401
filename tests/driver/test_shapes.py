"""Runs of different shapes: which share an array, how tasks are shared out, and whole sweeps of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.cluster.simulated.nodes import Nodes
from hpcsweep.core.cluster_protocol import TaskAllocation, TaskResources
from hpcsweep.core.events import (
    BatchPlanned,
    RunFinished,
    RunInterrupted,
    RunsAssigned,
    SweepEnded,
    SweepOutcome,
)
from hpcsweep.core.expressions import Expression
from hpcsweep.core.run_resources import RunResources
from hpcsweep.core.state import SweepState
from hpcsweep.driver.gpu_throttle import ShapedUsage, fit_throttles
from hpcsweep.driver.room import Room
from hpcsweep.driver.shapes import Demand, array_key, share_tasks
from hpcsweep.simulation.simulate import simulate
from hpcsweep.spec.load import read_spec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.doubles import FolderCluster
from tests.driver.sweeps import drive
from tests.simulation.fault_run import FaultRun, Oracle
from tests.simulation.invariants import decisions_are_those_of_a_quiet_site
from tests.simulation.killable import KillableCluster
from tests.simulation.schedules import schedule_of

# --------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (TaskResources(1, 4, 1000, 1800), TaskResources(1, 3, 900, 1700), True),
        (TaskResources(1), TaskResources(2), False),
        (TaskResources(0, 4), TaskResources(0, 3), False),
        (TaskResources(time_s=60), TaskResources(time_s=300), True),
        (TaskResources(time_s=300), TaskResources(time_s=3600), False),
        (TaskResources(mem_mib=None), TaskResources(mem_mib=1000), False),
    ],
)
def test_runs_share_an_array_where_that_costs_little(
    one: TaskResources, other: TaskResources, *, alike: bool
) -> None:
    assert (array_key(one) == array_key(other)) is alike


def demand(gpus: int, waiting: Sequence[int], *, busy: int = 0) -> Demand:
    return Demand(gpus, 1, busy, waiting, gpus * float(busy + len(waiting)))


@pytest.mark.parametrize(
    ("room", "demands", "shares"),
    [
        (Room(99, 8), [demand(1, range(20))], [8]),
        (Room(3, 8), [demand(1, range(20))], [3]),
        # All kinds at a time, in proportion to what there is to do.
        (Room(99, 8), [demand(1, range(0, 30, 2)), demand(4, range(1, 9, 2))], [4, 1]),
        (Room(99, 16), [demand(2, range(8)), demand(1, range(8, 24)), demand(4, range(24, 28))], [3, 6, 1]),
        # One that needs all that there is goes once it is the oldest, and holds back only what is behind it.
        (Room(99, 8), [demand(8, [0]), demand(1, range(1, 9))], [1, 0]),
        (Room(99, 8), [demand(1, [0, 1, 2, 4, 5]), demand(8, [3])], [3, 0]),
        (Room(99, 4), [demand(8, [0]), demand(1, [1])], [0, 0]),
        (Room(5, 0), [demand(0, range(9))], [5]),
    ],
)
def test_tasks_are_shared_out_by_age_and_work(room: Room, demands: list[Demand], shares: list[int]) -> None:
    assert share_tasks(room, demands) == shares


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 4, 8]), st.integers(0, 5)), min_size=1, max_size=40),
)
def test_shares_stay_within_the_room_and_never_starve_the_oldest(
    tasks: int, gpus: int, runs: list[tuple[int, int]]
) -> None:
    waiting: dict[int, list[int]] = {}
    for position, (each, _) in enumerate(runs):
        waiting.setdefault(each, []).append(position)
    demands = [demand(each, positions, busy=runs[positions[0]][1]) for each, positions in waiting.items()]
    shares = share_tasks(Room(tasks, gpus), demands)
    assert sum(shares) <= tasks
    assert sum(share * each.gpus for share, each in zip(shares, demands, strict=True)) <= gpus
    assert all(share <= each.most() for share, each in zip(shares, demands, strict=True))
    assert shares[0] or demands[0].gpus > gpus
    # Nothing that could go is left out, but behind one that waits for its room.
    left = Room(tasks - sum(shares), gpus - sum(n * d.gpus for n, d in zip(shares, demands, strict=True)))
    if all(shares):
        assert all(
            share == each.most() or not left.count(each.gpus)
            for share, each in zip(shares, demands, strict=True)
        )


@given(
    st.integers(0, 30),
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4)).map(
            lambda each: ShapedUsage(each[0], each[1], min(each[0], each[1]), each[2])
        ),
        max_size=6,
    ),
)
def test_throttles_keep_to_the_cap_as_far_as_they_can(gpus: int, usages: list[ShapedUsage]) -> None:
    cap = Room(20, gpus)
    throttles = fit_throttles(cap, usages)
    running = [min(usage.open, throttle) for usage, throttle in zip(usages, throttles, strict=True)]
    assert all(throttle >= 1 for throttle in throttles)
    used = sum(n * usage.gpus for n, usage in zip(running, usages, strict=True))
    assert (used <= gpus and sum(running) <= 20) or all(
        n == 1 or usage.gpus == 0 or used <= gpus for n, usage in zip(running, usages, strict=True)
    )


# --------------------------------------------------------------------------- whole sweeps, simulated

GPUS = "1 if width == 256 else 2 if width == 512 else 4"
BASE: dict[str, Any] = {
    "name": "s",
    "train": {"command": "true {args} {resource}", "check": False},
    "objective": {"metric": "loss"},
    "space": {
        "width": {"type": "choice", "values": [256, 512, 1024]},
        "lr": {"type": "float", "low": 0.0, "high": 1.0},
    },
    "scheduler": {"name": "hyperband", "max_resource": 9, "eta": 3},
    "searcher": "random",
}
SITES: list[dict[str, Any]] = [
    {},
    {"wait": [[0, 0], [1, 600]], "spread": 4.0, "preemptions": 6.0},
    {"wait": 60, "preemptions": 6.0, "requeue": False, "node_failures": 0.5, "late_results": 0.3},
    {"lost_replies": 0.2, "outages": 2.0, "forgets": "60s", "seconds_per_unit": 60},
]


class Peak:
    """GPUs that the tasks of a simulated site held at a time, at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0
        allocate, release = Nodes.allocate, Nodes.release

        def counted(nodes: Nodes, shape: TaskResources, exclude: Any) -> tuple[int, ...]:
            node = allocate(nodes, shape, exclude)
            self.now += shape.total_gpus if node else 0
            self.most = max(self.most, self.now)
            return node

        def released(nodes: Nodes, node: Iterable[int], shape: TaskResources) -> None:
            self.now -= shape.total_gpus
            release(nodes, node, shape)

        monkeypatch.setattr(Nodes, "allocate", counted)
        monkeypatch.setattr(Nodes, "release", released)


def sweep(
    folder: Path, resources: dict[str, Any], *, sections: dict[str, Any] | None = None, **cluster: Any
) -> list[Any]:
    """The events of a simulated sweep."""
    site = {"nodes": 4, "gpus": 4, **cluster.pop("simulated", {})}
    section = {"name": "simulated", "max_gpus": 8, **cluster, "simulated": site}
    data = {**BASE, "resources": resources, "cluster": section, **(sections or {})}
    spec = read_spec(data, source="s.yaml", folder=Path("/x"))
    result = simulate(spec, lambda config, step, _: config["lr"] + 1 / step, folder=folder, compact=False)
    assert result.ending == "finished"
    return list(read_journal(Layout(folder)).events)


def decisions(events: Sequence[Any]) -> list[tuple[int, int, float | None]]:
    return sorted((each.trial, each.rung, each.value) for each in events if isinstance(each, RunFinished))


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("site", SITES)
def test_a_sweep_of_several_shapes_decides_as_one_of_one_and_keeps_its_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: dict[str, Any], *, reuse: bool
) -> None:
    alike = sweep(tmp_path / "alike", {"gpus": 1, "time": "30m"})
    peak = Peak(monkeypatch)
    resources = {"gpus": GPUS, "cpus": "4 * gpus", "mem": "4 * width", "time": {"per_unit": "5m"}}
    events = sweep(tmp_path / "shaped", resources, reuse=reuse, simulated=site)
    assert decisions(events) == decisions(alike)
    assert 4 < peak.most <= 8


@pytest.mark.parametrize("reuse", [False, True])
def test_each_array_has_one_shape_and_asks_for_the_time_of_its_rung(tmp_path: Path, *, reuse: bool) -> None:
    resources = {"gpus": GPUS, "time": {"base": "2m", "per_unit": "20m"}}
    events = sweep(tmp_path, resources, reuse=reuse)
    planned = [each for each in events if isinstance(each, BatchPlanned)]
    assert {each.gpus for each in planned} == {1, 2, 4}
    assert min(each.time_s for each in planned) <= 40 * 60
    assert max(each.time_s for each in planned) >= 6 * 20 * 60


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("wait", [0, [[0, 0], [1, 300]]])
def test_runs_of_all_gpus_take_their_turn_among_small_ones(tmp_path: Path, wait: Any, *, reuse: bool) -> None:
    events = sweep(
        tmp_path,
        {"gpus": "8 if width == 256 else 1", "time": "30m"},
        reuse=reuse,
        simulated={"gpus": 8, "nodes": 2, "wait": wait, "spread": 3.0},
        sections={"scheduler": {"name": "fifo", "max_resource": 3}, "budget": {"trials": 40}},
    )
    started: list[int] = []
    for event in events:
        runs = event.runs if isinstance(event, RunsAssigned) else ()
        if isinstance(event, BatchPlanned):
            runs = tuple(run for task in event.tasks for run in task)
        started += [run.trial for run in runs]
    assert sorted(started) == list(range(40))
    assert max(abs(trial - position) for position, trial in enumerate(started)) <= 8


def test_tasks_that_do_two_runs_at_a_time_keep_the_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = sweep(tmp_path / "alike", {"gpus": 1, "time": "30m"})
    peak = Peak(monkeypatch)
    resources = {"gpus": GPUS, "time": {"per_unit": "5m"}}
    site = {"gpus": 8, "wait": 30, "preemptions": 3.0, "spread": 2.0}
    events = sweep(tmp_path / "shaped", resources, reuse=True, concurrent=2, simulated=site)
    assert decisions(events) == decisions(alike)
    assert peak.most == 8


def test_runs_with_a_longer_limit_than_any_task_go_on_in_the_next_one(tmp_path: Path) -> None:
    """A sweep that submits tasks which nothing is given to, again and again, ends with its time."""
    options: dict[str, Any] = {"simulated": {"seconds_per_unit": 60}, "sections": {"budget": {"time": "3h"}}}
    alike = sweep(tmp_path / "alike", {"gpus": 1, "time": "30m"}, **options)
    resources = {"gpus": GPUS, "time": {"per_unit": "2m"}}
    events = sweep(tmp_path / "shaped", resources, reuse=True, task_time="6m", **options)
    assert decisions(events) == decisions(alike)
    assert max(event.time_s for event in events if isinstance(event, BatchPlanned)) == 360
    assert any(isinstance(event, RunInterrupted) for event in events)


@pytest.mark.parametrize("reuse", [False, True])
def test_the_gpu_budget_counts_each_run_with_its_own_gpus_and_limit(tmp_path: Path, *, reuse: bool) -> None:
    events = sweep(
        tmp_path,
        {"gpus": GPUS, "time": {"base": "2m", "per_unit": "1m"}},
        reuse=reuse,
        simulated={"preemptions": 3.0, "requeue": False, "wait": 30},
        sections={"budget": {"gpu_hours": 0.6}},
    )
    state = SweepState.replay(events)
    assert state.ended is not None
    assert state.ended.reason.startswith("budget.gpu_hours 0.6 is used up")
    assert 0.2 < state.spent_gpu_s / 3600 <= 0.6


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize(("scheduler", "hours"), [("fifo", 5), ("hyperband", 4.6)])
def test_runs_that_the_budget_can_pay_for_go_on_past_those_that_it_cannot(
    tmp_path: Path, scheduler: str, hours: float, *, reuse: bool
) -> None:
    events = sweep(
        tmp_path,
        {"gpus": "8 if width == 256 else 1", "time": "30m"},
        reuse=reuse,
        simulated={"gpus": 8, "seconds_per_unit": 60},
        sections={
            "scheduler": {"name": scheduler, "max_resource": 9},
            "budget": {"gpu_hours": hours, "trials": 40},
        },
    )
    state = SweepState.replay(events)
    assert state.ended is not None
    assert state.ended.reason.startswith(f"budget.gpu_hours {hours:g} is used up")
    assert state.spent_gpu_s / 3600 <= hours
    waiting = [run for run in state.waiting if state.trials[run.trial].config["width"] == 256]
    assert waiting
    done = [each.run for each in events if isinstance(each, RunFinished)]
    assert max(done)[0] > min(waiting)[0], "those behind went on"


@pytest.mark.parametrize("reuse", [False, True])
def test_a_run_whose_needs_cannot_be_computed_pauses_the_sweep_and_says_which(
    tmp_path: Path, *, reuse: bool
) -> None:
    """The value is so rare that nothing tried it when the spec was read."""
    settings: dict[str, Any] = {
        "resources": RunResources(gpus=Expression("1 if x < 0.9 else 1 / (x - x)")),
        "shape": TaskResources(gpus=1),
        "idle_s": 60.0 if reuse else None,
    }
    cluster = FolderCluster(tmp_path / "controller")
    driver = drive(tmp_path / "results", cluster, **settings)
    assert driver.state.ended is not None
    assert driver.state.ended.outcome is SweepOutcome.PAUSED
    trial = next(each for each in driver.state.trials if each.config["x"] >= 0.9)
    expression = "'1 if x < 0.9 else 1 / (x - x)'"
    assert driver.state.ended.reason == (
        f"resources.gpus: {expression} cannot be computed for x={trial.config['x']}: float division by zero "
        f"(trial {trial.trial} rung 0): fix the spec, then launch again"
    )


@pytest.mark.parametrize("reuse", ["false", "true"])
def test_a_stop_ends_tasks_of_all_shapes_and_the_next_launch_goes_on(tmp_path: Path, *, reuse: str) -> None:
    """On nodes that tasks get as a whole, whatever they ask for."""
    schedule = msgspec.structs.replace(
        schedule_of(0),
        overrides=(
            "resources.gpus='1 if x < 0.5 else 2'",
            "resources.time={base: 60, per_unit: 60}",
            "cluster.signal=10",
            "cluster.max_gpus=8",
            f"cluster.reuse={reuse}",
        ),
        kills=0,
        flaky=0.0,
        stop=6,
        faults=0,
    )
    whole = TaskAllocation(4, 4, "whole nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KillableCluster, "allocation_of", lambda *_: whole)
        run = FaultRun(schedule, tmp_path, Oracle(patch), patch)
    ends = [event.outcome for event in run.events if isinstance(event, SweepEnded)]
    assert ends == [SweepOutcome.STOPPED, SweepOutcome.FINISHED]
    assert any(isinstance(event, RunInterrupted) for event in run.events)
    assert {event.gpus_held for event in run.events if isinstance(event, BatchPlanned)} == {4}
    assert run.site.usage.most <= 4, "of two tasks, which ask for two GPUs at most"
    decisions_are_those_of_a_quiet_site(run, tmp_path)
