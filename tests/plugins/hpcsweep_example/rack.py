"""A cluster: so many slots of this machine, by the name of a rack."""

from __future__ import annotations

from hpcsweep.cluster.backend import Backend, Connection, SweepRequest
from hpcsweep.cluster.local.cluster import LocalCluster
from hpcsweep.options import Positive, Section, Text


class RackOptions(Section):
    """What a rack is asked for."""

    rack: Text
    """Which rack."""
    width: Positive = 2
    """Runs at a time."""


class RackBackend(Backend):
    title = "a rack"
    options = RackOptions
    remote = False

    def connect(self, sweep: SweepRequest, options: RackOptions) -> Connection:
        cluster = LocalCluster(slots=options.width, environment=sweep.variables)
        return Connection(cluster, sweep.task, f"rack {options.rack}, {options.width} runs at a time")
