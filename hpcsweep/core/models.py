"""Runs, trials and batches, and `SweepFacts`: what is true of a sweep. `SweepState` keeps it up to date."""

from __future__ import annotations

import enum
import heapq
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from hpcsweep.core.batches import BatchState
from hpcsweep.core.checkpoint_usage import CheckpointUsage
from hpcsweep.core.events import (
    CheckpointQuotaReached,
    ClusterMessage,
    Config,
    EventFold,
    Interruption,
    NodeExcluded,
    PauseRequested,
    PoolSkipped,
    RunId,
    StopRequested,
    SweepDetached,
    SweepEnded,
    SweepStarted,
    TrialsExhausted,
    WarmStartLoaded,
)
from hpcsweep.core.heaps import in_order
from hpcsweep.core.objectives import DEFAULT, dominates
from hpcsweep.core.outcomes import FACTS, FailureKind, Fault, FirstErrors, Outcome, classify_failure
from hpcsweep.core.standing import Standing

#: An attempt that ends sooner than that has died at once.
INSTANT_S = 30.0
#: The cluster that trains nothing.
SIMULATED: Final = "simulated"
#: When the first sweep of a simulation begins; no real one began in the ten years after it.
SIMULATION_BEGINS_S: Final = 1_000_000_000.0
#: How many of the newest queue waits are kept.
RECENT_WAITS: Final = 100


class RunStatus(enum.Enum):
    """Where a run stands in its life."""

    WAITING = "waiting"  # decided, in no batch
    SUBMITTED = "submitted"  # in a batch, on its way or running
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED)


class Run(msgspec.Struct, gc=False):
    """One trial trained up to one rung's resource.

    Attributes:
        submissions: How many batches it has been in, abandoned ones not counted.
        begun: How many of its starts have ended, the cluster's requeues included, those that never began not;
            `last_begun`: `(attempt, restart)` of the last of them.
        faults_without_progress: Interruptions in a row that left no newer checkpoint.
        errors: How often training code failed and it was retried; `timeouts`: time limits reached;
            `cancels`: how often its owner cancelled it on the cluster.
        last_counted: The last `(attempt, restart)` whose ending was taken into account.
        seconds: Wall time over all attempts; `gpu_seconds` that times the GPUs.
        start: Step that its first attempt went on from; None while unknown. `step`: step reached.
        warning: What its user should change in training code; empty for nothing.
        values: With several objectives, all values of it; `value` is the first.
        last_report: Newest step that it was seen to report while under way, and the value there; only
            under schedulers that need reports. `last_values`: of several objectives.
        peak_mib: The most memory that an attempt held; `unit_seconds`: wall time of a step in the newest
            attempt of which it is known. 0 where unknown.
        lacked_mib: The most memory with which an attempt ran out of it and was tried again; 0 for none.
        idle_timeouts: Time limits reached without progress. `short_guesses`: those reached that were guessed,
            which count as nothing else.
    """

    trial: int
    rung: int
    resource: int
    status: RunStatus = RunStatus.WAITING
    submissions: int = 0
    faults_without_progress: int = 0
    errors: int = 0
    timeouts: int = 0
    cancels: int = 0
    last_counted: tuple[int, int] = (-1, -1)
    batch: str = ""
    task: int = 0
    outcome: Outcome | None = None
    value: float | None = None
    start: int | None = None
    step: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    node: str = ""
    job: str = ""
    message: str = ""
    failure: FailureKind | None = None
    warning: str = ""
    last_report: tuple[int, float] | None = None
    peak_mib: int = 0
    unit_seconds: float = 0.0
    lacked_mib: int = 0
    idle_timeouts: int = 0
    short_guesses: int = 0
    values: tuple[float, ...] = ()
    last_values: tuple[float, ...] = ()
    begun: int = 0
    last_begun: tuple[int, int] = (-1, -1)

    @property
    def attempts(self) -> int:
        """How often it was begun, as far as its endings tell; where it is submitted, that counts as well."""
        return self.begun + (self.status is RunStatus.SUBMITTED)

    @property
    def id(self) -> RunId:
        return RunId(self.trial, self.rung)

    @property
    def achieved_resource(self) -> int:
        """The resource at which it has its value: less than its rung's if it was stopped."""
        return self.step if self.status is RunStatus.STOPPED else self.resource

    @property
    def failure_kind(self) -> FailureKind | None:
        """What was wrong; None if it did not fail."""
        return classify_failure(self.outcome, self.failure, self.message)


class Trial(msgspec.Struct, gc=False):
    """One configuration and its runs, lowest rung first."""

    trial: int
    config: Config
    bracket: int
    parent: int | None
    origin: str
    runs: list[Run]
    stopped: str = ""
    start: int = 0
    repeat: int = 0

    @property
    def attempts(self) -> int:
        """How often its runs were begun."""
        return sum(run.attempts for run in self.runs)

    @property
    def last_completed(self) -> Run | None:
        """Its run of the highest rung that gave a value."""
        for run in reversed(self.runs):
            if run.value is not None:
                return run
        return None

    def below(self, rung: int) -> int:
        """The resource at which its run of this rung begins, if the one before it left a checkpoint."""
        return self.runs[rung - 1].resource if rung else self.start


class Best(msgspec.Struct, frozen=True):
    """The best configuration: by its mean where it is trained several times.

    Attributes:
        trial: The first one of its configuration.
        value: At `resource`, the highest at which all its repeats have a value.
        repeats: How many values the mean is of.
        values: With several objectives, all of them; `value` is the first.
    """

    trial: int
    rung: int
    value: float
    resource: int
    config: Config
    repeats: int = 1
    values: tuple[float, ...] = ()


class SubmitRefusals(NamedTuple):
    """Submissions that were refused since one was accepted.

    Attributes:
        message: Of the last.
        in_a_row: So many in a row were refused in the same words, numbers in them aside.
        total: So many in whatever words.
    """

    message: str
    in_a_row: int
    total: int


class SubmitLimitHit(NamedTuple):
    """The newest array that a submit limit kept out.

    Attributes:
        tasks: Of the array. `others`: tasks of ours that were on the cluster beside it.
        at: Unix time.
    """

    tasks: int
    others: int
    at: float


def mean_value(runs: Sequence[Run]) -> float | None:
    """Mean over the runs of one configuration; None if any failed, for then it is none to trust.

    A run that was lost or cancelled on the cluster says nothing of its configuration: the others count
    alone.
    """
    if any(run.outcome and FACTS[run.outcome].fault is Fault.CONFIGURATION for run in runs):
        return None
    values = [run.value for run in runs if run.value is not None]
    return sum(values) / len(values) if values else None


def mean_values(runs: Sequence[Run]) -> tuple[float, ...]:
    """The same for each of several objectives; none where there is no `mean_value`."""
    if mean_value(runs) is None:
        return ()
    columns = zip(*(run.values for run in runs if run.values), strict=True)
    return tuple(sum(column) / len(column) for column in columns)


class RunWarning(NamedTuple):
    """What the newest of some runs showed its user, and how many showed the same, numbers aside."""

    text: str
    run: RunId
    runs: int


class SweepFacts(EventFold):
    """All that is known of a sweep.

    Attributes:
        trials: By trial number; trial numbers count from 0 without gaps.
        waiting: Runs that are in no batch, in the order in which they were decided.
        live: Batches planned or on the cluster, oldest first.
        counts: Number of runs in each status.
        spent_gpu_s: GPU-seconds over all attempts that have ended.
        pool_gpu_s: How many of these each pool of the cluster has cost.
        skipped_pools: Those that get no tasks for a while, with the event that says so.
        spent_pools: Those whose `gpu_hours` do not pay for one more task, with the event that says so.
        interrupted: How often attempts were interrupted, by why.
        failed_batches_in_a_row: Newest batches, each submitted after the one before, that all ended within
            seconds and without a result;
            `last_batch_failure`: the last error message among them.
        first_errors: What its first runs ended with, since it was started or resumed.
        excluded: Nodes that batches stay away from, with the event that says until when.
        submit_limit: Why the newest submission has to wait for its turn; empty if none has to.
        submit_limit_hit: The array that this was said of.
        dropping: Trials whose checkpoints are to be removed and may still be there.
        dropped: Trials whose checkpoints were removed, as files they had or as empty folders.
        without_checkpoint: Those of them that had files; `checkpoint_bytes_removed`: how much that was.
        checkpoints: What checkpoints take on disk, as workers told. `quota_reached`: set while runs wait
            until there is room for theirs.
        from_scratch: Runs that go on, or went on, without the checkpoint that their trial had.
        retrained: Other runs that should have gone on from a lower step, and trained from scratch.
        warnings: What users should change in training code, each with how many runs showed it.
        queue_waits: How long tasks that keep their GPUs waited in the queue, newest last; in seconds.
        held_gpus: Of tasks that ask for so many GPUs: how many each holds at most, as far as is known.
        cluster_messages: What the cluster said last, by what it was asked for, where it does not do that.
        refusals: Submissions that were refused since one was accepted, and in which words the last.
        time_up: Since when `budget.time` is used up by the wall clock.
        gpus: Of a task of the newest batch, None while there was none.
        simulated: Whether nothing was trained, and times are virtual.
        tick_due: When the latest of the jobs that only wait for a time ticks; `tick_jobs`: which
            of them may still be to come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: SweepStarted | None = None
        self.objectives = DEFAULT
        #: With several objectives.
        self._standing: Standing | None = None
        self.ended: SweepEnded | None = None
        self.stopping: StopRequested | None = None
        self.no_more_trials: TrialsExhausted | None = None
        self.trials: list[Trial] = []
        self.waiting: dict[RunId, None] = {}
        self.live: dict[str, BatchState] = {}
        self.counts: dict[RunStatus, int] = dict.fromkeys(RunStatus, 0)
        self.spent_gpu_s = 0.0
        self.spent_s = 0.0
        self.pool_gpu_s: dict[str, float] = {}
        self.skipped_pools: dict[str, PoolSkipped] = {}
        self.spent_pools: dict[str, PoolSkipped] = {}
        self.requests: set[str] = set()
        self.enqueued: deque[Config] = deque()
        self.warm_starts: list[WarmStartLoaded] = []
        #: Configurations that were started and are no clones: those that count for budget.trials.
        self.configurations = 0
        #: How often each configuration is trained.
        self.repeats = 1
        self.held_gpus: dict[int, int] = {}
        self.queue_waits: list[float] = []
        self.pausing: PauseRequested | None = None
        self.detached: SweepDetached | None = None
        self.interrupted: Counter[Interruption] = Counter()
        self.failed_batches_in_a_row = 0
        self.last_batch_failure = ""
        #: Batches that were there when the last of those failed.
        self._failed_beside: set[str] = set()
        self.first_errors = FirstErrors()
        self.excluded: dict[str, NodeExcluded] = {}
        self.submit_limit = ""
        self.submit_limit_hit = SubmitLimitHit(0, 0, 0.0)
        self.cluster_messages: dict[str, ClusterMessage] = {}
        self.refusals = SubmitRefusals("", 0, 0)
        self.time_up: float | None = None
        self.gpus: int | None = None
        self.simulated = False
        self.tick_due = 0.0
        self.tick_jobs: dict[str, float] = {}
        #: Nodes that did well at least once, and the trials that failed at each node for its own
        #: reasons since it last did; a task that could take no run counts as a number below 0.
        self.good_nodes: set[str] = set()
        self.node_faults: dict[str, dict[int, str]] = {}
        self.last_failure: Run | None = None
        self.dropping: dict[int, None] = {}
        self.dropped: set[int] = set()
        self.without_checkpoint: set[int] = set()
        self.from_scratch: dict[RunId, None] = {}
        self.retrained: dict[RunId, None] = {}
        #: By its text without numbers.
        self.warnings: dict[str, RunWarning] = {}
        self.checkpoint_bytes_removed = 0
        self.checkpoints = CheckpointUsage()
        self.quota_reached: CheckpointQuotaReached | None = None
        # Clones whose first run has not ended: trial -> None.
        self._clones_in_first_run: dict[int, None] = {}
        # Candidates for the best: (signed value, -resource, first trial), valid while they are
        # the newest value of their configuration.
        self._best: list[tuple[float, int, int]] = []

    def run(self, run: RunId) -> Run:
        return self.trials[run.trial].runs[run.rung]

    @property
    def interruptions(self) -> int:
        """Attempts that were interrupted, for whatever reason."""
        return self.interrupted.total()

    @property
    def metric(self) -> str:
        """Name of the objective's metric, of the first one of several."""
        return self.objectives[0].metric

    @property
    def minimise(self) -> bool:
        return self.objectives[0].mode != "max"

    def value_of(self, first: int, rung: int) -> float | None:
        """Mean value of the configuration with this first trial; None until all its repeats have ended."""
        runs = self._ended_runs(first, rung)
        return mean_value(runs) if len(runs) == self.repeats else None

    def values_of(self, first: int, rung: int) -> tuple[float, ...]:
        """The same for each of several objectives; none where `value_of` is None."""
        runs = self._ended_runs(first, rung)
        return mean_values(runs) if len(runs) == self.repeats else ()

    def objective_value(self, first: int, rung: int, objective: int) -> float | None:
        """The same for the objective with this index, of one or several."""
        value = self.value_of(first, rung)
        return self.values_of(first, rung)[objective] if objective and value is not None else value

    def _ended_runs(self, first: int, rung: int) -> list[Run]:
        return [
            trial.runs[rung]
            for trial in self.trials[first : first + self.repeats]
            if rung < len(trial.runs) and trial.runs[rung].status.ended
        ]

    @property
    def best(self) -> Best | None:
        """The best of all configurations by each one's newest value.

        On a tie the larger resource, then the older trial wins. None while there is no value. With several
        objectives the one of `front` that is nearest to the best value of each.
        """
        if self._standing is not None:
            return self._standing.best
        while self._best:
            best = self.newest(self._best[0][2])
            if best is not None and self._key(best) == self._best[0]:
                return best
            heapq.heappop(self._best)  # a later value of it is in the heap as well
        return None

    def leaders(self, n: int) -> list[Best]:
        """The best `n` configurations, `best` first; where there is a front, others of that follow."""
        best = self.best
        if best is None:
            return []
        found = [best]
        for other in self.front if self.objectives.has_front else self._in_order():
            if len(found) == n:
                break
            if all(other.trial != each.trial for each in found):
                found.append(other)
        return found

    def _in_order(self) -> Iterator[Best]:
        """The configurations with a value, best first; one may come again."""
        if self._standing is not None:
            trials = sorted(self._standing.places, key=self._standing.places.__getitem__)
            yield from (best for trial in trials if (best := self.newest(trial)) is not None)
            return
        for key in in_order(self._best):
            best = self.newest(key[2])
            if best is not None and self._key(best) == key:  # else a later value of it is in the heap as well
                yield best

    @property
    def front(self) -> tuple[Best, ...]:
        """Several objectives: the configurations that none dominates; else the best one."""
        if self._standing is not None:
            return self._standing.front
        return () if self.best is None else (self.best,)

    def _key(self, best: Best) -> tuple[float, int, int]:
        if self._standing is not None:
            return (float(self._standing.places[best.trial]), -best.resource, best.trial)
        return (self._sign * best.value, -best.resource, best.trial)

    @property
    def _sign(self) -> int:
        return 1 if self.minimise else -1

    def newest(self, first: int) -> Best | None:
        """The configuration with this first trial by its newest value; None while it has none."""
        trial = self.trials[first]
        for run in reversed(trial.runs):
            value = self.value_of(first, run.rung)
            if value is not None:
                values = self.values_of(first, run.rung) if self._standing is not None else ()
                resource = run.achieved_resource
                return Best(first, run.rung, value, resource, trial.config, self.repeats, values)
        return None

    def value_key(self, first: int) -> tuple[float, int, int] | None:
        """Orders configurations by their newest value, smaller is better; None for one without a value."""
        newest = self.newest(first)
        return None if newest is None else self._key(newest)

    def beats(self, first: int, other: int) -> bool:
        """Whether one configuration, by its first trial, is better than another; one without a value is not.

        With several objectives: whether it dominates the other.
        """
        one, two = self.newest(first), self.newest(other)
        if one is None or two is None:
            return one is not None
        if self._standing is None:
            return self._key(one) < self._key(two)
        keys = (self.objectives.key(best.value, best.values) for best in (one, two))
        return dominates(*keys)

    @property
    def tick_ids(self) -> set[str]:
        """Jobs that may be there to tick, behind an array or at their time."""
        return {*self.tick_jobs, *(batch.tick_job for batch in self.live.values() if batch.tick_job)}

    def clone_steps(self, parent: int) -> list[int]:
        """Steps of this trial's checkpoints that clones have yet to go on from."""
        clones = (self.trials[trial] for trial in self._clones_in_first_run)
        return [clone.start for clone in clones if clone.parent == parent]

    def is_detached(self, cluster: str) -> bool:
        """Whether the jobs of this very cluster drive the sweep."""
        return self.detached is not None and self.detached.cluster == cluster

    @property
    def outstanding(self) -> int:
        """Runs that are decided and have no ending."""
        return self.counts[RunStatus.WAITING] + self.counts[RunStatus.SUBMITTED]
