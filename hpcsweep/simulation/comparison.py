"""Compares sweeps (every combination of some values of the spec, over several seeds) and plots them."""

from __future__ import annotations

import inspect
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hpcsweep.cluster.simulated.task import Curve
from hpcsweep.core.history import Floats
from hpcsweep.core.text import plural
from hpcsweep.errors import SpecError
from hpcsweep.html.page import render, write_page
from hpcsweep.html.plotting import LEGEND_BELOW, quantile_band
from hpcsweep.html.sections import Figure, Section
from hpcsweep.schedulers import scheduler_class
from hpcsweep.simulation.simulate import SimulationResult, by_hypervolume, simulate
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.views.comparison import HYPERVOLUME
from hpcsweep.views.format import number
from hpcsweep.views.front_history import point_by_metric

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
    """All variants, simulated with the same seeds.

    Attributes:
        metric: What the values are of: the objective, or the hypervolume with several.
        reference: Hypervolumes are measured up to this point, by metric; empty with one objective.
    """

    metric: str
    minimise: bool
    rows: tuple[Row, ...]
    reference: Mapping[str, float] = {}

    @property
    def title(self) -> str:
        """What the values are, for people."""
        return self.metric if self.metric == HYPERVOLUME else f"best {self.metric}"


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
    """Simulate each variant with each seed, at least one of both; `progress` is called before each."""
    done: dict[str, list[SimulationResult]] = {}
    for variant in chosen:
        for seed in seeds:
            progress(variant.name, seed)
            run = simulate(variant.spec, curve(variant.spec), seed=seed)
            done.setdefault(variant.name, []).append(run)
    return compare_results(chosen[0].spec, done)


def compare_results(spec: SweepSpec, done: Mapping[str, Sequence[SimulationResult]]) -> Comparison:
    """Compare finished simulations, by variant; each variant must have the same seeds.

    With several objectives by hypervolume, up to one reference point for all of them.
    """
    metric, minimise, point = spec.objective.metric, spec.objective.mode == "min", {}
    objectives = spec.objectives
    if objectives.has_front:
        metric, minimise = HYPERVOLUME, False
        reference, measured = by_hypervolume([run for runs in done.values() for run in runs], objectives)
        point = {} if reference is None else point_by_metric(objectives, reference)
        following = iter(measured)
        done = {name: [next(following) for _ in runs] for name, runs in done.items()}
    targets = [
        _worst_value([run.value for run in same], minimise=minimise)
        for same in zip(*done.values(), strict=True)
    ]
    rows = tuple(_row(name, runs, targets, minimise=minimise) for name, runs in done.items())
    return Comparison(metric, minimise, rows, point)


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


#: Points of each line.
POINTS = 400


def write_plot(comparison: Comparison, path: Path) -> None:
    """Plot each variant's best value over virtual time: median and quartiles over the seeds."""
    title = comparison.title
    html = render(f"{title[0].upper()}{title[1:]}, simulated", [_section(comparison)])
    write_page(path, html)


def _section(comparison: Comparison) -> Section:
    hours = np.linspace(0, max(run.makespan_s for row in comparison.rows for run in row.runs), POINTS) / 3600
    figure = Figure(
        "best-over-time",
        [
            trace
            for index, row in enumerate(comparison.rows)
            for trace in quantile_band(row.name, hours, best_values(row, hours * 3600), index)
        ],
        {
            "xaxis": {"title": {"text": "hours of virtual time"}},
            "yaxis": {"title": {"text": f"{comparison.title} so far (median and quartiles)"}},
            "legend": LEGEND_BELOW,
        },
        f"Median of {plural(len(comparison.rows[0].runs), 'seed')}, in the band of the quartiles.",
        "; ".join(
            f"{row.name} ends with {'no value' if row.value is None else number(row.value)}"
            for row in comparison.rows
        ),
    )
    name = "Hypervolume" if comparison.metric == HYPERVOLUME else "Best value"
    return Section("progress", f"{name} over time", [figure])


def best_values(row: Row, seconds: Floats) -> Floats:
    """Each seed's best value `(k, n)` at the given times `(n,)`; NaN before its first result."""
    return np.array([[run.value_at(at) for at in seconds] for run in row.runs], dtype=float)
