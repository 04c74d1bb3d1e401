"""PBS Professional and OpenPBS as a backend. `auto` does not look for it: `cluster.name: pbs` asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Generator

from hpcsweep.cluster import processes
from hpcsweep.cluster.backend import Backend, Connection, SweepRequest
from hpcsweep.cluster.pbs.options import PbsSection
from hpcsweep.core.findings import Finding, failure, good, one_line
from hpcsweep.errors import ClusterUnavailable


class PbsBackend(Backend):
    title = "PBS"
    options = PbsSection
    driver_module = "hpcsweep.cluster.pbs.cluster"

    def missing(self) -> str:
        lacking = [name for name in ("qsub", "qstat") if shutil.which(name) is None]
        return f"no {' and no '.join(lacking)} on the PATH" if lacking else ""

    def connect(self, sweep: SweepRequest, options: PbsSection) -> Connection:
        from hpcsweep.cluster.pbs.cluster import PbsCluster

        return Connection(PbsCluster(sweep, options), sweep.task, self.title)

    def check_site(self, options: PbsSection) -> Generator[Finding, None, bool]:
        """Whether the server answers."""
        try:
            words = processes.check_output(["qstat", "-B"], timeout_s=30)
        except ClusterUnavailable as error:
            yield failure(self.title, one_line(str(error)), "ask the admins how this host reaches PBS")
            return False
        server = words.split()[-1:] and words.splitlines()[-1].split()[0]
        yield good(self.title, f"the server answers ({server})")
        return True
