"""Metrics of programs that only print."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

#: A "line" longer than this is looked at in pieces: a program must not fill the worker's memory.
_LONGEST = 1 << 20

#: Characters of what is no number that a message shows.
_SHOWN = 60
_LINE_END = re.compile(rb"[\r\n]+")


class StdoutMetrics:
    """Finds reports in what a program prints.

    A pattern's named groups are metrics. Its group `step` is the step; without one the matches
    of each metric are counted, from the step after the checkpoint on. Carriage returns end
    lines too, as in progress bars. What does not read as a number is no report; `problem` tells of it.
    """

    def __init__(
        self, patterns: Sequence[str], *, start: int, report: Callable[[int, Mapping[str, float]], None]
    ) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._start = start
        self._report = report
        self._counts: dict[str, int] = {}
        #: What was matched last and is no number, by metric; gone once a number comes after it.
        self._unread: dict[str, tuple[str, str]] = {}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece of output; whole lines are looked at."""
        *lines, self._rest = _LINE_END.split(self._rest + data)
        for line in lines:
            self._match(line)
        if len(self._rest) > _LONGEST:
            self.finish()

    def finish(self) -> None:
        """Look at the last line, which may lack its end."""
        rest, self._rest = self._rest, b""
        self._match(rest)

    def problem(self, metric: str) -> str:
        """Why the metric has no value although it was printed; empty where no match says so."""
        if metric not in self._unread:
            return ""
        what, text = self._unread[metric]
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        kind = "a number" if what == "as" else "a whole number from 0 on"
        return (
            f"metric {metric!r} was printed, but {what} {shown!r}, which is not {kind}; "
            "have train.metrics match the number alone, or the program print one"
        )

    def _match(self, line: bytes) -> None:
        if not line:
            return
        text = line.decode(errors="replace")
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                self._take(match.groupdict())

    def _take(self, groups: dict[str, str | None]) -> None:
        named = groups.pop("step", None)
        step = None if named is None else _number(named)
        if named is not None and (step is None or step < 0 or step != step // 1):
            self._unread |= {
                name: ("its step as", named) for name, text in groups.items() if text is not None
            }
            return
        for name, text in groups.items():
            value = None if text is None else _number(text)
            if value is None:
                if text is not None:
                    self._unread[name] = ("as", text)
                continue
            self._unread.pop(name, None)
            if step is None:
                self._counts[name] = self._counts.get(name, 0) + 1
                self._report(self._start + self._counts[name], {name: value})
            else:
                self._report(int(step), {name: value})


def _number(text: str) -> float | None:
    try:
        return float(text.strip().rstrip(",;:)]}%"))
    except ValueError:
        return None
