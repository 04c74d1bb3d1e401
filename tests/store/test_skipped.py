"""What is not ours, or cannot be read, is named and passed over; nothing waits for a pipe."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.events import Outcome
from hpcsweep.errors import FolderError, JournalError
from hpcsweep.store.batch import Result, new_results, write_result
from hpcsweep.store.files import make_dirs, open_append, open_new, read_bytes, write_atomic
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout, Skipped, regular_files
from hpcsweep.store.requests import Request, new_requests, write_request
from hpcsweep.store.run_files import MetricsWriter, metrics_files, read_reports
from tests.store.test_tail import notes, session
from tests.users import ADA, BOB, GROUP, IS_ROOT, as_user, give, open_folder


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


def make_link_to_pipe(path: Path) -> None:
    os.mkfifo(path.parent / ".pipe")
    path.symlink_to(".pipe")


def make_large(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 << 30)


#: Makes something at a path, and why it is passed over as a request.
ODD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "folder": (Path.mkdir, "is a folder, not a file"),
    "pipe": (os.mkfifo, "is a pipe, not a file"),
    "socket": (make_socket, "is a socket, not a file"),
    "link in a circle": (lambda path: path.symlink_to(path), "is a link, not a file"),
    "dangling link": (lambda path: path.symlink_to("/nowhere"), "is a link, not a file"),
    "link to a pipe": (make_link_to_pipe, "is a link, not a file"),
    "empty": (Path.touch, "is damaged: Input data was truncated"),
    "half": (lambda path: path.write_bytes(b"{"), "is damaged: Input data was truncated"),
    "other JSON": (lambda path: path.write_bytes(b"[1]"), "is damaged: Expected `object`, got `array`"),
    "binary": (
        lambda path: path.write_bytes(b"\xff\x00"),
        "is damaged: JSON is malformed: invalid character (byte 0)",
    ),
    "10 GiB": (
        make_large,
        f"cannot be read: has {10 << 30} bytes, more than {1 << 20}",
    ),
}


@pytest.mark.parametrize(("make", "reason"), ODD.values(), ids=ODD)
def test_an_unreadable_request_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], reason: str
) -> None:
    layout = Layout(tmp_path)
    request = Request("stop", 1.0, "ada")
    name = write_request(layout, request).name
    monkeypatch.chdir(layout.control)
    make(layout.control / "x.json")
    found = Skipped()
    assert list(new_requests(layout, (), found)) == [(name, request)]
    assert found.lines(tmp_path) == [f"skipped: control/x.json: {reason}"]


@pytest.mark.parametrize(("make", "reason"), ODD.values(), ids=ODD)
def test_an_unreadable_result_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], reason: str
) -> None:
    batch = Layout(tmp_path).batch("b")
    result = Result(1, 0, 0, 0, task=1, outcome=Outcome.FAILED)
    write_result(batch, result, n=0)
    monkeypatch.chdir(batch.results)
    make(batch.results / "0.0.0.json")
    found = Skipped()
    assert list(new_results(batch, (), found)) == [("1.0.0.json", result)]
    assert found.lines(tmp_path) == [f"skipped: batches/b/results/0.0.0.json: {reason}"]


def test_names_that_are_not_ours_are_named_and_hidden_ones_are_not(tmp_path: Path) -> None:
    batch = Layout(tmp_path).batch("b")
    write_result(batch, Result(0, 0, 0, 0, task=0, outcome=Outcome.FAILED), n=0)
    whole = (batch.results / "0.0.0.json").read_bytes()
    (batch.results / "1.0.0.json").write_bytes(whole)
    strays = [b"notes.json", b"0.0.0 (copy).json", b"0.0.0.json~", b"a\x1b]0;b\nc", b"\xff.json"]
    for name in [*strays, b".0.0.0.json.swp", b".nfs0000", "\u0663.0.0.json".encode()]:
        with open(os.path.join(os.fsencode(batch.results), name), "wb") as file:
            file.write(whole)
    found = Skipped()
    assert [name for name, _ in new_results(batch, (), found)] == ["0.0.0.json"]
    folder = "skipped: batches/b/results"
    assert found.lines(tmp_path) == [
        f"{folder}/0.0.0 (copy).json: is not a file of this sweep",
        f"{folder}/0.0.0.json~: is not a file of this sweep",
        f"{folder}/1.0.0.json: is the result of task 0, restart 0",
        f"{folder}/a\x1b]0;b\nc: is not a file of this sweep",
        f"{folder}/notes.json: is not a file of this sweep",
        "skipped: 2 more files that are not ours",
    ]


def test_a_folder_that_may_not_be_listed_is_named_and_empty() -> None:
    with open_folder() as root:
        layout = Layout(root)
        layout.control.mkdir(mode=0o700)
        if IS_ROOT:
            os.chown(layout.control, BOB, BOB)
        else:
            layout.control.chmod(0)

        def look() -> tuple[list[Any], list[str]]:
            found = Skipped()
            return list(new_requests(layout, (), found)), found.lines(root)

        assert as_user(look) == ([], ["skipped: control: cannot be read: Permission denied"])


def test_stray_files_beside_the_journal_change_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for number in range(3):
        session(layout, notes(number))
    for name in ("000003 (copy).jsonl", "000002.jsonl~", ".000003.jsonl.swp", "README"):
        (layout.journal / name).write_bytes(b"whatever")
    (layout.journal / "000004.jsonl").mkdir()
    os.mkfifo(layout.journal / "000005.jsonl")
    assert read_journal(layout).events == notes(0, 1, 2)
    session(layout, notes(3))
    assert read_journal(layout).events == notes(0, 1, 2, 3)
    assert (layout.journal / "000006.jsonl").is_file()


def test_a_copy_of_a_segment_is_an_error_that_names_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    session(layout, notes(0))
    copy = layout.journal / "000002.jsonl"
    copy.write_bytes((layout.journal / "000001.jsonl").read_bytes())
    with pytest.raises(JournalError) as caught:
        Journal.open(layout)
    assert str(caught.value) == f"{copy}:1: is a copy of segment 000001: remove it"


def test_a_segment_that_may_not_be_read_is_an_error_that_names_it() -> None:
    with open_folder() as root:
        layout = Layout(root)
        session(layout, notes(0))
        give(root, ADA) if IS_ROOT else None
        segment = layout.journal / "000001.jsonl"
        segment.chmod(0)

        def read() -> str:
            try:
                read_journal(layout)
            except FolderError as error:
                return str(error)
            return "it was read"

        assert as_user(read) == f"{segment}: cannot be read: Permission denied"


def test_reading_never_blocks_on_a_pipe_or_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe, not a file"):
        read_bytes(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a device, not a file"):
        read_bytes("/dev/zero")
    with pytest.raises(OSError, match="is a pipe, not a file"):
        open_append(tmp_path / "pipe", flags=os.O_RDWR)


def test_a_link_that_somebody_planted_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(FileExistsError):
        open_new(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"):
        open_append(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"):
        MetricsWriter(tmp_path / "link").write(1, {"loss": 1.0})
    write_atomic(tmp_path / "link", b"ours")
    assert (victim.read_bytes(), (tmp_path / "link").read_bytes()) == (b"mine", b"ours")
    assert not (tmp_path / "link").is_symlink()


def test_the_temporary_name_of_a_long_name_is_short_enough(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)  # of at most 255 bytes
    write_atomic(path, b"all")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def modes(root: Path) -> dict[str, str]:
    """Permissions of everything below."""
    return {
        str(path.relative_to(root)): stat.filemode(path.stat().st_mode) for path in sorted(root.rglob("*"))
    }


def written(root: Path) -> None:
    make_dirs(root / "a" / "b")
    write_atomic(root / "a" / "atomic", b"")
    write_atomic(root / "a" / "private", b"", mode=0o600)
    os.close(open_append(root / "a" / "b" / "log"))
    os.close(open_new(root / "a" / "b" / "new"))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777])
def test_what_is_made_in_a_folder_of_a_group_is_the_groups(umask: int) -> None:
    with open_folder() as root:
        folder = root / "shared"
        folder.mkdir()
        if IS_ROOT:
            os.chown(folder, ADA, GROUP)
        folder.chmod(0o2775)
        as_user(lambda: written(folder), umask=umask)
        others = "r-" if umask == 0o022 else "--"
        others_of_folders = "r-x" if umask == 0o022 else "---"
        assert modes(folder) == {
            "a": f"drwxrws{others_of_folders}",
            "a/atomic": f"-rw-rw-{others}-",
            "a/b": f"drwxrws{others_of_folders}",
            "a/b/log": f"-rw-rw-{others}-",
            "a/b/new": f"-rw-rw-{others}-",
            "a/private": "-rw-------",
        }


@pytest.mark.parametrize(("mode", "umask"), [(0o755, 0o077), (0o1777, 0o077), (0o755, 0o777)])
def test_elsewhere_the_umask_holds_but_for_the_owner(mode: int, umask: int) -> None:
    with open_folder() as root:
        folder = root / "own"
        folder.mkdir()
        if IS_ROOT:
            os.chown(folder, ADA, ADA)
        folder.chmod(mode)
        as_user(lambda: written(folder), umask=umask)
        files = dict.fromkeys(("a/atomic", "a/b/log", "a/b/new", "a/private"), "-rw-------")
        assert modes(folder) == {"a": "drwx------", "a/b": "drwx------"} | files


def test_reports_can_be_read_whatever_umask_training_code_sets() -> None:
    with open_folder() as root:
        if IS_ROOT:
            os.chown(root, ADA, ADA)
        trial = Layout(root).trial(0)

        def report() -> list[Any]:
            writer = MetricsWriter(trial.metrics(0, 0, 0))
            writer.write(1, {"loss": 0.5})
            writer.close()
            return [tuple(each) for file in metrics_files(trial) for each in read_reports(file.path)]

        assert as_user(report, umask=0o777) == [(1, {"loss": 0.5})]


@pytest.mark.skipif(not IS_ROOT, reason="needs two users")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_owner_of_a_sweep_can_read_and_remove_a_colleague_s_request(umask: int) -> None:
    with open_folder() as root:
        layout = Layout(root / "sweep")
        layout.root.mkdir()
        os.chown(layout.root, ADA, GROUP)
        layout.root.chmod(0o2775)
        request = Request("stop", 1.0, "bob")
        name = as_user(lambda: write_request(layout, request).name, user=BOB, umask=umask)

        def take() -> list[Any]:
            found = [(name, msgspec.to_builtins(taken)) for name, taken in new_requests(layout, ())]
            (layout.control / name).unlink()
            return found

        assert as_user(take) == [(name, msgspec.to_builtins(request))]


@pytest.mark.skipif(not IS_ROOT, reason="needs two users")
def test_a_request_that_the_owner_could_not_read_is_refused_in_words() -> None:
    with open_folder() as root:
        layout = Layout(root / "sweep")
        layout.control.mkdir(parents=True)
        os.chown(layout.root, ADA, ADA)
        os.chown(layout.control, BOB, BOB)
        layout.control.chmod(0o700)

        def ask() -> str:
            try:
                write_request(layout, Request("stop", 1.0, "bob"))
            except FolderError as error:
                return str(error)
            return "it was put"

        said = as_user(ask, user=BOB)
        assert said.startswith(f"{layout.control}: lets nobody but its owner in")
        assert list(layout.control.iterdir()) == []


def test_a_folder_with_a_foreign_name_only_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = Skipped()
    for _ in range(2):
        assert list(regular_files(tmp_path, re.compile("a"), found)) == []
    assert found.lines(tmp_path) == ["skipped: a: is a folder, not a file"]
