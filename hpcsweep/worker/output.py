"""Output of a run's process: its log, and metrics in it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hpcsweep.store.files import OURS, make_dirs, open_append, write_all
from hpcsweep.store.log_excerpt import excerpt

#: The excerpt is taken from this many last bytes.
_TAIL = 64 * 1024
#: How much of the end of an output beyond the limit is kept.
_END = 1 << 20


class RunLog:
    """Appends one run's output to the log; earlier starts of the task may have written to it.

    At most `limit` bytes of the process's output are kept, its beginning and its end; None: all.
    """

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        make_dirs(path.parent)
        self.path = path
        self.fd = open_append(path, flags=os.O_RDWR)
        self._begin = os.fstat(self.fd).st_size
        self._limit = limit
        self._end_size = _END if limit is None else min(_END, limit // 2)
        self._room = None if limit is None else limit - self._end_size
        self._end = bytearray()
        self._left_out = 0

    def note(self, text: str) -> None:
        """Write one line of our own."""
        size = os.fstat(self.fd).st_size
        glue = b"" if size == 0 or os.pread(self.fd, 1, size - 1) == b"\n" else b"\n"
        write_all(self.fd, glue + f"{OURS} {text}\n".encode(errors="replace"))

    def write(self, data: bytes) -> None:
        """Write output of the process, as far as the limit allows; a full disk is ignored."""
        kept = data if self._room is None else data[: self._room]
        rest = data[len(kept) :]
        if self._room is not None:
            self._room -= len(kept)
        with contextlib.suppress(OSError):
            write_all(self.fd, kept)
            if rest and not self._end and not self._left_out:
                self.note(
                    "train.log_limit is reached: of what follows only the end is kept, and written at its end"
                )
        self._end += rest
        if len(self._end) > 2 * self._end_size:
            self._shorten_end()

    def finish(self) -> None:
        """After the process has ended: write the end of an output beyond the limit."""
        if not self._end:
            return
        self._shorten_end()
        if self._left_out:  # begin with a whole line
            line = self._end.find(b"\n") + 1
            self._left_out += line
            del self._end[:line]
        with contextlib.suppress(OSError):
            if self._left_out:
                self.note(f"train.log_limit: {self._left_out} bytes are left out here")
            write_all(self.fd, bytes(self._end))
        self._end.clear()

    def _shorten_end(self) -> None:
        beyond = max(0, len(self._end) - self._end_size)
        self._left_out += beyond
        del self._end[:beyond]

    def excerpt(self) -> str:
        """The last informative lines of this run."""
        size = os.fstat(self.fd).st_size
        begin = max(self._begin, size - _TAIL)
        return excerpt(os.pread(self.fd, size - begin, begin).decode(errors="replace"))

    def close(self) -> None:
        os.close(self.fd)


#: Longer lines are matched in pieces: a program must not fill the worker's memory.
_LONGEST = 1 << 20

#: How many characters of a wrong value a message shows.
_SHOWN = 60
_LINE_END = re.compile(rb"[\r\n]+")


class StdoutMetrics:
    """Finds reports in printed output.

    A pattern's named groups are metrics, its group `step` is the step. Without one the matches of each
    metric are counted, starting after the checkpoint's step. Carriage returns end lines too, as in progress
    bars. What is not a number is no report; `problem` explains it.
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

    def _match(self, line: bytes) -> None:
        if not line:
            return
        text = line.decode(errors="replace")
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                self._take(match.groupdict())

    def _take(self, groups: dict[str, str | None]) -> None:
        named = groups.pop("step", None)
        step = None if named is None else _parse_number(named)
        if named is not None and (step is None or step < 0 or step != step // 1):
            self._unread |= {
                name: ("its step as", named) for name, text in groups.items() if text is not None
            }
            return
        for name, text in groups.items():
            value = None if text is None else _parse_number(text)
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


def _parse_number(text: str) -> float | None:
    try:
        return float(text.strip().rstrip(",;:)]}%"))
    except ValueError:
        return None
