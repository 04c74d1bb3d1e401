"""What a scheduler will do as far as it is known before any result, and the ranges of its options. Pure."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from annotated_types import Interval


class BracketPlan(msgspec.Struct, frozen=True):
    """One bracket: rung i trains `sizes[i]` trials up to `resources[i]`. Without sizes these are unknown."""

    resources: tuple[int, ...]
    sizes: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        """Units trained when each rung continues from the checkpoints of the rung below."""
        before = (0, *self.resources[:-1])
        return sum(n * (r - b) for n, r, b in zip(self.sizes, self.resources, before, strict=True))

    @property
    def units_from_scratch(self) -> int:
        """Units trained when each promoted trial starts from scratch."""
        return sum(n * r for n, r in zip(self.sizes, self.resources, strict=True))

    @property
    def runs(self) -> int:
        return sum(self.sizes)

    def shrunk(self, started: int, *, eta: int) -> BracketPlan:
        """The plan of a bracket that could start only `started` trials."""
        if not self.sizes or started >= self.sizes[0]:
            return self
        sizes = tuple(min(size, max(1, started // eta**i)) for i, size in enumerate(self.sizes))
        return BracketPlan(self.resources, sizes if started else (0,) * len(sizes))


class SchedulerPlan(msgspec.Struct, frozen=True):
    """How a scheduler describes itself to `plan`, the ETA and the report.

    Attributes:
        brackets: Those of one iteration, in the order in which they start; none where nothing is known.
        iterations: How often they are repeated; None until no configuration or budget is left.
        starts: Configurations that it starts at most; None where that is open.
        eta: One in eta of a rung is promoted.
        estimated: The sizes of the upper rungs depend on the order of the results.
        max_runs: Runs at most where the sizes are estimates; None where unknown.
        open_ended: Why it never ends by itself, for example `iterations: null goes on for ever`; empty if it
            does.
        population: The trials of all brackets form one population, in which clones replace members.
        notes: Further lines for `plan`.
    """

    brackets: tuple[BracketPlan, ...] = ()
    iterations: int | None = 1
    starts: int | None = None
    eta: int = 2
    estimated: bool = False
    max_runs: int | None = None
    open_ended: str = ""
    population: bool = False
    notes: tuple[str, ...] = ()


def fewest(*counts: int | None) -> int | None:
    """The smallest count that is known, None if none is."""
    return min((count for count in counts if count is not None), default=None)


#: No count, no resource and no number of hours is larger: beyond it sums lose units as doubles.
LARGEST: Final = 10**15

Natural: TypeAlias = Annotated[int, Interval(ge=0, le=LARGEST)]
Positive: TypeAlias = Annotated[int, Interval(ge=1, le=LARGEST)]
AtLeastTwo: TypeAlias = Annotated[int, Interval(ge=2, le=LARGEST)]
#: What becomes a list, a process or a row for each: rounds, members of a population.
UpTo10000: TypeAlias = Annotated[int, Interval(ge=1, le=10_000)]
