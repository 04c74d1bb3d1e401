"""A trial of an earlier sweep, whoever ran it, and how what it reported becomes observations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from hpcsweep.core.space import Space
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.spec import SweepSpec
from hpcsweep.spec.resources import rungs_of

EXPECTED: Final = (
    "a results folder that `launch` made, a study of Optuna (its journal or SQLite file), a results folder "
    "of Ray Tune, or a CSV file"
)


class Earlier(NamedTuple):
    """A trial of an earlier sweep.

    Attributes:
        config: By the names of this sweep's parameters, as far as they are known.
        observations: Resource and value, None for a failure, the lowest resource first.
        why: Why there are none.
        values: Of all objectives at each observation, where the sweep has several; empty for a failure.
    """

    config: Mapping[str, Any]
    observations: Sequence[tuple[int, float | None]]
    why: str = ""
    values: Sequence[tuple[float, ...]] = ()


class Reader(Protocol):
    """Reads one kind of source."""

    def __call__(self, spec: SweepSpec, path: Path, part: str, key: str) -> Iterable[Earlier]:
        """All trials; `part` is what followed a # in the path.

        Raises:
            SpecError: It cannot be read, or measured something else; the message begins with `key`.
        """
        ...


class Rungs:
    """The resources at which this sweep compares trials.

    Attributes:
        full: Of a trial that is trained to its end.
    """

    def __init__(self, spec: SweepSpec) -> None:
        plan = rungs_of(make_scheduler(spec))
        self._below = sorted({resource for bracket in plan.brackets for resource in bracket.resources}) or [1]
        self.full = self._below.pop()
        self._better = min if spec.objective.mode == "min" else max
        self._best = spec.objective.at == "best"

    def observations(
        self, values: Mapping[int, float], *, final: float | None = None, failed: bool = False
    ) -> list[tuple[int, float | None]]:
        """What a trial that reported these values by step shows at the rungs that it passed, and at its end.

        Args:
            values: By step, which counts from 1.
            final: Of a trial that was trained to its end; else the last value counts at its step.
            failed: It failed after its last report.
        """
        steps = sorted(step for step, value in values.items() if math.isfinite(value))
        so_far: dict[int, float] = {}
        for step in steps:
            value, before = values[step], next(reversed(so_far.values()), None)
            so_far[step] = self._better(before, value) if self._best and before is not None else value
        last = steps[-1] if steps else 0
        found: list[tuple[int, float | None]] = [
            (rung, so_far[rung]) for rung in self._below if rung in so_far and (rung < last or failed)
        ]
        if failed:
            return [*found, (self.full, None)]
        if final is not None:
            return [(self.full, final)] if not math.isfinite(final) else [*found, (self.full, final)]
        return [*found, (min(last, self.full), so_far[last])] if steps else []


def canonical_name(name: str) -> str:
    """Names that differ only in how they are nested are the same: `optimizer/lr` and `optimizer.lr`."""
    return name.replace("/", ".")


def by_our_names(space: Space, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, by the names of the space's parameters; other names stay as they are."""
    ours = {canonical_name(name): name for name in space.names}
    return {ours.get(canonical_name(name), name): value for name, value in given.items()}
