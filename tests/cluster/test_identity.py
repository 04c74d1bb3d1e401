"""A batch is known by job id, name, folder and comment, whatever a site does to some of them."""

from __future__ import annotations

import os
import time

import msgspec
import pytest

from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.core.cluster_protocol import Batch, Phase, TaskId, TaskState
from hpcsweep.errors import ClusterUnavailable

from .programs import Programs, account, live, row

HEADER = ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOBID", "STATE", "NODELIST", "TIME", "REASON", "NAME")
RUNNING = TaskState(Phase.RUNNING, node="n1", seconds=60.0)
NAMES = [
    "lab7-s-1",
    "s-1-lab7",
    "s-1@lab7",
    "S-1",
    "LAB7_S_1",
    "s",
    "s-",
    "4711",
    "",
    "job",
    "(null)",
    "an array of somebody's",
]


def running(batch: Batch, **more: str) -> tuple[str, ...]:
    """Task 0 as squeue shows it, its folder and owner with it."""
    shown = {"node": "n1", "elapsed": "1:00", "user": str(os.getuid()), "folder": str(batch.folder)}
    return row("0", "RUNNING", **(shown | more))


def shown(cluster: SlurmCluster, batch: Batch) -> list[int]:
    """The tasks of four open ones that the cluster shows as active."""
    states = cluster.poll([live(batch)])
    assert states is not None
    return [task.task for task, state in states.items() if state.phase.active]


@pytest.mark.parametrize("name", NAMES)
def test_task_of_our_id_is_ours_under_any_name(
    cluster: SlurmCluster, programs: Programs, batch: Batch, name: str
) -> None:
    programs.rows(HEADER, running(batch, name=name))
    assert cluster.poll([live(batch)]) == {TaskId("s-1", 0): RUNNING}
    assert cluster.shown_name(live(batch)) == name


@pytest.mark.parametrize("name", NAMES)
def test_array_is_found_by_its_folder_whatever_the_site_calls_it(
    cluster: SlurmCluster, programs: Programs, batch: Batch, name: str
) -> None:
    programs.rows(HEADER, running(batch, name=name), row("0", "RUNNING", job="80", name="s-11"))
    assert cluster.find_batch("s-1", folder=batch.folder, since=time.time()) == "70"


def test_array_is_found_by_its_comment_where_scripts_start_in_a_shared_folder(
    programs: Programs, batch: Batch
) -> None:
    cluster = SlurmCluster(SlurmOptions(workdir="/home/me/code"))
    both = {"name": "4711", "folder": "/home/me/code"}
    programs.rows(running(batch, job="80", **both), running(batch, comment="s-1", **both))
    assert cluster.find_batch("s-1", folder=batch.folder, since=0.0) == "70"
    assert "#SBATCH --comment=s-1\n" in cluster.script(batch)


def test_array_that_squeue_has_forgotten_is_found_in_the_database_by_its_folder(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(HEADER)
    programs.rows(account("70_0", "COMPLETED", "n1", name="lab", folder=str(batch.folder)), program="sacct")
    assert cluster.find_batch("s-1", folder=batch.folder, since=1_700_000_000.0) == "70"
    # By name first, which is cheap; then whatever was submitted since.
    since = time.strftime("--starttime=%Y-%m-%dT%H:%M:%S", time.localtime(1_700_000_000.0 - 3600))
    assert [call[-1] for call in programs.calls("sacct")] == ["--name=s-1"]
    programs.rows(account("71_0", "COMPLETED", "n1", name="lab"), program="sacct")
    assert cluster.find_batch("s-1", folder=batch.folder, since=1_700_000_000.0) is None
    assert [call[-1] for call in programs.calls("sacct")][1:] == ["--name=s-1", since]


@pytest.mark.parametrize("array", ["", "N/A", "71", "x"])
def test_task_of_our_name_or_folder_is_ours_without_our_id(
    cluster: SlurmCluster, programs: Programs, batch: Batch, array: str
) -> None:
    programs.rows(row("0", "RUNNING", job=array, own=array), running(batch, job=array, name="lab"))
    assert shown(cluster, batch) == [0]


def test_what_is_done_to_an_array_is_done_to_every_id_under_which_it_shows(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING", job="71"))
    for name in ("scancel", "scontrol"):
        programs.put(name, "exit 0")
    cluster.poll([live(batch)])
    cluster.cancel(live(batch), [0])
    cluster.throttle(live(batch), 2)
    cluster.release(live(batch), [0])
    assert programs.calls("scancel") == [["scancel", "70_[0]"], ["scancel", "71_[0]"]]
    assert [call[-1] for call in programs.calls("scontrol") if "show" not in call] == [
        "ArrayTaskThrottle=2",
        "ArrayTaskThrottle=2",
        "70_0,71_0",
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"name": "other", "folder": "/home/me/other"},
        {"name": "other", "user": str(os.getuid() + 1), "folder": ""},
        {"name": "other", "submitted": "2001-01-01T00:00:00", "folder": ""},
        {"name": "s-1-tick", "job": "99", "folder": "/home/me/results"},
        {"name": "s-11", "job": "99", "folder": "/home/me/results/batches/s-11"},
    ],
)
def test_job_that_contradicts_the_batch_is_another_one(
    cluster: SlurmCluster, programs: Programs, batch: Batch, more: dict[str, str]
) -> None:
    programs.rows(running(batch, **more))
    batch_of_now = msgspec.structs.replace(live(batch), planned_at=time.time())
    assert cluster.poll([batch_of_now]) == {}


def test_array_of_our_id_counts_even_where_it_was_submitted_again_since(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    # A requeue makes the time of its submission a later one.
    programs.rows(running(batch, name="lab", submitted="2037-01-01T00:00:00", folder=""))
    assert shown(cluster, batch) == [0]


@pytest.mark.parametrize("columns", range(1, 15))
def test_wrapper_that_cuts_lines_hides_no_task(
    cluster: SlurmCluster, programs: Programs, batch: Batch, columns: int
) -> None:
    full = running(batch, name="lab7-s-1", submitted="2026-11-28T20:00:00", cpus="1", comment="s-1")
    lines = [HEADER[:columns], full[:columns], (*full[:1], "1", *full[2:])[:columns]]
    programs.rows(*((*line, "") for line in lines))
    expected = [0, 1, 2, 3] if columns == 1 else [0, 1]  # without an index each may be the one
    assert shown(cluster, batch) == expected


@pytest.mark.parametrize(
    "lines",
    [
        "70\x1f0\x1f70\x1fRUNNING\x1f\n75\x1fN/A\x1f75\x1fPENDING\x1f\n",
        "70_0 gpu s-1 me R 0:10 1 n1\n75 gpu s-1-tick me PD 0:00 1 (Dependency)\n",
    ],
    ids=["cut", "another layout"],
)
def test_tick_job_is_in_the_queue_by_its_id_where_no_name_is_shown(
    cluster: SlurmCluster, programs: Programs, batch: Batch, lines: str
) -> None:
    """Else the driver would submit another one behind its array at each tick."""
    programs.put("squeue", f"printf '{lines}'")
    assert cluster.poll([live(batch)]) is not None
    assert cluster.known_jobs is not None
    assert set(cluster.known_jobs) == {"70", "75"}


def test_column_that_was_cut_by_a_character_tells_no_wrong_time(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("squeue", "printf '70\x1f0\x1f70\x1fRUNNING\x1fn1\x1f1:00:0\n'")
    assert cluster.poll([live(batch)]) == {TaskId("s-1", 0): TaskState(Phase.RUNNING, node="n1")}


def test_arrays_that_a_wrapper_shows_in_one_line_are_read(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING"), row("1-3%2", "PENDING"))
    assert shown(cluster, batch) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("  70_0 gpu s-1 me R 0:10 1 n1\n70_[2-3%1] gpu s-1 me PD 0:00 1 (Priority)\n", [0, 2, 3]),
        ("JOBID NAME STATE\n70_1 lab7 RUNNING\n71_2 lab7 RUNNING\n", [1]),
        ("70 lab7 RUNNING\n", [0, 1, 2, 3]),
    ],
)
def test_wrapper_with_a_layout_of_its_own_hides_no_task(
    cluster: SlurmCluster, programs: Programs, batch: Batch, text: str, tasks: list[int]
) -> None:
    programs.put("squeue", f"printf '{text.replace('%', '%%')}'")
    assert shown(cluster, batch) == tasks


@pytest.mark.parametrize("text", ["Please use mysqueue.", "NAME USER\ns-1 me"])
def test_answer_that_cannot_be_read_is_no_absence(
    cluster: SlurmCluster, programs: Programs, batch: Batch, text: str
) -> None:
    programs.put("squeue", f"printf '{text}'")
    assert cluster.poll([live(batch)]) is None
    with pytest.raises(ClusterUnavailable, match="prints something else than it was asked for"):
        cluster.find("s-1")


def test_header_under_a_banner_shows_that_nothing_is_there(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("squeue", "echo 'Maintenance on Monday'; printf 'ARRAY_JOB_ID\x1fARRAY_TASK_ID\n'")
    assert cluster.poll([live(batch)]) == {}


def test_database_tells_how_a_renamed_task_ended(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(HEADER)
    programs.rows(
        account("70_0", "TIMEOUT", "n1", elapsed="9", name="lab7", folder="/x/s-1"), program="sacct"
    )
    assert cluster.poll([live(batch, open_tasks=(0,))]) == {
        TaskId("s-1", 0): TaskState(Phase.TIMEOUT, node="n1", seconds=9.0)
    }
