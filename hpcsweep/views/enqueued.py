"""Enqueued configurations that have not started, and what they wait for. Pure but for one readdir."""

from __future__ import annotations

from hpcsweep.core.state import SweepState
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import new_requests


def count_enqueued(layout: Layout, state: SweepState) -> int:
    """How many have not started, those included that no driver has taken up so far."""
    requests = (request for _, request in new_requests(layout, state.requests))
    return len(state.enqueued) + sum(request.verb == "enqueue" for request in requests)


def beyond_budget(count: int, state: SweepState, trials: int | None) -> str:
    """Why not all of so many can start, as the end of a sentence; empty where they can.

    Args:
        count: How many wait.
        state: Of the sweep.
        trials: Its `budget.trials`.
    """
    left = None if trials is None else max(0, trials - state.configurations)
    if left is None or count <= left:
        return ""
    most = f"no more than {left} of them" if left else "none"
    return f"budget.trials {trials} lets {most} start; raise it, then launch again"
