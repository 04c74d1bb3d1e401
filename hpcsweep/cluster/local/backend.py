"""This machine as a backend: runs on its GPUs, or on CPU slots where it has none."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from hpcsweep.cluster.backend import Backend, Connection, SweepRequest
from hpcsweep.cluster.local import devices
from hpcsweep.cluster.local.cluster import LocalCluster
from hpcsweep.cluster.local.options import LocalSection
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.findings import Finding
from hpcsweep.core.text import plural
from hpcsweep.errors import SpecError


class LocalBackend(Backend):
    title = "this machine"
    options = LocalSection
    remote = False

    def connect(self, sweep: SweepRequest, options: LocalSection) -> Connection:
        """One task for each run, whatever `runs_per_task` says: there is no queue to wait in."""
        gpus = sweep.run.gpus
        here = devices.local_gpus() if gpus else []
        if here:
            if gpus > len(here):
                raise SpecError(f"resources.gpus: this machine has {plural(len(here), 'GPU')}, got {gpus}")
            slots = len(here) // gpus
            what = f"{plural(slots, 'run')} at a time on {plural(len(here), 'GPU')}"
        else:
            gpus = 0
            slots = options.slots or max(1, devices.local_cpus() // sweep.run.cpus)
            what = f"{plural(slots, 'run')} at a time on CPUs"
        given: dict[str, Any] = {key: value for key, value in sweep.times.items() if key == "poll_s"}
        given |= {"python": sweep.python} if sweep.python else {}
        cluster = LocalCluster(
            slots=slots,
            devices=here,
            gpus=gpus,
            cpus=sweep.run.cpus,
            signal_s=sweep.signal_s,
            environment=sweep.variables,
            **given,
        )
        shape = TaskResources(gpus=gpus, cpus=sweep.run.cpus, time_s=sweep.run.time_s)
        return Connection(cluster, shape, f"{self.title}, {what}")

    def check_site(self, options: LocalSection) -> Generator[Finding, None, bool]:
        """Cores and GPUs that a sweep on this machine would use."""
        yield from devices.device_findings()
        return True
