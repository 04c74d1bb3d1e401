"""Where batches run: one folder for each kind of cluster. `cluster.backend` says what each has to offer."""

from __future__ import annotations

from typing import Final

#: Name in the spec -> `module:Backend`, imported when it is used. `auto` looks for them in this order.
CLUSTERS: Final = {
    "slurm": "hpcsweep.cluster.slurm.backend:SlurmBackend",
    "pbs": "hpcsweep.cluster.pbs.backend:PbsBackend",
    "local": "hpcsweep.cluster.local.backend:LocalBackend",
    "simulated": "hpcsweep.cluster.simulated.backend:SimulatedBackend",
}
#: What `auto` is where no other cluster is found.
FALLBACK: Final = "local"
#: Entry point group of the clusters of other packages.
ENTRY_POINTS: Final = "hpcsweep.clusters"
