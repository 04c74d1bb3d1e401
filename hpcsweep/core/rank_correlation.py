"""How well the ranks of trials at one resource predict those at a higher one. Pure, and without numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, StatisticsError, correlation, pstdev
from typing import Final

import msgspec

#: Trials with a value at both resources that a correlation needs.
LEAST_TRIALS: Final = 6
#: Quantile of the normal distribution for a two-sided interval of 90 %.
_Z: Final = 1.6449
#: A correlation of all trials below `_POOR` that is, by its interval, also below `_USEFUL` does not predict.
#: Little is enough: with five rungs and eta 3 the lowest one takes a fifth of what is trained, and from a
#: correlation of 0.07 on as many more of the best 0.1 % pass it as of those that are drawn by lot.
_POOR: Final = 0.1
_USEFUL: Final = 0.5


class RankCorrelation(msgspec.Struct, frozen=True):
    """Spearman's rank correlation of the values at two resources, among the trials that have both.

    Attributes:
        trials: With a value at both; `known`: with one at the lower resource.
        rho: Of these trials, with its 90 % interval from `low` to `high`.
        all_trials: An estimate for all that are known at the lower resource: only those that were good
            there went on, and among these any correlation is smaller.
        predicts: Whether the lower resource predicts the higher one; None while that is open.
        advice: What to do where it does not.
        metric: Of which objective the values are.
    """

    lower: int
    higher: int
    trials: int
    known: int
    rho: float
    low: float
    high: float
    all_trials: float
    predicts: bool | None
    advice: str = ""
    metric: str = ""


def rank_correlation(
    lower: tuple[int, Mapping[int, float]], higher: tuple[int, Mapping[int, float]]
) -> RankCorrelation | None:
    """The correlation between two resources, each with its values by trial; None with too few, or all alike.

    The interval is that of Bonett and Wright (Psychometrika 65, 2000): Fisher's z with the variance
    (1 + rho^2 / 2) / (n - 3). The estimate for all trials corrects for the selection by the values at the
    lower resource (Thorndike 1949, case 2): u rho / sqrt(1 + rho^2 (u^2 - 1)), where u is the ratio of
    the standard deviations of the normal scores of all and of those that went on.
    """
    before, after = lower[1], higher[1]
    both = [trial for trial in before if trial in after]
    if len(both) < LEAST_TRIALS:
        return None
    try:
        rho = correlation(_ranks([before[trial] for trial in both]), _ranks([after[trial] for trial in both]))
    except StatisticsError:  # all values are alike
        return None
    normal = NormalDist()
    scores = {
        trial: normal.inv_cdf((rank - 0.5) / len(before))
        for trial, rank in zip(before, _ranks(list(before.values())), strict=True)
    }
    widening = pstdev(scores.values()) / pstdev([scores[trial] for trial in both])
    centre = math.atanh(max(-0.999, min(0.999, rho)))
    margin = _Z * math.sqrt((1 + rho**2 / 2) / (len(both) - 3))
    low, high = math.tanh(centre - margin), math.tanh(centre + margin)
    all_trials = _corrected(rho, widening)
    predicts = None
    if all_trials < _POOR and _corrected(high, widening) < _USEFUL:
        predicts = False
    elif low > 0:
        predicts = True
    return RankCorrelation(
        lower[0],
        higher[0],
        len(both),
        len(before),
        round(rho, 4),
        round(low, 4),
        round(high, 4),
        round(all_trials, 4),
        predicts,
    )


def _corrected(rho: float, widening: float) -> float:
    return widening * rho / math.sqrt(1 + rho**2 * (widening**2 - 1))


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1, the mean of their ranks for those that are alike."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 0
    while first < len(order):
        end = first
        while end < len(order) and values[order[end]] == values[order[first]]:
            end += 1
        for index in order[first:end]:
            ranks[index] = (first + end + 1) / 2
        first = end
    return ranks
