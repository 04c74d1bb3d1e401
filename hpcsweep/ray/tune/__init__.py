"""`ray.tune`: the space, `Tuner` and what a trainable calls."""

from __future__ import annotations

from hpcsweep.ray.tune.space import (
    choice,
    grid_search,
    lograndint,
    loguniform,
    qrandint,
    quniform,
    randint,
    sample_from,
    uniform,
)
from hpcsweep.ray.tune.tuner import (
    Result,
    ResultGrid,
    RunConfig,
    TuneConfig,
    Tuner,
    with_parameters,
    with_resources,
)
from hpcsweep.training.ray import Checkpoint, Trainable, get_checkpoint, get_context, report

__all__ = [
    "Checkpoint",
    "Result",
    "ResultGrid",
    "RunConfig",
    "Trainable",
    "TuneConfig",
    "Tuner",
    "choice",
    "get_checkpoint",
    "get_context",
    "grid_search",
    "lograndint",
    "loguniform",
    "qrandint",
    "quniform",
    "randint",
    "report",
    "sample_from",
    "uniform",
    "with_parameters",
    "with_resources",
]
