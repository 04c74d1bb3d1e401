"""Section: what the GPU time was spent on or lost to, and how long tasks waited in the queue."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from hpcsweep.core.events import BatchClosed
from hpcsweep.core.history import Floats
from hpcsweep.core.outcomes import FACTS, Facts, Outcome, ending_of
from hpcsweep.core.text import plural
from hpcsweep.html.sections import Block, Figure, Section, Table, Text
from hpcsweep.views.format import duration, hours, hours_text, share
from hpcsweep.views.progress import uses_gpus
from hpcsweep.views.results import Results

COUNTED: Final = "useful training"
FAILED: Final = FACTS[Outcome.FAILED].lost_time
INTERRUPTED: Final = "interrupted, to be resumed"
OVERHEAD: Final = "overhead"
_HOW: Final = (
    "Of an interrupted attempt, the share of steps that the next one did not repeat counts as useful "
    "training; the rest is lost. Where the steps are unknown, all of it is lost, unless the next attempt "
    "started from a later step. Attempts of runs that finally failed count as failed runs. Overhead is "
    "start-up, ticks and idle lanes, as billed by the cluster. Unfinished runs are not included."
)
BINS: Final = 40
_COLOURS: Final = {COUNTED: "@good", OVERHEAD: "@muted", INTERRUPTED: "@muted"}


def gpu_time(results: Results) -> Section | None:
    """None before anything has ended."""
    if results.attempts.empty:
        return None
    what = "GPU" if uses_gpus(results.folder.state) else "run"
    spent = gpu_time_breakdown(results, gpus=what == "GPU")
    whole = sum(spent.values())
    rows: list[Sequence[str | float]] = [
        [name, hours(seconds), share(seconds, whole)] for name, seconds in spent.items()
    ]
    text = "; ".join(f"{name} {share(seconds, whole)}" for name, seconds in spent.items())
    figure = Figure(
        "gpu-time-spent",
        [_bars(spent)],
        {
            "xaxis": {"title": {"text": f"{what}-hours"}, "rangemode": "tozero", "nticks": 4},
            "yaxis": {"type": "category", "autorange": "reversed"},
            "showlegend": False,
        },
        f"Where {hours_text(whole)} {what}-hours went.",
        f"Of {hours_text(whole)} {what}-hours: {text}.",
        height=90 + 40 * len(spent),
    )
    table = Table(["where it went", f"{what}-hours", "share"], rows, f"Where the {what}-hours went")
    blocks: list[Block] = [figure, table, Text(_HOW, "note"), *_waiting(results)]
    return Section("gpu-time", f"Where the {what} time went", blocks)


def _bars(spent: dict[str, float]) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(spent),
        "x": [seconds / 3600 for seconds in spent.values()],
        "marker": {"color": [_COLOURS.get(name, "@bad") for name in spent]},
        "hovertemplate": "%{y}: %{x:.3g} hours<extra></extra>",
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
        if seconds > 0:
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
    for event in results.folder.events:
        if isinstance(event, BatchClosed):
            spend(OVERHEAD, event.gpu_seconds if gpus else event.seconds)
    first, *others = spent.items()
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
        began = trial.runs[attempt.rung - 1].resource if attempt.rung else trial.start
    trained = max(attempt.step, after.start) - began
    return float(np.clip((after.start - began) / trained, 0.0, 1.0)) if trained > 0 else 0.0


def _waiting(results: Results) -> list[Block]:
    waits = queue_waits(results)
    if not len(waits):
        return []
    middle, most, longest = (duration(float(wait)) for wait in np.quantile(waits, (0.5, 0.9, 1.0)))
    unit, seconds = _unit(float(waits.max()))
    counts, edges = np.histogram(waits / seconds, bins=BINS)
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
    )
    figure = Figure(
        "gpu-time-waiting",
        [trace],
        {
            "bargap": 0,
            "xaxis": {"title": {"text": f"{unit} from submission to start"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "tasks"}, "rangemode": "tozero"},
            "showlegend": False,
        },
        f"How long tasks waited in the queue, or until max_gpus allowed them. {text}",
        text,
        height=320,
    )
    return [figure]


def queue_waits(results: Results) -> Floats:
    """Seconds from the submission of an array to the start of each of its tasks, where both are known.

    Requeues by the cluster are left out (when they were put back is not known), and all runs of
    a task but its first.
    """
    attempts = results.attempts
    known = attempts[
        (attempts["restart"] == 0) & attempts["started"].notna() & attempts["submitted_at"].notna()
    ]
    first = known.groupby(["batch", "task"])[["submitted_at", "started"]].min()
    waits: Floats = (first["started"] - first["submitted_at"]).to_numpy(dtype=float).clip(min=0.0)
    return waits


def _unit(longest: float) -> tuple[str, float]:
    if longest < 120:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 7200 else ("hours", 3600.0)
