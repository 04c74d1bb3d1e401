"""Learning curves: which went on from each rung, and which were dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hpcsweep.core.models import Run
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import (
    LEGEND_BELOW,
    OBJECTIVE,
    dotted_line,
    each_objective,
    menu,
    subsample,
    value_axis,
)
from hpcsweep.html.sections import Block, Figure, Section, choice
from hpcsweep.views.brackets import BracketGroup, RunFate, fate, group_brackets, top_resource
from hpcsweep.views.configurations import configurations
from hpcsweep.views.format import number
from hpcsweep.views.results import Results

if TYPE_CHECKING:
    import pandas as pd

#: So many curves are drawn, among them the best ones and some fully trained ones.
MOST_CURVES: Final = 300
_BEST: Final = 60
_IN_FULL: Final = 120
#: So many points has one curve at most, and all of them together, about.
MOST_POINTS: Final = 200
_ALL_POINTS: Final = 24_000
#: More rungs than that are not marked one by one.
_MARKED: Final = 10

_STYLES: Final = {
    RunFate.DROPPED: ("dropped", {"color": "@muted/0.45", "width": 1}),
    RunFate.FAILED: ("failed", {"color": "@bad/0.6", "width": 1}),
    RunFate.UNDER_WAY: ("under way", {"color": "@3/0.8", "width": 1.2}),
    RunFate.WENT_ON: ("went on", {"color": "@1/0.7", "width": 1.4}),
}


def curves(results: Results, objective: int | None = None) -> Section | None:
    """The metric over the steps; between two rungs a curve shows whether the trial went on from there."""
    versions: dict[tuple[str, ...], list[Block]] = {}
    for index, of, own in each_objective(results.objectives, objective):
        figure = _figure(results, index)
        if figure is not None:
            versions[of.metric,] = [figure._replace(id=f"{figure.id}{own}")]
    if not versions:
        return None
    blocks = choice("curves-by-objective", [OBJECTIVE], versions, next(iter(versions)))
    return Section("curves", "Learning curves", blocks)


def _figure(results: Results, objective: int) -> Figure | None:
    """Of one objective; None where no trial has two points."""
    of = results.objectives[objective]
    reports = objective_reports(results, objective)
    reports = reports[np.isfinite(reports["value"])]
    if not reports.duplicated("trial").any():
        return None
    total = int(reports["trial"].nunique())
    kept = _kept(results, set(reports["trial"]), objective)
    shown = subsample_points(reports[reports["trial"].isin(kept)], most=max(20, _ALL_POINTS // len(kept)))
    axis = value_axis(of.metric, shown["value"].to_numpy(), minimise=of.minimise)
    groups = group_brackets(results.folder.state)
    traces, group_of_trace = _traces(results, groups, shown)
    best = _best_trace(results, reports)
    brackets = [_choice(groups, group_of_trace, others=len(best))] if len(groups) > 1 else []
    layout = {
        "xaxis": _steps_axis(groups, shown),
        "yaxis": axis.layout,
        "hovermode": "closest",
        "legend": LEGEND_BELOW,
        "shapes": [dotted_line(resource) for resource in _rung_resources(groups)],
        "updatemenus": [*brackets, *axis.menus],
    }
    drawn = plural(total, "curve")
    if len(kept) < total:
        drawn = (
            f"{len(kept):,} of {drawn} (the best, some fully trained ones, and an even spread over "
            "the others)"
        )
    caption = f"{of.metric} while training, {drawn}{_legend_text(results)}{axis.note}"
    words = _summary(results, groups, reports, objective)
    return Figure("curves-all", [*traces, *best], layout, caption, words, height=480)


def objective_reports(results: Results, objective: int = 0) -> pd.DataFrame:
    """What was reported of an objective, or, where nothing is kept of it, the values of the runs."""
    import pandas as pd

    metrics, metric = results.metrics, results.objectives[objective].metric
    if metric in metrics and len(metrics):
        reports = metrics[["trial", "rung", "step"]].assign(value=metrics[metric].astype(float))
        reports = reports.sort_values(["trial", "step", "rung"], kind="stable", ignore_index=True)
        return reports.drop_duplicates(["trial", "step"], keep="last")
    rows = [
        (trial.trial, run.rung, run.achieved_resource, _value(run, objective))
        for trial in results.folder.state.trials
        for run in trial.runs
        if run.value is not None
    ]
    reports = pd.DataFrame(rows, columns=["trial", "rung", "step", "value"])
    return reports.astype({"value": float})


def _value(run: Run, objective: int) -> float | None:
    """Of one objective."""
    return run.values[objective] if objective and run.value is not None else run.value


def _kept(results: Results, reported: set[int], objective: int) -> set[int]:
    """The trials whose curves are drawn."""
    state = results.folder.state
    configs, repeats = configurations(state, objective=objective), state.repeats
    # All repeats of the best configuration, then those of the next one.
    trials = (configs.trials[:, None] + np.arange(repeats)).ravel()
    there = np.isin(trials, list(reported))
    valued, resources = trials[there].tolist(), np.repeat(configs.resources, repeats)[there]
    order = [*valued, *sorted(reported - set(valued))]
    in_full = np.flatnonzero(resources >= top_resource(state))
    chosen = set(range(min(_BEST, len(order))))
    chosen |= set(in_full[subsample(len(in_full), best=0, most=_IN_FULL)].tolist())
    rest = [index for index in range(len(order)) if index not in chosen]
    chosen |= {rest[index] for index in subsample(len(rest), best=0, most=MOST_CURVES - len(chosen))}
    return {order[index] for index in chosen}


def subsample_points(reports: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """Of each curve a bounded number of points, its first and last among them."""
    indices = reports.groupby("trial").cumcount().to_numpy()
    sizes = reports.groupby("trial")["step"].transform("size").to_numpy()
    most = min(most, MOST_POINTS)
    # The n-th of `size` points is kept where it is the first to reach the next of `most` shares.
    share = indices * (most - 1) // np.maximum(sizes - 1, 1)
    before = (indices - 1) * (most - 1) // np.maximum(sizes - 1, 1)
    return reports.iloc[np.flatnonzero((sizes <= most) | (indices == 0) | (share > before))]


def _traces(
    results: Results, groups: Sequence[BracketGroup], shown: pd.DataFrame
) -> tuple[list[dict[str, Any]], list[int]]:
    """One for each fate and group of bracket, and of each trace the index of its group."""
    state = results.folder.state
    top = top_resource(state)
    group_of = {trial.trial: index for index, group in enumerate(groups) for trial in group.trials}
    lines: dict[tuple[RunFate, int], list[tuple[float, float, int]]] = {}
    before: tuple[int, RunFate | None, tuple[float, float, int]] = (-1, None, (0.0, 0.0, 0))
    columns = (shown[name].tolist() for name in ("trial", "rung", "step", "value"))
    for trial, rung, step, value in zip(*columns, strict=True):
        record = state.trials[trial]
        now = fate(record, record.runs[rung], top=top)
        point = (step, value, trial)
        line = lines.setdefault((now, group_of[trial]), [])
        if before[:2] != (trial, now):
            line.append((math.nan, math.nan, trial))
            if before[0] == trial:  # the stretch goes on where the one before ended
                line.append(before[2])
        line.append(point)
        before = (trial, now, point)
    mode = "lines" if len(shown) > 6 * shown["trial"].nunique() else "lines+markers"
    keys = sorted(lines, key=lambda key: (list(_STYLES).index(key[0]), key[1]))
    last = all(run.resource >= top for trial in state.trials for run in trial.runs)
    named: set[RunFate] = set()
    traces = []
    for key in keys:
        traces.append(_trace(key[0], lines[key][1:], mode, named=key[0] not in named, last=last))
        named.add(key[0])
    return traces, [group for _, group in keys]


def _name(what: RunFate, *, last: bool) -> str:
    """From the last rung nobody goes on."""
    return "fully trained" if last and what is RunFate.WENT_ON else _STYLES[what][0]


def _trace(
    what: RunFate, line: Sequence[tuple[float, float, int]], mode: str, *, named: bool, last: bool
) -> dict[str, Any]:
    name, style = _name(what, last=last), _STYLES[what][1]
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "legendgroup": name,
        "showlegend": named,
        "x": np.array([x for x, _, _ in line]),
        "y": np.array([y for _, y, _ in line]),
        "customdata": np.array([trial for _, _, trial in line]),
        "line": style,
        "marker": {"size": 4},
        "meta": "curves",  # the page's script shows lines of chosen trials
        "hovertemplate": "trial %{customdata}, step %{x}: %{y:.6~g}",
    }


def _best_curve(results: Results, reports: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Who is the best, and its curve: the mean at the steps that all its repeats reported."""
    first = -1 if results.best is None else results.best["trial"]
    repeats = results.folder.state.repeats
    own = reports[reports["trial"].between(first, first + repeats - 1)]
    if repeats == 1 or own.empty:
        return f"trial {first}", own
    steps = own.groupby("step")["value"].agg(["mean", "size"])
    steps = steps[steps["size"] == own["trial"].nunique()]
    mean = steps.reset_index()[["step", "mean"]].rename(columns={"mean": "value"}).assign(trial=first)
    return f"mean of trials {first} to {first + repeats - 1}", mean


def _best_trace(results: Results, reports: pd.DataFrame) -> list[dict[str, Any]]:
    """The curve of the best configuration, on top of all; empty if there is none."""
    name, own = _best_curve(results, reports)
    if own.empty:
        return []
    own = subsample_points(own, most=MOST_POINTS)
    return [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(own) < 10 else "lines",
            "name": f"{'knee' if results.objectives.has_front else 'best'}: {name}",
            "x": own["step"].to_numpy(),
            "y": own["value"].to_numpy(),
            "line": {"color": "@2", "width": 3},
            "hovertemplate": f"{name}, step %{{x}}: %{{y:.6~g}}",
        }
    ]


def _rung_resources(groups: Sequence[BracketGroup]) -> list[int]:
    """Resources of all rungs; none where there is only one, or too many."""
    resources = sorted({resource for group in groups for resource in group.resources})
    return resources if 1 < len(resources) <= _MARKED else []


def _steps_axis(groups: Sequence[BracketGroup], shown: pd.DataFrame) -> dict[str, Any]:
    """On a log scale where the rungs are so spaced; then they are its ticks."""
    marked = _rung_resources(groups)
    axis: dict[str, Any] = {"title": {"text": "step"}}
    if len(marked) >= 3 and marked[-1] >= 8 * marked[0] and shown["step"].min() > 0:
        ticks = {"tickmode": "array", "tickvals": marked, "ticktext": [f"{mark:,}" for mark in marked]}
        return axis | {"type": "log"} | ticks
    few = len(shown) > 0 and shown["step"].max() - shown["step"].min() <= 10
    return axis | ({"dtick": 1} if few else {})  # there is no half a step


def _choice(groups: Sequence[BracketGroup], group_of_trace: Sequence[int], *, others: int) -> dict[str, Any]:
    """All brackets, or those of one group; the best curve always stays."""

    def button(name: str, chosen: Sequence[bool]) -> dict[str, Any]:
        return {"label": name, "method": "restyle", "args": [{"visible": [*chosen, *[True] * others]}]}

    buttons = [button("all brackets", [True] * len(group_of_trace))]
    for index, group in enumerate(groups):
        buttons.append(button(group.name, [owner == index for owner in group_of_trace]))
    return menu("Bracket", buttons)


def _legend_text(results: Results) -> str:
    state = results.folder.state
    if all(len(trial.runs) == 1 for trial in state.trials):
        return "."
    so_far = "" if state.ended else " so far"
    return (
        ". Between two rungs a curve is strong where the trial went on from there or was fully trained, "
        f"and pale where it was dropped or stopped{so_far}; dotted lines are the rungs."
    )


def _summary(results: Results, groups: Sequence[BracketGroup], reports: pd.DataFrame, objective: int) -> str:
    state = results.folder.state
    top = top_resource(state)
    sentences = []
    if results.best is not None:
        name, own = _best_curve(results, reports)
        which = "knee of the front" if results.objectives.has_front else "best"
        if len(own):
            first, last = own.iloc[0], own.iloc[-1]
            sentences.append(
                f"The {which}, {name}, went from {number(first['value'])} at step "
                f"{first['step']:.0f} to {number(last['value'])} at step {last['step']:.0f}."
            )
    group = groups[0]
    for resource in group.resources[:_MARKED]:
        values: dict[RunFate, list[float]] = {}
        for trial in group.trials:
            for run in trial.runs:
                value = _value(run, objective)
                if run.resource == resource and value is not None:
                    values.setdefault(fate(trial, run, top=top), []).append(value)
        counts = [
            f"{len(each):,} {_name(what, last=resource >= top)} (median {number(float(np.median(each)))})"
            for what, each in sorted(values.items(), key=lambda item: item[0].value, reverse=True)
        ]
        if counts:
            sentences.append(f"In {group.name}, at resource {resource:,}: {', '.join(counts)}.")
    return " ".join(sentences) or "No trial has a value yet."
