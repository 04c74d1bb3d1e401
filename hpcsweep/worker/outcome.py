"""The outcome of a run, from its process and from the objective in the reports of its attempts."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.core.objectives import Objective
from hpcsweep.core.text import near_name
from hpcsweep.store.batch import ManifestRun, Program
from hpcsweep.store.excerpts import label_excerpt
from hpcsweep.store.layout import Skipped, TrialLayout, explain_error
from hpcsweep.store.run_files import Report, metrics_files, read_reports

_OUT_OF_MEMORY_TYPES = re.compile(r"OutOfMemory|\bMemoryError\b")
#: What the host lacks, not a GPU.
_HOST_MEMORY_TEXT = re.compile(
    r"(?:^|\| )(?:numpy\.\w+(?:\.\w+)*\._Array)?MemoryError\b|DefaultCPUAllocator: |std::bad_alloc"
)
#: What a full disk or a used up quota says: no fault of the configuration.
_NO_SPACE_TEXT = re.compile(rf"\[Errno (?:{errno.ENOSPC}|{errno.EDQUOT})\] ")
_GPU_MEMORY_TEXT = re.compile(r"CUDA out of memory|OutOfMemoryError|RESOURCE_EXHAUSTED")

#: Errors that training code causes at its own files: umask, chmod, a folder in place of a file.
_OWN_FAULTS: Final = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


class ProcessExit(msgspec.Struct, frozen=True):
    """How a run's process ended."""

    returncode: int  # negative for the signal that ended it
    signal: str | None = None  # what asked the worker to stop during the run
    ended_by_us: bool = False  # the worker ended it because it had its value
    types: tuple[str, ...] = ()  # names of the exception's type and its bases, if Python training code raised
    message: str = ""  # that of the exception, else the last informative lines of the log
    oom_kills: int = 0  # processes of the task that the kernel killed for lack of memory meanwhile
    alone: bool = True  # no other run shared the task, so those were this run's
    over_memory: str = ""  # how its processes held more memory than they may, for which the worker ended it


class RunOutcome(msgspec.Struct, frozen=True):
    """Exactly one of `outcome` and `interrupted`; a value only when completed, `failure` when failed.

    `host_memory`: what it ran out of is main memory, not that of a GPU.
    """

    outcome: Outcome | None = None
    interrupted: Interruption | None = None
    value: float | None = None
    values: tuple[float, ...] = ()  # of all objectives, where there are several
    message: str = ""
    failure: FailureKind | None = None
    host_memory: bool = False

    def summary(self, metrics: Sequence[str], *, seconds: float) -> str:
        """For the log of the run, which took so long."""
        kind = self.outcome or self.interrupted
        values = zip(metrics, self.values or (self.value,), strict=False)
        what = self.message or ", ".join(f"{metric}={value}" for metric, value in values)
        return f"{kind.value if kind else ''} after {seconds:.1f} s: {what}"


def classify(process: ProcessExit, reading: ObjectiveReading, *, resource: int, reached: int) -> RunOutcome:
    """The outcome of a run.

    One that was told to stop is finished only if it reached its last step. With the objective reported there
    it is, whatever it was killed by after that.
    """
    killed = process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    told_to_stop = process.signal is not None or process.ended_by_us or bool(process.over_memory)
    if told_to_stop and reading.complete:
        return _by_value(reading)
    if process.ended_by_us and process.signal is None:
        return _by_value(reading)
    if process.signal is not None and not (process.returncode == 0 and reached >= resource):
        # SIGUSR2 is what comes before the end of the task's time.
        why = Interruption.TIMEOUT if process.signal == "SIGUSR2" else Interruption.PREEMPTED
        return RunOutcome(
            interrupted=why,
            message=f"told to stop by {process.signal} at step {reached} of {resource}",
        )
    if process.over_memory:
        return RunOutcome(Outcome.OUT_OF_MEMORY, message=process.over_memory, host_memory=True)
    if process.oom_kills and (killed or process.alone):
        message = _with_line("killed by the kernel: out of memory", process)
        return RunOutcome(Outcome.OUT_OF_MEMORY, message=message, host_memory=True)
    if process.returncode != 0:
        host = "MemoryError" in process.types or bool(_HOST_MEMORY_TEXT.search(process.message))
        raised = any(map(_OUT_OF_MEMORY_TYPES.search, process.types))
        if host or raised or _GPU_MEMORY_TEXT.search(process.message):
            return RunOutcome(Outcome.OUT_OF_MEMORY, message=_failure(process), host_memory=host)
        if _NO_SPACE_TEXT.search(process.message):
            return RunOutcome(interrupted=Interruption.WORKER_DIED, message=_failure(process))
        return RunOutcome(Outcome.FAILED, message=_failure(process), failure=FailureKind.CRASHED)
    return _by_value(reading)


def _by_value(reading: ObjectiveReading) -> RunOutcome:
    if reading.value is None:
        failure = reading.failure or FailureKind.NEVER_REPORTED
        return RunOutcome(Outcome.FAILED, message=reading.problem, failure=failure)
    return RunOutcome(Outcome.COMPLETED, value=reading.value, values=reading.values)


def _failure(process: ProcessExit) -> str:
    if process.returncode < 0:
        try:
            name = signal.Signals(-process.returncode).name
        except ValueError:
            name = f"signal {-process.returncode}"
        return _with_line(f"killed by {name}", process)
    if process.types:  # what Python training code raised says it all
        return process.message
    code = f"exit code {process.returncode}"
    with contextlib.suppress(ValueError):  # how a shell tells what became of its child
        code += f" ({signal.Signals(process.returncode - 128).name})" if process.returncode > 128 else ""
    return f"{code}: {process.message}" if process.message else f"{code}, and nothing was printed"


def _with_line(text: str, process: ProcessExit) -> str:
    return f"{text}; {label_excerpt(process.message)}" if process.message else text


def classify_start_failure(text: str, *, workdir: str) -> RunOutcome:
    """The outcome of a run whose process could not be started, for this reason."""
    if not os.path.isdir(workdir):  # moved, or not mounted here: no fault of the configuration
        gone = f"the worker: there is no working directory {workdir}"
        return RunOutcome(interrupted=Interruption.WORKER_DIED, message=gone)
    return RunOutcome(Outcome.FAILED, message=text)


def classify_worker_error(error: Exception, trial: Path) -> RunOutcome:
    """The outcome of a run that made the worker fail: an interruption, unless the run broke its own files."""
    if isinstance(error, OSError) and error.errno in _OWN_FAULTS and error.filename is not None:
        path = os.fsdecode(error.filename)
        if path.startswith(f"{trial}/"):
            return RunOutcome(Outcome.FAILED, message=f"{path}: {error.strerror}")
    message = f"the worker: {type(error).__name__}: {error}"
    return RunOutcome(interrupted=Interruption.WORKER_DIED, message=message)


class ObjectiveReading(NamedTuple):
    """The objective as reported; with several objectives there is a value only if each has one."""

    value: float | None  # finite; that of the first objective
    problem: str  # why there is no value
    reached: int  # the highest step reported, at most the resource; 0 if none
    fresh: bool  # this attempt reported the objective for a step that it trained itself
    complete: bool  # the objective was reported for the last step, or for ones before and after it
    failure: FailureKind | None = None  # kind of the problem
    start: int = 0  # the step that this attempt went on from
    beyond: int = 0  # the highest step beyond the resource for which it reported the objective; 0 if none
    own: tuple[int, int] | None = None  # the first and the last step that this attempt reported
    earlier: int = 0  # the highest step that an earlier attempt at this run reported; 0 if none
    values: tuple[float, ...] = ()  # of all objectives, where there are several

    @property
    def advanced(self) -> bool:
        """Whether this attempt reported steps beyond those of earlier ones."""
        return self.own is not None and 0 < self.earlier < self.own[1]

    def with_problem(self, problem: str) -> ObjectiveReading:
        """The same with this problem, if it is not empty and there is no value."""
        if self.value is not None or not problem:
            return self
        return self._replace(problem=problem, failure=FailureKind.UNREADABLE)


def read_objective(
    trial: TrialLayout,
    run: ManifestRun,
    program: Program,
    *,
    restart: int,
    start: int,
    seen: Sequence[str] = (),
) -> ObjectiveReading:
    """Read the objectives at `run.resource`: of each the last value or the best so far.

    `seen` says what was found instead of a metric that never came. Reports of the run's earlier attempts
    count up to `start`, the step of the checkpoint that this attempt resumed from, or up to where a program
    went on that keeps its state in a folder of its own. Lower rungs may be compacted by now: their best value
    is in `run`.
    """
    unlisted = Skipped()
    files = [file for file in metrics_files(trial, unlisted) if file.rung == run.rung]
    unreadable = next(iter(unlisted.lines(trial.root.parent)), "")
    own: list[Report] = []
    earlier: list[Report] = []
    for file in files:
        try:
            mine = (file.attempt, file.restart) == (run.attempt, restart)
            (own if mine else earlier).extend(read_reports(file.path))
        except OSError as error:
            unreadable = unreadable or f"{file.path}: {explain_error(error)}"
    start = _start(own, earlier, run, checkpoint=start)
    counted = [each for each in earlier if each.step <= start] + own
    within = [each for each in counted if each.step <= run.resource]
    reports = _Reports(own, within, start, unreadable, seen)
    bests = run.bests or (run.best,) + (None,) * (len(program.measured) - 1)
    readings = [
        _read_one(objective, trial, run, program, reports, best=best)
        for objective, best in zip(program.measured, bests, strict=True)
    ]
    steps = [each.step for each in own]
    reading = _combined(readings, program)
    return reading._replace(
        reached=max((each.step for each in within), default=0),
        start=start,
        own=(min(steps), max(steps)) if steps else None,
        earlier=max((each.step for each in earlier), default=0),
    )


def _combined(readings: Sequence[ObjectiveReading], program: Program) -> ObjectiveReading:
    """That of all objectives: the first one without a value says what is wrong.

    What this attempt has not measured again, an earlier one at the run may have measured, as long as some
    objective shows that it has trained.
    """
    first = readings[0]
    if not program.objectives:
        return first
    wrong = next((each for each in readings if each.value is None), None)
    values = tuple(each.value for each in readings if each.value is not None)
    return (wrong or first)._replace(
        values=() if wrong else values,
        fresh=any(each.fresh for each in readings),
        complete=any(each.complete for each in readings)
        and all(each.failure is not FailureKind.NEVER_REPORTED for each in readings),
        beyond=max(each.beyond for each in readings),
    )


class _Reports(NamedTuple):
    """What was reported: by this attempt, and in all that counts up to the resource."""

    own: list[Report]
    within: list[Report]
    start: int  # step that this attempt went on from
    unreadable: str  # why a file of reports cannot be read
    seen: Sequence[str]


def _read_one(
    objective: Objective,
    trial: TrialLayout,
    run: ManifestRun,
    program: Program,
    reports: _Reports,
    *,
    best: float | None,
) -> ObjectiveReading:
    """One objective; `best`: its best value up to the rung below."""
    own, within, start, unreadable, seen = reports
    metric = objective.metric
    values = {step: metrics[metric] for step, metrics in within if metric in metrics}
    beyond = [step for step, metrics in own if step > run.resource and metric in metrics]
    fresh = any(
        metric in metrics and min(start + 1, run.resource) <= step <= run.resource for step, metrics in own
    )
    if beyond and not values and (passed := _passed(trial, run, metric)):
        values, fresh = passed, True
    value, problem = _objective(values, objective, earlier=best if start else None)
    failure = FailureKind.NOT_FINITE if problem else None
    resumed = bool(run.rung) and 0 < start < run.resource
    # With several objectives any other may show that this attempt has trained.
    trained = fresh or (bool(values) and _shows_training(own, run, program, start=start))
    if unreadable and not fresh:
        value, problem, failure = None, unreadable, FailureKind.UNREADABLE
    elif not values and (within or beyond or not resumed):
        failure = FailureKind.NEVER_REPORTED
        reported = list(dict.fromkeys(name for each in within for name in each.metrics))
        first = min(beyond, default=0)
        problem = _never_reported(metric, reported=reported, beyond=first, resource=run.resource, seen=seen)
    elif not trained and start < run.resource:
        value, failure = None, FailureKind.NEVER_REPORTED
        problem = _not_fresh(program, metric, own, start=start, resource=run.resource)
    return ObjectiveReading(
        value,
        problem,
        0,
        fresh,
        run.resource in values or bool(values and beyond),
        failure,
        beyond=max(beyond, default=0),
    )


def _shows_training(own: list[Report], run: ManifestRun, program: Program, *, start: int) -> bool:
    """Whether this attempt reported any objective of several for a step that it trained itself."""
    metrics = [each.metric for each in program.objectives]
    steps = [each.step for each in own if any(metric in each.metrics for metric in metrics)]
    return any(min(start + 1, run.resource) <= step <= run.resource for step in steps)


def _passed(trial: TrialLayout, run: ManifestRun, metric: str) -> dict[int, float]:
    """The objective up to the resource, where the program had trained past it in a lower rung; else empty.

    It goes on from there, and does not report again what it had passed.
    """
    values: dict[int, float] = {}
    for file in metrics_files(trial, Skipped()):
        if file.rung < run.rung:
            with contextlib.suppress(OSError):
                reports = read_reports(file.path)
                values |= {step: metrics[metric] for step, metrics in reports if metric in metrics}
    within = {step: value for step, value in values.items() if step <= run.resource}
    return within if run.resource in within else {}


def _start(own: list[Report], earlier: list[Report], run: ManifestRun, *, checkpoint: int) -> int:
    """The step that this attempt went on from: that of the checkpoint, or as its reports show.

    A program that begins anew reports the steps again that an earlier attempt began with; one that goes on
    from a folder of its own does not.
    """
    if not own:
        return checkpoint
    first = min(each.step for each in own)
    before = [each.step for each in earlier if each.step < first]
    if not earlier and run.reached and first == run.reached + 1:
        before = [run.reached]
    return min(max([checkpoint, *before]), run.resource)


def _objective(
    values: dict[int, float], objective: Objective, *, earlier: float | None
) -> tuple[float | None, str]:
    """The value, or why there is none; `earlier` is the best one before those in `values`."""
    if not values:
        return None, ""
    last = max(values)
    if objective.at == "last":
        if math.isfinite(values[last]):
            return values[last], ""
        return None, f"metric {objective.metric!r} is {values[last]} at step {last}"
    finite = [value for value in (earlier, *values.values()) if value is not None and math.isfinite(value)]
    if not finite:
        return None, f"metric {objective.metric!r} is {values[last]} at step {last}, and at no step finite"
    return (min if objective.mode == "min" else max)(finite), ""


def _not_fresh(program: Program, metric: str, own: list[Report], *, start: int, resource: int) -> str:
    """Why the reports give no value: the objective was reported for no step after `start`."""
    steps = [step for step, metrics in own if metric in metrics]
    if (
        steps
        and max(steps) == resource - 1
        and (program.metrics or program.metric_files)
        and program.first_step
    ):
        shown = f"steps {min(steps)} to {max(steps)}" if len(set(steps)) > 1 else f"step {max(steps)}"
        return (
            f"metric {metric!r} was reported for {shown} and not for {resource}, the last one: its steps "
            "seem to count from 0; train.first_step: 0 says so"
        )
    went_on = ", where this run went on from a checkpoint," if start else ""
    return f"metric {metric!r} was not reported after step {start}{went_on} up to step {resource}"


def _never_reported(
    metric: str, *, reported: list[str], beyond: int, resource: int, seen: Sequence[str]
) -> str:
    if beyond:
        return (
            f"metric {metric!r} was reported only for steps beyond the resource {resource}, first "
            f"for {beyond}: steps count in the unit of the resource, 1 to {resource}"
        )
    found = ["reported were " + ", ".join(map(repr, reported))] if reported else []
    found += filter(None, seen)
    near = near_name(metric, reported)
    hint = [f"did you mean {near!r}?"] if near else []
    return "; ".join([f"metric {metric!r} was never reported", *(found or ["nothing was"]), *hint])
