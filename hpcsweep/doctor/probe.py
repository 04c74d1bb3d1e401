"""`python -m hpcsweep.doctor.probe BATCH_FOLDER`: the test job, which reports what a compute node sees.

It answers each `ping` file in the batch's results folder with a `pong`, and records the signals that reach
it, until it is cancelled or its time is over. Imports little, as it runs on a compute node.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

import hpcsweep
from hpcsweep.bootstrap import use_utf8
from hpcsweep.cluster.local.cluster import nvidia_gpus
from hpcsweep.store.files import read_bytes, write_atomic
from hpcsweep.store.layout import BatchLayout

#: It ends by itself after this, well before its time limit.
LIFE_S: Final = 240.0
POLL_S: Final = 0.05
#: Prefix of the folder of a test job.
ROOT_PREFIX: Final = ".hpcsweep-doctor-"
#: Timeout of importing the whole package over a busy filesystem.
IMPORT_S: Final = 120.0


class ProbeTask(msgspec.Struct, frozen=True):
    """What the test job has to do; written before it is submitted.

    Attributes:
        token: Repeated in the report, as a proof that this file was read.
        cluster: The name of the backend.
        script: A job script to submit, held, and to cancel at once.
        name: The name of that job.
    """

    token: str
    cluster: str
    script: str
    name: str


class ProbeReport(msgspec.Struct, frozen=True):
    """What the node sees.

    Attributes:
        token: That of the task.
        late_s: How long the task, written before the submission, was not visible there.
        devices: `CUDA_VISIBLE_DEVICES`, None if it is not set.
        gpus: The GPUs that nvidia-smi lists.
        submits: Why a job cannot be submitted there, empty if it can.
        drives: Why the package cannot drive a sweep there, empty if it can.
    """

    token: str
    late_s: float
    node: str
    python: str
    version: str
    package: str
    devices: str | None
    gpus: list[str]
    submits: str
    drives: str


class ProbeFiles:
    """The files by which `doctor` and the test job talk."""

    def __init__(self, folder: Path) -> None:
        self._batch = BatchLayout(folder)
        self.folder = self._batch.results

    @property
    def task(self) -> Path:
        return self._batch.manifest

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def ping(self, n: int) -> Path:
        return self.folder / f"ping-{n}"

    def pong(self, n: int) -> Path:
        return self.folder / f"pong-{n}"

    def signal_file(self, signum: int) -> Path:
        return self.folder / f"received-{signal.Signals(signum).name}"

    def names(self) -> set[str]:
        """The names in the folder; a listing, as NFS caches that a single name does not exist."""
        return {name for name in os.listdir(self.folder) if not name.startswith(".")}


def main(folder: Path) -> int:
    """Report, then answer pings until cancelled."""
    began = time.monotonic()
    received: list[int] = []

    def record(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    for signum in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(signum, record)
    files = ProbeFiles(folder)
    while not files.task.exists() and time.monotonic() - began < LIFE_S:
        time.sleep(POLL_S)
        os.listdir(folder)
    late_s = time.monotonic() - began
    task = msgspec.json.decode(read_bytes(files.task), type=ProbeTask)
    write_atomic(files.report, msgspec.json.encode(_report(task, late_s=late_s)))
    answered: set[str] = set()
    while time.monotonic() - began < LIFE_S:
        while received:
            number = received.pop(0)
            write_atomic(files.signal_file(number), b"")
            if number == signal.SIGTERM:
                return 0
        for name in files.names() - answered:
            if name.startswith("ping-"):
                answered.add(name)
                n = int(name.removeprefix("ping-"))
                write_atomic(files.pong(n), msgspec.json.encode(time.time()))
        time.sleep(POLL_S)
    _remove_orphan(folder)
    return 0


def _remove_orphan(folder: Path) -> None:
    """Remove the files of a test job that nobody cancelled: its `doctor` was killed."""
    root = folder.parent.parent
    if root.name.startswith(ROOT_PREFIX):
        shutil.rmtree(root, ignore_errors=True)


def _report(task: ProbeTask, *, late_s: float) -> ProbeReport:
    from hpcsweep.cluster.backend import find_backend  # not before the report is due: it loads more

    backend = find_backend(task.cluster)
    return ProbeReport(
        token=task.token,
        late_s=late_s,
        node=os.environ.get("HPCSWEEP_NODE") or socket.gethostname(),
        python=f"{platform.python_version()} at {sys.executable}",
        version=hpcsweep.__version__,
        package=str(Path(hpcsweep.__file__).resolve().parent),
        devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        gpus=nvidia_gpus()[0],
        submits=backend.try_submitting(task.script, task.name),
        drives=_import_problem(backend.driver_module),
    )


def _import_problem(module: str) -> str:
    """Why what a driver needs cannot be imported, empty if it can; tried in a separate process."""
    code = f"import {module}, hpcsweep.session.session, hpcsweep.tick"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=IMPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"importing it took longer than {IMPORT_S:.0f} s"
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1] if done.returncode else ""


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(Path(sys.argv[1])))
