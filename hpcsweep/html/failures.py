"""Section: failures and interruptions by kind and by node, and the latest error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import FACTS, Ending, FailureKind, ending_of
from hpcsweep.core.text import plural, shell_quote
from hpcsweep.html.sections import Block, Figure, Section, Table, Text
from hpcsweep.views.format import hours, share
from hpcsweep.views.progress import uses_gpus
from hpcsweep.views.results import Results

if TYPE_CHECKING:
    import pandas as pd

#: So many nodes and messages are shown, and kinds told apart by colour.
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
    return Section("failures", "Failures", [Text(text), Text(log, "code"), *tables])


def kind_of(ending: str, failure: object, final: bool) -> Ending:
    """What was wrong where a run failed for good, else how the attempt ended."""
    return FailureKind(failure) if final and isinstance(failure, str) else ending_of(ending, final=final)


def _by_kind(bad: pd.DataFrame, follows: Mapping[str, str], *, gpus: bool) -> Table:
    cost, column = ("GPU-hours", "gpu_seconds") if gpus else ("run-hours", "seconds")
    rows: list[Sequence[str | int | float | None]] = []
    for kind in _kinds(bad):
        of_kind = bad[bad["kind"] == kind]
        spent = hours(float(of_kind[column].sum()))
        rows.append([kind, len(of_kind), of_kind["trial"].nunique(), spent, follows[kind]])
    columns = ["how it ended", "attempts", "trials", cost, "whose fault, and what follows"]
    return Table(columns, rows, "Attempts that did not end well, by kind")


def _by_node(attempts: pd.DataFrame, bad: pd.DataFrame) -> list[Block]:
    """The nodes with most of them; nothing where no node is known."""
    known = bad[bad["node"] != ""]
    nodes = known["node"].value_counts().index.tolist()
    if not nodes:
        return []
    shown, all_there = nodes[:NODES], attempts["node"].value_counts()
    more = f" Of {len(nodes):,} nodes with failures, the {NODES} with most of them." if nodes[NODES:] else ""
    kinds = _kinds(known)
    by_node = {kind: known[known["kind"] == kind]["node"].value_counts() for kind in kinds}
    rows = [
        [node, int(all_there[node]), *(int(by_node[kind].get(node, 0)) for kind in kinds)] for node in shown
    ]
    table = Table(["node", "attempts", *kinds], rows, f"Attempts on each node, and how they ended.{more}")
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": kind,
            "y": shown,
            "x": [int(by_node[kind].get(node, 0)) for node in shown],
            "marker": {"color": f"@{at % COLOURS + 1}"},
        }
        for at, kind in enumerate(kinds)
    ]
    worst = ", ".join(f"{node} {int((known['node'] == node).sum())}" for node in shown[:3])
    figure = Figure(
        "failures-by-node",
        traces,
        {
            "barmode": "stack",
            "xaxis": {"title": {"text": "attempts that did not end well"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "node"}, "type": "category", "autorange": "reversed"},
            "showlegend": True,
        },
        f"Attempts that failed or were interrupted, by node and kind.{more}",
        f"Most of them on: {worst}.",
        height=150 + 26 * len(shown),
    )
    return [figure, table]


def _newest(bad: pd.DataFrame) -> Table:
    newest = bad.iloc[::-1].head(MESSAGES)
    cells = newest[["trial", "rung", "kind", "node", "job", "message"]].replace("", None)
    rows = cells.to_numpy(dtype=object).tolist()
    columns = ["trial", "rung", "how it ended", "node", "job", "message"]
    return Table(columns, rows, f"The newest {plural(len(rows), 'message')}, newest first")


def _kinds(bad: pd.DataFrame) -> list[str]:
    """The most frequent first."""
    found: list[str] = bad["kind"].value_counts().index.tolist()
    return found
