"""`ray.train`, as far as Ray Tune's trainables use it."""

from __future__ import annotations

from hpcsweep.ray.tune import RunConfig
from hpcsweep.training.ray import Checkpoint, get_checkpoint, get_context, report

__all__ = ["Checkpoint", "RunConfig", "get_checkpoint", "get_context", "report"]
