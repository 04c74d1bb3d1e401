"""The simulated cluster as a backend. It trains nothing, so no sweep is launched on it: see `simulation`."""

from __future__ import annotations

from hpcsweep.cluster.backend import Backend, Connection, SweepRequest
from hpcsweep.cluster.simulated.options import SimulatedSection
from hpcsweep.errors import SpecError


class SimulatedBackend(Backend):
    title = "a simulated cluster"
    options = SimulatedSection
    remote = False

    def connect(self, sweep: SweepRequest, options: SimulatedSection) -> Connection:
        raise SpecError(
            "cluster.name: simulated trains nothing; use `hpcsweep simulate`, "
            "or give another one, as with --cluster local"
        )
