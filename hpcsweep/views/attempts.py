"""The table of attempts: one row for each ending of a try at a run, requeued ones included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    FailureKind,
    Interruption,
    Outcome,
    RunFinished,
    RunInterrupted,
    classify_failure,
)

if TYPE_CHECKING:
    import pandas as pd

_SAME: Final = ("trial", "rung", "attempt", "restart", "batch", "task", "node", "job", "start", "step")
_COST: Final = ("seconds", "gpu_seconds", "message")
_COLUMNS: Final = (*_SAME, "ending", "failure", "final", "submitted_at", "started", *_COST)


def attempts(events: Iterable[AnyEvent]) -> pd.DataFrame:
    """Every ending in the order in which it became known.

    `ending` is the value of an `Outcome` or an `Interruption`, `final` tells which of the two; `failure`
    is that of a `Failure`, also where training is tried again. Times are Unix seconds, NaN where unknown;
    `submitted_at` is that of the batch.
    """
    import pandas as pd

    submitted: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for event in events:
        match event:
            case BatchPlanned() | BatchSubmitted():
                submitted[event.batch] = event.at
            case RunFinished(outcome=ending, started=started):
                more = {"ending": ending.value, "final": True, "started": started}
                rows.append(_row(event, submitted, event.failure_kind, **more))
            case RunInterrupted(interruption=interruption):
                retried = Outcome.FAILED if interruption is Interruption.TRAINING_ERROR else None
                failure = classify_failure(retried, None, event.message)
                rows.append(
                    _row(event, submitted, failure, ending=interruption.value, final=False, started=None)
                )
            case _:
                pass
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype({"submitted_at": float, "started": float})


def _row(
    event: RunFinished | RunInterrupted,
    submitted: Mapping[str, float],
    failure: FailureKind | None,
    **more: Any,
) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in (*_SAME, *_COST)}
    row["failure"] = failure.value if failure else None
    return row | {"submitted_at": submitted.get(event.batch)} | more
