"""What a task holds beyond what it asks for: whole nodes."""

from __future__ import annotations

import msgspec
import pytest

from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import OptionValue
from hpcsweep.cluster.slurm.requests import ResourceRequest, task_allocation, tick_warning
from hpcsweep.cluster.slurm.site import Node, Partition, SlurmSite, read_config, read_partitions
from hpcsweep.core.cluster_protocol import Batch, Phase, TaskAllocation, TaskId, TaskResources, TaskState

from .programs import Programs, live, row

FOUR = Node("n1", ("gpu", "whole"), cpus=16, mem_mib=1, gpus={"a100": 4})
EIGHT = Node("n2", ("gpu", "whole", "large"), cpus=64, mem_mib=1, gpus={"h100": 6, "": 2})
CPUS = Node("c1", ("cpu",), cpus=32, mem_mib=1)
SITE = SlurmSite(
    partitions=(
        Partition("gpu", default=True),
        Partition("whole", exclusive=True),
        Partition("large", exclusive=True),
        Partition("cpu", exclusive=True),
    ),
    nodes=(FOUR, EIGHT, CPUS),
)
LINEAR = msgspec.structs.replace(SITE, whole_nodes=True)
WHOLE = "partition whole gives whole nodes (OverSubscribe=EXCLUSIVE)"
ONE = TaskResources(gpus=1, cpus=2)


@pytest.mark.parametrize(
    ("site", "partitions", "shape", "options", "held"),
    [
        (SITE, "", ONE, {}, TaskAllocation(1, 2)),
        (SITE, "whole", ONE, {}, TaskAllocation(8, 64, WHOLE)),
        (SITE, "", TaskResources(gpus=2, cpus=4, nodes=3), {}, TaskAllocation(6, 12)),
        (SITE, "whole", TaskResources(gpus=2, cpus=4, nodes=3), {}, TaskAllocation(24, 192, WHOLE)),
        (SITE, "gpu,whole", ONE, {}, TaskAllocation(8, 64, WHOLE)),
        (SITE, "whole", TaskResources(gpus=8, cpus=64), {}, TaskAllocation(8, 64)),
        (
            SITE,
            "cpu",
            TaskResources(cpus=1),
            {},
            TaskAllocation(0, 32, WHOLE.replace("whole gives", "cpu gives")),
        ),
        (SITE, "", ONE, {"exclusive": True}, TaskAllocation(8, 64, "--exclusive takes whole nodes")),
        (SITE, "", ONE, {"exclusive": "user"}, TaskAllocation(1, 2)),
        (SITE, "", ONE, {"core-spec": 1}, TaskAllocation(8, 64, "--core-spec takes whole nodes")),
        (
            LINEAR,
            "",
            ONE,
            {},
            TaskAllocation(8, 64, "this site gives whole nodes (SelectType=select/linear)"),
        ),
        # Of nodes that are not known nothing can be said.
        (msgspec.structs.replace(SITE, nodes=()), "whole", ONE, {}, TaskAllocation(1, 2)),
    ],
)
def test_task_on_whole_nodes_holds_the_largest_that_it_may_get(
    site: SlurmSite,
    partitions: str,
    shape: TaskResources,
    options: dict[str, OptionValue],
    held: TaskAllocation,
) -> None:
    wish = ResourceRequest(partitions=tuple(partitions.split(",")) if partitions else ())
    assert task_allocation(site, wish, shape, options) == held


@pytest.mark.parametrize(
    ("site", "partition", "held", "remedy"),
    [
        (SITE, "gpu", "", ""),
        (SITE, "cpu", "", ""),
        (SITE, "whole", WHOLE, "cpu}"),
        (msgspec.structs.replace(SITE, nodes=(FOUR, EIGHT)), "whole", WHOLE, "gpu}"),
        (LINEAR, "gpu", "this site gives whole nodes (SelectType=select/linear)", "cpu}"),
        (
            msgspec.structs.replace(LINEAR, nodes=(FOUR, EIGHT)),
            "gpu",
            "this site gives whole nodes (SelectType=select/linear)",
            "...}, one that shares its nodes or has no GPUs",
        ),
        (msgspec.structs.replace(SITE, nodes=()), "whole", "", ""),
    ],
)
def test_jobs_that_tick_on_whole_nodes_are_told_of_with_where_they_could_go(
    site: SlurmSite, partition: str, held: str, remedy: str
) -> None:
    gpus = 8
    words = (
        f"each small job that ticks the sweep holds {gpus} GPUs for some seconds, beyond cluster.max_gpus: "
        f"{held}; give such jobs a partition of their own by cluster.tick_options: {{partition: {remedy}"
    )
    assert tick_warning(site, ResourceRequest(partitions=(partition,)), {}) == (words if held else "")


def test_nodes_that_may_not_be_used_do_not_count() -> None:
    wish = ResourceRequest(partitions=("whole",), gpu_type="a100")
    assert task_allocation(SITE, wish, ONE, {}) == TaskAllocation(4, 16, WHOLE)
    wish = ResourceRequest(partitions=("whole",), exclude="n2")
    assert task_allocation(SITE, wish, ONE, {}).gpus == 4


def test_whole_nodes_are_read_from_slurm_s_configuration() -> None:
    (partition,) = read_partitions("PartitionName=x OverSubscribe=EXCLUSIVE State=UP")
    assert partition.exclusive
    assert not read_partitions("PartitionName=x OverSubscribe=FORCE:4")[0].exclusive
    assert read_config("SelectType              = select/linear").whole_nodes
    assert not read_config("SelectType              = select/cons_tres").whole_nodes


# --------------------------------------------------------------------------- what squeue tells


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [
        ("cpu=1,mem=500M,node=1,billing=1,gres/gpu=4", 4),
        ("cpu=1,gres/gpu=2,gres/gpu:a100=2", 2),
        ("cpu=1,gres/gpu:a100=1,gres/gpu:v100=1", 2),
        ("cpu=1,mem=500M,node=1,billing=1", None),
        ("", None),
    ],
)
def test_gpus_that_a_task_was_given_are_told(
    cluster: SlurmCluster, programs: Programs, batch: Batch, tres: str, gpus: int | None
) -> None:
    programs.rows(
        row("0", "RUNNING", node="n1", tres=tres, cpus="1"), row("1", "PENDING", tres=tres, cpus="1")
    )
    assert cluster.poll([live(batch, open_tasks=(0, 1))]) == {
        TaskId("s-1", 0): TaskState(Phase.RUNNING, node="n1", seconds=0.0, gpus=gpus),
        TaskId("s-1", 1): TaskState(Phase.PENDING, seconds=0.0),
    }


def test_task_that_has_all_cpus_of_its_node_holds_its_gpus(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING", node="n1", cpus="16", tres="cpu=16,node=1"))
    programs.put("scontrol", "exit 0")
    programs.rows(("n1", "gpu", "16", "1", "gpu:a100:4", "(null)", "idle"), program="sinfo")
    shown = cluster.poll([live(batch)])
    assert shown is not None
    assert shown[TaskId("s-1", 0)].gpus == 4
