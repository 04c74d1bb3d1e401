"""The result of an attempt, from its outcome and from what it reported and left."""

from __future__ import annotations

import contextlib

from hpcsweep.core.events import CheckpointSizes, Outcome
from hpcsweep.errors import NewerFormatError
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import ManifestRun, Result
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import Suggestions
from hpcsweep.worker.advice import advice
from hpcsweep.worker.command import TaskContext
from hpcsweep.worker.outcome import ObjectiveReading, RunOutcome


def make_result(
    context: TaskContext,
    run: ManifestRun,
    outcome: RunOutcome,
    reading: ObjectiveReading | None,
    *,
    trial: TrialLayout,
    start: int,
    reached: int,
    kept: bool,
    told_to_stop: bool,
    ignored_s: float,
    suggestions: Suggestions | None,
    started: float,
    seconds: float,
    peak_mib: int,
    unit_seconds: float,
) -> Result:
    """The result of an attempt; checkpoints that nothing needs any more are removed.

    Args:
        context: Of its task.
        run: What it was to do.
        outcome: What became of it.
        reading: What it reported; None if it never began.
        trial: Its trial's folder.
        start: Step of the checkpoint that it went on from.
        reached: The last step.
        kept: What its program left made a new checkpoint.
        told_to_stop: Whether it was told to stop.
        ignored_s: How long it went on after SIGTERM at its resource; 0: it ended.
        suggestions: What its objective told.
        started: Unix time.
        seconds: How long it took.
        peak_mib: The most memory that its processes held.
        unit_seconds: Seconds for each step.
    """
    program, header = context.header.program, context.header
    if outcome.outcome is Outcome.COMPLETED:  # an attempt killed before this left two, perhaps
        with contextlib.suppress(OSError, NewerFormatError):
            checkpoints.prune(trial, keep=program.keep_checkpoints, steps=run.keep)
    newest = None
    with contextlib.suppress(OSError, NewerFormatError):
        newest = checkpoints.newest(trial, at_most=run.resource)
    newer = program.resumes and (kept or (newest is not None and newest.step > start))
    warning = ""
    if reading is not None:
        kept = kept or newest is not None
        warning = advice(program, run, reading, kept=kept, told_to_stop=told_to_stop)
    if ignored_s:
        warning = warning or (
            f"it went on for {ignored_s:g} s after SIGTERM, which told it that its last step is reported: "
            "each run takes so much longer; end it on SIGTERM"
        )
    return Result(
        trial=run.trial,
        rung=run.rung,
        attempt=run.attempt,
        restart=context.restart,
        task=context.task,
        outcome=outcome.outcome,
        interrupted=outcome.interrupted,
        value=outcome.value,
        values=outcome.values,
        step=max(reached, newest.step if newest and program.resumes else 0),
        start=reading.start if reading is not None else start,
        progressed=newer or (reading is not None and reading.advanced),
        seconds=seconds,
        gpu_seconds=seconds * header.gpus / header.lanes,
        started=started,
        node=context.node,
        job=context.job,
        message=outcome.message,
        failure=outcome.failure,
        warning=warning,
        peak_mib=peak_mib,
        unit_seconds=unit_seconds,
        host_memory=outcome.host_memory,
        suggestions=suggestions,
        checkpoints=measure(trial, newest),
        nodes=context.environ.get("HPCSWEEP_NODES", ""),
    )


def measure(trial: TrialLayout, newest: checkpoints.Checkpoint | None) -> CheckpointSizes:
    """What the trial keeps in checkpoints and output folder, and in its newest checkpoint alone."""
    kept = checkpoints.disk_usage(trial.checkpoints, trial.output)
    alone = checkpoints.disk_usage(newest.path) if newest is not None else checkpoints.DiskUsage(0, 0)
    return CheckpointSizes(kept.bytes, kept.files, alone.bytes, alone.files)
