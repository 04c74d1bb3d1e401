"""What the exports tell of each trial: what it reported, and when, as far as that is known."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hpcsweep.core.models import Run, Trial
from hpcsweep.errors import FolderError

if TYPE_CHECKING:
    from hpcsweep.views.results import Results


class Report(NamedTuple):
    """What was reported at one step; metrics that were not, and those that are NaN, are absent."""

    step: int
    at: float  # Unix time, interpolated between the run's start and end: training reports no times
    metrics: dict[str, float]


class TrialTimeline(NamedTuple):
    """One trial from its first start to its last ending."""

    trial: Trial
    began: float  # Unix time; while nothing of it has ended, that of its submission
    ended: float | None  # None while a run of it waits or is under way
    reports: list[Report]  # each step once: where several rungs went through it, the highest counts
    values: list[tuple[int, float, float]]  # resource, Unix time and value of each run that gave one
    several: tuple[tuple[float, ...], ...] = ()  # the same runs: all values of several objectives


class _Span(NamedTuple):
    began: float
    ended: float


def trial_timelines(results: Results) -> Iterator[TrialTimeline]:
    """All trials in the order of their numbers; a FolderError if there is none."""
    state = results.folder.state
    if not state.trials:
        raise FolderError(f"{results.path}: nothing to export: no trial has been started yet")
    spans = _spans(results)
    reports = _reports(results)
    sweep_began = state.started.at if state.started else 0.0
    for trial in state.trials:
        at = sweep_began
        of_runs: list[_Span] = []
        for run in trial.runs:
            batch = state.live.get(run.batch)
            began = at if batch is None else batch.planned_at
            of_runs.append(spans.get((run.trial, run.rung), _Span(began, began)))
            at = of_runs[-1].ended
        yield TrialTimeline(
            trial,
            began=of_runs[0].began,
            ended=at if trial.runs[-1].status.ended else None,
            reports=[
                Report(step, _time(trial.runs[rung], of_runs[rung], step), metrics)
                for rung, step, metrics in reports.get(trial.trial, ())
                if rung < len(of_runs)
            ],
            values=[
                (_end(run), span.ended, run.value)
                for run, span in zip(trial.runs, of_runs, strict=True)
                if run.value is not None
            ],
            several=tuple(run.values for run in trial.runs if run.value is not None and run.values),
        )


def _end(run: Run) -> int:
    """The step at which its value is; less than its resource if it was stopped."""
    return run.step or run.resource


def _time(run: Run, span: _Span, step: int) -> float:
    return float(np.interp(step, (run.start or 0, _end(run)), span))


def _spans(results: Results) -> dict[tuple[int, int], _Span]:
    """From when to when each run was tried: from the first attempt's beginning to the last one's end."""
    frame = results.attempts
    began = frame["started"].fillna(frame["submitted_at"])
    whole = frame[["trial", "rung"]].assign(began=began, ended=began + frame["seconds"].astype(float))
    found = whole.dropna().groupby(["trial", "rung"]).agg({"began": "min", "ended": "max"})
    return dict(zip(found.index, map(_Span, found["began"], found["ended"]), strict=True))


def _reports(results: Results) -> Mapping[int, list[tuple[int, int, dict[str, float]]]]:
    """By trial: rung, step and metrics, in the order of the steps."""
    frame = results.metrics.sort_values(["trial", "step", "rung"])
    frame = frame.drop_duplicates(["trial", "step"], keep="last")
    keys = frame[["trial", "rung", "step"]].to_numpy(dtype=np.int64).tolist()
    columns = [str(name) for name in frame.columns if name not in ("trial", "rung", "step")]
    found: dict[int, list[tuple[int, int, dict[str, float]]]] = {}
    for (trial, rung, step), row in zip(keys, frame[columns].to_numpy(dtype=float).tolist(), strict=True):
        metrics = {name: value for name, value in zip(columns, row, strict=True) if value == value}
        if metrics:
            found.setdefault(trial, []).append((rung, step, metrics))
    return found


NO_NAME = "(no name)"


def printable(text: str) -> str:
    r"""One line in which whatever is not printable is an escape, such as `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def labels(names: Iterable[str], *, taken: Container[str] = ()) -> dict[str, str]:
    """What each name is shown as: printable, none twice, and none of those taken for something else."""
    names = list(dict.fromkeys(names))
    shown: dict[str, str] = {}
    used = {name for name in names if name and name.isprintable() and name not in taken}
    for name in names:
        if name in used:
            shown[name] = name
            continue
        plain = label = printable(name) or NO_NAME
        number = 2
        while label in used or label in taken:
            label, number = f"{plain} ({number})", number + 1
        used.add(label)
        shown[name] = label
    return shown
