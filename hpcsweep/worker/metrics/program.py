"""All metrics of a program that knows nothing of us: what it prints and the files that it writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from hpcsweep.store.batch import Program
from hpcsweep.worker.metrics.files import FileMetrics
from hpcsweep.worker.metrics.printed import StdoutMetrics
from hpcsweep.worker.metrics.reports import Reports

#: Seconds between two looks at files, while they change and at most; and how much longer than a look itself.
PACE_S: Final = 1.0
SLOWEST_S: Final = 5.0
_SHARE: Final = 20


class ProgramMetrics:
    """Reads them while the program runs, and once more after its end.

    Attributes:
        poll_at: When `poll` has something to do, on the monotonic clock; None: never.
    """

    def __init__(
        self,
        program: Program,
        values: Mapping[str, Any],
        write: Callable[[int, Mapping[str, float]], None],
        *,
        start: int,
        resource: int,
    ) -> None:
        reports = Reports(write, start=start, resource=resource, first_step=program.first_step)
        self._metrics = program.measured.metrics
        self._printed = StdoutMetrics(program.metrics, reports) if program.metrics else None
        self._files = [
            FileMetrics(file, values, workdir=program.workdir, reports=reports)
            for file in program.metric_files
        ]
        self._pause = PACE_S
        self.poll_at: float | None = None

    def begin(self) -> None:
        """Note what files there are; before the program starts."""
        for file in self._files:
            file.begin()
        if self._files:
            self.poll_at = time.monotonic() + self._pause

    def feed(self, data: bytes) -> None:
        """Process the next piece of output."""
        if self._printed is not None:
            self._printed.feed(data)

    def poll(self) -> None:
        """Look at the files, if it is time."""
        began = time.monotonic()
        if self.poll_at is None or began < self.poll_at:
            return
        changed = [file.poll() for file in self._files]
        now = time.monotonic()
        self._pause = PACE_S if any(changed) else min(self._pause * 1.5, SLOWEST_S)
        self.poll_at = now + max(self._pause, _SHARE * (now - began))

    def finish(self, *, whole: bool) -> None:
        """Process what is left after the program's end; `whole` where it ended by itself."""
        self.poll_at = None
        if self._printed is not None:
            self._printed.finish()
        for file in self._files:
            file.poll(last=True, whole=whole)

    def problem(self) -> str:
        """Why an objective has no value although it was there; empty if unknown."""
        said: list[str] = []
        for name in self._metrics:
            said += [self._printed.problem(name)] if self._printed is not None else []
            said += [file.problem(name) for file in self._files]
        return next(filter(None, said), "")

    def seen(self) -> list[str]:
        """What was found instead of the objectives, and where."""
        printed = [self._printed.seen()] if self._printed is not None else []
        found = [*printed, *(file.seen(name) for file in self._files for name in self._metrics)]
        return list(dict.fromkeys(filter(None, found)))
