"""States of small sweeps and monitors of them, for tests of collaborators that decide on values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcsweep.core.cluster_protocol import Phase, TaskId, TaskState
from hpcsweep.core.events import AnyEvent, BatchPlanned, BatchSubmitted, RunId, SweepStarted, TrialCreated
from hpcsweep.core.models import Run
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observation
from hpcsweep.store.layout import Layout
from tests.doubles import PROGRAM, SHAPE

LAYOUT = Layout(Path("/s"))
SETTINGS = DriverConfig("s", "fake", PROGRAM, SHAPE, seed=7)


class NoEvidence:
    """Nothing is known of runs without a result."""

    def newest_step(self, run: Run) -> int:
        return 0

    def reported(self, run: RunId, *, attempt: int, restart: int) -> tuple[int, int] | None:
        return None

    def last_lines(self, batch: str, task: int) -> str:
        return ""

    def node_failed(self, node: str) -> bool:
        return False


def sweep_of(trials: int, *events: AnyEvent) -> SweepState:
    """A sweep in which so many trials were created, then this happened."""
    state = SweepState()
    state.apply(SweepStarted("cafe01", "s", 0.0, {"objective": {"metric": "loss", "mode": "min"}}))
    for trial in range(trials):
        state.apply(TrialCreated(trial, {"x": trial / 10}, 0, 9))
    for event in events:
        state.apply(event)
    return state


def planned(name: str, *tasks: Sequence[int], throttle: int = 4, at: float = 0.0) -> BatchPlanned:
    """A batch with these trials in each of its tasks."""
    runs = tuple(tuple(RunId(trial, 0) for trial in task) for task in tasks)
    return BatchPlanned(name, at, runs, gpus=1, throttle=throttle, time_s=60)


def submitted(name: str, *tasks: Sequence[int], throttle: int = 4) -> list[AnyEvent]:
    """A batch that the cluster took as job 4711."""
    return [planned(name, *tasks, throttle=throttle), BatchSubmitted(name, "4711", 1.0)]


def monitor_of(state: SweepState, settings: DriverConfig = SETTINGS) -> JobMonitor:
    """A monitor that has seen nothing yet."""
    return JobMonitor(state, layout=LAYOUT, settings=settings, grace_s=0.0, evidence=NoEvidence())


def shown(monitor: JobMonitor, tasks: dict[tuple[str, int], Phase], *, at: float = 2.0) -> list[AnyEvent]:
    """What follows where the cluster shows these tasks."""
    states = {TaskId(*task): TaskState(phase) for task, phase in tasks.items()}
    return monitor.observe(Observation(at, {}, states))
