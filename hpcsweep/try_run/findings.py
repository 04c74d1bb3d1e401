"""What the runs of `try` mean for the sweep, and what to change in its spec. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from hpcsweep.core.text import plural
from hpcsweep.init.writer import quoted
from hpcsweep.spec import SweepSpec
from hpcsweep.try_run.observed import Observed
from hpcsweep.try_run.patterns import numbers_seen, propose_pattern

_SAVE: Final = "train: {command: ... --save {checkpoint_dir} ...}"
_RESUME: Final = "train: {command: ... {resume_from?--resume {resume_from}} ...}"


class Advice(NamedTuple):
    """Something to change.

    Attributes:
        text: What was seen, and what it means.
        yaml: Lines to add to the spec, or to put in the place of what is there; none where that is no help.
    """

    text: str
    yaml: tuple[str, ...] = ()


def works(spec: SweepSpec, first: Observed) -> bool:
    """Whether a sweep would find its objective: the run has a value, or it came before its time was over."""
    return first.value is not None or (first.interrupted and not missing_metrics(spec, first))


def missing_metrics(spec: SweepSpec, first: Observed) -> list[str]:
    """The objectives that the run did not report."""
    return [metric for metric in spec.objectives.metrics if metric not in first.metrics]


def advise(spec: SweepSpec, first: Observed, second: Observed | None, *, rungs: int) -> Iterator[Advice]:
    """What to change, the most important first.

    Args:
        spec: As written, not as tried.
        first: The run from scratch.
        second: The one that should go on from there; None if there was none.
        rungs: How many rungs the sweep has.
    """
    if not works(spec, first):
        yield from _failed(spec, first)
        return
    warned = next((run for run in (first, second) if run is not None and run.warning), None)
    if warned is not None:
        yield Advice(f"to step {warned.resource}: {warned.warning}", _lines_of(warned.warning))
    for run in (first, second):
        if run is not None and run.value is None and not run.interrupted:
            yield Advice(f"to step {run.resource}: {run.outcome}: {run.message}", _lines_of(run.message))
    if second is not None and second.value is not None:
        yield from _resuming(spec, first, second, rungs=rungs)


def _failed(spec: SweepSpec, first: Observed) -> Iterator[Advice]:
    """Why there is no value."""
    if first.interrupted and not first.message:
        names = " and no ".join(map(repr, missing_metrics(spec, first)))
        yield Advice(f"no {names} came before its time was over: allow it more with --time")
    if first.never_reported or first.interrupted:
        for metric in missing_metrics(spec, first) or [spec.objective.metric]:
            yield from _no_metric(spec, first, metric)
    else:
        yield Advice(f"the run {first.outcome}: {first.message}", _lines_of(first.message))


def _no_metric(spec: SweepSpec, first: Observed, metric: str) -> Iterator[Advice]:
    if spec.train.function is not None:
        how = f": call trial.report(step, {metric}=...) after each step" if spec.train.call == "trial" else ""
        yield Advice(f"{metric!r} was not reported{how}")
        return
    candidate = propose_pattern(first.printed, metric)
    if candidate is not None:
        lines = [f"train: {{metrics: {quoted(candidate.pattern)}}}"]
        if metric not in candidate.metrics:
            lines.append(f"objective: {{metric: {candidate.metrics[-1]}}}")
        yield Advice(f"no {metric!r} was found, but this line has numbers: {candidate.line}", tuple(lines))
        return
    seen = numbers_seen(first.printed)
    if first.interrupted:
        return
    if seen:
        text = f"no {metric!r} was found; the last line with a number, whose name says nothing: {seen}"
        yield Advice(text, (f"train: {{metrics: '(?P<{metric}>...)'}}",))
    elif first.printed:
        yield Advice(
            f"no {metric!r} was found, and nothing with a number was printed: have the program print it, or "
            "name the file that it writes",
            (f'train: {{metrics: {{file: "{{output_dir}}/metrics.csv", values: {{{metric}: COLUMN}}}}}}',),
        )
    else:
        yield Advice(f"no {metric!r} was found, and nothing was printed")


def _lines_of(text: str) -> tuple[str, ...]:
    """The line of YAML for what a message of the worker names."""
    if "train.stop_at_resource: true" in text:
        return ("train: {stop_at_resource: true}",)
    if "train.first_step: 0" in text:
        return ("train: {first_step: 0}",)
    if "{epochs_left}" in text:
        return ("train: {command: ... {epochs_left} ...}   # in the place of {resource}",)
    return ()


def _resuming(spec: SweepSpec, first: Observed, second: Observed, *, rungs: int) -> Iterator[Advice]:
    """Whether the second run went on from the first one, and what it costs if not."""
    if resumed(first, second) or rungs == 1:
        return
    train = spec.train
    cost = f"each of {plural(rungs, 'rung')} trains from scratch, also what the one before has trained"
    told = train.command is None or train.resume is not None or "resume_from" in train.command
    if first.checkpoints and told:
        yield Advice(f"there was a checkpoint, but the program began anew, so {cost}")
    elif first.checkpoints:
        yield Advice(f"there was a checkpoint, but the program was not told, so {cost}", (_RESUME,))
    elif train.command is None:
        how = "; make one with trial.checkpoint(step)" if train.call == "trial" else ""
        yield Advice(f"no checkpoint was made, so {cost}{how}")
    elif train.checkpoint is not None:
        if not first.warning:  # which says it
            yield Advice(f"nothing was found at train.checkpoint.path, {train.checkpoint.path}, so {cost}")
    elif "checkpoint_dir" in train.command:
        yield Advice(f"nothing was left in {{checkpoint_dir}}, so {cost}")
    else:
        how = "if the program can resume, tell it where to save and where from"
        yield Advice(f"no checkpoint was made, so {cost}; {how}", (_SAVE, _RESUME))


def resumed(first: Observed, second: Observed) -> bool:
    """Whether the second run went on from a checkpoint: its steps begin later than those from scratch."""
    begins_alike = bool(first.steps and second.steps) and min(second.steps) <= min(first.steps)
    return second.start > 0 and not begins_alike
