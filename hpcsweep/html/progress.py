"""The best value over time and over what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.core.events import RunId
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import HOVER, LEGEND_BELOW, drawn_text, markers, subsample, time_unit, value_axis
from hpcsweep.html.sections import Figure, Section
from hpcsweep.views.format import number
from hpcsweep.views.progress import BestChange, EndedRun, SweepProgress, uses_gpus
from hpcsweep.views.results import Results

#: So many runs are drawn as points behind the line, the best of them among these.
MOST_RUNS: Final = 1500
_BEST_RUNS: Final = 300


def progress(results: Results) -> Section | None:
    """Two figures: over the time since the start, and over GPU time, or that of runs without a GPU."""
    folder = results.folder
    runs, steps = _valued_runs(folder.progress), folder.progress.best_changes
    if not runs or not steps:
        return None
    began = folder.progress.began
    cost = "spent_gpu_s" if uses_gpus(folder.state) else "spent_s"
    cost_title = "GPU-{}s" if uses_gpus(folder.state) else "{}s of runs"
    since_start = [np.array([each.at - began for each in events]) for events in (runs, steps)]
    spent = [np.array([getattr(each, cost) for each in events]) for events in (runs, steps)]
    figures = [
        _figure(results, "since-start", "{}s since the start", runs, *since_start),
        _figure(results, "gpu" if cost == "spent_gpu_s" else "run", cost_title, runs, *spent),
    ]
    return Section("progress", "Best value over time", figures)


def _valued_runs(progress: SweepProgress) -> list[EndedRun]:
    """The last ending of each run that gave a value, in the order of time."""
    last: dict[RunId, EndedRun] = {ended.run: ended for ended in progress.ended}
    valued = (run for run in last.values() if run.value is not None and math.isfinite(run.value))
    return sorted(valued, key=lambda run: run.at)


def _figure(
    results: Results, id_: str, title: str, runs: Sequence[EndedRun], x: Floats, steps_x: Floats
) -> Figure:
    """The line of the best value at `steps_x` `(k,)`, and points for the runs at `x` `(n,)`."""
    state, steps = results.folder.state, results.folder.progress.best_changes
    end = max(x.max(), steps_x[-1])
    unit, seconds = time_unit(end)
    x, steps_x, title = x / seconds, np.append(steps_x, end) / seconds, title.format(unit)
    values = np.array([run.value for run in runs], dtype=float)
    axis = value_axis(results.metric, values, minimise=results.minimise)
    order = np.argsort(values if results.minimise else -values, kind="stable")
    kept = np.sort(order[subsample(len(order), best=_BEST_RUNS, most=MOST_RUNS)])
    layout = {
        "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "yaxis": axis.layout,
        "legend": LEGEND_BELOW,
        "hovermode": "closest",
        "updatemenus": axis.menus,
    }
    sign = 1 if results.minimise else -1
    worse = any(sign * after.value > sign * before.value for before, after in pairwise(steps))
    name = "best at the time" if worse else "best so far"
    notes = ""
    if worse:
        notes += " The line gets worse where the best trial did when it was trained further or again."
    if state.repeats > 1:
        notes += " The line shows means over the repeats of a configuration, the points single runs."
    notes += drawn_text(len(kept), len(values), "runs")
    points = markers(
        x[kept],
        values[kept],
        name="runs",
        customdata=np.array([[runs[index].run.trial, runs[index].step] for index in kept]),
        marker={"color": "@muted", "size": 5, "opacity": 0.45},
        hovertemplate=HOVER,
    )
    return Figure(
        f"progress-{id_}",
        [points, _line(steps, steps_x, name)],
        layout,
        f"The {name.replace('best', f'best {results.metric}')} over {title}; each point is a run that gave a "
        f"value.{notes}{axis.note}",
        _summary(results.metric, steps, steps_x, title),
    )


def _line(steps: Sequence[BestChange], x: Floats, name: str) -> dict[str, Any]:
    """The last step lasts until now."""
    shown = [*steps, steps[-1]]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(steps) <= 50 else "lines",
        "name": name,
        "x": x.tolist(),
        "y": [step.value for step in shown],
        "customdata": [step.trial for step in shown],
        "line": {"color": "@1", "width": 2.5, "shape": "hv"},
        "marker": {"size": 6},
        "hovertemplate": "trial %{customdata} is the best: %{y:.6~g}<extra></extra>",
    }


def _summary(metric: str, steps: Sequence[BestChange], x: Floats, unit: str) -> str:
    first, last = steps[0], steps[-1]
    begin = f"The first value of {metric} is {number(first.value)}, after {_short(x[0])} {unit}."
    if len(steps) == 1:
        return f"{begin} Nothing better came until {_short(x[-1])} {unit}."
    half = (first.value + last.value) / 2
    falls = last.value < first.value
    halfway = next(
        at
        for at, step in zip(x, steps, strict=False)
        if (step.value <= half if falls else step.value >= half)
    )
    return (
        f"{begin} After {plural(len(steps) - 1, 'change')} the best is {number(last.value)} of trial "
        f"{last.trial}, found after {_short(x[-2])} of {_short(x[-1])} {unit}. Half of the improvement "
        f"came by {_short(halfway)}."
    )


def _short(time: float) -> str:
    return f"{time:,.0f}" if time >= 100 else f"{time:.3g}"
