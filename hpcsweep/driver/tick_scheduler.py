"""Schedules tick jobs for detached sweeps: behind each array, or at a time. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from hpcsweep.core.state import SweepState
from hpcsweep.driver.effects import Effect, EffectResult, Step, SubmitTick

#: Delay of a tick job where no other job will trigger a tick.
LOOK_AGAIN_S: Final = 60.0
#: And where other jobs should.
WATCH_S: Final = 3600.0


class TickScheduler:
    """Makes sure that a detached sweep gets another tick once this driver has left.

    Attributes:
        jobs: Ids and names of the user's jobs at the last poll; None: unknown.
        error: Why the last tick job was not accepted, empty if it was.
    """

    def __init__(self, state: SweepState) -> None:
        self._state = state
        self.jobs: Mapping[str, str] | None = None
        self.error = ""
        #: When this session submitted a job behind a batch.
        self._submitted_at: dict[str, float] = {}

    def behind_arrays(self, *, now: float, active: Container[str] = ()) -> Step:
        """A job behind each array that has none, or whose job is gone from the queue before its time.

        Batches with tasks that wait or run are `active`: the jobs behind them cannot have started.
        """
        effects: list[SubmitTick] = []
        for batch in self._state.live.values():
            name = f"{batch.name}-tick"
            gone = batch.tick_job and batch.name in active and self._is_gone(batch.tick_job, name)
            if gone and now - self._submitted_at.get(batch.name, -LOOK_AGAIN_S) < LOOK_AGAIN_S:
                continue
            if batch.job is not None and (gone or not batch.tick_job):
                self._submitted_at[batch.name] = now
                effects.append(SubmitTick(name, now, batch=batch.name, after=batch.job))
        return Step(effects=tuple(effects))

    def later(self, *, soon: bool, now: float) -> Step:
        """A tick job after a while, unless another one runs by then.

        `soon` means that something is to be done which no job will trigger; if not, the job is only a
        safeguard against the loss of the others.
        """
        delay_s = LOOK_AGAIN_S if soon else WATCH_S
        due = self._state.tick_due
        if now < due <= now + delay_s:
            waiting = [job for job, at in self._state.tick_jobs.items() if at == due]
            if not waiting or not all(self._is_gone(job, self._name) for job in waiting):
                self.error = ""
                return Step()
        return Step(effects=(SubmitTick(self._name, now + delay_s, delay_s),))

    def first(self, *, now: float) -> SubmitTick:
        """The first tick job: it shows that the cluster accepts such jobs."""
        return SubmitTick(self._name, now + LOOK_AGAIN_S, LOOK_AGAIN_S)

    def note(self, effect: Effect, result: EffectResult) -> None:
        if isinstance(effect, SubmitTick):
            self.error = "" if result.error is None else str(result.error)

    def _is_gone(self, job: str, name: str) -> bool:
        """Whether the queue was asked and shows neither this job nor one with its name."""
        return self.jobs is not None and job not in self.jobs and name not in self.jobs.values()

    @property
    def _name(self) -> str:
        assert self._state.started is not None
        return f"{self._state.started.name}-{self._state.started.sweep}-tick"


def needs_attention(state: SweepState, *, undecided: bool, host_job: str = "") -> bool:
    """Whether something is to be done soon that no job will trigger.

    `undecided` says that the next poll decides something. A tick job behind an array runs once, and
    the driver's own `host_job` may be it.
    """
    if state.ended is not None:
        return False
    if undecided or state.stopping is not None or not state.live:
        return True
    return any(batch.job is None or batch.tick_job in ("", host_job) for batch in state.live.values())
