"""Metrics in what a program prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from hpcsweep.worker.metrics.numbers import ESCAPES, parse_number, parse_step
from hpcsweep.worker.metrics.reports import Reports

#: Longer lines are matched in pieces: a program must not fill the worker's memory.
_LONGEST: Final = 1 << 20
#: How many characters of a wrong value or of a line a message shows.
_SHOWN: Final = 60
_LINE_SHOWN: Final = 120
_LINE_END: Final = re.compile(rb"[\r\n]+")
_DIGIT: Final = re.compile(r"\d")


class StdoutMetrics:
    """Parses reports from printed output.

    A pattern's named groups are metrics, its group `step` is the step. Without one the matches of each
    metric are counted. Carriage returns end lines too, as in progress bars. What is not a number is no
    report; `problem` explains it.
    """

    def __init__(self, patterns: Sequence[str], reports: Reports) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._reports = reports
        self._counts: Counter[str] = Counter()
        self._matched = False
        #: The last line with a digit, as long as none matched.
        self._line = ""
        #: What was matched last and is no number, by metric; gone once a number comes after it.
        self._unread: dict[str, tuple[str, str]] = {}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Process the next piece of output, line by line."""
        *lines, self._rest = _LINE_END.split(self._rest + data)
        for line in lines:
            self._match(line)
        if len(self._rest) > _LONGEST:
            self.finish()

    def finish(self) -> None:
        """Process the last line, which may lack its end."""
        rest, self._rest = self._rest, b""
        self._match(rest)

    def problem(self, metric: str) -> str:
        """Why the metric has no value although it was printed; empty if unknown."""
        if metric not in self._unread:
            return ""
        what, text = self._unread[metric]
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        kind = "a number" if what == "as" else "a whole number from 0 on"
        return (
            f"metric {metric!r} was printed, but {what} {shown!r}, which is not {kind}; "
            "have train.metrics match the number alone, or the program print one"
        )

    def seen(self) -> str:
        """For a metric that never came: what was printed instead; empty if lines matched."""
        if self._matched:
            return ""
        text = "no printed line matched train.metrics"
        return f"{text}; the last one with a number was {self._line!r}" if self._line else text

    def _match(self, line: bytes) -> None:
        if not line:
            return
        text = line.decode(errors="replace")
        if not self._matches(text) and "\x1b" in text:
            text = ESCAPES.sub("", text)
            self._matches(text)
        if not self._matched and _DIGIT.search(text):
            self._line = text.strip()[:_LINE_SHOWN]

    def _matches(self, text: str) -> bool:
        """Take what the patterns match in a line; whether there is anything."""
        found = False
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                found = self._matched = True
                self._take(match.groupdict())
        return found

    def _take(self, groups: dict[str, str | None]) -> None:
        named = groups.pop("step", None)
        step = None if named is None else parse_step(named)
        if named is not None and step is None:
            self._unread |= {
                name: ("its step as", named) for name, text in groups.items() if text is not None
            }
            return
        for name, text in groups.items():
            value = None if text is None else parse_number(text)
            if value is None:
                if text is not None:
                    self._unread[name] = ("as", text)
                continue
            self._unread.pop(name, None)
            if step is None:
                self._reports.write(self._reports.counted({name: value}, self._counts))
            else:
                self._reports.write(self._reports.placed(step, {name: value}))
