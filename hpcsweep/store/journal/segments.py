"""Segments: the journal's files, their lines, and reading the whole journal.

`store.journal` says what they mean. The first line of a segment is its header, each further one a commit
or its driver's release; each ends with its checksum.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from hpcsweep.core.events import FORMAT_VERSION, AnyEvent
from hpcsweep.errors import FolderUnavailable, JournalError
from hpcsweep.store.files import open_regular, read_bytes
from hpcsweep.store.layout import Layout, Skipped, check_version, regular_files, version_field
from hpcsweep.store.process_id import ProcessId

_NAME = re.compile(r"([0-9]{6,})(?:-([0-9]{6,}))?\.jsonl")
#: Length of a line's end from its checksum on.
_CRC_BYTES = 11
#: Larger than a segment without commits.
_SMALL = 4096
_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"\}$')


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A position in the journal: an offset in bytes in a segment."""

    segment: int
    offset: int


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of a segment.

    Attributes:
        last: Of a merged segment, the last number that it covers.
        after: How far the previous segments are valid; None in the first one.
    """

    segment: int
    owner: ProcessId
    at: float
    after: Position | None = None
    last: int | None = None
    version: int = version_field(FORMAT_VERSION)

    def belongs_to(self, file: SegmentFile) -> bool:
        """Whether the file bears the header's number: a copy of another segment does not."""
        return (self.segment, self.last or self.segment) == (file.first, file.last)


class Commit(msgspec.Struct, frozen=True, gc=False):
    """One line: events that become true together. `t` is for people; nothing depends on it."""

    t: float
    events: list[AnyEvent]


class Released(msgspec.Struct, frozen=True):
    """Last line: the driver has let go."""

    released: float


_encode = msgspec.json.Encoder().encode
_commit_decoder = msgspec.json.Decoder(Commit)
_header_decoder = msgspec.json.Decoder(Header)
_released_decoder = msgspec.json.Decoder(Released)


class SegmentFile(NamedTuple):
    """One file of the journal; `first` is `last` unless it is merged."""

    first: int
    last: int
    path: Path

    @property
    def merged(self) -> bool:
        return self.first != self.last

    def may_be_before(self, after: Position | None) -> bool:
        """Whether it can be the segment that a later one names as its predecessor; None: any can."""
        return after is None or self.first <= after.segment <= self.last


class LastSegment(NamedTuple):
    """The newest valid segment, whether its driver released it, and the end of its valid part."""

    header: Header
    path: Path
    released: bool
    end: Position


class JournalSnapshot(NamedTuple):
    """A journal as it was read.

    Attributes:
        events: All events in order.
        tail: None for an empty journal.
        chain: The valid files, oldest first, with the valid bytes of each.
        newest: Highest segment number present, valid or not; 0 if none.
        sizes: Bytes of each file when it was read, invalid ones included.
    """

    events: list[AnyEvent]
    tail: LastSegment | None
    chain: list[tuple[SegmentFile, int]]
    newest: int
    sizes: dict[str, int]

    @property
    def is_beginning(self) -> bool:
        """Whether the newest segment has no header: its driver is about to begin, or died before."""
        return self.newest > (self.tail.end.segment if self.tail is not None else 0)


def read_journal(layout: Layout) -> JournalSnapshot:
    """Read the whole journal; changes nothing and may run beside a driver. JournalError if it is damaged."""
    try:
        for _ in range(5):
            # A file may be merged and removed between our listing and our reading.
            with contextlib.suppress(FileNotFoundError):
                return _read(layout)
            time.sleep(0.05)
        return _read(layout)
    except OSError as error:
        raise FolderUnavailable(
            f"{error.filename or layout.journal}: cannot be read: {error.strerror}"
        ) from error


def _read(layout: Layout) -> JournalSnapshot:
    sizes = _sizes(layout, before=None)
    files = list_segments(layout.journal)
    newest = _highest_number(layout.journal)
    parts: list[tuple[SegmentFile, int, list[AnyEvent]]] = []
    tail: LastSegment | None = None
    wanted: Position | None = None
    for file in reversed(_uncovered(files)):
        if not file.may_be_before(wanted):
            continue
        limit = wanted.offset if wanted is not None and not file.merged else None
        segment = _parse(file, limit, may_be_torn=wanted is None)
        if segment is None:
            if wanted is None:
                continue  # its driver died before it was one, or is about to become one
            raise JournalError(f"{file.path}:1: the header is damaged, yet a later segment follows it")
        header, events, end, released = segment
        if tail is None:
            tail = LastSegment(header, file.path, released, Position(file.last, end))
        parts.append((file, end, events))
        wanted = header.after
        if wanted is None:
            break
    else:
        if wanted is not None:
            raise JournalError(f"{layout.journal}: segment {wanted.segment:06d} is missing")
    parts.reverse()
    all_events = [event for _, _, events in parts for event in events]
    return JournalSnapshot(all_events, tail, [(file, end) for file, end, _ in parts], newest, sizes)


def checksum_at(reading: JournalSnapshot) -> str:
    """Checksum of the journal's last line."""
    assert reading.tail is not None
    path, end = reading.tail.path, reading.tail.end.offset
    return read_bytes(path)[end - _CRC_BYTES : end].decode()[:8]


def ends_at(layout: Layout, at: Position, *, checksum: str) -> bool:
    """Whether the journal ends there, apart from drivers that committed nothing. Reads only a few bytes."""
    try:
        return _ends_at(layout, at, checksum=checksum)
    except (OSError, ValueError, msgspec.MsgspecError):
        return False


def _ends_at(layout: Layout, at: Position, *, checksum: str) -> bool:
    wanted: Position | None = None
    for file in reversed(_uncovered(list_segments(layout.journal))):
        if not file.may_be_before(wanted):
            continue
        begin = at.offset - _CRC_BYTES if file.last == at.segment else 0
        with open(open_regular(file.path), "rb") as opened:
            opened.seek(begin)
            data = opened.read(_SMALL)
        if wanted is not None:
            data = data[: max(0, wanted.offset - begin)]
        first, *rest = [line for line in split_lines(data) if line.endswith(b"\n")] or [b""]
        if len(data) == _SMALL or not all(line.startswith(b'{"released"') for line in rest):
            return False
        if begin:
            return first == f'{checksum}"}}\n'.encode()
        if first:
            wanted = parse_header(first).after
        if wanted is None and first:
            return False  # the very first segment
    return False


def _sizes(layout: Layout, *, before: int | None) -> dict[str, int]:
    """Current sizes. Opens each file: NFS answers stat from its cache."""
    sizes = {}
    for file in list_segments(layout.journal):
        if before is None or file.last < before:
            with open(open_regular(file.path), "rb") as opened:
                sizes[file.path.name] = os.fstat(opened.fileno()).st_size
    return sizes


def is_unchanged(layout: Layout, reading: JournalSnapshot, *, before: int) -> bool:
    """Whether the files before this number are as they were read."""
    try:
        return _sizes(layout, before=before) == reading.sizes
    except FileNotFoundError:  # merged away just now
        return False


def list_segments(folder: Path, skipped: Skipped | None = None) -> list[SegmentFile]:
    """The journal's files, oldest first; one readdir."""
    skipped = Skipped() if skipped is None else skipped
    found = [
        SegmentFile(first, int(match[2] or first), folder / name)
        for name, match in regular_files(folder, _NAME, skipped, strict=True)
        for first in (int(match[1]),)
    ]
    return sorted(found)


def _highest_number(folder: Path) -> int:
    """The highest segment number in any name, regular file or not: the next driver needs a free one."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    matches = (_NAME.fullmatch(name) for name in names)
    return max((int(match[2] or match[1]) for match in matches if match), default=0)


def _uncovered(files: list[SegmentFile]) -> list[SegmentFile]:
    """Drop files that a larger merged file covers."""
    return [
        f for f in files if not any(o is not f and o.first <= f.first and f.last <= o.last for o in files)
    ]


def _parse(
    file: SegmentFile, limit: int | None, *, may_be_torn: bool
) -> tuple[Header, list[AnyEvent], int, bool] | None:
    """Header, events, end of the valid part, whether released; None without a header."""
    data = read_bytes(file.path)
    if limit is not None:
        if len(data) < limit:
            raise JournalError(f"{file.path}: is {len(data)} bytes long, {limit} were read of it before")
        data = data[:limit]
    header: Header | None = None
    events: list[AnyEvent] = []
    released = False
    end = 0
    for number, line in enumerate(split_lines(data), start=1):
        last = end + len(line) >= len(data)
        if last and may_be_torn and (not line.endswith(b"\n") or b"\0" in line):
            break  # torn: its writer died in it, and never acted on it
        try:
            body = decode_line(line)
            if header is None:
                header = _header_decoder.decode(body)
                if not header.belongs_to(file):
                    raise JournalError(
                        f"{file.path}:{number}: is a copy of segment {header.segment:06d}: remove it"
                    )
                check_version(header.version, file.path, newest=FORMAT_VERSION)
            elif body.startswith(b'{"released"'):
                _released_decoder.decode(body)
                released = True
            else:
                events += _commit_decoder.decode(body).events
        except (msgspec.MsgspecError, ValueError) as error:
            raise JournalError(
                f"{file.path}:{number}: damaged: {error}. Restore the file from a backup or snapshot of "
                "the filesystem; nothing was changed"
            ) from error
        end += len(line)
    return None if header is None else (header, events, end, released)


def split_lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        newline = data.find(b"\n", start)
        stop = len(data) if newline < 0 else newline + 1
        yield data[start:stop]
        start = stop


def encode_line(entry: Header | Commit | Released) -> bytes:
    """The JSON object with its checksum as last member."""
    body = _encode(entry)
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def parse_header(line: bytes) -> Header:
    return _header_decoder.decode(decode_line(line))


def decode_line(line: bytes) -> bytes:
    """The JSON object of a line without its checksum; ValueError if that is wrong."""
    line = line.rstrip(b"\n")
    match = _CRC.search(line)
    if match is None:
        raise ValueError("no checksum at its end")
    body = line[: match.start()] + b"}"
    if zlib.crc32(body) != int(match[1], 16):
        raise ValueError("the checksum does not fit")
    return body
