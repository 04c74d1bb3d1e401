"""Section: when tasks held which node, and what they ran there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from hpcsweep.core.domains import Floats
from hpcsweep.core.outcomes import FACTS, Interruption, Outcome
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import LEGEND_ABOVE, drawn_text, time_unit
from hpcsweep.html.sections import Figure, Section
from hpcsweep.views.format import duration, share
from hpcsweep.views.results import Results
from hpcsweep.views.task_timeline import Lane, TimedRun, TimedTask, Timeline, lanes_by_node, task_timeline

#: So many rows are drawn, and so many runs: of more, the nodes with most trouble, then those most used.
MOST_ROWS: Final = 240
MOST_RUNS: Final = 4000
#: Pixels of a row: between these, so that all rows take about `_ROOM`.
_ROW: Final = (4, 18)
_ROOM: Final = 720
#: Pixels of the strip with what waits in the queue, and around all.
_STRIP, _AROUND = 70, 110
#: Points of the line there.
_POINTS: Final = 400
#: Rows of so many pixels have room for a line around runs, of so many.
_OUTLINED, _OUTLINE = 8, 0.6
#: Labels of nodes need so many pixels.
_LABEL: Final = 15


class _Row(NamedTuple):
    """One lane of a node at its place in the figure."""

    lane: Lane
    at: float  # of its first row


def timeline(results: Results) -> Section | None:
    """Bars by node, a row for each run that it does at a time; None before anything has begun."""
    found = task_timeline(results.folder.events)
    if not found.tasks:
        return None
    nodes = lanes_by_node(found.tasks)
    shown = _shown(nodes)
    tasks = [task for name in nodes if name in shown for lane in nodes[name] for task in lane.tasks]
    rows, labels = _placed(lanes_by_node(_newest(tasks)))
    figure = _figure(results, found, rows, labels, left_out=len(nodes) - len(shown))
    return Section("timeline", "Tasks by node", [figure])


def _shown(nodes: dict[str, list[Lane]]) -> set[str]:
    """As many nodes as fit: those with most runs that did not end well first, then those most used."""

    def rank(name: str) -> tuple[int, float]:
        tasks = [task for lane in nodes[name] for task in lane.tasks]
        bad = sum(_group(run) in _BAD for task in tasks for run in task.runs)
        return -bad, -sum(task.ended - task.began for task in tasks)

    chosen: set[str] = set()
    rows = runs = 0
    for name in sorted(nodes, key=rank):
        rows += sum(lane.height for lane in nodes[name])
        runs += sum(len(task.runs) for lane in nodes[name] for task in lane.tasks)
        if chosen and (rows > MOST_ROWS or runs > MOST_RUNS):
            break
        chosen.add(name)
    return chosen


def _newest(tasks: Sequence[TimedTask]) -> list[TimedTask]:
    """Of a single node with more runs than are drawn those that ended last."""
    kept: list[TimedTask] = []
    runs = 0
    for task in sorted(tasks, key=lambda task: -task.ended):
        runs += len(task.runs)
        if kept and runs > MOST_RUNS:
            break
        kept.append(task)
    return kept


def _placed(nodes: dict[str, list[Lane]]) -> tuple[list[_Row], dict[str, float]]:
    """Lanes one below the other with a gap between nodes, and the middle of each node."""
    rows: list[_Row] = []
    labels: dict[str, float] = {}
    at = 0.0
    for name, lanes in nodes.items():
        began = at
        for lane in lanes:
            if rows and at + lane.height > MOST_ROWS + len(labels):
                break
            rows.append(_Row(lane, at))
            at += lane.height
        labels[name] = (began + at - 1) / 2
        at += 0.6
    return rows, labels


# ---------------------------------------------------------------------- the figure

COMPLETED: Final = "completed"
STOPPED: Final = "stopped early"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
UNDER_WAY: Final = "under way"
_BAD: Final = (FAILED, INTERRUPTED)
_COLOURS: Final = {
    COMPLETED: "@1",
    STOPPED: "@6",
    UNDER_WAY: "@3",
    INTERRUPTED: "@5",
    FAILED: "@bad",
}


def _group(run: TimedRun) -> str:
    """Which colour it has."""
    match run.ending:
        case None:
            return UNDER_WAY
        case Interruption():
            return INTERRUPTED
        case Outcome.COMPLETED:
            return COMPLETED
        case Outcome.STOPPED:
            return STOPPED
        case _:
            return FAILED


def _figure(
    results: Results, found: Timeline, rows: Sequence[_Row], labels: dict[str, float], *, left_out: int
) -> Figure:
    began = min(results.folder.progress.began, found.tasks[0].began)
    ended = max(task.ended for task in found.tasks)
    unit, seconds = time_unit(ended - began)
    count = rows[-1].at + rows[-1].lane.height
    height = round(np.clip(_ROOM / count, *_ROW) * count)
    tasks = [(row, task) for row in rows for task in row.lane.tasks]
    ticks = dict(
        itertools.islice(labels.items(), 0, None, max(1, round(_LABEL * len(labels) / height + 0.5)))
    )
    waits = (found.waiting - began) / seconds
    waits = waits[waits[:, 1] > waits[:, 0]]
    strip = (_STRIP + 20) / (height + _STRIP + 20) if len(waits) else 0.0
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "bargap": 0,
        "xaxis": {"title": {"text": f"{unit}s since the start"}, "anchor": "y2" if len(waits) else "y"},
        "yaxis": {
            "domain": [strip, 1.0],
            "range": [count - 0.4, -0.6],
            "tickmode": "array",
            "tickvals": list(ticks.values()),
            "ticktext": list(ticks),
            "showgrid": False,
            "zeroline": False,
        },
        "legend": LEGEND_ABOVE,
        "hovermode": "closest",
    }
    outline = _OUTLINE if height >= _OUTLINED * count else 0.0
    held = [(row, task) for row, task in tasks if task.keeps or len(task.runs) > 1]
    traces = _held(held, began, seconds) + _runs(results, tasks, began, seconds, outline=outline)
    if len(waits):
        layout["yaxis2"] = {
            "domain": [0.0, strip * _STRIP / (_STRIP + 20)],
            "title": {"text": "in queue"},
            "rangemode": "tozero",
            "nticks": 3,
            "fixedrange": True,
        }
        traces.append(_queue(waits))
    return Figure(
        "timeline-tasks",
        traces,
        layout,
        _caption(results, found, tasks=[task for _, task in tasks], left_out=left_out, waits=len(waits)),
        _summary(found.tasks),
        height=height + _AROUND + (_STRIP + 20 if len(waits) else 0),
    )


def _held(tasks: Sequence[tuple[_Row, TimedTask]], began: float, unit_s: float) -> list[dict[str, Any]]:
    """A bar behind the runs of each task, seen where it has none."""
    if not tasks:
        return []
    details = []
    for _, task in tasks:
        waited = "" if task.submitted is None else duration(max(0.0, task.began - task.submitted))
        idle = share(task.idle_s, max(1e-9, (task.ended - task.began) * task.lanes))
        name = f"{task.job or task.batch} task {task.task}"
        details.append([name, len(task.runs), duration(task.ended - task.began), idle, waited or "?"])
    trace = {
        "type": "bar",
        "orientation": "h",
        "name": "no run",
        "base": [(task.began - began) / unit_s for _, task in tasks],
        "x": [(task.ended - task.began) / unit_s for _, task in tasks],
        "y": [row.at + (task.lanes - 1) / 2 for row, task in tasks],
        "width": [0.92 * task.lanes for _, task in tasks],
        "marker": {"color": "@muted/0.35"},
        "customdata": details,
        "hovertemplate": "%{customdata[0]}: %{customdata[1]} runs in %{customdata[2]}, "
        "%{customdata[3]} without a run; waited %{customdata[4]} in the queue<extra></extra>",
    }
    return [trace]


def _runs(
    results: Results,
    tasks: Sequence[tuple[_Row, TimedTask]],
    began: float,
    unit_s: float,
    *,
    outline: float,
) -> list[dict[str, Any]]:
    """A trace for each way to end; the higher the resource, the stronger the colour."""
    trials = results.folder.state.trials
    levels = sorted({run.resource for trial in trials for run in trial.runs})
    strength = dict(zip(levels, np.linspace(0.55, 1.0, len(levels)), strict=True))
    strength[levels[-1]] = 1.0
    groups: dict[str, list[tuple[float, TimedTask, TimedRun]]] = {}
    for row, task in tasks:
        for run in task.runs:
            groups.setdefault(_group(run), []).append((row.at + run.lane, task, run))
    traces = []
    for group in (group for group in _COLOURS if group in groups):
        runs = groups[group]
        details: list[list[Any]] = [
            [
                run.run.trial,
                run.run.rung,
                trials[run.run.trial].runs[run.run.rung].resource,
                UNDER_WAY if run.ending is None else FACTS[run.ending].label,
                ("about " if run.about else "") + duration(run.ended - run.began),
                task.node if task.nodes == 1 else f"{task.node} and {plural(task.nodes - 1, 'node')} more",
            ]
            for _, task, run in runs
        ]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": group,
                "base": [(run.began - began) / unit_s for _, _, run in runs],
                "x": [(run.ended - run.began) / unit_s for _, _, run in runs],
                "y": [at for at, _, _ in runs],
                "width": 0.76,
                "marker": {
                    "color": _COLOURS[group],
                    "opacity": np.array([strength[resource] for _, _, resource, *_ in details]),
                    "line": {"width": outline, "color": "@page"},
                },
                "textposition": "none",
                "customdata": details,
                "hovertemplate": "trial %{customdata[0]} rung %{customdata[1]}, to resource "
                "%{customdata[2]}: %{customdata[3]}, %{customdata[4]} on %{customdata[5]}<extra></extra>",
            }
        )
    return traces


def _queue(waits: Floats) -> dict[str, Any]:
    """How many tasks waited at a time."""
    at = np.unique(waits)
    if len(at) > _POINTS:
        at = np.linspace(at[0], at[-1], _POINTS)
    begun, over = (np.searchsorted(np.sort(waits[:, side]), at, side="right") for side in (0, 1))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "tasks in the queue",
        "x": at,
        "y": begun - over,
        "yaxis": "y2",
        "line": {"color": "@4", "width": 1.5, "shape": "hv"},
        "fill": "tozeroy",
        "fillcolor": "@4/0.2",
        "showlegend": False,
        "hovertemplate": "%{y} tasks in the queue<extra></extra>",
    }


def _caption(
    results: Results, found: Timeline, *, tasks: Sequence[TimedTask], left_out: int, waits: int
) -> str:
    nodes = len({(task.pool, task.node) for task in tasks})
    drawn, total = (sum(len(task.runs) for task in some) for some in (tasks, found.tasks))
    text = "What each node ran, a row for each run that it does at a time."
    if len({run.resource for trial in results.folder.state.trials for run in trial.runs}) > 1:
        text += " The higher the resource of a run, the stronger its colour."
    if any(task.keeps for task in found.tasks):
        text += " Grey: tasks that keep their GPUs and have no run."
    if waits:
        text += " Below: tasks in the queue, or held back until max_gpus allowed them."
    if left_out:
        text += drawn_text(nodes, nodes + left_out, "nodes")
        text += " They are those with most runs that failed or were interrupted, then those most used."
    elif drawn < total:
        text += f"{drawn_text(drawn, total, 'runs')} They are the newest."
    if any(run.about for task in found.tasks for run in task.runs):
        text += " When some of the interrupted runs began is known only roughly."
    if found.unplaced:
        text += f" {plural(found.unplaced, 'run')} under way of which nothing tells the beginning yet."
    return text


def _summary(tasks: Sequence[TimedTask]) -> str:
    runs = [run for task in tasks for run in task.runs]
    nodes = {task.node for task in tasks}
    text = f"{plural(len(runs), 'attempt')} in {plural(len(tasks), 'task')} on {plural(len(nodes), 'node')}"
    bad = sum(_group(run) in _BAD for run in runs)
    text += f"; {bad:,} failed or interrupted." if bad else "; all ended well."
    gaps = [
        after.began - before.ended
        for task in tasks
        if task.keeps and task.lanes == 1
        for before, after in itertools.pairwise(task.runs)
    ]
    if gaps:
        middle, longest = (duration(max(0.0, float(gap))) for gap in (np.median(gaps), max(gaps)))
        text += (
            f" {plural(len(gaps), 'hand-over')} from one run to the next in tasks that keep their GPUs: "
            f"the median took {middle}, the longest {longest}."
        )
    return text
