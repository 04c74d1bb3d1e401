"""What a sweep would take: the real driver on a simulated site, measured and compared.

`simulate(spec, curve)` runs one sweep in virtual time; `compare` runs several of them.
"""

from __future__ import annotations

from hpcsweep.cluster.simulated_training import Curve
from hpcsweep.simulation.comparing import Comparison, Variant, compare, comparison, variants
from hpcsweep.simulation.curves import curve_of, load_curve, stand_in
from hpcsweep.simulation.measuring import Simulated
from hpcsweep.simulation.recorded import Recorded
from hpcsweep.simulation.running import simulate

__all__ = [
    "Comparison",
    "Curve",
    "Recorded",
    "Simulated",
    "Variant",
    "compare",
    "comparison",
    "curve_of",
    "load_curve",
    "simulate",
    "stand_in",
    "variants",
]
