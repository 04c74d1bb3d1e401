"""Section: rungs, with the values compared there and who was promoted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from hpcsweep.core.objectives import Objectives
from hpcsweep.core.rank_correlation import RankCorrelation
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import (
    LEGEND_BELOW,
    OBJECTIVE,
    dotted_line,
    drawn_text,
    each_objective,
    jitter,
    subsample,
    value_axis,
)
from hpcsweep.html.sections import Block, Figure, Section, Table, Text, choice
from hpcsweep.views.brackets import (
    BracketGroup,
    RunFate,
    RungResult,
    each_bracket,
    group_brackets,
    top_resource,
)
from hpcsweep.views.format import listing, number
from hpcsweep.views.rank_correlations import rank_correlations
from hpcsweep.views.results import Results

#: So many brackets have a table each; of more, those with the same rungs are taken together.
MOST_TABLES: Final = 6
#: So many rungs are shown of one bracket, the first and the last among them.
MOST_RUNGS: Final = 30
#: So many values are drawn of one rung, ...
MOST_POINTS: Final = 300
_BEST_POINTS: Final = 50
#: ... and so many rungs in the figure.
_DRAWN: Final = 30
#: Pixels for each of them.
_ROOM: Final = 36
#: ... and for a letter above them.
_LETTER: Final = 7
#: Brackets, each with its rungs.
_Rungs: TypeAlias = Sequence[tuple[BracketGroup, Sequence[RungResult]]]


def rungs(results: Results, objective: int | None = None) -> Section | None:
    """A table for each bracket, and one figure of the values at all rungs; None where there is one rung.

    Values of one objective, which is chosen above unless it is given.
    """
    state = results.folder.state
    if not state.trials:
        return None
    shown = each_bracket(state)
    levels = [rung for bracket in shown for rung in bracket.rungs(state)]
    top = top_resource(state)
    if all(rung.resource >= top and not rung.counts.stopped for rung in levels):
        return None  # nobody is compared with anybody
    blocks: list[Block] = []
    if len(shown) > MOST_TABLES:
        text = f"{len(shown):,} brackets: those with the same rungs are taken together"
        best = [bracket for bracket in shown if _holds_best(bracket, results)]
        kinds = group_brackets(state)
        text += ", and the one of the best trial is shown by itself." if best else "."
        if len(kinds) > MOST_TABLES:
            text += f" Shown are {MOST_TABLES} of {len(kinds):,} kinds."
        blocks.append(Text(text))
        shown = [*kinds[:MOST_TABLES], *best]
    groups = [(bracket, bracket.rungs(state)) for bracket in shown]
    if len(groups) == 1 and len(groups[0][1]) == 1 and groups[0][1][0].counts.stopped:
        blocks.append(Text(_stopped_early(groups[0][1][0])))
    else:
        blocks += _figures(results, shown, objective)
    blocks += [_table(results, bracket, levels) for bracket, levels in groups]
    correlations = rank_correlations(state)
    if correlations:
        several = state.objectives.has_front
        blocks.append(_correlations(correlations, several=several))
    return Section("rungs", "Rungs", blocks)


def _figures(results: Results, shown: Sequence[BracketGroup], only: int | None) -> list[Block]:
    """Of each objective, as far as there is one; `only` of one."""
    versions: dict[tuple[str, ...], list[Block]] = {}
    for index, of, own in each_objective(results.objectives, only):
        groups = [(bracket, bracket.rungs(results.folder.state, index)) for bracket in shown]
        figure = _figure(results.objectives, index, groups)
        if figure is not None:
            versions[of.metric,] = [figure._replace(id=f"{figure.id}{own}")]
    return choice("rungs-by-objective", [OBJECTIVE], versions, next(iter(versions))) if versions else []


def _stopped_early(only: RungResult) -> str:
    early = plural(only.counts.stopped, "run")
    return f"Every trial trains towards {only.resource:,}; {early} stopped early."


def _holds_best(bracket: BracketGroup, results: Results) -> bool:
    return results.best is not None and any(t.trial == results.best["trial"] for t in bracket.trials)


def _table(results: Results, bracket: BracketGroup, levels: Sequence[RungResult]) -> Table:
    shown = [levels[index] for index in subsample(len(levels), best=1, most=MOST_RUNGS)]
    counts = [rung.counts for rung in shown]
    top = top_resource(results.folder.state)
    columns: dict[str, list[str | int | float | None]] = {
        "resource": [rung.resource for rung in shown],
        "runs": [count.runs for count in counts],
        "completed": [count.completed for count in counts],
        "failed": [count.failed for count in counts],
        "stopped": [count.stopped for count in counts],
        "under way": [count.runs - count.ended for count in counts],
        **_best_columns(results, bracket, shown),
        "went on": [None if rung.resource >= top else len(rung.promoted) for rung in shown],
        "which, best first": [_promoted_text(rung, top=top) for rung in shown],
    }
    for name in ("stopped", "under way"):
        if not any(columns[name]):
            del columns[name]
    copied = Counter((trial.start, trial.parent) for trial in bracket.trials if trial.parent is not None)
    if copied:
        clones: dict[int, list[str]] = {}
        for (start, parent), count in copied.most_common():
            clones.setdefault(start, []).append(f"{parent} (×{count})")
        columns["copied by clones"] = [listing(clones.get(rung.resource, [])) for rung in shown]
    best = results.best or {"trial": -1, "resource": 0}
    marked = frozenset(
        row
        for row, rung in enumerate(shown)
        if best["resource"] == rung.resource and any(trial == best["trial"] for _, trial, _ in rung.ranked)
    )
    configs = sum(not trial.repeat for trial in bracket.trials)
    caption = f"{bracket.name.capitalize()}: {plural(configs, 'configuration')}."
    if len(shown) < len(levels):
        caption += f" {len(shown)} of {len(levels):,} rungs."
    if marked:
        which = "knee of the front" if results.objectives.has_front else "best of the sweep"
        caption += f" The {which} is in the marked row."
    return Table(list(columns), list(zip(*columns.values(), strict=True)), caption, marked)


def _best_columns(
    results: Results, bracket: BracketGroup, shown: Sequence[RungResult]
) -> dict[str, list[str | int | float | None]]:
    """The best value of each objective; with one also the worst that went on."""
    resources = [rung.resource for rung in shown]
    columns: dict[str, list[str | int | float | None]] = {}
    for objective, of in enumerate(results.objectives):
        levels = {rung.resource: rung for rung in bracket.rungs(results.folder.state, objective)}
        columns[f"best {of.metric}"] = [levels[resource].best for resource in resources]
    if not results.objectives.has_front:
        columns["cut-off"] = [rung.cutoff for rung in shown]
    return columns


def _correlations(found: Sequence[RankCorrelation], *, several: bool) -> Table:
    """How well each rung predicts the highest one that enough of its trials have reached."""
    verdicts = {True: "yes", False: "no", None: "open"}
    columns: dict[str, list[str | int | float | None]] = {
        **({"objective": [each.metric for each in found]} if several else {}),
        "resource": [each.lower for each in found],
        "against": [each.higher for each in found],
        "trials with both": [each.trials for each in found],
        "rank correlation": [f"{each.rho:.2f}" for each in found],
        "90 % interval": [f"{each.low:.2f} to {each.high:.2f}" for each in found],
        "if all had gone on": [f"{each.all_trials:.2f}" for each in found],
        "predicts": [verdicts[each.predicts] for each in found],
    }
    caption = (
        "Whether a resource predicts a higher one: Spearman's rank correlation of the trials with both "
        "values. Only the best went on, which makes it smaller; the figure for all trials is an estimate."
    )
    return Table(list(columns), list(zip(*columns.values(), strict=True)), caption)


def _promoted_text(rung: RungResult, *, top: int) -> str | None:
    """Who went on; at the last rung nobody does, and those that completed it are fully trained."""
    if rung.resource < top:
        return listing(rung.promoted)
    return "fully trained" if rung.counts.completed else None


def _figure(objectives: Objectives, objective: int, groups: _Rungs) -> Figure | None:
    """Values side by side, a column for each rung; None where there are no values, or too many rungs."""
    of = objectives[objective]
    columns = [(bracket, rung) for bracket, levels in groups for rung in levels]
    if len(columns) > _DRAWN:
        return None
    drawn: dict[RunFate, list[tuple[float, float, int]]] = {RunFate.DROPPED: [], RunFate.WENT_ON: []}
    cuts: list[float | None] = []
    total = 0
    for column, (_, rung) in enumerate(columns):
        total += len(rung.ranked)
        for index in subsample(len(rung.ranked), best=_BEST_POINTS, most=MOST_POINTS):
            value, trial, fate = rung.ranked[index]
            shift = float(jitter(np.array([trial]))[0])
            drawn.setdefault(fate, []).append((column + shift, value, trial))
        cuts += [rung.cutoff, rung.cutoff, None]
    shown = sum(map(len, drawn.values()))
    if not shown:
        return None
    values = np.array([value for points in drawn.values() for _, value, _ in points])
    axis = value_axis(of.metric, values, minimise=of.minimise)
    traces = [_strip(fate, points) for fate, points in drawn.items() if points]
    ends = [x for column in range(len(columns)) for x in (column - 0.42, column + 0.42, None)]
    if any(cut is not None for cut in cuts):
        style = {"name": "cut-off", "line": {"color": "@2", "width": 2}}
        traces.append({"type": "scatter", "mode": "lines", "x": ends, "y": cuts} | style)
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
        "updatemenus": axis.menus,
    }
    if len(groups) > 1:
        layout |= _names(groups)
        layout["xaxis"]["title"] = {"text": "resource of the rung, by bracket"}
    left_out = drawn_text(shown, total, "values")
    decides = (
        "trials go on by all objectives" if objectives.has_front else "the line is the worst that went on"
    )
    return Figure(
        "rungs-values",
        traces,
        layout,
        f"{of.metric} at each rung; {decides}.{left_out}{axis.note}",
        _summary(of.metric, groups),
        height=460,
        width=_ROOM * len(columns),
    )


def _strip(fate: RunFate, points: Sequence[tuple[float, float, int]]) -> dict[str, Any]:
    good = fate is RunFate.WENT_ON
    return {
        "type": "scatter",
        "mode": "markers",
        "name": fate.value,
        "x": np.array([x for x, _, _ in points]),
        "y": np.array([y for _, y, _ in points]),
        "customdata": np.array([trial for _, _, trial in points]),
        "marker": {"color": "@1" if good else "@muted", "size": 6 if good else 5, "opacity": 0.75},
        "hovertemplate": "trial %{customdata}: %{y:.6~g}",
    }


def _names(groups: _Rungs) -> dict[str, Any]:
    """Lines between brackets, and their numbers above them."""
    shapes: list[dict[str, Any]] = []
    names: list[dict[str, Any]] = []
    texts = [_name(bracket) for bracket, _ in groups]
    widths = [len(results) for _, results in groups]
    room = [_ROOM * (left + right) / 2 for left, right in itertools.pairwise(widths)]
    needed = [_LETTER * (len(left) + len(right)) / 2 for left, right in itertools.pairwise(texts)]
    crowded = any(least > most for least, most in zip(needed, room, strict=True))
    style = {"yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False, "font": {"size": 11}}
    at = 0
    for text, (_, results) in zip(texts, groups, strict=True):
        if at:
            shapes.append(dotted_line(at - 0.5, top=1.05))
        shift = 13 * (len(names) % 2) if crowded else 0  # side by side they would run into each other
        names.append({"text": text, "x": at + (len(results) - 1) / 2, "yshift": shift} | style)
        at += len(results)
    return {"shapes": shapes, "annotations": names, "margin": {"t": 40}}


def _name(bracket: BracketGroup) -> str:
    """Short: `bracket 62`, `14 brackets`."""
    count = len(bracket.brackets)
    return f"bracket {bracket.brackets[0]}" if count == 1 else f"{count:,} brackets"


def _summary(metric: str, groups: _Rungs) -> str:
    sentences = [f"{metric} by rung."]
    for bracket, levels in groups:
        parts = []
        for rung in levels[:MOST_RUNGS]:
            if rung.best is not None:
                best = number(rung.best)
                parts.append(f"at resource {rung.resource:,} the best of {len(rung.ranked):,} is {best}")
            if rung.cutoff is not None:
                parts[-1] += f", {len(rung.promoted):,} went on, cut-off {number(rung.cutoff)}"
        if parts:
            sentences.append(f"{bracket.name.capitalize()}: {'; '.join(parts)}.")
    return " ".join(sentences)
