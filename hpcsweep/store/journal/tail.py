"""Follows a journal that others write: what is new since the last poll.

A poll lists the folder and reads what was written since. If segments were merged meanwhile, the merged file
is scanned once by checksums, and only new commits are decoded. If something already read turns out void,
because a newer driver did not count it, everything is read again.
"""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from typing import NamedTuple

import msgspec

from hpcsweep.core.events import FORMAT_VERSION, AnyEvent
from hpcsweep.errors import FolderError
from hpcsweep.store.files import open_regular, retry_once
from hpcsweep.store.journal import current_driver
from hpcsweep.store.journal.segments import (
    Commit,
    Header,
    JournalSnapshot,
    LastSegment,
    Position,
    SegmentFile,
    decode_line,
    list_segments,
    parse_header,
    read_journal,
    split_lines,
)
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId

#: A file may be merged and removed between our listing and our reading.
_TRIES = 5
_commits = msgspec.json.Decoder(Commit)


class Update(NamedTuple):
    """Result of a poll.

    Attributes:
        events: New events in order.
        anew: These are all events of the journal: forget earlier ones.
    """

    events: list[AnyEvent]
    anew: bool


class _Part(NamedTuple):
    """What was read of one file.

    Attributes:
        before: Number of commits in earlier files. `upto`: those and its own.
        end: Bytes read.
    """

    file: SegmentFile
    before: int
    upto: int
    end: int
    released: bool


class JournalTail:
    """Follows one journal; changes nothing, and may run beside a driver."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._parts: list[_Part] = []
        self._sums = array("L")  # of every commit that was read
        self._headers: dict[Path, Header] = {}

    def poll(self) -> Update:
        """Events committed since the last poll."""
        try:
            for tries_left in reversed(range(_TRIES)):
                try:
                    return self._poll()
                except FileNotFoundError:
                    if not tries_left:
                        raise
                except (msgspec.MsgspecError, ValueError):
                    read_journal(self._layout)  # says what is damaged and where
                    if not tries_left:
                        raise
                time.sleep(0.05)
        except OSError as error:
            place = error.filename or self._layout.journal
            raise FolderError(f"{place}: cannot be read: {error.strerror}") from error
        raise AssertionError("the last try returns or raises")

    @property
    def empty(self) -> bool:
        """Whether the journal is missing or empty."""
        return not self._parts

    @property
    def driver(self) -> ProcessId | None:
        """The current driver, as of the last poll."""
        tail = self.tail
        return None if tail is None else current_driver(JournalSnapshot([], tail, [], tail.end.segment, {}))

    @property
    def tail(self) -> LastSegment | None:
        """The end of the journal as of the last poll; None if it is empty."""
        if not self._parts:
            return None
        file, _, _, end, released = self._parts[-1]
        return LastSegment(self._headers[file.path], file.path, released, Position(file.last, end))

    def _poll(self) -> Update:
        parts: list[_Part] = []
        fresh: list[tuple[int, Commit]] = []
        chain = self._chain()
        upto = 0
        for index, (file, limit) in enumerate(chain):
            known = self._parts[index] if index < len(self._parts) else None
            if known is None or known.file != file or known.end > (limit or known.end):
                known = _Part(file, upto, upto, 0, False)
            part = self._read_on(known, limit, fresh, newest=index == len(chain) - 1)
            if part is None:
                break
            parts.append(part)
            upto = part.upto
        anew = not self._parts
        if upto < len(self._sums) or len(parts) < len(chain):  # some of what was read is void
            self._parts, self._sums = [], array("L")
            return self._poll()
        self._parts = parts
        self._sums.extend(found for found, _ in fresh)
        there = {part.file.path for part in parts}
        self._headers = {path: header for path, header in self._headers.items() if path in there}
        return Update([event for _, commit in fresh for event in commit.events], anew)

    def _chain(self) -> list[tuple[SegmentFile, int | None]]:
        """The valid files, oldest first, with the valid bytes of each; None: all."""
        chain: list[tuple[SegmentFile, int | None]] = []
        wanted: Position | None = None
        # Newest first; of those that end alike the one that holds most: it was merged from the others.
        for file in sorted(list_segments(self._layout.journal), key=lambda f: (-f.last, f.first)):
            if not file.may_be_before(wanted):
                continue
            header = self._header(file)
            if header is None:
                if wanted is None:
                    continue  # its driver died before it was one, or is about to become one
                raise ValueError("no header")
            chain.append((file, None if wanted is None or file.merged else wanted.offset))
            wanted = header.after
            if wanted is None:
                break
        else:
            if wanted is not None:
                raise ValueError("a segment is missing")
        return chain[::-1]

    def _header(self, file: SegmentFile) -> Header | None:
        """The header; None while its line is incomplete."""
        if file.path not in self._headers:
            with open(open_regular(file.path), "rb") as opened:
                line = retry_once(opened.readline)
            if not line.endswith(b"\n") or b"\0" in line:
                return None
            header = parse_header(line)
            if not header.belongs_to(file):
                raise ValueError("a copy of another segment")
            if header.version > FORMAT_VERSION:
                raise ValueError("of a newer version")
            self._headers[file.path] = header
        return self._headers[file.path]

    def _read_on(
        self, known: _Part, limit: int | None, fresh: list[tuple[int, Commit]], *, newest: bool
    ) -> _Part | None:
        """Read the rest of a file, new commits into `fresh`; None if other commits were read there before."""
        file, before, upto, end, released = known
        if end and (end == limit or file.merged):
            return known  # nothing is added to it any more
        with open(open_regular(file.path), "rb") as opened:
            opened.seek(end)
            data = retry_once(opened.read)
        if limit is not None:
            if len(data) < limit - end:
                raise ValueError("shorter than before")
            data = data[: limit - end]
        for line in split_lines(data):
            if newest and (not line.endswith(b"\n") or b"\0" in line):
                break  # torn, or being written
            if line.startswith(b'{"released"'):
                decode_line(line)
                released = True
            elif end:  # the first line is the header
                found = int(line[-11:-3], 16)
                if upto >= len(self._sums):
                    fresh.append((found, _commits.decode(decode_line(line))))
                elif found != self._sums[upto]:
                    return None
                upto += 1
            end += len(line)
        return _Part(file, before, upto, end, released)
