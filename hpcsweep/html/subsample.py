"""Which of many are shown."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Places: TypeAlias = NDArray[np.int64]


def thinned(count: int, *, best: int, most: int) -> Places:
    """At most `most` of the places 0 .. count - 1: the first `best`, and an even spread to the last."""
    if count <= most:
        return np.arange(count)
    spread = np.linspace(best, count - 1, most - best) if most > best else np.empty(0)
    return np.concatenate([np.arange(best), np.rint(spread).astype(np.int64)])
