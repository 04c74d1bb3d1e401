"""What the process of a run prints: into its log, and to whoever looks for metrics in it."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Final

from hpcsweep.worker.process import RunLog

#: How many pieces of 64 KiB are read before signals and limits are checked.
_MOST_READS: Final = 64


class Output:
    """The pipe that a process prints into.

    Attributes:
        descriptor: Readable when the process prints; None: nothing is open.
    """

    def __init__(self, log: RunLog) -> None:
        self.descriptor: int | None = None
        self._log = log

    def open(self) -> int:
        """Open it; gives the end for the process, which the caller closes."""
        self.descriptor, write_end = os.pipe()
        os.set_blocking(self.descriptor, False)
        return write_end

    def close(self) -> None:
        """Close it, if it is open."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def drain(self, feed: Callable[[bytes], None]) -> None:
        """Copy what was printed into the log, and give it to `feed`."""
        for _ in range(_MOST_READS):  # a program that prints without end must not starve signals and limits
            if self.descriptor is None:
                return
            try:
                data = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self.close()
                return
            self._log.write(data)
            feed(data)

    def finish(self, feed: Callable[[bytes], None]) -> None:
        """The same to its end, once all its processes are gone."""
        while self.descriptor is not None and select.select([self.descriptor], [], [], 0)[0]:
            self.drain(feed)
        self.close()
        self._log.finish()
