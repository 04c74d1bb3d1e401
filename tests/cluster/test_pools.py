"""`cluster.pools` of Slurm: mistakes in it, and what scripts of each pool ask for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.cluster.slurm.parts import at_pool, pool_updates, pools_of
from hpcsweep.cluster.slurm.pools import SlurmPool
from hpcsweep.cluster.slurm.scripts import own_options
from hpcsweep.cluster.slurm.site import Node, Partition, SlurmSite
from hpcsweep.core.cluster_protocol import Batch, Pool, TaskResources
from hpcsweep.core.state import SweepState
from hpcsweep.driver.pools import pool_rooms
from hpcsweep.driver.room import Room
from hpcsweep.errors import SpecError
from hpcsweep.session.target import Target
from hpcsweep.spec.load import read_spec
from hpcsweep.spec.schema import json_schema

A100: dict[str, Any] = {"partition": "a100", "gpu_type": "a100", "max_gpus": 16}
PREEMPT: dict[str, Any] = {
    "partition": "preempt",
    "qos": "low",
    "max_tasks": 64,
    "preemptible": True,
    "gpu_hours": 1.5,
}


def read(*pools: Any, **cluster: Any) -> Any:
    data = {
        "name": "s",
        "train": {"command": "true {args} {resource}", "check": False},
        "objective": {"metric": "loss"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "scheduler": {"name": "fifo", "max_resource": 3},
        "budget": {"trials": 3},
        "cluster": {"name": "slurm", "pools": [*pools], **cluster},
    }
    return read_spec(data, source="s.yaml", folder=Path("/x"))


@pytest.mark.parametrize(
    ("pools", "problem"),
    [
        (
            [],
            "cluster.pools: must have one pool at least, such as {partition: a100, max_gpus: 16}, got []",
        ),
        (
            [{"gpu_type": "a100"}],
            "cluster.pools[0]: must have a partition, or a name that tells it from the others",
        ),
        (
            [A100, {"partition": "a100", "qos": "low"}],
            (
                "cluster.pools[1].name: must differ from that of cluster.pools[0], got 'a100'; "
                "give one of them a name"
            ),
        ),
        ([A100 | {"max_gpus": 0}], "cluster.pools[0].max_gpus: must be >= 1, got 0"),
        ([A100 | {"gpu_hours": 0}], "cluster.pools[0].gpu_hours: must be > 0, got 0"),
        ([A100, {"partiton": "b"}], "cluster.pools[1].partiton: unknown key; did you mean 'partition'?"),
    ],
)
def test_a_mistake_in_a_pool_is_told_with_its_place(pools: list[Any], problem: str) -> None:
    with pytest.raises(SpecError) as error:
        read(*pools)
    assert error.value.problems == (f"s.yaml: {problem}",)


def test_pools_are_written_as_they_were_given_and_nothing_without_any() -> None:
    given = json.loads(json.dumps(read(A100, PREEMPT).resolved()))
    assert given["cluster"]["pools"] == [A100, PREEMPT]
    jsonschema.validate(given, json_schema())
    given["cluster"]["pools"][0]["gpu_hour"] = 3
    with pytest.raises(jsonschema.ValidationError, match="gpu_hour"):
        jsonschema.validate(given, json_schema())
    data = read(A100).resolved()
    del data["cluster"]["pools"]
    again = read_spec(data, source="s.yaml", folder=Path("/x"))
    assert "pools" not in again.resolved()["cluster"]


def test_a_driver_sees_their_names_and_caps_in_order() -> None:
    pools = (SlurmPool(**A100), SlurmPool(**PREEMPT), SlurmPool(name="mine", qos="high"))
    assert pools_of(pools) == (
        Pool("a100", max_gpus=16),
        Pool("preempt", max_tasks=64, preemptible=True, max_gpu_s=5400.0),
        Pool("mine"),
    )


def test_what_a_pool_says_takes_the_place_of_the_sweeps_keys_and_options() -> None:
    pool = SlurmPool(partition="a100", qos="low", options={"reservation": "r", "nice": 5})
    update = pool_updates(pool, {"p": "gpu", "q": "high", "nice": 1, "comment": "c"})
    assert update == {
        "partition": "a100",
        "qos": "low",
        "options": {"comment": "c", "reservation": "r", "nice": 5},
    }


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("cluster.partition: no such", "cluster.pools[1].partition: no such"),
        ("cluster.options.nice: wrong", "cluster.pools[1].options.nice: wrong"),
        ("cluster.options.mem: wrong", "cluster.options.mem: wrong (pool a100)"),
        ("cluster.qos: no such", "cluster.qos: no such (pool a100)"),
        ("resources.gpus: too many", "resources.gpus: too many (pool a100)"),
    ],
)
def test_a_problem_in_a_pool_has_the_key_path_of_who_says_it(problem: str, told: str) -> None:
    assert at_pool(problem, 1, SlurmPool(partition="a100", options={"nice": 5})) == told


def test_each_pool_has_a_script_of_its_own_and_ticks_are_as_in_the_first(tmp_path: Path) -> None:
    options = SlurmOptions(
        pools=(SlurmPool(**A100), SlurmPool(**PREEMPT, options={"reservation": "r"})),
        account="mine",
        python=sys.executable,
    )
    cluster = SlurmCluster(options)

    def asked(pool: str) -> dict[str, Any]:
        batch = Batch("b", tmp_path / "b", 1, 1, TaskResources(gpus=2, pool=pool))
        found = own_options(cluster.script(batch))
        keys = ("partition", "qos", "account", "gres", "reservation")
        return {key: found[key] for key in keys if key in found}

    first = {"partition": "a100", "account": "mine", "gres": "gpu:a100:2"}
    low = {
        "partition": "preempt",
        "qos": "low",
        "account": "mine",
        "gres": "gpu:2",
        "reservation": "r",
    }
    assert (asked("a100"), asked("preempt"), asked(""), asked("gone")) == (first, low, first, first)
    assert own_options(cluster.tick_script("t", tmp_path))["partition"] == "a100"


def test_a_wrong_option_of_a_pool_is_told_with_its_place() -> None:
    options = SlurmOptions(pools=(SlurmPool(**A100, options={"array": "0-5"}),))
    with pytest.raises(SpecError) as error:
        SlurmCluster(options)
    assert error.value.problems == (
        "cluster.pools[0].options.array: belongs to hpcsweep; see cluster.max_gpus",
    )


def test_a_task_that_no_pool_may_hold_is_refused() -> None:
    cluster = SlurmCluster(SlurmOptions(pools=(SlurmPool(**A100),)))
    assert cluster.problems(TaskResources(gpus=32)) == [
        "cluster.pools: one must have max_gpus of at least 32, for one task, got 16 at most"
    ]


def test_a_pool_whose_nodes_cannot_hold_a_task_is_passed_over_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = (Node("g1", ("a100",), 64, 500_000, {"a100": 8}), Node("p1", ("preempt",), 16, 64_000, {"": 2}))
    partitions = (Partition("a100"), Partition("preempt"))
    site = SlurmSite(max_array_size=1000, partitions=partitions, nodes=nodes)
    monkeypatch.setattr("hpcsweep.cluster.slurm.cluster.read_site", lambda: site)
    monkeypatch.setattr("hpcsweep.cluster.slurm.cluster.refusal", lambda *_, **__: "")
    cluster = SlurmCluster(SlurmOptions(pools=(SlurmPool(**PREEMPT), SlurmPool(**A100))))
    most = [cluster.pool_task_gpus(pool.name, nodes=1) for pool in cluster.pools]
    assert most == [2, 8]
    assert cluster.pool_task_gpus("a100", nodes=2) == 16
    assert cluster.problems(TaskResources(gpus=4)) == [], "a100 has nodes for it"
    assert len(cluster.problems(TaskResources(gpus=16))) == 2, "no pool has"
    shapes = (TaskResources(gpus=4), TaskResources(gpus=8))
    target = Target("slurm", "", cluster, shapes[1], False, None, shapes)
    assert target.problems(max_gpus=None) == [
        "cluster.pools[0]: must have nodes for a task of 4 GPUs, those of preempt have 2 at most",
        "cluster.pools[0].gpu_hours: needs resources.time: without a time limit nothing can be held to it",
    ]
    rooms = pool_rooms(
        cluster.pools, SweepState(), task_gpus=lambda pool: cluster.pool_task_gpus(pool, nodes=1)
    )
    room = Room(99, 99, rooms)
    assert room.assign([(4, 1.0), (2, 1.0), (8, 1.0)]) == ["a100", "preempt", "a100"]
