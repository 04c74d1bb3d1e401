"""Hyperparameter sweeps on Slurm clusters: searches become job arrays and rungs.

Training code uses `Trial` (or `current_trial()` in a script), analysis uses `load(folder)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcsweep.trial import Trial, current_trial
    from hpcsweep.views.results import load

__version__ = "0.2.0"
__all__ = ["Trial", "current_trial", "load"]

_HOME = {"Trial": "hpcsweep.trial", "current_trial": "hpcsweep.trial", "load": "hpcsweep.views.results"}


def __getattr__(name: str) -> Any:
    """Import on first use: a compute node loads no pandas, `--help` loads nothing."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hpcsweep' has no attribute {name!r}")
