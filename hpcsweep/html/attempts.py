"""Sections on attempts: what their GPU time was spent on, how long they waited, how they failed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from hpcsweep.core.events import BatchClosed, TaskBegan
from hpcsweep.core.history import Floats
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import FACTS, Ending, Facts, FailureKind, Outcome, ending_of
from hpcsweep.core.text import plural, shell_quote
from hpcsweep.html.sections import Block, Figure, Section, Table, Text
from hpcsweep.views.branches import failed_branches
from hpcsweep.views.format import duration, hours, hours_text, share
from hpcsweep.views.progress import uses_gpus
from hpcsweep.views.results import Results
from hpcsweep.views.task_times import Overhead, TaskTimes

if TYPE_CHECKING:
    import pandas as pd

COUNTED: Final = "useful training"
FAILED: Final = FACTS[Outcome.FAILED].lost_time
INTERRUPTED: Final = "interrupted, to be resumed"
OVERHEAD: Final = "overhead"
BETWEEN: Final = "between runs"
START_UP: Final = "start-up of tasks"
_HOW: Final = (
    "Of an interrupted attempt, the share of steps that the next one did not repeat counts as useful "
    "training; the rest is lost. Where the steps are unknown, all of it is lost, unless the next attempt "
    "started from a later step. Attempts of runs that finally failed count as failed runs. Overhead is "
    "start-up, ticks and idle lanes, as billed by the cluster. Unfinished runs are not included."
)
_REUSED: Final = (
    " Tasks that keep their GPUs hold them between runs as well (hand-over, and waiting for a run), from "
    "when they take runs until they take no more; what they hold them for before and after is start-up."
)
BINS: Final = 40
_COLOURS: Final = {COUNTED: "@good"} | dict.fromkeys((OVERHEAD, BETWEEN, START_UP, INTERRUPTED), "@muted")


def gpu_time(results: Results) -> Section | None:
    """None before anything has ended."""
    if results.attempts.empty:
        return None
    what = "GPU" if uses_gpus(results.folder.state) else "run"
    spent = gpu_time_breakdown(results, gpus=what == "GPU")
    whole = sum(spent.values())
    text = "; ".join(
        f"{name} {hours_text(seconds)} ({share(seconds, whole)})" for name, seconds in spent.items()
    )
    figure = Figure(
        "gpu-time-spent",
        [_bars(spent, what)],
        {
            "xaxis": {"title": {"text": f"{what}-hours"}, "rangemode": "tozero", "nticks": 4},
            "yaxis": {"type": "category", "autorange": "reversed"},
            "showlegend": False,
        },
        f"Where {hours_text(whole)} {what}-hours went.",
        f"Of {hours_text(whole)} {what}-hours: {text}.",
        height=90 + 40 * len(spent),
    )
    how = _HOW + (_REUSED if {BETWEEN, START_UP} & spent.keys() else "")
    blocks: list[Block] = [figure, Text(how, "note"), *_waiting(results)]
    return Section("gpu-time", f"Where the {what} time went", blocks)


def _bars(spent: dict[str, float], what: str) -> dict[str, Any]:
    whole = sum(spent.values())
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(spent),
        "x": [seconds / 3600 for seconds in spent.values()],
        "marker": {"color": [_COLOURS.get(name, "@bad") for name in spent]},
        "text": [f"{hours_text(each)} {what}-hours, {share(each, whole)}" for each in spent.values()],
        "textposition": "auto",
        "insidetextfont": {"color": "@page"},
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }


class _Attempt(NamedTuple):
    """What matters here of a row of `Results.attempts`."""

    trial: int
    rung: int
    start: float
    step: int
    ending: str
    final: bool
    seconds: float
    gpu_seconds: float

    @property
    def facts(self) -> Facts:
        return FACTS[ending_of(self.ending, final=self.final)]


def gpu_time_breakdown(results: Results, *, gpus: bool) -> dict[str, float]:
    """Seconds (of GPUs, or of runs) by what they were spent on, the useful first, then the largest."""
    spent: dict[str, float] = {COUNTED: 0.0}

    def spend(on: str, seconds: float) -> None:
        spent[on] = spent.get(on, 0.0) + seconds

    rows = results.attempts[list(_Attempt._fields)].sort_values(["trial", "rung"], kind="stable")
    attempts = [_Attempt(*row) for row in rows.itertuples(index=False)]
    for _, run in itertools.groupby(attempts, key=lambda attempt: (attempt.trial, attempt.rung)):
        tries = list(run)
        useful = FAILED if tries[-1].final and not tries[-1].facts.ended_well else COUNTED
        for attempt, after in itertools.zip_longest(tries, tries[1:]):
            seconds = attempt.gpu_seconds if gpus else attempt.seconds
            if after is None and not attempt.final:
                spend(INTERRUPTED, seconds)
                continue
            useful_share = _useful_share(results, attempt, after)
            spend(useful, seconds * useful_share)
            if useful_share < 1:
                spend(attempt.facts.lost_time, seconds * (1 - useful_share))
    times = TaskTimes()
    for event in results.folder.events:
        known = times.apply(event)
        if isinstance(known, Overhead):
            spend(BETWEEN, known.between_gpu_s if gpus else known.between_s)
            spend(START_UP, known.start_up_gpu_s if gpus else known.start_up_s)
        elif isinstance(event, BatchClosed):
            spend(OVERHEAD, event.gpu_seconds if gpus else event.seconds)
    first, *others = spent.items()
    # What a cluster bills in whole seconds may be less than was measured: the sum over batches counts.
    others = [(name, seconds) for name, seconds in others if seconds > 0.01]
    return dict([first, *sorted(others, key=lambda item: -item[1])])


def _useful_share(results: Results, attempt: _Attempt, after: _Attempt | None) -> float:
    """The share of an attempt's work that need not be repeated."""
    if attempt.facts.ended_well:
        return 1.0
    if after is None or np.isnan(after.start):
        return 0.0
    trial = results.folder.state.trials[attempt.trial]
    began = attempt.start
    if np.isnan(began):  # unknown: from where the rung below ended
        began = trial.below(attempt.rung)
    trained = max(attempt.step, after.start) - began
    return float(np.clip((after.start - began) / trained, 0.0, 1.0)) if trained > 0 else 0.0


def _waiting(results: Results) -> list[Block]:
    waits = queue_waits(results)
    if not len(waits):
        return []
    middle, most, longest = (duration(float(wait)) for wait in np.quantile(waits, (0.5, 0.9, 1.0)))
    unit, seconds = _unit(float(waits.max()))
    counts, edges = np.histogram(waits / seconds, bins=BINS, range=(0.0, max(1.0, waits.max()) / seconds))
    trace = {
        "type": "bar",
        "x": (edges[:-1] + edges[1:]) / 2,
        "y": counts,
        "width": np.diff(edges),
        "marker": {"color": "@1"},
        "customdata": np.stack([edges[:-1], edges[1:]], axis=1),
        "hovertemplate": "%{customdata[0]:.3g} to %{customdata[1]:.3g} " + unit + ": %{y}<extra></extra>",
    }
    text = (
        f"Half of {plural(len(waits), 'task')} started within {middle} of their submission, 90% within "
        f"{most}; the longest wait was {longest}."
        if waits.max() >= 1
        else f"{plural(len(waits), 'task')} started at once."
    )
    figure = Figure(
        "gpu-time-waiting",
        [trace],
        {
            "bargap": 0,
            "xaxis": {"title": {"text": f"{unit} from submission to start"}, "range": [0, edges[-1]]},
            "yaxis": {"title": {"text": "tasks"}, "rangemode": "tozero"}
            | ({"dtick": 1} if counts.max() <= 5 else {}),
            "showlegend": False,
        },
        f"How long tasks waited in the queue, or until max_gpus allowed them. {text}",
        text,
        height=320,
    )
    return [figure]


def queue_waits(results: Results) -> Floats:
    """Seconds from an array's submission to the first start of each of its tasks, where both are known."""
    attempts = results.attempts
    known = attempts[
        (attempts["restart"] == 0) & attempts["started"].notna() & attempts["submitted_at"].notna()
    ]
    first = known.groupby(["batch", "task"])[["submitted_at", "started"]].min()
    # A task that keeps its GPUs tells itself when it began, and may have waited for its first run since.
    for event in results.folder.events:
        if isinstance(event, TaskBegan) and not event.restart and (event.batch, event.task) in first.index:
            first.loc[(event.batch, event.task), "started"] = event.started
    waits: Floats = (first["started"] - first["submitted_at"]).to_numpy(dtype=float).clip(min=0.0)
    return waits


def _unit(longest: float) -> tuple[str, float]:
    if longest < 120:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 7200 else ("hours", 3600.0)


#: So many nodes and messages are shown, and kinds have a colour.
NODES: Final = 20
MESSAGES: Final = 20
COLOURS: Final = 8


def failures(results: Results) -> Section | None:
    """Attempts that did not end well; None before anything has ended."""
    attempts, state = results.attempts, results.folder.state
    if attempts.empty:
        return None
    kinds = [FACTS[kind_of(*row)] for row in attempts[["ending", "failure", "final"]].itertuples(index=False)]
    follows = {facts.label: f"{facts.fault.value}: {facts.next_step}" for facts in kinds}
    ended_well = np.array([facts.ended_well for facts in kinds])
    bad = attempts.assign(kind=[facts.label for facts in kinds])[~ended_well]
    if bad.empty:
        subject = "The only attempt" if len(attempts) == 1 else f"All {plural(len(attempts), 'attempt')}"
        text = f"{subject} ended well: none failed, none was interrupted."
        return Section("failures", "Failures", [Text(text)])
    text = (
        f"{plural(len(bad), 'attempt')} of {len(attempts):,} ({share(len(bad), len(attempts))}) failed or "
        f"{'was' if len(bad) == 1 else 'were'} interrupted; "
        f"{plural(state.counts[RunStatus.FAILED], 'run')} failed for good. The log of the newest one:"
    )
    log = f"hpcsweep logs {shell_quote(str(results.folder.layout.root))} {bad['trial'].iloc[-1]}"
    tables = [_by_kind(bad, follows, gpus=uses_gpus(state)), *_by_node(attempts, bad), _newest(bad)]
    branches = [Text(f"{branch[:1].upper()}{branch[1:]}") for branch in failed_branches(state)]
    return Section("failures", "Failures", [*branches, Text(text), Text(log, "code"), *tables])


def kind_of(ending: str, failure: object, final: bool) -> Ending:
    """What was wrong where a run failed for good, else how the attempt ended."""
    return FailureKind(failure) if final and isinstance(failure, str) else ending_of(ending, final=final)


def _by_kind(bad: pd.DataFrame, follows: Mapping[str, str], *, gpus: bool) -> Table:
    cost, column = ("GPU-hours", "gpu_seconds") if gpus else ("run-hours", "seconds")
    rows: list[Sequence[str | int | float | None]] = []
    for kind in _most_frequent(bad["kind"]):
        of_kind = bad[bad["kind"] == kind]
        spent = hours(float(of_kind[column].sum()))
        rows.append([kind, len(of_kind), of_kind["trial"].nunique(), spent, follows[kind]])
    columns = ["how it ended", "attempts", "trials", cost, "whose fault, and what follows"]
    return Table(columns, rows, "Attempts that did not end well, by kind")


def _by_node(attempts: pd.DataFrame, bad: pd.DataFrame) -> list[Block]:
    """The nodes with most of them; nothing where no node is known."""
    known = bad[bad["node"] != ""]
    nodes = _most_frequent(known["node"])
    if not nodes:
        return []
    shown, all_there = nodes[:NODES], attempts["node"].value_counts()
    more = f" Of {len(nodes):,} nodes with failures, the {NODES} with most of them." if nodes[NODES:] else ""
    kinds = _most_frequent(known["kind"])
    by_node = {kind: known[known["kind"] == kind]["node"].value_counts() for kind in kinds}
    counts = {kind: [int(by_node[kind].get(node, 0)) for node in shown] for kind in kinds}
    rows = [
        [node, int(all_there[node]), *row, share(sum(row), int(all_there[node]))]
        for node, *row in zip(shown, *counts.values(), strict=True)
    ]
    columns = ["node", "attempts", *kinds, "of its attempts"]
    table = Table(columns, rows, f"Attempts on each node, and how they ended.{more}")
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": kind,
            "y": shown,
            "x": [
                100 * count / int(all_there[node]) for count, node in zip(counts[kind], shown, strict=True)
            ],
            "customdata": [
                [count, int(all_there[node])] for count, node in zip(counts[kind], shown, strict=True)
            ],
            "hovertemplate": f"{kind}: %{{customdata[0]}} of %{{customdata[1]}} attempts<extra></extra>",
            "marker": {"color": f"@{at % COLOURS + 1}"},
        }
        for at, kind in enumerate(kinds)
    ]
    lost = known["node"].value_counts()
    worst = "; ".join(
        f"{node} {lost[node]:,} of {all_there[node]:,} ({share(int(lost[node]), int(all_there[node]))})"
        for node in shown[:3]
    )
    figure = Figure(
        "failures-by-node",
        traces,
        {
            "barmode": "stack",
            "xaxis": {"title": {"text": "of the node's attempts, %"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "node"}, "type": "category", "autorange": "reversed"},
            "showlegend": True,
            "legend": {"traceorder": "normal"},  # that of the bars
        },
        f"The share of each node's attempts that failed or were interrupted, by kind.{more}",
        f"Most of them: {worst}.",
        height=150 + 26 * len(shown),
    )
    return [figure, table]


def _newest(bad: pd.DataFrame) -> Table:
    newest = bad.iloc[::-1].head(MESSAGES)
    cells = newest[["trial", "rung", "kind", "node", "job", "message"]].replace("", None)
    rows = cells.to_numpy(dtype=object).tolist()
    columns = ["trial", "rung", "how it ended", "node", "job", "message"]
    return Table(columns, rows, f"The newest {plural(len(rows), 'message')}, newest first")


def _most_frequent(values: pd.Series) -> list[str]:
    """Each value once, the most frequent first."""
    return list(values.value_counts().index)
