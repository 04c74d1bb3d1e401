"""How values, configurations and costs are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcsweep.core.state import SweepState
from hpcsweep.report.folder import best_of


def number(value: float) -> str:
    return f"{value:.6g}"


def configuration(config: Mapping[str, Any]) -> str:
    """`lr=0.01 optimizer=adam`."""
    return " ".join(
        f"{name}={number(value) if isinstance(value, float) else value}" for name, value in config.items()
    )


def best_line(state: SweepState) -> str:
    """The best so far in one line."""
    best = best_of(state)
    if best is None:
        return "no value yet"
    metric = state.started.identity["objective"]["metric"] if state.started else "value"
    return f"{metric} {number(best['value'])} (trial {best['trial']} at {best['resource']})"


def cost(state: SweepState) -> str:
    """GPU-hours, or run-hours where no GPU is used."""
    if state.spent_gpu_s:
        return f"{state.spent_gpu_s / 3600:.3g} GPU-hours"
    return f"{state.spent_s / 3600:.3g} run-hours"


def runs_line(counts: Mapping[str, int]) -> str:
    """For example `17 runs completed, 2 failed, 9 running, 3 pending`; states without runs are left out.

    Args:
        counts: Number of runs by state.
    """
    words = {"stopped": "stopped early", "submitted": "under way"}
    others = [
        f"{counts[state]} {words.get(state, state)}"
        for state in ("failed", "stopped", "running", "submitted", "pending", "waiting")
        if counts.get(state)
    ]
    return ", ".join([f"{counts['completed']} runs completed", *others])


def state_counts(state: SweepState) -> dict[str, int]:
    """Number of runs by state as far as the journal knows."""
    return {status.value: count for status, count in state.counts.items()}
