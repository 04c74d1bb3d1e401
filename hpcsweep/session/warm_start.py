"""What a sweep starts from: enqueued configurations and the results of earlier sweeps."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.random import default_rng

from hpcsweep.core.completion import complete_config
from hpcsweep.core.events import AnyEvent, Config, ConfigsEnqueued, WarmStartLoaded
from hpcsweep.core.models import RunStatus
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.spec import SweepSpec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout


def initial_events(spec: SweepSpec, *, identity: Mapping[str, Any] | None = None) -> list[AnyEvent]:
    """The `WarmStartLoaded` and `ConfigsEnqueued` that a spec adds.

    Args:
        spec: Of the sweep.
        identity: Of the sweep that is extended: what it has already is left out. None: a new sweep.

    Raises:
        SpecError: A folder of `warm_start` holds no sweep, or measured something else.
    """
    known, enqueued = (len((identity or {}).get(key, ())) for key in ("warm_start", "enqueue"))
    events: list[AnyEvent] = [
        load_results(spec, Path(folder), key=f"warm_start[{index}]")
        for index, folder in enumerate(spec.warm_start)
        if index >= known
    ]
    seed = spec.searcher.seed
    configs = [
        complete_config(spec.space, config, default_rng([seed, zlib.crc32(b"enqueue"), index]))
        for index, config in enumerate(spec.enqueue)
        if index >= enqueued
    ]
    return [*events, ConfigsEnqueued(tuple(configs))] if configs else events


def load_results(spec: SweepSpec, folder: Path, *, key: str) -> WarmStartLoaded:
    """The folder's results whose configurations are in this sweep's space.

    Raises:
        SpecError: It holds no sweep, or one that measured something else.
    """
    try:
        state = SweepState.replay(read_journal(Layout(folder)).events)
    except FolderError as error:
        raise SpecError(f"{key}: {error}") from error
    if state.started is None:
        raise SpecError(f"{key}: expected a results folder that `launch` made, got {folder}")
    metric = state.started.identity["objective"]["metric"]
    if metric != spec.objective.metric:
        raise SpecError(f"{key}: {folder} measured {metric!r}, this sweep measures {spec.objective.metric!r}")
    results = []
    skipped: Counter[str] = Counter()
    for trial in state.trials[:: state.repeats]:
        observations = tuple(_observations(state, trial.trial))
        if not observations:
            skipped["no result yet"] += 1
            continue
        config = spec.space.canonicalise(trial.config)
        problem = _problem(spec.space, config)
        if problem is None:
            results.append((config, observations))
        else:
            skipped[problem] += 1
    return WarmStartLoaded(str(folder), tuple(results), dict(skipped))


def _observations(state: SweepState, trial: int) -> Iterator[tuple[int, float | None]]:
    for run in state.trials[trial].runs:
        value = state.value_of(trial, run.rung)
        if value is not None:
            yield (run.step if run.status is RunStatus.STOPPED else run.resource), value
        elif run.status is RunStatus.FAILED:
            yield run.resource, None


def _problem(space: Space, config: Config) -> str | None:
    """Why the configuration is outside the space, worded alike for all that fail alike."""
    problems = space.check(config)
    return problems[0].partition(", got ")[0] if problems else None


def describe_warm_start(loaded: Sequence[WarmStartLoaded]) -> list[str]:
    """What was taken over from earlier sweeps, one line for each fact."""
    lines: list[str] = []
    for event in loaded:
        taken, skipped = len(event.results), sum(event.skipped.values())
        nothing = "" if taken else ": nothing to learn from"
        lines.append(
            f"warm start: {taken} of {plural(taken + skipped, 'configuration')} of {event.source}{nothing}"
        )
        lines += [f"  {count} left out: {problem}" for problem, count in event.skipped.items()]
    return lines
