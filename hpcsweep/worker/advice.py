"""What a user should change in a program that ran, although its run may have ended well. Pure."""

from __future__ import annotations

from hpcsweep.store.batch import ManifestRun, Program
from hpcsweep.worker.outcome import ObjectiveReading


def advice(
    program: Program, run: ManifestRun, reading: ObjectiveReading, *, kept: bool, told_to_stop: bool
) -> str:
    """One sentence; empty if there is nothing to say.

    Args:
        program: The sweep's.
        run: What was asked for.
        reading: What was reported.
        kept: Whether its trial has a checkpoint.
        told_to_stop: Whether it was told to stop, because of its time limit for example.
    """
    resource, beyond, start = run.resource, reading.beyond, reading.start
    # An objective of Optuna knows no resource: it is pruned, one step later.
    pruned = program.call == "optuna" and beyond == resource + 1
    if beyond and not program.stop_at_resource and not pruned:
        if told_to_stop:
            return (
                f"it trained on after step {resource}, its resource, until it was told to stop at {beyond};"
                " train.stop_at_resource: true ends it in time"
            )
        if start and beyond - start >= resource and program.command is not None:
            return (
                f"it went on from step {start} and trained {resource} steps more, not up to step {resource}; "
                "{epochs_left} in train.command is how many are left"
            )
        return (
            f"it reported steps up to {beyond} although its resource is {resource}, and those beyond do not "
            f"count; have it train up to {resource}, and report each step once"
        )
    from_zero = (
        (program.metrics or program.metric_files) and program.first_step and reading.own == (0, resource - 1)
    )
    if from_zero and reading.value is not None and not told_to_stop:
        return (
            f"it reported steps 0 to {resource - 1} where its resource is {resource}: its steps seem to "
            "count from 0; train.first_step: 0 says so"
        )
    if program.checkpoint_path and not kept and reading.value is not None:
        return f"it left no checkpoint: no file matches train.checkpoint.path, {program.checkpoint_path}"
    return ""
