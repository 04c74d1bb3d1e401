"""Sections on parameters: how much each matters, and the value against each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import (
    HOVER,
    LEGEND_ABOVE,
    SYMBOLS_TEXT,
    Dimension,
    ValueAxis,
    axis_menu,
    colour_bar,
    crosses,
    dimensions,
    error_bars,
    jitter,
    markers,
    noun,
    ring,
    subsample,
    unflatten,
    value_axis,
)
from hpcsweep.html.sections import Block, Figure, Section, Text
from hpcsweep.views.configurations import Configurations, FailedConfigurations, configurations
from hpcsweep.views.format import label, number
from hpcsweep.views.importance import LEAST, Analysis, Importance, analysis, importances, values_of
from hpcsweep.views.results import Results

#: So many trials are drawn for one parameter, and points for all of them together; the best are kept.
MOST: Final = 2000
_ALL: Final = 24_000
_BEST: Final = 300
#: So many failed trials are drawn for one parameter.
_FAILED: Final = 500


def slices(results: Results) -> Section | None:
    """One parameter at a time, chosen from a list with the most important first; colour: the resource."""
    valued = configurations(results.folder.state)
    if not len(valued.trials) or not results.space.columns:
        return None
    most = max(_BEST, min(MOST, _ALL // len(results.space.columns)))
    # The best are drawn last, on top of the others.
    shown = valued.take(subsample(len(valued.trials), best=_BEST, most=most)[::-1])
    failed = valued.failed.take(subsample(len(valued.failed.trials), best=0, most=min(most, _FAILED)))
    parameters = [each for each in dimensions(results.space, shown.configs) if each.active.any()]
    of_failed = {each.name: each for each in dimensions(results.space, failed.configs)}
    rank = {importance.name: rank for rank, importance in enumerate(importances(results))}
    parameters.sort(key=lambda parameter: rank.get(parameter.name, len(rank)))
    axis = value_axis(results.metric, shown.values, minimise=results.minimise)
    traces = []
    for index, parameter in enumerate(parameters):
        traces += _traces(parameter, shown, visible=index == 0)
        if len(failed.trials):
            traces.append(_failed(of_failed[parameter.name], failed, visible=index == 0))
    figure = Figure(
        "slices-one",
        traces,
        _slices_layout(results, parameters, axis, failed=len(failed.trials) > 0),
        _slices_caption(results, valued, shown, failed) + axis.note,
        _slices_summary(results, valued),
        height=500,
    )
    return Section("slices", "Each parameter", [figure])


def _slices_caption(
    results: Results, valued: Configurations, shown: Configurations, failed: FailedConfigurations
) -> str:
    what = noun(results.folder.state)
    text = f"{results.metric} of each {what} against one parameter, chosen above."
    if what != "trial":
        text = (
            f"Mean {results.metric} of each configuration against one parameter, chosen above. "
            "Lines reach from the least to the largest value of its repeats."
        )
    active = ", where it has the parameter" if any(p.when for p in results.space.columns) else ""
    text += f" The ring is the best of the sweep, trial {valued.trials[0]}{active}."
    if len(set(shown.resources)) > 1:
        text += " Blue points were trained for longest."
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
    results: Results, parameters: list[Dimension], axis: ValueAxis, *, failed: bool
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
        plot, strip = ([0.0, 0.88], [0.91, 1.0]) if results.minimise else ([0.12, 1.0], [0.0, 0.09])
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
        layout["xaxis"]["anchor"] = "y" if results.minimise else "y2"
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


def _slices_summary(results: Results, valued: Configurations) -> str:
    """Medians in the thirds of each domain, or for each listed value, and how many failed there."""
    own = ", each at the resource of its newest value" if len(set(valued.resources)) > 1 else ""
    sentences = [f"Medians of {results.metric}{own}."]
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


#: So many parameters have a bar.
MOST_BARS: Final = 25
#: Below this R² the shares are those of a model that knows little.
_POOR: Final = 0.5


def importance(results: Results) -> Section | None:
    """A bar for each parameter, by objective; words where values are too few, None without parameters."""
    if not results.space.columns:
        return None
    blocks: list[Block] = []
    for objective in range(len(results.objectives)):
        result = analysis(results, objective)
        if result is None:
            blocks.append(Text(_too_few_values(results, objective)))
        else:
            blocks += _importance_blocks(results, result, objective)
    return Section("importance", "Which parameters matter", blocks)


def _too_few_values(results: Results, objective: int) -> str:
    values = values_of(results, objective)
    if len(values.values) < LEAST:
        at = f" at resource {values.resource}" if len(values.values) else ""
        return (
            f"Too few values: {LEAST} configurations with a value at the same resource are needed, "
            f"there are {len(values.values)}{at}."
        )
    return (
        f"All {len(values.values)} configurations at resource {values.resource} have the same "
        f"{results.objectives[objective].metric}: no parameter makes a difference."
    )


def _importance_blocks(results: Results, result: Analysis, objective: int) -> list[Block]:
    metric = results.objectives[objective].metric
    blocks: list[Block] = [
        Text(
            f"A share is the part of the variance of {metric} over the whole space that is due to this "
            "parameter alone, whatever the others are; a conditional parameter counts where it is active. "
            f"{_percent(result.interactions)} is due to interactions."
        )
    ]
    if results.space.constraints:
        blocks.append(Text("Constraints tie parameters together: shares may overlap.", "note"))
    if result.explained < _POOR:
        explained = max(0.0, result.explained)
        blocks.append(
            Text(
                f"Unreliable: the model behind these shares predicts only {_percent(explained)} of the "
                f"variance of {metric} in configurations that it has not seen. More trials help, "
                "unless the values are mostly noise.",
                "warning",
            )
        )
    figure = _importance_figure(result)
    if results.objectives.has_front:
        figure = figure._replace(
            id=f"{figure.id}-{objective}",
            caption=f"For {metric}. {figure.caption}",
            summary=f"For {metric}: {figure.summary}",
        )
    lost = len(configurations(results.folder.state).failed.trials)
    if lost:
        left_out = (
            f"{plural(lost, 'failed configuration')} without a value {'is' if lost == 1 else 'are'} left out"
        )
        figure = figure._replace(caption=f"{figure.caption} {left_out}.")
    return [*blocks, figure]


def _importance_figure(result: Analysis) -> Figure:
    shown = result.parameters[:MOST_BARS]
    bars = shown[::-1]  # plotly begins at the bottom
    bounds = (np.array(each) for each in zip(*((bar.share, bar.low, bar.high) for bar in bars), strict=True))
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(len(bars))),
        "x": [bar.share for bar in bars],
        "error_x": error_bars(*bounds, color="@8"),
        "marker": {"color": "@1/0.6"},
        "text": [bar.name for bar in bars],
        "textposition": "none",
        "customdata": [[_percent(bar.low), _percent(bar.high)] for bar in bars],
        "hovertemplate": "%{text}: %{x:.1%}, between %{customdata[0]} and %{customdata[1]}<extra></extra>",
    }
    layout = {
        "xaxis": {
            "title": {"text": "share of the variance"},
            "tickformat": ".0%",
            "range": [0, max(bar.high for bar in bars) * 1.03],
        },
        "yaxis": {
            "title": {"text": "parameter"},
            "tickvals": list(range(len(bars))),
            "ticktext": [label(bar.name) for bar in bars],
            "automargin": True,
        },
        "showlegend": False,
    }
    return Figure(
        "importance",
        [trace],
        layout,
        _importance_caption(result),
        _importance_summary(shown),
        height=140 + 30 * len(bars),
    )


def _importance_caption(result: Analysis) -> str:
    """Which values, how the shares were computed, how certain they are, what was left out."""
    configurations = plural(result.values, "configuration")
    text = f"Functional ANOVA of {configurations} with a value at resource {result.resource}"
    if result.values < result.configurations:
        text += f", the highest that many of {result.configurations:,} reached; more training may change it"
    if result.used < result.values:
        text += f". Computed from {result.used:,} of them, drawn at random"
    if result.clipped:
        count = "counts" if result.clipped == 1 else "count"
        text += f". {plural(result.clipped, 'outlier')} {count} as the worst of the others"
    text += (
        f". The model (polynomials and trees) has an R² of {result.explained:.2f} on configurations that it "
        "has not seen. Lines: intervals of about 90%, from models of resampled configurations."
    )
    if len(result.parameters) > MOST_BARS:
        text += f" The {len(result.parameters) - MOST_BARS} smallest have no bar."
    return text


def _importance_summary(bars: Sequence[Importance]) -> str:
    return "; ".join(
        f"{bar.name} {_percent(bar.share)} ({_percent(bar.low)} to {_percent(bar.high)})" for bar in bars
    )


def _percent(share: float) -> str:
    return f"{share:.0%}"
