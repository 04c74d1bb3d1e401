"""Several metrics at once: the trials that no other trial beats in all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.html.axes import LEGEND_BELOW, menu, nested, value_axis
from hpcsweep.html.format import count, number
from hpcsweep.html.points import noun
from hpcsweep.html.sections import Block, Figure, Section, Table
from hpcsweep.html.subsample import thinned
from hpcsweep.views.results import Results

if TYPE_CHECKING:
    import pandas as pd

Mode: TypeAlias = Literal["min", "max"]

#: So many metrics beside the objective, points of each, and rows of the table are shown.
MOST_METRICS: Final = 8
MOST_POINTS: Final = 1500
MOST_ROWS: Final = 40

#: Words in the name of a metric of which more is better ...
_MORE: Final = frozenset(
    (
        "acc",
        "accuracy",
        "ap",
        "auc",
        "auprc",
        "auroc",
        "bleu",
        "dice",
        "f1",
        "fps",
        "iou",
        "kappa",
        "map",
        "mcc",
        "miou",
        "ndcg",
        "precision",
        "psnr",
        "r2",
        "recall",
        "return",
        "reward",
        "rouge",
        "score",
        "sensitivity",
        "specificity",
        "speedup",
        "ssim",
        "success",
        "throughput",
        "top1",
        "top5",
    )
)
#: ... unless one of these is there as well.
_LESS: Final = frozenset(("err", "error", "loss", "cost", "regret"))


def pareto(results: Results, modes: Mapping[str, Mode] = MappingProxyType({})) -> Section | None:
    """The objective against each other metric, of each trial's last report.

    Args:
        results: The sweep.
        modes: Whether a metric is minimised or maximised, where its name would not tell.
    """
    reports = _last_reports(results)
    last = reports.last
    if results.metric not in last:
        return None
    last = last[last[results.metric].notna().to_numpy()]
    others = [str(name) for name in last if name not in ("trial", "step", results.metric)]
    others = [name for name in others if last[name].nunique() > 1][:MOST_METRICS]
    if not others:
        return None
    names = [results.metric, *others]
    chosen: dict[str, Mode] = {results.metric: "min" if results.minimise else "max"}
    chosen |= {name: modes.get(name, assumed(name)) for name in others}
    overall = set(_front(last, names, chosen)["trial"])
    fronts = {name: _front(last, [results.metric, name], chosen) for name in others}
    blocks: list[Block] = [
        _figure(results, last, fronts, chosen, reports.ends, guessed=not modes.keys() >= fronts.keys()),
        _table(results, last, fronts, names, overall),
    ]
    return Section("pareto", "Several metrics", blocks)


def assumed(name: str) -> Mode:
    """Of which end of a metric is good, judged by its name: less, unless it is such as an accuracy."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    return "max" if words & _MORE and not words & _LESS else "min"


def non_dominated(points: Floats) -> NDArray[np.bool_]:
    """For points `(n, d)`, less being better: which no other beats; equal ones do not beat each other.

    One beats another if it is nowhere worse and somewhere better.
    """
    kept = np.ones(len(points), dtype=bool)
    front, size = np.empty_like(points), 0
    # In this order what beats a point comes before it; and if that is beaten itself, then by what beats both.
    for place in np.lexsort(points.T[::-1]):
        point, others = points[place], front[:size]
        kept[place] = not ((others <= point).all(axis=1) & (others < point).any(axis=1)).any()
        if kept[place]:
            front[size] = point
            size += 1
    return kept


class Reports(NamedTuple):
    """The last reports.

    Attributes:
        last: A row for each trial, or each configuration by its first trial: the means over its repeats.
        ends: The least and the largest of the values that the means are of, by trial; None without repeats.
    """

    last: pd.DataFrame
    ends: Ends | None


class Ends(NamedTuple):
    """What means lie between, by trial."""

    low: pd.DataFrame
    high: pd.DataFrame


def _last_reports(results: Results) -> Reports:
    """Of each trial the last report at its highest rung that did not fail; what is not finite is NaN.

    Where each configuration is trained several times it is the mean of all its repeats at the rung of
    its newest value, with the first one's number.
    """
    state = results.folder.state
    metrics = results.metrics.sort_values(["trial", "rung", "step"], kind="stable", ignore_index=True)
    failed = {run.id for trial in state.trials for run in trial.runs if run.status is RunStatus.FAILED}
    if failed:
        ids = zip(metrics["trial"], metrics["rung"], strict=True)
        metrics = metrics[np.array([run not in failed for run in ids], dtype=bool)]
    names = metrics.columns.difference(["trial", "rung", "step"])
    ends = None
    if state.repeats > 1:
        metrics, ends = _means(state, metrics[~metrics.duplicated(["trial", "rung"], keep="last")])
    last: pd.DataFrame = metrics[~metrics.duplicated("trial", keep="last")].drop(columns="rung")
    for name in names:
        column = last[name].astype(float)
        last[name] = column.where(np.isfinite(column))
    return Reports(last, ends)


def _means(state: SweepState, reports: pd.DataFrame) -> tuple[pd.DataFrame, Ends]:
    """Means over repeats, of configurations that have a value; those of which some is missing have none."""
    repeat = np.array([trial.repeat for trial in state.trials], dtype=np.int64)
    firsts = range(0, len(state.trials), state.repeats)
    newest = {first: best for first in firsts if (best := state.newest(first)) is not None}
    first = reports["trial"] - repeat[reports["trial"].to_numpy(dtype=np.int64)]
    rungs = zip(first, reports["rung"], strict=True)
    valued = np.array([one in newest and newest[one].rung == rung for one, rung in rungs], dtype=bool)
    own = reports[valued].assign(trial=first[valued])
    of_trial = own.groupby("trial", sort=True)
    means = of_trial.mean(skipna=False).reset_index()
    means["step"] = means["step"].astype(np.int64)
    return means[list(reports.columns)], Ends(of_trial.min(), of_trial.max())


def _front(last: pd.DataFrame, names: Sequence[str], modes: Mapping[str, Mode]) -> pd.DataFrame:
    """The trials that none beats in these metrics, among those that have all of them."""
    rows = last.dropna(subset=list(names))
    signs = [1.0 if modes[name] == "min" else -1.0 for name in names]
    kept = non_dominated(rows[list(names)].to_numpy(dtype=float) * signs)
    return rows.iloc[np.flatnonzero(kept)].sort_values(list(names), kind="stable")


def _figure(
    results: Results,
    last: pd.DataFrame,
    fronts: Mapping[str, pd.DataFrame],
    modes: Mapping[str, Mode],
    ends_of: Ends | None,
    *,
    guessed: bool,
) -> Figure:
    objective = value_axis(results.metric, last[results.metric].to_numpy(), minimise=results.minimise)
    traces: list[dict[str, Any]] = []
    axes = {}
    drawn = total = 0
    for name, front in fronts.items():
        rows = last[last[name].notna()]
        order = np.argsort(rows[results.metric].to_numpy() * (1 if results.minimise else -1), kind="stable")
        rows = rows.iloc[order[thinned(len(order), best=MOST_POINTS // 5, most=MOST_POINTS)]]
        drawn, total = max(drawn, len(rows)), max(total, len(order))
        axis = value_axis(name, rows[name].to_numpy(), minimise=modes[name] == "min")
        axes[name] = {
            "title.text": name,
            "type": axis.layout["type"],
            "range": axis.layout.get("range"),
            "autorange": axis.cut is None,
        }
        traces += [_trials(rows, name, results.metric), _joined(front, name, results.metric)]
        if ends_of is not None:
            for key, column in (("error_x", name), ("error_y", results.metric)):
                traces[-1][key] = _error(front, column, ends_of)
        for trace in traces[-2:]:
            trace["visible"] = name == next(iter(fronts))
    buttons = []
    for name in fronts:
        visible = [other == name for other in fronts for _ in range(2)]
        changes = {f"xaxis.{key}": value for key, value in axes[name].items()}
        buttons.append({"label": name, "method": "update", "args": [{"visible": visible}, changes]})
    menus = [menu("Metric", buttons)] if len(buttons) > 1 else []
    first = next(iter(fronts))
    what = noun(results)
    thin = f" {drawn:,} of {total:,} {what}s are drawn." if drawn < total else ""
    ends = ", ".join(f"{name} is {'minimised' if modes[name] == 'min' else 'maximised'}" for name in fronts)
    return Figure(
        "pareto-pair",
        traces,
        {
            "xaxis": nested(axes[first]),
            "yaxis": objective.layout,
            "legend": LEGEND_BELOW,
            "hovermode": "closest",
            "updatemenus": [*menus, *([objective.menu] if objective.menu else [])],
        },
        f"{results.metric} against another metric, at each trial's last report"
        f"{'' if ends_of is None else ', the mean over the repeats of a configuration'}; the line joins the "
        f"{what}s that none beats in both.{thin} "
        f"{'Judged by their names: ' if guessed else 'As given: '}{ends}.",
        _words(results, fronts),
        height=460,
    )


def _points(rows: pd.DataFrame, name: str, objective: str) -> dict[str, Any]:
    """What the traces of a figure have in common: where the trials are, and what each says of itself."""
    return {
        "type": "scatter",
        "x": rows[name].to_numpy(),
        "y": rows[objective].to_numpy(),
        "customdata": rows[["trial", "step"]].to_numpy(dtype=np.int64),
        "hovertemplate": "trial %{customdata[0]} at %{customdata[1]}: %{y:.6~g}, %{x:.6~g}<extra></extra>",
    }


def _error(front: pd.DataFrame, name: str, ends: Ends) -> dict[str, Any]:
    """Lines from the least to the largest value that a mean is of."""
    low, high = (of_trial.loc[front["trial"], name].to_numpy(dtype=float) for of_trial in ends)
    mean = front[name].to_numpy(dtype=float)
    error = {"type": "data", "symmetric": False, "array": high - mean, "arrayminus": mean - low}
    return error | {"color": "@1/0.5", "thickness": 1, "width": 3}


def _trials(rows: pd.DataFrame, name: str, objective: str) -> dict[str, Any]:
    return _points(rows, name, objective) | {
        "mode": "markers",
        "name": "trials",
        "marker": {"color": "@muted", "size": 6, "opacity": 0.5},
    }


def _joined(front: pd.DataFrame, name: str, objective: str) -> dict[str, Any]:
    return _points(front, name, objective) | {
        "mode": "lines+markers",
        "name": "not beaten in both",
        "line": {"color": "@1", "width": 1.5, "dash": "dot"},
        "marker": {"color": "@1", "size": 9},
    }


def _table(
    results: Results,
    last: pd.DataFrame,
    fronts: Mapping[str, pd.DataFrame],
    names: Sequence[str],
    overall: set[int],
) -> Table:
    """Everybody on any front, best objective first."""
    listed = overall.union(*(front["trial"] for front in fronts.values()))
    rows = last[last["trial"].isin(listed)]
    rows = rows.sort_values(results.metric, ascending=results.minimise, kind="stable")
    told = rows.head(MOST_ROWS)
    marked = frozenset(place for place, trial in enumerate(told["trial"]) if trial in overall)
    caption = f"{count(len(rows), noun(results))} that none beats in {results.metric} and another metric"
    if len(fronts) > 1:
        caption += "; marked are those that none beats in all metrics"
    if len(told) < len(rows):
        caption += f"; the first {MOST_ROWS}"
    cells = [
        [int(row[0]), int(row[1]), *(None if np.isnan(value) else float(value) for value in row[2:])]
        for row in told[["trial", "step", *names]].itertuples(index=False)
    ]
    return Table(["trial", "step", *names], cells, f"{caption}.", marked if len(fronts) > 1 else frozenset())


def _words(results: Results, fronts: Mapping[str, pd.DataFrame]) -> str:
    words = []
    for name, front in fronts.items():
        ends = [front.iloc[0], front.iloc[-1]]
        if len(front) == 1:
            words.append(f"Trial {ends[0]['trial']:.0f} is the best in both {results.metric} and {name}.")
            continue
        first, last = (
            f"trial {end['trial']:.0f} ({results.metric} {number(end[results.metric])}, "
            f"{name} {number(end[name])})"
            for end in ends
        )
        words.append(f"{count(len(front), noun(results))} from {first} to {last}: none beats them in both.")
    return " ".join(words)
