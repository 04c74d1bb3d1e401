"""Where the attempts of a trial were logged, from the journal alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcsweep.core.events import AnyEvent, BatchAbandoned, BatchPlanned
from hpcsweep.errors import SpecError
from hpcsweep.store.layout import Layout


class AttemptLog(NamedTuple):
    """One attempt of a run; the cluster's own restarts of its task go on in the same file."""

    rung: int
    attempt: int
    batch: str
    task: int
    path: Path


def attempt_logs(events: Sequence[AnyEvent], layout: Layout, trial: int) -> list[AttemptLog]:
    """The logs of a trial's attempts, in the order in which they were submitted.

    Raises:
        SpecError: There is no such trial, or nothing of it was submitted yet.
    """
    abandoned = {event.batch for event in events if isinstance(event, BatchAbandoned)}
    found: list[AttemptLog] = []
    tried: dict[int, int] = {}
    for event in events:
        if not isinstance(event, BatchPlanned) or event.batch in abandoned:
            continue
        for task, runs in enumerate(event.tasks):
            for n, run in enumerate(runs):
                if run.trial == trial:
                    path = layout.batch(event.batch).log(task, n if len(runs) > 1 else None)
                    found.append(AttemptLog(run.rung, tried.get(run.rung, 0), event.batch, task, path))
                    tried[run.rung] = tried.get(run.rung, 0) + 1
    if not found:
        raise SpecError(
            f"TRIAL: expected one of which a run was submitted, got {trial}; see `hpcsweep status`"
        )
    return found
