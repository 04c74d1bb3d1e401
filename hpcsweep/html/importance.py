"""Section: how much each parameter matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hpcsweep.core.text import plural
from hpcsweep.html.plotting import OBJECTIVE, RESOURCE, each_objective, error_bars, resource_label
from hpcsweep.html.sections import Block, Figure, Section, Text, choice
from hpcsweep.views.configurations import configurations
from hpcsweep.views.format import label
from hpcsweep.views.importance import Analysis, Importance, analysis
from hpcsweep.views.resource_values import LEAST, compared_resources, values_of
from hpcsweep.views.results import Results

#: So many parameters have a bar.
MOST_BARS: Final = 25
#: Below this R² the shares are those of a model that knows little.
_POOR: Final = 0.5


def importance(results: Results, resource: int | None = None, objective: int | None = None) -> Section | None:
    """A bar for each parameter, by objective; words where values are too few, None without parameters.

    Values of one objective at one resource, which are chosen above unless they are given.
    """
    if not results.space.columns:
        return None
    versions: dict[tuple[str, ...], list[Block]] = {}
    chosen: tuple[str, ...] = ()
    for index, of, own in each_objective(results.objectives, objective):
        shown = values_of(results, index, resource)
        counts = compared_resources(results, index) if resource is None else {}
        for at, count in (counts or {shown.resource: len(shown.values)}).items():
            key = (of.metric, resource_label(at, count, results.folder.state))
            ending = own + (f"-at-{at}" if at != shown.resource else "")
            versions[key] = _version(results, index, at, ending)
            if not chosen or (at == shown.resource and chosen[0] == of.metric):
                chosen = key
    blocks = choice("importance-by-resource", [OBJECTIVE, RESOURCE], versions, chosen)
    return Section("importance", "Which parameters matter", blocks)


def _version(results: Results, objective: int, resource: int, id: str) -> list[Block]:
    """Of the values of one objective at one resource; `id` ends that of the figure."""
    result = analysis(results, objective, resource)
    if result is None:
        return [Text(too_few_values(results, objective, resource))]
    *above, figure = _importance_blocks(results, result, objective)
    assert isinstance(figure, Figure)
    return [*above, figure._replace(id=f"{figure.id}{id}")]


def too_few_values(results: Results, objective: int, resource: int | None = None) -> str:
    """Why there are no shares."""
    values = values_of(results, objective, resource)
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
        text += f" ({result.configurations:,} have one at any); more training may change it"
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
