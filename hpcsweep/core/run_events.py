"""Events of trials and their runs, and what all events have in common; see `core.events`."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import msgspec

from hpcsweep.core.outcomes import FailureKind, Interruption, Outcome, classify_failure

#: One configuration: parameter name -> JSON value. An inactive parameter is absent.
Config: TypeAlias = dict[str, Any]


class RunId(NamedTuple):
    """One trial trained up to one rung's resource. `rung` counts from 0 in the trial's bracket."""

    trial: int
    rung: int

    def __str__(self) -> str:
        return f"trial {self.trial} rung {self.rung}"


class Event(msgspec.Struct, frozen=True, tag_field="event", omit_defaults=True, gc=False):
    """Base of all events; the JSON object's `event` field names the class."""


class TrialCreated(Event, frozen=True, tag="trial_created", gc=False):
    """A configuration was chosen, with a first run at rung 0.

    Attributes:
        resource: Of rung 0.
        parent: The trial whose checkpoint of step `start` it goes on from, if any.
        origin: `searcher`, `enqueued` or `clone`.
        repeat: Which training of its configuration it is, from 0; the trial number of the first
            one is `trial - repeat`.
    """

    trial: int
    config: Config
    bracket: int
    resource: int
    parent: int | None = None
    origin: str = "searcher"
    start: int = 0
    repeat: int = 0


class TrialPromoted(Event, frozen=True, tag="trial_promoted", gc=False):
    """A trial goes on to `rung`, to be trained up to `resource`."""

    trial: int
    rung: int
    resource: int


class TrialStopped(Event, frozen=True, tag="trial_stopped", gc=False):
    """A stopping rule or its user ended a trial: its unfinished run is cancelled, it goes no further.

    Attributes:
        request: File name of the control request that asked for it, empty for a stopping rule.
    """

    trial: int
    reason: str
    request: str = ""


class RunReported(Event, frozen=True, tag="run_reported", gc=False):
    """What a run that goes on has reported of the objective.

    Only for schedulers that watch, and of a trial that its user stops.

    Attributes:
        reports: Step and finite value, in the order of the steps, each step of a trial once. Where
            `objective.at` is best, the value is the best one up to that step.
    """

    trial: int
    rung: int
    reports: tuple[tuple[int, float], ...]

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)


class RunFinished(Event, frozen=True, tag="run_finished", gc=False):
    """A run ended for good; counted once.

    Attributes:
        attempt: Which try it was, from 0; `restart` counts the cluster's own requeues of it.
        value: The objective, None unless the outcome is `completed`, or `stopped` after a report.
        step: Resource that the trial has reached.
        start: Step of the checkpoint that this attempt went on from, 0 from scratch, None where
            unknown.
        seconds: Wall time of this attempt; `gpu_seconds` that times its GPUs.
        started: Unix time, None where unknown.
        message: Last line of the error, empty when completed.
        failure: What was wrong if the outcome is `failed`; None in journals of earlier versions, see
            `failure_kind`.
    """

    trial: int
    rung: int
    outcome: Outcome
    value: float | None = None
    step: int = 0
    start: int | None = 0
    attempt: int = 0
    restart: int = 0
    batch: str = ""
    task: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    started: float | None = None
    node: str = ""
    job: str = ""
    message: str = ""
    failure: FailureKind | None = None

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)

    @property
    def failure_kind(self) -> FailureKind | None:
        """What was wrong; None if it did not fail."""
        return classify_failure(self.outcome, self.failure, self.message)


class RunInterrupted(Event, frozen=True, tag="run_interrupted", gc=False):
    """An attempt ended without a value and without fault of the configuration.

    Attributes:
        start: Step of the checkpoint that this attempt went on from, None where unknown.
        requeued: The cluster runs the same task again by itself; otherwise the run waits for
            a new batch.
        progressed: Whether the trial's newest checkpoint is newer than when the attempt began.
        step: Step that the trial has reached, as far as that is known.
    """

    trial: int
    rung: int
    interruption: Interruption = msgspec.field(name="why")
    attempt: int = 0
    restart: int = 0
    batch: str = ""
    task: int = 0
    start: int | None = None
    requeued: bool = False
    progressed: bool = False
    step: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    node: str = ""
    job: str = ""
    message: str = ""

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)


class RunRetried(Event, frozen=True, tag="run_retried", gc=False):
    """A run that had failed for good is tried again, because somebody asked for it.

    Attributes:
        request: File name of the control request.
    """

    trial: int
    rung: int
    request: str = ""
