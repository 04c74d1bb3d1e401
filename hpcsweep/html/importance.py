"""How much each parameter matters, with how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcsweep.html.format import count
from hpcsweep.html.labels import label
from hpcsweep.html.points import failed
from hpcsweep.html.sections import Block, Figure, Section, Text
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
            f"Nothing to tell yet: that takes {LEAST} configurations with a value of the same resource, "
            f"and there are {len(values.values)}{at}."
        )
    return (
        f"All {len(values.values)} configurations at resource {values.resource} have the same "
        f"{results.metric}: no parameter makes a difference."
    )


def _blocks(results: Results, found: Analysis) -> list[Block]:
    metric = results.metric
    blocks: list[Block] = [
        Text(
            f"A share is how much of the variance of {metric} over the whole space goes with this "
            "parameter alone, whatever the others are; a parameter with a condition counts where it is "
            f"active. {_percent(found.together)} belongs to several parameters working together."
        )
    ]
    if results.space.constraints:
        blocks.append(Text("Constraints tie parameters together, so that shares may overlap.", "note"))
    if found.explained < _POOR:
        told = max(0.0, found.explained)
        blocks.append(
            Text(
                f"To be read with care: the model behind these shares predicts {_percent(told)} of the "
                f"variance of {metric} in configurations that it has not seen. More trials help, "
                "unless the values are mostly noise.",
                "warning",
            )
        )
    figure = _figure(found)
    lost = len(failed(results.folder.state, besides=_valued(results)).trials)
    if lost:
        words = f" {count(lost, 'configuration')} that failed {'has' if lost == 1 else 'have'} no value: "
        figure = figure._replace(caption=f"{figure.caption}{words}the shares know nothing of them.")
    return [*blocks, figure]


def _valued(results: Results) -> set[int]:
    state = results.folder.state
    return {first for first in range(0, len(state.trials), state.repeats) if state.newest(first) is not None}


def _figure(found: Analysis) -> Figure:
    shown = found.parameters[:MOST_BARS]
    bars = shown[::-1]  # plotly begins at the bottom
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(len(bars))),
        "x": [bar.share for bar in bars],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [bar.high - bar.share for bar in bars],
            "arrayminus": [bar.share - bar.low for bar in bars],
            "color": "@8",
        },
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
    return Figure("importance", [trace], layout, _caption(found), _words(shown), height=140 + 30 * len(bars))


def _caption(found: Analysis) -> str:
    """Which values, how it was computed, how sure it is, what was left out."""
    configurations = count(found.values, "configuration")
    of = f"Functional ANOVA of {configurations} with a value at resource {found.resource}"
    if found.values < found.configurations:
        of += f", the highest that many of {found.configurations:,} reached; more training may change it"
    told = [f"{of}."]
    if found.used < found.values:
        told.append(f"Computed from {found.used:,} of them, drawn at random.")
    if found.clipped:
        told.append(
            f"{count(found.clipped, 'outlier')} {'counts' if found.clipped == 1 else 'count'} as the worst "
            "of the others."
        )
    told.append(
        f"The model (polynomials and trees) has an R² of {found.explained:.2f} in configurations that it has "
        "not seen. Lines: intervals of about 90%, by models of resampled configurations and what they miss."
    )
    if len(found.parameters) > MOST_BARS:
        told.append(f"The {len(found.parameters) - MOST_BARS} smallest have no bar.")
    return " ".join(told)


def _words(bars: Sequence[Importance]) -> str:
    return "; ".join(
        f"{bar.name} {_percent(bar.share)} ({_percent(bar.low)} to {_percent(bar.high)})" for bar in bars
    )


def _percent(share: float) -> str:
    return f"{share:.0%}"
