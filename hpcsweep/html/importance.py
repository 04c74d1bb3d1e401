"""Section: how much each parameter matters, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hpcsweep.core.text import plural
from hpcsweep.html.sections import Block, Figure, Section, Text
from hpcsweep.html.traces import error_bars
from hpcsweep.views.configurations import configurations
from hpcsweep.views.format import label
from hpcsweep.views.importance import LEAST, Analysis, Importance, analysis, values_of
from hpcsweep.views.results import Results

#: So many parameters have a bar.
MOST_BARS: Final = 25
#: Below this R² the shares are those of a model that knows little.
_POOR: Final = 0.5


def importance(results: Results) -> Section | None:
    """A bar for each parameter; words where there are too few values, None without parameters."""
    if not results.space.columns:
        return None
    found = analysis(results)
    blocks = [Text(_missing(results))] if found is None else _blocks(results, found)
    return Section("importance", "Which parameters matter", blocks)


def _missing(results: Results) -> str:
    values = values_of(results)
    if len(values.values) < LEAST:
        at = f" at resource {values.resource}" if values.values else ""
        return (
            f"Too few values: {LEAST} configurations with a value at the same resource are needed, "
            f"there are {len(values.values)}{at}."
        )
    return (
        f"All {len(values.values)} configurations at resource {values.resource} have the same "
        f"{results.metric}: no parameter makes a difference."
    )


def _blocks(results: Results, found: Analysis) -> list[Block]:
    metric = results.metric
    blocks: list[Block] = [
        Text(
            f"A share is the part of the variance of {metric} over the whole space that is due to this "
            "parameter alone, whatever the others are; a conditional parameter counts where it is active. "
            f"{_percent(found.interactions)} is due to interactions."
        )
    ]
    if results.space.constraints:
        blocks.append(Text("Constraints tie parameters together: shares may overlap.", "note"))
    if found.explained < _POOR:
        explained = max(0.0, found.explained)
        blocks.append(
            Text(
                f"Unreliable: the model behind these shares predicts only {_percent(explained)} of the "
                f"variance of {metric} in configurations that it has not seen. More trials help, "
                "unless the values are mostly noise.",
                "warning",
            )
        )
    figure = _figure(found)
    lost = len(configurations(results.folder.state).failed.trials)
    if lost:
        left_out = (
            f"{plural(lost, 'failed configuration')} without a value {'is' if lost == 1 else 'are'} left out"
        )
        figure = figure._replace(caption=f"{figure.caption} {left_out}.")
    return [*blocks, figure]


def _figure(found: Analysis) -> Figure:
    shown = found.parameters[:MOST_BARS]
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
        "importance", [trace], layout, _caption(found), _summary(shown), height=140 + 30 * len(bars)
    )


def _caption(found: Analysis) -> str:
    """Which values, how the shares were computed, how certain they are, what was left out."""
    configurations = plural(found.values, "configuration")
    text = f"Functional ANOVA of {configurations} with a value at resource {found.resource}"
    if found.values < found.configurations:
        text += f", the highest that many of {found.configurations:,} reached; more training may change it"
    if found.used < found.values:
        text += f". Computed from {found.used:,} of them, drawn at random"
    if found.clipped:
        count = "counts" if found.clipped == 1 else "count"
        text += f". {plural(found.clipped, 'outlier')} {count} as the worst of the others"
    text += (
        f". The model (polynomials and trees) has an R² of {found.explained:.2f} on configurations that it "
        "has not seen. Lines: intervals of about 90%, from models of resampled configurations."
    )
    if len(found.parameters) > MOST_BARS:
        text += f" The {len(found.parameters) - MOST_BARS} smallest have no bar."
    return text


def _summary(bars: Sequence[Importance]) -> str:
    return "; ".join(
        f"{bar.name} {_percent(bar.share)} ({_percent(bar.low)} to {_percent(bar.high)})" for bar in bars
    )


def _percent(share: float) -> str:
    return f"{share:.0%}"
