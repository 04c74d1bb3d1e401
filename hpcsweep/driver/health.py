"""What the driver does about a site that fails: bad nodes are left out, a broken set-up pauses. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcsweep.core.events import NodeExcluded, PauseEnded, PauseRequested
from hpcsweep.core.first_errors import AT_ONCE_S
from hpcsweep.core.state import SweepState

#: A node is left out when so many different trials in a row failed there for reasons of its own.
BAD_TRIALS: Final = 3
#: For so long.
EXCLUDED_S: Final = 3600.0
#: So many batches in a row that die at once pause the sweep.
DEAD_BATCHES: Final = 3
#: So many submissions in a row that are refused in the same words do.
REFUSALS: Final = 3
#: And so many in whatever words: they may hold a date or the name of a request.
REFUSALS_IN_ALL: Final = 6


def excluded(state: SweepState, *, now: float) -> tuple[str, ...]:
    """Nodes that a batch submitted now stays away from."""
    return tuple(sorted(node for node, event in state.excluded.items() if event.holds(now)))


def check_health(
    state: SweepState, *, now: float, nodes: Sequence[str], fail_fast: int = 0, longest_s: float = 0.0
) -> list[NodeExcluded | PauseRequested | PauseEnded]:
    """What follows from failures that are not the configurations'.

    Args:
        state: Of the sweep.
        now: Unix time.
        nodes: Where the sweep may run; no node is left out where that is unknown, and never all.
        fail_fast: So many trials that fail at once, all alike and before any other ends, pause it; 0: none.
        longest_s: How long the run has lasted that has been going on for longest.
    """
    found: list[NodeExcluded | PauseRequested | PauseEnded] = []
    out = set(excluded(state, now=now))
    for node, faults in state.node_faults.items():
        rest = set(nodes) - out - {node}
        # Where no other node ever did better, it is not this one's fault.
        elsewhere = state.good_nodes - {node}
        if len(faults) >= BAD_TRIALS and node in nodes and node not in out and rest and elsewhere:
            out.add(node)
            reason = f"{len(faults)} trials failed there in a row; the last: {[*faults.values()][-1]}"
            found.append(NodeExcluded(node, now, now + EXCLUDED_S, reason))
    going_on = state.pausing is None and state.stopping is None
    refusals = state.refusals
    if refusals.in_a_row >= REFUSALS and going_on:
        words = f"{refusals.in_a_row} submissions in a row were refused: {refusals.message}"
        return [*found, PauseRequested(now, words)]
    if refusals.total >= REFUSALS_IN_ALL and going_on:
        words = f"{refusals.total} submissions in a row were refused; the last: {refusals.message}"
        return [*found, PauseRequested(now, words)]
    if state.failed_batches_in_a_row >= DEAD_BATCHES and going_on:
        words = state.last_batch_failure or "without a word"
        found.append(
            PauseRequested(
                now, f"{state.failed_batches_in_a_row} batches in a row died at once; the last: {words}"
            )
        )
    first, better = state.first_errors, longest_s > AT_ONCE_S
    if state.stopping is not None or state.ended is not None:
        return found
    if state.pausing is not None and state.pausing.is_fail_fast and (first.over or better):
        found.append(PauseEnded(now))
    if state.pausing is None and not found and 0 < fail_fast <= len(first.trials) and not better:
        found.append(PauseRequested(now, _all_alike(len(first.trials), first.message), "fail_fast"))
    return found


def _all_alike(trials: int, message: str) -> str:
    first = "the first trial" if trials == 1 else f"the first {trials} trials"
    return (
        f"{first} failed at once with the same error: {message}. Mend it, then "
        "`hpcsweep retry` tries them again and goes on, `launch` goes on without them "
        "(retries.fail_fast: false keeps a sweep going)"
    )
