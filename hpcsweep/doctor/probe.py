"""`python -m hpcsweep.doctor.probe BATCH_FOLDER`: the test job, and what its report from a node means.

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import msgspec

import hpcsweep
from hpcsweep.bootstrap import use_utf8
from hpcsweep.cluster.local.cluster import nvidia_gpus
from hpcsweep.errors import Finding, failure, good, one_line, warning
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


# --------------------------------------------------------------------------- findings of its report

#: Clock differences up to this do not matter.
CLOCK_S: Final = 10.0


class RoundTrip(NamedTuple):
    """The time of a file to the node and the answer back.

    Attributes:
        seconds: Both ways, by the local clock.
        ahead_s: How far the node's clock is ahead, with an error of half of `seconds`.
    """

    seconds: float
    ahead_s: float


def name_finding(asked: str, shown: str) -> Finding:
    """Whether jobs keep the names that they were submitted with."""
    if shown == asked:
        return good("job names", "squeue shows jobs by the name that they were submitted with")
    message = f"asked for {asked}, and squeue shows {shown or 'no name'}"
    advice = "sweeps go by job id and folder, and run all the same; look for their jobs by id or folder (%Z)"
    return warning("job names", f"{message}: this site changes names", advice)


def interpreter_finding(report: ProbeReport) -> Finding:
    message = f"{report.node} has Python {report.python}, hpcsweep {report.version}"
    if report.version == hpcsweep.__version__:
        return good("interpreter", f"{message} as here")
    advice = "install the same version there, or give another cluster.python"
    return failure(
        "interpreter", f"{message} from {report.package}, and here is {hpcsweep.__version__}", advice
    )


def files_findings(report: ProbeReport, trips: Sequence[RoundTrip], *, grace_s: float) -> Iterator[Finding]:
    """Whether both sides see each other's files, how soon, and how far their clocks differ."""
    if not trips:
        message = f"{report.node} wrote its report, but then did not answer within the time"
        yield failure(
            "shared files", message, "run it again; if it stays so, give another folder with --results"
        )
        return
    slowest = max(trip.seconds for trip in trips)
    message = f"a file from here to {report.node} and its answer back took at most {_format_seconds(slowest)}"
    if report.late_s > 1:
        message += f"; one from before the job was seen {_format_seconds(report.late_s)} late"
    if slowest > grace_s:
        advice = f"set cluster.grace: {round(2 * slowest)}, or results are taken for lost that only come late"
        yield failure("shared files", message, advice)
    elif slowest > grace_s / 4:
        yield warning("shared files", message, f"set cluster.grace: {round(4 * slowest)} to be sure")
    else:
        yield good("shared files", message)
    best = min(trips, key=lambda trip: trip.seconds)
    certain = abs(best.ahead_s) - best.seconds / 2
    if certain > CLOCK_S:
        way = "ahead of" if best.ahead_s > 0 else "behind"
        message = f"that of {report.node} is {_format_seconds(abs(best.ahead_s))} {way} this one"
        yield warning("clock", message, "tell the admins; times in reports are off by so much")


def gpus_finding(report: ProbeReport, *, gpus: int) -> Finding:
    visible = None if report.devices is None else [name for name in report.devices.split(",") if name.strip()]
    seen = len(report.gpus) if visible is None else len(visible)
    devices = "is not set" if visible is None else f"is {report.devices!r}"
    listed = ", ".join(report.gpus) or "none"
    message = f"asked for {gpus}; CUDA_VISIBLE_DEVICES {devices}, nvidia-smi lists {listed}"
    if seen < gpus:
        return failure(
            "GPUs on the node", message, "ask the admins how GPUs are asked for; cluster.options passes it on"
        )
    return good("GPUs on the node", message)


def submission_finding(report: ProbeReport, *, cron: str) -> Finding:
    """Whether jobs can drive a sweep, without a process that stays."""
    if not report.submits and not report.drives:
        return good("submitting from nodes", f"{report.node} may submit: `launch --detach` works")
    why = (
        f"{report.node} may not submit ({one_line(report.submits)})"
        if report.submits
        else f"the package cannot be used on {report.node} ({report.drives})"
    )
    advice = f"keep `launch` running under nohup or tmux, or put this into {cron}"
    return warning("submitting from nodes", f"{why}: `launch --detach` will not work here", advice)


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(Path(sys.argv[1])))
