"""The conformance suite over this machine and the simulated cluster; see also test_pbs and tests/slurm."""

from __future__ import annotations

from hpcsweep.cluster.backend import SweepRequest
from hpcsweep.cluster.local.cluster import LocalCluster
from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.cluster.simulated.cluster import SimulatedCluster
from hpcsweep.core.cluster_protocol import Cluster
from hpcsweep.testing.clusters import ClusterConformance
from tests.waiting import PATIENCE_S


class TestLocal(ClusterConformance):
    finds = False
    timeout_s = PATIENCE_S

    def connect(self, sweep: SweepRequest) -> Cluster:
        return LocalCluster(slots=3, environment=sweep.variables)


class TestSimulated(ClusterConformance):
    trains = False

    def connect(self, sweep: SweepRequest) -> Cluster:
        return SimulatedCluster(
            SimulatedOptions(gpus=4),
            shape=sweep.task,
            curve=lambda config, step, seed: 1.0 / step,
            unit_seconds=lambda config: 10.0,
        )

    def advance(self, cluster: Cluster) -> None:
        assert isinstance(cluster, SimulatedCluster)
        cluster.clock.wake(cluster.clock.time() + 1.0)  # it would go on to whatever happens next
        cluster.clock.sleep(1.0)
