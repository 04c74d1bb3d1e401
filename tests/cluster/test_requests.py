"""What a site's figures mean for a sweep, as hand-worked tables."""

from __future__ import annotations

import msgspec
import pytest

from hpcsweep.cluster.slurm.options import OptionValue
from hpcsweep.cluster.slurm.requests import (
    ResourceRequest,
    default_limits,
    limits_of,
    resource_problems,
)
from hpcsweep.cluster.slurm.site import (
    Association,
    DefaultMemory,
    Node,
    Partition,
    Qos,
    SlurmSite,
    read_config,
    read_partitions,
)
from hpcsweep.core.cluster_protocol import Limits, TaskResources

DAY = 86400

SITE = SlurmSite(
    max_array_size=1001,
    max_jobs=10000,
    partitions=(
        Partition("gpu", default=True, max_time_s=DAY, default_time_s=3600),
        Partition("long", max_time_s=7 * DAY),
        Partition("cpu", max_time_s=DAY, max_cpus=12, max_mem_mib=30000),
        Partition("old", state="DRAIN"),
    ),
    nodes=(
        Node("g1", ("gpu", "long"), 16, 65536, {"a100": 4}, ("fast", "nvlink")),
        Node("g2", ("gpu",), 32, 131072, {"v100": 2}, ("fast",)),
        Node("c1", ("cpu", "long"), 64, 262144),
    ),
)
#: The same, with accounts.
LIMITED = msgspec.structs.replace(
    SITE,
    enforces=True,
    associations=(
        Association("lab", default=True, max_submit=100, group_submit=80, max_time_s=2 * DAY),
        Association("lab", default=True, partition="cpu", max_submit=7),
        Association("other", max_submit=5, qos="high"),
    ),
    qos=(
        Qos("normal", max_time_s=DAY // 2),
        Qos("high", max_submit=60, account_submit=50, group_submit=90),
        Qos("part", max_submit=40),
        Qos("over", max_submit=45, over_partition=True),
    ),
)


def test_limits_of_the_default_partition() -> None:
    assert limits_of(SITE, ResourceRequest()) == Limits(
        array_tasks=1001, queued_tasks=10000, time_s=3600, most_times_s=(DAY,), nodes=("g1", "g2")
    )


MEMORY = msgspec.structs.replace(SITE, shares_memory=True, memory=DefaultMemory(per_cpu=2000))


@pytest.mark.parametrize(
    ("site", "partitions", "options", "expected"),
    [
        (SITE, (), {}, (3600, None)),
        (MEMORY, (), {}, (3600, 8000)),
        (MEMORY, ("gpu", "long"), {}, (3600, 8000)),
        (msgspec.structs.replace(MEMORY, memory=DefaultMemory(per_node=5000)), (), {}, (3600, 5000)),
        (msgspec.structs.replace(MEMORY, memory=DefaultMemory()), (), {}, (3600, 65536)),
        (msgspec.structs.replace(MEMORY, memory=DefaultMemory(by_gpu=True)), (), {}, (3600, None)),
        (msgspec.structs.replace(MEMORY, whole_nodes=True), (), {}, (3600, None)),
        (MEMORY, (), {"exclusive": True}, (3600, None)),
        (MEMORY, (), {"mem-per-gpu": "8G"}, (3600, None)),
        (MEMORY, (), {"time": 30}, (None, 8000)),
        (SlurmSite(), (), {}, (None, None)),
    ],
)
def test_what_a_task_gets_that_asks_for_neither_time_nor_memory(
    monkeypatch: pytest.MonkeyPatch,
    site: SlurmSite,
    partitions: tuple[str, ...],
    options: dict[str, OptionValue],
    expected: tuple[int | None, int | None],
) -> None:
    for name in ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"):
        monkeypatch.delenv(name, raising=False)
    wish = ResourceRequest(partitions=partitions)
    assert default_limits(site, wish, TaskResources(cpus=4), options) == expected
    monkeypatch.setenv("SBATCH_MEM_PER_CPU", "1G")
    assert default_limits(site, wish, TaskResources(cpus=4), options).mem_mib is None


def test_default_memory_is_read_from_slurm_s_configuration() -> None:
    config = "SelectTypeParameters    = CR_CPU_MEMORY\nDefMemPerCPU            = 500\n"
    site = read_config(config + "DefMemPerNode           = UNLIMITED\n")
    assert (site.shares_memory, site.memory) == (True, DefaultMemory(per_cpu=500))
    assert not read_config("SelectTypeParameters    = CR_CPU").shares_memory
    lines = (
        "PartitionName=x DefMemPerNode=UNLIMITED JobDefaults=(null)\n"
        "PartitionName=y DefMemPerNode=4000\nPartitionName=z JobDefaults=DefMemPerGPU=8000\n"
    )
    found = [partition.memory for partition in read_partitions(lines)]
    assert found == [None, DefaultMemory(per_node=4000), DefaultMemory(by_gpu=True)]


def test_site_of_which_nothing_is_known_limits_nothing() -> None:
    assert limits_of(SlurmSite(), ResourceRequest()) == Limits()
    assert (
        resource_problems(
            SlurmSite(), ResourceRequest(partitions=("gpu",)), TaskResources(gpus=8, time_s=10**9)
        )
        == []
    )


@pytest.mark.parametrize(
    ("partitions", "time_s"),
    [
        (("gpu",), 3600),
        (("long",), 7 * DAY),  # no default: the longest
        (("gpu", "long"), 7 * DAY),  # it may be either
        (("gpu", "old"), None),  # neither default nor limit
    ],
)
def test_time_of_a_task_that_asks_for_none_is_the_partition_s(
    partitions: tuple[str, ...], time_s: int | None
) -> None:
    assert limits_of(SITE, ResourceRequest(partitions=partitions)).time_s == time_s


def test_time_of_a_task_that_asks_for_none_is_the_user_s_own_default_if_there_is_one() -> None:
    assert limits_of(SITE, ResourceRequest(time_s=60)).time_s == 60


def test_account_s_time_is_the_default_where_the_partition_has_none() -> None:
    assert limits_of(LIMITED, ResourceRequest(partitions=("long",))).time_s == DAY // 2
    assert limits_of(LIMITED, ResourceRequest(partitions=("long",), qos="high")).time_s == 2 * DAY
    assert limits_of(LIMITED, ResourceRequest(partitions=("gpu",))).time_s == 3600


@pytest.mark.parametrize(
    ("wish", "queued"),
    [
        (ResourceRequest(), 80),  # of the association: 100 of the user's, 80 with others'
        (ResourceRequest(qos="high"), 50),  # 60 instead of the association's 100, but 50 of the account's
        (
            ResourceRequest(partitions=("cpu",)),
            7,
        ),  # an association for one partition goes before that for all
        (ResourceRequest(partitions=("gpu", "cpu")), 7),
        (ResourceRequest(account="other"), 50),  # its QOS by default goes before its own 5
        (ResourceRequest(account="nobody"), 10000),
    ],
)
def test_first_submit_limit_of_each_kind_holds_and_the_smallest_of_these(
    wish: ResourceRequest, queued: int
) -> None:
    assert limits_of(LIMITED, wish).queued_tasks == queued


@pytest.mark.parametrize(("qos", "queued"), [("high", 40), ("over", 45)])
def test_qos_of_the_partition_goes_first_unless_the_job_s_says_otherwise(qos: str, queued: int) -> None:
    partitions = (msgspec.structs.replace(SITE.partitions[0], qos="part"),)
    assert (
        limits_of(
            msgspec.structs.replace(LIMITED, partitions=partitions), ResourceRequest(qos=qos)
        ).queued_tasks
        == queued
    )


@pytest.mark.parametrize(
    ("wish", "shape", "usable"),
    [
        (ResourceRequest(), TaskResources(gpus=2, nodes=2), 2),
        (ResourceRequest(), TaskResources(gpus=4, nodes=2), 1),
        (ResourceRequest(nodelist="g2"), TaskResources(gpus=2, nodes=2), 1),
        (ResourceRequest(), TaskResources(cpus=16, nodes=3), 2),
    ],
)
def test_a_task_has_no_more_nodes_than_there_are_for_it(
    wish: ResourceRequest, shape: TaskResources, usable: int
) -> None:
    problem = (
        f"resources.nodes: of the nodes of partition gpu {usable} may be used for that, got {shape.nodes}"
    )
    expected = [] if usable >= shape.nodes else [problem]
    assert resource_problems(SITE, wish, shape) == expected


def test_limits_that_are_not_enforced_do_not_count() -> None:
    site = msgspec.structs.replace(LIMITED, enforces=False)
    assert limits_of(site, ResourceRequest()) == limits_of(SITE, ResourceRequest())


@pytest.mark.parametrize(
    ("wish", "nodes"),
    [
        (ResourceRequest(partitions=("gpu", "long")), ("g1", "g2", "c1")),
        (ResourceRequest(gpu_type="a100"), ("g1",)),
        (ResourceRequest(constraint="fast"), ("g1", "g2")),
        (ResourceRequest(constraint="fast&nvlink"), ("g1",)),
        (ResourceRequest(constraint="[fast|slow]"), ("g1", "g2")),
        (ResourceRequest(exclude="g[1,3-9]"), ("g2",)),
        (ResourceRequest(nodelist="g[1-9]", exclude="g2"), ("g1",)),
        (ResourceRequest(partitions=("nowhere",)), ()),
    ],
)
def test_nodes_are_those_that_the_sweep_may_use(wish: ResourceRequest, nodes: tuple[str, ...]) -> None:
    assert limits_of(SITE, wish).nodes == nodes


@pytest.mark.parametrize(
    ("wish", "shape"),
    [
        (ResourceRequest(), TaskResources(gpus=4, cpus=16, mem_mib=65536, time_s=DAY)),
        (ResourceRequest(), TaskResources(gpus=2, cpus=32, mem_mib=131072)),
        (ResourceRequest(gpu_type="v100"), TaskResources(gpus=2)),
        (ResourceRequest(partitions=("gpu", "long")), TaskResources(gpus=4, time_s=7 * DAY)),
        (ResourceRequest(partitions=("gpu", "old")), TaskResources(gpus=4)),
        (ResourceRequest(partitions=("cpu",)), TaskResources(cpus=12, mem_mib=30000)),
    ],
)
def test_what_fits_has_no_problem(wish: ResourceRequest, shape: TaskResources) -> None:
    assert resource_problems(SITE, wish, shape) == []


@pytest.mark.parametrize(
    ("wish", "shape", "lines"),
    [
        (
            ResourceRequest(),
            TaskResources(time_s=2 * DAY),
            ["resources.time: partition gpu allows 1-00:00:00 at most, got 2-00:00:00"],
        ),
        (
            ResourceRequest(),
            TaskResources(time_s=2 * DAY, least_time_s=DAY + 1),
            ["resources.time: partition gpu allows 1-00:00:00 at most, got 1-00:01:00"],
        ),
        (
            ResourceRequest(),
            TaskResources(time_s=2 * DAY, least_time_s=DAY),
            [],
        ),
        (
            ResourceRequest(),
            TaskResources(gpus=8),
            ["resources.gpus: the nodes of partition gpu have 4 GPUs at most, got 8"],
        ),
        (
            ResourceRequest(gpu_type="v100"),
            TaskResources(gpus=4, lanes=4),
            ["resources.gpus: the nodes of partition gpu have 2 v100 GPUs at most, got 4 for 4 runs at once"],
        ),
        (
            ResourceRequest(gpu_type="h100"),
            TaskResources(gpus=1),
            ["cluster.gpu_type: the nodes of partition gpu have a100, v100, got h100"],
        ),
        (
            ResourceRequest(partitions=("cpu",), gpu_type="a100"),
            TaskResources(gpus=1),
            ["cluster.gpu_type: the nodes of partition cpu have no GPUs of a type, got a100"],
        ),
        (
            ResourceRequest(partitions=("cpu",)),
            TaskResources(cpus=13, mem_mib=30001),
            [
                "resources.cpus: the nodes of partition cpu have 12 CPUs at most, got 13",
                "resources.mem: the nodes of partition cpu have 30000M at most, got 30001M",
            ],
        ),
        (
            ResourceRequest(),
            TaskResources(gpus=4, cpus=32, mem_mib=131072),
            ["resources: none of the nodes of partition gpu has 4 GPUs, 32 CPUs, 128G together"],
        ),
        (
            ResourceRequest(partitions=("nope",)),
            TaskResources(),
            ["cluster.partition: there is no nope; there are gpu, long, cpu"],
        ),
        (
            ResourceRequest(partitions=("old",)),
            TaskResources(),
            ["cluster.partition: old is DRAIN and takes no jobs; use gpu, long, cpu"],
        ),
        (
            ResourceRequest(partitions=("gpu", "cpu")),
            TaskResources(gpus=4, time_s=2 * DAY),
            [
                "resources.time: partition gpu allows 1-00:00:00 at most, got 2-00:00:00",
                "resources.time: partition cpu allows 1-00:00:00 at most, got 2-00:00:00",
                "resources.gpus: the nodes of partition cpu have 0 GPUs at most, got 4",
            ],
        ),
    ],
)
def test_what_can_never_run_is_named_with_the_partition_s_own_figures(
    wish: ResourceRequest, shape: TaskResources, lines: list[str]
) -> None:
    assert resource_problems(SITE, wish, shape) == lines


@pytest.mark.parametrize(
    ("wish", "shape", "lines"),
    [
        (
            ResourceRequest(),
            TaskResources(time_s=DAY),
            ["resources.time: QOS normal allows 12:00:00 at most, got 1-00:00:00"],
        ),
        (
            ResourceRequest(partitions=("long",), qos="high"),
            TaskResources(time_s=3 * DAY),
            ["resources.time: account lab allows 2-00:00:00 at most, got 3-00:00:00"],
        ),
        (ResourceRequest(qos="high"), TaskResources(time_s=DAY), []),
    ],
)
def test_time_that_the_account_never_allows_is_named(
    wish: ResourceRequest, shape: TaskResources, lines: list[str]
) -> None:
    assert resource_problems(LIMITED, wish, shape) == lines


def test_default_time_that_the_account_never_allows_is_named() -> None:
    # Slurm gives the partition's default all the same, and lets the job wait for ever.
    site = msgspec.structs.replace(LIMITED, qos=(Qos("normal", max_time_s=1800),))
    assert resource_problems(site, ResourceRequest(), TaskResources()) == [
        "resources.time: QOS normal allows 00:30:00 at most, and a task that asks for none gets 01:00:00"
    ]


def test_site_without_a_default_partition_wants_one_named() -> None:
    site = msgspec.structs.replace(SITE, partitions=SITE.partitions[1:])
    assert resource_problems(site, ResourceRequest(), TaskResources()) == [
        "cluster.partition: this site has no default partition, so name one of long, cpu"
    ]


def test_nodes_that_are_not_known_are_not_held_against_a_task() -> None:
    assert (
        resource_problems(msgspec.structs.replace(SITE, nodes=()), ResourceRequest(), TaskResources(gpus=8))
        == []
    )
