"""`min_resource: auto`: the lowest rung is given up where its ranks do not hold in higher ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, RunRetried, TrialCreated, TrialPromoted
from hpcsweep.core.protocols import Positive
from hpcsweep.core.rank_correlation import rank_correlation

#: A resource in epochs or steps, or one that is found.
MinResource: TypeAlias = Positive | Literal["auto"]
#: A pair of resources is looked at when it has so many trials, and again whenever these have doubled: who
#: looks after each trial finds something sooner or later.
LEAST_PAIRS: Final = 12
#: Why `max_resource` cannot be raised.
AUTO_REFUSAL: Final = "with min_resource: auto the rungs follow from it"


class RankWatch:
    """Finds out from the values of trials that ranks at the lowest resource do not hold at a higher one.

    With several objectives: those of any.

    A fold over events: a replay raises it at the same ones. It never falls.

    Args:
        resources: Of the rungs, ascending. The last one is never the lowest.

    Attributes:
        lowest: Resource at which new trials start.
    """

    def __init__(self, resources: Sequence[int]) -> None:
        self._resources = tuple(resources)
        self.lowest = self._resources[0]
        #: Resource of each trial's newest run; values by resource and trial.
        self._at: dict[int, int] = {}
        self._values: dict[int, dict[int, tuple[float, ...]]] = {resource: {} for resource in self._resources}

    @property
    def rung(self) -> int:
        """The rung of the lowest resource."""
        return self._resources.index(self.lowest)

    @property
    def note(self) -> str:
        """For `plan`."""
        return f"at {self.lowest}, and higher where the ranks of the lowest rung do not hold in higher ones"

    def apply(self, event: AnyEvent) -> None:
        """Take note of a run; all higher resources are compared with the lowest one when enough ended."""
        match event:
            case TrialCreated() | TrialPromoted():
                self._at[event.trial] = event.resource
            case RunRetried():
                self._values.get(self._at[event.trial], {}).pop(event.trial, None)
            case RunFinished(outcome=Outcome.COMPLETED, value=float(value)):
                self._observe(event.trial, self._at[event.trial], event.values or (value,))
            case _:
                pass

    def raise_to(self, resource: int) -> None:
        """Trials have started at this one as the lowest."""
        self.lowest = max(self.lowest, resource)

    def _observe(self, trial: int, resource: int, values: tuple[float, ...]) -> None:
        if resource not in self._values:  # of an enqueued trial
            return
        self._values[resource][trial] = values
        below = self._values[self.lowest]
        if resource <= self.lowest or trial not in below or self.lowest == self._resources[-2]:
            return
        here = self._values[resource]
        both = sum(other in below for other in here)
        if both % LEAST_PAIRS or (both // LEAST_PAIRS).bit_count() != 1:
            return
        for index in range(len(values)):
            low, high = ({each: of[index] for each, of in known.items()} for known in (below, here))
            found = rank_correlation((self.lowest, low), (resource, high))
            if found is not None and found.predicts is False:
                self.lowest = self._resources[self.rung + 1]
                return


def check_repeats(min_resource: int | str, **repeats: int | None) -> None:
    """What is found out of rungs can change only brackets that follow."""
    if min_resource == "auto" and 1 in repeats.values():
        (option,) = repeats
        raise ValueError(
            f"min_resource: auto changes only later {option}, and {option} is 1: give a number, or more "
            f"{option}, or asha, which starts trials one by one"
        )
