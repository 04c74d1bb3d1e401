# ruff: noqa: F403, F405
"""The objects that a spec is made of.

Made by `python -m tests.docs.reference`: change the code that it is made from, not this file.
"""

from __future__ import annotations

from hpcsweep.api.objects.clusters import *
from hpcsweep.api.objects.parameters import *
from hpcsweep.api.objects.schedulers import *
from hpcsweep.api.objects.searchers import *
from hpcsweep.api.objects.sections import *

__all__ = [
    "ASHA",
    "CMAES",
    "GP",
    "PBS",
    "PBT",
    "TPE",
    "Auto",
    "Budget",
    "Choice",
    "Cluster",
    "Constant",
    "Evolution",
    "Fifo",
    "Float",
    "Grid",
    "Halving",
    "Hyperband",
    "Int",
    "Local",
    "Median",
    "Objective",
    "OptunaSampler",
    "Ordinal",
    "Plateau",
    "Random",
    "Resources",
    "Retries",
    "Simulated",
    "Slurm",
    "Sobol",
    "Store",
    "Train",
]
