"""The page of several sweeps: a table, the best values over cost and time, and the differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.core.text import plural
from hpcsweep.html.page import render
from hpcsweep.html.plotting import LEGEND_BELOW, line_style, quantile_band, value_axis
from hpcsweep.html.sections import Figure, Section, Table, Text
from hpcsweep.views.comparison import CONFIDENCE, Axis, Comparison, Estimate, Group, Pair, SweepSummary
from hpcsweep.views.format import label, number

#: Points of a line that stands for several sweeps.
_POINTS: Final = 300
#: Positive values are shown on a log scale from this span on: the first ones are often outliers.
_SPAN: Final = 10.0

_Cells: TypeAlias = Sequence[str | int | float | None]


def comparison_page(comparison: Comparison) -> str:
    """The whole page as HTML."""
    return render(f"{len(comparison.sweeps)} sweeps compared by {comparison.metric}", sections(comparison))


def sections(comparison: Comparison) -> list[Section]:
    """Sweeps, best values over cost and time, differences."""
    return [
        Section(
            "sweeps", "Sweeps", [*(Text(note, "warning") for note in comparison.notes), *_tables(comparison)]
        ),
        Section("progress", "Best value over cost and time", _figures(comparison)),
        Section("equal-cost", f"At equal {comparison.unit}", _equal(comparison)),
    ]


# ---------------------------------------------------------------------- tables


def _tables(comparison: Comparison) -> list[Table]:
    rows: list[_Cells] = []
    configs: list[_Cells] = []
    repeats = any(sweep.error is not None for sweep in comparison.sweeps)
    for group in comparison.groups:
        for sweep in group.sweeps:
            rows.append([group.label, *_row(sweep, repeats=repeats)])
            if sweep.best:
                config = ", ".join(f"{name} = {label(value)}" for name, value in sweep.best["config"].items())
                configs.append([sweep.label, config])
    error = ["± standard error"] if repeats else []
    columns = ["sweep", "folder", "searcher", "scheduler", "seed", "state", "trials"]
    columns += [f"best {comparison.metric}", *error, "at", comparison.unit, "hours"]
    caption = (
        f"Each sweep with its best (the {'smallest' if comparison.minimise else 'largest'}) "
        f"{comparison.metric} and its resource. Hours are from start to end, pauses excluded."
    )
    if repeats:
        caption += " The standard error is over the repeats of the best configuration."
    return [
        Table(columns, rows, caption, _best_rows(comparison)),
        Table(["folder", "configuration"], configs, "The best configuration of each sweep."),
    ]


def _row(sweep: SweepSummary, *, repeats: bool) -> list[str | int | float | None]:
    best = sweep.best or {}
    about = [sweep.label, sweep.searcher, sweep.scheduler, sweep.seed, sweep.state, sweep.trials]
    error = [sweep.error] if repeats else []
    cost = [float(short(hours)) for hours in (sweep.cost, sweep.time)]
    return [*about, best.get("value"), *error, best.get("resource"), *cost]


def _best_rows(comparison: Comparison) -> frozenset[int]:
    """Where the best value of all is."""
    values = {at: sweep.best["value"] for at, sweep in enumerate(comparison.sweeps) if sweep.best}
    best = (min if comparison.minimise else max)(values.values(), default=None)
    return frozenset(at for at, value in values.items() if value == best)


def _equal(comparison: Comparison) -> list[Table | Text]:
    if not comparison.budgets:
        return [Text("One of the sweeps has cost nothing so far: there is no equal cost to compare at.")]
    heads = [f"{short(hours)} {comparison.unit}" for hours in comparison.budgets]
    rows: list[_Cells] = [
        [group.label, len(group.sweeps), *(estimate_text(value) for value in group.values)]
        for group in comparison.groups
    ]
    table = Table(
        ["sweep", "repeats", *heads],
        rows,
        f"The best {comparison.metric} so far at equal cost, up to the total of the cheapest sweep. For "
        f"sweeps that differ only in the seed: their mean, its {CONFIDENCE:.0%} interval by Student's t, and "
        "the median.",
    )
    return [table, *_differences(comparison)]


def _differences(comparison: Comparison) -> list[Table | Text]:
    if not comparison.pairs:
        return []
    rows: list[_Cells] = [
        [pair_text(pair), *_difference(pair, minimise=comparison.minimise)] for pair in comparison.pairs
    ]
    return [
        Table(
            ["pair", f"difference in {comparison.metric}", f"{CONFIDENCE:.0%} interval", "result"],
            rows,
            f"Means at {short(comparison.budgets[-1])} {comparison.unit}, the first minus the second; "
            "intervals by Welch's t, not corrected for the number of pairs.",
        )
    ]


def pair_text(pair: Pair) -> str:
    return f"{pair.first} against {pair.second}"


def _difference(pair: Pair, *, minimise: bool) -> tuple[float, str, str]:
    interval = "" if pair.low is None or pair.high is None else f"{short(pair.low)} to {short(pair.high)}"
    return float(short(pair.difference)), interval, verdict(pair, minimise=minimise)


def verdict(pair: Pair, *, minimise: bool) -> str:
    """The difference in words."""
    if pair.single:
        which = "each" if len(pair.single) == 2 else f"of {pair.single[0]}"
        return f"one seed {which}: no interval; run more seeds"
    better = pair.better(minimise=minimise)
    return "undecided: the interval contains 0" if better is None else f"{better} is better"


def estimate_text(estimate: Estimate | None) -> str:
    """`0.12 (0.11 to 0.13), median 0.119`; a single value alone."""
    if estimate is None:
        return "none yet"
    if estimate.low is None or estimate.high is None:
        return short(estimate.mean)
    interval = f"{short(estimate.low)} to {short(estimate.high)}"
    return f"{short(estimate.mean)} ({interval}), median {short(estimate.median)}"


def short(value: float) -> str:
    """Four digits."""
    return f"{value:.4g}"


# ---------------------------------------------------------------------- figures


def _figures(comparison: Comparison) -> list[Figure | Text]:
    if not any(len(sweep.curve.value) for sweep in comparison.sweeps):
        return [Text("No sweep has a value yet.")]
    return [
        _figure(comparison, "cost", comparison.unit),
        _figure(comparison, "time", "hours since the start"),
    ]


def _figure(comparison: Comparison, axis: Axis, title: str) -> Figure:
    values = np.concatenate([sweep.curve.value for sweep in comparison.sweeps])
    traces = [trace for index, group in enumerate(comparison.groups) for trace in _lines(group, axis, index)]
    scale, note = _scale(comparison, values)
    layout = {
        "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "yaxis": scale,
        "legend": LEGEND_BELOW,
    }
    repeated = any(len(group.sweeps) > 1 for group in comparison.groups)
    bands = " Repeats are shown as their median in the band of their quartiles." if repeated else ""
    return Figure(
        f"best-over-{axis}",
        traces,
        layout,
        f"The best {comparison.metric} so far over {title}.{bands} A sweep that has ended keeps its value."
        f"{note}",
        "; ".join(_summary(group, axis, title) for group in comparison.groups),
    )


def _scale(comparison: Comparison, values: Floats) -> tuple[dict[str, Any], str]:
    """The axis of the values, and a note on outliers."""
    title = f"best {comparison.metric} so far"
    if values.min() > 0 and values.max() >= _SPAN * values.min():
        return {"title": {"text": title}, "type": "log", "exponentformat": "power"}, ""
    axis = value_axis(title, values, minimise=comparison.minimise)
    return axis.layout, axis.note


def _end(sweep: SweepSummary, axis: Axis) -> float:
    return sweep.cost if axis == "cost" else sweep.time


def _lines(group: Group, axis: Axis, index: int) -> list[dict[str, Any]]:
    """One sweep as it went; for several the median in its band."""
    end = max(_end(sweep, axis) for sweep in group.sweeps)
    if len(group.sweeps) > 1:
        hours = np.linspace(0, end, _POINTS)
        values = np.array([sweep.curve.at(hours, axis) for sweep in group.sweeps])
        return quantile_band(group.label, hours, values, index)
    curve = group.sweeps[0].curve
    if not len(curve.value):
        return []
    x = np.append(curve.cost if axis == "cost" else curve.time, end)
    y = np.append(curve.value, curve.value[-1])
    shared = {"type": "scatter", "mode": "lines", "legendgroup": group.label, "name": group.label}
    return [{**shared, "x": x, "y": y, "line": line_style(index)}]


def _summary(group: Group, axis: Axis, unit: str) -> str:
    """Where the line ends."""
    values = [sweep.best["value"] for sweep in group.sweeps if sweep.best]
    if not values:
        return f"{group.label} has no value"
    end = max(_end(sweep, axis) for sweep in group.sweeps)
    median = f"{number(float(np.median(values)))} after {short(end)} {unit}"
    if len(group.sweeps) == 1:
        return f"{group.label} reaches {median}"
    return f"the median of {plural(len(group.sweeps), 'repeat')} of {group.label} reaches {median}"
