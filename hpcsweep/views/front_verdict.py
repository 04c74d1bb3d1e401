"""What the results of a sweep with several objectives come to, in sentences."""

from __future__ import annotations

from typing import Final

from hpcsweep.core.models import Best
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.views.brackets import top_resource
from hpcsweep.views.format import number, share
from hpcsweep.views.front_history import front_history
from hpcsweep.views.fronts import (
    Front,
    extremes_text,
    front_of,
    infeasible_text,
    values_by_metric,
    values_text,
)
from hpcsweep.views.progress import SweepProgress, uses_gpus

#: Of what the sweep spent, this share at the end tells whether the front still grows.
LATE: Final = 0.25


def front_sentences(progress: SweepProgress) -> list[tuple[str, bool]]:
    """The sentences, and whether each asks for something to be done; empty without values."""
    state = progress.state
    front = front_of(state)
    if front is None:
        return []
    said = [_front(state, front, front.knee)]
    if state.objectives.has_front:
        text = extremes_text(state, front)
        said.append((f"{text[0].upper()}{text[1:]}.", False))
    if front.infeasible:
        beyond = f"Beyond the bounds: {infeasible_text(front, state.objectives)}"
        said.append(
            (
                f"{beyond}." if front.feasible else f"{beyond}: loosen them, or widen the space.",
                not front.feasible,
            )
        )
    return [*said, *_in_full(state, front), *_growing(progress)]


def _front(state: SweepState, front: Front, knee: Best) -> tuple[str, bool]:
    values = values_text(values_by_metric(state, knee))
    of = plural(front.configurations, "configuration")
    if not front.feasible:
        return f"No configuration keeps the bounds; nearest to them is trial {knee.trial}: {values}.", True
    if not state.objectives.has_front:
        return f"The best {values} is of trial {knee.trial} at step {knee.resource:,}.", False
    size = f"The front has {len(front.members):,} of {of} with values"
    return f"{size}; its knee is trial {knee.trial}: {values}.", False


def _in_full(state: SweepState, front: Front) -> list[tuple[str, bool]]:
    """Whether all of the front were trained in full, where not all trials are."""
    top = top_resource(state)
    short = sum(best.resource < top for best in front.members)
    if short:
        of = f"{short:,} of {len(front.members):,} on the front {'was' if short == 1 else 'were'}"
        return [(f"{of} not trained up to step {top:,}: values in full are not known.", True)]
    return []


def _growing(progress: SweepProgress) -> list[tuple[str, bool]]:
    """Whether the last quarter of what was spent made the front larger."""
    state, history = progress.state, front_history(progress)
    gpus = uses_gpus(state)
    spent = state.spent_gpu_s if gpus else state.spent_s
    if history is None or not history.value or not spent:
        return []
    before = [
        step for step in history.steps if (step.spent_gpu_s if gpus else step.spent_s) < (1 - LATE) * spent
    ]
    was = before[-1].value if before else 0.0
    what = "GPU time" if gpus else "training time"
    if was >= history.value:
        return [(f"The front did not grow in the last {LATE:.0%} of the {what}.", False)]
    gained = f"{share(history.value - was, history.value)} of its hypervolume ({number(history.value)})"
    return [(f"{gained} came in the last {LATE:.0%} of the {what}: more trials may find better ones.", True)]
