"""The plot of the best value over time: one HTML file with all that it needs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from hpcsweep.core.history import Floats
from hpcsweep.errors import FolderError
from hpcsweep.simulation.comparing import Comparison, Row

#: Points of each line.
POINTS = 400
#: Okabe and Ito's colours: they differ for colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def write_plot(comparison: Comparison, path: Path) -> None:
    """Median and quartiles over the seeds of each variant's best value, by hours of virtual time.

    Raises:
        FolderError: The file cannot be written.
    """
    import plotly.graph_objects as go

    hours = np.linspace(0, max(run.makespan_s for row in comparison.rows for run in row.runs), POINTS) / 3600
    figure = go.Figure()
    for row, colour in zip(comparison.rows, itertools.cycle(COLOURS), strict=False):
        for line in _lines(row, hours, colour):
            figure.add_trace(go.Scatter(**line))
    figure.update_layout(
        template="plotly_white",
        xaxis_title="hours of virtual time",
        yaxis_title=f"best {comparison.metric} so far (median and quartiles)",
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.write_html(path, include_plotlyjs=True)
    except OSError as error:
        raise FolderError(f"{path}: cannot be written: {error.strerror}") from error


def _lines(row: Row, hours: Floats, colour: str) -> list[dict[str, Any]]:
    """The band between the quartiles, then the median."""
    low, middle, high = quartiles(row, hours * 3600)
    shared: dict[str, Any] = {"legendgroup": row.name, "mode": "lines"}
    hidden = {**shared, "line": {"width": 0, "shape": "hv"}, "showlegend": False, "hoverinfo": "skip"}
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    band = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.15)"}
    line = {"color": colour, "width": 2, "shape": "hv"}
    return [
        {**hidden, "x": hours, "y": low},
        {**hidden, **band, "x": hours, "y": high},
        {**shared, "x": hours, "y": middle, "line": line, "name": row.name},
    ]


def quartiles(row: Row, seconds: Floats) -> Floats:
    """Lower quartile, median and upper quartile of the best value at these times, `(3, n)`.

    NaN until every seed has a value.
    """
    values = np.array([[run.value_at(at) for at in seconds] for run in row.runs], dtype=float)
    found: Floats = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    return found
