"""Section: the value against each parameter."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.objectives import Objective
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import (
    HOVER,
    LEGEND_ABOVE,
    OBJECTIVE,
    RESOURCE,
    SYMBOLS_TEXT,
    Dimension,
    ValueAxis,
    axis_menu,
    colour_bar,
    crosses,
    dimensions,
    each_objective,
    error_bars,
    jitter,
    markers,
    noun,
    resource_label,
    ring,
    subsample,
    unflatten,
    value_axis,
)
from hpcsweep.html.sections import Block, Figure, Section, choice
from hpcsweep.views.configurations import (
    Configurations,
    FailedConfigurations,
    configurations,
    valued_configurations,
)
from hpcsweep.views.format import number
from hpcsweep.views.importance import importances
from hpcsweep.views.resource_values import compared_resources, values_of
from hpcsweep.views.results import Results

#: So many trials are drawn for one parameter, and points for all of them together; the best are kept.
MOST: Final = 2000
_ALL: Final = 24_000
_BEST: Final = 300
#: So many failed trials are drawn for one parameter.
_FAILED: Final = 500


def slices(results: Results, resource: int | None = None, objective: int | None = None) -> Section | None:
    """One parameter at a time, chosen from a list with the most important first.

    Values of one objective at one resource, which are chosen above unless they are given; or the newest
    value of each trial, in the colour of the resource.
    """
    state = results.folder.state
    if not valued_configurations(state) or not results.space.columns:
        return None
    versions: dict[tuple[str, ...], list[Block]] = {}
    chosen: tuple[str, ...] = ()
    for index, of, own in each_objective(results.objectives, objective):
        if resource is not None:
            by_resource, shown = {"": configurations(state, resource, index)}, ""
        else:
            by_resource, shown = _by_resource(results, index)
        for at, (label, valued) in enumerate(by_resource.items()):
            ending = own + (f"-{at}" if label != shown else "")
            versions[of.metric, label] = [_figure(results, valued, index, id=ending)]
        chosen = chosen or (of.metric, shown)
    blocks = choice("slices-by-resource", [OBJECTIVE, RESOURCE], versions, chosen)
    return Section("slices", "Each parameter", blocks)


def _by_resource(results: Results, objective: int) -> tuple[dict[str, Configurations], str]:
    """The values of one objective by what the list of resources offers, and which of these is shown first."""
    state = results.folder.state
    newest, counts = configurations(state, objective=objective), compared_resources(results, objective)
    if len(set(newest.resources.tolist())) == 1:
        counts = {}  # nothing to choose from
    labels = {at: resource_label(at, count, state) for at, count in counts.items()}
    of_all = f"newest of each ({plural(len(newest.trials), noun(state))})"
    found = {label: configurations(state, at, objective) for at, label in labels.items()} | {of_all: newest}
    return found, labels.get(values_of(results, objective).resource, of_all)


def _figure(results: Results, valued: Configurations, objective: int, *, id: str) -> Figure:
    """The configurations by their values of one objective; `id` ends its own."""
    of = results.objectives[objective]
    most = max(_BEST, min(MOST, _ALL // len(results.space.columns)))
    # The best are drawn last, on top of the others.
    shown = valued.take(subsample(len(valued.trials), best=_BEST, most=most)[::-1])
    failed = valued.failed.take(subsample(len(valued.failed.trials), best=0, most=min(most, _FAILED)))
    parameters = [each for each in dimensions(results.space, shown.configs) if each.active.any()]
    of_failed = {each.name: each for each in dimensions(results.space, failed.configs)}
    rank = {importance.name: rank for rank, importance in enumerate(importances(results, objective))}
    parameters.sort(key=lambda parameter: rank.get(parameter.name, len(rank)))
    axis = value_axis(of.metric, shown.values, minimise=of.minimise)
    traces = []
    for index, parameter in enumerate(parameters):
        traces += _traces(parameter, shown, visible=index == 0)
        if len(failed.trials):
            traces.append(_failed(of_failed[parameter.name], failed, visible=index == 0))
    return Figure(
        f"slices-one{id}",
        traces,
        _slices_layout(of, parameters, axis, failed=len(failed.trials) > 0),
        _slices_caption(results, of.metric, valued, shown, failed) + axis.note,
        _slices_summary(results, of.metric, valued),
        height=500,
    )


def _slices_caption(
    results: Results,
    metric: str,
    valued: Configurations,
    shown: Configurations,
    failed: FailedConfigurations,
) -> str:
    what = noun(results.folder.state)
    at = f" at resource {valued.resources[0]:,}" if len(set(valued.resources)) == 1 else ""
    text = f"{metric} of each {what}{at} against one parameter, chosen above."
    if what != "trial":
        text = (
            f"Mean {metric} of each configuration{at} against one parameter, chosen above. "
            "Lines reach from the least to the largest value of its repeats."
        )
    active = ", where it has the parameter" if any(p.when for p in results.space.columns) else ""
    one = not results.objectives.has_front
    best = one and results.best and valued.trials[0] == results.best["trial"]
    text += (
        f" The ring is the best {'of the sweep' if best else 'of these'}, trial {valued.trials[0]}{active}."
    )
    if len(set(shown.resources)) > 1:
        text += " The colour is the resource that the value is of."
    if len(shown.trials) < len(valued.trials):
        text += (
            f" {len(shown.trials):,} of {len(valued.trials):,} {what}s are drawn: the best {_BEST}, and an "
            "even spread over the others."
        )
    if total := len(valued.failed.trials):
        some = f", {len(failed.trials):,} of them drawn" if len(failed.trials) < total else ""
        have = "has" if total == 1 else "have"
        text += f" {plural(total, what)} failed and {have} no value{some}: {SYMBOLS_TEXT}."
    return text


def _slices_layout(
    of: Objective, parameters: list[Dimension], axis: ValueAxis, *, failed: bool
) -> dict[str, Any]:
    axes = {parameter.name: parameter.axis for parameter in parameters}
    menus = axis_menu("Parameter", axes, traces=3 if failed else 2)
    layout: dict[str, Any] = {
        "xaxis": unflatten(parameters[0].axis),
        "yaxis": axis.layout,
        "showlegend": failed,
        "legend": LEGEND_ABOVE,
        "hovermode": "closest",
        "updatemenus": [*menus, *axis.menus],
    }
    if failed:  # a strip at the worse side
        plot, strip = ([0.0, 0.88], [0.91, 1.0]) if of.minimise else ([0.12, 1.0], [0.0, 0.09])
        layout["yaxis"] = {**axis.layout, "domain": plot}
        layout["yaxis2"] = {
            "domain": strip,
            "range": [-0.5, 0.5],
            "fixedrange": True,
            "tickmode": "array",
            "tickvals": [0],
            "ticktext": ["failed"],
            "showgrid": False,
            "zeroline": False,
        }
        layout["xaxis"]["anchor"] = "y" if of.minimise else "y2"
    return layout


def _traces(parameter: Dimension, shown: Configurations, *, visible: bool) -> list[dict[str, Any]]:
    """The trials in which it is active, and a ring around the best of the sweep if it is among them."""
    active = np.flatnonzero(parameter.active)
    x, y = parameter.values[active], shown.values[active]
    if parameter.listed:
        x = x + jitter(shown.trials[active])
    points = markers(
        x,
        y,
        name=parameter.name,
        visible=visible,
        showlegend=False,
        customdata=np.stack([shown.trials[active], shown.resources[active]], axis=1),
        marker={"size": 7, "opacity": 0.8, **_colours(shown.resources, active)},
        hovertemplate=HOVER,
    )
    if (shown.high > shown.low).any():
        points["error_y"] = error_bars(
            y, shown.low[active], shown.high[active], color="@muted", thickness=1, width=0
        )
    best = active[-1:] == len(shown.trials) - 1
    return [points, ring(x[-1:][best], y[-1:][best]) | {"visible": visible}]


def _failed(parameter: Dimension, failed: FailedConfigurations, *, visible: bool) -> dict[str, Any]:
    """Those in which it is active, in a strip of their own."""
    active = np.flatnonzero(parameter.active)
    x, trials = parameter.values[active], failed.trials[active]
    return crosses(
        x + jitter(trials) if parameter.listed else x,
        jitter(7 * trials),
        [failed.runs[index] for index in active.tolist()],
        visible=visible,
        yaxis="y2",
    )


def _colours(resources: NDArray[np.int64], active: NDArray[np.int64]) -> dict[str, Any]:
    """By the logarithm of the resource where there are several; the same scale for each parameter."""
    levels = np.unique(resources)
    if len(levels) == 1:
        return {"color": "@1"}
    ticks = levels[subsample(len(levels), best=1, most=8)]
    return {
        "color": np.log(np.maximum(resources[active], 1)),
        "cmin": float(np.log(max(levels[0], 1))),
        "cmax": float(np.log(levels[-1])),
        "colorscale": [[0.0, "@low"], [0.5, "@middle"], [1.0, "@high"]],
        "colorbar": colour_bar(
            "resource", np.log(np.maximum(ticks, 1)), [f"{tick:,}" for tick in ticks], y=-0.22
        ),
    }


def _slices_summary(results: Results, metric: str, valued: Configurations) -> str:
    """Medians in the thirds of each domain, or for each listed value, and how many failed there."""
    several = len(set(valued.resources)) > 1
    own = ", each at the resource of its newest value" if several else f" at resource {valued.resources[0]:,}"
    sentences = [f"Medians of {metric}{own}."]
    of_failed = dimensions(results.space, valued.failed.configs)
    for parameter, failed in zip(dimensions(results.space, valued.configs), of_failed, strict=True):
        names = parameter.listed or ("lowest third", "middle third", "highest third")
        part, part_failed = _parts(parameter, len(names)), _parts(failed, len(names))
        texts = []
        for index, name in enumerate(names):
            here, lost = valued.values[part == index], int((part_failed == index).sum())
            if len(here) or lost:
                median = number(float(np.median(here))) if len(here) else "no value"
                texts.append(f"{name} {median}" + (f" ({lost:,} failed)" if lost else ""))
        if texts:
            sentences.append(f"{parameter.name}: {', '.join(texts)}.")
    return " ".join(sentences)


def _parts(parameter: Dimension, parts: int) -> Floats:
    """In which of the equal parts of the domain each value lies `(n,)`; NaN where inactive."""
    low, high = parameter.ends
    return np.clip(np.floor((parameter.scaled - low) / (high - low) * parts), 0, parts - 1)
