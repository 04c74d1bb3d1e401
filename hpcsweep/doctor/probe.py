"""`python -m hpcsweep.doctor.probe BATCH_FOLDER`: what one small job sees on its node, told in files.

It answers each `ping` in the batch's results folder by a `pong` and notes the signals that reach it,
until it is cancelled or its time is over. Loads little: it is a compute node.
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
from hpcsweep.cluster.local.devices import nvidia_gpus
from hpcsweep.store.files import read_bytes, write_atomic
from hpcsweep.store.layout import BatchLayout

#: It ends by itself then, well before its time limit.
LIFE_S: Final = 240.0
LOOK_S: Final = 0.05
#: The folder of a canary is called so, with random letters behind.
ROOT_PREFIX: Final = ".hpcsweep-doctor-"
#: How long the whole package may take to import over a busy filesystem.
IMPORT_S: Final = 120.0


class ProbeTask(msgspec.Struct, frozen=True):
    """What the canary is to do; written before it is submitted.

    Attributes:
        token: To be repeated, which proves that the file was seen.
        cluster: Name of the backend.
        script: Of a job that it is to submit, held, and to cancel at once.
        name: Of that job.
    """

    token: str
    cluster: str
    script: str
    name: str


class ProbeReport(msgspec.Struct, frozen=True):
    """What it saw.

    Attributes:
        token: Of its errand.
        late_s: How long the errand, written before the submission, could not be seen there.
        devices: `CUDA_VISIBLE_DEVICES`, None where it is not set.
        gpus: What nvidia-smi lists.
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
    """The files by which the two sides talk, in the folder where results go."""

    def __init__(self, folder: Path) -> None:
        self._batch = BatchLayout(folder)
        self.folder = self._batch.results

    @property
    def errand(self) -> Path:
        return self._batch.manifest

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def ping(self, n: int) -> Path:
        return self.folder / f"ping-{n}"

    def pong(self, n: int) -> Path:
        return self.folder / f"pong-{n}"

    def told(self, signum: int) -> Path:
        return self.folder / f"told-{signal.Signals(signum).name}"

    def names(self) -> set[str]:
        """What is there; a listing, because NFS remembers of a single name that it was not there."""
        return {name for name in os.listdir(self.folder) if not name.startswith(".")}


def main(folder: Path) -> int:
    """Report, then answer until told to leave."""
    began = time.monotonic()
    told: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        told.append(signum)

    for signum in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(signum, note)
    exchange = ProbeFiles(folder)
    while not exchange.errand.exists() and time.monotonic() - began < LIFE_S:
        time.sleep(LOOK_S)
        os.listdir(folder)
    late_s = time.monotonic() - began
    errand = msgspec.json.decode(read_bytes(exchange.errand), type=ProbeTask)
    write_atomic(exchange.report, msgspec.json.encode(_report(errand, late_s=late_s)))
    answered: set[str] = set()
    while time.monotonic() - began < LIFE_S:
        while told:
            number = told.pop(0)
            write_atomic(exchange.told(number), b"")
            if number == signal.SIGTERM:
                return 0
        for name in exchange.names() - answered:
            if name.startswith("ping-"):
                answered.add(name)
                n = int(name.removeprefix("ping-"))
                write_atomic(exchange.pong(n), msgspec.json.encode(time.time()))
        time.sleep(LOOK_S)
    _remove_left_over(folder)
    return 0


def _remove_left_over(folder: Path) -> None:
    """Nobody has ended this canary, so who sent it was killed: its files go with it."""
    root = folder.parent.parent
    if root.name.startswith(ROOT_PREFIX):
        shutil.rmtree(root, ignore_errors=True)


def _report(errand: ProbeTask, *, late_s: float) -> ProbeReport:
    from hpcsweep.cluster.backend import find_backend  # not before the report is due: it loads more

    backend = find_backend(errand.cluster)
    return ProbeReport(
        token=errand.token,
        late_s=late_s,
        node=os.environ.get("HPCSWEEP_NODE") or socket.gethostname(),
        python=f"{platform.python_version()} at {sys.executable}",
        version=hpcsweep.__version__,
        package=str(Path(hpcsweep.__file__).resolve().parent),
        devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        gpus=nvidia_gpus()[0],
        submits=backend.try_submitting(errand.script, errand.name),
        drives=_drives(backend.driver_module),
    )


def _drives(module: str) -> str:
    """Import what a driver needs, in a process of its own; the last words if that fails."""
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
