"""Rungs: their arithmetic, who may be promoted out of one, and a synchronous bracket of them. Integers only.

`floor(log(243) / log(3))` is 4 in floats and loses a rung; here one multiplies up instead. Symbols
are the papers': R the largest resource, eta the reduction factor, s a bracket, n its trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from heapq import heapify, heappop, heappush
from typing import Any, Final

from hpcsweep.core.objectives import Key
from hpcsweep.core.protocols import BracketPlan, Promote
from hpcsweep.schedulers.ranking import Candidates, FrontCandidates, best_first

#: Configurations in one rung at most: they start piece by piece, but in the end all are in memory.
MAX_RUNG: Final = 10_000_000
#: Rungs at most where nobody says at which resource the lowest one is.
AUTO_RUNGS: Final = 6


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


def lowest_resource(min_resource: int | str, *, max_resource: int, eta: int) -> int:
    """Where the rungs begin; with `auto` as low as `AUTO_RUNGS` of them up to `max_resource` allow."""
    if isinstance(min_resource, int):
        return min_resource
    factor: int = max(2, eta) ** (AUTO_RUNGS - 1)
    return max(1, -(-max_resource // factor))


def check_resources(*, min_resource: int, max_resource: int, eta: int) -> None:
    """Whether these make rungs."""
    if eta < 2:
        raise ValueError(f"eta: must be at least 2, got {eta}")
    if min_resource < 1:
        raise ValueError(f"min_resource: must be at least 1, got {min_resource}")
    if min_resource > max_resource:
        raise ValueError(f"min_resource: must be <= max_resource ({max_resource}), got {min_resource}")


def rungs_refusal(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why raising `max_resource` would move rungs that trials stand on; empty if it only adds some above."""
    old, new = (
        halving_bracket(
            min_resource=o["min_resource"], max_resource=o["max_resource"], eta=o["eta"]
        ).resources
        for o in (before, now)
    )
    if new[: len(old)] == old:
        return ""
    return f"{old[-1]} was a rung, and would be none of {' > '.join(map(str, new))}"


class PromotionCandidates(Candidates):
    """The best trials of a rung, ties to the older one; as many as can reach the next rung at most.

    More results only worsen a place, so whoever is not among them is dropped for good, but where the user
    takes out a better one. Those that were promoted keep their places.
    """

    def __init__(self, places: int | None = None) -> None:
        super().__init__(places)
        #: Negated value, to be minimised, and negated trial: the worst one first.
        self._best: list[tuple[float, int]] = []

    def add(self, trial: int, key: Any) -> list[int]:
        self.with_value += 1
        if self._closed:
            return [trial]
        self._waiting.add(trial)
        heappush(self._best, (-key, -trial))
        return self._dropped()

    def remove(self, trial: int) -> None:
        if any(-negated == trial for _, negated in self._best):
            self._best = [entry for entry in self._best if -entry[1] != trial]
            heapify(self._best)
            self.with_value -= 1
        self._waiting.discard(trial)

    def _forget(self) -> None:
        self._best.clear()

    def _dropped(self) -> list[int]:
        dropped = []
        while self._places is not None and len(self._best) > self._places:
            trial = -heappop(self._best)[1]
            if trial in self._waiting:
                self._waiting.discard(trial)
                dropped.append(trial)
        return dropped


class Bracket:
    """The state of one bracket: who is in each rung, and how each one's run ended.

    Attributes:
        ladder: Smaller than `whole` once no more trials start than there are.
        values: For each rung, trial -> what is compared, None for a run without a value; finished runs only.
        members: For each rung, the trials that are or were trained up to it.
        filled: No further trial will start in it.
        dropped: Trials with a value that will never be promoted; `trained`: those of the last rung.
    """

    def __init__(self, index: int, ladder: BracketPlan, *, eta: int, several: bool = False) -> None:
        self.index = index
        self.whole = ladder
        self.ladder = ladder
        self.eta = eta
        self.filled = False
        self.members: list[set[int]] = [set() for _ in ladder.sizes]
        self.values: list[dict[int, Key | None]] = [{} for _ in ladder.sizes]
        self._with_value = [0] * len(ladder.sizes)
        self.dropped: list[int] = []
        self.trained: list[int] = []
        self._candidates = FrontCandidates if several else PromotionCandidates
        self._contenders = [self._candidates(places) for places in ladder.sizes[1:]]

    @property
    def missing(self) -> int:
        """Trials that it may still start."""
        return 0 if self.filled else self.ladder.sizes[0] - len(self.members[0])

    def start(self, trial: int) -> None:
        self.members[0].add(trial)
        if len(self.members[0]) == self.ladder.sizes[0]:
            self.filled = True

    def extend(self, ladder: BracketPlan) -> None:
        """Go on as a bracket of this ladder, whose first rungs are its own; who is where stays there."""
        self.whole = self.ladder = ladder
        self.filled = len(self.members[0]) >= ladder.sizes[0]
        for _ in range(len(ladder.sizes) - len(self.members)):
            self.members.append(set())
            self.values.append({})
            self._with_value.append(0)
        self.reset_dropped()

    def reset_dropped(self) -> None:
        """Find out again who will never be promoted."""
        self.dropped = []
        self._contenders = [self._candidates(places) for places in self.ladder.sizes[1:]]
        for rung, contenders in enumerate(self._contenders):
            above = self.members[rung + 1]
            for trial, value in self.values[rung].items():
                if value is not None:
                    self.dropped += contenders.add(trial, value)
            for trial in above:
                contenders.promote(trial)
            self.dropped = [trial for trial in self.dropped if trial not in above]
        self.trained = [trial for trial, value in self.values[-1].items() if value is not None]
        self._close_full_rungs()

    def finish(self, trial: int, rung: int, value: Key | None) -> None:
        before = self.values[rung].get(trial)
        self.values[rung][trial] = value
        self._with_value[rung] += (value is not None) - (before is not None)
        if value is not None and before is None:
            if rung < len(self._contenders):
                self.dropped += self._contenders[rung].add(trial, value)
            else:
                self.trained.append(trial)

    def promote(self, trial: int, rung: int) -> None:
        self.members[rung].add(trial)
        self._contenders[rung - 1].promote(trial)
        self._close_full_rungs()

    def stop(self, trial: int) -> None:
        """The trial goes no further; if it does not run, it leaves its rung without a value."""
        rung = max(rung for rung, members in enumerate(self.members) if trial in members)
        if self.values[rung].get(trial) is not None and rung < len(self._contenders):
            self.finish(trial, rung, None)
            self._contenders[rung].remove(trial)

    def _close_full_rungs(self) -> None:
        above = zip(self._contenders, self.members[1:], self.ladder.sizes[1:], strict=True)
        for contenders, members, size in above:
            if len(members) >= size:
                self.dropped += contenders.close()

    def retry(self, trial: int, rung: int) -> None:
        """The run of a trial that was not promoted goes on: its rung waits for it if a place is left."""
        above = rung + 1
        if above < len(self.members) and len(self.members[above]) == self.ladder.sizes[above]:
            return
        self._with_value[rung] -= self.values[rung].pop(trial) is not None
        if rung < len(self._contenders):
            self._contenders[rung].remove(trial)

    def fill(self) -> None:
        """Close rung 0 with the trials that it has: the rungs above shrink with it."""
        if not self.filled:
            self.filled = True
            self.ladder = self.ladder.shrunk(len(self.members[0]), eta=self.eta)
            for contenders, places in zip(self._contenders, self.ladder.sizes[1:], strict=True):
                self.dropped += contenders.limit(places)
            self._close_full_rungs()

    def promotions(self) -> list[Promote]:
        """The promotions out of complete rungs that are not made yet, best first."""
        found: list[Promote] = []
        for rung in range(len(self.members) - 1):
            if not self._complete(rung):
                break
            above = self.members[rung + 1]
            places = self._places(rung + 1) - len(above)
            if not places:
                continue
            left = {trial: value for trial, value in self.values[rung].items() if trial not in above}
            for trial in best_first(left, places):
                found.append(Promote(trial, rung + 1, self.ladder.resources[rung + 1]))
        return found

    def _complete(self, rung: int) -> bool:
        """Whether every run of the rung has ended and none will join it."""
        if not self.filled or len(self.values[rung]) < len(self.members[rung]):
            return False
        return rung == 0 or len(self.members[rung]) == self._places(rung)

    def _places(self, rung: int) -> int:
        """How many trials reach a rung above 0: no more than have a value below it."""
        return min(self.ladder.sizes[rung], self._with_value[rung - 1])

    @property
    def done(self) -> bool:
        return all(self._complete(rung) for rung in range(len(self.members)))

    @property
    def full(self) -> bool:
        """Whether every place above rung 0 is taken: what is retried can change nothing."""
        above = zip(self.members[1:], self.ladder.sizes[1:], strict=True)
        return all(len(members) == size for members, size in above)
