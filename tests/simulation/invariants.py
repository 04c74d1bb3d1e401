"""What always holds once a sweep has ended, whatever went wrong on the way."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import msgspec
import pyarrow as pa

from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.core.events import (
    BatchAbandoned,
    BatchPlanned,
    BatchSubmitted,
    CheckpointsDropped,
    Config,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunRetried,
    RunsAssigned,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.core.models import RunStatus, Trial
from hpcsweep.core.protocols import BracketPlan
from hpcsweep.core.state import SweepState
from hpcsweep.schedulers.ranking import best_first
from hpcsweep.schedulers.rungs import halving_bracket, hyperband_brackets
from hpcsweep.simulation import simulate
from hpcsweep.spec.models import Store
from hpcsweep.store.compaction import read_tables
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.tables import metrics_table, whole_table
from tests.simulation.fault_run import FaultRun
from tests.simulation.specs import curve_of, falling


def no_run_ends_twice(fault_run: FaultRun) -> None:
    """Once for each time that somebody asked for it."""
    open_again: collections.Counter[RunId] = collections.Counter()
    for event in fault_run.events:
        match event:
            case RunFinished():
                open_again[event.run] -= 1
                assert open_again[event.run] >= -1, f"{event.run} ended twice"
            case RunRetried():
                open_again[RunId(event.trial, event.rung)] += 1
            case _:
                pass


def no_result_is_lost(fault_run: FaultRun) -> None:
    """What was trained to its end has an ending in the journal, with the value that it gave.

    Late results are waited for, as long as the grace period is.
    """
    state = fault_run.driver.state
    assert state.ended is not None
    results = fault_run.oracle.results
    for batch in fault_run.cluster.submitted:
        for result in results.get(batch.name, ()):
            run = state.trials[result.trial].runs[result.rung]
            if result.outcome is Outcome.COMPLETED and run.status is RunStatus.WAITING:
                assert "budget" in state.ended.reason, f"{run.id} came to its end and waits"
            when = fault_run.given_up.get((batch.name, run.id, result.attempt))
            if when is not None and result.started is not None and result.outcome is not None:
                late_s = when - result.started - result.seconds
                assert late_s >= fault_run.site.grace_s, f"{run.id} was given up {late_s} s after its end"
    for trial in state.trials:
        for run in trial.runs:
            assert run.status is not RunStatus.SUBMITTED, f"{run.id} is still under way"
            if run.status is RunStatus.COMPLETED:
                assert run.value == falling(trial.config, run.resource, 0)
                assert run.values == ((run.value, trial.config["x"]) if state.objectives.several else ())


def each_intent_is_submitted_once(fault_run: FaultRun) -> None:
    """Arrays of the site and batches of the journal are the same, but for those that were abandoned."""
    planned = _names(fault_run, BatchPlanned)
    submitted = _names(fault_run, BatchSubmitted)
    abandoned = _names(fault_run, BatchAbandoned)
    accepted = fault_run.oracle.accepted
    asked = [batch.name for batch in fault_run.cluster.submitted]
    for names in (planned, submitted, abandoned, accepted, asked):
        assert len(names) == len(set(names)), "twice the same batch"
    assert set(asked) <= set(planned)
    assert set(submitted) | set(abandoned) == set(planned)
    assert not set(submitted) & set(abandoned)
    assert set(submitted) <= set(accepted)
    results = fault_run.oracle.results
    for name in abandoned:
        # A site that forgets can have hidden the batch until all of it was over.
        for result in results.get(name, ()):
            assert _site(fault_run).forgets is not None, f"{name} is void, yet it trained"
            assert result.started is None or result.started < fault_run.abandoned[name]


def the_cap_always_held(fault_run: FaultRun) -> None:
    """At no moment did more tasks run than the spec and the site allow."""
    caps = (fault_run.place.max_tasks, fault_run.site.slots)
    assert fault_run.site.usage.most <= min(cap for cap in caps if cap is not None)


def rungs_are_exact(fault_run: FaultRun) -> None:
    """Synchronous rungs have their sizes and hold the best of the rung below."""
    spec, state = fault_run.spec, fault_run.driver.state
    ladders = _bracket_plans(fault_run)
    whole = state.ended is not None and "budget.gpu" not in state.ended.reason
    failed = any(event.value is None for event in fault_run.events if isinstance(event, RunFinished))
    if not ladders or failed or not whole or spec.budget.time:
        return
    assert state.no_more_trials is None or state.no_more_trials.cause == "budget"
    brackets: dict[int, list[Trial]] = collections.defaultdict(list)
    for trial in state.trials[:: spec.repeats]:
        brackets[trial.bracket].append(trial)
    if spec.budget.trials is None:
        assert len(brackets) == len(ladders)
    else:
        started = sum(len(trials) for trials in brackets.values())
        assert started == min(spec.budget.trials, sum(ladder.sizes[0] for ladder in ladders))
    for bracket, trials in brackets.items():
        ladder = ladders[bracket].shrunk(len(trials), eta=spec.scheduler.options["eta"])
        for rung, (resource, size) in enumerate(zip(ladder.resources, ladder.sizes, strict=True)):
            members = [trial for trial in trials if len(trial.runs) > rung]
            assert len(members) == size, f"bracket {bracket} rung {rung}"
            assert all(trial.runs[rung].resource == resource for trial in members)
            if rung:
                below = [trial for trial in trials if len(trial.runs) >= rung]
                keys = {
                    trial.trial: state.objectives.key(
                        state.value_of(trial.trial, rung - 1), state.values_of(trial.trial, rung - 1)
                    )
                    for trial in below
                }
                assert {trial.trial for trial in members} == set(best_first(keys, size))


def the_cost_is_right(fault_run: FaultRun) -> None:
    """No run is charged twice, the whole is what the site counted, and it never exceeds the budget.

    Of a task that the site starts again and again between two looks not every start is seen, so
    there the whole may differ. Under a budget a task of which nobody knows is charged as much as it
    can have taken; only of an array that was never known to be there nothing is.
    """
    shape, site, state = fault_run.place.shape, fault_run.site, fault_run.driver.state
    used_s = site.usage.task_seconds(site.clock.time()) * shape.gpus
    slack_s = 0.01 * (1 + len(fault_run.cluster.submitted))  # the journal holds milliseconds
    by_runs_s = sum(run.gpu_seconds for trial in state.trials for run in trial.runs)
    hours = fault_run.spec.budget.gpu_hours
    capped = hours is not None and shape.gpus > 0
    faults = _site(fault_run)
    if set(_names(fault_run, BatchAbandoned)) & set(fault_run.oracle.accepted):
        return
    if not capped or faults.forgets is None:
        assert by_runs_s <= used_s + slack_s, f"charged to runs {by_runs_s}, used {used_s}"
    if capped or not faults.preemptions or faults.requeue is False:
        if not capped or faults.forgets is None:
            assert state.spent_gpu_s <= used_s + slack_s, f"spent {state.spent_gpu_s}, used {used_s}"
        if capped or faults.forgets is None:
            assert state.spent_gpu_s >= used_s - slack_s, f"spent {state.spent_gpu_s}, used {used_s}"
    if hours is not None and capped:
        assert used_s <= hours * 3600, f"used {used_s}, allowed {hours * 3600}"


def no_report_is_lost(fault_run: FaultRun) -> None:
    """The table of reports is what was written, wherever that is by now: the newest attempt counts."""
    reported = fault_run.oracle.reported
    expected: dict[tuple[int, int, int], dict[str, float]] = {}
    files = sorted((trial, [int(n) for n in re.findall(r"\d+", name)], name) for trial, name in reported)
    for trial, (rung, *_), name in files:
        for step, metrics in reported[trial, name]:
            expected.setdefault((trial, rung, step), {}).update(metrics)
    for table in (metrics_table(fault_run.layout, fault_run.events), _last_table(fault_run)):
        found = {(row.pop("trial"), row.pop("rung"), row.pop("step")): row for row in table.to_pylist()}
        assert found == expected
        assert list(found) == sorted(expected)


def no_checkpoint_is_removed_that_is_needed(fault_run: FaultRun) -> None:
    """A trial whose checkpoints were dropped never trains again, gives none away and is not the best.

    Under a quota those of failed trials go, too, which may be retried from scratch.
    """
    limited = fault_run.spec.store != Store()
    dropped: set[int] = set()
    for event in fault_run.events:
        match event:
            case CheckpointsDropped():
                assert not dropped & set(event.trials), "removed twice"
                dropped |= set(event.trials)
            case RunRetried() if limited:
                dropped.discard(event.trial)
            case TrialPromoted() | RunRetried():
                assert event.trial not in dropped, f"trial {event.trial} goes on without its checkpoint"
            case TrialCreated():
                assert event.parent not in dropped, f"trial {event.trial} is a clone of nothing"
            case BatchPlanned():
                assert not dropped & {run.trial for task in event.tasks for run in task}
            case RunsAssigned():
                assert not dropped & {run.trial for run in event.runs}
            case _:
                pass
    state = fault_run.driver.state
    assert state.best is None or state.best.trial not in dropped
    assert (state.dropped, state.dropping) == (dropped, {})
    if fault_run.schedule.compact_at is None and not limited:
        assert not dropped
    else:
        assert fault_run.driver.retention.removable == {}


def the_quota_of_checkpoints_held(fault_run: FaultRun) -> None:
    """At no moment more was held, and nothing waited in vain: no sweep was paused for it."""
    store = fault_run.spec.store
    if store.checkpoint_quota is None:
        return
    state = SweepState()
    for event in fault_run.events:
        state.apply(event)
        assert state.checkpoints.held.bytes <= store.checkpoint_quota
        assert not isinstance(event, PauseRequested) or "store." not in event.reason, event.reason


def what_has_ended_is_compacted(fault_run: FaultRun) -> None:
    """Of runs that ended by themselves no raw file is left, and no batch folder but for late results."""
    if fault_run.schedule.compact_at is None:
        return
    compaction_state = fault_run.driver.compaction_state
    assert (compaction_state.ready, compaction_state.batches, compaction_state.files) == ({}, {}, 0)
    raw = [path for path in fault_run.layout.trials.rglob("*") if path.is_file()]
    for path in raw:
        rung = int(path.name.removeprefix("metrics-").partition(".")[0])
        assert RunId(int(path.parent.name), rung) in compaction_state.raw
    assert len(compaction_state.parts) <= 1
    assert not list(fault_run.layout.compacted.glob(".*"))
    assert not list(fault_run.layout.compacted.glob("taken-*"))


def decisions_are_those_of_a_quiet_site(fault_run: FaultRun, folder: Path) -> None:
    """Where nothing learns on the way and no run failed, faults change neither trials nor the winner."""
    spec, state = fault_run.spec, fault_run.driver.state
    assert state.ended is not None
    failed = any(event.value is None for event in fault_run.events if isinstance(event, RunFinished))
    if (
        not _bracket_plans(fault_run)
        or spec.searcher.name == "tpe"
        or failed
        or "budget" in state.ended.reason
    ):
        return
    quiet = msgspec.structs.replace(
        fault_run.schedule, kills=0, flaky=0.0, stop=None, overrides=(*fault_run.schedule.overrides, *_QUIET)
    )
    spec = quiet.spec(folder)
    simulate(spec, curve_of(spec), folder=folder / "results", compact=False)
    other = SweepState.replay(read_journal(Layout(folder / "results")).events)
    assert _trials(state) == _trials(other)
    assert state.best == other.best


ALWAYS = (
    no_run_ends_twice,
    no_result_is_lost,
    each_intent_is_submitted_once,
    the_cap_always_held,
    rungs_are_exact,
    the_cost_is_right,
    no_report_is_lost,
    no_checkpoint_is_removed_that_is_needed,
    the_quota_of_checkpoints_held,
    what_has_ended_is_compacted,
)

_QUIET = ("cluster.simulated={nodes: 4, gpus: 4}", "resources.time=null", "budget.gpu_hours=null")


def _last_table(fault_run: FaultRun) -> pa.Table:
    """The reports, as they are read where the journal is not."""
    tables = read_tables(fault_run.layout)
    if tables is None:
        assert fault_run.schedule.compact_at is None
        return metrics_table(fault_run.layout, fault_run.events)
    return whole_table(fault_run.layout, tables.parts, tables.raw)


def _trials(state: SweepState) -> dict[int, list[tuple[Config, list[float | None]]]]:
    """By bracket: brackets are filled whenever there is room, so trial numbers may differ."""
    found: dict[int, list[tuple[Config, list[float | None]]]] = collections.defaultdict(list)
    for trial in state.trials:
        found[trial.bracket].append((trial.config, [run.value for run in trial.runs]))
    return found


def _site(fault_run: FaultRun) -> SimulatedOptions:
    site = fault_run.spec.cluster.simulated
    assert isinstance(site, SimulatedOptions)
    return site


def _names(fault_run: FaultRun, kind: type[BatchPlanned | BatchSubmitted | BatchAbandoned]) -> list[str]:
    return [event.batch for event in fault_run.events if isinstance(event, kind)]


def _bracket_plans(fault_run: FaultRun) -> list[BracketPlan]:
    """Of each bracket; none for a scheduler that is not synchronous."""
    options = dict(fault_run.spec.scheduler.options)
    match fault_run.spec.scheduler.name:
        case "halving":
            rounds = options.pop("rounds")
            return [halving_bracket(**options)] * (rounds or 1)
        case "hyperband":
            del options["iterations"]
            return hyperband_brackets(**options)
        case _:
            return []
