"""Requests from other commands: what follows from each. Pure but for a warning."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable

from numpy.random import default_rng

from hpcsweep.core.completion import complete_config
from hpcsweep.core.events import (
    AnyEvent,
    ConfigsEnqueued,
    RunRetried,
    StopRequested,
    SweepResumed,
    TrialStopped,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import needs_name
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SpecError
from hpcsweep.store.requests import Request

_log = logging.getLogger(__name__)


def handle_request(
    name: str,
    request: Request,
    *,
    state: SweepState,
    space: Space,
    seed: int,
    now: float,
    is_over: Callable[[int], bool],
) -> list[AnyEvent]:
    """What follows from a request; nothing from one that makes no sense.

    The journal knows by its file name that it was handled. A trial that `is_over` cannot be stopped.
    """
    match request.verb:
        case "stop":
            return [StopRequested(now, f"stopped by {request.user}", name)]
        case "stop_trial":
            return _stop_trial(name, request, state=state, is_over=is_over)
        case "enqueue":
            rng = default_rng([seed, zlib.crc32(name.encode()), 1])
            try:
                config = complete_config(space, request.arguments.get("config", {}), rng)
            except (SpecError, AttributeError, TypeError, ValueError) as error:
                _log.warning("%s: the request is skipped: %s", name, error)
                return []
            return [ConfigsEnqueued((config,), name)]
        case "retry":
            return _retry(name, request, state=state, now=now)
        case _:
            return []


def _stop_trial(
    name: str, request: Request, *, state: SweepState, is_over: Callable[[int], bool]
) -> list[AnyEvent]:
    """The trial goes no further, nor do the other repeats of its configuration."""
    wanted = request.arguments.get("trial")
    if not isinstance(wanted, int) or not 0 <= wanted < len(state.trials):
        _log.warning("%s: the request is skipped: there is no trial %r", name, wanted)
        return []
    first = wanted - state.trials[wanted].repeat
    reason = f"stopped by {request.user}"
    return [
        TrialStopped(trial.trial, reason, name)
        for trial in state.trials[first : first + state.repeats]
        if not trial.stopped and not is_over(trial.trial)
    ]


def _retry(name: str, request: Request, *, state: SweepState, now: float) -> list[AnyEvent]:
    """Failed runs are tried again, those of one trial or all; and a pause is over.

    What its user cancelled for good stays so unless it is asked for by its number.
    """
    wanted = request.arguments.get("trial")
    runs = [
        trial.runs[-1]
        for trial in state.trials
        if trial.runs[-1].status is RunStatus.FAILED
        and not trial.stopped
        and (wanted == trial.trial or (wanted is None and not needs_name(trial.runs[-1].outcome)))
    ]
    paused = state.pausing is not None and state.stopping is None
    resumed = [SweepResumed(now)] if paused else []
    return [*resumed, *(RunRetried(run.trial, run.rung, name) for run in runs)]
