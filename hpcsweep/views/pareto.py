"""Several metrics at once: each trial's last report, and which trials are Pareto-optimal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcsweep.core.domains import Floats
from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.views.configurations import valued_configurations
from hpcsweep.views.results import Results

if TYPE_CHECKING:
    import pandas as pd

Mode: TypeAlias = Literal["min", "max"]

#: Words in the name of a metric that is maximised ...
_MAXIMISED: Final = frozenset(
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
#: ... unless one of these is in it as well.
_MINIMISED: Final = frozenset(("err", "error", "loss", "cost", "regret"))


def guess_direction(name: str) -> Mode:
    """Whether a metric of this name is minimised or maximised."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    return "max" if words & _MAXIMISED and not words & _MINIMISED else "min"


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

    Attributes:
        means: Columns trial, step and the metrics; NaN where a value is not finite.
        low: The least of the values that the means are of, by trial; None without repeats.
        high: The largest.
    """

    means: pd.DataFrame
    low: pd.DataFrame | None = None
    high: pd.DataFrame | None = None


def last_reports(results: Results) -> LastReports:
    """Of each trial the last report at its highest rung that did not fail.

    Where each configuration is trained several times, the mean over its repeats at the rung of its
    newest value.
    """
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
