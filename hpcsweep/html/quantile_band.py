"""Lines for several repeats of one thing: the median, in the band from quartile to quartile."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from hpcsweep.core.domains import Floats

_COLOURS: Final = 8


def line_style(place: int) -> dict[str, Any]:
    """Of the line at that place in the legend: a colour of the theme, dashed once they are used up."""
    dash = "dash" if place >= _COLOURS else "solid"
    return {"color": f"@{place % _COLOURS + 1}", "width": 2, "shape": "hv", "dash": dash}


def quartiles(values: Floats) -> Floats:
    """Lower quartile, median, upper quartile of the columns of `(k, n)`, `(3, n)`; NaN where one is."""
    found: Floats = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    return found


def band(name: str, x: Floats, values: Floats, place: int) -> list[dict[str, Any]]:
    """Traces for `values` `(k, n)` of k repeats at `x` `(n,)`, from where all have one."""
    low, middle, high = quartiles(values)
    known = ~np.isnan(middle)
    line = line_style(place)
    shared = {"type": "scatter", "mode": "lines", "legendgroup": name, "name": name, "x": x[known]}
    hidden = {**shared, "line": {"width": 0, "shape": "hv"}, "showlegend": False, "hoverinfo": "skip"}
    return [
        {**hidden, "y": low[known]},
        {**hidden, "y": high[known], "fill": "tonexty", "fillcolor": f"{line['color']}/0.2"},
        {**shared, "y": middle[known], "line": line},
    ]
