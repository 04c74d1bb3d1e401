"""What runs need is learned from those that have ended: enough for most, and not much more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hpcsweep.core import learned
from hpcsweep.core.domains import Choice, Float, Int
from hpcsweep.core.events import AnyEvent, Config, Outcome, RunFinished, SweepStarted, TrialCreated
from hpcsweep.core.learned import LEAST, Features, LearnedNeeds, Quantity, Used
from hpcsweep.core.space import Parameter, Space
from hpcsweep.core.state import SweepState

SPACE = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("width", Int(64, 4096)),
        Parameter("kind", Choice(("small", "large"))),
        Parameter("momentum", Float(0.0, 1.0), {"kind": ("large",)}),
    )
)


def ended(trial: int, config: Config, seconds: float, **fields: object) -> list[AnyEvent]:
    """A trial whose run of 3 units took so long."""
    more = {"started": 5.0, "step": 3, "peak_mib": 100, **fields}
    finished = RunFinished(trial, 0, Outcome.COMPLETED, 0.5, seconds=seconds, **more)  # type: ignore[arg-type]
    return [TrialCreated(trial, config, 0, 3), finished]


def sweep(n: int, seconds: Callable[[Config, float], float], **fields: object) -> list[AnyEvent]:
    """So many trials; a run takes what its configuration and a number from 0 to 1 say."""
    rng = np.random.default_rng(7)
    events: list[AnyEvent] = [SweepStarted("s", "s", 0.0, {}, 0)]
    for trial, config in enumerate(SPACE.sample(n, rng)):
        events += ended(trial, config, seconds(config, rng.random()), **fields)
    return events


def learn(events: list[AnyEvent]) -> LearnedNeeds:
    state = SweepState()
    needs = LearnedNeeds(state, SPACE)
    for event in events:
        state.apply(event)
        needs.apply(event)
    return needs


def ratios(needs: LearnedNeeds, seconds: Callable[[Config, float], float]) -> list[float]:
    """What is asked for further runs of 3 units, against what they take."""
    rng = np.random.default_rng(8)
    found = []
    for config in SPACE.sample(500, rng):
        asked = needs.time_s(config, units=3)
        assert asked is not None
        found.append(asked / seconds(config, rng.random()))
    return found


def test_nothing_is_learned_from_few_runs() -> None:
    few = learn(sweep(LEAST - 1, lambda *_: 60.0))
    assert (few.time_s({}, units=3), few.mem_mib({}, rung=0)) == (None, None)


def test_after_ten_runs_at_most_twice_of_what_is_used_is_asked_for_and_most_runs_fit() -> None:
    spread = lambda _, luck: 600 * 4**luck  # noqa: E731
    found = ratios(learn(sweep(LEAST, spread)), spread)
    assert 1.0 < np.median(found) <= 2.0
    assert np.mean(np.array(found) < 1) < 0.25


def test_parameters_that_explain_the_time_are_found_and_the_limits_become_tight() -> None:
    def by_width(config: Config, luck: float) -> float:
        return float((2 if config["kind"] == "large" else 1) * config["width"] ** 1.5 * 1.05**luck)

    found = ratios(learn(sweep(60, by_width)), by_width)
    assert np.median(found) < 1.3
    assert np.mean(np.array(found) < 1) < 0.2


def test_parameters_that_explain_nothing_are_not_used() -> None:
    spread = lambda _, luck: 600 * 4**luck  # noqa: E731
    needs = learn(sweep(200, spread))
    low, high = (needs.time_s(config, units=3) for config in SPACE.sample(2, np.random.default_rng(1)))
    assert low == high


def test_the_start_is_asked_for_once_and_each_unit_as_often_as_it_is_trained() -> None:
    needs = learn(sweep(LEAST, lambda *_: 90.0 + 3 * 10.0, unit_seconds=10.0))
    assert needs.time_s({}, units=3) == pytest.approx(1.1 * (90 + 30))
    assert needs.time_s({}, units=30) == pytest.approx(1.1 * (90 + 300))


def test_memory_is_what_the_largest_used_and_some_more() -> None:
    assert learn(sweep(LEAST, lambda *_: 1.0, peak_mib=1000)).mem_mib({}, rung=0) == 1200 + 128


def test_a_replay_learns_the_same() -> None:
    events = sweep(60, lambda config, luck: config["width"] * 4**luck)
    config = SPACE.sample(1, np.random.default_rng(1))[0]
    assert learn(events).time_s(config, units=3) == learn(events).time_s(config, units=3)


def test_models_are_made_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[int] = []
    fit = learned._fit

    def counted(rows: Any, features: Features, quantile: float) -> Any:
        fits.append(len(rows))
        return fit(rows, features, quantile)

    monkeypatch.setattr(learned, "_fit", counted)
    quantity = Quantity(Features(SPACE), 0.9)
    for run in range(5000):
        quantity.add(Used({}, 0, 1.0 + run % 3))
        quantity.upper({}, 0)
    assert len(fits) < 10 + math.log(5000) / math.log(1.25)
    assert max(fits) <= learned.MOST


def test_a_configuration_has_numbers_for_ranges_logarithms_and_choices() -> None:
    features = Features(SPACE)
    row = features.encode({"lr": 0.01, "width": 512, "kind": "large", "momentum": 0.5})
    assert len(row) == features.size
    assert row == pytest.approx([0.5, 448 / 4032, 0.5, 0.0, 1.0, 0.5])
    assert features.encode({"lr": 1.0, "width": 64, "kind": "small"}) == pytest.approx([1, 0, 0, 1, 0, 0])
