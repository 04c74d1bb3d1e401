"""What figures share: axes, traces, legends and subsamples."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Choice, Constant, Float, Floats, Int, Ordinal
from hpcsweep.core.events import Config
from hpcsweep.core.models import Run
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.outcomes import FACTS, FailureKind
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.views.format import label, number

#: Positive values are shown on a log scale where the largest is so many times the smallest, ...
_SPAN: Final = 100.0
#: ... so many times where the small ones are the good ones, which a linear scale puts on one line, ...
_SPAN_MINIMISED: Final = 30.0
#: ... and may be looked at on one from here on.
_OFFERED: Final = 5.0
#: Where plotly may have so few ticks on a log axis, it labels 1, 2 and 5, not all up to 9 upon each other.
_LOG_TICKS: Final = 4
#: The worst is an outlier if it is so many times farther from the best than nine of ten values are.
_OUTLIER: Final = 5.0


# ---------------------------------------------------------------------- the value


class ValueAxis(NamedTuple):
    """How values are shown."""

    layout: dict[str, Any]  # the axis as plotly takes it
    menus: list[dict[str, Any]]  # the choice of the scale, for `layout.updatemenus`; may be empty
    note: str = ""  # says that some values are outside the initial view; empty if none is
    cut: float | None = None  # the worst value in the initial view; None if all are in it


def value_axis(title: str, values: Floats, *, minimise: bool) -> ValueAxis:
    """A log scale for positive values of several magnitudes; else a linear one whose view omits outliers."""
    layout: dict[str, Any] = {"title": {"text": title}, "exponentformat": "power", "minexponent": 5}
    if is_log_range(values, _SPAN_MINIMISED if minimise else _SPAN):
        return ValueAxis(layout | {"type": "log", "nticks": _LOG_TICKS}, [_scales(active=1)])
    cut = outlier_cutoff(values, minimise=minimise)
    menus = [_scales(active=0)] if is_log_range(values, _OFFERED) else []
    if cut is None:
        return ValueAxis(layout | {"type": "linear"}, menus)
    best = float(values.min() if minimise else values.max())
    ends = sorted((best - 0.05 * (cut - best), cut))
    side, beyond = ("above", values > cut) if minimise else ("below", values < cut)
    outliers, verb = int(beyond.sum()), "is" if beyond.sum() == 1 else "are"
    note = f" {plural(outliers, 'outlier')} {side} {number(cut)} {verb} outside the initial view."
    return ValueAxis(layout | {"type": "linear", "range": ends}, menus, note, cut)


def is_log_range(values: Floats, magnitudes: float = _SPAN) -> bool:
    """Whether the values are positive, and the largest is at least so many times the smallest."""
    return len(values) > 0 and bool(values.min() > 0 and values.max() >= magnitudes * values.min())


def outlier_cutoff(values: Floats, *, minimise: bool) -> float | None:
    """Values worse than this are outliers that would squeeze the others; None if there are none."""
    if len(values) < 10:
        return None
    best, most = np.quantile(values, [0.0, 0.9] if minimise else [1.0, 0.1])
    worst = values.max() if minimise else values.min()
    if most == best or abs(worst - best) <= _OUTLIER * abs(most - best):
        return None
    return float(most + 0.5 * (most - best))


def _scales(*, active: int) -> dict[str, Any]:
    buttons = [
        {
            "label": scale,
            "method": "relayout",
            "args": [{"yaxis.type": scale, "yaxis.autorange": True, "yaxis.nticks": ticks}],
        }
        for scale, ticks in (("linear", 0), ("log", _LOG_TICKS))
    ]
    return menu("Scale", buttons, active=active)


def menu(name: str, buttons: Sequence[dict[str, Any]], *, active: int = 0) -> dict[str, Any]:
    """A choice above the figure, for `layout.updatemenus`."""
    return {"name": name, "buttons": list(buttons), "active": active}


def axis_menu(name: str, axes: Mapping[str, dict[str, Any]], *, traces: int) -> list[dict[str, Any]]:
    """A choice among x axes, each with so many traces of its own; empty where there is only one."""
    buttons = []
    for chosen, axis in axes.items():
        visible = [other == chosen for other in axes for _ in range(traces)]
        changes = {f"xaxis.{key}": value for key, value in axis.items()}
        buttons.append({"label": chosen, "method": "update", "args": [{"visible": visible}, changes]})
    return [menu(name, buttons)] if len(buttons) > 1 else []


def colour_bar(
    title: str, ticks: Sequence[float] | Floats = (), labels: Sequence[str] = (), *, y: float
) -> dict[str, Any]:
    """A scale of colours; with its own ticks if there are some."""
    # An empty line first: plotly would set the title between two labels where it fits there.
    bar: dict[str, Any] = {"title": {"text": f"\n{title}", "side": "bottom"}}
    bar |= {"orientation": "h", "thickness": 12}
    bar |= {"len": 0.9, "y": y, "yanchor": "top"}
    return bar | ({"tickmode": "array", "tickvals": ticks, "ticktext": labels} if len(ticks) else {})


_UNITS: Final = (("hour", 3600), ("minute", 60), ("second", 1))


def time_unit(seconds: float) -> tuple[str, int]:
    """The unit of an axis that reaches so far, and its seconds."""
    return next((unit, size) for unit, size in _UNITS if seconds >= 2 * size or size == 1)


# ---------------------------------------------------------------------- parameters


class Dimension(NamedTuple):
    """One parameter of many configurations, and the ends of its domain."""

    name: str
    values: Floats  # (n,): numbers as they are, of listed values the index; NaN where inactive
    low: float
    high: float
    log: bool = False
    whole: bool = False
    listed: tuple[str, ...] = ()  # labels of the listed values; empty for numbers

    @property
    def active(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.values)

    @property
    def of_numbers(self) -> bool:
        """Whether listed values are numbers."""
        return bool(self.listed) and all(re.fullmatch(r"[-+.\de]+", text) for text in self.listed)

    @property
    def scaled(self) -> Floats:
        """The values on a linear axis."""
        return np.log10(self.values) if self.log else self.values

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of such an axis."""
        if self.listed:
            return (-0.5, len(self.listed) - 0.5)
        return (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)

    @property
    def ticks(self) -> tuple[list[float], list[str]]:
        """Positions on such an axis and their labels in the parameter's own units."""
        if self.listed:
            return [float(index) for index in range(len(self.listed))], list(self.listed)
        if self.log:
            ticks = log_ticks(self.low, self.high)
        else:
            ticks = linear_ticks(self.low, self.high, least=1.0 if self.whole else 0.0)
        return [math.log10(tick) if self.log else tick for tick in ticks], [number(tick) for tick in ticks]

    @property
    def axis(self) -> dict[str, Any]:
        """The axis of a figure with x and y; all keys are always there, so that one replaces another."""
        low, high = self.ends
        margin = 0.0 if self.listed else 0.03 * (high - low)
        positions, labels = self.ticks if self.listed else (None, None)
        return {
            # Points that are spread over a column would be read as values between two numbers.
            "title.text": f"{self.name} (one column for each value)" if self.of_numbers else self.name,
            "type": "log" if self.log else "linear",
            "range": [low - margin, high + margin],
            "tickmode": "array" if self.listed else "auto",
            "tickvals": positions,
            "ticktext": labels,
            "exponentformat": "power",
            "minexponent": 5,
        }


def dimensions(space: Space, configs: Sequence[Config]) -> list[Dimension]:
    """All parameters that are no constants, in the spec's order."""
    unit = space.to_unit(configs)
    axes = []
    for column, parameter in enumerate(space.columns):
        name = parameter.name
        match parameter.domain:
            case Choice(values=listed) | Ordinal(values=listed):
                indices, labels = unit[:, column] * len(listed) - 0.5, tuple(map(label, listed))
                axes.append(Dimension(name, indices, 0.0, len(listed) - 1.0, listed=labels))
            case Float(low=low, high=high, log=log) | Int(low=low, high=high, log=log):
                numbers = np.array([config.get(name, math.nan) for config in configs], dtype=float)
                whole = isinstance(parameter.domain, Int)
                axes.append(Dimension(name, numbers, float(low), float(high), log=log, whole=whole))
            case Constant():
                pass
    return axes


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"title.text": x}` as `{"title": {"text": x}}`, without what is None."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        first, _, rest = path.partition(".")
        if value is not None:
            nested[first] = {rest: value} if rest else value
    return nested


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, at most about six; with 2 and 5 between them, or the ends, where these are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first) / 6))
    powers = [10.0**power for power in range(first, last + 1, every)]
    if len(powers) >= 3:
        return powers
    finer = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
    inside = [tick for tick in finer if low <= tick <= high]
    return inside if len(inside) >= 3 else [low, *(tick for tick in inside if low < tick < high), high]


def linear_ticks(low: float, high: float, *, least: float = 0.0) -> list[float]:
    """About five round numbers, at least `least` apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(least, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999))
    steps = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [float(f"{index * step:.12g}") for index in steps]


Indices: TypeAlias = NDArray[np.int64]

#: Below the figure: beside it phones have no room.
LEGEND_BELOW: Final = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}
LEGEND_ABOVE: Final = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"}
#: What is shown of a point whose custom data are a trial and a step or resource.
HOVER: Final = "trial %{customdata[0]} at step %{customdata[1]}: %{y:.6~g}<extra></extra>"
_COLOURS: Final = 8


#: The list from which a resource is chosen.
RESOURCE: Final = "Resource"
#: That of the objectives, where there are several.
OBJECTIVE: Final = "Objective"


def each_objective(objectives: Objectives, only: int | None = None) -> Iterator[tuple[int, Objective, str]]:
    """The objectives that a section shows, each with its index and what ends the ids of its figures."""
    for index, of in enumerate(objectives):
        if only in (None, index):
            yield index, of, f"-objective-{index}" if index else ""


def resource_label(resource: int, values: int, state: SweepState) -> str:
    """How that list names one."""
    return f"{resource:,} ({plural(values, noun(state))})"


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


#: Of failed configurations, by what was wrong with them.
_SYMBOLS: Final = {
    FailureKind.CRASHED: "x",
    FailureKind.NOT_FINITE: "triangle-up-open",
    FailureKind.OUT_OF_MEMORY: "square-open",
}
#: The same in words, for captions.
SYMBOLS_TEXT: Final = "x crashed, △ not finite, □ out of memory, + otherwise"


def crosses(x: Any, y: Any, runs: Sequence[Run], **more: Any) -> dict[str, Any]:
    """Failed configurations, each by the run that failed."""
    kinds = [[run.trial, run.resource, FACTS[run.failure_kind].label] for run in runs if run.failure_kind]
    hover = "trial %{customdata[0]} at step %{customdata[1]}: %{customdata[2]}<extra></extra>"
    symbols = [_SYMBOLS.get(run.failure_kind, "cross") for run in runs if run.failure_kind]
    marker = {"symbol": symbols, "size": 7, "color": "@bad", "opacity": 0.8}
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
    return np.asarray(np.quantile(values, (0.25, 0.5, 0.75), axis=0))


def quantile_band(name: str, x: Floats, values: Floats, index: int) -> list[dict[str, Any]]:
    """The median of `values` `(k, n)` at `x` `(n,)` in its quartiles' band, where all k have a value."""
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
