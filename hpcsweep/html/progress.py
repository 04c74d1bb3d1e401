"""The best value over time and over what it cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.html.axes import LEGEND_BELOW, value_axis
from hpcsweep.html.format import count, number
from hpcsweep.html.sections import Figure, Section
from hpcsweep.html.subsample import thinned
from hpcsweep.views.results import Results

if TYPE_CHECKING:
    import pandas as pd

#: So many runs are drawn as points behind the line, the best of them among these.
MOST_RUNS: Final = 1500
_BEST_RUNS: Final = 300
_UNITS: Final = (("hour", 3600), ("minute", 60), ("second", 1))


class _Step(NamedTuple):
    """From this ending on, this is the best."""

    place: int
    trial: int
    value: float


def progress(results: Results) -> Section | None:
    """Two figures: over the time since the start, and over GPU time, or that of runs without a GPU."""
    ended = _endings(results)
    known = ended[np.isfinite(ended["value"])]
    if known.empty:
        return None
    steps = _improvements(results, known)
    gpus = float(ended["gpu_seconds"].sum()) > 0
    figures = [
        _figure(results, known, steps, "since_start", "{}s since the start"),
        _figure(results, known, steps, *(("gpu", "GPU-{}s") if gpus else ("run", "{}s of runs"))),
    ]
    return Section("progress", "Best value over time", figures)


def _endings(results: Results) -> pd.DataFrame:
    """Every ending of an attempt in the order of time, with seconds since the start and the cost so far.

    `value` is that of the run where the attempt was its last one, else NaN.
    """
    runs = results.runs[["trial", "rung", "value"]]
    ended = results.attempts.merge(runs, on=["trial", "rung"], how="left")
    final = ended["final"].to_numpy(dtype=bool)
    last = final & ~ended.duplicated(["trial", "rung", "final"], keep="last")
    ended["value"] = ended["value"].astype(float).where(last)
    # Where the start is unknown the attempt ended no sooner than this.
    at = (ended["started"].fillna(ended["submitted_at"]) + ended["seconds"].astype(float)).ffill()
    started = results.folder.state.started
    begin = at.min() if started is None else min(started.at, at.min())
    ended["since_start"] = (at - begin).fillna(0.0)
    ended = ended.sort_values("since_start", kind="stable", ignore_index=True)
    ended["gpu"] = ended["gpu_seconds"].astype(float).cumsum()
    ended["run"] = ended["seconds"].astype(float).cumsum()
    return ended


def _improvements(results: Results, known: pd.DataFrame) -> list[_Step]:
    """The best after each ending, where it changed: as in `SweepState.best`, of each newest value.

    A configuration that is trained several times counts with its mean, once all have a value.
    """
    state = results.folder.state
    sign = 1 if results.minimise else -1
    repeat = [trial.repeat for trial in state.trials]
    awaited = known.groupby([known["trial"] - np.array(repeat)[known["trial"]], "rung"]).size()
    missing = dict(awaited.items())
    totals: dict[tuple[int, int], float] = {}
    newest: dict[int, tuple[int, float]] = {}
    heap: list[tuple[float, int, int]] = []
    steps: list[_Step] = []
    rows = zip(known["trial"], known["rung"], known["value"], strict=True)
    for place, (trial, rung, value) in enumerate(rows):
        first = trial - repeat[trial]
        totals[first, rung] = totals.get((first, rung), 0.0) + value
        missing[first, rung] -= 1
        if missing[first, rung] or state.value_of(first, rung) is None:
            continue
        mean = totals[first, rung] / awaited[first, rung] if state.repeats > 1 else value
        newest[first] = (rung, sign * mean)
        heapq.heappush(heap, (sign * mean, first, rung))
        while newest[heap[0][1]] != (heap[0][2], heap[0][0]):
            heapq.heappop(heap)
        best = _Step(place, heap[0][1], sign * heap[0][0])
        if not steps or steps[-1][1:] != best[1:]:
            steps.append(best)
    return steps


def _figure(results: Results, known: pd.DataFrame, steps: Sequence[_Step], column: str, title: str) -> Figure:
    x, values = known[column].to_numpy(), known["value"].to_numpy()
    unit, seconds = next((unit, size) for unit, size in _UNITS if x[-1] >= 2 * size or size == 1)
    x, title = x / seconds, title.format(unit)
    axis = value_axis(results.metric, values, minimise=results.minimise)
    order = np.argsort(values if results.minimise else -values, kind="stable")
    kept = np.sort(order[thinned(len(order), best=_BEST_RUNS, most=MOST_RUNS)])
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "yaxis": axis.layout,
        "legend": LEGEND_BELOW,
        "hovermode": "closest",
    }
    if axis.menu:
        layout["updatemenus"] = [axis.menu]
    sign = 1 if results.minimise else -1
    worse = any(sign * after.value > sign * before.value for before, after in pairwise(steps))
    name = "best at the time" if worse else "best so far"
    notes = ""
    if worse:
        notes += " The line gets worse where the best one did when it was trained further or again."
    if results.folder.state.repeats > 1:
        notes += " The line is of means over the repeats of a configuration, the points are of single runs."
    if len(kept) < len(values):
        notes += f" {len(kept):,} of {len(values):,} runs are drawn."
    return Figure(
        f"progress-{column.replace('_', '-')}",
        [_runs(known, kept, x), _line(steps, x, name)],
        layout,
        f"The {name.replace('best', f'best {results.metric}')} over {title}; each point is a run that gave a "
        f"value.{notes}{axis.note}",
        _words(results.metric, steps, x, title),
    )


def _runs(known: pd.DataFrame, kept: NDArray[np.int64], x: Floats) -> dict[str, Any]:
    rows = known.iloc[kept]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "runs",
        "x": x[kept],
        "y": rows["value"].to_numpy(),
        "customdata": rows[["trial", "step"]].to_numpy(dtype=np.int64),
        "marker": {"color": "@muted", "size": 5, "opacity": 0.45},
        "hovertemplate": "trial %{customdata[0]} at %{customdata[1]}: %{y:.6~g}<extra></extra>",
    }


def _line(steps: Sequence[_Step], x: Floats, name: str) -> dict[str, Any]:
    """The last step lasts until now."""
    ends = [*(float(x[step.place]) for step in steps), float(x[-1])]
    shown = [*steps, steps[-1]]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(steps) <= 50 else "lines",
        "name": name,
        "x": ends,
        "y": [step.value for step in shown],
        "customdata": [step.trial for step in shown],
        "line": {"color": "@1", "width": 2.5, "shape": "hv"},
        "marker": {"size": 6},
        "hovertemplate": "trial %{customdata} is the best: %{y:.6~g}<extra></extra>",
    }


def _words(metric: str, steps: Sequence[_Step], x: Floats, unit: str) -> str:
    first, last = steps[0], steps[-1]
    begin = f"The first value of {metric} is {number(first.value)}, after {_short(x[first.place])} {unit}."
    if len(steps) == 1:
        return f"{begin} Nothing better came until {_short(x[-1])} {unit}."
    half = (first.value + last.value) / 2
    falls = last.value < first.value
    reached = next(step for step in steps if (step.value <= half if falls else step.value >= half))
    return (
        f"{begin} After {count(len(steps) - 1, 'change')} the best is {number(last.value)} of trial "
        f"{last.trial}, found after {_short(x[last.place])} of {_short(x[-1])} {unit}. Half of the "
        f"way was made by {_short(x[reached.place])}."
    )


def _short(time: float) -> str:
    return f"{time:,.0f}" if time >= 100 else f"{time:.3g}"
