"""How the configurations of a sweep with several objectives stand to each other: the front, and places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcsweep.core.objectives import dominates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hpcsweep.core.models import Best
    from hpcsweep.core.objectives import Objectives


class Standing:
    """Each configuration by its newest values. What is asked for is computed then, until one changes."""

    def __init__(self, objectives: Objectives) -> None:
        self._objectives = objectives
        self._newest: dict[int, Best] = {}
        self._front: tuple[Best, ...] | None = None
        self._best: Best | None = None
        self._places: dict[int, int] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Standing) and self._newest == other._newest

    __hash__ = None  # type: ignore[assignment]

    def put(self, first: int, newest: Best | None) -> None:
        """The newest values of the configuration with this first trial; None: it has none any more."""
        before = self._newest.pop(first, None)
        if newest is not None:
            self._newest[first] = newest
        self._places = None
        if self._front is not None and (before in self._front or not self._is_dominated(newest)):
            self._front = None

    def _is_dominated(self, newest: Best | None) -> bool:
        """Whether it leaves the front as it is."""
        if newest is None:
            return True
        key = self._objectives.key(newest.value, newest.values)
        others = (self._objectives.key(best.value, best.values) for best in self._front or ())
        return any(dominates(other, key) for other in others)

    @property
    def front(self) -> tuple[Best, ...]:
        """The configurations that none dominates, the best in the first objective first.

        Where no configuration keeps the bounds, those that violate them least.
        """
        self._find_front()
        return self._front or ()

    @property
    def best(self) -> Best | None:
        """The one of the front that is nearest to the best value of each objective at once."""
        self._find_front()
        return self._best

    @property
    def places(self) -> dict[int, int]:
        """First trial -> place among all, by non-dominated sorting and an epsilon-net, from 0."""
        if self._places is None:
            from hpcsweep.core.pareto import ranked

            of = self._in_order()
            values, violations = self._arrays(of)
            order = ranked(values, violations)
            self._places = {of[index].trial: place for place, index in enumerate(order.tolist())}
        return self._places

    def _find_front(self) -> None:
        if self._front is not None:
            return
        from hpcsweep.core.pareto import epsilon_net, front

        of = self._in_order()
        self._front, self._best = (), None
        if of:
            values, violations = self._arrays(of)
            indices = front(values, violations)
            on_front = values[indices]
            self._best = of[indices[epsilon_net(on_front)[0]]]
            order = sorted(range(len(indices)), key=lambda at: (on_front[at, 0], of[indices[at]].trial))
            self._front = tuple(of[indices[at]] for at in order)

    def _in_order(self) -> list[Best]:
        return [self._newest[first] for first in sorted(self._newest)]

    def _arrays(self, of: list[Best]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The values to be minimised `(n, k)`, and the violations `(n,)`."""
        import numpy as np

        keys = np.array([self._objectives.key(best.value, best.values) for best in of], dtype=float)
        keys = keys.reshape(len(of), 1 + len(self._objectives))
        return keys[:, 1:], keys[:, 0]
