"""All parameters and the value of each trial as lines side by side."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.core.objectives import Objective
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import (
    OBJECTIVE,
    Dimension,
    colour_bar,
    dimensions,
    each_objective,
    is_log_range,
    linear_ticks,
    log_ticks,
    menu,
    noun,
    outlier_cutoff,
    subsample,
)
from hpcsweep.html.sections import Block, Figure, Section, choice
from hpcsweep.views.configurations import Configurations, configurations, valued_configurations
from hpcsweep.views.format import number
from hpcsweep.views.results import Results

#: So many trials are drawn; the best of them always.
MOST: Final = 1500
BEST: Final = 1000
#: So many that failed are drawn beside them.
FAILED: Final = 300
#: Names of so many letters stand upright; each takes so many pixels.
_UPRIGHT: Final = 16
_LETTER: Final = 8
#: More parameters than that cannot be told apart.
MOST_PARAMETERS: Final = 20
_SHADES: Final = 3
#: Length of the scale of colours that those that failed have, as a share of the others'.
_BELOW: Final = 0.15
#: Pixels for each axis with its labels.
_ROOM: Final = 90


def parallel(results: Results, objective: int | None = None) -> Section | None:
    """Parallel coordinates over parameters, resource and value; the colour is the value."""
    if len(valued_configurations(results.folder.state)) < 2 or not results.space.columns:
        return None
    versions: dict[tuple[str, ...], list[Block]] = {}
    for index, of, own in each_objective(results.objectives, objective):
        figure = _figure(results, index)
        versions[of.metric,] = [figure._replace(id=f"{figure.id}{own}")]
    blocks = choice("parallel-by-objective", [OBJECTIVE], versions, next(iter(versions)))
    return Section("parallel", "All parameters at once", blocks)


def _figure(results: Results, objective: int) -> Figure:
    """With the colour of one objective; the axes of the others stand before its own."""
    of, state = results.objectives[objective], results.folder.state
    valued = configurations(state, objective=objective)
    # The best are drawn last, on top of the others.
    shown = valued.take(subsample(len(valued.trials), best=BEST, most=MOST)[::-1])
    failed = valued.failed.take(subsample(len(valued.failed.trials), best=0, most=FAILED))
    resources = np.array([run.resource for run in failed.runs], dtype=np.int64)
    parameters = dimensions(results.space, [*failed.configs, *shown.configs])
    axes = [_parameter(dimension) for dimension in parameters[:MOST_PARAMETERS]]
    if len(set(shown.resources) | set(resources)) > 1:
        axes.append(_resources(np.concatenate([resources, shown.resources])))
    axes += [
        _value_axis(other, _newest(state, shown, index), failed=len(failed.trials))
        for index, other in enumerate(results.objectives)
        if index != objective
    ]
    value = _value_axis(of, shown.values, failed=len(failed.trials))
    axes.append(value)
    longest = max(len(axis["label"]) for axis in axes)
    trace = {
        "type": "parcoords",
        "customdata": np.concatenate([failed.trials, shown.trials]),
        "dimensions": axes,
        "line": _colours(of, shown.values, failed=len(failed.trials)),
        "labelangle": 0 if longest <= _UPRIGHT else -20,
        "labelfont": {"size": 13},
        "labelside": "bottom",
    }
    layout: dict[str, Any] = {"margin": {"l": 60, "r": 60, "t": 30, "b": 60}}
    if len(failed.trials):
        layout["updatemenus"] = [_choice(len(axes) - 1, value, shown=len(shown.trials))]
    return Figure(
        "parallel-all",
        [trace],
        layout,
        _caption(results, of.metric, valued, drawn=len(shown.trials), parameters=len(parameters)),
        _summary(results, of.metric, valued),
        height=480,
        width=max(_ROOM, _LETTER * min(longest, _UPRIGHT)) * len(axes),
    )


def _value_axis(of: Objective, values: Floats, *, failed: int) -> dict[str, Any]:
    """The axis of one objective, with room for those that failed where there are some."""
    axis = _values(of, values)
    return _with_failed(axis, failed, minimise=of.minimise) if failed else axis


def _newest(state: SweepState, shown: Configurations, objective: int) -> Floats:
    """The newest value of another objective of each configuration, `(n,)`."""
    found = (state.newest(trial) for trial in shown.trials.tolist())
    values = ((best.values or (best.value,))[objective] for best in found if best is not None)
    return np.array(list(values), dtype=float)


def _caption(results: Results, metric: str, valued: Configurations, *, drawn: int, parameters: int) -> str:
    what, failed = noun(results.folder.state), len(valued.failed.trials)
    by = f"mean {metric}" if what != "trial" else metric
    text = f"Each line is a {what}; by {by} the best are orange, good ones blue, the others grey."
    if failed:
        some = f", {FAILED} of them drawn" if failed > FAILED else ""
        text += f" Pink: {plural(failed, what)} that failed{some}."
    text += " Drag along an axis to pick a range."
    if drawn < len(valued.trials):
        text += (
            f" {drawn:,} of {len(valued.trials):,} {what}s with a value are drawn: the best {BEST:,}, and an "
            "even spread over the others."
        )
    if parameters > MOST_PARAMETERS:
        text += f" The first {MOST_PARAMETERS} of {parameters} parameters are shown."
    return text


def _with_failed(value: dict[str, Any], failed: int, *, minimise: bool) -> dict[str, Any]:
    """The value's axis with room for those that failed, beyond its worse end."""
    low, high = value["range"]
    off = high + 0.15 * (high - low) if minimise else low - 0.15 * (high - low)
    return value | {
        "values": np.concatenate([np.full(failed, off), value["values"]]),
        "range": [min(low, off), max(high, off)],
        "tickvals": [*value["tickvals"], off],
        "ticktext": [*value["ticktext"], "failed"],
    }


def _choice(axis: int, value: dict[str, Any], *, shown: int) -> dict[str, Any]:
    """All lines, those with a value, or those that failed: by a range of the value's axis."""
    low, high = value["range"]
    off, margin = value["tickvals"][-1], 0.03 * (high - low)
    values = value["values"][-shown:]
    ranges = {
        "all": None,
        "with a value": [float(values.min()) - margin, float(values.max()) + margin],
        "failed": [off - margin, off + margin],
    }
    buttons = [
        {"label": name, "method": "restyle", "args": [{f"dimensions.{axis}.constraintrange": [chosen]}]}
        for name, chosen in ranges.items()
    ]
    return menu("Lines", buttons)


def _parameter(dimension: Dimension) -> dict[str, Any]:
    """One axis; where the parameter is not active, lines go through a point below its ends."""
    values, (low, high) = dimension.scaled, dimension.ends
    ticks, labels = dimension.ticks
    if not dimension.active.all():
        off = low - 0.15 * (high - low)
        values = np.where(dimension.active, values, off)
        low, ticks, labels = off, [off, *ticks], ["not active", *labels]
    return _axis(dimension.name, values, (low, high), ticks, labels)


def _axis(
    name: str, values: Floats, ends: tuple[float, float], ticks: list[float], labels: list[str]
) -> dict[str, Any]:
    return {"label": name, "values": values, "range": list(ends), "tickvals": ticks, "ticktext": labels}


def _resources(resources: Any) -> dict[str, Any]:
    levels = sorted(set(resources.tolist()))
    positions = np.log(np.maximum(levels, 1))
    kept = subsample(len(levels), best=1, most=8)
    labels = [f"{levels[index]:,}" for index in kept]
    values = np.log(np.maximum(resources, 1))
    return _axis("resource", values, (positions[0], positions[-1]), positions[kept].tolist(), labels)


def _values(of: Objective, values: Floats) -> dict[str, Any]:
    """On a log scale over several magnitudes; outliers stand at the edge."""
    if is_log_range(values):
        low, high = float(values.min()), float(values.max())
        ticks = log_ticks(low, high)
        ends = (np.log10(low), np.log10(high))
        positions = np.log10(ticks).tolist()
        return _axis(of.metric, np.log10(values), ends, positions, [number(tick) for tick in ticks])
    cut = outlier_cutoff(values, minimise=of.minimise)
    if cut is not None:
        values = np.minimum(values, cut) if of.minimise else np.maximum(values, cut)
    low, high = float(values.min()), float(values.max())
    if low == high:
        return _axis(of.metric, values, (low - 1, high + 1), [low], [number(low)])
    ticks = linear_ticks(low, high)
    labels = [number(tick) for tick in ticks]
    if cut is not None:
        sign = "≥" if of.minimise else "≤"
        near = [tick for tick in ticks if abs(tick - cut) > 0.06 * (high - low)]
        ticks, labels = [*near, cut], [*map(number, near), f"{sign} {number(cut)}"]
    return _axis(of.metric, values, (low, high), ticks, labels)


def _colours(of: Objective, values: Floats, *, failed: int) -> dict[str, Any]:
    """By rank among those shown, so that outliers do not matter; the bar shows the values.

    The best have the highest number: these are drawn on top. Those that failed come first, below all.
    """
    sign = -float(of.sign)
    order = np.sort(sign * values)
    ticks = np.unique(np.rint(np.linspace(0, len(order) - 1, _SHADES)))
    labels = [number(sign * order[int(tick)]) for tick in ticks]
    colours = np.searchsorted(order, sign * values).astype(float)
    scale: list[list[Any]] = [[0.0, "@muted"], [0.8, "@1"], [1.0, "@2"]]
    ends: dict[str, float] = {}
    if failed:
        top = max(1.0, len(order) - 1.0)
        below = _BELOW * top
        colours = np.concatenate([np.full(failed, -below), colours])
        share = _BELOW / (1 + _BELOW)
        edge = 0.8 * share
        scale = [[0.0, "@4"], [edge, "@4"], [edge, "@muted"]] + [
            [share + (1 - share) * at, colour] for at, colour in scale
        ]
        ends = {"cmin": -below, "cmax": top}
        ticks, labels = np.array([-below, *ticks]), ["failed", *labels]
    return {
        "color": colours,
        "colorscale": scale,
        "showscale": True,
        "colorbar": colour_bar(f"{of.metric}, best at the right", ticks, labels, y=-0.28),
        **ends,
    }


def _summary(results: Results, metric: str, valued: Configurations) -> str:
    """What the best tenth have in common."""
    what, failed = noun(results.folder.state), len(valued.failed.trials)
    count = max(1, len(valued.trials) // 10)
    parts = []
    for dimension in dimensions(results.space, valued.configs[:count])[:MOST_PARAMETERS]:
        values = dimension.values[dimension.active]
        if not len(values):
            parts.append(f"{dimension.name} is never active")
        elif dimension.listed:
            picked = np.bincount(np.rint(values).astype(int), minlength=len(dimension.listed))
            most = int(picked.argmax())
            parts.append(f"{dimension.name} is {dimension.listed[most]} in {picked[most]:,}")
        else:
            low, high = float(values.min()), float(values.max())
            parts.append(f"{dimension.name} is {number(low)} to {number(high)}")
    text = f"Of the best {plural(count, what)} by {metric}: {'; '.join(parts)}."
    return f"{text} {plural(failed, what)} failed." if failed else text
