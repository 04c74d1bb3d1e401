"""The searcher and the scheduler that a spec asks for, fresh or brought up to date by the journal."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from hpcsweep import schedulers, searchers
from hpcsweep.core.events import AnyEvent, SweepStarted
from hpcsweep.core.protocols import Scheduler, Searcher
from hpcsweep.core.retention import Retention
from hpcsweep.core.space import Float, Parameter, Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Growth
from hpcsweep.driver.planner import RepeatAdapter
from hpcsweep.schedulers.stopping_rules import STOP_RULES, WithStoppingRules
from hpcsweep.schedulers.synchronous import PIECE
from hpcsweep.spec import SweepSpec
from hpcsweep.spec.models import NamedOptions
from hpcsweep.store.files import file_mode

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_scheduler(spec: SweepSpec, *, adaptive: bool = True) -> Scheduler:
    """A fresh scheduler with its stopping rules; without an `adaptive` searcher trials start far ahead."""
    minimise = spec.objective.mode == "min"
    scheduler = schedulers.make_scheduler(
        spec.scheduler.name,
        options=spec.scheduler.options,
        minimise=minimise,
        objectives=spec.objectives,
        trials=spec.budget.trials,
        ahead=not adaptive,
        space=spec.space.original,
        seed=spec.searcher.seed,
        # Trials that start together at most, whatever the repeats: they are events of one commit.
        piece=max(1, min(PIECE, 10 * PIECE // spec.repeats)),
    )
    if spec.stop:
        rules = [STOP_RULES[rule.name](**rule.options, objectives=spec.objectives) for rule in spec.stop]
        scheduler = WithStoppingRules(scheduler, rules=rules)
    return scheduler


def make_searcher(spec: SweepSpec, *, resolved: str = "") -> Searcher:
    """The searcher of the spec; `resolved` is the one that `auto` chose when the sweep began."""
    searcher = spec.searcher
    return searchers.make_searcher(
        searcher.name,
        seed=searcher.seed,
        options=searcher.options,
        trials=spec.starts,
        resolved=resolved or None,
        objectives=spec.objectives,
    )


def resolve_searcher(spec: SweepSpec, *, resolved: str = "") -> tuple[str, str]:
    """The searcher's name, and why it was chosen; no reason where the spec names it."""
    resolve = getattr(make_searcher(spec, resolved=resolved), "resolve", None)
    choice: tuple[str, str] = resolve(spec.space) if resolve else (spec.searcher.name, "")
    return choice


def space_growth(spec: SweepSpec, *, resolved: str) -> Growth | None:
    """How the space grows by what runs suggest; None where none can, or the searcher cannot search it."""
    if spec.train.call != "optuna":
        return None
    more = Space((*spec.space.parameters, Parameter("-", Float(0.0, 1.0), added=True)))
    if make_searcher(spec, resolved=resolved).problems(more):
        return None
    budget = spec.budget
    bounded = any(limit is not None for limit in (budget.trials, budget.gpu_hours, budget.time))
    return Growth(
        functools.partial(make_searcher, spec, resolved=resolved),
        lambda parameters: spec.with_added(parameters).yaml,
        file_mode(spec.cluster.environment),
        ends=bounded or not make_scheduler(spec).plan().open_ended,
    )


def replay_sweep(
    spec: SweepSpec, events: Sequence[AnyEvent], *, keep_trained: bool = True
) -> tuple[SweepState, Scheduler, Retention]:
    """The sweep after these events, for commands that do not drive it."""
    state = SweepState()
    repeats = RepeatAdapter(state)
    started = next((event for event in events if isinstance(event, SweepStarted)), None)
    searcher = make_searcher(spec, resolved=started.resolved_searcher if started else "")
    scheduler = make_scheduler(with_original_scheduler(spec, started), adaptive=searcher.adaptive)
    retention = Retention(state, scheduler, keep_trained=keep_trained)
    for event in events:
        state.apply(event)
        mapped = repeats.translate(event)
        if mapped is not None:
            scheduler.apply(mapped)
        retention.apply(event)
    return state, scheduler, retention


def with_original_scheduler(spec: SweepSpec, started: SweepStarted | None) -> SweepSpec:
    """With the options that the scheduler began with: the journal replays each extension in its place."""
    plain = started.identity["scheduler"] if started else None
    if plain is None or plain == spec.scheduler.plain():
        return spec
    options = {key: value for key, value in plain.items() if key != "name"}
    return dataclasses.replace(spec, scheduler=NamedOptions(name=plain["name"], options=options))
