"""The results folder of an earlier sweep of hpcsweep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpcsweep.core.models import RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.session.warm_start.earlier import EXPECTED, Earlier
from hpcsweep.spec import SweepSpec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout


def read(spec: SweepSpec, path: Path, part: str, key: str) -> Iterator[Earlier]:
    """Each configuration, with the mean of its repeats; see `Reader`."""
    try:
        state = SweepState.replay(read_journal(Layout(path)).events)
    except FolderError as error:
        raise SpecError(f"{key}: {error}") from error
    if state.started is None:
        raise SpecError(f"{key}: expected {EXPECTED}, got {path}")
    if state.objectives.metrics != spec.objectives.metrics:
        measured, ours = (", ".join(map(repr, each.metrics)) for each in (state.objectives, spec.objectives))
        raise SpecError(f"{key}: {path} measured {measured}, this sweep measures {ours}")
    for trial in state.trials[:: state.repeats]:
        observations = tuple(_observations(state, trial.trial))
        yield Earlier(trial.config, observations, values=tuple(_values(state, trial.trial)))


def _observations(state: SweepState, trial: int) -> Iterator[tuple[int, float | None]]:
    for run in state.trials[trial].runs:
        value = state.value_of(trial, run.rung)
        if value is not None:
            yield (run.step if run.status is RunStatus.STOPPED else run.resource), value
        elif run.status is RunStatus.FAILED:
            yield run.resource, None


def _values(state: SweepState, trial: int) -> Iterator[tuple[float, ...]]:
    """Of all objectives at each of those observations."""
    for run in state.trials[trial].runs:
        value = state.value_of(trial, run.rung)
        if value is not None or run.status is RunStatus.FAILED:
            yield () if value is None else state.values_of(trial, run.rung) or (value,)
