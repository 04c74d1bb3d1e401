"""The value over the two most important parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import Config
from hpcsweep.core.objectives import Objective
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import (
    LEGEND_ABOVE,
    OBJECTIVE,
    RESOURCE,
    SYMBOLS_TEXT,
    Dimension,
    colour_bar,
    crosses,
    dimensions,
    each_objective,
    is_log_range,
    jitter,
    log_ticks,
    markers,
    noun,
    outlier_cutoff,
    resource_label,
    ring,
    subsample,
    unflatten,
)
from hpcsweep.html.sections import Block, Figure, Section, choice
from hpcsweep.views.configurations import FailedConfigurations, failed_configurations, valued_configurations
from hpcsweep.views.format import number
from hpcsweep.views.importance import importances
from hpcsweep.views.resource_values import Values, compared_resources, values_of
from hpcsweep.views.results import Results

#: Fewer points give no picture.
LEAST: Final = 8
#: So many points are drawn.
MOST: Final = 800
#: ... and so many that failed.
_FAILED: Final = 400
_GRID: Final = 48
#: Nothing is drawn farther than that from a point, in kernel widths; a bit more where there are many.
_REACH: Final = 2.5
_NONE: Final[Floats] = np.empty((0, 2))


def contour(
    results: Results,
    pair: tuple[str, str] | None = None,
    resource: int | None = None,
    objective: int | None = None,
) -> Section | None:
    """The values over two parameters, by default the most important ones: a surface, and the trials on it.

    Values of one objective at one resource, which are chosen above unless they are given.
    """
    if len(results.space.columns) < 2:
        return None
    versions: dict[tuple[str, ...], list[Block]] = {}
    chosen: tuple[str, ...] = ()
    titles = []
    for index, of, own in each_objective(results.objectives, objective):
        names = pair or _most_important(results, index)
        if names is None:
            continue
        shown = values_of(results, index, resource).resource
        counts = compared_resources(results, index) if resource is None else {}
        for at in counts or (shown,):
            figure = _figure(results, names, values_of(results, index, at), index)
            if figure is not None:
                key = of.metric, resource_label(at, counts.get(at, 0), results.folder.state)
                ending = own + ("" if at == shown else f"-at-{at}")
                first = not chosen or (at == shown and chosen[0] == of.metric)
                chosen = key if first else chosen
                versions[key] = [figure._replace(id=f"{figure.id}{ending}")]
                titles.append(f"{names[0]} and {names[1]} together")
    if not versions:
        return None
    title = titles[0] if len(set(titles)) == 1 else "The two most important parameters together"
    blocks = choice("contour-by-resource", [OBJECTIVE, RESOURCE], versions, chosen)
    return Section("contour", title, blocks)


def _most_important(results: Results, objective: int) -> tuple[str, str] | None:
    """The two parameters that matter most for one objective; None where that is not known."""
    names = [importance.name for importance in importances(results, objective)]
    return (names[0], names[1]) if len(names) > 1 else None


def _figure(results: Results, pair: tuple[str, str], level: Values, objective: int) -> Figure | None:
    """The values of one objective at one resource; None where too few have both parameters."""
    of = results.objectives[objective]
    state = results.folder.state
    both, (x, y) = _both_active(results, pair, level.configs)
    if len(both) < LEAST:
        return None
    level = level._replace(trials=level.trials[both], values=level.values[both])
    valued = set(level.trials.tolist())
    lost = failed_configurations(state, excluding=valued)
    both, of_lost = _both_active(results, pair, lost.configs)
    lost = lost.take(both)
    other_configs = [best.config for best in valued_configurations(state) if best.trial not in valued]
    _, others = _both_active(results, pair, other_configs)
    order = np.argsort(of.sign * level.values, kind="stable")
    drawn = order[subsample(len(order), best=MOST // 4, most=MOST)][::-1]
    best = [] if results.best is None else _ring(results, pair)
    return Figure(
        "contour-pair",
        [
            _surface(of, x, y, level, failed=of_lost, others=others),
            *_crosses(of_lost, lost),
            _points(x, y, level, drawn),
            *best,
        ],
        {
            "xaxis": unflatten(x.axis),
            "yaxis": unflatten(y.axis),
            "showlegend": len(lost.trials) > 0,
            "legend": LEGEND_ABOVE,
            "hovermode": "closest",
        },
        _caption(results, of.metric, x, y, level, drawn=len(drawn), lost=len(lost.trials), ring=bool(best)),
        _summary(results, of.metric, x, y, level, order, lost=len(lost.trials)),
        height=560,
    )


def _both_active(
    results: Results, pair: tuple[str, str], configs: Sequence[Config]
) -> tuple[NDArray[np.int64], tuple[Dimension, Dimension]]:
    """Indices of the configurations that have both parameters, and these parameters of those."""
    axes = {dimension.name: dimension for dimension in dimensions(results.space, configs)}
    x, y = (axes[name] for name in pair)
    both = np.flatnonzero(x.active & y.active)
    return both, (x._replace(values=x.values[both]), y._replace(values=y.values[both]))


def _caption(
    results: Results,
    metric: str,
    x: Dimension,
    y: Dimension,
    level: Values,
    *,
    drawn: int,
    lost: int,
    ring: bool,
) -> str:
    what, total = noun(results.folder.state), len(level.trials)
    points = "drawn as points" if drawn == total else f"{drawn:,} of them drawn as points"
    text = (
        f"{metric} at resource {level.resource:,} over {x.name} and {y.name}: "
        f"the colours are a smooth mean of {plural(total, what)}, {points}."
    )
    if lost:
        some = f", {_FAILED} of them drawn" if lost > _FAILED else ""
        text += (
            f" {plural(lost, what)} failed{some}: {SYMBOLS_TEXT}. "
            "There is no colour where most failed, or where nothing was tried."
        )
    if ring and results.best is not None:
        best = results.best
        which = "knee of the front" if results.objectives.has_front else "best of the sweep"
        text += f" The ring is the {which}, trial {best['trial']} at step {best['resource']:,}."
    return text


# ---------------------------------------------------------------------- the surface


def smooth(
    at: Floats,
    values: Floats,
    grid: tuple[Floats, Floats],
    *,
    width: Floats,
    failed: Floats = _NONE,
    others: Floats = _NONE,
) -> Floats:
    """Weighted means of the values with a Gaussian kernel (Nadaraya, Watson, 1964), within their range.

    Of `values` `(n,)` at `at` `(n, 2)`, wanted along the first axis of the grid `(a,)` and the second `(b,)`:
    `(b, a)`, NaN far from all of `at`, and where those that failed weigh more than all others, which have
    a value that is not among these.
    """
    across, up = _kernels(at, grid, width)
    weights = up @ across.T
    near = weights >= math.exp(-0.5 * _REACH**2)
    means = (up * values) @ across.T / np.where(near, weights, 1.0)
    lost, well = (up @ across.T for across, up in (_kernels(some, grid, width) for some in (failed, others)))
    return np.where(near & (lost <= weights + well), means, np.nan)


def _kernels(at: Floats, grid: tuple[Floats, Floats], width: Floats) -> tuple[Floats, Floats]:
    """Of each point `(n, 2)` along the first axis of the grid, `(a, n)`, and along the second, `(b, n)`."""
    across, up = (
        np.exp(-0.5 * ((grid[axis][:, None] - at[None, :, axis]) / width[axis]) ** 2) for axis in (0, 1)
    )
    return across, up


def _surface(
    of: Objective,
    x: Dimension,
    y: Dimension,
    level: Values,
    *,
    failed: tuple[Dimension, ...],
    others: tuple[Dimension, ...],
) -> dict[str, Any]:
    """Contours over two numbers; a map of cells where one of them is listed."""
    log = is_log_range(level.values)
    heights = np.log10(level.values) if log else level.values
    cut = None if log else outlier_cutoff(level.values, minimise=of.minimise)
    if cut is not None:
        heights = np.minimum(heights, cut) if of.minimise else np.maximum(heights, cut)
    at = np.stack([_unit(axis, axis.scaled) for axis in (x, y)], axis=1)
    positions = [_positions(axis) for axis in (x, y)]
    # Scott's rule for points spread evenly; listed values do not flow into each other.
    even = 0.29 * len(at) ** (-1 / 6)
    width = np.array([0.1 / len(axis.listed) if axis.listed else even for axis in (x, y)])
    lost, well = (np.stack([_unit(a, a.scaled) for a in axes], axis=1) for axes in (failed, others))
    grid = (_unit(x, positions[0]), _unit(y, positions[1]))
    means = smooth(at, heights, grid, width=width, failed=lost, others=well)
    cells = bool(x.listed or y.listed)
    trace: dict[str, Any] = {
        "type": "heatmap" if cells else "contour",
        "x": 10 ** positions[0] if x.log else positions[0],
        "y": 10 ** positions[1] if y.log else positions[1],
        "z": [[None if np.isnan(mean) else float(mean) for mean in row] for row in means],
        "colorscale": "Cividis",
        "reversescale": not of.minimise,
        "opacity": 0.85,
        "hoverinfo": "skip",
        "showlegend": False,
        "colorbar": _bar(of.metric, means, log=log),
    }
    if not cells:
        trace |= {"ncontours": 14, "line": {"width": 0.4}, "connectgaps": False}
    return trace


def _unit(axis: Dimension, scaled: Floats) -> Floats:
    low, high = axis.ends
    return np.asarray((scaled - low) / (high - low))


def _positions(axis: Dimension) -> Floats:
    """Where the surface is computed along an axis, on its scale."""
    if axis.listed:
        return np.arange(len(axis.listed), dtype=float)
    return np.linspace(*axis.ends, _GRID)


def _bar(metric: str, means: Floats, *, log: bool) -> dict[str, Any]:
    if not log or np.isnan(means).all():
        return colour_bar(metric, y=-0.18)
    ticks = log_ticks(10 ** float(np.nanmin(means)), 10 ** float(np.nanmax(means)))
    return colour_bar(metric, np.log10(ticks), [number(tick) for tick in ticks], y=-0.18)


# ---------------------------------------------------------------------- the points


def _points(x: Dimension, y: Dimension, level: Values, drawn: NDArray[np.int64]) -> dict[str, Any]:
    """The trials, the best ones last."""
    return markers(
        *(_spread(axis, level.trials)[drawn] for axis in (x, y)),
        name="trials",
        showlegend=False,
        customdata=np.stack([level.trials[drawn], level.values[drawn]], axis=1),
        marker={"size": 5, "color": "#ffffff", "line": {"width": 1, "color": "#1b1f24"}},
        hovertemplate="trial %{customdata[0]}: %{customdata[1]:.6~g}<extra></extra>",
    )


def _crosses(axes: Sequence[Dimension], failed: FailedConfigurations) -> list[dict[str, Any]]:
    """Those that failed; none if there are none."""
    if not len(failed.trials):
        return []
    kept = subsample(len(failed.trials), best=0, most=_FAILED)
    x, y = (_spread(axis, failed.trials)[kept] for axis in axes)
    return [crosses(x, y, [failed.runs[index] for index in kept])]


def _ring(results: Results, pair: tuple[str, str]) -> list[dict[str, Any]]:
    """Around the best of the sweep; none where it does not have both parameters."""
    assert results.best is not None
    both, axes = _both_active(results, pair, [results.best["config"]])
    if not len(both):
        return []
    x, y = (_spread(axis, np.array([results.best["trial"]])) for axis in axes)
    return [ring(x, y, color="#d1495b", line={"width": 3}) | {"name": "best"}]


def _spread(axis: Dimension, trials: NDArray[np.int64]) -> Floats:
    """Points of one listed value stand side by side."""
    if not axis.listed:
        return axis.values
    return np.asarray(axis.values + jitter(trials))


def _summary(
    results: Results,
    metric: str,
    x: Dimension,
    y: Dimension,
    level: Values,
    order: NDArray[np.int64],
    *,
    lost: int,
) -> str:
    """Where the best tenth lies."""
    best = order[: max(1, len(order) // 10)]
    ranges = []
    for axis in (x, y):
        values = axis.values[best]
        if axis.listed:
            picked = np.bincount(np.rint(values).astype(int), minlength=len(axis.listed))
            ranges.append(f"{axis.name} {axis.listed[int(picked.argmax())]} in {picked.max():,} of them")
        else:
            ranges.append(f"{axis.name} between {number(values.min())} and {number(values.max())}")
    text = (
        f"Of {plural(len(order), noun(results.folder.state))} at resource {level.resource:,} "
        f"the best tenth, {metric} "
        f"{number(level.values[best[0]])} to {number(level.values[best[-1]])}, has {' and '.join(ranges)}."
    )
    return f"{text} {lost:,} more failed." if lost else text
