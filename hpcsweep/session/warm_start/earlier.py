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
        self._objectives = spec.objectives

    def earlier(
        self,
        config: Mapping[str, Any],
        reports: Mapping[int, Sequence[float | None]],
        *,
        final: Sequence[float] | None = None,
        failed: bool = False,
        why: str = "",
    ) -> Earlier:
        """What a trial that reported this shows at the rungs that it passed, and at its end.

        Args:
            config: Its configuration.
            reports: By step, which counts from 1, the value of each objective, None where it has none.
            final: Of a trial that was trained to its end; else the last values count at their step.
            failed: It failed after its last report.
            why: Why there are no observations, should there be none.
        """
        points = self._points(reports)
        last = max(points, default=0)
        found: list[tuple[int, Sequence[float] | None]] = [
            (rung, points[rung]) for rung in self._below if rung in points and (rung < last or failed)
        ]
        if failed or (final is not None and not all(map(math.isfinite, final))):
            found.append((self.full, None))
        elif final is not None:
            found.append((self.full, final))
        elif points:
            found.append((min(last, self.full), points[last]))
        observations = [(rung, None if values is None else values[0]) for rung, values in found]
        values = [tuple(values or ()) for _, values in found] if self._objectives.several else ()
        return Earlier(config, observations, why, values)

    def _points(self, reports: Mapping[int, Sequence[float | None]]) -> dict[int, tuple[float, ...]]:
        """By step the values of all objectives that count there, from the first on that has them all."""
        so_far: dict[int, float] = {}
        points: dict[int, tuple[float, ...]] = {}
        for step in sorted(reports):
            new = {
                index: value
                for index, value in enumerate(reports[step])
                if value is not None and math.isfinite(value)
            }
            for index, value in new.items():
                objective = self._objectives[index]
                best = objective.at == "best" and index in so_far
                so_far[index] = objective.better(so_far[index], value) if best else value
            if new and len(so_far) == len(self._objectives):
                points[step] = tuple(so_far[index] for index in range(len(self._objectives)))
        return points


def canonical_name(name: str) -> str:
    """Names that differ only in how they are nested are the same: `optimizer/lr` and `optimizer.lr`."""
    return name.replace("/", ".")


def by_our_names(space: Space, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, by the names of the space's parameters; other names stay as they are."""
    ours = {canonical_name(name): name for name in space.names}
    return {ours.get(canonical_name(name), name): value for name, value in given.items()}
