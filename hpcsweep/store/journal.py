"""The journal: the truth about a sweep, one segment for each driver session, one writer each.

A segment is a text file, one JSON object a line, each line with its checksum. The first line is a
header that names the writer and says how far it read the segments before (`after`); whatever an
older driver writes beyond that is thereby void. Every further line is one commit: all its events
hold or none. A driver becomes the driver by creating the next segment exclusively, *then* reads
the ones before, *then* writes its header; before each commit and each submission it checks that
no newer segment exists. So no lock is needed, and a driver that was stopped for an hour and wakes
up finds that it is none any more.

Small old segments are merged as they pile up: the merged file `AAAAAA-BBBBBB.jsonl` is written
whole under a temporary name and renamed, then the segments that it covers are removed. Whoever
reads prefers merged files, so a kill at any point leaves a readable journal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hpcsweep.core.events import FORMAT_VERSION, AnyEvent
from hpcsweep.errors import FolderError, HeldError, JournalError, SupersededError
from hpcsweep.store.files import fsync_dir, make_dirs, read_bytes, retry_once, write_all, write_atomic
from hpcsweep.store.layout import Layout
from hpcsweep.store.owner import Owner

#: So many segment files are left alone; more are merged.
MERGE_ABOVE = 12
#: A sign of life is given at most so often.
BEAT_S = 15.0

_NAME = re.compile(r"(\d{6,})(?:-(\d{6,}))?\.jsonl")
_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"\}$')


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A place in the journal: bytes of a segment that are read."""

    segment: int
    offset: int


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of a segment.

    Attributes:
        last: Of a merged segment, the last number that it covers.
        after: How far the segments before are valid; None in the first one.
    """

    segment: int
    owner: Owner
    at: float
    after: Position | None = None
    last: int | None = None
    version: int = FORMAT_VERSION


class _Commit(msgspec.Struct, frozen=True, gc=False):
    t: float
    events: list[AnyEvent]


class _Released(msgspec.Struct, frozen=True):
    released: float


_encode = msgspec.json.Encoder().encode
_commit_decoder = msgspec.json.Decoder(_Commit)
_header_decoder = msgspec.json.Decoder(Header)
_released_decoder = msgspec.json.Decoder(_Released)


class SegmentFile(NamedTuple):
    """One file of the journal folder; `first` is `last` unless it is merged."""

    first: int
    last: int
    path: Path


class Tail(NamedTuple):
    """The newest valid segment: who wrote it, whether it let go, and the end of its valid part."""

    header: Header
    path: Path
    released: bool
    end: Position


class Reading(NamedTuple):
    """A journal as it was read.

    Attributes:
        events: All events in order.
        tail: None for a journal that holds nothing yet.
        chain: The files that count, oldest first, with the bytes of each that are valid.
        newest: Highest segment number present, valid or not; 0 if none.
        sizes: Bytes of each file when it was read, those that do not count included.
    """

    events: list[AnyEvent]
    tail: Tail | None
    chain: list[tuple[SegmentFile, int]]
    newest: int
    sizes: dict[str, int]


def read_journal(layout: Layout) -> Reading:
    """Read the whole journal; changes nothing and may run beside a driver.

    Raises:
        JournalError: A line other than a torn last one is damaged.
        FolderError: The folder cannot be read.
    """
    try:
        for _ in range(5):
            # A file may be merged and removed between our listing and our reading.
            with contextlib.suppress(FileNotFoundError):
                return _read(layout)
            time.sleep(0.05)
        return _read(layout)
    except OSError as error:
        raise FolderError(f"{layout.journal}: cannot be read: {error.strerror}") from error


def _read(layout: Layout) -> Reading:
    sizes = _sizes(layout, before=None)
    files = _list(layout.journal)
    newest = max((f.last for f in files), default=0)
    parts: list[tuple[SegmentFile, int, list[AnyEvent]]] = []
    tail: Tail | None = None
    wanted: Position | None = None
    for file in reversed(_uncovered(files)):
        if wanted is not None and not file.first <= wanted.segment <= file.last:
            continue
        merged = file.first != file.last
        limit = wanted.offset if wanted is not None and not merged else None
        segment = _parse(file, limit, may_be_torn=wanted is None)
        if segment is None:
            if wanted is None:
                continue  # its driver died before it was one, or is about to become one
            raise JournalError(f"{file.path}:1: the header is damaged, yet a later segment follows it")
        header, events, end, released = segment
        if tail is None:
            tail = Tail(header, file.path, released, Position(file.last, end))
        parts.append((file, end, events))
        wanted = header.after
        if wanted is None:
            break
    else:
        if wanted is not None:
            raise JournalError(f"{layout.journal}: segment {wanted.segment:06d} is missing")
    parts.reverse()
    all_events = [event for _, _, events in parts for event in events]
    return Reading(all_events, tail, [(file, end) for file, end, _ in parts], newest, sizes)


def _sizes(layout: Layout, *, before: int | None) -> dict[str, int]:
    """Bytes of each file now. Opened, not only asked for: NFS answers stat from its cache."""
    sizes = {}
    for file in _list(layout.journal):
        if before is None or file.last < before:
            with file.path.open("rb") as opened:
                sizes[file.path.name] = os.fstat(opened.fileno()).st_size
    return sizes


def _unchanged(layout: Layout, reading: Reading, *, before: int) -> bool:
    """Whether the files before this number are as they were read."""
    try:
        return _sizes(layout, before=before) == reading.sizes
    except FileNotFoundError:  # merged away just now
        return False


def _list(folder: Path) -> list[SegmentFile]:
    try:
        names = retry_once(lambda: os.listdir(folder))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if match := _NAME.fullmatch(name):
            first = int(match[1])
            found.append(SegmentFile(first, int(match[2] or first), folder / name))
    return sorted(found)


def _uncovered(files: list[SegmentFile]) -> list[SegmentFile]:
    """Drop the files that a larger merged file covers."""
    return [
        f for f in files if not any(o is not f and o.first <= f.first and f.last <= o.last for o in files)
    ]


def _parse(
    file: SegmentFile, limit: int | None, *, may_be_torn: bool
) -> tuple[Header, list[AnyEvent], int, bool] | None:
    """Header, events, end of the valid part, whether released; None if there is no header yet."""
    data = read_bytes(file.path)
    if limit is not None:
        if len(data) < limit:
            raise JournalError(f"{file.path}: is {len(data)} bytes long, {limit} were read of it before")
        data = data[:limit]
    header: Header | None = None
    events: list[AnyEvent] = []
    released = False
    end = 0
    for number, line in enumerate(_lines(data), start=1):
        last = end + len(line) >= len(data)
        if last and may_be_torn and (not line.endswith(b"\n") or b"\0" in line):
            break  # torn: its writer died in it, and never acted on it
        try:
            body = _checked(line)
            if header is None:
                header = _header_decoder.decode(body)
                if header.version > FORMAT_VERSION:
                    raise JournalError(
                        f"{file.path}: written by a newer hpcsweep (journal version {header.version}, "
                        f"this one reads up to {FORMAT_VERSION}): please upgrade"
                    )
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


def _lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        newline = data.find(b"\n", start)
        stop = len(data) if newline < 0 else newline + 1
        yield data[start:stop]
        start = stop


def _sealed(body: bytes) -> bytes:
    """One line: the JSON object with its checksum as the last member."""
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def _checked(line: bytes) -> bytes:
    """The JSON object of a line without its checksum; ValueError if that is wrong."""
    line = line.rstrip(b"\n")
    match = _CRC.search(line)
    if match is None:
        raise ValueError("no checksum at its end")
    body = line[: match.start()] + b"}"
    if zlib.crc32(body) != int(match[1], 16):
        raise ValueError("the checksum does not fit")
    return body


class Journal:
    """The driver's side. `open` reads; the first commit, or `acquire`, makes this the driver.

    Attributes:
        events: All events before this session.
        number: Of this session's segment: no other driver ever has the same.
    """

    def __init__(self, layout: Layout, reading: Reading) -> None:
        self.layout = layout
        self.events: Sequence[AnyEvent] = reading.events
        self.number = reading.newest + 1
        self._reading = reading
        self._fd = -1
        self._end = 0
        self._broken = False
        self._beaten = time.monotonic()

    @classmethod
    def open(cls, layout: Layout) -> Journal:
        """Read the journal in order to drive; writes nothing yet.

        Raises:
            HeldError: Another driver lives.
            JournalError: The journal is damaged.
        """
        reading = read_journal(layout)
        _refuse_if_held(reading)
        return cls(layout, reading)

    def acquire(self) -> None:
        """Become the driver of this folder; nothing to do if this is it already.

        Raises:
            HeldError: Another driver became it since the journal was read.
            FolderError: The folder cannot be written.
        """
        if self._fd >= 0:
            return
        busy = HeldError(f"{self.layout.root}: another driver is starting on it at this moment")
        path = self.layout.journal / f"{self.number:06d}.jsonl"
        try:
            make_dirs(self.layout.journal)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError:
            raise busy from None
        except OSError as error:
            raise FolderError(f"{self.layout.journal}: cannot be written: {error.strerror}") from error
        try:
            # Look again now that older drivers are shut out: what they committed before this
            # segment was there counts, what they write from here on is void.
            reading = self._reading
            if not _unchanged(self.layout, reading, before=self.number):
                raise busy
            self._fd = fd
            after = reading.tail.end if reading.tail else None
            self._append(Header(self.number, Owner.me(), round(time.time(), 3), after))
            fsync_dir(self.layout.journal)
            self.check()
        except BaseException as error:
            self._fd = -1
            os.close(fd)
            if isinstance(error, SupersededError):
                raise busy from error
            raise
        with contextlib.suppress(OSError):  # a journal that is not merged is only slower to read
            self._merge(reading)

    def commit(self, events: Sequence[AnyEvent]) -> None:
        """Make these events true, all or none, durable on return.

        Raises:
            SupersededError: A newer driver took over: nothing was written.
        """
        self.acquire()
        self.check()
        self._append(_Commit(round(time.time(), 3), list(events)))

    def check(self) -> None:
        """Make sure that this is still the driver.

        The folder is listed, not one name looked up: NFS caches the absence of a name.

        Raises:
            SupersededError: A newer segment exists.
        """
        if any(file.last > self.number for file in _list(self.layout.journal)):
            raise SupersededError(f"{self.layout.root}: a newer driver took over")

    def beat(self) -> None:
        """Give a sign of life: drivers on other machines see the segment's time of change."""
        now = time.monotonic()
        if self._fd >= 0 and now - self._beaten >= BEAT_S:
            self._beaten = now
            with contextlib.suppress(OSError):
                os.utime(self._fd)

    def release(self) -> None:
        """Let go, so that the next driver need not wait. Safe to call twice.

        Without space for it the next driver finds out by itself that this one is gone.
        """
        if self._fd >= 0:
            try:
                self.check()
                self._append(_Released(round(time.time(), 3)))
            except (SupersededError, FolderError):
                pass  # the newer driver shut this segment already, or it cannot be written
            finally:
                os.close(self._fd)
                self._fd = -1

    def _append(self, entry: msgspec.Struct) -> None:
        line = _sealed(_encode(entry))
        try:
            if self._broken:
                raise OSError(errno.EIO, "an earlier write failed")
            write_all(self._fd, line)
            os.fsync(self._fd)
        except OSError as error:
            self._broken = self._broken or not self._cut_off(len(line))
            raise FolderError(
                f"{self.layout.journal}: cannot be written: {error.strerror}. Nothing is lost: free space or "
                "quota, then launch again"
            ) from error
        self._end += len(line)

    def _cut_off(self, length: int) -> bool:
        """Remove a line that was written in part, lest another one be appended to it.

        A whole line that could not be synced stays: somebody may have read it already.
        """
        try:
            if os.fstat(self._fd).st_size >= self._end + length:
                return False
            os.ftruncate(self._fd, self._end)
        except OSError:
            return False
        return True

    def _merge(self, reading: Reading) -> None:
        """Merge the newest closed files into one when there are many; the big old ones stay.

        A file joins while it is at most twice as large as all newer ones together, so that
        each byte is copied only a few times in the life of a sweep.
        """
        everything = [f for f in _list(self.layout.journal) if f.last < self.number]
        if len(everything) <= MERGE_ABOVE:
            return
        start = len(reading.chain)
        size = 0
        while start > 0 and (size == 0 or reading.chain[start - 1][1] <= 2 * size):
            start -= 1
            size += reading.chain[start][1]
        joined = reading.chain[start:]
        kept = {file.path for file, _ in reading.chain[:start]}
        if len(joined) < 2:
            kept |= {file.path for file, _ in joined}
        else:
            self.check()
            kept.add(_join(joined, self.layout.journal))
        for file in everything:
            if file.path not in kept:
                with contextlib.suppress(OSError):
                    file.path.unlink()


def _join(files: list[tuple[SegmentFile, int]], folder: Path) -> Path:
    """Write the valid lines of these files as one merged file."""
    lines: list[bytes] = []
    after: Position | None = None
    for index, (file, end) in enumerate(files):
        head, *rest = _lines(read_bytes(file.path)[:end])
        if index == 0:
            after = _header_decoder.decode(_checked(head)).after
        lines += [line for line in rest if not line.startswith(b'{"released"')]
    first, last = files[0][0].first, files[-1][0].last
    header = Header(first, Owner.me(), time.time(), after, last)
    target = folder / f"{first:06d}-{last:06d}.jsonl"
    write_atomic(target, _sealed(_encode(header)) + b"".join(lines))
    return target


def _refuse_if_held(reading: Reading) -> None:
    tail = reading.tail
    if tail is None or tail.released:
        return
    owner = tail.header.owner
    try:
        silent = time.time() - tail.path.stat().st_mtime
    except OSError:
        return
    if owner.alive(silent):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(tail.header.at))
        raise HeldError(f"{tail.path.parent.parent}: {owner} is driving this sweep since {since}")


def holder(reading: Reading) -> Owner | None:
    """Who drives the sweep now, None if nobody does."""
    try:
        _refuse_if_held(reading)
    except HeldError:
        assert reading.tail is not None
        return reading.tail.header.owner
    return None
