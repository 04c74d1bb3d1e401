"""Schedulers and stopping rules.

Made by `python -m tests.docs.reference`: change the code that it is made from, not this file.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

from hpcsweep.api.parts import Scheduler, StoppingRule

__all__ = ["ASHA", "PBT", "Fifo", "Halving", "Hyperband", "Median", "Plateau"]


@dataclass(frozen=True, repr=False)
class Fifo(Scheduler):
    """Starts trials until there are no more.

    Attributes:
        max_resource: Each trial is trained up to this, in epochs or steps.
    """

    name: ClassVar[str] = "fifo"

    _: KW_ONLY
    max_resource: int = 1


@dataclass(frozen=True, repr=False)
class Halving(Scheduler):
    """Successive halving as in Dive into Deep Learning, 19.4: the best 1/eta of a rung go on to the next one.

    Attributes:
        max_resource: The resource of the last rung, in epochs or steps.
        min_resource: The resource of the first rung, in epochs or steps; `auto` starts low and goes up where
            the ranks of the lowest rung do not hold in higher ones.
        eta: One in eta goes on.
        prefact: Multiplies the number of trials in each rung.
        rounds: How often to start from the first rung; null until the budget ends.
    """

    name: ClassVar[str] = "halving"

    _: KW_ONLY
    max_resource: int
    min_resource: int | Literal["auto"] = 1
    eta: int = 2
    prefact: float = 1.0
    rounds: int | None = 1


@dataclass(frozen=True, repr=False)
class Hyperband(Scheduler):
    """Hyperband (Li et al., JMLR 18, 2018), exact: brackets trade trials for the length of their first run.

    Attributes:
        max_resource: The resource of the highest rung, in epochs or steps.
        min_resource: The resource of the lowest rung, in epochs or steps; `auto` starts low and goes up where
            the ranks of the lowest rung do not hold in higher ones.
        eta: One in eta goes on.
        iterations: How often to go through all brackets; null until the budget ends.
    """

    name: ClassVar[str] = "hyperband"

    _: KW_ONLY
    max_resource: int
    min_resource: int | Literal["auto"] = 1
    eta: int = 3
    iterations: int | None = 1


@dataclass(frozen=True, repr=False)
class ASHA(Scheduler):
    """Promotes whoever is in the top 1/eta of a rung at the moment; else starts a new trial.

    Attributes:
        max_resource: The resource of the highest rung, in epochs or steps.
        min_resource: The resource of the lowest rung, in epochs or steps; `auto` starts low and goes up where
            the ranks of the lowest rung do not hold in higher ones.
        eta: One in eta goes on.
        brackets: How many brackets, as in Hyperband; each starts one rung higher than the one before.
        stopping: A run goes on past a rung unless it is outside of the best 1/eta, in place of one run for
            each rung; for long waits in the queue.
    """

    name: ClassVar[str] = "asha"

    _: KW_ONLY
    max_resource: int
    min_resource: int | Literal["auto"] = 1
    eta: int = 3
    brackets: int = 1
    stopping: bool = False


@dataclass(frozen=True, repr=False)
class PBT(Scheduler):
    """A population in which, after each interval, the bottom quarter copies the top quarter.

    Attributes:
        population: How many members are trained side by side.
        interval: How far a member is trained before it is compared, in epochs or steps.
        max_resource: Each member is trained up to this; the last interval may be a short one.
        quantile: The share of members that is replaced, and of those that replace them.
        resample: How probable it is that a parameter is drawn anew and not changed a little.
    """

    name: ClassVar[str] = "pbt"

    _: KW_ONLY
    population: int
    interval: int
    max_resource: int
    quantile: float = 0.25
    resample: float = 0.25


@dataclass(frozen=True, repr=False)
class Median(StoppingRule):
    """The median stopping rule of Vizier (Golovin et al., KDD 2017).

    Attributes:
        min_trials: With fewer completed trials at a step, nothing stops there.
        min_step: Nothing stops before this step.
        interval: Only steps that are multiples of it are judged, and kept.
    """

    name: ClassVar[str] = "median"

    _: KW_ONLY
    min_trials: int = 5
    min_step: int = 1
    interval: int = 1


@dataclass(frozen=True, repr=False)
class Plateau(StoppingRule):
    """Stops a trial that has not improved by more than `min_delta` over `patience` reports.

    Attributes:
        patience: Reports in a row without an improvement.
        min_delta: Improvements up to this do not count; in units of the objective. 0 with several.
        min_step: Nothing stops before this step.
    """

    name: ClassVar[str] = "plateau"

    _: KW_ONLY
    patience: int = 10
    min_delta: float = 0.0
    min_step: int = 1
