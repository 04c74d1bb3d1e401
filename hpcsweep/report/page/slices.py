"""The value against each parameter."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.report.page.axes import (
    LEGEND_BELOW,
    Dimension,
    ValueAxis,
    bar_below,
    dimensions,
    menu,
    nested,
    sideways,
    value_axis,
)
from hpcsweep.report.page.points import Points, points
from hpcsweep.report.page.sections import Figure, Section
from hpcsweep.report.page.thinning import thinned
from hpcsweep.report.page.wording import number
from hpcsweep.report.results import Results

#: So many trials are drawn for one parameter, and points for all of them together; the best are kept.
MOST: Final = 2000
_ALL: Final = 24_000
_BEST: Final = 300


def slices(results: Results) -> Section | None:
    """One parameter at a time, chosen from a list with the most important first; colour: the resource."""
    from hpcsweep.report.importance import importances

    found = points(results)
    if not len(found.trials) or not results.space.columns:
        return None
    most = max(_BEST, min(MOST, _ALL // len(results.space.columns)))
    # The best are drawn last, on top of the others.
    shown = found.at(thinned(len(found.trials), best=_BEST, most=most)[::-1])
    parameters = [one for one in dimensions(results.space, shown.configs) if one.active.any()]
    place = {importance.name: place for place, importance in enumerate(importances(results))}
    parameters.sort(key=lambda parameter: place.get(parameter.name, len(place)))
    axis = value_axis(results.metric, shown.values, minimise=results.minimise)
    traces = []
    for index, parameter in enumerate(parameters):
        traces += _traces(parameter, shown, visible=index == 0)
    thin = ""
    if len(shown.trials) < len(found.trials):
        thin = (
            f" {len(shown.trials):,} of {len(found.trials):,} trials are drawn: the best {_BEST}, and an "
            "even spread over the others."
        )
    caption = (
        f"{results.metric} of each trial against one parameter, chosen above; the ring is the best. Blue "
        f"points were trained for longest.{thin}{axis.note}"
    )
    if len(set(shown.resources)) == 1:
        caption = caption.replace(" Blue points were trained for longest.", "")
    figure = Figure(
        "slices-one",
        traces,
        _layout(parameters, axis),
        caption,
        _words(results, dimensions(results.space, found.configs), found.values),
        height=500,
    )
    return Section("slices", "Each parameter", [figure])


def _layout(parameters: list[Dimension], axis: ValueAxis) -> dict[str, Any]:
    buttons = []
    for index, parameter in enumerate(parameters):
        visible = [owner == index for owner in range(len(parameters)) for _ in range(2)]
        changes = {f"xaxis.{key}": value for key, value in parameter.axis.items()}
        buttons.append({"label": parameter.name, "method": "update", "args": [{"visible": visible}, changes]})
    menus = [menu("Parameter", buttons)] if len(buttons) > 1 else []
    return {
        "xaxis": nested(parameters[0].axis),
        "yaxis": axis.layout,
        "showlegend": False,
        "legend": LEGEND_BELOW,
        "hovermode": "closest",
        "updatemenus": [*menus, *([axis.menu] if axis.menu else [])],
    }


def _traces(parameter: Dimension, shown: Points, *, visible: bool) -> list[dict[str, Any]]:
    """The trials in which it is active, and a ring around the best of them."""
    places = np.flatnonzero(parameter.active)
    x = parameter.values[places]
    if parameter.listed:
        x = x + sideways(shown.trials[places])
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": parameter.name,
        "visible": visible,
        "x": x,
        "y": shown.values[places],
        "customdata": np.stack([shown.trials[places], shown.resources[places]], axis=1),
        "marker": {"size": 7, "opacity": 0.8, **_colours(shown.resources, places)},
        "hovertemplate": "trial %{customdata[0]} at %{customdata[1]}: %{y:.6~g}<extra></extra>",
    }
    ring = {
        "type": "scatter",
        "mode": "markers",
        "visible": visible,
        "x": x[-1:],
        "y": shown.values[places][-1:],
        "marker": {"size": 15, "symbol": "circle-open", "color": "@2", "line": {"width": 2.5}},
        "hoverinfo": "skip",
    }
    return [trace, ring]


def _colours(resources: NDArray[np.int64], places: NDArray[np.int64]) -> dict[str, Any]:
    """By the logarithm of the resource where there are several; the same scale for each parameter."""
    levels = np.unique(resources)
    if len(levels) == 1:
        return {"color": "@1"}
    ticks = levels[thinned(len(levels), best=1, most=8)]
    return {
        "color": np.log(np.maximum(resources[places], 1)),
        "cmin": float(np.log(max(levels[0], 1))),
        "cmax": float(np.log(levels[-1])),
        "colorscale": [[0.0, "@muted/0.6"], [0.5, "@6"], [1.0, "@1"]],
        "colorbar": bar_below(
            "resource", np.log(np.maximum(ticks, 1)), [f"{tick:,}" for tick in ticks], y=-0.22
        ),
    }


def _words(results: Results, parameters: list[Dimension], values: Floats) -> str:
    """Medians in the thirds of each domain, or for each listed value."""
    words = [f"Medians of {results.metric}."]
    for parameter in parameters:
        low, high = parameter.ends
        parts = len(parameter.listed) or 3
        part = np.clip(np.floor((parameter.scaled - low) / (high - low) * parts), 0, parts - 1)
        names = parameter.listed or ("lowest third", "middle third", "highest third")
        told = [
            f"{name} {number(float(np.median(values[part == index])))}"
            for index, name in enumerate(names)
            if (part == index).any()
        ]
        if told:
            words.append(f"{parameter.name}: {', '.join(told)}.")
    return " ".join(words)
