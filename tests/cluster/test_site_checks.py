"""What `doctor` says of what it may see: of a machine, a filesystem, a site, and by a canary."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import hpcsweep
from hpcsweep.cluster.local.backend import device_findings
from hpcsweep.cluster.slurm import backend
from hpcsweep.cluster.slurm.backend import SlurmBackend, site_findings
from hpcsweep.cluster.slurm.site import (
    Association,
    Node,
    Partition,
    Qos,
    SlurmSite,
    read_config,
    read_partitions,
)
from hpcsweep.doctor import filesystem as filesystem_module
from hpcsweep.doctor.filesystem import filesystem_findings, filesystem_type, type_finding
from hpcsweep.doctor.probe import ProbeReport
from hpcsweep.doctor.probe_checks import files_findings, gpus_finding, interpreter_finding, submission_finding
from hpcsweep.doctor.probe_job import RoundTrip
from hpcsweep.errors import Finding, failure, good, warning
from tests.test_imports import HEAVY, loaded_by

ELSEWHERE = "give another folder with --results"


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_finding_is_one_line_with_what_to_do() -> None:
    assert str(good("cores", "12")) == "good     cores: 12"
    assert str(warning("clock", "is late", "tell the admins")) == "warning  clock: is late; tell the admins"
    assert str(failure("files", "none", "mend it")) == "failure  files: none; mend it"


# --------------------------------------------------------------------------- this machine

SMI = "echo 'GPU 0: NVIDIA A100 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-2)'"
SMI_FAILS = "echo 'NVIDIA-SMI has failed: no driver'; exit 9"


@pytest.mark.parametrize(
    ("smi", "devices", "found"),
    [
        (SMI, "0,1", good("GPUs", "2 (NVIDIA A100, NVIDIA H100)")),
        (
            SMI,
            "",
            warning(
                "GPUs",
                "nvidia-smi shows 2, but neither CUDA_VISIBLE_DEVICES nor /proc/driver/nvidia does",
                "export CUDA_VISIBLE_DEVICES=0,1 before launch",
            ),
        ),
        (
            SMI_FAILS,
            "",
            warning(
                "GPUs",
                "nvidia-smi fails: NVIDIA-SMI has failed: no driver",
                "see to the driver; a sweep would run on CPUs",
            ),
        ),
        (None, "3", good("GPUs", "1 (3)")),
        (None, "", good("GPUs", "none; a sweep on this machine runs on CPUs")),
    ],
)
def test_gpus_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smi: str | None, devices: str, found: Finding
) -> None:
    if smi:
        program(tmp_path, "nvidia-smi", smi)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert list(device_findings())[1] == found


# --------------------------------------------------------------------------- the filesystem


@pytest.mark.parametrize(
    ("kind", "path", "what"),
    [
        ("lustre", "/scratch", ""),
        ("nfs4", "/tmp", ""),
        ("xfs", "/data", "a local filesystem"),
        ("tmpfs", "/dev/shm/x", "below /dev/shm"),
        ("ext4", "/tmp", "below /tmp"),
    ],
)
def test_a_filesystem_that_nodes_may_not_see_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, kind: str, path: str, what: str
) -> None:
    monkeypatch.setattr(filesystem_module, "filesystem_type", lambda folder: kind)
    shared = good("filesystem", f"{kind}, a network filesystem")
    doubt = f"{kind}, {what}: compute nodes may not see it"
    local = warning("filesystem", doubt, f"make sure, or {ELSEWHERE}")
    assert type_finding(Path(path), nodes=True) == (local if what else shared)
    assert type_finding(Path(path), nodes=False) == good("filesystem", kind)


def test_the_type_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    assert filesystem_type(Path("/proc/self")) == "proc"
    argv = ["findmnt", "-n", "-o", "FSTYPE", "-T", str(tmp_path)]
    known = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert filesystem_type(tmp_path) == known.stdout.strip()


@pytest.mark.parametrize(
    ("gib", "files", "found"),
    [
        (0.06, 10**6, failure("space", "0.1 GiB free, 1000000 files", f"free some, or {ELSEWHERE}")),
        (100, 500, failure("space", "100.0 GiB free, 500 files", f"free some, or {ELSEWHERE}")),
        (
            2,
            10**6,
            warning(
                "space",
                "2.0 GiB free, 1000000 files",
                "checkpoints may fill that: lower train.keep_checkpoints, or free some",
            ),
        ),
        (100, 0, good("space", "100.0 GiB free (your own quota may be less)")),
    ],
)
def test_little_space_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float, files: int, found: Finding
) -> None:
    figures = SimpleNamespace(f_bavail=int(gib * 2**20), f_frsize=1024, f_files=2 * files, f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda path: figures)
    assert list(filesystem_findings(tmp_path, nodes=True))[2] == found


def test_a_filesystem_that_does_not_do_what_it_must_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without_exclusion(path: Any, flags: int, *mode: int, **more: Any) -> int:
        return real(path, flags & ~os.O_EXCL, *mode, **more)

    def fsync(fd: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(filesystem_module, "rename", lambda source, target: None)
    monkeypatch.setattr(os, "open", without_exclusion)
    monkeypatch.setattr(os, "fsync", fsync)
    assert list(filesystem_findings(tmp_path, nodes=True))[3:] == [
        failure("files", f"{what} does not work here: {problem}", ELSEWHERE)
        for what, problem in (
            ("rename over a file", "the old file is still there"),
            ("exclusive create", "a second one succeeds too"),
            ("fsync", "Invalid argument"),
        )
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_fails() -> None:
    words = "/proc cannot be written: No such file or directory"
    assert list(filesystem_findings(Path("/proc"), nodes=False)) == [failure("results", words, ELSEWHERE)]


def test_a_slow_filesystem_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem_module, "SLOW_S", -1.0)
    lines = [re.sub(r"[\d.]+ s;", "N s;", str(found)) for found in filesystem_findings(tmp_path, nodes=True)]
    assert lines[3:] == [
        f"warning  files: {what} took N s; every event of a sweep waits so long; {ELSEWHERE}"
        for what in ("rename over a file", "exclusive create", "fsync")
    ]


# --------------------------------------------------------------------------- Slurm


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("slurm 25.11.0", good("Slurm", "slurm 25.11.0")),
        ("slurm-wlm 22.05.8", good("Slurm", "slurm-wlm 22.05.8")),
        (
            "slurm 20.11.9",
            warning(
                "Slurm",
                "slurm 20.11.9",
                "hpcsweep is tested with 22.05 and later: try a small sweep first",
            ),
        ),
    ],
)
def test_versions_older_than_those_tested_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, found: Finding
) -> None:
    program(tmp_path, "sbatch", f"echo {words}")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backend.check_version() == found


def test_a_busy_controller_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "sbatch", "exit 0")
    program(tmp_path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    program(tmp_path, "squeue", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(backend, "SLOW_S", -1.0)
    assert re.sub(r"[\d.]+ s;", "N s;", str(backend.check_controller(*SlurmBackend().detect()))) == (
        "warning  controller: a Slurm controller answers (Slurmctld(primary) at head is UP); "
        "squeue took N s; it is busy: set cluster.poll: 120, so that it is asked less often"
    )


NODES = (
    Node("n1", ("low", "high"), 64, 256_000, {"a100": 4}),
    Node("n2", ("low",), 64, 256_000, {"a100": 4, "": 1}, state="drained"),
)
LOW = Partition("low", default=True, max_time_s=5400, preempt_mode="REQUEUE", grace_s=120)
HIGH = Partition("high", tier=10, state="DOWN")
EMPTY = Partition("empty", max_time_s=90, default_time_s=60, total_nodes=0)
GIVES_WAY = "jobs in low give way to those in high (REQUEUE), GraceTime 2 min"
LIMITED = SlurmSite(
    max_array_size=0,
    min_job_age_s=2,
    kill_wait_s=30,
    accounting=True,
    enforces=True,
    preempts="partition_prio",
    partitions=(LOW, HIGH, EMPTY),
    nodes=NODES,
    associations=(
        Association("lab", default=True, max_submit=100, group_submit=500, max_time_s=86400, qos="short"),
        Association("other", partition="high"),
    ),
    qos=(
        Qos("short", max_submit=20, account_submit=50, group_submit=70, max_time_s=3600),
        Qos("unused", max_submit=1),
    ),
)


def test_what_takes_jobs_away_is_read_from_slurm_s_own_words() -> None:
    config = "PreemptType = preempt/partition_prio\nPreemptParameters = reclaim_licenses,send_user_signal\n"
    site = read_config(f"{config}ScronParameters = enable\n")
    assert (site.preempts, site.warns_preempted, site.scrontab) == ("partition_prio", True, True)
    nothing = "PreemptType = preempt/none\nPreemptParameters = (null)\nScronParameters = (null)\n"
    assert read_config(nothing) == SlurmSite()
    line = "PartitionName=low PriorityTier=3 GraceTime=120 PreemptMode=REQUEUE"
    assert read_partitions(line) == (Partition("low", tier=3, grace_s=120, preempt_mode="REQUEUE"),)


def ends(kill_wait: str) -> str:
    shown = "squeue shows jobs for 2 s after their end (MinJobAge)"
    return f"TERM comes {kill_wait} before KILL (KillWait), and {shown}"


def test_what_a_site_limits_has_and_takes_away() -> None:
    assert list(site_findings(LIMITED, partition="empty")) == [
        failure(
            "limits",
            "this Slurm allows no job arrays (MaxArraySize=0)",
            "ask the admins: every rung of a sweep is an array",
        ),
        good("ends of jobs", ends("30 s")),
        good("accounts", "lab (default): at most 100 jobs of yours, 500 jobs of the account, jobs of 24 h"),
        good("accounts", "other in high: no limits of its own"),
        good("QOS", "short: at most 20 jobs of yours, 50 of an account, 70 of all, jobs of 1 h"),
        good(
            "partition",
            "low (default): 1 node of 1 GPU and 4 a100, 1 node of 4 a100; "
            "jobs of at most 90 min, of 90 min unless they say; 1 up",
        ),
        warning(
            "partition",
            "high: 1 node of 4 a100; jobs of any length; it is DOWN",
            "nothing starts there until the admins open it",
        ),
        warning(
            "partition",
            "empty: no nodes; jobs of at most 90 s, of 1 min unless they say; no node is up",
            "ask the admins, or take another one",
        ),
        warning(
            "preemption",
            GIVES_WAY,
            "the worker is not told of it: ask the admins for PreemptParameters=send_user_signal, "
            "or write checkpoints often",
        ),
    ]


@pytest.mark.parametrize("site", [SlurmSite(whole_nodes=True), SlurmSite()])
def test_partition_that_gives_whole_nodes_is_told(site: SlurmSite) -> None:
    site = msgspec.structs.replace(
        site, partitions=(msgspec.structs.replace(LOW, exclusive=not site.whole_nodes),), nodes=NODES
    )
    (words,) = [each.words for each in site_findings(site, partition="low") if each.topic == "partition"]
    assert "; each job gets whole nodes; " in words


@pytest.mark.parametrize(
    ("site", "found"),
    [
        (
            SlurmSite(min_job_age_s=2, kill_wait_s=5),
            warning(
                "ends of jobs",
                ends("5 s"),
                "training code gets 27 s where it may: write checkpoints often, "
                "or a run that is preempted loses what came after the last one",
            ),
        ),
        (
            SlurmSite(min_job_age_s=2, kill_wait_s=60),
            warning(
                "ends of jobs",
                ends("1 min"),
                "without accounting either, tasks that end without a result are taken for lost and repeated",
            ),
        ),
        (SlurmSite(), good("limits", "arrays of any size")),
        (
            SlurmSite(partitions=(HIGH,)),
            warning("partitions", "none is the default", "name one in the spec, as cluster.partition"),
        ),
        (SlurmSite(partitions=(EMPTY,)), good("partitions", "without GPUs: empty")),
        (
            SlurmSite(partitions=(EMPTY, LOW)),
            warning(
                "partitions",
                "the nodes of low (default) are not shown to you, so their GPUs are not known",
                "ask the admins (PrivateData=nodes?); Slurm judges what fits",
            ),
        ),
        (
            SlurmSite(accounting=True, enforces=True),
            warning("accounts", "Slurm's database shows no account of yours", "ask the admins for one"),
        ),
        (
            SlurmSite(preempts="qos"),
            good("preemption", "jobs of some QOS give way to those of others (preempt/qos)"),
        ),
        (
            SlurmSite(preempts="partition_prio", warns_preempted=True, partitions=(LOW, HIGH), nodes=NODES),
            good("preemption", GIVES_WAY),
        ),
    ],
)
def test_what_else_a_site_may_be_like(site: SlurmSite, found: Finding) -> None:
    assert found in list(site_findings(site, partition=None))


@pytest.mark.parametrize(
    "site",
    [
        SlurmSite(partitions=(LOW, HIGH), nodes=NODES),
        SlurmSite(preempts="partition_prio", partitions=(LOW, HIGH), nodes=NODES[1:]),
        SlurmSite(
            preempts="partition_prio",
            partitions=(msgspec.structs.replace(LOW, preempt_mode="OFF"), HIGH),
            nodes=NODES,
        ),
    ],
)
def test_who_need_not_give_way_is_not_told_so(site: SlurmSite) -> None:
    assert "preemption" not in [found.topic for found in site_findings(site, partition=None)]


# --------------------------------------------------------------------------- a canary's report

REPORT = ProbeReport(
    token="",
    late_s=0.0,
    node="n1",
    python="3.11.2 at /opt/python",
    version=hpcsweep.__version__,
    package="/opt/hpcsweep",
    devices=None,
    gpus=[],
    submits="",
    drives="",
)


def took(seconds: str) -> str:
    return f"a file from here to n1 and its answer back took at most {seconds}"


@pytest.mark.parametrize(
    ("trips", "late_s", "found"),
    [
        ([RoundTrip(0.2, 0.0), RoundTrip(0.1, 0.0)], 0.0, [good("shared files", took("0.2 s"))]),
        (
            [RoundTrip(3.0, 0.0)],
            2.0,
            [
                warning(
                    "shared files",
                    f"{took('3 s')}; one from before the job was seen 2 s late",
                    "set cluster.grace: 12 to be sure",
                )
            ],
        ),
        (
            [RoundTrip(31.0, 0.0)],
            0.0,
            [
                failure(
                    "shared files",
                    took("31 s"),
                    "set cluster.grace: 62, or results are taken for lost that only come late",
                )
            ],
        ),
        (
            [],
            0.0,
            [
                failure(
                    "shared files",
                    "n1 wrote its report, but then did not answer within the time",
                    f"run it again; if it stays so, {ELSEWHERE}",
                )
            ],
        ),
        (
            [RoundTrip(8.0, 900.0), RoundTrip(1.0, -60.0)],
            0.0,
            [
                warning("shared files", took("8 s"), "set cluster.grace: 32 to be sure"),
                warning(
                    "clock",
                    "that of n1 is 60 s behind this one",
                    "tell the admins; times in reports are off by so much",
                ),
            ],
        ),
        ([RoundTrip(2.0, 10.5)], 0.0, [good("shared files", took("2 s"))]),
    ],
)
def test_slow_files_call_for_more_grace_and_clocks_do_not_matter(
    trips: list[RoundTrip], late_s: float, found: list[Finding]
) -> None:
    report = msgspec.structs.replace(REPORT, late_s=late_s)
    assert list(files_findings(report, trips, grace_s=10)) == found


def test_another_version_on_the_node_fails() -> None:
    assert interpreter_finding(msgspec.structs.replace(REPORT, version="0.0.1")) == failure(
        "interpreter",
        "n1 has Python 3.11.2 at /opt/python, hpcsweep 0.0.1 from /opt/hpcsweep, "
        f"and here is {hpcsweep.__version__}",
        "install the same version there, or give another cluster.python",
    )


@pytest.mark.parametrize(
    ("devices", "gpus", "words"),
    [
        ("GPU-1,GPU-2", [], "is 'GPU-1,GPU-2', nvidia-smi lists none"),
        (None, ["H100", "H100"], "is not set, nvidia-smi lists H100, H100"),
    ],
)
def test_all_gpus_that_were_asked_for_are_good(devices: str | None, gpus: list[str], words: str) -> None:
    report = msgspec.structs.replace(REPORT, devices=devices, gpus=gpus)
    expected = good("GPUs on the node", f"asked for 2; CUDA_VISIBLE_DEVICES {words}")
    assert gpus_finding(report, gpus=2) == expected


@pytest.mark.parametrize(
    ("devices", "gpus", "words"),
    [
        ("0", ["H100", "H100"], "is '0', nvidia-smi lists H100, H100"),
        ("", ["H100", "H100"], "is '', nvidia-smi lists H100, H100"),
        (None, [], "is not set, nvidia-smi lists none"),
    ],
)
def test_fewer_gpus_than_asked_for_fail(devices: str | None, gpus: list[str], words: str) -> None:
    report = msgspec.structs.replace(REPORT, devices=devices, gpus=gpus)
    advice = "ask the admins how GPUs are asked for; cluster.options passes it on"
    expected = failure("GPUs on the node", f"asked for 2; CUDA_VISIBLE_DEVICES {words}", advice)
    assert gpus_finding(report, gpus=2) == expected


def test_a_node_that_may_submit_but_lacks_packages_cannot_drive() -> None:
    report = msgspec.structs.replace(REPORT, drives="ModuleNotFoundError: No module named 'jinja2'")
    assert submission_finding(report, cron="cron: LINE") == warning(
        "submitting from nodes",
        "the package cannot be used on n1 (ModuleNotFoundError: No module named 'jinja2'): "
        "`launch --detach` will not work here",
        "keep `launch` running under nohup or tmux, or put this into cron: LINE",
    )


def test_the_canary_loads_nothing_heavy() -> None:
    loaded = loaded_by("hpcsweep.doctor.probe")
    assert "hpcsweep" in loaded
    assert loaded & HEAVY == set()
