"""What the checks of a machine and of a Slurm site find."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

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
from hpcsweep.errors import Finding, failure, good, warning


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


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
