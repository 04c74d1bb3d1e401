"""All parameters and the value of each trial as lines side by side."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.report.page.axes import (
    Dimension,
    bar_below,
    dimensions,
    far_out,
    linear_ticks,
    log_ticks,
    spans,
)
from hpcsweep.report.page.points import Points, points
from hpcsweep.report.page.sections import Figure, Section
from hpcsweep.report.page.thinning import thinned
from hpcsweep.report.page.wording import count, number
from hpcsweep.report.results import Results

#: So many trials are drawn; the best of them always.
MOST: Final = 1500
BEST: Final = 1000
#: More parameters than that cannot be told apart.
MOST_PARAMETERS: Final = 20
_SHADES: Final = 3
#: Pixels for each axis with its labels.
_ROOM: Final = 90


def parallel(results: Results) -> Section | None:
    """Parallel coordinates over parameters, resource and value; the colour is the value."""
    found = points(results)
    if len(found.trials) < 2 or not results.space.columns:
        return None
    # The best are drawn last, on top of the others.
    shown = found.at(thinned(len(found.trials), best=BEST, most=MOST)[::-1])
    parameters = dimensions(results.space, shown.configs)
    axes = [_parameter(dimension) for dimension in parameters[:MOST_PARAMETERS]]
    if len(set(shown.resources)) > 1:
        axes.append(_resources(shown.resources))
    axes.append(_values(results, shown.values))
    trace = {
        "type": "parcoords",
        "dimensions": axes,
        "line": _colours(results, shown.values),
        "labelangle": -20,
        "labelside": "bottom",
    }
    layout = {"margin": {"l": 60, "r": 60, "t": 30, "b": 60}}
    thin = ""
    if len(shown.trials) < len(found.trials):
        thin = (
            f" {len(shown.trials):,} of {len(found.trials):,} trials with a value are drawn: the best "
            f"{BEST:,}, and an even spread over the others."
        )
    if len(parameters) > MOST_PARAMETERS:
        thin += f" The first {MOST_PARAMETERS} of {len(parameters)} parameters are shown."
    caption = (
        f"Each line is a trial; by {results.metric} the best are orange, good ones blue, the others grey. "
        f"Drag along an axis to pick a range.{thin}"
    )
    figure = Figure(
        "parallel-all",
        [trace],
        layout,
        caption,
        _words(results, found),
        height=480,
        width=_ROOM * len(axes),
    )
    return Section("parallel", "All parameters at once", [figure])


def _parameter(dimension: Dimension) -> dict[str, Any]:
    """One axis; where the parameter is not active, lines go through a place below its ends."""
    values, (low, high) = dimension.scaled, dimension.ends
    ticks, labels = dimension.ticks
    if not dimension.active.all():
        off = low - 0.15 * (high - low)
        values = np.where(dimension.active, values, off)
        low, ticks, labels = off, [off, *ticks], ["not active", *labels]
    return _axis(dimension.name, values, (low, high), ticks, labels)


def _axis(
    name: str, values: Floats, ends: tuple[float, float], ticks: list[float], labels: list[str]
) -> dict[str, Any]:
    return {"label": name, "values": values, "range": list(ends), "tickvals": ticks, "ticktext": labels}


def _resources(resources: Any) -> dict[str, Any]:
    levels = sorted(set(resources.tolist()))
    places = np.log(np.maximum(levels, 1))
    kept = thinned(len(levels), best=1, most=8)
    labels = [f"{levels[place]:,}" for place in kept]
    values = np.log(np.maximum(resources, 1))
    return _axis("resource", values, (places[0], places[-1]), places[kept].tolist(), labels)


def _values(results: Results, values: Floats) -> dict[str, Any]:
    """On a log scale over several magnitudes; values far out stand at the edge."""
    if spans(values):
        low, high = float(values.min()), float(values.max())
        ticks = log_ticks(low, high)
        ends = (np.log10(low), np.log10(high))
        places = np.log10(ticks).tolist()
        return _axis(results.metric, np.log10(values), ends, places, [number(tick) for tick in ticks])
    cut = far_out(values, minimise=results.minimise)
    if cut is not None:
        values = np.minimum(values, cut) if results.minimise else np.maximum(values, cut)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return _axis(results.metric, values, (low - 1, high + 1), [low], [number(low)])
    ticks = linear_ticks(low, high)
    labels = [number(tick) for tick in ticks]
    if cut is not None:
        sign = "≥" if results.minimise else "≤"
        near = [tick for tick in ticks if abs(tick - cut) > 0.06 * (high - low)]
        ticks, labels = [*near, cut], [*map(number, near), f"{sign} {number(cut)}"]
    return _axis(results.metric, values, (low, high), ticks, labels)


def _colours(results: Results, values: Floats) -> dict[str, Any]:
    """By place among those shown, which values far out do not change; the bar has the values.

    The best have the highest number: these are drawn on top.
    """
    sign = -1.0 if results.minimise else 1.0
    order = np.sort(sign * values)
    ticks = np.unique(np.rint(np.linspace(0, len(order) - 1, _SHADES)))
    labels = [number(sign * order[int(tick)]) for tick in ticks]
    return {
        "color": np.searchsorted(order, sign * values).astype(float),
        "colorscale": [[0.0, "@muted"], [0.8, "@1"], [1.0, "@2"]],
        "showscale": True,
        "colorbar": bar_below(f"{results.metric}, the best at the right", ticks, labels, y=-0.28),
    }


def _words(results: Results, found: Points) -> str:
    """What the best tenth have in common."""
    share = max(1, len(found.trials) // 10)
    words = [f"Of the best {count(share, 'trial')} by {results.metric}:"]
    for dimension in dimensions(results.space, found.configs[:share])[:MOST_PARAMETERS]:
        values = dimension.values[dimension.active]
        if not len(values):
            words.append(f"{dimension.name} is never active;")
        elif dimension.listed:
            picked = np.bincount(np.rint(values).astype(int), minlength=len(dimension.listed))
            most = int(picked.argmax())
            words.append(f"{dimension.name} is {dimension.listed[most]} in {picked[most]:,};")
        else:
            low, high = float(values.min()), float(values.max())
            words.append(f"{dimension.name} is {number(low)} to {number(high)};")
    return " ".join(words).rstrip(";") + "."
