"""Events of trials, their runs and their batches, and what all events have in common; see `core.events`."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from hpcsweep.core.outcomes import FACTS, Ending, FailureKind, Interruption, Outcome, classify_failure

#: One configuration: parameter name -> JSON value. An inactive parameter is absent.
Config: TypeAlias = dict[str, Any]


class RunId(NamedTuple):
    """One trial trained up to one rung's resource. `rung` counts from 0 in the trial's bracket."""

    trial: int
    rung: int

    def __str__(self) -> str:
        return f"trial {self.trial} rung {self.rung}"


class CheckpointSizes(NamedTuple):
    """What a trial keeps on disk when an attempt of it has ended, as its worker found it.

    Attributes:
        kept_bytes: Of all its checkpoints and its output folder; `kept_files`: how many files that are.
        newest_bytes: Of the newest complete checkpoint alone; `newest_files`: its files. 0 without one.
    """

    kept_bytes: int = 0
    kept_files: int = 0
    newest_bytes: int = 0
    newest_files: int = 0


class Event(msgspec.Struct, frozen=True, tag_field="event", omit_defaults=True, gc=False):
    """Base of all events; the JSON object's `event` field names the class."""


class RunEvent(Event, frozen=True, gc=False):
    """Base of the events of one run."""

    trial: int
    rung: int

    @property
    def run(self) -> RunId:
        return RunId(self.trial, self.rung)


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


class RunReported(RunEvent, frozen=True, tag="run_reported", gc=False):
    """What a run that goes on has reported of the objective.

    Only for schedulers that need reports, and for a trial that its user stops.

    Attributes:
        reports: Step and finite value, in the order of the steps, each step of a trial once. Where
            `objective.at` is best, the value is the best one up to that step.
        values: With several objectives, their values for each of these reports: the newest ones by then.
    """

    reports: tuple[tuple[int, float], ...]
    values: tuple[tuple[float, ...], ...] = ()


class RunFinished(RunEvent, frozen=True, tag="run_finished", gc=False):
    """A run ended for good; counted once.

    Attributes:
        attempt: Which submission of the run it was, from 0; `restart` counts the cluster's requeues of it.
        value: The objective, None unless the outcome is `completed`, or `stopped` after a report; the first
            one of several. `values`: all of several objectives, in the order of the spec.
        step: Resource that the trial has reached.
        start: Step that this attempt went on from, 0 from scratch, None where unknown.
        seconds: Wall time of this attempt; `gpu_seconds` that times its GPUs.
        started: Unix time, None where unknown.
        message: Last line of the error, empty when completed.
        failure: What was wrong if the outcome is `failed`; None in journals of earlier versions, see
            `failure_kind`.
        warning: What its user should change although it may have ended well; one sentence.
        peak_mib: The most memory that its processes held at a time, 0 where unknown.
        unit_seconds: Wall time of each step between the first and the last report, 0 where unknown.
        checkpoints: What its trial keeps on disk now; None where no worker told.
    """

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
    warning: str = ""
    peak_mib: int = 0
    unit_seconds: float = 0.0
    checkpoints: CheckpointSizes | None = None
    values: tuple[float, ...] = ()

    @property
    def failure_kind(self) -> FailureKind | None:
        """What was wrong; None if it did not fail."""
        return classify_failure(self.outcome, self.failure, self.message)

    @property
    def begun(self) -> bool:
        """Whether this attempt had begun, as far as is known."""
        return _has_begun(self.outcome, self)


class RunInterrupted(RunEvent, frozen=True, tag="run_interrupted", gc=False):
    """An attempt ended without a value, and its run goes on later.

    Attributes:
        start: Step that this attempt went on from, None where unknown.
        started: When it began, Unix time; None where unknown, as in journals of earlier versions.
        requeued: The cluster runs the same task again by itself; otherwise the run waits for
            a new batch.
        progressed: Whether the trial's newest checkpoint is newer than when the attempt began, or it has
            reported steps beyond those of earlier attempts.
        step: Step that the trial has reached, as far as that is known.
        peak_mib, unit_seconds: As of `RunFinished`.
        mem_mib: The memory that it had, if that was too little; else 0.
        guessed: Its time limit was learned from other runs, and too short: no limit of retries counts it.
        checkpoints: What its trial keeps on disk now; None where no worker told.
    """

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
    peak_mib: int = 0
    unit_seconds: float = 0.0
    mem_mib: int = 0
    guessed: bool = False
    checkpoints: CheckpointSizes | None = None
    started: float | None = None

    @property
    def begun(self) -> bool:
        """Whether this attempt had begun, as far as is known."""
        return _has_begun(self.interruption, self)


def _has_begun(ending: Ending, event: RunFinished | RunInterrupted) -> bool:
    """What waited in the queue took no time."""
    begun = FACTS[ending].begun
    if event.started is not None or event.seconds:
        return True
    return bool(event.node) if begun is None else begun


class ParametersSuggested(RunEvent, frozen=True, tag="parameters_suggested", gc=False):
    """A run of an Optuna objective suggested parameters that its configuration lacked, or left out others.

    Attributes:
        parameters: Those that it lacked: name -> domain, as in the spec.
        values: What they had in the run; from now on part of its configuration.
        unused: Parameters that earlier runs suggested first and that this one, run to its end, did not.
        more_trials: The space was exhausted, and has grown by it: more trials may start.
    """

    parameters: dict[str, dict[str, Any]] = {}
    values: Config = {}
    unused: tuple[str, ...] = ()
    more_trials: bool = False


class RunRetried(RunEvent, frozen=True, tag="run_retried", gc=False):
    """A run that had failed for good is retried, because somebody asked for it.

    Attributes:
        request: File name of the control request.
    """

    request: str = ""


class BatchPlanned(Event, frozen=True, tag="batch_planned", gc=False):
    """The intent to submit one array; on disk before the cluster is called.

    Attributes:
        batch: Unique name, the job name on the cluster.
        tasks: For each array index the runs it carries, as `(trial, rung)`.
        gpus: GPUs of one task, on all its nodes together.
        throttle: So many tasks at a time at most.
        cluster: Name of the cluster that it is meant for.
        time_s: Time limit of one task; 0 where unknown.
        gpus_held: GPUs that one task will hold where that is more than it asks for, else 0.
        reuse: Its tasks keep their GPUs and are assigned runs once they have begun; `tasks` names none.
        lanes: How many runs each task does at a time.
        cpus: CPU cores of one task on each node, 0 where unknown. `mem_mib`: its memory on each node, None
            where it asks for none.
        nodes: Of one task.
        pool: The part of the cluster that it is for; empty where there are none.
    """

    batch: str
    at: float
    tasks: tuple[tuple[RunId, ...], ...]
    gpus: int
    throttle: int
    cluster: str = ""
    time_s: int = 0
    gpus_held: int = msgspec.field(default=0, name="held")
    reuse: bool = False
    lanes: int = 1
    cpus: int = 0
    mem_mib: int | None = None
    nodes: int = 1
    pool: str = ""


class RunsAssigned(Event, frozen=True, tag="runs_assigned", gc=False):
    """A task that has begun is given runs, which it trains in this order.

    Attributes:
        restart: Which start of the task is meant.
        number: The first one's number among all that this start is given.
        time_s: Time limit of each; 0: the one that all runs have.
    """

    batch: str
    at: float
    task: int
    runs: tuple[RunId, ...]
    restart: int = 0
    number: int = 0
    time_s: int = 0


class TaskBegan(Event, frozen=True, tag="task_began", gc=False):
    """A task that keeps its GPUs has begun and takes runs.

    Attributes:
        at: When it was noticed; Unix time.
        restart: How often the cluster has started the task before.
        started: When it began by its own clock.
        ends: When its time limit ends by that clock; None where nothing limits it.
    """

    batch: str
    at: float
    task: int
    restart: int = 0
    started: float = 0.0
    ends: float | None = None
    node: str = ""
    job: str = ""


class TaskLeft(Event, frozen=True, tag="task_left", gc=False):
    """A task that keeps its GPUs takes no more runs.

    Attributes:
        taken: How many assignments this start has taken; it begins none of the later ones.
        left: When it left by its own clock.
        failed: It could not take any, for this reason.
    """

    batch: str
    at: float
    task: int
    restart: int = 0
    taken: int = 0
    left: float = 0.0
    reason: str = ""
    failed: bool = False

    @property
    def announced(self) -> bool:
        """Whether the task itself told so; else the driver found it gone, at this time."""
        return self.left != self.at


class BatchSubmitted(Event, frozen=True, tag="batch_submitted", gc=False):
    """The cluster accepted the batch as `job`."""

    batch: str
    job: str
    at: float


class TasksAllocated(Event, frozen=True, tag="tasks_allocated", gc=False):
    """The cluster gave each of these tasks of the batch so many GPUs, which was not expected."""

    batch: str
    tasks: tuple[int, ...]
    gpus: int


class BatchThrottled(Event, frozen=True, tag="batch_throttled", gc=False):
    """At most `throttle` tasks of the batch run at a time from now on."""

    batch: str
    throttle: int


class BatchAbandoned(Event, frozen=True, tag="batch_abandoned", gc=False):
    """The batch never reached the cluster and never will; its runs wait again.

    Attributes:
        over_limit: A submit limit was reached: they go in later.
    """

    batch: str
    reason: str
    over_limit: bool = msgspec.field(default=False, name="limited")


class BatchBlocked(Event, frozen=True, tag="batch_hindered", gc=False):
    """Why tasks of the batch cannot start, in the cluster's words; empty when nothing hinders them.

    Attributes:
        at: Unix time, 0 where unknown.
    """

    batch: str
    reason: str
    at: float = 0.0


class ClusterMessage(Event, frozen=True, tag="cluster_said", gc=False):
    """The cluster did not do what was asked, or gave no information; again, if the words are empty.

    Attributes:
        operation: `poll`, `find`, `submit`, `limits` or `change`.
        message: Its own, or those of the program that was called.
        batch: Of a submission.
        refused: The submission was refused in these words, as far as the program said.
    """

    at: float
    operation: str = msgspec.field(name="asked")
    message: str = msgspec.field(name="words")
    batch: str = ""
    refused: bool = False


class TasksReleased(Event, frozen=True, tag="tasks_released", gc=False):
    """Tasks that the cluster had put back and held were let go, which is done once for each."""

    batch: str
    tasks: tuple[int, ...]


class TickSubmitted(Event, frozen=True, tag="tick_submitted", gc=False):
    """A small job will tick: once every task of `batch` has ended, or not before `at`.

    Attributes:
        batch: Empty for a job that only waits for a time.
    """

    job: str
    at: float
    batch: str = ""


class BatchClosed(Event, frozen=True, tag="batch_closed", gc=False):
    """Every task of the batch has left the cluster and every run has an ending.

    Attributes:
        gpu_seconds: What its tasks took by the cluster's count beyond what their runs reported: start-up,
            ticks, idle lanes. `seconds` is the same without the factor of the GPUs.
        message: Why no task came to take a run; empty where one did.
    """

    batch: str
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    message: str = ""


#: Clocks of the hosts that drive may differ by so much, in seconds.
_HOSTS_S: Final = 300.0


class NodeExcluded(Event, frozen=True, tag="node_excluded", gc=False):
    """Batches submitted before `until` stay away from a node on which several trials failed at once."""

    node: str
    at: float
    until: float
    reason: str

    def holds(self, now: float) -> bool:
        """Whether batches stay away from it now; not if the clock that wrote it was ahead."""
        return self.at - _HOSTS_S <= now < self.until
