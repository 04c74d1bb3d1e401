"""A sweep with two objectives, one of them bounded, whose front is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hpcsweep.core.events import AnyEvent, FailureKind, Outcome, RunFinished
from hpcsweep.views.results import Results
from tests.html.hand_made_sweeps import ENDED, Ran, events
from tests.views.folders import written

OBJECTIVES: Final[list[dict[str, Any]]] = [
    {"metric": "error", "mode": "min"},
    {"metric": "speed", "mode": "max", "at_least": 50.0},
]
FIFO: Final = {"name": "fifo", "max_resource": 1}


def ran(trial: int, *values: float, **more: Any) -> Ran:
    """A run of one step that ended `trial + 1` minutes after the start; without values it failed."""
    value = values[0] if values else None
    return Ran(trial, more.pop("resource", 1), value, more.pop("minutes", trial + 1.0), values=values, **more)


#: On the front are 0, 2 with its tie 3, and 1; 4 is too slow, 5 crashed, 6 is dominated, 7 gave NaN.
TRADE_OFF: Final = [
    ran(0, 0.1, 60.0),
    ran(1, 0.3, 90.0),
    ran(2, 0.2, 80.0),
    ran(3, 0.2, 80.0),
    ran(4, 0.05, 10.0),
    ran(5),
    ran(6, 0.4, 70.0),
    ran(7),
]
#: All beyond the bound, the second one the least.
INFEASIBLE: Final = [ran(0, 0.1, 20.0), ran(1, 0.4, 40.0), ran(2, 0.2, 10.0)]


def journal(runs: list[Ran] = TRADE_OFF, *, ended: bool = True, **options: Any) -> list[AnyEvent]:
    """The events of such a sweep."""
    found = events(runs, **({"objective": OBJECTIVES, "scheduler": FIFO} | options))
    found = [_not_finite(event) if getattr(event, "trial", 0) == 7 else event for event in found]
    return [*found, ENDED] if ended else found


def _not_finite(event: AnyEvent) -> AnyEvent:
    if not isinstance(event, RunFinished) or event.value is not None:
        return event
    return RunFinished(
        event.trial,
        event.rung,
        Outcome.FAILED,
        batch=event.batch,
        failure=FailureKind.NOT_FINITE,
        message="error was nan",
    )


def trade_off(folder: Path, runs: list[Ran] = TRADE_OFF, *, ended: bool = True, **options: Any) -> Results:
    """Its results folder."""
    return written(folder, journal(runs, ended=ended, **options))
