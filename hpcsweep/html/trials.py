"""Section: all trials as a table, and what the page tells of one that is chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hpcsweep.core.models import Run
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.outcomes import FACTS, FailureKind
from hpcsweep.core.text import sanitize_lines, shell_quote
from hpcsweep.errors import FolderError
from hpcsweep.html.attempts import kind_of
from hpcsweep.html.curves import objective_reports, subsample_points
from hpcsweep.html.sections import Section, TrialTable
from hpcsweep.views.brackets import RungResult, each_bracket, top_resource
from hpcsweep.views.folder import LogReader, attempt_logs
from hpcsweep.views.format import duration, number, timestamp
from hpcsweep.views.results import Results
from hpcsweep.views.trial_rows import sort_rows

if TYPE_CHECKING:
    import pandas as pd

_ABSENT: Final = object()
#: Examples have words that are shorter.
_LONG_WORD: Final = 20
#: Metrics beside the objective that have a column.
METRICS: Final = 12
#: So many points of learning curves the page knows, those of the best trials first; of one at most so many.
CURVE_POINTS: Final = 40_000
_ONE_CURVE: Final = 100
#: Of so many of the best trials, and of those that failed last, the page has the end of the log.
LOGS: Final = 10
_LOG_LINES: Final = 20
_LOG_CHARACTERS: Final = 4000


def trials(results: Results) -> Section | None:
    """A row for each trial, best first; None before there is one."""
    state = results.folder.state
    if not state.trials:
        return None
    rows = sort_rows(results.rows, None, minimise=results.minimise)
    order = [int(row["trial"]) for row in rows]
    data = {
        "repeats": state.repeats,
        "folder": shell_quote(str(results.folder.layout.root)),
        "columns": _columns(results, rows),
        "configs": [row["config"] for row in rows],
        "messages": {str(row["trial"]): row["message"] for row in rows if row["message"]},
        "story": _stories(results, order),
        "attempts": _attempts(results),
        "curves": _curves(results, order),
        "logs": {} if results.simulated else _logs(results, rows),
    }
    caption = "All trials, best first. A row, or a point in a figure, opens what is known of its trial."
    return Section("trials", "Trials", [TrialTable(data, len(rows), caption, _example(results, rows))])


def _example(results: Results, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A filter of this sweep's own: ranges of parameters and of the metric, a word."""
    known: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row["config"].items():
            known.setdefault(name, []).append(value)
    numeric = {
        name: float(np.median(values))
        for name, values in known.items()
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    }
    valued = [row["value"] for row in rows if row["value"] is not None]
    ranges = [f"{_quoted(name)}<{middle:.2g}" for name, middle in numeric.items() if '"' not in name][:1]
    if valued:
        ranges.append(f"{_quoted(results.metric)}{'<' if results.minimise else '>'}{np.median(valued):.2g}")
    words = (value for values in known.values() for value in values if isinstance(value, str))
    word = next((value for value in words if value and '"' not in value and len(value) < _LONG_WORD), None)
    return [*(ranges or ["trial<10"]), *([_quoted(word)] if word else [])]


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[^\s<>=]+", text) else f'"{text}"'


# --------------------------------------------------------------------------- the table


def _columns(results: Results, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Name, kind (`number` or `text`) and values of each column."""
    last = top_resource(results.folder.state)
    own = results.metric
    objectives = results.objectives
    metrics = dict.fromkeys(name for row in rows for name in row["metrics"] if name not in objectives.metrics)
    columns = [
        _column("trial", [row["trial"] for row in rows]),
        *([_column("front", [row["front"] for row in rows])] if objectives.has_front else []),
        _column(own, [row["value"] for row in rows]),
        *(_column(name, [row["values"].get(name) for row in rows]) for name in objectives.metrics[1:]),
        _column("at step", [row["resource"] for row in rows]),
        _column("rung", [row["rung"] for row in rows]),
        _column("fate", [_fate(row, last, ended=results.folder.state.ended is not None) for row in rows]),
    ]
    for name in dict.fromkeys(name for row in rows for name in row["config"]):
        # null is a value like any other; a parameter that is not active has none.
        values = [row["config"].get(name, _ABSENT) for row in rows]
        column = _column(name, [None if v is _ABSENT else "null" if v is None else v for v in values])
        columns.append(column | {"values": None})  # they are in `configs`
    for name in list(metrics)[:METRICS]:
        columns.append(_column(name, [row["metrics"].get(name) for row in rows]))
    gpus = any(row["gpu_seconds"] for row in rows)
    cost = "gpu_seconds" if gpus else "seconds"
    columns.append(_column("GPU-hours" if gpus else "hours", [row[cost] / 3600 for row in rows]))
    columns.append(_column("attempts", [row["attempts"] for row in rows]))
    columns.append(_column("node", [row["node"] for row in rows]))
    return columns


def _column(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A column of numbers where all that is known are numbers; else of text."""
    known = [value for value in values if value is not None]
    if not known or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    ):
        return {"name": name, "kind": "text", "values": list(values)}
    whole = len(known) == len(values) and all(isinstance(value, int) for value in known)
    numbers = np.array(values, dtype=np.int64 if whole else float)
    return {"name": name, "kind": "number", "values": numbers}


def _values(run: Run, objectives: Objectives) -> str:
    """The value with its metric, with several objectives all of them."""
    pairs = zip(objectives.metrics, run.values or (run.value,), strict=True)
    return ", ".join(f"{metric} {number(value)}" for metric, value in pairs if value is not None)


def _fate(row: Mapping[str, Any], last: int, *, ended: bool) -> str:
    """What became of a trial, in few words."""
    if row["failure"]:
        return FACTS[FailureKind(row["failure"])].label
    status = str(row["status"])
    if status != "completed":
        return "stopped early" if status == "stopped" else status
    if row["resource"] is not None and row["resource"] >= last:
        return "trained in full"
    return "dropped" if ended else "not promoted yet"


# --------------------------------------------------------------------------- one trial


def _stories(results: Results, order: Sequence[int]) -> list[list[str]]:
    """What happened at each rung of each trial, a line for each."""
    state = results.folder.state
    placed: dict[tuple[int, int], tuple[int, RungResult]] = {}
    for bracket in each_bracket(state):
        for rung in bracket.rungs(state):
            for place, each in enumerate(rung.ranked):
                placed[each.trial, rung.resource] = place + 1, rung
    told = []
    for number_ in order:
        trial = state.trials[number_]
        lines = []
        for run in trial.runs:
            head = f"Rung {run.rung}, resource {run.resource:,}: "
            at = placed.get((number_ - trial.repeat, run.resource))
            if run.failure_kind:
                lines.append(head + FACTS[run.failure_kind].label)
            elif run.outcome is None:
                lines.append(head + run.status.value)
            elif run.value is None:
                lines.append(head + run.outcome.value)
            else:
                lines.append(f"{head}{_values(run, results.objectives)}{_place(at, number_)}")
        told.append(lines)
    return told


def _place(at: tuple[int, RungResult] | None, trial: int) -> str:
    if at is None:
        return ""
    place, rung = at
    text = f", place {place:,} of {len(rung.ranked):,}"
    if trial in rung.promoted:
        return f"{text}, promoted"
    return text if rung.cutoff is None else f"{text}; the last one promoted had {number(rung.cutoff)}"


def _attempts(results: Results) -> dict[str, list[Any]]:
    """Columns with an entry for each attempt that has ended."""
    frame = results.attempts
    kinds = frame[["ending", "failure", "final"]].itertuples(index=False)
    return {
        "trial": frame["trial"].tolist(),
        "rung": frame["rung"].tolist(),
        "ending": [FACTS[kind_of(*row)].label for row in kinds],
        "node": frame["node"].tolist(),
        "job": frame["job"].tolist(),
        "took": [duration(float(seconds)) for seconds in frame["seconds"]],
        "started": [
            "" if np.isnan(at) or results.simulated else timestamp(float(at)) for at in frame["started"]
        ],
        "message": frame["message"].tolist(),
    }


def _curves(results: Results, order: Sequence[int]) -> list[dict[str, Any]]:
    """Of each objective its name, and trial, step and value of the points, of the best trials first."""
    most = CURVE_POINTS // len(results.objectives)
    return [
        {"metric": of.metric} | _points(results, objective, order, most=most)
        for objective, of in enumerate(results.objectives)
    ]


def _points(results: Results, objective: int, order: Sequence[int], *, most: int) -> dict[str, Any]:
    reports = objective_reports(results, objective)
    reports = subsample_points(reports[np.isfinite(reports["value"])], most=_ONE_CURVE)
    rank = {trial: place for place, trial in enumerate(order)}
    reports = reports.assign(place=reports["trial"].map(rank)).sort_values(["place", "step"], kind="stable")
    kept = _whole_curves(reports, most)
    return {name: reports[name].to_numpy()[:kept] for name in ("trial", "step", "value")}


def _whole_curves(reports: pd.DataFrame, most: int) -> int:
    """So many rows are kept, at most `most`, and no curve in part."""
    if len(reports) <= most:
        return len(reports)
    places = reports["place"].to_numpy()
    return int(np.searchsorted(places, places[most], side="left"))


def _logs(results: Results, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The end of the newest log of the best trials, and of those that failed last."""
    failed = sorted(
        (row for row in rows if row["failure"]), key=lambda row: row["ended"] or 0.0, reverse=True
    )
    valued = [row for row in rows if row["value"] is not None]
    chosen = dict.fromkeys(int(row["trial"]) for row in [*valued[:LOGS], *failed[:LOGS]])
    folder = results.folder
    reader = LogReader(folder.layout, folder.events)
    tails: dict[str, str] = {}
    for trial in chosen:
        try:
            _, content = reader.read(attempt_logs(folder.events, folder.layout, trial)[-1])
        except (OSError, FolderError):
            continue
        if content:
            text = content[-_LOG_CHARACTERS:].decode(errors="replace")
            tails[str(trial)] = sanitize_lines("\n".join(text.splitlines()[-_LOG_LINES:]))
    return tails
