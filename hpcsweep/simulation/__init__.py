"""Runs the real driver on a simulated cluster in virtual time, measures and compares sweeps.

`simulate(spec, curve)` runs one sweep; `compare` several.
"""

from __future__ import annotations

from hpcsweep.cluster.simulated.task import Curve
from hpcsweep.simulation.comparison import Comparison, Variant, compare, compare_results, make_variants
from hpcsweep.simulation.curves import RecordedCurves, curve_of, load_curve, synthetic_curve, synthetic_curves
from hpcsweep.simulation.simulate import SimulationResult, simulate

__all__ = [
    "Comparison",
    "Curve",
    "RecordedCurves",
    "SimulationResult",
    "Variant",
    "compare",
    "compare_results",
    "curve_of",
    "load_curve",
    "make_variants",
    "simulate",
    "synthetic_curve",
    "synthetic_curves",
]
