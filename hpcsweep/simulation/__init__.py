"""What a sweep would take: the real driver on a simulated site, measured and compared.

`simulate(spec, curve)` runs one sweep in virtual time; `compare` runs several of them.
"""

from __future__ import annotations

from hpcsweep.cluster.simulated.training import Curve
from hpcsweep.simulation.comparison import Comparison, Variant, compare, comparison, variants
from hpcsweep.simulation.curves import curve_of, load_curve, stand_in
from hpcsweep.simulation.recorded_curves import RecordedCurves
from hpcsweep.simulation.recorder import SimulationResult
from hpcsweep.simulation.simulate import simulate

__all__ = [
    "Comparison",
    "Curve",
    "RecordedCurves",
    "SimulationResult",
    "Variant",
    "compare",
    "comparison",
    "curve_of",
    "load_curve",
    "simulate",
    "stand_in",
    "variants",
]
