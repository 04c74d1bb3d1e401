"""Learning curves: which went on from each rung, and which were dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hpcsweep.html.axes import LEGEND_BELOW, menu, value_axis
from hpcsweep.html.brackets import Ladder, RunFate, fate, ladders, top_resource
from hpcsweep.html.format import count, number
from hpcsweep.html.points import points
from hpcsweep.html.sections import Figure, Section
from hpcsweep.html.subsample import thinned
from hpcsweep.views.results import Results
from hpcsweep.views.tables import reached

if TYPE_CHECKING:
    import pandas as pd

#: So many curves are drawn, among them the best ones and some that were trained in full.
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


def curves(results: Results) -> Section | None:
    """The metric over the steps; each stretch between two rungs tells whether the trial went on from it."""
    reports = _reports(results)
    reports = reports[np.isfinite(reports["value"])]
    if not reports.duplicated("trial").any():
        return None  # no trial has two points
    total = int(reports["trial"].nunique())
    kept = _kept(results, set(reports["trial"]))
    shown = _thinned(reports[reports["trial"].isin(kept)], most=max(20, _ALL_POINTS // len(kept)))
    axis = value_axis(results.metric, shown["value"].to_numpy(), minimise=results.minimise)
    kinds = ladders(results.folder.state)
    traces, of_kind = _traces(results, kinds, shown)
    best = _best(results, reports)
    layout = {
        "xaxis": _steps_axis(kinds, shown),
        "yaxis": axis.layout,
        "hovermode": "closest",
        "legend": LEGEND_BELOW,
        "shapes": [_boundary(resource) for resource in _boundaries(kinds)],
    }
    menus = [axis.menu] if axis.menu else []
    if len(kinds) > 1:
        menus.insert(0, _choice(kinds, of_kind, others=len(best)))
    if menus:
        layout["updatemenus"] = menus
    drawn = count(total, "curve")
    if len(kept) < total:
        drawn = (
            f"{len(kept):,} of {drawn} (the best, some that were trained in full, and an even spread over "
            "the others)"
        )
    caption = f"{results.metric} while training, {drawn}{_legend_words(results)}{axis.note}"
    figure = Figure(
        "curves-all", [*traces, *best], layout, caption, _words(results, kinds, reports), height=480
    )
    return Section("curves", "Learning curves", [figure])


def _reports(results: Results) -> pd.DataFrame:
    """What was reported of the objective, or, where nothing is kept of it, the values of the runs."""
    import pandas as pd

    metrics = results.metrics
    if results.metric in metrics and len(metrics):
        found = metrics[["trial", "rung", "step"]].assign(value=metrics[results.metric].astype(float))
        found = found.sort_values(["trial", "step", "rung"], kind="stable", ignore_index=True)
        return found.drop_duplicates(["trial", "step"], keep="last")
    rows = [
        (trial.trial, run.rung, reached(run), run.value)
        for trial in results.folder.state.trials
        for run in trial.runs
        if run.value is not None
    ]
    found = pd.DataFrame(rows, columns=["trial", "rung", "step", "value"])
    return found.astype({"value": float})


def _kept(results: Results, reported: set[int]) -> set[int]:
    """The trials whose curves are drawn."""
    found, repeats = points(results), results.folder.state.repeats
    # All repeats of the best configuration, then those of the next one.
    trials = (found.trials[:, None] + np.arange(repeats)).ravel()
    there = np.isin(trials, list(reported))
    valued, resources = trials[there].tolist(), np.repeat(found.resources, repeats)[there]
    order = [*valued, *sorted(reported - set(valued))]
    in_full = np.flatnonzero(resources >= top_resource(results.folder.state))
    chosen = set(range(min(_BEST, len(order))))
    chosen |= set(in_full[thinned(len(in_full), best=0, most=_IN_FULL)].tolist())
    rest = [place for place in range(len(order)) if place not in chosen]
    chosen |= {rest[place] for place in thinned(len(rest), best=0, most=MOST_CURVES - len(chosen))}
    return {order[place] for place in chosen}


def _thinned(reports: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """Of each curve a bounded number of points, its first and last among them."""
    places = reports.groupby("trial").cumcount().to_numpy()
    sizes = reports.groupby("trial")["step"].transform("size").to_numpy()
    most = min(most, MOST_POINTS)
    # The n-th of `size` points is kept where it is the first to reach the next of `most` shares.
    share = places * (most - 1) // np.maximum(sizes - 1, 1)
    before = (places - 1) * (most - 1) // np.maximum(sizes - 1, 1)
    return reports.iloc[np.flatnonzero((sizes <= most) | (places == 0) | (share > before))]


def _traces(
    results: Results, kinds: Sequence[Ladder], shown: pd.DataFrame
) -> tuple[list[dict[str, Any]], list[int]]:
    """One for each fate and kind of bracket, and of each trace the index of its kind."""
    state = results.folder.state
    top = top_resource(state)
    kind_of = {trial.trial: index for index, kind in enumerate(kinds) for trial in kind.trials}
    lines: dict[tuple[RunFate, int], list[tuple[float, float, int]]] = {}
    before: tuple[int, RunFate | None, tuple[float, float, int]] = (-1, None, (0.0, 0.0, 0))
    columns = (shown[name].tolist() for name in ("trial", "rung", "step", "value"))
    for trial, rung, step, value in zip(*columns, strict=True):
        record = state.trials[trial]
        now = fate(record, record.runs[rung], top=top)
        point = (step, value, trial)
        line = lines.setdefault((now, kind_of[trial]), [])
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
    return traces, [kind for _, kind in keys]


def _name(what: RunFate, *, last: bool) -> str:
    """Of what followed; from the last rung nobody goes on."""
    return "trained in full" if last and what is RunFate.WENT_ON else _STYLES[what][0]


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
        "hovertemplate": "trial %{customdata}, step %{x}: %{y:.6~g}",
    }


def _of_best(results: Results, reports: pd.DataFrame) -> tuple[str, pd.DataFrame]:
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


def _best(results: Results, reports: pd.DataFrame) -> list[dict[str, Any]]:
    """The curve of the best configuration, on top of all; empty if there is none."""
    name, own = _of_best(results, reports)
    if own.empty:
        return []
    own = _thinned(own, most=MOST_POINTS)
    return [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(own) < 10 else "lines",
            "name": f"best: {name}",
            "x": own["step"].to_numpy(),
            "y": own["value"].to_numpy(),
            "line": {"color": "@2", "width": 3},
            "hovertemplate": f"{name}, step %{{x}}: %{{y:.6~g}}",
        }
    ]


def _boundaries(kinds: Sequence[Ladder]) -> list[int]:
    """Resources of all rungs; none where there is only one, or too many."""
    found = sorted({resource for kind in kinds for resource in kind.resources})
    return found if 1 < len(found) <= _MARKED else []


def _boundary(resource: int) -> dict[str, Any]:
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    return {"type": "line", "x0": resource, "x1": resource, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _steps_axis(kinds: Sequence[Ladder], shown: pd.DataFrame) -> dict[str, Any]:
    """On a log scale where the rungs are so spaced; then they are its ticks."""
    marked = _boundaries(kinds)
    axis: dict[str, Any] = {"title": {"text": "step"}}
    if len(marked) >= 3 and marked[-1] >= 8 * marked[0] and shown["step"].min() > 0:
        ticks = {"tickmode": "array", "tickvals": marked, "ticktext": [f"{mark:,}" for mark in marked]}
        return axis | {"type": "log"} | ticks
    return axis


def _choice(kinds: Sequence[Ladder], of_kind: Sequence[int], *, others: int) -> dict[str, Any]:
    """All brackets, or those of one kind; the best curve always stays."""

    def button(name: str, chosen: Sequence[bool]) -> dict[str, Any]:
        seen = [*chosen, *(True for _ in range(others))]
        return {"label": name, "method": "restyle", "args": [{"visible": seen}]}

    buttons = [button("all brackets", [True] * len(of_kind))]
    for index, kind in enumerate(kinds):
        buttons.append(button(kind.name, [owner == index for owner in of_kind]))
    return menu("Bracket", buttons)


def _legend_words(results: Results) -> str:
    state = results.folder.state
    rungs = max(len(trial.runs) for trial in state.trials)
    if rungs == 1:
        return "."
    so_far = "" if state.ended else " so far"
    return (
        ". Between two rungs a curve is strong where the trial went on from there or was trained in full, "
        f"and pale where it was dropped or stopped{so_far}; dotted lines are the rungs."
    )


def _words(results: Results, kinds: Sequence[Ladder], reports: pd.DataFrame) -> str:
    state = results.folder.state
    top = top_resource(state)
    words = []
    if results.best is not None:
        name, own = _of_best(results, reports)
        if len(own):
            first, last = own.iloc[0], own.iloc[-1]
            words.append(
                f"The best, {name}, went from {number(first['value'])} at step "
                f"{first['step']:.0f} to {number(last['value'])} at step {last['step']:.0f}."
            )
    for kind in kinds[:1]:
        for resource in kind.resources[:_MARKED]:
            values: dict[RunFate, list[float]] = {}
            for trial in kind.trials:
                for run in trial.runs:
                    if run.resource == resource and run.value is not None:
                        values.setdefault(fate(trial, run, top=top), []).append(run.value)
            told = [
                f"{len(found):,} {_name(what, last=resource >= top)} "
                f"(median {number(float(np.median(found)))})"
                for what, found in sorted(values.items(), key=lambda item: item[0].value, reverse=True)
            ]
            if told:
                words.append(f"In {kind.name}, at {resource:,}: {', '.join(told)}.")
    return " ".join(words) or "No trial has a value yet."
