"""Whose checkpoints may be removed: never one that is needed later, and in the end all others."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    CheckpointsDropped,
    CheckpointsRemoved,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.events import Interruption as Why
from hpcsweep.core.protocols import Clone, Promote, Scheduler, Start, Stop
from hpcsweep.core.retention import Retention
from hpcsweep.core.space import Float, Parameter, Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.planner import RepeatAdapter
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.pbt import PBT
from hpcsweep.schedulers.stopping_rules import Plateau, WithStoppingRules
from hpcsweep.schedulers.synchronous import Halving, Hyperband

STARTED = SweepStarted("cafe01", "s", 0.0, {"objective": {"mode": "min"}})
SPACE = Space((Parameter("x", Float(0.0, 1.0)),), ())


class Sweep:
    """A sweep whose runs end in any order; what may be removed is removed at once.

    It fails as soon as a trial goes on whose checkpoint was removed, or the best one's was. Where room is
    `short`, what only a retry or an extension could go on with is removed as well.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        seed: int = 0,
        repeats: int = 1,
        failing: float = 0.0,
        short: bool = False,
    ) -> None:
        self.short = short
        self.chance = random.Random(seed)
        self.failing = failing
        self.scheduler = scheduler
        self.state = SweepState()
        self.repeats = RepeatAdapter(self.state)
        self.retention = Retention(self.state, scheduler)
        self.events: list[AnyEvent] = []
        self.happen(SweepStarted("cafe01", "s", 0.0, {"objective": {"mode": "min"}, "repeats": repeats}))

    def happen(self, event: AnyEvent) -> None:
        self.events.append(event)
        self.state.apply(event)
        told = self.repeats.translate(event)
        if told is not None:
            self.scheduler.apply(told)
        self.retention.apply(event)
        if trials := (*self.retention.removable, *(self.retention.spare() if self.short else ())):
            self.happen(CheckpointsDropped(trials))
            self.happen(CheckpointsRemoved(trials, trials, len(trials), 10 * len(trials)))
        best = self.state.best
        assert best is None or best.trial not in self.state.dropped, "the best was removed"
        for trial in self.state.trials:
            needed = ("waiting", "submitted") if self.short else ("failed", "waiting", "submitted")
            if not trial.stopped and trial.runs[-1].status.value in needed:
                assert trial.trial not in self.state.dropped, f"trial {trial.trial} may go on"

    def decide(self, slots: int) -> None:
        for decision in self.scheduler.decide(slots):
            index = len(self.state.trials) // self.state.repeats
            match decision:
                case Start():
                    for event in self.repeats.created({"x": self.chance.random()}, decision, index=index):
                        self.happen(event)
                case Clone(bracket, resource, parent, start, config):
                    assert parent not in self.state.dropped, "a clone of a trial whose checkpoint was removed"
                    self.happen(TrialCreated(index, config, bracket, resource, parent, "clone", start=start))
                case Promote():
                    for promoted in self.repeats.promoted(decision):
                        assert promoted.trial not in self.state.dropped, "promoted after its removal"
                        self.happen(promoted)
                case Stop():
                    for stopped in self.repeats.stopped(decision):
                        self.happen(stopped)

    def end_one(self) -> None:
        run = self.chance.choice(list(self.state.waiting))
        name = f"b{len(self.events)}"
        self.happen(BatchPlanned(name, 0.0, ((run,),), gpus=1, throttle=1))
        if self.chance.random() < 0.1:
            self.happen(RunInterrupted(*run, Why.PREEMPTED, batch=name))
        else:
            outcome = Outcome.COMPLETED
            value: float | None = self.chance.random()
            if self.chance.random() < self.failing:
                # A lost repeat that is tried again changes the value of its configuration.
                kinds = [Outcome.FAILED, Outcome.LOST] if self.state.repeats == 1 else [Outcome.FAILED]
                outcome, value = self.chance.choice(kinds), None
            elif self.state.trials[run.trial].stopped:
                outcome = Outcome.STOPPED
            self.happen(RunFinished(*run, outcome, value, batch=name))
        self.happen(BatchClosed(name))

    def retry_one(self) -> None:
        failed = [
            trial.runs[-1].id
            for trial in self.state.trials
            if trial.runs[-1].status.value == "failed" and not trial.stopped
        ]
        if failed:
            self.happen(RunRetried(*self.chance.choice(failed)))

    def play(self, *, most_trials: int = 60, retries: int = 0) -> Sweep:
        """To its end."""
        while True:
            self.decide(4)
            if len(self.state.trials) >= most_trials and self.state.no_more_trials is None:
                self.happen(TrialsExhausted("enough", "budget"))
            if not self.state.waiting:
                if not retries:
                    break
                retries -= 1
                self.retry_one()
                continue
            self.end_one()
            if retries and self.chance.random() < 0.05:
                retries -= 1
                self.retry_one()
        self.happen(SweepEnded(0.0, SweepOutcome.FINISHED, "done"))
        return self

    @property
    def held(self) -> list[int]:
        """Trials that have their checkpoints."""
        return [trial.trial for trial in self.state.trials if trial.trial not in self.state.dropped]


SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "fifo": lambda: Fifo(max_resource=4, trials=12),
    "halving": lambda: Halving(max_resource=8, rounds=2),
    "hyperband": lambda: Hyperband(max_resource=27),
    "hyperband, cut short": lambda: Hyperband(max_resource=81),
    "asha": lambda: ASHA(max_resource=9, trials=40),
    "asha, endless": lambda: ASHA(max_resource=9),
    "asha, with brackets": lambda: ASHA(max_resource=9, brackets=3, trials=50),
    "asha, stopping": lambda: ASHA(max_resource=9, trials=20, stopping=True),
    "pbt": lambda: PBT(population=6, interval=2, max_resource=8, space=SPACE, seed=0),
    "with a rule": lambda: WithStoppingRules(Hyperband(max_resource=9), rules=[Plateau()]),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("seed", range(12))
def test_removed_checkpoints_are_never_needed_again(name: str, seed: int) -> None:
    failing = 0.3 if seed % 2 else 0.0
    sweep = Sweep(SCHEDULERS[name](), seed=seed, failing=failing).play(retries=seed % 4 * 3)
    replayed = SweepState.replay(sweep.events)
    assert (replayed.dropped, replayed.dropping) == (sweep.state.dropped, {})


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("seed", range(6))
def test_where_room_is_short_only_the_best_and_what_may_be_promoted_stay(name: str, seed: int) -> None:
    failing = 0.3 if seed % 2 else 0.0
    sweep = Sweep(SCHEDULERS[name](), seed=seed, failing=failing, short=True).play()
    best, held = sweep.state.best, set(sweep.held)
    assert best is not None
    final = {trial for trial in held if sweep.retention.is_final(trial)}
    failed = {trial for trial in held if sweep.state.trials[trial].runs[-1].status.value == "failed"}
    assert failed <= {best.trial}
    assert len(final) <= 1, "what is the best unless that is retried"
    assert held == final | failed or name.startswith("asha"), "which has no more to promote than it did"


@pytest.mark.parametrize("name", ["fifo", "halving", "hyperband", "asha"])
@pytest.mark.parametrize("seed", range(8))
def test_all_repeats_of_a_configuration_are_kept_or_removed_together(name: str, seed: int) -> None:
    sweep = Sweep(SCHEDULERS[name](), seed=seed, repeats=2, failing=0.2).play(retries=3)
    held = set(sweep.held)
    assert all((trial in held) == (trial + 1 in held) for trial in range(0, len(sweep.state.trials), 2))


def last_resource(sweep: Sweep, resource: int) -> set[int]:
    return {trial.trial for trial in sweep.state.trials if trial.runs[-1].resource == resource}


@pytest.mark.parametrize(
    "scheduler",
    [
        Hyperband(max_resource=27),
        Fifo(max_resource=4, trials=30),
        ASHA(max_resource=9, trials=30, stopping=True),
        ASHA(max_resource=4, min_resource=4, trials=30),
        Halving(max_resource=4, min_resource=4, rounds=30),
    ],
    ids=["hyperband", "fifo", "asha, stopping", "asha of one rung", "halving of one rung"],
)
def test_with_one_rung_only_the_best_checkpoint_is_kept(scheduler: Scheduler) -> None:
    sweep = Sweep(scheduler).play(most_trials=1000)
    assert sweep.state.best is not None
    assert sweep.held == [sweep.state.best.trial]


@pytest.mark.parametrize(
    ("scheduler", "top"),
    [
        (Halving(max_resource=8, rounds=2), 8),
        (ASHA(max_resource=9, trials=40), 9),
    ],
    ids=["halving", "asha"],
)
def test_trials_that_a_higher_max_resource_would_extend_are_kept(scheduler: Scheduler, top: int) -> None:
    sweep = Sweep(scheduler).play(most_trials=1000)
    best = sweep.state.best
    assert best is not None
    assert set(sweep.held) == last_resource(sweep, top) | {best.trial}


@pytest.mark.parametrize(
    "scheduler",
    [
        Fifo(max_resource=4, trials=6),
        ASHA(max_resource=9, trials=6, stopping=True),
        ASHA(max_resource=1, trials=6),
    ],
    ids=["fifo", "asha, stopping", "asha of one rung"],
)
def test_a_sweep_that_is_resumed_does_not_keep_them_again(scheduler: Scheduler) -> None:
    sweep = Sweep(scheduler)
    sweep.decide(6)
    for trial in range(3):
        sweep.happen(RunFinished(trial, 0, Outcome.COMPLETED, 0.5 - 0.1 * trial))
    assert sweep.held == [2, 3, 4, 5]
    sweep.happen(SweepResumed(1.0))
    sweep.happen(RunFinished(3, 0, Outcome.COMPLETED, 0.9))
    assert sweep.held == [2, 4, 5]
    sweep.happen(RunFinished(4, 0, Outcome.COMPLETED, 0.1))
    assert sweep.held == [4, 5]


def test_a_trial_is_removable_once_enough_better_ones_have_ended_its_rung() -> None:
    """Halving of 4, 2, 1: while the rung goes on, the third best of three is out."""
    sweep = Sweep(Halving(max_resource=4))
    sweep.decide(4)
    for trial, value in ((0, 0.3), (1, 0.2)):
        sweep.happen(RunFinished(trial, 0, Outcome.COMPLETED, value))
        assert sweep.held == [0, 1, 2, 3]
    sweep.happen(RunFinished(2, 0, Outcome.COMPLETED, 0.1))
    # Of those that are out it is the best: were both others to get worse, it would be the best of all.
    assert sweep.held == [0, 1, 2, 3]
    sweep.happen(RunFinished(3, 0, Outcome.COMPLETED, 0.25))
    assert sweep.held == [1, 2, 3], "of two that are out the better one may still be the best"


def test_failed_trials_keep_theirs_until_they_are_retried() -> None:
    sweep = Sweep(Hyperband(max_resource=3))
    sweep.decide(9)
    for trial, value in ((0, 0.1), (1, 0.5)):
        sweep.happen(RunFinished(trial, 0, Outcome.COMPLETED, value))
    sweep.happen(RunFinished(2, 0, Outcome.FAILED, message="boom"))
    sweep.decide(1)
    sweep.happen(RunFinished(0, 1, Outcome.COMPLETED, 0.05))
    assert 2 in sweep.held
    sweep.happen(RunRetried(2, 0))
    sweep.happen(RunFinished(2, 0, Outcome.COMPLETED, 0.7))
    assert 2 not in sweep.held


def test_endless_asha_drops_nobody_before_it_is_known_that_no_trial_starts_any_more() -> None:
    sweep = Sweep(ASHA(max_resource=3))
    for _ in range(12):
        sweep.decide(1)
        sweep.end_one()
    held = len(sweep.held)
    assert held == len(sweep.state.trials)
    sweep.happen(TrialsExhausted("budget.trials", "budget"))
    assert len(sweep.held) < held


def test_more_trials_than_were_known_open_the_rungs_of_asha_again() -> None:
    scheduler = ASHA(max_resource=3)
    events = [TrialCreated(trial, {"x": 0.0}, 0, 1) for trial in range(6)]
    for event in events:
        scheduler.apply(event)
    for trial in range(6):
        scheduler.apply(RunFinished(trial, 0, Outcome.COMPLETED, float(trial)))
    scheduler.apply(TrialsExhausted("budget.trials", "budget"))
    assert sorted(scheduler.dropped) == [2, 3, 4, 5]
    scheduler.apply(SweepResumed(1.0))
    assert scheduler.dropped == []


def test_a_trial_whose_late_worker_may_still_write_keeps_its_checkpoints() -> None:
    sweep = Sweep(Hyperband(max_resource=1, min_resource=1))
    sweep.decide(1)
    run = RunId(0, 0)
    sweep.happen(BatchPlanned("a", 0.0, ((run,),), gpus=1, throttle=1))
    sweep.happen(RunInterrupted(*run, Why.LOST, batch="a"))
    sweep.happen(BatchPlanned("b", 0.0, ((run,),), gpus=1, throttle=1))
    for other in (RunId(trial, 0) for trial in range(1, len(sweep.state.trials))):
        sweep.happen(RunFinished(*other, Outcome.COMPLETED, 0.0))
    sweep.happen(RunFinished(*run, Outcome.COMPLETED, 1.0, batch="a"))
    assert 0 in sweep.retention._busy
    sweep.happen(BatchClosed("a"))
    sweep.happen(BatchClosed("b"))
    assert 0 not in sweep.retention._busy


def test_a_trial_that_its_user_stops_is_not_promoted_but_the_next_best() -> None:
    sweep = Sweep(ASHA(max_resource=3, trials=3))
    sweep.decide(3)
    for trial in range(3):
        sweep.happen(RunFinished(trial, 0, Outcome.COMPLETED, 0.5 - 0.1 * trial))
    assert sweep.held == [1, 2]
    sweep.happen(TrialStopped(2, "stopped by ada"))
    assert sweep.scheduler.decide(1) == [Promote(1, 1, 3)]


def test_without_a_dropped_list_only_stopped_trials_are_removable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Scheduler):
        needs_reports = False
        clones = False

        @property
        def done(self) -> bool:
            return False

        def apply(self, event: AnyEvent) -> None:
            pass

        def decide(self, slots: int) -> list[Any]:
            return []

    sweep = Sweep(Silent())
    for trial in range(3):
        sweep.happen(TrialCreated(trial, {"x": 0.0}, 0, 1))
        sweep.happen(RunFinished(trial, 0, Outcome.COMPLETED, float(trial)))
    assert sweep.held == [0, 1, 2]
    promoted = TrialPromoted(2, 1, 3)
    sweep.happen(promoted)
    sweep.happen(TrialStopped(2, "stopped by ada"))
    sweep.happen(RunFinished(2, 1, Outcome.STOPPED))
    sweep.happen(TrialStopped(1, "stopped by ada"))
    assert sweep.held == [0, 1]


def test_a_trial_that_was_stopped_can_go_when_the_sweep_has_been_resumed() -> None:
    scheduler = Fifo(max_resource=9, trials=3)
    state = SweepState()
    retention = Retention(state, scheduler)
    events: list[AnyEvent] = [
        STARTED,
        *(TrialCreated(trial, {}, 0, 9) for trial in range(2)),
        BatchPlanned("a", 1.0, ((RunId(0, 0),), (RunId(1, 0),)), gpus=1, throttle=2),
        RunFinished(0, 0, Outcome.COMPLETED, value=0.1, batch="a"),
        TrialStopped(1, "no use"),
        RunFinished(1, 0, Outcome.STOPPED, value=0.5, batch="a", task=1),
        BatchClosed("a"),
    ]
    for event in [*events, SweepEnded(2.0, SweepOutcome.STOPPED, ""), SweepResumed(3.0)]:
        state.apply(event)
        scheduler.apply(event)
        retention.apply(event)
    assert list(retention.removable) == [1]
