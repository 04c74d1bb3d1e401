"""Population based training, worked by harness: who is replaced, by whom, and with what configuration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from hpcsweep.core.events import (
    Config,
    ConfigsEnqueued,
    Outcome,
    RunFinished,
    SweepResumed,
    TrialCreated,
    TrialsExhausted,
)
from hpcsweep.core.expressions import Expression
from hpcsweep.core.protocols import BracketPlan, Clone, Decision, Promote, SchedulerPlan, Start
from hpcsweep.core.space import Choice, Constant, Domain, Float, Int, Ordinal, Parameter, Space
from hpcsweep.schedulers.pbt import MAX_FAILURES_IN_A_ROW, PBT, perturb, perturb_value
from tests.schedulers.scheduler_harness import EXHAUSTED, Harness

LR = Space((Parameter("lr", Float(0.1, 1.0)),))


def population(size: int, **options: Any) -> Harness:
    """Intervals end at 2, 4 and 6; learning rates are 0.2, 0.3, ... by number of the trial."""
    scheduler = PBT(
        **{"population": size, "interval": 2, "max_resource": 6, "space": LR, "seed": 0, **options}
    )
    return Harness(scheduler, configs=[{"lr": round(0.2 + trial / 10, 1)} for trial in range(size)])


def without_configs(decisions: list[Decision]) -> list[Decision]:
    return [
        Clone(d.bracket, d.resource, d.parent, d.start, {}) if isinstance(d, Clone) else d for d in decisions
    ]


# --------------------------------------------------------------------------- who


def test_enqueued_configurations_take_free_places_or_extend_the_population() -> None:
    harness = population(4)
    harness.take(2)
    harness.scheduler.apply(ConfigsEnqueued(({"lr": 0.5}, {"lr": 0.6}, {"lr": 0.7})))
    assert harness.scheduler.decide(9) == [Start(2, 2), Start(3, 2), Start(4, 2)]
    for trial, place in ((2, 2), (3, 3), (4, 4)):
        harness.scheduler.apply(TrialCreated(trial, {"lr": 0.5}, place, 2, origin="enqueued"))
    assert harness.scheduler.decide(9) == []
    for trial in range(4):
        harness.scheduler.apply(RunFinished(trial, 0, Outcome.COMPLETED, 0.1 * trial))
    harness.scheduler.apply(RunFinished(4, 0, Outcome.COMPLETED, 0.9))
    (clone,) = [one for one in harness.scheduler.decide(9) if isinstance(one, Clone)]
    assert (clone.bracket, clone.parent) == (4, 0)
    harness.scheduler.apply(EXHAUSTED)
    harness.scheduler.apply(ConfigsEnqueued(({"lr": 0.8},)))
    assert Start(5, 2) in harness.scheduler.decide(9)
    harness.scheduler.apply(TrialsExhausted("budget.trials 5 is reached", "budget"))
    assert Start(5, 2) not in harness.scheduler.decide(9)


def test_a_population_of_four_from_end_to_end() -> None:
    harness = population(4)
    log: list[list[Decision]] = [harness.take(4)]
    for trial, value in enumerate((0.1, 0.2, 0.3)):  # of fewer than four nobody is the worst quarter
        harness.finish(0, {trial: value})
        log.append(harness.take(1))
    harness.finish(0, {3: 0.4})  # the worst of four: a copy of the best of them, trial 4, goes on
    log.append(without_configs(harness.take(1)))
    harness.finish(1, {0: 0.5, 1: 0.2})
    harness.finish(0, {4: 0.1})
    log.append(harness.take(3))
    harness.finish(1, {2: 0.6})  # at 4: trials 4, 1, 0, 2
    log.append(without_configs(harness.take(1)))
    harness.finish(2, {0: 0.1, 1: 0.1})
    harness.finish(1, {4: 0.1})
    harness.finish(0, {5: 0.1})
    assert log == [
        [Start(place, 2) for place in range(4)],
        [Promote(0, 1, 4)],
        [Promote(1, 1, 4)],
        [Promote(2, 1, 4)],
        [Clone(3, 4, 0, 2, {})],
        [Promote(0, 2, 6), Promote(1, 2, 6), Promote(4, 1, 6)],
        [Clone(2, 6, 4, 4, {})],
    ]
    assert harness.scheduler.done
    assert harness.take(9) == []


def test_with_few_slots_members_that_are_behind_go_first() -> None:
    harness = population(4)
    for trial, value in enumerate((0.4, 0.1, 0.2, 0.3)):
        assert harness.take(1) == [Start(trial, 2)]
        harness.finish(0, {trial: value})
    assert without_configs(harness.take(1)) == [Clone(0, 4, 1, 2, {})]
    harness.finish(0, {4: 0.0})
    # Those that are behind go first; with two slots more, the one that is ahead as well.
    rest = [Promote(1, 1, 4), Promote(2, 1, 4), Promote(3, 1, 4), Promote(4, 1, 6)]
    assert harness.scheduler.decide(3) == rest[:3]
    assert harness.scheduler.decide(4) == rest


def test_a_clone_goes_on_from_the_newest_run_that_its_donor_completed() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3})
    harness.take(3)
    harness.finish(1, {0: 0.1})
    assert harness.take(1) == [Promote(0, 2, 6)]  # it runs on from 4
    harness.finish(0, {3: 0.4})
    assert without_configs(harness.take(1)) == [Clone(3, 6, 0, 4, {})]


def test_a_finished_donor_is_not_cloned_but_the_next_best() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3})
    for rung in (1, 2):
        harness.take(3)
        harness.finish(rung, {0: 0.1})
    harness.finish(0, {3: 0.4})
    assert without_configs(harness.take(1)) == [Clone(3, 4, 1, 2, {})]


def test_a_donor_among_the_worst_is_not_cloned() -> None:
    harness = population(5)
    harness.take(5)
    for trial, value in ((0, 0.1), (1, 0.2), (3, 0.35), (2, 0.3)):
        harness.finish(0, {trial: value})
        assert harness.take(1) == [Promote(trial, 1, 4)]
    harness.finish(1, {0: 0.9})
    assert harness.take(1) == [Promote(0, 2, 6)]
    harness.finish(1, {1: 0.2, 2: 0.3, 3: 0.35})  # trial 0 is the worst of four at 4
    harness.finish(0, {4: 0.5})
    assert without_configs(harness.take(1)) == [Clone(4, 6, 1, 4, {})]


def test_a_failed_trial_is_not_cloned() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3})
    harness.take(3)
    harness.finish(1, {0: None})
    harness.finish(0, {3: 0.4})
    assert without_configs(harness.take(2)) == [Clone(0, 4, 1, 2, {}), Clone(3, 4, 1, 2, {})]


def test_the_bottom_quarter_is_replaced_by_the_top_quarter() -> None:
    donors = set()
    for seed in range(20):
        harness = population(8, seed=seed)
        harness.take(8)
        harness.finish(0, {trial: trial / 10 for trial in range(8)})
        decisions = harness.take(8)
        clones = [decision for decision in decisions if isinstance(decision, Clone)]
        assert [clone.bracket for clone in clones] == [6, 7]
        assert [decision for decision in decisions if decision not in clones] == [
            Promote(trial, 1, 4) for trial in range(6)
        ]
        donors |= {clone.parent for clone in clones}
    assert donors == {0, 1}


def test_maximising_replaces_the_smallest_value() -> None:
    harness = population(4, minimise=False)
    harness.take(4)
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4})
    assert without_configs(harness.take(1)) == [Clone(0, 4, 3, 2, {})]


def test_the_same_events_and_seed_give_the_same_clone_and_another_seed_another_one() -> None:
    def clone(seed: int) -> Decision:
        harness = population(4, seed=seed)
        harness.take(4)
        harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4})
        assert harness.scheduler.decide(4) == harness.scheduler.decide(4)
        return harness.scheduler.decide(4)[3]

    assert clone(0) == clone(0)
    assert len({str(clone(seed)) for seed in range(10)}) > 2


# --------------------------------------------------------------------------- failures and the end


def test_a_failed_member_waits_for_the_first_donor() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {3: None})
    assert harness.take(4) == []
    harness.finish(0, {2: 0.5})
    assert without_configs(harness.take(4)) == [Clone(3, 4, 2, 2, {}), Promote(2, 1, 4)]


def test_a_member_that_failed_is_replaced_by_one_that_is_no_less_far() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3})
    harness.take(3)
    harness.finish(1, {0: 0.1})
    harness.take(1)
    harness.finish(2, {0: None})  # it had trained up to 4
    assert harness.take(4) == []
    harness.finish(1, {1: 0.2})
    assert without_configs(harness.take(4)) == [Clone(0, 6, 1, 4, {}), Promote(1, 2, 6)]


def test_a_member_that_was_stopped_is_replaced_and_not_promoted() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {0: 0.5})
    harness.stop(1, 0, 0.0)
    assert without_configs(harness.take(2)) == [Clone(1, 4, 0, 2, {}), Promote(0, 1, 4)]


def test_a_place_is_given_up_after_several_failures_in_a_row() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {0: 0.5})
    harness.take(4)
    for failed in (1, 4, 5):
        assert harness.trials == max(4, failed + 1)
        harness.finish(0, {failed: None})
        harness.take(4)
    assert MAX_FAILURES_IN_A_ROW == 3
    assert harness.take(4) == []
    assert harness.trials == 6


def test_a_completed_run_resets_the_failures_of_its_place() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, {0: 0.5})
    harness.take(4)
    harness.finish(0, {1: None})
    harness.take(4)  # trial 4
    harness.finish(0, {4: 0.6})
    harness.take(4)
    harness.finish(1, {0: 0.5})
    harness.take(4)
    harness.finish(1, {4: None})
    assert without_configs(harness.take(4)) == [Clone(1, 6, 0, 4, {})]
    harness.finish(0, {5: None})
    assert without_configs(harness.take(4)) == [Clone(1, 6, 0, 4, {})]


def test_a_population_in_which_everybody_failed_is_done() -> None:
    harness = population(4)
    harness.take(4)
    harness.finish(0, dict.fromkeys(range(3)))
    assert not harness.scheduler.done
    harness.finish(0, {3: None})
    assert harness.scheduler.done
    assert harness.take(9) == []


def test_clones_go_on_when_no_trial_may_start() -> None:
    harness = population(8)
    harness.take(8, at_most=4)
    harness.scheduler.apply(EXHAUSTED)
    harness.finish(0, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4})
    assert without_configs(harness.take(8)) == [
        *[Promote(trial, 1, 4) for trial in range(3)],
        Clone(3, 4, 0, 2, {}),
    ]
    harness.scheduler.apply(SweepResumed(0.0))
    assert harness.take(8) == [Start(place, 2) for place in range(4, 8)]


def test_the_last_interval_may_be_a_short_one_and_the_plan_is_the_population_side_by_side() -> None:
    scheduler = PBT(population=4, interval=4, max_resource=10, space=LR, seed=0)
    bracket = BracketPlan((4, 8, 10), (4, 4, 4))
    assert scheduler.plan() == SchedulerPlan((bracket,), starts=4, population=True)
    assert (scheduler.needs_reports, scheduler.clones) == (False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"population": 3},
            "population: must be at least 4, so that the quantile 0.25 holds a member, got 3",
        ),
        (
            {"population": 9, "quantile": 0.1},
            "population: must be at least 10, so that the quantile 0.1 holds a member, got 9",
        ),
        ({"quantile": 0.6}, r"quantile: must be above 0 and at most 0\.5, got 0\.6"),
        ({"quantile": 0.0}, r"quantile: must be above 0 and at most 0\.5, got 0\.0"),
        ({"interval": 7}, r"interval: must be <= max_resource \(6\), got 7"),
        ({"interval": 0}, "interval: must be at least 1, got 0"),
        ({"resample": 1.5}, r"resample: must be between 0 and 1, got 1\.5"),
    ],
)
def test_an_invalid_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        population(**{"size": options.pop("population", 4), **options})


# --------------------------------------------------------------------------- with what


@pytest.mark.parametrize(
    ("domain", "value", "up", "down"),
    [
        (Float(0.25, 1.0), 0.5, 0.6, 0.4),
        (Float(0.25, 1.0), 0.9, 1.0, 0.9 * 0.8),  # clipped
        (Float(0.25, 1.0), 0.25, 0.25 * 1.2, 0.25),
        (Float(1e-4, 1e-1, log=True), 1e-1, 1e-1, 1e-1 * 0.8),
        (Float(1e-4, 1e-1, log=True), 1e-4, 1e-4 * 1.2, 1e-4),
        (Float(-1.0, 1.0), -0.5, -0.6, -0.4),
        (Float(-1.0, 1.0), -0.9, -1.0, -0.9 * 0.8),
        (Float(0.0, 1.0), 0.0, 0.0, 0.0),
        (Float(0.0, 1.0, step=0.1), 0.5, 0.6, 0.4),
        (Float(0.0, 1.0, step=0.1), 0.1, 0.2, 0.0),  # 0.12 and 0.08 are nearest to 0.1
        (Float(0.0, 1.0, step=0.1), 1.0, 1.0, 0.8),
        (Float(0.0, 1.0, step=0.1), 0.0, 0.1, 0.0),
        (Int(1, 8), 5, 6, 4),
        (Int(1, 8), 1, 2, 1),
        (Int(1, 8), 2, 3, 1),
        (Int(1, 8), 8, 8, 6),
        (Int(-10, 10), 0, 1, -1),
        (Int(-10, 10), -1, -2, 0),
        (Int(-10, 10), -10, -10, -8),
        (Int(16, 256, log=True), 16, 19, 16),
        (Int(16, 256, log=True), 256, 256, 205),
        (Int(2, 14, step=4), 10, 14, 6),
        (Int(2, 14, step=4), 14, 14, 10),
        (Ordinal((32, 64, 128)), 64, 128, 32),
        (Ordinal((32, 64, 128)), 128, 128, 64),
        (Ordinal(("small", "large")), "small", "large", "small"),
        (Choice(("sgd", "adam")), "sgd", "sgd", "sgd"),
        (Constant(7), 7, 7, 7),
    ],
)
def test_a_value_moves_by_a_factor_and_is_clipped_to_its_domain(
    domain: Domain, value: Any, up: Any, down: Any
) -> None:
    assert (perturb_value(domain, value, 1.2), perturb_value(domain, value, 0.8)) == (up, down)


CONDITIONAL = Space(
    (
        Parameter("lr", Float(1e-4, 1e-1, log=True)),
        Parameter("layers", Int(1, 4)),
        Parameter("optimizer", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 0.99), {"optimizer": ("sgd",)}),
        Parameter("nesterov", Ordinal((False, True)), {"optimizer": ("sgd",)}),
        Parameter("width", Constant(16)),
    ),
    (Expression("layers * lr < 0.2"),),
)


@given(
    seed=st.integers(0, 2**32 - 1),
    resample=st.sampled_from([0.0, 0.25, 1.0]),
    factors=st.sampled_from([(1.2, 0.8), (1.2,), (0.5,), (100.0, 0.001)]),
)
def test_a_perturbed_configuration_is_valid(seed: int, resample: float, factors: tuple[float, ...]) -> None:
    rng = default_rng(seed)
    config = CONDITIONAL.sample(1, rng)[0]
    for _ in range(5):
        config = perturb(CONDITIONAL, config, rng, resample=resample, factors=factors)
        assert CONDITIONAL.check(config) == []
        assert list(config) == [name for name in CONDITIONAL.names if name in config]


def test_without_resampling_numbers_are_multiplied_by_a_factor_and_choices_stay() -> None:
    config: Config = {
        "lr": 0.01,
        "layers": 2,
        "optimizer": "sgd",
        "momentum": 0.5,
        "nesterov": False,
        "width": 16,
    }
    seen: dict[str, set[Any]] = {name: set() for name in config}
    for seed in range(50):
        altered = perturb(CONDITIONAL, config, default_rng(seed), resample=0.0, factors=(1.2, 0.8))
        for name, value in altered.items():
            seen[name].add(value)
    assert seen == {
        "lr": {0.012, 0.008},
        "layers": {1, 3},
        "optimizer": {"sgd"},
        "momentum": {0.6, 0.4},
        "nesterov": {False, True},
        "width": {16},
    }


def test_resampled_choices_draw_parameters_they_activate_and_drop_the_others() -> None:
    adam: Config = {"lr": 0.01, "layers": 2, "optimizer": "adam", "width": 16}
    sgd: Config = {**adam, "optimizer": "sgd", "momentum": 0.5, "nesterov": True}
    for donor in (adam, sgd):
        altered = [
            perturb(CONDITIONAL, donor, default_rng(seed), resample=1.0, factors=(1.2, 0.8))
            for seed in range(50)
        ]
        assert {config["optimizer"] for config in altered} == {"sgd", "adam"}
        assert all(("momentum" in config) == (config["optimizer"] == "sgd") for config in altered)
        assert len({config.get("momentum") for config in altered}) > 10


def test_a_clone_keeps_its_donors_configuration_where_no_perturbation_is_valid() -> None:
    space = Space((Parameter("lr", Float(0.1, 1.0)),), (Expression("lr <= 0.5"),))
    config: Config = {"lr": 0.5}
    for seed in range(10):
        again = perturb(space, config, default_rng(seed), resample=0.0, factors=(1.2, 0.8))
        assert again == {"lr": 0.4}
        at_last = perturb(space, config, default_rng(seed), resample=0.0, factors=(1.2,))
        assert at_last == config
        assert at_last is not config
