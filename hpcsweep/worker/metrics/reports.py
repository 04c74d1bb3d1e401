"""The one way from the steps and values that a program leaves to the reports of its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping


class Reports:
    """Makes reports of what any source finds.

    `start` is the step after which values without a step are counted. A program whose steps count from
    `first_step` 0 has its steps shifted by one.
    """

    def __init__(
        self, write: Callable[[int, Mapping[str, float]], None], *, start: int, first_step: int = 1
    ) -> None:
        self._write = write
        self._start = start
        self._shift = 1 - first_step

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """A report with a step, as the program counts it."""
        self._write(step + self._shift, metrics)

    def add_next(self, metrics: Mapping[str, float], counts: Counter[str]) -> None:
        """A report without a step: values of each metric are counted, in `counts`, from the start on."""
        by_step: dict[int, dict[str, float]] = {}
        for name, value in metrics.items():
            counts[name] += 1
            by_step.setdefault(self._start + counts[name], {})[name] = value
        for step, values in by_step.items():
            self._write(step, values)
