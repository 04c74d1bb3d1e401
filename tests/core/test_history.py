"""What a searcher is told: arrays over what was observed and what is pending."""

from __future__ import annotations

import numpy as np

from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Float, Parameter, Space

SPACE = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("opt", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 1.0), {"opt": ("sgd",)}),
    ),
    (),
)


def test_observed_failed_and_pending_trials_are_distinguished() -> None:
    history = History(
        SPACE,
        configs=[
            {"lr": 1e-4, "opt": "sgd", "momentum": 0.5},
            {"lr": 1.0, "opt": "adam"},
            {"lr": 1e-2, "opt": "adam"},
        ],
        values=[0.25, None, float("nan")],
        resources=[9, 0, 0],
    )
    assert history.proposed == 3
    np.testing.assert_allclose(history.X, [[0.0, 0.25, 0.5], [0.5, 0.75, np.nan]], atol=1e-12)
    np.testing.assert_allclose(history.pending, [[1.0, 0.75, np.nan]], atol=1e-12)
    np.testing.assert_array_equal(history.values, [0.25, np.nan])
    np.testing.assert_array_equal(history.resources, [9, 0])


def test_an_empty_history_has_arrays_of_the_right_shape() -> None:
    history = History(SPACE, configs=[], values=[], resources=[])
    assert history.X.shape == (0, 3)
    assert history.pending.shape == (0, 3)
    assert history.values.shape == history.resources.shape == (0,)
