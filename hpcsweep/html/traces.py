"""Traces, legends and subsamples that several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.models import Run
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.state import SweepState

Indices: TypeAlias = NDArray[np.int64]

#: Below the figure: beside it phones have no room.
LEGEND_BELOW: Final = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}
LEGEND_ABOVE: Final = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"}
#: What is shown of a point whose custom data are a trial and a step or resource.
HOVER: Final = "trial %{customdata[0]} at step %{customdata[1]}: %{y:.6~g}<extra></extra>"
_COLOURS: Final = 8


def noun(state: SweepState) -> str:
    """What a point is: a trial, or a configuration where each has several."""
    return "configuration" if state.repeats > 1 else "trial"


# ---------------------------------------------------------------------- which points, and where


def subsample(count: int, *, best: int, most: int) -> Indices:
    """At most `most` of the indices 0 .. count - 1: the first `best`, and an even spread to the last."""
    if count <= most:
        return np.arange(count)
    spread = np.linspace(best, count - 1, most - best) if most > best else np.empty(0)
    return np.concatenate([np.arange(best), np.rint(spread).astype(np.int64)])


def drawn_text(drawn: int, total: int, what: str) -> str:
    """For example ` 1,500 of 2,000 runs are drawn.`; empty where all are."""
    return f" {drawn:,} of {total:,} {what} are drawn." if drawn < total else ""


def jitter(trials: NDArray[np.int64]) -> Floats:
    """Shifts of -0.3 to 0.3 that keep equal points apart; each trial always has the same."""
    return np.asarray((trials * 0.618034) % 1.0 - 0.5) * 0.6


# ---------------------------------------------------------------------- points


def markers(x: Any, y: Any, **more: Any) -> dict[str, Any]:
    """Points."""
    return {"type": "scatter", "mode": "markers", "x": x, "y": y} | more


def ring(x: Any, y: Any, **line: Any) -> dict[str, Any]:
    """A ring around the best point."""
    marker = {"size": 15, "symbol": "circle-open", "color": "@2", "line": {"width": 2.5}} | line
    return markers(x, y, showlegend=False, marker=marker, hoverinfo="skip")


def crosses(x: Any, y: Any, runs: Sequence[Run], **more: Any) -> dict[str, Any]:
    """Failed configurations, each by the run that failed."""
    kinds = [[run.trial, run.resource, FACTS[run.failure_kind].label] for run in runs if run.failure_kind]
    hover = "trial %{customdata[0]} at step %{customdata[1]}: %{customdata[2]}<extra></extra>"
    marker = {"symbol": "x", "size": 6, "color": "@bad", "opacity": 0.8}
    return markers(x, y, name="failed", customdata=kinds, marker=marker, hovertemplate=hover) | more


def error_bars(values: Floats, low: Floats, high: Floats, **style: Any) -> dict[str, Any]:
    """Lines from `low` to `high`."""
    return {"type": "data", "symmetric": False, "array": high - values, "arrayminus": values - low} | style


def dotted_line(x: float, *, top: float = 1.0) -> dict[str, Any]:
    """A vertical line across the figure, for `layout.shapes`."""
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": top, "line": line}


# ---------------------------------------------------------------------- lines with quantile bands


def line_style(index: int) -> dict[str, Any]:
    """Of the line with that index in the legend: a colour of the theme, dashed once they are used up."""
    dash = "dash" if index >= _COLOURS else "solid"
    return {"color": f"@{index % _COLOURS + 1}", "width": 2, "shape": "hv", "dash": dash}


def quartiles(values: Floats) -> Floats:
    """Lower quartile, median, upper quartile of the columns of `(k, n)`, `(3, n)`; NaN where one is."""
    found: Floats = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    return found


def quantile_band(name: str, x: Floats, values: Floats, index: int) -> list[dict[str, Any]]:
    """The median of `values` `(k, n)` of k repeats at `x` `(n,)` in the band of its quartiles.

    It begins where all repeats have a value.
    """
    low, middle, high = quartiles(values)
    known = ~np.isnan(middle)
    line = line_style(index)
    shared = {"type": "scatter", "mode": "lines", "legendgroup": name, "name": name, "x": x[known]}
    hidden = {**shared, "line": {"width": 0, "shape": "hv"}, "showlegend": False, "hoverinfo": "skip"}
    return [
        {**hidden, "y": low[known]},
        {**hidden, "y": high[known], "fill": "tonexty", "fillcolor": f"{line['color']}/0.2"},
        {**shared, "y": middle[known], "line": line},
    ]
