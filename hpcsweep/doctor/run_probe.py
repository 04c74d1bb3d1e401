"""A canary's life: made below the results' folder, and gone when the block ends."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from hpcsweep.core.protocols import Batch, ProbeCluster, TaskResources
from hpcsweep.doctor.probe import ROOT_PREFIX
from hpcsweep.doctor.probe_job import ProbeJob
from hpcsweep.errors import ClusterError, ClusterUnavailable

#: Its time limit.
LIMIT_S: Final = 300
#: How long its removal may take, after which the user is told what is left.
REMOVAL_S: Final = 60.0
LOOK_S: Final = 0.1


class LeftBehind(ClusterError):
    """A canary could not be removed altogether; the message says what is left."""


@contextlib.contextmanager
def fly(cluster: ProbeCluster, backend: str, below: Path, *, gpus: int) -> Iterator[ProbeJob]:
    """A canary below this folder; its jobs and files are gone when the block ends, however it ends.

    Args:
        cluster: As the sweep uses it.
        backend: Its name.
        below: Existing folder, on the filesystem of the results.
        gpus: GPUs of its one task.

    Raises:
        LeftBehind: Something of it could not be removed.
    """
    root = Path(tempfile.mkdtemp(prefix=ROOT_PREFIX, dir=below))
    name = f"hpcsweep-doctor-{secrets.token_hex(4)}"
    shape = TaskResources(gpus=gpus, cpus=1, time_s=LIMIT_S)
    batch = Batch(name=name, folder=root / "batches" / name, tasks=1, throttle=1, shape=shape, requeue=False)
    flight = ProbeJob(cluster.with_module("hpcsweep.doctor.probe"), batch, backend=backend)
    try:
        yield flight
    finally:
        with _undisturbed():
            _remove(flight, root)


def _remove(flight: ProbeJob, root: Path) -> None:
    deadline = time.monotonic() + REMOVAL_S
    flight.cancel([])
    while (left := _left(flight)) != [] and time.monotonic() < deadline:
        flight.cancel(left or [])
        time.sleep(0.5)
    if left != []:
        still = f"job {', '.join(left)} is still there" if left else "a job by that name may still be there"
        raise LeftBehind(f"{flight.folder.name}: {still}: scancel it, then remove {root}")
    while root.exists():  # the last of the node's writes may still turn up
        shutil.rmtree(root, ignore_errors=True)
        if root.exists() and time.monotonic() > deadline:
            raise LeftBehind(f"{root}: could not be removed altogether: remove it")
        time.sleep(LOOK_S)


def _left(flight: ProbeJob) -> list[str] | None:
    """Ids of the jobs that are left, None where Slurm does not answer."""
    with contextlib.suppress(ClusterUnavailable):
        return flight.left()
    return None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until the canary is gone."""

    def ignore(signum: int, frame: FrameType | None) -> None:
        return

    before = {
        number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
