"""Section: several metrics at once, with the Pareto front of the objective and each other metric."""

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
from hpcsweep.core.text import plural
from hpcsweep.html.plotting import (
    HOVER,
    LEGEND_BELOW,
    axis_menu,
    drawn_text,
    error_bars,
    markers,
    noun,
    subsample,
    unflatten,
    value_axis,
)
from hpcsweep.html.sections import Block, Figure, Section, Table
from hpcsweep.views.configurations import valued_configurations
from hpcsweep.views.format import number
from hpcsweep.views.results import Results

if TYPE_CHECKING:
    import pandas as pd

#: So many metrics beside the objective, points of each, and rows of the table are shown.
MOST_METRICS: Final = 8
MOST_POINTS: Final = 1500
MOST_ROWS: Final = 40
_TRIALS: Final = {
    "mode": "markers",
    "name": "trials",
    "marker": {"color": "@muted", "size": 6, "opacity": 0.5},
}
_FRONT: Final = {
    "mode": "lines+markers",
    "name": "Pareto front",
    "line": {"color": "@1", "width": 1.5, "dash": "dot"},
    "marker": {"color": "@1", "size": 9},
}


def pareto(results: Results, modes: Mapping[str, Mode] = MappingProxyType({})) -> Section | None:
    """The objective against each other metric, of each trial's last report."""
    reports = last_reports(results)
    last = reports.means
    if results.metric not in last:
        return None
    last = last[last[results.metric].notna().to_numpy()]
    # The front of several objectives has a section of its own.
    others = [str(name) for name in last if name not in ("trial", "step", *results.objectives.metrics)]
    others = [name for name in others if last[name].nunique() > 1][:MOST_METRICS]
    if not others:
        return None
    names = [results.metric, *others]
    all_modes: dict[str, Mode] = {results.metric: "min" if results.minimise else "max"}
    all_modes |= {name: modes.get(name, guess_direction(name)) for name in others}
    overall = set(pareto_front(last, names, all_modes)["trial"])
    fronts = {name: pareto_front(last, [results.metric, name], all_modes) for name in others}
    guessed = not modes.keys() >= fronts.keys()
    blocks: list[Block] = [
        _figure(results, reports._replace(means=last), fronts, all_modes, guessed=guessed),
        _table(results, last, fronts, names, overall),
    ]
    return Section("pareto", "Several metrics", blocks)


def _figure(
    results: Results,
    reports: LastReports,
    fronts: Mapping[str, pd.DataFrame],
    modes: Mapping[str, Mode],
    *,
    guessed: bool,
) -> Figure:
    metric, last = results.metric, reports.means
    objective = value_axis(metric, last[metric].to_numpy(), minimise=results.minimise)
    traces: list[dict[str, Any]] = []
    axes = {}
    drawn = total = 0
    first = next(iter(fronts))
    for name, front in fronts.items():
        rows = last[last[name].notna()]
        order = np.argsort(rows[metric].to_numpy() * (1 if results.minimise else -1), kind="stable")
        rows = rows.iloc[order[subsample(len(order), best=MOST_POINTS // 5, most=MOST_POINTS)]]
        drawn, total = max(drawn, len(rows)), max(total, len(order))
        axis = value_axis(name, rows[name].to_numpy(), minimise=modes[name] == "min")
        axes[name] = {
            "title.text": name,
            "type": axis.layout["type"],
            "range": axis.layout.get("range"),
            "autorange": axis.cut is None,
        }
        pair = [_points(rows, name, metric) | _TRIALS, _points(front, name, metric) | _FRONT]
        if reports.low is not None and reports.high is not None:
            for key, column in (("error_x", name), ("error_y", metric)):
                values = (frame.loc[front["trial"], column] for frame in (reports.low, reports.high))
                low, high = (each.to_numpy(dtype=float) for each in values)
                style = {"color": "@1/0.5", "thickness": 1, "width": 3}
                pair[-1][key] = error_bars(front[column].to_numpy(dtype=float), low, high, **style)
        traces += [trace | {"visible": name == first} for trace in pair]
    what = noun(results.folder.state)
    mean = "" if reports.low is None else ", the mean over the repeats of a configuration"
    directions = ", ".join(
        f"{name} is {'minimised' if modes[name] == 'min' else 'maximised'}" for name in fronts
    )
    return Figure(
        "pareto-pair",
        traces,
        {
            "xaxis": unflatten(axes[first]),
            "yaxis": objective.layout,
            "legend": LEGEND_BELOW,
            "hovermode": "closest",
            "updatemenus": [*axis_menu("Metric", axes, traces=2), *objective.menus],
        },
        f"{metric} against another metric, at each trial's last report{mean}; the line joins the "
        f"Pareto-optimal {what}s.{drawn_text(drawn, total, f'{what}s')} "
        f"{'Directions guessed from the names' if guessed else 'Directions as given'}: {directions}.",
        _summary(results, fronts),
        height=460,
    )


def _points(rows: pd.DataFrame, name: str, objective: str) -> dict[str, Any]:
    """What the traces have in common."""
    return markers(
        rows[name].to_numpy(),
        rows[objective].to_numpy(),
        customdata=rows[["trial", "step"]].to_numpy(dtype=np.int64),
        hovertemplate=HOVER.replace("<extra>", ", %{x:.6~g}<extra>"),
    )


def _table(
    results: Results,
    last: pd.DataFrame,
    fronts: Mapping[str, pd.DataFrame],
    names: Sequence[str],
    overall: set[int],
) -> Table:
    """All trials on any front, best objective first."""
    listed = overall.union(*(front["trial"] for front in fronts.values()))
    rows = last[last["trial"].isin(listed)]
    rows = rows.sort_values(results.metric, ascending=results.minimise, kind="stable")
    shown = rows.head(MOST_ROWS)
    several = len(fronts) > 1
    marked = frozenset(row for row, trial in enumerate(shown["trial"]) if trial in overall)
    caption = (
        f"{plural(len(rows), f'Pareto-optimal {noun(results.folder.state)}')} "
        f"({results.metric} against {'one other metric' if several else next(iter(fronts))})"
    )
    if several:
        caption += "; highlighted: optimal in all metrics"
    if len(shown) < len(rows):
        caption += f"; the first {MOST_ROWS} are listed"
    cells = [
        [int(row[0]), int(row[1]), *(None if np.isnan(value) else float(value) for value in row[2:])]
        for row in shown[["trial", "step", *names]].itertuples(index=False)
    ]
    return Table(["trial", "step", *names], cells, f"{caption}.", marked if several else frozenset())


def _summary(results: Results, fronts: Mapping[str, pd.DataFrame]) -> str:
    sentences = []
    for name, front in fronts.items():
        ends = [front.iloc[0], front.iloc[-1]]
        if len(front) == 1:
            sentences.append(f"Trial {ends[0]['trial']:.0f} is the best in both {results.metric} and {name}.")
            continue
        first, last = (
            f"trial {end['trial']:.0f} ({results.metric} {number(end[results.metric])}, "
            f"{name} {number(end[name])})"
            for end in ends
        )
        what = plural(len(front), f"Pareto-optimal {noun(results.folder.state)}")
        sentences.append(f"{what} from {first} to {last}.")
    return " ".join(sentences)


Mode: TypeAlias = Literal["min", "max"]

#: Words in the name of a metric that is maximised, ...
_MAXIMISED: Final = re.compile(
    "acc|accuracy|ap|auc|auprc|auroc|bleu|dice|f1|fps|iou|kappa|map|"
    "mcc|miou|ndcg|precision|psnr|r2|recall|return|reward|rouge|score|"
    "sensitivity|specificity|speedup|ssim|success|throughput|top1|top5"
)
#: ... unless one of these is in it as well.
_MINIMISED: Final = re.compile("err|error|loss|cost|regret")


def guess_direction(name: str) -> Mode:
    """Whether a metric of this name is minimised or maximised."""
    parts = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    maximised, minimised = (any(map(words.fullmatch, parts)) for words in (_MAXIMISED, _MINIMISED))
    return "max" if maximised and not minimised else "min"


def non_dominated(points: Floats) -> NDArray[np.bool_]:
    """Which of the points `(n, d)`, to be minimised, no other dominates.

    One dominates another if it is nowhere worse and somewhere better.
    """
    kept = np.ones(len(points), dtype=bool)
    front, size = np.empty_like(points), 0
    # In this order what dominates a point comes before it, and so does what dominates that.
    for index in np.lexsort(points.T[::-1]):
        point, others = points[index], front[:size]
        kept[index] = not ((others <= point).all(axis=1) & (others < point).any(axis=1)).any()
        if kept[index]:
            front[size] = point
            size += 1
    return kept


class LastReports(NamedTuple):
    """The last report of each trial, or of each configuration by its first trial: the means over its repeats.

    Columns are trial, step and the metrics, NaN where a value is not finite. With repeats, the means are of
    values from `low` to `high`.
    """

    means: pd.DataFrame
    low: pd.DataFrame | None = None
    high: pd.DataFrame | None = None


def last_reports(results: Results) -> LastReports:
    """Of each trial at its highest rung that did not fail; of repeats the mean at the newest value's."""
    state = results.folder.state
    metrics = results.metrics.sort_values(["trial", "rung", "step"], kind="stable", ignore_index=True)
    failed = {run.id for trial in state.trials for run in trial.runs if run.status is RunStatus.FAILED}
    if failed:
        ids = zip(metrics["trial"], metrics["rung"], strict=True)
        metrics = metrics[np.array([run not in failed for run in ids], dtype=bool)]
    names = metrics.columns.difference(["trial", "rung", "step"])
    low = high = None
    if state.repeats > 1:
        metrics, low, high = _means(state, metrics[~metrics.duplicated(["trial", "rung"], keep="last")])
    last: pd.DataFrame = metrics[~metrics.duplicated("trial", keep="last")].drop(columns="rung")
    for name in names:
        column = last[name].astype(float)
        last[name] = column.where(np.isfinite(column))
    return LastReports(last, low, high)


def _means(state: SweepState, reports: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Mean, least and largest over repeats, of configurations with a value; NaN where one is missing."""
    repeat = np.array([trial.repeat for trial in state.trials], dtype=np.int64)
    newest_rung = {best.trial: best.rung for best in valued_configurations(state)}
    first = reports["trial"] - repeat[reports["trial"].to_numpy(dtype=np.int64)]
    at_newest = np.array(first.map(newest_rung) == reports["rung"], dtype=bool)
    by_trial = reports[at_newest].assign(trial=first[at_newest]).groupby("trial", sort=True)
    means = by_trial.mean(skipna=False).reset_index()
    means["step"] = means["step"].astype(np.int64)
    return means[list(reports.columns)], by_trial.min(), by_trial.max()


def pareto_front(last: pd.DataFrame, names: Sequence[str], modes: Mapping[str, Mode]) -> pd.DataFrame:
    """The Pareto-optimal trials in these metrics, among those that have all of them."""
    rows = last.dropna(subset=list(names))
    signs = [1.0 if modes[name] == "min" else -1.0 for name in names]
    kept = non_dominated(rows[list(names)].to_numpy(dtype=float) * signs)
    return rows.iloc[np.flatnonzero(kept)].sort_values(list(names), kind="stable")
