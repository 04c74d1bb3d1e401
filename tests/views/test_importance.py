"""How much each parameter matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcsweep.core.events import (
    AnyEvent,
    Config,
    Outcome,
    RunFinished,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.html.importance import importance
from hpcsweep.html.sections import Alternatives, Figure, Text
from hpcsweep.spec.checks import Problems
from hpcsweep.spec.parameters import read_space
from hpcsweep.views.importance import MOST, Analysis, analysis, importances
from hpcsweep.views.resource_values import values_of
from hpcsweep.views.results import Results
from tests.html.hand_made_sweeps import figure
from tests.views.folders import identity, planned, written

ADDITIVE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "layers": {"type": "int", "low": 1, "high": 8},
    "activation": {"type": "choice", "values": ["relu", "tanh", "gelu"]},
    "idle": {"type": "float", "low": 0.0, "high": 1.0},
    "data": {"type": "constant", "value": "digits"},
}
OFFSETS = {"relu": 0.0, "tanh": 0.5, "gelu": 0.1}

CONDITIONAL: dict[str, Any] = {
    "optimizer": {"type": "choice", "values": ["sgd", "adam", "rmsprop"]},
    "momentum": {"type": "float", "low": 0.0, "high": 1.0, "when": {"optimizer": "sgd"}},
    "nesterov": {"type": "choice", "values": [True, False], "when": {"optimizer": "sgd"}},
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
}
BASES = {"sgd": 0.0, "adam": 0.3, "rmsprop": 1.0}


def additive(config: Config) -> float:
    """Of variance 16/180 + 1/12 + 0.05**2 * 63/12 + that of the offsets."""
    place = (math.log10(config["lr"]) + 4) / 4
    value: float = 4 * (place - 0.5) ** 2 + 2 * config["dropout"] + 0.05 * config["layers"]
    return value + OFFSETS[config["activation"]]


def conditional(config: Config) -> float:
    """Under `sgd` momentum adds u, of mean 1/2 and variance 1/12, and nesterov 0.4 or nothing."""
    value: float = BASES[config["optimizer"]] + (math.log10(config["lr"]) + 4) / 4
    if config["optimizer"] == "sgd":
        value += config["momentum"] + 0.4 * config["nesterov"]
    return value


def normed(variances: dict[str, float]) -> dict[str, float]:
    return {name: variance / sum(variances.values()) for name, variance in variances.items()}


ADDITIVE_SHARES = normed(
    {
        "lr": 16 / 180,
        "dropout": 1 / 12,
        "layers": 0.05**2 * 63 / 12,
        "activation": float(np.var(list(OFFSETS.values()))),
        "idle": 0.0,
    }
)
CONDITIONAL_SHARES = normed(
    {
        "optimizer": float(np.var([0.0 + 0.5 + 0.2, 0.3, 1.0])),
        "momentum": 1 / 12 / 3,
        "nesterov": 0.2**2 / 3,
        "lr": 1 / 12,
    }
)
KNOWN = [
    pytest.param(ADDITIVE, additive, ADDITIVE_SHARES, id="additive"),
    pytest.param(CONDITIONAL, conditional, CONDITIONAL_SHARES, id="conditional"),
]


def drawn(space: dict[str, Any], count: int, seed: int = 0) -> list[Config]:
    problems = Problems("spec", {})
    found = read_space(space, [], problems)
    problems.raise_if_any()
    assert found is not None
    return found.sample(count, np.random.default_rng(seed))


def sweep(
    folder: Path,
    space: dict[str, Any],
    configs: Sequence[Config],
    *rungs: Sequence[float | None],
    mode: str = "min",
    repeats: int = 1,
) -> Results:
    """Trials with these values at resource 1, 3, 9, ...; None is a failure, the first ones go on."""
    about = identity(space=space)
    about["objective"]["mode"] = mode
    about["repeats"] = repeats
    events: list[AnyEvent] = [SweepStarted("cafe01", "lr", 50.0, about)]
    events += [
        TrialCreated(trial, config, 0, 1, repeat=trial % repeats) for trial, config in enumerate(configs)
    ]
    for rung, values in enumerate(rungs):
        if rung:
            events += [TrialPromoted(trial, rung, 3**rung) for trial in range(len(values))]
        batch = f"rung{rung}"
        events += planned(batch, *((trial, rung) for trial in range(len(values))))
        for trial, value in enumerate(values):
            outcome = Outcome.FAILED if value is None else Outcome.COMPLETED
            events.append(RunFinished(trial, rung, outcome, value, 3**rung, batch=batch, task=trial))
    return written(folder, events)


def analysed(results: Results) -> Analysis:
    found = analysis(results)
    assert found is not None
    return found


def errors(results: Results, truth: dict[str, float]) -> dict[str, float]:
    shares = {parameter.name: parameter.share for parameter in importances(results)}
    assert shares.keys() == truth.keys()
    return {name: abs(share - truth[name]) for name, share in shares.items()}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("space", "objective", "truth"), KNOWN)
def test_known_shares_are_recovered_from_500_random_trials(
    tmp_path: Path,
    space: dict[str, Any],
    objective: Callable[[Config], float],
    truth: dict[str, float],
    seed: int,
) -> None:
    configs = drawn(space, 500, seed)
    results = sweep(tmp_path, space, configs, [objective(config) for config in configs])
    assert max(errors(results, truth).values()) <= 0.05
    found = analysed(results)
    assert [parameter.name for parameter in found.parameters] == sorted(truth, key=lambda name: -truth[name])
    assert all(0 <= p.low <= truth[p.name] <= p.high <= 1 for p in found.parameters)
    assert found.explained > 0.99
    assert found.interactions < 0.02


@pytest.mark.parametrize(("space", "objective", "truth"), KNOWN)
def test_intervals_contain_the_true_shares_of_noisy_values(
    tmp_path: Path, space: dict[str, Any], objective: Callable[[Config], float], truth: dict[str, float]
) -> None:
    inside, widths = [], []
    for seed in range(3):
        configs = drawn(space, 200, seed)
        noise = np.random.default_rng(seed).normal(0, 0.3, 200).tolist()
        values = [objective(config) + more for config, more in zip(configs, noise, strict=True)]
        for p in importances(sweep(tmp_path / str(seed), space, configs, values)):
            inside.append(p.low <= truth[p.name] <= p.high)
            widths.append(p.high - p.low)
    assert np.mean(inside) >= 0.8
    assert np.mean(widths) < 0.35


def test_parameters_that_only_matter_together_have_no_share_alone(tmp_path: Path) -> None:
    configs = drawn(ADDITIVE, 500)
    values = [(c["dropout"] - 0.25) * (c["idle"] - 0.5) * 8 for c in configs]
    found = analysed(sweep(tmp_path, ADDITIVE, configs, values))
    assert found.interactions > 0.8
    assert max(p.low for p in found.parameters) < 0.05


def test_failures_and_outliers_do_not_change_the_shares(tmp_path: Path) -> None:
    configs = drawn(ADDITIVE, 500)
    values: list[float | None] = [additive(config) for config in configs]
    values[::50] = [None] * 10
    values[1::50] = [10.0 ** (3 + 25 * at) for at in range(10)]
    results = sweep(tmp_path, ADDITIVE, configs, values)
    found = analysed(results)
    assert (found.values, found.clipped) == (490, 10)
    assert max(errors(results, ADDITIVE_SHARES).values()) <= 0.1


def test_what_is_maximised_gives_the_same_shares(tmp_path: Path) -> None:
    configs = drawn(CONDITIONAL, 100)
    values = [conditional(config) for config in configs]
    values[0] = 1e9
    least = sweep(tmp_path / "min", CONDITIONAL, configs, values)
    most = sweep(tmp_path / "max", CONDITIONAL, configs, [-value for value in values], mode="max")
    assert importances(most) == importances(least)


def test_a_concentrated_search_does_not_make_the_other_values_outliers(tmp_path: Path) -> None:
    spread = drawn(ADDITIVE, 100)
    near = [config | {"lr": 0.01, "dropout": 0.0, "layers": 1, "activation": "relu"} for config in spread]
    configs = [*spread, *near, *near]
    found = analysed(sweep(tmp_path, ADDITIVE, configs, [additive(config) for config in configs]))
    assert found.clipped == 0


def test_importance_uses_the_highest_resource_that_many_reached(tmp_path: Path) -> None:
    configs = drawn(ADDITIVE, 100)
    low, middle, high = [0.0] * 100, [additive(config) for config in configs[:30]], [9.0] * 10
    results = sweep(tmp_path, ADDITIVE, configs, low, middle, high)
    found = analysed(results)
    assert (found.resource, found.values, found.configurations) == (3, 30, 100)
    section = importance(results)
    assert "30 configurations with a value at resource 3 (100 have one at any)" in figure(section).caption


def test_importance_at_another_resource_is_chosen_from_a_list(tmp_path: Path) -> None:
    """At 1 only `lr` matters, at 3 all do; 9 has too few values."""
    configs = drawn(ADDITIVE, 60)
    low, middle = [math.log(float(config["lr"])) for config in configs], [additive(c) for c in configs[:40]]
    section = importance(sweep(tmp_path, ADDITIVE, configs, low, middle, [9.0] * 10))
    assert section is not None
    (block,) = section.blocks
    assert isinstance(block, Alternatives)
    assert (block.names, block.shown) == (["Resource"], ("3 (40 trials)",))
    assert block.labels == [["3 (40 trials)", "1 (60 trials)"]]
    *_, figure = block.versions["1 (60 trials)",]
    assert isinstance(figure, Figure)
    assert figure.id == "importance-at-1"
    assert figure.traces[0]["text"][-1] == "lr"
    assert figure.traces[0]["x"][-1] > 0.9


def test_a_configuration_that_is_trained_several_times_counts_once_with_its_mean(tmp_path: Path) -> None:
    configs = [config for config in drawn(ADDITIVE, 30) for _ in range(2)]
    results = sweep(tmp_path, ADDITIVE, configs, [float(trial) for trial in range(60)], repeats=2)
    assert list(values_of(results).values) == [2 * at + 0.5 for at in range(30)]


def test_very_many_trials_are_subsampled_and_the_caption_says_so(tmp_path: Path) -> None:
    configs = drawn(ADDITIVE, MOST + 500)
    results = sweep(tmp_path, ADDITIVE, configs, [additive(config) for config in configs])
    assert analysed(results).used == MOST
    assert max(errors(results, ADDITIVE_SHARES).values()) <= 0.05
    section = importance(results)
    assert section is not None
    figure = section.blocks[-1]
    assert isinstance(figure, Figure)
    assert "Computed from 2,000 of them, drawn at random." in figure.caption


def test_the_section_has_a_bar_with_its_interval_for_each_parameter(tmp_path: Path) -> None:
    configs = drawn(CONDITIONAL, 100)
    results = sweep(tmp_path, CONDITIONAL, configs, [conditional(config) for config in configs])
    section = importance(results)
    assert section is not None
    words, figure = section.blocks
    assert isinstance(words, Text)
    assert isinstance(figure, Figure)
    (trace,) = figure.traces
    assert trace["text"] == ["nesterov", "momentum", "optimizer", "lr"]
    for bar, share, more, less in zip(
        importances(results)[::-1],
        trace["x"],
        trace["error_x"]["array"],
        trace["error_x"]["arrayminus"],
        strict=True,
    ):
        assert (share, share + more, share - less) == pytest.approx((bar.share, bar.high, bar.low))
    assert figure.summary.startswith("lr ")
    assert "R² of 1.00" in figure.caption


def test_a_poor_model_is_reported(tmp_path: Path) -> None:
    configs = drawn(ADDITIVE, 60)
    noise = np.random.default_rng(0).normal(size=60).tolist()
    section = importance(sweep(tmp_path, ADDITIVE, configs, noise))
    assert section is not None
    warning = section.blocks[1]
    assert isinstance(warning, Text)
    assert warning.kind == "warning"


@pytest.mark.parametrize(
    ("count", "value", "words"),
    [
        (0, 0.5, "there are 0."),
        (19, 0.5, "there are 19 at resource 1."),
        (20, 0.5, "All 20 configurations at resource 1 have the same loss"),
    ],
)
def test_without_importances_the_page_says_why(tmp_path: Path, count: int, value: float, words: str) -> None:
    results = sweep(tmp_path, ADDITIVE, drawn(ADDITIVE, count), [value] * count)
    assert importances(results) == ()
    section = importance(results)
    assert section is not None
    (told,) = section.blocks
    assert isinstance(told, Text)
    assert words in told.text


def test_a_space_of_constants_has_no_section(tmp_path: Path) -> None:
    space = {"data": ADDITIVE["data"]}
    assert importance(sweep(tmp_path, space, [{"data": "digits"}] * 30, [0.1] * 30)) is None
