"""PBS Professional and OpenPBS as a backend, for `cluster.name: pbs`; `auto` does not look for it."""

from __future__ import annotations

import shutil
from collections.abc import Generator

from pydantic import Field

from hpcsweep.cluster import processes
from hpcsweep.cluster.backend import Backend, Connection, SweepRequest
from hpcsweep.errors import ClusterUnavailable, Finding, failure, good, one_line
from hpcsweep.options import Section, Text, Texts


class PbsSection(Section):
    """Keys of PBS under `cluster:`."""

    queue: Text | None = None
    """The queue of PBS."""
    project: Text | None = None
    """The project that PBS charges."""
    account: Text | None = None
    """The account that is charged."""
    directives: Texts | None = None
    """Further qsub options for PBS, one directive each, such as `-l place=excl`."""
    template: Text | None = Field(default=None, json_schema_extra={"format": "path"})
    """The template of job scripts: a file, or one that comes with hpcsweep; default.pbs under PBS."""


class PbsBackend(Backend):
    title = "PBS"
    options = PbsSection
    reuses = True
    driver_module = "hpcsweep.cluster.pbs.cluster"

    def missing(self) -> str:
        lacking = [name for name in ("qsub", "qstat") if shutil.which(name) is None]
        return f"no {' and no '.join(lacking)} on the PATH" if lacking else ""

    def connect(self, sweep: SweepRequest, options: PbsSection) -> Connection:
        from hpcsweep.cluster.pbs.cluster import PbsCluster

        return Connection(PbsCluster(sweep, options), sweep.task, self.title)

    def check_site(self, options: PbsSection) -> Generator[Finding, None, bool]:
        try:
            output = processes.check_output(["qstat", "-B"], timeout_s=30)
        except ClusterUnavailable as error:
            yield failure(self.title, one_line(str(error)), "ask the admins how this host reaches PBS")
            return False
        server = output.split()[-1:] and output.splitlines()[-1].split()[0]
        yield good(self.title, f"the server answers ({server})")
        return True
