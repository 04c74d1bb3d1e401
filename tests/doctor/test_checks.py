"""`doctor`, with stand-ins for Slurm's programs on the PATH; the test job is a real process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from typer.testing import CliRunner, Result

import hpcsweep
from hpcsweep.cli import app
from hpcsweep.cluster.local import backend
from hpcsweep.doctor import checks, probe
from hpcsweep.doctor.checks import crontab_line
from tests.waiting import PATIENCE_S, wait_until

SPEC = """\
name: lr
train: {function: "trainer.py:train"}
objective: {metric: loss}
space: {lr: {type: float, low: 1e-4, high: 1.0, log: true}}
searcher: random
scheduler: {name: hyperband, max_resource: 9}
resources: {gpus: 2, cpus: 4, mem: 8G, time: 30m}
cluster: {partition: gpu, grace: 60}
"""

#: A Slurm of one task: `sbatch` starts it as a process at once, unless the file `pending` is there.
SLURM = r"""#!/bin/bash
state='STATE'
alive() { grep -q '^State:.[^ZX]' "/proc/$(cat "$state/pid" 2>/dev/null)/status" 2>/dev/null; }
told() { [ -e "$state/$1" ] && cat "$state/$1"; }
echo "${0##*/} $*" >>"$state/calls"
case "${0##*/} $*" in
"sbatch --version") told version || echo "slurm 23.02.4" ;;
"sbatch --test-only"*) cat >/dev/null ;;
"sbatch --parsable --hold"*)
  if told no-submission >&2; then exit 1; fi
  echo 72 ;;
sbatch*)
  if told refusal >&2; then exit 1; fi
  script="${@: -1}"
  sed -n 's/^#SBATCH --job-name=//p' "$script" >"$state/name"
  if [ ! -e "$state/pending" ]; then
    log=$(sed -n 's/^#SBATCH --output=//p' "$script")
    SLURM_JOB_ID=71 SLURM_ARRAY_TASK_ID=0 SLURMD_NODENAME=n1 CUDA_VISIBLE_DEVICES=0,1 \
      setsid bash "$script" >"${log/\%a/0}" 2>&1 </dev/null &
    echo $! >"$state/pid"
  fi
  echo 71 ;;
"squeue --me -h") ;;
"squeue --me -h --name="*) ;;
squeue*)
  if told lost >&2; then exit 1; fi
  name=$(told renamed || cat "$state/name")
  row() { printf '71\x1f0\x1f71\x1f%s\x1f%s\x1f0:01\x1f%s\x1f%s\n' "$1" "$2" "$3" "$name"; }
  if [ -e "$state/pending" ]; then row PENDING '' "$(cat "$state/pending")"
  elif alive; then row RUNNING n1 None
  else row FAILED n1 NonZeroExitCode; fi ;;
"scancel --user="*" 72") ;;
scancel*-held) ;;
"scancel --user="*" --name="*) if told renamed >&2; then exit 0; fi
  rm -f "$state/pending"; if alive; then kill -TERM "$(cat "$state/pid")"; fi ;;
"scancel --batch --signal=USR2 71_0") kill -USR2 "$(cat "$state/pid")" ;;
scancel*) rm -f "$state/pending"; if alive; then kill -TERM "$(cat "$state/pid")"; fi ;;
"scontrol ping") told ping || echo "Slurmctld(primary) at head is UP" ;;
"scontrol show config") told config || cat <<'EOF'
ClusterName             = site
KillWait                = 30 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 300 sec
PreemptType             = preempt/none
ScronParameters         = (null)
SLURM_VERSION           = 23.02.4
EOF
  ;;
"scontrol -a -o show partition") cat <<'EOF'
PartitionName=cpu Default=YES MaxTime=1-00:00:00 DefaultTime=01:00:00 State=UP
PartitionName=gpu Default=NO MaxTime=2-00:00:00 DefaultTime=NONE State=UP
EOF
  ;;
sinfo*)
  printf '%s\x1f%s\x1f64\x1f256000\x1f%s\x1f(null)\x1f%s\n' n1 gpu gpu:a100:4 idle n2 gpu gpu:a100:4 down \
    n3 gpu gpu:h100:8 mixed c1 cpu '(null)' idle ;;
sacct*) if told sacct >&2; then exit 1; fi ;;
*) echo "unexpected: ${0##*/} $*" >&2; exit 99 ;;
esac
"""
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct")


class OneTaskSlurm:
    """Its programs, and files that steer them."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.state = folder / "bin", folder / "state"
        self.bin.mkdir()
        self.state.mkdir()
        for name in PROGRAMS:
            path = self.bin / name
            path.write_text(SLURM.replace("STATE", str(self.state)))
            path.chmod(0o755)

    def put(self, name: str, text: str) -> None:
        (self.state / name).write_text(text + "\n")

    def calls(self, program: str) -> list[str]:
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{program} ")]

    def process(self) -> Path | None:
        """The task's process as long as it is there."""
        pid = self.state / "pid"
        folder = Path("/proc", pid.read_text().strip()) if pid.exists() else None
        return folder if folder and (folder / "exe").exists() else None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder on a filesystem of known figures, and a sweep beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "trainer.py").write_text("def train(trial):\n    return trial.config['lr']\n")
    (tmp_path / "lr.yaml").write_text(SPEC)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(checks, "filesystem_type", lambda path: "nfs4")
    monkeypatch.setattr(checks, "SLOW_S", PATIENCE_S)
    figures = SimpleNamespace(f_bavail=2**20, f_frsize=2**20, f_files=10**7, f_favail=10**6)
    monkeypatch.setattr(os, "statvfs", lambda path: figures)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "CUDA_VISIBLE"))]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def slurm(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneTaskSlurm]:
    slurm = OneTaskSlurm(here.parent)
    monkeypatch.setenv("PATH", f"{slurm.bin}:/usr/bin:/bin")
    yield slurm
    assert slurm.process() is None, "the test job is still there"
    assert list(here.iterdir()) == []


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *argv])


def measured(text: str) -> str:
    """The text with N for what was measured."""
    text = re.sub(r"(squeue took|answers in|took at most) [\d.]+ s", r"\1 N s", text)
    return re.sub(r"reported \d+ s", "reported N s", text)


DOWN = "Slurmctld(primary) at head is DOWN"
PYTHON = (
    f"good     python: {platform.python_version()} at {sys.executable}, hpcsweep {hpcsweep.__version__}\n"
)
FILES = """\
good     results: {here} can be written
good     filesystem: nfs4{network}
good     space: 1024.0 GiB free, 1000000 files (your own quota may be less)
good     files: rename over a file, exclusive create, fsync: as they must be
"""
ANSWERS = """\
good     Slurm: slurm 23.02.4
good     controller: a Slurm controller answers (Slurmctld(primary) at head is UP); squeue took N s
"""
ACCOUNTING = "good     accounting: sacct answers in N s: ends and costs of jobs are on record\n"
SITE = """\
good     limits: arrays of at most 1001 tasks; 10000 jobs of everybody at a time
good     ends of jobs: TERM comes 30 s before KILL (KillWait), \
and squeue shows jobs for 5 min after their end (MinJobAge)
good     accounts: Slurm enforces no limits of accounts and QOS here
good     partition: gpu: 2 nodes of 4 a100, 1 node of 8 h100; \
jobs of at most 48 h, of 48 h unless they say; 2 up
good     partitions: without GPUs: cpu (default)
"""
NO_CANARY = """\
warning  canary: none was submitted, so what compute nodes see and may do is not known; \
run doctor with --canary
"""
SWEEP = """\
good     template: default.sbatch renders
good     resources: 2 GPUs, 4 CPUs, 8192 MiB, 60 min of one task: fits
good     training code: {folder}/trainer.py:train can be run
"""
FLOWN = f"""\
good     canary: ran on n1, and reported N s after its submission
good     job names: squeue shows jobs by the name that they were submitted with
good     interpreter: n1 has Python {platform.python_version()} at {sys.executable}, \
hpcsweep {hpcsweep.__version__} as here
good     shared files: a file from here to n1 and its answer back took at most N s
"""
GPUS = "good     GPUs on the node: asked for 2; CUDA_VISIBLE_DEVICES is '0,1', nvidia-smi lists none\n"
SUBMITS = "good     submitting from nodes: n1 may submit: `launch --detach` works\n"
SIGNALS = "good     signals: USR2 (before a time limit) and TERM (preemption, scancel) reach the worker\n"


def slurm_here(here: Path) -> str:
    return PYTHON + FILES.format(here=here, network=", a network filesystem") + ANSWERS


# --------------------------------------------------------------------------- this machine


def test_without_slurm_doctor_checks_this_machine_without_failures(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(here))
    monkeypatch.setattr(backend, "local_cpus", lambda: 12)
    monkeypatch.setattr(backend, "local_gpus", list)
    result = run("--canary")
    assert result.output == PYTHON + FILES.format(here=here, network="") + (
        "good     Slurm: is not here (no sbatch on the PATH): sweeps run on this machine\n"
        "good     cores: 12\n"
        "good     GPUs: none; a sweep on this machine runs on CPUs\n"
    )
    assert result.exit_code == 0
    assert list(here.iterdir()) == []


def test_doctor_checks_a_sweep_on_this_machine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    good = run("../lr.yaml", "--set", "cluster.name=local")
    assert good.output.splitlines()[-2:] == [
        "good     resources: 4 CPUs, 30 min of one task: fits",
        f"good     training code: {here.parent}/trainer.py:train can be run",
    ]
    bad = run("../lr.yaml", "--set", "cluster.name=local", "--set", "train.function=trainer.py:trian")
    assert bad.output.splitlines()[-1].startswith(
        f"failure  training code: train.function: {here.parent}/trainer.py: has no 'trian'"
    )
    assert (good.exit_code, bad.exit_code) == (0, 1)


def test_a_sweep_for_slurm_fails_without_slurm(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    result = run("../lr.yaml", "--set", "cluster.name=slurm")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "failure  Slurm: no sbatch on the PATH, and the spec asks for Slurm; "
        "load the site's Slurm module, or take cluster.name: auto"
    )


def test_an_invalid_spec_is_reported_with_code_2(here: Path) -> None:
    result = run("nofile.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "hpcsweep: nofile.yaml: cannot be read: No such file or directory\n"


# --------------------------------------------------------------------------- Slurm, without a job


def test_without_a_test_job_doctor_says_how_to_run_one(here: Path, slurm: OneTaskSlurm) -> None:
    result = run()
    assert measured(result.output) == slurm_here(here) + ACCOUNTING + SITE + NO_CANARY
    assert result.exit_code == 0
    assert [call for call in slurm.calls("sbatch") if "--parsable" in call] == []


def test_a_site_without_accounting_does_not_fail(here: Path, slurm: OneTaskSlurm) -> None:
    slurm.put("sacct", "Slurm accounting storage is disabled")
    result = run("--no-canary")
    assert result.exit_code == 0
    assert (
        "\nwarning  accounting: sacct: Slurm accounting storage is disabled; sweeps run without: "
        "how a task ended is known only while squeue shows it (MinJobAge)\n"
    ) in result.output


def test_a_controller_that_is_down_fails_and_is_not_asked_again(here: Path, slurm: OneTaskSlurm) -> None:
    slurm.put("ping", DOWN)
    result = run("--canary")
    assert result.output == slurm_here(here).replace(
        ANSWERS,
        "good     Slurm: slurm 23.02.4\n"
        "failure  controller: sbatch is on the PATH, but the Slurm controller is down "
        f"({DOWN}); try again later, or ask the admins\n",
    )
    assert result.exit_code == 1
    assert slurm.calls("sbatch") == ["--version"]


# --------------------------------------------------------------------------- the test job


def test_a_test_job_for_a_sweep_reports_a_good_site(here: Path, slurm: OneTaskSlurm) -> None:
    result = run("../lr.yaml", "--canary")
    sweep = SWEEP.format(folder=here.parent)
    submitted = FLOWN + GPUS + SUBMITS + SIGNALS
    assert measured(result.output) == slurm_here(here) + ACCOUNTING + SITE + sweep + submitted
    assert result.exit_code == 0
    held = [call for call in slurm.calls("sbatch") if "--hold" in call]
    assert len(held) == 1
    cancelled = [call.split()[-1] for call in slurm.calls("scancel") if call.endswith(("-held", " 72"))]
    assert cancelled[0] == "72", "by the node at once"
    assert len(cancelled) == 2, "and here to be sure"


def test_a_test_job_without_a_sweep_asks_for_no_gpu(here: Path, slurm: OneTaskSlurm) -> None:
    result = run("--canary")
    assert measured(result.output) == slurm_here(here) + ACCOUNTING + SITE + FLOWN + SUBMITS + SIGNALS


@pytest.mark.parametrize("scron", [False, True])
def test_a_site_whose_nodes_may_not_submit_gets_a_crontab_line(
    here: Path, slurm: OneTaskSlurm, scron: bool
) -> None:
    slurm.put("no-submission", "sbatch: error: Batch job submission failed: Access/permission denied")
    if scron:
        slurm.put("config", "ScronParameters = enable")
    result = run("../lr.yaml", "--canary", "--results", "100%")
    line = crontab_line(Path("../lr.yaml"), results=Path("100%"), overrides=[])
    assert result.output.splitlines()[-2] == (
        "warning  submitting from nodes: n1 may not submit "
        "(sbatch: sbatch: error: Batch job submission failed: Access/permission denied): "
        "`launch --detach` will not work here; keep `launch` running under nohup or tmux, "
        f"or put this into cron{' or scrontab' if scron else ''}: {line}"
    )
    assert result.exit_code == 0


def test_a_reached_submit_limit_does_not_count_as_not_allowed_to_submit(slurm: OneTaskSlurm) -> None:
    slurm.put(
        "no-submission",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed",
    )
    assert SUBMITS in run("--canary").output


def test_a_pending_test_job_is_cancelled_and_its_reason_reported(slurm: OneTaskSlurm) -> None:
    slurm.put("pending", "Priority")
    result = run("--canary", "--wait", "1")
    assert result.output.splitlines()[-1] == (
        "warning  canary: test job did not run: after 1 s it still waits in the queue: Priority; "
        "it was cancelled; try again with a longer --wait, or when the queue is shorter"
    )
    assert result.exit_code == 0
    assert not (slurm.state / "pending").exists(), "cancelled"


def test_a_test_job_that_can_never_start_fails_soon(
    slurm: OneTaskSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.doctor.probe_job.NEVER_S", 0.5)
    slurm.put("pending", "PartitionTimeLimit")
    result = run("--canary", "--wait", "1000")
    assert result.output.splitlines()[-1] == (
        "failure  canary: it can never start: PartitionTimeLimit; "
        "change cluster or resources in the spec: a sweep would wait as long"
    )
    assert result.exit_code == 1
    assert not (slurm.state / "pending").exists(), "cancelled"


def test_a_refused_test_job_fails_with_the_error_of_sbatch(slurm: OneTaskSlurm) -> None:
    slurm.put("refusal", "sbatch: error: Batch job submission failed: Invalid account")
    result = run("--canary")
    assert result.output.splitlines()[-1] == (
        "failure  canary: could not be submitted: "
        "sbatch: error: Batch job submission failed: Invalid account; "
        "fix this first: sweeps are submitted in the same way"
    )
    assert result.exit_code == 1


def test_a_test_job_without_a_report_fails_with_the_end_of_its_log(here: Path, slurm: OneTaskSlurm) -> None:
    result = run("../lr.yaml", "--canary", "--set", "cluster.setup=[echo no module cuda, exit 1]")
    assert result.output.splitlines()[-1] == (
        "failure  canary: it ended as failed on n1 without a report; its log ends: no module cuda; "
        f"make sure that nodes see {here}, have cluster.python and start it by the template"
    )
    assert result.exit_code == 1


def test_a_template_that_swallows_signals_gets_a_warning(
    here: Path, slurm: OneTaskSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.doctor.probe_job.SIGNAL_S", 0.5)
    (here.parent / "deaf.sbatch").write_text("#!/bin/bash\n{{ header }}\n( {{ command }} )\necho tear down\n")
    result = run("../lr.yaml", "--canary", "--set", f"cluster.template={here.parent / 'deaf.sbatch'}")
    assert result.output.splitlines()[-1] == (
        "warning  signals: USR2 (before a time limit) and TERM (preemption, scancel) did not reach "
        "the worker: runs lose what came after their last checkpoint; "
        "end the template with {{ command }}, or hand signals on as default.sbatch shows"
    )
    assert result.exit_code == 0


def test_a_test_job_that_may_remain_is_reported_with_its_files(
    here: Path, slurm: OneTaskSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.put("lost", "squeue: error: Unable to contact slurm controller")
    monkeypatch.setattr("hpcsweep.doctor.probe_job.REMOVAL_S", 0.2)
    result = run("--canary")
    (folder,) = here.iterdir()
    (name,) = (path.name for path in (folder / "batches").iterdir())
    assert result.stderr == (
        f"hpcsweep: {name}: a job by that name may still be there: scancel it, then remove {folder}\n"
    )
    assert result.exit_code == 2
    wait_until(lambda: slurm.process() is None)
    shutil.rmtree(folder)


@pytest.mark.parametrize("shown", ["lab7-7", "hpcsweep-do", "4711"])
def test_a_site_that_renames_jobs_gets_a_warning_and_no_job_remains(
    here: Path, slurm: OneTaskSlurm, shown: str
) -> None:
    slurm.put("renamed", shown)
    (line,) = [line for line in run("--canary").output.splitlines() if "job names:" in line]
    assert re.sub("doctor-[0-9a-f]{8}", "doctor-N", line) == (
        f"warning  job names: asked for hpcsweep-doctor-N, and squeue shows {shown}: this site changes "
        "names; sweeps go by job id and folder, and run all the same; look for their jobs by id or "
        "folder (%Z)"
    )


def test_a_renamed_pending_test_job_is_cancelled_by_its_id(here: Path, slurm: OneTaskSlurm) -> None:
    slurm.put("renamed", "4711")
    slurm.put("pending", "Priority")
    run("--canary", "--wait", "1")
    assert not (slurm.state / "pending").exists()


def test_an_orphaned_test_job_ends_and_removes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "LIFE_S", 0.0)
    monkeypatch.setattr(probe, "_report", lambda task, late_s: {})
    folder = tmp_path / ".hpcsweep-doctor-x" / "batches" / "b"
    (folder / "results").mkdir(parents=True)
    (folder / "manifest.jsonl").write_bytes(msgspec.json.encode(probe.ProbeTask("t", "slurm", "s", "n")))
    with restored_signals():
        assert probe.main(folder) == 0
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def restored_signals() -> Iterator[None]:
    """The handlers are those from before when the block ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------- asking, and leaving


def test_json_is_one_object_with_all_findings(here: Path, slurm: OneTaskSlurm) -> None:
    slurm.put("ping", DOWN)
    result = run("--json")
    findings = json.loads(result.output)["findings"]
    assert [finding["level"] for finding in findings] == ["good"] * 6 + ["failure"]
    assert findings[-1] == {
        "level": "failure",
        "topic": "controller",
        "words": f"sbatch is on the PATH, but the Slurm controller is down ({DOWN})",
        "advice": "try again later, or ask the admins",
    }
    assert result.exit_code == 1


@pytest.mark.parametrize(("answer", "submitted"), [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_doctor_asks_first(slurm: OneTaskSlurm, answer: str, submitted: bool) -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "hpcsweep", "doctor"]
    root = str(Path(hpcsweep.__file__).parent.parent)
    with subprocess.Popen(
        argv, stdin=theirs, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        os.write(ours, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    os.close(theirs)
    assert "Submit one small test job (1 CPU, 5 minutes at most) to check a compute node? [y/N]" in out
    assert ("good     canary: ran on n1" in out) is submitted
    assert ("run doctor with --canary" in out) is not submitted


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_doctor_removes_its_test_job(slurm: OneTaskSlurm, signum: signal.Signals) -> None:
    slurm.put("pending", "Priority")
    argv = [sys.executable, "-m", "hpcsweep", "doctor", "--canary"]
    root = str(Path(hpcsweep.__file__).parent.parent)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:
        wait_until((slurm.state / "name").exists)
        process.send_signal(signum)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (
        130,
        "\nhpcsweep: interrupted; the test job and its files are removed\n",
    )
    assert not (slurm.state / "pending").exists(), "cancelled"


def test_the_crontab_line_ticks_a_sweep_from_an_empty_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's 100% new"
    folder.mkdir()
    (folder / "trainer.py").write_text("def train(trial):\n    return 1.0\n")
    (folder / "lr.yaml").write_text(SPEC)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(hpcsweep.__file__).parent.parent))
    overrides = ["cluster.name=local", "resources.gpus=0"]
    line = crontab_line(Path("lr.yaml"), results=Path("out"), overrides=overrides)
    schedule, command = line[:11], line[11:]
    assert schedule == "*/5 * * * *"
    assert re.search(r"(?<!\\)%", command) is None, "cron ends the command there"
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(r"\%", "%")],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert (folder / "out" / "sweep.yaml").exists()
