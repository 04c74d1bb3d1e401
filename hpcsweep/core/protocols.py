"""The seams: Searcher, Scheduler, Cluster, Clock, and the decisions that cross them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from hpcsweep.core.events import AnyEvent, Config
from hpcsweep.core.plans import SchedulerPlan

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

    # A searcher that stands for another one has a method `pick(space)`: the other's name, and why.

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
    # `SweepResumed`, after which they may be others:
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
