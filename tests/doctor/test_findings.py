"""What `doctor` finds on a filesystem and in the report of a test job."""

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
from hpcsweep.doctor import checks
from hpcsweep.doctor.checks import filesystem_findings, filesystem_type, type_finding
from hpcsweep.doctor.probe import (
    ProbeReport,
    RoundTrip,
    files_findings,
    gpus_finding,
    interpreter_finding,
    submission_finding,
)
from hpcsweep.errors import Finding, failure, good, warning
from tests.test_imports import HEAVY, loaded_by

ELSEWHERE = "give another folder with --results"


def test_a_finding_is_one_line_with_what_to_do() -> None:
    assert str(good("cores", "12")) == "good     cores: 12"
    assert str(warning("clock", "is late", "tell the admins")) == "warning  clock: is late; tell the admins"
    assert str(failure("files", "none", "mend it")) == "failure  files: none; mend it"


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
    monkeypatch.setattr(checks, "filesystem_type", lambda folder: kind)
    shared = good("filesystem", f"{kind}, a network filesystem")
    doubt = f"{kind}, {what}: compute nodes may not see it"
    local = warning("filesystem", doubt, f"make sure, or {ELSEWHERE}")
    assert type_finding(Path(path), nodes=True) == (local if what else shared)
    assert type_finding(Path(path), nodes=False) == good("filesystem", kind)


def test_the_type_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    assert filesystem_type(Path("/proc/self")) == "proc"
    argv = ["findmnt", "-n", "-o", "FSTYPE", "-T", str(tmp_path)]
    known = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert filesystem_type(tmp_path) == known.stdout.split()[-1]  # mounts may cover each other


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

    monkeypatch.setattr(checks, "rename", lambda source, target: None)
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
    message = "/proc cannot be written: No such file or directory"
    assert list(filesystem_findings(Path("/proc"), nodes=False)) == [failure("results", message, ELSEWHERE)]


def test_a_slow_filesystem_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SLOW_S", -1.0)
    lines = [re.sub(r"[\d.]+ s;", "N s;", str(found)) for found in filesystem_findings(tmp_path, nodes=True)]
    assert lines[3:] == [
        f"warning  files: {what} took N s; every event of a sweep waits so long; {ELSEWHERE}"
        for what in ("rename over a file", "exclusive create", "fsync")
    ]


# --------------------------------------------------------------------------- the report of a test job

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


def test_the_test_job_loads_nothing_heavy() -> None:
    loaded = loaded_by("hpcsweep.doctor.probe")
    assert "hpcsweep" in loaded
    assert loaded & HEAVY == set()
