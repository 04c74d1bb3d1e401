"""How the space of a sweep grows by what its runs suggest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpcsweep.core.events import (
    AnyEvent,
    Outcome,
    ParametersSuggested,
    RunFinished,
    SweepExtended,
    SweepStarted,
    TrialCreated,
)
from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Float, Int, Parameter, Space
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import MOST_ADDED, added_parameters, amended, grown, with_added

FLOAT = {"type": "float", "low": 0.0, "high": 1.0, "log": False}
INT = {"type": "int", "low": 1, "high": 4, "log": False}
KIND = {"type": "choice", "values": ["a", "b"]}
SPACE = {"lr": FLOAT}
ADDED = {"added": True}


@pytest.mark.parametrize(
    ("space", "parameters", "after"),
    [
        (SPACE, {"n": INT, "kind": KIND}, SPACE | {"n": INT | ADDED, "kind": KIND | ADDED}),
        (SPACE, {"lr": FLOAT | {"high": 2.0}}, SPACE),  # the spec's own stays
        (SPACE, {"a name": FLOAT, "LR": FLOAT, "x.y": FLOAT}, SPACE | {"x.y": FLOAT | ADDED}),
        (SPACE, {"n": INT | {"high": 0}, "m": FLOAT | {"log": True}, "o": {"type": "what"}}, SPACE),
        ({"n": INT | ADDED}, {"n": INT | {"high": 9}}, {"n": INT | ADDED | {"high": 9}}),
        ({"n": INT | ADDED}, {"n": INT | {"low": 2, "high": 3}}, {"n": INT | ADDED}),
        ({"n": INT | ADDED}, {"n": FLOAT}, {"n": INT | ADDED}),
        ({"n": INT | ADDED}, {"n": INT | {"high": 9, "step": 2}}, {"n": INT | ADDED}),
        (
            {"k": KIND | ADDED},
            {"k": {"type": "choice", "values": ["c", "a"]}},
            {"k": {"type": "choice", "values": ["a", "b", "c"]} | ADDED},
        ),
        (
            SPACE,
            {
                "n": INT | {"prior": {"center": 2, "sigma": 1}},
                "m": INT | {"prior": {"center": 7, "sigma": 1}},
                "k": KIND | {"prior": {"b": 3}},
            },
            SPACE
            | {"n": INT | {"prior": {"center": 2, "sigma": 1}} | ADDED, "m": INT | ADDED}
            | {"k": KIND | {"prior": {"b": 3}} | ADDED},
        ),
        (
            {"k": KIND | {"prior": [1, 2]} | ADDED},
            {"k": {"type": "choice", "values": ["c"]}},
            {"k": {"type": "choice", "values": ["a", "b", "c"]} | ADDED},
        ),
    ],
)
def test_a_space_grows_by_what_it_can_hold(space: Any, parameters: Any, after: Any) -> None:
    assert grown(space, parameters) == after


def test_names_without_end_end_somewhere() -> None:
    found = grown(SPACE, {f"x{index}": FLOAT for index in range(MOST_ADDED + 9)})
    assert len(found) == 1 + MOST_ADDED


def test_a_configuration_has_the_values_that_the_space_admits_in_its_order() -> None:
    space = {"lr": FLOAT, "n": INT | ADDED, "m": INT | ADDED, "step": FLOAT | {"step": 0.1} | ADDED}
    values = {"step": 0.1 + 0.2, "n": 3, "m": 9, "lr": 0.5, "other": 1}
    config = amended({"m": 2, "lr": 0.25}, space, values, unused=("m", "lr"))
    assert (config, list(config)) == ({"lr": 0.25, "n": 3, "step": 0.3}, ["lr", "n", "step"])


def started(**identity: Any) -> SweepStarted:
    return SweepStarted("cafe01", "s", 0.0, {"space": SPACE, **identity})


def test_the_state_has_the_space_and_the_configurations_as_they_have_grown() -> None:
    created = [TrialCreated(trial, {"lr": 0.5}, 0, 1, repeat=trial % 2) for trial in range(4)]
    events: list[AnyEvent] = [
        started(repeats=2),
        *created,
        ParametersSuggested(1, 0, {"n": INT}, {"n": 2}),
        SweepExtended(1.0, started(repeats=2, scheduler={}).identity | {"space": SPACE | {"n": INT | ADDED}}),
        ParametersSuggested(2, 0, {"n": INT | {"high": 9}}, {"n": 9}),
        ParametersSuggested(0, 0, unused=("n",)),
    ]
    state = SweepState.replay(events)
    assert added_parameters(state.started) == {"n": INT | ADDED | {"high": 9}}
    assert [trial.config for trial in state.trials] == [{"lr": 0.5}] * 2 + [{"lr": 0.5, "n": 9}] * 2
    assert created[2].config == {"lr": 0.5}, "an event stays as it was"


def test_trials_from_before_are_inactive_in_what_was_added() -> None:
    before = Space((Parameter("lr", Float(0.0, 1.0)),))
    history = History(before, configs=[{"lr": 0.25}, {"lr": 0.5}], values=[1.0, None], resources=[1, 1])
    history.add_prior({"lr": 0.75}, [(1, 2.0)])
    assert history.X.tolist() == [[0.25], [0.75]]
    after = with_added(before, {"n": INT | ADDED, "lr": FLOAT | {"high": 9.0}})
    assert after == Space((*before.parameters, Parameter("n", Int(1, 4), added=True)))
    history.rebase(after, {1: {"lr": 0.5, "n": 1}})
    history.add({"lr": 1.0, "n": 4})
    np.testing.assert_equal(history.X, [[0.25, np.nan], [0.75, np.nan]])
    np.testing.assert_equal(history.pending, [[0.5, 0.125], [1.0, 0.875]])
    assert after.check({"lr": 0.5}) == []
    assert after.check({"lr": 0.5, "n": 7}) == ["n: must be between 1 and 4, got 7"]
    assert after.drop_inactive({"lr": 0.5}) == {"lr": 0.5}
    assert after.original == before


def test_what_was_added_may_be_what_others_depend_on() -> None:
    kind, width = Parameter("kind", Choice(("a", "b")), added=True), Int(1, 4)
    space = Space((kind, Parameter("width", width, {"kind": ("a",)})))
    assert space.drop_inactive({"width": 2}) == {}
    assert space.check({}) == []


def test_the_end_of_a_run_needs_no_suggestion() -> None:
    state = SweepState.replay([started(), TrialCreated(0, {"lr": 0.5}, 0, 1)])
    state.apply(RunFinished(0, 0, Outcome.FAILED))
    assert state.trials[0].config == {"lr": 0.5}
    assert added_parameters(state.started) == {}
