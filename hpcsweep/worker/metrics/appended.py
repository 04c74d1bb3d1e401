"""Follows a file that grows: only new bytes are read, and a file that was written again is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcsweep.store.files import open_regular

_PIECE: Final = 1 << 20
#: How much of the beginning, and of the end of what was read, shows whether it is still the same file.
_HEAD: Final = 4096
_TAIL: Final = 512
#: Longer lines are no rows of metrics.
LONGEST: Final = 1 << 24


class AppendedFile:
    """The bytes that are added to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._head, self._tail = b"", b""
        self._state: tuple[int, int, int] | None = None

    def pieces(self) -> Iterator[bytes | None]:
        """What was added since the last call; first None where the file was written again from its beginning.

        A missing file has nothing. It is opened each time: only that has NFS ask the server.
        """
        try:
            fd = open_regular(self._path)
        except FileNotFoundError:
            return
        try:
            about = os.fstat(fd)
            state = (about.st_ino, about.st_size, about.st_mtime_ns)
            if state == self._state:
                return
            if self._offset and not self._continues(fd, about):
                self._offset, self._head, self._tail = 0, b"", b""
                yield None
            while piece := os.pread(fd, _PIECE, self._offset):
                self._offset += len(piece)
                self._head = self._head or piece[:_HEAD]
                self._tail = (self._tail + piece)[-_TAIL:]
                yield piece
            self._state = state
        finally:
            os.close(fd)

    def pass_over(self, *, larger: int) -> bytes | None:
        """If the file is larger, go to the last line's end at once: its first line; else None."""
        try:
            fd = open_regular(self._path)
        except FileNotFoundError:
            return None
        try:
            about = os.fstat(fd)
            if about.st_size <= larger:
                return None
            self._head = os.pread(fd, _HEAD, 0)
            last = os.pread(fd, _PIECE, max(0, about.st_size - _PIECE))
            self._offset = about.st_size - len(last) + last.rfind(b"\n") + 1
            self._tail = os.pread(fd, min(_TAIL, self._offset), max(0, self._offset - _TAIL))
            return os.pread(fd, _PIECE, 0).partition(b"\n")[0]
        finally:
            os.close(fd)

    def _continues(self, fd: int, about: os.stat_result) -> bool:
        """Whether what was read still stands there."""
        if self._state is not None and self._state[0] != about.st_ino:
            return False
        tail_at = self._offset - len(self._tail)
        return (
            about.st_size >= self._offset
            and os.pread(fd, len(self._head), 0) == self._head
            and os.pread(fd, len(self._tail), tail_at) == self._tail
        )


class Lines:
    """Cuts pieces into whole lines; the rest waits for its end."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._too_long = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that end in this piece, without their ends."""
        self._rest += piece
        if b"\n" in piece:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            if self._too_long and lines:
                del lines[0]
                self._too_long = False
            yield from lines
        if len(self._rest) > LONGEST:
            self._rest.clear()
            self._too_long = True

    def finish(self) -> bytes:
        """A last line without its end; empty if there is none."""
        rest, self._rest = bytes(self._rest), bytearray()
        return b"" if self._too_long else rest
