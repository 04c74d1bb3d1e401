"""What a run of `try` did: read from its results folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.core.models import Run
from hpcsweep.core.outcomes import FailureKind, Outcome
from hpcsweep.store import checkpoints
from hpcsweep.store.files import OURS
from hpcsweep.store.layout import Layout, TrialLayout
from hpcsweep.store.run_files import metrics_files, read_reports
from hpcsweep.views.folder import LogReader, ResultsFolder, attempt_logs

#: Begins the line of a log that has the command as run.
COMMAND: Final = f"{OURS} command: "


class Observed(NamedTuple):
    """One run of the trial.

    Attributes:
        resource: Up to which it was asked to train.
        value: The objective; None: there is none.
        outcome: As the journal has it, such as `completed`.
        message: What went wrong; empty for nothing.
        interrupted: It had no time, or no machine, to end by itself.
        never_reported: It ended well, but for its metric, which did not come.
        warning: What the worker says should be changed.
        seconds: Wall time.
        start: The step that it went on from; 0 from scratch.
        command: As run; empty for a function.
        printed: Lines of the program itself.
        steps: The steps that it reported, each once.
        metrics: Each metric's last value and its step.
        checkpoints: Files of each checkpoint of the trial, by step.
    """

    resource: int
    value: float | None
    outcome: str
    message: str
    interrupted: bool
    never_reported: bool
    warning: str
    seconds: float
    start: int
    command: str
    printed: tuple[str, ...]
    steps: tuple[int, ...]
    metrics: dict[str, tuple[float, int]]
    checkpoints: dict[int, tuple[str, ...]]


def observe(path: Path, *, rung: int, metrics: Collection[str]) -> Observed:
    """The run of the only trial at this rung; `metrics` are the objectives."""
    folder = ResultsFolder(path)
    run: Run = folder.state.trials[0].runs[rung]
    trial = Layout(path.resolve()).trial(0)
    steps: dict[int, None] = {}
    found: dict[str, tuple[float, int]] = {}
    for file in metrics_files(trial):
        if file.rung == rung:
            for step, values in read_reports(file.path):
                steps[step] = None
                found |= {name: (value, step) for name, value in values.items()}
    lines = _log(folder, rung)
    command = next((line.removeprefix(COMMAND) for line in lines if line.startswith(COMMAND)), "")
    return Observed(
        resource=run.resource,
        value=run.value,
        outcome=run.outcome.value if run.outcome else "stopped",
        message=run.message if run.outcome else "",
        interrupted=run.outcome in (None, Outcome.LOST, Outcome.STOPPED, Outcome.CANCELLED),
        never_reported=run.failure is FailureKind.NEVER_REPORTED
        and any(each not in found for each in metrics),
        warning=run.warning,
        seconds=run.seconds,
        start=run.start or 0,
        command=command,
        printed=tuple(line for line in lines if not line.startswith(OURS)),
        steps=tuple(steps),
        metrics=found,
        checkpoints=_checkpoints(trial),
    )


def _log(folder: ResultsFolder, rung: int) -> list[str]:
    reader = LogReader(folder.layout, folder.events)
    lines: list[str] = []
    for log in attempt_logs(folder.events, folder.layout, 0):
        data = reader.read(log)[1]
        if log.rung == rung and data is not None:
            lines += data.decode(errors="replace").replace("\r", "\n").split("\n")
    return [line.rstrip() for line in lines if line.strip()]


def _checkpoints(trial: TrialLayout) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    newest = checkpoints.newest(trial)
    while newest is not None:
        names = sorted(path.relative_to(newest.path).as_posix() for path in newest.path.rglob("*"))
        found[newest.step] = tuple(name for name in names if name != checkpoints.MANIFEST)
        newest = checkpoints.newest(trial, at_most=newest.step - 1)
    return dict(sorted(found.items()))
