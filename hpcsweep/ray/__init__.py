"""What a program for Ray Tune imports from Ray: change `ray` to `hpcsweep.ray`, and it is a sweep.

    from hpcsweep.ray import tune
    from hpcsweep.ray.tune.schedulers import ASHAScheduler

The trainable and its space stay as they are. Ray is not needed.
"""

from __future__ import annotations

from hpcsweep.training.ray import Checkpoint, Trainable, get_checkpoint, get_context, report

__all__ = ["Checkpoint", "Trainable", "get_checkpoint", "get_context", "report"]
