"""`min_resource: auto`: when the lowest rung is given up, that a replay does it too, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.events import (
    Config,
    Outcome,
    RunFinished,
    RunRetried,
    SweepExtended,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.core.protocols import Scheduler, Start
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.raising import RankWatch
from hpcsweep.schedulers.synchronous import Halving, Hyperband
from tests.doubles import FolderCluster
from tests.driver.sweeps import decided, drive, events, make_driver
from tests.schedulers.scheduler_harness import EXHAUSTED, Harness


def reversed_at(resource: int, trial: int) -> float:
    """What is best at resource 1 is worst at all others."""
    return float(trial) if resource == 1 else -float(trial)


def watched(trials: int, *, value: Any = reversed_at, resources: tuple[int, ...] = (1, 3, 9)) -> RankWatch:
    """After so many trials that were trained to 1 and then to 3."""
    watch = RankWatch(resources)
    for trial in range(trials):
        watch.apply(TrialCreated(trial, {}, 0, 1))
        watch.apply(RunFinished(trial, 0, Outcome.COMPLETED, value=value(1, trial)))
    for trial in range(trials):
        watch.apply(TrialPromoted(trial, 1, 3))
        watch.apply(RunFinished(trial, 1, Outcome.COMPLETED, value=value(3, trial)))
    return watch


def test_the_lowest_resource_rises_at_the_twelfth_pair_of_values_that_disagree() -> None:
    assert watched(11).lowest == 1
    watch = watched(12)
    assert (watch.lowest, watch.rung) == (3, 1)


def test_it_stays_where_ranks_hold() -> None:
    assert watched(200, value=lambda resource, trial: trial / resource).lowest == 1


def test_any_of_several_objectives_whose_ranks_do_not_hold_raises_it() -> None:
    watch = RankWatch((1, 3, 9))
    for rung, resource in enumerate((1, 3)):
        for trial in range(12):
            started = TrialPromoted(trial, 1, 3) if rung else TrialCreated(trial, {}, 0, 1)
            values = (float(trial), reversed_at(resource, trial))
            watch.apply(started)
            watch.apply(RunFinished(trial, rung, Outcome.COMPLETED, value=values[0], values=values))
    assert watch.lowest == 3


def test_the_last_but_one_rung_is_never_given_up() -> None:
    assert watched(12, resources=(1, 3)).lowest == 1


def test_a_run_that_is_retried_counts_by_its_new_value() -> None:
    watch = watched(11)
    watch.apply(RunRetried(10, 1))
    watch.apply(RunFinished(10, 1, Outcome.COMPLETED, value=1.0))
    assert watch.lowest == 1  # there are still eleven
    watch.apply(TrialCreated(11, {}, 0, 1))
    watch.apply(RunFinished(11, 0, Outcome.COMPLETED, value=11.0))
    watch.apply(TrialPromoted(11, 1, 3))
    watch.apply(RunFinished(11, 1, Outcome.FAILED))
    assert watch.lowest == 1
    watch.apply(RunRetried(11, 1))
    watch.apply(RunFinished(11, 1, Outcome.COMPLETED, value=-11.0))
    assert watch.lowest == 3


def play(scheduler: Scheduler, trials: int) -> Harness:
    """Until so many trials have started; each run ends at once."""
    harness = Harness(scheduler)
    rungs: dict[int, int] = {}
    while harness.trials < trials:
        for decision in harness.take(1):
            trial = harness.trials - 1 if isinstance(decision, Start) else decision.trial  # type: ignore[union-attr]
            rungs[trial] = rungs.get(trial, -1) + 1
            harness.finish(rungs[trial], {trial: reversed_at(decision.resource, trial)})  # type: ignore[union-attr]
    return harness


def test_asha_starts_new_trials_in_the_next_bracket_and_still_promotes_in_the_old_one() -> None:
    scheduler = ASHA(min_resource="auto", max_resource=27)
    assert scheduler.decide(2) == [Start(0, 1)] * 2
    play(scheduler, 40)
    assert next(decision for decision in scheduler.decide(9) if isinstance(decision, Start)) == Start(1, 3)
    notes = scheduler.plan(100).notes
    assert (
        notes[-1]
        == "new trials start at 3, and higher where the ranks of the lowest rung do not hold in higher ones"
    )


def test_what_has_started_stays_though_the_rule_may_have_changed() -> None:
    asha = ASHA(min_resource="auto", max_resource=27)
    asha.apply(TrialCreated(0, {}, 1, 3))
    assert asha.decide(1) == [Start(1, 3)]
    hyperband = Hyperband(min_resource="auto", max_resource=9, iterations=2)
    hyperband.apply(TrialCreated(0, {}, 0, 3))
    assert hyperband.decide(1) == [Start(0, 3)] * 4  # a bracket of five from 3


def test_later_brackets_of_hyperband_begin_at_the_lowest_rung_that_holds() -> None:
    scheduler = Hyperband(min_resource="auto", max_resource=27, iterations=None)
    harness = Harness(scheduler)
    harness.take(27)
    harness.finish(0, {trial: reversed_at(1, trial) for trial in range(27)})
    assert [decision.resource for decision in harness.take(9)] == [3] * 9  # type: ignore[union-attr]
    for bracket, (trials, resource) in enumerate([(12, 3), (6, 9), (4, 27)], start=1):
        assert harness.take(trials) == [Start(bracket, resource)] * trials
    assert scheduler.decide(27) == [Start(4, 1)] * 27
    for trial in range(9):
        scheduler.apply(RunFinished(trial, 1, Outcome.COMPLETED, value=float(-trial)))
    harness.take(27)
    harness.finish(0, {trial: reversed_at(1, trial) for trial in range(49, 76)})
    harness.take(9)
    harness.finish(1, {trial: reversed_at(3, trial) for trial in range(49, 52)})
    starts = [decision for decision in scheduler.decide(40) if isinstance(decision, Start)]
    assert (starts[0].bracket, starts[0].resource, len(starts) > 0) == (5, 3, True)


def test_later_rounds_of_halving_begin_at_the_lowest_rung_that_holds() -> None:
    scheduler = Halving(min_resource="auto", max_resource=9, eta=3, rounds=None, prefact=4)
    harness = Harness(scheduler)
    assert harness.take(36) == [Start(0, 1)] * 36
    harness.finish(0, {trial: reversed_at(1, trial) for trial in range(36)})
    harness.take(12)
    harness.finish(1, {trial: reversed_at(3, trial) for trial in range(12)})
    starts = [decision for decision in scheduler.decide(20) if isinstance(decision, Start)]
    assert starts[0] == Start(1, 3)
    assert {start.resource for start in starts} == {3}


def test_it_starts_with_six_rungs_at_most() -> None:
    assert ASHA(min_resource="auto", max_resource=81).rungs[0] == (1, 3, 9, 27, 81)
    assert ASHA(min_resource="auto", max_resource=100_000).rungs[0] == (
        412,
        1236,
        3708,
        11124,
        33372,
        100_000,
    )
    assert Hyperband(min_resource="auto", max_resource=1, iterations=2).decide(1) == [Start(0, 1)]
    assert ASHA(min_resource="auto", max_resource=1, trials=3).decide(9) == [Start(0, 1)] * 3


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (
            lambda: ASHA(min_resource="auto", max_resource=9, brackets=2),
            "min_resource: auto does not go with brackets above 1: give a number",
        ),
        (
            lambda: ASHA(min_resource="auto", max_resource=9, stopping=True),
            "min_resource: auto does not go with stopping: give a number",
        ),
        (
            lambda: Hyperband(min_resource="auto", max_resource=9),
            "min_resource: auto changes only later iterations, and iterations is 1: give a number, ",
        ),
        (
            lambda: Halving(min_resource="auto", max_resource=9),
            "min_resource: auto changes only later rounds, and rounds is 1: give a number, or more rounds, ",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(make: Any, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        make()


@pytest.mark.parametrize("scheduler", [ASHA, Halving])
def test_its_max_resource_cannot_be_raised(scheduler: type[ASHA | Halving]) -> None:
    before = {"min_resource": "auto", "max_resource": 9, "eta": 3, "stopping": False}
    refusal = scheduler.extension_refusal(before, before | {"max_resource": 27})
    assert refusal == "with min_resource: auto the rungs follow from it"


def test_an_extension_of_anything_else_leaves_its_brackets() -> None:
    scheduler = ASHA(min_resource="auto", max_resource=9)
    scheduler.apply(SweepExtended(0.0, {"scheduler": {"max_resource": 9, "brackets": 1}}))
    assert scheduler.rungs == ((1, 3, 9), (3, 9))


def test_trials_that_no_place_is_left_for_are_dropped() -> None:
    scheduler = ASHA(min_resource="auto", max_resource=9, trials=6)
    harness = Harness(scheduler)
    harness.take(6)
    harness.finish(0, {trial: float(trial) for trial in range(6)})
    assert sorted(scheduler.dropped) == [2, 3, 4, 5]
    harness.scheduler.apply(EXHAUSTED)
    assert sorted(scheduler.dropped) == [2, 3, 4, 5]


def test_a_sweep_that_is_restarted_after_each_tick_raises_it_where_an_undisturbed_one_does(
    tmp_path: Path,
) -> None:
    def objective(config: Config, resource: int) -> float:
        return float(config["x"]) if resource == 1 else -float(config["x"])

    def scheduler() -> Scheduler:
        return ASHA(min_resource="auto", max_resource=9, eta=2, trials=40)

    drive(tmp_path / "a", FolderCluster(tmp_path / "ac", objective=objective), scheduler=scheduler())
    expected = decided(events(tmp_path / "a"))
    assert {row[4] for row in expected if row[2] == "created"} == {1, 2}
    done = False
    while not done:
        cluster = FolderCluster(tmp_path / "bc", objective=objective)
        driver, journal = make_driver(tmp_path / "b", cluster, scheduler=scheduler())
        driver.tick()
        done = driver.state.ended is not None
        journal.release()
    assert decided(events(tmp_path / "b")) == expected
