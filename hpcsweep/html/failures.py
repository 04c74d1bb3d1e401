"""What went wrong: by kind, by node, and the newest words of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.core.models import RunStatus
from hpcsweep.html.format import count, ending, hours, share
from hpcsweep.html.sections import Block, Figure, Section, Table, Text
from hpcsweep.views.results import Results

if TYPE_CHECKING:
    import pandas as pd

#: So many nodes and messages are shown, and kinds told apart by colour.
NODES: Final = 20
MESSAGES: Final = 20
COLOURS: Final = 8
#: Endings that are none of all this.
WELL: Final = frozenset({Outcome.COMPLETED.value, Outcome.STOPPED.value})
_NO_FAULT: Final = (FailureKind.LOST, FailureKind.CANCELLED)
_CONFIGURATION: Final = "the configuration: never promoted"
_GOES_ON: Final = "not the configuration: goes on from its checkpoint"
_GIVEN_UP: Final = "lost for good"
_CANCELLED: Final = "cancelled for good"
_FOLLOWS: Final = {
    **{ending(kind.value): _CONFIGURATION for kind in FailureKind if kind not in _NO_FAULT},
    ending(Interruption.TRAINING_ERROR.value): "the configuration: tried again",
    _GIVEN_UP: "interrupted too often: given up",
    _CANCELLED: "its owner: not tried again",
}


def failures(results: Results) -> Section | None:
    """Attempts that did not end well; None before anything has ended."""
    attempts = results.attempts
    if attempts.empty:
        return None
    kinds = [_kind(*row) for row in attempts[["ending", "failure", "final"]].itertuples(index=False)]
    bad = attempts.assign(kind=kinds)[~attempts["ending"].isin(WELL)]
    if bad.empty:
        all_ = "The one attempt" if len(attempts) == 1 else f"All {count(len(attempts), 'attempt')}"
        told = f"{all_} ended well: none failed, none was interrupted."
        return Section("failures", "Failures", [Text(told)])
    lost, gpus = results.folder.state.counts[RunStatus.FAILED], results.folder.state.spent_gpu_s > 0
    told = (
        f"{count(len(bad), 'attempt')} of {len(attempts):,} ({share(len(bad), len(attempts))}) failed or "
        f"{'was' if len(bad) == 1 else 'were'} interrupted; {count(lost, 'run')} failed for good. "
        "What a trial printed: hpcsweep logs DIR TRIAL."
    )
    return Section(
        "failures", "Failures", [Text(told), _by_kind(bad, gpus=gpus), *_by_node(attempts, bad), _newest(bad)]
    )


def _kind(end: str, failure: object, final: bool) -> str:
    """What was wrong where a run failed for good, else how the attempt ended."""
    if not isinstance(failure, str) or not final:
        return ending(end)
    given_up = {FailureKind.LOST.value: _GIVEN_UP, FailureKind.CANCELLED.value: _CANCELLED}
    return given_up.get(failure) or ending(failure)


def _by_kind(bad: pd.DataFrame, *, gpus: bool) -> Table:
    cost, column = ("GPU-hours", "gpu_seconds") if gpus else ("run-hours", "seconds")
    rows: list[Sequence[str | int | float | None]] = []
    for kind in _kinds(bad):
        of_kind = bad[bad["kind"] == kind]
        spent, follows = hours(float(of_kind[column].sum())), _FOLLOWS.get(kind, _GOES_ON)
        rows.append([kind, len(of_kind), of_kind["trial"].nunique(), spent, follows])
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
        f"Most of them: {worst}.",
        height=150 + 26 * len(shown),
    )
    return [figure, table]


def _newest(bad: pd.DataFrame) -> Table:
    newest = bad.iloc[::-1].head(MESSAGES)
    cells = newest[["trial", "rung", "kind", "node", "job", "message"]].replace("", None)
    rows = cells.to_numpy(dtype=object).tolist()
    columns = ["trial", "rung", "how it ended", "node", "job", "message"]
    return Table(columns, rows, f"The newest {count(len(rows), 'message')}, newest first")


def _kinds(bad: pd.DataFrame) -> list[str]:
    """The most frequent first."""
    found: list[str] = bad["kind"].value_counts().index.tolist()
    return found
