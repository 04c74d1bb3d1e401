"""The objective of a run, from the reports of the trial's attempts."""

from __future__ import annotations

import math
from typing import NamedTuple

from hpcsweep.core.events import FailureKind
from hpcsweep.store.batch import ManifestRun, Program
from hpcsweep.store.files import Skipped, explain_error
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.metrics import metrics_files, read_reports


class ObjectiveReading(NamedTuple):
    """The objective as reported.

    Attributes:
        value: The objective, finite; None if there is none.
        problem: Why there is none.
        reached: The highest step reported, at most the resource; 0 if none.
        fresh: This attempt reported the objective for a step that it trained itself.
        complete: The objective was reported for the last step.
        failure: Kind of the problem.
    """

    value: float | None
    problem: str
    reached: int
    fresh: bool
    complete: bool
    failure: FailureKind | None = None

    def with_stdout_problem(self, problem: str) -> ObjectiveReading:
        """The same with this problem, if it is not empty and there is no value."""
        if self.value is not None or not problem:
            return self
        return self._replace(problem=problem, failure=FailureKind.UNREADABLE)


def read_objective(
    trial: TrialLayout, run: ManifestRun, program: Program, *, restart: int, start: int
) -> ObjectiveReading:
    """Read the objective at `run.resource`: the last value or the best so far.

    Reports of the run's earlier attempts count up to `start`, the step of the checkpoint that this attempt
    (start number `restart`) resumed from; later steps were trained again. Lower rungs may be compacted by
    now; of them only the best value counts, if it is asked for and this attempt resumed from their
    training.
    """
    seen: dict[str, None] = {}
    values: dict[int, float] = {}
    reached, beyond, fresh = 0, 0, False
    unlisted = Skipped()
    files = metrics_files(trial, unlisted)
    unreadable = next(iter(unlisted.lines(trial.root.parent)), "")
    for file in files:
        if file.rung != run.rung:
            continue
        own = (file.attempt, file.restart) == (run.attempt, restart)
        try:
            reports = list(read_reports(file.path))
        except OSError as error:
            unreadable = unreadable or f"{file.path}: {explain_error(error)}"
            continue
        for step, metrics in reports:
            if step > run.resource:
                beyond = beyond or (step if program.metric in metrics else 0)
                continue
            if not own and step > start:
                continue
            seen |= dict.fromkeys(metrics)
            reached = max(reached, step)
            if program.metric in metrics:
                values[step] = metrics[program.metric]
                fresh = fresh or (own and step >= min(start + 1, run.resource))
    value, problem = _objective(values, program, earlier=run.best if start else None)
    failure = FailureKind.NOT_FINITE if problem else None
    went_on = bool(run.rung) and 0 < start < run.resource
    if unreadable and not fresh:
        value, problem, failure = None, unreadable, FailureKind.UNREADABLE
    elif not values and (seen or beyond or not went_on):
        failure = FailureKind.NEVER_REPORTED
        problem = _never(program, seen=list(seen), beyond=beyond, resource=run.resource)
    elif not fresh and start < run.resource:
        failure = FailureKind.NEVER_REPORTED
        value, problem = (
            None,
            (
                f"metric {program.metric!r} was not reported after step {start}, where this run went on from "
                f"a checkpoint, up to step {run.resource}"
            ),
        )
    return ObjectiveReading(value, problem, reached, fresh, run.resource in values, failure)


def _objective(
    values: dict[int, float], program: Program, *, earlier: float | None
) -> tuple[float | None, str]:
    """The value, or why there is none. `values` are by step, `earlier` is the best one before them."""
    if not values:
        return None, ""
    last = max(values)
    if program.at == "last":
        if math.isfinite(values[last]):
            return values[last], ""
        return None, f"metric {program.metric!r} is {values[last]} at step {last}"
    finite = [value for value in (earlier, *values.values()) if value is not None and math.isfinite(value)]
    if not finite:
        return None, f"metric {program.metric!r} is {values[last]} at step {last}, and at no step finite"
    return (min if program.mode == "min" else max)(finite), ""


def _never(program: Program, *, seen: list[str], beyond: int, resource: int) -> str:
    if beyond:
        return (
            f"metric {program.metric!r} was reported only for steps beyond the resource {resource}, first "
            f"for {beyond}: steps count in the unit of the resource, 1 to {resource}"
        )
    what = f"metric {program.metric!r} was never reported; "
    if seen:
        return what + "reported were " + ", ".join(repr(name) for name in seen)
    if program.metrics:
        return what + "no printed line matched train.metrics"
    return what + "nothing was"
