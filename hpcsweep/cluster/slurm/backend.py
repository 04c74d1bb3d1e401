"""Slurm as a backend: whether it is here, its cluster, its queue, and what `doctor` says of the site."""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator
from typing import Final

from hpcsweep.cluster.backend import Backend, Connection, Presence, SweepRequest
from hpcsweep.cluster.slurm import checks, programs
from hpcsweep.cluster.slurm.options import SlurmOptions, SlurmSection
from hpcsweep.cluster.slurm.queue import SlurmQueue
from hpcsweep.cluster.slurm.submit import try_submitting
from hpcsweep.core.findings import Finding
from hpcsweep.errors import ClusterUnavailable

PING_S: Final = 10.0
#: Of programs that are installed where there is no cluster: no slurm.conf, and no controller in the DNS.
_UNCONFIGURED: Final = re.compile(
    r"DNS SRV lookup failed.*Could not establish a configuration source", re.DOTALL
)


class SlurmBackend(Backend):
    title = "Slurm"
    options = SlurmSection
    automatic = True
    driver_module = "hpcsweep.cluster.slurm.cluster"

    def missing(self) -> str:
        return "" if shutil.which("sbatch") else "no sbatch on the PATH"

    def detect(self) -> tuple[Presence, str]:
        """Whether batches can be submitted from here, and why (not), in words for the user."""
        if missing := self.missing():
            return Presence.ABSENT, missing
        try:
            out = programs.check_output(["scontrol", "ping"], timeout_s=PING_S)
        except ClusterUnavailable as error:
            words = str(error)
            if _UNCONFIGURED.search(words):
                return Presence.ABSENT, "sbatch is on the PATH, but no Slurm cluster is configured"
            first = words.splitlines()[0]
            return Presence.SILENT, f"sbatch is on the PATH, but no Slurm controller answers ({first})"
        line = next((line.strip() for line in out.splitlines() if line.rstrip().endswith("UP")), None)
        if line is None:
            return (
                Presence.SILENT,
                f"sbatch is on the PATH, but the Slurm controller is down ({out.strip()})",
            )
        return Presence.ANSWERS, f"a Slurm controller answers ({line})"

    def connect(self, sweep: SweepRequest, options: SlurmSection) -> Connection:
        from hpcsweep.cluster.slurm.cluster import SlurmCluster

        given = dict(options) | sweep.times | ({"python": sweep.python} if sweep.python else {})
        cluster = SlurmCluster(
            SlurmOptions.model_construct(
                **given,
                setup=tuple(sweep.setup),
                environment=sweep.variables,
                inherited=sweep.inherited,
                workdir=sweep.workdir,
                signal_s=sweep.signal_s,
            )
        )
        return Connection(cluster, sweep.task, self.title)

    def check_site(self, options: SlurmSection) -> Generator[Finding, None, bool]:
        return (yield from checks.check_site(self.detect(), partition=options.partition))

    def queue(self) -> SlurmQueue:
        return SlurmQueue()

    def try_submitting(self, script: str, name: str) -> str:
        return try_submitting(script, name)
