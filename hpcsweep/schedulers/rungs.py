"""Rung arithmetic and top-k, shared by the schedulers. Integers only.

`floor(log(243) / log(3))` is 4 in floats and loses a rung; here one multiplies up instead. Symbols
are the papers': R the largest resource, eta the reduction factor, s a bracket, n its trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from hpcsweep.core.protocols import BracketPlan

#: Configurations in one rung at most: they start piece by piece, but in the end all are in memory.
MAX_RUNG: Final = 10_000_000


def floor_log(x: int, base: int) -> int:
    """The largest k with `base**k <= x`."""
    k = 0
    while base ** (k + 1) <= x:
        k += 1
    return k


def hyperband_bracket(s: int, *, min_resource: int, max_resource: int, eta: int) -> BracketPlan:
    """Bracket `s` of Hyperband (Li et al., JMLR 18, 2018, Algorithm 1).

    n = ceil((s_max + 1) eta^s / (s + 1)) trials start at R eta^-s; rung i keeps floor(n eta^-i).
    With `min_resource` r the brackets are s_max = floor(log_eta(R / r)) .. 0. Resources are
    rounded down to integers where R is no power of eta.
    """
    s_max = floor_log(max_resource // min_resource, eta)
    n = -(-(s_max + 1) * eta**s // (s + 1))
    return BracketPlan(
        tuple(max_resource // eta ** (s - i) for i in range(s + 1)),
        tuple(n // eta**i for i in range(s + 1)),
    )


def hyperband_brackets(*, min_resource: int, max_resource: int, eta: int) -> list[BracketPlan]:
    """All brackets of one Hyperband iteration, the one with most trials first."""
    s_max = floor_log(max_resource // min_resource, eta)
    return [
        hyperband_bracket(s, min_resource=min_resource, max_resource=max_resource, eta=eta)
        for s in range(s_max, -1, -1)
    ]


def halving_bracket(*, min_resource: int, max_resource: int, eta: int, prefact: float = 1.0) -> BracketPlan:
    """One round of successive halving as in Dive into Deep Learning, 19.4.

    Rungs at r_min eta^k, and at r_max if that is not one of them; with K + 1 rungs, rung i holds
    int(prefact eta^(K - i)) trials, at least one.
    """
    k = floor_log(max_resource // min_resource, eta)
    resources = [min_resource * eta**i for i in range(k + 1)]
    if resources[-1] != max_resource:
        resources.append(max_resource)
    top = len(resources) - 1
    factor = Fraction(str(prefact))
    return BracketPlan(
        tuple(resources), tuple(max(1, math.floor(factor * eta ** (top - i))) for i in range(top + 1))
    )


def max_asha_runs(trials: int, *, rungs: int, eta: int) -> list[int]:
    """How many runs each rung of ASHA's promotion kind has at most, whatever the order of the results.

    The first of them is admitted when `eta` runs below have ended. After that each ending admits
    at most one more, whether it is itself among the best or one more of the best may go on: those
    that were promoted stay so when better ones come.
    """
    sizes = [trials]
    for _ in range(rungs - 1):
        sizes.append(max(0, sizes[-1] - eta + 1))
    return sizes


def top_k(values: Mapping[int, float | None], k: int, *, minimise: bool) -> list[int]:
    """The `k` best trials, best first; one without a value never, ties to the older trial."""
    sign = 1 if minimise else -1
    ranked = sorted((sign * value, trial) for trial, value in values.items() if value is not None)
    return [trial for _, trial in ranked[:k]]


def check_resources(*, min_resource: int, max_resource: int, eta: int) -> None:
    """Whether these make rungs.

    Raises:
        ValueError: They do not; the message begins with the option's name.
    """
    if eta < 2:
        raise ValueError(f"eta: must be at least 2, got {eta}")
    if min_resource < 1:
        raise ValueError(f"min_resource: must be at least 1, got {min_resource}")
    if min_resource > max_resource:
        raise ValueError(f"min_resource: must be <= max_resource ({max_resource}), got {min_resource}")


def rungs_refusal(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why raising `max_resource` would move rungs that trials stand on; empty if it only adds some above.

    Args:
        before: Options of the scheduler so far.
        now: And from now on.
    """
    old, new = (
        halving_bracket(
            min_resource=o["min_resource"], max_resource=o["max_resource"], eta=o["eta"]
        ).resources
        for o in (before, now)
    )
    if new[: len(old)] == old:
        return ""
    return f"{old[-1]} was a rung, and would be none of {' > '.join(map(str, new))}"
