"""One run's part of a log: what its process prints, and our own lines around it."""

from __future__ import annotations

import os
from pathlib import Path

from hpcsweep.store.files import OURS, make_dirs, open_append, write_all

#: The last line of the error is looked for in the last so many bytes.
_TAIL = 64 * 1024
_LONGEST_MESSAGE = 500


class RunLog:
    """Appends to the log; earlier starts of the task may have written to it."""

    def __init__(self, path: Path) -> None:
        make_dirs(path.parent)
        self.path = path
        self.fd = open_append(path, flags=os.O_RDWR)
        self._begin = os.fstat(self.fd).st_size

    def note(self, text: str) -> None:
        """Write one line of our own, on a line of its own."""
        size = os.fstat(self.fd).st_size
        glue = b"" if size == 0 or os.pread(self.fd, 1, size - 1) == b"\n" else b"\n"
        self.write(glue + f"{OURS} {text}\n".encode(errors="replace"))

    def write(self, data: bytes) -> None:
        """Write what the process printed."""
        write_all(self.fd, data)

    def last_line(self) -> str:
        """The last line that is not empty and not ours, of this run only; empty if there is none."""
        size = os.fstat(self.fd).st_size
        begin = max(self._begin, size - _TAIL)
        text = os.pread(self.fd, size - begin, begin).decode(errors="replace")
        for line in reversed(text.replace("\r", "\n").split("\n")):
            if line.strip() and not line.startswith(OURS):
                return line.strip()[:_LONGEST_MESSAGE]
        return ""

    def close(self) -> None:
        os.close(self.fd)
