"""Optuna's samplers: what they are told, that answers depend on the history alone, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import optuna
import pytest
from numpy.random import default_rng
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.protocols import Searcher
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space
from hpcsweep.searchers import optuna as adapter
from hpcsweep.searchers.optuna import OptunaSampler
from hpcsweep.searchers.optuna_study import Study
from hpcsweep.searchers.random import Random

NAN = float("nan")
MIXED = Space(
    (
        Parameter("momentum", Float(0.0, 0.9), {"optimizer": ("sgd",)}),
        Parameter("optimizer", Choice(("sgd", "adam", None))),
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("layers", Int(1, 30, step=4)),
        Parameter("batch", Ordinal((16, 32, 64))),
        Parameter("dropout", Float(0.1, 0.75, step=0.2)),
        Parameter("epochs", Constant(3)),
    ),
    (Expression("layers > 4 or lr < 0.1"),),
)
CUBE = Space(tuple(Parameter(f"x{i}", Float(0.0, 1.0)) for i in range(4)))
SAMPLERS = ["TPESampler", "RandomSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler", "CmaEsSampler"]
#: Small generations, so that a test sees several of them.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "NSGAIISampler": {"population_size": 8},
    "NSGAIIISampler": {"population_size": 8},
    "CmaEsSampler": {"popsize": 6},
}


def searcher(sampler: str) -> OptunaSampler:
    return OptunaSampler(sampler=sampler, seed=3, **ARGUMENTS.get(sampler, {}))


def loss(config: Config) -> float:
    """A bowl in the cube, and anything that depends on the configuration elsewhere."""
    if "x0" in config:
        return float(sum((x - 0.3) ** 2 for x in config.values()))
    return float(config["lr"] + abs(config["layers"] - 13) + len(config))


def advance(searcher: Searcher, history: History, *, asks: int, batch: int) -> None:
    """Ask and observe: every fifth configuration fails, and the last ones of a batch stay pending."""
    for _ in range(asks):
        for config in searcher.ask(batch, history, default_rng([5, history.proposed])):
            history.add(config)
        for index in range(history.observed, history.proposed - batch // 3):
            config = history.configs[index]
            history.observe(index, NAN if index % 5 == 4 else loss(config), 1)


# --------------------------------------------------------------------------- what the sampler sees


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[FrozenTrial]]:
    """The trials that `RandomSampler` finds in its study, for each time it begins with one."""
    found: list[list[FrozenTrial]] = []

    class Spy(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            found.append([other for other in study.get_trials(deepcopy=False) if other is not trial])

    monkeypatch.setattr(optuna.samplers, "RandomSampler", Spy)
    return found


def test_optuna_is_told_values_failures_and_what_is_pending(seen: list[list[FrozenTrial]]) -> None:
    first = {"optimizer": "adam", "lr": 0.01, "layers": 5, "batch": 32, "dropout": 0.1, "epochs": 3}
    second = {"momentum": 0.5, **first, "optimizer": "sgd", "layers": 29}
    third = {**first, "optimizer": None, "batch": 64, "dropout": 0.7}
    history = History(MIXED, configs=[first, second, third], values=[2.5, NAN, None], resources=[1, 1, 0])
    OptunaSampler(sampler="RandomSampler").ask(1, history, default_rng(0))
    told = [(trial.state, trial.values, trial.params) for trial in seen[0][:3]]
    assert told == [
        (
            TrialState.COMPLETE,
            [2.5],
            {"optimizer": 1, "lr": 0.01, "layers": 5, "batch": 1, "dropout": 0.1},
        ),
        (
            TrialState.FAIL,
            None,
            {"optimizer": 0, "momentum": 0.5, "lr": 0.01, "layers": 29, "batch": 1, "dropout": 0.1},
        ),
        (
            TrialState.RUNNING,
            None,
            {"optimizer": 2, "lr": 0.01, "layers": 5, "batch": 2, "dropout": 0.7},
        ),
    ]
    assert seen[0][1].distributions == {
        "optimizer": CategoricalDistribution((0, 1, 2)),
        "momentum": FloatDistribution(0.0, 0.9),
        "lr": FloatDistribution(1e-4, 1.0, log=True),
        "layers": IntDistribution(1, 29, step=4),
        "batch": IntDistribution(0, 2),
        "dropout": FloatDistribution(0.1, 0.7, step=0.2),
    }


def test_of_several_resources_the_newest_value_of_each_configuration_counts(
    seen: list[list[FrozenTrial]],
) -> None:
    one = OptunaSampler(sampler="RandomSampler")
    history = History(CUBE)
    for config in CUBE.sample(3, default_rng(0)):
        history.add(config)
    for index in range(3):
        history.observe(index, 1.0 + index, 1)
    one.ask(1, history, default_rng(0))
    history.observe(2, 0.5, 3)
    history.observe(0, NAN, 3)
    one.ask(1, history, default_rng(0))
    assert [trial.values for trial in seen[0][:3]] == [[1.0], [2.0], [3.0]]
    states = [(trial.state, trial.values) for trial in seen[-1][:3]]
    assert states == [(TrialState.FAIL, None), (TrialState.COMPLETE, [2.0]), (TrialState.COMPLETE, [0.5])]


def test_results_of_earlier_sweeps_are_told_too(seen: list[list[FrozenTrial]]) -> None:
    history = History(CUBE)
    known = {f"x{i}": i / 4 for i in range(4)}
    history.add_prior(known, [(1, 2.0), (3, 1.0)])
    OptunaSampler(sampler="RandomSampler").ask(1, history, default_rng(0))
    assert [(trial.params, trial.values) for trial in seen[0]] == [(known, [1.0])]


BOUNDED = Objectives([Objective("loss"), Objective("speed", "max", at_least=1.0)])


def with_speed(history: History, index: int, config: Config, *, resource: int = 1) -> None:
    """Its loss, and a speed that falls as the loss does."""
    value = NAN if index % 5 == 4 else loss(config)
    key = None if index % 5 == 4 else BOUNDED.key(value, (value, 1.5 * value))
    history.observe(index, value, resource, key=key)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["RandomSampler", "NSGAIISampler"])
def test_of_several_objectives_optuna_is_told_all_values_and_how_far_beyond_bounds(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a sampler that each trial is asked of again."""
    found: list[list[FrozenTrial]] = []

    class Spy(getattr(optuna.samplers, sampler)):  # type: ignore[misc]
        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            assert len(study.directions) == 2
            found.append([other for other in study.get_trials(deepcopy=False) if other is not trial])
            super().before_trial(study, trial)

    one = OptunaSampler(sampler=sampler, objectives=BOUNDED)
    history = History(CUBE, configs=CUBE.sample(6, default_rng(0)), objectives=BOUNDED)
    for index in range(5):
        with_speed(history, index, history.configs[index])
    one.ask(1, history, default_rng(0))
    with_speed(history, 0, history.configs[1], resource=3)  # its newest values replace those before
    monkeypatch.setattr(optuna.samplers, sampler, Spy)
    one.ask(1, history, default_rng(0))
    losses = [loss(history.configs[index]) for index in (1, 1, 2, 3)]
    told = found[-1][:5]
    values = [value for trial in told for value in trial.values or (NAN, NAN)]
    points = [(each, -1.5 * each) for each in losses]
    assert values == pytest.approx([value for point in points for value in point] + [NAN, NAN], nan_ok=True)
    beyond = [trial.system_attrs["constraints"][0] for trial in told]
    assert beyond == pytest.approx([max(0.0, 1 - 1.5 * each) for each in losses] + [0.0])
    assert any(beyond)
    assert [trial.state for trial in told[-1:]] == [TrialState.FAIL]


def test_a_sampler_that_knows_one_objective_or_no_bounds_is_refused() -> None:
    def problems(sampler: str, *objectives: Objective) -> list[str]:
        return OptunaSampler(sampler=sampler, objectives=Objectives(objectives)).problems(CUBE)

    bounded = Objective("loss", at_most=1.0)
    for sampler in (
        "TPESampler",
        "RandomSampler",
        "NSGAIISampler",
        "NSGAIIISampler",
        "QMCSampler",
        "GPSampler",
    ):
        assert problems(sampler, bounded, Objective("size")) == []
    (problem,) = problems("CmaEsSampler", Objective("loss"), Objective("size"))
    assert problem.startswith(
        "searcher.sampler: CmaEsSampler searches for one objective, and there are several;"
    )
    assert problems("CmaEsSampler", bounded) == [
        "searcher.sampler: CmaEsSampler knows no bounds of objectives; use TPESampler or NSGAIISampler"
    ]
    assert problems("CmaEsSampler", Objective("loss")) == []


def test_later_ones_of_a_batch_see_the_earlier_ones_running(seen: list[list[FrozenTrial]]) -> None:
    batch = OptunaSampler(sampler="RandomSampler").ask(3, History(CUBE), default_rng(0))
    assert [trial.params for trial in seen[-1]] == batch[:2]
    assert {trial.state for trial in seen[-1]} == {TrialState.RUNNING}


# --------------------------------------------------------------------------- the history alone


@pytest.mark.parametrize("space", [MIXED, CUBE], ids=["mixed", "cube"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_answers_depend_on_the_history_alone_however_it_grew(sampler: str, space: Space) -> None:
    used, history = searcher(sampler), History(space)
    for _ in range(4):
        advance(used, history, asks=3, batch=6)
        for seed in range(3):  # nor on what else it was asked
            used.ask(2, history, default_rng(seed))
        again = used.ask(6, history, default_rng(9))
        assert searcher(sampler).ask(6, history, default_rng(9)) == again
        assert [problem for config in again for problem in space.check(config)] == []
    shorter = History(space, configs=history.configs[:3], values=[3.0, 1.0, 2.0], resources=[1] * 3)
    assert used.ask(2, shorter, default_rng(1)) == searcher(sampler).ask(2, shorter, default_rng(1))


def test_the_generator_decides_between_equal_histories() -> None:
    history = History(CUBE)
    first = OptunaSampler().ask(3, history, default_rng(1))
    assert first != OptunaSampler().ask(3, history, default_rng(2))


@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler"])
def test_of_a_growing_history_only_what_is_new_is_told(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[float] = []
    enter: Callable[..., None] = Study._enter

    def counted(self: Study, config: Config, values: Sequence[float], *rest: Any) -> None:
        entered.extend(values)
        enter(self, config, values, *rest)

    monkeypatch.setattr(Study, "_enter", counted)
    advance(searcher(sampler), history := History(CUBE), asks=40, batch=1)
    assert entered == pytest.approx(history.values[:-1].tolist(), nan_ok=True)


def test_quasi_random_points_are_one_sequence_over_all_batches() -> None:
    def points(batches: list[int]) -> list[Config]:
        history = History(CUBE)
        for batch in batches:
            for config in searcher("QMCSampler").ask(batch, history, default_rng(history.proposed)):
                history.observe(history.add(config), 1.0, 1)
        return history.configs[1:]  # the first one is Optuna's, before it knows the space

    assert points([1, 1, 1, 1, 1, 1, 1, 1, 1]) == points([1, 4, 4])
    assert sorted(config["x0"] for config in points([1, 8])) == [i / 8 for i in range(8)]


# --------------------------------------------------------------------------- the whole


@pytest.mark.parametrize(("sampler", "batch"), [("TPESampler", 8), ("NSGAIISampler", 4), ("CmaEsSampler", 6)])
def test_those_that_learn_beat_random_search(sampler: str, batch: int) -> None:
    def lowest(one: Searcher, seed: int) -> float:
        history = History(CUBE)
        while history.proposed < 120:
            for config in one.ask(batch, history, default_rng([seed, history.proposed])):
                history.observe(history.add(config), loss(config), 1)
        return float(history.values.min())

    found = median(lowest(searcher(sampler), seed) for seed in range(3))
    assert found < 0.5 * median(lowest(Random(), seed) for seed in range(5))


def test_the_gaussian_process_is_asked_as_well() -> None:
    one = OptunaSampler(sampler="GPSampler", n_startup_trials=3)
    assert one.problems(MIXED) == []
    history = History(MIXED)
    advance(one, history, asks=3, batch=3)
    assert history.proposed == 9
    assert [problem for config in history.configs for problem in MIXED.check(config)] == []


def test_optuna_is_as_loud_afterwards_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    level = optuna.logging.get_verbosity()
    one = OptunaSampler(multivariate=True, group=True)  # both warn when they are used
    assert one.problems(MIXED) == []
    advance(one, History(MIXED), asks=5, batch=6)
    assert optuna.logging.get_verbosity() == level
    assert capfd.readouterr() == ("", "")


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("sampler", "arguments", "problem"),
    [
        ("TPESampler", {"n_startup_trials": 5, "multivariate": True, "prior_weight": 1}, None),
        ("NSGAIISampler", {"mutation_prob": None, "population_size": 20}, None),
        ("TPESamplr", {}, "sampler: unknown sampler 'TPESamplr'; did you mean 'TPESampler'?"),
        ("GridSampler", {}, "sampler: GridSampler needs lists of values; use searcher: grid"),
        (
            "TPESampler",
            {"n_startup": 5},
            "n_startup: unknown argument of TPESampler; did you mean 'n_startup_trials'?",
        ),
        (
            "TPESampler",
            {"n_startup_trials": "five"},
            "n_startup_trials: must be an integer, got 'five'",
        ),
        (
            "NSGAIISampler",
            {"mutation_prob": True},
            "mutation_prob: must be a number or null, got true",
        ),
        (
            "TPESampler",
            {"gamma": 3},
            "gamma: is a Python object for TPESampler, leave it out",
        ),
        (
            "CmaEsSampler",
            {"with_margin": True},
            f"with_margin: {adapter.REFUSED['with_margin']}",
        ),
    ],
)
def test_wrong_samplers_and_arguments_are_told(
    sampler: str, arguments: Mapping[str, Any], problem: str | None
) -> None:
    found = OptunaSampler(sampler=sampler, **arguments).problems(MIXED)
    assert found == ([] if problem is None else [f"searcher.{problem}"])


def test_what_the_sampler_itself_refuses_is_told_in_its_words() -> None:
    (problem,) = OptunaSampler(sampler="NSGAIISampler", population_size=1).problems(MIXED)
    assert problem.startswith("searcher.sampler: NSGAIISampler refuses its arguments: ")
    assert "population_size" in problem


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"cmaes"}
    monkeypatch.setattr(adapter, "find_spec", lambda name: None if name in missing else name)
    need = "searcher.sampler: CmaEsSampler needs what is not installed; pip install cmaes"
    assert OptunaSampler(sampler="CmaEsSampler").problems(MIXED) == [need]
    assert OptunaSampler().problems(MIXED) == []
    missing.add("optuna")
    need = "searcher.name: 'optuna' needs Optuna, which is not installed; pip install 'hpcsweep[optuna]'"
    assert OptunaSampler().problems(MIXED) == [need]


def test_a_space_that_nothing_fits_is_told() -> None:
    space = Space(MIXED.parameters, (Expression("layers > 99"),))
    (problem,) = OptunaSampler().problems(space)
    assert problem.startswith("constraints: must leave ")
