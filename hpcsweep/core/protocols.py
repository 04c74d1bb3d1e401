"""What searchers, schedulers and clocks are, what schedulers decide and plan, and ranges of options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeAlias

import msgspec
from annotated_types import Interval

from hpcsweep.core.events import AnyEvent, Config

if TYPE_CHECKING:
    from numpy.random import Generator

    from hpcsweep.core.history import History
    from hpcsweep.core.space import Space


class Searcher(Protocol):
    """Proposes configurations. Holds no state between calls: all that it knows is the history.

    It may remember what it computed, as long as the answer depends on the arguments alone.

    Attributes:
        adaptive: Whether a proposal depends on results. If not, trials may be started far ahead.
    """

    adaptive: bool

    # A class of another package may have `version: int`, raised by each change after which the same history
    # gives other proposals; 1 by default. Ours are in `searchers.VERSIONS`.
    # A searcher that stands for another one has a method `resolve(space)`: the other's name, and why. One
    # that makes use of priors (`Space.priors`) has the class attribute `uses_priors = True`; the others
    # are refused for a space with priors.

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """Propose `n` configurations in one call, a whole rung at a time.

        Fewer than `n` back means that the space is exhausted. The same history and the same
        generator state give the same answer, in any process.
        """
        ...

    def problems(self, space: Space) -> list[str]:
        """Why it cannot search this space, each line beginning with the key path at fault."""
        ...

    def is_exhaustible(self, space: Space) -> bool:
        """Whether it runs out of proposals by itself."""
        ...


class Start(msgspec.Struct, frozen=True):
    """Start a new trial in `bracket`, its first run trained up to `resource`.

    Attributes:
        piece: Trials of one piece are one call of the searcher; see `SynchronousHalving`.
    """

    bracket: int
    resource: int
    piece: int = 0


class Promote(msgspec.Struct, frozen=True):
    """Train `trial` further, up to the resource of `rung`."""

    trial: int
    rung: int
    resource: int


class Clone(msgspec.Struct, frozen=True):
    """Start a new trial in `bracket` from the checkpoint that `parent` has at step `start`."""

    bracket: int
    resource: int
    parent: int
    start: int
    config: Config


class Stop(msgspec.Struct, frozen=True):
    """End the running trial now; it is not trained any further by anybody."""

    trial: int
    reason: str


Decision: TypeAlias = Start | Promote | Clone | Stop


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


class Scheduler(Protocol):
    """Decides who starts, who is promoted, who stops: a state machine over events.

    Attributes:
        needs_reports: Whether it must see what runs report before they end (`RunReported`). Without
            it the driver never reads a metrics file.
        clones: Whether it makes `Clone` decisions: then the checkpoints that a clone may start
            from are kept.
    """

    needs_reports: bool
    clones: bool

    # What follows a scheduler may have.
    #
    # Of the class:
    #     extendable: tuple[str, ...]  options that may be raised while the sweep runs (null is more than any
    #                                  number); `SweepExtended` tells it
    #     extension_refusal(before, now) -> str  why `max_resource` cannot be raised from the options `before`
    #                                  to those `now`; empty if it can
    #     promotes_any_time: bool      a rung is never closed: any trial in it may still be promoted
    #     population: bool             see `SchedulerPlan`
    #     reports_option: str          the option with which it needs reports
    # Lists that let checkpoints be removed that nothing can need any more; they only grow, but for a
    # `SweepResumed` and a `ParametersSuggested` with more trials, after which they may be others:
    #     dropped: Sequence[int]  trials with a value that will never be promoted nor cloned
    #     trained: Sequence[int]  trials that were trained to the last resource; they go on only where that
    #                             is raised

    def apply(self, event: AnyEvent) -> None:
        """Take note of what happened. Events that do not concern it are ignored."""
        ...

    def decide(self, slots: int) -> list[Decision]:
        """What to do next with `slots` free places; changes nothing in the scheduler.

        Stops come first, promotions and clones before starts. A synchronous rung is handed out
        whole, even if it is larger than `slots`; with no free slot nothing but stops is decided.
        A decision is in force once its event (`TrialCreated`, `TrialPromoted`, `TrialStopped`)
        has been applied; until then `decide` gives it again.
        """
        ...

    @property
    def done(self) -> bool:
        """Whether no decision will ever come any more, whatever happens."""
        ...

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        """What it will do if at most so many configurations can start; None: unknown."""
        return SchedulerPlan()


class Clock(Protocol):
    """Time is an argument."""

    def time(self) -> float:
        """Unix seconds."""
        ...

    def sleep(self, seconds: float) -> None: ...
