"""Hyperparameter sweeps on Slurm clusters: searches become job arrays and rungs.

`Sweep` is a sweep from Python, `import hpcsweep as hs`: `hs.Sweep(train, space={"lr": hs.Float(1e-4, 1,
log=True)}, objective="val_error", scheduler=hs.Hyperband(max_resource=27)).launch()`. Training code uses
`Trial` (or `current_trial()` in a script), analysis uses `load(folder)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcsweep import optuna, ray
    from hpcsweep.api.objects import *  # noqa: F403
    from hpcsweep.api.search_cv import SearchCV
    from hpcsweep.api.sweep import Plan, Sweep
    from hpcsweep.trial import Trial, current_trial
    from hpcsweep.views.results import Results, load

__version__ = "0.2.0"
__all__ = ["Plan", "Results", "SearchCV", "Sweep", "Trial", "current_trial", "load", "optuna", "ray"]

_HOME = {
    "Plan": "hpcsweep.api.sweep",
    "Results": "hpcsweep.views.results",
    "SearchCV": "hpcsweep.api.search_cv",
    "Sweep": "hpcsweep.api.sweep",
    "Trial": "hpcsweep.trial",
    "current_trial": "hpcsweep.trial",
    "load": "hpcsweep.views.results",
}
_MODULES = ("optuna", "ray")
#: What a spec is made of, such as `Float` and `Hyperband`.
_OBJECTS = "hpcsweep.api.objects"


def __getattr__(name: str) -> Any:
    """Import on first use: a compute node loads no pandas, `--help` loads nothing."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"hpcsweep.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    # `from hpcsweep import bootstrap` asks here before it imports the module: these are all classes.
    if name[:1].isupper() and name in (objects := import_module(_OBJECTS)).__all__:
        return getattr(objects, name)
    raise AttributeError(f"module 'hpcsweep' has no attribute {name!r}")


def __dir__() -> list[str]:
    from importlib import import_module

    return sorted({*globals(), *__all__, *import_module(_OBJECTS).__all__})
