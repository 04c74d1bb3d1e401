"""Compares sweeps: every combination of some values of the spec, over several seeds."""

from __future__ import annotations

import inspect
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.cluster.simulated.task import Curve
from hpcsweep.errors import SpecError
from hpcsweep.schedulers import scheduler_class
from hpcsweep.simulation.recorder import SimulationResult
from hpcsweep.simulation.simulate import simulate
from hpcsweep.spec import SweepSpec, load_spec

#: Options that another scheduler takes over from that of the spec, if both have them.
SHARED_OPTIONS = ("min_resource", "max_resource", "eta")


class Variant(msgspec.Struct, frozen=True):
    """One combination of values, named `KEY=VALUE ...`, and its spec."""

    name: str
    spec: SweepSpec


class Row(msgspec.Struct, frozen=True):
    """Results of one variant: medians over the seeds, None where there was no value.

    Attributes:
        target_s: When it first reached the worst final value of all variants.
        hours: GPU-hours, or slot-hours without GPUs.
        idle: Share of GPU time without a task.
    """

    name: str
    value: float | None
    target_s: float | None
    makespan_s: float
    hours: float
    idle: float
    runs: tuple[SimulationResult, ...]


class Comparison(msgspec.Struct, frozen=True):
    """All variants, simulated with the same seeds."""

    metric: str
    minimise: bool
    rows: tuple[Row, ...]


def make_variants(path: Path, overrides: Sequence[str], comparisons: Sequence[str]) -> list[Variant]:
    """All combinations of the compared values, in the given order.

    Another scheduler than the spec's keeps `min_resource`, `max_resource` and `eta`; another searcher
    keeps the seed.

    Args:
        path: The sweep file.
        overrides: `--set` texts for every variant.
        comparisons: `KEY=VALUE,VALUE,...`, where KEY is `scheduler`, `searcher` or the path of any
            value of the spec.

    Raises:
        SpecError: A comparison is malformed, or a combination makes no valid spec.
    """
    axes = [_parse_axis(text) for text in comparisons]
    spec = load_spec(path, overrides)
    found = []
    for chosen in itertools.product(*axes):
        name = " ".join(f"{key}={value}" for key, value in chosen)
        more = [text for key, value in chosen for text in _overrides(spec, key, value)]
        try:
            found.append(Variant(name, load_spec(path, [*overrides, *more])))
        except SpecError as error:
            raise SpecError(*(f"--compare {name}: {problem}" for problem in error.problems)) from error
    return found


def _parse_axis(text: str) -> list[tuple[str, str]]:
    key, equals, values = text.partition("=")
    names = [value.strip() for value in values.split(",")]
    if not (key and equals and all(names)):
        raise SpecError(f"--compare {text}: must be KEY=VALUE,VALUE,... such as scheduler=hyperband,asha")
    return [(key, name) for name in names]


def _overrides(spec: SweepSpec, key: str, value: str) -> list[str]:
    """The `--set` texts that give the spec this value."""
    if key == "scheduler":
        if value == spec.scheduler.name:
            return []
        shared = _shared_options(spec, value)
        return [f"scheduler={{{', '.join([f'name: {value}', *shared])}}}"]
    if key == "searcher":
        if value == spec.searcher.name:
            return []
        return [f"searcher={{name: {value}, seed: {spec.searcher.seed}}}"]
    return [f"{key}={value}"]


def _shared_options(spec: SweepSpec, scheduler: str) -> list[str]:
    options: dict[str, Any] = spec.scheduler.options
    try:
        cls = scheduler_class(scheduler)
    except SpecError as error:
        raise SpecError(f"--compare scheduler={scheduler}: {error}") from error
    wanted = inspect.signature(cls).parameters
    return [f"{name}: {options[name]}" for name in SHARED_OPTIONS if name in wanted and name in options]


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
        curve: Makes the learning curves for a spec.
        seeds: At least one, the same for every variant.
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
    return compare_results(chosen[0].spec, done)


def compare_results(spec: SweepSpec, done: Mapping[str, Sequence[SimulationResult]]) -> Comparison:
    """Compare finished simulations, by variant; each variant must have the same seeds."""
    minimise = spec.objective.mode == "min"
    targets = [
        _worst_value([run.value for run in same], minimise=minimise)
        for same in zip(*done.values(), strict=True)
    ]
    rows = tuple(_row(name, runs, targets, minimise=minimise) for name, runs in done.items())
    return Comparison(spec.objective.metric, minimise, rows)


def _worst_value(values: Sequence[float | None], *, minimise: bool) -> float | None:
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
    """The median of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
