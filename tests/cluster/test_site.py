"""What Slurm's programs print of a site is read as it is meant."""

from __future__ import annotations

import pytest

from hpcsweep.cluster.slurm.site import (
    Association,
    Node,
    Partition,
    Qos,
    SlurmSite,
    gpus_of,
    host_list,
    hosts_of,
    read_associations,
    read_config,
    read_nodes,
    read_partitions,
    read_qos,
    seconds_of_limit,
)

#: Of 22.05, shortened.
CONFIG = """\
Configuration data as of 2026-11-21T08:05:55
AccountingStorageEnforce = associations,limits,qos
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = private
KillWait                = 30 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 300 sec
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at head is UP
"""

PARTITIONS = (
    "PartitionName=gpu AllowGroups=ALL AllowQos=ALL Default=YES QoS=N/A DefaultTime=01:00:00"
    " MaxCPUsPerNode=UNLIMITED MaxTime=1-00:00:00 Nodes=n[1-4] State=UP MaxMemPerNode=UNLIMITED\n"
    "PartitionName=long AllowGroups=ALL Default=NO QoS=part DefaultTime=NONE"
    " MaxCPUsPerNode=8 MaxTime=UNLIMITED Nodes=n1 State=DRAIN TotalNodes=1 MaxMemPerNode=32000\n"
)


def test_configuration_is_read() -> None:
    assert read_config(CONFIG) == SlurmSite(
        cluster="private",
        max_array_size=1001,
        max_jobs=10000,
        min_job_age_s=300,
        kill_wait_s=30,
        accounting=True,
        enforces=True,
    )


def test_configuration_that_says_nothing_limits_nothing() -> None:
    assert read_config("") == SlurmSite()


@pytest.mark.parametrize(
    ("words", "enforces"),
    [
        ("none", False),
        ("associations", False),
        ("associations,qos", False),
        ("associations,limits", True),
        ("associations,limits,safe", True),
    ],
)
def test_limits_hold_only_where_the_site_enforces_them(words: str, enforces: bool) -> None:
    assert read_config(f"AccountingStorageEnforce = {words}").enforces is enforces


def test_partitions_are_read() -> None:
    assert read_partitions(PARTITIONS) == (
        Partition("gpu", default=True, state="UP", max_time_s=86400, default_time_s=3600),
        Partition("long", state="DRAIN", max_cpus=8, max_mem_mib=32000, qos="part", total_nodes=1),
    )


@pytest.mark.parametrize(
    ("state", "takes"), [("UP", True), ("DOWN", True), ("DRAIN", False), ("INACTIVE", False)]
)
def test_partition_that_is_down_still_takes_jobs(state: str, takes: bool) -> None:
    assert Partition("p", state=state).takes_jobs is takes


def test_nodes_are_read_once_with_all_their_partitions() -> None:
    rows = [
        ("n1", "gpu", "16", "64000", "gpu:a100:4(S:0-1)", "fast,nvlink", "mixed"),
        ("n1", "urgent", "16", "64000", "gpu:a100:4(S:0-1)", "fast,nvlink", "mixed"),
        ("n2", "gpu", "8+", "32000+", "(null)", "(null)", "down*"),
    ]
    text = "a banner\n" + "".join("\x1f".join(row) + "\n" for row in rows)
    assert read_nodes(text) == (
        Node("n1", ("gpu", "urgent"), 16, 64000, {"a100": 4}, ("fast", "nvlink"), "mixed"),
        Node("n2", ("gpu",), 8, 32000, {}, (), "down*"),
    )


@pytest.mark.parametrize("state", ["idle", "mixed", "allocated", "idle~", "reserved", "planned"])
def test_node_that_works_or_could_is_up(state: str) -> None:
    assert Node("n", (), 1, 1, state=state).up


@pytest.mark.parametrize("state", ["down", "down*", "drained", "draining", "idle*", "fail", "maint"])
def test_node_to_which_slurm_gives_nothing_is_not_up(state: str) -> None:
    assert not Node("n", (), 1, 1, state=state).up


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("", {}),
        ("gpu:4", {"": 4}),
        ("gpu:a100:4", {"a100": 4}),
        ("gpu:a100:4(S:0-1),gpu:v100:2(S:0)", {"a100": 4, "v100": 2}),
        ("gpu:a100_3g.20gb:2,gpu:a100:1", {"a100_3g.20gb": 2, "a100": 1}),
        ("gpu:a100:no_consume:4", {"a100": 4}),
        ("shard:8,nic:2,gpu:2(IDX:0,1)", {"": 2}),
        ("gpu:a100:2,gpu:a100:2", {"a100": 4}),
    ],
)
def test_gpus_are_counted_by_type(gres: str, gpus: dict[str, int]) -> None:
    assert gpus_of(gres) == gpus


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", set()),
        ("n1", {"n1"}),
        ("n[1-3,08],login", {"n1", "n2", "n3", "n08", "login"}),
        ("r[1-2]n[09-10],a-b", {"r1n09", "r1n10", "r2n09", "r2n10", "a-b"}),
    ],
)
def test_list_of_nodes_is_expanded(text: str, names: set[str]) -> None:
    assert hosts_of(text) == names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("UNLIMITED", None),
        ("NONE", None),
        ("", None),
        ("90", 5400),
        ("90:30", 5430),
        ("01:02:03", 3723),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("1-00:00:00", 86400),
    ],
)
def test_time_limit_is_read_in_each_way_of_writing_it(text: str, seconds: int | None) -> None:
    assert seconds_of_limit(text) == seconds


def test_associations_are_read() -> None:
    text = (
        "lab|lab||20|25|1-12:00:00||normal\n"
        "lab|lab|gpu|||||normal,high\n"
        "lab|other|||||high|normal,high\n"
        "lab||||||\n"
        "a banner\n"
    )
    assert read_associations(text) == (
        Association("lab", True, max_submit=20, group_submit=25, max_time_s=129600, qos="normal"),
        Association("lab", True, partition="gpu"),
        Association("other", qos="high"),
    )


def test_every_qos_is_read() -> None:
    text = "normal||30|||02:00:00\nhigh|DenyOnLimit,OverPartQOS||40|50|\n"
    assert read_qos(text) == (
        Qos("normal", max_submit=30, max_time_s=7200),
        Qos("high", account_submit=40, group_submit=50, over_partition=True),
    )


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["n1", "n2", "n3", "n7"], "n[1-3,7]"),
        (["n01", "n02", "login"], "n[01-02],login"),
        (["n1"], "n1"),
        (["a-1-2", "a-1-3"], "a-1-[2-3]"),
        ([], ""),
    ],
)
def test_names_of_nodes_are_written_as_slurm_writes_them(names: list[str], text: str) -> None:
    assert host_list(names) == text
    assert hosts_of(text) == set(names)
