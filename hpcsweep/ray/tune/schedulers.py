"""`ray.tune.schedulers`: what Ray Tune's schedulers are in a sweep."""

from __future__ import annotations

from typing import Any, NamedTuple

from hpcsweep.api.objects import ASHA, PBT, Hyperband, Median
from hpcsweep.api.parts import Scheduler, StoppingRule
from hpcsweep.errors import SpecError

__all__ = [
    "ASHAScheduler",
    "AsyncHyperBandScheduler",
    "FIFOScheduler",
    "HyperBandScheduler",
    "MedianStoppingRule",
    "PopulationBasedTraining",
]


class Translated(NamedTuple):
    """A scheduler of Ray Tune.

    Attributes:
        metric: Empty where `TuneConfig` names it; so is `mode`.
        population: It needs the number of samples, and the steps of each.
    """

    scheduler: Scheduler | None = None
    stop: StoppingRule | None = None
    metric: str = ""
    mode: str = ""
    population: int = 0


def ASHAScheduler(  # noqa: N802  # Ray's name
    time_attr: str = "training_iteration",
    metric: str | None = None,
    mode: str | None = None,
    max_t: int = 100,
    grace_period: int = 1,
    reduction_factor: float = 4,
    brackets: int = 1,
    stop_last_trials: bool = True,
) -> Translated:
    """`hs.ASHA` with `stopping`: a trial goes on past a rung unless others are better there."""
    _check_time(time_attr)
    scheduler = ASHA(
        max_resource=max_t,
        min_resource=grace_period,
        eta=_whole("reduction_factor", reduction_factor),
        brackets=brackets,
        stopping=True,
    )
    return Translated(scheduler, metric=metric or "", mode=mode or "")


AsyncHyperBandScheduler = ASHAScheduler


def HyperBandScheduler(  # noqa: N802
    time_attr: str = "training_iteration",
    metric: str | None = None,
    mode: str | None = None,
    max_t: int = 81,
    reduction_factor: float = 3,
    stop_last_trials: bool = True,
) -> Translated:
    """`hs.Hyperband`: promoted trials go on from their checkpoints."""
    _check_time(time_attr)
    scheduler = Hyperband(max_resource=max_t, eta=_whole("reduction_factor", reduction_factor))
    return Translated(scheduler, metric=metric or "", mode=mode or "")


def MedianStoppingRule(  # noqa: N802
    time_attr: str = "training_iteration",
    metric: str | None = None,
    mode: str | None = None,
    grace_period: float = 60.0,
    min_samples_required: int = 3,
    **others: Any,
) -> Translated:
    """`hs.Median`, with `grace_period` in steps."""
    _check_time(time_attr)
    rule = Median(min_trials=min_samples_required, min_step=max(1, int(grace_period)))
    return Translated(stop=rule, metric=metric or "", mode=mode or "")


def PopulationBasedTraining(  # noqa: N802
    time_attr: str = "training_iteration",
    metric: str | None = None,
    mode: str | None = None,
    perturbation_interval: float = 60.0,
    quantile_fraction: float = 0.25,
    resample_probability: float = 0.25,
    hyperparam_mutations: object = None,
    **others: Any,
) -> Translated:
    """`hs.PBT`: a population of `num_samples`, trained for `stop={"training_iteration": ...}`."""
    _check_time(time_attr)
    interval = int(perturbation_interval)
    scheduler = PBT(
        population=0,  # as many as samples
        interval=interval,
        max_resource=interval,
        quantile=quantile_fraction,
        resample=resample_probability,
    )
    return Translated(scheduler, metric=metric or "", mode=mode or "", population=interval)


def FIFOScheduler() -> Translated:  # noqa: N802
    """`hs.Fifo`: each trial is trained to its end."""
    return Translated()


def _check_time(time_attr: str) -> None:
    if time_attr != "training_iteration":
        raise SpecError(
            f"time_attr: must be 'training_iteration', got {time_attr!r}: trials are compared at reports"
        )


def _whole(name: str, value: float) -> int:
    if int(value) != value:
        raise SpecError(f"{name}: must be a whole number, got {value}: rungs are exact")
    return int(value)
