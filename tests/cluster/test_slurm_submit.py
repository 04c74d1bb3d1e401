"""Submitting through stand-ins for sbatch: one array for each intent, and errors that say what is certain."""

from __future__ import annotations

import itertools
import os
import re
import selectors
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from hpcsweep.cluster import processes
from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.cluster.slurm.programs import SBATCH_S
from hpcsweep.core.cluster_protocol import Batch
from hpcsweep.errors import ClusterError, SubmitLimited, SubmitRefused, SubmitUncertain
from tests.waiting import PATIENCE_S, wait_until

from .programs import Programs

FAILED = "sbatch: error: Batch job submission failed:"

POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
DISABLED_NOW = "sbatch: Job creation temporarily disabled, retrying"

#: At MaxJobCount sbatch says this, tries again for up to two minutes, and may then succeed.
BUSY = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"

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
        (1, f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{FAILED} {POLICY}"),
        (1, f"sbatch: error: AssocMaxCpuPerJobLimit\n{FAILED} {POLICY}"),
        (1, f"{FAILED} Invalid job array specification"),
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
    assert type(caught.value) is SubmitRefused
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "words",
    [
        f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{FAILED} {POLICY}",
        f"sbatch: error: QOSMaxSubmitJobPerAccountLimit\n{FAILED} {POLICY}",
        f"sbatch: error: QOSGrpSubmitJobsLimit\n{FAILED} {POLICY}",
        f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED} {POLICY}",
        f"sbatch: error: AssocGrpSubmitJobsLimit\n{FAILED} {POLICY}",
        f"{FAILED} {POLICY}",
        f"{FAILED} Slurm temporarily unable to accept job",
        f"{FAILED} Resource temporarily unavailable",
    ],
)
def test_submit_limit_is_told_from_other_refusals(
    cluster: SlurmCluster, programs: Programs, batch: Batch, words: str
) -> None:
    programs.put("sbatch", f"cat >&2 <<'EOF'\n{words}\nEOF\nexit 1")
    with pytest.raises(SubmitLimited) as caught:
        cluster.submit(batch)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "words", [BUSY, "sbatch: error: Slurm job queue full, sleeping and retrying", DISABLED_NOW]
)
def test_sbatch_that_would_try_again_is_ended_in_its_sleep_and_is_sure_not_to_have_submitted(
    cluster: SlurmCluster, programs: Programs, batch: Batch, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.cluster.slurm.programs.SLEEP_S", 30.0)  # this machine may be slow
    programs.put("sbatch", f"echo '{words}' >&2; sleep 60; touch woken; echo 71")
    with pytest.raises(SubmitLimited) as caught:
        cluster.submit(batch)
    assert str(caught.value) == words
    assert not (batch.folder / "woken").exists()


def test_sbatch_that_may_have_woken_up_before_its_end_is_uncertain(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.cluster.slurm.programs.SLEEP_S", 0.0)
    programs.put("sbatch", f"echo '{BUSY}' >&2; sleep 60")
    with pytest.raises(SubmitUncertain):
        cluster.submit(batch)


def test_sbatch_that_gave_a_job_id_before_its_end_is_never_taken_for_refused(
    cluster: SlurmCluster, programs: Programs, batch: Batch
) -> None:
    programs.put("sbatch", f"echo 71; echo '{BUSY}' >&2; sleep 60")
    with pytest.raises(SubmitUncertain):
        cluster.submit(batch)


def test_age_of_what_was_said_is_counted_from_the_last_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, heard = tmp_path / "said", tmp_path / "heard"
    read = processes._read

    def noted(selector: selectors.BaseSelector, wait_s: float) -> bool:
        after = said.exists()
        found = read(selector, wait_s)
        if after and not found:
            heard.touch()
        return found

    monkeypatch.setattr(processes, "_read", noted)
    words = f"echo 1; sleep 0.3; echo 2; : > '{said}'; while [ ! -e '{heard}' ]; do sleep 0.02; done"
    began = time.monotonic()
    answer = processes.run_process(
        ["bash", "-c", f"{words}; echo now >&2; sleep 600"], timeout_s=PATIENCE_S, until=re.compile("now")
    )
    took = time.monotonic() - began
    assert (answer.code, answer.out, answer.err) == (-9, "1\n2\n", "now\n")
    assert answer.stopped_s is not None
    assert 0 < answer.stopped_s < took - 0.3


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
    noted, passed = batch.folder / f"{batch.name}.pid", itertools.count(step=SBATCH_S)

    def monotonic() -> float:
        """Once it has begun time flies."""
        return next(passed) if noted.exists() and noted.read_text() else 0.0

    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=monotonic))
    programs.put("sbatch", f"sleep 600 & echo $! >{noted.name}; wait")
    before = time.monotonic()
    with pytest.raises(SubmitUncertain, match=f"no answer within {SBATCH_S:g} s"):
        cluster.submit(batch)
    assert time.monotonic() - before < PATIENCE_S
    pid = int(noted.read_text())
    wait_until(lambda: not _alive(pid), what="something is left behind that could still submit")


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


def test_working_directory_that_was_deleted_is_no_matter(
    cluster: SlurmCluster, programs: Programs, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    programs.put("sbatch", "cd . && echo 71")
    programs.put("squeue", "cd . && exit 0")
    assert cluster.submit(batch) == "71"
    assert cluster.poll([]) == {}


def test_submit_sees_no_variable_that_would_change_the_batch(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"SLURM_CONF": "/c", "SBATCH_ACCOUNT": "acc", "MINE": "1"}
    dropped = {"SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": "1", "SBATCH_ARRAY_INX": "1", "SBATCH_GPUS": "8"}
    dropped |= {"HPCSWEEP_TASK": "3", "HPCSWEEP_RESTART": "2", "HPCSWEEP_RUN": "/run.json"}
    for key, value in {**kept, **dropped, "SBATCH_WAIT": "1"}.items():
        monkeypatch.setenv(key, value)
    programs.put("sbatch", "env -0 >env; echo 71")
    cluster.submit(batch)
    env = environment_of(batch.folder / "env")
    assert {key: env.get(key) for key in (*kept, *dropped, "SBATCH_WAIT")} == {
        **kept,
        **dict.fromkeys(dropped),
        "SBATCH_WAIT": None,
    }


def test_the_user_s_language_reaches_the_jobs_and_no_program_whose_output_is_read(
    cluster: SlurmCluster, programs: Programs, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = {"LANG": "de_DE.UTF-8", "LC_CTYPE": "C.UTF-8", "LC_NUMERIC": "de_DE.UTF-8", "LC_ALL": ""}
    reshaping = {"SQUEUE_FORMAT": "%i", "SINFO_FORMAT": "%P"}
    for key in [key for key in os.environ if key.startswith("LC_")]:
        monkeypatch.delenv(key)
    for key, value in {**language, **reshaping}.items():
        monkeypatch.setenv(key, value)
    for program in ("sbatch", "squeue", "scancel"):
        programs.put(program, f"env -0 >'{tmp_path}/{program}'; echo 71")
    cluster.submit(batch)
    cluster.poll([])
    cluster.cancel_ticks(["71"])
    wanted = (*language, *reshaping)
    seen = {
        program: {key: environment_of(tmp_path / program).get(key) for key in wanted}
        for program in ("sbatch", "squeue", "scancel")
    }
    english = {**dict.fromkeys(wanted), "LANG": "de_DE.UTF-8", "LC_ALL": "C"}
    assert seen == {"sbatch": {**language, **reshaping}, "squeue": english, "scancel": english}


def environment_of(path: Path) -> dict[str, str]:
    """What `env -0` wrote there."""
    return dict(pair.split("=", 1) for pair in path.read_text().split("\0") if pair)


def test_task_that_submits_hands_nothing_of_its_own_job_on(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_ARRAY_JOB_ID": "4710",
        "SLURMD_NODENAME": "n1",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "ROCR_VISIBLE_DEVICES": "2,3",
        "GPU_DEVICE_ORDINAL": "2,3",
        "ZE_AFFINITY_MASK": "2,3",
        "TMPDIR": "/scratch/job-4711/tmp",
    }
    kept = {"TMP": "/scratch/47110", "MINE": "a:a", "SLURM_CONF": "/etc/slurm.conf"}
    lists = {"PATH": f"{programs.path}:/usr/bin:/bin", "PYTHONPATH": "/p:/q:/p", "LD_LIBRARY_PATH": "/a:/a"}
    for key, value in {**job, **kept, **lists}.items():
        monkeypatch.setenv(key, value)
    programs.put("sbatch", "env -0 >env; echo 71")
    cluster.submit(batch)
    env = environment_of(batch.folder / "env")
    assert {key: env.get(key) for key in (*job, *kept, *lists)} == {
        **dict.fromkeys(job),
        **kept,
        "PATH": programs.path,
        "PYTHONPATH": "/p:/q",
        "LD_LIBRARY_PATH": "/a",
    }


def test_outside_of_a_job_the_user_s_own_environment_is_left_as_it_is(
    cluster: SlurmCluster, programs: Programs, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"CUDA_VISIBLE_DEVICES": "1", "TMPDIR": "/scratch/4711", "PYTHONPATH": "/p:/q:/p"}
    for key in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(key, raising=False)
    for key, value in kept.items():
        monkeypatch.setenv(key, value)
    programs.put("sbatch", "env -0 >env; echo 71")
    cluster.submit(batch)
    env = environment_of(batch.folder / "env")
    assert {key: env[key] for key in kept} == kept


# --------------------------------------------------------------------------- jobs that tick


def test_call_submits_one_small_job_that_ticks_the_folder_behind_another(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"SBATCH_GPUS": "8", "SBATCH_ARRAY_INX": "1-9", "SBATCH_DEBUG": "1"}.items():
        monkeypatch.setenv(key, value)
    options = SlurmOptions(partition="gpu", qos="q", gpu_type="a100", tick_options={"partition": "short"})
    programs.put("sbatch", "env -0 >env; echo 72")
    assert SlurmCluster(options).submit_tick("s-tick", tmp_path, after="71", delay_s=59.5) == "72"
    script = tmp_path / "tick.sbatch"
    assert programs.calls() == [["sbatch", "--parsable", str(script)]]
    lines = script.read_text().splitlines()
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=s-tick",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --mem=1024M",
        "#SBATCH --time=15",
        "#SBATCH --partition=short",
        "#SBATCH --qos=q",
        f"#SBATCH --chdir={tmp_path}",
        "#SBATCH --output=/dev/null",
        "#SBATCH --error=/dev/null",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@90",
        "#SBATCH --dependency=afterany:71",
        "#SBATCH --begin=now+60",
    ]
    assert [line for line in lines if line.endswith(f'-P -m hpcsweep.tick {tmp_path} --job "$SLURM_JOB_ID"')]
    variables = environment_of(tmp_path / "env")
    assert {key for key in variables if key.startswith("SBATCH_")} == {"SBATCH_DEBUG"}


def test_a_tick_job_is_submitted_although_the_folder_cannot_be_written(
    cluster: SlurmCluster, programs: Programs, tmp_path: Path
) -> None:
    programs.put("sbatch", f"cat >{tmp_path}/read; echo 72")
    root = tmp_path / "a file"
    root.write_text("")
    assert cluster.submit_tick("s-tick", root, delay_s=60) == "72"
    assert programs.calls() == [["sbatch", "--parsable"]]
    assert "#SBATCH --begin=now+60" in (tmp_path / "read").read_text().splitlines()


class TickJob:
    """The script of a tick job, run here as Slurm would, with what sbatch is told at its end."""

    def __init__(self, folder: Path, programs: Programs, *, setup: str) -> None:
        self.root = folder / "re'sults"
        self.root.mkdir()
        self.programs = programs
        self.submitted = folder / "submitted"
        programs.put("sbatch", "echo 72")
        options = SlurmOptions(python="/bin/true", setup=[setup])
        SlurmCluster(options).submit_tick("s-tick", self.root, after="71")
        self.script = folder / "slurm_script"
        self.script.write_text((self.root / "tick.sbatch").read_text())
        programs.put("sbatch", f"env -0 >'{folder}/env'; cat >'{self.submitted}'; echo 73")
        self.began = len(programs.calls())

    def run(self, script: Path | None = None, **environ: str) -> int:
        """Its exit status."""
        env = {"PATH": self.programs.path, "SLURM_JOB_ID": "72", "SLURM_MEM_PER_NODE": "1"} | environ
        return subprocess.run(
            ["bash", script or self.script], env=env, check=False, timeout=PATIENCE_S
        ).returncode

    @property
    def calls(self) -> list[list[str]]:
        return self.programs.calls()[self.began :]


def test_a_tick_job_that_succeeds_leaves_it_at_that(programs: Programs, tmp_path: Path) -> None:
    job = TickJob(tmp_path, programs, setup="echo to the log")
    assert job.run() == 0
    assert job.calls == []
    assert (job.root / "ticks.log").read_text() == "to the log\n"


def test_a_tick_job_that_fails_before_python_is_followed_by_others_later_and_later(
    programs: Programs, tmp_path: Path
) -> None:
    job = TickJob(tmp_path, programs, setup="echo no such module; exit 7")
    script = job.script
    delays = []
    for _ in range(9):
        assert job.run(script) == 7
        (argv,) = job.calls[-1:]
        assert argv[:2] == ["sbatch", "--parsable"]
        delays.append(argv[2])
        script.write_text(job.submitted.read_text())
    assert delays == [f"--begin=now+{s}" for s in (60, 120, 240, 480, 960, 1920, 3600, 3600, 3600)]
    text = script.read_text()
    assert "#SBATCH --job-name=s-tick" in text
    assert "\n#SBATCH --dependency" not in text, "the array ended before the first one began"
    assert {key for key in environment_of(tmp_path / "env") if key.startswith("SLURM_")} == set()
    lines = (job.root / "ticks.log").read_text().splitlines()
    assert lines[0] == "no such module"
    assert lines[1].endswith("tick job 72: failed (exit status 7, 1 in a row); looks again in 60 s")


def test_a_tick_job_that_succeeds_after_failures_says_so(programs: Programs, tmp_path: Path) -> None:
    job = TickJob(tmp_path, programs, setup="true")
    job.script.write_text(job.script.read_text().replace("\nfailures=0\n", "\nfailures=2\n"))
    assert job.run() == 0
    assert job.calls == []
    assert (job.root / "ticks.log").read_text().endswith(" tick job 72: works again\n")


def test_tick_jobs_have_an_end_and_say_so(programs: Programs, tmp_path: Path) -> None:
    job = TickJob(tmp_path, programs, setup="exit 7")
    job.script.write_text(job.script.read_text().replace("\nfailures=0\n", "\nfailures=72\n"))
    assert job.run() == 7
    assert job.calls == []
    last = (job.root / "ticks.log").read_text()
    assert last == "hpcsweep: tick job 72: failed 73 times in a row (exit status 7); no job looks again\n"


def test_a_tick_job_that_may_submit_nothing_requeues_itself(programs: Programs, tmp_path: Path) -> None:
    job = TickJob(tmp_path, programs, setup="exit 7")
    programs.put("sbatch", "echo 'sbatch: error: Access denied' >&2; exit 1")
    programs.put("scontrol", "exit 0")
    assert job.run(SLURM_RESTART_COUNT="2") == 7
    assert job.calls == [["sbatch", "--parsable", "--begin=now+240"], ["scontrol", "requeue", "72"]]
    assert "sbatch: error: Access denied" in (job.root / "ticks.log").read_text()


def test_a_tick_job_tries_both_again_while_the_controller_is_away(programs: Programs, tmp_path: Path) -> None:
    job = TickJob(tmp_path, programs, setup="exit 7")
    away = tmp_path / "away"
    away.touch()
    for name in ("sbatch", "scontrol"):
        programs.put(name, f"[ ! -e '{away}' ] || {{ echo 'Unable to contact' >&2; exit 1; }}")
    programs.put("sleep", f"rm '{away}'")
    assert job.run() == 7
    submit = ["sbatch", "--parsable", "--begin=now+60"]
    assert job.calls == [submit, ["scontrol", "requeue", "72"], ["sleep", "60"], submit]


def test_a_tick_job_that_is_cancelled_stays_cancelled(programs: Programs, tmp_path: Path) -> None:
    job = TickJob(tmp_path, programs, setup="kill -TERM $$; sleep 5")
    assert job.run() in (143, -15)
    assert job.calls == []


def test_a_tick_job_that_hangs_is_replaced_before_its_time_limit(programs: Programs, tmp_path: Path) -> None:
    job = TickJob(tmp_path, programs, setup="kill -USR1 $$; exec sleep 5")
    assert job.run() == 1
    assert job.calls == [["sbatch", "--parsable", "--begin=now+60"]]


@pytest.mark.parametrize("body", [f"echo '{FAILED} Access denied' >&2; exit 1", "exit 0", "kill -9 $$"])
def test_call_that_gave_no_job_is_an_error(
    cluster: SlurmCluster, programs: Programs, tmp_path: Path, body: str
) -> None:
    programs.put("sbatch", body)
    with pytest.raises(ClusterError):
        cluster.submit_tick("s-tick", tmp_path)


# --------------------------------------------------------------------------- its size


def test_script_of_five_thousand_tasks_is_short(cluster: SlurmCluster, batch: Batch) -> None:
    assert len(cluster.script(msgspec.structs.replace(batch, tasks=5000))) < 4000
