"""Following a journal: many looks tell what one reading tells, whatever drivers do in between."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.events import AnyEvent, StopRequested
from hpcsweep.errors import FolderError, JournalError
from hpcsweep.store import journal as journals
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal import tail as follow_module
from hpcsweep.store.journal.segments import Commit, Header, encode_line, list_segments, read_journal
from hpcsweep.store.journal.tail import JournalTail
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId


def notes(*numbers: int) -> list[AnyEvent]:
    return [StopRequested(float(number), f"note {number}") for number in numbers]


class Reader:
    """Looks now and then, and keeps what it was told."""

    def __init__(self, layout: Layout) -> None:
        self.follower = JournalTail(layout)
        self.events: list[AnyEvent] = []
        self.anew = 0

    def poll(self) -> list[AnyEvent]:
        news = self.follower.poll()
        self.anew += news.anew
        self.events = [*([] if news.anew else self.events), *news.events]
        return self.events


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "a sweep")


@pytest.fixture
def merging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merges happen all the time."""
    monkeypatch.setattr(journals, "MERGE_ABOVE", 3)


def session(layout: Layout, *commits: Sequence[AnyEvent]) -> None:
    journal = Journal.open(layout)
    for events in commits:
        journal.commit(events)
    journal.release()


class Drivers:
    """Drivers that come, go, die and wake up too late, by chance."""

    def __init__(self, layout: Layout, seed: int) -> None:
        self.layout = layout
        self.random = random.Random(seed)
        self.number = 0

    def some(self) -> list[AnyEvent]:
        count = self.random.randint(1, 3)
        self.number += count
        return notes(*range(self.number - count, self.number))

    def act(self, readers: Sequence[Reader]) -> None:
        """One thing that happens to a journal; readers may look in the middle of it."""
        match self.random.choice(["session", "session", "torn", "late", "void", "stillborn"]):
            case "session":
                journal = Journal.open(self.layout)
                for _ in range(self.random.randint(0, 3)):
                    journal.commit(self.some())
                    self.poll(readers)
                journal.release()
            case "torn":
                line = encode_line(Commit(1.0, self.some()))
                self.append(line[: self.random.randrange(1, len(line))])
            case "late":  # an older driver writes on although a newer one has taken over
                before = read_journal(self.layout).tail
                session(self.layout, self.some())
                if before is not None and before.path.exists():
                    self.append(encode_line(Commit(1.0, self.some())), path=before.path)
            case "void":  # it writes just before the newer one says how far it has read
                tail = read_journal(self.layout).tail
                if tail is not None:
                    path = self.path(self.newest + 1)
                    path.touch()
                    self.append(encode_line(Commit(1.0, self.some())), path=tail.path)
                    self.poll(readers)
                    path.write_bytes(encode_line(Header(self.newest, ProcessId.me(), 1.0, tail.end)))
                    self.append(encode_line(Commit(1.0, self.some())), path=path)
            case "stillborn":
                if self.newest:
                    self.path(self.newest + 1).write_bytes(b'{"segment":'[: self.random.randrange(11)])

    @property
    def newest(self) -> int:
        return max((file.last for file in list_segments(self.layout.journal)), default=0)

    def path(self, number: int) -> Path:
        return self.layout.journal / f"{number:06d}.jsonl"

    def append(self, data: bytes, path: Path | None = None) -> None:
        """Write to the newest segment, unless its driver died in the middle of a line."""
        tail = read_journal(self.layout).tail
        path = path or (tail.path if tail is not None else None)
        if path is not None and path.read_bytes().endswith(b"\n"):
            with path.open("ab") as file:
                file.write(data)

    def poll(self, readers: Sequence[Reader]) -> None:
        for reader in readers:
            if self.random.random() < 0.5:
                assert reader.poll() == read_journal(self.layout).events


@pytest.mark.usefixtures("merging")
@pytest.mark.parametrize("seed", range(12))
def test_polls_give_what_one_reading_gives_whatever_drivers_do_meanwhile(
    layout: Layout, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_check_not_held", lambda reading, **more: None)  # all others are dead
    drivers = Drivers(layout, seed)
    readers = [Reader(layout) for _ in range(3)]
    for _ in range(30):
        drivers.act(readers)
        drivers.poll(readers)
    expected = read_journal(layout).events
    assert expected
    assert [reader.poll() for reader in [*readers, Reader(layout)]] == [expected] * 4
    assert [reader.follower.poll().events for reader in readers] == [[]] * 3


class Counting:
    """Decodes commits and counts them."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.count = 0

    def decode(self, data: bytes) -> Any:
        self.count += 1
        return self.inner.decode(data)


@pytest.mark.usefixtures("merging")
def test_each_commit_is_decoded_once_although_segments_are_merged(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(follow_module._commits)
    monkeypatch.setattr(follow_module, "_commits", counting)
    reader = Reader(layout)
    merged = 0
    for number in range(30):
        session(layout, notes(number), notes(100 + number))
        merged += any(file.first != file.last for file in list_segments(layout.journal))
        if number % 3 == 0:
            reader.poll()
    assert reader.poll() == read_journal(layout).events
    assert merged > 10
    assert (counting.count, reader.anew) == (60, 1)


def test_a_poll_without_changes_opens_only_the_newest_segment(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        session(layout, notes(number))
    reader = Reader(layout)
    reader.poll()
    opened: list[str] = []
    real = os.open

    def noted(path: Path, *args: Any) -> int:
        opened.append(path.name)
        return real(path, *args)

    monkeypatch.setattr(os, "open", noted)
    reader.poll()
    assert opened == ["000006.jsonl"]


def test_events_that_became_void_are_withdrawn(layout: Layout) -> None:
    session(layout, notes(0))
    end = read_journal(layout).tail
    assert end is not None
    reader = Reader(layout)
    with end.path.open("ab") as file:
        file.write(encode_line(Commit(1.0, notes(1))))
    assert reader.poll() == notes(0, 1)
    header = Header(2, ProcessId.me(), 1.0, end.end)
    (layout.journal / "000002.jsonl").write_bytes(encode_line(header) + encode_line(Commit(2.0, notes(2))))
    assert reader.poll() == notes(0, 2)
    assert reader.anew == 2


def test_the_driver_is_known_until_it_releases(layout: Layout) -> None:
    reader = Reader(layout)
    reader.poll()
    assert (reader.follower.empty, reader.follower.driver) == (True, None)
    journal = Journal.open(layout)
    journal.commit(notes(0))
    reader.poll()
    assert (reader.follower.empty, reader.follower.driver) == (False, ProcessId.me())
    journal.release()
    reader.poll()
    assert reader.follower.driver is None


def test_damage_gives_the_same_error_as_reading_the_whole_journal(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(layout, notes(0), notes(1))
    session(layout, notes(2))
    path = layout.journal / "000001.jsonl"
    whole = path.read_bytes()
    for damaged in (
        whole.replace(b"note 1", b"note 7"),
        whole[:-1],
        whole.replace(b'"segment"', b'"sigment"'),
    ):
        path.write_bytes(damaged)
        with pytest.raises(JournalError) as expected:
            read_journal(layout)
        with pytest.raises(JournalError) as caught:
            JournalTail(layout).poll()
        assert str(caught.value) == str(expected.value)


def test_an_unreadable_folder_is_an_error_in_words(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    session(layout, notes(0))
    reader = Reader(layout)
    reader.poll()
    layout.journal.joinpath("000001.jsonl").unlink()
    layout.journal.rmdir()
    layout.journal.touch()
    session_events = reader.events
    with pytest.raises(FolderError, match="journal: cannot be read: Not a directory"):
        reader.poll()
    assert reader.events == session_events
