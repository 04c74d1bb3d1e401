"""The one way from the steps and values that a program leaves to the reports of its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from hpcsweep.store.run_files import Report


class Reports:
    """Makes reports of what any source finds.

    Args:
        write: Writes a report.
        start: The step after which values without a step are counted.
        resource: The last step of the run.
        first_step: From where the program counts its steps; those from 0 are shifted by one.
    """

    def __init__(
        self,
        write: Callable[[int, Mapping[str, float]], None],
        *,
        start: int,
        resource: int = 1,
        first_step: int = 1,
    ) -> None:
        self._write = write
        self._start = start
        self._resource = resource
        self._shift = 1 - first_step

    @property
    def resumed(self) -> bool:
        """Whether the program goes on from something that we know of."""
        return self._start > 0

    def is_beyond_start(self, step: int) -> bool:
        """Whether a step, as the program counts it, is one that this attempt trains."""
        return step + self._shift > self._start

    def placed(self, step: int, metrics: Mapping[str, float]) -> list[Report]:
        """The report with a step, as the program counts it."""
        return [Report(step + self._shift, dict(metrics))] if metrics else []

    def counted(self, metrics: Mapping[str, float], counts: Counter[str]) -> list[Report]:
        """The reports without a step: values of each metric are counted, in `counts`, from the start on."""
        by_step: dict[int, dict[str, float]] = {}
        for name, value in metrics.items():
            counts[name] += 1
            by_step.setdefault(self._start + counts[name], {})[name] = value
        return [Report(step, values) for step, values in by_step.items()]

    def result(self, metrics: Mapping[str, float]) -> list[Report]:
        """The report with the result of the whole run, which has no step."""
        return [Report(self._resource, dict(metrics))] if metrics else []

    def write(self, reports: Iterable[Report]) -> None:
        """Record them."""
        for step, metrics in reports:
            self._write(step, metrics)
