"""Rank correlations between resources: the figure of SciPy, honest intervals, and three verdicts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.random import default_rng

from hpcsweep.core.rank_correlation import RankCorrelation, rank_correlation


def between(lower: Mapping[int, float], higher: Mapping[int, float]) -> RankCorrelation:
    found = rank_correlation((1, lower), (9, higher))
    assert found is not None
    return found


def drawn(trials: int, rho: float, *, share: float = 1.0, seed: int = 0) -> RankCorrelation:
    """Normal values of this correlation; the best share at the lower resource have one at the higher."""
    a, b = default_rng(seed).normal(size=(2, trials))
    higher = rho * a + np.sqrt(1 - rho**2) * b
    on = np.argsort(a)[: round(share * trials)]
    return between(dict(enumerate(a)), {int(trial): higher[trial] for trial in on})


def test_it_is_spearmans_with_ties_by_their_mean_rank() -> None:
    from scipy.stats import spearmanr  # not for the collection

    rng = default_rng(3)
    a, b = rng.integers(0, 6, size=(2, 40)).astype(float)
    found = between(dict(enumerate(a)), dict(enumerate(b)))
    assert found.rho == pytest.approx(spearmanr(a, b).statistic, abs=1e-4)
    assert (found.lower, found.higher, found.trials, found.known) == (1, 9, 40, 40)
    assert found.all_trials == pytest.approx(found.rho, abs=1e-4)  # nobody was left behind


def test_too_few_trials_or_values_that_are_all_alike_have_none() -> None:
    six = {trial: float(trial) for trial in range(6)}
    assert rank_correlation((1, six), (9, {trial: six[trial] for trial in range(5)})) is None
    assert rank_correlation((1, six), (9, dict.fromkeys(six, 0.5))) is None
    assert between(six, six).rho == 1.0


def test_nine_in_ten_intervals_hold_the_true_correlation() -> None:
    rho = 0.5
    true = 6 / np.pi * np.arcsin(rho / 2)  # of normal values (Pearson 1907)
    held = sum(
        found.low <= true <= found.high for found in (drawn(30, rho, seed=seed) for seed in range(300))
    )
    assert 0.85 <= held / 300 <= 0.95


def test_the_estimate_for_all_trials_corrects_for_the_selection() -> None:
    found = [drawn(900, 0.8, share=1 / 3, seed=seed) for seed in range(30)]
    true = drawn(900, 0.8).rho
    assert all(each.rho < true - 0.15 for each in found)
    assert np.mean([each.all_trials for each in found]) == pytest.approx(true, abs=0.1)


def test_a_useless_resource_is_told_from_a_useful_one() -> None:
    useless = [drawn(240, 0.0, share=1 / 3, seed=seed).predicts for seed in range(100)]
    useful = [drawn(240, 0.8, share=1 / 3, seed=seed).predicts for seed in range(100)]
    weak = [drawn(240, 0.4, share=1 / 3, seed=seed).predicts for seed in range(100)]
    misleading = [drawn(60, -0.6, share=1 / 3, seed=seed).predicts for seed in range(100)]
    assert useless.count(False) >= 60
    assert useful.count(False) <= 1
    assert useful.count(True) >= 90
    assert weak.count(False) <= 10
    assert misleading.count(False) >= 75
    assert misleading.count(True) == 0


def test_a_few_trials_leave_it_open() -> None:
    assert drawn(27, 0.3, share=1 / 3).predicts is None
