"""Why a trial was started, promoted or dropped: hand-made journals with known places, and driven sweeps."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from numpy.random import Generator

import tests.driver.sweeps as sweeps
from hpcsweep.cli.trial import explain as print_explanation
from hpcsweep.cli.trial import explanation_lines
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Config,
    ConfigsEnqueued,
    FailureKind,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    RunRetried,
    RunsAssigned,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TaskBegan,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
    WarmStartLoaded,
)
from hpcsweep.core.history import History
from hpcsweep.core.models import RunStatus
from hpcsweep.core.protocols import Promote, Scheduler, Start
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SpecError
from hpcsweep.schedulers.rungs import top_k
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers.random import Random
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.brackets import is_population
from hpcsweep.views.explain import explain
from hpcsweep.views.explanation import (
    Attempt,
    BestSoFar,
    Change,
    Creation,
    Explanation,
    RankComparison,
    RankedTrial,
    Repeat,
    Verdict,
)
from hpcsweep.views.folder import ResultsFolder
from tests.doubles import FolderCluster, quadratic


def started(*, mode: str = "min", picked: str = "", **identity: Any) -> SweepStarted:
    objective = {"metric": "loss", "mode": mode, "at": identity.pop("at", "last")}
    return SweepStarted("cafe01", "s", 100.0, {"objective": objective, **identity}, resolved_searcher=picked)


def created(trials: range, *, bracket: int = 0, resource: int = 1, **fields: Any) -> list[AnyEvent]:
    return [TrialCreated(trial, {"x": trial / 10}, bracket, resource, **fields) for trial in trials]


def planned(name: str, at: float, *runs: tuple[int, int]) -> BatchPlanned:
    return BatchPlanned(name, at, tuple((RunId(*run),) for run in runs), gpus=1, throttle=len(runs))


def ended(rung: int, values: Mapping[int, float | None], **fields: Any) -> list[AnyEvent]:
    return [
        RunFinished(t, rung, Outcome.FAILED if v is None else Outcome.COMPLETED, value=v, **fields)
        for t, v in values.items()
    ]


def promoted(rung: int, resource: int, *trials: int) -> list[AnyEvent]:
    return [TrialPromoted(trial, rung, resource) for trial in trials]


def of(events: Sequence[AnyEvent], trial: int) -> Explanation:
    return explain(events, SweepState.replay(events), trial)


def verdicts(events: list[AnyEvent], trial: int) -> list[Verdict]:
    return [rung.verdict for rung in of(events, trial).rungs]


def compared(events: list[AnyEvent], trial: int, rung: int = 0) -> RankComparison:
    comparison = of(events, trial).rungs[rung].comparison
    assert comparison is not None
    return comparison


def text(events: list[AnyEvent], trial: int) -> str:
    return "\n".join(explanation_lines(of(events, trial)))


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


# --------------------------------------------------------------------------- a Hyperband by hand

RUNG_0: dict[int, float | None] = {
    0: 0.9,
    1: 0.2,
    2: 0.5,
    3: 0.3,
    4: None,
    5: 0.7,
    6: 0.6,
    7: 0.8,
    8: 0.4,
}
NINE = range(9)
SCHEDULER = {"name": "hyperband", "min_resource": 1, "max_resource": 9, "eta": 3}
BEGUN: list[AnyEvent] = [
    started(scheduler=SCHEDULER, searcher={"name": "auto", "seed": 0}, picked="tpe"),
    *created(NINE),
    planned("b1", 200.0, *((trial, 0) for trial in NINE)),
]
#: Bracket 0 is 9x1 > 3x3 > 1x9; of bracket 1, which starts when its third trial ends, 2x3 > 1x9 is shown.
HYPERBAND: list[AnyEvent] = [
    *BEGUN,
    *ended(0, {trial: RUNG_0[trial] for trial in range(3)}, node="n1"),
    *created(range(9, 11), bracket=1, resource=3),
    planned("b2", 250.0, (9, 0), (10, 0)),
    *ended(0, {trial: RUNG_0[trial] for trial in range(3, 9)}, message="ValueError: no"),
    *promoted(1, 3, 1, 3, 8),
    planned("b3", 300.0, (1, 1), (3, 1), (8, 1)),
    *ended(1, {8: 0.35, 1: 0.15, 3: 0.1}),
    *promoted(2, 9, 3),
    planned("b4", 400.0, (3, 2)),
    *ended(0, {9: 0.01, 10: 0.02}),
    *ended(2, {3: 0.05}),
]


def test_a_promotion_shows_its_place_and_its_peers() -> None:
    second = of(HYPERBAND, 3).rungs[0]
    assert (second.verdict, second.submitted, second.value, second.mean) == (
        Verdict.PROMOTED,
        200.0,
        0.3,
        0.3,
    )
    assert second.comparison == RankComparison(
        resource=1,
        members=9,
        ended=9,
        without_value=1,
        place=2,
        went_on=3,
        worse=1,
        others=(1, 8),
        cut=RankedTrial(8, 3, 0.4, True),
        first_out=RankedTrial(2, 4, 0.5, False),
        named=(
            RankedTrial(1, 1, 0.2, True),
            RankedTrial(3, 2, 0.3, True),
            RankedTrial(8, 3, 0.4, True),
            RankedTrial(2, 4, 0.5, False),
            RankedTrial(6, 5, 0.6, False),
        ),
    )


def test_a_drop_shows_which_trials_were_promoted_instead() -> None:
    dropped = of(HYPERBAND, 0).rungs[-1]
    assert (dropped.verdict, dropped.reason, dropped.node) == (Verdict.DROPPED, "", "n1")
    assert dropped.comparison is not None
    assert (dropped.comparison.place, dropped.comparison.others) == (8, (1, 3, 8))
    assert dropped.comparison.cut == RankedTrial(8, 3, 0.4, True)
    assert dropped.comparison.named[-1] == RankedTrial(0, 8, 0.9, False)
    assert verdicts(HYPERBAND, 8) == [Verdict.PROMOTED, Verdict.DROPPED]
    assert compared(HYPERBAND, 8, 1).place == 3


def test_brackets_are_not_compared_with_each_other() -> None:
    # At resource 3 there are also trials 9 and 10 of bracket 1, better than any of bracket 0.
    assert compared(HYPERBAND, 3, 1).others == ()
    assert [peer.trial for peer in compared(HYPERBAND, 3, 1).named] == [3, 1, 8]
    assert [peer.trial for peer in compared(HYPERBAND, 9).named] == [9, 10]


def test_a_failed_run_is_never_considered() -> None:
    failed = of(HYPERBAND, 4)
    rung = failed.rungs[0]
    assert (rung.verdict, rung.outcome, rung.message, rung.comparison) == (
        Verdict.NO_VALUE,
        Outcome.FAILED,
        "ValueError: no",
        None,
    )
    assert (failed.value, failed.best) == (None, BestSoFar(9, 0.01, 3, None))


def test_completing_the_last_rung_is_no_drop() -> None:
    assert verdicts(HYPERBAND, 3) == [Verdict.PROMOTED, Verdict.PROMOTED, Verdict.LAST]


def test_an_open_decision_says_what_it_waits_for() -> None:
    some = BEGUN + ended(0, {0: 0.9, 1: 0.2, 4: None})
    waiting = of(some, 1).rungs[0]
    assert (waiting.verdict, waiting.reason) == (Verdict.OPEN, "3 of 9 have ended")
    assert verdicts(some, 2) == [Verdict.UNDER_WAY]
    everybody = BEGUN + ended(0, RUNG_0)
    assert of(everybody, 0).rungs[0].reason == "all 9 so far have ended"
    assert verdicts(everybody, 0) == [Verdict.OPEN]


def test_a_place_beyond_one_in_eta_is_dropped_once_no_trial_starts_any_more() -> None:
    closed = [*BEGUN, *ended(0, RUNG_0), TrialsExhausted("budget.trials 9 is reached", "budget")]
    assert verdicts(closed, 8) == [Verdict.OPEN]
    fourth = of(closed, 2).rungs[0]
    assert fourth.verdict is Verdict.DROPPED
    assert fourth.reason == "one in 3 goes on, and no trial starts any more (budget.trials 9 is reached)"


def test_the_end_of_the_sweep_drops_undecided_trials() -> None:
    end = SweepEnded(900.0, SweepOutcome.STOPPED, "stopped by ada")
    rung = of([*BEGUN, *ended(0, {0: 0.9, 1: 0.2}), end], 0).rungs[0]
    assert (rung.verdict, rung.reason) == (Verdict.DROPPED, "the sweep ended (stopped by ada)")


def test_without_a_known_largest_resource_the_largest_of_a_finished_sweep_is_the_last() -> None:
    events = [started(), *HYPERBAND[1:], SweepEnded(900.0, SweepOutcome.FINISHED, "all trials are done")]
    assert verdicts(events, 3)[-1] is Verdict.LAST
    assert verdicts(events, 9) == [Verdict.DROPPED]
    assert verdicts(events[:-1], 3)[-1] is Verdict.OPEN


def test_an_explanation_has_the_distance_to_the_best() -> None:
    assert of(HYPERBAND, 9).best == BestSoFar(9, 0.01, 3, 0.0)
    eighth = of(HYPERBAND, 8)
    assert (eighth.value, eighth.resource) == (0.35, 3)
    assert eighth.best == BestSoFar(9, 0.01, 3, 0.35 - 0.01)


def test_large_values_lead_where_the_objective_is_maximised() -> None:
    events = [started(mode="max", scheduler=SCHEDULER), *HYPERBAND[1:]]
    events = events[: events.index(TrialPromoted(1, 1, 3))]
    events += promoted(1, 3, 0, 7, 5)
    assert [peer.trial for peer in compared(events, 7).named] == [0, 7, 5, 6, 2]
    assert (compared(events, 1).place, compared(events, 1).cut) == (8, RankedTrial(5, 3, 0.7, True))
    assert of(events, 1).best == BestSoFar(0, 0.9, 1, 0.9 - 0.2)


# --------------------------------------------------------------------------- its beginning


def test_creation_counts_what_the_searcher_had_observed() -> None:
    assert of(HYPERBAND, 5).creation == Creation(
        0, 1, 200.0, "searcher", searcher="auto", resolved_searcher="tpe", asked=9
    )
    known = WarmStartLoaded("/old", (({"x": 0.5}, ((1, 0.4), (3, None))),))
    late = of([BEGUN[0], known, *HYPERBAND[1:]], 10).creation
    assert (late.bracket, late.submitted, late.asked) == (1, 250.0, 2)
    assert (late.observations, late.pending) == (2 + 3, 6)


def test_a_searcher_call_ends_where_the_bracket_or_the_origin_changes() -> None:
    events = [
        started(),
        ConfigsEnqueued(({"x": 0.0}, {"x": 0.1})),
        *created(range(2), origin="enqueued"),
        *created(range(2, 4)),
        *created(range(4, 7), bracket=1),
    ]
    assert [of(events, trial).creation.asked for trial in range(7)] == [0, 0, 2, 2, 3, 3, 3]
    assert [of(events, trial).creation.pending for trial in range(7)] == [0, 0, 2, 2, 4, 4, 4]


def test_enqueued_configurations_name_who_asked_for_them() -> None:
    events = [
        started(),
        ConfigsEnqueued(({"x": 0.0},)),
        ConfigsEnqueued(({"x": 0.1},), "17-ada.json"),
        *created(range(2), origin="enqueued"),
    ]
    assert [of(events, trial).creation.request for trial in (0, 1)] == ["", "17-ada.json"]
    assert "enqueued by the sweep file" in text(events, 0)
    assert "enqueued by the request 17-ada.json" in text(events, 1)


class Noting(Random):
    """Remembers for each configuration how much was known when it was proposed."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[int, tuple[int, int, int]] = {}

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        configs = super().ask(n, history, rng)
        for index in range(len(configs)):
            note = (len(configs), history.observed, len(history.pending))
            self.notes[history.proposed + index] = note
        return configs


def test_counts_agree_with_what_the_searcher_of_a_driven_sweep_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = Noting()
    monkeypatch.setattr(sweeps, "Random", lambda: searcher)
    cluster = FolderCluster(tmp_path / "c", objective=failing, per_poll=3)
    sweeps.drive(tmp_path / "s", cluster, scheduler=Hyperband(max_resource=9, iterations=2))
    folder = ResultsFolder(tmp_path / "s")
    for trial in range(len(folder.state.trials)):
        creation = explain(folder.events, folder.state, trial).creation
        assert (creation.asked, creation.observations, creation.pending) == searcher.notes[trial]
    assert max(observed for _, observed, _ in searcher.notes.values()) > 0


def failing(config: Config, resource: int) -> float | None:
    """Fails for a few configurations at their first rung, for others later."""
    x = config["x"]
    return None if 0.5 < x < 0.6 or (x < 0.1 and resource > 1) else quadratic(config, resource)


# --------------------------------------------------------------------------- driven sweeps


def assert_agrees_with_top_k(events: Sequence[AnyEvent], state: SweepState) -> None:
    """Each explanation of a synchronous sweep that has ended agrees with the ranks of its rungs."""
    for trial in state.trials:
        for run, rung in zip(trial.runs, of(events, trial.trial).rungs, strict=True):
            peers = [
                other.runs[run.rung]
                for other in state.trials
                if other.bracket == trial.bracket and run.rung < len(other.runs)
            ]
            values = {peer.trial: peer.value for peer in peers}
            ranked = top_k(values, len(values), minimise=state.minimise)
            on = [t for t in ranked if run.rung + 1 < len(state.trials[t].runs)]
            assert on == ranked[: len(on)]
            if run.value is None:
                assert rung.verdict is Verdict.NO_VALUE
                continue
            assert rung.comparison is not None
            assert (rung.comparison.ended, rung.comparison.members) == (len(peers), len(peers))
            assert rung.comparison.place == ranked.index(trial.trial) + 1
            assert rung.comparison.went_on == len(on)
            assert rung.comparison.others == tuple(t for t in on if t != trial.trial)
            cut, out = rung.comparison.cut, rung.comparison.first_out
            assert (cut.trial if cut else None) == (on[-1] if on else None)
            assert (out.trial if out else None) == (ranked[len(on)] if len(ranked) > len(on) else None)
            if rung.comparison.place <= len(on):
                assert rung.verdict is Verdict.PROMOTED
            else:
                assert rung.verdict is (Verdict.DROPPED if on else Verdict.LAST)


@pytest.mark.parametrize("per_poll", [2, 1_000_000])
def test_each_decision_of_a_driven_hyperband_agrees_with_the_best_of_its_rung(
    tmp_path: Path, per_poll: int
) -> None:
    cluster = FolderCluster(tmp_path / "c", objective=failing, per_poll=per_poll)
    sweeps.drive(tmp_path / "s", cluster, scheduler=Hyperband(max_resource=27))
    folder = ResultsFolder(tmp_path / "s")
    assert len(folder.state.trials) > 40
    assert_agrees_with_top_k(folder.events, folder.state)


def played(scheduler: Scheduler, mode: str, *, slots: int) -> list[AnyEvent]:
    """A sweep of random values and endings in random order."""
    rng = random.Random(f"{mode} {slots}")
    events: list[AnyEvent] = [started(mode=mode, scheduler={"max_resource": 9, "eta": 3})]
    running: list[tuple[int, int]] = []
    trials = 0

    def put(event: AnyEvent) -> None:
        events.append(event)
        scheduler.apply(event)

    while not scheduler.done or running:
        for decision in scheduler.decide(slots - len(running)):
            match decision:
                case Start():
                    put(TrialCreated(trials, {"x": 0.0}, decision.bracket, decision.resource))
                    running.append((trials, 0))
                    trials += 1
                case Promote():
                    put(TrialPromoted(decision.trial, decision.rung, decision.resource))
                    running.append((decision.trial, decision.rung))
                case _:
                    raise AssertionError(decision)
        trial, rung = running.pop(rng.randrange(len(running)))
        value = None if rng.random() < 0.2 else round(rng.random(), 1)
        put(ended(rung, {trial: value})[0])
    put(SweepEnded(900.0, SweepOutcome.FINISHED, "all trials are done"))
    return events


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("slots", [1, 4, 100])
def test_any_order_of_endings_is_explained_as_it_was_decided(mode: str, slots: int) -> None:
    scheduler = Hyperband(max_resource=9, iterations=2, minimise=mode == "min")
    events = played(scheduler, mode, slots=slots)
    assert_agrees_with_top_k(events, SweepState.replay(events))


# --------------------------------------------------------------------------- asynchronous

#: One in three goes on as soon as it can be told; trial 6 comes last and is better than 0, which went on.
ASHA: list[AnyEvent] = [
    started(scheduler={"name": "asha", "max_resource": 9, "eta": 3}),
    *created(range(4)),
    planned("b1", 200.0, *((trial, 0) for trial in range(4))),
    *ended(0, {0: 0.5, 1: 0.6, 2: 0.7}),
    *promoted(1, 3, 0),
    *created(range(4, 6)),
    *ended(0, {3: 0.8, 4: 0.2}),
    *ended(0, {5: 0.4}),
    *promoted(1, 3, 4),
    *created(range(6, 7)),
    *ended(0, {6: 0.45}),
]


def test_an_asynchronous_promotion_counts_who_had_ended_by_then() -> None:
    early, late = compared(ASHA, 0), compared(ASHA, 4)
    assert (early.place, early.ended, early.went_on) == (1, 3, 1)
    assert [peer.trial for peer in early.named] == [0, 1, 2]
    assert (late.place, late.ended, late.went_on, late.worse) == (1, 6, 2, 1)
    assert late.others == (0,)
    assert (
        "promoted: 1st of 6 ended at resource 1 in bracket 0 when it was promoted; 2 had gone on by then"
        in (text(ASHA, 4))
    )


def test_an_asynchronous_rung_stays_open_until_the_sweep_ends() -> None:
    assert verdicts(ASHA, 6) == [Verdict.OPEN]
    third = of([*ASHA, SweepEnded(900.0, SweepOutcome.FINISHED, "all trials are done")], 6).rungs[0]
    assert third.comparison is not None
    assert (third.verdict, third.reason) == (Verdict.DROPPED, "the sweep ended (all trials are done)")
    assert (third.comparison.place, third.comparison.went_on, third.comparison.worse) == (3, 2, 1)
    assert third.comparison.cut == RankedTrial(0, 4, 0.5, True)
    assert third.comparison.first_out == RankedTrial(5, 2, 0.4, False)
    lines = text([*ASHA, SweepEnded(900.0, SweepOutcome.FINISHED, "all trials are done")], 6).splitlines()
    assert lines[4] == (
        "  dropped: 3rd of 7 ended at resource 1 in bracket 0; 2 went on, 1 with a worse value, "
        "promoted earlier; the sweep ended (all trials are done)"
    )
    assert lines[5:7] == [
        "    went on: 1st trial 4 0.2, 4th trial 0 0.5",
        "    not: 2nd trial 5 0.4, 3rd trial 6 0.45 (this one), 5th trial 1 0.6",
    ]


def test_a_rung_of_an_unknown_scheduler_is_closed_only_by_one_decision_for_all() -> None:
    unknown = started(scheduler={"name": "mine", "max_resource": 9})
    begin: list[AnyEvent] = [unknown, *created(range(3)), *ended(0, {0: 0.5, 1: 0.6})]
    early = [*begin, *promoted(1, 3, 0)]
    assert verdicts(early, 1) == [Verdict.OPEN]
    whole = [*begin, *ended(0, {2: 0.7}), *promoted(1, 3, 0)]
    assert verdicts(whole, 1) == [Verdict.DROPPED]
    assert verdicts([*whole, *created(range(3, 4))], 1) == [Verdict.OPEN]
    as_asha = [started(scheduler={"name": "asha", "max_resource": 9}), *whole[1:]]
    assert verdicts(as_asha, 1) == [Verdict.OPEN]


# --------------------------------------------------------------------------- clones

#: Four members of a population, a bracket each; the worst one is replaced by a clone of the best.
POPULATION: list[AnyEvent] = [
    started(scheduler={"name": "pbt", "max_resource": 20}),
    *(event for n in range(4) for event in created(range(n, n + 1), bracket=n, resource=10)),
    *ended(0, {0: 0.4, 1: 0.1, 2: 0.3, 3: 0.2}),
    TrialCreated(4, {"x": 0.12, "y": None}, 0, 20, parent=1, start=10, origin="clone"),
    *promoted(1, 20, 1, 2, 3),
    planned("b2", 300.0, (4, 0), (1, 1), (2, 1), (3, 1)),
    *ended(0, {4: 0.05}),
    *ended(1, {1: 0.06, 2: 0.25, 3: None}),
]


def test_a_clone_shows_its_parent_its_changes_and_which_trial_it_replaced() -> None:
    creation = of(POPULATION, 4).creation
    assert creation == Creation(
        0,
        20,
        300.0,
        "clone",
        parent=1,
        start=10,
        changes=(Change("x", 0.1, 0.12), Change("y", after=None)),
        replaces=0,
    )
    assert (
        "a clone of trial 1 from its step 10, replacing trial 0; changed: x 0.1 -> 0.12, y absent -> null"
    ) in text(POPULATION, 4)


def test_a_population_is_compared_as_a_whole_at_the_same_resource() -> None:
    assert of(POPULATION, 0).pooled
    replaced = of(POPULATION, 0).rungs[0]
    assert (replaced.verdict, replaced.reason) == (
        Verdict.DROPPED,
        "trial 4, a clone of trial 1, took its place",
    )
    assert replaced.comparison is not None
    assert [peer.trial for peer in replaced.comparison.named] == [1, 3, 2, 0]
    clone = next(event for event in POPULATION if isinstance(event, TrialCreated) and event.parent)
    failed = [*POPULATION[:5], *ended(0, {0: None, 1: 0.1}), clone]
    assert text(failed, 0).splitlines()[-2] == (
        "  never considered, without a value; trial 4, a clone of trial 1, took its place"
    )
    # The clone's first rung is the others' second one.
    assert [peer.trial for peer in compared(POPULATION, 4).named] == [4, 1, 2]
    assert verdicts(POPULATION, 1) == [Verdict.PROMOTED, Verdict.LAST]


def test_brackets_of_one_trial_each_without_clones_are_no_population() -> None:
    begun = started(scheduler={"name": "halving", "max_resource": 10, "rounds": 3})
    rounds = [TrialCreated(trial, {"x": 0.0}, trial, 10) for trial in range(3)]
    events = [begun, *rounds, *ended(0, {0: 0.1, 1: 0.2, 2: 0.3})]
    assert not of(events, 1).pooled
    assert not is_population(SweepState.replay(events))


def test_the_population_of_pbt_is_one_before_its_first_clone() -> None:
    begun = started(scheduler={"name": "pbt", "max_resource": 10})
    events: list[AnyEvent] = [begun, *(TrialCreated(trial, {"x": 0.0}, trial, 10) for trial in range(3))]
    assert of(events, 1).pooled
    assert is_population(SweepState.replay(events))


def test_a_clone_beside_other_trials_of_its_bracket_replaces_none() -> None:
    events = [started(), *created(range(3)), *ended(0, {0: 0.1, 1: 0.2, 2: 0.3})]
    events.append(TrialCreated(3, {"x": 0.0}, 0, 20, parent=1, start=1, origin="clone"))
    assert of(events, 3).creation.replaces is None
    assert not of(events, 3).pooled
    assert verdicts(events, 2) == [Verdict.OPEN]


# --------------------------------------------------------------------------- stopped, interrupted, repeated

WATCHED: list[AnyEvent] = [
    *created(range(3), resource=9),
    planned("b1", 200.0, (0, 0), (1, 0), (2, 0)),
    RunReported(0, 0, ((1, 0.3), (2, 0.5))),
    RunReported(1, 0, ((1, 0.6), (2, 0.4), (3, 0.1))),
    RunReported(2, 0, ((1, 0.8), (2, 0.9))),
    TrialStopped(2, "median: 0.8 at step 2 is worse than the median 0.35"),
    RunReported(0, 0, ((3, 0.2),)),
    RunFinished(2, 0, Outcome.STOPPED, value=0.9, step=2, message="median: 0.8 at step 2"),
]


def test_a_stopped_trial_shows_the_rule_and_its_peers_reports() -> None:
    for begin, values in ((started(), (0.4, 0.5, 0.9)), (started(at="best"), (0.3, 0.4, 0.8))):
        rung = of([begin, *WATCHED], 2).rungs[0]
        assert (rung.verdict, rung.status, rung.step) == (Verdict.STOPPED, RunStatus.STOPPED, 2)
        assert rung.reason == "median: 0.8 at step 2 is worse than the median 0.35"
        assert rung.comparison is not None
        assert (rung.comparison.resource, rung.comparison.place) == (2, 3)
        assert tuple(peer.value for peer in rung.comparison.named) == values
    stopped = of([started(), *WATCHED], 2)
    assert (stopped.value, stopped.resource) == (0.9, 2)
    assert "3rd of 3 that had reported at step 2 in bracket 0 by then" in text([started(), *WATCHED], 2)


def test_a_trial_stopped_before_any_report_has_nobody_to_compare_with() -> None:
    events = [
        started(),
        *created(range(1), resource=9),
        TrialStopped(0, "too slow"),
        RunFinished(0, 0, Outcome.STOPPED),
    ]
    rung = of(events, 0).rungs[0]
    assert (rung.verdict, rung.reason, rung.comparison) == (Verdict.STOPPED, "too slow", None)
    assert text(events, 0).splitlines()[-2:] == [
        "  stopped: too slow",
        "no run of the sweep has given a value yet",
    ]


def test_a_stopped_run_takes_no_place_among_those_that_may_go_on() -> None:
    events = [started(), *WATCHED, *ended(0, {0: 0.95, 1: 0.97})]
    comparison = compared(events, 0)
    assert (comparison.place, comparison.ended, comparison.without_value) == (1, 3, 1)


#: Trial 0: preempted, run again by the cluster, its node fails, given up; retried, and completed.
TRIED: list[AnyEvent] = [
    *BEGUN,
    RunInterrupted(
        0,
        0,
        Interruption.PREEMPTED,
        requeued=True,
        step=7,
        seconds=12.0,
        node="n1",
        job="11_0",
        message="preempted (n1)",
    ),
    RunInterrupted(0, 0, Interruption.NODE_FAIL, restart=1, node="n2", job="11_0", message="its node failed"),
    planned("b2", 230.0, (0, 0)),
    RunFinished(
        0, 0, Outcome.LOST, attempt=1, seconds=7260.0, node="n3", job="12_0", message="given up after 3"
    ),
    RunRetried(0, 0, "17-ada.json"),
    planned("b3", 900.0, (0, 0)),
    RunFinished(0, 0, Outcome.COMPLETED, 0.25, 1, attempt=2, seconds=240.0, node="n1", job="13_0"),
]


def test_every_attempt_shows_its_outcome_node_and_duration() -> None:
    rung = of(TRIED, 0).rungs[0]
    assert rung.attempts == (
        Attempt(0, 0, None, Interruption.PREEMPTED, 7, "n1", "11_0", 12.0, "preempted (n1)"),
        Attempt(0, 1, None, Interruption.NODE_FAIL, 0, "n2", "11_0", 0.0, "its node failed", number=2),
        Attempt(
            1,
            0,
            Outcome.LOST,
            None,
            0,
            "n3",
            "12_0",
            7260.0,
            "given up after 3",
            True,
            "17-ada.json",
            FailureKind.LOST,
            number=3,
        ),
        Attempt(2, 0, Outcome.COMPLETED, None, 1, "n1", "13_0", 240.0, "", number=4),
    )
    assert (rung.batches, rung.begun, rung.submitted, rung.verdict) == (3, 4, 200.0, Verdict.OPEN)
    begin = [
        "trial 0: x=0",
        "created in bracket 0 at resource 1, submitted 1970-01-01 00:03:20",
        (
            "  proposed with 8 others by auto (tpe, chosen by it), which knew 0 observations and "
            "0 pending configurations"
        ),
    ]
    earlier = [
        "  attempt 1: preempted at step 7 on n1 (job 11_0, 12 s): preempted (n1)",
        "  attempt 2, restart 1 of its task: node failed on n2 (job 11_0): its node failed",
    ]
    given_up = "  attempt 3: lost for good on n3 (job 12_0, 2.02 h): given up after 3"
    retried = f"{given_up}; then tried again by the request 17-ada.json"
    nothing = "no run of the sweep has given a value yet"
    in_this_order = {
        len(BEGUN) + 2: ["rung 0, resource 1: waits to be submitted", *earlier, "  under way", nothing],
        len(BEGUN) + 3: ["rung 0, resource 1: submitted, attempt 3", *earlier, "  under way", nothing],
        len(BEGUN) + 4: [
            "rung 0, resource 1: lost for good in attempt 3 on n3 (job 12_0, 2.02 h): given up after 3",
            *earlier,
            "  never considered, without a value",
            nothing,
        ],
        len(BEGUN) + 6: [
            "rung 0, resource 1: submitted, attempt 4",
            *earlier,
            retried,
            "  under way",
            nothing,
        ],
        len(TRIED): [
            "rung 0, resource 1: completed in attempt 4 on n1 (job 13_0, 4 min) with loss 0.25",
            *earlier,
            retried,
            (
                "  not decided yet: 1st of 1 ended at resource 1 in bracket 0; 0 went on so far; "
                "1 of 9 have ended"
            ),
            "it is the best of the sweep: 0.25 at resource 1",
        ],
    }
    for count, lines in in_this_order.items():
        assert text(TRIED[:count], 0).splitlines() == [*begin, *lines]


def test_each_step_to_more_memory_is_shown_with_what_the_run_had_and_used() -> None:
    over = "its processes held {} MiB, more than the {} MiB of the run"
    begun = [planned("b0", 200.0, (0, 0)), planned("b1", 230.0, (0, 0)), planned("b2", 260.0, (0, 0))]
    had = [msgspec.structs.replace(event, mem_mib=100 << n) for n, event in enumerate(begun)]
    lacks = [
        RunInterrupted(
            *(0, 0, Interruption.OUT_OF_MEMORY),
            attempt=n,
            batch=f"b{n}",
            step=n,
            seconds=12.0,
            message=over.format(101 << n, 100 << n),
            peak_mib=101 << n,
            mem_mib=100 << n,
        )
        for n in range(2)
    ]
    done = RunFinished(0, 0, Outcome.COMPLETED, 0.25, 1, attempt=2, batch="b2", peak_mib=312, seconds=12.0)
    events = [*BEGUN[:-1], had[0], lacks[0], had[1], lacks[1], had[2], done]
    assert text(events, 0).splitlines()[3:9] == [
        "rung 0, resource 1: completed in attempt 3 (12 s) with loss 0.25",
        f"  attempt 1: out of memory, to be retried (12 s): {lacks[0].message}",
        "  used at most 101M of 100M of memory",
        f"  attempt 2: out of memory, to be retried at step 1 (12 s): {lacks[1].message}",
        "  used at most 202M of 200M of memory",
        "  used at most 312M of 400M of memory",
    ]


def test_the_time_that_a_task_held_its_gpus_without_a_run_is_shown_before_each_of_its_runs() -> None:
    one, two = RunId(0, 0), RunId(1, 0)
    events = [
        started(),
        *created(range(2)),
        BatchPlanned("b", 1000.0, ((),), 1, 1, "slurm", reuse=True),
        TaskBegan("b", 1300.0, 0, 0, 1299.0),
        RunsAssigned("b", 1300.0, 0, (one,)),
        RunFinished(0, 0, Outcome.COMPLETED, 0.5, 1, batch="b", seconds=60.0, started=1302.5, node="n1"),
        RunsAssigned("b", 1364.0, 0, (two,), number=1),
        RunFinished(1, 0, Outcome.COMPLETED, 0.4, 1, batch="b", seconds=60.0, started=1365.75, node="n1"),
    ]
    (first,), (second,) = (of(events, trial).rungs[0].attempts for trial in (0, 1))
    assert (first.assigned, first.idle_s, first.first_of_task) == (1300.0, 3.5, True)
    assert (second.assigned, second.idle_s, second.first_of_task) == (1364.0, 3.25, False)
    assert text(events, 0).splitlines()[3:5] == [
        "rung 0, resource 1: completed on n1 (60 s) with loss 0.5",
        "  began 3.5 s after its task did",
    ]
    assert "  began 3.2 s after the previous run of its task ended" in text(events, 1).splitlines()


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Interruption.TIMEOUT, "timed out"),
        (Interruption.CANCELLED, "cancelled by the user"),
        (Interruption.CANCELLED_BY_ADMIN, "cancelled by an admin"),
        (Interruption.TRAINING_ERROR, "failed, to be retried"),
        (Interruption.NEVER_STARTED, "impossible to start"),
        (Interruption.WORKER_DIED, "ended without a result"),
        (Interruption.LOST, "lost"),
        (Interruption.NOT_STARTED, "not begun"),
        (Interruption.SWEEP_STOPPED, "cancelled with the sweep"),
        (Outcome.OUT_OF_MEMORY, "out of memory"),
        (Outcome.FAILED, "crashed"),
    ],
)
def test_every_outcome_has_its_own_text(ending: Outcome | Interruption, words: str) -> None:
    if isinstance(ending, Interruption):
        events = [*BEGUN, RunInterrupted(0, 0, ending, node="n1", message="why")]
        began = ending not in (Interruption.NEVER_STARTED, Interruption.NOT_STARTED)
        attempt = "attempt 1" if began else "before attempt 1"
        assert text(events, 0).splitlines()[4] == f"  {attempt}: {words} on n1: why"
    else:
        events = [*BEGUN, RunFinished(0, 0, ending, node="n1", message="why")]
        assert text(events, 0).splitlines()[3] == f"rung 0, resource 1: {words} on n1: why"


def test_a_run_retried_before_the_decision_is_ranked_in_it() -> None:
    retried = [*BEGUN, *ended(0, {4: None}), RunRetried(4, 0)]
    assert of(retried, 4).rungs[0].verdict is Verdict.UNDER_WAY
    begun = retried + ended(0, {trial: value for trial, value in RUNG_0.items() if trial != 4})
    assert of(begun, 0).rungs[0].reason == "8 of 9 have ended"
    decided = [*begun, *ended(0, {4: 0.1}), *promoted(1, 3, 4, 1, 3)]
    assert verdicts(decided, 4) == [Verdict.PROMOTED, Verdict.UNDER_WAY]
    assert (compared(decided, 0).place, compared(decided, 0).without_value) == (9, 0)
    assert compared(decided, 0).others == (4, 1, 3)


def test_a_run_retried_after_the_decision_does_not_change_past_places() -> None:
    before = compared(HYPERBAND, 0)
    for events in (
        [*HYPERBAND, RunRetried(4, 0)],
        [*HYPERBAND, RunRetried(4, 0), *ended(0, {4: 0.001})],
    ):
        assert compared(events, 0) == before
        assert verdicts(events, 0) == [Verdict.DROPPED]
    late = of([*HYPERBAND, RunRetried(4, 0), *ended(0, {4: 0.001})], 4)
    assert (late.rungs[0].verdict, late.best) == (Verdict.DROPPED, BestSoFar(4, 0.001, 1, 0.0))
    assert text([*HYPERBAND, RunRetried(4, 0), *ended(0, {4: 0.001})], 4).splitlines()[5:7] == [
        (
            "  dropped: without a place of 9 ended at resource 1 in bracket 0 (1 without a value); "
            "3 went on; tried again after that"
        ),
        "    went on: 1st trial 1 0.2, 2nd trial 3 0.3, 3rd trial 8 0.4",
    ]


def repeated(*values: float | None) -> list[AnyEvent]:
    """Three configurations of two repeats each; only so many have ended."""
    events: list[AnyEvent] = [started(repeats=2, scheduler={"name": "halving", "max_resource": 3, "eta": 3})]
    events += [TrialCreated(t, {"x": t // 2}, 0, 1, repeat=t % 2) for t in range(6)]
    return events + ended(0, dict(enumerate(values)))


def test_repeats_are_ranked_by_the_mean_of_their_configuration() -> None:
    events = [*repeated(0.1, 0.9, 0.4, 0.5, 0.7, 0.6), *promoted(1, 3, 2, 3)]
    second = of(events, 3)
    assert (second.first, second.repeat, second.repeats) == (2, 1, 2)
    rung = second.rungs[0]
    assert (rung.value, rung.mean) == (0.5, (0.4 + 0.5) / 2)
    assert rung.repeats == (
        Repeat(2, RunStatus.COMPLETED, 0.4),
        Repeat(3, RunStatus.COMPLETED, 0.5),
    )
    assert rung.verdict is Verdict.PROMOTED
    assert rung.comparison is not None
    assert (rung.comparison.place, rung.comparison.ended) == (1, 3)
    assert [peer.trial for peer in rung.comparison.named] == [2, 0, 4]
    best_single = of(events, 0)
    assert best_single.rungs[0].verdict is Verdict.DROPPED
    assert compared(events, 0).place == 2
    assert best_single.best == BestSoFar(2, 0.45, 1, 0.5 - 0.45)
    assert best_single.creation.asked == 3


def test_a_configuration_waits_for_its_repeats_and_fails_with_them() -> None:
    waiting = of(repeated(0.1), 0).rungs[0]
    assert (waiting.verdict, waiting.reason) == (Verdict.UNDER_WAY, "1 of 2 repeats have ended")
    failed = of(repeated(0.1, None), 0).rungs[0]
    assert (failed.verdict, failed.reason, failed.mean) == (Verdict.NO_VALUE, "trial 1 failed", None)
    assert text(repeated(0.1, None), 0).splitlines()[1:2] == [
        "repeat 1 of 2 of its configuration: trials 0 to 1, compared by their mean and named by the first"
    ]


# --------------------------------------------------------------------------- how it is shown


@pytest.mark.parametrize("events", [HYPERBAND, ASHA, POPULATION, [started(), *WATCHED], repeated(0.1)])
def test_an_explanation_survives_json(events: list[AnyEvent]) -> None:
    for trial in range(len(SweepState.replay(events).trials)):
        found = of(events, trial)
        assert msgspec.json.decode(msgspec.json.encode(found), type=Explanation) == found


def test_a_retried_repeat_is_awaited_with_the_others() -> None:
    events = [*repeated(0.1, None, 0.4, None, 0.7, 0.6), RunRetried(1, 0)]
    waiting = of(events, 0).rungs[0]
    assert (waiting.verdict, waiting.reason) == (Verdict.UNDER_WAY, "1 of 2 repeats have ended")
    events += [*ended(0, {1: 0.3}), RunRetried(3, 0), *created(range(6, 7))]
    assert (of(events, 0).rungs[0].mean, compared(events, 0).place) == (0.2, 1)
    assert (compared(events, 0).ended, compared(events, 0).without_value) == (2, 0)
    # A value and a failure of the first, a failure of the second, a value of the third.
    assert of(events, 6).creation.observations == 4


def test_the_text_of_a_promoted_and_dropped_trial() -> None:
    assert text(HYPERBAND, 8) == (
        "trial 8: x=0.8\n"
        "created in bracket 0 at resource 1, submitted 1970-01-01 00:03:20\n"
        "  proposed with 8 others by auto (tpe, chosen by it), which knew 0 observations and "
        "0 pending configurations\n"
        "rung 0, resource 1: completed with loss 0.4\n"
        "  promoted: 3rd of 9 ended at resource 1 in bracket 0 (1 without a value) when it was promoted; "
        "3 had gone on by then\n"
        "    went on: 1st trial 1 0.2, 2nd trial 3 0.3, 3rd trial 8 0.4 (this one)\n"
        "    not: 4th trial 2 0.5, 5th trial 6 0.6\n"
        "rung 1, resource 3: completed with loss 0.35\n"
        "  dropped: 3rd of 3 ended at resource 3 in bracket 0; 1 went on\n"
        "    went on: 1st trial 3 0.1\n"
        "    not: 2nd trial 1 0.15, 3rd trial 8 0.35 (this one)\n"
        "it has 0.35 at resource 3, 0.34 worse than the best, trial 9: 0.01 at resource 3"
    )
    assert "    not: 4th trial 2 0.5, 5th trial 6 0.6, .., 8th trial 0 0.9 (this one)\n" in text(HYPERBAND, 0)
    assert text(HYPERBAND, 9).endswith("it is the best of the sweep: 0.01 at resource 3")
    assert text(HYPERBAND, 4).splitlines()[-3:] == [
        "rung 0, resource 1: crashed: ValueError: no",
        "  never considered, without a value",
        "it has no value; the best is trial 9: 0.01 at resource 3",
    ]


def test_the_text_of_trials_under_way() -> None:
    fresh = [started(), *created(range(1))]
    assert text(fresh, 0).splitlines()[1:] == [
        "created in bracket 0 at resource 1, not submitted yet",
        "  proposed by the searcher, which knew 0 observations and 0 pending configurations",
        "rung 0, resource 1: waits to be submitted",
        "  under way",
        "no run of the sweep has given a value yet",
    ]
    some = BEGUN + ended(0, {0: 0.9, 1: 0.2})
    assert "rung 0, resource 1: submitted, attempt 1\n  under way\n" in text(some, 2)
    assert (
        "not decided yet: 1st of 2 ended at resource 1 in bracket 0; 0 went on so far; 2 of 9 have ended"
        in (text(some, 1))
    )


def test_a_trial_of_five_rungs_fits_a_screen() -> None:
    events: list[AnyEvent] = [started(scheduler={"name": "hyperband", "max_resource": 81, "eta": 3})]
    events += created(range(81))
    for rung, count in enumerate((81, 27, 9, 3, 1)):
        events += promoted(rung, 3**rung, *range(count)) if rung else []
        events += ended(rung, {trial: trial / 100 for trial in range(count)})
    assert verdicts(events, 0) == [Verdict.PROMOTED] * 4 + [Verdict.LAST]
    assert len(text(events, 0).splitlines()) <= 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journal = Journal.open(Layout(tmp_path / "s"))
    journal.commit(HYPERBAND)
    journal.release()
    return tmp_path / "s"


def test_the_verb_prints_text_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(folder, 8, json=False)
    assert capsys.readouterr().out == text(HYPERBAND, 8) + "\n"
    print_explanation(folder, 8, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(msgspec.json.encode(of(HYPERBAND, 8)))
    assert printed["rungs"][1]["verdict"] == "dropped"


def test_an_unknown_trial_is_an_error_that_names_the_valid_range() -> None:
    for number in (11, -1):
        with pytest.raises(SpecError, match=f"TRIAL: expected one of 0 to 10, got {number}"):
            of(HYPERBAND, number)
    with pytest.raises(SpecError, match="TRIAL: expected none, no trial was started yet, got 0"):
        of([started()], 0)


def test_the_verb_refuses_unknown_trials_and_folders_with_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        (folder, 99): "hpcsweep: TRIAL: expected one of 0 to 10, got 99\n",
        (folder.parent, 0): "is not a results folder",
        (folder / "nowhere", 0): "does not exist",
    }
    for (path, trial), words in wrong.items():
        with pytest.raises(typer.Exit) as told:
            print_explanation(path, trial, json=False)
        assert told.value.exit_code == 2
        assert words in capsys.readouterr().err
