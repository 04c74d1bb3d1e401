"""The journal: nothing that was committed is lost, nothing that is void is read, one driver at a time."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.events import AnyEvent, StopRequested
from hpcsweep.errors import FolderError, HeldError, JournalError, SupersededError
from hpcsweep.store import files as files_module
from hpcsweep.store import journal as journals
from hpcsweep.store import process_id as owner_module
from hpcsweep.store.journal import MERGE_ABOVE, Journal, current_driver, driver_at_work
from hpcsweep.store.journal import segments as segments_module
from hpcsweep.store.journal.segments import (
    Commit,
    Header,
    Position,
    Released,
    checksum_at,
    ends_at,
    read_journal,
)
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import SILENT_S, ProcessId, start_time
from tests.waiting import PATIENCE_S


def note(number: int) -> AnyEvent:
    return StopRequested(float(number), f"note {number}")


def notes(*numbers: int) -> list[AnyEvent]:
    return [note(number) for number in numbers]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "a sweep")


class Processes:
    """Stands in for the kernel: `die` makes every driver so far a dead process."""

    def __init__(self) -> None:
        self.now = 1

    def start_time(self, pid: int) -> int:
        return self.now

    def die(self) -> None:
        self.now += 1


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    stand_in = Processes()
    monkeypatch.setattr(owner_module, "start_time", stand_in.start_time)
    return stand_in


def session(layout: Layout, *commits: Sequence[AnyEvent], release: bool = True) -> Journal:
    journal = Journal.open(layout)
    for events in commits:
        journal.commit(events)
    if release:
        journal.release()
    return journal


def events(layout: Layout) -> list[AnyEvent]:
    return read_journal(layout).events


def segments(layout: Layout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(layout.journal.iterdir())}


# --------------------------------------------------------------------------- reading and writing


def test_a_folder_without_a_journal_has_no_events(layout: Layout) -> None:
    assert read_journal(layout) == ([], None, [], 0, {})


def test_commits_come_back_in_order_over_many_sessions(layout: Layout) -> None:
    session(layout, notes(0, 1), notes(2))
    session(layout, notes(3))
    session(layout)
    session(layout, notes(4, 5, 6))
    assert events(layout) == notes(0, 1, 2, 3, 4, 5, 6)


def test_a_journal_that_is_only_opened_writes_nothing(layout: Layout) -> None:
    journal = Journal.open(layout)
    journal.heartbeat()
    journal.release()
    assert not layout.root.exists()
    session(layout, notes(0))
    before = segments(layout)
    journal = Journal.open(layout)
    journal.heartbeat()
    journal.release()
    journal.release()
    assert segments(layout) == before


def test_a_session_opens_with_earlier_events_and_its_own_number(layout: Layout) -> None:
    first = session(layout, notes(0))
    second = session(layout, notes(1))
    third = Journal.open(layout)
    assert [first.number, second.number, third.number] == [1, 2, 3]
    assert [first.events, second.events, third.events] == [[], notes(0), notes(0, 1)]


def test_each_commit_is_on_disk_when_it_returns(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def logged(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        fsync(fd)

    journal = Journal.open(layout)
    journal.acquire()
    monkeypatch.setattr(os, "fsync", logged)
    journal.commit(notes(0))
    assert synced == [(layout.journal / "000001.jsonl").stat().st_size]


def test_acquiring_twice_is_acquiring_once(layout: Layout) -> None:
    journal = Journal.open(layout)
    journal.acquire()
    before = segments(layout)
    journal.acquire()
    assert segments(layout) == before


def test_the_header_names_the_writer_and_how_far_the_previous_segment_is_valid(layout: Layout) -> None:
    session(layout, notes(0))
    size = (layout.journal / "000001.jsonl").stat().st_size
    session(layout, notes(1))
    tail = read_journal(layout).tail
    assert tail is not None
    assert (tail.header.segment, tail.header.owner, tail.header.after, tail.released) == (
        2,
        ProcessId.me(),
        Position(1, size),
        True,
    )


# --------------------------------------------------------------------------- damage


def last_line(data: bytes) -> int:
    return data.rindex(b"\n", 0, len(data) - 1) + 1


def test_a_last_line_torn_at_any_byte_is_ignored_and_the_next_session_continues(
    layout: Layout, processes: Processes
) -> None:
    session(layout, notes(0), notes(1), notes(2), release=False)
    path = layout.journal / "000001.jsonl"
    whole = path.read_bytes()
    for cut in range(last_line(whole), len(whole)):
        path.write_bytes(whole[:cut])
        assert events(layout) == notes(0, 1)
        processes.die()
        session(layout, notes(3))
        assert events(layout) == notes(0, 1, 3)
        (layout.journal / "000002.jsonl").unlink()
    path.write_bytes(whole)
    assert events(layout) == notes(0, 1, 2)


def test_a_last_line_of_zeros_is_torn_too(layout: Layout) -> None:
    session(layout, notes(0), release=False)
    path = layout.journal / "000001.jsonl"
    path.write_bytes(path.read_bytes() + b'{"t":1' + bytes(20) + b"\n")
    assert events(layout) == notes(0)


@pytest.mark.parametrize("release", [True, False])
def test_a_changed_byte_before_the_last_line_is_an_error_with_file_and_line(
    layout: Layout, release: bool
) -> None:
    session(layout, notes(0, 1), notes(2), release=release)
    path = layout.journal / "000001.jsonl"
    whole = path.read_bytes()
    end = last_line(whole)
    for position in range(end):
        for bit in (1, 0x20, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            line = whole.count(b"\n", 0, position) + 1
            with pytest.raises(JournalError) as caught:
                events(layout)
            assert str(caught.value).startswith(f"{path}:{line}: damaged: ")
            assert "nothing was changed" in str(caught.value)
    path.write_bytes(whole)
    assert events(layout) == notes(0, 1, 2)


def test_a_changed_byte_in_a_complete_last_line_is_an_error(layout: Layout) -> None:
    session(layout, notes(0), notes(1), release=False)
    path = layout.journal / "000001.jsonl"
    whole = path.read_bytes()
    for position in range(last_line(whole), len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match=r"000001\.jsonl:3: damaged"):
            events(layout)


def test_a_changed_byte_in_an_older_segment_is_an_error(layout: Layout) -> None:
    session(layout, notes(0))
    session(layout, notes(1))
    path = layout.journal / "000001.jsonl"
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match=r"000001\.jsonl:\d: damaged"):
            events(layout)


def test_a_segment_that_was_cut_after_it_was_read_is_an_error(layout: Layout) -> None:
    session(layout, notes(0))
    session(layout, notes(1))
    path = layout.journal / "000001.jsonl"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(JournalError) as caught:
        events(layout)
    assert str(caught.value) == f"{path}: is {size - 1} bytes long, {size} were read of it before"


def test_a_missing_segment_is_an_error(layout: Layout) -> None:
    for number in range(3):
        session(layout, notes(number))
    (layout.journal / "000002.jsonl").unlink()
    with pytest.raises(JournalError) as caught:
        events(layout)
    assert str(caught.value) == f"{layout.journal}: segment 2 is missing".replace(" 2 ", " 000002 ")


def test_newer_segments_that_are_empty_or_hold_only_a_header_change_nothing(
    layout: Layout, processes: Processes
) -> None:
    session(layout, notes(0))
    (layout.journal / "000002.jsonl").write_bytes(b"")
    assert events(layout) == notes(0)
    (layout.journal / "000003.jsonl").write_bytes(b'{"segment":3,"own')
    assert events(layout) == notes(0)
    session_4 = Journal.open(layout)
    session_4.acquire()
    processes.die()
    assert (session_4.number, events(layout)) == (4, notes(0))
    session_5 = session(layout, notes(1))
    assert (session_5.number, events(layout)) == (5, notes(0, 1))


def test_a_damaged_header_below_a_later_segment_is_an_error(layout: Layout) -> None:
    session(layout, notes(0))
    session(layout, notes(1))
    path = layout.journal / "000001.jsonl"
    path.write_bytes(b"")
    with pytest.raises(JournalError, match=r"000001\.jsonl: is 0 bytes long"):
        events(layout)


def test_files_with_other_names_are_ignored(layout: Layout) -> None:
    session(layout, notes(0))
    for name in (".000002.jsonl.17.tmp", "000002.jsonl.bak", "README", "2.jsonl"):
        (layout.journal / name).write_bytes(b"?")
    assert events(layout) == notes(0)


# --------------------------------------------------------------------------- one driver at a time


def test_a_live_driver_refuses_others_with_its_identity(layout: Layout) -> None:
    first = session(layout, notes(0), release=False)
    with pytest.raises(HeldError) as caught:
        Journal.open(layout)
    assert str(caught.value).startswith(f"{layout.root}: {ProcessId.me()} is driving this sweep since 2")
    assert str(ProcessId.me()).startswith(f"process {os.getpid()} of ")
    assert current_driver(read_journal(layout)) == driver_at_work(layout) == ProcessId.me()
    first.commit(notes(1))  # being asked for does not disturb it
    first.release()
    assert current_driver(read_journal(layout)) is None
    assert driver_at_work(layout) is None


@pytest.mark.parametrize("data", [b"", b"{", b"not a header\n"])
def test_newest_segment_that_has_no_header_yet_shows_no_driver(layout: Layout, data: bytes) -> None:
    assert driver_at_work(layout) is None
    journal = Journal.open(layout)
    journal.commit(notes(1))
    (layout.journal / "000002.jsonl").write_bytes(data)
    assert driver_at_work(layout) is None
    journal.release()


def test_after_a_release_the_next_driver_starts_at_once(layout: Layout) -> None:
    first = session(layout, notes(0))
    first.release()
    assert session(layout, notes(1)).events == notes(0)


def test_after_a_release_there_is_no_driver(layout: Layout) -> None:
    first = session(layout, notes(0))
    with pytest.raises(HeldError):
        first.commit(notes(1))
    assert events(layout) == notes(0)


def test_what_a_superseded_driver_writes_is_refused_or_void(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = session(layout, notes(0), release=False)
    processes.die()
    new = session(layout, notes(1), release=False)
    for call in (old.check, lambda: old.commit(notes(7))):
        with pytest.raises(SupersededError) as caught:
            call()
        assert str(caught.value) == f"{layout.root}: a newer driver took over"
    # The old one looked just before the new one came, and writes just after it.
    monkeypatch.setattr(old, "check", lambda: None)
    old.commit(notes(8))
    assert b"note 8" in (layout.journal / "000001.jsonl").read_bytes()
    old.release()
    new.commit(notes(2))
    assert events(layout) == notes(0, 1, 2)
    new.release()
    session(layout, notes(3))
    assert events(layout) == notes(0, 1, 2, 3)


def test_releasing_after_being_superseded_is_no_error(layout: Layout, processes: Processes) -> None:
    old = session(layout, notes(0), release=False)
    processes.die()
    session(layout, notes(1), release=False)
    before = segments(layout)
    old.release()
    assert segments(layout) == before


def test_acquire_fails_if_another_driver_committed_meanwhile(layout: Layout) -> None:
    session(layout, notes(0))
    slow = Journal.open(layout)
    session(layout, notes(1))
    with pytest.raises(HeldError) as caught:
        slow.acquire()
    assert str(caught.value) == f"{layout.root}: another driver is starting on it at this moment"
    assert events(layout) == notes(0, 1)


def test_acquire_fails_if_the_driver_thought_dead_writes_meanwhile(
    layout: Layout, processes: Processes
) -> None:
    old = session(layout, notes(0), release=False)
    processes.die()
    slow = Journal.open(layout)
    old.commit(notes(1))
    with pytest.raises(HeldError):
        slow.commit(notes(9))
    processes.die()
    session(layout, notes(2))
    assert events(layout) == notes(0, 1, 2)


def test_acquire_fails_if_a_third_process_acquired_meanwhile(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(layout, notes(0))
    slow = Journal.open(layout)
    append = Journal._append

    def overtaken(self: Journal, entry: Header | Commit | Released) -> None:
        append(self, entry)
        if self is slow and isinstance(entry, Header):
            processes.die()
            session(layout, notes(1))

    monkeypatch.setattr(Journal, "_append", overtaken)
    with pytest.raises(HeldError, match="another driver is starting"):
        slow.acquire()
    assert events(layout) == notes(0, 1)


def test_who_gave_up_is_not_taken_for_the_driver_by_others_that_gave_up(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(layout, notes(0))
    slow = Journal.open(layout)
    append = Journal._append

    def meets_another(self: Journal, entry: Header | Commit | Released) -> None:
        append(self, entry)
        if isinstance(entry, Header):
            (layout.journal / f"{self.number + 1:06d}.jsonl").touch()

    with monkeypatch.context() as racing:
        racing.setattr(Journal, "_append", meets_another)
        with pytest.raises(HeldError, match="another driver is starting"):
            slow.acquire()
    monkeypatch.setattr("hpcsweep.store.journal._RELEASED", set())  # as another process sees it
    assert current_driver(read_journal(layout)) is None
    session(layout, notes(1))
    assert events(layout) == notes(0, 1)


def test_a_driver_that_is_about_to_begin_is_waited_for(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever began after it would have to give up, and it as well."""
    session(layout, notes(0))
    append, headers = Journal._append, list[Header]()

    def meets_another(self: Journal, entry: Header | Commit | Released) -> None:
        if not isinstance(entry, Header):
            append(self, entry)
            return
        headers.append(entry)
        monkeypatch.setattr("time.sleep", lambda _: append(self, headers.pop()))
        with pytest.raises(HeldError, match="is driving this sweep"):
            Journal.open(layout)

    monkeypatch.setattr(Journal, "_append", meets_another)
    session(layout, notes(1))
    assert events(layout) == notes(0, 1)
    assert list(segments(layout)) == ["000001.jsonl", "000002.jsonl"]


CHILD = """
import sys
from pathlib import Path
from hpcsweep.core.events import StopRequested
from hpcsweep.errors import HeldError
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout

def commit(number):
    try:
        journal = Journal.open(Layout(Path(sys.argv[1])))
        journal.commit([StopRequested(float(number), f"note {number}")])
    except HeldError:
        return None
    return journal

def say(text):
    print(text, flush=True)
"""


@pytest.fixture
def start(layout: Layout) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a Python process on the same folder; it is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start_one(code: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD + code, str(layout.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        return child

    yield start_one
    for child in started:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_killed_driver_can_be_replaced(
    layout: Layout, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    child = start("journal = commit(0); say('ready'); input()")
    assert line(child) == "ready"
    with pytest.raises(HeldError, match=rf"process {child.pid} of .* is driving this sweep since"):
        Journal.open(layout)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie still
    assert session(layout, notes(1)).events == notes(0)
    assert events(layout) == notes(0, 1)


def test_of_many_simultaneous_drivers_each_drives_alone_or_is_refused(
    layout: Layout, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    code = """
for number in range(int(sys.stdin.readline()), 10**6, 100):
    if number > 1000:
        break
    journal = commit(number)
    if journal is not None:
        journal.release()
        say(number)
"""
    children = [start(code) for _ in range(3)]
    for index, child in enumerate(children):
        assert child.stdin is not None
        child.stdin.write(f"{index}\n")
        child.stdin.flush()
    printed = [int(word) for child in children for word in child.communicate(timeout=PATIENCE_S)[0].split()]
    assert sorted(events(layout), key=repr) == sorted(notes(*printed), key=repr)
    assert len(printed) == len(set(printed)) > 0


def elsewhere(monkeypatch: pytest.MonkeyPatch, layout: Layout, *numbers: int) -> Journal:
    """A session of a driver on another machine, which goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(owner_module, "_place", lambda: "another boot/1")
        return session(layout, notes(*numbers), release=False)


def silence(layout: Layout, name: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(layout.journal / name, (then, then))


def test_a_driver_on_another_machine_is_replaced_only_after_silence(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = elsewhere(monkeypatch, layout, 0)
    silence(layout, "000001.jsonl", SILENT_S - 10)
    with pytest.raises(HeldError, match="is driving this sweep"):
        Journal.open(layout)
    silence(layout, "000001.jsonl", SILENT_S + 1)
    assert session(layout, notes(1)).events == notes(0)
    with pytest.raises(SupersededError):  # it was only slow: now it knows
        far.commit(notes(9))
    assert events(layout) == notes(0, 1)


def test_a_heartbeat_from_another_machine_keeps_others_out(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = elsewhere(monkeypatch, layout, 0)
    silence(layout, "000001.jsonl", SILENT_S + 1)
    before = segments(layout)
    far.heartbeat()  # not due yet
    assert session(layout).number == 2
    monkeypatch.setattr(journals, "HEARTBEAT_S", 0.0)
    far.heartbeat()
    with pytest.raises(HeldError):
        Journal.open(layout)
    assert segments(layout) == before


def test_after_a_release_on_another_machine_the_next_driver_starts_at_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch, layout, 0).release()
    assert session(layout, notes(1)).events == notes(0)


def test_a_later_process_with_the_same_pid_is_another_process() -> None:
    me = ProcessId.me()
    assert me.alive(0.0)
    assert me.alive(1e9)  # on its own machine silence says nothing
    assert not msgspec.structs.replace(me, start_time=me.start_time - 1).alive(0.0)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert start_time(child.pid) is None
    assert not msgspec.structs.replace(me, pid=child.pid).alive(0.0)


# --------------------------------------------------------------------------- merging


def test_many_sessions_leave_few_files_and_every_event(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    copied = 0
    write_atomic = files_module.write_atomic

    def counted(path: Path, data: bytes) -> None:
        nonlocal copied
        copied += len(data)
        write_atomic(path, data)

    monkeypatch.setattr(journals, "write_atomic", counted)
    most = 0
    for number in range(400):
        session(layout, notes(number))
        most = max(most, len(segments(layout)))
    assert events(layout) == notes(*range(400))
    assert most <= MERGE_ABOVE + 1
    size = sum(len(data) for data in segments(layout).values())
    assert copied <= 10 * size  # each byte a few times, not once for each session


def test_empty_segments_of_dead_drivers_are_removed(layout: Layout, processes: Processes) -> None:
    session(layout, notes(0))
    for number in range(2, MERGE_ABOVE + 4):
        (layout.journal / f"{number:06d}.jsonl").write_bytes(b"" if number % 2 else b'{"segm')
    session(layout, notes(1))
    last = MERGE_ABOVE + 4
    assert list(segments(layout)) == ["000001.jsonl", f"{last:06d}.jsonl"]
    assert events(layout) == notes(0, 1)


def test_void_lines_of_superseded_drivers_are_not_merged(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = session(layout, notes(0), release=False)
    processes.die()
    session(layout, notes(1))
    monkeypatch.setattr(old, "check", lambda: None)
    old.commit(notes(99))
    for number in range(2, MERGE_ABOVE + 2):
        session(layout, notes(number))
    names = list(segments(layout))
    assert names == [f"000001-{MERGE_ABOVE + 1:06d}.jsonl", f"{MERGE_ABOVE + 2:06d}.jsonl"]
    assert events(layout) == notes(*range(MERGE_ABOVE + 2))
    merged = segments(layout)[names[0]]
    assert b"note 99" not in merged
    assert b"released" not in merged
    assert merged.count(b"\n") == 1 + MERGE_ABOVE + 1  # a header, and each commit


def test_a_large_old_file_is_left_alone(layout: Layout) -> None:
    session(layout, *[notes(*range(500))] * 2)
    for number in range(MERGE_ABOVE + 1):
        session(layout, notes(number))
    last = MERGE_ABOVE + 2
    assert list(segments(layout)) == [
        "000001.jsonl",
        f"000002-{last - 1:06d}.jsonl",
        f"{last:06d}.jsonl",
    ]
    assert events(layout) == [*notes(*range(500)) * 2, *notes(*range(MERGE_ABOVE + 1))]


class Killed(BaseException):
    """The process ends here."""


def killed_at(monkeypatch: pytest.MonkeyPatch, point: int, action: Callable[[], object]) -> bool:
    """Do it, ended before or after the `point`-th file operation; False if it has fewer."""
    count = 0
    dead = False

    def pass_point() -> None:
        nonlocal count, dead
        dead = dead or count == point
        if dead:
            raise Killed
        count += 1

    def around(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            pass_point()
            result = operation(*args, **kwargs)
            pass_point()
            return result

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("open", "write", "fsync", "rename", "unlink"):
            patch.setattr(os, name, around(getattr(os, name)))
        try:
            action()
        except Killed:
            return True
    return False


def test_killed_at_any_operation_of_a_merge_the_journal_holds_the_same_events(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(2):  # one merged file among those that are merged
        for further in range(MERGE_ABOVE):
            session(layout, notes(number * MERGE_ABOVE + further))
    old = list(range(2 * MERGE_ABOVE))
    while len(segments(layout)) <= MERGE_ABOVE:
        session(layout, notes(len(old)))
        old.append(len(old))
    names = set(segments(layout))
    assert sum("-" in name for name in names) == 1
    seen = set()
    for point in range(1000):
        copy = Layout(tmp_path / f"killed at {point}")
        shutil.copytree(layout.root, copy.root)
        processes.die()
        journal = Journal.open(copy)
        killed = killed_at(monkeypatch, point, journal.acquire)
        assert events(copy) == notes(*old)
        seen.add(frozenset(segments(copy)))
        processes.die()
        session(copy, notes(100))
        session(copy, notes(101))
        assert events(copy) == notes(*old, 100, 101)
        assert len(segments(copy)) <= MERGE_ABOVE + 1
        if not killed:
            break
    else:
        raise AssertionError("it was killed at every point")
    assert len(seen) > len(names), "killed before, between and after the removals"


def test_a_full_disk_during_a_merge_does_not_stop_the_driver(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(MERGE_ABOVE + 1):
        session(layout, notes(number))

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journals, "write_atomic", full)
    session(layout, notes(MERGE_ABOVE + 1))
    assert events(layout) == notes(*range(MERGE_ABOVE + 2))
    assert len(segments(layout)) == MERGE_ABOVE + 2


def test_reading_goes_on_while_files_are_merged_away(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(MERGE_ABOVE + 1):
        session(layout, notes(number))
    read_bytes = files_module.read_bytes
    merging = False

    def merged_meanwhile(path: Path) -> bytes:
        nonlocal merging
        if not merging:
            merging = True
            session(layout, notes(MERGE_ABOVE + 1))
        return read_bytes(path)

    monkeypatch.setattr(segments_module, "read_bytes", merged_meanwhile)
    assert events(layout) == notes(*range(MERGE_ABOVE + 2))
    assert len(segments(layout)) == 2


def test_acquire_fails_if_files_are_merged_meanwhile(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(layout, notes(0))
    slow = Journal.open(layout)
    listed = segments_module.list_segments

    def removed(folder: Path) -> Any:
        found = listed(folder)
        (folder / "000001.jsonl").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(segments_module, "list_segments", removed)
    with pytest.raises(HeldError, match="another driver is starting"):
        slow.acquire()


# --------------------------------------------------------------------------- a full disk


def full_disk(monkeypatch: pytest.MonkeyPatch, *, room: int) -> pytest.MonkeyPatch:
    """Let `room` more bytes be written, then none."""
    write = os.write

    def limited(fd: int, data: Any) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(fd, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", limited)
    return monkeypatch


@pytest.mark.parametrize("room", [0, 1, 30])
@pytest.mark.parametrize("let_go", ["while it is full", "when there is room again"])
def test_a_full_disk_is_an_error_in_words_and_the_next_session_continues(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch, room: int, let_go: str
) -> None:
    journal = session(layout, notes(0), release=False)
    with monkeypatch.context() as patch:
        full_disk(patch, room=room)
        with pytest.raises(FolderError) as caught:
            journal.commit(notes(1))
        assert str(caught.value) == (
            f"{layout.journal}: cannot be written: No space left on device. Nothing is lost: free space or "
            "quota, then launch again"
        )
        if let_go == "while it is full":
            journal.release()
            processes.die()
    journal.release()
    assert events(layout) == notes(0)
    session(layout, notes(2))
    assert events(layout) == notes(0, 2)


def test_nothing_is_written_behind_a_line_that_could_not_be_synced(
    layout: Layout, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = session(layout, notes(0), release=False)

    def full(fd: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FolderError, match="Disk quota exceeded"):
            journal.commit(notes(1))
    before = segments(layout)
    with pytest.raises(FolderError, match="an earlier write failed"):
        journal.commit(notes(2))
    journal.release()
    assert segments(layout) == before
    processes.die()
    session(layout, notes(3))
    assert events(layout) in (notes(0, 1, 3), notes(0, 3))


def test_a_disk_too_full_for_a_header_leaves_the_journal_as_it_was(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(layout, notes(0))
    for room in (0, 20):
        with monkeypatch.context() as patch:
            full_disk(patch, room=room)
            with pytest.raises(FolderError, match="No space left on device"):
                Journal.open(layout).acquire()
        assert events(layout) == notes(0)
    session(layout, notes(1))
    assert events(layout) == notes(0, 1)


def test_a_folder_that_cannot_be_read_or_made_is_an_error_in_words(layout: Layout) -> None:
    journal = Journal.open(layout)
    layout.root.write_bytes(b"in the way")
    with pytest.raises(FolderError) as caught:
        Journal.open(layout)
    assert str(caught.value) == f"{layout.journal}: cannot be read: Not a directory"
    with pytest.raises(FolderError) as caught:
        journal.acquire()
    assert str(caught.value) == f"{layout.journal}: cannot be written: Not a directory"


# --------------------------------------------------------------------------- where it ends


def end(layout: Layout) -> tuple[Position, str]:
    reading = read_journal(layout)
    assert reading.tail is not None
    return reading.tail.end, checksum_at(reading)


def test_drivers_that_commit_nothing_do_not_move_the_end_of_the_journal(layout: Layout) -> None:
    journal = Journal.open(layout)
    journal.commit(notes(1, 2))
    at, checksum = end(layout)
    assert ends_at(layout, at, checksum=checksum)
    journal.release()
    assert ends_at(layout, at, checksum=checksum)
    for _ in range(2):
        visitor = Journal.open(layout)
        visitor.acquire()
        assert ends_at(layout, at, checksum=checksum)
        visitor.release()
    (layout.journal / "000004.jsonl").touch()  # of a driver that is about to begin
    assert ends_at(layout, at, checksum=checksum)
    with (layout.journal / "000003.jsonl").open("ab") as file:
        file.write(b'{"t":1.0,"events":[')  # or died in its first commit
    assert ends_at(layout, at, checksum=checksum)


def test_a_commit_or_a_void_line_moves_the_end_of_the_journal(layout: Layout) -> None:
    journal = Journal.open(layout)
    journal.commit(notes(1))
    at, checksum = end(layout)
    assert not ends_at(layout, Position(at.segment, at.offset - 1), checksum=checksum)
    assert not ends_at(layout, at, checksum="00000000")
    assert not ends_at(layout, Position(9, 100), checksum=checksum)
    journal.commit(notes(2))
    assert not ends_at(layout, at, checksum=checksum)
    at, checksum = end(layout)
    journal.release()
    newer = Journal.open(layout)
    newer.commit(notes(3))
    newer.release()
    assert not ends_at(layout, at, checksum=checksum)
    assert ends_at(layout, end(layout)[0], checksum=end(layout)[1])


def test_the_journal_does_not_end_at_a_void_commit(layout: Layout) -> None:
    journal = Journal.open(layout)
    journal.commit(notes(1))
    counted, _ = end(layout)
    journal.commit(notes(2))
    at, checksum = end(layout)
    header = Header(2, ProcessId.me(), 0.0, counted)
    (layout.journal / "000002.jsonl").write_bytes(segments_module.encode_line(header))
    assert not ends_at(layout, at, checksum=checksum)
