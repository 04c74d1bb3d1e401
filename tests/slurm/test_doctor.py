"""`doctor` on real daemons: what the test job reports, and that nothing of it remains."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hpcsweep
from hpcsweep.doctor.checks import crontab_line, type_finding

from .fixture import PrivateSlurm
from .sweeps import wait_until

SPEC = """\
name: free
train: {function: "trainer.py:train"}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: random
scheduler: {name: hyperband, max_resource: 9}
resources: {gpus: 2, cpus: 1, time: 10m}
cluster: {name: slurm, poll: 1, grace: 5, settle: 5}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep in a folder of a hostile name, which is where doctor runs."""
    folder = tmp_path / "it's 100% new"
    folder.mkdir()
    (folder / "trainer.py").write_text("def train(trial):\n    return trial.config['x']\n")
    path = folder / "sweep.yaml"
    path.write_text(SPEC)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(hpcsweep.__file__).parent.parent))
    return path


def start(*argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hpcsweep", "doctor", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def doctor(*argv: str) -> tuple[int, str]:
    with start(*argv) as process:
        out, _ = process.communicate(timeout=120)
    return process.returncode, out


def line_of(out: str, topic: str) -> str:
    return next(line for line in out.splitlines() if line[9:].startswith(f"{topic}: "))


def left(slurm: PrivateSlurm, spec: Path) -> tuple[list[str], list[str]]:
    """Names of jobs that wait or run, and of files beside the sweep."""
    files = sorted(path.name for path in spec.parent.iterdir() if path.name != "__pycache__")
    return [row.name for row in slurm.squeue(states="pending,running,completing")], files


NO_ACCOUNTING = (
    "warning  accounting: sacct: Slurm accounting storage is disabled; "
    "sweeps run without: how a task ended is known only while squeue shows it (MinJobAge)"
)
SHORT_NOTICE = (
    "warning  ends of jobs: TERM comes 5 s before KILL (KillWait), and squeue shows jobs for 5 min after "
    "their end (MinJobAge); training code gets 27 s where it may: write checkpoints often, or a run that "
    "is preempted loses what came after the last one"
)
NOTHING: tuple[list[str], list[str]] = ([], ["sweep.yaml", "trainer.py"])


def test_doctor_with_a_test_job_reports_a_real_site(slurm: PrivateSlurm, spec: Path) -> None:
    code, out = doctor(str(spec), "--canary")
    node = line_of(out, "canary").split()[4].rstrip(",")
    assert re.fullmatch("n[1-4]", node)
    for measured in (r"(?<=squeue took )[\d.]+", r"(?<=answer back took at most )[\d.]+"):
        out = re.sub(measured, "N", out)
    out = re.sub(r"reported \d+ s", "reported N s", out)
    out = re.sub(r"(?m)^good     space: .*", "good     space: N", out)
    python, package, folder = platform.python_version(), hpcsweep.__version__, spec.parent
    host = os.uname().nodename.split(".")[0]
    controller = f"Slurmctld(primary) at {host} is UP"
    version = slurm.run("sbatch", "--version").strip()
    gpus = "4 nodes of 4 a100; jobs of at most 24 h, of 1 h unless they say; all up"
    assert out.splitlines() == [
        f"good     python: {python} at {sys.executable}, hpcsweep {package}",
        f"good     results: {folder} can be written",
        str(type_finding(folder, nodes=True)),
        "good     space: N",
        "good     files: rename over a file, exclusive create, fsync: as they must be",
        f"good     Slurm: {version}",
        f"good     controller: a Slurm controller answers ({controller}); squeue took N s",
        NO_ACCOUNTING,
        "good     limits: arrays of at most 1001 tasks; 10000 jobs of everybody at a time",
        SHORT_NOTICE,
        "good     accounts: Slurm enforces no limits of accounts and QOS here",
        f"good     partition: gpu (default): {gpus}",
        f"good     partition: urgent: {gpus}",
        "good     preemption: jobs in gpu give way to those in urgent (REQUEUE), GraceTime 0 s",
        "good     template: default.sbatch renders",
        "good     resources: 2 GPUs, 1 CPU, 60 min of one task: fits",
        f"good     training code: {folder}/trainer.py:train can be run",
        f"good     canary: ran on {node}, and reported N s after its submission",
        "good     job names: squeue shows jobs by the name that they were submitted with",
        f"good     interpreter: {node} has Python {python} at {sys.executable}, hpcsweep {package} as here",
        f"good     shared files: a file from here to {node} and its answer back took at most N s",
        "good     GPUs on the node: asked for 2; CUDA_VISIBLE_DEVICES is '0,1', nvidia-smi lists none",
        f"good     submitting from nodes: {node} may submit: `launch --detach` works",
        "good     signals: USR2 (before a time limit) and TERM (preemption, scancel) reach the worker",
    ]
    assert code == 0
    assert left(slurm, spec) == NOTHING


def test_nodes_without_sbatch_are_found_out_and_the_crontab_line_drives_the_sweep(
    slurm: PrivateSlurm, spec: Path
) -> None:
    overrides = ["cluster.environment.PATH=/nowhere", "cluster.partition=urgent"]
    sets = [word for override in overrides for word in ("--set", override)]
    code, out = doctor(str(spec), "--canary", *sets)
    found = line_of(out, "submitting from nodes")
    said, _, line = found.partition("put this into cron: ")
    assert re.sub("n[1-4]", "NODE", said) == (
        "warning  submitting from nodes: NODE may not submit "
        "(sbatch is not on the PATH): `launch --detach` will not work here; "
        "keep `launch` running under nohup or tmux, or "
    )
    assert line == crontab_line(spec, results=Path("results/free"), overrides=overrides)
    assert code == 0
    assert left(slurm, spec) == NOTHING
    command = line.removeprefix("*/5 * * * * ").replace(r"\%", "%")
    bare = {"HOME": str(spec.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", command], env=bare, cwd="/", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (3, b"")
    assert any(row.name.startswith("free-") for row in slurm.squeue())


def test_a_pending_test_job_is_cancelled_and_slurm_s_reason_reported(slurm: PrivateSlurm, spec: Path) -> None:
    for _ in range(4):
        slurm.run("sbatch", "-p", "urgent", "--exclusive", "--wrap", "sleep 600", "-o", "/dev/null")
    wait_until("they take all nodes", lambda: len(slurm.squeue(states="running")) == 4)
    code, out = doctor(str(spec), "--canary", "--wait", "3")
    assert line_of(out, "canary") in [
        f"warning  canary: test job did not run: after 3 s it still waits in the queue: {reason}; "
        "it was cancelled; try again with a longer --wait, or when the queue is shorter"
        for reason in ("Resources", "Priority")
    ]
    assert code == 0
    jobs, files = left(slurm, spec)
    assert (set(jobs), files) == ({"wrap"}, NOTHING[1])


def test_interrupted_while_it_flies_nothing_is_left(slurm: PrivateSlurm, spec: Path) -> None:
    flies = spec.parents[1] / "flies"
    setup = f'cluster.setup=["touch {flies}; sleep 600"]'
    with start(str(spec), "--canary", "--set", setup) as process:
        wait_until("it flies", flies.exists)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out.endswith("\nhpcsweep: interrupted; the test job and its files are removed\n")
    assert left(slurm, spec) == NOTHING


def test_no_test_job_is_submitted_to_a_controller_that_is_down(slurm: PrivateSlurm, spec: Path) -> None:
    slurm.stop_controller()
    code, out = doctor(str(spec), "--canary")
    assert code == 1
    host = os.uname().nodename.split(".")[0]
    assert out.splitlines()[-1] == (
        "failure  controller: sbatch is on the PATH, but no Slurm controller answers "
        f"(scontrol: Slurmctld(primary) at {host} is DOWN); try again later, or ask the admins"
    )
    slurm.start_controller()
    assert left(slurm, spec) == NOTHING
