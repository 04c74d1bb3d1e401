"""What searchers that only rank results see in the place of several objectives."""

from __future__ import annotations

import numpy as np

from hpcsweep.core import pareto
from hpcsweep.core.domains import Floats
from hpcsweep.core.history import History


def ranks(history: History) -> Floats:
    """A number for each observation that orders those of a resource, `(m,)`: the better the smaller.

    With one objective its values. With several the place by non-dominated sorting, among the results at the
    same resource; NaN for a failure.
    """
    if not history.objectives.several:
        return history.values
    points, violations, resources = history.points, history.violations, history.resources
    places = np.full(len(points), np.nan)
    for resource in np.unique(resources):
        rows = np.flatnonzero((resources == resource) & ~np.isnan(points[:, 0]))
        order = rows[pareto.ranked(points[rows], violations[rows])]
        places[order] = np.arange(len(order))
    return places
