"""What the results of a sweep come to, in sentences: how sure the best is, and what would make it better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from hpcsweep.core.domains import Float, Int
from hpcsweep.core.models import Best
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.views.brackets import top_resource
from hpcsweep.views.configurations import repeat_values, valued_configurations
from hpcsweep.views.format import number, share, value_text
from hpcsweep.views.progress import SweepProgress, uses_gpus
from hpcsweep.views.rank_correlations import rank_correlation_text, rank_correlations

#: A parameter is at its bound within this share of its domain (on its scale) ...
BOUND: Final = 0.03
#: ... of the best configuration, and of half of so many of the best.
AMONG: Final = 10
#: Of what the sweep spent, this share at the end tells whether it still improves.
LATE: Final = 0.25
#: One training each: those so close, as a share of the way from the best to the median, may be as good.
CLOSE: Final = 0.01
#: So many are needed for a word about the others.
LEAST: Final = 5
_WIDER: Final = "a wider range may have better ones"


class Verdict(NamedTuple):
    """A sentence, and whether it asks for something to be done."""

    text: str
    advice: bool = False


def verdict(progress: SweepProgress, space: Space) -> list[Verdict]:
    """The sentences, the best first; empty without a value."""
    state = progress.state
    best = state.best
    if best is None:
        return []
    if state.objectives.several:
        from hpcsweep.views.front_verdict import front_sentences

        sentences = [Verdict(text, asks) for text, asks in front_sentences(progress)]
        return [*sentences, *_bounds_of_front(state, space), *_low_rungs(state)]
    valued = sorted(valued_configurations(state), key=lambda each: state.value_key(each.trial) or ())
    return [
        _best(state, best),
        *_noise(state, valued),
        *_in_full(state, best),
        *_bounds(space, valued),
        *_improving(progress),
        *_low_rungs(state),
    ]


def _best(state: SweepState, best: Best) -> Verdict:
    values = repeat_values(state, best.trial, best.rung)
    of = f"trial {best.trial} at step {best.resource:,}"
    if state.repeats == 1:
        return Verdict(f"The best {state.metric} is {number(best.value)}, of {of}.")
    if len(values) < 2:
        return Verdict(f"The best {state.metric} is {number(best.value)}, of {of}: one repeat so far.")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    ends = f"{number(min(values))} to {number(max(values))}"
    spread = f"± {error:.2g} (standard error of {len(values)} repeats, {ends})"
    return Verdict(f"The best {state.metric} is {number(best.value)} {spread}, of {of}.")


def _noise(state: SweepState, valued: Sequence[Best]) -> list[Verdict]:
    """How many others may be as good as the best."""
    others = [each for each in valued[1:] if each.resource == valued[0].resource]
    if len(others) < LEAST:
        return []
    best = valued[0].value
    # Of that step alone: values of early steps have another noise.
    deviation = _pooled_deviation(state, [valued[0], *others]) if state.repeats > 1 else None
    if deviation is None:
        away = CLOSE * abs(float(np.median([each.value for each in others])) - best)
        close = sum(abs(each.value - best) <= away for each in others)
        text = f"{_of(close, len(others))} as good within {CLOSE:.0%} of the way to the median"
        return [Verdict(f"{text}. How much is noise is not known: each configuration was trained once.")]
    # The difference of two means of k repeats has the standard error s * sqrt(2 / k).
    away = 2 * deviation * math.sqrt(2 / state.repeats)
    close = sum(abs(each.value - best) <= away for each in others)
    noise = f"within noise of the best (two standard errors of a difference, {away:.2g})"
    return [Verdict(f"{_of(close, len(others))} {noise}.")]


def _of(count: int, total: int) -> str:
    """`None of 9 others at that step is`, `3 of 9 others at that step are`."""
    return f"{count or 'None'} of {total:,} others at that step {'is' if count < 2 else 'are'}"


def _pooled_deviation(state: SweepState, valued: Sequence[Best]) -> float | None:
    """Standard deviation over repeats, pooled over configurations; None where none has two."""
    squares, freedom = 0.0, 0
    for each in valued:
        values = repeat_values(state, each.trial, each.rung)
        if len(values) > 1:
            squares += float(np.var(values)) * len(values)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _in_full(state: SweepState, best: Best) -> list[Verdict]:
    top = top_resource(state)
    if len({run.resource for trial in state.trials for run in trial.runs}) < 2 and best.resource >= top:
        return []  # all are
    if best.resource >= top:
        return [Verdict("It was trained in full.")]
    return [
        Verdict(
            f"It was trained up to step {best.resource:,} of {top:,}: its value in full is not known.", True
        )
    ]


def _bounds(space: Space, valued: Sequence[Best]) -> list[Verdict]:
    """Parameters at an end of their domain in the best configuration and in half of the best ones."""
    if len(valued) < LEAST:
        return []
    return [
        Verdict(f"{end} in the best and in {sum(at)} of the {len(at)} best: {_WIDER}.", True)
        for end, at in _at_ends(space, valued[:AMONG])
        if at[0] and sum(at) >= len(at) / 2
    ]


def _bounds_of_front(state: SweepState, space: Space) -> list[Verdict]:
    """Parameters at an end of their domain in half of the configurations on the front."""
    from hpcsweep.views.fronts import front_of

    front = front_of(state)
    if front is None or not front.feasible or len(front.members) < LEAST:
        return []
    return [
        Verdict(f"{end} in {sum(at)} of the {len(at)} on the front: {_WIDER}.", True)
        for end, at in _at_ends(space, front.members)
        if sum(at) >= len(at) / 2
    ]


def _at_ends(space: Space, leading: Sequence[Best]) -> Iterator[tuple[str, list[bool]]]:
    """Each end of each numeric domain, in words, and which configurations are there."""
    for parameter in space.columns:
        domain = parameter.domain
        if isinstance(domain, Float | Int):
            ends = (float(domain.low), float(domain.high))
            for end, name in zip(ends, ("lower", "upper"), strict=True):
                at = [_near(each.config.get(parameter.name), end, ends, log=domain.log) for each in leading]
                yield f"{parameter.name} is at its {name} end ({value_text(end)})", at


def _near(value: object, end: float, ends: tuple[float, float], *, log: bool) -> bool:
    if not isinstance(value, int | float):
        return False
    scale = math.log if log else float
    low, high, at, to = (scale(each) for each in (*ends, float(value), end))
    return abs(at - to) <= BOUND * (high - low)


def _improving(progress: SweepProgress) -> list[Verdict]:
    """Whether the last quarter of what was spent found something better."""
    state, changes = progress.state, progress.best_changes
    what = "GPU time" if uses_gpus(state) else "training time"
    spent = state.spent_gpu_s if uses_gpus(state) else state.spent_s
    if not changes or not spent or len(progress.ended) < 2 * LEAST:
        return []
    costs = [each.spent_gpu_s if uses_gpus(state) else each.spent_s for each in changes]
    sign = 1 if state.minimise else -1
    better = [
        index
        for index in range(1, len(changes))
        if sign * (changes[index - 1].value - changes[index].value) > 0
    ]
    last = costs[better[-1]] if better else costs[0]
    if last < (1 - LATE) * spent:
        return [Verdict(f"Nothing better was found in the last {share(spent - last, spent)} of the {what}.")]
    before = [each.value for each, cost in zip(changes, costs, strict=True) if cost < (1 - LATE) * spent]
    gained = f", from {number(before[-1])} to {number(changes[-1].value)}" if before else ""
    text = (
        f"It still improved in the last {LATE:.0%} of the {what}{gained}: more trials may find better ones."
    )
    return [Verdict(text, True)]


def _low_rungs(state: SweepState) -> list[Verdict]:
    """Whether low rungs predicted high ones: of each objective the highest that did not, else the lowest."""
    found = rank_correlations(state)
    failed = [each for each in found if each.predicts is False]
    own = ([each for each in failed or found if each.metric == name] for name in state.objectives.metrics)
    if failed:
        said = [of[-1] for of in own if of]
    else:
        said = [one for of in own for one in ([each for each in of if each.predicts] or of)[:1]]
    texts = [rank_correlation_text(each, several=state.objectives.has_front) for each in said]
    return [Verdict(f"{text[0].upper()}{text[1:]}.", bool(failed)) for text in texts]
