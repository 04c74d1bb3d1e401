"""Who is better: trials ranked by one value, or by several objectives.

What is compared is a `Key` (`core.objectives`). One number ranks by itself. Several objectives rank by
non-dominated sorting under constrained domination (Deb et al. 2002), and within a front by an epsilon-net
(Schmucker et al. 2021, MO-ASHA), so that a place depends on who else is there. Ties go to the older trial.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from hpcsweep.core.objectives import Key

if TYPE_CHECKING:
    from hpcsweep.core.pareto import Floats


def best_first(keys: Mapping[int, Key | None], count: int | None = None) -> list[int]:
    """The `count` best trials (None: all), best first; one without a value never."""
    valued = {trial: key for trial, key in keys.items() if key is not None}
    if not any(isinstance(key, tuple) for key in valued.values()):
        ranked = sorted((key, trial) for trial, key in valued.items())
        return [trial for _, trial in ranked[:count]]
    from hpcsweep.core import pareto

    trials = sorted(valued)
    rows = _array([cast("tuple[float, ...]", valued[trial]) for trial in trials])
    return [trials[index] for index in pareto.ranked(rows[:, 1:], rows[:, 0], count=count)]


def _array(keys: list[tuple[float, ...]]) -> Floats:
    import numpy as np

    return np.array(keys, dtype=float)


class Ranked:
    """Trials that only become more, each with the place of its value among them."""

    def __init__(self) -> None:
        self._keys: dict[int, Key] = {}
        self._sorted: list[tuple[Any, int]] = []  # of numbers
        self._places: dict[int, int] | None = None  # of several objectives, while nobody joins

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_places": None}  # what was looked up changes nothing

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, trial: int, key: Key) -> None:
        """A trial joins."""
        self._keys[trial] = key
        self._places = None
        if not isinstance(key, tuple):
            insort(self._sorted, (key, trial))

    def place(self, trial: int) -> int:
        """How many are better."""
        key = self._keys[trial]
        if not isinstance(key, tuple):
            return bisect_left(self._sorted, (key, trial))
        if self._places is None:
            self._places = {each: place for place, each in enumerate(best_first(self._keys))}
        return self._places[trial]


class Candidates(ABC):
    """Who may still be promoted out of a rung, and who is dropped for good.

    Args:
        places: How many can reach the next rung at most; None while that is open.

    Attributes:
        with_value: Trials that ended the rung with a value.
        promoted: Those that went on.
    """

    def __init__(self, places: int | None = None) -> None:
        self._places = places
        self._waiting: set[int] = set()
        self._closed = False
        self.with_value = 0
        self.promoted = 0

    def __len__(self) -> int:
        """How many may still be promoted."""
        return len(self._waiting)

    @abstractmethod
    def add(self, trial: int, key: Any) -> list[int]:
        """A trial ended the rung with this key; who is dropped by that."""

    @abstractmethod
    def remove(self, trial: int) -> None:
        """The trial's run here has not ended after all, or it goes no further; its place comes free."""

    @abstractmethod
    def _dropped(self) -> list[int]:
        """Who has fallen behind as many as can go on; they no longer wait."""

    @abstractmethod
    def _forget(self) -> None:
        """Nobody is compared any more."""

    def promote(self, trial: int) -> None:
        """The trial has gone on."""
        self._waiting.discard(trial)
        self.promoted += 1

    def limit(self, places: int | None) -> list[int]:
        """No more than so many can reach the next rung; who is dropped by that."""
        if places is None or (self._places is not None and places >= self._places):
            return []
        self._places = places
        return self._dropped()

    def close(self) -> list[int]:
        """Nobody else goes on from now on; who is dropped by that."""
        self._closed = True
        dropped = sorted(self._waiting)
        self._waiting.clear()
        self._forget()
        return dropped


class FrontCandidates(Candidates):
    """`PromotionCandidates` of several objectives: dropped is who is dominated by as many as can go on.

    More results only add to those, so that it is for good; a place by crowding may still change.
    """

    def __init__(self, places: int | None = None) -> None:
        import numpy as np

        super().__init__(places)
        self._rows: dict[int, int] = {}
        self._keys: Floats = np.empty((0, 0))
        self._counts = np.empty(0, dtype=np.int64)  # by how many each is dominated

    def add(self, trial: int, key: Key) -> list[int]:
        from hpcsweep.core.pareto import dominated, dominators

        assert isinstance(key, tuple)
        self.with_value += 1
        if self._closed:
            return [trial]
        count = len(self._rows)
        self._grow(len(key))
        self._keys[count] = key
        row, others = self._keys[count], self._keys[:count]
        self._counts[count] = dominators(others[:, 1:], others[:, 0], row[1:], row[0]).sum()
        self._counts[:count] += dominated(others[:, 1:], others[:, 0], row[1:], row[0])
        self._rows[trial] = count
        self._waiting.add(trial)
        return self._dropped()

    def _grow(self, width: int) -> None:
        import numpy as np

        count = len(self._rows)
        if count == len(self._keys):
            size = max(16, 2 * count)
            keys, counts = np.empty((size, width)), np.zeros(size, dtype=np.int64)
            if count:
                keys[:count], counts[:count] = self._keys, self._counts
            self._keys, self._counts = keys, counts

    def remove(self, trial: int) -> None:
        from hpcsweep.core.pareto import dominated

        self._waiting.discard(trial)
        row, last = self._rows.pop(trial, None), len(self._rows)
        if row is None:
            return
        self.with_value -= 1
        others, own = self._keys[: last + 1], self._keys[row].copy()
        self._counts[: last + 1] -= dominated(others[:, 1:], others[:, 0], own[1:], own[0])
        for numbers in (self._keys, self._counts):
            numbers[row:last] = numbers[row + 1 : last + 1]
        self._rows = {each: at - (at > row) for each, at in self._rows.items()}

    def _forget(self) -> None:
        self._rows.clear()

    def _dropped(self) -> list[int]:
        if self._places is None:
            return []
        counts, places = self._counts, self._places
        dropped = [trial for trial in sorted(self._waiting) if counts[self._rows[trial]] >= places]
        self._waiting.difference_update(dropped)
        return dropped


class ValueOrder:
    """Trials by one value, and which of them were promoted."""

    def __init__(self) -> None:
        self._all: list[tuple[Any, int]] = []  # sorted, as those that were not promoted
        self._unpromoted: list[tuple[Any, int]] = []

    def add(self, trial: int, key: Key) -> None:
        """A trial joins."""
        for entries in (self._all, self._unpromoted):
            insort(entries, (key, trial))

    def remove(self, trial: int, key: Key) -> None:
        """A trial leaves that was not promoted."""
        for entries in (self._all, self._unpromoted):
            del entries[bisect_left(entries, (key, trial))]

    def promote(self, trial: int, key: Key) -> None:
        """A trial is promoted; it still counts."""
        del self._unpromoted[bisect_left(self._unpromoted, (key, trial))]

    def best(self, count: int, limit: int) -> list[int]:
        """At most `limit` trials among the `count` best that are not promoted yet, best first."""
        top = self._all[:count][-1:]
        return [entry[1] for entry in self._unpromoted[:limit] if top and entry <= top[0]]


class FrontOrder:
    """The same by several objectives."""

    def __init__(self) -> None:
        self._keys: dict[int, Key] = {}
        self._promoted: set[int] = set()
        self._best: tuple[int, list[int]] | None = None  # how many they are, while nobody joins or leaves

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_best": None}  # what was looked up changes nothing

    def add(self, trial: int, key: Key) -> None:
        self._keys[trial] = key
        self._best = None

    def remove(self, trial: int, key: Key) -> None:
        del self._keys[trial]
        self._best = None

    def promote(self, trial: int, key: Key) -> None:
        self._promoted.add(trial)

    def best(self, count: int, limit: int) -> list[int]:
        if self._best is None or self._best[0] != count:
            self._best = count, best_first(self._keys, count)
        return [trial for trial in self._best[1] if trial not in self._promoted][:limit]
