"""TPE: densities that integrate to 1, what attracts and repels, which observations are evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.history import History
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter, Space
from hpcsweep.searchers.random import Random, RandomFallback, config_key
from hpcsweep.searchers.tpe import MISMATCH, TPE, LocalPenalisation
from hpcsweep.searchers.tpe_density import Columns, ParzenEstimator, Points, normal_cdf

NAN = float("nan")
LINE = Space((Parameter("x", Float(0.0, 1.0)),))
MIXED = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("width", Int(1, 1000, log=True)),
        Parameter("layers", Int(1, 9)),
        Parameter("dropout", Float(0.0, 0.8, step=0.1)),
        Parameter("batch", Ordinal((16, 32, 64))),
        Parameter("optimizer", Choice(("sgd", "adam", "lion", "rmsprop"))),
        Parameter("momentum", Float(0.0, 0.9), {"optimizer": ("sgd",)}),
        Parameter("act", Choice(("relu", "gelu"))),
    )
)


def on_line(xs: list[float], values: list[float | None], resources: list[int] | None = None) -> History:
    return History(LINE, configs=[{"x": x} for x in xs], values=values, resources=resources or [1] * len(xs))


def proposed(searcher: TPE, history: History, n: int = 40) -> NDArray[np.float64]:
    return np.array([config["x"] for config in searcher.ask(n, history, default_rng(0))])


def density(space: Space, centres: list[list[float]]) -> tuple[Columns, ParzenEstimator]:
    columns = Columns(space)
    return columns, ParzenEstimator(columns, np.array(centres), np.ones(len(centres)))


def mixed_history(results: int, pending: int) -> History:
    configs = MIXED.sample(results + pending, default_rng(1))
    values = [
        abs(config["layers"] - 5) + config["lr"] if i < results else None for i, config in enumerate(configs)
    ]
    return History(MIXED, configs=configs, values=values, resources=[1] * len(configs))


# --------------------------------------------------------------------------- densities


def test_normal_distribution_function_is_right() -> None:
    z = np.array([-50.0, -2.0, -1.0, 0.0, 0.1234, 1.959964, 50.0])
    expected = [0.0, 0.0227501, 0.1586553, 0.5, 0.5491044, 0.975, 1.0]
    assert normal_cdf(z) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("domain", "centres"),
    [
        (Float(-3.0, 5.0), [0.0, 0.3, 0.31, 1.0]),
        (Float(1e-3, 1.0, log=True), [0.5]),
        (Float(0.0, 1.0, step=0.1), [0.5, 0.5, 1.0]),
        (Int(1, 6), [1, 2, 2, 6]),
        (Int(0, 500), [0, 3, 400]),
        (Int(1, 2000, log=True), [1, 2, 700]),
        (Ordinal((1, 5, 7)), [1, 1, 5]),
        (Choice(("a", "b", "c", "d")), ["a", "a", "c"]),
    ],
)
def test_density_integrates_to_1(domain: Float | Int | Ordinal | Choice, centres: list[object]) -> None:
    space = Space((Parameter("p", domain),))
    columns, mixture = density(
        space, space.to_unit([{"p": centre} for centre in centres])[:, None, 0].tolist()
    )
    if domain.size is None:
        grid = (np.arange(20_000) + 0.5) / 20_000
        volumes = np.full(20_000, 1 / 20_000)
    else:
        grid = space.to_unit([{"p": point} for point in domain.points(None)])[:, 0]
        low, high = columns.cells(0, grid)
        assert low[0] == pytest.approx(0)
        assert high[-1] == pytest.approx(1)
        assert low[1:] == pytest.approx(high[:-1])
        volumes = high - low
    points = Points(columns, grid[:, None])
    densities = np.exp(mixture.log_density(points))
    assert np.exp(mixture.log_marginals(points)[:, 0]) == pytest.approx(densities)
    assert (densities * volumes).sum() == pytest.approx(1, abs=2e-3)


def test_draws_follow_the_density() -> None:
    space = Space((Parameter("n", Int(1, 5)), Parameter("c", Choice(("a", "b", "c")))))
    columns, mixture = density(space, space.to_unit([{"n": 2, "c": "b"}, {"n": 2, "c": "b"}]).tolist())
    drawn = space.from_unit(mixture.sample(40_000, default_rng(0)))
    every = list(space.grid())
    expected = np.exp(mixture.log_density(Points(columns, space.to_unit(every)))) / len(every)
    assert expected.sum() == pytest.approx(1, abs=1e-5)
    keys = [config_key(config) for config in drawn]
    shares = np.array([keys.count(config_key(config)) for config in every]) / len(keys)
    assert shares == pytest.approx(expected, abs=0.01)


def test_marginals_are_those_of_each_column_alone() -> None:
    centres = MIXED.to_unit(MIXED.sample(9, default_rng(0)))
    columns, mixture = density(MIXED, centres.tolist())
    drawn = mixture.sample_marginals(300, default_rng(1))
    found = mixture.log_marginals(Points(columns, drawn))
    for column in (0, 1, 5):  # nowhere inactive
        alone = Space((MIXED.columns[column],))
        columns, single = density(alone, centres[:, [column]].tolist())
        expected = single.log_density(Points(columns, drawn[:, [column]]))
        assert found[:, column] == pytest.approx(expected)


def test_parameters_of_a_product_kernel_go_together() -> None:
    square = Space((Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0))))
    columns, mixture = density(square, [[i, i] for i in np.linspace(0, 1, 11)])
    on, off = mixture.log_density(Points(columns, np.array([[0.2, 0.2], [0.2, 0.8]])))
    assert on > off + 1


def test_inactive_parameters_carry_no_evidence() -> None:
    space = Space(
        (
            Parameter("c", Choice(("a", "b"))),
            Parameter("x", Float(0.0, 1.0), {"c": ("a",)}),
            Parameter("n", Int(1, 4), {"c": ("b",)}),
        )
    )
    columns, mixture = density(space, [[0.25, 0.3, NAN], [0.25, 0.4, NAN]])
    # A point of the other branch: of its own parameters nothing is known.
    found = mixture.log_density(Points(columns, np.array([[0.75, NAN, 0.125], [0.75, NAN, 0.875]])))
    assert found[0] == found[1]
    # Nor does it matter whether there are parameters that are inactive on both sides.
    alone = Space(space.parameters[:2])
    columns_alone, mixture_alone = density(alone, [[0.25, 0.3], [0.25, 0.4]])
    here = mixture.log_density(Points(columns, np.array([[0.25, 0.35, NAN]])))
    assert here == pytest.approx(mixture_alone.log_density(Points(columns_alone, np.array([[0.25, 0.35]]))))


def test_repulsion_is_the_kernel_of_a_mixture() -> None:
    space = Space(
        (Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0)), Parameter("c", Choice((1, 2))))
    )
    unit = np.array([[0.1, 0.5, 0.25], [0.2, 0.4, 0.25], [0.1, 0.5, 0.75], [NAN, 0.5, 0.25]])
    logs = LocalPenalisation(Columns(space), unit, np.array([0.2, 0.3, 1.0])).log_kernels(0, 0)

    def peak(centre: float, width: float) -> float:
        below, above = normal_cdf(np.array([-centre, 1 - centre]) / width)
        return float(1 / (width * np.sqrt(2 * np.pi) * (above - below)))

    x, y = peak(0.1, 0.2), peak(0.5, 0.3)
    same, other = 2 - MISMATCH, MISMATCH
    near = np.exp(-0.5 * ((0.1 / 0.2) ** 2 + (0.1 / 0.3) ** 2))
    assert np.exp(logs) == pytest.approx([x * y * same, x * y * same * near, x * y * other, y * same])


# --------------------------------------------------------------------------- evidence


def test_until_startup_is_reached_configurations_are_random() -> None:
    known = on_line([i / 9 for i in range(9)], [float(i) for i in range(9)])
    expected = [config["x"] for config in Random().ask(1, known, default_rng(0))]
    assert proposed(TPE(), known, n=1).tolist() == expected
    assert proposed(TPE(startup=9), known, n=1).tolist() != expected


def test_good_observations_attract() -> None:
    xs = [i / 40 for i in range(41)]
    found = proposed(TPE(), on_line(xs, [abs(x - 0.3) for x in xs]))
    assert np.median(np.abs(found - 0.3)) < 0.08


def test_results_of_earlier_sweeps_attract() -> None:
    known = on_line([], [])
    for i in range(41):
        known.add_prior({"x": i / 40}, [(1, abs(i / 40 - 0.3))])
    assert np.median(np.abs(proposed(TPE(), known) - 0.3)) < 0.08


def test_pending_configurations_repel() -> None:
    # Two places that are equally good; about one of them others are at it.
    xs = [i / 40 for i in range(41)]
    values: list[float | None] = [min(abs(x - 0.2), abs(x - 0.8)) for x in xs]
    around = [0.2 + i / 1000 for i in range(-20, 20)]
    free, busy = on_line(xs, values), on_line([*xs, *around], [*values, *[None] * 40])
    shares = [
        np.mean([abs(TPE().ask(1, known, default_rng(i))[0]["x"] - 0.2) < 0.05 for i in range(60)])
        for known in (free, busy)
    ]
    assert shares[0] > 0.2
    assert shares[1] < 0.2 * shares[0]


def test_batch_of_256_is_distinct_new_and_spread() -> None:
    known = mixed_history(300, 64)
    batch = TPE().ask(256, known, default_rng(0))
    keys = {config_key(config) for config in batch}
    assert len(keys - {config_key(config) for config in known.configs}) == 256
    assert [problem for config in batch for problem in MIXED.check(config)] == []
    one_by_one = [TPE().ask(1, known, default_rng(i))[0] for i in range(64)]

    def nearest(unit: NDArray[np.float64]) -> float:
        between = np.abs(np.nan_to_num(unit)[:, None] - np.nan_to_num(unit)).sum(axis=2)
        np.fill_diagonal(between, np.inf)
        return float(np.median(between.min(axis=1)))

    assert nearest(MIXED.to_unit(batch[:64])) > nearest(MIXED.to_unit(one_by_one))


def fronts(space: Space, configs: list[Config]) -> History:
    """The first objective wants x small and the second wants it large; both want y in the middle."""
    objectives = Objectives([Objective("first"), Objective("second")])
    known = History(space, objectives=objectives)
    for config in configs:
        off = abs(config["y"] - 0.5)
        values = (config["x"] + off, 1 - config["x"] + off)
        known.observe(known.add(config), values[0], 1, key=(0.0, *values))
    return known


def test_with_several_objectives_columns_that_agree_are_found_and_others_stay_spread() -> None:
    plane = Space((*LINE.columns, Parameter("y", Float(0.0, 1.0))))
    known = fronts(plane, plane.sample(60, default_rng(0)))
    batch = TPE().ask(64, known, default_rng(0))
    x, y = (np.array([config[name] for config in batch]) for name in ("x", "y"))
    assert np.median(abs(y - 0.5)) < 0.15 < 0.25 < np.ptp(np.quantile(x, [0.25, 0.75]))
    assert len(np.unique(np.floor(20 * x))) > 12


def test_with_several_objectives_constraints_are_kept_and_nothing_is_tried_twice() -> None:
    cells = Space(
        (Parameter("x", Int(0, 5)), Parameter("y", Ordinal((0.1, 0.3, 0.5, 0.7)))),
        (Expression("x != 2"),),
    )
    known = fronts(cells, list(cells.grid())[:12])
    batch = TPE().ask(8, known, default_rng(0))
    assert len({config_key(config) for config in [*batch, *known.configs]}) == 20
    assert all(config["x"] != 2 for config in batch)


def test_failures_are_the_worst() -> None:
    xs = [i / 40 for i in range(41)]
    values = [NAN if x > 0.5 else 1 - x for x in xs]
    found = proposed(TPE(), on_line(xs, [*values]))
    assert np.mean(found < 0.6) > 0.9
    assert abs(np.median(found) - 0.47) < 0.08


def test_what_fails_at_a_higher_resource_is_no_good_at_a_lower_one() -> None:
    xs = [i / 40 for i in range(41)]
    history = on_line(xs, [1 - x for x in xs])  # best at 1 ...
    for index in range(26, 41):
        history.observe(index, NAN, 9)  # ... where training breaks later on
    searcher = TPE(random=0.0)
    assert abs(np.median(proposed(searcher, history)) - 0.6) < 0.08
    for index in range(26, 41):
        history.observe(index, 1 - xs[index], 9)  # tried again, it did not
    assert np.median(proposed(searcher, history)) > 0.8


def test_failures_alone_repel() -> None:
    xs = [0.5 + i / 40 for i in range(20)]
    assert np.mean(proposed(TPE(), on_line(xs, [NAN] * 20), n=10) < 0.5) == 1


def test_largest_resource_that_enough_have_reached_is_compared() -> None:
    # The low resource says 0.2, the high one 0.8.
    xs = [i / 30 for i in range(31)]

    def known(reached: int) -> History:
        history = on_line(xs, [abs(x - 0.2) for x in xs])
        for index in range(30, 30 - reached, -1):
            history.observe(index, abs(xs[index] - 0.8), 9)
        return history

    searcher = TPE(random=0.0)
    assert abs(np.median(proposed(searcher, known(1))) - 0.2) < 0.1  # d + 1 are 2
    assert abs(np.median(proposed(searcher, known(12))) - 0.8) < 0.1


def test_observation_again_at_the_same_resource_replaces_the_first() -> None:
    xs = [i / 30 for i in range(31)]
    history = on_line(xs, [abs(x - 0.2) for x in xs])
    for index, x in enumerate(xs):
        history.observe(index, abs(x - 0.8), 1)
    assert abs(np.median(proposed(TPE(), history)) - 0.8) < 0.1


def test_configurations_known_at_other_resources_repel() -> None:
    xs = [i / 30 for i in range(31)]
    high = on_line(xs, [min(abs(x - 0.2), abs(x - 0.8)) for x in xs], [9] * 31)
    many = [0.2 + i / 1000 for i in range(-20, 20)]
    for x in many:
        high.observe(high.add({"x": x}), 0.0, 1)
    found = [TPE(random=0.0).ask(1, high, default_rng(i))[0]["x"] for i in range(60)]
    assert np.mean(np.abs(np.array(found) - 0.2) < 0.05) < 0.05


def random_share(searcher: TPE, history: History, monkeypatch: pytest.MonkeyPatch) -> float:
    """Of 600 proposals in batches of 6, how many are random."""
    complete, proposals, modelled = RandomFallback.complete, 0, 0

    def counted(self: RandomFallback, given: Any, n: int, history: History, rng: Generator) -> list[Config]:
        nonlocal proposals, modelled
        proposals, modelled = proposals + n, modelled + len(given)
        return complete(self, given, n, history, rng)

    with monkeypatch.context() as patch:
        patch.setattr(RandomFallback, "complete", counted)
        for call in range(100):
            searcher.ask(6, history, default_rng(call))
    return 1 - modelled / proposals


@pytest.mark.parametrize("trials", [30, 300, 3000])
def test_share_of_random_proposals_under_rungs_never_ends(
    trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    xs = default_rng(0).random(trials).tolist()
    history = on_line(xs, [abs(x - 0.3) for x in xs])
    for resource, share in ((3, 3), (9, 9), (27, 27)):
        for index in range(0, trials, share):  # at last more than d + 1 are known at each resource
            history.observe(index, abs(xs[index] - 0.3), resource)
    assert random_share(TPE(candidates=2), history, monkeypatch) == pytest.approx(1 / 3, abs=0.05)
    assert random_share(TPE(candidates=2, random=0.1), history, monkeypatch) == pytest.approx(0.1, abs=0.04)
    assert random_share(TPE(candidates=2, random=0.0), history, monkeypatch) == 0


@pytest.mark.parametrize("trials", [30, 3000])
def test_no_proposal_is_random_where_all_trials_have_one_resource(
    trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    xs = default_rng(0).random(trials).tolist()
    history = on_line(xs, [abs(x - 0.3) for x in xs], [9] * trials)
    assert random_share(TPE(candidates=2), history, monkeypatch) == 0
    for i in range(9):  # of an earlier sweep
        history.add_prior({"x": i / 9}, [(1, 0.5), (3, 0.4)])
    assert random_share(TPE(candidates=2), history, monkeypatch) == 0


def test_share_is_random_while_only_an_earlier_sweep_knows_a_resource_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = on_line([0.5], [0.1], [9])
    for i in range(30):
        history.add_prior({"x": i / 30}, [(3, abs(i / 30 - 0.3))])
    assert random_share(TPE(candidates=2), history, monkeypatch) == pytest.approx(1 / 3, abs=0.05)


# --------------------------------------------------------------------------- spaces


def test_constraints_do_not_turn_it_into_random_search() -> None:
    square = Space(
        (Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0))), (Expression("x + y > 1.8"),)
    )
    configs = square.sample(60, default_rng(0))
    values: list[float | None] = [abs(config["x"] - 0.9) for config in configs]
    known = History(square, configs=configs, values=values, resources=[1] * 60)
    batch = TPE().ask(30, known, default_rng(0))
    drawn = Random().ask(30, known, default_rng(0))
    off, off_random = (np.mean([abs(config["x"] - 0.9) for config in found]) for found in (batch, drawn))
    assert off < 0.6 * off_random
    assert all(map(square.satisfies_constraints, batch))


def test_good_branch_of_a_conditional_space_is_searched() -> None:
    space = Space(
        (
            Parameter("kind", Choice(("a", "b"))),
            Parameter("x", Float(0.0, 1.0), {"kind": ("a",)}),
            Parameter("n", Int(1, 50), {"kind": ("b",)}),
        )
    )
    configs = space.sample(60, default_rng(0))
    values: list[float | None] = [abs(c["x"] - 0.7) if c["kind"] == "a" else 2.0 for c in configs]
    batch = TPE().ask(10, History(space, configs=configs, values=values, resources=[1] * 60), default_rng(0))
    chosen = [config["x"] for config in batch if config["kind"] == "a"]
    assert len(chosen) > 6
    assert abs(np.median(chosen) - 0.7) < 0.1


def test_new_configurations_are_found_in_a_finite_space_that_is_nearly_exhausted() -> None:
    space = Space((Parameter("a", Int(1, 20)), Parameter("b", Ordinal(tuple(range(10))))))
    every = list(space.grid())
    left = every[50:55]
    configs = [config for config in every if config not in left]
    values: list[float | None] = [float(config["a"]) for config in configs]
    known = History(space, configs=configs, values=values, resources=[1] * len(configs))
    batch = TPE().ask(9, known, default_rng(0))
    assert sorted(map(config_key, batch), key=str) == sorted(map(config_key, left), key=str)


def test_space_of_constants_has_one_configuration() -> None:
    space = Space((Parameter("epochs", Constant(3)),))
    assert TPE().ask(2, History(space), default_rng(0)) == [{"epochs": 3}]


def test_many_observations_are_represented_by_a_sample() -> None:
    rng = default_rng(0)
    xs = rng.random(3000).tolist()
    found = proposed(TPE(), on_line(xs, [abs(x - 0.3) for x in xs]), n=20)
    assert np.median(np.abs(found - 0.3)) < 0.05


def test_finds_better_than_chance() -> None:
    def best(searcher: TPE | Random, seed: int) -> float:
        known = History(MIXED)
        values = []
        for _ in range(60):
            (config,) = searcher.ask(1, known, default_rng([seed, known.proposed]))
            value = (
                (np.log10(config["lr"]) + 2) ** 2
                + abs(config["layers"] - 5)
                + (config["optimizer"] != "adam")
                + abs(np.log10(config["width"]) - 2)
            )
            values.append(float(value))
            known.observe(known.add(config), values[-1], 1)
        return min(values)

    seeds = range(7)
    assert np.median([best(TPE(), seed) for seed in seeds]) < 0.6 * np.median(
        [best(Random(), seed) for seed in seeds]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"startup": 0}, "startup: must be at least 1, got 0"),
        ({"good": 0.0}, "good: must be a share > 0 and < 1, got 0.0"),
        ({"good": 1}, "good: must be a share > 0 and < 1, got 1"),
        ({"candidates": 1}, "candidates: must be at least 2, got 1"),
        ({"random": 1.0}, "random: must be a share >= 0 and < 1, got 1.0"),
        ({"random": -0.1}, "random: must be a share >= 0 and < 1, got -0.1"),
    ],
)
def test_wrong_option_is_refused_in_words(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="must") as refused:
        TPE(**options)  # type: ignore[arg-type]
    assert str(refused.value) == message
