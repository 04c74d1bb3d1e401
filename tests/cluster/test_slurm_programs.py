"""`SlurmCluster` against stand-ins for Slurm's programs on the PATH: real argv, real parsing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from hpcsweep.cluster import slurm as slurm_module
from hpcsweep.cluster.slurm import SlurmCluster, SlurmOptions, probe
from hpcsweep.cluster.slurm_programs import ranges
from hpcsweep.core.protocols import Batch, Limits, LiveBatch, Phase, TaskId, TaskShape, TaskState
from hpcsweep.errors import (
    ClusterError,
    ClusterUnavailable,
    SpecError,
    SubmitRefused,
    SubmitUncertain,
)

DISABLED = 'echo "Slurm accounting storage is disabled" >&2; exit 1'

FAILED = "sbatch: error: Batch job submission failed:"

#: At MaxJobCount sbatch says this, tries again for up to two minutes, and may then succeed.
BUSY = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"

#: Notes its arguments, NUL between them and a line break at the end, then does what it is told.
PROGRAM = """\
#!/bin/bash
printf '%s\\0' "${{0##*/}}" "$@" >>'{calls}'; echo >>'{calls}'
{body}
"""


class Programs:
    """A folder of stand-ins, alone on the PATH but for the shell's own tools."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin with space"
        self._bin.mkdir()
        self._calls = folder / "calls"
        self.path = f"{self._bin}:/usr/bin:/bin"
        for name in ("sbatch", "squeue", "scontrol", "scancel"):
            self.put(name, "echo unexpected >&2; exit 99")
        self.put("sacct", DISABLED)

    def put(self, name: str, body: str) -> None:
        path = self._bin / name
        path.write_text(PROGRAM.format(calls=self._calls, body=body))
        path.chmod(0o755)

    def rows(self, *rows: tuple[str, ...], program: str = "squeue") -> None:
        text = "".join("\x1f".join(row) + "\n" for row in rows)
        self.put(program, f"cat <<'EOF'\n{text}EOF")

    def calls(self, program: str | None = None) -> list[list[str]]:
        text = self._calls.read_text() if self._calls.exists() else ""
        calls = [line.removesuffix("\0").split("\0") for line in text.split("\0\n") if line]
        return [call for call in calls if program in (None, call[0])]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs(tmp_path)
    monkeypatch.setenv("PATH", programs.path)
    return programs


@pytest.fixture
def cluster(programs: Programs) -> SlurmCluster:
    return SlurmCluster(SlurmOptions())


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    folder = tmp_path / "it's a $HOME" / "batches" / "s-1"
    folder.mkdir(parents=True)
    return Batch(name="s-1", folder=folder, tasks=4, throttle=2, shape=TaskShape(gpus=1))


def live(batch: Batch, job: str = "70", *, open_tasks: tuple[int, ...] = (0, 1, 2, 3)) -> LiveBatch:
    return LiveBatch(
        name=batch.name,
        job=job,
        folder=batch.folder,
        tasks=batch.tasks,
        throttle=batch.throttle,
        shape=batch.shape,
        open_tasks=open_tasks,
    )


def row(
    task: str, state: str, *, job: str = "70", own: str = "70", name: str = "s-1", **more: str
) -> tuple[str, ...]:
    return (job, task, own, state, more.get("node", ""), more.get("reason", "None"), name)


# --------------------------------------------------------------------------- submitting


def test_submit_writes_script_and_folders_before_sbatch_is_called(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("sbatch", 'ls -d "$PWD" logs results && cp "${@: -1}" seen && echo 71')
    assert cluster.submit(batch) == "71"
    assert programs.calls() == [["sbatch", "--parsable", str(batch.folder / "script.sbatch")]]
    assert (batch.folder / "seen").read_text() == (batch.folder / "script.sbatch").read_text()
    assert sorted(path.name for path in batch.folder.iterdir()) == [
        "logs",
        "results",
        "script.sbatch",
        "seen",
    ]


def test_script_is_what_plan_shows(cluster: SlurmCluster, programs: Programs, batch: Batch) -> None:
    programs.put("sbatch", "echo 71")
    shown = cluster.script(batch)
    assert not (batch.folder / "script.sbatch").exists()
    cluster.submit(batch)
    assert (batch.folder / "script.sbatch").read_text() == shown


@pytest.mark.parametrize(
    "body",
    [
        "echo 71",
        "echo '71;other-cluster'",
        "echo Welcome to the 9000; echo 71",
        f"echo '{BUSY}' >&2; echo 71",
        'echo "sbatch: warning: can\'t honor --ntasks-per-node" >&2; echo 71',
        'echo "sbatch: error: job_submit: your project is over budget, running at low priority" >&2; echo 71',
    ],
)
def test_exit_0_is_accepted_whatever_else_is_said(
    cluster: SlurmCluster, programs: Programs, batch: Batch, body: str
) -> None:
    programs.put("sbatch", body)
    assert cluster.submit(batch) == "71"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, f"{FAILED} Invalid account or account/partition combination specified"),
        (1, f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{FAILED} Job violates accounting/QOS policy"),
        (1, f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED} Job violates accounting/QOS policy"),
        (1, f"{BUSY}\n{BUSY}\n{FAILED} Resource temporarily unavailable"),
        (1, "sbatch: error: Unable to open file /nowhere"),
        (255, "sbatch: error: Invalid --mem specification"),
        (255, "sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information"),
        (1, "sbatch: fatal: Invalid node list"),
    ],
)
def test_clean_refusal_carries_sbatch_s_own_words(
    cluster: SlurmCluster, programs: Programs, batch: Batch, code: int, words: str
) -> None:
    programs.put("sbatch", f"cat >&2 <<'EOF'\n{words}\nEOF\nexit {code}")
    with pytest.raises(SubmitRefused) as caught:
        cluster.submit(batch)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "words",
    [
        f"{FAILED} Socket timed out on send/recv operation",
        f"{FAILED} Unable to contact slurm controller (connect failure)",
        f"{FAILED} Communication connection failure",
        f"{FAILED} Zero Bytes were transmitted or received",
        f"{FAILED} Unexpected message received",
        f"{FAILED} Protocol authentication error",
        "the wrapper of this site broke",
        "",
    ],
)
def test_words_that_leave_it_open_are_no_refusal(
    cluster: SlurmCluster, programs: Programs, batch: Batch, words: str
) -> None:
    programs.put("sbatch", f"echo '{words}' >&2; exit 1")
    with pytest.raises(SubmitUncertain):
        cluster.submit(batch)


@pytest.mark.parametrize("body", ["exit 0", "kill -9 $$", "kill -TERM $$", "echo 71; kill -9 $$"])
def test_lost_reply_is_uncertain_and_nobody_but_the_driver_tries_again(
    cluster: SlurmCluster, programs: Programs, batch: Batch, body: str
) -> None:
    programs.put("sbatch", body)
    with pytest.raises(SubmitUncertain):
        cluster.submit(batch)
    assert (batch.folder / "script.sbatch").exists()
    assert len(programs.calls("sbatch")) == 1


def test_sbatch_that_hangs_is_ended_and_uncertain_even_where_its_child_holds_the_pipe(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_module, "SBATCH_S", 0.5)
    programs.put("sbatch", f"sleep 60 & echo $! >{batch.name}.pid; wait")
    before = time.monotonic()
    with pytest.raises(SubmitUncertain, match=r"no answer within 0\.5 s"):
        cluster.submit(batch)
    assert time.monotonic() - before < 10
    pid = int((batch.folder / f"{batch.name}.pid").read_text())
    deadline = time.monotonic() + 5
    while _alive(pid):  # until init has reaped it
        assert time.monotonic() < deadline, "something is left behind that could still submit"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:1]
    except OSError:
        return False


def test_sbatch_that_cannot_be_run_is_a_refusal(
    cluster: SlurmCluster, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SubmitRefused, match="No such file or directory"):
        cluster.submit(batch)


def test_submit_sees_no_variable_that_would_change_the_batch(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"SLURM_CONF": "/c", "SBATCH_ACCOUNT": "acc", "MINE": "1"}
    dropped = {"SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": "1", "SBATCH_ARRAY_INX": "1", "SBATCH_GPUS": "8"}
    for key, value in {**kept, **dropped, "SBATCH_WAIT": "1", "LC_ALL": "de_DE.UTF-8"}.items():
        monkeypatch.setenv(key, value)
    programs.put("sbatch", "env -0 >env; echo 71")
    cluster.submit(batch)
    env = dict(pair.split("=", 1) for pair in (batch.folder / "env").read_text().split("\0") if pair)
    assert {key: env.get(key) for key in (*kept, *dropped, "SBATCH_WAIT", "LC_ALL")} == {
        **kept,
        **dict.fromkeys(dropped),
        "SBATCH_WAIT": None,
        "LC_ALL": "C",
    }


def test_script_of_five_thousand_tasks_is_short(cluster: SlurmCluster, batch: Batch) -> None:
    assert len(cluster.script(msgspec.structs.replace(batch, tasks=5000))) < 4000


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


def test_package_that_the_interpreter_does_not_find_is_exported(
    programs: Programs, batch: Batch, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/bash\nexit 0\n")
    bare.chmod(0o755)
    script = SlurmCluster(SlurmOptions(python=str(bare))).script(batch)
    lines = [line for line in script.splitlines() if "PYTHONPATH" in line]
    command = f"{lines[0]}; {sys.executable} -P -S -c 'import hpcsweep; print(hpcsweep.__file__)'"
    done = subprocess.run(["bash", "-c", command], cwd="/", capture_output=True, text=True, check=True)
    import hpcsweep

    assert os.path.realpath(done.stdout.strip()) == os.path.realpath(hpcsweep.__file__)


def test_interpreter_that_does_not_run_here_is_trusted(programs: Programs, batch: Batch) -> None:
    script = SlurmCluster(SlurmOptions(python="/only/in/the/container/python")).script(batch)
    assert "PYTHONPATH" not in script
    assert "exec /only/in/the/container/python -P -m hpcsweep.worker " in script


# --------------------------------------------------------------------------- finding


def test_find_gives_the_array_of_exactly_this_name(cluster: SlurmCluster, programs: Programs) -> None:
    programs.rows(row("0", "PENDING", job="69", name="s-11"), row("0", "COMPLETED", job="71", own="72"))
    assert cluster.find("s-1") == "71"
    (call,) = programs.calls()
    assert call[:3] == ["squeue", "--me", "--states=all"]
    assert "--name=s-1" in call


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
    programs.rows(("71_0", "COMPLETED", "n1", "s-1"), program="sacct")
    assert cluster.find("s-1") == "71"
    (call,) = programs.calls("sacct")
    assert "--starttime=now-90days" in call


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
        row("0", "RUNNING", own="71", node="n1"),
        row("1", "COMPLETING", own="72", node="n2"),
        row("2", "PENDING", reason="JobArrayTaskLimit"),
        row("3", "CANCELLED by 1000"),
        row("0", "RUNNING", name="a job | of 'mine'\twith odd name"),
        row("N/A", "RUNNING"),
        row("9", "FAILED", name="s-11"),
    )
    assert cluster.poll([live(batch)]) == {
        TaskId("s-1", 0): TaskState(Phase.RUNNING, node="n1"),
        TaskId("s-1", 1): TaskState(Phase.RUNNING, node="n2"),
        TaskId("s-1", 2): TaskState(Phase.PENDING, reason="JobArrayTaskLimit"),
        TaskId("s-1", 3): TaskState(Phase.CANCELLED),
    }
    assert [call[0] for call in programs.calls()] == ["squeue"]


def test_poll_of_another_user_s_job_with_our_id_shows_nothing(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING", name="job-ids-start-again-at-1"))
    assert cluster.poll([live(batch)]) == {}


def test_poll_passes_over_lines_that_are_no_rows(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    text = "\x1f".join(row("0", "RUNNING"))
    programs.put("squeue", f"echo 'CLUSTER: main'; echo; echo 'a\x1fb'; echo '{text}'")
    assert cluster.poll([live(batch, open_tasks=(0,))]) == {TaskId("s-1", 0): TaskState(Phase.RUNNING)}


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


@pytest.mark.parametrize("body", ["exit 1", "kill -9 $$", "sleep 60"])
def test_failing_squeue_says_nothing_and_sacct_is_not_asked_instead(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr("hpcsweep.cluster.slurm_programs.QUERY_S", 0.5)
    programs.put("squeue", body)
    assert cluster.poll([live(batch)]) is None
    assert [call[0] for call in programs.calls()] == ["squeue"]


def test_vanished_task_is_simply_not_shown_where_there_is_no_database(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING"))
    for _ in range(3):
        assert cluster.poll([live(batch, open_tasks=(0, 1))]) == {TaskId("s-1", 0): TaskState(Phase.RUNNING)}
    assert len(programs.calls("sacct")) == 1, "once it has failed it is not asked again"


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
        ("70_0", "TIMEOUT", "n1", "s-1"),
        ("70_1", "CANCELLED by 1000", "None assigned", "s-1"),
        ("70_2", "RUNNING", "n1", "s-1"),
        ("70_[4-9]", "PENDING", "None assigned", "s-1"),
        ("70_3", "FAILED", "n3", "of-another-year"),
        ("70_5", "FAILED", "n3", "s-1"),
        program="sacct",
    )
    expected = {TaskId("s-1", 0): TaskState(Phase.RUNNING), TaskId("s-1", 1): TaskState(Phase.CANCELLED)}
    for _ in range(3):
        # Task 2: only squeue may call a task active. Task 3: another job of the same number.
        assert cluster.poll([live(batch)]) == expected
    (call,) = programs.calls("sacct")
    assert "--jobs=70" in call


def test_sacct_is_not_asked_while_everything_open_is_shown(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.rows(row("0", "RUNNING"), row("2", "COMPLETED"))
    cluster.poll([live(batch, open_tasks=(0, 2))])
    assert programs.calls("sacct") == []


# --------------------------------------------------------------------------- steering


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


# --------------------------------------------------------------------------- the site


@pytest.mark.parametrize(
    ("config", "limits"),
    [
        ("MaxArraySize            = 1001\nMaxJobCount = 10", Limits(array_tasks=1001)),
        ("MaxJobCount = 10", Limits()),
        ("MaxArraySize            = (null)", Limits()),
    ],
)
def test_limits_are_the_site_s(
    cluster: SlurmCluster, programs: Programs, config: str, limits: Limits
) -> None:
    programs.put("scontrol", f"cat <<'EOF'\n{config}\nEOF")
    assert cluster.limits() == limits
    assert programs.calls() == [["scontrol", "show", "config"]]


def test_site_without_arrays_is_an_error(cluster: SlurmCluster, programs: Programs) -> None:
    programs.put("scontrol", "echo 'MaxArraySize = 0'")
    with pytest.raises(ClusterError, match="allows no job arrays"):
        cluster.limits()


@pytest.mark.parametrize(
    ("body", "ok", "why"),
    [
        ("echo 'Slurmctld(primary) at head is UP'", True, "Slurmctld(primary) at head is UP"),
        ("echo 'Slurmctld(primary) at a is DOWN'; echo 'Slurmctld(backup) at b is UP'", True, "at b is UP"),
        ("echo 'Slurmctld(primary) at head is DOWN'", False, "is DOWN"),
        ("echo 'Slurmctld(primary) at head is DOWN'; exit 1", False, "is DOWN"),
        ("echo 'no such file' >&2; exit 1", False, "no such file"),
        ("sleep 60", False, "no answer within 0.5 s"),
    ],
)
def test_probe_says_whether_and_why(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, body: str, ok: bool, why: str
) -> None:
    monkeypatch.setattr(slurm_module, "PROBE_S", 0.5)
    programs.put("scontrol", body)
    answer = probe()
    assert answer[0] is ok
    assert why in answer[1]


def test_probe_without_sbatch_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe() == (False, "no sbatch on the PATH")
