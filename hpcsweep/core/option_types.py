"""Ranges of options, for the annotations of constructors; the spec checks and documents them."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from annotated_types import Interval

#: No count, no resource and no number of hours is larger: beyond it sums lose units as doubles.
LARGEST: Final = 10**15

Natural: TypeAlias = Annotated[int, Interval(ge=0, le=LARGEST)]
Positive: TypeAlias = Annotated[int, Interval(ge=1, le=LARGEST)]
AtLeastTwo: TypeAlias = Annotated[int, Interval(ge=2, le=LARGEST)]
#: What becomes a list, a process or a row for each: rounds, members of a population.
UpTo10000: TypeAlias = Annotated[int, Interval(ge=1, le=10_000)]
