"""Several sweeps in comparison: every combination of some values of the spec, over several seeds."""

from __future__ import annotations

import inspect
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.cluster.simulated.training import Curve
from hpcsweep.errors import SpecError
from hpcsweep.plugins import find_class
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.simulation.recorder import SimulationResult
from hpcsweep.simulation.simulate import simulate
from hpcsweep.spec import SweepSpec, load_spec

#: What another scheduler takes over from that of the spec, where both have it.
SHARED = ("min_resource", "max_resource", "eta")


class Variant(msgspec.Struct, frozen=True):
    """One combination: what is varied, as `KEY=VALUE`, and the spec that it makes."""

    name: str
    spec: SweepSpec


class Row(msgspec.Struct, frozen=True):
    """What one variant took, medians over the seeds; None where there was no value.

    Attributes:
        target_s: When it had first a value as good as the worst final one of all variants.
    """

    name: str
    value: float | None
    target_s: float | None
    makespan_s: float
    hours: float
    idle: float
    runs: tuple[SimulationResult, ...]


class Comparison(msgspec.Struct, frozen=True):
    """All variants, each with the same seeds."""

    metric: str
    minimise: bool
    rows: tuple[Row, ...]


def variants(path: Path, overrides: Sequence[str], comparisons: Sequence[str]) -> list[Variant]:
    """The product of the comparisons, in their order.

    A scheduler that is not the spec's takes over what it shares with that one, a searcher takes the
    seed alone.

    Args:
        path: The sweep file.
        overrides: As of `--set`, for all of them.
        comparisons: `KEY=VALUE,VALUE,...`, where KEY is `scheduler`, `searcher` or the path of any
            value of the spec.

    Raises:
        SpecError: A comparison is malformed, or a combination makes no valid spec.
    """
    axes = [_axis(text) for text in comparisons]
    spec = load_spec(path, overrides)
    found = []
    for chosen in itertools.product(*axes):
        name = " ".join(f"{key}={value}" for key, value in chosen)
        more = [text for key, value in chosen for text in _override(spec, key, value)]
        try:
            found.append(Variant(name, load_spec(path, [*overrides, *more])))
        except SpecError as error:
            raise SpecError(*(f"--compare {name}: {problem}" for problem in error.problems)) from error
    return found


def _axis(text: str) -> list[tuple[str, str]]:
    key, equals, values = text.partition("=")
    names = [value.strip() for value in values.split(",")]
    if not (key and equals and all(names)):
        raise SpecError(f"--compare {text}: must be KEY=VALUE,VALUE,... such as scheduler=hyperband,asha")
    return [(key, name) for name in names]


def _override(spec: SweepSpec, key: str, value: str) -> list[str]:
    """The `--set` texts that make the spec this variant."""
    if key == "scheduler":
        if value == spec.scheduler.name:
            return []
        shared = _shared(spec, value)
        return [f"scheduler={{{', '.join([f'name: {value}', *shared])}}}"]
    if key == "searcher":
        if value == spec.searcher.name:
            return []
        return [f"searcher={{name: {value}, seed: {spec.searcher.seed}}}"]
    return [f"{key}={value}"]


def _shared(spec: SweepSpec, scheduler: str) -> list[str]:
    options: dict[str, Any] = spec.scheduler.options
    try:
        cls = find_class(SCHEDULERS, scheduler, group="hpcsweep.schedulers", key="scheduler")
    except SpecError as error:
        raise SpecError(f"--compare scheduler={scheduler}: {error}") from error
    wanted = inspect.signature(cls).parameters
    return [f"{name}: {options[name]}" for name in SHARED if name in wanted and name in options]


def compare(
    chosen: Sequence[Variant],
    curve: Callable[[SweepSpec], Curve],
    seeds: Sequence[int],
    *,
    progress: Callable[[str, int], None] = lambda name, seed: None,
) -> Comparison:
    """Simulate each variant with each seed.

    Args:
        chosen: The variants, at least one.
        curve: The curve for a spec.
        seeds: The same for all of them, at least one.
        progress: Called before each simulation with the variant's name and the seed.

    Raises:
        SpecError: See `simulate`.
    """
    done: dict[str, list[SimulationResult]] = {}
    for variant in chosen:
        for seed in seeds:
            progress(variant.name, seed)
            run = simulate(variant.spec, curve(variant.spec), seed=seed)
            done.setdefault(variant.name, []).append(run)
    return comparison(chosen[0].spec, done)


def comparison(spec: SweepSpec, done: Mapping[str, Sequence[SimulationResult]]) -> Comparison:
    """What simulations of variants of this spec show: by variant, each with the same seeds."""
    minimise = spec.objective.mode == "min"
    targets = [
        _worst([run.value for run in same], minimise=minimise) for same in zip(*done.values(), strict=True)
    ]
    rows = tuple(_row(name, runs, targets, minimise=minimise) for name, runs in done.items())
    return Comparison(spec.objective.metric, minimise, rows)


def _worst(values: Sequence[float | None], *, minimise: bool) -> float | None:
    known = [value for value in values if value is not None]
    return (max if minimise else min)(known) if known else None


def _row(
    name: str, runs: Sequence[SimulationResult], targets: Sequence[float | None], *, minimise: bool
) -> Row:
    times = [
        None if target is None else run.time_to(target, minimise=minimise)
        for run, target in zip(runs, targets, strict=True)
    ]
    return Row(
        name,
        value=median([run.value for run in runs]),
        target_s=median(times),
        makespan_s=statistics.median(run.makespan_s for run in runs),
        hours=statistics.median(run.hours for run in runs),
        idle=statistics.median(run.idle for run in runs),
        runs=tuple(runs),
    )


def median(values: Iterable[float | None]) -> float | None:
    """Of those that there are, None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
