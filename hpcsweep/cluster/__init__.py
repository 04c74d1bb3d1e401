"""Where batches run. One file each; `CLUSTERS` names them. Only `slurm` imports submitit."""

from __future__ import annotations

from typing import Final

#: Name in the spec -> `module:class`, imported when it is used.
CLUSTERS: Final = {
    "local": "hpcsweep.cluster.local.cluster:LocalCluster",
    "slurm": "hpcsweep.cluster.slurm.cluster:SlurmCluster",
    "simulated": "hpcsweep.cluster.simulated.cluster:SimulatedCluster",
}
