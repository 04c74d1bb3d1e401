"""The three tables of a sweep: trials, runs, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hpcsweep.core.records import Run, RunStatus, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.store.layout import Layout
from hpcsweep.store.metrics import metrics_files, read_reports

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

TABLES: Final = ("trials", "runs", "metrics")


def table(name: str, state: SweepState, layout: Layout) -> pd.DataFrame:
    """One of `TABLES` as a frame; columns are there even if it has no rows."""
    import pandas as pd

    match name:
        case "trials":
            rows = list(_trials(state))
        case "runs":
            rows = list(_runs(state))
        case "metrics":
            rows = list(_metrics(state, layout))
        case _:
            raise ValueError(f"no table {name!r}; there are {', '.join(TABLES)}")
    found = dict.fromkeys(_COLUMNS[name]) | dict.fromkeys(key for row in rows for key in row)
    return pd.DataFrame(rows, columns=list(found))


_COLUMNS: Final = {
    "trials": ("trial", "status", "value", "resource", "bracket", "parent", "origin", "repeat"),
    "runs": (
        "trial",
        "bracket",
        "rung",
        "resource",
        "start_resource",
        "outcome",
        "value",
        "attempts",
        "seconds",
        "gpu_seconds",
        "job",
        "node",
        "message",
    ),
    "metrics": ("trial", "rung", "step"),
}


def _trials(state: SweepState) -> Iterator[dict[str, Any]]:
    """Value and resource are those of the highest rung that gave a value."""
    for trial in state.trials:
        last = trial.last_completed
        row = {
            "trial": trial.trial,
            "status": trial_status(trial),
            "value": last.value if last else None,
            "resource": reached(last) if last else None,
            "bracket": trial.bracket,
            "parent": trial.parent,
            "origin": trial.origin,
            "repeat": trial.repeat,
        }
        yield row | {f"config.{name}": value for name, value in trial.config.items()}


def reached(run: Run) -> int:
    """The resource at which the run has its value: less than it was meant for if it was stopped."""
    return run.step if run.status is RunStatus.STOPPED else run.resource


def trial_status(trial: Trial) -> str:
    """`running` while a run of it is waiting or submitted, else how its last run ended."""
    status = trial.runs[-1].status
    return status.value if status.ended else "running"


def _runs(state: SweepState) -> Iterator[dict[str, Any]]:
    for trial in state.trials:
        for run in trial.runs:
            yield _run(trial, run)


def _run(trial: Trial, run: Run) -> dict[str, Any]:
    ended = run.status.ended
    return {
        "trial": trial.trial,
        "bracket": trial.bracket,
        "rung": run.rung,
        "resource": run.resource,
        "start_resource": run.start if ended else None,
        "outcome": run.outcome.value if run.outcome else None,
        "value": run.value,
        "attempts": run.attempts,
        "seconds": run.seconds,
        "gpu_seconds": run.gpu_seconds,
        "job": run.job,
        "node": run.node,
        "message": run.message if run.status is not RunStatus.COMPLETED else "",
    }


def _metrics(state: SweepState, layout: Layout) -> Iterator[dict[str, Any]]:
    """What was reported, once for each rung and step: of several attempts the newest counts."""
    for trial in state.trials:
        found: dict[tuple[int, int], dict[str, float]] = {}
        for file in metrics_files(layout.trial(trial.trial)):
            for report in read_reports(file.path):
                found.setdefault((file.rung, report.step), {}).update(report.metrics)
        for (rung, step), metrics in sorted(found.items()):
            yield {"trial": trial.trial, "rung": rung, "step": step, **metrics}
