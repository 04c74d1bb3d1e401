"""What each run needs now, which runs share an array, and how tasks are shared out. Pure."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import AnyEvent, Config, RunId
from hpcsweep.core.learned import LearnedNeeds
from hpcsweep.core.run_resources import RunContext, largest_need, reused_task
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.room import Room

#: Time limits up to that are alike to any scheduler; in seconds.
SHORT_LIMIT_S: Final = 300


class Kind(NamedTuple):
    """Runs that can take turns on a task: of so many GPUs each, or without GPUs of so many CPUs."""

    gpus: int
    cpus: int = 0


def kind_of(needs: TaskResources) -> Kind:
    """The kind of a run that needs that."""
    return Kind(needs.total_gpus) if needs.gpus else Kind(0, needs.cpus)


def array_key(needs: TaskResources) -> tuple[int, ...]:
    """Equal for runs that may share an array: none is given more than twice what it needs but for GPUs."""
    cpus = _power(needs.cpus) if needs.gpus else needs.cpus
    mem = -1 if needs.mem_mib is None else _power(needs.mem_mib)
    time = -1 if needs.time_s is None else _power(max(needs.time_s, SHORT_LIMIT_S) / SHORT_LIMIT_S)
    return needs.total_gpus, needs.nodes, cpus, mem, time


def _power(amount: float) -> int:
    """The least power of two that is as much."""
    return math.ceil(math.log2(max(amount, 1)))


class UnknownNeeds(Exception):
    """What a run needs cannot be computed, or can never be had; the message says what to change."""


class RunShapes:
    """Answers what each run needs.

    `granted` is what a cluster shares out of that: see `Cluster.granted`.
    """

    def __init__(
        self,
        state: SweepState,
        space: Space,
        *,
        settings: DriverConfig,
        granted: Callable[[TaskResources], TaskResources],
    ) -> None:
        self._state = state
        notice_s = settings.program.notice_s
        #: What other runs used; None where nobody asks.
        self._learned = LearnedNeeds(state, space, notice_s=notice_s) if settings.resources.learns else None
        #: By run: for which models, and from which step on, it is expected to need so much.
        self._expected: dict[RunId, tuple[tuple[int, ...], tuple[float | None, int | None]]] = {}
        self._settings = settings
        self._granted = granted
        #: By run: what it was computed from beside the configuration, and what it needs.
        self._known: dict[RunId, tuple[tuple[int | None, ...], TaskResources]] = {}

    def apply(self, event: AnyEvent) -> None:
        """Learn from one event, once the state has taken it in."""
        if self._learned is not None:
            self._learned.apply(event)

    def of(self, run_id: RunId) -> TaskResources:
        """What the next attempt at this run needs.

        Raises:
            UnknownNeeds: It cannot be computed.
        """
        run = self.context(run_id)
        key = run[1:]
        known = self._known.get(run_id)
        if known is None or known[0] != key:
            try:
                needs = self._settings.resources.of(run)
            except ValueError as error:
                raise UnknownNeeds(f"{error} ({run_id})") from None
            known = self._known[run_id] = key, self._granted(needs)
        return known[1]

    def length(self, run: RunId, needs: TaskResources) -> float:
        """Greater for runs that take longer: by their limits, of those alike by what they train."""
        context = self.context(run)
        units = max(0, context.resource - context.start)
        return (needs.time_s or 0) + units / (1 + units)

    def forget(self, waiting: Iterable[RunId]) -> None:
        """Keep only what is known of these."""
        waiting = list(waiting)
        self._known = {run: self._known[run] for run in waiting if run in self._known}
        self._expected = {run: self._expected[run] for run in waiting if run in self._expected}

    def context(self, run_id: RunId) -> RunContext:
        """What the needs of its next attempt depend on."""
        trial = self._state.trials[run_id.trial]
        run = trial.runs[run_id.rung]
        start = trial.below(run.rung)
        # Where training code starts anew although it should have gone on, the whole way is ahead.
        anew = not self._settings.program.resumes or self._state.retrained
        if anew or trial.trial in self._state.without_checkpoint:
            start = 0
        return RunContext(
            trial.config,
            run.resource,
            start,
            run.rung,
            run.submissions,
            lacked_mib=max(each.lacked_mib for each in trial.runs),
            idle_timeouts=run.idle_timeouts,
            short_guesses=run.short_guesses,
            **self._expect(run_id, trial.config, units=run.resource - start),
        )

    def _expect(self, run_id: RunId, config: Config, *, units: int) -> dict[str, int | None]:
        """What the run is expected to take, with the time for it to leave when that is nearly over."""
        if self._learned is None:
            return {}
        key = (*self._learned.revision, units)
        known = self._expected.get(run_id)
        if known is None or known[0] != key:
            seconds, mib = self._learned.time_s(config, units=units), self._learned.mem_mib
            known = self._expected[run_id] = key, (seconds, mib(config, rung=run_id.rung))
        seconds, expected_mib = known[1]
        limit_s = None
        if seconds is not None:  # it is told to leave so long before its end, but not in its first half
            notice_s, beside_s = self._settings.program.notice_s, self._learned.beside_s
            limit_s = math.ceil(min(2 * seconds, seconds + notice_s) + beside_s)
            if not self._settings.reuse:
                limit_s = max(limit_s, SHORT_LIMIT_S)  # what sets up the task is in it
        return {"expected_s": limit_s, "expected_mib": expected_mib}

    def task(self, needs: Sequence[TaskResources], *, turns: int | None = None) -> TaskResources:
        """A task for any of the runs that need that, `turns` of which it does one after another."""
        largest, lanes = largest_need(needs), self._settings.shape.lanes
        if not self._settings.reuse:
            return largest
        return reused_task(largest, lanes=lanes, task_time_s=self._settings.task_time_s, runs=turns)


class Demand(NamedTuple):
    """Runs of one kind.

    Attributes:
        gpus: That a task of it holds. `lanes`: runs that it does at a time.
        busy: Runs that tasks are at.
        waiting: Positions in the queue of those that wait, ascending; at least one.
        work: GPU-seconds of them all, or whatever else is in proportion.
        gpu_s: What a new task of it may cost; None: the least of any.
    """

    gpus: int
    lanes: int
    busy: int
    waiting: Sequence[int]
    work: float
    gpu_s: float | None = None

    def most(self, before: float = math.inf) -> int:
        """Tasks that could be busy with these runs, of those that wait only with the ones before."""
        return -(-(self.busy + bisect.bisect_left(self.waiting, before)) // self.lanes)

    @property
    def step(self) -> float:
        """How much of the room a task of it takes for its work."""
        return max(1, self.gpus) / max(self.work, 1e-9)


def share_tasks(room: Room, demands: Sequence[Demand]) -> list[int]:
    """How many tasks of each kind there should be, within the room of all.

    The kinds come in the order of their oldest waiting runs. Each gets a task as far as that fits, in order:
    one that does not fit is not passed by runs behind it, so that the room for it comes about. What is left
    is shared in proportion to the work.
    """
    shares = [0] * len(demands)
    before = math.inf
    for index, demand in enumerate(demands):
        if not room.count(demand.gpus, gpu_s=demand.gpu_s):
            before = demand.waiting[0]
            break
        shares[index], room = 1, room.less(demand.gpus, gpu_s=demand.gpu_s)
    queue = [(2 * demand.step, index) for index, demand in enumerate(demands) if shares[index]]
    heapq.heapify(queue)
    while queue:
        _, index = heapq.heappop(queue)
        demand = demands[index]
        if shares[index] < demand.most(before) and room.count(demand.gpus, gpu_s=demand.gpu_s):
            shares[index], room = shares[index] + 1, room.less(demand.gpus, gpu_s=demand.gpu_s)
            heapq.heappush(queue, ((shares[index] + 1) * demand.step, index))
    return shares
