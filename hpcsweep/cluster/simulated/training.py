"""Stand-in training: how long a run takes, what it reaches and which value it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from hpcsweep.cluster.simulated.faults import FaultSampler
from hpcsweep.cluster.simulated.options import SimulatedOptions
from hpcsweep.core.events import Config
from hpcsweep.store.batch import ManifestRun, Program

#: Configuration, step >= 1 and the trial's seed -> the objective after that step, NaN if it diverged.
Curve: TypeAlias = Callable[[Config, int, int], float]
#: Configuration -> seconds for each unit of resource.
UnitSeconds: TypeAlias = Callable[[Config], float]

#: Steps are counted from times that were added up: a hair less than a step is a step.
_HAIR = 1e-9


class Training(msgspec.Struct):
    """One start of a run.

    Attributes:
        began: Unix seconds. `ready`: when its first unit begins. `ends`: when it ends, if nothing
            interrupts it.
        start: Step of the checkpoint that it goes on from.
        unit_s: Seconds for each unit.
        failure: Why it fails at its end, empty if it does not.
        reported: The last step whose metrics are written.
    """

    run: ManifestRun
    began: float
    ready: float
    ends: float
    start: int
    unit_s: float
    failure: str = ""
    reported: int = 0

    def step(self, now: float) -> int:
        """The last step that is done by then."""
        if now >= self.ends and not self.failure:
            return self.run.resource
        units = (now - self.ready) / self.unit_s if self.unit_s else 0.0
        return min(self.run.resource, self.start + max(0, math.floor(units + _HAIR)))


class TrainingModel:
    """All trainings of a site: they share the checkpoints of the trials.

    Args:
        options: Speed and checkpoints.
        curve: What the objective is.
        unit_seconds: How long a unit takes.
        draws: Stragglers and failures.
        reached: Newest checkpoint of each trial that was trained before this simulation.
    """

    def __init__(
        self,
        options: SimulatedOptions,
        *,
        curve: Curve,
        unit_seconds: UnitSeconds,
        faults: FaultSampler,
        reached: Mapping[int, int],
    ) -> None:
        self._options = options
        self._curve = curve
        self._unit_seconds = unit_seconds
        self._faults = faults
        self._reached = dict(reached)

    def begin(self, run: ManifestRun, now: float) -> Training:
        """Start it from the trial's newest checkpoint, or from that of the trial that it is a clone of."""
        luck = self._faults.run(run)
        start = self._reached.get(run.trial, run.parent_step)
        unit_s = self._unit_seconds(run.config) * luck.factor
        ready = now + self._options.startup
        share = 1.0 if luck.fails_after is None else luck.fails_after
        ends = ready + max(0, run.resource - start) * unit_s * share
        failure = "" if luck.fails_after is None else "simulated failure"
        return Training(run, now, ready, ends, start, unit_s, failure, start)

    def leave(self, training: Training, now: float) -> int:
        """The training ends now, in whatever way: the step of the trial's newest checkpoint."""
        done = training.step(now)
        every = self._options.checkpoint_every
        newest = done if done >= training.run.resource else max(training.start, done - done % every)
        if newest:
            self._reached[training.run.trial] = newest
        return newest

    def objective(self, run: ManifestRun, step: int) -> float:
        """The objective after that step.

        Raises:
            Exception: Whatever the curve raises: so does training code.
        """
        return float(self._curve(run.config, step, run.seed))

    def value(self, run: ManifestRun, program: Program) -> tuple[float | None, str]:
        """The value of the whole run, or None and why there is none."""
        first = run.parent_step + 1 if program.at == "best" else run.resource
        try:
            values = [self.objective(run, step) for step in range(first, run.resource + 1)]
        except Exception as error:
            return None, error_message(error)
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return None, f"metric {program.metric!r} is {values[-1]} at step {run.resource}"
        return (min if program.mode == "min" else max)(finite), ""


def error_message(error: Exception) -> str:
    """As the last line of a traceback has it."""
    return f"{type(error).__name__}: {error}"
