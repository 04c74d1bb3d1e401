"""Section: the front of a sweep with several objectives, its picks, and its hypervolume over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any, Final

import numpy as np

from hpcsweep.core.models import Best
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import LEGEND_BELOW, drawn_text, markers, menu, noun, subsample, value_axis
from hpcsweep.html.sections import Block, Figure, Section, Table, Text
from hpcsweep.views.configurations import valued_configurations
from hpcsweep.views.format import duration, number
from hpcsweep.views.front_history import FrontHistory, front_history, point_text, reference_text
from hpcsweep.views.fronts import (
    Front,
    extremes_text,
    front_of,
    infeasible_text,
    values_by_metric,
    values_text,
)
from hpcsweep.views.results import Results

#: So many configurations beside the front, and rows of its table, are shown.
MOST_POINTS: Final = 1500
MOST_ROWS: Final = 40
_UNITS: Final = (("hours", 3600), ("minutes", 60), ("seconds", 1))
_HOVER: Final = "trial %{customdata[0]} at step %{customdata[1]}: %{y:.6~g}, %{x:.6~g}<extra></extra>"


def front(results: Results) -> Section | None:
    """The front by each pair of objectives, its history and its table; None with one objective."""
    state = results.folder.state
    found = front_of(state)
    if found is None or not state.objectives.has_front:
        return None
    blocks: list[Block] = []
    if text := infeasible_text(found, state.objectives):
        blocks.append(Text(f"Beyond a bound are {text}.", "note" if found.feasible else "warning"))
    blocks.append(_figure(results, found))
    history = front_history(results.folder.progress)
    if history is not None and history.steps:
        blocks.append(_history_figure(results, history))
    blocks.append(_table(results, found))
    return Section("front", "Front", blocks)


# ---------------------------------------------------------------------- the front


def _figure(results: Results, found: Front) -> Figure:
    """Two objectives at a time; with more than two the pair is chosen above the figure."""
    state, objectives = results.folder.state, results.objectives
    on_front = {best.trial for best in found.members}
    others = [best for best in valued_configurations(state) if best.trial not in on_front]
    drawn = [others[index] for index in subsample(len(others), best=0, most=MOST_POINTS)]
    kept = [best for best in drawn if objectives.violation(best.values) <= 0]
    beyond = [best for best in drawn if objectives.violation(best.values) > 0]
    pairs = list(combinations(range(len(objectives)), 2))
    traces: list[dict[str, Any]] = []
    axes = []
    for x, y in pairs:
        shown = _traces(objectives, found, kept, beyond, x, y)
        traces += [trace | {"visible": (x, y) == pairs[0]} for trace in shown]
        axes.append((_axis(objectives, found, drawn, x), _axis(objectives, found, drawn, y)))
    several = len(pairs) > 1
    buttons = [_button(objectives, pairs, axes, index) for index in range(len(pairs))]
    layout: dict[str, Any] = {
        "xaxis": axes[0][0],
        "yaxis": axes[0][1],
        "legend": LEGEND_BELOW,
        "hovermode": "closest",
        "updatemenus": [menu("Objectives", buttons)] if several else [],
    }
    what = noun(state)
    ways = ", ".join(f"{each.metric} is {each.mode}imised" for each in objectives)
    line = "" if several else "; the line joins them"
    none = f"No {what} keeps the bounds: shown is what is nearest to them"
    head = f"The front: {what}s that no other one dominates{line}" if found.feasible else none
    crosses = " Crosses are beyond a bound." if beyond or not found.feasible else ""
    return Figure(
        "front-pairs",
        traces,
        layout,
        f"{head}. {ways}.{crosses} Rings mark the knee and the best of each objective."
        f"{drawn_text(len(drawn), len(others), f'other {what}s')}",
        _summary(results, found),
        height=480,
    )


def _axis(objectives: Objectives, found: Front, drawn: Sequence[Best], index: int) -> dict[str, Any]:
    values = np.array([best.values[index] for best in (*found.members, *drawn)], dtype=float)
    each = objectives[index]
    return value_axis(each.metric, values, minimise=each.mode == "min").layout


def _button(
    objectives: Objectives,
    pairs: Sequence[tuple[int, int]],
    axes: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    chosen: int,
) -> dict[str, Any]:
    traces = _OTHERS + len(objectives)
    visible = [index == chosen for index in range(len(pairs)) for _ in range(traces)]
    changes = {
        f"{name}.{key}": value
        for name, axis in zip(("xaxis", "yaxis"), axes[chosen], strict=True)
        for key, value in (
            ("title.text", axis["title"]["text"]),
            ("type", axis["type"]),
            ("nticks", axis.get("nticks", 0)),
            ("range", axis.get("range")),
            ("autorange", "range" not in axis),
        )
    }
    x, y = pairs[chosen]
    label = f"{objectives[x].metric} and {objectives[y].metric}"
    return {"label": label, "method": "update", "args": [{"visible": visible}, changes]}


#: Traces of one pair beside the best of each objective.
_OTHERS: Final = 4


def _traces(
    objectives: Objectives, found: Front, kept: Sequence[Best], beyond: Sequence[Best], x: int, y: int
) -> list[dict[str, Any]]:
    """Of one pair of objectives: the others, who is beyond a bound, the front, and its picks."""
    line = len(objectives) == 2 and found.feasible
    front_style = {
        "mode": "lines+markers" if line else "markers",
        "line": {"color": "@1", "width": 1.5, "dash": "dot"},
        "marker": {"color": "@1", "size": 9, "symbol": "circle" if found.feasible else "x"},
    }
    return [
        _points(kept, x, y, name="others", marker={"color": "@muted", "size": 6, "opacity": 0.5}),
        _points(beyond, x, y, name="beyond a bound", marker={"color": "@bad", "size": 6, "symbol": "x"}),
        _points(found.members, x, y, name="front" if found.feasible else "nearest to the bounds")
        | front_style,
        _points([found.knee], x, y, name="knee", marker=_ring("circle", 17, "@2")),
        *(
            _points(
                [best],
                x,
                y,
                name=f"best {metric}",
                marker=_ring(_SYMBOLS[index % len(_SYMBOLS)], 14, f"@{3 + index % 5}"),
            )
            for index, (metric, best) in enumerate(found.extremes.items())
        ),
    ]


#: Of the best in each objective.
_SYMBOLS: Final = (
    "diamond",
    "square",
    "triangle-up",
    "triangle-down",
    "pentagon",
    "hexagon",
    "star",
    "cross",
)


def _ring(symbol: str, size: int, colour: str) -> dict[str, Any]:
    return {"size": size, "symbol": f"{symbol}-open", "color": colour, "line": {"width": 2}}


def _points(shown: Sequence[Best], x: int, y: int, **more: Any) -> dict[str, Any]:
    return markers(
        np.array([best.values[x] for best in shown], dtype=float),
        np.array([best.values[y] for best in shown], dtype=float),
        customdata=np.array([[best.trial, best.resource] for best in shown], dtype=np.int64).reshape(-1, 2),
        hovertemplate=_HOVER,
        **more,
    )


def _summary(results: Results, found: Front) -> str:
    state = results.folder.state
    knee = values_text(values_by_metric(state, found.knee))
    what = plural(len(found.members), noun(state))
    head = f"{what} on the front" if found.feasible else f"None keeps the bounds, {what} nearest to them"
    extremes = extremes_text(state, found)
    extremes = f"{extremes[:1].upper()}{extremes[1:]}"
    return f"{head}. The knee is trial {found.knee.trial}: {knee}. {extremes}."


def _table(results: Results, found: Front) -> Table:
    """The front, the best in the first objective first; its picks stand out."""
    picks = found.picks
    rows: list[list[str | int | float | None]] = [
        [best.trial, *map(float, best.values), best.resource, ", ".join(picks.get(best.trial, ()))]
        for best in found.members[:MOST_ROWS]
    ]
    marked = frozenset(row for row, best in enumerate(found.members[:MOST_ROWS]) if best.trial in picks)
    what = plural(len(found.members), noun(results.folder.state))
    caption = f"The front: {what}, the best {results.metric} first"
    if len(found.members) > MOST_ROWS:
        caption += f"; the first {MOST_ROWS} are listed"
    return Table(["trial", *results.objectives.metrics, "at step", "picks"], rows, f"{caption}.", marked)


# ---------------------------------------------------------------------- its history


def _history_figure(results: Results, history: FrontHistory) -> Figure:
    """The hypervolume over the time since the start, pauses left out."""
    steps = history.steps
    end = max(results.folder.progress.active_s, steps[-1].active_s)
    unit, seconds = next((unit, size) for unit, size in _UNITS if end >= 2 * size or size == 1)
    shown = [*steps, steps[-1]._replace(active_s=end)]
    trace = {
        "type": "scatter",
        "mode": "lines+markers" if len(steps) <= 50 else "lines",
        "name": "hypervolume",
        "x": [step.active_s / seconds for step in shown],
        "y": [step.value for step in shown],
        "customdata": [[step.trial, step.size] for step in shown],
        "line": {"color": "@1", "width": 2.5, "shape": "hv"},
        "marker": {"size": 6},
        "hovertemplate": "trial %{customdata[0]}: %{y:.6~g}, %{customdata[1]} on the front<extra></extra>",
    }
    values = [step.value for step in steps]
    worse = any(after < before for before, after in pairwise(values))
    falls = " It falls where a configuration did worse when it was trained further." if worse else ""
    half = next(step for step in steps if step.value >= history.value / 2)
    size = plural(steps[-1].size, noun(results.folder.state))
    return Figure(
        "front-hypervolume",
        [trace],
        {
            "xaxis": {"title": {"text": f"{unit} since the start"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "hypervolume"}, "rangemode": "tozero"},
            "showlegend": False,
            "hovermode": "closest",
        },
        f"The hypervolume of the front: what it dominates {point_text(history)}. "
        f"That point is {reference_text(history)}.{falls}",
        f"The hypervolume is {number(history.value)} with {size} on the front. "
        f"Half of it was there after {duration(half.active_s)}; it last changed after "
        f"{duration(steps[-1].active_s)} of {duration(end)}.",
        height=360,
    )
