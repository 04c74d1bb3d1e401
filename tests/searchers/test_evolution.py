"""Evolution: who may be a parent, what a child may be, and that it finds better than chance."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
from numpy.random import default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.protocols import Searcher
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space
from hpcsweep.searchers.evolution import Evolution
from hpcsweep.searchers.random import Random

NAN = float("nan")
LINE = Space((Parameter("x", Float(0.0, 1.0)),))
MIXED = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("layers", Int(1, 30)),
        Parameter("batch", Ordinal((16, 32, 64))),
        Parameter("optimizer", Choice(("sgd", "adam", "lion"))),
        Parameter("momentum", Float(0.0, 0.9), {"optimizer": ("sgd",)}),
        Parameter("epochs", Constant(3)),
    )
)


def on_line(xs: list[float], values: list[float | None], resources: list[int] | None = None) -> History:
    return History(LINE, configs=[{"x": x} for x in xs], values=values, resources=resources or [1] * len(xs))


def children(searcher: Searcher, history: History, n: int = 200) -> list[float]:
    return [config["x"] for config in searcher.ask(n, history, default_rng(0))]


# --------------------------------------------------------------------------- parents


def test_until_startup_is_reached_configurations_are_random() -> None:
    xs = [0.5 + i / 1000 for i in range(10)]
    found = children(Evolution(startup=200), on_line(xs, list(xs)), n=190)
    assert found == [config["x"] for config in Random().ask(190, on_line([], []), default_rng(0))]
    # Known results of an earlier sweep count: nobody need start anew.
    warm = on_line([], [])
    for i in range(20):
        warm.add_prior({"x": 0.5 + i / 1000}, [(1, i / 1000)])
    assert np.quantile(np.abs(np.array(children(Evolution(startup=20), warm)) - 0.5), 0.5) < 0.1


def test_children_stay_near_the_best_of_the_population() -> None:
    found = children(
        Evolution(startup=1), on_line([i / 20 for i in range(20)], [abs(i - 6) for i in range(20)])
    )
    assert abs(median(found) - 0.3) < 0.05
    assert np.mean(np.abs(np.array(found) - 0.3) < 0.2) > 0.7


def test_old_members_are_no_parents_however_good() -> None:
    xs = [0.05, *[0.9 + i / 1000 for i in range(20)]]
    history = on_line(xs, [-100.0, *[float(i) for i in range(20)]])
    assert min(children(Evolution(population=21, startup=1, crossover=0.0), history)) < 0.1
    assert min(children(Evolution(population=20, startup=1, crossover=0.0), history)) > 0.1


def test_failures_and_pending_trials_are_no_parents_and_block_nobody() -> None:
    xs = [0.9, 0.91, *[0.1] * 30, *[0.2] * 30]
    history = on_line(xs, [1.0, 2.0, *[NAN] * 30, *[None] * 30])
    assert np.mean(np.array(children(Evolution(startup=1), history)) > 0.5) > 0.95
    failed = on_line([0.1] * 30, [NAN] * 30)
    assert len(children(Evolution(), failed)) == 200


def test_parents_are_taken_at_the_largest_resource_that_enough_have_reached() -> None:
    xs = [0.1, 0.11, 0.12, 0.5, 0.51, 0.52, 0.9]
    resources = [1, 1, 1, 3, 3, 3, 9]
    history = on_line(xs, [0.0, 0.1, 0.2, 7.0, 8.0, 9.0, 5.0], resources)
    assert abs(median(children(Evolution(startup=3), history)) - 0.5) < 0.05
    assert abs(median(children(Evolution(startup=4), history)) - 0.5) < 0.05  # as many as have reached any


# --------------------------------------------------------------------------- children


def test_a_mutant_differs_from_its_parents_in_one_parameter_or_a_few() -> None:
    parent: Config = {"lr": 0.01, "layers": 15, "batch": 32, "optimizer": "adam", "epochs": 3}
    history = History(MIXED, configs=[parent] * 2, values=[1.0, 2.0], resources=[1, 1])
    found = Evolution(startup=1).ask(400, history, default_rng(1))
    assert [problem for config in found for problem in MIXED.check(config)] == []
    for config in found:
        config["lr"] = round(config["lr"], 12)
    changed = [{name for name in parent if config[name] != parent[name]} for config in found]
    assert all(changed)
    assert {"lr", "layers", "batch", "optimizer"} == set.union(*changed)
    assert np.mean([len(names) for names in changed]) < 2.2
    assert all(("momentum" in config) == (config["optimizer"] == "sgd") for config in found)


def test_an_integer_moves_at_least_one_step() -> None:
    space = Space((Parameter("n", Int(0, 9)),))
    history = History(space, configs=[{"n": 4}, {"n": 4}], values=[0.0, 0.0], resources=[1, 1])
    first = [Evolution(startup=1).ask(1, history, default_rng(seed))[0]["n"] for seed in range(60)]
    assert 4 not in first
    assert np.mean([n in (3, 5) for n in first]) > 0.5


def test_children_satisfy_the_constraints() -> None:
    space = Space(LINE.parameters, (Expression("x < 0.3 or x > 0.7"),))
    history = History(space, configs=[{"x": 0.29}, {"x": 0.71}], values=[0.0, 0.1], resources=[1, 1])
    found = [config["x"] for config in Evolution(startup=1).ask(300, history, default_rng(0))]
    assert len(set(found)) == 300
    assert all(x < 0.3 or x > 0.7 for x in found)


def test_a_space_of_constants_has_one_configuration() -> None:
    space = Space((Parameter("epochs", Constant(3)),))
    assert Evolution(startup=1).ask(2, History(space), default_rng(0)) == [{"epochs": 3}]
    done = History(space, configs=[{"epochs": 3}], values=[1.0], resources=[1])
    assert Evolution(startup=1).ask(2, done, default_rng(0)) == []


# --------------------------------------------------------------------------- the whole


def lowest(searcher: Searcher, seed: int, *, batch: int) -> float:
    """Least value of a valley across the axes in five dimensions, after about 200 evaluations."""
    space = Space(tuple(Parameter(f"x{i}", Float(0.0, 1.0)) for i in range(5)))
    history = History(space)
    values: list[float] = []
    while history.proposed < 200:
        rng = default_rng([seed, history.proposed])
        for config in searcher.ask(batch, history, rng):
            x = np.array(list(config.values()))
            values.append(float(((x - 0.3) ** 2).sum() + 5 * ((x[1:] - x[:-1]) ** 2).sum()))
            history.add(config)
        for index in range(history.observed, history.proposed):
            history.observe(index, values[index], 1)
    return min(values)


@pytest.mark.parametrize(("batch", "share"), [(1, 0.3), (16, 0.4), (80, 0.8)])
def test_it_beats_random_search(batch: int, share: float) -> None:
    ours = [lowest(Evolution(), seed, batch=batch) for seed in range(9)]
    chance = [lowest(Random(), seed, batch=batch) for seed in range(9)]
    assert median(ours) < share * median(chance)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"population": 1}, "population: must be at least 2, got 1"),
        ({"tournament": 0.0}, "tournament: must be a share > 0 and <= 1, got 0.0"),
        ({"tournament": 1.5}, "tournament: must be a share > 0 and <= 1, got 1.5"),
        ({"crossover": -0.1}, "crossover: must be a share between 0 and 1, got -0.1"),
        ({"startup": 0}, "startup: must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        Evolution(**options)  # type: ignore[arg-type]
    assert str(error.value) == problem
