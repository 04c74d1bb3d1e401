"""Who may still be promoted out of a rung: a trial that falls out of the best few never will be."""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class PromotionCandidates:
    """The best trials of a rung, ties to the older one; as many as can reach the next rung at most.

    More results only worsen a place, so whoever is not among them is dropped for good, but where the user
    takes out a better one. Those that were promoted keep their places.

    Args:
        places: How many can reach the next rung at most; None while that is open.
    """

    def __init__(self, places: int | None = None) -> None:
        self._places = places
        #: Negated value, to be minimised, and negated trial: the worst one first.
        self._best: list[tuple[float, int]] = []
        self._waiting: set[int] = set()
        self._closed = False
        #: Trials that ended the rung with a value; `promoted`: that went on.
        self.valued = 0
        self.promoted = 0

    def __len__(self) -> int:
        """How many may still be promoted."""
        return len(self._waiting)

    def add(self, trial: int, value: float) -> list[int]:
        """A trial ended the rung with this value, to be minimised; who is dropped by that."""
        self.valued += 1
        if self._closed:
            return [trial]
        self._waiting.add(trial)
        heappush(self._best, (-value, -trial))
        return self._dropped()

    def promote(self, trial: int) -> None:
        """The trial has gone on."""
        self._waiting.discard(trial)
        self.promoted += 1

    def remove(self, trial: int) -> None:
        """The trial's run here has not ended after all, or it goes no further; its place comes free."""
        if any(-negated == trial for _, negated in self._best):
            self._best = [entry for entry in self._best if -entry[1] != trial]
            heapify(self._best)
            self.valued -= 1
        self._waiting.discard(trial)

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
        self._best.clear()
        return dropped

    def _dropped(self) -> list[int]:
        dropped = []
        while self._places is not None and len(self._best) > self._places:
            trial = -heappop(self._best)[1]
            if trial in self._waiting:
                self._waiting.discard(trial)
                dropped.append(trial)
        return dropped
