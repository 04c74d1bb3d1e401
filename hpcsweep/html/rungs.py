"""Rungs: who was compared with whom, and who was promoted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from hpcsweep.core.events import Outcome
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.html.axes import LEGEND_BELOW, sideways, value_axis
from hpcsweep.html.brackets import Ladder, RunFate, brackets, fate, ladders, top_resource
from hpcsweep.html.format import count, number
from hpcsweep.html.labels import some
from hpcsweep.html.sections import Block, Figure, Section, Table, Text
from hpcsweep.html.subsample import thinned
from hpcsweep.views.results import Results

#: So many brackets have a table each; of more, those with the same rungs are taken together.
MOST_TABLES: Final = 6
#: So many rungs are told of one bracket, the first and the last among them.
MOST_RUNGS: Final = 30
#: So many values are drawn of one rung, ...
MOST_POINTS: Final = 300
_BEST_POINTS: Final = 50
#: ... and so many rungs in the figure.
_DRAWN: Final = 30
#: Pixels for each of them.
_ROOM: Final = 36
_FAILED: Final = (Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.LOST, Outcome.CANCELLED)


class Rung(NamedTuple):
    """One rung of one or several brackets.

    Attributes:
        runs: With the trial of each.
        ranked: Values of configurations, best first, with the first trial and what followed.
        promoted: First trials of those that went on, best first.
        cut: The worst value that was promoted; None if none was.
    """

    resource: int
    runs: Sequence[tuple[Trial, Run]]
    ranked: Sequence[tuple[float, int, RunFate]]
    promoted: Sequence[int]
    cut: float | None


def rungs(results: Results) -> Section | None:
    """A table for each bracket, and one figure of the values at all rungs."""
    state = results.folder.state
    if not state.trials:
        return None
    shown = brackets(state)
    blocks: list[Block] = []
    if len(shown) > MOST_TABLES:
        words = f"{len(shown):,} brackets: those with the same rungs are taken together"
        best = [one for one in shown if _holds_best(one, results)]
        kinds = ladders(state)
        words += ", and the one of the best trial is shown by itself." if best else "."
        if len(kinds) > MOST_TABLES:
            words += f" Shown are {MOST_TABLES} of {len(kinds):,} kinds."
        blocks.append(Text(words))
        shown = [*kinds[:MOST_TABLES], *best]
    climbed = [(ladder, _rungs(ladder, state)) for ladder in shown]
    if len(climbed) == 1 and len(climbed[0][1]) == 1:
        blocks.append(Text(_no_rungs(climbed[0][1][0])))
    else:
        figure = _figure(results, climbed)
        blocks += [figure] if figure else []
    blocks += [_table(results, ladder, found) for ladder, found in climbed]
    return Section("rungs", "Rungs", blocks)


def _no_rungs(only: Rung) -> str:
    stopped = sum(run.outcome is Outcome.STOPPED for _, run in only.runs)
    if stopped:
        return f"Every trial sets out for {only.resource:,}; {count(stopped, 'run')} ended early on the way."
    return f"There are no rungs: every trial is trained up to {only.resource:,} without a comparison."


def _holds_best(ladder: Ladder, results: Results) -> bool:
    return results.best is not None and any(t.trial == results.best["trial"] for t in ladder.trials)


def _rungs(ladder: Ladder, state: SweepState) -> list[Rung]:
    top = top_resource(state)
    sign = 1 if state.minimise else -1
    at: dict[int, list[tuple[Trial, Run]]] = {resource: [] for resource in ladder.resources}
    for trial in ladder.trials:
        for run in trial.runs:
            at[run.resource].append((trial, run))
    found = []
    for resource, runs in at.items():
        ranked = []
        for trial, run in runs:
            value = None if trial.repeat else state.value_of(trial.trial, run.rung)
            if value is not None and run.status is RunStatus.COMPLETED:
                ranked.append((value, trial.trial, fate(trial, run, top=top)))
        ranked.sort(key=lambda one: (sign * one[0], one[1]))
        on = [(value, trial) for value, trial, _ in ranked if _promoted(state, trial, resource)]
        promoted = [trial for _, trial in on]
        found.append(Rung(resource, runs, ranked, promoted, on[-1][0] if on else None))
    return found


def _promoted(state: SweepState, trial: int, resource: int) -> bool:
    return state.trials[trial].runs[-1].resource > resource


def _table(results: Results, ladder: Ladder, found: Sequence[Rung]) -> Table:
    told = [found[place] for place in thinned(len(found), best=1, most=MOST_RUNGS)]
    ends = [Counter(run.outcome for _, run in rung.runs) for rung in told]
    top = top_resource(results.folder.state)
    columns: dict[str, list[str | int | float | None]] = {
        "resource": [rung.resource for rung in told],
        "runs": [len(rung.runs) for rung in told],
        "completed": [end[Outcome.COMPLETED] for end in ends],
        "failed": [sum(end[what] for what in _FAILED) for end in ends],
        "stopped": [end[Outcome.STOPPED] for end in ends],
        "under way": [end[None] for end in ends],
        f"best {results.metric}": [rung.ranked[0][0] if rung.ranked else None for rung in told],
        "cut-off": [rung.cut for rung in told],
        "went on": [None if rung.resource >= top else len(rung.promoted) for rung in told],
        "which, best first": [_which(rung, end, top=top) for rung, end in zip(told, ends, strict=True)],
    }
    for name in ("stopped", "under way"):
        if not any(columns[name]):
            del columns[name]
    copied = Counter((trial.start, trial.parent) for trial in ladder.trials if trial.parent is not None)
    if copied:
        columns["copied by clones"] = [
            some(
                [f"{parent} (×{n})" for (start, parent), n in copied.most_common() if start == rung.resource]
            )
            for rung in told
        ]
    best = results.best or {"trial": -1, "resource": 0}
    marked = frozenset(
        row
        for row, rung in enumerate(told)
        if best["resource"] == rung.resource and any(trial == best["trial"] for _, trial, _ in rung.ranked)
    )
    configs = sum(not trial.repeat for trial in ladder.trials)
    caption = f"{ladder.name.capitalize()}: {count(configs, 'configuration')}."
    if len(told) < len(found):
        caption += f" {len(told)} of {len(found):,} rungs."
    if marked:
        caption += " The best of the sweep is in the marked row."
    return Table(list(columns), list(zip(*columns.values(), strict=True)), caption, marked)


def _which(rung: Rung, ends: Counter[Outcome | None], *, top: int) -> str | None:
    """Who went on; at the last rung nobody does, and those that completed it are trained in full."""
    if rung.resource < top:
        return some(rung.promoted)
    return "trained in full" if ends[Outcome.COMPLETED] else None


def _figure(results: Results, climbed: Sequence[tuple[Ladder, Sequence[Rung]]]) -> Figure | None:
    """Values side by side, a column for each rung; None where there are no values, or too many rungs."""
    columns = [(ladder, rung) for ladder, found in climbed for rung in found]
    if len(columns) > _DRAWN:
        return None
    drawn: dict[RunFate, list[tuple[float, float, int]]] = {RunFate.DROPPED: [], RunFate.WENT_ON: []}
    cuts: list[float | None] = []
    total = 0
    for column, (_, rung) in enumerate(columns):
        total += len(rung.ranked)
        for place in thinned(len(rung.ranked), best=_BEST_POINTS, most=MOST_POINTS):
            value, trial, what = rung.ranked[place]
            aside = float(sideways(np.array([trial]))[0])
            drawn.setdefault(what, []).append((column + aside, value, trial))
        cuts += [rung.cut, rung.cut, None]
    shown = sum(map(len, drawn.values()))
    if not shown:
        return None
    values = np.array([value for points in drawn.values() for _, value, _ in points])
    axis = value_axis(results.metric, values, minimise=results.minimise)
    traces = [_strip(what, points) for what, points in drawn.items() if points]
    ends = [x for column in range(len(columns)) for x in (column - 0.42, column + 0.42, None)]
    if any(cut is not None for cut in cuts):
        line = {"color": "@2", "width": 2}
        traces.append(
            {"type": "scatter", "mode": "lines", "name": "cut-off", "x": ends, "y": cuts, "line": line}
        )
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": "resource of the rung"},
            "tickmode": "array",
            "tickvals": list(range(len(columns))),
            "ticktext": [f"{rung.resource:,}" for _, rung in columns],
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": axis.layout,
        "hovermode": "closest",
        "legend": LEGEND_BELOW,
    }
    if len(climbed) > 1:
        layout |= _names(climbed)
        layout["xaxis"]["title"] = {"text": "resource of the rung, by bracket"}
    if axis.menu:
        layout["updatemenus"] = [axis.menu]
    thin = f" {shown:,} of {total:,} values are drawn." if shown < total else ""
    return Figure(
        "rungs-values",
        traces,
        layout,
        f"{results.metric} at each rung; the line is the worst that went on.{thin}{axis.note}",
        _words(results.metric, climbed),
        height=460,
        width=_ROOM * len(columns),
    )


def _strip(what: RunFate, points: Sequence[tuple[float, float, int]]) -> dict[str, Any]:
    good = what is RunFate.WENT_ON
    return {
        "type": "scatter",
        "mode": "markers",
        "name": what.value,
        "x": np.array([x for x, _, _ in points]),
        "y": np.array([y for _, y, _ in points]),
        "customdata": np.array([trial for _, _, trial in points]),
        "marker": {"color": "@1" if good else "@muted", "size": 6 if good else 5, "opacity": 0.75},
        "hovertemplate": "trial %{customdata}: %{y:.6~g}",
    }


def _names(climbed: Sequence[tuple[Ladder, Sequence[Rung]]]) -> dict[str, Any]:
    """Lines between brackets, and their numbers above them."""
    shapes: list[dict[str, Any]] = []
    names: list[dict[str, Any]] = []
    at = 0
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    for ladder, found in climbed:
        if at:
            edge = {"x0": at - 0.5, "x1": at - 0.5, "yref": "paper", "y0": 0, "y1": 1.05}
            shapes.append({"type": "line", "line": line} | edge)
        text = f"#{ladder.brackets[0]}" if len(ladder.brackets) == 1 else f"{len(ladder.brackets):,} ×"
        middle = at + (len(found) - 1) / 2
        names.append(
            {
                "text": text,
                "x": middle,
                "yref": "paper",
                "y": 1,
                "yanchor": "bottom",
                "showarrow": False,
                "yshift": 13 * (len(names) % 2),  # side by side they would run into each other
                "font": {"size": 11},
            }
        )
        at += len(found)
    return {"shapes": shapes, "annotations": names, "margin": {"t": 40}}


def _words(metric: str, climbed: Sequence[tuple[Ladder, Sequence[Rung]]]) -> str:
    words = [f"{metric} by rung."]
    for ladder, found in climbed:
        told = []
        for rung in found[:MOST_RUNGS]:
            if rung.ranked:
                best = number(rung.ranked[0][0])
                told.append(f"at {rung.resource:,} the best of {len(rung.ranked):,} is {best}")
            if rung.cut is not None:
                told[-1] += f", {len(rung.promoted):,} went on, cut-off {number(rung.cut)}"
        if told:
            words.append(f"{ladder.name.capitalize()}: {'; '.join(told)}.")
    return " ".join(words)
