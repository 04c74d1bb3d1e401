"""Plots the best value over time into one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcsweep.core.history import Floats
from hpcsweep.core.text import plural
from hpcsweep.html.page import render, write_page
from hpcsweep.html.plotting import LEGEND_BELOW, quantile_band
from hpcsweep.html.sections import Figure, Section
from hpcsweep.simulation.comparison import Comparison, Row
from hpcsweep.views.format import number

#: Points of each line.
POINTS = 400


def write_plot(comparison: Comparison, path: Path) -> None:
    """Plot each variant's best value over virtual time: median and quartiles over the seeds.

    Raises:
        FolderError: The file cannot be written.
    """
    html = render(f"Best {comparison.metric}, simulated", [_section(comparison)])
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
            "yaxis": {"title": {"text": f"best {comparison.metric} so far (median and quartiles)"}},
            "legend": LEGEND_BELOW,
        },
        f"Median of {plural(len(comparison.rows[0].runs), 'seed')}, in the band of the quartiles.",
        "; ".join(
            f"{row.name} ends with {'no value' if row.value is None else number(row.value)}"
            for row in comparison.rows
        ),
    )
    return Section("progress", "Best value over time", [figure])


def best_values(row: Row, seconds: Floats) -> Floats:
    """Each seed's best value `(k, n)` at the given times `(n,)`; NaN before its first result."""
    return np.array([[run.value_at(at) for at in seconds] for run in row.runs], dtype=float)
