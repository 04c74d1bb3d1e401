"""Durable writes: complete or absent, whatever the filesystem says in between."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.store import files
from hpcsweep.store.files import make_dirs, read_bytes, rename, retry_once, write_all, write_atomic


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Flaky:
    """Fails with the given errors, one a call, then succeeds."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise error(self.errors.pop(0))
        return "done"


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_stale_handle_is_retried_once(number: int) -> None:
    action = Flaky(number)
    assert (retry_once(action), action.calls) == ("done", 2)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_handle_that_stays_stale_is_an_error(number: int) -> None:
    action = Flaky(number, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        retry_once(action)
    assert action.calls == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT])
def test_other_errors_are_not_retried(number: int) -> None:
    action = Flaky(number)
    with pytest.raises(OSError, match=os.strerror(number)):
        retry_once(action)
    assert action.calls == 1


def test_reading_survives_a_stale_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"all")
    stale = Flaky(errno.ESTALE)
    opened = os.open

    def reopened(*args: Any) -> int:
        stale()
        return opened(*args)

    monkeypatch.setattr(os, "open", reopened)
    assert read_bytes(path) == b"all"
    assert stale.calls == 2


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    write = os.write
    sizes = []

    def short(fd: int, data: Any) -> int:
        sizes.append(len(data))
        return write(fd, data[:3])

    monkeypatch.setattr(os, "write", short)
    write_all(fd, b"0123456789")
    monkeypatch.undo()
    os.close(fd)
    assert (path.read_bytes(), sizes) == (b"0123456789", [10, 7, 4, 1])


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    fsync, replace = os.fsync, os.rename

    def named(fd: int) -> str:
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

    def logged_fsync(fd: int) -> None:
        log.append(f"fsync {named(fd)}")
        fsync(fd)

    def logged_rename(source: Path, target: Path) -> None:
        log.append(f"rename {source.name} {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "rename", logged_rename)
    write_atomic(tmp_path / "file", b"all")
    temporary = log[0].removeprefix("fsync ")
    assert re.fullmatch(r"\.file\.[0-9a-f]{16}\.tmp", temporary)
    assert log == [f"fsync {temporary}", f"rename {temporary} file", f"fsync {tmp_path.name}"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"all"}


def test_a_rename_that_succeeds_and_reports_an_error_is_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.rename

    def retransmitted(source: Path, target: Path) -> None:
        replace(source, target)
        raise error(errno.ENOENT)

    monkeypatch.setattr(os, "rename", retransmitted)
    write_atomic(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"new"}


@pytest.mark.parametrize("before", [{}, {"file": b"old"}])
def test_a_rename_that_did_not_happen_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, bytes]
) -> None:
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)

    def refused(source: Path, target: Path) -> None:
        raise error(errno.EACCES)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(PermissionError):
        write_atomic(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_renaming_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    write = os.write

    def full(fd: int, data: Any) -> int:
        if len(data) < 4:
            raise error(number)
        return write(fd, data[:2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomic(tmp_path / "file", b"new one")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_stale_handle_while_writing_leaves_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    stale = Flaky(errno.ESTALE)

    def half(fd: int, data: Any) -> int:
        if stale.errors:
            write(fd, data[:2])
            stale()
        return write(fd, data)

    monkeypatch.setattr(os, "write", half)
    write_atomic(tmp_path / "file", b"whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"whole"}


def killed_at(monkeypatch: pytest.MonkeyPatch, point: int, action: Callable[[], object]) -> bool:
    """Do it, ended before or after the `point`-th file operation; False if it has fewer."""

    class Killed(BaseException):
        pass

    count = 0

    def pass_point() -> None:
        nonlocal count
        if count == point:
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


def test_killed_at_any_operation_the_file_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    found = []
    for point in range(100):
        write_atomic(path, b"old")
        if not killed_at(monkeypatch, point, lambda: write_atomic(path, b"new")):
            break
        found.append(path.read_bytes())
    assert found == [b"old"] * found.count(b"old") + [b"new"] * found.count(b"new")
    assert found.count(b"old") >= 6  # open, write and fsync, before and after
    assert found.count(b"new") >= 4  # the folder's sync, after the rename
    assert path.read_bytes() == b"new"


def test_folders_are_made_with_their_parents_and_may_exist(tmp_path: Path) -> None:
    make_dirs(tmp_path / "a" / "b")
    make_dirs(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_syncing_a_file_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        files.fsync_dir(tmp_path / "file")
