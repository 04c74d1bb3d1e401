"""Synchronous brackets: a rung is compared when it is complete. Successive halving and Hyperband."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Final

from annotated_types import Gt

from hpcsweep.core.events import (
    AnyEvent,
    ConfigsEnqueued,
    Outcome,
    ParametersSuggested,
    RunFinished,
    RunRetried,
    SweepExtended,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.protocols import (
    AtLeastTwo,
    BracketPlan,
    Decision,
    Positive,
    SchedulerPlan,
    Start,
    UpTo10000,
    fewest,
)
from hpcsweep.schedulers.raising import AUTO_REFUSAL, MinResource, RankWatch, check_repeats
from hpcsweep.schedulers.rungs import (
    MAX_RUNG,
    Bracket,
    check_resources,
    floor_log,
    halving_bracket,
    hyperband_brackets,
    lowest_resource,
    rungs_refusal,
)

#: Trials that start together at most, and configurations of one ask. It is no option: which
#: configurations a sweep tries depends on it.
PIECE: Final = 1000


class SynchronousHalving:
    """Brackets one after another; where slots are free, the next one starts early.

    Promotions go first. A rung is handed out whole, and promoted only when each of its runs has
    ended; a run without a value never takes a place in the next rung. A failed run that is tried
    again is waited for if there is a place left for it, even if its bracket was done.

    A first rung of more than `piece` trials starts in pieces, which end at the same trials however many slots
    are free, so that the searcher is asked the same.

    Configurations that are enqueued when all brackets have started take no place of another: they
    form a bracket of their own, which trains them to the largest resource.

    With `min_resource: auto` brackets that would begin below the lowest rung whose ranks hold begin there in
    place of that: see `RankWatch`. Those that have begun stay as they are.

    Args:
        brackets: Those of one iteration, in the order in which they start.
        iterations: How often to go through them; None until trials or budget end.
        objectives: What trials are compared by.
        piece: Trials of a rung that start together at most.
        from_rung: For `min_resource: auto`, the bracket that begins at each rung, the lowest first.
    """

    needs_reports = False
    clones = False
    #: Options that may be raised while the sweep runs; the first one is the number of iterations.
    extendable: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        brackets: Sequence[BracketPlan],
        *,
        eta: int,
        iterations: int | None,
        objectives: Objectives,
        piece: int = PIECE,
        from_rung: Sequence[BracketPlan] = (),
    ) -> None:
        self._from_rung = {bracket.resources[0]: bracket for bracket in from_rung}
        self._watch = RankWatch(from_rung[0].resources) if len(from_rung) > 1 else None
        self._plans = tuple(brackets)
        self._iterations = iterations
        self._eta = eta
        self._objectives = objectives
        self._piece = piece
        self._brackets: list[Bracket] = []
        self._open: dict[int, Bracket] = {}
        self._of_trial: dict[int, Bracket] = {}
        #: How many of the brackets are those of the plan; the others are of enqueued trials.
        self._planned = 0
        self._enqueued = 0
        self._exhausted = ""  # by what
        self.dropped: list[int] = []
        self.trained: list[int] = []

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        """Its brackets, exactly: no rung depends on the order of the results."""
        iterations = self._iterations
        planned = (
            None if iterations is None else iterations * sum(bracket.sizes[0] for bracket in self._plans)
        )
        return SchedulerPlan(
            self._plans,
            iterations,
            fewest(planned, trials),
            self._eta,
            open_ended=f"{self.extendable[0]}: null goes on for ever" if iterations is None else "",
            notes=(f"brackets begin {self._watch.note}",) if self._watch is not None else (),
        )

    def apply(self, event: AnyEvent) -> None:
        if self._watch is not None:
            self._watch.apply(event)
        match event:
            case TrialCreated():
                while event.bracket >= len(self._brackets):
                    self._open_bracket(event)
                bracket = self._brackets[event.bracket]
                bracket.start(event.trial)
                self._of_trial[event.trial] = bracket
                if event.origin == "enqueued":
                    self._enqueued -= 1
            case TrialPromoted():
                bracket = self._of_trial[event.trial]
                bracket.promote(event.trial, event.rung)
                self._collect_dropped(bracket)
            case TrialStopped():
                bracket = self._of_trial[event.trial]
                bracket.stop(event.trial)
                self._close_if_done(bracket)
            case RunFinished():
                bracket = self._of_trial[event.trial]
                # A trial that was stopped has a value, but goes no further.
                value = None if event.outcome is Outcome.STOPPED else event.value
                bracket.finish(event.trial, event.rung, self._objectives.key(value, event.values))
                self._collect_dropped(bracket)
                self._close_if_done(bracket)
            case RunRetried():
                bracket = self._of_trial[event.trial]
                if not (bracket.done and bracket.full):
                    bracket.retry(event.trial, event.rung)
                    self._reopen(bracket)
            case ConfigsEnqueued():
                self._enqueued += len(event.configs)
            case TrialsExhausted():
                self._exhausted = event.cause
                for bracket in list(self._open.values()):
                    bracket.fill()
                    self._collect_dropped(bracket)
                    self._close_if_done(bracket)
            case SweepExtended():
                self._extend(event.identity.get("scheduler", {}))
                self._reset_dropped()
            case SweepResumed() | ParametersSuggested(more_trials=True):
                self._exhausted = ""
                for bracket in self._brackets:
                    if bracket.ladder != bracket.whole:  # more trials may start than when it was closed
                        bracket.extend(bracket.whole)
                        self._reopen(bracket)
                self._reset_dropped()
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        decisions: list[Decision] = []
        if slots <= 0:
            return decisions
        for bracket in self._open.values():
            decisions += bracket.promotions()
        if self._exhausted == "budget":
            return decisions
        if not self._exhausted:
            for bracket in self._open.values():
                decisions += self._starts(bracket.index, bracket.missing, bracket.ladder, slots, decisions)
            following = self._planned
            index = len(self._brackets)
            while len(decisions) < slots and self._may_open(following):
                ladder = self._raised(self._plans[following % len(self._plans)])
                decisions += self._starts(index, ladder.sizes[0], ladder, slots, decisions)
                following += 1
                index += 1
        if self._enqueued and not self._takes_trials:
            # None of the brackets will have a place for them.
            count = min(self._enqueued, self._piece)
            decisions += [Start(len(self._brackets), self._plans[-1].resources[-1])] * count
        return decisions

    @property
    def done(self) -> bool:
        waiting = self._enqueued and self._exhausted != "budget"
        return not self._open and not self._may_open(self._planned) and not waiting

    def _collect_dropped(self, bracket: Bracket) -> None:
        self.dropped += bracket.dropped
        # The only rung of a bracket has no survivors of others, but all trials: those are not kept.
        if "max_resource" in self.extendable and len(bracket.whole.sizes) > 1:
            self.trained += bracket.trained
        else:
            self.dropped += bracket.trained
        bracket.dropped, bracket.trained = [], []

    def _reset_dropped(self) -> None:
        """Find out again who is dropped: there may be more places than before."""
        self.dropped, self.trained = [], []
        for bracket in self._brackets:
            bracket.reset_dropped()
            self._collect_dropped(bracket)

    @property
    def _takes_trials(self) -> bool:
        """Whether a bracket has places left, or another may be opened."""
        return not self._exhausted and (
            self._may_open(self._planned) or any(bracket.missing for bracket in self._open.values())
        )

    def _starts(
        self, bracket: int, count: int, ladder: BracketPlan, slots: int, before: Sequence[Decision]
    ) -> list[Start]:
        """The next trials of a bracket: the whole rung, or as many pieces of it as there are slots for."""
        first = ladder.sizes[0] - count
        end = self._piece * -(-(first + max(1, slots - len(before))) // self._piece)
        starts: list[Start] = []
        while first < min(end, ladder.sizes[0]):
            piece = first // self._piece
            following = min((piece + 1) * self._piece, ladder.sizes[0])
            starts += [Start(bracket, ladder.resources[0], piece)] * (following - first)
            first = following
        return starts

    def _may_open(self, planned: int) -> bool:
        return not self._exhausted and (
            self._iterations is None or planned < self._iterations * len(self._plans)
        )

    def _open_bracket(self, event: TrialCreated) -> None:
        if event.origin == "enqueued" and not self._takes_trials:
            ladder = BracketPlan((event.resource,), (min(self._enqueued, self._piece),))
        else:
            ladder = self._plans[self._planned % len(self._plans)]
            if self._watch is not None and event.resource != ladder.resources[0]:
                ladder = self._from_rung[event.resource]
                self._watch.raise_to(event.resource)
            self._planned += 1
        bracket = Bracket(len(self._brackets), ladder, eta=self._eta, several=self._objectives.several)
        self._brackets.append(bracket)
        self._open[bracket.index] = bracket

    def _raised(self, ladder: BracketPlan) -> BracketPlan:
        """The bracket in place of this one: it begins at no rung that was given up."""
        if self._watch is None or ladder.resources[0] >= self._watch.lowest:
            return ladder
        return self._from_rung[self._watch.lowest]

    def _close_if_done(self, bracket: Bracket) -> None:
        if bracket.done:
            self._open.pop(bracket.index, None)

    def _reopen(self, bracket: Bracket) -> None:
        if not bracket.done:
            self._open = dict(sorted((self._open | {bracket.index: bracket}).items()))

    def _extend(self, options: Mapping[str, Any]) -> None:
        """Continue with the options of an extended sweep; see `spec.sweep.changes`."""

    def _go_on(self, brackets: Sequence[BracketPlan], *, iterations: int | None) -> None:
        """Go on with brackets whose first rungs are those of the ones before, or with more iterations."""
        self._iterations = iterations
        if tuple(brackets) == self._plans:
            return
        for bracket in self._brackets:
            if bracket.whole in self._plans:  # the others are of enqueued trials
                bracket.extend(brackets[self._plans.index(bracket.whole)])
                if self._exhausted:
                    bracket.fill()
                self._reopen(bracket)
        self._plans = tuple(brackets)


class Halving(SynchronousHalving):
    """Successive halving as in Dive into Deep Learning, 19.4: the best 1/eta of a rung go on to the next one.

    Args:
        min_resource: The resource of the first rung, in epochs or steps; `auto` starts low and goes up where
            the ranks of the lowest rung do not hold in higher ones.
        max_resource: The resource of the last rung, in epochs or steps.
        eta: One in eta goes on.
        prefact: Multiplies the number of trials in each rung.
        rounds: How often to start from the first rung; null until the budget ends.
        minimise: Whether small values are good; `objectives`: what counts, where there are several.
        piece: Trials of a rung that start together at most.

    Raises:
        ValueError: An option makes no sense; the message begins with its name.
    """

    extendable = ("rounds", "max_resource")

    @staticmethod
    def extension_refusal(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
        """Why `max_resource` cannot be raised; empty if it can."""
        return AUTO_REFUSAL if now["min_resource"] == "auto" else rungs_refusal(before, now)

    def __init__(
        self,
        *,
        min_resource: MinResource = 1,
        max_resource: Positive,
        eta: AtLeastTwo = 2,
        prefact: Annotated[float, Gt(0)] = 1.0,
        rounds: UpTo10000 | None = 1,
        minimise: bool = True,
        objectives: Objectives | None = None,
        piece: int = PIECE,
    ) -> None:
        check_repeats(min_resource, rounds=rounds)
        lowest = lowest_resource(min_resource, max_resource=max_resource, eta=eta)
        check_resources(min_resource=lowest, max_resource=max_resource, eta=eta)
        _check_prefact(prefact, min_resource=lowest, max_resource=max_resource, eta=eta)
        self._of: dict[str, Any] = {"min_resource": lowest, "eta": eta, "prefact": prefact}
        bracket = halving_bracket(max_resource=max_resource, **self._of)
        from_rung = [
            halving_bracket(min_resource=first, max_resource=max_resource, eta=eta, prefact=prefact)
            for first in bracket.resources
            if min_resource == "auto"
        ]
        known = objectives or Objectives.single(minimise=minimise)
        super().__init__(
            [bracket], eta=eta, iterations=rounds, objectives=known, piece=piece, from_rung=from_rung
        )

    def _extend(self, options: Mapping[str, Any]) -> None:
        bracket = halving_bracket(max_resource=options["max_resource"], **self._of)
        self._go_on([bracket], iterations=options["rounds"])


def _check_prefact(prefact: float, *, min_resource: int, max_resource: int, eta: int) -> None:
    """The first rung has at least one trial and no more than fit into memory."""
    rungs = halving_bracket(min_resource=min_resource, max_resource=max_resource, eta=eta).resources
    top = len(rungs) - 1
    first = Fraction(str(prefact)) * eta**top
    if first < 1:
        raise ValueError(f"prefact: must leave at least one trial in the first rung, got {prefact}")
    if first >= MAX_RUNG + 1:
        most = math.floor(Fraction(MAX_RUNG, eta**top) * 10**6) / 1e6
        key, given = ("prefact", prefact) if most else ("max_resource", max_resource)
        expected = f"must leave at most {MAX_RUNG} trials in the first rung"
        advice = f"give at most {most:g}" if most else "lower it, or raise min_resource"
        raise ValueError(f"{key}: {expected}, got {given:g}; {advice}")


class Hyperband(SynchronousHalving):
    """Hyperband (Li et al., JMLR 18, 2018), exact: brackets trade trials for the length of their first run.

    Args:
        min_resource: The resource of the lowest rung, in epochs or steps; `auto` starts low and goes up where
            the ranks of the lowest rung do not hold in higher ones.
        max_resource: The resource of the highest rung, in epochs or steps.
        eta: One in eta goes on.
        iterations: How often to go through all brackets; null until the budget ends.
        minimise: Whether small values are good; `objectives`: what counts, where there are several.
        piece: Trials of a rung that start together at most.

    Raises:
        ValueError: An option makes no sense; the message begins with its name.
    """

    extendable = ("iterations",)

    def __init__(
        self,
        *,
        min_resource: MinResource = 1,
        max_resource: Positive,
        eta: AtLeastTwo = 3,
        iterations: UpTo10000 | None = 1,
        minimise: bool = True,
        objectives: Objectives | None = None,
        piece: int = PIECE,
    ) -> None:
        check_repeats(min_resource, iterations=iterations)
        lowest = lowest_resource(min_resource, max_resource=max_resource, eta=eta)
        check_resources(min_resource=lowest, max_resource=max_resource, eta=eta)
        _check_first_rung(min_resource=lowest, max_resource=max_resource, eta=eta)
        brackets = hyperband_brackets(min_resource=lowest, max_resource=max_resource, eta=eta)
        from_rung = brackets if min_resource == "auto" else ()
        known = objectives or Objectives.single(minimise=minimise)
        super().__init__(
            brackets, eta=eta, iterations=iterations, objectives=known, piece=piece, from_rung=from_rung
        )

    def _extend(self, options: Mapping[str, Any]) -> None:
        self._go_on(self._plans, iterations=options["iterations"])


def _check_first_rung(*, min_resource: int, max_resource: int, eta: int) -> None:
    """No more trials start in a bracket than fit into memory."""
    trials = eta ** floor_log(max_resource // min_resource, eta)
    if trials > MAX_RUNG:
        highest = min_resource * eta ** (floor_log(MAX_RUNG, eta) + 1) - 1
        lowest = max_resource // eta ** (floor_log(MAX_RUNG, eta) + 1) + 1
        raise ValueError(
            f"max_resource: must be at most {highest} with min_resource {min_resource} and eta {eta}, got "
            f"{max_resource}: the first rung would have {trials} trials, and {MAX_RUNG} are the most; "
            f"lower it, or give a min_resource of at least {lowest}"
        )
