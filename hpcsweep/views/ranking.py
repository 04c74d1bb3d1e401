"""Places of configurations at one resource, at one moment of a sweep. Pure."""

from __future__ import annotations

import math
from typing import Final

import msgspec

#: So many of the best are named in a comparison.
BEST_NAMED: Final = 5


class RankedTrial(msgspec.Struct, frozen=True, gc=False):
    """A configuration in a comparison.

    Attributes:
        trial: The first one of its configuration.
        place: By value, from 1.
        went_on: Whether it had been promoted from there by then.
    """

    trial: int
    place: int
    value: float
    went_on: bool


class Comparison(msgspec.Struct, frozen=True):
    """A configuration among those that were at the same resource, at one moment.

    Attributes:
        members: How many had been brought there by then; `ended` of them had ended, and of these
            `without_value` had no value to compare: failed, stopped or lost.
        place: By value, from 1; None for a configuration without one.
        went_on: How many had been promoted from there by then, itself included.
        worse: How many of these have a worse value than it.
        others: Those of these other than itself, best first.
        cut: The worst that went on.
        first_out: The best that did not.
        named: The best ones, itself, the cut and the first out, best first.
    """

    resource: int
    members: int
    ended: int
    without_value: int
    place: int | None
    went_on: int
    worse: int
    others: tuple[int, ...]
    cut: RankedTrial | None
    first_out: RankedTrial | None
    named: tuple[RankedTrial, ...]


class RungRanking:
    """Who came to one resource, ended there and went on from there, and when.

    Configurations go by their first trial. A moment is the number of runs that had ended in the
    whole sweep: between two endings nothing is learned, so decisions have no other order.

    Args:
        resource: Up to which they are trained there.
        minimise: Whether small values are good.
    """

    def __init__(self, resource: int, *, minimise: bool) -> None:
        self.resource = resource
        self.joined: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.went_on: dict[int, int] = {}
        #: Those that had ended without being promoted, and were tried again: from and until when.
        self._before: list[tuple[int, int, int]] = []
        self._values: dict[int, float] = {}
        self._sign = 1 if minimise else -1

    def join(self, trial: int, moment: int) -> None:
        """It was started there, or promoted to there."""
        self.joined[trial] = moment

    def end(self, trial: int, moment: int, value: float | None) -> None:
        """Its run ended; None takes no place."""
        self.ended[trial] = moment
        if value is not None:
            self._values[trial] = value

    def retry(self, trial: int, moment: int) -> None:
        """Its run has not ended after all; until this moment it had."""
        self._before.append((trial, self.ended.pop(trial), moment))
        self._values.pop(trial, None)

    def ended_by(self, moment: float) -> set[int]:
        """Whose run had ended at this moment, as far as anybody knew."""
        ended = {trial for trial, when in self.ended.items() if when <= moment}
        return ended | {trial for trial, since, until in self._before if since <= moment <= until}

    def promote(self, trial: int, moment: int) -> None:
        """It was promoted from there."""
        self.went_on[trial] = moment

    @property
    def at_once(self) -> bool:
        """Whether all promotions so far were one decision, made when everybody had ended."""
        if not self.went_on:
            return True
        decided = min(self.went_on.values())
        return max(self.went_on.values()) == decided and len(self.ended_by(decided)) == len(self.joined)

    def compare(self, trial: int, moment: float = math.inf) -> Comparison:
        """Its place among those that had ended by then."""
        ended = self.ended_by(moment)
        valued = [other for other in ended & self._values.keys() if self.ended[other] <= moment]
        ranked = sorted((self._sign * self._values[t], t) for t in valued)
        on = {other for other, when in self.went_on.items() if when <= moment}
        peers = [
            RankedTrial(other, place, self._values[other], other in on)
            for place, (_, other) in enumerate(ranked, start=1)
        ]
        own = next((peer for peer in peers if peer.trial == trial), None)
        promoted = [peer for peer in peers if peer.went_on]
        cut = promoted[-1] if promoted else None
        first_out = next((peer for peer in peers if not peer.went_on), None)
        named = {peer.place: peer for peer in (*peers[:BEST_NAMED], own, cut, first_out) if peer is not None}
        return Comparison(
            self.resource,
            members=sum(when <= moment for when in self.joined.values()),
            ended=len(ended),
            without_value=len(ended) - len(ranked),
            place=own.place if own else None,
            went_on=len(promoted),
            worse=0 if own is None else sum(peer.place > own.place for peer in promoted),
            others=tuple(peer.trial for peer in promoted if peer.trial != trial),
            cut=cut,
            first_out=first_out,
            named=tuple(named[place] for place in sorted(named)),
        )
