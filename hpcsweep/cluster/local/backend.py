"""This machine as a backend: its keys under `cluster:`, its cores and GPUs, its cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from hpcsweep.cluster.backend import Backend, Connection, SweepRequest
from hpcsweep.cluster.local.cluster import LocalCluster, local_cpus, local_gpus, nvidia_gpus
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.text import plural
from hpcsweep.errors import Finding, SpecError, good, warning
from hpcsweep.options import Hundreds, Section


class LocalSection(Section):
    """Keys of the local cluster under `cluster:`."""

    slots: Hundreds | None = None
    """Runs at a time on a machine without GPUs; by its cores if not given."""


class LocalBackend(Backend):
    title = "this machine"
    options = LocalSection
    remote = False

    def connect(self, sweep: SweepRequest, options: LocalSection) -> Connection:
        """One run of a task at a time, whatever `concurrent` says: there are as many slots as fit."""
        gpus, least = sweep.run.gpus, sweep.least or sweep.run
        if sweep.run.nodes > 1:
            raise SpecError(f"resources.nodes: this machine is one node, got {sweep.run.nodes}")
        here = local_gpus() if gpus else []
        if here:
            if gpus > len(here):
                raise SpecError(f"resources.gpus: this machine has {plural(len(here), 'GPU')}, got {gpus}")
            slots = len(here) // (least.gpus or gpus)
            what = f"{plural(slots, 'run')} at a time on {plural(len(here), 'GPU')}"
        else:
            gpus = 0
            slots = options.slots or max(1, local_cpus() // least.cpus)
            what = f"{plural(slots, 'run')} at a time on CPUs"
        given: dict[str, Any] = {key: value for key, value in sweep.times.items() if key == "poll_s"}
        given |= {"python": sweep.python} if sweep.python else {}
        cluster = LocalCluster(
            slots=slots,
            devices=here,
            cpus=None if here or options.slots else local_cpus(),
            signal_s=sweep.signal_s,
            environment=sweep.variables,
            setup=sweep.setup,
            workdir=sweep.workdir,
            **given,
        )
        shape = TaskResources(gpus=gpus, cpus=sweep.run.cpus, time_s=sweep.task.time_s)
        return Connection(cluster, shape, f"{self.title}, {what}")

    def check_site(self, options: LocalSection) -> Generator[Finding, None, bool]:
        yield from device_findings()
        return True


def device_findings() -> Iterator[Finding]:
    """Cores and GPUs that a sweep on this machine would use."""
    yield good("cores", str(local_cpus()))
    shown, problem = nvidia_gpus()
    devices = local_gpus()
    if problem:
        yield warning("GPUs", f"nvidia-smi fails: {problem}", "see to the driver; a sweep would run on CPUs")
    elif shown and not devices:
        yield warning(
            "GPUs",
            f"nvidia-smi shows {len(shown)}, but neither CUDA_VISIBLE_DEVICES nor /proc/driver/nvidia does",
            f"export CUDA_VISIBLE_DEVICES={','.join(map(str, range(len(shown))))} before launch",
        )
    elif devices:
        yield good("GPUs", f"{len(devices)} ({', '.join(shown) or ','.join(devices)})")
    else:
        yield good("GPUs", "none; a sweep on this machine runs on CPUs")
