"""`--output`: links are followed, what is no regular file is written into, permissions stay."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hpcsweep.errors import FolderError
from hpcsweep.html.page import write_page
from hpcsweep.store.files import is_stdout, write_output
from tests.users import ADA, BOB, IS_ROOT, as_user, open_folder
from tests.waiting import PATIENCE_S


def read_from(path: Path, write: Callable[[], object]) -> bytes:
    """What comes out of a pipe while somebody writes."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write()
    reader.join(20)
    return found[0]


def test_a_page_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    write_page(tmp_path / "a" / "b" / "page.html", "new")
    assert (tmp_path / "a" / "b" / "page.html").read_bytes() == b"new"
    assert os.listdir(tmp_path / "a" / "b") == ["page.html"]


def test_a_link_stays_a_link_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target"
    target.write_bytes(b"old")
    (tmp_path / "between").symlink_to("far/target")
    (tmp_path / "link").symlink_to("between")
    (tmp_path / "dangling").symlink_to("far/made")
    write_output(tmp_path / "link", b"new")
    write_output(tmp_path / "dangling", b"made")
    assert [os.readlink(tmp_path / name) for name in ("link", "between", "dangling")] == [
        "between",
        "far/target",
        "far/made",
    ]
    assert {path.name: path.read_bytes() for path in (tmp_path / "far").iterdir()} == {
        "target": b"new",
        "made": b"made",
    }


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_output(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)


def test_all_names_of_a_file_get_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old and longer")
    os.link(tmp_path / "one", tmp_path / "two")
    write_output(tmp_path / "one", b"new")
    assert [(tmp_path / name).read_bytes() for name in ("one", "two")] == [b"new", b"new"]


def test_a_pipe_is_written_into_and_so_is_one_behind_a_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        assert read_from(tmp_path / "pipe", partial(write_output, tmp_path / name, b"x")) == b"x"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(not IS_ROOT, reason="needs root to make a device")
def test_a_device_is_written_into(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tmp_path / "full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    write_output(tmp_path / "null", b"gone")
    with pytest.raises(FolderError, match="full: cannot be written: No space left on device; elsewhere"):
        write_output(tmp_path / "full", b"x", hint="; elsewhere")
    assert sorted(os.listdir(tmp_path)) == ["full", "null"]
    assert all(stat.S_ISCHR(path.stat().st_mode) for path in tmp_path.iterdir())


def test_a_folder_and_a_link_in_a_circle_are_errors_in_words(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, words in {
        "": "is a folder: give the name of a file",
        "loop": "Too many levels of symbolic links",
    }.items():
        with pytest.raises(FolderError) as caught:
            write_output(tmp_path / name, b"x")
        assert str(caught.value) == f"{tmp_path / name}: cannot be written: {words}"


def test_a_file_that_may_be_written_in_a_folder_that_may_not_is_written_into() -> None:
    with open_folder() as folder:
        path = folder / "page.html"
        path.write_bytes(b"old and longer")
        path.chmod(0o666)
        if IS_ROOT:
            os.chown(path, BOB, BOB)
        else:
            folder.chmod(0o555)
        as_user(lambda: write_output(path, b"new"), user=ADA)
        assert path.read_bytes() == b"new"


WRITES = """\
import sys
from pathlib import Path
from hpcsweep.store.files import is_stdout, write_output
print("before")
write_output(Path(sys.argv[1]), b"data\\n")
print("after", is_stdout(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("to_file", [True, False])
def test_standard_output_is_written_at_its_position(tmp_path: Path, name: str, to_file: bool) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    argv = [sys.executable, "-c", WRITES, name]
    if to_file:
        (tmp_path / "file").write_text("kept\n")
        with (tmp_path / "file").open("a") as file:
            subprocess.run(argv, cwd=tmp_path, stdout=file, check=True, timeout=PATIENCE_S)
        assert (tmp_path / "file").read_text() == "kept\nbefore\ndata\nafter True\n"
    else:
        got = subprocess.run(
            argv, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=PATIENCE_S
        )
        assert got.stdout == "before\ndata\nafter True\n"


def test_a_descriptor_of_the_shell_is_written_into(tmp_path: Path) -> None:
    read, write = os.pipe()
    write_output(Path(f"/dev/fd/{write}"), b"data")
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"data"


def test_a_file_is_not_standard_output(tmp_path: Path) -> None:
    assert not is_stdout(tmp_path / "1")
    assert not is_stdout(Path("/dev/stderr"))
