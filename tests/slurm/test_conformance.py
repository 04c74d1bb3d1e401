"""The conformance suite over a real Slurm."""

from __future__ import annotations

from hpcsweep.cluster.backend import SweepRequest, find_backend
from hpcsweep.core.cluster_protocol import Cluster
from hpcsweep.testing.clusters import ClusterConformance


class TestSlurm(ClusterConformance):
    timeout_s = 300.0

    def connect(self, sweep: SweepRequest) -> Cluster:
        backend = find_backend("slurm")
        return backend.connect(sweep, backend.options()).cluster
