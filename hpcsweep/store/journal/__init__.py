"""The journal: the truth about a sweep, one segment for each driver session, one writer each.

A segment is a text file with one JSON object per line, each with its checksum. The first line is a header
that names the writer and says how far it read the previous segments (`after`); whatever an older driver
writes beyond that is void. Every further line is one commit: all its events hold or none. A process becomes
the driver by creating the next segment exclusively, *then* reads the previous ones, *then* writes its
header; before each commit and each submission it checks that no newer segment exists. So no lock is needed,
and a driver that wakes up after an hour finds that it was superseded.

Small old segments are merged as they pile up: the merged file `AAAAAA-BBBBBB.jsonl` is written under a
temporary name and renamed, then the segments that it covers are removed. Readers prefer merged files, so a
kill at any point leaves a readable journal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpcsweep.core.events import AnyEvent
from hpcsweep.errors import FolderError, FolderUnavailable, HeldError, SupersededError
from hpcsweep.store.files import (
    file_server_time,
    fsync_dir,
    make_dirs,
    open_new,
    read_bytes,
    wrap_oserror,
    write_all,
    write_atomic,
)
from hpcsweep.store.journal.segments import (
    Commit,
    Header,
    JournalSnapshot,
    LastSegment,
    Position,
    Released,
    SegmentFile,
    encode_line,
    is_unchanged,
    list_segments,
    parse_header,
    read_journal,
    split_lines,
)
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId

#: More segment files than this are merged.
MERGE_ABOVE = 12
#: Seconds between heartbeats at least.
HEARTBEAT_S = 15.0
#: Seconds between looks whether a segment without a header gets one: a driver that begins would have to end
#: for one that then gives up.
_BEGINNING_S = (0.02, 0.1, 0.3)
#: Segments that this process released, also if that could not be written.
_RELEASED: set[Path] = set()


class Journal:
    """The driver's side. `open` reads; the first commit, or `acquire`, makes this process the driver.

    Attributes:
        events: All events before this session.
        number: Of this session's segment; unique among drivers.
    """

    def __init__(self, layout: Layout, reading: JournalSnapshot) -> None:
        self.layout = layout
        self.events: Sequence[AnyEvent] = reading.events
        self.number = reading.newest + 1
        self._reading = reading
        self._fd = -1
        self._end = 0
        self._broken = False
        self._failed = False
        self._last_heartbeat = time.monotonic()

    @classmethod
    def open(cls, layout: Layout) -> Journal:
        """Read the journal in order to drive; writes nothing yet. HeldError if another driver is alive."""
        reading = read_journal(layout)
        for pause in _BEGINNING_S:
            if not reading.is_beginning:
                break
            time.sleep(pause)
            reading = read_journal(layout)
        _check_not_held(reading.tail, writes=True)
        return cls(layout, reading)

    def acquire(self) -> None:
        """Become the driver of this folder, unless this is it already; HeldError if another became it."""
        if self._fd >= 0:
            return
        if self._failed:  # its number is taken, by itself: only a new reading can go on
            raise FolderUnavailable(f"{self.layout.journal}: cannot be written: an earlier try failed")
        busy = HeldError(f"{self.layout.root}: another driver is starting on it at this moment")
        path = self.layout.journal / f"{self.number:06d}.jsonl"
        try:
            try:
                make_dirs(self.layout.journal)
            except FileExistsError as error:  # and nobody can see what it is: that is no other driver
                raise OSError(errno.EIO, "it cannot be seen whether it is a folder") from error
            fd = open_new(path, flags=os.O_APPEND)
        except FileExistsError:
            raise busy from None
        except OSError as error:
            self._failed = True
            raise FolderUnavailable(f"{self.layout.journal}: cannot be written: {error.strerror}") from error
        try:
            # Look again now that older drivers are shut out: what they committed before this
            # segment was there counts, what they write from here on is void.
            reading = self._reading
            if not is_unchanged(self.layout, reading, before=self.number):
                raise busy
            self._fd = fd
            after = reading.tail.end if reading.tail else None
            self._append(Header(self.number, ProcessId.me(), round(time.time(), 3), after))
            fsync_dir(self.layout.journal)
            self.check()
        except BaseException as error:
            if isinstance(error, SupersededError):
                # Others that give up at the same moment must not take this process for the driver.
                with contextlib.suppress(FolderError):
                    self._append(Released(round(time.time(), 3)))
            self._fd = -1
            self._failed = True
            _RELEASED.add(path)
            os.close(fd)
            if isinstance(error, SupersededError):
                raise busy from error
            raise
        with contextlib.suppress(OSError):  # a journal that is not merged is only slower to read
            self._merge(reading)

    def commit(self, events: Sequence[AnyEvent]) -> None:
        """Record these events, all or none, durable on return.

        Raises:
            SupersededError: A newer driver took over: nothing was written.
        """
        self.acquire()
        self.check()
        self._append(Commit(round(time.time(), 3), list(events)))

    def check(self) -> None:
        """Check that this is still the driver.

        Lists the folder instead of looking up one name: NFS caches the absence of a name.

        Raises:
            SupersededError: A newer segment exists.
        """
        if any(file.last > self.number for file in list_segments(self.layout.journal)):
            raise SupersededError(f"{self.layout.root}: a newer driver took over")

    def heartbeat(self) -> None:
        """Touch the segment, which drivers on other machines look at; at most every `HEARTBEAT_S`."""
        now = time.monotonic()
        if self._fd >= 0 and now - self._last_heartbeat >= HEARTBEAT_S:
            self._last_heartbeat = now
            with contextlib.suppress(OSError):
                os.utime(self._fd)

    def release(self) -> None:
        """Let go, so that the next driver need not wait. Idempotent.

        If that cannot be written, the next driver finds out by itself that this one is gone.
        """
        if self._fd >= 0:
            try:
                self.check()
                self._append(Released(round(time.time(), 3)))
            except (SupersededError, FolderError):
                pass  # the newer driver shut this segment already, or it cannot be written
            finally:
                _RELEASED.add(self.layout.journal / f"{self.number:06d}.jsonl")
                os.close(self._fd)
                self._fd = -1

    def _append(self, entry: Header | Commit | Released) -> None:
        line = encode_line(entry)
        with wrap_oserror(self.layout.journal):
            try:
                if self._broken:
                    raise OSError(errno.EIO, "an earlier write failed")
                write_all(self._fd, line)
                self._sync()
            except OSError:
                self._broken = self._broken or not self._cut_off(len(line))
                raise
        self._end += len(line)

    def _sync(self) -> None:
        os.fsync(self._fd)

    def _cut_off(self, length: int) -> bool:
        """Remove a partly written line, so that the next one is not appended to it.

        A whole line that could not be synced stays: somebody may have read it already.
        """
        try:
            if os.fstat(self._fd).st_size >= self._end + length:
                return False
            os.ftruncate(self._fd, self._end)
        except OSError:
            return False
        return True

    def _merge(self, reading: JournalSnapshot) -> None:
        """Merge the newest closed files into one when there are many; large old ones stay.

        A file is merged while it is at most twice as large as all newer ones together, so that each byte is
        copied only a few times in the life of a sweep.
        """
        everything = [f for f in list_segments(self.layout.journal) if f.last < self.number]
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
        head, *rest = split_lines(read_bytes(file.path)[:end])
        if index == 0:
            after = parse_header(head).after
        lines += [line for line in rest if not line.startswith(b'{"released"')]
    first, last = files[0][0].first, files[-1][0].last
    header = Header(first, ProcessId.me(), time.time(), after, last)
    target = folder / f"{first:06d}-{last:06d}.jsonl"
    write_atomic(target, encode_line(header) + b"".join(lines))
    return target


def _check_not_held(tail: LastSegment | None, *, writes: bool = False) -> None:
    """Raise HeldError if another driver is alive. With `writes` it may ask the file server for its time."""
    if tail is None or tail.released or tail.path in _RELEASED:
        return
    owner = tail.header.owner
    try:
        now = time.time() if owner.is_here or not writes else file_server_time(tail.path.parent)
        silent = now - tail.path.stat().st_mtime
    except OSError:
        return
    if owner.alive(silent):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(tail.header.at))
        raise HeldError(f"{tail.path.parent.parent}: {owner} is driving this sweep since {since}")


def current_driver(reading: JournalSnapshot) -> ProcessId | None:
    """The current driver, None if there is none."""
    return _owner_at_work(reading.tail)


def driver_at_work(layout: Layout) -> ProcessId | None:
    """The current driver as far as the newest segment alone shows it, which is quick to read.

    None says little: only a reading of the journal tells that there is no driver.
    """
    try:
        newest = max(list_segments(layout.journal), key=lambda file: file.last)
        first, *rest = split_lines(read_bytes(newest.path))
        header = parse_header(first)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    released = bool(rest) and rest[-1].startswith(b'{"released"')
    return _owner_at_work(
        LastSegment(header, newest.path, released or newest.merged, Position(newest.last, 0))
    )


def _owner_at_work(tail: LastSegment | None) -> ProcessId | None:
    try:
        _check_not_held(tail)
    except HeldError:
        assert tail is not None
        return tail.header.owner
    return None
