"""`SlurmCluster` against stand-ins for Slurm's programs on the PATH: real argv, real parsing."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest

from hpcsweep.cluster import processes
from hpcsweep.cluster.backend import Presence
from hpcsweep.cluster.slurm import programs as slurm_programs
from hpcsweep.cluster.slurm.backend import SlurmBackend
from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.cluster.slurm.programs import ranges
from hpcsweep.cluster.slurm.queue import COUNTED_S, MUTE_S, SACCT_EVERY_S, SHOW_EVERY_S
from hpcsweep.cluster.slurm.rows import SQUEUE_FORMAT, seconds_of
from hpcsweep.core.cluster_protocol import Batch, BlockKind, Phase, TaskId, TaskResources, TaskState
from hpcsweep.errors import ClusterUnavailable, SpecError
from hpcsweep.session.target import resolve_target, tell_slow_programs
from hpcsweep.spec import load_spec
from tests.waiting import PATIENCE_S

from .programs import DISABLED, Programs, account, live, row

UNREACHABLE = "echo 'sacct: error: Sending PersistInit msg: Connection refused' >&2; exit 1"

SQUEUE = ["squeue", "--me", "--states=all", "-r", "-O", SQUEUE_FORMAT]

# --------------------------------------------------------------------------- options


def test_word_of_submitit_s_is_refused_with_ours_beside_it(programs: Programs) -> None:
    with pytest.raises(SpecError) as caught:
        SlurmCluster(SlurmOptions(options={"array_parallelism": 4, "use-srun": False, "comment": "x"}))
    assert caught.value.problems == (
        "cluster.options.array_parallelism: a word of submitit, not of sbatch; here it is cluster.max_gpus",
        "cluster.options.use-srun: a word of submitit, not of sbatch",
    )


def test_broken_template_is_refused_before_anything_is_submitted(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "site.sbatch").write_text("#!/bin/bash\n{{ header }}\n{{ comand }}\n{{ command }}\n")
    with pytest.raises(SpecError, match=r"site\.sbatch:3: 'comand' is undefined"):
        SlurmCluster(SlurmOptions(template="site.sbatch", spec_dir=tmp_path))
    assert programs.calls() == []


def test_endless_script_is_refused(programs: Programs) -> None:
    with pytest.raises(SpecError, match="more than 64 kB"):
        SlurmCluster(SlurmOptions(setup=["x" * 70_000]))


def test_package_that_the_interpreter_does_not_find_is_named_by_its_path(
    programs: Programs, batch: Batch, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/bash\nexit 0\n")
    bare.chmod(0o755)
    script = SlurmCluster(SlurmOptions(python=str(bare))).script(batch)
    assert "PYTHONPATH" not in script
    argv = shlex.split(
        script.splitlines()[-1].replace("hpcsweep.cluster.slurm.task", "hpcsweep.cluster.task_environment")
    )
    assert argv[:3] == ["exec", str(bare), "-P"]
    subprocess.run([sys.executable, "-P", "-S", *argv[3:]], cwd="/", check=True)


def test_interpreter_that_does_not_run_here_is_trusted(programs: Programs, batch: Batch) -> None:
    script = SlurmCluster(SlurmOptions(python="/only/in/the/container/python")).script(batch)
    assert "PYTHONPATH" not in script
    assert "exec /only/in/the/container/python -P -m hpcsweep.cluster.slurm.task " in script


# --------------------------------------------------------------------------- finding


def test_find_gives_the_array_of_exactly_this_name(cluster: SlurmCluster, programs: Programs) -> None:
    programs.rows(row("0", "PENDING", job="69", name="s-11"), row("0", "COMPLETED", job="71", own="72"))
    assert cluster.find("s-1") == "71"
    (call,) = programs.calls()
    assert call == SQUEUE


def test_find_passes_over_what_slurm_remembers_of_a_refused_array(
    cluster: SlurmCluster, programs: Programs
) -> None:
    programs.rows(row("0", "FAILED", reason="BadConstraints"))
    assert cluster.find("s-1") is None


def test_find_of_an_accepted_array_whose_task_failed_on_a_node_holds(
    cluster: SlurmCluster, programs: Programs
) -> None:
    programs.rows(row("0", "FAILED", reason="JobLaunchFailure", node="n1"))
    assert cluster.find("s-1") == "70"


def test_find_asks_the_database_what_squeue_has_forgotten(cluster: SlurmCluster, programs: Programs) -> None:
    programs.rows()
    programs.rows(account("71_0", "COMPLETED", "n1"), program="sacct")
    assert cluster.find("s-1") == "71"
    (call,) = programs.calls("sacct")
    assert {"--starttime=now-90days", "--name=s-1", f"--user={os.getuid()}"} <= set(call)


def test_find_without_a_database_says_none(cluster: SlurmCluster, programs: Programs) -> None:
    programs.rows()
    assert cluster.find("s-1") is None


@pytest.mark.parametrize(
    "body", ["echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"]
)
def test_find_that_fails_is_not_an_absence(cluster: SlurmCluster, programs: Programs, body: str) -> None:
    programs.put("squeue", body)
    with pytest.raises(ClusterUnavailable, match="Unable to contact"):
        cluster.find("s-1")


# --------------------------------------------------------------------------- polling


def test_poll_is_one_squeue_and_shows_exactly_our_tasks(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(
        row("0", "RUNNING", own="71", node="n1", elapsed="1-02:03:04"),
        row("1", "COMPLETING", own="72", node="n2", elapsed="2:00"),
        row("2", "PENDING", reason="JobArrayTaskLimit"),
        row("3", "COMPLETED", elapsed="INVALID"),
        row("0", "RUNNING", name="a job | of 'mine'\twith odd name"),
        row("N/A", "RUNNING"),
        row("9", "FAILED", name="s-11"),
    )
    assert cluster.poll([live(batch)]) == {
        TaskId("s-1", 0): TaskState(Phase.RUNNING, node="n1", seconds=93784.0),
        TaskId("s-1", 1): TaskState(Phase.RUNNING, node="n2", seconds=120.0),
        TaskId("s-1", 2): TaskState(Phase.PENDING, reason="JobArrayTaskLimit", seconds=0.0),
        TaskId("s-1", 3): TaskState(Phase.COMPLETED),
    }
    # Named ids or names would fail, or fetch other people's jobs.
    assert programs.calls() == [SQUEUE]


def test_poll_of_a_task_that_ends_gives_no_part_of_its_nodes(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING", node="n[1-2]"), row("1", "COMPLETING", own="72", node="n1"))
    wide = msgspec.structs.replace(live(batch), shape=TaskResources(nodes=2))
    states = cluster.poll([wide])
    assert states is not None
    assert [state.node for state in states.values()] == ["n[1-2]", ""]


def test_poll_of_another_user_s_job_with_our_id_shows_nothing(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING", name="job-ids-start-again-at-1", folder="/home/me/other"))
    assert cluster.poll([live(batch)]) == {}
    cluster.cancel(live(batch), [0])
    assert programs.calls("scancel") == [], "the job of that id is another one"


def test_poll_passes_over_lines_that_are_no_rows(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    text = "\x1f".join(row("0", "RUNNING"))
    programs.put("squeue", f"echo 'CLUSTER: main'; echo; echo 'a\x1fb'; echo '{text}'")
    expected = {TaskId("s-1", 0): TaskState(Phase.RUNNING, seconds=0.0)}
    assert cluster.poll([live(batch, open_tasks=(0,))]) == expected


def test_task_that_shows_twice_is_active_if_either_is_and_else_the_newest(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(
        row("0", "RUNNING", own="72"),
        row("0", "NODE_FAIL", own="75"),
        row("1", "NODE_FAIL", own="73"),
        row("1", "PENDING", own="70"),
        row("2", "PREEMPTED", own="71"),
        row("2", "COMPLETED", own="74"),
        row("3", "COMPLETED", own="76"),
        row("3", "FAILED", own="77", job="1"),
    )
    shown = cluster.poll([live(batch)])
    assert shown is not None
    assert [shown[TaskId("s-1", task)].phase for task in range(4)] == [
        Phase.RUNNING,
        Phase.PENDING,
        Phase.COMPLETED,
        Phase.COMPLETED,
    ]


def test_unknown_state_is_kept_as_unknown_and_logged_once(
    cluster: SlurmCluster, programs: Programs, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    programs.rows(row("0", "HIBERNATING", reason="Winter"), row("1", "HIBERNATING"))
    with caplog.at_level(logging.WARNING):
        cluster.poll([live(batch, open_tasks=(0, 1))])
        shown = cluster.poll([live(batch, open_tasks=(0, 1))])
    assert shown == {
        TaskId("s-1", 0): TaskState(Phase.UNKNOWN, reason="HIBERNATING Winter"),
        TaskId("s-1", 1): TaskState(Phase.UNKNOWN, reason="HIBERNATING"),
    }
    assert [record.getMessage() for record in caplog.records] == [
        "s-1 task 0: Slurm's state 'HIBERNATING' is new to us"
    ]


#: What a program does that never answers.
HANGS = "sleep 60"


def shorten(monkeypatch: pytest.MonkeyPatch, limit: str, body: str) -> None:
    """Have a program that hangs ended soon; any other has all the time that it needs."""
    if body == HANGS:
        monkeypatch.setattr(limit, 0.5)


def asked_once(programs: Programs, name: str, body: str) -> bool:
    """Whether it was; one that hangs may be ended before it could note that it was asked."""
    return len(programs.calls(name)) == 1 or (body == HANGS and not programs.calls(name))


@pytest.mark.parametrize("body", ["exit 1", "kill -9 $$", HANGS])
def test_failing_squeue_says_nothing_and_sacct_is_not_asked_instead(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    shorten(monkeypatch, "hpcsweep.cluster.slurm.programs.QUERY_S", body)
    programs.put("squeue", body)
    assert cluster.poll([live(batch)]) is None
    assert asked_once(programs, "squeue", body)
    assert programs.calls() == programs.calls("squeue")


@pytest.mark.parametrize("body", [DISABLED, HANGS, "kill -9 $$", UNREACHABLE])
def test_vanished_task_is_simply_not_shown_where_the_database_is_silent(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    shorten(monkeypatch, "hpcsweep.cluster.slurm.queue.SACCT_S", body)
    programs.put("sacct", body)
    programs.rows(row("0", "RUNNING"))
    expected = {TaskId("s-1", 0): TaskState(Phase.RUNNING, seconds=0.0)}
    for _ in range(3):
        assert cluster.poll([live(batch, open_tasks=(0, 1))]) == expected
    assert asked_once(programs, "sacct", body), "once it has failed it is left in peace"


def test_database_that_failed_is_asked_again_after_a_while(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.rows(row("0", "RUNNING"))
    watched = [live(batch, open_tasks=(0, 1))]
    now = time.monotonic()
    monkeypatch.setattr("hpcsweep.cluster.slurm.queue.time.monotonic", lambda: now)
    cluster.poll(watched)
    programs.rows(account("70_1", "TIMEOUT", "n1", elapsed="60"), program="sacct")
    now += MUTE_S - 1
    assert cluster.poll(watched) == {TaskId("s-1", 0): TaskState(Phase.RUNNING, seconds=0.0)}
    now += SACCT_EVERY_S
    assert cluster.poll(watched) == {
        TaskId("s-1", 0): TaskState(Phase.RUNNING, seconds=0.0),
        TaskId("s-1", 1): TaskState(Phase.TIMEOUT, node="n1", seconds=60.0),
    }
    assert len(programs.calls("sacct")) == 2


def test_missing_sacct_is_no_matter(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs.rows()
    only = tmp_path / "only"
    only.mkdir()
    (only / "squeue").symlink_to(tmp_path / "bin with space" / "squeue")
    (only / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(only))
    assert cluster.poll([live(batch)]) == {}


def test_vanished_task_ends_as_the_database_says_and_one_sacct_is_enough(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING"))
    programs.rows(
        account("70_0", "TIMEOUT", "n1"),
        account("70_1", f"CANCELLED by {os.getuid()}", elapsed="7"),
        account("70_2", "RUNNING", "n1"),
        account("70_[4-9]", "PENDING"),
        account("70_3", "FAILED", "n3", name="of-another-year", folder="/home/me/other"),
        account("70_5", "FAILED", "n3"),
        program="sacct",
    )
    expected = {
        TaskId("s-1", 0): TaskState(Phase.RUNNING, seconds=0.0),
        TaskId("s-1", 1): TaskState(Phase.CANCELLED, seconds=7.0),
    }
    for _ in range(3):
        # Task 2: only squeue may call a task active. Task 3: another job of the same number.
        assert cluster.poll([live(batch)]) == expected
    (call,) = programs.calls("sacct")
    assert "--jobs=70" in call


SHOWN = (
    "JobId={own} ArrayJobId=70 ArrayTaskId={task} JobName={name} UserId=me({user}) JobState={state} "
    "Reason=None Dependency=(null) RunTime=00:01:07 SubmitTime=2026-11-28T21:25:01 ReqNodeList=(null) "
    "NodeList={node} BatchHost=n1 ReqB:S:C:T=0:0:*:* TRES=cpu=1,gres/gpu=2 Command=/a/s.sbatch "
    "WorkDir=/home/me/with space Comment=(null) StdErr=/dev/null "
)


def shown_by_scontrol(task: str, state: str, *, own: str = "70", name: str = "s-1", node: str = "n1") -> str:
    return SHOWN.format(own=own, task=task, name=name, user=os.getuid(), state=state, node=node)


def test_task_that_only_the_controller_shows_is_active(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A squeue that answers from a cache is no proof that a job has ended."""
    programs.rows(row("0", "RUNNING"), row("0", "RUNNING", job="90", own="90", name="other"))
    lines = [
        shown_by_scontrol("1", "RUNNING", own="72"),
        shown_by_scontrol("2", "COMPLETED", own="73"),
        shown_by_scontrol("3-5%2", "PENDING", node="(null)"),
    ]
    programs.put("scontrol", "cat <<'EOF'\n" + "\n".join(lines) + "\nEOF")
    now = time.monotonic()
    monkeypatch.setattr("hpcsweep.cluster.slurm.queue.time.monotonic", lambda: now)
    expected = {
        TaskId("s-1", 0): TaskState(Phase.RUNNING, seconds=0.0),
        TaskId("s-1", 1): TaskState(Phase.RUNNING, node="n1", seconds=67.0, gpus=2),
        TaskId("s-1", 3): TaskState(Phase.PENDING, seconds=67.0),
    }
    for _ in range(3):
        assert cluster.poll([live(batch)]) == expected
        now += SHOW_EVERY_S / 4
    assert programs.calls("scontrol") == [["scontrol", "-o", "show", "job", "70"]]
    programs.put("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    now += SHOW_EVERY_S
    assert cluster.poll([live(batch)]) == {TaskId("s-1", 0): TaskState(Phase.RUNNING, seconds=0.0)}


def test_job_of_another_with_our_id_is_not_taken_for_ours(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows()
    programs.put("scontrol", f"echo '{shown_by_scontrol('1', 'RUNNING', name='of-another-year')}'")
    assert cluster.poll([live(batch)]) == {}


@pytest.mark.parametrize("body", ["exit 1", HANGS, "echo nonsense"])
def test_controller_that_does_not_tell_of_a_job_leaves_it_to_squeue(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    shorten(monkeypatch, "hpcsweep.cluster.slurm.queue.SHOW_S", body)
    programs.rows()
    programs.put("scontrol", body)
    for _ in range(3):
        assert cluster.poll([live(batch)]) == {}
    assert asked_once(programs, "scontrol", body)


def test_sacct_is_not_asked_while_everything_open_is_shown(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING"), row("2", "COMPLETED"))
    cluster.poll([live(batch, open_tasks=(0, 2))])
    assert programs.calls("sacct") == []


def test_task_that_another_user_id_cancelled_is_told_apart(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("2", "CANCELLED"), row("3", "CANCELLED"))
    programs.rows(
        account("70_0", f"CANCELLED by {os.getuid()}"),
        account("70_1", f"CANCELLED by {os.getuid() + 1}"),
        account("70_2", f"CANCELLED by {os.getuid() + 1}"),
        account("70_3", "PREEMPTED", "n1"),
        program="sacct",
    )
    shown = cluster.poll([live(batch)])
    assert shown is not None
    assert {task.task: (state.phase, state.foreign) for task, state in shown.items()} == {
        0: (Phase.CANCELLED, False),
        1: (Phase.CANCELLED, True),
        2: (Phase.CANCELLED, True),  # squeue shows it, but not who cancelled it
        3: (Phase.CANCELLED, False),  # what the database tells is of an earlier start
    }


def test_who_cancelled_is_asked_at_once_however_short_ago_the_database_was_asked(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(account("70_0", "COMPLETED"), account("70_1", "RUNNING"), program="sacct")
    programs.rows(row("1", "RUNNING"))
    watched = [live(batch, open_tasks=(0, 1))]
    assert cluster.poll(watched) is not None
    programs.rows(account("70_1", f"CANCELLED by {os.getuid() + 1}"), program="sacct")
    programs.rows(row("1", "CANCELLED"))
    for _ in range(3):
        shown = cluster.poll(watched)
        assert shown is not None
        assert shown[TaskId("s-1", 1)].foreign
    assert len(programs.calls("sacct")) == 2


def test_pending_task_that_cannot_start_says_why_and_a_running_one_does_not(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(
        row("0", "PENDING", reason="PartitionTimeLimit"),
        row("1", "PENDING", reason="launch failed requeued held"),
        row("2", "PENDING", reason="Priority"),
        row("3", "RUNNING", reason="PartitionTimeLimit"),
    )
    shown = cluster.poll([live(batch)])
    assert shown is not None
    assert [shown[TaskId("s-1", task)].block for task in range(4)] == [
        BlockKind.IMPOSSIBLE,
        BlockKind.HELD,
        None,
        None,
    ]


def test_every_waiting_or_running_task_and_job_of_the_user_is_counted(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.rows(
        row("0", "RUNNING"),
        row("1", "PENDING"),
        row("2", "PENDING"),
        row("3", "COMPLETED"),
        row("N/A", "RUNNING", name="an interactive job"),
        row("5", "SUSPENDED", name="another sweep"),
        row("6", "FAILED", name="another sweep"),
        row("7", "HIBERNATING", name="another sweep"),
    )
    assert cluster.queued_tasks is None, "nobody has looked yet"
    cluster.poll([live(batch)])
    assert cluster.queued_tasks == 6
    (call,) = programs.calls("squeue")
    assert "-r" in call, "each pending array task counts"
    programs.put("squeue", "exit 1")
    cluster.poll([live(batch)])
    assert cluster.queued_tasks == 6
    later = time.monotonic() + COUNTED_S
    monkeypatch.setattr("hpcsweep.cluster.slurm.queue.time.monotonic", lambda: later)
    assert cluster.queued_tasks is None, "an old count says nothing of now"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0.0),
        ("59", None),
        ("12:34", 754.0),
        ("1:02:03", 3723.0),
        ("10-00:00:01", 864001.0),
        ("INVALID", None),
        ("", None),
    ],
)
def test_time_that_has_passed_is_read_as_squeue_writes_it(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


# --------------------------------------------------------------------------- steering


def test_held_tasks_are_released_by_name(cluster: SlurmCluster, programs: Programs, batch: Batch) -> None:
    programs.put("scontrol", "exit 0")
    cluster.release(live(batch), [3, 7])
    assert programs.calls() == [["scontrol", "release", "70_3,70_7"]]


def test_release_of_ended_tasks_is_no_error_and_one_that_slurm_did_not_take_is(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("scontrol", "echo 'Job has already finished for job 70_3' >&2; exit 1")
    cluster.release(live(batch), [3])
    programs.put("scontrol", "echo 'Access/permission denied for job 70_3' >&2; exit 1")
    with pytest.raises(ClusterUnavailable, match="permission denied"):
        cluster.release(live(batch), [3])


def test_jobs_that_tick_are_dismissed_by_their_ids_whether_they_live_or_not(
    cluster: SlurmCluster, programs: Programs
) -> None:
    programs.put("scancel", "echo 'scancel: error: Kill job error on job id 71: Invalid job id' >&2; exit 1")
    cluster.cancel_ticks(["71", "72"])
    assert programs.calls() == [["scancel", "71", "72"]]
    programs.put("scancel", "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ClusterUnavailable, match="Unable to contact"):
        cluster.cancel_ticks(["71"])


def test_throttle_is_told_and_never_zero(cluster: SlurmCluster, programs: Programs, batch: Batch) -> None:
    programs.put("scontrol", "exit 0")
    cluster.throttle(live(batch), 5)
    cluster.throttle(live(batch), 0)
    assert programs.calls() == [
        ["scontrol", "update", "jobid=70", "ArrayTaskThrottle=5"],
        ["scontrol", "update", "jobid=70", "ArrayTaskThrottle=1"],
    ]


@pytest.mark.parametrize(
    "words",
    [
        "70_0-1: Job has already finished\n70_2-3: No error",
        "Invalid job id specified for job 70",
        "slurm_update error: Invalid job id specified",
        "slurm_update error: Job/step already completing or completed",
    ],
)
def test_throttle_of_ended_tasks_is_no_error(
    cluster: SlurmCluster, programs: Programs, batch: Batch, words: str
) -> None:
    programs.put("scontrol", f"cat >&2 <<'EOF'\n{words}\nEOF\nexit 1")
    cluster.throttle(live(batch), 5)


def test_throttle_that_slurm_did_not_take_is_an_error(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("scontrol", "echo '70_0-1: Job has already finished' >&2; echo 'Access denied' >&2; exit 1")
    with pytest.raises(ClusterUnavailable, match="Access denied"):
        cluster.throttle(live(batch), 5)


def test_cancel_is_one_scancel_for_all_tasks(cluster: SlurmCluster, programs: Programs, batch: Batch) -> None:
    programs.put("scancel", "exit 0")
    cluster.cancel(live(batch), [7, 0, 1, 2, 9])
    assert programs.calls() == [["scancel", "70_[0-2,7,9]"]]


def test_cancel_of_nothing_calls_nothing(cluster: SlurmCluster, programs: Programs, batch: Batch) -> None:
    cluster.cancel(live(batch), [])
    assert programs.calls() == []


def test_cancel_of_thousands_of_scattered_tasks_stays_within_a_command_line(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("scancel", "exit 0")
    cluster.cancel(live(batch), range(0, 5000, 2))
    calls = programs.calls()
    assert len(calls) == 5
    assert max(len(call[1]) for call in calls) < 4096
    indices = [int(i) for call in calls for i in call[1].removeprefix("70_[").removesuffix("]").split(",")]
    assert indices == list(range(0, 5000, 2))


@pytest.mark.parametrize(
    "words",
    [
        "scancel: error: Kill job error on job id 70_0: Job/step already completing or completed",
        "scancel: error: Kill job error on job id 70: Invalid job id specified",
    ],
)
def test_cancel_of_ended_tasks_is_no_error(
    cluster: SlurmCluster, programs: Programs, batch: Batch, words: str
) -> None:
    programs.put("scancel", f"echo '{words}' >&2; exit 1")
    cluster.cancel(live(batch), [0])


def test_cancel_that_reached_nobody_is_an_error(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("scancel", "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ClusterUnavailable, match="Unable to contact"):
        cluster.cancel(live(batch), [0])


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), []),
        ((5,), ["5"]),
        ((0, 1), ["0-1"]),
        ((3, 1, 2, 2, 9), ["1-3", "9"]),
        ((0, 2, 4), ["0", "2", "4"]),
    ],
)
def test_ranges_are_as_slurm_writes_them(numbers: tuple[int, ...], text: list[str]) -> None:
    assert ranges(numbers) == text


# --------------------------------------------------------------------------- is it there

#: Slurm 22.05 where its programs are installed and nothing else.
UNCONFIGURED = """cat >&2 <<'END'
scontrol: error: fetch_config: DNS SRV lookup failed
scontrol: error: _establish_config_source: failed to fetch config
scontrol: fatal: Could not establish a configuration source
END
exit 1
"""


@pytest.mark.parametrize(
    ("body", "presence", "why"),
    [
        ("echo 'Slurmctld(primary) at head is UP'", "answers", "Slurmctld(primary) at head is UP"),
        (
            "echo 'Slurmctld(primary) at a is DOWN'; echo 'Slurmctld(backup) at b is UP'",
            "answers",
            "at b is UP",
        ),
        ("echo 'Slurmctld(primary) at head is DOWN'", "silent", "is DOWN"),
        ("echo 'Slurmctld(primary) at head is DOWN'; exit 1", "silent", "is DOWN"),
        ("echo 'no such file' >&2; exit 1", "silent", "no such file"),
        (HANGS, "silent", "no answer within 0.5 s"),
        (UNCONFIGURED, "absent", "sbatch is on the PATH, but no Slurm cluster is configured"),
        (UNCONFIGURED.replace("DNS SRV lookup failed", "failed to fetch remote configs"), "silent", "fetch"),
    ],
)
def test_probe_says_whether_and_why(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, body: str, presence: str, why: str
) -> None:
    shorten(monkeypatch, "hpcsweep.cluster.slurm.backend.PING_S", body)
    programs.put("scontrol", body)
    answer = SlurmBackend().detect()
    assert answer[0] is Presence(presence)
    assert why in answer[1]


def small_spec(folder: Path) -> Path:
    (folder / "t.py").write_text("def train(trial): ...\n")
    path = folder / "s.yaml"
    path.write_text(
        "name: s\ntrain: {function: t.py:train}\nobjective: {metric: loss}\n"
        "space: {x: {type: float, low: 0.0, high: 1.0}}\nbudget: {trials: 1}\n"
    )
    return path


def test_auto_refuses_in_an_outage_and_names_the_way_out(programs: Programs, tmp_path: Path) -> None:
    programs.put("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    spec = load_spec(small_spec(tmp_path))
    with pytest.raises(SpecError, match=r"Unable to contact slurm controller.*--cluster local"):
        resolve_target(spec)
    assert resolve_target(spec, name="local").name == "local"
    assert resolve_target(spec, name="slurm").name == "slurm"


def test_a_program_that_does_not_answer_for_a_while_is_told_of_once(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    go = tmp_path / "go"

    def tell(text: str) -> None:
        told.append(text)
        go.touch()

    monkeypatch.setattr(processes, "SLOW_S", 0.1)
    programs.put("scontrol", f"while test ! -e '{go}'; do sleep 0.02; done; sleep 0.2; echo yes")
    ask = partial(slurm_programs.check_output, ["scontrol", "show", "config"], timeout_s=PATIENCE_S)
    with tell_slow_programs(tell):
        assert ask() == "yes\n"
    assert ask() == "yes\n"
    assert told == ["waits for scontrol show config: no answer for 0.1 s"]


def test_probe_without_sbatch_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SlurmBackend().detect() == (Presence.ABSENT, "no sbatch on the PATH")


def test_auto_is_this_machine_where_slurm_is_installed_and_no_cluster_configured(
    programs: Programs, tmp_path: Path
) -> None:
    programs.put("scontrol", UNCONFIGURED)
    place = resolve_target(load_spec(small_spec(tmp_path)))
    assert place.name == "local"
    assert "no Slurm cluster is configured" in place.why
